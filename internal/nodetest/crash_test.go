package nodetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// A member is down while the others go on. When it is back it has all that it
// missed, in the same order, and nothing twice.
func TestDeadMemberConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 4)
		dead := net.Members[3]
		var sent []wire.UUID
		send := func(n int, members ...*Member) {
			for i := range n {
				for _, m := range members {
					sent = append(sent, m.Broadcast(fmt.Sprint(i), "t").Header.ID)
				}
			}
		}
		send(5, net.Members...)
		dead.Kill()
		send(20, net.Members[:3]...)
		net.agreeOn("t", net.Members[:3]...)
		dead.Start()
		send(5, net.Members...)
		net.agree("t", sent, net.Members...)
	})
}

// agreeOn waits until nothing is under way and tests that members have one order
// of a topic. What was not acknowledged may be in it or not.
func (net *Net) agreeOn(topic string, members ...*Member) []wire.UUID {
	net.t.Helper()
	net.Quiet()
	order := members[0].Order(topic)
	for _, m := range members[1:] {
		if got := m.Order(topic); !slices.Equal(got, order) {
			net.t.Errorf("%s and %s have different orders of %s: %d and %d verdicts", m.Name, members[0].Name, topic, len(got), len(order))
		}
	}
	return order
}

// Nodes die again and again, each time at another of their messages or ledger
// calls, while all members send. What was acknowledged is confirmed everywhere,
// once, in one order.
func TestKilledAtAnyMoment(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { killedAtAnyMoment(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func killedAtAnyMoment(t *testing.T, random *rand.Rand) {
	net := Network(t, 3)
	var acknowledged, all []wire.UUID
	for range 6 {
		victim := net.Members[random.IntN(len(net.Members))]
		died := net.dieAfter(victim, 1+random.IntN(25))
		for i := range 10 {
			for _, m := range net.Members {
				id, err := m.try(fmt.Sprint(i), "t")
				if err != nil {
					continue // it is dead
				}
				all = append(all, id)
				if !m.dead.Load() {
					acknowledged = append(acknowledged, id)
				}
			}
		}
		select {
		case <-died:
		case <-time.After(30 * time.Second): // there was less traffic: it dies in its sleep
			net.Exchange.Intercept(nil)
			victim.OnLedger(nil)
			victim.die()
		}
		net.Exchange.Intercept(nil)
		victim.bury()
		victim.OnLedger(nil)
		victim.Start()
	}
	order := net.agreeOn("t", net.Members...)
	seen := map[wire.UUID]int{}
	for _, id := range order {
		seen[id]++
	}
	for _, id := range acknowledged {
		if seen[id] != 1 {
			t.Errorf("message %s was acknowledged and is confirmed %d times", id, seen[id])
		}
	}
	for id, n := range seen {
		if n != 1 || !slices.Contains(all, id) {
			t.Errorf("message %s is confirmed %d times, or nobody sent it", id, n)
		}
	}
	if len(acknowledged) < 100 {
		t.Errorf("only %d messages were acknowledged", len(acknowledged))
	}
}

// try is Broadcast of a node that may be dying.
func (m *Member) try(value, topic string) (wire.UUID, error) {
	msg, err := m.Messages.Broadcast(m.net.t.Context(), input(value, topic))
	if err != nil {
		return wire.UUID{}, err
	}
	return msg.Header.ID, nil
}

// dieAfter kills a member at the nth of its messages or ledger calls. The
// channel is closed when it has died; it is still to be buried.
func (net *Net) dieAfter(m *Member, n int) <-chan struct{} {
	died := make(chan struct{})
	var mu sync.Mutex
	step := func() error {
		mu.Lock()
		defer mu.Unlock()
		switch n--; {
		case n > 0:
			return nil
		case n == 0:
			m.die()
			close(died)
		}
		return errDead
	}
	m.OnLedger(func(string) error { return step() })
	net.Exchange.Intercept(func(msg local.Message) ([]byte, error) {
		if msg.From == m.Name || msg.To == m.Name {
			if err := step(); err != nil {
				return nil, err
			}
		}
		return msg.Body, nil
	})
	return died
}

// The ledger cannot be reached when a node starts, and for long. It takes
// messages, says what it waits for, and loses nothing.
func TestLedgerUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a := net.Members[0]
		a.Stop()
		a.Ledger.Pause()
		a.Start()
		var sent []wire.UUID
		for i := range 10 {
			sent = append(sent, a.Broadcast(fmt.Sprint(i), "t").Header.ID)
		}
		net.Members[1].Until("the first payload is there, without a pin", func(tx *store.Tx) (bool, error) {
			m, err := store.Optional(tx.MessageByID("default", sent[0]))
			return m != nil, err
		})
		time.Sleep(10 * time.Minute) // of the bubble
		for _, m := range net.Members {
			m.without("t")
		}
		a.Ledger.Resume()
		net.agree("t", sent, net.Members...)

		for _, m := range net.Members { // all of them, with messages under way
			sent = append(sent, m.Broadcast(`1`, "t").Header.ID)
			m.Ledger.Pause()
		}
		time.Sleep(2 * time.Minute)
		for _, m := range net.Members {
			m.Ledger.Resume()
		}
		net.agree("t", sent, net.Members...)
	})
}
