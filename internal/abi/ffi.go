package abi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/parley-node/parley/wire"
)

// The types in this file have the shapes of the API, and of the definitions that
// members broadcast.

// Interface is the description of a contract: FFI, FireFly interface.
type Interface struct {
	ID          *wire.UUID `json:"id,omitempty"`
	Message     *wire.UUID `json:"message,omitempty"`
	Namespace   string     `json:"namespace,omitempty"`
	Name        string     `json:"name"`
	NetworkName string     `json:"networkName,omitempty"`
	Description string     `json:"description"`
	Version     string     `json:"version"`
	Methods     []Method   `json:"methods,omitempty"`
	Events      []Event    `json:"events,omitempty"`
	Errors      []Error    `json:"errors,omitempty"`
	Published   bool       `json:"published"`
}

// Method can be called.
type Method struct {
	ID          *wire.UUID      `json:"id,omitempty"`
	Interface   *wire.UUID      `json:"interface,omitempty"`
	Name        string          `json:"name"`
	Namespace   string          `json:"namespace,omitempty"`
	Pathname    string          `json:"pathname"` // name, or name_1 … of overloads
	Description string          `json:"description"`
	Params      []Param         `json:"params"`
	Returns     []Param         `json:"returns"`
	Details     json.RawMessage `json:"details,omitempty"` // {"stateMutability"}
}

// EventDefinition is an event as a listener names it.
type EventDefinition struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Params      []Param         `json:"params"`
	Details     json.RawMessage `json:"details,omitempty"` // {"anonymous"}
}

// Event is emitted by a contract.
type Event struct {
	ID        *wire.UUID `json:"id,omitempty"`
	Interface *wire.UUID `json:"interface,omitempty"`
	Namespace string     `json:"namespace,omitempty"`
	Pathname  string     `json:"pathname,omitempty"`
	Signature string     `json:"signature"`
	EventDefinition
}

// Error is what a contract reverts with.
type Error struct {
	ID          *wire.UUID `json:"id,omitempty"`
	Interface   *wire.UUID `json:"interface,omitempty"`
	Namespace   string     `json:"namespace,omitempty"`
	Pathname    string     `json:"pathname,omitempty"`
	Signature   string     `json:"signature"`
	Name        string     `json:"name"`
	Description string     `json:"description"`
	Params      []Param    `json:"params"`
}

// Param is a parameter with its JSON schema, whose details name the ABI type.
type Param struct {
	Name   string          `json:"name"`
	Schema json.RawMessage `json:"schema,omitempty"`
}

// entry is one entry of Solidity's ABI.
type entry struct {
	Type            string     `json:"type"`
	Name            string     `json:"name"`
	Inputs          []argument `json:"inputs"`
	Outputs         []argument `json:"outputs"`
	StateMutability string     `json:"stateMutability"`
	Constant        bool       `json:"constant"` // before Solidity 0.6
	Payable         bool       `json:"payable"`
	Anonymous       bool       `json:"anonymous"`
}

// argument is a parameter in Solidity's ABI.
type argument struct {
	Name         string     `json:"name"`
	Type         string     `json:"type"`
	InternalType string     `json:"internalType"`
	Components   []argument `json:"components"`
	Indexed      bool       `json:"indexed"`
}

// parseABI reads Solidity's ABI: an array, or a string that holds one.
func parseABI(definition json.RawMessage) ([]entry, error) {
	definition = bytes.TrimSpace(definition)
	if len(definition) > 0 && definition[0] == '"' {
		var text string
		if err := json.Unmarshal(definition, &text); err != nil {
			return nil, fmt.Errorf("the ABI: %w", err)
		}
		definition = json.RawMessage(text)
	}
	var entries []entry
	if err := json.Unmarshal(definition, &entries); err != nil {
		return nil, fmt.Errorf("the ABI is not an array of functions, events and errors: %w", err)
	}
	return entries, nil
}

// Generate makes an interface of Solidity's ABI. Functions, events and errors are
// checked; names are those of the ABI.
func Generate(definition json.RawMessage) (*Interface, error) {
	entries, err := parseABI(definition)
	if err != nil {
		return nil, err
	}
	ffi := &Interface{Methods: []Method{}, Events: []Event{}, Errors: []Error{}}
	for i, e := range entries {
		at := fmt.Sprintf("abi[%d]", i)
		switch e.Type {
		case "function", "":
			m := Method{Name: e.Name}
			if m.Params, err = schemas(at+".inputs", e.Inputs); err != nil {
				return nil, err
			}
			if m.Returns, err = schemas(at+".outputs", e.Outputs); err != nil {
				return nil, err
			}
			m.Details = details(map[string]any{"stateMutability": e.mutability()})
			ffi.Methods = append(ffi.Methods, m)
		case "event":
			v := Event{EventDefinition: EventDefinition{Name: e.Name}}
			if v.Params, err = schemas(at+".inputs", e.Inputs); err != nil {
				return nil, err
			}
			if e.Anonymous {
				v.Details = details(map[string]any{"anonymous": true})
			}
			ffi.Events = append(ffi.Events, v)
		case "error":
			r := Error{Name: e.Name}
			if r.Params, err = schemas(at+".inputs", e.Inputs); err != nil {
				return nil, err
			}
			ffi.Errors = append(ffi.Errors, r)
		case "constructor", "fallback", "receive":
			continue
		default:
			return nil, fmt.Errorf("%s.type: %q is not one of function, event, error, constructor, fallback, receive", at, e.Type)
		}
		if e.Name == "" {
			return nil, fmt.Errorf("%s.name: it is missing", at)
		}
	}
	return ffi, ffi.Complete()
}

func (e *entry) mutability() string {
	switch {
	case e.StateMutability != "":
		return e.StateMutability
	case e.Constant:
		return "view"
	case e.Payable:
		return "payable"
	}
	return "nonpayable"
}

// Constructor gives the types of the arguments that creating a contract takes.
func Constructor(definition json.RawMessage) (Types, error) {
	entries, err := parseABI(definition)
	if err != nil {
		return nil, err
	}
	for i, e := range entries {
		if e.Type != "constructor" {
			continue
		}
		params, err := schemas(fmt.Sprintf("abi[%d].inputs", i), e.Inputs)
		if err != nil {
			return nil, err
		}
		return TypesOf("definition", params)
	}
	return nil, nil
}

// Errors gives the errors that an ABI declares.
func Errors(definition json.RawMessage) ([]Error, error) {
	ffi, err := Generate(definition)
	if err != nil {
		return nil, err
	}
	return ffi.Errors, nil
}

// details is JSON of a map, which always has one.
func details(m map[string]any) json.RawMessage {
	b, _ := json.Marshal(m) // strings, booleans and integers only
	return b
}

// schemas are the parameters of an ABI with their JSON schemas.
func schemas(at string, arguments []argument) ([]Param, error) {
	params := []Param{}
	for i, a := range arguments {
		s, err := schemaOf(fmt.Sprintf("%s[%d]", at, i), a, -1, true)
		if err != nil {
			return nil, err
		}
		params = append(params, Param{Name: a.Name, Schema: details(s)})
	}
	return params, nil
}

// schemaOf is the JSON schema of an argument. index is its place in a tuple, -1
// outside of one; the elements of arrays carry no details.
func schemaOf(at string, a argument, index int, detailed bool) (map[string]any, error) {
	s := map[string]any{}
	if detailed {
		d := map[string]any{"type": a.Type}
		if a.InternalType != "" {
			d["internalType"] = a.InternalType
		}
		if a.Indexed {
			d["indexed"] = true
		}
		if index >= 0 {
			d["index"] = index
		}
		s["details"] = d
	}
	if i := strings.LastIndexByte(a.Type, '['); i >= 0 {
		element := a
		element.Type = a.Type[:i]
		items, err := schemaOf(at, element, -1, false)
		if err != nil {
			return nil, err
		}
		s["type"], s["items"] = "array", items
		return s, nil
	}
	switch {
	case a.Type == "tuple":
		properties := map[string]any{}
		for i, c := range a.Components {
			name := c.Name
			if name == "" {
				name = strconv.Itoa(i)
			}
			field, err := schemaOf(at+".components["+strconv.Itoa(i)+"]", c, i, true)
			if err != nil {
				return nil, err
			}
			if _, twice := properties[name]; twice {
				return nil, fmt.Errorf("%s: two fields of a tuple have the name %q", at, name)
			}
			properties[name] = field
		}
		s["type"], s["properties"] = "object", properties
	case a.Type == "bool":
		s["type"] = "boolean"
	case strings.HasPrefix(a.Type, "int"), strings.HasPrefix(a.Type, "uint"):
		s["oneOf"] = []map[string]string{{"type": "string"}, {"type": "integer"}}
		s["description"] = "An integer; a JSON string keeps its precision. A 0x prefix means hexadecimal"
	default:
		s["type"] = "string"
		if a.Type != "string" {
			s["description"] = "Hexadecimal bytes, with or without 0x"
		}
	}
	return s, nil
}

// Complete gives each method, event and error its path name and signature, and
// checks their types. The error names the entry.
func (f *Interface) Complete() error {
	taken := map[string]int{}
	path := func(kind, name string) string {
		n := taken[kind+name]
		taken[kind+name] = n + 1
		if n == 0 {
			return name
		}
		return name + "_" + strconv.Itoa(n)
	}
	for i := range f.Methods {
		m := &f.Methods[i]
		if m.Name == "" {
			return fmt.Errorf("methods[%d].name: it is missing", i)
		}
		if m.Params == nil {
			m.Params = []Param{}
		}
		if m.Returns == nil {
			m.Returns = []Param{}
		}
		m.Pathname = path("m", m.Name)
		if _, err := m.Compile(); err != nil {
			return fmt.Errorf("methods[%d] %s: %w", i, m.Name, err)
		}
	}
	for i := range f.Events {
		e := &f.Events[i]
		if e.Name == "" {
			return fmt.Errorf("events[%d].name: it is missing", i)
		}
		if e.Params == nil {
			e.Params = []Param{}
		}
		e.Pathname = path("e", e.Name)
		c, err := e.EventDefinition.Compile()
		if err != nil {
			return fmt.Errorf("events[%d] %s: %w", i, e.Name, err)
		}
		e.Signature = c.Signature
	}
	for i := range f.Errors {
		e := &f.Errors[i]
		if e.Name == "" {
			return fmt.Errorf("errors[%d].name: it is missing", i)
		}
		if e.Params == nil {
			e.Params = []Param{}
		}
		e.Pathname = path("r", e.Name)
		c, err := e.Compile()
		if err != nil {
			return fmt.Errorf("errors[%d] %s: %w", i, e.Name, err)
		}
		e.Signature = c.Signature
	}
	return nil
}
