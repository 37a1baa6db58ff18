package mtls

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/wire"
)

// maxHeader bounds the header of a request, which carries a kind or a name.
const maxHeader = 16 << 10

// maxReceive is the flow-control window of a connection and of a stream; the
// standard library takes less than 4 MiB.
const maxReceive = 4<<20 - 1

// Serve implements exchange.Exchange. When ctx ends it takes no more requests,
// lets those in flight finish within a few seconds, then cancels them, and
// returns once their handlers did.
func (e *Exchange) Serve(ctx context.Context, authorise func(wire.Hash) (wire.OrgID, bool), h exchange.Handler) error {
	listener, err := e.listen()
	if err != nil {
		return err
	}
	defer func() {
		e.mu.Lock()
		e.serving = false
		e.mu.Unlock()
	}()

	// Requests live longer than ctx, by the grace.
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s := &server{log: e.log, limits: e.limits, authorise: authorise, handler: h, inFlight: make(map[wire.Hash]int)}
	http2 := new(http.Protocols)
	http2.SetHTTP2(true)
	httpServer := &http.Server{
		Handler:   s,
		Protocols: http2,
		TLSConfig: e.tlsConfig(func(hash wire.Hash) error {
			if _, ok := authorise(hash); !ok {
				return fmt.Errorf("certificate %s is not registered", hash)
			}
			return nil
		}),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: e.limits.handshake, // covers the TLS handshake too
		// Longer than at the caller, which thus never uses a connection that we
		// are closing.
		IdleTimeout:    2 * e.limits.idle,
		MaxHeaderBytes: maxHeader,
		// Handshakes of strangers fail all the time; that is not a warning.
		ErrorLog: slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          e.limits.streams,
			MaxReadFrameSize:              maxFrame,
			MaxReceiveBufferPerConnection: maxReceive,
			MaxReceiveBufferPerStream:     maxReceive,
			SendPingTimeout:               e.limits.ping,
			PingTimeout:                   e.limits.pong,
			WriteByteTimeout:              e.limits.ping + e.limits.pong,
		},
	}

	stopped := make(chan error, 1)
	go func() { stopped <- httpServer.ServeTLS(listener, "", "") }()
	select {
	case err := <-stopped:
		httpServer.Close()
		cancel()
		<-s.drained()
		return fmt.Errorf("mtls: stopped accepting peers on %s: %w", e.addr, err)
	case <-ctx.Done():
	}
	select {
	case <-s.drained():
	case <-time.After(e.limits.grace):
		e.log.Warn("peers' requests did not end in time and are cancelled", "grace", e.limits.grace)
	}
	// Shutdown tells peers that these connections end, and leaves a moment for
	// the last answers to get out. Idle peers keep theirs open, so it is cut.
	leave, done := context.WithTimeout(requests, e.limits.leave)
	defer done()
	if err := httpServer.Shutdown(leave); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		e.log.Warn("could not end peers' connections in order", "err", err)
	}
	cancel()
	httpServer.Close()
	<-stopped
	<-s.drained()
	return ctx.Err()
}

// listen gives the bound listener, or binds the address again after an earlier
// Serve closed it.
func (e *Exchange) listen() (net.Listener, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed.Err() != nil:
		return nil, errors.New("mtls: Serve was called after Close")
	case e.serving:
		return nil, errors.New("mtls: Serve is already running")
	}
	listener := e.listener
	if listener == nil {
		var err error
		if listener, err = net.Listen(e.addr.Network(), e.addr.String()); err != nil {
			return nil, fmt.Errorf("mtls: listen on %s again: %w", e.addr, err)
		}
	}
	e.listener, e.serving = nil, true
	return listener, nil
}

// server answers peers during one Serve.
type server struct {
	log       *slog.Logger
	limits    limits
	authorise func(wire.Hash) (wire.OrgID, bool)
	handler   exchange.Handler

	mu       sync.Mutex
	running  sync.WaitGroup // handlers; grows only under mu while not stopped
	stopped  bool
	inFlight map[wire.Hash]int // requests by certificate
}

// refusalBody is the JSON of status 413 and 422.
type refusalBody struct {
	Code   string `json:"code"`
	Reason string `json:"reason"`
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	hash, err := certHash(r.TLS)
	if err != nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	// The handshake asked too, but a membership may end while a connection lasts.
	from, ok := s.authorise(hash)
	if !ok {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if err := s.enter(hash); err != nil {
		s.log.Warn("peer was told to try later", "org", from, "err", err)
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer s.leave(hash)
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/v1/send":
		s.send(w, r, from)
	case r.Method == http.MethodGet && r.URL.Path == "/v1/fetch":
		s.fetch(w, r, from)
	default:
		// Not 404, which says that an object is absent.
		w.WriteHeader(http.StatusNotImplemented)
	}
}

// enter counts a request of a peer, unless it has too many or Serve is ending.
func (s *server) enter(peer wire.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.New("this node is stopping")
	}
	if n := s.inFlight[peer]; n >= s.limits.inFlight {
		return fmt.Errorf("%d requests are in flight, which is the limit of a peer", n)
	}
	s.inFlight[peer]++
	s.running.Add(1)
	return nil
}

func (s *server) leave(peer wire.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight[peer]--; s.inFlight[peer] == 0 {
		delete(s.inFlight, peer)
	}
	s.running.Done()
}

// drained lets no handler start any more, and is closed when none runs.
func (s *server) drained() <-chan struct{} {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		s.running.Wait()
		close(idle)
	}()
	return idle
}

func (s *server) send(w http.ResponseWriter, r *http.Request, from wire.OrgID) {
	kind := r.URL.Query().Get("kind")
	if r.ContentLength > exchange.MaxRequest {
		s.refuse(w, http.StatusRequestEntityTooLarge, exchange.TooLarge("request "+kind, int(r.ContentLength)))
		return
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(s.limits.body)); err != nil {
		s.fail(w, from, kind, fmt.Errorf("set the deadline for the body: %w", err))
		return
	}
	var body bytes.Buffer
	// Room for what is usual; a caller gets no megabytes for a mere promise.
	body.Grow(int(min(max(r.ContentLength, 0), 64<<10)) + bytes.MinRead)
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, exchange.MaxRequest)); err != nil {
		if _, tooBig := errors.AsType[*http.MaxBytesError](err); tooBig {
			s.refuse(w, http.StatusRequestEntityTooLarge, exchange.TooLarge("request "+kind, exchange.MaxRequest+1))
			return
		}
		s.fail(w, from, kind, fmt.Errorf("read the body: %w", err))
		return
	}
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		s.fail(w, from, kind, fmt.Errorf("clear the deadline for the body: %w", err))
		return
	}

	var answer []byte
	err := contain(func() (err error) {
		answer, err = s.handler.Receive(r.Context(), from, kind, body.Bytes())
		return err
	})
	if err == nil && len(answer) > exchange.MaxRequest {
		err = exchange.TooLarge("answer to "+kind, len(answer))
	}
	if err != nil {
		s.fail(w, from, kind, err)
		return
	}
	if err := control.SetWriteDeadline(time.Now().Add(s.limits.body)); err != nil {
		s.fail(w, from, kind, fmt.Errorf("set the deadline for the answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	if _, err := w.Write(answer); err != nil {
		s.log.Info("peer did not take the answer", "org", from, "kind", kind, "err", err)
	}
}

func (s *server) fetch(w http.ResponseWriter, r *http.Request, from wire.OrgID) {
	query := r.URL.Query()
	name := query.Get("name")
	offset, err := strconv.ParseInt(query.Get("offset"), 10, 64)
	if err != nil || offset < 0 {
		s.refuse(w, http.StatusUnprocessableEntity, &exchange.Refused{Code: "bad_offset",
			Reason: fmt.Sprintf("offset %q is not a number of bytes from 0 on", query.Get("offset"))})
		return
	}
	var object io.ReadCloser
	err = contain(func() (err error) {
		object, err = s.handler.Open(r.Context(), from, name, offset)
		return err
	})
	if err != nil {
		s.fail(w, from, name, err)
		return
	}
	defer object.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := contain(func() error { return s.copy(w, object) }); err != nil {
		if r.Context().Err() == nil {
			s.log.Warn("an object was sent in part only", "org", from, "object", name, "err", err)
		}
		// Resets the stream, so that the peer cannot take a part for the whole.
		panic(http.ErrAbortHandler)
	}
}

// copy streams an object. Its deadline moves with every piece that the peer
// takes, so it limits how long a transfer stalls and not how long it lasts.
func (s *server) copy(w http.ResponseWriter, object io.Reader) error {
	control := http.NewResponseController(w)
	piece := make([]byte, 256<<10)
	for {
		n, readErr := object.Read(piece)
		if n > 0 {
			if err := control.SetWriteDeadline(time.Now().Add(s.limits.stall)); err != nil {
				return err
			}
			if _, err := w.Write(piece[:n]); err != nil {
				return err
			}
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return fmt.Errorf("read the object: %w", readErr)
		}
	}
}

// fail answers with what the peer may know of err, and logs the rest.
func (s *server) fail(w http.ResponseWriter, from wire.OrgID, what string, err error) {
	if refused, ok := errors.AsType[*exchange.Refused](err); ok {
		s.refuse(w, http.StatusUnprocessableEntity, refused)
		return
	}
	if errors.Is(err, exchange.ErrNotFound) {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.log.Error("could not answer a peer", "org", from, "request", what, "err", err)
	w.WriteHeader(http.StatusServiceUnavailable)
}

func (s *server) refuse(w http.ResponseWriter, status int, refused *exchange.Refused) {
	text, err := json.Marshal(refusalBody{Code: refused.Code, Reason: refused.Reason})
	if err != nil {
		s.log.Error("could not encode a refusal", "code", refused.Code, "err", err)
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(text); err != nil {
		s.log.Info("peer did not take the refusal", "code", refused.Code, "err", err)
	}
}

// contain turns a panic of the node's code into an error, so that one bad
// request cannot end the process or go unnoticed.
func contain(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}
