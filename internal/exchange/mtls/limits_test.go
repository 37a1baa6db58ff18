package mtls

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/wire"
)

// handler answers every request by a function and shows one object.
type handler struct {
	receive func(ctx context.Context, kind string) ([]byte, error)
	object  []byte
}

func (h handler) Receive(ctx context.Context, _ wire.OrgID, kind string, _ []byte) ([]byte, error) {
	return h.receive(ctx, kind)
}

func (h handler) Open(_ context.Context, _ wire.OrgID, _ string, offset int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(h.object[offset:])), nil
}

var echo = handler{receive: func(_ context.Context, kind string) ([]byte, error) { return []byte(kind), nil }}

func anyone(hash wire.Hash) (wire.OrgID, bool) { return hash, true }

func serve(t testing.TB, e *Exchange, h exchange.Handler) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- e.Serve(ctx, anyone, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestFailsOverToTheNextEndpoint(t *testing.T) {
	t.Parallel()
	closed := listen(t)
	closed.Close()
	silent := listen(t) // takes connections into its queue and never answers

	b, wrong := newExchange(t), newExchange(t)
	serve(t, b, echo)
	serve(t, wrong, echo)
	for name, first := range map[string]string{
		"refuses":     closed.Addr().String(),
		"silent":      silent.Addr().String(),
		"wrong peer":  wrong.Addr(),
		"not a place": "no port here",
	} {
		t.Run(name, func(t *testing.T) {
			a := newExchange(t)
			to := peerOf(b)
			to.Endpoints = append([]string{first}, to.Endpoints...)
			start := time.Now()
			answer, err := a.Send(within(t, 10*time.Second), to, "hello", nil)
			if err != nil || string(answer) != "hello" {
				t.Fatalf("answer %q, error %v", answer, err)
			}
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("fail-over took %s", took)
			}
		})
	}
}

func TestAllEndpointsFailing(t *testing.T) {
	t.Parallel()
	closed := listen(t)
	closed.Close()
	a, b := newExchange(t), newExchange(t)
	a.limits.dial, a.limits.stagger = 200*time.Millisecond, 10*time.Millisecond
	to := peerOf(b) // never served: its listener is silent
	to.Endpoints = append([]string{closed.Addr().String()}, to.Endpoints...)
	_, err := a.Send(within(t, 10*time.Second), to, "hello", nil)
	if err == nil || !strings.Contains(err.Error(), closed.Addr().String()) {
		t.Errorf("error %v; want one that names the endpoint that failed", err)
	}
	if errors.Is(err, exchange.ErrWrongPeer) {
		t.Errorf("error %v; nobody presented a certificate", err)
	}
}

// relay forwards connections to a node until it is frozen: then bytes vanish
// in both directions and nothing is closed, as when a cable is pulled.
type relay struct {
	listener net.Listener
	frozen   chan struct{}
	mu       sync.Mutex
	conns    []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	r := &relay{listener: listen(t), frozen: make(chan struct{})}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			in, err := r.listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, in, out)
			r.mu.Unlock()
			running.Go(func() { r.copy(in, out) })
			running.Go(func() { r.copy(out, in) })
		}
	})
	t.Cleanup(func() {
		r.listener.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		running.Wait()
	})
	return r
}

func (r *relay) copy(to, from net.Conn) {
	defer to.Close()
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		if err != nil {
			return
		}
		select {
		case <-r.frozen:
			continue
		default:
		}
		if _, err := to.Write(piece[:n]); err != nil {
			return
		}
	}
}

func TestDeadConnectionIsNoticedAndReplaced(t *testing.T) {
	t.Parallel()
	a, b := newExchange(t), newExchange(t)
	a.limits.ping, a.limits.pong = 100*time.Millisecond, 100*time.Millisecond
	serve(t, b, echo)
	r := newRelay(t, b.Addr())
	to := peerOf(b)
	to.Endpoints = []string{r.listener.Addr().String()}
	if _, err := a.Send(within(t, 10*time.Second), to, "hello", nil); err != nil {
		t.Fatal(err)
	}
	close(r.frozen)
	to.Endpoints = []string{b.Addr()} // where the peer is reachable now
	if answer, err := a.Send(within(t, 10*time.Second), to, "again", nil); err != nil || string(answer) != "again" {
		t.Fatalf("answer %q, error %v; want one over a new connection", answer, err)
	}
}

// released is an object that tells when the server lets go of it.
type released struct {
	io.Reader
	closed chan struct{}
}

func (r released) Close() error { close(r.closed); return nil }

type opening struct {
	handler
	object io.ReadCloser
}

func (o opening) Open(context.Context, wire.OrgID, string, int64) (io.ReadCloser, error) {
	return o.object, nil
}

func TestStalledTransferIsGivenUp(t *testing.T) {
	t.Parallel()
	a, b := newExchange(t), newExchange(t)
	b.limits.stall = 100 * time.Millisecond
	closed := make(chan struct{})
	// More than the windows of connection and stream take up unread.
	serve(t, b, opening{echo, released{bytes.NewReader(make([]byte, 32<<20)), closed}})
	object, err := a.Fetch(within(t, 10*time.Second), peerOf(b), "x", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	select { // nobody reads meanwhile
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the peer still serves a transfer that nobody takes")
	}
	if n, err := io.Copy(io.Discard, object); err == nil {
		t.Errorf("a transfer that was given up looked whole after %d bytes", n)
	}
}

func TestStrangersAreCutOff(t *testing.T) {
	t.Parallel()
	b := newExchange(t)
	b.limits.handshake = 100 * time.Millisecond
	serve(t, b, echo)

	t.Run("slow handshake", func(t *testing.T) {
		conn, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a silent connection stays open: %v", err)
		} else if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			t.Errorf("a silent connection stays open: %v", err)
		}
	})

	cert := certificate(t)
	for name, config := range map[string]*tls.Config{
		"no certificate": {NextProtos: []string{"h2"}},
		"TLS 1.2":        {NextProtos: []string{"h2"}, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}},
		"HTTP/1.1":       {NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{cert}},
	} {
		t.Run(name, func(t *testing.T) {
			config.InsecureSkipVerify = true
			conn, err := tls.Dial("tcp", b.Addr(), config)
			if err != nil {
				return
			}
			defer conn.Close()
			// In TLS 1.3 the client learns of its refusal with the first read.
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
				return
			}
			if answer, err := io.ReadAll(conn); err == nil && bytes.Contains(answer, []byte("200")) {
				t.Errorf("answered %q", answer)
			} else if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				t.Errorf("the connection stays open: %v", err)
			}
		})
	}
}

func TestHeaderIsBounded(t *testing.T) {
	t.Parallel()
	a, b := newExchange(t), newExchange(t)
	serve(t, b, echo)
	if _, err := a.Send(within(t, 10*time.Second), peerOf(b), strings.Repeat("k", 2*maxHeader), nil); err == nil {
		t.Error("a kind of twice the header limit was accepted")
	}
	if _, err := a.Send(within(t, 10*time.Second), peerOf(b), "hello", nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	t.Parallel()
	a, b := newExchange(t), newExchange(t)
	b.limits.inFlight = 1
	entered := make(chan struct{})
	serve(t, b, handler{receive: func(ctx context.Context, kind string) ([]byte, error) {
		if kind == "hang" {
			close(entered)
			<-ctx.Done()
		}
		return nil, nil
	}})
	ctx, cancel := context.WithCancel(within(t, 10*time.Second))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := a.Send(ctx, peerOf(b), "hang", nil); err == nil {
			t.Error("a hanging request was answered")
		}
	}()
	<-entered
	if _, err := a.Send(within(t, 10*time.Second), peerOf(b), "second", nil); err == nil {
		t.Error("a second request was accepted beside the one that is allowed")
	}
	cancel()
	<-done
	// Another peer has its own allowance, and the slot is free in the end.
	for ctx := within(t, 10*time.Second); ; {
		if _, err := a.Send(ctx, peerOf(b), "third", nil); err == nil {
			break
		} else if ctx.Err() != nil {
			t.Fatalf("the slot is never freed: %v", err)
		}
	}
}

func TestRequestInFlightFinishesWhenServeEnds(t *testing.T) {
	t.Parallel()
	a, b := newExchange(t), newExchange(t)
	entered, release := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() {
		stopped <- b.Serve(ctx, anyone, handler{receive: func(context.Context, string) ([]byte, error) {
			close(entered)
			<-release
			return []byte("committed"), nil
		}})
	}()
	type result struct {
		answer []byte
		err    error
	}
	got := make(chan result, 1)
	go func() {
		answer, err := a.Send(within(t, 10*time.Second), peerOf(b), "batch", nil)
		got <- result{answer, err}
	}()
	<-entered
	cancel()
	close(release)
	if r := <-got; r.err != nil || string(r.answer) != "committed" {
		t.Errorf("answer %q, error %v; want the answer of the request that was in flight", r.answer, r.err)
	}
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
}

func TestHungHandlerIsCancelledWhenServeEnds(t *testing.T) {
	t.Parallel()
	a, b := newExchange(t), newExchange(t)
	b.limits.grace = 50 * time.Millisecond
	entered := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() {
		stopped <- b.Serve(ctx, anyone, handler{receive: func(ctx context.Context, _ string) ([]byte, error) {
			close(entered)
			<-ctx.Done()
			return nil, ctx.Err()
		}})
	}()
	sent := make(chan error, 1)
	go func() {
		_, err := a.Send(within(t, 10*time.Second), peerOf(b), "batch", nil)
		sent <- err
	}()
	<-entered
	cancel()
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
	a.Close() // its retry would wait for a peer that does not return
	if err := <-sent; err == nil {
		t.Error("a cancelled request was answered")
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]Config{
		"Config.Certificate": {Listen: "127.0.0.1:0"},
		"Config.Listen":      {Certificate: certificate(t)},
		`"nowhere"`:          {Certificate: certificate(t), Listen: "nowhere"},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that names %s", err, want)
		}
	}
}

// FuzzRefusal: whatever a peer answers, we get an error and no panic.
func FuzzRefusal(f *testing.F) {
	f.Add(422, []byte(`{"code":"stale_epoch","reason":"epoch 3 is current"}`))
	f.Add(422, []byte(`{"code":`))
	f.Add(413, []byte(nil))
	f.Add(404, []byte("x"))
	f.Add(302, []byte("elsewhere"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		err := refusal(&http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(body))})
		if err == nil {
			t.Fatal("no error")
		}
		if _, ok := errors.AsType[*exchange.Refused](err); ok && status != 422 && status != 413 {
			t.Fatalf("status %d became %v", status, err)
		}
	})
}

// BenchmarkFetch reads a blob of 100 MB over loopback.
func BenchmarkFetch(b *testing.B) {
	from, to := newExchange(b), newExchange(b)
	const size = 100 << 20
	serve(b, to, handler{receive: echo.receive, object: make([]byte, size)})
	b.SetBytes(size)
	piece := make([]byte, exchange.MaxRequest/8)
	for b.Loop() {
		object, err := from.Fetch(b.Context(), peerOf(to), "blob", 0)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, object, piece)
		if err != nil || n != size {
			b.Fatalf("%d bytes, error %v", n, err)
		}
		object.Close()
	}
}

// BenchmarkSend makes requests of 1 KiB, 32 at a time.
func BenchmarkSend(b *testing.B) {
	from, to := newExchange(b), newExchange(b)
	serve(b, to, echo)
	body := make([]byte, 1<<10)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := from.Send(b.Context(), peerOf(to), "ping", body); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
