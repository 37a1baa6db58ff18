package api_test

import (
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/nodetest"
	"github.com/parley-node/parley/internal/store"
)

// A database that stands still: requests up to the bound wait for it, those
// beyond are told at once to come back, and all that waited are stored once it
// moves again.
func TestOverloadOfTheDatabase(t *testing.T) {
	t.Parallel()
	const bound, clients = 20, 60
	net := nodetest.Network(t, 1)
	m := net.Members[0]
	s := serve(t, m, func(d *api.Deps) { d.Limits.QueuedWrites = bound })
	held, release := make(chan struct{}), make(chan struct{})
	var holder sync.WaitGroup
	holder.Go(func() {
		err := m.DB.Write(t.Context(), func(*store.Tx) error {
			close(held)
			<-release
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-held
	refused := make(chan *answer, clients)
	accepted := make(chan *answer, clients)
	var posters sync.WaitGroup
	for i := range clients { // each waits, or has its answer, before the next comes
		for i > 0 && m.Messages.HandedIn()+len(refused) < i {
			runtime.Gosched()
		}
		posters.Go(func() {
			a := s.post("messages/broadcast", `{"header":{"topics":["overload"]},"data":[{"value":1}]}`)
			if a.status == http.StatusTooManyRequests {
				refused <- a
			} else {
				accepted <- a
			}
		})
	}
	for range clients - bound {
		a := <-refused
		if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 {
			t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
		}
		a.is(http.StatusTooManyRequests, "FF90003")
	}
	if n := m.Messages.HandedIn(); n > bound {
		t.Errorf("%d messages wait, the bound is %d", n, bound)
	}
	s.get("messages").is(200, "")
	close(release)
	posters.Wait()
	holder.Wait()
	close(accepted)
	stored := 0
	for a := range accepted {
		a.is(http.StatusAccepted, "")
		stored++
	}
	if got := len(into[[]object](s.get("messages?topics=overload&limit=100"))); got != stored || stored == 0 {
		t.Errorf("%d messages are stored, %d were accepted", got, stored)
	}
	s.post("messages/broadcast", `{"header":{"topics":["overload"]},"data":[{"value":1}]}`).is(http.StatusAccepted, "")
}

// A peer that is down: messages for it wait up to the bound, then new ones are
// refused; what was accepted arrives once the peer is back.
func TestOverloadOfAPeer(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	a, b := net.Members[0], net.Members[1]
	var later atomic.Int64 // the node's clock is so much ahead
	s := serve(t, a, func(d *api.Deps) {
		d.Limits.ReadyMessages = 10
		d.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	first := a.Private(`"the group is made"`, []*nodetest.Member{b}, "overload")
	b.Confirmed(first.Header.ID)
	b.Stop()
	body := `{"header":{"group":"` + string(first.Header.Group) + `","topics":["overload"]},"data":[{"value":"x"}]}`
	var ids []store.UUID
	for {
		answer := s.post("messages/private", body)
		if answer.status == http.StatusServiceUnavailable {
			if answer.is(503, "FF90003"); answer.header.Get("Retry-After") == "" || !strings.Contains(string(answer.body), "wait to be sent") {
				t.Errorf("the answer is %v %s", answer.header, answer.body)
			}
			break
		}
		ids = append(ids, into[store.Message](answer.is(202, "")).Header.ID)
		if len(ids) > 10_000 {
			t.Fatal("no bound was reached")
		}
	}
	b.Start()
	for _, id := range ids {
		b.Confirmed(id)
	}
	later.Store(int64(time.Minute)) // as long as the answers said, and more
	s.post("messages/private", body).is(202, "")
}
