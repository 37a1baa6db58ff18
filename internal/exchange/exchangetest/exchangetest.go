// Package exchangetest is what every driver of package exchange must do. A
// driver's test calls Run; what only one driver can do is tested beside it.
package exchangetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/wire"
)

// Node is one node that the driver under test made.
type Node struct {
	Exchange exchange.Exchange
	Peer     exchange.Peer // how the others reach it; Org is distinct
}

// patience bounds what must happen but takes no time to speak of. It is a
// limit for failures, never a pause.
const patience = 20 * time.Second

// Run checks a driver. nodes makes n nodes that can reach each other and whose
// Serve was not called; it cleans up with t.Cleanup, after all Serves returned.
func Run(t *testing.T, nodes func(t *testing.T, n int) []Node) {
	tests := []struct {
		name  string
		nodes int
		test  func(*testing.T, []Node)
	}{
		{"SendReturnsTheAnswerOfTheHandler", 2, testAnswer},
		{"BodiesAreNotShared", 2, testBodiesAreNotShared},
		{"EmptyAndOddValuesPass", 2, testOddValues},
		{"AnswerComesAfterTheHandler", 2, testAnswerComesAfterTheHandler},
		{"RefusalKeepsCodeAndReason", 2, testRefusal},
		{"OtherErrorsDoNotLeak", 2, testErrorsDoNotLeak},
		{"PanicIsContained", 2, testPanic},
		{"WrongPeerIsNoticed", 3, testWrongPeer},
		{"UnknownCallerIsRefused", 2, testUnknownCaller},
		{"RemovedCallerIsRefused", 2, testRemovedCaller},
		{"LargestBodiesPassAndLargerAreRefused", 2, testLimits},
		{"MissingObjectIsNotFound", 2, testNotFound},
		{"FetchStartsAtTheOffset", 2, testFetch},
		{"BrokenObjectIsNotAnEnd", 2, testBrokenObject},
		{"CallsRunConcurrently", 2, testConcurrentCalls},
		{"HungPeerDelaysNoOther", 3, testHungPeer},
		{"CancelReleasesTheCallerAndReachesTheHandler", 2, testCancel},
		{"ClosedReaderReleasesTheObject", 2, testClosedReader},
		{"ServeStopsAndStartsAgain", 2, testServeAgain},
		{"NoHandlerRunsAfterServe", 2, testNoHandlerAfterServe},
		{"UnreachablePeerIsAnError", 2, testUnreachable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.test(t, nodes(t, tt.nodes))
		})
	}
}

// handler is an exchange.Handler of two functions.
type handler struct {
	receive func(ctx context.Context, from wire.OrgID, kind string, body []byte) ([]byte, error)
	open    func(ctx context.Context, from wire.OrgID, name string, offset int64) (io.ReadCloser, error)
}

func (h handler) Receive(ctx context.Context, from wire.OrgID, kind string, body []byte) ([]byte, error) {
	if h.receive == nil {
		return nil, errors.New("this test does not expect a request")
	}
	return h.receive(ctx, from, kind, body)
}

func (h handler) Open(ctx context.Context, from wire.OrgID, name string, offset int64) (io.ReadCloser, error) {
	if h.open == nil {
		return nil, errors.New("this test does not expect a fetch")
	}
	return h.open(ctx, from, name, offset)
}

func answering(answer string) handler {
	return handler{receive: func(context.Context, wire.OrgID, string, []byte) ([]byte, error) {
		return []byte(answer), nil
	}}
}

type authorise = func(wire.Hash) (wire.OrgID, bool)

// registry authorises the given nodes.
func registry(nodes ...Node) authorise {
	return func(hash wire.Hash) (wire.OrgID, bool) {
		for _, n := range nodes {
			if n.Peer.CertHash == hash {
				return n.Peer.Org, true
			}
		}
		return wire.OrgID{}, false
	}
}

// serve runs Serve until the test ends or stop is called. stop returns what
// Serve returned.
func serve(t *testing.T, n Node, a authorise, h exchange.Handler) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- n.Exchange.Serve(ctx, a, h) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return receive(t, stopped, "Serve to return")
	})
	t.Cleanup(func() {
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v, want %v", err, context.Canceled)
		}
	})
	return stop
}

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// receive waits for a value.
func receive[T any](t *testing.T, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatalf("waited %s for %s", patience, what)
	}
	return v
}

// sendUntilServed repeats a request until the peer, which is starting, answers.
func sendUntilServed(t *testing.T, from, to Node) []byte {
	t.Helper()
	ctx := timeout(t)
	for {
		answer, err := from.Exchange.Send(ctx, to.Peer, "hello", nil)
		if err == nil {
			return answer
		}
		if ctx.Err() != nil {
			t.Fatalf("the peer does not answer: %v", err)
		}
	}
}

func testAnswer(t *testing.T, n []Node) {
	serve(t, n[1], registry(n...), handler{receive: func(_ context.Context, from wire.OrgID, kind string, body []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%s %s %s", from.Short(), kind, body), nil
	}})
	sendUntilServed(t, n[0], n[1])
	answer, err := n[0].Exchange.Send(timeout(t), n[1].Peer, "batch", []byte("payload"))
	if want := n[0].Peer.Org.Short() + " batch payload"; err != nil || string(answer) != want {
		t.Fatalf("answer %q, error %v; want %q", answer, err, want)
	}
}

func testBodiesAreNotShared(t *testing.T, n []Node) {
	var kept []byte
	answer := []byte("answer")
	serve(t, n[1], registry(n...), handler{receive: func(_ context.Context, _ wire.OrgID, kind string, body []byte) ([]byte, error) {
		if kind == "keep" {
			kept = body
		}
		return answer, nil
	}})
	sendUntilServed(t, n[0], n[1])
	body := []byte("body")
	got, err := n[0].Exchange.Send(timeout(t), n[1].Peer, "keep", body)
	if err != nil {
		t.Fatal(err)
	}
	copy(body, "XXXX")
	copy(got, "XXXXXX")
	if string(kept) != "body" || string(answer) != "answer" {
		t.Fatalf("two nodes share memory: handler has %q and %q", kept, answer)
	}
}

func testOddValues(t *testing.T, n []Node) {
	serve(t, n[1], registry(n...), handler{
		receive: func(_ context.Context, _ wire.OrgID, kind string, body []byte) ([]byte, error) {
			return append([]byte(kind), body...), nil
		},
		open: func(_ context.Context, _ wire.OrgID, name string, _ int64) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(name)), nil
		},
	})
	sendUntilServed(t, n[0], n[1])
	for _, s := range []string{"", "a/../b", "?x=1&y#z", "100%", "grüße \x00\n+"} {
		if got, err := n[0].Exchange.Send(timeout(t), n[1].Peer, s, nil); err != nil || string(got) != s {
			t.Errorf("kind %q arrived as %q, error %v", s, got, err)
		}
		object, err := n[0].Exchange.Fetch(timeout(t), n[1].Peer, s, 0)
		if err != nil {
			t.Errorf("object %q: %v", s, err)
			continue
		}
		if got, err := io.ReadAll(object); err != nil || string(got) != s {
			t.Errorf("name %q arrived as %q, error %v", s, got, err)
		}
		object.Close()
	}
}

func testAnswerComesAfterTheHandler(t *testing.T, n []Node) {
	entered, commit := make(chan struct{}), make(chan struct{})
	serve(t, n[1], registry(n...), handler{receive: func(_ context.Context, _ wire.OrgID, kind string, _ []byte) ([]byte, error) {
		if kind == "commit" {
			close(entered)
			<-commit
		}
		return nil, nil
	}})
	sendUntilServed(t, n[0], n[1])
	done := make(chan error, 1)
	go func() {
		_, err := n[0].Exchange.Send(timeout(t), n[1].Peer, "commit", nil)
		done <- err
	}()
	receive(t, entered, "the handler")
	select {
	case err := <-done:
		t.Fatalf("Send returned (%v) before the handler did", err)
	default:
	}
	close(commit)
	if err := receive(t, done, "the answer"); err != nil {
		t.Fatal(err)
	}
}

func testRefusal(t *testing.T, n []Node) {
	want := exchange.Refused{Code: "not_a_member", Reason: "no group “Ω” here\n\"quoted\""}
	serve(t, n[1], registry(n...), handler{
		receive: func(_ context.Context, _ wire.OrgID, kind string, _ []byte) ([]byte, error) {
			if kind == "hello" {
				return nil, nil
			}
			return nil, fmt.Errorf("while storing: %w", &want)
		},
		open: func(context.Context, wire.OrgID, string, int64) (io.ReadCloser, error) { return nil, &want },
	})
	sendUntilServed(t, n[0], n[1])
	_, sendErr := n[0].Exchange.Send(timeout(t), n[1].Peer, "batch", nil)
	_, fetchErr := n[0].Exchange.Fetch(timeout(t), n[1].Peer, "x", 0)
	for what, err := range map[string]error{"Send": sendErr, "Fetch": fetchErr} {
		if got, ok := errors.AsType[*exchange.Refused](err); !ok || *got != want {
			t.Errorf("%s: error %v, want %v", what, err, &want)
		}
	}
}

func testErrorsDoNotLeak(t *testing.T, n []Node) {
	const secret = "password=hunter2"
	serve(t, n[1], registry(n...), handler{
		receive: func(_ context.Context, _ wire.OrgID, kind string, _ []byte) ([]byte, error) {
			if kind == "hello" {
				return nil, nil
			}
			return nil, errors.New(secret)
		},
		open: func(context.Context, wire.OrgID, string, int64) (io.ReadCloser, error) {
			return nil, errors.New(secret)
		},
	})
	sendUntilServed(t, n[0], n[1])
	_, sendErr := n[0].Exchange.Send(timeout(t), n[1].Peer, "batch", nil)
	_, fetchErr := n[0].Exchange.Fetch(timeout(t), n[1].Peer, "x", 0)
	for what, err := range map[string]error{"Send": sendErr, "Fetch": fetchErr} {
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: error %v; want one without the text of the handler's", what, err)
		}
		if refused, ok := errors.AsType[*exchange.Refused](err); ok {
			t.Errorf("%s: %v; an unknown outcome is no refusal", what, refused)
		}
		if errors.Is(err, exchange.ErrNotFound) || errors.Is(err, exchange.ErrWrongPeer) {
			t.Errorf("%s: %v; want an error that says only to try again", what, err)
		}
	}
}

func testPanic(t *testing.T, n []Node) {
	serve(t, n[1], registry(n...), handler{receive: func(_ context.Context, _ wire.OrgID, kind string, _ []byte) ([]byte, error) {
		if kind == "panic" {
			panic("secret")
		}
		return []byte("alive"), nil
	}})
	sendUntilServed(t, n[0], n[1])
	if _, err := n[0].Exchange.Send(timeout(t), n[1].Peer, "panic", nil); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v; want one that does not tell the panic", err)
	}
	if answer, err := n[0].Exchange.Send(timeout(t), n[1].Peer, "hello", nil); err != nil || string(answer) != "alive" {
		t.Fatalf("after a panic: answer %q, error %v", answer, err)
	}
}

func testWrongPeer(t *testing.T, n []Node) {
	serve(t, n[1], registry(n...), answering("never for node 2"))
	sendUntilServed(t, n[0], n[1])
	poser := n[1].Peer
	poser.CertHash, poser.Org = n[2].Peer.CertHash, n[2].Peer.Org
	if answer, err := n[0].Exchange.Send(timeout(t), poser, "batch", nil); !errors.Is(err, exchange.ErrWrongPeer) {
		t.Errorf("Send: answer %q, error %v; want %v", answer, err, exchange.ErrWrongPeer)
	}
	if _, err := n[0].Exchange.Fetch(timeout(t), poser, "x", 0); !errors.Is(err, exchange.ErrWrongPeer) {
		t.Errorf("Fetch: error %v; want %v", err, exchange.ErrWrongPeer)
	}
}

func testUnknownCaller(t *testing.T, n []Node) {
	serve(t, n[1], registry(n[1]), answering("never"))
	for range 3 {
		if answer, err := n[0].Exchange.Send(timeout(t), n[1].Peer, "batch", nil); err == nil {
			t.Fatalf("an unregistered caller got %q", answer)
		}
		if _, err := n[0].Exchange.Fetch(timeout(t), n[1].Peer, "x", 0); err == nil || errors.Is(err, exchange.ErrNotFound) {
			t.Fatalf("an unregistered caller's fetch gave %v", err)
		}
	}
}

func testRemovedCaller(t *testing.T, n []Node) {
	var mu sync.Mutex
	member := true
	serve(t, n[1], func(hash wire.Hash) (wire.OrgID, bool) {
		mu.Lock()
		defer mu.Unlock()
		return n[0].Peer.Org, member && hash == n[0].Peer.CertHash
	}, answering("secret"))
	sendUntilServed(t, n[0], n[1])
	mu.Lock()
	member = false
	mu.Unlock()
	if answer, err := n[0].Exchange.Send(timeout(t), n[1].Peer, "batch", nil); err == nil {
		t.Fatalf("a removed caller with an open connection got %q", answer)
	}
}

func testLimits(t *testing.T, n []Node) {
	serve(t, n[1], registry(n...), handler{receive: func(_ context.Context, _ wire.OrgID, kind string, body []byte) ([]byte, error) {
		if kind == "too much" {
			return append(body, 0), nil
		}
		return body, nil
	}})
	sendUntilServed(t, n[0], n[1])
	largest := bytes.Repeat([]byte("0123456789abcdef"), exchange.MaxRequest/16)
	answer, err := n[0].Exchange.Send(timeout(t), n[1].Peer, "echo", largest)
	if err != nil || !bytes.Equal(answer, largest) {
		t.Fatalf("a body of MaxRequest bytes came back as %d bytes, error %v", len(answer), err)
	}
	_, bodyErr := n[0].Exchange.Send(timeout(t), n[1].Peer, "echo", append(largest, 0))
	_, answerErr := n[0].Exchange.Send(timeout(t), n[1].Peer, "too much", largest)
	for what, err := range map[string]error{"body": bodyErr, "answer": answerErr} {
		if refused, ok := errors.AsType[*exchange.Refused](err); !ok || refused.Code != exchange.CodeTooLarge {
			t.Errorf("%s of MaxRequest+1 bytes: error %v, want code %s", what, err, exchange.CodeTooLarge)
		}
	}
}

func testConcurrentCalls(t *testing.T, n []Node) {
	const calls = 32
	var inside sync.WaitGroup
	inside.Add(calls)
	serve(t, n[1], registry(n...), handler{receive: func(_ context.Context, _ wire.OrgID, kind string, body []byte) ([]byte, error) {
		if kind == "together" {
			inside.Done()
			inside.Wait() // passes only when all calls are here at once
		}
		return body, nil
	}})
	sendUntilServed(t, n[0], n[1])
	var callers sync.WaitGroup
	for i := range calls {
		callers.Go(func() {
			body := fmt.Append(nil, i)
			if answer, err := n[0].Exchange.Send(timeout(t), n[1].Peer, "together", body); err != nil || !bytes.Equal(answer, body) {
				t.Errorf("call %d: answer %q, error %v", i, answer, err)
			}
		})
	}
	callers.Wait()
}

func testHungPeer(t *testing.T, n []Node) {
	const calls = 200 // more than a driver allows on one connection
	entered := make(chan struct{}, calls)
	serve(t, n[1], registry(n...), handler{receive: func(ctx context.Context, _ wire.OrgID, kind string, _ []byte) ([]byte, error) {
		if kind == "hang" {
			entered <- struct{}{}
			<-ctx.Done()
		}
		return nil, ctx.Err()
	}})
	serve(t, n[2], registry(n...), answering("well"))
	sendUntilServed(t, n[0], n[1])
	sendUntilServed(t, n[0], n[2])
	ctx, cancel := context.WithCancel(timeout(t))
	var hanging sync.WaitGroup
	for range calls {
		hanging.Go(func() {
			if _, err := n[0].Exchange.Send(ctx, n[1].Peer, "hang", nil); err == nil {
				t.Error("a hung peer answered")
			}
		})
	}
	receive(t, entered, "the first call to hang")
	for range 20 {
		if answer, err := n[0].Exchange.Send(timeout(t), n[2].Peer, "hello", nil); err != nil || string(answer) != "well" {
			t.Errorf("beside a hung peer: answer %q, error %v", answer, err)
		}
	}
	cancel()
	hanging.Wait()
}

func testCancel(t *testing.T, n []Node) {
	entered, left := make(chan struct{}), make(chan struct{})
	serve(t, n[1], registry(n...), handler{receive: func(ctx context.Context, _ wire.OrgID, kind string, _ []byte) ([]byte, error) {
		if kind == "hang" {
			close(entered)
			<-ctx.Done()
			close(left)
		}
		return nil, nil
	}})
	sendUntilServed(t, n[0], n[1])
	ctx, cancel := context.WithCancel(timeout(t))
	done := make(chan error, 1)
	go func() {
		_, err := n[0].Exchange.Send(ctx, n[1].Peer, "hang", nil)
		done <- err
	}()
	receive(t, entered, "the handler")
	cancel()
	if err := receive(t, done, "the cancelled Send"); !errors.Is(err, context.Canceled) {
		t.Errorf("Send returned %v, want %v", err, context.Canceled)
	}
	receive(t, left, "the handler to learn that its caller left")
}

func testServeAgain(t *testing.T, n []Node) {
	stop := serve(t, n[1], registry(n...), answering("first"))
	if got := sendUntilServed(t, n[0], n[1]); string(got) != "first" {
		t.Fatalf("answer %q", got)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Fatalf("Serve returned %v, want %v", err, context.Canceled)
	}
	if answer, err := n[0].Exchange.Send(timeout(t), n[1].Peer, "hello", nil); err == nil {
		t.Fatalf("a stopped peer answered %q", answer)
	}
	serve(t, n[1], registry(n...), answering("second"))
	if got := sendUntilServed(t, n[0], n[1]); string(got) != "second" {
		t.Fatalf("answer %q", got)
	}
}

func testNoHandlerAfterServe(t *testing.T, n []Node) {
	entered, release, returned := make(chan struct{}), make(chan struct{}), make(chan struct{})
	stop := serve(t, n[1], registry(n...), handler{receive: func(_ context.Context, _ wire.OrgID, kind string, _ []byte) ([]byte, error) {
		if kind == "slow" {
			close(entered)
			<-release
			close(returned)
		}
		return nil, nil
	}})
	sendUntilServed(t, n[0], n[1])
	ctx, cancel := context.WithCancel(timeout(t))
	done := make(chan struct{})
	go func() {
		// Its outcome is open: the peer stops meanwhile.
		_, _ = n[0].Exchange.Send(ctx, n[1].Peer, "slow", nil)
		close(done)
	}()
	receive(t, entered, "the handler")
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	close(release)
	receive(t, stopped, "Serve to return")
	select {
	case <-returned:
	default:
		t.Error("Serve returned while a handler was running")
	}
	cancel()
	receive(t, done, "the caller")
}

func testUnreachable(t *testing.T, n []Node) {
	// Node 1 is not served; with some drivers it holds its callers in a queue.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := n[0].Exchange.Send(ctx, n[1].Peer, "batch", nil)
	if err == nil {
		t.Error("a peer that is not there answered")
	}
	nowhere := n[1].Peer
	nowhere.Endpoints = nil
	if _, err := n[0].Exchange.Send(timeout(t), nowhere, "batch", nil); err == nil {
		t.Error("a peer without endpoints answered")
	}
}
