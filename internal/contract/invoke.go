package contract

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/ethereum/go-ethereum/common"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/transaction"
	"github.com/parley-node/parley/wire"
)

// Types of operations and of the business transactions that they belong to.
const (
	OpInvoke = "blockchain_invoke"
	OpDeploy = "blockchain_deploy"

	TxInvoke = "contract_invoke"
	TxDeploy = "contract_deploy"
)

// ended are the events that tell how an operation of a type ended.
var ended = map[string]struct{ succeeded, failed string }{
	OpInvoke: {"blockchain_invoke_op_succeeded", "blockchain_invoke_op_failed"},
	OpDeploy: {"blockchain_contract_deploy_op_succeeded", "blockchain_contract_deploy_op_failed"},
}

// IsOperation says whether operations of a type are transactions of this package.
func IsOperation(typ string) bool {
	_, ok := ended[typ]
	return ok
}

// Ended says whether an event tells how an operation ended, and whether well.
func Ended(event string) (over, well bool) {
	for _, e := range ended {
		if event == e.succeeded || event == e.failed {
			return true, event == e.succeeded
		}
	}
	return false, false
}

// invocation is what becomes an operation.
type invocation struct {
	opType, txType string
	key            wire.Address
	to             *wire.Address
	data           []byte
	options        Options
	input          json.RawMessage // of the operation
	idempotencyKey string
	errors         []abi.Error
	what           string
}

// operationInput is what an operation says of the request.
type operationInput struct {
	Type       string          `json:"type"` // invoke, deploy
	Interface  *wire.UUID      `json:"interface,omitempty"`
	Location   json.RawMessage `json:"location,omitempty"`
	Key        wire.Address    `json:"key"`
	Method     *operationCall  `json:"method,omitempty"`
	MethodPath string          `json:"methodPath,omitempty"`
	Input      json.RawMessage `json:"input"`
	Options    json.RawMessage `json:"options,omitempty"`
	Errors     []abi.Error     `json:"errors,omitempty"` // those given with the request, to read a later refusal
}

type operationCall struct {
	Name      string `json:"name"`
	Signature string `json:"signature"`
}

// Invoke calls a method by a transaction. It returns the operation, which is on
// its way; a call that the contract would refuse is answered at once with
// FF10111, and leaves a failed operation.
func (s *Service) Invoke(ctx context.Context, r CallRequest) (*store.Operation, error) {
	p, err := s.prepare(ctx, &r)
	if err != nil {
		return nil, err
	}
	in := r.Input
	if empty(in) {
		in = json.RawMessage("{}")
	}
	input, err := json.Marshal(operationInput{
		Type: "invoke", Interface: r.Interface, Location: place(p.to), Key: p.key, MethodPath: r.MethodPath, Input: in, Options: r.Options,
		Method: &operationCall{p.method.path, p.method.Signature}, Errors: r.Errors,
	})
	if err != nil {
		return nil, err
	}
	return s.submit(ctx, &invocation{
		opType: OpInvoke, txType: TxInvoke, key: p.key, to: &p.to, data: p.data, options: p.options, input: input,
		idempotencyKey: r.IdempotencyKey, errors: p.errors, what: p.what(),
	})
}

// DeployRequest asks to create a contract.
type DeployRequest struct {
	Key            string          `json:"key,omitempty"`
	Contract       json.RawMessage `json:"contract"`   // bytecode, hexadecimal
	Definition     json.RawMessage `json:"definition"` // ABI
	Input          json.RawMessage `json:"input"`      // arguments of the constructor, in order or by name
	Options        json.RawMessage `json:"options,omitempty"`
	IdempotencyKey string          `json:"idempotencyKey,omitempty"`
}

// Deploy creates a contract by a transaction.
func (s *Service) Deploy(ctx context.Context, r DeployRequest) (*store.Operation, error) {
	var text string
	if err := json.Unmarshal(r.Contract, &text); err != nil || text == "" {
		return nil, errs.BadRequest("FF10292", "field %q is missing: give the contract's bytecode as a string of hexadecimal digits", "contract")
	}
	code := common.FromHex(text)
	if len(code) == 0 || len(code) != len(trimHex(text))/2 {
		return nil, errs.BadRequest(errs.CodeBadHex, "field %q is not hexadecimal; link its libraries first, if it has any", "contract")
	}
	if empty(r.Definition) {
		return nil, errs.BadRequest("FF10292", "field %q is missing: give the contract's ABI", "definition")
	}
	params, err := abi.Constructor(r.Definition)
	if err != nil {
		return nil, errs.Wrap(err, "FF10346", http.StatusBadRequest, "field %q is no usable ABI", "definition")
	}
	declared, err := abi.Errors(r.Definition)
	if err != nil {
		return nil, errs.Wrap(err, "FF10346", http.StatusBadRequest, "field %q is no usable ABI", "definition")
	}
	in := r.Input
	if empty(in) {
		in = json.RawMessage("[]")
	}
	args, err := params.Encode("input", in)
	if err != nil {
		return nil, badInput(err)
	}
	options, err := parseOptions(r.Options)
	if err != nil {
		return nil, err
	}
	key, err := s.key(ctx, r.Key)
	if err != nil {
		return nil, err
	}
	input, err := json.Marshal(operationInput{Type: "deploy", Key: key, Input: in, Options: r.Options, Errors: declared})
	if err != nil {
		return nil, err
	}
	return s.submit(ctx, &invocation{
		opType: OpDeploy, txType: TxDeploy, key: key, data: append(code, args...), options: options, input: input,
		idempotencyKey: r.IdempotencyKey, errors: declared, what: "the deployment",
	})
}

func trimHex(text string) string {
	if len(text) >= 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X') {
		return text[2:]
	}
	return text
}

// maxIdempotencyKey is that of existing clients.
const maxIdempotencyKey = 256

// submit stores an invocation: business transaction, operation and what the
// transaction manager works on, in one database transaction.
func (s *Service) submit(ctx context.Context, v *invocation) (*store.Operation, error) {
	if len(v.idempotencyKey) > maxIdempotencyKey {
		return nil, errs.BadRequest("FF00127", "field %q has %d characters: at most %d are allowed", "idempotencyKey", len(v.idempotencyKey), maxIdempotencyKey)
	}
	if v.idempotencyKey != "" {
		var before *store.Transaction
		err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
			before, err = tx.TransactionByKey(s.Namespace, v.idempotencyKey)
			return err
		})
		if err != nil {
			return nil, err
		}
		if before != nil {
			return nil, errs.TxKeyReused(v.idempotencyKey, before.ID.String())
		}
	}
	chain, err := s.Chain.ChainID(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	gas, refusal := s.gas(ctx, v.what, messageOf(v.key, v.to, v.data, v.options), v.options, v.errors)
	if refusal != nil && errs.Code(refusal) != "FF10111" {
		return nil, refusal
	}
	fees, err := json.Marshal(v.options.Offer)
	if err != nil {
		return nil, err
	}
	now, txID := s.now(), s.NewID()
	op := &store.Operation{
		ID: s.NewID(), Namespace: s.Namespace, Tx: &txID, Type: v.opType, Status: store.OpPending, Plugin: plugin, Input: v.input, Created: now, Updated: now,
	}
	row := &store.ChainTx{
		Op: op.ID, Tx: &txID, Namespace: s.Namespace, Kind: v.opType, Chain: chain, Account: v.key, To: v.to, Value: v.options.Value.String(),
		Data: v.data, Gas: gas, Fees: fees, State: store.ChainTxQueued, Created: now, Updated: now,
	}
	if v.options.Nonce != nil {
		n := int64(*v.options.Nonce)
		row.Nonce = &n
	}
	if refusal != nil {
		op.Status, op.Error = store.OpFailed, refusal.Error()
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		err := tx.InsertTransactions([]*store.Transaction{{ID: txID, Namespace: s.Namespace, Type: v.txType, Created: now, IdempotencyKey: v.idempotencyKey}})
		if err != nil {
			return err
		}
		if err := tx.InsertOperations([]*store.Operation{op}); err != nil {
			return err
		}
		if err := s.notify(tx, "transaction_submitted", txID, &txID, v.txType, now); err != nil {
			return err
		}
		if refusal != nil {
			return s.notify(tx, ended[v.opType].failed, op.ID, &txID, "", now)
		}
		return tx.InsertChainTxs([]*store.ChainTx{row})
	})
	var dup *store.DuplicateKey
	if errors.As(err, &dup) {
		return nil, errs.TxKeyReused(v.idempotencyKey, dup.ID.String())
	}
	if err != nil {
		return nil, err
	}
	s.Committed()
	if refusal != nil {
		return nil, refusal
	}
	s.Transactions.Woken()
	return op, nil
}

// receipt is the output of an operation.
type receipt struct {
	Headers          receiptHeaders  `json:"headers"`
	ProtocolID       string          `json:"protocolId"`
	TransactionHash  wire.Hash       `json:"transactionHash"`
	BlockNumber      uint64          `json:"blockNumber,string"`
	BlockHash        wire.Hash       `json:"blockHash"`
	GasUsed          uint64          `json:"gasUsed,string"`
	ContractLocation json.RawMessage `json:"contractLocation,omitempty"`
}

type receiptHeaders struct {
	RequestID string `json:"requestId"` // namespace:operation
	Type      string `json:"type"`      // TransactionSuccess, TransactionFailed
}

// settled ends the operations of transactions that have become final, inside the
// database transaction that ends those.
func (s *Service) settled(tx *store.Tx, done []transaction.Outcome) error {
	now := s.now()
	for _, o := range done {
		var output json.RawMessage
		status, text, event := store.OpSucceeded, "", ended[o.Tx.Kind].succeeded
		if o.State != store.ChainTxSucceeded {
			status, event = store.OpFailed, ended[o.Tx.Kind].failed
		}
		if o.Receipt != nil {
			r := receipt{
				Headers:         receiptHeaders{s.Namespace + ":" + o.Tx.Op.String(), "TransactionSuccess"},
				ProtocolID:      fmt.Sprintf("%012d/%06d", o.Receipt.BlockNumber, o.Receipt.TransactionIndex),
				TransactionHash: o.Hash, BlockNumber: uint64(o.Receipt.BlockNumber), BlockHash: wire.Hash(o.Receipt.BlockHash), GasUsed: uint64(o.Receipt.GasUsed),
			}
			if status == store.OpFailed {
				r.Headers.Type = "TransactionFailed"
			} else if o.Receipt.ContractAddress != nil {
				r.ContractLocation = place(wire.Address(*o.Receipt.ContractAddress))
			}
			var err error
			if output, err = json.Marshal(r); err != nil {
				return err
			}
			if err := tx.AddBlockchainID(*o.Tx.Tx, o.Hash.String()); err != nil {
				return err
			}
		}
		switch o.State {
		case store.ChainTxFailed:
			reason := o.Reason
			if reason == "" {
				known, err := s.errorsOf(tx, o.Tx.Op)
				if err != nil {
					return err
				}
				reason = abi.Reason(o.Revert, known)
			}
			text = errs.New("FF10111", http.StatusInternalServerError, "The contract refused the transaction: %s", reason).Error()
		case store.ChainTxCancelled:
			text = errs.New("FF10111", http.StatusInternalServerError, "The transaction did not take place: %s", o.Reason).Error()
		}
		changed, err := tx.UpdateOperations([]wire.UUID{o.Tx.Op}, status, output, text, now)
		if err != nil {
			return err
		}
		if len(changed) == 0 {
			continue // it has its final state
		}
		if err := s.notify(tx, event, o.Tx.Op, o.Tx.Tx, "", now); err != nil {
			return err
		}
	}
	return nil
}

// errorsOf are the errors that the contract of an operation declares.
func (s *Service) errorsOf(tx *store.Tx, op wire.UUID) ([]abi.Error, error) {
	row, err := tx.OperationByID(s.Namespace, op)
	if err != nil {
		return nil, err
	}
	var in operationInput
	if err := json.Unmarshal(row.Input, &in); err != nil {
		return nil, fmt.Errorf("the stored input of operation %s: %w", op, err)
	}
	if len(in.Errors) > 0 || in.Interface == nil {
		return in.Errors, nil
	}
	ffi, err := store.Optional(tx.InterfaceByID(s.Namespace, *in.Interface))
	if err != nil || ffi == nil {
		return nil, err
	}
	var known []abi.Error
	return known, json.Unmarshal(ffi.Errors, &known)
}

// Retry makes a failed operation's transaction again, as another operation. An
// operation that was tried again before leads to the latest.
func (s *Service) Retry(ctx context.Context, id wire.UUID) (*store.Operation, error) {
	var old *store.Operation
	var row *store.ChainTx
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		for at := id; ; at = *old.Retry {
			if old, err = tx.OperationByID(s.Namespace, at); err != nil {
				return err
			}
			if old.Retry == nil {
				break
			}
		}
		row, err = tx.ChainTxByOp(old.ID)
		return err
	})
	if errors.Is(err, store.ErrNoRows) {
		return nil, errs.NoSuch("operation", id.String())
	}
	if err != nil {
		return nil, err
	}
	if row == nil || old.Status != store.OpFailed {
		return nil, errs.Conflict("FF90023", "Operation %s is %s, and was tried on the chain: %t; only a failed transaction can be made again", old.ID, old.Status, row != nil)
	}
	now := s.now()
	op := *old
	op.ID, op.Status, op.Error, op.Output, op.Created, op.Updated = s.NewID(), store.OpPending, "", nil, now, now
	again := *row
	again.Op, again.Nonce, again.State, again.Cancel, again.Attempts, again.Created, again.Updated = op.ID, nil, store.ChainTxQueued, false, nil, now, now
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		at, err := tx.OperationByID(s.Namespace, old.ID)
		if err != nil {
			return err
		}
		if at.Retry != nil {
			return errs.Conflict("FF90023", "Operation %s was tried again just now; retry it once more if that is meant", old.ID)
		}
		if err := tx.InsertOperations([]*store.Operation{&op}); err != nil {
			return err
		}
		if err := tx.SetRetry(old.ID, op.ID, now); err != nil {
			return err
		}
		return tx.InsertChainTxs([]*store.ChainTx{&again})
	})
	if err != nil {
		return nil, err
	}
	s.Transactions.Woken()
	return &op, nil
}
