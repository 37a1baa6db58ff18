package nodetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// agree waits until each member has as many verdicts on a topic as were sent,
// and tests that all have them in one order, each once.
func (net *Net) agree(topic string, sent []wire.UUID, members ...*Member) {
	net.t.Helper()
	var want []wire.UUID
	for _, m := range members {
		for _, id := range sent {
			m.Confirmed(id)
		}
		got := m.Order(topic)
		if want == nil {
			want = got
		}
		if len(got) != len(sent) || !slices.Equal(got, want) {
			net.t.Errorf("%s has %d verdicts on %s in another order than %s, or not each once (%d sent):\n%v\n%v", m.Name, len(got), topic, members[0].Name, len(sent), got, want)
		}
	}
}

// without fails the test if a member has a verdict on a topic.
func (m *Member) without(topic string) {
	m.net.t.Helper()
	if got := m.Order(topic); len(got) > 0 {
		m.net.t.Errorf("%s has verdicts on %s: %v", m.Name, topic, got)
	}
}

// A receiver gets the first message's payload late. The second never overtakes
// it, neither there nor anywhere else.
func TestLatePayloadIsNotOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 4)
		a, b, c, d := net.Members[0], net.Members[1], net.Members[2], net.Members[3]
		for _, from := range net.Members { // nor can it be pulled
			if from != b {
				net.Exchange.Cut(from.Name, b.Name)
			}
		}
		first := a.Broadcast(`1`, "t").Header.ID
		for _, m := range []*Member{a, c, d} {
			m.Confirmed(first)
		}
		net.Exchange.Heal(c.Name, b.Name) // c's payloads get through, and a's first does not
		drop := func(m local.Message) ([]byte, error) {
			if m.To == b.Name && m.Kind == local.KindFetch {
				return nil, fmt.Errorf("not yet")
			}
			return m.Body, nil
		}
		net.Exchange.Intercept(drop)
		second := c.Broadcast(`2`, "t").Header.ID
		a.Confirmed(second)
		b.Until("the second payload is there", func(tx *store.Tx) (bool, error) {
			m, err := store.Optional(tx.MessageByID(b.Namespace, second))
			return m != nil, err
		})
		synctest.Wait()
		b.without("t")
		net.Exchange.Intercept(nil)
		for _, from := range []*Member{a, d} {
			net.Exchange.Heal(from.Name, b.Name)
		}
		net.agree("t", []wire.UUID{first, second}, net.Members...)
		if got := b.Order("t"); got[0] != first {
			t.Errorf("the second message overtook: %v", got)
		}
	})
}

// A payload that is missing blocks its own topics, and those that messages on
// several topics join to them; all others flow.
func TestMissingPayloadBlocksItsContextsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 4)
		a, b, c := net.Members[0], net.Members[1], net.Members[2]
		var withheld wire.Hash
		var once sync.Once
		net.Exchange.Intercept(func(m local.Message) ([]byte, error) {
			if m.To != b.Name || m.Answer && m.Kind != local.KindFetch {
				return m.Body, nil
			}
			if m.Kind == "payload" && m.From == a.Name {
				var env wire.Envelope
				if err := wire.Unmarshal(m.Body, &env); err != nil {
					return nil, err
				}
				once.Do(func() { withheld = env.Root })
				if env.Root == withheld {
					return nil, fmt.Errorf("lost")
				}
			}
			if m.Kind == local.KindFetch {
				return nil, fmt.Errorf("lost")
			}
			return m.Body, nil
		})
		missing := a.Broadcast(`1`, "x").Header.ID
		c.Confirmed(missing)
		joined := c.Broadcast(`2`, "x", "y").Header.ID
		c.Confirmed(joined)
		behind := c.Broadcast(`3`, "y").Header.ID
		free := c.Broadcast(`4`, "z").Header.ID
		c.Confirmed(behind)
		b.Confirmed(free)
		synctest.Wait()
		b.without("x")
		b.without("y")
		blockers, err := b.Messages.Blockers(t.Context(), b.Network.ID, "y")
		if err != nil || len(blockers) == 0 || blockers[0].Root != withheld || blockers[0].Missing != "payload" {
			t.Errorf("the blocker of y is to be the missing payload %s: %+v, %v", withheld.Short(), blockers, err)
		}
		net.Exchange.Intercept(nil)
		net.agree("x", []wire.UUID{missing, joined}, net.Members...)
		net.agree("y", []wire.UUID{joined, behind}, net.Members...)
	})
}

// Messages on several topics at once, from all members, are in one order on
// each topic, and the orders agree with each other.
func TestManyTopicsJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := New(t, Options{Members: 4, Block: 50 * time.Millisecond})
		net.Ready()
		topics := []string{"a", "b", "c", "d", "e"}
		sent := map[string][]wire.UUID{}
		for i := range 12 {
			for k, m := range net.Members {
				on := []string{topics[(i+k)%5], topics[(i*k+1)%5]}
				slices.Sort(on)
				on = slices.Compact(on)
				id := m.Broadcast(fmt.Sprint(i), on...).Header.ID
				for _, topic := range on {
					sent[topic] = append(sent[topic], id)
				}
			}
		}
		for topic, ids := range sent {
			net.agree(topic, ids, net.Members...)
		}
	})
}

// Unpinned messages come in the order of their author, also if the link breaks
// between them.
func TestUnpinnedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a, b := net.Members[0], net.Members[1]
		var sent []wire.UUID
		for i := range 10 {
			switch i {
			case 3:
				net.Exchange.FailNext(a.Name, b.Name, local.Lost)
			case 5:
				net.Exchange.FailNext(a.Name, b.Name, local.AnswerLost)
			case 7:
				net.Exchange.Cut(a.Name, b.Name)
			}
			sent = append(sent, a.Unpinned(fmt.Sprint(i), []*Member{b}, "chat").Header.ID)
			a.Confirmed(sent[i])
		}
		net.Exchange.Heal(a.Name, b.Name)
		net.agree("chat", sent, a, b)
		if got := b.Order("chat"); !slices.Equal(got, sent) {
			t.Errorf("not in the order of their author: %v, sent %v", got, sent)
		}
		net.Members[2].without("chat")
	})
}

// Two members make a group of the same members at once. Both groups live, all
// messages are confirmed, and new ones use the group that the ledger has first.
func TestGroupMadeTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a, b := net.Members[0], net.Members[1]
		net.Exchange.Cut(a.Name, b.Name) // neither hears of the other's
		one, two := a.Private(`1`, []*Member{b}, "t").Header.ID, b.Private(`2`, []*Member{a}, "t").Header.ID
		net.Exchange.Heal(a.Name, b.Name)
		for _, m := range []*Member{a, b} {
			m.Confirmed(one)
			m.Confirmed(two)
		}
		g1, g2 := a.Confirmed(one).Header.Group, a.Confirmed(two).Header.Group
		if g1 == g2 {
			t.Fatal("the test made one group only")
		}
		third, fourth := a.Private(`3`, []*Member{b}, "t"), b.Private(`4`, []*Member{a}, "t")
		b.Confirmed(third.Header.ID)
		a.Confirmed(fourth.Header.ID)
		if third.Header.Group != fourth.Header.Group {
			t.Errorf("the members use different groups: %s and %s", third.Header.Group, fourth.Header.Group)
		}
	})
}

// A member learns of a group long after the group's messages were pinned, and
// ends equal.
func TestGroupLearnedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 4)
		a, b, c, d := net.Members[0], net.Members[1], net.Members[2], net.Members[3]
		for _, o := range []*Member{a, b, c} {
			net.Exchange.Cut(d.Name, o.Name)
		}
		var sent []wire.UUID
		for i := range 30 {
			m := []*Member{a, b, c}[i%3]
			var others []*Member
			for _, o := range []*Member{a, b, c, d} {
				if o != m {
					others = append(others, o)
				}
			}
			sent = append(sent, m.Private(fmt.Sprint(i), others, "t").Header.ID)
			a.Confirmed(sent[i])
		}
		for _, o := range []*Member{a, b, c} {
			net.Exchange.Heal(d.Name, o.Name)
		}
		net.agree("t", sent, net.Members...)
	})
}
