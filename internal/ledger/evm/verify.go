package evm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// ErrNoRecord: the chain holds no such record.
var ErrNoRecord = errors.New("the ledger holds no such record")

// Verified is a record as it stands on the chain now.
type Verified struct {
	Record ledger.Record
	Final  bool   // it can no longer move
	Depth  uint64 // blocks on top of its block
}

// Verify reads a record from the chain again, and follows it from the log to
// its transaction's receipt and the block that is on the chain at that height.
func (l *Ledger) Verify(ctx context.Context, number uint64) (v Verified, err error) {
	err = l.endpoints.Do(ctx, func(ctx context.Context, c *rpc.Client) error {
		head, _, err := l.heads(ctx, c)
		if err != nil {
			return err
		}
		log, err := l.find(ctx, c, number, head.Height())
		if err != nil {
			return err
		}
		if log == nil {
			return ErrNoRecord
		}
		all, err := l.inTransaction(ctx, c, log.TxHash)
		if err != nil {
			return err
		}
		for _, v = range all {
			if v.Record.Number == number {
				return nil
			}
		}
		return fmt.Errorf("the endpoint gives a log for it, but the receipt of transaction %s holds no such log", wire.Hash(log.TxHash))
	})
	if err != nil {
		return Verified{}, fmt.Errorf("verify record %d: %w", number, err)
	}
	return v, nil
}

// VerifyTransaction reads the network contract's records of one transaction
// from the chain again, in order. It gives ErrNoRecord if there are none.
func (l *Ledger) VerifyTransaction(ctx context.Context, tx wire.Hash) (v []Verified, err error) {
	err = l.endpoints.Do(ctx, func(ctx context.Context, c *rpc.Client) error {
		v, err = l.inTransaction(ctx, c, common.Hash(tx))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("verify transaction %s: %w", tx, err)
	}
	return v, nil
}

func (l *Ledger) inTransaction(ctx context.Context, c *rpc.Client, tx common.Hash) ([]Verified, error) {
	var mined *receipt
	if err := c.CallContext(ctx, &mined, "eth_getTransactionReceipt", tx); err != nil {
		return nil, err
	}
	if mined == nil || mined.Status != 1 {
		return nil, ErrNoRecord
	}
	head, final, err := l.heads(ctx, c)
	if err != nil {
		return nil, err
	}
	// The block at this height now, and its own list of logs: not the receipt's word.
	block, err := ethereum.HeaderIfAny(ctx, c, ethereum.BlockTag(mined.BlockNumber))
	if err != nil {
		return nil, err
	}
	if block == nil || block.Hash != mined.BlockHash {
		return nil, fmt.Errorf("its block %d (%s) is not on the chain", uint64(mined.BlockNumber), wire.Hash(mined.BlockHash))
	}
	var listed []types.Log
	var b ethereum.Batch
	b.Add(&listed, "eth_getLogs", filter{Address: l.contract, BlockHash: &block.Hash})
	if err := b.Run(ctx, c); err != nil {
		return nil, err
	}
	times, err := l.times(ctx, c, block)
	if err != nil {
		return nil, err
	}
	var out []Verified
	for i := range mined.Logs {
		log := &mined.Logs[i]
		if log.Address != l.contract {
			continue
		}
		if !contains(listed, log) {
			return nil, fmt.Errorf("block %d does not list the log %d of its receipt", block.Height(), log.Index)
		}
		r, err := decode(log)
		if err != nil {
			return nil, err
		}
		r.Block = blockOf(block, times)
		out = append(out, Verified{
			Record: r,
			Final:  block.Number <= final.Number,
			Depth:  head.Height() - min(block.Height(), head.Height()),
		})
	}
	if len(out) == 0 {
		return nil, ErrNoRecord
	}
	return out, nil
}

func contains(logs []types.Log, l *types.Log) bool {
	for i := range logs {
		o := &logs[i]
		if o.Index != l.Index {
			continue
		}
		if o.TxHash != l.TxHash || o.BlockHash != l.BlockHash || len(o.Topics) != len(l.Topics) || !bytes.Equal(o.Data, l.Data) {
			return false
		}
		for j := range o.Topics {
			if o.Topics[j] != l.Topics[j] {
				return false
			}
		}
		return true
	}
	return false
}
