package openapi

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Schemas gathers the JSON schemas of Go types, by name. Structs become
// components that are referred to; a field without omitempty is required, unless
// it has the tag openapi:"optional", or its type is one that requests use, where
// the reader decides what it needs. A field with the tag openapi:"-" is left out.
type Schemas struct {
	leaves map[reflect.Type]Object // types whose JSON their structure does not show
	inputs map[reflect.Type]bool   // types that requests use
	defs   Object
	names  map[reflect.Type]string
}

// NewSchemas makes an empty collection. Leaves are the schemas of types that
// write their own JSON.
func NewSchemas(leaves map[reflect.Type]Object) *Schemas {
	return &Schemas{leaves: leaves, inputs: map[reflect.Type]bool{}, defs: Object{}, names: map[reflect.Type]string{}}
}

// Definitions are the components, for components.schemas of a document.
func (s *Schemas) Definitions() Object { return s.defs }

var (
	textType = reflect.TypeFor[encoding.TextMarshaler]()
	jsonType = reflect.TypeFor[json.Marshaler]()
)

// Input notes that requests use a type, and all that it holds. Call it for each
// body before Of is called for any type.
func (s *Schemas) Input(t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		s.Input(t.Elem())
	case reflect.Struct:
		if s.inputs[t] || s.leaves[t] != nil {
			return
		}
		s.inputs[t] = true
		for i := range t.NumField() {
			s.Input(t.Field(i).Type)
		}
	}
}

// Of is the schema of a type.
func (s *Schemas) Of(t reflect.Type) Object {
	if leaf, ok := s.leaves[t]; ok {
		return leaf
	}
	switch {
	case t.Kind() == reflect.Pointer:
		return s.Of(t.Elem())
	case t.Implements(jsonType):
		return Object{"type": "object"}
	case t.Implements(textType):
		return Object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return Object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return Object{"type": "number"}
	case reflect.Slice, reflect.Array:
		return Object{"type": "array", "items": s.Of(t.Elem())}
	case reflect.Map:
		return Object{"type": "object", "additionalProperties": s.Of(t.Elem())}
	case reflect.Struct:
		return s.ref(t)
	case reflect.String:
		return Object{"type": "string"}
	case reflect.Interface:
		return Object{}
	case reflect.Int64, reflect.Uint64, reflect.Int, reflect.Uint:
		return Object{"type": "integer", "format": "int64"}
	}
	return Object{"type": "integer"}
}

// ref is a reference to the schema of a struct, which is made once.
func (s *Schemas) ref(t reflect.Type) Object {
	name, known := s.names[t]
	if !known {
		name = s.nameFor(t)
		s.names[t] = name
		properties := Object{}
		def := Object{"type": "object", "properties": properties}
		s.defs[name] = def // before its fields, which may name it
		required := map[string]bool{}
		s.fields(t, properties, required)
		if len(required) > 0 && !s.inputs[t] {
			names := make([]string, 0, len(required))
			for n := range required {
				names = append(names, n)
			}
			slices.Sort(names)
			def["required"] = names
		}
	}
	return Object{"$ref": "#/components/schemas/" + name}
}

// nameFor is the type's name, with a number if another type has it already.
func (s *Schemas) nameFor(t reflect.Type) string {
	name := t.Name()
	if name == "" || strings.Contains(name, "[") {
		name = "Object"
	}
	name = strings.ToUpper(name[:1]) + name[1:]
	for n, base := 2, name; ; n++ {
		if _, taken := s.defs[name]; !taken {
			return name
		}
		name = base + strconv.Itoa(n)
	}
}

// fields adds the properties of a struct, those of embedded ones first, so that
// the outer of two equal names wins.
func (s *Schemas) fields(t reflect.Type, to Object, required map[string]bool) {
	var own []reflect.StructField
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && f.Tag.Get("json") == "" {
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			s.fields(embedded, to, required)
			continue
		}
		own = append(own, f)
	}
	for _, f := range own {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() || f.Tag.Get("openapi") == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		optional := slices.ContainsFunc(strings.Split(options, ","), func(o string) bool { return o == "omitempty" || o == "omitzero" })
		optional = optional || f.Tag.Get("openapi") == "optional"
		schema := s.Of(f.Type)
		if f.Type.Kind() == reflect.Pointer && !optional {
			schema = orNull(schema)
		}
		to[name] = schema
		if required[name] = !optional; optional {
			delete(required, name)
		}
	}
}

// orNull is a schema that accepts null too.
func orNull(schema Object) Object {
	kind, simple := schema["type"].(string)
	if !simple {
		if _, list := schema["type"].([]string); list || len(schema) == 0 {
			return schema // it does already
		}
		return Object{"anyOf": []Object{schema, {"type": "null"}}}
	}
	out := Object{}
	for k, v := range schema {
		out[k] = v
	}
	out["type"] = []string{kind, "null"}
	return out
}
