package store

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// PostgreSQL's text holds neither the character NUL nor bytes that are no
// UTF-8, and SQLite's holds both. A peer may put a NUL into a tag or a topic,
// and that must not keep a member from storing the message and going on. So such
// a byte is stored as a code point that means nothing in Unicode, U+FDD0,
// followed by the byte in hexadecimal; U+FDD0 itself as its three bytes in that
// form.
const pgEscape = "\ufdd0"

// toPostgresText is s as PostgreSQL can store it; equal for all usual texts, and
// different for different s.
func toPostgresText(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 && !strings.Contains(s, pgEscape) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if r == 0 || r == utf8.RuneError && size == 1 || s[:size] == pgEscape {
			for _, c := range []byte(s[:size]) {
				b.WriteString(pgEscape)
				b.WriteString(hex.EncodeToString([]byte{c}))
			}
		} else {
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

// fromPostgresText is the reverse. Text that toPostgresText did not make stays
// as it is.
func fromPostgresText(s string) string {
	before, after, found := strings.Cut(s, pgEscape)
	if !found {
		return s
	}
	var b strings.Builder
	for found {
		b.WriteString(before)
		c, err := hex.DecodeString(after[:min(2, len(after))])
		if err == nil && len(c) == 1 {
			b.Write(c)
			after = after[2:]
		} else {
			b.WriteString(pgEscape)
		}
		before, after, found = strings.Cut(after, pgEscape)
	}
	return b.String() + before
}
