package abi

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/accounts/abi"
)

// Invalid says which part of an input does not fit, and why.
type Invalid struct {
	Path    string // input.orders[3].amount
	Missing bool   // there is no value at all
	Why     string
}

func (e *Invalid) Error() string { return e.Path + ": " + e.Why }

// maxInteger bounds the text of an integer: no type has more digits.
const maxInteger = 100

// Encode gives the ABI encoding of values. input is a JSON object with one member
// for each name, or an array in order; at is its name in errors, which are
// *Invalid. An empty input is an object without members.
func (ts Types) Encode(at string, input json.RawMessage) ([]byte, error) {
	var v any
	if len(bytes.TrimSpace(input)) > 0 {
		d := json.NewDecoder(bytes.NewReader(input))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			return nil, &Invalid{Path: at, Why: "it is no JSON: " + err.Error()}
		}
		if _, err := d.Token(); err != io.EOF {
			return nil, &Invalid{Path: at, Why: "something follows its JSON"}
		}
	}
	if v == nil {
		v = map[string]any{}
	}
	members, err := ts.members(at, v)
	if err != nil {
		return nil, err
	}
	values := make([]any, len(ts))
	for i, f := range ts {
		g, err := f.Type.value(members[i].path, members[i].value)
		if err != nil {
			return nil, err
		}
		values[i] = g.Interface()
	}
	data, err := ts.arguments().Pack(values...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return data, nil
}

// member is a value and where it was found.
type member struct {
	path  string
	value any
}

// members finds the value of each field in an object or an array.
func (ts Types) members(at string, v any) ([]member, error) {
	found := make([]member, len(ts))
	switch v := v.(type) {
	case []any:
		if len(v) != len(ts) {
			return nil, &Invalid{Path: at, Why: fmt.Sprintf("it has %d values, want %d", len(v), len(ts))}
		}
		for i := range v {
			found[i] = member{at + "[" + strconv.Itoa(i) + "]", v[i]}
		}
	case map[string]any:
		names := make([]string, len(ts))
		for i, f := range ts {
			name := f.Name
			if name == "" {
				name = strconv.Itoa(i) // as an output without a name has it
			}
			names[i] = name
			value, ok := v[name]
			if !ok {
				return nil, &Invalid{Path: at + "." + name, Missing: true, Why: "it is missing; its type is " + f.Type.Name}
			}
			found[i] = member{at + "." + name, value}
		}
		for name := range v {
			if !slices.Contains(names, name) {
				return nil, &Invalid{Path: at + "." + name, Why: "there is no such parameter; there are " + strings.Join(names, ", ")}
			}
		}
	default:
		return nil, &Invalid{Path: at, Why: fmt.Sprintf("it is %s, want an object with the parameters by name", kindOf(v))}
	}
	return found, nil
}

// kindOf says what JSON a value is.
func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "the number " + shorten(v.String())
	case string:
		return strconv.Quote(shorten(v))
	case []any:
		return "an array"
	}
	return "an object"
}

// shorten keeps what a client sent readable in an error.
func shorten(text string) string {
	const most = 80
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}

// value turns JSON into the Go value that go-ethereum encodes.
func (t *Type) value(at string, v any) (reflect.Value, error) {
	bad := func(format string, args ...any) (reflect.Value, error) {
		return reflect.Value{}, &Invalid{Path: at, Why: fmt.Sprintf(format, args...)}
	}
	switch t.codec.T {
	case abi.IntTy, abi.UintTy:
		n, why := integer(v)
		if why == "" {
			why = t.holds(n)
		}
		if why != "" {
			return bad("%s", why)
		}
		return t.number(n), nil
	case abi.BoolTy:
		switch v {
		case true, "true":
			return reflect.ValueOf(true), nil
		case false, "false":
			return reflect.ValueOf(false), nil
		}
		return bad("%s is not true or false", kindOf(v))
	case abi.StringTy:
		s, ok := v.(string)
		if !ok {
			return bad("%s is not a string", kindOf(v))
		}
		return reflect.ValueOf(s), nil
	case abi.BytesTy:
		b, err := hexBytes(v)
		if err != nil {
			return bad("%v", err)
		}
		return reflect.ValueOf(b), nil
	case abi.AddressTy, abi.FixedBytesTy, abi.FunctionTy:
		b, err := hexBytes(v)
		if err != nil {
			return bad("%v", err)
		}
		g := reflect.New(t.codec.GetType()).Elem()
		if len(b) != g.Len() {
			return bad("%s has %d bytes, %s has %d", kindOf(v), len(b), t.Name, g.Len())
		}
		reflect.Copy(g, reflect.ValueOf(b))
		return g, nil
	case abi.TupleTy:
		members, err := t.fields.members(at, v)
		if err != nil {
			return reflect.Value{}, err
		}
		g := reflect.New(t.codec.TupleType).Elem()
		for i, f := range t.fields {
			field, err := f.Type.value(members[i].path, members[i].value)
			if err != nil {
				return reflect.Value{}, err
			}
			g.Field(i).Set(field)
		}
		return g, nil
	}
	list, ok := v.([]any)
	if !ok {
		return bad("%s is not an array", kindOf(v))
	}
	g := reflect.New(t.codec.GetType()).Elem()
	if t.codec.T == abi.SliceTy {
		g.Set(reflect.MakeSlice(g.Type(), len(list), len(list)))
	} else if len(list) != g.Len() {
		return bad("it has %d elements, %s has %d", len(list), t.Name, g.Len())
	}
	for i, e := range list {
		one, err := t.elem.value(at+"["+strconv.Itoa(i)+"]", e)
		if err != nil {
			return reflect.Value{}, err
		}
		g.Index(i).Set(one)
	}
	return g, nil
}

// integer reads a whole number: a JSON number without fraction, or a string in
// decimal or, with 0x, in hexadecimal.
func integer(v any) (n *big.Int, why string) {
	text := ""
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
	default:
		return nil, kindOf(v) + " is not a whole number"
	}
	if len(text) > maxInteger {
		return nil, kindOf(v) + " has too many digits"
	}
	digits, base := text, 10
	sign := ""
	if rest, ok := strings.CutPrefix(digits, "-"); ok {
		sign, digits = "-", rest
	}
	if rest, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = rest, 16
	}
	if digits == "" || strings.ContainsAny(digits, "+-_") {
		return nil, kindOf(v) + " is not a whole number"
	}
	n, ok := new(big.Int).SetString(sign+digits, base)
	if !ok {
		return nil, kindOf(v) + " is not a whole number; write large ones as a string of digits"
	}
	return n, ""
}

// holds says why an integer is out of the type's range, "" if it is not.
func (t *Type) holds(n *big.Int) string {
	least, most := new(big.Int), new(big.Int).Lsh(big.NewInt(1), uint(t.codec.Size))
	if t.codec.T == abi.IntTy {
		most.Rsh(most, 1)
		least.Neg(most)
	}
	most.Sub(most, big.NewInt(1))
	switch {
	case n.Cmp(least) < 0:
		return fmt.Sprintf("%s is below %s, the least %s", n, least, t.Name)
	case n.Cmp(most) > 0:
		return fmt.Sprintf("%s is above %s, the greatest %s", n, most, t.Name)
	}
	return ""
}

// number is an integer as the Go type of its size.
func (t *Type) number(n *big.Int) reflect.Value {
	g := reflect.New(t.codec.GetType()).Elem()
	switch {
	case g.CanInt():
		g.SetInt(n.Int64())
	case g.CanUint():
		g.SetUint(n.Uint64())
	default:
		g.Set(reflect.ValueOf(n))
	}
	return g
}

// hexBytes reads hexadecimal digits, with or without 0x.
func hexBytes(v any) ([]byte, error) {
	s, ok := v.(string)
	if !ok {
		return nil, fmt.Errorf("%s is not a string of hexadecimal digits", kindOf(v))
	}
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		return nil, fmt.Errorf("%s is not hexadecimal", kindOf(v))
	}
	return b, nil
}
