package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/contract"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/nonce"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/trace"
	"github.com/parley-node/parley/wire"
)

// Parts are what a node is made of.
type Parts struct {
	Self        message.Self
	Namespace   string // "default" if empty
	NetworkName string // of the namespace, in what members send each other; Namespace if empty

	ChainID  uint64
	Contract wire.Address

	DB       *store.DB
	Keys     keys.Keys
	Ledger   ledger.Ledger     // nil in a namespace without a network
	Exchange exchange.Exchange // the same
	Blobs    blob.Store

	// Gateway is the chain for contracts; nil if none are called.
	Gateway *Gateway

	// Profile is what the node registers of itself on the ledger.
	Profile ledger.NodeProfile
	// Founding is the network's first epoch at the member that founded it; the
	// others are invited to it.
	Founding *Founding

	// Retention is how long data is kept, and who may ask to erase it.
	Retention message.Retention

	// Outbound is what the node's own deliveries of events may use; Source and
	// Reply are set by New.
	Outbound event.OutboundConfig

	Trace  *trace.Recorder // told of each step of a message; may be nil
	Log    *slog.Logger
	Now    func() time.Time                    // time.Now if nil
	NewID  func() wire.UUID                    // version 7 if nil
	Jitter func(d time.Duration) time.Duration // see message.Config
	// PinPage is how many pins one confirm step applies; see message.Config.
	PinPage int
}

// Founding is the definition and secret of a network's first epoch.
type Founding struct {
	Definition wire.EpochDefinition
	Secret     wire.EpochSecret
}

// Node is one member's node.
type Node struct {
	Messages      *message.Service
	Network       *identity.Network
	Events        *event.Log
	Subscriptions *event.Subscriptions
	Deliveries    *event.Outbound
	Nonces        *nonce.Authority // of the ledger's accounts
	Contracts     *contract.Service

	Parts
	register registrar
	feed     feedState
	senders  struct {
		sync.Mutex
		ctx  context.Context // of Run; nil before
		wait sync.WaitGroup
		idle []*message.Peer // seen before Run
	}
}

// New wires a node from its parts and reads what its database knows of the
// network. It starts nothing.
func New(ctx context.Context, p Parts) (*Node, error) {
	if p.Namespace == "" {
		p.Namespace = "default"
	}
	if p.NetworkName == "" {
		p.NetworkName = p.Namespace
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.NewID == nil {
		p.NewID = func() wire.UUID { return uuid.Must(uuid.NewV7()) }
	}
	n := &Node{Parts: p, Network: identity.NewNetwork(p.ChainID, p.Contract)}
	n.Events = event.NewLog(p.DB, p.Namespace)
	n.Subscriptions = event.NewSubscriptions(n.Events, p.Log)
	n.Outbound.Source, n.Outbound.Reply = n.source(), n.reply
	var err error
	if n.Deliveries, err = event.NewOutbound(n.Subscriptions, n.Outbound); err != nil {
		return nil, err
	}
	n.Nonces = nonce.New(nonce.Config{DB: p.DB, Chain: func(context.Context) (uint64, error) { return p.ChainID, nil }, Network: true, Count: func(ctx context.Context, account wire.Address) (uint64, error) {
		s, err := p.Ledger.State(ctx, &account)
		return s.Nonce, err
	}})
	n.register.n, n.register.signal = n, make(message.Signal, 1)
	definitions := message.Definitions{}
	n.Messages = message.New(message.Config{
		Self: p.Self, Namespace: p.Namespace, NetName: p.NetworkName,
		DB: p.DB, Keys: p.Keys, Ledger: p.Ledger, Nonces: n.Nonces, Exchange: p.Exchange, Blobs: p.Blobs, Network: n.Network,
		Definitions: definitions, Retention: p.Retention, EventsCommitted: func() { n.Events.Committed(); n.register.confirmed() },
		Trace: p.Trace, Log: p.Log, Now: p.Now, NewID: p.NewID, Jitter: p.Jitter, PinPage: p.PinPage,
	}, n.startSender)
	n.Contracts = n.newContracts()
	// The one cycle of the packages, cut in the open: a confirmed definition
	// changes datatypes and identities, whose packages send messages.
	definitions[message.TagDatatype] = n.Messages.ApplyDatatype
	definitions[identity.TagClaim] = n.applyClaim
	definitions[identity.TagUpdate] = n.applyUpdate
	definitions[contract.TagInterface] = n.Contracts.ApplyInterface
	definitions[contract.TagAPI] = n.Contracts.ApplyAPI
	if err := p.DB.Read(ctx, n.Network.Load); err != nil {
		return nil, fmt.Errorf("load the network's members: %w", err)
	}
	if p.Founding != nil {
		if err := n.Messages.Found(ctx, p.Founding.Definition, p.Founding.Secret); err != nil {
			return nil, fmt.Errorf("keep the network's first epoch: %w", err)
		}
	}
	return n, nil
}

func (n *Node) applyClaim(tx *store.Tx, d message.Definition) (message.Defined, error) {
	var c identity.Claim
	if err := json.Unmarshal(d.Body, &c); err != nil {
		return message.Defined{Reject: fmt.Sprintf("identity claim: %v", err)}, nil
	}
	if n.Ledger == nil {
		id, reject, err := identity.ApplyEntry(tx, n.Namespace, c, d.At)
		if err != nil || reject != "" {
			return message.Defined{Reject: reject}, err
		}
		return message.Defined{Event: "identity_confirmed", Ref: id.ID}, nil
	}
	id, reject, err := n.Network.ApplyClaim(tx, n.Namespace, d.Org, d.OrgName, c, d.Message.Header.ID, d.Pinned, d.At)
	if err != nil || reject != "" {
		return message.Defined{Reject: reject}, err
	}
	if id == nil {
		return message.Defined{}, nil // repeated for who joined later
	}
	return message.Defined{Event: "identity_confirmed", Ref: id.ID}, nil
}

func (n *Node) applyUpdate(tx *store.Tx, d message.Definition) (message.Defined, error) {
	var u identity.Update
	if err := json.Unmarshal(d.Body, &u); err != nil {
		return message.Defined{Reject: fmt.Sprintf("identity update: %v", err)}, nil
	}
	id, reject, err := identity.ApplyUpdate(tx, n.Namespace, d.Org, u, d.MessageID(), d.At)
	if err != nil || reject != "" {
		return message.Defined{Reject: reject}, err
	}
	return message.Defined{Event: "identity_updated", Ref: id.ID}, nil
}

// Intervals at which the workers look again without being woken.
const (
	idleLook  = 2 * time.Second
	firstWait = 100 * time.Millisecond // after a worker failed; doubles up to lastWait
	lastWait  = 5 * time.Second
)

// Run runs the node until ctx ends, then waits for its workers. Everything that
// an earlier run left unfinished is taken up by the same workers.
func (n *Node) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	n.senders.Lock()
	n.senders.ctx = ctx
	idle := n.senders.idle
	n.senders.Unlock()
	for _, p := range idle {
		n.startSender(p)
	}
	if err := n.Messages.Start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop before it had begun
		}
		return err
	}
	var workers sync.WaitGroup
	for _, w := range n.Workers() {
		workers.Add(1)
		go func() { defer workers.Done(); n.work(ctx, w) }()
	}
	workers.Add(1)
	go func() { defer workers.Done(); n.announce(ctx) }()
	if n.Ledger != nil {
		workers.Add(2)
		go func() { defer workers.Done(); n.follow(ctx) }()
		go func() { defer workers.Done(); n.serve(ctx) }()
	}
	delivered := make(chan error, 1)
	go func() { delivered <- n.Deliveries.Run(ctx) }()
	<-ctx.Done()
	workers.Wait()
	n.Messages.WaitPulls()
	n.senders.wait.Wait()
	return errors.Join(<-delivered, n.Subscriptions.Close(context.WithoutCancel(ctx)))
}

// Worker is one of the loops that carry messages on. Step does what is due; next
// is when to look again if Wake does not come before, zero for the usual time.
type Worker struct {
	Name string
	Wake message.Signal
	Step func(context.Context) (next time.Duration, err error)
}

// Workers are the node's loops, for who calls their steps: Run, or the
// simulation. Ask once: they remember what they gave out.
func (n *Node) Workers() []Worker {
	if n.Ledger == nil {
		return n.gatewayWorkers()
	}
	m := n.Messages
	return append([]Worker{
		{"batch", m.Wake.Batch, plain(m.BatchStep)},
		{"submit", m.Wake.Submit, m.NewSubmitter().Step},
		{"confirm", m.Wake.Confirm, plain(m.ConfirmStep)},
		{"pull", m.Wake.Pull, plain(m.PullStep)},
		{"epoch", m.Wake.Epoch, plain(m.EpochStep)},
		{"retention", m.Wake.Retention, plain(m.RetentionStep)},
		{"register", n.register.signal, plain(n.register.Step)},
	}, n.gatewayWorkers()...)
}

// plain adapts a step that only says whether there is more to do at once.
func plain(step func(context.Context) (bool, error)) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		for ctx.Err() == nil {
			more, err := step(ctx)
			if err != nil || !more {
				return 0, err
			}
		}
		return 0, ctx.Err()
	}
}

// work calls a step when it is woken, when the time it asked for has come, and
// now and then. A step that fails is tried again with growing pauses.
func (n *Node) work(ctx context.Context, w Worker) {
	failures := 0
	for ctx.Err() == nil {
		next, err := w.Step(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			next = min(firstWait<<min(failures, 10), lastWait)
			failures++
			n.Log.Error("a worker failed; it tries again", "worker", w.Name, "in", next, "err", err)
		default:
			failures = 0
			if next <= 0 {
				next = idleLook
			}
		}
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-w.Wake:
		}
		t.Stop()
	}
}

// startSender runs the sender of one peer. Before Run it only notes it.
func (n *Node) startSender(p *message.Peer) {
	n.senders.Lock()
	ctx := n.senders.ctx
	if ctx == nil {
		n.senders.idle = append(n.senders.idle, p)
		n.senders.Unlock()
		return
	}
	n.senders.wait.Add(1)
	n.senders.Unlock()
	go func() {
		defer n.senders.wait.Done()
		n.work(ctx, Worker{"send", p.Wake, func(ctx context.Context) (time.Duration, error) {
			_, err := p.Step(ctx)
			if next := p.Next(); !next.IsZero() {
				return max(next.Sub(n.Now()), time.Millisecond), err
			}
			return 0, err
		}})
		p.Wait()
	}()
}

// serve answers peers. Who presents a certificate that the ledger registers for
// an active member is that member; nobody else gets in.
func (n *Node) serve(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		err := n.Exchange.Serve(ctx, n.Network.OrgByCertificate, n.Messages)
		if ctx.Err() != nil {
			return
		}
		wait := min(firstWait<<min(failures, 10), lastWait)
		n.Log.Error("peers cannot reach this node; it tries to listen again", "in", wait, "err", err)
		pause(ctx, wait)
	}
}

// feedState is how the ledger feed goes, for status.
type feedState struct {
	sync.Mutex
	broken error     // the ledger broke its promise; the feed has stopped
	failed error     // last failure
	since  time.Time // of the failure
}

// follow reads the ledger. A feed that the ledger broke stays stopped, visibly:
// to go on would mean to diverge from the other members.
func (n *Node) follow(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		next, err := n.Messages.FeedFrom(ctx)
		if err == nil {
			err = n.Ledger.Follow(ctx, next, func(ctx context.Context, a ledger.Advance) error {
				failures = 0
				n.feed.note(nil, nil, time.Time{})
				if err := n.Messages.Record(ctx, a); err != nil {
					return err
				}
				if len(a.Records) > 0 {
					n.register.signal.Set()
				}
				return nil
			})
		}
		if ctx.Err() != nil {
			return
		}
		if n.Messages.FeedBroken(ctx, err) {
			n.feed.note(err, err, n.Now())
			<-ctx.Done()
			return
		}
		wait := min(firstWait<<min(failures, 10), lastWait)
		n.feed.note(nil, err, n.Now())
		n.Log.Warn("the ledger cannot be followed; it is tried again", "in", wait, "err", err)
		pause(ctx, wait)
	}
}

func (f *feedState) note(broken, failed error, at time.Time) {
	f.Lock()
	defer f.Unlock()
	f.broken, f.failed, f.since = broken, failed, at
}

// FeedError is why the ledger is not being followed at present; nil if it is.
func (n *Node) FeedError() (err error, broken bool) {
	n.feed.Lock()
	defer n.feed.Unlock()
	return n.feed.failed, n.feed.broken != nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
