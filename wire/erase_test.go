package wire

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testErasure() Erasure {
	items := []Hash{h("one"), h("two")}
	slices.SortFunc(items, compareHash)
	return Erasure{Version: Version, Network: h("network"), Org: h("org1"), Audience: h("group"), Root: h("root"), Items: items, Reason: "request 17", At: 1}
}

// What remains of a batch has the batch's leaves, and nothing of what is
// erased: neither value nor seed nor a definition that only it named.
func TestRemnantHasTheLeavesOfTheBatch(t *testing.T) {
	b := testBatch(t, 3, 60)
	want, err := b.CheckedLeaves()
	if err != nil {
		t.Fatal(err)
	}
	gone := b.Data[b.Messages[1].Data[0]]
	r := b.Remnant(nil, h("sealed"))
	if n := r.Erase(b.Messages[1].Header.Data[:1]); n != 1 {
		t.Fatalf("%d items were erased, want 1", n)
	}
	encoded, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeRemnant(encoded)
	if err != nil {
		t.Fatal(err)
	}
	leaves, err := got.CheckedLeaves()
	if err != nil || !slices.Equal(leaves, want) {
		t.Errorf("the leaves are not those of the batch (%v)", err)
	}
	for i := range got.Messages {
		uses := slices.Contains(got.Messages[i].Data, b.Messages[1].Data[0])
		if got.Erased(i) != uses {
			t.Errorf("message %d: erased is %v, want %v", i, got.Erased(i), uses)
		}
	}
	plain, err := Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for what, trace := range map[string][]byte{"value": gone.Value, "seed": gone.Seed[:]} {
		if bytes.Contains(plain, trace) {
			t.Errorf("the %s of the erased item is still in the remnant", what)
		}
	}
}

// What is wrong with a remnant is named.
func TestRemnantFaults(t *testing.T) {
	for name, spoil := range map[string]func(*Remnant){
		"nothing erased":         func(r *Remnant) { r.Data[0] = Remains{Item: &testBatch(t, 3, 60).Data[0]} },
		"kept and erased":        func(r *Remnant) { r.Data[0].Item = r.Data[1].Item },
		"neither":                func(r *Remnant) { r.Data[0].Erased = nil },
		"another commitment":     func(r *Remnant) { r.Data[0].Erased.Commitment[0]++ },
		"id twice":               func(r *Remnant) { r.Data[0].Erased.ID = r.Data[1].Item.ID },
		"altered kept value":     func(r *Remnant) { r.Data[1].Item.Value = []byte(`"other"`) },
		"fault of no message":    func(r *Remnant) { r.Faults = []uint32{3} },
		"faults not ascending":   func(r *Remnant) { r.Faults = []uint32{1, 1} },
		"another receipt":        func(r *Remnant) { r.Receipts = []Receipt{{Faults: h("faults")}} },
		"no sealed batch":        func(r *Remnant) { r.Sealed = Hash{} },
		"no messages":            func(r *Remnant) { r.Messages = nil },
		"definition without use": func(r *Remnant) { r.Definitions = append(r.Definitions, Definition{}) },
		"message altered":        func(r *Remnant) { r.Messages[0].Header.Data[0][0]++ },
	} {
		r := testBatch(t, 3, 60).Remnant(nil, h("sealed"))
		r.Erase(r.Messages[0].Header.Data)
		if _, err := r.CheckedLeaves(); err != nil {
			t.Fatal(err)
		}
		spoil(r)
		if _, err := r.CheckedLeaves(); err == nil {
			t.Errorf("%s: it was accepted", name)
		}
	}
}

func TestErasureSignatures(t *testing.T) {
	key := testKey("org1")
	e := testErasure()
	digest, err := e.Digest()
	if err != nil {
		t.Fatal(err)
	}
	e.Signature = SignDigest(key, digest)
	if got, err := e.Signer(); err != nil || got != AddressOf(key) || e.Check() != nil {
		t.Errorf("signed by %s (%v), check: %v", got, err, e.Check())
	}
	for name, change := range map[string]func(*Erasure){
		"version": func(e *Erasure) { e.Version++ }, "network": func(e *Erasure) { e.Network[0]++ }, "org": func(e *Erasure) { e.Org[0]++ },
		"audience": func(e *Erasure) { e.Audience[0]++ }, "root": func(e *Erasure) { e.Root[0]++ }, "items": func(e *Erasure) { e.Items = e.Items[1:] },
		"reason": func(e *Erasure) { e.Reason += "!" }, "at": func(e *Erasure) { e.At++ },
	} {
		other := e
		change(&other)
		if got, err := other.Signer(); err == nil && got == AddressOf(key) {
			t.Errorf("%s is not covered by the signature", name)
		}
	}
	for name, spoil := range map[string]func(*Erasure){
		"version": func(e *Erasure) { e.Version = 2 }, "no root": func(e *Erasure) { e.Root = Hash{} }, "no items": func(e *Erasure) { e.Items = nil },
		"items twice": func(e *Erasure) { e.Items = []Hash{h("one"), h("one")} }, "long reason": func(e *Erasure) { e.Reason = string(make([]byte, MaxReason+1)) },
		"reason not UTF-8": func(e *Erasure) { e.Reason = "\xff" },
	} {
		other := e
		spoil(&other)
		if other.Check() == nil {
			t.Errorf("a request with a fault in %s was accepted", name)
		}
	}
	a := ErasureAnswer{Version: Version, Network: h("network"), Org: h("org2"), Request: digest, Erased: true, At: 2}
	if digest, err = a.Digest(); err != nil {
		t.Fatal(err)
	}
	a.Signature = SignDigest(key, digest)
	if got, err := a.Signer(); err != nil || got != AddressOf(key) || a.Check() != nil {
		t.Errorf("signed by %s (%v), check: %v", got, err, a.Check())
	}
	for name, spoil := range map[string]func(*ErasureAnswer){
		"version": func(a *ErasureAnswer) { a.Version = 2 }, "request": func(a *ErasureAnswer) { a.Request = Hash{} },
		"refusal without reason": func(a *ErasureAnswer) { a.Erased = false }, "receipt with reason": func(a *ErasureAnswer) { a.Reason = "x" },
	} {
		other := a
		spoil(&other)
		if other.Check() == nil {
			t.Errorf("an answer with a fault in %s was accepted", name)
		}
	}
}

func FuzzDecodeRemnant(f *testing.F) {
	for _, n := range []int{1, 3, 30} {
		r := testBatch(f, n, 60).Remnant([]uint32{0}, h("sealed"))
		r.Erase(r.Messages[0].Header.Data)
		p, err := r.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := DecodeRemnant(p)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeRemnant(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got, cmp.AllowUnexported(append(blank, Remnant{}, Remains{}, ErasedItem{}, Receipt{})...)); diff != "" {
			t.Fatal(diff)
		}
		_, _ = r.CheckedLeaves() // must not panic, whatever it holds
	})
}
