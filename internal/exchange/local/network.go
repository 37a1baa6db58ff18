package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/parley-node/parley/wire"
)

// Network is where the nodes of a test meet. It is whole and instant until a
// test breaks it. Faults name nodes as Connect did; those of a direction act
// from the first node to the second.
type Network struct {
	log *slog.Logger

	mu      sync.Mutex
	nodes   map[string]*Exchange
	cut     map[link]bool
	delay   map[link]time.Duration
	next    map[link][]Fault
	dropped map[string]bool
	hook    func(Message) ([]byte, error)
}

type link struct{ from, to string }

// Fault is what happens to one request.
type Fault int

const (
	// Lost: the request never arrives.
	Lost Fault = iota
	// AnswerLost: the peer's handler runs to its end, but its answer is lost.
	AnswerLost
)

// KindFetch stands for the kind of a Fetch, which has none.
const KindFetch = "fetch"

// Message is a request or an answer on its way, as an interceptor sees it.
type Message struct {
	From, To string
	Kind     string
	Object   string // the name, with KindFetch
	Answer   bool   // the answer to a request of this kind, or a fetched object
	Body     []byte
}

// NewNetwork makes a network without nodes. What peers are not told goes to
// log; nil discards it.
func NewNetwork(log *slog.Logger) *Network {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Network{
		log:     log,
		nodes:   make(map[string]*Exchange),
		cut:     make(map[link]bool),
		delay:   make(map[link]time.Duration),
		next:    make(map[link][]Fault),
		dropped: make(map[string]bool),
	}
}

// Connect adds a node that others reach at the endpoint name and that presents
// the certificate of this hash. A second node of that name replaces the first,
// as after a restart or a change of certificate.
func (n *Network) Connect(name string, certHash wire.Hash) *Exchange {
	e := &Exchange{network: n, name: name, cert: certHash, log: n.log}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[name] = e
	return e
}

// Cut separates two nodes, both ways, until Heal. It also ends transfers and
// loses answers that are on their way.
func (n *Network) Cut(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[link{a, b}], n.cut[link{b, a}] = true, true
}

// Heal joins two nodes again and delivers at once, both ways: it also ends
// Delay and FailNext between them.
func (n *Network) Heal(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range []link{{a, b}, {b, a}} {
		delete(n.cut, l)
		delete(n.delay, l)
		delete(n.next, l)
	}
}

// Delay makes each request and answer from one node to another take d.
func (n *Network) Delay(from, to string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay[link{from, to}] = d
}

// FailNext lets the next request from one node to another fail. Called again
// before, it adds a fault for the request after.
func (n *Network) FailNext(from, to string, f Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := link{from, to}
	n.next[l] = append(n.next[l], f)
}

// Drop loses every request of a kind, between all nodes, until Pass.
func (n *Network) Drop(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dropped[kind] = true
}

// Pass ends Drop.
func (n *Network) Pass(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.dropped, kind)
}

// Intercept puts hook between the nodes: what it returns arrives in place of
// what was sent, and an error is the caller's result (a *exchange.Refused too).
// So a test writes peers that lie. Nil removes it.
func (n *Network) Intercept(hook func(Message) ([]byte, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hook = hook
}

func (n *Network) intercepting() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hook != nil
}

func (n *Network) intercept(m Message) ([]byte, error) {
	n.mu.Lock()
	hook := n.hook
	n.mu.Unlock()
	if hook == nil {
		return m.Body, nil
	}
	return hook(m) // outside the lock: it may change the network
}

// find gives the node at an endpoint.
func (n *Network) find(from, to string) (*Exchange, error) {
	if err := n.reach(from, to); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.nodes[to]
	if e == nil {
		return nil, errors.New("no node has this name")
	}
	return e, nil
}

func (n *Network) reach(from, to string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut[link{from, to}] {
		return fmt.Errorf("%q cannot reach %q: the link is cut", from, to)
	}
	return nil
}

// request takes a request to its peer, unless it is lost. loseAnswer says that
// its answer will be.
func (n *Network) request(ctx context.Context, from, to, kind string) (loseAnswer bool, err error) {
	l := link{from, to}
	n.mu.Lock()
	var lost bool
	if faults := n.next[l]; len(faults) > 0 {
		lost, loseAnswer = faults[0] == Lost, faults[0] == AnswerLost
		n.next[l] = faults[1:]
	}
	lost = lost || n.dropped[kind]
	n.mu.Unlock()
	if lost {
		return false, fmt.Errorf("the request to %q was lost", to)
	}
	return loseAnswer, n.travel(ctx, from, to)
}

// travel takes as long as the link's delay, and fails if the link is cut then.
func (n *Network) travel(ctx context.Context, from, to string) error {
	n.mu.Lock()
	d := n.delay[link{from, to}]
	n.mu.Unlock()
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return n.reach(from, to)
}
