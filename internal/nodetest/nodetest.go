// Package nodetest runs whole nodes of one network in one process: real
// SQLite, real keys, the simulated ledger, and the in-memory exchange, both with
// faults on demand. It works inside a testing/synctest bubble.
package nodetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/parley-node/parley/internal/blob/disk"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/keys/file"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/sim"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/node"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
	"github.com/parley-node/parley/wire"
)

// Names of the members of a network, in order.
var Names = []string{"hospital", "insurer-a", "insurer-b", "regulator", "bank", "shipper", "customs", "auditor"}

const (
	chainID = 2021
)

var contract = wire.Address{0xc0, 0xde}

// Net is a network of members in one process.
type Net struct {
	Chain    *sim.Chain
	Exchange *local.Network
	Members  []*Member
	t        testing.TB
	retain   message.Retention
	log      *slog.Logger
	observer *sim.Ledger // sees the chain whatever becomes of the members' connections
}

// Member is one organisation with its node.
type Member struct {
	*node.Node // nil while it is down
	Name       string
	Org        wire.OrgID
	Key        wire.Address
	Ledger     *sim.Ledger
	Path       string // of the database

	net      *Net
	self     message.Self
	keys     *file.Keys
	dir      string
	cert     wire.Hash
	founding *node.Founding
	stop     context.CancelFunc
	done     chan error
	dead     atomic.Bool // from its death to its next start: what it acknowledges does not count
	image    string      // what the disk held when it died
	hook     atomic.Pointer[func(string) error]
}

// Options change how a network is made.
type Options struct {
	Members   int
	Params    ledger.Params // ledger.DefaultParams if zero
	Block     time.Duration // interval of blocks; 0 makes one per transaction
	Tick      time.Duration // empty blocks on an idle chain; 0 for none
	Admit     int           // members that are not founders: they have folders and keys, and are not on the ledger
	Verbose   bool          // log to the test
	Retention message.Retention
	NoCheck   bool // the test ends in a state that is not to be checked
}

// Network founds a network of n members and waits until all know each other.
func Network(t testing.TB, n int) *Net {
	net := New(t, Options{Members: n})
	net.Ready()
	return net
}

// New founds a network and starts its nodes.
func New(t testing.TB, o Options) *Net {
	if o.Params == (ledger.Params{}) {
		o.Params = ledger.DefaultParams
	}
	log := slog.New(slog.DiscardHandler)
	if o.Verbose {
		log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	net := &Net{t: t, log: log, retain: o.Retention, Exchange: local.NewNetwork(log)}
	var founders []ledger.MemberAdmitted
	var orgs []wire.OrgID
	for i := range o.Members + o.Admit {
		m := net.member(Names[i])
		net.Members = append(net.Members, m)
		if i < o.Members {
			founders = append(founders, ledger.MemberAdmitted{Org: m.Org, Key: m.Key})
			orgs = append(orgs, m.Org)
		}
	}
	founding, err := node.Found(wire.NetworkID(chainID, contract), net.Members[0].Org, orgs, time.Now())
	must(t, err)
	net.Members[0].founding = founding
	hash, err := founding.Definition.Hash()
	must(t, err)
	net.Chain, err = sim.NewChain(sim.Config{ChainID: chainID, Contract: contract, Founders: founders, Params: o.Params, Epoch1: hash, BlockInterval: o.Block, Tick: o.Tick})
	must(t, err)
	for _, m := range net.Members {
		m.Ledger = net.Chain.Connect(m.keys)
	}
	net.observer = net.Chain.Connect(net.Members[0].keys)
	t.Cleanup(func() {
		if !o.NoCheck && !t.Failed() {
			net.Check()
		}
		for _, m := range net.Members {
			m.Stop()
		}
		net.Chain.Close()
	})
	for _, m := range net.Members[:o.Members] {
		m.Start()
	}
	return net
}

func (net *Net) member(name string) *Member {
	dir := net.t.TempDir()
	ks, err := file.OpenOrCreate(filepath.Join(dir, "keys"), file.Options{})
	must(net.t, err)
	addresses, err := ks.Addresses(context.Background())
	must(net.t, err)
	salt := wire.Hash(sha256.Sum256([]byte("salt of " + name)))
	m := &Member{Name: name, net: net, keys: ks, dir: dir, Key: addresses[0], Org: wire.OrgIDOf(name, salt), cert: sha256.Sum256([]byte("certificate of " + name))}
	m.self = message.Self{Org: m.Org, Name: name, Salt: salt, Key: m.Key, Node: uuid.Must(uuid.NewV7()), NodeName: name + "-node"}
	m.Path = storetest.Path(net.t)
	return m
}

// Start starts the member's node on what its folder holds.
func (m *Member) Start() {
	t := m.net.t
	t.Helper()
	m.dead.Store(false)
	ctx, stop := context.WithCancel(context.Background())
	db, err := store.Open(ctx, store.Options{Path: m.Path, Log: m.net.log})
	must(t, err)
	n, err := node.New(ctx, node.Parts{
		Self: m.self, ChainID: chainID, Contract: contract, DB: db, Keys: m.keys, Ledger: tap{m.Ledger, m},
		Exchange: m.net.Exchange.Connect(m.Name, m.cert), Blobs: m.blobs(), Founding: m.founding,
		Profile:   ledger.NodeProfile{CertHash: m.cert, SealKey: m.keys.SealKey(), Endpoints: []string{m.Name}},
		Retention: m.net.retain,
		// The receivers of tests listen on this machine.
		Outbound: event.OutboundConfig{Allow: []string{"127.0.0.0/8", "::1"}},
		Log:      m.net.log.With("org", m.Name),
	})
	must(t, err)
	m.Node, m.stop, m.done = n, stop, make(chan error, 1)
	go func() { m.done <- n.Run(ctx) }()
}

// blobs opens the member's attachments.
func (m *Member) blobs() *disk.Store {
	b, err := disk.Open(filepath.Join(m.dir, "blobs"), disk.Options{NoSync: true})
	must(m.net.t, err)
	return b
}

// Stop stops the member's node, if it runs, and closes its database.
func (m *Member) Stop() {
	if m.Node == nil {
		return
	}
	m.stop()
	must(m.net.t, <-m.done)
	must(m.net.t, m.DB.Close())
	m.Node = nil
}

// Ready waits until every running member knows every other by name and node.
func (net *Net) Ready() {
	net.t.Helper()
	for _, m := range net.Members {
		if m.Node == nil {
			continue
		}
		m.Until("all members are known by name", func(tx *store.Tx) (bool, error) {
			for _, o := range net.Members {
				if o.Node == nil {
					continue
				}
				for _, find := range []func(*store.Tx, string, wire.OrgID) (*store.Identity, error){identity.OrgIdentity, identity.NodeIdentity} {
					if id, err := find(tx, m.Namespace, o.Org); err != nil || id == nil {
						return false, err
					}
				}
			}
			return true, nil
		})
	}
}

// patience is how long a test waits for what must happen. In a bubble it is
// virtual.
const patience = 60 * time.Second

// Until waits until a question to the member's database is answered with yes.
// It asks again after each event of the member, and now and then.
func (m *Member) Until(what string, ask func(*store.Tx) (bool, error)) {
	t := m.net.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		last, err := m.Events.Last(ctx)
		must(t, err)
		var yes bool
		must(t, m.DB.Read(ctx, func(tx *store.Tx) (err error) { yes, err = ask(tx); return err }))
		if yes {
			return
		}
		// A step of the database without an event is found by the shorter wait.
		wait, done := context.WithTimeout(ctx, 100*time.Millisecond)
		err = m.Events.Next(wait, last)
		done()
		if ctx.Err() != nil {
			t.Fatalf("%s: waited %s in vain until %s", m.Name, patience, what)
		}
		_ = err // woken or not, the question is asked again
	}
}

// Broadcast sends a value to the network on some topics.
func (m *Member) Broadcast(value string, topics ...string) *store.Message {
	m.net.t.Helper()
	msg, err := m.Messages.Broadcast(context.Background(), input(value, topics...))
	must(m.net.t, err)
	return msg
}

func input(value string, topics ...string) message.Input {
	return message.Input{Header: message.Header{Topics: topics}, Data: []message.DataInput{{Value: []byte(value)}}}
}

// Private sends a value to some members on some topics.
func (m *Member) Private(value string, to []*Member, topics ...string) *store.Message {
	m.net.t.Helper()
	return m.private(value, to, message.Header{Topics: topics})
}

// Unpinned is Private without a ledger record.
func (m *Member) Unpinned(value string, to []*Member, topics ...string) *store.Message {
	m.net.t.Helper()
	return m.private(value, to, message.Header{Topics: topics, TxType: message.TxUnpinned})
}

func (m *Member) private(value string, to []*Member, h message.Header) *store.Message {
	m.net.t.Helper()
	var g message.GroupInput
	for _, o := range to {
		g.Members = append(g.Members, message.MemberInput{Identity: o.Name})
	}
	msg, err := m.Messages.Private(context.Background(), message.Input{Header: h, Group: &g, Data: []message.DataInput{{Value: []byte(value)}}})
	must(m.net.t, err)
	return msg
}

// Confirmed waits until a message is confirmed at the member.
func (m *Member) Confirmed(id wire.UUID) *store.Message {
	m.net.t.Helper()
	var msg *store.Message
	m.Until(fmt.Sprintf("message %s is confirmed", id), func(tx *store.Tx) (bool, error) {
		var err error
		msg, err = store.Optional(tx.MessageByID(m.Namespace, id))
		if err == nil && msg != nil && msg.State == message.StateRejected {
			m.net.t.Fatalf("%s: message %s was rejected: %s", m.Name, id, msg.RejectReason)
		}
		return msg != nil && msg.State == message.StateConfirmed, err
	})
	return msg
}

// Order lists the ids of the messages confirmed or rejected on a topic, in the
// order of the member's event log.
func (m *Member) Order(topic string) []wire.UUID {
	m.net.t.Helper()
	var ids []wire.UUID
	after := int64(0)
	for {
		events, err := m.Events.After(context.Background(), after, 500)
		must(m.net.t, err)
		if len(events) == 0 {
			return ids
		}
		for _, e := range events {
			after = e.Sequence
			if e.Topic == topic && (e.Type == "message_confirmed" || e.Type == "message_rejected") {
				ids = append(ids, *e.Reference)
			}
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// peer is how others reach the member.
func (m *Member) peer() exchange.Peer {
	return exchange.Peer{Org: m.Org, CertHash: m.cert, Endpoints: []string{m.Name}}
}

// ID is the network's id, which is also the id of its audience.
func (net *Net) ID() wire.Hash { return wire.NetworkID(chainID, contract) }

// toGroup is a message for a group that is known by its id.
func toGroup(value string, group wire.Hash, topics ...string) message.Input {
	in := input(value, topics...)
	in.Header.Group = store.Hex(group.String())
	return in
}
