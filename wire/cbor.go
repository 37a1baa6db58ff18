package wire

import (
	"bytes"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Bounds of what Unmarshal accepts. They keep a hostile message from costing
// more than its own size justifies.
const (
	maxEncoded  = 16 << 20 // bytes of one encoded value
	maxNesting  = 16
	maxElements = 1 << 16 // of one array
)

var (
	encoding = must(cbor.EncOptions{
		Sort:          cbor.SortCoreDeterministic,
		ShortestFloat: cbor.ShortestFloat16,
		NaNConvert:    cbor.NaNConvert7e00,
		InfConvert:    cbor.InfConvertFloat16,
		IndefLength:   cbor.IndefLengthForbidden,
		TagsMd:        cbor.TagsForbidden,
		// A nil and an empty list mean the same and must hash the same.
		NilContainers: cbor.NilContainerAsEmpty,
	}.EncMode())

	decoding = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   maxNesting,
		MaxArrayElements:  maxElements,
		MaxMapPairs:       maxElements,
	}.DecMode())
)

// must is for package variables built from constants: a failure is a mistake
// in this file and shows in every run.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Marshal encodes v as deterministic CBOR (RFC 8949 §4.2.1). Byte arrays are
// byte strings; a nil list is an empty one.
func Marshal(v any) ([]byte, error) {
	b, err := encoding.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// Unmarshal decodes exactly one value of deterministic CBOR into the pointer v.
// It refuses every other form of the same value, extra and missing elements,
// wrong lengths and trailing bytes: b is accepted only if Marshal gives b back.
func Unmarshal(b []byte, v any) error {
	if len(b) > maxEncoded {
		return fmt.Errorf("decode %T: %d bytes, at most %d are accepted", v, len(b), maxEncoded)
	}
	if err := decoding.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	again, err := encoding.Marshal(v)
	if err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	if !bytes.Equal(again, b) {
		at := 0
		for at < len(b) && at < len(again) && b[at] == again[at] {
			at++
		}
		return fmt.Errorf("decode %T: byte %d is not in the deterministic form, or a fixed-size field has the wrong size", v, at)
	}
	return nil
}

// CBOR major types that this package writes by hand, for paths.
const (
	majorUint  = 0 << 5
	majorText  = 3 << 5
	majorArray = 4 << 5
)

// appendHead appends the initial bytes of a CBOR item in their shortest form.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return append(b, major|25, byte(n>>8), byte(n))
	case n < 1<<32:
		return append(b, major|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, major|27, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32),
		byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
