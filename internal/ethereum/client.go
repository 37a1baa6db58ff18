package ethereum

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rpc"
)

// Config says which chain, and how to get there.
type Config struct {
	URLs          []string      // HTTP endpoints of one chain; the next one is used when one fails
	WebSocket     string        // endpoint that announces new blocks; without it the chain is polled
	ChainID       uint64        // the chain it must be; zero holds on to the first that answers
	Confirmations uint64        // blocks on top of a final one, on a chain that names none
	Poll          time.Duration // between looks at the chain where nothing announces blocks; 100 ms if zero
	Logger        *slog.Logger  // nil discards
}

// Client asks one chain. Each request also asks for the chain's id, so that an
// endpoint that came to serve another chain is left, and never believed: its
// nonces and receipts would make a transaction go out twice. Safe for concurrent
// use.
type Client struct {
	Endpoints *Endpoints
	Poll      time.Duration

	log           *slog.Logger
	websocket     string
	chainID       atomic.Uint64
	confirmations uint64
	finality      Finality
}

// WrongChain tells that an endpoint serves another chain than configured.
type WrongChain struct{ Want, Got uint64 }

func (w *WrongChain) Error() string {
	return fmt.Sprintf("the endpoint serves chain %d instead of %d; correct the RPC URLs or the chain id", w.Got, w.Want)
}

// New prepares a client. It makes no connection: the chain may come later.
func New(cfg Config) (*Client, error) {
	if len(cfg.URLs) == 0 {
		return nil, errors.New("no RPC URL is configured; set at least one")
	}
	if err := CheckWebSocket(cfg.WebSocket); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	e, err := Dial(cfg.URLs, cfg.Logger)
	if err != nil {
		return nil, err
	}
	c := &Client{Endpoints: e, Poll: cfg.Poll, log: cfg.Logger, websocket: cfg.WebSocket, confirmations: cfg.Confirmations}
	if c.Poll <= 0 {
		c.Poll = 100 * time.Millisecond
	}
	c.chainID.Store(cfg.ChainID)
	return c, nil
}

// Close ends the connections.
func (c *Client) Close() { c.Endpoints.Close() }

// Announce rings when the chain has a new block. Stop it.
func (c *Client) Announce(ctx context.Context) *Announcements {
	return Announce(ctx, c.websocket, c.log)
}

// ChainID is the chain's id, asked for if the configuration does not say it.
func (c *Client) ChainID(ctx context.Context) (uint64, error) {
	if id := c.chainID.Load(); id != 0 {
		return id, nil
	}
	var none Batch
	err := c.ask(ctx, &none)
	return c.chainID.Load(), err
}

// with runs f with an endpoint that was found to serve the right chain.
func (c *Client) with(ctx context.Context, b *Batch, f func(context.Context, *rpc.Client) error) error {
	elems := b.Elems
	return c.Endpoints.Do(ctx, func(ctx context.Context, r *rpc.Client) error {
		var id Quantity
		var all Batch
		all.Add(&id, "eth_chainId")
		for i, e := range elems {
			e.Error = nil // of an earlier endpoint
			all.Elems, all.mayFail = append(all.Elems, e), append(all.mayFail, b.mayFail[i])
		}
		err := all.Run(ctx, r)
		b.Elems = all.Elems[1:]
		if err != nil {
			return err
		}
		c.chainID.CompareAndSwap(0, uint64(id))
		if want := c.chainID.Load(); want != uint64(id) {
			return &WrongChain{Want: want, Got: uint64(id)}
		}
		if f == nil {
			return nil
		}
		return f(ctx, r)
	})
}

func (c *Client) ask(ctx context.Context, b *Batch) error { return c.with(ctx, b, nil) }

// Heads gives the newest block and the newest final one.
func (c *Client) Heads(ctx context.Context) (head, final *Header, err error) {
	var none Batch
	err = c.with(ctx, &none, func(ctx context.Context, r *rpc.Client) error {
		head, final, err = c.finality.Heads(ctx, r, func() (uint64, error) { return c.confirmations, nil })
		return err
	})
	return head, final, err
}

// Count is how many transactions of an account are in final blocks: the nonces
// below are used for good. pending counts those that wait, too.
func (c *Client) Count(ctx context.Context, account common.Address) (final, pending uint64, err error) {
	var f, p Quantity
	var b Batch
	b.Add(&p, "eth_getTransactionCount", account, "pending")
	err = c.with(ctx, &b, func(ctx context.Context, r *rpc.Client) error {
		_, at, err := c.finality.Heads(ctx, r, func() (uint64, error) { return c.confirmations, nil })
		if err != nil {
			return err
		}
		return r.CallContext(ctx, &f, "eth_getTransactionCount", account, BlockTag(at.Number))
	})
	return uint64(f), max(uint64(p), uint64(f)), err
}

// Estimate is the gas that a call needs. A *Revert if the contract refuses it.
func (c *Client) Estimate(ctx context.Context, m Message) (uint64, error) {
	var gas Quantity
	err := c.one(ctx, &gas, "eth_estimateGas", m)
	return uint64(gas), err
}

// Call runs a call without a transaction, at a block number or tag. A *Revert if
// the contract refuses it.
func (c *Client) Call(ctx context.Context, m Message, at string) ([]byte, error) {
	var out hexutil.Bytes
	err := c.one(ctx, &out, "eth_call", m, at)
	return out, err
}

// Code is the bytecode at an address; empty if no contract is there.
func (c *Client) Code(ctx context.Context, address common.Address) ([]byte, error) {
	var code hexutil.Bytes
	err := c.one(ctx, &code, "eth_getCode", address, "latest")
	return code, err
}

// one asks for one thing, whose error may be a revert.
func (c *Client) one(ctx context.Context, result any, method string, args ...any) error {
	var b Batch
	b.Optional(result, method, args...)
	if err := c.ask(ctx, &b); err != nil {
		return err
	}
	if err := b.Elems[0].Error; err != nil {
		if r := RevertOf(err); r != nil {
			return r
		}
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// Send hands signed transactions to the chain. errs is parallel: what the
// endpoint had against each, nil if it took it or has it. err means that the
// outcome of all is unknown.
func (c *Client) Send(ctx context.Context, raw [][]byte) (errs []error, err error) {
	var b Batch
	hashes := make([]common.Hash, len(raw))
	for i := range raw {
		b.Optional(&hashes[i], "eth_sendRawTransaction", hexutil.Bytes(raw[i]))
	}
	if err := c.ask(ctx, &b); err != nil {
		return nil, err
	}
	errs = make([]error, len(raw))
	for i := range raw {
		errs[i] = b.Elems[i].Error
	}
	return errs, nil
}

// Receipt is the part of a transaction's receipt that matters here.
type Receipt struct {
	TransactionHash   common.Hash     `json:"transactionHash"`
	TransactionIndex  Quantity        `json:"transactionIndex"`
	BlockNumber       Quantity        `json:"blockNumber"`
	BlockHash         common.Hash     `json:"blockHash"`
	From              common.Address  `json:"from"`
	To                *common.Address `json:"to"`
	Status            Quantity        `json:"status"`
	GasUsed           Quantity        `json:"gasUsed"`
	EffectiveGasPrice *hexutil.Big    `json:"effectiveGasPrice"`
	ContractAddress   *common.Address `json:"contractAddress"`
}

// Receipts looks up mined transactions; nil for one that is not mined.
func (c *Client) Receipts(ctx context.Context, hashes []common.Hash) ([]*Receipt, error) {
	var b Batch
	found := make([]*Receipt, len(hashes))
	for i := range hashes {
		b.Add(&found[i], "eth_getTransactionReceipt", hashes[i])
	}
	return found, c.ask(ctx, &b)
}

// WhyFailed runs a mined transaction's call again on the state before and after
// its block, to hear why it failed; nil if the endpoint cannot tell. The state
// between is not to be had.
func (c *Client) WhyFailed(ctx context.Context, m Message, block uint64) (*Revert, error) {
	var out hexutil.Bytes
	var b Batch
	b.Optional(&out, "eth_call", m, BlockTag(Quantity(max(block, 1)-1)))
	b.Optional(&out, "eth_call", m, BlockTag(Quantity(block)))
	if err := c.ask(ctx, &b); err != nil {
		return nil, err
	}
	for _, e := range b.Elems {
		if r := RevertOf(e.Error); r != nil {
			return r, nil
		}
	}
	return nil, nil
}

// LogQuery selects logs of a range of blocks: of an address (nil for any), with
// one of some first topics.
type LogQuery struct {
	From, To  uint64
	Addresses []common.Address
	Topics    []common.Hash
}

// MarshalJSON is the filter object of eth_getLogs.
func (q LogQuery) MarshalJSON() ([]byte, error) {
	filter := map[string]any{"fromBlock": BlockTag(Quantity(q.From)), "toBlock": BlockTag(Quantity(q.To)), "topics": [][]common.Hash{q.Topics}}
	if len(q.Addresses) > 0 {
		filter["address"] = q.Addresses
	}
	return json.Marshal(filter)
}

// Logs reads logs, in order, and the headers of some blocks; nil for a block
// that the chain does not have.
func (c *Client) Logs(ctx context.Context, q LogQuery, headers ...uint64) (logs []types.Log, found []*Header, err error) {
	var b Batch
	b.Add(&logs, "eth_getLogs", q)
	found = make([]*Header, len(headers))
	for i, n := range headers {
		b.Add(&found[i], "eth_getBlockByNumber", BlockTag(Quantity(n)), false)
	}
	return logs, found, c.ask(ctx, &b)
}

// Headers reads blocks by number; nil for one that the chain does not have.
func (c *Client) Headers(ctx context.Context, numbers []uint64) ([]*Header, error) {
	var b Batch
	found := make([]*Header, len(numbers))
	for i, n := range numbers {
		b.Add(&found[i], "eth_getBlockByNumber", BlockTag(Quantity(n)), false)
	}
	return found, c.ask(ctx, &b)
}

// Big is the chain's id as signatures want it.
func (c *Client) Big(ctx context.Context) (*big.Int, error) {
	id, err := c.ChainID(ctx)
	return new(big.Int).SetUint64(id), err
}
