package exchangetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/wire"
)

// serving answers hello, and shows one object of the given bytes.
func serving(name string, content []byte) handler {
	h := answering("")
	h.open = func(_ context.Context, _ wire.OrgID, wanted string, offset int64) (io.ReadCloser, error) {
		if wanted != name || offset > int64(len(content)) {
			return nil, exchange.ErrNotFound
		}
		return io.NopCloser(bytes.NewReader(content[offset:])), nil
	}
	return h
}

func testNotFound(t *testing.T, n []Node) {
	serve(t, n[1], registry(n...), serving("here", []byte("x")))
	sendUntilServed(t, n[0], n[1])
	if _, err := n[0].Exchange.Fetch(timeout(t), n[1].Peer, "elsewhere", 0); !errors.Is(err, exchange.ErrNotFound) {
		t.Errorf("error %v, want %v", err, exchange.ErrNotFound)
	}
}

func testFetch(t *testing.T, n []Node) {
	content := bytes.Repeat([]byte("thirteen byte"), 400_000) // about 5 MB
	serve(t, n[1], registry(n...), serving("object", content))
	sendUntilServed(t, n[0], n[1])
	for _, offset := range []int{0, 1, 3<<20 + 5, len(content) - 1, len(content)} {
		object, err := n[0].Exchange.Fetch(timeout(t), n[1].Peer, "object", int64(offset))
		if err != nil {
			t.Fatalf("offset %d: %v", offset, err)
		}
		got, err := io.ReadAll(object)
		if err != nil || !bytes.Equal(got, content[offset:]) {
			t.Errorf("offset %d: %d bytes, error %v; want %d", offset, len(got), err, len(content)-offset)
		}
		if err := object.Close(); err != nil {
			t.Errorf("offset %d: close: %v", offset, err)
		}
	}
	if object, err := n[0].Exchange.Fetch(timeout(t), n[1].Peer, "object", -1); err == nil {
		object.Close()
		t.Error("a negative offset gave an object")
	}
}

// failing reads content, then fails.
type failing struct {
	content io.Reader
	err     error
}

func (f failing) Read(p []byte) (int, error) {
	n, err := f.content.Read(p)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}
func (failing) Close() error { return nil }

func testBrokenObject(t *testing.T, n []Node) {
	content := bytes.Repeat([]byte("x"), 1<<20)
	h := answering("")
	h.open = func(context.Context, wire.OrgID, string, int64) (io.ReadCloser, error) {
		return failing{bytes.NewReader(content), errors.New("disk failed")}, nil
	}
	serve(t, n[1], registry(n...), h)
	sendUntilServed(t, n[0], n[1])
	object, err := n[0].Exchange.Fetch(timeout(t), n[1].Peer, "object", 0)
	if err != nil {
		return // the break may be seen this early
	}
	defer object.Close()
	got, err := io.ReadAll(object)
	if err == nil {
		t.Errorf("an object that broke off looked whole after %d bytes", len(got))
	}
	if !bytes.HasPrefix(content, got) {
		t.Error("the bytes before the break are not those of the object")
	}
}

// endless is an object without end that tells when it is closed.
type endless struct{ closed chan struct{} }

func (endless) Read(p []byte) (int, error) { return len(p), nil }
func (e endless) Close() error             { close(e.closed); return nil }

func testClosedReader(t *testing.T, n []Node) {
	closed := make(chan struct{}, 1)
	h := answering("")
	h.open = func(context.Context, wire.OrgID, string, int64) (io.ReadCloser, error) { return endless{closed}, nil }
	serve(t, n[1], registry(n...), h)
	sendUntilServed(t, n[0], n[1])
	object, err := n[0].Exchange.Fetch(timeout(t), n[1].Peer, "object", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(object, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := object.Close(); err != nil {
		t.Fatal(err)
	}
	receive(t, closed, "the peer to close the object")
}
