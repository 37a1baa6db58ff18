package abi

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strconv"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// Decode reads ABI encoded values as they go into JSON: integers as decimal
// strings, bytes and addresses as lower-case hexadecimal with 0x, tuples as
// objects, arrays as arrays.
func (ts Types) Decode(data []byte) (values []any, err error) {
	// What comes from a chain may be anything; go-ethereum checks offsets and
	// lengths against the data.
	unpacked, err := ts.arguments().UnpackValues(data)
	if err != nil {
		return nil, err
	}
	values = make([]any, len(unpacked))
	for i, u := range unpacked {
		values[i] = ts[i].Type.json(reflect.ValueOf(u))
	}
	return values, nil
}

// DecodeObject is Decode into an object. name says how value i is called that has
// no name.
func (ts Types) DecodeObject(data []byte, name func(i int) string) (map[string]any, error) {
	values, err := ts.Decode(data)
	if err != nil {
		return nil, err
	}
	return ts.object(values, name), nil
}

func (ts Types) object(values []any, name func(i int) string) map[string]any {
	o := make(map[string]any, len(values))
	for i, v := range values {
		key := ts[i].Name
		if key == "" {
			key = name(i)
		}
		for _, twice := o[key]; twice; _, twice = o[key] {
			key += "_" + strconv.Itoa(i)
		}
		o[key] = v
	}
	return o
}

// OutputName is how an output without a name is called: output, output1, …
func OutputName(i int) string {
	if i == 0 {
		return "output"
	}
	return "output" + strconv.Itoa(i)
}

// json turns go-ethereum's Go value into what encoding/json writes.
func (t *Type) json(v reflect.Value) any {
	switch t.codec.T {
	case abi.IntTy, abi.UintTy:
		switch {
		case v.CanInt():
			return strconv.FormatInt(v.Int(), 10)
		case v.CanUint():
			return strconv.FormatUint(v.Uint(), 10)
		}
		return v.Interface().(*big.Int).String()
	case abi.BoolTy:
		return v.Bool()
	case abi.StringTy:
		return v.String()
	case abi.BytesTy:
		return "0x" + hex.EncodeToString(v.Bytes())
	case abi.AddressTy, abi.FixedBytesTy, abi.FunctionTy:
		b := make([]byte, v.Len())
		reflect.Copy(reflect.ValueOf(b), v)
		return "0x" + hex.EncodeToString(b)
	case abi.TupleTy:
		values := make([]any, len(t.fields))
		for i, f := range t.fields {
			values[i] = f.Type.json(v.Field(i))
		}
		return t.fields.object(values, strconv.Itoa)
	}
	list := make([]any, v.Len())
	for i := range list {
		list[i] = t.elem.json(v.Index(i))
	}
	return list
}

// ErrOtherEvent says that a log is not of the event.
var ErrOtherEvent = errors.New("the log is of another event")

// Decode reads the event's parameters out of a log. Of an indexed value that is
// not one word, the log holds only the hash. ErrOtherEvent if the log has other
// topics.
func (e *CompiledEvent) Decode(log *types.Log) (map[string]any, error) {
	topics := log.Topics
	if !e.Anonymous {
		if len(topics) == 0 || topics[0] != e.Topic {
			return nil, ErrOtherEvent
		}
		topics = topics[1:]
	}
	if len(topics) != e.indexed {
		return nil, ErrOtherEvent // the same signature with other indexed parameters
	}
	plain, err := e.data.Decode(log.Data)
	if err != nil {
		return nil, fmt.Errorf("event %s in transaction %s: %w", e.Signature, log.TxHash, err)
	}
	values := make([]any, len(e.Params))
	for i, p := range e.Params {
		if !p.Type.Indexed {
			values[i], plain = plain[0], plain[1:]
			continue
		}
		if values[i], err = p.Type.topic(topics[0]); err != nil {
			return nil, fmt.Errorf("event %s in transaction %s: %s: %w", e.Signature, log.TxHash, p.Name, err)
		}
		topics = topics[1:]
	}
	return e.Params.object(values, strconv.Itoa), nil
}

// topic reads an indexed value.
func (t *Type) topic(word common.Hash) (any, error) {
	switch t.codec.T {
	case abi.StringTy, abi.BytesTy, abi.SliceTy, abi.ArrayTy, abi.TupleTy:
		return "0x" + hex.EncodeToString(word[:]), nil
	}
	one := Types{{Type: t}}
	values, err := one.Decode(word[:])
	if err != nil {
		return nil, err
	}
	return values[0], nil
}
