package mtls

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/wire"
)

// peer is what we keep for one registered certificate: two connections, so
// that a small request never queues behind megabytes of a blob. It is a few
// hundred bytes, and its connections close by themselves when idle, so peers
// whose certificate was replaced may stay in the map.
type peer struct{ requests, objects lane }

func (e *Exchange) peer(to exchange.Peer) *peer {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peers[to.CertHash]
	if p == nil {
		// The lanes share the transport's settings and nothing else: each
		// makes its connection with NewClientConn.
		transport := e.transport(to.CertHash)
		p = &peer{}
		for _, l := range []*lane{&p.requests, &p.objects} {
			l.transport, l.limits, l.closed = transport, e.limits, e.closed
		}
		e.peers[to.CertHash] = p
	}
	return p
}

func (e *Exchange) transport(want wire.Hash) *http.Transport {
	http2 := new(http.Protocols)
	http2.SetHTTP2(true)
	return &http.Transport{
		Protocols: http2,
		TLSClientConfig: e.tlsConfig(func(got wire.Hash) error {
			if got != want {
				return fmt.Errorf("%w: got %s, want %s", exchange.ErrWrongPeer, got, want)
			}
			return nil
		}),
		TLSHandshakeTimeout: e.limits.handshake,
		IdleConnTimeout:     e.limits.idle,
		DisableCompression:  true, // everything we carry is sealed
		HTTP2: &http.HTTP2Config{
			MaxReadFrameSize: maxFrame,
			SendPingTimeout:  e.limits.ping,
			PingTimeout:      e.limits.pong,
			WriteByteTimeout: e.limits.ping + e.limits.pong,
		},
	}
}

// Send implements exchange.Exchange.
func (e *Exchange) Send(ctx context.Context, to exchange.Peer, kind string, body []byte) ([]byte, error) {
	if len(body) > exchange.MaxRequest {
		return nil, exchange.TooLarge("request "+kind, len(body))
	}
	query := url.Values{"kind": {kind}}
	resp, err := e.do(ctx, to, &e.peer(to).requests, http.MethodPost, "/v1/send", query, body)
	if err != nil {
		return nil, fmt.Errorf("send %s to %s: %w", kind, to.Org.Short(), err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, exchange.MaxRequest+1))
	if err != nil {
		return nil, fmt.Errorf("send %s to %s: read the answer: %w", kind, to.Org.Short(), err)
	}
	if len(answer) > exchange.MaxRequest {
		return nil, fmt.Errorf("send %s to %s: the answer has more than %d bytes; the peer breaks the protocol", kind, to.Org.Short(), exchange.MaxRequest)
	}
	return answer, nil
}

// Fetch implements exchange.Exchange. The reader fails when ctx ends; the
// caller chooses how long a transfer may take or stall.
func (e *Exchange) Fetch(ctx context.Context, from exchange.Peer, name string, offset int64) (io.ReadCloser, error) {
	query := url.Values{"name": {name}, "offset": {strconv.FormatInt(offset, 10)}}
	resp, err := e.do(ctx, from, &e.peer(from).objects, http.MethodGet, "/v1/fetch", query, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch %s from %s: %w", name, from.Org.Short(), err)
	}
	return resp.Body, nil
}

// do makes one request; a status other than 200 becomes an error.
func (e *Exchange) do(ctx context.Context, to exchange.Peer, l *lane, method, path string, query url.Values, body []byte) (*http.Response, error) {
	if len(to.Endpoints) == 0 {
		return nil, errors.New("the peer has no endpoint registered")
	}
	// The host is not used for routing: the connection is.
	target := url.URL{Scheme: "https", Host: to.CertHash.Short(), Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := l.roundTrip(req, to.Endpoints)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// maxRefusal bounds the text of a refusal.
const maxRefusal = 64 << 10

// refusal turns an answer other than 200 into the port's errors.
func refusal(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusNotFound:
		return exchange.ErrNotFound
	case http.StatusForbidden:
		return errors.New("the peer does not know our certificate; it may not have seen its registration yet")
	case http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		var said refusalBody
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxRefusal)).Decode(&said); err != nil {
			return fmt.Errorf("the peer refused (status %d) without a readable reason: %w", resp.StatusCode, err)
		}
		return &exchange.Refused{Code: said.Code, Reason: said.Reason}
	}
	return fmt.Errorf("the peer could not answer now (status %d); its log says why", resp.StatusCode)
}

// lane is one connection to one peer, dialled when it is needed and shared by
// all callers. A dial in progress is shared as well: whoever waits for it gets
// its outcome, so a dead peer costs one attempt at a time however many wait.
type lane struct {
	transport *http.Transport
	limits    limits
	closed    context.Context // of the Exchange

	mu      sync.Mutex
	conn    *http.ClientConn
	dialing *attempt
}

type attempt struct {
	done chan struct{} // closed when conn and err are set
	conn *http.ClientConn
	err  error
}

// roundTrip sends req to the peer. If a connection that was open before turns
// out to be dead, it tries once more on a new one: the peer may have restarted
// since. Requests may reach a handler twice anyway, because a caller repeats
// those whose outcome is unknown.
func (l *lane) roundTrip(req *http.Request, endpoints []string) (*http.Response, error) {
	ctx := req.Context()
	conn, reused, err := l.connect(ctx, endpoints)
	if err != nil {
		return nil, err
	}
	resp, err := conn.RoundTrip(req)
	if err == nil || ctx.Err() != nil || !l.discard(conn) || !reused {
		return resp, err
	}
	if conn, _, err = l.connect(ctx, endpoints); err != nil {
		return nil, err
	}
	again := req.Clone(ctx)
	if again.Body, err = req.GetBody(); err != nil {
		return nil, err
	}
	return conn.RoundTrip(again)
}

// discard stops using a connection that failed a request, if it takes no more:
// it is closed, or the peer said that it is going away (then Err is still nil,
// and requests in flight may end well). A busy one may look the same; that
// costs a new connection and no more.
func (l *lane) discard(conn *http.ClientConn) bool {
	if conn.Err() == nil && conn.Available() > 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == conn {
		l.conn = nil
	}
	return true
}

// connect gives a live connection and whether it was open before.
func (l *lane) connect(ctx context.Context, endpoints []string) (conn *http.ClientConn, reused bool, err error) {
	l.mu.Lock()
	if l.conn != nil && l.conn.Err() == nil {
		defer l.mu.Unlock()
		return l.conn, true, nil
	}
	a := l.dialing
	if a == nil {
		a = &attempt{done: make(chan struct{})}
		l.dialing = a
		// Not under ctx: others may wait for the same connection.
		go l.attempt(a, slices.Clone(endpoints))
	}
	l.mu.Unlock()
	select {
	case <-a.done:
		return a.conn, false, a.err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

func (l *lane) attempt(a *attempt, endpoints []string) {
	a.conn, a.err = l.dial(l.closed, endpoints)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Err() != nil && a.conn != nil {
		a.conn.Close()
		a.conn, a.err = nil, errors.New("the exchange was closed")
	}
	l.conn, l.dialing = a.conn, nil
	close(a.done)
}

func (l *lane) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// dial tries the endpoints in order. The next one starts when one failed, or
// was silent for limits.stagger, while the earlier ones may still win.
func (l *lane) dial(ctx context.Context, endpoints []string) (*http.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.limits.dial)
	defer cancel() // stops the losers

	type result struct {
		conn     *http.ClientConn
		endpoint string
		err      error
	}
	results := make(chan result) // unbuffered: a loser knows and closes its own
	race := func(endpoint string) {
		conn, err := l.transport.NewClientConn(ctx, "https", endpoint)
		select {
		case results <- result{conn, endpoint, err}:
		case <-ctx.Done():
			if conn != nil {
				conn.Close()
			}
		}
	}
	stagger := time.NewTimer(l.limits.stagger)
	defer stagger.Stop()
	var failures []error
	started := 0
	for len(failures) < len(endpoints) {
		if started == len(failures) { // none under way
			go race(endpoints[started])
			started++
			stagger.Reset(l.limits.stagger)
		}
		select {
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			failures = append(failures, fmt.Errorf("endpoint %s: %w", r.endpoint, r.err))
		case <-stagger.C:
			if started < len(endpoints) {
				go race(endpoints[started])
				started++
				stagger.Reset(l.limits.stagger)
			}
		case <-ctx.Done():
			return nil, errors.Join(append(failures, fmt.Errorf("no endpoint answered within %s: %w", l.limits.dial, ctx.Err()))...)
		}
	}
	return nil, errors.Join(failures...)
}
