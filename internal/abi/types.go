package abi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/accounts/abi"
)

// Type is the ABI type of a value, with the names that its JSON has.
type Type struct {
	Name    string // canonical: uint256, (address,bytes)[2]
	Indexed bool   // of an event's parameter

	codec  abi.Type
	elem   *Type // of an array
	fields Types // of a tuple
}

// Types are named values in order: parameters, or the fields of a tuple.
type Types []Field

// Field is a named value.
type Field struct {
	Name string // may be empty, except in a tuple
	Type *Type
}

// Canonical lists the types as they stand in a signature: "(uint256,bool)".
func (ts Types) Canonical() string {
	names := make([]string, len(ts))
	for i, f := range ts {
		names[i] = f.Type.Name
	}
	return "(" + strings.Join(names, ",") + ")"
}

// arguments are the types for go-ethereum.
func (ts Types) arguments() abi.Arguments {
	args := make(abi.Arguments, len(ts))
	for i, f := range ts {
		args[i] = abi.Argument{Type: f.Type.codec}
	}
	return args
}

// schema is the part of a parameter's JSON schema that says its ABI type.
type schema struct {
	Type    string `json:"type"`
	Details *struct {
		Type    string `json:"type"`
		Indexed bool   `json:"indexed"`
		Index   *int   `json:"index"`
	} `json:"details"`
	Items      *schema            `json:"items"`
	Properties map[string]*schema `json:"properties"`
}

// TypesOf reads the types of parameters out of their schemas. Errors start with
// the path at.
func TypesOf(at string, params []Param) (Types, error) {
	types := make(Types, len(params))
	for i, p := range params {
		where := fmt.Sprintf("%s[%d]", at, i)
		if p.Name != "" {
			where = at + "." + p.Name
		}
		var s schema
		if err := json.Unmarshal(p.Schema, &s); err != nil {
			return nil, fmt.Errorf("%s: its schema is not a JSON schema: %w", where, err)
		}
		t, err := s.abiType(where, 0)
		if err != nil {
			return nil, err
		}
		types[i] = Field{p.Name, t}
	}
	return types, nil
}

// maxDepth bounds how deep types may be nested.
const maxDepth = 32

// abiType is the type that a schema with details describes.
func (s *schema) abiType(at string, depth int) (*Type, error) {
	if s == nil || s.Details == nil || s.Details.Type == "" {
		return nil, fmt.Errorf("%s: its schema lacks details.type, the ABI type; generate the interface from the contract's ABI", at)
	}
	base := s
	name := s.Details.Type
	for strings.HasSuffix(name, "]") {
		i := strings.LastIndexByte(name, '[')
		if i < 0 {
			break
		}
		name = name[:i]
		if base.Items != nil {
			base = base.Items
		}
	}
	var fields Types
	if name == "tuple" {
		var err error
		if fields, err = base.tuple(at, depth); err != nil {
			return nil, err
		}
	}
	t, err := newType(at, s.Details.Type, fields, depth)
	if err == nil {
		t.Indexed = s.Details.Indexed
	}
	return t, err
}

// tuple are the fields of an object's schema, in the order that they say.
func (s *schema) tuple(at string, depth int) (Types, error) {
	if depth >= maxDepth {
		return nil, fmt.Errorf("%s: the type is nested more than %d deep", at, maxDepth)
	}
	type placed struct {
		Field
		index int
	}
	var all []placed
	for name, p := range s.Properties {
		t, err := p.abiType(at+"."+name, depth+1)
		if err != nil {
			return nil, err
		}
		if p.Details.Index == nil {
			return nil, fmt.Errorf("%s.%s: its schema lacks details.index, the field's place in the tuple", at, name)
		}
		all = append(all, placed{Field{name, t}, *p.Details.Index})
	}
	slices.SortFunc(all, func(a, b placed) int { return cmp.Compare(a.index, b.index) })
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: the tuple has no fields; Solidity knows no empty ones", at)
	}
	fields := make(Types, len(all))
	for i, p := range all {
		if p.index != i {
			return nil, fmt.Errorf("%s: the fields' details.index are not 0, 1, 2 …; found %d in place of %d", at, p.index, i)
		}
		fields[i] = p.Field
	}
	return fields, nil
}

// elementary are the types that Solidity has, other than arrays and tuples;
// fixed-point numbers cannot be used in it.
var elementary = regexp.MustCompile(`^(address|bool|string|bytes|function|bytes([1-9]|[12][0-9]|3[0-2])|u?int(8|16|24|32|40|48|56|64|72|80|88|96|104|112|120|128|136|144|152|160|168|176|184|192|200|208|216|224|232|240|248|256))$`)

// maxArray bounds the length of a fixed array: its zero value is in memory at
// once.
const maxArray = 1 << 16

// newType makes a type of its name, where "tuple" stands for the fields.
func newType(at, name string, fields Types, depth int) (*Type, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: the type is nested more than %d deep", at, maxDepth)
	}
	if strings.HasSuffix(name, "]") {
		i := strings.LastIndexByte(name, '[')
		if i < 0 {
			return nil, fmt.Errorf("%s: %q is not an ABI type", at, name)
		}
		elem, err := newType(at, name[:i], fields, depth+1)
		if err != nil {
			return nil, err
		}
		t := &Type{Name: elem.Name + name[i:], elem: elem}
		t.codec = abi.Type{T: abi.SliceTy, Elem: &elem.codec}
		if digits := name[i+1 : len(name)-1]; digits != "" {
			n, err := strconv.Atoi(digits)
			if err != nil || n < 1 || n > maxArray || strconv.Itoa(n) != digits {
				return nil, fmt.Errorf("%s: the array length %q of type %q is not a number from 1 to %d", at, digits, name, maxArray)
			}
			if elem.words()*n > maxArray {
				return nil, fmt.Errorf("%s: a value of type %q has more than %d words", at, name, maxArray)
			}
			t.codec = abi.Type{T: abi.ArrayTy, Elem: &elem.codec, Size: n}
		}
		return t, nil
	}
	if name == "tuple" {
		// go-ethereum makes Go fields of the names, and some that are possible in
		// Solidity are none in Go: it gets others, ours are kept beside.
		codec := abi.Type{T: abi.TupleTy}
		var goFields []reflect.StructField
		for i, f := range fields {
			field := "F" + strconv.Itoa(i)
			codec.TupleElems = append(codec.TupleElems, &f.Type.codec)
			codec.TupleRawNames = append(codec.TupleRawNames, field)
			goFields = append(goFields, reflect.StructField{Name: field, Type: f.Type.codec.GetType()})
		}
		codec.TupleType = reflect.StructOf(goFields)
		return &Type{Name: fields.Canonical(), fields: fields, codec: codec}, nil
	}
	switch name {
	case "int", "uint":
		name += "256"
	case "byte":
		name = "bytes1"
	}
	if !elementary.MatchString(name) {
		return nil, fmt.Errorf("%s: %q is not an ABI type", at, name)
	}
	codec, err := abi.NewType(name, "", nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return &Type{Name: name, codec: codec}, nil
}

// words is how many words a value of the type has at least.
func (t *Type) words() int {
	switch {
	case t.codec.T == abi.ArrayTy:
		return t.elem.words() * t.codec.Size
	case t.codec.T == abi.TupleTy:
		n := 0
		for _, f := range t.fields {
			n += f.Type.words()
		}
		return max(n, 1)
	}
	return 1
}
