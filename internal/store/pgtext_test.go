package store

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// What is stored is text to PostgreSQL, and gives back the same string.
func FuzzPostgresText(f *testing.F) {
	for _, s := range []string{"", "plain", "a\x00b", "\xff", "\ufdd0", "\ufdd0ff", "\xef\xb7", "\ufdd0\x90", "é\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		stored := toPostgresText(s)
		if !utf8.ValidString(stored) || strings.Contains(stored, "\x00") {
			t.Errorf("%q is stored as %q", s, stored)
		}
		if back := fromPostgresText(stored); back != s {
			t.Errorf("%q is stored as %q and comes back as %q", s, stored, back)
		}
		fromPostgresText(s) // whatever others have stored
	})
}
