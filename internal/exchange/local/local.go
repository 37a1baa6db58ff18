// Package local connects nodes of one process, for tests and the simulator.
// It passes the same conformance suite as mtls, works inside testing/synctest,
// and fails on demand: links are cut, slow or lossy, and peers can be made to
// lie.
//
// Nodes are named freely ("a", "org1"); the name is the endpoint that a
// Peer lists. The certificate hash is checked like a real certificate.
package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/wire"
)

// Exchange is one node's connection to a Network. Safe for concurrent use.
type Exchange struct {
	network *Network
	name    string
	cert    wire.Hash
	log     *slog.Logger

	mu      sync.Mutex
	service *service // nil while not serving
}

var _ exchange.Exchange = (*Exchange)(nil)

// service is one run of Serve.
type service struct {
	ctx       context.Context
	authorise func(wire.Hash) (wire.OrgID, bool)
	handler   exchange.Handler
	running   sync.WaitGroup // grows only while the Exchange holds the service
}

// Name is the endpoint of this node on its network.
func (e *Exchange) Name() string { return e.name }

// Serve implements exchange.Exchange. When ctx ends, the handlers that run are
// cancelled at once, as in a crash; their callers learn nothing of the outcome.
func (e *Exchange) Serve(ctx context.Context, authorise func(wire.Hash) (wire.OrgID, bool), h exchange.Handler) error {
	stop, err := e.Start(ctx, authorise, h)
	if err != nil {
		return err
	}
	<-ctx.Done()
	stop()
	return ctx.Err()
}

// Start is Serve for who has no goroutine to spare: requests are accepted from
// its return until stop is called, after ctx has ended.
func (e *Exchange) Start(ctx context.Context, authorise func(wire.Hash) (wire.OrgID, bool), h exchange.Handler) (stop func(), err error) {
	s := &service{ctx: ctx, authorise: authorise, handler: h}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.service != nil {
		return nil, fmt.Errorf("local: Serve of %q is already running", e.name)
	}
	e.service = s
	return func() {
		e.mu.Lock()
		e.service = nil
		e.mu.Unlock()
		s.running.Wait()
	}, nil
}

// Send implements exchange.Exchange.
func (e *Exchange) Send(ctx context.Context, to exchange.Peer, kind string, body []byte) ([]byte, error) {
	answer, err := e.send(ctx, to, kind, body)
	if err != nil {
		return nil, fmt.Errorf("send %s to %s: %w", kind, to.Org.Short(), err)
	}
	return answer, nil
}

func (e *Exchange) send(ctx context.Context, to exchange.Peer, kind string, body []byte) ([]byte, error) {
	if len(body) > exchange.MaxRequest {
		return nil, exchange.TooLarge("request "+kind, len(body))
	}
	c, err := e.connect(ctx, to, kind)
	if err != nil {
		return nil, err
	}
	body, err = e.network.intercept(Message{From: e.name, To: c.to.name, Kind: kind, Body: bytes.Clone(body)})
	if err != nil {
		c.cancel()
		c.leave()
		return nil, err
	}
	type result struct {
		answer []byte
		err    error
	}
	returned := make(chan result, 1)
	go func() { // of its own, so that the caller can leave a handler that hangs
		defer c.leave()
		answer, err := c.receive(kind, body)
		returned <- result{answer, err}
	}()
	var r result
	select {
	case r = <-returned:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.service.ctx.Done():
		return nil, c.stopped()
	}
	if c.loseAnswer {
		return nil, fmt.Errorf("the answer of %q was lost", c.to.name)
	}
	if err := e.network.travel(ctx, c.to.name, e.name); err != nil {
		return nil, err
	}
	if r.err != nil {
		return nil, r.err
	}
	return e.network.intercept(Message{From: c.to.name, To: e.name, Kind: kind, Answer: true, Body: bytes.Clone(r.answer)})
}

// Fetch implements exchange.Exchange. The peer's Open runs in the goroutine of
// the caller.
func (e *Exchange) Fetch(ctx context.Context, from exchange.Peer, name string, offset int64) (io.ReadCloser, error) {
	object, err := e.fetch(ctx, from, name, offset)
	if err != nil {
		return nil, fmt.Errorf("fetch %s from %s: %w", name, from.Org.Short(), err)
	}
	return object, nil
}

func (e *Exchange) fetch(ctx context.Context, from exchange.Peer, name string, offset int64) (io.ReadCloser, error) {
	if offset < 0 {
		return nil, fmt.Errorf("offset %d is negative; bytes count from 0", offset)
	}
	c, err := e.connect(ctx, from, KindFetch)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	var object *reader
	err = c.contain(name, func() error {
		source, err := c.service.handler.Open(c.ctx, c.org, name, offset)
		object = &reader{source: source, caller: e, conversation: c}
		return err
	})
	switch {
	case err != nil:
		c.cancel()
		return nil, err
	case c.loseAnswer:
		return nil, errors.Join(fmt.Errorf("the answer of %q was lost", c.to.name), object.Close())
	}
	if err := e.network.travel(ctx, c.to.name, e.name); err != nil {
		return nil, errors.Join(err, object.Close())
	}
	if !e.network.intercepting() {
		return object, nil
	}
	// An interceptor sees the object whole; a break in it stays a break.
	content, broken := io.ReadAll(object)
	if err := object.Close(); err != nil {
		return nil, err
	}
	content, err = e.network.intercept(Message{From: c.to.name, To: e.name, Kind: KindFetch, Object: name, Answer: true, Body: content})
	if err != nil {
		return nil, err
	}
	if broken != nil {
		return io.NopCloser(io.MultiReader(bytes.NewReader(content), failed{broken})), nil
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

// failed is a reader that only fails.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

// reader is a peer's object as its caller reads it.
type reader struct {
	source io.ReadCloser
	caller *Exchange
	*conversation
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if err := r.caller.network.reach(r.to.name, r.caller.name); err != nil {
		return 0, err
	}
	if !r.to.enter(r.service) {
		return 0, r.stopped()
	}
	defer r.service.running.Done()
	n, err := r.source.Read(p)
	if err != nil && err != io.EOF {
		r.to.log.Warn("an object was sent in part only", "node", r.to.name, "org", r.org, "err", err)
		err = fmt.Errorf("the object of %q broke off: %w", r.to.name, io.ErrUnexpectedEOF)
	}
	return n, err
}

func (r *reader) Close() error {
	r.cancel()
	return r.source.Close()
}

// conversation is one authenticated call from one node to another. It keeps
// the callee's Serve from returning until leave.
type conversation struct {
	to         *Exchange
	org        wire.OrgID // that the callee knows the caller as
	service    *service
	loseAnswer bool

	ctx    context.Context // of the handler: ends with the call, or with Serve
	cancel context.CancelFunc
}

// connect brings a request of a kind to the first of the peer's endpoints that
// is there.
func (e *Exchange) connect(ctx context.Context, to exchange.Peer, kind string) (*conversation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(to.Endpoints) == 0 {
		return nil, errors.New("the peer has no endpoint registered")
	}
	var failures []error
	for _, endpoint := range to.Endpoints {
		peer, err := e.network.find(e.name, endpoint)
		if err == nil && peer.cert != to.CertHash {
			err = fmt.Errorf("%w: got %s, want %s", exchange.ErrWrongPeer, peer.cert, to.CertHash)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("endpoint %s: %w", endpoint, err))
			continue
		}
		loseAnswer, err := e.network.request(ctx, e.name, endpoint, kind)
		if err != nil {
			return nil, err
		}
		c := &conversation{to: peer, loseAnswer: loseAnswer}
		if c.service = peer.current(); c.service == nil {
			failures = append(failures, fmt.Errorf("endpoint %s: nobody serves there", endpoint))
			continue
		}
		var known bool
		if c.org, known = c.service.authorise(e.cert); !known {
			c.service.running.Done()
			return nil, fmt.Errorf("%q does not know our certificate; it may not have seen its registration yet", endpoint)
		}
		inside, cancel := context.WithCancel(ctx)
		forget := context.AfterFunc(c.service.ctx, cancel)
		c.ctx, c.cancel = inside, func() { forget(); cancel() }
		return c, nil
	}
	return nil, errors.Join(failures...)
}

// current enters the service that runs now, if any.
func (e *Exchange) current() *service {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.service != nil {
		e.service.running.Add(1)
	}
	return e.service
}

// enter enters a service again, unless it ended.
func (e *Exchange) enter(s *service) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.service != s || s.ctx.Err() != nil {
		return false
	}
	s.running.Add(1)
	return true
}

func (c *conversation) leave() { c.service.running.Done() }

func (c *conversation) stopped() error {
	return fmt.Errorf("%q stopped; the outcome is unknown", c.to.name)
}

func (c *conversation) receive(kind string, body []byte) (answer []byte, err error) {
	defer c.cancel()
	err = c.contain(kind, func() error {
		answer, err = c.service.handler.Receive(c.ctx, c.org, kind, body)
		if err == nil && len(answer) > exchange.MaxRequest {
			err = exchange.TooLarge("answer to "+kind, len(answer))
		}
		return err
	})
	return answer, err
}

// contain runs a handler and leaves of its error what the peer may know.
func (c *conversation) contain(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.to.log.Error("a handler panicked", "node", c.to.name, "org", c.org, "request", what, "panic", p, "stack", string(debug.Stack()))
			err = errUnavailable
		}
	}()
	err = f()
	if err == nil {
		return nil
	}
	if refused, ok := errors.AsType[*exchange.Refused](err); ok {
		return &exchange.Refused{Code: refused.Code, Reason: refused.Reason}
	}
	if errors.Is(err, exchange.ErrNotFound) {
		return exchange.ErrNotFound
	}
	c.to.log.Error("could not answer a peer", "node", c.to.name, "org", c.org, "request", what, "err", err)
	return errUnavailable
}

// errUnavailable is all that a peer is told of an error that is not its business.
var errUnavailable = errors.New("the peer could not answer now; its log says why")
