package simulation

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/parley-node/parley/internal/blob/disk"
	"github.com/parley-node/parley/internal/keys/file"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/sim"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/node"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
	"github.com/parley-node/parley/wire"
)

// member is one organisation, whether its node runs or not.
type member struct {
	w        *world
	name     string
	index    int
	org      wire.OrgID
	self     message.Self
	keys     *file.Keys
	cert     wire.Hash
	path     string // of its database
	founding *node.Founding
	link     *sim.Ledger // its connection to the ledger

	proc    *process // nil while it is down
	skew    time.Duration
	founder bool
	belongs bool // is or is to be a member; false before admission is asked for, and after removal
	away    bool // suspended, or was: it is not held to the whole order
	liar    bool
	lies    lies
	voted   map[uint64]bool // proposals that it was made to vote on
	next    wire.Address    // key that is being added
	old     wire.Address    // key that is to be revoked

	cursor int64                    // last event seen
	at     map[contextKey]int       // place in each context's order
	since  map[contextKey][]verdict // of one that is not held to the whole order
}

func (w *world) newMember(name string, index int) *member {
	ks, err := file.Create(w.path(name, "keys"), file.Options{})
	w.must(err)
	addresses, err := ks.Addresses(background)
	w.must(err)
	salt := wire.Hash(sha256.Sum256([]byte("salt of " + name)))
	m := &member{
		w: w, name: name, index: index, keys: ks, org: wire.OrgIDOf(name, salt), cert: sha256.Sum256([]byte("certificate of " + name)),
		at: map[contextKey]int{}, since: map[contextKey][]verdict{},
	}
	m.self = message.Self{Org: m.org, Name: name, Salt: salt, Key: addresses[0], Node: uuid.Must(uuid.NewRandom()), NodeName: name + "-node"}
	if w.opt.Postgres {
		m.path = storetest.Path(w.t)
	} else {
		m.path = w.path(name, "parley.db")
		empty, err := os.ReadFile(storetest.File(w.t))
		w.must(err)
		w.must(os.WriteFile(m.path, empty, 0o600))
	}
	return m
}

// open opens the member's database.
func (m *member) open() (*store.DB, error) {
	return store.Open(background, store.Options{Path: m.path, Readers: 1, Log: m.w.story.logger(m.name)})
}

// blobs opens the member's attachments. Nothing is synced: see process.
func (m *member) blobs() (*disk.Store, error) {
	return disk.Open(m.w.path(m.name, "blobs"), disk.Options{NoSync: true})
}

// start starts the member's node on what its folder holds.
func (m *member) start() {
	w := m.w
	p := &process{w: w, m: m}
	m.proc = p
	ctx, cancel := context.WithCancel(background)
	p.cancel = cancel
	var err error
	disks.watch(m.path, p)
	p.db, err = m.open()
	w.must(err)
	blobs, err := m.blobs()
	w.must(err)
	connection := w.net.Connect(m.name, m.cert)
	p.node, err = node.New(ctx, node.Parts{
		Self: m.self, ChainID: chainID, Contract: contract, DB: p.db, Blobs: blobs, Founding: m.founding,
		Keys: signer{m.keys, p}, Ledger: chainLink{m.link, p}, Exchange: peerLink{connection, p},
		Profile: ledger.NodeProfile{CertHash: m.cert, SealKey: m.keys.SealKey(), Endpoints: []string{m.name}},
		Log:     w.story.logger(m.name),
		Now:     func() time.Time { return w.now.Add(m.skew) },
		PinPage: w.profile.pinPage,
		NewID:   func() wire.UUID { return uuid.Must(uuid.NewRandom()) },
		Jitter:  func(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d) + 1)) },
	})
	if p.dead { // at one of the first commits
		m.bury()
		return
	}
	w.must(err)
	p.workers = p.node.Workers()
	w.must(p.node.Messages.Start(ctx))
	m.resumes()
	p.ctx = ctx
	p.silence, err = connection.Start(ctx, p.node.Network.OrgByCertificate, handler{p})
	w.must(err)
	w.tell(m.name, "starts")
}

// resumes checks that whoever waits for parcels of an earlier run has a sender.
func (m *member) resumes() {
	var waiting []store.OutboxSummary
	m.read(func(tx *store.Tx) (err error) { waiting, err = tx.OutboxByPeer(); return err })
	for _, o := range waiting {
		if !slices.ContainsFunc(m.proc.node.Messages.Peers(), func(p *message.Peer) bool { return p.Org == o.Peer }) {
			m.w.fail("%s starts, and nobody sends the %d parcels for %s", m.name, o.Waiting, o.Peer.Short())
		}
	}
}

// stop ends the node in good order.
func (m *member) stop() {
	m.w.tell(m.name, "stops")
	m.proc.close()
	m.proc = nil
}

// bury closes what a crash left of the process.
func (m *member) bury() {
	m.proc.close()
	m.proc = nil
}

// read asks the member's database, also of a member that is down.
func (m *member) read(f func(tx *store.Tx) error) {
	w := m.w
	w.t.Helper()
	if m.proc != nil {
		w.must(m.proc.db.Read(background, f))
		return
	}
	db, err := m.open()
	w.must(err)
	w.must(db.Read(background, f))
	w.must(db.Close())
}

// step calls one step of a worker. What the pull worker does side by side
// happens in a row here.
func (m *member) step(worker node.Worker) {
	if worker.Name == "pull" {
		m.pull()
		return
	}
	if _, err := worker.Step(m.proc.ctx); err != nil {
		m.w.tell(m.name, "%s fails: %v", worker.Name, err)
	}
}

func (m *member) pull() {
	missing, err := m.proc.node.Messages.Missing(m.proc.ctx)
	if err != nil {
		m.w.tell(m.name, "cannot tell what is missing: %v", err)
	}
	for _, p := range missing {
		if p.Begin() {
			p.Fetch(m.proc.ctx)
		}
	}
}

// feed reads the next page of the ledger, if there is one.
func (m *member) feed() bool {
	p := m.proc
	next, err := p.node.Messages.FeedFrom(p.ctx)
	m.w.must(err)
	advance, ok, err := m.link.Poll(next, p.had)
	if err != nil {
		m.w.fail("%s: the ledger feed broke: %v", m.name, err)
	}
	if !ok {
		return false
	}
	if err := p.node.Messages.Record(p.ctx, advance); err != nil {
		m.w.tell(m.name, "cannot store the ledger's block %d: %v", advance.Final.Number, err)
		return true
	}
	if n := len(advance.Records); n > 0 {
		m.w.progress++
		m.w.tell(m.name, "reads %d records of the ledger, up to %d", n, advance.Records[n-1].Number)
	}
	p.had = &advance.Final
	return true
}

// due lists what the member may send to a peer now.
func (m *member) due(peer *message.Peer) []store.Parcel {
	parcels, err := peer.Due(m.proc.ctx)
	m.w.must(err)
	return parcels
}

// deliver sends one parcel.
func (m *member) deliver(peer *message.Peer, parcel store.Parcel) {
	to := "a stranger"
	if o := m.w.find(peer.Org); o != nil {
		to = o.name
	}
	m.w.progress++
	m.w.tell(m.name, "sends the %s of %s to %s", parcel.Kind, parcel.Root.Short(), to)
	peer.Deliver(m.proc.ctx, parcel)
}

func (m *member) String() string {
	return fmt.Sprintf("%s (%s)", m.name, m.org.Short())
}
