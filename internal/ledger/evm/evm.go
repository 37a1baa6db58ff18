// Package evm is the ledger driver for every chain that speaks Ethereum
// JSON-RPC: go-ethereum, Besu, layer 2s, and Parley's own bundled ledger.
//
// It believes an endpoint as little as it can. Each log is checked against the
// network contract's numbering and running hash, and the last of them against
// the contract's own state at the final block, so that an endpoint that drops,
// adds or changes a log stops the feed instead of making members disagree.
//
// Package ethereum talks to the endpoints; here codec.go translates calls and logs,
// refusal.go says in words why the contract refuses, send.go and fees.go bring
// transactions to the chain, follow.go brings records back, verify.go looks one
// of them up again, deploy.go founds a network.
package evm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

var _ ledger.Ledger = (*Ledger)(nil)

// Config says which contract on which chain, and how to get there.
type Config struct {
	URLs      []string      // HTTP endpoints of one chain; the next one is used when one fails
	WebSocket string        // endpoint that announces new blocks; without it the chain is polled
	Contract  wire.Address  // the network contract; zero only to Deploy one
	FromBlock uint64        // the contract's block, or an earlier one: where its records start
	ChainID   uint64        // the chain it must be; zero takes any
	Keys      keys.Keys     // signs transactions; nil only to read
	Fees      Fees          // what a transaction offers to pay
	Poll      time.Duration // between looks at the chain where nothing announces blocks; 100 ms if zero
	Known     Cursor        // what the caller stored before; checked against the chain
	Logger    *slog.Logger  // nil discards
}

// Cursor is how far a caller has stored the ledger. With it Follow resumes
// without a search, and notices that the chain was replaced while it was off.
type Cursor struct {
	Record  uint64       // number of the last record, 0 if none
	Running wire.Hash    // its running hash
	Final   ledger.Block // final block of the last Advance, zero if none
}

// Ledger is a member's connection to the network contract. It implements
// ledger.Ledger; Close ends it.
type Ledger struct {
	endpoints *ethereum.Endpoints
	keys      keys.Keys
	log       *slog.Logger
	websocket string
	contract  common.Address
	fromBlock uint64
	chainID   uint64
	signer    types.Signer
	fees      Fees
	poll      time.Duration
	pageSize  int
	blockTime bool // the chain tells consensus time (parley_blockTime)

	finality finality

	mu    sync.Mutex
	known Cursor // the furthest that a Follow came to
}

// Open connects to the chain and checks that it is the expected one. The
// contract need not be there yet: a bundled ledger may still be catching up.
func Open(ctx context.Context, cfg Config) (*Ledger, error) {
	if len(cfg.URLs) == 0 {
		return nil, errors.New("ledger: no RPC URL is configured; set at least one")
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := ethereum.CheckWebSocket(cfg.WebSocket); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	e, err := ethereum.Dial(cfg.URLs, log)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	l := &Ledger{
		endpoints: e,
		keys:      cfg.Keys,
		log:       log,
		websocket: cfg.WebSocket,
		contract:  common.Address(cfg.Contract),
		fromBlock: cfg.FromBlock,
		fees:      cfg.Fees,
		poll:      cfg.Poll,
		known:     cfg.Known,
		pageSize:  pageSize,
	}
	if l.poll <= 0 {
		l.poll = 100 * time.Millisecond
	}
	if err := l.greet(ctx, cfg.ChainID); err != nil {
		e.Close()
		return nil, err
	}
	return l, nil
}

// greet learns what does not change while the connection lives.
func (l *Ledger) greet(ctx context.Context, expected uint64) error {
	id, err := ethereum.Call[ethereum.Quantity](ctx, l.endpoints, "eth_chainId")
	if err != nil {
		return fmt.Errorf("ask the ledger for its chain id: %w", err)
	}
	l.chainID = uint64(id)
	if expected != 0 && expected != l.chainID {
		return fmt.Errorf("the ledger's chain id is %d, the configuration says %d; correct the RPC URLs or the chain id", l.chainID, expected)
	}
	l.signer = types.LatestSignerForChainID(id.Big())

	// Consensus time decides verdicts, so all members must read the same clock:
	// this is settled once, and anything but a clear no is an error.
	_, err = ethereum.Call[ethereum.Quantity](ctx, l.endpoints, "parley_blockTime", "latest")
	var answer rpc.Error
	switch {
	case err == nil:
		l.blockTime = true
	case !errors.As(err, &answer) || answer.ErrorCode() != ethereum.MethodNotFound && answer.ErrorCode() != ethereum.NotSupported:
		return fmt.Errorf("ask the ledger whether it tells consensus time: %w", err)
	}
	if l.contract == (common.Address{}) {
		return nil
	}
	records, err := ethereum.Call[ethereum.Quantity](ctx, l.endpoints, "eth_call", l.query("records"), "latest")
	if err != nil {
		return fmt.Errorf("ask the network contract %s for its records: %w", l.contract, err)
	}
	if records == 0 {
		l.log.Warn("no network contract here yet; if the chain is not catching up, the address is wrong", "contract", l.contract)
	}
	return nil
}

// Close ends the connections. A running Follow ends by its context only.
func (l *Ledger) Close() { l.endpoints.Close() }

// State looks at the chain. See ledger.Ledger.
func (l *Ledger) State(ctx context.Context, account *wire.Address) (ledger.State, error) {
	s := ledger.State{ChainID: l.chainID, Contract: wire.Address(l.contract)}
	err := l.endpoints.Do(ctx, func(ctx context.Context, c *rpc.Client) error {
		head, final, err := l.heads(ctx, c)
		if err != nil {
			return err
		}
		var records, nonce ethereum.Quantity
		var b ethereum.Batch
		b.Add(&records, "eth_call", l.query("records"), ethereum.BlockTag(head.Number))
		if account != nil {
			b.Add(&nonce, "eth_getTransactionCount", common.Address(*account), "pending")
		}
		if err := b.Run(ctx, c); err != nil {
			return err
		}
		s.Records, s.Nonce = uint64(records), uint64(nonce)
		times, err := l.times(ctx, c, head, final)
		s.Head, s.Final = blockOf(head, times), blockOf(final, times)
		return err
	})
	if err != nil {
		return ledger.State{}, fmt.Errorf("look at the ledger: %w", err)
	}
	return s, nil
}

// blockOf is a header's block with its consensus time.
func blockOf(h *ethereum.Header, times map[uint64]time.Time) ledger.Block {
	return ledger.Block{Number: h.Height(), Hash: wire.Hash(h.Hash), Time: times[h.Height()]}
}

// BlockHash is the hash of a final block. The block must be at or below the
// final head.
func (l *Ledger) BlockHash(ctx context.Context, number uint64) (wire.Hash, error) {
	var hash wire.Hash
	err := l.endpoints.Do(ctx, func(ctx context.Context, c *rpc.Client) error {
		_, final, err := l.heads(ctx, c)
		if err != nil {
			return err
		}
		if number > final.Height() {
			return fmt.Errorf("block %d is not final yet, the final head is %d", number, final.Height())
		}
		h, err := ethereum.HeaderAt(ctx, c, ethereum.BlockTag(ethereum.Quantity(number)))
		if err != nil {
			return err
		}
		hash = wire.Hash(h.Hash)
		return nil
	})
	if err != nil {
		return wire.Hash{}, fmt.Errorf("look up block %d: %w", number, err)
	}
	return hash, nil
}

// finality is what is known of how this chain makes blocks final.
type finality struct {
	ethereum.Finality
	confirmations atomic.Uint64 // the network's parameter, for chains that name none
	read          atomic.Bool   // confirmations was read from the contract
}

// heads gives the newest block and the newest final one. On a chain that does
// not finalise by itself, the network contract's parameters say how deep a final
// block is.
func (l *Ledger) heads(ctx context.Context, c *rpc.Client) (head, final *ethereum.Header, err error) {
	return l.finality.Heads(ctx, c, func() (uint64, error) { return l.confirmations(ctx, c) })
}

// confirmations reads the parameter once; Follow keeps it up to date from the
// records.
func (l *Ledger) confirmations(ctx context.Context, c *rpc.Client) (uint64, error) {
	if l.finality.read.Load() || l.contract == (common.Address{}) {
		return l.finality.confirmations.Load(), nil
	}
	var out hexutil.Bytes
	var b ethereum.Batch
	b.Add(&out, "eth_call", l.query("params"), "latest")
	if err := b.Run(ctx, c); err != nil {
		return 0, err
	}
	if len(out) == 0 {
		return 0, nil // not deployed yet, so there is nothing to be early about
	}
	p, err := decodeParams(out)
	if err != nil {
		return 0, err
	}
	l.learn(p)
	return p.Confirmations, nil
}

func (l *Ledger) learn(p ledger.Params) {
	l.finality.confirmations.Store(p.Confirmations)
	l.finality.read.Store(true)
}

// times reads the consensus time of blocks, by number, in one request.
func (l *Ledger) times(ctx context.Context, c *rpc.Client, headers ...*ethereum.Header) (map[uint64]time.Time, error) {
	times := make(map[uint64]time.Time, len(headers))
	if !l.blockTime {
		for _, h := range headers {
			times[h.Height()] = time.Unix(int64(h.Timestamp), 0)
		}
		return times, nil
	}
	ns := make([]ethereum.Quantity, len(headers))
	var b ethereum.Batch
	for i, h := range headers {
		b.Add(&ns[i], "parley_blockTime", ethereum.BlockTag(h.Number))
	}
	if err := b.Run(ctx, c); err != nil {
		return nil, err
	}
	for i, h := range headers {
		times[h.Height()] = time.Unix(0, int64(ns[i]))
	}
	return times, nil
}
