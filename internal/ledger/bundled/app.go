package bundled

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

// buildFor is how long a proposer goes on adding transactions to a block. It
// leaves the other validators time to execute within CometBFT's timeouts.
const buildFor = 400 * time.Millisecond

// blockOverhead is room for the header and the framing of a proposed block.
const blockOverhead = 2048

// ABCI response codes of CheckTx: why a transaction is not in the mempool.
const (
	codeInvalid = iota + 1 // never acceptable, or not by this validator's pool now
	codeLater              // kept by the pool until its preceding ones are here
	codeGone               // no longer executable
)

// app is what CometBFT orders blocks for (ABCI 2.0). Its state is the Ethereum
// chain and nothing else.
type app struct {
	abci.BaseApplication

	engine   *engine
	intake   *intake
	contract common.Address // network contract
	allow    map[string]bool
	now      func() time.Time
	log      *slog.Logger

	// validatorsAt returns the validator set that CometBFT will use at a height.
	validatorsAt func(height int64) (*cmttypes.ValidatorSet, error)

	// decided is the block that FinalizeBlock executed and Commit will make the
	// head; zero if the CometBFT block is empty. CometBFT calls both in turn.
	decided common.Hash
}

// Info tells CometBFT where to start replaying: after the block that made the
// head. Empty blocks after that are replayed too; they change nothing.
func (a *app) Info(context.Context, *abci.RequestInfo) (*abci.ResponseInfo, error) {
	height := sealOf(a.engine.head()).height
	if height == 0 {
		return &abci.ResponseInfo{AppVersion: rulesVersion}, nil
	}
	return &abci.ResponseInfo{AppVersion: rulesVersion, LastBlockHeight: height, LastBlockAppHash: a.appHash()}, nil
}

// appHash is constant. A block carries the Ethereum header with the state root
// that it leads to, and validators vote on it only after they executed it; a
// hash of the same state one block later would add nothing but an empty block
// after each full one, which CometBFT makes whenever the hash changes.
func (a *app) appHash() []byte { return a.engine.chain.Genesis().Hash().Bytes() }

func (a *app) InitChain(context.Context, *abci.RequestInitChain) (*abci.ResponseInitChain, error) {
	return &abci.ResponseInitChain{AppHash: a.appHash()}, nil
}

// CheckTx admits a transaction to the mempool if it can be executed next.
func (a *app) CheckTx(_ context.Context, r *abci.RequestCheckTx) (*abci.ResponseCheckTx, error) {
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(r.Tx); err != nil {
		return &abci.ResponseCheckTx{Code: codeInvalid, Log: err.Error()}, nil
	}
	if r.Type == abci.CheckTxType_Recheck {
		if a.intake.executable(tx.Hash()) {
			return &abci.ResponseCheckTx{}, nil
		}
		return &abci.ResponseCheckTx{Code: codeGone, Log: "no longer executable"}, nil
	}
	if err := a.intake.add(tx, true); err != nil {
		return &abci.ResponseCheckTx{Code: codeInvalid, Log: err.Error()}, nil
	}
	if !a.intake.executable(tx.Hash()) {
		return &abci.ResponseCheckTx{Code: codeLater, Log: "waits for a preceding transaction"}, nil
	}
	return &abci.ResponseCheckTx{}, nil
}

// PrepareProposal makes the block that this validator proposes. A failure to
// build one is logged and answered with an empty block: the next proposer may
// fare better, and an error here would stop this validator.
func (a *app) PrepareProposal(ctx context.Context, r *abci.RequestPrepareProposal) (*abci.ResponsePrepareProposal, error) {
	if len(r.Txs) == 0 {
		return &abci.ResponsePrepareProposal{}, nil
	}
	items, err := a.propose(ctx, r)
	if err != nil {
		a.log.Error("cannot build a block, proposing an empty one", "height", r.Height, "err", err)
		items = nil
	}
	return &abci.ResponsePrepareProposal{Txs: items}, nil
}

func (a *app) propose(ctx context.Context, r *abci.RequestPrepareProposal) ([][]byte, error) {
	var txs []*types.Transaction
	room := r.MaxTxBytes - blockOverhead
	for _, raw := range r.Txs {
		tx := new(types.Transaction)
		if err := tx.UnmarshalBinary(raw); err != nil {
			continue // not from CheckTx, which would have refused it
		}
		if room -= cmttypes.ComputeProtoSizeForTxs([]cmttypes.Tx{raw}); room < 0 {
			break
		}
		if seen := a.intake.pool.Get(tx.Hash()); seen != nil {
			tx = seen // its sender is already recovered
		}
		txs = append(txs, tx)
	}
	ctx, cancel := context.WithTimeout(ctx, buildFor)
	defer cancel()
	block, err := a.engine.build(ctx, seal{time: a.consensusTime(r.Time), height: r.Height}, txs)
	if err != nil || block == nil {
		return nil, err
	}
	return encodeBlock(block)
}

// consensusTime is this validator's clock, corrected to what checkHeader asks.
func (a *app) consensusTime(cometTime time.Time) time.Time {
	at := a.now()
	if cometTime.After(at) {
		at = cometTime
	}
	if parent := sealOf(a.engine.head()).time; !at.After(parent) {
		at = parent.Add(1)
	}
	return at.UTC()
}

// ProcessProposal votes on a proposed block: it must follow the rules, and
// executing it must give exactly what its header says.
func (a *app) ProcessProposal(ctx context.Context, r *abci.RequestProcessProposal) (*abci.ResponseProcessProposal, error) {
	if len(r.Txs) == 0 {
		return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_ACCEPT}, nil
	}
	block, err := a.check(r.Txs, r.Height, r.Time)
	if err == nil {
		err = checkClock(block.Header(), a.now())
	}
	if err == nil {
		err = a.engine.execute(ctx, block)
	}
	if err != nil {
		a.log.Warn("voted against a proposed block", "height", r.Height, "proposer", common.Bytes2Hex(r.ProposerAddress), "err", err)
		return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_REJECT}, nil
	}
	return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_ACCEPT}, nil
}

// check decodes a block and applies the rules that are the same for everyone.
func (a *app) check(items [][]byte, height int64, cometTime time.Time) (*types.Block, error) {
	block, err := decodeBlock(items, a.intake.pool.Get)
	if err != nil {
		return nil, err
	}
	return block, checkHeader(block.Header(), a.engine.head(), height, cometTime)
}

// FinalizeBlock executes a decided block. It fails only if this validator cannot
// execute what more than two thirds of the voting power executed; CometBFT then
// stops this validator, which is right: its state can no longer be trusted.
func (a *app) FinalizeBlock(ctx context.Context, r *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	a.decided = common.Hash{}
	res := &abci.ResponseFinalizeBlock{AppHash: a.appHash()}
	if len(r.Txs) == 0 {
		return res, nil
	}
	block, err := a.check(r.Txs, r.Height, r.Time)
	if err == nil {
		err = a.engine.execute(ctx, block)
	}
	if err != nil {
		return nil, fmt.Errorf("decided block at height %d: %w", r.Height, err)
	}
	a.decided = block.Hash()
	res.TxResults = make([]*abci.ExecTxResult, len(r.Txs))
	for i := range res.TxResults {
		res.TxResults[i] = &abci.ExecTxResult{}
	}
	// Updates of this block apply to the set of the height after the next.
	current, err := a.validatorsAt(r.Height + 1)
	if err != nil {
		return nil, fmt.Errorf("validators after height %d: %w", r.Height, err)
	}
	res.ValidatorUpdates = validatorUpdates(a.contract, a.engine.chain.GetReceiptsByHash(a.decided), current, a.log)
	return res, nil
}

// Commit makes the decided block final on disk.
func (a *app) Commit(context.Context, *abci.RequestCommit) (*abci.ResponseCommit, error) {
	if a.decided != (common.Hash{}) {
		if err := a.engine.commit(a.decided); err != nil {
			return nil, err
		}
		a.decided = common.Hash{}
	}
	return &abci.ResponseCommit{}, nil
}

// Query answers CometBFT's question whether a peer may connect.
func (a *app) Query(_ context.Context, r *abci.RequestQuery) (*abci.ResponseQuery, error) {
	if id, ok := strings.CutPrefix(r.Path, "/p2p/filter/id/"); ok && len(a.allow) > 0 && !a.allow[id] {
		return &abci.ResponseQuery{Code: codeInvalid, Log: "peer " + id + " is not on the list of allowed peers"}, nil
	}
	return &abci.ResponseQuery{}, nil
}
