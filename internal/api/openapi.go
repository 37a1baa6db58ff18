package api

import (
	"encoding"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/parley-node/parley/internal/store"
)

// object is a JSON object of the document.
type object = map[string]any

// openAPI makes the OpenAPI 3.1 document of the operations in the table.
func openAPI(s *server, routes []route) http.Handler {
	schemas := schemas{defs: object{}, names: map[reflect.Type]string{}}
	paths := object{}
	for i := range routes {
		op := &routes[i]
		if op.id == "" {
			continue // known, but not offered
		}
		path := variable.ReplaceAllString("/"+op.path, "{$1}")
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
			paths[path] = item
		}
		item[strings.ToLower(op.method)] = operation(op, &schemas)
	}
	doc := object{
		"openapi": "3.1.0",
		"info":    object{"title": "Parley", "version": s.Version, "description": "The API of a Parley node. Each path without its namespace stands for the default namespace; the form /namespaces/{ns}/… names one."},
		"servers": []object{{"url": strings.TrimSuffix(base, "/")}},
		"paths":   paths,
		"components": object{"schemas": schemas.defs, "responses": object{
			"Error": object{"description": "The request failed", "content": object{"application/json": object{"schema": object{
				"type": "object", "required": []string{"error"}, "properties": object{"error": object{"type": "string", "description": "FFnnnnn: text[: cause]"}},
			}}}},
		}},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := writeJSON(w, http.StatusOK, doc); err != nil {
			writeError(w, err)
		}
	})
}

// variable is one in a path of http.ServeMux.
var variable = regexp.MustCompile(`\{(\w+)(?:\.\.\.)?\}`)

func operation(op *route, schemas *schemas) object {
	var params []object
	add := func(in, name, description string, schema object) {
		params = append(params, object{"in": in, "name": name, "description": description, "schema": schema, "required": in == "path"})
	}
	str, boolean := object{"type": "string"}, object{"type": "boolean"}
	for _, v := range variable.FindAllStringSubmatch(op.path, -1) {
		add("path", v[1], "", str)
	}
	if op.spec.confirm {
		add("query", "confirm", "Wait for the confirmation; the result is as it is then", boolean)
	}
	for _, f := range op.spec.flags {
		add("query", f, "", boolean)
	}
	for _, p := range op.spec.params {
		add("query", p, "", str)
	}
	if col := op.spec.filter; col != nil {
		for _, f := range col.Fields {
			add("query", f.Name, "Filter: [modifiers !:?[ ]][operator =@^$<>]value", str)
		}
		add("query", "sort", "Fields, comma-separated, each with - in front for descending", str)
		add("query", "skip", "", object{"type": "integer"})
		add("query", "limit", "", object{"type": "integer"})
		add("query", "count", "Answer with the number of all matches too", boolean)
		add("query", "ascending", "", boolean)
		add("query", "descending", "", boolean)
	}
	add("header", headerTimeout, "Seconds, or a duration such as 500ms", str)

	success := object{"description": "Success"}
	if op.spec.out != nil {
		success["content"] = object{"application/json": object{"schema": schemas.of(reflect.TypeOf(op.spec.out))}}
	}
	responses := object{"default": object{"$ref": "#/components/responses/Error"}}
	switch {
	case op.spec.confirm:
		responses["200"], responses["202"] = success, success
	case op.spec.status != 0:
		responses[strconv.Itoa(op.spec.status)] = success
	default:
		responses["200"] = success
	}
	out := object{"operationId": op.id, "summary": op.summary, "parameters": params, "responses": responses}
	if op.spec.in != nil {
		content := object{"application/json": object{"schema": schemas.of(reflect.TypeOf(op.spec.in))}}
		if op.spec.form {
			content["multipart/form-data"] = object{"schema": object{"type": "object", "properties": object{
				"autometa": str, "metadata": str, "validator": str, "datatype.name": str, "datatype.version": str,
				"file": object{"type": "string", "format": "binary", "description": "After all other fields"},
			}}}
		}
		out["requestBody"] = object{"content": content}
	}
	return out
}

// schemas gathers JSON schemas of Go types by name.
type schemas struct {
	defs  object
	names map[reflect.Type]string
}

// leaves are types whose JSON form their structure does not show.
var leaves = map[reflect.Type]object{
	reflect.TypeFor[store.Time]():      {"type": []string{"string", "null"}, "format": "date-time"},
	reflect.TypeFor[store.UUID]():      {"type": "string", "format": "uuid"},
	reflect.TypeFor[store.Hex]():       {"type": "string", "pattern": "^[0-9a-f]{64}$"},
	reflect.TypeFor[json.RawMessage](): {},
}

var (
	textType = reflect.TypeFor[encoding.TextMarshaler]()
	jsonType = reflect.TypeFor[json.Marshaler]()
)

func (s *schemas) of(t reflect.Type) object {
	if leaf, ok := leaves[t]; ok {
		return leaf
	}
	switch {
	case t.Kind() == reflect.Pointer:
		return s.of(t.Elem())
	case t.Implements(jsonType):
		return object{"type": "object"}
	case t.Implements(textType):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice, reflect.Array:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.ref(t)
	case reflect.String:
		return object{"type": "string"}
	case reflect.Interface:
		return object{}
	}
	return object{"type": "integer"}
}

// ref is a reference to the schema of a struct, which is made once.
func (s *schemas) ref(t reflect.Type) object {
	name, known := s.names[t]
	if !known {
		name = s.nameFor(t)
		s.names[t] = name
		properties := object{}
		s.defs[name] = object{"type": "object", "properties": properties} // before its fields, which may name it
		s.fields(t, properties)
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// nameFor is the type's name, with a number if another type has it already.
func (s *schemas) nameFor(t reflect.Type) string {
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
func (s *schemas) fields(t reflect.Type, to object) {
	var own []reflect.StructField
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && f.Tag.Get("json") == "" {
			s.fields(f.Type, to)
			continue
		}
		own = append(own, f)
	}
	for _, f := range own {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		to[name] = s.of(f.Type)
	}
}
