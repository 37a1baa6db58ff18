package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/exchange/exchangetest"
	"github.com/parley-node/parley/wire"
)

func peer(name string) exchange.Peer {
	return exchange.Peer{
		Org:       sha256.Sum256([]byte("org " + name)),
		CertHash:  sha256.Sum256([]byte("cert " + name)),
		Endpoints: []string{name},
	}
}

func TestConformance(t *testing.T) {
	exchangetest.Run(t, func(t *testing.T, n int) []exchangetest.Node {
		network := NewNetwork(nil)
		nodes := make([]exchangetest.Node, n)
		for i := range nodes {
			p := peer(fmt.Sprint("node", i))
			nodes[i] = exchangetest.Node{Exchange: network.Connect(p.Endpoints[0], p.CertHash), Peer: p}
		}
		return nodes
	})
}

// recorder answers with the body it got and remembers what it saw.
type recorder struct{ seen []string }

func (r *recorder) Receive(_ context.Context, _ wire.OrgID, kind string, body []byte) ([]byte, error) {
	r.seen = append(r.seen, kind+" "+string(body))
	return body, nil
}

func (r *recorder) Open(_ context.Context, _ wire.OrgID, name string, offset int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader([]byte(name)[offset:])), nil
}

// pair runs test inside a bubble of fake time with node b serving; a calls it.
func pair(t *testing.T, test func(t *testing.T, network *Network, a *Exchange, b *recorder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := NewNetwork(nil)
		a := network.Connect("a", peer("a").CertHash)
		b := network.Connect("b", peer("b").CertHash)
		ctx, cancel := context.WithCancel(t.Context())
		handler := &recorder{}
		stopped := make(chan error, 1)
		go func() {
			stopped <- b.Serve(ctx, func(h wire.Hash) (wire.OrgID, bool) { return peer("a").Org, h == peer("a").CertHash }, handler)
		}()
		synctest.Wait()
		test(t, network, a, handler)
		cancel()
		if err := <-stopped; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestCutAndHeal(t *testing.T) {
	pair(t, func(t *testing.T, network *Network, a *Exchange, b *recorder) {
		object, err := a.Fetch(t.Context(), peer("b"), "object", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer object.Close()
		network.Cut("a", "b")
		if _, err := a.Send(t.Context(), peer("b"), "k", []byte("1")); err == nil {
			t.Error("a request passed a cut link")
		}
		if _, err := io.ReadAll(object); err == nil {
			t.Error("a transfer passed a cut link")
		}
		network.Heal("b", "a")
		if _, err := a.Send(t.Context(), peer("b"), "k", []byte("2")); err != nil {
			t.Errorf("after healing: %v", err)
		}
		if got := strings.Join(b.seen, ","); got != "k 2" {
			t.Errorf("the peer saw %q", got)
		}
	})
}

func TestDelayOfEachDirection(t *testing.T) {
	pair(t, func(t *testing.T, network *Network, a *Exchange, _ *recorder) {
		network.Delay("a", "b", time.Minute)
		network.Delay("b", "a", time.Second)
		start := time.Now()
		if _, err := a.Send(t.Context(), peer("b"), "k", nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != time.Minute+time.Second {
			t.Errorf("there and back took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := a.Send(ctx, peer("b"), "k", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestFailNextAndDrop(t *testing.T) {
	pair(t, func(t *testing.T, network *Network, a *Exchange, b *recorder) {
		send := func(kind string, wantErr bool) {
			t.Helper()
			if _, err := a.Send(t.Context(), peer("b"), kind, nil); (err != nil) != wantErr {
				t.Errorf("%s: error %v", kind, err)
			}
		}
		network.FailNext("a", "b", Lost)
		network.FailNext("a", "b", AnswerLost)
		send("lost", true)
		send("done", true)
		send("whole", false)
		network.Drop("batch")
		send("batch", true)
		send("other", false)
		network.Pass("batch")
		send("batch", false)
		network.Drop(KindFetch)
		if _, err := a.Fetch(t.Context(), peer("b"), "x", 0); err == nil {
			t.Error("a dropped fetch gave an object")
		}
		if got, want := strings.Join(b.seen, ","), "done ,whole ,other ,batch "; got != want {
			t.Errorf("the peer saw %q, want %q", got, want)
		}
	})
}

func TestInterceptorLies(t *testing.T) {
	pair(t, func(t *testing.T, network *Network, a *Exchange, b *recorder) {
		network.Intercept(func(m Message) ([]byte, error) {
			switch {
			case m.Kind == KindFetch:
				return append([]byte("forged "), m.Object...), nil
			case m.Answer:
				return append(m.Body, " answered by "+m.From...), nil
			case m.Kind == "refuse":
				return nil, &exchange.Refused{Code: "no"}
			}
			return append(m.Body, " from "+m.From...), nil
		})
		if got, err := a.Send(t.Context(), peer("b"), "k", []byte("x")); err != nil || string(got) != "x from a answered by b" {
			t.Errorf("answer %q, error %v", got, err)
		}
		_, err := a.Send(t.Context(), peer("b"), "refuse", nil)
		if refused, ok := errors.AsType[*exchange.Refused](err); !ok || refused.Code != "no" {
			t.Errorf("error %v", err)
		}
		object, err := a.Fetch(t.Context(), peer("b"), "name", 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(object); err != nil || string(got) != "forged name" {
			t.Errorf("object %q, error %v", got, err)
		}
	})
}

func TestEndpointsAreTriedInOrder(t *testing.T) {
	pair(t, func(t *testing.T, network *Network, a *Exchange, _ *recorder) {
		network.Connect("silent", peer("b").CertHash)
		network.Connect("wrong", peer("c").CertHash)
		to := peer("b")
		to.Endpoints = []string{"nowhere", "silent", "wrong", "b"}
		if got, err := a.Send(t.Context(), to, "k", []byte("x")); err != nil || string(got) != "x" {
			t.Errorf("answer %q, error %v", got, err)
		}
	})
}
