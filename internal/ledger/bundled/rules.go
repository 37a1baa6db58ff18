package bundled

import (
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/trie"
)

// rulesVersion numbers the consensus rules in this package; every CometBFT block
// carries it.
const rulesVersion = 1

// Limits that all validators of a chain must agree on: changing one is a change
// of the consensus rules.
const (
	// maxBlockGas is the EIP-1559 target, half of the gas limit. A block above it
	// would raise the base fee from 0 to 1 wei, and transactions without a price
	// would never fit again.
	maxBlockGas = gasLimit / 2
	// maxTxGas bounds how long one transaction can keep a validator busy.
	maxTxGas = 100_000_000
	// maxTxBytes is go-ethereum's own limit of its transaction pool.
	maxTxBytes = 128 << 10
	// maxBlockTxs and maxBlockBytes keep a block's execution and transfer short.
	maxBlockTxs   = 4000
	maxBlockBytes = 4 << 20
)

// MaxClockAhead is how far a proposed consensus time may lie ahead of a
// validator's own clock before it votes against the proposal.
const MaxClockAhead = 10 * time.Second

// admissible tells why a transaction can never be in a block, whatever the
// state; nil if it can.
func admissible(tx *types.Transaction) error {
	switch {
	case tx.Type() == types.BlobTxType:
		return fmt.Errorf("transaction %s carries blobs, which this chain does not store", tx.Hash())
	case tx.Gas() > maxTxGas:
		return fmt.Errorf("transaction %s has gas limit %d, at most %d is allowed", tx.Hash(), tx.Gas(), maxTxGas)
	case tx.Size() > maxTxBytes:
		return fmt.Errorf("transaction %s has %d bytes, at most %d are allowed", tx.Hash(), tx.Size(), maxTxBytes)
	case !tx.Protected():
		return fmt.Errorf("transaction %s names no chain and could be replayed from another one, sign it as EIP-155 demands", tx.Hash())
	}
	return nil
}

// encodeBlock is the form in which CometBFT carries an Ethereum block: its
// header and its transactions, one item each.
func encodeBlock(b *types.Block) ([][]byte, error) {
	header, err := rlp.EncodeToBytes(b.Header())
	if err != nil {
		return nil, fmt.Errorf("encode header of block %d: %w", b.NumberU64(), err)
	}
	items := make([][]byte, 1, len(b.Transactions())+1)
	items[0] = header
	for _, tx := range b.Transactions() {
		raw, err := tx.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("encode transaction %s: %w", tx.Hash(), err)
		}
		items = append(items, raw)
	}
	return items, nil
}

// decodeBlock reads what encodeBlock made. It checks form and limits, and that
// the header is of these transactions: a block that was executed before is
// known by its header's hash, so another list under the same header must not
// come further. known may return an equal transaction that was seen before, or
// nil; its recovered sender is worth keeping.
func decodeBlock(items [][]byte, known func(common.Hash) *types.Transaction) (*types.Block, error) {
	if len(items) < 2 || len(items) > maxBlockTxs+1 {
		return nil, fmt.Errorf("block of %d items, it must be a header and 1 to %d transactions", len(items), maxBlockTxs)
	}
	var header types.Header
	if err := rlp.DecodeBytes(items[0], &header); err != nil {
		return nil, fmt.Errorf("block header: %w", err)
	}
	txs := make([]*types.Transaction, len(items)-1)
	for i, raw := range items[1:] {
		tx := new(types.Transaction)
		if err := tx.UnmarshalBinary(raw); err != nil {
			return nil, fmt.Errorf("transaction %d of the block: %w", i, err)
		}
		if err := admissible(tx); err != nil {
			return nil, err
		}
		if seen := known(tx.Hash()); seen != nil {
			tx = seen
		}
		txs[i] = tx
	}
	if root := types.DeriveSha(types.Transactions(txs), trie.NewStackTrie(nil)); root != header.TxHash {
		return nil, fmt.Errorf("block has transactions of root %s under a header of root %s", root, header.TxHash)
	}
	return types.NewBlockWithHeader(&header).WithBody(types.Body{Transactions: txs, Withdrawals: types.Withdrawals{}}), nil
}

// checkHeader verifies the rules of this chain that Ethereum does not have: h
// must be the child of parent that CometBFT carries at height in a block of time
// cometTime. The rules are the same at every validator and at every time.
func checkHeader(h, parent *types.Header, height int64, cometTime time.Time) error {
	s := sealOf(h)
	switch {
	case h.ParentHash != parent.Hash():
		return fmt.Errorf("block has parent %s, the decided head is %s", h.ParentHash, parent.Hash())
	case h.Number.Uint64() != parent.Number.Uint64()+1:
		return fmt.Errorf("block has number %d after %d", h.Number, parent.Number)
	case s.height != height || h.MixDigest != s.encode():
		return fmt.Errorf("block has prevRandao %s, which is not a seal of height %d", h.MixDigest, height)
	case !s.time.After(sealOf(parent).time):
		return fmt.Errorf("consensus time %s is not after the parent's %s", s.time, sealOf(parent).time)
	case s.time.Before(cometTime):
		return fmt.Errorf("consensus time %s is before the validators' median time %s", s.time, cometTime)
	case h.Time != ethereumTime(s.time, parent):
		return fmt.Errorf("block has time %d, consensus time %s gives %d", h.Time, s.time, ethereumTime(s.time, parent))
	case h.GasLimit != parent.GasLimit:
		return fmt.Errorf("block has gas limit %d, this chain's is %d", h.GasLimit, parent.GasLimit)
	case h.GasUsed > maxBlockGas:
		return fmt.Errorf("block uses %d gas, at most %d is allowed", h.GasUsed, maxBlockGas)
	case h.Coinbase != (common.Address{}):
		return fmt.Errorf("block pays %s, this chain pays nobody", h.Coinbase)
	case len(h.Extra) > 0:
		return fmt.Errorf("block has %d bytes of extra data, it must have none", len(h.Extra))
	case h.ParentBeaconRoot == nil || *h.ParentBeaconRoot != (common.Hash{}):
		return fmt.Errorf("block names a beacon root, this chain has no beacon")
	case h.RequestsHash == nil || *h.RequestsHash != types.EmptyRequestsHash:
		return fmt.Errorf("block has execution-layer requests, this chain has none")
	}
	return nil
}

// checkClock refuses a consensus time that lies in the future. Only a vote
// depends on it: once decided, a block stands whatever a clock says.
func checkClock(h *types.Header, now time.Time) error {
	if at := sealOf(h).time; at.After(now.Add(MaxClockAhead)) {
		return fmt.Errorf("consensus time %s is more than %s ahead of this validator's clock %s", at, MaxClockAhead, now)
	}
	return nil
}
