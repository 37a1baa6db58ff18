package evm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/parley-node/parley/contracts"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// Sign makes a transaction. See ledger.Ledger. A call of a contract other than
// the network's is tried first, so it may already give a *ledger.Refusal here.
func (l *Ledger) Sign(ctx context.Context, from wire.Address, nonce uint64, bump int, call ledger.Call) (ledger.Signed, error) {
	to, data, err := l.encode(call)
	if err != nil {
		return ledger.Signed{}, err
	}
	gas, err := l.gas(ctx, common.Address(from), to, data, call)
	if err != nil {
		return ledger.Signed{}, err
	}
	return l.sign(ctx, from, nonce, bump, gas, to, data)
}

func (l *Ledger) sign(ctx context.Context, from wire.Address, nonce uint64, bump int, gas uint64, to *common.Address, data []byte) (ledger.Signed, error) {
	if l.keys == nil {
		return ledger.Signed{}, errors.New("this ledger connection was opened without keys, it can only read")
	}
	offer, err := ethereum.FeePolicy{Fees: l.fees}.Offer(ctx, l.endpoints, bump)
	if err != nil {
		return ledger.Signed{}, err
	}
	tx := offer.Transaction(l.signer.ChainID(), nonce, gas, to, nil, data)
	signature, err := l.keys.Sign(ctx, from, wire.Hash(l.signer.Hash(tx)), "transaction")
	if err != nil {
		return ledger.Signed{}, fmt.Errorf("sign the transaction: %w", err)
	}
	if tx, err = tx.WithSignature(l.signer, signature[:]); err != nil {
		return ledger.Signed{}, fmt.Errorf("sign the transaction: %w", err)
	}
	raw, err := tx.MarshalBinary()
	if err != nil {
		return ledger.Signed{}, fmt.Errorf("encode the transaction: %w", err)
	}
	return ledger.Signed{Hash: wire.Hash(tx.Hash()), Nonce: nonce, Raw: raw}, nil
}

// sent is a signed transaction with what can be read from it.
type sent struct {
	raw   []byte
	hash  common.Hash
	from  common.Address
	nonce uint64
	call  ethereum.Message
}

func (l *Ledger) parse(tx ledger.Signed) (sent, error) {
	var t types.Transaction
	if err := t.UnmarshalBinary(tx.Raw); err != nil {
		return sent{}, fmt.Errorf("transaction %s is damaged: %w", tx.Hash, err)
	}
	if wire.Hash(t.Hash()) != tx.Hash || t.Nonce() != tx.Nonce {
		return sent{}, fmt.Errorf("transaction %s is damaged: its bytes have hash %s and nonce %d", tx.Hash, wire.Hash(t.Hash()), t.Nonce())
	}
	from, err := types.Sender(l.signer, &t)
	if err != nil {
		return sent{}, fmt.Errorf("transaction %s has no valid signature for chain %d: %w", tx.Hash, l.chainID, err)
	}
	return sent{
		raw: tx.Raw, hash: t.Hash(), from: from, nonce: t.Nonce(),
		call: ethereum.Message{From: &from, To: t.To(), Gas: (*hexutil.Uint64)(ptr(t.Gas())), Data: t.Data()},
	}, nil
}

// Send hands a transaction to the chain. See ledger.Ledger.
//
// A pin goes out unseen, for speed: if the contract refuses it, that shows when
// it is final, by sending it again or by Outcome. Any other call is tried first,
// and a refused one is not sent and burns no nonce.
func (l *Ledger) Send(ctx context.Context, tx ledger.Signed) error {
	t, err := l.parse(tx)
	if err != nil {
		return err
	}
	err = l.endpoints.Do(ctx, func(ctx context.Context, c *rpc.Client) error {
		if t.call.To != nil && !(*t.call.To == l.contract && isPin(t.call.Data)) {
			if done, err := l.try(ctx, c, t); done || err != nil {
				return err
			}
		}
		return l.submit(ctx, c, t)
	})
	return describe("send", tx, err)
}

// describe adds which transaction it was to an error that is not one of the
// port's own.
func describe(what string, tx ledger.Signed, err error) error {
	var refusal *ledger.Refusal
	if err == nil || errors.Is(err, ledger.ErrNonceUsed) || errors.As(err, &refusal) {
		return err
	}
	return fmt.Errorf("%s transaction %s (nonce %d): %w", what, tx.Hash, tx.Nonce, err)
}

// try runs a call on the newest state. done means that the transaction is on
// the chain already. A call that waits for an earlier one of its account is not
// tried: it may depend on it.
func (l *Ledger) try(ctx context.Context, c *rpc.Client, t sent) (done bool, err error) {
	var mined *receipt
	var next ethereum.Quantity
	var out hexutil.Bytes
	var b ethereum.Batch
	b.Optional(&mined, "eth_getTransactionReceipt", t.hash)
	b.Add(&next, "eth_getTransactionCount", t.from, "latest")
	b.Optional(&out, "eth_call", t.call, "latest")
	if err := b.Run(ctx, c); err != nil {
		return false, err
	}
	if mined != nil {
		return true, l.settled(ctx, c, t, mined)
	}
	if uint64(next) != t.nonce {
		return false, nil
	}
	if refusal := refusalOf(b.Elems[2].Error); refusal != nil {
		return false, refusal
	}
	return false, nil
}

// submit sends the bytes and, in the same round trip, asks for their receipt:
// an endpoint may answer "fine" for what was mined long ago.
func (l *Ledger) submit(ctx context.Context, c *rpc.Client, t sent) error {
	var hash common.Hash
	var mined *receipt
	var b ethereum.Batch
	b.Optional(&hash, "eth_sendRawTransaction", hexutil.Bytes(t.raw))
	b.Optional(&mined, "eth_getTransactionReceipt", t.hash)
	if err := b.Run(ctx, c); err != nil {
		return err
	}
	if mined != nil {
		return l.settled(ctx, c, t, mined)
	}
	if why := b.Elems[0].Error; why != nil {
		return l.whyNot(ctx, c, t, why)
	}
	return nil
}

// settled is the result of a mined transaction. Only a final refusal is told:
// in another block the same bytes may yet succeed.
func (l *Ledger) settled(ctx context.Context, c *rpc.Client, t sent, mined *receipt) error {
	if mined.Status == 1 {
		return nil
	}
	_, final, err := l.heads(ctx, c)
	if err != nil || mined.BlockNumber > final.Number {
		return err
	}
	return l.replay(ctx, c, t, mined)
}

// whyNot finds out what it means that an endpoint does not take a transaction.
// It goes by the state of the chain, not by the text of the answer, which each
// implementation words in its own way.
func (l *Ledger) whyNot(ctx context.Context, c *rpc.Client, t sent, why error) error {
	var mined *receipt
	var waiting *struct {
		Hash common.Hash `json:"hash"`
	}
	var next ethereum.Quantity
	var b ethereum.Batch
	b.Add(&mined, "eth_getTransactionReceipt", t.hash)
	b.Add(&waiting, "eth_getTransactionByHash", t.hash)
	b.Add(&next, "eth_getTransactionCount", t.from, "latest")
	if err := b.Run(ctx, c); err != nil {
		return errors.Join(why, err)
	}
	switch {
	case mined != nil:
		return l.settled(ctx, c, t, mined)
	case waiting != nil:
		return nil
	case uint64(next) > t.nonce:
		mined, err := l.superseded(ctx, c, t)
		if err != nil {
			return err
		}
		if mined != nil {
			return l.settled(ctx, c, t, mined)
		}
		return errors.New("another transaction of the account took this nonce, in a block that is not final yet; send again later")
	case strings.Contains(why.Error(), "underpriced"):
		return fmt.Errorf("%w; another transaction with this nonce waits, or the price is too low: sign it again with a higher bump", why)
	case strings.Contains(why.Error(), "insufficient funds"):
		return fmt.Errorf("%w; account %s needs funds on this chain", why, wire.Address(t.from))
	}
	return why
}

// superseded gives ErrNonceUsed if the final chain went past a transaction's
// nonce without it. The receipt is asked for last, so that a transaction that is
// mined during the questions is not taken for one that never can be.
func (l *Ledger) superseded(ctx context.Context, c *rpc.Client, t sent) (mined *receipt, err error) {
	_, final, err := l.heads(ctx, c)
	if err != nil {
		return nil, err
	}
	var next ethereum.Quantity
	if err := c.CallContext(ctx, &next, "eth_getTransactionCount", t.from, ethereum.BlockTag(final.Number)); err != nil {
		return nil, fmt.Errorf("ask for the account's nonce at block %d: %w", final.Height(), err)
	}
	if uint64(next) <= t.nonce {
		return nil, nil
	}
	if err := c.CallContext(ctx, &mined, "eth_getTransactionReceipt", t.hash); err != nil {
		return nil, err
	}
	if mined == nil {
		return nil, ledger.ErrNonceUsed
	}
	return mined, nil
}

// Outcome tells what became of a sent transaction. settled means that it is in
// a final block: then the error is nil if it succeeded and a *ledger.Refusal if
// the contract refused it. Before, the error is nil, or ErrNonceUsed if a final
// block holds another transaction with its nonce, or tells why the ledger could
// not be asked.
func (l *Ledger) Outcome(ctx context.Context, tx ledger.Signed) (settled bool, err error) {
	t, err := l.parse(tx)
	if err != nil {
		return false, err
	}
	err = l.endpoints.Do(ctx, func(ctx context.Context, c *rpc.Client) error {
		var mined *receipt
		if err := c.CallContext(ctx, &mined, "eth_getTransactionReceipt", t.hash); err != nil {
			return err
		}
		if mined == nil {
			var err error
			if mined, err = l.superseded(ctx, c, t); mined == nil || err != nil {
				return err
			}
		}
		_, final, err := l.heads(ctx, c)
		if err != nil || mined.BlockNumber > final.Number {
			return err
		}
		err = nil
		if mined.Status != 1 {
			err = l.replay(ctx, c, t, mined)
		}
		var refusal *ledger.Refusal
		settled = err == nil || errors.As(err, &refusal)
		return err
	})
	return settled, describe("look up", tx, err)
}

// replay runs a failed transaction again, on the state before and after its
// block, to hear why. The state between is not to be had.
func (l *Ledger) replay(ctx context.Context, c *rpc.Client, t sent, mined *receipt) error {
	var out hexutil.Bytes
	var b ethereum.Batch
	b.Optional(&out, "eth_call", t.call, ethereum.BlockTag(mined.BlockNumber-1))
	b.Optional(&out, "eth_call", t.call, ethereum.BlockTag(mined.BlockNumber))
	if err := b.Run(ctx, c); err != nil {
		return err
	}
	for _, e := range b.Elems {
		if refusal := refusalOf(e.Error); refusal != nil {
			return refusal
		}
	}
	block := uint64(mined.BlockNumber)
	if t.call.Gas != nil && uint64(mined.GasUsed) >= uint64(*t.call.Gas) {
		return &ledger.Refusal{Reason: fmt.Sprintf("the transaction in block %d used up its gas limit of %d", block, uint64(mined.GasUsed))}
	}
	return &ledger.Refusal{Reason: fmt.Sprintf("the transaction failed in block %d for a reason that the endpoint cannot tell any more", block)}
}

// receipt is the part of a transaction's receipt that matters here.
type receipt struct {
	TransactionHash common.Hash       `json:"transactionHash"`
	BlockNumber     ethereum.Quantity `json:"blockNumber"`
	BlockHash       common.Hash       `json:"blockHash"`
	Status          ethereum.Quantity `json:"status"`
	GasUsed         ethereum.Quantity `json:"gasUsed"`
	ContractAddress *common.Address   `json:"contractAddress"`
	Logs            []types.Log       `json:"logs"`
}

// query is a call of one of the network contract's views without arguments.
func (l *Ledger) query(view string) ethereum.Message {
	return ethereum.Message{To: &l.contract, Data: contracts.NetworkABI.Methods[view].ID}
}
