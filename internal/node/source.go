package node

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Source is where a configuration comes from. What stands further down wins.
type Source struct {
	Path    string   // the file, or the folder that it is in
	Environ []string // NAME=value; PARLEY_API_LISTEN sets api.listen
	Set     []string // key=value from the command line
}

// EnvPrefix begins the names of the environment variables that set keys: the
// key in capitals, with underscores for dots: PARLEY_NAMESPACES_0_LEDGER_URLS.
const EnvPrefix = "PARLEY_"

// Origins tell where values come from, by key: file and line, variable, or flag.
// A key that is not there has its default.
type Origins struct {
	of     map[string]string
	Unused []string // environment variables with the prefix that name no key
}

// Load reads the configuration and completes it with the defaults. It does not
// check it.
func (s Source) Load() (*Config, *Origins, error) {
	path, text, err := readConfigFile(s.Path)
	if err != nil {
		return nil, nil, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	o := &Origins{of: map[string]string{}}
	at := func(line int) string { return fmt.Sprintf("%s:%d", filepath.Base(path), line) }
	named := map[string]bool{"PARLEY_DIR": true, "PARLEY_API": true} // variables with another meaning: flags, and secrets that the file names
	walk(&root, "", func(key string, n *yaml.Node) {
		o.of[key] = at(n.Line)
		named[n.Value] = true
	})
	var c *Config
	if isFireFly(&root) {
		var notes []Note
		c, notes, err = fromFireFly(&root)
		clear(o.of)
		for _, n := range notes {
			o.of[strings.NewReplacer("[", ".", "]", "").Replace(n.Into)] = at(n.Line)
		}
	} else {
		c, err = decodeConfig(text)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := s.override(c, o, named); err != nil {
		return nil, nil, err
	}
	if err := c.misplaced(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	c.complete()
	c.Dir, err = filepath.Abs(filepath.Dir(path))
	return c, o, err
}

// Read is Load with the check, which names all that is wrong.
func (s Source) Read() (*Config, *Origins, error) {
	c, o, err := s.Load()
	if err != nil {
		return nil, nil, err
	}
	if err := c.Check(); err != nil {
		return nil, nil, fmt.Errorf("the configuration in %s is not complete or not right:\n%w", c.Dir, err)
	}
	return c, o, nil
}

// override sets what environment and command line say.
func (s Source) override(c *Config, o *Origins, named map[string]bool) error {
	v := reflect.ValueOf(c).Elem()
	var wrong []error
	for _, variable := range slices.Sorted(slices.Values(s.Environ)) {
		name, value, _ := strings.Cut(variable, "=")
		key, ours := strings.CutPrefix(name, EnvPrefix)
		if !ours || named[name] {
			continue
		}
		path := strings.Split(strings.ToLower(key), "_")
		if _, known := fieldByKey(v.Type(), path[0], true); !known {
			o.Unused = append(o.Unused, name)
			continue
		}
		full, err := assign(v, path, value)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("environment variable %s: %w", name, err))
			continue
		}
		o.note(full, name)
	}
	for _, setting := range s.Set {
		key, value, ok := strings.Cut(setting, "=")
		if !ok {
			wrong = append(wrong, fmt.Errorf("--set %s: it is not of the form key=value", setting))
			continue
		}
		full, err := assign(v, strings.Split(strings.NewReplacer("[", ".", "]", "").Replace(key), "."), value)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("--set %s: %w", key, err))
			continue
		}
		o.note(full, "--set")
	}
	return errors.Join(wrong...)
}

// note says where a key and all below it come from.
func (o *Origins) note(path []string, from string) {
	key := strings.Join(path, ".")
	maps.DeleteFunc(o.of, func(k, _ string) bool { return strings.HasPrefix(k, key+".") })
	o.of[key] = from
}

// Of is where the value of a key comes from.
func (o *Origins) Of(key string) string {
	for k := key; k != ""; {
		if from := o.of[k]; from != "" {
			return from
		}
		k = k[:max(strings.LastIndexByte(k, '.'), 0)]
	}
	return "default"
}

// walk calls f with each value of a document that stands alone, and its key:
// the keys on the way to it, with dots between.
func walk(n *yaml.Node, key string, f func(key string, n *yaml.Node)) {
	at := func(part string) string { return strings.TrimPrefix(key+"."+part, ".") }
	switch n.Kind {
	case yaml.DocumentNode:
		walk(n.Content[0], key, f)
	case yaml.AliasNode:
		walk(n.Alias, key, f)
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			walk(n.Content[i+1], at(n.Content[i].Value), f)
		}
	case yaml.SequenceNode:
		for i, one := range n.Content {
			walk(one, at(strconv.Itoa(i)), f)
		}
	case yaml.ScalarNode:
		f(key, n)
	}
}

// Show is the configuration as YAML with where each value comes from. Passwords
// in URLs are left out.
func (c *Config) Show(o *Origins) ([]byte, error) {
	n, err := c.document()
	if err != nil {
		return nil, err
	}
	walk(n, "", func(key string, n *yaml.Node) {
		if u, err := url.Parse(n.Value); err == nil && u.User != nil {
			n.Value = u.Redacted()
		}
		n.LineComment = o.Of(key)
	})
	return encode(n)
}

// document is the configuration as YAML: without what is about one namespace at
// the top if there are several, and what is about the process within each.
func (c *Config) document() (*yaml.Node, error) {
	n := new(yaml.Node)
	if err := n.Encode(c); err != nil {
		return nil, fmt.Errorf("write the configuration as YAML: %w", err)
	}
	if len(c.Namespaces) == 0 {
		return n, nil
	}
	keep(n, processKey)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "namespaces" {
			continue
		}
		for j, entry := range n.Content[i+1].Content {
			folder := c.Namespaces[j].Folder != ""
			keep(entry, func(key string) bool {
				own := key == "name" || key == "folder" || key == "description"
				return own || !folder && key != "namespace" && !processKey(key) && !c.Namespaces[j].empty(key)
			})
		}
	}
	return n, nil
}

// empty says whether a key is not set.
func (c *Config) empty(key string) bool {
	f, ok := fieldByKey(reflect.TypeFor[Config](), key, false)
	return ok && reflect.ValueOf(c).Elem().FieldByIndex(f.Index).IsZero()
}

// keep leaves only some keys of a mapping.
func keep(n *yaml.Node, wanted func(key string) bool) {
	var content []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		if wanted(n.Content[i].Value) {
			content = append(content, n.Content[i], n.Content[i+1])
		}
	}
	n.Content = content
}

func encode(n *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(n), e.Close()); err != nil {
		return nil, fmt.Errorf("write the configuration as YAML: %w", err)
	}
	return b.Bytes(), nil
}

// Keys lists every key that a configuration can have, sorted. A part in angle
// brackets is chosen by who writes it: the index in a list, or a name.
func Keys() []string {
	var keys []string
	listKeys(reflect.TypeFor[Config](), "", func(key string) { keys = append(keys, key) })
	slices.SortFunc(keys, cmp.Compare[string])
	return keys
}

func listKeys(t reflect.Type, key string, f func(string)) {
	at := func(part string) string { return strings.TrimPrefix(key+"."+part, ".") }
	switch {
	case leaf(t):
		f(key)
	case t.Kind() == reflect.Pointer:
		listKeys(t.Elem(), key, f)
	case t.Kind() == reflect.Map:
		listKeys(t.Elem(), at("<name>"), f)
	case t.Kind() == reflect.Slice:
		if t.Elem() == reflect.TypeFor[NamespaceConfig]() {
			f(at("<i>.name"))
			f(at("<i>.folder"))
			return // and each key that is about one namespace
		}
		listKeys(t.Elem(), at("<i>"), f)
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			field := t.Field(i)
			switch name, inline := yamlKey(field); {
			case inline:
				listKeys(field.Type, key, f)
			case name != "-" && name != "":
				listKeys(field.Type, at(name), f)
			}
		}
	}
}

// readConfigFile gives the text of a configuration, and its path if that was the
// folder's.
func readConfigFile(path string) (string, []byte, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, ConfigFile)
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return path, nil, fmt.Errorf("there is no configuration %s; make a member's folder with: parley init", path)
	}
	if err != nil {
		return path, nil, fmt.Errorf("read the configuration: %w", err)
	}
	return path, text, nil
}

// EnvName is the environment variable that sets a key.
func EnvName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}
