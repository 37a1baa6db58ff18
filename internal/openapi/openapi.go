// Package openapi makes OpenAPI documents: JSON schemas of Go types, what all
// documents of a node have in common, and their forms. Documents are built as
// version 3.1, whose schemas are JSON Schema 2020-12; To30 gives the form that
// older tools read.
package openapi

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Object is a JSON object of a document.
type Object = map[string]any

// Versions of documents.
const (
	Version31 = "3.1.0"
	Version30 = "3.0.3"
)

// Complete adds to a document what is the same in all of them: how a caller
// shows who it is, and the errors. Open says that nobody has to.
func Complete(doc Object, open bool) {
	components, _ := doc["components"].(Object)
	if components == nil {
		components = Object{}
		doc["components"] = components
	}
	components["securitySchemes"] = Object{
		"key":    Object{"type": "http", "scheme": "bearer", "description": "An API key: Authorization: Bearer KEY"},
		"header": Object{"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key in a header of its own"},
		"user":   Object{"type": "http", "scheme": "basic", "description": "A user and password, or an API key as the password"},
	}
	security := []Object{{"key": []string{}}, {"header": []string{}}, {"user": []string{}}}
	if open {
		security = append(security, Object{})
	}
	doc["security"] = security
	failure := Object{"application/json": Object{"schema": Object{
		"type": "object", "required": []string{"error"},
		"properties": Object{"error": Object{"type": "string", "description": "FFnnnnn: text[: cause]"}},
	}}}
	later := Object{"Retry-After": Object{"description": "Seconds to wait", "schema": Object{"type": "integer"}}}
	components["responses"] = Object{
		"Error":           Object{"description": "The request failed: 400 it is wrong, 404 there is no such thing, 408 it did not end in its time, 409 it conflicts with what is there, 413 and 415 its body is too large or of another type, 500 a fault of the node", "content": failure},
		"Unauthenticated": Object{"description": "The caller is not known: the key or password is missing or wrong", "content": failure},
		"Forbidden":       Object{"description": "The caller has not the role that this needs", "content": failure},
		"TooMany":         Object{"description": "The caller, or all together, ask for more than is allowed", "headers": later, "content": failure},
		"Unavailable":     Object{"description": "The node cannot do this now", "headers": later, "content": failure},
	}
	paths, _ := doc["paths"].(Object)
	for _, item := range paths {
		operations, _ := item.(Object)
		for _, op := range operations {
			operation, ok := op.(Object)
			if !ok {
				continue
			}
			responses, _ := operation["responses"].(Object)
			if responses == nil {
				continue
			}
			for status, name := range map[string]string{"default": "Error", "401": "Unauthenticated", "403": "Forbidden", "429": "TooMany", "503": "Unavailable"} {
				responses[status] = Object{"$ref": "#/components/responses/" + name}
			}
		}
	}
}

// At is the document for a server at a URL.
func At(doc Object, url string) Object {
	out := maps.Clone(doc)
	out["servers"] = []Object{{"url": url}}
	return out
}

// To30 is a document of version 3.1 in the form of 3.0. What 3.0 cannot say is
// said less exactly.
func To30(doc Object) (Object, error) {
	text, err := json.Marshal(doc) // one kind of list and object from here on
	if err != nil {
		return nil, err
	}
	var out Object
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, err
	}
	out["openapi"] = Version30
	if info, ok := out["info"].(Object); ok {
		if licence, ok := info["license"].(Object); ok {
			delete(licence, "identifier")
		}
		delete(info, "summary")
	}
	for key, part := range out {
		if key == "paths" || key == "components" {
			out[key] = older(part)
		}
	}
	return out, nil
}

// older changes what 3.0 says in another way.
func older(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = older(v[i])
		}
		return v
	case Object:
		for key, part := range v {
			// Names of properties, and examples, are no keywords.
			if key == "properties" {
				if named, ok := part.(Object); ok {
					for name, schema := range named {
						named[name] = older(schema)
						if anything, ok := named[name].(Object); ok && len(anything) == 0 {
							anything["nullable"] = true // which 3.1 need not say
						}
					}
					continue
				}
			}
			if key == "example" || key == "default" || key == "enum" {
				continue
			}
			v[key] = older(part)
		}
		olderSchema(v)
		return v
	}
	return v
}

func olderSchema(schema Object) {
	if kinds, ok := schema["type"].([]any); ok {
		var rest []any
		for _, k := range kinds {
			if k == "null" {
				schema["nullable"] = true
			} else {
				rest = append(rest, k)
			}
		}
		delete(schema, "type")
		switch len(rest) {
		case 0:
		case 1:
			schema["type"] = rest[0]
		default:
			alternatives := make([]any, len(rest))
			for i, k := range rest {
				alternatives[i] = Object{"type": k}
				if k == "array" {
					alternatives[i] = Object{"type": k, "items": Object{}}
				}
			}
			schema["anyOf"] = alternatives
		}
	}
	if either, ok := schema["anyOf"].([]any); ok {
		var rest []any
		for _, s := range either {
			if alternative, ok := s.(Object); ok && alternative["type"] == "null" {
				schema["nullable"] = true
				continue
			}
			rest = append(rest, s)
		}
		if len(rest) == 1 && len(rest) < len(either) {
			delete(schema, "anyOf")
			schema["allOf"] = rest
		} else {
			schema["anyOf"] = rest
		}
	}
	if value, ok := schema["const"]; ok {
		if _, isSchema := value.(Object); !isSchema {
			delete(schema, "const")
			schema["enum"] = []any{value}
		}
	}
	if list, ok := schema["examples"].([]any); ok && len(list) > 0 {
		delete(schema, "examples")
		schema["example"] = list[0]
	}
	if schema["type"] == "array" && schema["items"] == nil {
		schema["items"] = Object{}
	}
	for _, unknown := range []string{"$schema", "$id", "$comment", "patternProperties", "contentEncoding", "contentMediaType", "prefixItems"} {
		delete(schema, unknown)
	}
}

// JSON writes a document, its objects sorted by name.
func JSON(doc Object) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(doc)
	return b.Bytes(), err
}

// YAML writes a document.
func YAML(doc Object) ([]byte, error) {
	text, err := JSON(doc)
	if err != nil {
		return nil, err
	}
	var plain any // the names in Go are no names of JSON
	if err := yaml.Unmarshal(text, &plain); err != nil {
		return nil, err
	}
	return yaml.Marshal(plain)
}

// PathVariables turns a path of http.ServeMux into one of a document, and names
// its variables.
func PathVariables(path string) (template string, names []string) {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
			name := strings.TrimSuffix(s[1:len(s)-1], "...")
			segments[i] = "{" + name + "}"
			names = append(names, name)
		}
	}
	return strings.Join(segments, "/"), names
}
