package evm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

const (
	attemptTimeout = 15 * time.Second // for one endpoint to answer
	batchLimit     = 100              // requests in one HTTP request; common endpoints allow at least this

	// JSON-RPC error codes of an endpoint that lacks a method.
	methodNotFound = -32601
	notSupported   = -32004 // EIP-1474
)

// endpoints are several ways to one chain. One is used until it fails.
type endpoints struct {
	log     *slog.Logger
	names   []string // host names, for the log: a URL may hold a password
	clients []*rpc.Client
	current atomic.Int64
	http    *http.Transport
}

func dial(urls []string, log *slog.Logger) (*endpoints, error) {
	e := &endpoints{log: log, http: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 5 * time.Second,
	}}
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			e.close()
			return nil, errors.New("ledger: an RPC URL is not of the form http(s)://host:port/path")
		}
		// No connection is made before the first request.
		c, err := rpc.DialOptions(context.Background(), s, rpc.WithHTTPClient(&http.Client{Transport: e.http}))
		if err != nil {
			e.close()
			return nil, fmt.Errorf("ledger: RPC URL of %s: %w", u.Host, err)
		}
		e.names = append(e.names, u.Host)
		e.clients = append(e.clients, c)
	}
	return e, nil
}

func (e *endpoints) close() {
	for _, c := range e.clients {
		c.Close()
	}
	e.http.CloseIdleConnections()
}

// do runs f with one endpoint, and with each of the others in turn while they
// cannot be reached. An answer, be it an error, is an answer.
func (e *endpoints) do(ctx context.Context, f func(context.Context, *rpc.Client) error) error {
	var failures []error
	for range e.clients {
		i := e.current.Load()
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := f(attempt, e.clients[i])
		cancel()
		if err == nil || ctx.Err() != nil || !unreachable(err) {
			return err
		}
		failures = append(failures, fmt.Errorf("endpoint %s: %w", e.names[i], err))
		e.leave(i, err)
	}
	return errors.Join(failures...)
}

// name is the endpoint in use.
func (e *endpoints) name() string { return e.names[e.current.Load()] }

// leave moves on from endpoint i, unless someone else did already.
func (e *endpoints) leave(i int64, why error) {
	next := (i + 1) % int64(len(e.clients))
	if e.current.CompareAndSwap(i, next) && next != i {
		e.log.Warn("ledger endpoint failed, using the next", "endpoint", e.names[i], "next", e.names[next], "err", why)
	}
}

// unreachable tells a failure of the endpoint from an answer of the chain.
func unreachable(err error) bool {
	var status rpc.HTTPError
	var network net.Error
	var address *url.Error
	var syntax *json.SyntaxError
	var shape *json.UnmarshalTypeError // one error object in answer to a batch
	return errors.As(err, &status) || errors.As(err, &network) || errors.As(err, &address) || errors.As(err, &syntax) || errors.As(err, &shape) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, rpc.ErrMissingBatchResponse)
}

// call asks one thing.
func call[T any](ctx context.Context, e *endpoints, method string, args ...any) (result T, err error) {
	err = e.do(ctx, func(ctx context.Context, c *rpc.Client) error {
		return c.CallContext(ctx, &result, method, args...)
	})
	return result, err
}

// batch asks several things in one round trip.
type batch struct {
	elems   []rpc.BatchElem
	mayFail []bool
}

func (b *batch) add(result any, method string, args ...any) {
	b.elems = append(b.elems, rpc.BatchElem{Method: method, Args: args, Result: result})
	b.mayFail = append(b.mayFail, false)
}

// optional leaves result alone where the endpoint answers with an error, which
// then is at its place in elems.
func (b *batch) optional(result any, method string, args ...any) {
	b.add(result, method, args...)
	b.mayFail[len(b.mayFail)-1] = true
}

// run gives the first error that matters.
func (b *batch) run(ctx context.Context, c *rpc.Client) error {
	for start := 0; start < len(b.elems); start += batchLimit {
		if err := c.BatchCallContext(ctx, b.elems[start:min(start+batchLimit, len(b.elems))]); err != nil {
			return err
		}
	}
	for i, e := range b.elems {
		if e.Error == nil {
			continue
		}
		if b.mayFail[i] && !unreachable(e.Error) {
			continue
		}
		return fmt.Errorf("%s: %w", e.Method, e.Error)
	}
	return nil
}

// header is the part of a block's header that matters here. Its hash is the
// one that the endpoint tells: chains hash their headers in different ways.
type header struct {
	Number     quantity     `json:"number"`
	Hash       common.Hash  `json:"hash"`
	ParentHash common.Hash  `json:"parentHash"`
	Timestamp  quantity     `json:"timestamp"`
	BaseFee    *hexutil.Big `json:"baseFeePerGas"`
	Difficulty *hexutil.Big `json:"difficulty"`
}

func (h *header) number() uint64 { return uint64(h.Number) }

func (h *header) block(times map[uint64]time.Time) ledger.Block {
	return ledger.Block{Number: h.number(), Hash: wire.Hash(h.Hash), Time: times[h.number()]}
}

// headerAt reads a block that must exist.
func headerAt(ctx context.Context, c *rpc.Client, at string) (*header, error) {
	h, err := headerIfAny(ctx, c, at)
	if err == nil && h == nil {
		err = fmt.Errorf("the endpoint does not know block %s", at)
	}
	return h, err
}

func headerIfAny(ctx context.Context, c *rpc.Client, at string) (h *header, err error) {
	err = c.CallContext(ctx, &h, "eth_getBlockByNumber", at, false)
	return h, err
}

// quantity is a JSON-RPC number of at most 64 bits: minimal hex, or the 32-byte
// word of a contract's answer. The empty answer of an address without a
// contract reads as 0.
type quantity uint64

func (q *quantity) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	n, ok := new(big.Int), s == "0x"
	if !ok {
		n, ok = n.SetString(s, 0)
	}
	if !ok || !n.IsUint64() || len(s) < 2 || s[:2] != "0x" {
		return fmt.Errorf("%q is not a number of at most 64 bits", s)
	}
	*q = quantity(n.Uint64())
	return nil
}

func (q quantity) big() *big.Int { return new(big.Int).SetUint64(uint64(q)) }

// blockTag is a block number as JSON-RPC wants it.
func blockTag(q quantity) string { return hexutil.EncodeUint64(uint64(q)) }

type bytesResult = hexutil.Bytes

// message is a call for eth_call and eth_estimateGas.
type message struct {
	From *common.Address `json:"from,omitempty"`
	To   *common.Address `json:"to,omitempty"`
	Gas  *hexutil.Uint64 `json:"gas,omitempty"`
	// The contract's methods take no value, and price 0 needs no balance.
	Data hexutil.Bytes `json:"data"`
}
