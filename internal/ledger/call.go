package ledger

import (
	"encoding/json"
	"fmt"
)

// storedCall is the JSON of a call that waits to be signed.
type storedCall struct {
	Kind string          `json:"kind"`
	Call json.RawMessage `json:"call"`
}

// EncodeCall gives the stored form of a call to the network contract, pins
// excepted: these are made when their number is known.
func EncodeCall(c Call) ([]byte, error) {
	kind := ""
	switch c.(type) {
	case AddKeyCall:
		kind = "add_key"
	case RevokeKeyCall:
		kind = "revoke_key"
	case RegisterNodeCall:
		kind = "register_node"
	case ProposeCall:
		kind = "propose"
	case VoteCall:
		kind = "vote"
	case ContractCall:
		kind = "contract"
	default:
		return nil, fmt.Errorf("a call of type %T cannot be stored", c)
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return json.Marshal(storedCall{kind, body})
}

// DecodeCall is the inverse of EncodeCall.
func DecodeCall(b []byte) (Call, error) {
	var s storedCall
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("stored call: %w", err)
	}
	switch s.Kind {
	case "add_key":
		return decodeCall[AddKeyCall](s)
	case "revoke_key":
		return decodeCall[RevokeKeyCall](s)
	case "register_node":
		return decodeCall[RegisterNodeCall](s)
	case "propose":
		return decodeCall[ProposeCall](s)
	case "vote":
		return decodeCall[VoteCall](s)
	case "contract":
		return decodeCall[ContractCall](s)
	}
	return nil, fmt.Errorf("stored call of unknown kind %q", s.Kind)
}

func decodeCall[C Call](s storedCall) (Call, error) {
	var c C
	if err := json.Unmarshal(s.Call, &c); err != nil {
		return nil, fmt.Errorf("stored call of kind %s: %w", s.Kind, err)
	}
	return c, nil
}
