package evm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/parley-node/parley/contracts"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// The contract's Action enum.
const (
	actAdmit uint8 = iota
	actSuspend
	actResume
	actRemove
	actPolicy
	actParams
	actValidator
	actSuccessor
	actTerminate
)

// encode gives a call's target and data; to is nil for the creation of a
// contract.
func (l *Ledger) encode(call ledger.Call) (to *common.Address, data []byte, err error) {
	if c, ok := call.(ledger.ContractCall); ok {
		return (*common.Address)(c.To), c.Data, nil
	}
	if l.contract == (common.Address{}) {
		return nil, nil, errors.New("the ledger is open without a network contract; set its address")
	}
	switch c := call.(type) {
	case ledger.PinCall:
		data, err = contracts.NetworkABI.Pack("pin", c.Pin.Root, c.Pin.Tag, c.Pin.Handles, c.Pin.Control)
	case ledger.AddKeyCall:
		data, err = contracts.NetworkABI.Pack("addKey", common.Address(c.Key))
	case ledger.RevokeKeyCall:
		data, err = contracts.NetworkABI.Pack("revokeKey", common.Address(c.Key))
	case ledger.RegisterNodeCall:
		data, err = contracts.NetworkABI.Pack("registerNode", c.Node.CertHash, c.Node.SealKey, c.Node.Endpoints)
	case ledger.ProposeCall:
		var action uint8
		var arguments []byte
		if action, arguments, err = encodeProposal(c.Proposal); err == nil {
			data, err = contracts.NetworkABI.Pack("propose", action, arguments)
		}
	case ledger.VoteCall:
		data, err = contracts.NetworkABI.Pack("vote", c.ID, c.Approve)
	default:
		err = errors.New("the network contract has no such method")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("encode a %T: %w", call, err)
	}
	return &l.contract, data, nil
}

// encodeProposal gives the action and its abi-encoded arguments. All of them
// are static types, which is one 32-byte word each.
func encodeProposal(p ledger.Proposal) (action uint8, arguments []byte, err error) {
	set := 0
	take := func(a uint8, words ...[32]byte) {
		set++
		action = a
		arguments = nil
		for _, w := range words {
			arguments = append(arguments, w[:]...)
		}
	}
	if p.Admit != nil {
		take(actAdmit, p.Admit.Org, addressWord(p.Admit.Key))
	}
	if p.Suspend != nil {
		take(actSuspend, *p.Suspend)
	}
	if p.Resume != nil {
		take(actResume, *p.Resume)
	}
	if p.Remove != nil {
		take(actRemove, *p.Remove)
	}
	if p.Policy != nil {
		take(actPolicy, numberWord(p.Policy.Approvals))
	}
	if q := p.Params; q != nil {
		if q.SkipAfter < 0 || q.SkipGrace < 0 {
			return 0, nil, fmt.Errorf("params: SkipAfter is %v and SkipGrace %v, neither can be negative", q.SkipAfter, q.SkipGrace)
		}
		var words [][32]byte
		for _, n := range paramsOf(*q).list() {
			words = append(words, numberWord(*n))
		}
		take(actParams, words...)
	}
	if p.Validator != nil {
		take(actValidator, p.Validator.Key, numberWord(p.Validator.Power))
	}
	if p.Successor != nil {
		take(actSuccessor, addressWord(*p.Successor))
	}
	if p.Terminate {
		take(actTerminate)
	}
	if set != 1 {
		return 0, nil, fmt.Errorf("a proposal asks for %d changes, want exactly one", set)
	}
	return action, arguments, nil
}

func decodeProposal(action uint8, arguments []byte) (p ledger.Proposal, err error) {
	r := words{rest: arguments}
	switch action {
	case actAdmit:
		p.Admit = &ledger.MemberAdmitted{Org: r.hash(), Key: r.address()}
	case actSuspend:
		p.Suspend = ptr(r.hash())
	case actResume:
		p.Resume = ptr(r.hash())
	case actRemove:
		p.Remove = ptr(r.hash())
	case actPolicy:
		p.Policy = &ledger.Policy{Approvals: r.number()}
	case actParams:
		p.Params = ptr(r.params())
	case actValidator:
		p.Validator = &ledger.ValidatorChanged{Key: r.hash(), Power: r.number()}
	case actSuccessor:
		p.Successor = ptr(r.address())
	case actTerminate:
		p.Terminate = true
	default:
		return p, fmt.Errorf("proposal has the unknown action %d", action)
	}
	return p, r.end()
}

// runningHash is the contract's rule for one more record.
func runningHash(before wire.Hash, l *types.Log) wire.Hash {
	return wire.Hash(crypto.Keccak256(before[:], l.Topics[0][:], l.Topics[3][:], crypto.Keccak256(l.Data)))
}

// recordNumber is the number that a log of the contract claims.
func recordNumber(l *types.Log) (uint64, error) {
	if len(l.Topics) != 4 {
		return 0, fmt.Errorf("a log has %d topics, a record has 4", len(l.Topics))
	}
	r := words{rest: l.Topics[1][:]}
	n := r.number()
	return n, r.end()
}

// decode reads a record's log. Block holds the block's number and hash; its
// time is not in the log.
func decode(l *types.Log) (r ledger.Record, err error) {
	if r.Number, err = recordNumber(l); err != nil {
		return r, err
	}
	if l.Index > math.MaxUint32 {
		return r, fmt.Errorf("a log has index %d in its block", l.Index)
	}
	signer := words{rest: l.Topics[3][:]}
	r.Signer = signer.address()
	if err := signer.end(); err != nil {
		return r, fmt.Errorf("record %d: signer: %w", r.Number, err)
	}
	r.Running = wire.Hash(l.Topics[2])
	r.Position = wire.Position{Block: l.BlockNumber, Log: uint32(l.Index)}
	r.Block = ledger.Block{Number: l.BlockNumber, Hash: wire.Hash(l.BlockHash)}
	r.TxHash = wire.Hash(l.TxHash)
	if r.Body, err = decodeBody(l); err != nil {
		return r, fmt.Errorf("record %d: %w", r.Number, err)
	}
	return r, nil
}

func decodeBody(l *types.Log) (body ledger.Body, err error) {
	event, err := contracts.NetworkABI.EventByID(l.Topics[0])
	if err != nil {
		return nil, fmt.Errorf("unknown kind %s; this version of the node is too old for the contract", l.Topics[0])
	}
	switch event.Name { // the three with parts of variable length
	case "Pinned":
		return decodePinned(l.Data)
	case "NodeRegistered":
		return decodeNode(l.Data)
	case "Proposed":
		return decodeProposed(l.Data)
	}
	r := words{rest: l.Data}
	switch event.Name {
	case "Founded":
		body = ledger.Founded{Params: r.params(), Policy: ledger.Policy{Approvals: r.number()}, Epoch1: r.hash()}
	case "MemberAdmitted":
		body = ledger.MemberAdmitted{Org: r.hash(), Key: r.address()}
	case "MemberSuspended":
		body = ledger.MemberSuspended{Org: r.hash()}
	case "MemberResumed":
		body = ledger.MemberResumed{Org: r.hash()}
	case "MemberRemoved":
		body = ledger.MemberRemoved{Org: r.hash()}
	case "KeyAdded":
		body = ledger.KeyAdded{Org: r.hash(), Key: r.address()}
	case "KeyRevoked":
		body = ledger.KeyRevoked{Org: r.hash(), Key: r.address()}
	case "ParamsChanged":
		body = ledger.ParamsChanged{Params: r.params()}
	case "PolicyChanged":
		body = ledger.PolicyChanged{Policy: ledger.Policy{Approvals: r.number()}}
	case "ValidatorChanged":
		body = ledger.ValidatorChanged{Key: r.hash(), Power: r.number()}
	case "Voted":
		body = ledger.Voted{ID: r.number(), Org: r.hash(), Approve: r.truth()}
	case "Executed":
		body = ledger.Executed{ID: r.number()}
	case "Succeeded":
		body = ledger.Succeeded{Contract: r.address()}
	case "Terminated":
		body = ledger.Terminated{}
	default:
		return nil, fmt.Errorf("the kind %s has no meaning here", event.Name)
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("%s: %w", event.Name, err)
	}
	return body, nil
}

func decodePinned(data []byte) (ledger.Body, error) {
	var v struct {
		Org     [32]byte
		Root    [32]byte
		Tag     [16]byte
		Handles [][16]byte
		Control []byte
		Carrier common.Address
	}
	if err := contracts.NetworkABI.UnpackIntoInterface(&v, "Pinned", data); err != nil {
		return nil, err
	}
	p := wire.Pin{Root: v.Root, Tag: v.Tag, Control: v.Control}
	for _, h := range v.Handles {
		p.Handles = append(p.Handles, h)
	}
	return ledger.Pinned{Org: v.Org, Pin: p, Via: wire.Address(v.Carrier)}, nil
}

func decodeNode(data []byte) (ledger.Body, error) {
	var v struct {
		Org       [32]byte
		CertHash  [32]byte
		SealKey   []byte
		Endpoints []string
	}
	if err := contracts.NetworkABI.UnpackIntoInterface(&v, "NodeRegistered", data); err != nil {
		return nil, err
	}
	return ledger.NodeRegistered{Org: v.Org, Node: ledger.NodeProfile{CertHash: v.CertHash, SealKey: v.SealKey, Endpoints: v.Endpoints}}, nil
}

func decodeProposed(data []byte) (ledger.Body, error) {
	var v struct {
		ID        uint64 `abi:"id"`
		Action    uint8
		Arguments []byte
	}
	if err := contracts.NetworkABI.UnpackIntoInterface(&v, "Proposed", data); err != nil {
		return nil, err
	}
	p, err := decodeProposal(v.Action, v.Arguments)
	return ledger.Proposed{ID: v.ID, Proposal: p}, err
}

// abiParams is the contract's Params.
type abiParams struct {
	Confirmations, ProtocolVersion, ProtocolFrom, Window, ReceiptAge, SkipAfter, SkipGrace uint64
}

func (p *abiParams) list() []*uint64 {
	return []*uint64{&p.Confirmations, &p.ProtocolVersion, &p.ProtocolFrom, &p.Window, &p.ReceiptAge, &p.SkipAfter, &p.SkipGrace}
}

func paramsOf(p ledger.Params) *abiParams {
	return &abiParams{p.Confirmations, p.ProtocolVersion, p.ProtocolFrom, p.Window, p.ReceiptAge, uint64(p.SkipAfter), uint64(p.SkipGrace)}
}

func decodeParams(data []byte) (ledger.Params, error) {
	r := words{rest: data}
	p := r.params()
	return p, r.end()
}

// words reads static abi-encoded values, strictly: every unused bit is zero and
// nothing is left over. The first fault sticks and is told by end.
type words struct {
	rest []byte
	err  error
}

func (r *words) hash() (h wire.Hash) {
	if r.err == nil && len(r.rest) < 32 {
		r.err = errors.New("the data is too short")
	}
	if r.err != nil {
		return h
	}
	r.rest = r.rest[copy(h[:], r.rest):]
	return h
}

// tail reads a word of which only the last n bytes may be used.
func (r *words) tail(n int) []byte {
	h := r.hash()
	for _, b := range h[:32-n] {
		if b != 0 && r.err == nil {
			r.err = fmt.Errorf("the value %s has more than %d bytes", h, n)
		}
	}
	return h[32-n:]
}

func (r *words) number() uint64        { return binary.BigEndian.Uint64(r.tail(8)) }
func (r *words) address() wire.Address { return wire.Address(r.tail(20)) }

func (r *words) truth() bool {
	b := r.tail(1)[0]
	if b > 1 && r.err == nil {
		r.err = fmt.Errorf("the truth value is %d", b)
	}
	return b == 1
}

func (r *words) duration() time.Duration {
	n := r.number()
	if n > math.MaxInt64 && r.err == nil {
		r.err = fmt.Errorf("the duration of %d ns is too long", n)
	}
	return time.Duration(n)
}

func (r *words) params() ledger.Params {
	return ledger.Params{
		Confirmations:   r.number(),
		ProtocolVersion: r.number(),
		ProtocolFrom:    r.number(),
		Window:          r.number(),
		ReceiptAge:      r.number(),
		SkipAfter:       r.duration(),
		SkipGrace:       r.duration(),
	}
}

func (r *words) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%d bytes are left over", len(r.rest))
	}
	return r.err
}

func numberWord(n uint64) (w [32]byte) {
	binary.BigEndian.PutUint64(w[24:], n)
	return w
}

func addressWord(a wire.Address) (w [32]byte) {
	copy(w[12:], a[:])
	return w
}

func ptr[T any](v T) *T { return &v }
