package message

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/nonce"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/trace"
	"github.com/parley-node/parley/wire"
)

// Config is what a Service stands on.
type Config struct {
	Self      Self
	Namespace string // local name
	NetName   string // the namespace's name on the network

	DB       *store.DB
	Keys     keys.Keys
	Ledger   ledger.Ledger    // nil if there is no network: then Exchange is nil too
	Nonces   *nonce.Authority // of the ledger's accounts
	Exchange exchange.Exchange
	Blobs    blob.Store
	Network  *identity.Network

	// Definitions applies confirmed definitions; see the type.
	Definitions Definitions
	Retention   Retention
	// EventsCommitted is called after each transaction that appended events.
	EventsCommitted func()

	Trace *trace.Recorder // told of each step of a message; may be nil
	Log   *slog.Logger
	Now   func() time.Time // wall clock
	NewID func() wire.UUID
	// PinPage is how many pins one confirm step applies; 500 if zero.
	PinPage int
	// Jitter is a random duration from 0 up to d; math/rand if nil.
	Jitter func(d time.Duration) time.Duration
}

// Self is the organisation that runs this node.
type Self struct {
	Org      wire.OrgID
	Name     string
	Salt     wire.Hash
	Key      wire.Address // default signing key
	Node     wire.UUID
	NodeName string
}

// DID is the organisation's decentralised identifier.
func (s Self) DID() string { return identity.DID(identity.TypeOrg, s.Name) }

// Definitions applies a confirmed definition message inside the transaction
// that confirms it, and may reject it. The packages that own identities,
// datatypes, pools … send messages themselves; this struct, set once in
// node.New, is how the cycle is cut. Keyed by the message's tag.
type Definitions map[string]func(tx *store.Tx, d Definition) (Defined, error)

// Definition is a confirmed definition message.
type Definition struct {
	Org     wire.OrgID // author
	OrgName string
	Message *store.Message
	Body    []byte        // value of its only data item
	Pinned  wire.Position // what the verdict may ask the ledger about
	At      store.Time    // now, for rows; no verdict may depend on it
}

// Defined is what came of a definition: a reason to reject it, or the event
// that tells applications.
type Defined struct {
	Reject string
	Event  string    // event type, e.g. datatype_confirmed; none if empty
	Ref    wire.UUID // what it is about
}

// Service carries messages through this node. Its workers are started by the
// node; every method is safe for concurrent use.
type Service struct {
	Config
	schemas schemaCache
	speed   peerSpeed
	confirm *confirmer
	pulls   pulls
	held    holds
	keeping keeping

	wasRestored atomic.Bool  // there is a mark; see restored.go
	blobUse     sync.RWMutex // shared while a blob is stored and its row is not yet; see removeBlobs
	intake      intake
	recent      *recent
	room        room
	groups      sync.Map // store.Hex -> wire.Hash: groups that messages named; none ever goes away
	flushes     flushes

	// Signals wake the worker of that name. A worker also wakes on a timer, so
	// a lost signal costs time, never a message.
	Wake struct{ Batch, Submit, Confirm, Pull, Epoch, Retention Signal }

	epochMu    sync.Mutex
	changeSeen map[wire.Hash]time.Time // current epoch -> when its members were seen to have changed

	peersMu sync.Mutex
	peers   map[wire.OrgID]*Peer
	onPeer  func(*Peer) // starts the sender of a peer seen for the first time
}

// Signal wakes one worker. Several signals before it looks count as one.
type Signal chan struct{}

// Set wakes the worker, or notes that it has to look again.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// New prepares a service. onPeer is told once of each peer that something is to
// be sent to; it runs the peer's sender.
func New(c Config, onPeer func(*Peer)) *Service {
	if c.PinPage == 0 {
		c.PinPage = usualPinPage
	}
	if c.Jitter == nil {
		c.Jitter = func(d time.Duration) time.Duration { return rand.N(d + 1) }
	}
	s := &Service{Config: c, changeSeen: map[wire.Hash]time.Time{}, peers: map[wire.OrgID]*Peer{}, onPeer: onPeer}
	s.schemas.compiled = map[wire.Hash]*schema{}
	s.speed.seen = map[wire.OrgID]*speed{}
	s.confirm = &confirmer{s: s}
	s.recent = newRecent()
	s.intake.db, s.intake.recent = c.DB, s.recent
	s.held.ends = map[wire.Address]time.Time{}
	s.pulls.tries = map[wire.Entry]*pullTry{}
	for _, w := range []*Signal{&s.Wake.Batch, &s.Wake.Submit, &s.Wake.Confirm, &s.Wake.Pull, &s.Wake.Epoch, &s.Wake.Retention} {
		*w = make(Signal, 1)
	}
	return s
}

// now is the wall clock as stored.
func (s *Service) now() store.Time { return store.At(s.Now()) }

// Start resumes what an earlier run left unfinished: peers with parcels in the
// outbox get their senders back. All else is found by the workers' first step.
func (s *Service) Start(ctx context.Context) error {
	if err := s.keepPolicies(ctx); err != nil {
		return fmt.Errorf("keep the configured retention policies: %w", err)
	}
	return s.DB.Read(ctx, func(tx *store.Tx) error {
		mark, err := readRestored(tx)
		if err != nil {
			return err
		}
		s.wasRestored.Store(mark != nil)
		erased, err := tx.ErasedCount()
		if err != nil {
			return err
		}
		if len(erased) > 0 { // an earlier run may have ended before it had cleaned up
			s.keeping.scrubLater()
		}
		waiting, err := tx.OutboxByPeer()
		for _, w := range waiting {
			s.peer(w.Peer)
		}
		return err
	})
}

// peer is the sender of a peer, started if it is new.
func (s *Service) peer(org wire.OrgID) *Peer {
	s.peersMu.Lock()
	defer s.peersMu.Unlock()
	p := s.peers[org]
	if p == nil {
		p = &Peer{s: s, Org: org, Wake: make(Signal, 1), inFlight: map[int64]bool{}}
		s.peers[org] = p
		s.onPeer(p)
	}
	return p
}

// Peers are the peers that something was sent to so far, by id.
func (s *Service) Peers() []*Peer {
	s.peersMu.Lock()
	defer s.peersMu.Unlock()
	all := slices.Collect(maps.Values(s.peers))
	slices.SortFunc(all, func(a, b *Peer) int { return compareHash(a.Org, b.Org) })
	return all
}

// wakePeers wakes the senders of some peers.
func (s *Service) wakePeers(orgs []wire.OrgID) {
	for _, o := range orgs {
		s.peer(o).Wake.Set()
	}
}

// WakeAll wakes every worker and sender: another process of this node may have
// stored something for any of them.
func (s *Service) WakeAll() {
	for _, w := range []Signal{s.Wake.Batch, s.Wake.Submit, s.Wake.Confirm, s.Wake.Pull, s.Wake.Epoch} {
		w.Set()
	}
	s.wakeAllPeers()
}

func (s *Service) wakeAllPeers() {
	s.peersMu.Lock()
	defer s.peersMu.Unlock()
	for _, p := range s.peers {
		p.Wake.Set()
	}
}
