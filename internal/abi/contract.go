package abi

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// CompiledMethod is a method that is ready to call.
type CompiledMethod struct {
	Signature string // transfer(address,uint256)
	Selector  [4]byte
	Params    Types
	Returns   Types
	View      bool // it changes nothing
	Payable   bool
}

// Compile checks the types of a method.
func (m *Method) Compile() (*CompiledMethod, error) {
	params, err := TypesOf("params", m.Params)
	if err != nil {
		return nil, err
	}
	returns, err := TypesOf("returns", m.Returns)
	if err != nil {
		return nil, err
	}
	var d struct {
		StateMutability string `json:"stateMutability"`
	}
	if len(m.Details) > 0 {
		if err := json.Unmarshal(m.Details, &d); err != nil {
			return nil, fmt.Errorf("details: %w", err)
		}
	}
	c := &CompiledMethod{Signature: m.Name + params.Canonical(), Params: params, Returns: returns}
	c.View = d.StateMutability == "view" || d.StateMutability == "pure"
	c.Payable = d.StateMutability == "payable"
	copy(c.Selector[:], crypto.Keccak256([]byte(c.Signature)))
	return c, nil
}

// Call is the data of a call with an input. The error is *Invalid.
func (c *CompiledMethod) Call(at string, input json.RawMessage) ([]byte, error) {
	args, err := c.Params.Encode(at, input)
	if err != nil {
		return nil, err
	}
	return append(c.Selector[:], args...), nil
}

// Result reads what a call returned: an object by name.
func (c *CompiledMethod) Result(data []byte) (map[string]any, error) {
	if len(data) == 0 && len(c.Returns) > 0 {
		return nil, fmt.Errorf("%s returned nothing; is there a contract at the address, and of this interface?", c.Signature)
	}
	result, err := c.Returns.DecodeObject(data, OutputName)
	if err != nil {
		return nil, fmt.Errorf("what %s returned does not fit the interface: %w", c.Signature, err)
	}
	return result, nil
}

// CompiledEvent is an event that is ready to be read.
type CompiledEvent struct {
	Name      string
	Signature string // Transfer(address,address,uint256)
	Topic     common.Hash
	Anonymous bool
	Params    Types

	indexed int
	data    Types // parameters that are not indexed
}

// Compile checks the types of an event.
func (d *EventDefinition) Compile() (*CompiledEvent, error) {
	params, err := TypesOf("params", d.Params)
	if err != nil {
		return nil, err
	}
	var more struct {
		Anonymous bool `json:"anonymous"`
	}
	if len(d.Details) > 0 {
		if err := json.Unmarshal(d.Details, &more); err != nil {
			return nil, fmt.Errorf("details: %w", err)
		}
	}
	e := &CompiledEvent{Name: d.Name, Signature: d.Name + params.Canonical(), Anonymous: more.Anonymous, Params: params}
	e.Topic = crypto.Keccak256Hash([]byte(e.Signature))
	most := 3
	if e.Anonymous {
		most = 4
	}
	for _, p := range params {
		if p.Type.Indexed {
			e.indexed++
		} else {
			e.data = append(e.data, p)
		}
	}
	if e.indexed > most {
		return nil, fmt.Errorf("params: %d of them are indexed, at most %d can be", e.indexed, most)
	}
	return e, nil
}

// FilterSignature is the signature with the places of the indexed parameters:
// "Transfer(address,address,uint256) [i=0,1]". Two events with the same name and
// types are different if others are indexed.
func (e *CompiledEvent) FilterSignature() string {
	var places []string
	for i, p := range e.Params {
		if p.Type.Indexed {
			places = append(places, fmt.Sprint(i))
		}
	}
	if len(places) == 0 {
		return e.Signature
	}
	return e.Signature + " [i=" + strings.Join(places, ",") + "]"
}

// CompiledError is an error that is ready to be read.
type CompiledError struct {
	Name      string
	Signature string // InsufficientBalance(uint256,uint256)
	Selector  [4]byte
	Params    Types
}

// Compile checks the types of an error.
func (e *Error) Compile() (*CompiledError, error) {
	params, err := TypesOf("params", e.Params)
	if err != nil {
		return nil, err
	}
	c := &CompiledError{Name: e.Name, Signature: e.Name + params.Canonical(), Params: params}
	copy(c.Selector[:], crypto.Keccak256([]byte(c.Signature)))
	return c, nil
}

// Reason says what a contract reverted with, in words: the text of
// require(…, text), the meaning of a panic, or one of some custom errors with its
// arguments by name.
func Reason(data []byte, errors []Error) string {
	if len(data) == 0 {
		return "the contract reverted without a reason"
	}
	if text, err := abi.UnpackRevert(data); err == nil {
		return text
	}
	raw := "0x" + hex.EncodeToString(data)
	if len(data) < 4 {
		return "the contract reverted with " + raw
	}
	for i := range errors {
		c, err := errors[i].Compile()
		if err != nil || c.Selector != [4]byte(data[:4]) {
			continue
		}
		values, err := c.Params.Decode(data[4:])
		if err != nil {
			continue // of another contract, with the same selector
		}
		parts := make([]string, len(values))
		for i, v := range values {
			text, err := json.Marshal(v)
			if err != nil {
				text = []byte(raw)
			}
			parts[i] = strings.Trim(string(text), `"`)
			if name := c.Params[i].Name; name != "" {
				parts[i] = name + "=" + parts[i]
			}
		}
		return c.Name + "(" + strings.Join(parts, ", ") + ")"
	}
	return "the contract reverted with its own error " + raw
}

// ListenerSignature names what a listener listens to: its filters, sorted.
func ListenerSignature(filters []string) string {
	sorted := append([]string{}, filters...)
	sort.Strings(sorted)
	return strings.Join(sorted, ";")
}
