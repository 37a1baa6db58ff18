package store

import (
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/errs"
)

// Time returns t in UTC; the zero time for 0.
func (t Time) Time() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(t)).UTC()
}

// String is t in RFC 3339 with as many fractional digits as it needs, "" for 0.
func (t Time) String() string {
	if t == 0 {
		return ""
	}
	return t.Time().Format(time.RFC3339Nano)
}

// MarshalJSON writes RFC 3339 in quotes, or null for 0.
func (t Time) MarshalJSON() ([]byte, error) {
	if t == 0 {
		return []byte("null"), nil
	}
	b := make([]byte, 0, 32)
	b = append(b, '"')
	b = t.Time().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"'), nil
}

// UnmarshalJSON reads what ParseTime reads, as a string or a number; null is 0.
func (t *Time) UnmarshalJSON(b []byte) error {
	text := string(b)
	if text == "null" {
		*t = 0
		return nil
	}
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
		if text == "" {
			*t = 0
			return nil
		}
	}
	parsed, err := ParseTime(text)
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}

// ParseTime reads RFC 3339, or a whole number: below 1e10 seconds, below 1e15
// milliseconds, else nanoseconds since 1970. Times outside the years 1678 to
// 2262 do not fit. The error has code FF00136.
func ParseTime(text string) (Time, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		unit := int64(1)
		switch {
		case n < 1e10:
			unit = int64(time.Second)
		case n < 1e15:
			unit = int64(time.Millisecond)
		}
		if n > math.MaxInt64/unit || n < math.MinInt64/unit {
			return 0, errs.BadTime(text)
		}
		return Time(n * unit), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, errs.BadTime(text)
	}
	if at.IsZero() {
		return 0, nil
	}
	if !time.Unix(0, at.UnixNano()).Equal(at) {
		return 0, errs.BadTime(text)
	}
	return At(at), nil
}

// ParseHex reads 64 hexadecimal digits in any case, with or without 0x; "" is
// none. The error has code FF00106 or FF00107.
func ParseHex(text string) (Hex, error) {
	if text == "" {
		return "", nil
	}
	lower := strings.ToLower(strings.TrimPrefix(text, "0x"))
	b, err := hex.DecodeString(lower)
	if err != nil && !errors.Is(err, hex.ErrLength) {
		return "", errs.BadHash(text, false)
	}
	if err != nil || len(b) != 32 {
		return "", errs.BadHash(text, true)
	}
	return Hex(lower), nil
}

// UnmarshalJSON reads a string as ParseHex does; null is none.
func (h *Hex) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil { // null leaves text empty
		return err
	}
	parsed, err := ParseHex(text)
	if err != nil {
		return err
	}
	*h = parsed
	return nil
}

// textOrNull is the argument for a nullable TEXT column: NULL for "".
func textOrNull[T ~string](s T) any {
	if s == "" {
		return nil
	}
	return string(s)
}

// jsonOrNull is the argument for a nullable column of JSON text, kept byte for
// byte: NULL for nil.
func jsonOrNull(b json.RawMessage) any {
	if b == nil {
		return nil
	}
	return string(b)
}

// list is the comma-joined form in which columns hold lists of names.
func list(names []string) string { return strings.Join(names, ",") }

func unlist(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// nullable scans a TEXT column into *to, "" for NULL.
func nullable[T ~string](to *T) sql.Scanner { return nullText[T]{to} }

type nullText[T ~string] struct{ to *T }

func (n nullText[T]) Scan(v any) error {
	var s sql.NullString
	if err := s.Scan(v); err != nil {
		return err
	}
	*n.to = T(s.String)
	return nil
}
