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
	maxItems    = 1 << 19 // of all arrays: a byte of input can cost 32 of memory
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
	if n := countItems(b); n > maxItems {
		return fmt.Errorf("decode %T: more than %d items are not accepted", v, maxItems)
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

// countItems counts the CBOR items in b, up to maxItems + 1. It does not judge
// the form, which the decoder does.
func countItems(b []byte) (n int) {
	for len(b) > 0 && n <= maxItems {
		n++
		major, info := b[0]&0xe0, b[0]&0x1f
		b = b[1:]
		arg := uint64(info)
		if info >= 24 && info <= 27 {
			size := 1 << (info - 24)
			if len(b) < size {
				return n
			}
			arg = 0
			for _, c := range b[:size] {
				arg = arg<<8 | uint64(c)
			}
			b = b[size:]
		}
		if major == majorBytes || major == majorText {
			b = b[min(arg, uint64(len(b))):]
		}
	}
	return n
}

// CBOR major types.
const (
	majorUint  = 0 << 5
	majorBytes = 2 << 5
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
