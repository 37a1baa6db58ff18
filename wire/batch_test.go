package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBatchSealAndOpen(t *testing.T) {
	for _, n := range []int{1, 2, 50, 500} {
		b := testBatch(t, n, 100)
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
		root, err := b.Root()
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		keys := EpochSecret{Secret: h("secret"), Topic: h("topic")}.Keys()
		sealed, err := keys.SealPayload(b.Header.Author, root, encoded)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := keys.OpenPayload(b.Header.Author, root, sealed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeBatch(opened)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := got.Root(); err != nil || again != root {
			t.Fatalf("root %s, want %s (%v)", again, root, err)
		}
		if err := got.Check(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b.Messages[0].Header, got.Messages[0].Header); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestBatchCheckRefuses(t *testing.T) {
	datatype := Definition{Kind: "datatype", Body: []byte(`{"name":"n"}`)}
	// typed is a batch whose first item names a datatype.
	typed := func(b *Batch) {
		b.Data[0].Datatype = &DatatypeRef{Name: "n", Version: "1", Hash: datatype.Hash()}
		b.Messages[0].Header.Data[0] = commitment(t, &b.Data[0])
	}
	valid := testBatch(t, 3, 40)
	typed(valid)
	valid.Definitions = []Definition{datatype}
	if err := valid.Check(); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		want   string
		change func(*Batch)
	}{
		{"version is 2", func(b *Batch) { b.Header.Version = 2 }},
		{"network is missing", func(b *Batch) { b.Header.Network = Hash{} }},
		{"is not the organisation", func(b *Batch) { b.Header.Author = h("x") }},
		{"is not the organisation", func(b *Batch) { b.Header.AuthorName = "org2" }},
		{"is not the organisation", func(b *Batch) { b.Header.AuthorSalt = h("x") }},
		{"author name", func(b *Batch) { b.Header.AuthorName = ""; b.Header.Author = OrgIDOf("", b.Header.AuthorSalt) }},
		{"audience", func(b *Batch) { b.Header.Audience = Hash{} }},
		{"epoch is 0", func(b *Batch) { b.Header.Epoch = 0 }},
		{"node id", func(b *Batch) { b.Header.Node = UUID{} }},
		{"batch id", func(b *Batch) { b.Header.ID = UUID{} }},
		{"salt", func(b *Batch) { b.Header.Salt = Hash{} }},
		{"0 messages", func(b *Batch) { b.Messages = nil }},
		{"4097 messages", func(b *Batch) { b.Messages = make([]Message, MaxMessages+1) }},
		{"message 1", func(b *Batch) { b.Messages[1].Header.ID = UUID{} }},
		{"cid is zero", func(b *Batch) { b.Messages[1].Header.CID = new(UUID) }},
		{"type is missing", func(b *Batch) { b.Messages[1].Header.Type = "" }},
		{"author is missing", func(b *Batch) { b.Messages[1].Header.Author = "" }},
		{"salt is missing", func(b *Batch) { b.Messages[1].Header.Salt = Hash{} }},
		{"0 topics", func(b *Batch) { b.Messages[1].Header.Topics = nil }},
		{"11 topics", func(b *Batch) { b.Messages[1].Header.Topics = strings.Split("a b c d e f g h i j k", " ") }},
		{"occurs twice", func(b *Batch) { b.Messages[1].Header.Topics = []string{"a", "b", "a"} }},
		{"0 bytes", func(b *Batch) { b.Messages[1].Header.Topics = []string{""} }},
		{"65 bytes", func(b *Batch) { b.Messages[1].Header.Topics = []string{strings.Repeat("a", 65)} }},
		{"UTF-8", func(b *Batch) { b.Messages[1].Header.Topics = []string{"\xff"} }},
		{"names 0 data items and commits to 1", func(b *Batch) { b.Messages[1].Data = nil }},
		{"item 3 of the batch, which has 3", func(b *Batch) { b.Messages[2].Data = []uint32{3} }},
		{"which has 3", func(b *Batch) { b.Messages[2].Data = []uint32{1<<32 - 1} }},
		{"order of first use", func(b *Batch) { b.Messages[0].Data = []uint32{1} }},
		{"has the commitment", func(b *Batch) { b.Messages[1].Header.Data[0] = h("x") }},
		{"has the commitment", func(b *Batch) { b.Data[1].Value = []byte("2") }},
		{"not JSON", func(b *Batch) { b.Data[1].Value = []byte("x") }},
		{"no message uses it", func(b *Batch) { b.Data = append(b.Data, *item("1")) }},
		{"occurs twice", func(b *Batch) { b.Data[1].ID = b.Data[0].ID }},
		{"id is zero", func(b *Batch) { b.Data[1].ID = UUID{} }},
		{"seed is missing", func(b *Batch) { b.Data[1].Seed = Hash{} }},
		{"does not carry the definition", func(b *Batch) { b.Definitions = nil }},
		{"does not carry the definition", func(b *Batch) { b.Definitions[0].Body = []byte(`{"name":"m"}`) }},
		{"does not carry the definition", func(b *Batch) { b.Definitions[0].Kind = "identity" }},
		{"occurs twice", func(b *Batch) { b.Definitions = append(b.Definitions, datatype) }},
		{"body is empty", func(b *Batch) { b.Definitions = append(b.Definitions, Definition{Kind: "x"}) }},
		{"same as message 0", func(b *Batch) { b.Messages = append(b.Messages, b.Messages[0]) }},
		{"not valid UTF-8", func(b *Batch) { b.Header.AuthorName = "\xff" }},
		{"not valid UTF-8", func(b *Batch) { b.Messages[0].Header.Tag = "\xff" }},
		{"not valid UTF-8", func(b *Batch) { b.Messages[0].Header.Key = "a\xff" }},
		{"not valid UTF-8", func(b *Batch) { b.Data[0].Datatype.Name = "\xff" }},
		{"not valid UTF-8", func(b *Batch) { b.Data[1].Blob = &BlobRef{Path: "\xff"} }},
		{"not valid UTF-8", func(b *Batch) { b.Data[1].Validator = "\xff" }},
		{"not valid UTF-8", func(b *Batch) { b.Definitions[0].Kind = "\xff"; b.Data[0].Datatype = nil }},
		{"16385 data items", func(b *Batch) { b.Data = make([]DataItem, MaxData+1) }},
		{"16385 definitions", func(b *Batch) { b.Definitions = make([]Definition, MaxData+1) }},
		{"16385 data items", func(b *Batch) {
			b.Messages[0].Data = make([]uint32, MaxData+1)
			b.Messages[0].Header.Data = make([]Hash, MaxData+1)
		}},
		{"blob size", func(b *Batch) { b.Data[1].Blob = &BlobRef{Size: -1} }},
	} {
		b := testBatch(t, 3, 40)
		typed(b)
		b.Definitions = []Definition{datatype}
		c.change(b)
		if err := b.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want an error about %q, got %v", c.want, err)
		}
	}
}

func TestBatchClosesAt256Contexts(t *testing.T) {
	b := testBatch(t, 26, 40)
	for i := range b.Messages {
		b.Messages[i].Header.Topics = nil
	}
	for n := range MaxContexts {
		h := &b.Messages[n/MaxTopics].Header
		h.Topics = append(h.Topics, fmt.Sprint("topic", n))
	}
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	if got := b.Contexts(Keys{}); len(got) != MaxContexts {
		t.Errorf("%d contexts", len(got))
	}
	last := &b.Messages[25].Header
	last.Topics = append(last.Topics, "one more")
	if err := b.Check(); err == nil || !strings.Contains(err.Error(), "257 distinct topics") {
		t.Errorf("got %v", err)
	}
}

// Contexts ascend and are distinct, whatever the order of topics in messages.
func TestBatchContextsAscend(t *testing.T) {
	b := testBatch(t, 20, 40)
	keys := EpochSecret{Secret: h("secret"), Topic: h("topic")}.Keys()
	got := b.Contexts(keys)
	if len(got) != 7 {
		t.Fatalf("%d contexts, want 7", len(got))
	}
	for i := 1; i < len(got); i++ {
		if bytes.Compare(got[i-1][:], got[i][:]) >= 0 {
			t.Error("contexts do not ascend")
		}
	}
}

// Protocol, encoding: leaf 0 fixes where a batch may be pinned and by whom, and
// every field of every header is in the root.
func TestRootCoversEveryHeaderField(t *testing.T) {
	root := func(b *Batch) Hash {
		r, err := b.Root()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	seen := map[Hash]string{root(testBatch(t, 2, 40)): "unchanged"}
	for _, of := range []func(*Batch) reflect.Value{
		func(b *Batch) reflect.Value { return reflect.ValueOf(&b.Header).Elem() },
		func(b *Batch) reflect.Value { return reflect.ValueOf(&b.Messages[1].Header).Elem() },
	} {
		typ := of(testBatch(t, 2, 40)).Type()
		for i := 1; i < typ.NumField(); i++ { // 0 is the blank one
			b := testBatch(t, 2, 40)
			field := of(b).Field(i)
			switch v := field.Addr().Interface().(type) {
			case *Hash:
				v[31] ^= 1
			case *UUID:
				v[15] ^= 1
			case **UUID:
				*v = &UUID{1}
			case *string:
				*v += "x"
			case *int64:
				*v++
			case *uint64:
				*v++
			case *uint:
				*v++
			case *[]string:
				*v = append(*v, "x")
			case *[]Hash:
				*v = append(*v, h("x"))
			default:
				t.Fatalf("no change known for %s", field.Type())
			}
			name := typ.Name() + "." + typ.Field(i).Name
			r := root(b)
			if other, dup := seen[r]; dup {
				t.Errorf("%s: same root as %s", name, other)
			}
			seen[r] = name
		}
	}
}

func TestBatchEncoding(t *testing.T) {
	small, err := testBatch(t, 1, 40).Encode()
	if err != nil || small[0] != formPlain {
		t.Errorf("a small batch has form %d (%v)", small[0], err)
	}
	large, err := testBatch(t, 100, 100).Encode()
	if err != nil || large[0] != formZstd {
		t.Errorf("a large batch has form %d (%v)", large[0], err)
	}
	for name, p := range map[string][]byte{
		"nothing":      {},
		"unknown form": {2, 0x80},
		"not zstd":     {formZstd, 1, 2, 3},
		"cut off":      large[:len(large)-5],
		"not a batch":  {formPlain, 0x80},
		"bomb":         compressor.EncodeAll(make([]byte, MaxBatch+1), []byte{formZstd}),
		"too large":    append([]byte{formPlain}, make([]byte, MaxBatch+1)...),
	} {
		if _, err := DecodeBatch(p); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	b := testBatch(t, 1, 40)
	b.Data[0].Value = bytes.Repeat([]byte{'1'}, MaxBatch)
	if _, err := b.Encode(); err == nil {
		t.Error("a batch above MaxBatch is encoded")
	}
}

// The largest batch, sealed and in its envelope, is one exchange request.
func TestLargestBatchFitsInARequest(t *testing.T) {
	const request = 8 << 20
	sealed, err := Keys{}.SealPayload(OrgID{}, Hash{}, make([]byte, 1+MaxBatch))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Marshal(Envelope{Author: h("a"), Audience: h("b"), Epoch: 1 << 62, Root: h("c"), Sealed: sealed})
	if err != nil || len(b) > request {
		t.Errorf("%d bytes, at most %d fit (%v)", len(b), request, err)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	for _, n := range []int{0, 1, 5, 30} {
		p, err := testBatch(f, n, 60).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := DecodeBatch(p)
		if err != nil {
			return
		}
		again, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeBatch(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b, got, cmp.AllowUnexported(blank...)); diff != "" {
			t.Fatal(diff)
		}
		if err := b.Check(); err == nil {
			if _, err := b.Root(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// blank are the types with a blank field, which cmp would refuse to look into.
var blank = []any{Batch{}, BatchHeader{}, Message{}, MessageHeader{}, DataItem{}, DatatypeRef{}, BlobRef{}, Definition{}}
