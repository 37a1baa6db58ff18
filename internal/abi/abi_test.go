package abi

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

const everyABI = `[
 {"type":"function","name":"f","inputs":[{"name":"a","type":"uint8"},{"name":"","type":"bytes3[2]"}],"outputs":[{"name":"","type":"int256"},{"name":"","type":"bool"}],"stateMutability":"view"},
 {"type":"function","name":"f","inputs":[{"name":"o","type":"tuple[]","internalType":"struct X.O[]","components":[{"name":"id","type":"uint64"},{"name":"$t","type":"tuple","components":[{"name":"_","type":"string[]"},{"name":"a","type":"address"}]}]}],"outputs":[]},
 {"type":"function","name":"g","constant":true,"inputs":[],"outputs":[{"name":"x","type":"function"}]},
 {"type":"event","name":"E","inputs":[{"name":"from","type":"address","indexed":true},{"name":"s","type":"string","indexed":true},{"name":"n","type":"int24"}]},
 {"type":"event","name":"A","anonymous":true,"inputs":[]},
 {"type":"error","name":"Low","inputs":[{"name":"have","type":"uint256"},{"name":"why","type":"string"}]},
 {"type":"constructor","inputs":[{"name":"n","type":"uint256"}]},{"type":"receive","stateMutability":"payable"},{"type":"fallback"}]`

func TestGenerate(t *testing.T) {
	ffi, err := Generate(json.RawMessage(everyABI))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range ffi.Methods {
		c, err := m.Compile()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Pathname+"="+c.Signature)
	}
	for _, e := range ffi.Events {
		got = append(got, e.Pathname+"="+e.Signature)
	}
	for _, e := range ffi.Errors {
		got = append(got, e.Pathname+"="+e.Signature)
	}
	want := "f=f(uint8,bytes3[2]) f_1=f((uint64,(string[],address))[]) g=g() E=E(address,string,int24) A=A() Low=Low(uint256,string)"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	// go-ethereum reads the same signatures out of the same ABI.
	parsed, err := abi.JSON(strings.NewReader(strings.ReplaceAll(strings.ReplaceAll(everyABI, `"$t"`, `"t"`), `"_"`, `"u"`)))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ffi.Methods {
		c, _ := m.Compile()
		if theirs, err := parsed.MethodById(c.Selector[:]); err != nil || theirs.Sig != c.Signature {
			t.Errorf("%s: go-ethereum does not know the selector %x: %v", c.Signature, c.Selector, err)
		}
	}
	again, err := json.Marshal(ffi)
	if err != nil {
		t.Fatal(err)
	}
	var back Interface
	if err := json.Unmarshal(again, &back); err != nil {
		t.Fatal(err)
	}
	if err := back.Complete(); err != nil || !reflect.DeepEqual(&back, ffi) {
		t.Errorf("an interface does not survive its JSON: %v", err)
	}
	for text, part := range map[string]string{
		`{}`: "not an array", `[{"type":"function"}]`: "abi[0].name", `[{"type":"thing","name":"x"}]`: "abi[0].type",
		`[{"type":"function","name":"f","inputs":[{"name":"a","type":"uint7"}]}]`:                                                                                              `"uint7" is not an ABI type`,
		`[{"type":"function","name":"f","inputs":[{"name":"a","type":"uint8[0]"}]}]`:                                                                                           "array length",
		`[{"type":"function","name":"f","inputs":[{"name":"a","type":"uint8[99999]"}]}]`:                                                                                       "array length",
		`[{"type":"event","name":"e","inputs":[{"type":"bool","indexed":true},{"type":"bool","indexed":true},{"type":"bool","indexed":true},{"type":"bool","indexed":true}]}]`: "4 of them are indexed",
	} {
		if _, err := Generate(json.RawMessage(text)); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: got %v, want %q", text, err, part)
		}
	}
}

func one(t testing.TB, typ string) Types {
	t.Helper()
	ts, err := TypesOf("params", []Param{{Name: "x", Schema: json.RawMessage(`{"details":{"type":"` + typ + `"}}`)}})
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

func TestValues(t *testing.T) {
	for _, c := range []struct{ typ, in, out string }{
		{"uint8", `255`, `"255"`}, {"uint8", `"0xff"`, `"255"`}, {"int8", `"-128"`, `"-128"`}, {"int256", `"-0x1"`, `"-1"`},
		{"uint256", `"115792089237316195423570985008687907853269984665640564039457584007913129639935"`, `"115792089237316195423570985008687907853269984665640564039457584007913129639935"`},
		{"int24", `-8388608`, `"-8388608"`}, {"uint24", `16777215`, `"16777215"`}, {"bool", `"true"`, `true`}, {"bool", `false`, `false`},
		{"string", `"ä€"`, `"ä€"`}, {"bytes", `"0x"`, `"0x"`}, {"bytes", `"00ff"`, `"0x00ff"`}, {"bytes2", `"0xABcd"`, `"0xabcd"`},
		{"address", `"0xAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"`, `"0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"`},
		{"function", `"0x` + strings.Repeat("12", 24) + `"`, `"0x` + strings.Repeat("12", 24) + `"`},
		{"uint16[2][]", `[[1,2],["3","4"]]`, `[["1","2"],["3","4"]]`}, {"string[][2]", `[[],["a"]]`, `[[],["a"]]`}, {"uint", `7`, `"7"`}, {"byte", `"01"`, `"0x01"`},
	} {
		ts := one(t, c.typ)
		data, err := ts.Encode("input", json.RawMessage(`{"x":`+c.in+`}`))
		if err != nil {
			t.Errorf("%s %s: %v", c.typ, c.in, err)
			continue
		}
		values, err := ts.Decode(data)
		if err != nil {
			t.Errorf("%s %s: %v", c.typ, c.in, err)
			continue
		}
		if got, err := json.Marshal(values[0]); err != nil || string(got) != c.out {
			t.Errorf("%s %s: got %s, want %s", c.typ, c.in, got, c.out)
		}
	}
	for _, c := range []struct{ typ, in, text string }{
		{"uint8", `256`, "input.x: 256 is above 255, the greatest uint8"}, {"uint8", `-1`, "input.x: -1 is below 0"}, {"int8", `128`, "above 127"},
		{"uint8", `1.5`, "not a whole number"}, {"uint8", `1e3`, "not a whole number"}, {"uint8", `""`, "not a whole number"}, {"uint8", `"0x"`, "not a whole number"},
		{"uint8", `"1_0"`, "not a whole number"}, {"uint8", `null`, "null is not a whole number"}, {"uint256", `"` + strings.Repeat("9", 200) + `"`, "too many digits"},
		{"bool", `1`, "not true or false"}, {"string", `5`, "not a string"}, {"bytes2", `"0x01"`, "has 1 bytes, bytes2 has 2"}, {"bytes", `"0x1"`, "not hexadecimal"},
		{"address", `"0x12"`, "has 1 bytes, address has 20"}, {"uint8[2]", `[1]`, "it has 1 elements, uint8[2] has 2"}, {"uint8[]", `[1,"x"]`, "input.x[1]"}, {"uint8[]", `{}`, "not an array"},
	} {
		var bad *Invalid
		_, err := one(t, c.typ).Encode("input", json.RawMessage(`{"x":`+c.in+`}`))
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s %s: got %v, want %q", c.typ, c.in, err, c.text)
		}
	}
	for in, text := range map[string]string{`[]`: "it has 0 values, want 1", `{}`: "input.x: it is missing", `5`: "want an object", `{"x":1,"y":2}`: "input.y: there is no such parameter", `{`: "no JSON", `{} {}`: "something follows"} {
		if _, err := one(t, "uint8").Encode("input", json.RawMessage(in)); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v, want %q", in, err, text)
		}
	}
}

func TestReasons(t *testing.T) {
	ffi, err := Generate(json.RawMessage(everyABI))
	if err != nil {
		t.Fatal(err)
	}
	low, _ := ffi.Errors[0].Compile()
	args, err := low.Params.Encode("x", json.RawMessage(`{"have":3,"why":"poor"}`))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := hex.DecodeString("08c379a0" + strings.Repeat("0", 62) + "20" + strings.Repeat("0", 62) + "02" + "6e6f" + strings.Repeat("0", 60))
	panics, _ := hex.DecodeString("4e487b71" + strings.Repeat("0", 62) + "11")
	for want, data := range map[string][]byte{
		"Low(have=3, why=poor)": append(low.Selector[:], args...), "no": text, "arithmetic underflow or overflow": panics,
		"the contract reverted without a reason": nil, "the contract reverted with its own error 0xdeadbeef": {0xde, 0xad, 0xbe, 0xef}, "the contract reverted with 0x01": {1},
		"the contract reverted with its own error 0x" + hex.EncodeToString(low.Selector[:]): low.Selector[:],
	} {
		if got := Reason(data, ffi.Errors); got != want {
			t.Errorf("%x: got %q, want %q", data, got, want)
		}
	}
}

func TestEvents(t *testing.T) {
	ffi, err := Generate(json.RawMessage(everyABI))
	if err != nil {
		t.Fatal(err)
	}
	e, err := ffi.Events[0].EventDefinition.Compile()
	if err != nil || e.FilterSignature() != "E(address,string,int24) [i=0,1]" {
		t.Fatalf("%v %v", e, err)
	}
	n := common.BigToHash(new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(5)))
	log := &types.Log{Topics: []common.Hash{e.Topic, common.HexToHash("0xaa"), common.HexToHash("0xbb")}, Data: n[:]}
	out, err := e.Decode(log)
	if err != nil || out["n"] != "-5" || out["from"] != "0x00000000000000000000000000000000000000aa" || out["s"] != common.HexToHash("0xbb").Hex() {
		t.Errorf("got %v, %v", out, err)
	}
	log.Topics = log.Topics[:2]
	if _, err := e.Decode(log); !errors.Is(err, ErrOtherEvent) {
		t.Errorf("with other indexed parameters: %v", err)
	}
	log = &types.Log{Topics: []common.Hash{e.Topic, {}, {}}, Data: []byte{1}}
	if _, err := e.Decode(log); err == nil || errors.Is(err, ErrOtherEvent) {
		t.Errorf("with too little data: %v", err)
	}
}

// generator makes types and values of random numbers.
type generator struct{ *rand.Rand }

func (g generator) argument(depth int) abi.ArgumentMarshaling {
	bases := []string{"uint8", "uint64", "uint256", "int8", "int40", "int256", "bool", "address", "bytes", "bytes1", "bytes32", "string", "function"}
	a := abi.ArgumentMarshaling{Type: bases[g.IntN(len(bases))]}
	if depth > 0 && g.IntN(4) == 0 {
		a.Type = "tuple"
		for i := range 1 + g.IntN(3) {
			c := g.argument(depth - 1)
			c.Name = fmt.Sprintf("c%d", i)
			a.Components = append(a.Components, c)
		}
	}
	for range g.IntN(3) {
		if g.IntN(2) == 0 {
			a.Type += "[]"
		} else {
			a.Type += fmt.Sprintf("[%d]", 1+g.IntN(3))
		}
	}
	return a
}

func (g generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

// value makes a Go value for go-ethereum's codec, and the JSON that we take for
// it.
func (g generator) value(t abi.Type) (reflect.Value, any) {
	v := reflect.New(t.GetType()).Elem()
	switch t.T {
	case abi.IntTy, abi.UintTy:
		n := new(big.Int).SetBytes(g.bytes(t.Size / 8))
		if t.T == abi.IntTy {
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(t.Size-1)))
		}
		switch {
		case v.CanInt():
			v.SetInt(n.Int64())
		case v.CanUint():
			v.SetUint(n.Uint64())
		default:
			v.Set(reflect.ValueOf(n))
		}
		return v, n.String()
	case abi.BoolTy:
		v.SetBool(g.IntN(2) == 0)
		return v, v.Bool()
	case abi.StringTy:
		v.SetString(strings.Repeat("ä", g.IntN(40)))
		return v, v.String()
	case abi.BytesTy:
		v.SetBytes(g.bytes(g.IntN(70)))
		return v, "0x" + hex.EncodeToString(v.Bytes())
	case abi.AddressTy, abi.FixedBytesTy, abi.FunctionTy:
		b := g.bytes(v.Len())
		reflect.Copy(v, reflect.ValueOf(b))
		return v, "0x" + hex.EncodeToString(b)
	case abi.TupleTy:
		o := map[string]any{}
		for i, e := range t.TupleElems {
			f, j := g.value(*e)
			v.Field(i).Set(f)
			o[t.TupleRawNames[i]] = j
		}
		return v, o
	}
	n := t.Size
	if t.T == abi.SliceTy {
		n = g.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
	}
	list := make([]any, n)
	for i := range n {
		e, j := g.value(*t.Elem)
		v.Index(i).Set(e)
		list[i] = j
	}
	return v, list
}

// FuzzAgainstGoEthereum: for types and values made of a seed, our way from JSON
// gives the bytes that go-ethereum gives for the same Go values, and the way back
// gives the same JSON.
func FuzzAgainstGoEthereum(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, seed*7)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		g := generator{rand.New(rand.NewPCG(a, b))}
		arg := g.argument(3)
		theirs, err := abi.NewType(arg.Type, "", arg.Components)
		if err != nil {
			t.Fatal(err)
		}
		definition, err := json.Marshal([]any{map[string]any{"type": "function", "name": "f", "inputs": []any{ours(arg, "x")}}})
		if err != nil {
			t.Fatal(err)
		}
		ffi, err := Generate(definition)
		if err != nil {
			t.Fatalf("%s: %v", definition, err)
		}
		m, err := ffi.Methods[0].Compile()
		if err != nil {
			t.Fatal(err)
		}
		if want := "f(" + theirs.String() + ")"; m.Signature != want {
			t.Fatalf("signature %s, want %s", m.Signature, want)
		}
		v, j := g.value(theirs)
		want, err := abi.Arguments{{Type: theirs}}.Pack(v.Interface())
		if err != nil {
			t.Fatal(err)
		}
		input, err := json.Marshal(map[string]any{"x": j})
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Params.Encode("input", input)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s %s: %v\ngot  %x\nwant %x", m.Signature, input, err, got, want)
		}
		back, err := m.Params.DecodeObject(got, OutputName)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := json.Marshal(back); err != nil || !bytes.Equal(text, input) {
			t.Fatalf("%s: %v\ngot  %s\nwant %s", m.Signature, err, text, input)
		}
	})
}

// ours is an argument of Solidity's ABI, with JSON names.
func ours(a abi.ArgumentMarshaling, name string) map[string]any {
	o := map[string]any{"name": name, "type": a.Type}
	var components []any
	for _, c := range a.Components {
		components = append(components, ours(c, c.Name))
	}
	if components != nil {
		o["components"] = components
	}
	return o
}

// FuzzInterface: whatever is given as an ABI or an interface is refused, or usable
// throughout.
func FuzzInterface(f *testing.F) {
	f.Add([]byte(everyABI), []byte(`{"a":1}`))
	f.Add([]byte(`[{"type":"function","name":"f","inputs":[{"type":"tuple[2][]","components":[{"name":"b","type":"bool"}]}]}]`), []byte(`[[[{"b":true},[false]]]]`))
	f.Add([]byte(`"[]"`), []byte(`null`))
	f.Fuzz(func(t *testing.T, definition, input []byte) {
		ffi, err := Generate(definition)
		if err != nil {
			return
		}
		for i := range ffi.Methods {
			m, err := ffi.Methods[i].Compile()
			if err != nil {
				t.Fatalf("a generated method cannot be compiled: %v", err)
			}
			data, err := m.Params.Encode("input", input)
			if err != nil {
				continue
			}
			values, err := m.Params.Decode(data)
			if err != nil {
				t.Fatalf("%s: what was encoded cannot be decoded: %v", m.Signature, err)
			}
			text, err := json.Marshal(values)
			if err != nil {
				t.Fatal(err)
			}
			again, err := m.Params.Encode("input", text)
			if err != nil || !bytes.Equal(again, data) {
				t.Fatalf("%s %s: %v\n%x\n%x", m.Signature, text, err, again, data)
			}
		}
	})
}

// FuzzDecode: bytes from a chain may be anything.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(strings.Repeat("\x00", 64)))
	f.Add(bytes.Repeat([]byte{0xff}, 96))
	f.Add(common.LeftPadBytes([]byte{0x20}, 32))
	ffi, err := Generate(json.RawMessage(everyABI))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for i := range ffi.Methods {
			m, err := ffi.Methods[i].Compile()
			if err != nil {
				t.Fatal(err)
			}
			for _, ts := range []Types{m.Params, m.Returns} {
				if values, err := ts.Decode(data); err == nil {
					if _, err := json.Marshal(values); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		_ = Reason(data, ffi.Errors)
	})
}
