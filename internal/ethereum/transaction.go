package ethereum

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/rpc"
)

// Unsigned is what a signer signs of a transaction: the bytes whose Keccak-256
// hash is signed, of a legacy transaction by EIP-155, of a dynamic one by
// EIP-1559.
func Unsigned(chainID *big.Int, tx *types.Transaction) ([]byte, error) {
	switch tx.Type() {
	case types.LegacyTxType:
		return rlp.EncodeToBytes([]any{tx.Nonce(), tx.GasPrice(), tx.Gas(), tx.To(), tx.Value(), tx.Data(), chainID, uint(0), uint(0)})
	case types.DynamicFeeTxType:
		b, err := rlp.EncodeToBytes([]any{chainID, tx.Nonce(), tx.GasTipCap(), tx.GasFeeCap(), tx.Gas(), tx.To(), tx.Value(), tx.Data(), tx.AccessList()})
		return append([]byte{types.DynamicFeeTxType}, b...), err
	}
	return nil, fmt.Errorf("transactions of type %d cannot be signed here", tx.Type())
}

// offerJSON is an Offer as clients see it, in decimal wei per gas.
type offerJSON struct {
	GasPrice             string `json:"gasPrice,omitempty"`
	MaxFeePerGas         string `json:"maxFeePerGas,omitempty"`
	MaxPriorityFeePerGas string `json:"maxPriorityFeePerGas,omitempty"`
}

// MarshalJSON writes gasPrice, or maxFeePerGas and maxPriorityFeePerGas.
func (o Offer) MarshalJSON() ([]byte, error) {
	if o.Tip != nil {
		return json.Marshal(offerJSON{MaxFeePerGas: o.Cap.String(), MaxPriorityFeePerGas: o.Tip.String()})
	}
	if o.Price == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(offerJSON{GasPrice: o.Price.String()})
}

// UnmarshalJSON is the inverse. An empty object is no offer.
func (o *Offer) UnmarshalJSON(b []byte) error {
	var j offerJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*o = Offer{}
	for _, f := range []struct {
		text string
		to   **big.Int
	}{{j.GasPrice, &o.Price}, {j.MaxFeePerGas, &o.Cap}, {j.MaxPriorityFeePerGas, &o.Tip}} {
		if f.text == "" {
			continue
		}
		n, ok := new(big.Int).SetString(f.text, 10)
		if !ok {
			return fmt.Errorf("%q is not a whole number of wei per gas", f.text)
		}
		*f.to = n
	}
	return nil
}

// None says that there is no offer.
func (o Offer) None() bool { return o.Price == nil && o.Tip == nil }

// Fate is what a chain knows of an account's transactions.
type Fate struct {
	Final    uint64                   // nonces below are used in final blocks
	Latest   uint64                   // nonces below are used in some block
	Pending  uint64                   // the next nonce, counting those that wait
	Receipts map[common.Hash]*Receipt // of the transactions asked about that are mined
}

// Fate asks one endpoint for an account's counts and then for receipts. of says
// whose, given the final count. As the receipts come last, from the same
// endpoint, a nonce below Final whose transactions have none was used by another
// transaction.
func (c *Client) Fate(ctx context.Context, account common.Address, of func(final uint64) []common.Hash) (Fate, error) {
	var f Fate
	var none Batch
	err := c.with(ctx, &none, func(ctx context.Context, r *rpc.Client) error {
		_, at, err := c.finality.Heads(ctx, r, func() (uint64, error) { return c.confirmations, nil })
		if err != nil {
			return err
		}
		var final, latest, pending Quantity
		var counts Batch
		counts.Add(&final, "eth_getTransactionCount", account, BlockTag(at.Number))
		counts.Add(&latest, "eth_getTransactionCount", account, "latest")
		counts.Add(&pending, "eth_getTransactionCount", account, "pending")
		if err := counts.Run(ctx, r); err != nil {
			return err
		}
		f = Fate{Final: uint64(final), Latest: uint64(latest), Pending: uint64(max(pending, latest)), Receipts: map[common.Hash]*Receipt{}}
		hashes := of(f.Final)
		found := make([]*Receipt, len(hashes))
		var b Batch
		for i, h := range hashes {
			b.Add(&found[i], "eth_getTransactionReceipt", h)
		}
		if err := b.Run(ctx, r); err != nil {
			return err
		}
		for i, h := range hashes {
			if found[i] != nil {
				f.Receipts[h] = found[i]
			}
		}
		return nil
	})
	return f, err
}

// Known says which transactions the chain has, mined or waiting.
func (c *Client) Known(ctx context.Context, hashes []common.Hash) ([]bool, error) {
	if len(hashes) == 0 {
		return nil, nil
	}
	var b Batch
	found := make([]json.RawMessage, len(hashes))
	for i, h := range hashes {
		b.Add(&found[i], "eth_getTransactionByHash", h)
	}
	if err := c.ask(ctx, &b); err != nil {
		return nil, err
	}
	known := make([]bool, len(hashes))
	for i := range found {
		known[i] = len(found[i]) > 0 && string(found[i]) != "null"
	}
	return known, nil
}

// MessageOf is a transaction's call, for Call and WhyFailed.
func MessageOf(from common.Address, tx *types.Transaction) Message {
	gas := hexutil.Uint64(tx.Gas())
	m := Message{From: &from, To: tx.To(), Gas: &gas, Data: tx.Data()}
	if tx.Value().Sign() > 0 {
		m.Value = (*hexutil.Big)(tx.Value())
	}
	return m
}
