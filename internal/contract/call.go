package contract

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// CallRequest asks to call a method: given inline, or by an interface and a path
// name.
type CallRequest struct {
	Interface      *wire.UUID      `json:"interface,omitempty"`
	Location       json.RawMessage `json:"location,omitempty"`
	Key            string          `json:"key,omitempty"` // address, name or DID; the organisation's key if empty
	Method         *abi.Method     `json:"method,omitempty"`
	MethodPath     string          `json:"methodPath,omitempty"`
	Input          json.RawMessage `json:"input"` // by parameter name
	Errors         []abi.Error     `json:"errors,omitempty"`
	Options        json.RawMessage `json:"options,omitempty"` // see Options
	IdempotencyKey string          `json:"idempotencyKey,omitempty"`
	// Message would be carried by the transaction. It is read to be refused: an
	// application must not take a message for sent that was ignored.
	Message json.RawMessage `json:"message,omitempty" openapi:"-"`
}

// Options say how a transaction is to be made. Numbers are decimal or, with 0x,
// hexadecimal; in JSON strings, or numbers.
type Options struct {
	Gas   uint64 // the most that it may burn; estimated if zero
	Value *big.Int
	Nonce *uint64
	Offer ethereum.Offer
	Block string // of a query: a number, or one of the tags of Ethereum JSON-RPC
}

// optionNames are what options may hold.
var optionNames = []string{"gas", "gasLimit", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas", "value", "nonce", "blockNumber"}

// parseOptions reads the options of a call. An unknown one is refused: a typing
// error in "gas" must not go unnoticed.
func parseOptions(raw json.RawMessage) (o Options, err error) {
	o.Value = new(big.Int)
	if empty(raw) {
		return o, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return o, errs.BadRequest("FF10320", "field %q is not an object", "options")
	}
	for name, text := range fields {
		at := "options." + name
		if !slices.Contains(optionNames, name) {
			return o, errs.BadRequest("FF10320", "field %q is not known; there are %s", at, strings.Join(optionNames, ", "))
		}
		if name == "blockNumber" {
			if o.Block, err = blockOf(at, text); err != nil {
				return o, err
			}
			continue
		}
		n, err := number(at, text)
		if err != nil {
			return o, err
		}
		switch name {
		case "gas", "gasLimit":
			if !n.IsUint64() || n.Uint64() > 1<<62 {
				return o, errs.BadRequest("FF10320", "field %q holds %s, which is no amount of gas", at, n)
			}
			o.Gas = n.Uint64()
		case "nonce":
			if !n.IsUint64() || n.Uint64() > 1<<62 {
				return o, errs.BadRequest("FF10320", "field %q holds %s, which is no nonce", at, n)
			}
			u := n.Uint64()
			o.Nonce = &u
		case "gasPrice":
			o.Offer.Price = n
		case "maxFeePerGas":
			o.Offer.Cap = n
		case "maxPriorityFeePerGas":
			o.Offer.Tip = n
		case "value":
			o.Value = n
		}
	}
	f := o.Offer
	if (f.Tip == nil) != (f.Cap == nil) || f.Price != nil && f.Tip != nil {
		return o, errs.BadRequest("FF10320", "field %q: give %q, or both %q and %q", "options", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas")
	}
	if f.Tip != nil && f.Tip.Cmp(f.Cap) > 0 {
		return o, errs.BadRequest("FF10320", "field %q holds %s, more than the %s of %q", "options.maxPriorityFeePerGas", f.Tip, f.Cap, "options.maxFeePerGas")
	}
	return o, nil
}

// number reads a whole number of 256 bits that is not negative.
func number(at string, raw json.RawMessage) (*big.Int, error) {
	text := string(raw)
	var s string
	if json.Unmarshal(raw, &s) == nil {
		text = s
	}
	n, ok := new(big.Int), len(text) <= 80
	if ok {
		n, ok = n.SetString(text, 0)
	}
	if !ok || n.Sign() < 0 || n.BitLen() > 256 {
		return nil, errs.BadRequest("FF10320", "field %q holds %s, which is no whole number from 0 to 2^256-1", at, shorten(string(raw)))
	}
	return n, nil
}

// blockOf reads a block: a number, or a tag.
func blockOf(at string, raw json.RawMessage) (string, error) {
	var tag string
	if json.Unmarshal(raw, &tag) == nil && slices.Contains([]string{"latest", "earliest", "pending", "safe", "finalized"}, tag) {
		return tag, nil
	}
	n, err := number(at, raw)
	if err != nil || !n.IsUint64() {
		return "", errs.BadRequest("FF10320", "field %q holds %s; give a block's number, or one of latest, earliest, safe, finalized", at, shorten(string(raw)))
	}
	return hexutil.EncodeUint64(n.Uint64()), nil
}

// shorten keeps what a client sent readable in an error.
func shorten(text string) string {
	const most = 100
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}

// prepared is a request that was resolved to bytes.
type prepared struct {
	method  *method
	errors  []abi.Error
	to      wire.Address
	data    []byte
	options Options
	key     wire.Address
}

// message is the call for the chain.
func (p *prepared) message() ethereum.Message { return messageOf(p.key, &p.to, p.data, p.options) }

func messageOf(key wire.Address, to *wire.Address, data []byte, o Options) ethereum.Message {
	from := common.Address(key)
	m := ethereum.Message{From: &from, To: (*common.Address)(to), Data: data}
	if o.Value != nil && o.Value.Sign() > 0 {
		m.Value = (*hexutil.Big)(o.Value)
	}
	if o.Gas > 0 {
		m.Gas = (*hexutil.Uint64)(&o.Gas)
	}
	return m
}

// prepare resolves a request: which method, of which contract, with which data,
// signed by whom.
func (s *Service) prepare(ctx context.Context, r *CallRequest) (*prepared, error) {
	if !empty(r.Message) {
		return nil, errs.BadRequest("FF10414", "field %q: messages carried by contract transactions are not in this version of Parley; send the message by itself, and leave the field out", "message")
	}
	p := &prepared{errors: r.Errors}
	switch {
	case r.Method != nil:
		if r.Method.Name == "" {
			return nil, errs.BadRequest("FF10313", "field %q is missing", "method.name")
		}
		m, err := r.Method.Compile()
		if err != nil {
			return nil, errs.Wrap(err, "FF10319", http.StatusBadRequest, "field %q", "method")
		}
		p.method = &method{m, r.Method.Name}
	case r.Interface != nil && r.MethodPath != "":
		c, err := s.use(ctx, *r.Interface)
		if err != nil {
			return nil, err
		}
		if p.method = c.methods[r.MethodPath]; p.method == nil {
			return nil, errs.BadRequest("FF10315", "field %q: the interface has no method %q", "methodPath", shorten(r.MethodPath))
		}
		if len(p.errors) == 0 {
			p.errors = c.errors
		}
	default:
		return nil, errs.BadRequest("FF10313", "field %q is missing: give the method itself, or both %q and %q", "method", "interface", "methodPath")
	}
	var err error
	if p.to, err = address("location", r.Location); err != nil {
		return nil, err
	}
	if p.options, err = parseOptions(r.Options); err != nil {
		return nil, err
	}
	if p.data, err = p.method.Call("input", r.Input); err != nil {
		return nil, badInput(err)
	}
	if p.options.Value.Sign() > 0 && !p.method.Payable && !p.method.View && r.Interface != nil {
		return nil, errs.BadRequest("FF10320", "field %q holds %s, and the method %s takes no value", "options.value", p.options.Value, p.method.Signature)
	}
	p.key, err = s.key(ctx, r.Key)
	return p, err
}

// badInput is the answer to a value that does not fit.
func badInput(err error) error {
	var bad *abi.Invalid
	if !errors.As(err, &bad) {
		return err
	}
	if bad.Missing {
		return errs.BadRequest("FF10304", "%v", bad)
	}
	return errs.BadRequest("FF10305", "%v", bad)
}

// refused is the answer to a call that the contract reverts.
func refused(what string, revert *ethereum.Revert, known []abi.Error) error {
	return errs.New("FF10111", http.StatusInternalServerError, "The contract refused %s: %s", what, abi.Reason(revert.Data, known))
}

// unavailable is the answer where the chain cannot be asked.
func unavailable(err error) error {
	return errs.Wrap(err, "FF10158", http.StatusServiceUnavailable, "The chain cannot be asked now")
}

// gas is how much a transaction may burn. The call is tried, so that one which
// the contract refuses costs no nonce.
func (s *Service) gas(ctx context.Context, what string, m ethereum.Message, o Options, known []abi.Error) (uint64, error) {
	if o.Gas > 0 {
		_, err := s.Chain.Call(ctx, m, "pending")
		return o.Gas, s.tried(what, err, known)
	}
	gas, err := s.Chain.Estimate(ctx, m)
	return gas + gas/4, s.tried(what, err, known) // the state may be another when it is mined
}

// tried tells a refusal of the contract from trouble with the chain.
func (s *Service) tried(what string, err error, known []abi.Error) error {
	var revert *ethereum.Revert
	var answer interface{ ErrorCode() int }
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revert):
		return refused(what, revert, known)
	case errors.As(err, &answer): // the chain's own word: no funds, too little gas
		return errs.New("FF10111", http.StatusInternalServerError, "The chain refused %s: %v", what, err)
	}
	return unavailable(err)
}

// Detail is the story of a transaction, for who looks closer at an operation.
type Detail struct {
	Status   string          `json:"status"` // queued, signed, succeeded, failed, cancelled
	From     wire.Address    `json:"from"`
	To       *wire.Address   `json:"to,omitempty"`
	Nonce    *int64          `json:"nonce,omitempty"`
	Gas      uint64          `json:"gas"`
	Value    string          `json:"value"`
	Reason   string          `json:"reason,omitempty"` // why it waits, or failed
	Created  store.Time      `json:"created"`
	Updated  store.Time      `json:"updated"`
	Attempts []DetailAttempt `json:"history"` // oldest first
}

// DetailAttempt is one signed form of a transaction.
type DetailAttempt struct {
	TransactionHash wire.Hash       `json:"transactionHash"`
	Nonce           int64           `json:"nonce"`
	Cancels         bool            `json:"cancels,omitempty"`
	Fees            json.RawMessage `json:"fees"`
	Created         store.Time      `json:"created"`
	Error           string          `json:"error,omitempty"` // what the chain had against it last
}

// Detail tells the story of an operation's transaction; nil if it has none.
func (s *Service) Detail(ctx context.Context, op wire.UUID) (*Detail, error) {
	row, err := s.Transactions.ByOperation(ctx, op)
	if err != nil || row == nil {
		return nil, err
	}
	d := &Detail{
		Status: row.State, From: row.Account, To: row.To, Nonce: row.Nonce, Gas: row.Gas, Value: row.Value, Reason: row.Reason,
		Created: row.Created, Updated: row.Updated, Attempts: []DetailAttempt{},
	}
	for _, a := range row.Attempts {
		d.Attempts = append(d.Attempts, DetailAttempt{a.Hash, a.Nonce, a.Cancels, a.Fees, a.Created, a.Error})
	}
	return d, nil
}

// what names a call in errors.
func (p *prepared) what() string { return fmt.Sprintf("%s at %s", p.method.Signature, p.to) }
