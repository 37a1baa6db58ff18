package message

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// How long a pin waits for receipts beyond those it needs. The others are
// likely to come at once; one that missed lately is not waited for.
const (
	shortestWait = 10 * time.Millisecond
	longestWait  = 2 * time.Second
	refusedWait  = 30 * time.Second // before an account whose pin was refused tries again
	voidWait     = 2 * time.Second  // before an account whose pin was void in the current epoch tries again
)

// needed is how many receipts certify an entry of an audience with v members
// besides its author.
func needed(v int) int { return v - v/2 }

// dueBatch is a batch whose pin may go out.
type dueBatch struct {
	row   store.BatchRow
	epoch *store.Epoch
	begun bool // the audience exists on the ledger
}

// dueBatches lists our batches that have the receipts they need, in the order
// they were sealed. An author's pins that share a context go out in seal order,
// so the first batch of an audience that has to wait holds back the later ones.
// wait is how long until the next one can go without further receipts.
func (s *Service) dueBatches(tx *store.Tx) (due []dueBatch, wait time.Duration, err error) {
	batches, err := tx.OwnBatches(store.BatchCollecting)
	if err != nil {
		return nil, 0, err
	}
	held := map[wire.Hash]bool{}
	epochs := map[wire.Hash]*store.Epoch{}
	for _, b := range batches {
		if held[b.Audience] {
			continue
		}
		e := epochs[b.Audience]
		if e == nil || e.Epoch != b.Epoch {
			if e, err = epochOf(tx, b.Audience, b.Epoch); err != nil {
				return nil, 0, err
			}
			if e == nil {
				return nil, 0, fmt.Errorf("batch %s is of epoch %d of audience %s, which is not stored", b.ID, b.Epoch, b.Audience.Short())
			}
			epochs[b.Audience] = e
		}
		receipts, err := tx.Receipts(b.Org, b.Root)
		if err != nil {
			return nil, 0, err
		}
		ready, in := s.readyToPin(e.Definition, receipts, b.Root)
		if !ready {
			held[b.Audience] = true
			if in > 0 && (wait == 0 || in < wait) {
				wait = in
			}
			continue
		}
		a, err := tx.AudienceByID(b.Audience)
		if err != nil {
			return nil, 0, err
		}
		due = append(due, dueBatch{b, e, a != nil && (a.Begun != nil || a.Kind == store.KindNetwork)})
	}
	return due, wait, nil
}

// readyToPin says whether a batch has enough receipts, and if it only waits for
// more than it needs, for how long at most.
func (s *Service) readyToPin(d wire.EpochDefinition, receipts []wire.Receipt, root wire.Hash) (ready bool, in time.Duration) {
	var missing []wire.OrgID
	have, v := 0, 0
	for _, m := range d.Members {
		if m == s.Self.Org || !s.Network.Active(m, endPosition) {
			continue
		}
		v++
		if slices.ContainsFunc(receipts, func(r wire.Receipt) bool { return r.Org == m }) {
			have++
		} else {
			missing = append(missing, m)
		}
	}
	if have < needed(v) {
		return false, 0
	}
	in = s.speed.worthWaiting(missing, root, s.Now())
	if in <= 0 {
		s.speed.forget(root)
	}
	return in <= 0, in
}

// peerSpeed remembers how fast peers answer, to decide whom to wait for.
type peerSpeed struct {
	mu      sync.Mutex
	seen    map[wire.OrgID]*speed
	started map[wire.Hash]time.Time // when a batch had what it needs
}

type speed struct {
	mean, spread time.Duration // moving average, and of the distance from it
	late         bool          // missed once; not waited for until it answers again
}

func (p *peerSpeed) answered(org wire.OrgID, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.seen[org]
	if v == nil {
		v = &speed{mean: took, spread: took / 2}
		p.seen[org] = v
	}
	off := (took - v.mean).Abs()
	v.mean += (took - v.mean) / 8
	v.spread += (off - v.spread) / 8
	v.late = took > longestWait
}

func (p *peerSpeed) missed(org wire.OrgID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen[org] == nil {
		p.seen[org] = &speed{}
	}
	p.seen[org].late = true
}

// worthWaiting is how long to wait on for the missing peers; zero or less if
// not at all. About the 95th percentile of an answer is mean + 2 spreads.
func (p *peerSpeed) worthWaiting(missing []wire.OrgID, root wire.Hash, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var longest time.Duration
	for _, m := range missing {
		v := p.seen[m]
		if v == nil || v.late {
			continue // never answered, or not in time
		}
		longest = max(longest, min(max(2*(v.mean+2*v.spread), shortestWait), longestWait))
	}
	if longest == 0 {
		return 0
	}
	if p.started == nil {
		p.started = map[wire.Hash]time.Time{}
	}
	since, ok := p.started[root]
	if !ok {
		since = now
		p.started[root] = now
	}
	left := longest - now.Sub(since)
	if left <= 0 {
		for _, m := range missing {
			if v := p.seen[m]; v != nil {
				v.late = true
			}
		}
	}
	return left
}

func (p *peerSpeed) forget(root wire.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.started, root)
}

// pinOf makes the pin of a batch: number n of the key in the epoch, and the
// handles of exactly the contexts that its messages touch, ascending.
func (s *Service) pinOf(tx *store.Tx, b dueBatch, key wire.Address, n uint64) (wire.Pin, error) {
	topics, ok := s.recent.topics(wire.Entry{Author: b.row.Org, Root: b.row.Root})
	if !ok {
		messages, err := tx.MessagesOfBatch(b.row.Root, b.row.Org)
		if err != nil {
			return wire.Pin{}, err
		}
		topics = topicsOf(messages)
	}
	keys := b.epoch.Secret.Keys()
	contexts := contextsOf(topics, keys.Context)
	p := wire.Pin{Root: b.row.Root, Tag: keys.PinTag(key, n)}
	for i, c := range contexts {
		p.Handles = append(p.Handles, keys.MaskHandle(key, n, b.row.Root, i, c))
	}
	var err error
	if !b.begun {
		id := b.row.Audience
		p.Control, err = keys.SealControl(wire.Control{Create: &id}, key, n, p.Root, p.Handles)
	}
	return p, err
}

// topicsOf are the distinct topics of some messages, as they come.
func topicsOf(messages []*store.Message) (topics []string) {
	seen := map[string]bool{}
	for _, m := range messages {
		for _, t := range m.Header.Topics {
			if !seen[t] {
				seen[t] = true
				topics = append(topics, t)
			}
		}
	}
	return topics
}

// contextsOf are the distinct contexts of some topics, ascending.
func contextsOf(topics []string, context func(topic string) wire.ContextID) []wire.ContextID {
	var cs []wire.ContextID
	for _, t := range topics {
		cs = append(cs, context(t))
	}
	slices.SortFunc(cs, func(a, b wire.ContextID) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(cs)
}

// passOnCertificate puts the certificate of a pinned batch into the outbox of
// each member that does not have it in its own receipt already.
func (s *Service) passOnCertificate(tx *store.Tx, b dueBatch, at store.Time) error {
	peers := s.others(b.epoch.Definition.Members)
	if needed(len(peers)) <= 1 {
		receipts, err := tx.Receipts(b.row.Org, b.row.Root)
		if err != nil {
			return err
		}
		peers = slices.DeleteFunc(peers, func(p wire.OrgID) bool {
			return slices.ContainsFunc(receipts, func(r wire.Receipt) bool { return r.Org == p })
		})
	}
	for _, p := range peers {
		if err := tx.AddParcels(store.Parcel{Peer: p, Kind: kindCertificate, Root: b.row.Root, Org: b.row.Org, Since: at}); err != nil {
			return err
		}
	}
	return nil
}

// control seals a control-only pin.
func (s *Service) controlPin(e *store.Epoch, c wire.Control, key wire.Address, n uint64) (wire.Pin, error) {
	keys := e.Secret.Keys()
	p := wire.Pin{Tag: keys.PinTag(key, n)}
	var err error
	p.Control, err = keys.SealControl(c, key, n, wire.Hash{}, nil)
	return p, err
}

// Purposes of a submission.
const (
	purposePin     = "pin"
	purposeControl = "control"
	purposeCall    = "call" // any other call to the network contract
)

// Call has a call to the network contract signed by the organisation's key and
// sent; it returns the submission's id. Its outcome is in Submission.
func (s *Service) Call(ctx context.Context, c ledger.Call) (id int64, err error) {
	body, err := ledger.EncodeCall(c)
	if err != nil {
		return 0, err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		row := &store.Submission{Account: s.Self.Key, Purpose: purposeCall, Call: body, State: store.SubmissionQueued, Created: s.now()}
		err := tx.InsertSubmission(row)
		id = row.ID
		return err
	})
	s.Wake.Submit.Set()
	return id, err
}
