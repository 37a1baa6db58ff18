package node

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// This file knows the keys of a configuration by the types that hold them: for
// values from outside the file, for mistyped keys, and for their list.

// yamlKey is the key that a struct's field has; inline says that the field's own
// fields stand in its place.
func yamlKey(f reflect.StructField) (name string, inline bool) {
	tag := f.Tag.Get("yaml")
	name, options, _ := strings.Cut(tag, ",")
	return name, strings.Contains(options, "inline")
}

// fieldByKey finds the field of a struct that has a key, whatever its case if
// fold is set.
func fieldByKey(t reflect.Type, key string, fold bool) (f reflect.StructField, ok bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, inline := yamlKey(f)
		switch {
		case inline:
			if g, ok := fieldByKey(f.Type, key, fold); ok {
				g.Index = append(slices.Clone(f.Index), g.Index...)
				return g, true
			}
		case name == "-" || name == "":
		case name == key || fold && strings.EqualFold(name, key):
			return f, true
		}
	}
	return f, false
}

// keysOf lists the keys of a struct.
func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		switch name, inline := yamlKey(f); {
		case inline:
			keys = append(keys, keysOf(f.Type)...)
		case name != "-" && name != "":
			keys = append(keys, name)
		}
	}
	return keys
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// leaf reports whether a type is written as one value.
func leaf(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(textUnmarshaler) || t.Kind() != reflect.Struct && t.Kind() != reflect.Map && t.Kind() != reflect.Pointer &&
		(t.Kind() != reflect.Slice || leaf(t.Elem()))
}

// assign gives the key at a path the value that a text stands for, and returns
// the path as the file writes it. Lists of plain values are separated by commas.
func assign(v reflect.Value, path []string, text string) (full []string, err error) {
	t := v.Type()
	if leaf(t) {
		if len(path) > 0 {
			return nil, fmt.Errorf("there is nothing below it")
		}
		return nil, assignLeaf(v, text)
	}
	if t.Kind() == reflect.Pointer {
		next := reflect.New(t.Elem())
		if !v.IsNil() {
			next.Elem().Set(v.Elem())
		}
		if full, err = assign(next.Elem(), path, text); err == nil {
			v.Set(next)
		}
		return full, err
	}
	if len(path) == 0 {
		return nil, fmt.Errorf("it is a group of keys; name one of them")
	}
	key, rest := path[0], path[1:]
	switch t.Kind() {
	case reflect.Struct:
		f, ok := fieldByKey(t, key, true)
		if !ok {
			return nil, fmt.Errorf("there is no key %q; there are %s", key, strings.Join(keysOf(t), ", "))
		}
		key, _ = yamlKey(f)
		full, err = assign(v.FieldByIndex(f.Index), rest, text)
	case reflect.Map:
		entry := reflect.New(t.Elem()).Elem()
		if have := v.MapIndex(reflect.ValueOf(key)); have.IsValid() {
			entry.Set(have)
		}
		if full, err = assign(entry, rest, text); err != nil {
			break
		}
		if v.IsNil() {
			v.Set(reflect.MakeMap(t))
		}
		v.SetMapIndex(reflect.ValueOf(key), entry)
	case reflect.Slice:
		i, bad := strconv.Atoi(key)
		if bad != nil || i < 0 || i > v.Len() {
			return nil, fmt.Errorf("%q is no index from 0 to %d", key, v.Len())
		}
		list := reflect.MakeSlice(t, max(v.Len(), i+1), max(v.Len(), i+1))
		reflect.Copy(list, v)
		if full, err = assign(list.Index(i), rest, text); err == nil {
			v.Set(list)
		}
	}
	return append([]string{key}, full...), err
}

func assignLeaf(v reflect.Value, text string) error {
	switch {
	case v.Kind() == reflect.String && !reflect.PointerTo(v.Type()).Implements(textUnmarshaler):
		v.SetString(text)
		return nil
	case v.Kind() == reflect.Slice && !reflect.PointerTo(v.Type()).Implements(textUnmarshaler):
		list := reflect.MakeSlice(v.Type(), 0, 0)
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			one := reflect.New(v.Type().Elem()).Elem()
			if err := assignLeaf(one, part); err != nil {
				return err
			}
			list = reflect.Append(list, one)
		}
		v.Set(list)
		return nil
	}
	node := yaml.Node{Kind: yaml.ScalarNode, Value: text}
	value := reflect.New(v.Type())
	if err := node.Decode(value.Interface()); err != nil {
		return fmt.Errorf("%q is no value for it: %w", text, err)
	}
	v.Set(value.Elem())
	return nil
}

// unknownKeys names each key of a document that its type does not have, with its
// line.
func unknownKeys(n *yaml.Node, t reflect.Type, path string) []error {
	switch n.Kind {
	case yaml.DocumentNode:
		return unknownKeys(n.Content[0], t, path)
	case yaml.AliasNode:
		return unknownKeys(n.Alias, t, path)
	}
	if t.Kind() == reflect.Pointer {
		return unknownKeys(n, t.Elem(), path)
	}
	var wrong []error
	switch {
	case leaf(t):
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			f, ok := fieldByKey(t, key.Value, false)
			if !ok {
				wrong = append(wrong, fmt.Errorf("line %d: %s: there is no such key%s", key.Line, path+key.Value, instead(t, key.Value)))
				continue
			}
			wrong = append(wrong, unknownKeys(n.Content[i+1], f.Type, path+key.Value+".")...)
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Map:
		for i := 0; i+1 < len(n.Content); i += 2 {
			wrong = append(wrong, unknownKeys(n.Content[i+1], t.Elem(), path+n.Content[i].Value+".")...)
		}
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for i, one := range n.Content {
			wrong = append(wrong, unknownKeys(one, t.Elem(), fmt.Sprintf("%s[%d].", strings.TrimSuffix(path, "."), i))...)
		}
	}
	return wrong
}

// instead proposes the key that a mistyped one may have meant.
func instead(t reflect.Type, key string) string {
	keys := keysOf(t)
	best, least := "", 3
	for _, k := range keys {
		if d := distance(strings.ToLower(k), strings.ToLower(key)); d < least {
			best, least = k, d
		}
	}
	if best != "" {
		return "; did you mean " + best + "?"
	}
	return "; there are " + strings.Join(keys, ", ")
}

// distance is the number of letters to change, add or leave out that makes one
// word of another.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, before+1, row[j]+1)
		}
	}
	return row[len(b)]
}
