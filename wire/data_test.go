package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func item(value string) *DataItem {
	return &DataItem{ID: id("item"), Seed: h("seed"), Validator: "json", Value: []byte(value)}
}

func commitment(t testing.TB, d *DataItem) Hash {
	t.Helper()
	c, err := d.Commitment()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fieldsRoot is the part of the commitment that depends on the fields alone.
func fieldsRoot(t testing.TB, d *DataItem) Hash {
	t.Helper()
	hashes, _, err := d.hashes()
	if err != nil {
		t.Fatal(err)
	}
	return hashes.Fields
}

// Protocol, encoding: a leaf's path is an array of text or index.
func TestPathsDoNotCollide(t *testing.T) {
	values := []string{
		`{"a":[1]}`, `{"a":{"0":1}}`, `{"a/0":1}`, `{"a":1}`, `[1]`, `{"0":1}`, `1`, `"1"`, `{"":1}`, `{}`, `[]`, `"{}"`,
		`[[]]`, `[{}]`, `{"a":{}}`, `{"a":[]}`, `{"a":null}`, `null`, `"null"`, `{"a":"1"}`, `[1,2]`, `[2,1]`, `[[1],2]`,
	}
	seen := map[Hash]string{}
	for _, v := range values {
		root := fieldsRoot(t, item(v))
		if other, dup := seen[root]; dup {
			t.Errorf("%s and %s have the same fields", v, other)
		}
		seen[root] = v
	}
}

// The fields do not depend on white space, key order or spelling; the
// commitment does, by the exact bytes.
func TestCommitmentCoversExactBytes(t *testing.T) {
	a, b := item(`{"a":1.0,"b":"x"}`), item(` {"b" : "\u0078", "a":1e0} `)
	if fieldsRoot(t, a) != fieldsRoot(t, b) {
		t.Error("the same fields in another spelling have another root")
	}
	if commitment(t, a) == commitment(t, b) {
		t.Error("the exact bytes are not committed to")
	}
}

// Protocol, encoding: the commitment covers datatype and blob; and the item's
// id and validator, which would otherwise be free for a peer to change.
func TestCommitmentCoversEverything(t *testing.T) {
	full := func() *DataItem {
		d := item(`{"a":1}`)
		d.Datatype = &DatatypeRef{Name: "n", Version: "1", Hash: h("definition")}
		d.Blob = &BlobRef{Size: 3, Root: h("root"), Hash: h("hash"), Name: "name", Path: "path"}
		return d
	}
	seen := map[Hash]string{commitment(t, full()): "unchanged"}
	for name, change := range map[string]func(*DataItem){
		"id":               func(d *DataItem) { d.ID = id("other") },
		"seed":             func(d *DataItem) { d.Seed = h("other") },
		"validator":        func(d *DataItem) { d.Validator = "none" },
		"value":            func(d *DataItem) { d.Value = []byte(`{"a":2}`) },
		"no value":         func(d *DataItem) { d.Value = nil },
		"datatype name":    func(d *DataItem) { d.Datatype.Name = "m" },
		"datatype version": func(d *DataItem) { d.Datatype.Version = "2" },
		"datatype hash":    func(d *DataItem) { d.Datatype.Hash = h("other") },
		"no datatype":      func(d *DataItem) { d.Datatype = nil },
		"blob size":        func(d *DataItem) { d.Blob.Size = 4 },
		"blob root":        func(d *DataItem) { d.Blob.Root = h("other") },
		"blob hash":        func(d *DataItem) { d.Blob.Hash = h("other") },
		"blob name":        func(d *DataItem) { d.Blob.Name = "namep" },
		"blob path":        func(d *DataItem) { d.Blob.Path = "ath" },
		"no blob":          func(d *DataItem) { d.Blob = nil },
	} {
		d := full()
		change(d)
		c := commitment(t, d)
		if other, dup := seen[c]; dup {
			t.Errorf("%s: same commitment as %s", name, other)
		}
		seen[c] = name
	}
}

// Protocol, encoding: what makes a value one leaf.
func TestOneLeaf(t *testing.T) {
	list := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	for _, c := range []struct {
		name, value string
		fields      int // 0: one leaf that holds the whole value
	}{
		{"object", `{"a":1,"b":[true,null,{}]}`, 4},
		{"duplicate key", `{"a":1,"a":1}`, 0},
		{"duplicate key inside", `{"x":[{"a":1,"b":2,"a":3}]}`, 0},
		{"duplicate key, escaped", `{"a":1,"\u0061":1}`, 0},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", 0},
		{"invalid UTF-8 in a key", "{\"\xc3\":1}", 0},
		{"lone surrogate", `{"a":"\ud800"}`, 0},
		{"surrogate pair", `{"a":"\ud83d\ude00"}`, 1},
		{"4096 leaves", list(4096), 4096},
		{"4097 leaves", list(4097), 0},
		{"depth 64", strings.Repeat("[", 64) + strings.Repeat("]", 64), 1},
		{"depth 65", strings.Repeat("[", 65) + strings.Repeat("]", 65), 0},
		{"long path", `{"` + strings.Repeat("k", 600) + `":1}`, 0},
		{"2^53", `9007199254740992`, 1},
		{"2^53+1", `[9007199254740993]`, 0},
		{"20 digits", `12345678901234567890`, 0},
		{"many digits of a double", `0.1000000000000000055511151231257827`, 0},
		{"0.1", `0.1`, 1},
		{"trailing zeros", `1.50e+2`, 1},
		{"large power", `1e21`, 1},
		{"1e400", `1e400`, 0},
		{"1e-400", `1e-400`, 0},
		{"huge exponent", `1e99999999999999999999`, 0},
		{"zero with exponent", `0e99999999999999999999`, 1},
		{"minus zero", `-0`, 1},
		{"largest double", `1.7976931348623157e308`, 1},
		{"smallest double", `5e-324`, 1},
	} {
		fields, err := fieldsOf([]byte(c.value))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		switch {
		case c.fields == 0 && (len(fields) != 1 || !fields[0].whole || string(fields[0].text) != c.value):
			t.Errorf("%s: %d fields, want the whole value as one", c.name, len(fields))
		case c.fields > 0 && (len(fields) != c.fields || fields[0].whole):
			t.Errorf("%s: %d fields (whole: %v), want %d", c.name, len(fields), fields[0].whole, c.fields)
		}
	}
}

func TestValueMustBeJSON(t *testing.T) {
	for _, v := range []string{" ", "abc", "{", `{"a":}`, `[1,]`, `1 2`, `01`, `{"a":1}x`, "\ufeff1", `'a'`, `NaN`} {
		if _, err := item(v).Commitment(); err == nil {
			t.Errorf("%q is accepted", v)
		}
	}
}

func TestCommitmentLeavesTheValueAlone(t *testing.T) {
	value := ` {"a":["\u0041b",1.50,{"c":null}]} `
	d := item(value)
	commitment(t, d)
	if _, err := d.ProveField([]any{"a", 0}); err != nil {
		t.Fatal(err)
	}
	if string(d.Value) != value {
		t.Errorf("value became %q", d.Value)
	}
}

func TestFieldProof(t *testing.T) {
	d := item(`{"amount":10.50,"lines":[{"sku":"a\u00e9"},{"sku":"b"}],"empty":{}}`)
	c := commitment(t, d)
	for _, want := range []struct {
		path []any
		text string
	}{
		{[]any{"amount"}, `10.5`},
		{[]any{"lines", 0, "sku"}, `"aé"`},
		{[]any{"lines", 1, "sku"}, `"b"`},
		{[]any{"empty"}, `{}`},
	} {
		p, err := d.ProveField(want.path)
		if err != nil {
			t.Fatal(err)
		}
		if string(p.Value) != want.text {
			t.Errorf("%v is %s, want %s", want.path, p.Value, want.text)
		}
		if err := p.Verify(c); err != nil {
			t.Errorf("%v: %v", want.path, err)
		}

		// It survives both encodings.
		b, err := Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var fromCBOR FieldProof
		if err := Unmarshal(b, &fromCBOR); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, fromCBOR); diff != "" {
			t.Error(diff)
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var fromJSON FieldProof
		if err := json.Unmarshal(text, &fromJSON); err != nil {
			t.Fatal(err)
		}
		if err := fromJSON.Verify(c); err != nil {
			t.Errorf("after JSON: %v", err)
		}

		for name, change := range map[string]func(*FieldProof){
			"value": func(p *FieldProof) { p.Value = []byte(`"other"`) },
			"path":  func(p *FieldProof) { p.Path = []any{"other"} },
			"salt":  func(p *FieldProof) { p.Salt[0] ^= 1 },
			"index": func(p *FieldProof) { p.Index ^= 1 },
			"count": func(p *FieldProof) { p.Fields++ },
			"whole": func(p *FieldProof) { p.Whole = true },
			"head":  func(p *FieldProof) { p.Head[0] ^= 1 },
			"exact": func(p *FieldProof) { p.Exact[0] ^= 1 },
			"blob":  func(p *FieldProof) { p.Blob[0] ^= 1 },
			"proof": func(p *FieldProof) { p.Proof = p.Proof[1:] },
		} {
			bad := p
			change(&bad)
			if bad.Verify(c) == nil {
				t.Errorf("%v: another %s is accepted", want.path, name)
			}
		}
	}
	for _, path := range [][]any{{}, {"lines"}, {"lines", 2, "sku"}, {"lines", "0", "sku"}, {"none"}, {-1}, {1.5}, {nil}} {
		if _, err := d.ProveField(path); err == nil {
			t.Errorf("there is a proof for %v", path)
		}
	}
}

func TestWholeValueProof(t *testing.T) {
	d := item(`{"a":1,"a":2}`)
	p, err := d.ProveField(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Whole || string(p.Value) != `{"a":1,"a":2}` {
		t.Errorf("got %+v", p)
	}
	if err := p.Verify(commitment(t, d)); err != nil {
		t.Error(err)
	}
}

func TestFieldProofOfAnyJSON(t *testing.T) {
	scalar := rapid.OneOf(
		rapid.Map(rapid.Int32(), func(n int32) any { return n }),
		rapid.Map(rapid.Float64(), func(n float64) any { return n }),
		rapid.Map(rapid.String(), func(s string) any { return strings.ToValidUTF8(s, "?") }),
		rapid.Just[any](nil), rapid.Just[any](true), rapid.Just[any]([]any{}), rapid.Just[any](map[string]any{}),
	)
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		if depth == 0 {
			return scalar
		}
		inner := rapid.Deferred(func() *rapid.Generator[any] { return value(depth - 1) })
		key := rapid.StringN(0, 8, 20)
		return rapid.OneOf(scalar,
			rapid.Map(rapid.SliceOfN(inner, 0, 4), func(v []any) any { return v }),
			rapid.Map(rapid.MapOfN(key, inner, 0, 4), func(v map[string]any) any { return v }))
	}
	rapid.Check(t, func(t *rapid.T) {
		text, err := json.Marshal(value(3).Draw(t, "value"))
		if err != nil {
			t.Fatal(err)
		}
		d := item(string(text))
		c, err := d.Commitment()
		if err != nil {
			t.Fatal(err)
		}
		fields, err := fieldsOf(text)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range fields {
			if f.whole {
				t.Fatalf("%s is one leaf", text)
			}
			if i > 0 && bytes.Compare(fields[i-1].path, f.path) >= 0 {
				t.Fatalf("%s: paths do not ascend", text)
			}
			var path []any
			if err := Unmarshal(f.path, &path); err != nil {
				t.Fatal(err)
			}
			p, err := d.ProveField(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Verify(c); err != nil {
				t.Fatal(err)
			}
			if !json.Valid(p.Value) {
				t.Fatalf("field %s is not JSON", p.Value)
			}
		}
	})
}

func FuzzCommitment(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":"\u00e9"}],"c":-0.0}`, `[1e400]`, `{"a":1,"a":2}`, "\"\xff\"", `"\ud800"`, `[[[]]]`, `{`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		before := string(value)
		d := &DataItem{Seed: h("seed"), Value: value}
		c, err := d.Commitment()
		if err != nil {
			return
		}
		if string(value) != before {
			t.Fatal("the value was changed")
		}
		if len(value) == 0 {
			return
		}
		fields, err := fieldsOf(value)
		if err != nil || len(fields) == 0 || len(fields) > MaxFields {
			t.Fatalf("%d fields, %v", len(fields), err)
		}
		var path []any
		if err := Unmarshal(fields[len(fields)-1].path, &path); err != nil {
			t.Fatal(err)
		}
		p, err := d.ProveField(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Verify(c); err != nil {
			t.Fatal(err)
		}
	})
}

func TestBlobCommitment(t *testing.T) {
	chunks := []Hash{ChunkHash([]byte("one")), ChunkHash([]byte("two"))}
	if BlobRoot(chunks) == BlobRoot(chunks[:1]) || BlobRoot(nil) == BlobRoot(chunks[:1]) {
		t.Error("the root does not depend on every chunk")
	}
	b := BlobRef{Size: 6, Root: BlobRoot(chunks), Hash: h("bytes"), Name: "file"}
	if b.Commitment(h("a")) == b.Commitment(h("b")) {
		t.Error("the commitment is not salted: a known file could be recognised")
	}
}

func BenchmarkCommitment(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		fields := make([]string, n)
		for i := range fields {
			fields[i] = fmt.Sprintf(`"field%d":"value of field %d"`, i, i)
		}
		d := item("{" + strings.Join(fields, ",") + "}")
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := d.Commitment(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
