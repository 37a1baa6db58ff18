package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// transaction is a decoded one: its signature was checked, so from is who
// signed it.
type transaction struct {
	txBody
	hash    wire.Hash
	from    wire.Address
	call    ledger.Call
	arrival uint64

	mined   bool
	refusal error // of a mined one
}

// txBody is what the signature covers. Chain and contract are in it, so that a
// transaction cannot be replayed on another network.
type txBody struct {
	ChainID  uint64
	Contract wire.Address
	Nonce    uint64
	Bump     int
	Method   string
	Args     json.RawMessage
}

// A raw transaction is the signature followed by the body as JSON.
func sign(ctx context.Context, ks keys.Keys, from wire.Address, b txBody, call ledger.Call) (ledger.Signed, error) {
	var err error
	if b.Method, err = method(call); err != nil {
		return ledger.Signed{}, err
	}
	if b.Args, err = json.Marshal(call); err != nil {
		return ledger.Signed{}, fmt.Errorf("encode the %s call: %w", b.Method, err)
	}
	body, err := json.Marshal(b)
	if err != nil {
		return ledger.Signed{}, fmt.Errorf("encode the transaction: %w", err)
	}
	sig, err := ks.Sign(ctx, from, sha256.Sum256(body), "transaction")
	if err != nil {
		return ledger.Signed{}, fmt.Errorf("sign the transaction: %w", err)
	}
	raw := append(sig[:], body...)
	return ledger.Signed{Hash: sha256.Sum256(raw), Nonce: b.Nonce, Raw: raw}, nil
}

func decode(raw []byte) (*transaction, error) {
	var sig wire.Signature
	if len(raw) <= len(sig) {
		return nil, fmt.Errorf("the transaction has %d bytes, too few for a signature and a body", len(raw))
	}
	body := raw[copy(sig[:], raw):]
	from, err := wire.RecoverAddress(sha256.Sum256(body), sig)
	if err != nil {
		return nil, fmt.Errorf("the transaction's signature: %w", err)
	}
	t := &transaction{hash: sha256.Sum256(raw), from: from}
	if err := unmarshal(body, &t.txBody); err != nil {
		return nil, fmt.Errorf("the transaction's body: %w", err)
	}
	if t.call, err = decodeCall(t.Method, t.Args); err != nil {
		return nil, fmt.Errorf("the transaction's %s call: %w", t.Method, err)
	}
	return t, nil
}

func unmarshal(b []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(to)
}

func method(call ledger.Call) (string, error) {
	switch call.(type) {
	case ledger.PinCall:
		return "pin", nil
	case ledger.AddKeyCall:
		return "addKey", nil
	case ledger.RevokeKeyCall:
		return "revokeKey", nil
	case ledger.RegisterNodeCall:
		return "registerNode", nil
	case ledger.ProposeCall:
		return "propose", nil
	case ledger.VoteCall:
		return "vote", nil
	case ledger.ContractCall:
		return "contract", nil
	}
	return "", fmt.Errorf("the simulated ledger knows no call %T", call)
}

func decodeCall(method string, args []byte) (ledger.Call, error) {
	switch method {
	case "pin":
		return decodeArgs[ledger.PinCall](args)
	case "addKey":
		return decodeArgs[ledger.AddKeyCall](args)
	case "revokeKey":
		return decodeArgs[ledger.RevokeKeyCall](args)
	case "registerNode":
		return decodeArgs[ledger.RegisterNodeCall](args)
	case "propose":
		return decodeArgs[ledger.ProposeCall](args)
	case "vote":
		return decodeArgs[ledger.VoteCall](args)
	case "contract":
		return decodeArgs[ledger.ContractCall](args)
	}
	return nil, fmt.Errorf("method %q does not exist", method)
}

func decodeArgs[C ledger.Call](args []byte) (ledger.Call, error) {
	var c C
	err := unmarshal(args, &c)
	return c, err
}
