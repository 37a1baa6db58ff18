package nodetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/wire"
)

// errFault is what a node sees of a fault that a test planted.
var errFault = errors.New("a planted fault")

// effect is something that a node does to the outside, and a story in which it
// happens once or more. The story returns the message that must come through
// and whom it is for.
type effect struct {
	name  string
	from  int // the member that does it
	to    int // the member that it is done to, -1 for the ledger
	kind  string
	nth   int // which request of the kind, from 1
	story func(net *Net, round int) (wire.UUID, []*Member)
}

// Faults of an effect. A crash leaves what the disk held at that moment.
const (
	lost        = "it fails and is lost"
	answerLost  = "it is done, but fails"
	crashBefore = "crash before its record"
	crashAfter  = "crash after its record"
	peerBefore  = "crash of the peer before it is done"
	peerAfter   = "crash of the peer after it is done"
)

// Every effect that a node has on its peers and on the ledger is tried with
// every fault. In each case what was sent is confirmed everywhere, once, and a
// check of every member finds nothing.
func TestFaultTable(t *testing.T) {
	broadcast := func(net *Net, round int) (wire.UUID, []*Member) {
		return net.Members[0].Broadcast(fmt.Sprint(round), "t").Header.ID, net.Members
	}
	private := func(net *Net, round int) (wire.UUID, []*Member) {
		return net.Members[0].Private(fmt.Sprint(round), net.Members[1:2], "t").Header.ID, net.Members[:2]
	}
	newGroup := func(net *Net, round int) (wire.UUID, []*Member) {
		a, b := net.Members[0], net.Members[1]
		in := input(fmt.Sprint(round), "t")
		in.Group = &message.GroupInput{Name: fmt.Sprint("group-", round), Members: []message.MemberInput{{Identity: b.Name}}}
		msg, err := a.Messages.Private(context.Background(), in)
		must(net.t, err)
		return msg.Header.ID, []*Member{a, b}
	}
	attach := func(net *Net, round int) (wire.UUID, []*Member) {
		content := bytes.Repeat([]byte{byte(round), 1, 2}, 1<<20) // three chunks
		return net.Members[0].Attach(content, net.Members[1:2], "t").Header.ID, net.Members[:2]
	}
	unpinned := func(net *Net, round int) (wire.UUID, []*Member) {
		return net.Members[0].Unpinned(fmt.Sprint(round), net.Members[1:2], "t").Header.ID, net.Members[:2]
	}
	for _, e := range []effect{
		{"payload", 0, 1, "payload", 1, private},
		{"certificate", 0, 3, "certificate", 1, broadcast},
		{"invitation", 0, 1, "invite", 1, newGroup},
		{"unpinned batch", 0, 1, "unpinned", 1, unpinned},
		{"receipt after a pull", 2, 1, "receipt", 1, broadcast},
		{"fetch of a payload", 2, 0, local.KindFetch, 1, broadcast},
		{"fetch of the list of chunks", 1, 0, local.KindFetch, 1, attach},
		{"fetch of a blob", 1, 0, local.KindFetch, 2, attach},
		{"ledger call", 0, -1, "", 1, private},
		{"ledger records", 1, -1, "records", 1, private},
	} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { e.run(t) })
		})
	}
}

func (e *effect) run(t *testing.T) {
	net := Network(t, max(e.from, e.to, 1)+1)
	private := net.Members[0].Private(`"first"`, net.Members[1:2], "t")
	net.Members[1].Confirmed(private.Header.ID)
	confirmed := map[wire.UUID][]*Member{}
	faults := []string{lost, answerLost, crashBefore, crashAfter, peerBefore, peerAfter}
	if e.to < 0 {
		faults = faults[:4]
	}
	for round, fault := range faults {
		p := e.plant(net, fault)
		id, to := e.story(net, round)
		confirmed[id] = to
		p.wait(t, e.name+": "+fault)
		for _, m := range to {
			m.Confirmed(id)
		}
		net.Check()
		if t.Failed() {
			t.Fatalf("%s, %s", e.name, fault)
		}
	}
	for id, to := range confirmed {
		for _, m := range to {
			n := 0
			for _, got := range m.Order("t") {
				if got == id {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%s: message %s is confirmed %d times", m.Name, id, n)
			}
		}
	}
}

// plan is a fault on its way.
type plan struct {
	net      *Net
	happened chan struct{}
	victim   *Member // that dies, nil if nobody does
}

// plant puts a fault before the next effect.
func (e *effect) plant(net *Net, fault string) *plan {
	p := &plan{net: net, happened: make(chan struct{})}
	from := net.Members[e.from]
	switch fault {
	case crashBefore, crashAfter:
		p.victim = from
	case peerBefore, peerAfter:
		p.victim = net.Members[e.to]
	}
	var once sync.Once
	strike := func() (struck bool) {
		once.Do(func() {
			struck = true
			if p.victim != nil {
				p.victim.die()
			}
			close(p.happened)
		})
		return struck
	}
	if e.to < 0 {
		from.OnLedger(e.onLedger(fault, strike))
		return p
	}
	to := net.Members[e.to]
	var mu sync.Mutex
	requests := 0
	net.Exchange.Intercept(func(m local.Message) ([]byte, error) {
		forward := m.From == from.Name && m.To == to.Name
		back := m.From == to.Name && m.To == from.Name
		if e.withhold(m, from) {
			return nil, errFault
		}
		if m.Kind != e.kind || !forward && !back || m.Kind != local.KindFetch && m.Answer == forward {
			return m.Body, nil
		}
		mu.Lock()
		if forward && !m.Answer || m.Kind == local.KindFetch && back {
			requests++
		}
		now := requests == e.nth
		mu.Unlock()
		if !now {
			return m.Body, nil
		}
		request := forward && !m.Answer
		// A fetch is seen once, when the object comes back.
		if m.Kind == local.KindFetch {
			request = fault == lost || fault == peerBefore
		}
		switch {
		case request && (fault == lost || fault == peerBefore), !request && (fault == answerLost || fault == crashBefore || fault == peerAfter):
			if strike() {
				return nil, errFault
			}
		case !request && fault == crashAfter:
			// The record follows the answer; whatever the node sends or hears next
			// stands behind it.
			go func() {
				synctest.Wait()
				strike()
			}()
		}
		return m.Body, nil
	})
	return p
}

// withhold keeps payloads from a member that is to pull them.
func (e *effect) withhold(m local.Message, from *Member) bool {
	return e.from == 2 && m.Kind == "payload" && m.To == from.Name && !m.Answer
}

func (e *effect) onLedger(fault string, strike func() bool) func(string) error {
	before, after := beforeSend, afterSend
	if e.kind == "records" {
		before, after = beforeRecord, afterRecord
	}
	at := map[string]string{lost: before, answerLost: after, crashBefore: before, crashAfter: after}[fault]
	return func(point string) error {
		if point == at && strike() {
			return errFault
		}
		return nil
	}
}

// wait lets the fault happen and brings back whoever died of it.
func (p *plan) wait(t *testing.T, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-p.happened:
	case <-ctx.Done():
		t.Fatalf("%s: it did not happen", what)
	}
	if p.victim != nil {
		p.victim.bury()
		p.victim.Start()
	}
	p.net.Exchange.Intercept(nil)
	for _, m := range p.net.Members {
		m.OnLedger(nil)
	}
}
