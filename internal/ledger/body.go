package ledger

import (
	"encoding/json"
	"fmt"
)

// EncodeBody gives the JSON of a record's body, for storage. A pin's is empty:
// its parts have columns of their own.
func EncodeBody(b Body) (json.RawMessage, error) {
	if _, ok := b.(Pinned); ok {
		return nil, nil
	}
	return json.Marshal(b)
}

// DecodeBody is the inverse of EncodeBody for every kind but a pin.
func DecodeBody(kind string, raw json.RawMessage) (Body, error) {
	switch kind {
	case Founded{}.Kind():
		return decode[Founded](kind, raw)
	case MemberAdmitted{}.Kind():
		return decode[MemberAdmitted](kind, raw)
	case MemberSuspended{}.Kind():
		return decode[MemberSuspended](kind, raw)
	case MemberResumed{}.Kind():
		return decode[MemberResumed](kind, raw)
	case MemberRemoved{}.Kind():
		return decode[MemberRemoved](kind, raw)
	case KeyAdded{}.Kind():
		return decode[KeyAdded](kind, raw)
	case KeyRevoked{}.Kind():
		return decode[KeyRevoked](kind, raw)
	case NodeRegistered{}.Kind():
		return decode[NodeRegistered](kind, raw)
	case ParamsChanged{}.Kind():
		return decode[ParamsChanged](kind, raw)
	case PolicyChanged{}.Kind():
		return decode[PolicyChanged](kind, raw)
	case ValidatorChanged{}.Kind():
		return decode[ValidatorChanged](kind, raw)
	case Proposed{}.Kind():
		return decode[Proposed](kind, raw)
	case Voted{}.Kind():
		return decode[Voted](kind, raw)
	case Executed{}.Kind():
		return decode[Executed](kind, raw)
	case Succeeded{}.Kind():
		return decode[Succeeded](kind, raw)
	case Terminated{}.Kind():
		return decode[Terminated](kind, raw)
	}
	return nil, fmt.Errorf("record kind %q is unknown; this node is older than its network", kind)
}

func decode[B Body](kind string, raw json.RawMessage) (Body, error) {
	var b B
	if err := json.Unmarshal(raw, &b); err != nil {
		return nil, fmt.Errorf("stored record of kind %s: %w", kind, err)
	}
	return b, nil
}
