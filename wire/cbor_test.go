package wire

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

// Every fixed-size type is a CBOR byte string of exactly its size.
func TestFixedSizesAreByteStrings(t *testing.T) {
	for _, v := range []any{new(Hash), new(Address), new(Tag), new(Handle), new(ContextID), new(Signature), new(UUID)} {
		typ := reflect.TypeOf(v).Elem()
		size := typ.Len()
		head := appendHead(nil, majorBytes, uint64(size))
		want := append(head, bytes.Repeat([]byte{0xab}, size)...)
		if err := Unmarshal(want, v); err != nil {
			t.Fatalf("%s: %v", typ, err)
		}
		if got, err := Marshal(v); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s encodes as %x, want %x (%v)", typ, got, want, err)
		}

		short := append(appendHead(nil, majorBytes, uint64(size-1)), make([]byte, size-1)...)
		long := append(appendHead(nil, majorBytes, uint64(size+1)), make([]byte, size+1)...)
		text := append(appendHead(nil, majorText, uint64(size)), bytes.Repeat([]byte{'a'}, size)...)
		list := append(appendHead(nil, majorArray, uint64(size)), make([]byte, size)...)
		for name, b := range map[string][]byte{"a shorter string": short, "a longer string": long, "text": text, "an array": list, "null": {0xf6}} {
			if err := Unmarshal(b, reflect.New(typ).Interface()); err == nil {
				t.Errorf("%s accepts %s", typ, name)
			}
		}
	}
}

func TestUnmarshalIsStrict(t *testing.T) {
	for name, in := range map[string]string{
		"trailing byte":         "82" + "01" + "02" + "00",
		"missing element":       "81" + "01",
		"extra element":         "83" + "01" + "02" + "03",
		"number not shortest":   "82" + "1801" + "02",
		"indefinite array":      "9f" + "01" + "02" + "ff",
		"map instead of array":  "a2" + "01" + "02" + "03" + "04",
		"tag":                   "c1" + "82" + "01" + "02",
		"null":                  "f6",
		"float for a number":    "82" + "f93c00" + "02",
		"negative":              "82" + "20" + "02",
		"log above 32 bits":     "82" + "01" + "1b0000000100000000",
		"cut off":               "82" + "01",
		"nothing":               "",
		"array length too long": "9b0000000100000002" + "01" + "02",
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		var p Position
		if err := Unmarshal(b, &p); err == nil {
			t.Errorf("%s: accepted as %v", name, p)
		} else if !strings.Contains(err.Error(), "Position") {
			t.Errorf("%s: the error does not name the type: %v", name, err)
		}
	}
	var p Position
	if err := Unmarshal([]byte{0x82, 1, 2}, &p); err != nil || p != (Position{Block: 1, Log: 2}) {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestUnmarshalIsBounded(t *testing.T) {
	deep := append(bytes.Repeat([]byte{0x81}, maxNesting+1), 0x80)
	var v any
	if err := Unmarshal(deep, &v); err == nil {
		t.Error("nesting is not bounded")
	}
	wide := append(appendHead(nil, majorArray, maxElements+1), make([]byte, maxElements+1)...)
	if err := Unmarshal(wide, &v); err == nil {
		t.Error("the number of elements is not bounded")
	}
	if err := Unmarshal(make([]byte, maxEncoded+1), &v); err == nil {
		t.Error("the size is not bounded")
	}

	// Many arrays of few bytes: each within its bound, together not.
	row := append(appendHead(nil, majorArray, maxElements), bytes.Repeat([]byte{majorText}, maxElements)...)
	const rows = maxItems/maxElements + 1
	many := append(appendHead(nil, majorArray, rows), bytes.Repeat(row, rows)...)
	var topics [][]string
	if err := Unmarshal(many, &topics); err == nil || !strings.Contains(err.Error(), "items") {
		t.Errorf("the number of items is not bounded: %v", err)
	}
	// The batch with the most messages stays far below.
	if b, err := Marshal(testBatch(t, MaxMessages, 40)); err != nil || countItems(b) > maxItems/4 {
		t.Errorf("%d items, %v", countItems(b), err)
	}
}

// A nil and an empty list are one value and hash the same.
func TestNilListIsEmptyList(t *testing.T) {
	a, err := Marshal(Pin{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Marshal(Pin{Handles: []Handle{}, Control: []byte{}})
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("%x and %x differ (%v)", a, b, err)
	}
}

// publicTypes are all the types that a peer, or the ledger, can make a node
// decode.
func publicTypes() []any {
	return []any{
		new(Position), new(BatchHeader), new(MessageHeader), new(DatatypeRef), new(BlobRef), new(DataItem), new(Message),
		new(Definition), new(Batch), new(EpochDefinition), new(ChangePolicy), new(EpochSecret), new(Pin), new(Receipt),
		new(Certificate), new(Control), new(Activation), new(Entry), new(Vote), new(Digest),
		new(Envelope), new(Invitation), new(SecretRequest), new(Unpinned), new(FieldProof),
		new(Remnant), new(Remains), new(ErasedItem), new(Erasure), new(ErasureAnswer),
	}
}

func FuzzUnmarshal(f *testing.F) {
	for i, v := range publicTypes() {
		b, err := Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), b)
	}
	batch, err := Marshal(testBatch(f, 2, 40))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(8), batch)
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		types := publicTypes()
		v := types[int(which)%len(types)]
		if Unmarshal(b, v) != nil {
			return
		}
		again, err := Marshal(v)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%T: %x was accepted but encodes as %x (%v)", v, b, again, err)
		}
	})
}
