package store

import (
	"fmt"
	"math/big"
	"strings"
)

// maxDigits bounds integers in columns; 256 bits have 78.
const maxDigits = 999

// SortableInt writes an integer as text that sorts as the integers do: a sign
// digit (0 below zero, 1 otherwise), three digits of length, and the digits;
// below zero all but the sign are subtracted from nine.
func SortableInt(n *big.Int) (string, error) {
	digits := new(big.Int).Abs(n).String()
	if len(digits) > maxDigits {
		return "", fmt.Errorf("an integer of %d digits is too long, at most %d are possible", len(digits), maxDigits)
	}
	text := fmt.Sprintf("%03d%s", len(digits), digits)
	if n.Sign() < 0 {
		return "0" + complement(text), nil
	}
	return "1" + text, nil
}

// ParseSortableInt reads what SortableInt wrote.
func ParseSortableInt(text string) (*big.Int, error) {
	if len(text) < 5 || strings.Trim(text, "0123456789") != "" || text[0] > '1' {
		return nil, fmt.Errorf("%q is not a sortable integer", text)
	}
	digits := text[1:]
	if text[0] == '0' {
		digits = complement(digits)
	}
	if fmt.Sprintf("%03d", len(digits)-3) != digits[:3] {
		return nil, fmt.Errorf("%q is not a sortable integer: its length is wrong", text)
	}
	n, ok := new(big.Int).SetString(digits[3:], 10)
	if !ok {
		return nil, fmt.Errorf("%q is not a sortable integer", text)
	}
	if text[0] == '0' {
		n.Neg(n)
	}
	return n, nil
}

func complement(digits string) string {
	b := []byte(digits)
	for i, d := range b {
		b[i] = '0' + '9' - d
	}
	return string(b)
}
