// Package ethereum talks to Ethereum JSON-RPC endpoints: what the ledger driver
// and the contract gateway have in common.
//
// endpoints.go holds several ways to one chain and fails over between them,
// client.go asks the chain what the gateway needs to know, fees.go says what a
// transaction offers to pay, revert.go reads why a contract refused.
package ethereum

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
)

const (
	attemptTimeout = 15 * time.Second // for one endpoint to answer
	batchLimit     = 100              // requests in one HTTP request; common endpoints allow at least this

	// JSON-RPC error codes of an endpoint that lacks a method.
	MethodNotFound = -32601
	NotSupported   = -32004 // EIP-1474
)

// Endpoints are several ways to one chain. One is used until it fails.
type Endpoints struct {
	log     *slog.Logger
	names   []string // host names, for the log: a URL may hold a password
	clients []*rpc.Client
	current atomic.Int64
	http    *http.Transport
}

// Dial prepares connections to the endpoints of one chain. None is made before
// the first request.
func Dial(urls []string, log *slog.Logger) (*Endpoints, error) {
	e := &Endpoints{log: log, http: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 5 * time.Second,
	}}
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			e.Close()
			return nil, errors.New("an RPC URL is not of the form http(s)://host:port/path")
		}
		// No connection is made before the first request.
		c, err := rpc.DialOptions(context.Background(), s, rpc.WithHTTPClient(&http.Client{Transport: e.http}))
		if err != nil {
			e.Close()
			return nil, fmt.Errorf("RPC URL of %s: %w", u.Host, err)
		}
		e.names = append(e.names, u.Host)
		e.clients = append(e.clients, c)
	}
	return e, nil
}

// Close ends the connections.
func (e *Endpoints) Close() {
	for _, c := range e.clients {
		c.Close()
	}
	e.http.CloseIdleConnections()
}

// Do runs f with one endpoint, and with each of the others in turn while they
// cannot be reached. An answer, be it an error, is an answer.
func (e *Endpoints) Do(ctx context.Context, f func(context.Context, *rpc.Client) error) error {
	var failures []error
	for range e.clients {
		i := e.current.Load()
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := f(attempt, e.clients[i])
		cancel()
		if err == nil || ctx.Err() != nil || !Unreachable(err) {
			return err
		}
		failures = append(failures, fmt.Errorf("endpoint %s: %w", e.names[i], err))
		e.leave(i, err)
	}
	return errors.Join(failures...)
}

// Name is the endpoint in use.
func (e *Endpoints) Name() string { return e.names[e.current.Load()] }

// Len is how many there are.
func (e *Endpoints) Len() int { return len(e.clients) }

// Next moves on from the endpoint in use, whose answers do not hold.
func (e *Endpoints) Next(why error) { e.leave(e.current.Load(), why) }

// leave moves on from endpoint i, unless someone else did already.
func (e *Endpoints) leave(i int64, why error) {
	next := (i + 1) % int64(len(e.clients))
	if e.current.CompareAndSwap(i, next) && next != i {
		e.log.Warn("chain endpoint failed, using the next", "endpoint", e.names[i], "next", e.names[next], "err", why)
	}
}

// Unreachable tells a failure of the endpoint from an answer of the chain.
func Unreachable(err error) bool {
	var status rpc.HTTPError
	var network net.Error
	var address *url.Error
	var syntax *json.SyntaxError
	var shape *json.UnmarshalTypeError // one error object in answer to a batch
	var other *WrongChain
	return errors.As(err, &status) || errors.As(err, &other) || errors.As(err, &network) || errors.As(err, &address) || errors.As(err, &syntax) || errors.As(err, &shape) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, rpc.ErrMissingBatchResponse)
}

// Call asks one thing.
func Call[T any](ctx context.Context, e *Endpoints, method string, args ...any) (result T, err error) {
	err = e.Do(ctx, func(ctx context.Context, c *rpc.Client) error {
		return c.CallContext(ctx, &result, method, args...)
	})
	return result, err
}

// Batch asks several things in one round trip.
type Batch struct {
	Elems   []rpc.BatchElem
	mayFail []bool
}

// Add asks for one more thing, which must not fail.
func (b *Batch) Add(result any, method string, args ...any) {
	b.Elems = append(b.Elems, rpc.BatchElem{Method: method, Args: args, Result: result})
	b.mayFail = append(b.mayFail, false)
}

// Optional leaves result alone where the endpoint answers with an error, which
// then is at its place in Elems.
func (b *Batch) Optional(result any, method string, args ...any) {
	b.Add(result, method, args...)
	b.mayFail[len(b.mayFail)-1] = true
}

// Run makes the requests and gives the first error that matters.
func (b *Batch) Run(ctx context.Context, c *rpc.Client) error {
	for start := 0; start < len(b.Elems); start += batchLimit {
		if err := c.BatchCallContext(ctx, b.Elems[start:min(start+batchLimit, len(b.Elems))]); err != nil {
			return err
		}
	}
	for i, e := range b.Elems {
		if e.Error == nil {
			continue
		}
		if b.mayFail[i] && !Unreachable(e.Error) {
			continue
		}
		return fmt.Errorf("%s: %w", e.Method, e.Error)
	}
	return nil
}

// Header is the part of a block's header that matters here. Its hash is the
// one that the endpoint tells: chains hash their headers in different ways.
type Header struct {
	Number     Quantity     `json:"number"`
	Hash       common.Hash  `json:"hash"`
	ParentHash common.Hash  `json:"parentHash"`
	Timestamp  Quantity     `json:"timestamp"`
	BaseFee    *hexutil.Big `json:"baseFeePerGas"`
	Difficulty *hexutil.Big `json:"difficulty"`
}

// Height is the block's number.
func (h *Header) Height() uint64 { return uint64(h.Number) }

// HeaderAt reads a block that must exist.
func HeaderAt(ctx context.Context, c *rpc.Client, at string) (*Header, error) {
	h, err := HeaderIfAny(ctx, c, at)
	if err == nil && h == nil {
		err = fmt.Errorf("the endpoint does not know block %s", at)
	}
	return h, err
}

// HeaderIfAny reads a block, nil if the chain has none there.
func HeaderIfAny(ctx context.Context, c *rpc.Client, at string) (h *Header, err error) {
	err = c.CallContext(ctx, &h, "eth_getBlockByNumber", at, false)
	return h, err
}

// Quantity is a JSON-RPC number of at most 64 bits: minimal hex, or the 32-byte
// word of a contract's answer. The empty answer of an address without a
// contract reads as 0.
type Quantity uint64

func (q *Quantity) UnmarshalJSON(b []byte) error {
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
	*q = Quantity(n.Uint64())
	return nil
}

// Big is q as a big integer.
func (q Quantity) Big() *big.Int { return new(big.Int).SetUint64(uint64(q)) }

// BlockTag is a block number as JSON-RPC wants it.
func BlockTag(q Quantity) string { return hexutil.EncodeUint64(uint64(q)) }

// Message is a call for eth_call and eth_estimateGas.
type Message struct {
	From *common.Address `json:"from,omitempty"`
	To   *common.Address `json:"to,omitempty"`
	Gas  *hexutil.Uint64 `json:"gas,omitempty"`
	// Without a price a call needs no balance beyond its value.
	Value *hexutil.Big  `json:"value,omitempty"`
	Data  hexutil.Bytes `json:"data"`
}
