package message

import (
	"context"
	"fmt"
	"slices"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/order"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Blocker is an entry that keeps a context from going on: what it lacks, who
// owes it, since when, and what to do.
type Blocker struct {
	Record  uint64      `json:"record,omitempty"` // number of the pin on the ledger; none while the batch waits to be pinned
	Author  string      `json:"author"`           // DID, or the organisation's id
	Root    wire.Hash   `json:"root"`
	Missing string      `json:"missing"`
	Owes    []string    `json:"owes"`
	Since   store.Time  `json:"since"`
	Remedy  string      `json:"remedy"`
	Votes   int         `json:"votes"`
	Needed  int         `json:"needed"` // votes that skip it
	SkipDue *store.Time `json:"skipDue,omitempty"`
}

// BlockedContexts is how many topics of all audiences have something in them
// that has no verdict yet.
func (s *Service) BlockedContexts() (n int) {
	c := s.confirm
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.machines {
		n += m.Occupied()
	}
	return n
}

// Blockers says what a topic of an audience waits for; empty if nothing does.
// audience is the network's id or a group's.
func (s *Service) Blockers(ctx context.Context, audience wire.Hash, topic string) ([]Blocker, error) {
	c := s.confirm
	standby := s.DB.Shared() && s.DB.Term() == 0
	if standby { // the confirm loop runs in another process
		c = &confirmer{s: s}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []Blocker{}
	err := s.DB.Read(ctx, func(tx *store.Tx) error {
		c.tx, c.err = tx, nil
		defer func() { c.tx = nil }()
		if standby {
			if err := c.load(); err != nil {
				return fmt.Errorf("read what the contexts wait for: %w", err)
			}
		}
		m := c.machines[audience]
		if m == nil || m.keys == nil {
			return errs.New("FF10226", 404, "audience %s is not known here, or its secret has not arrived yet", audience)
		}
		for _, b := range m.Blockers(m.keys.Context(topic), s.Self.Org) {
			out, err := s.blocker(tx, b)
			if err != nil {
				return err
			}
			list = append(list, out)
		}
		if c.err != nil {
			return c.err
		}
		unpinned, err := s.unpinnedBlockers(tx, audience, topic)
		list = append(list, unpinned...)
		return err
	})
	return list, err
}

// unpinnedBlockers are our own batches on a topic that are not on the ledger
// yet, because too few members hold them.
func (s *Service) unpinnedBlockers(tx *store.Tx, audience wire.Hash, topic string) (list []Blocker, err error) {
	batches, err := tx.OwnBatches(store.BatchCollecting)
	if err != nil {
		return nil, err
	}
	for i := range batches {
		b := &batches[i]
		if b.Audience != audience {
			continue
		}
		messages, err := tx.MessagesOfBatch(b.Root, b.Org)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(messages, func(m *store.Message) bool { return slices.Contains(m.Header.Topics, topic) }) {
			continue
		}
		out, err := s.waitsForReceipts(tx, b)
		if err != nil {
			return nil, err
		}
		list = append(list, out)
	}
	return list, nil
}

// waitsForReceipts says whose receipts a batch of ours lacks.
func (s *Service) waitsForReceipts(tx *store.Tx, b *store.BatchRow) (out Blocker, err error) {
	epoch, err := epochOf(tx, b.Audience, b.Epoch)
	if err != nil || epoch == nil {
		return out, err
	}
	receipts, err := tx.Receipts(b.Org, b.Root)
	if err != nil {
		return out, err
	}
	out = Blocker{Author: s.Self.DID(), Root: b.Root, Missing: "receipts", Owes: []string{}, Since: b.Since}
	v := 0
	for _, m := range s.others(epoch.Definition.Members) {
		if !s.Network.Active(m, identity.End) {
			continue
		}
		v++
		if slices.ContainsFunc(receipts, func(r wire.Receipt) bool { return r.Org == m }) {
			continue
		}
		name, err := s.nameOf(tx, m)
		if err != nil {
			return out, err
		}
		out.Owes = append(out.Owes, name)
	}
	out.Remedy = fmt.Sprintf("it is pinned when %d of the %d other members hold it; see status/peers for what keeps those named here from taking it", needed(v), v)
	return out, nil
}

func (s *Service) blocker(tx *store.Tx, b order.Blocker) (Blocker, error) {
	out := Blocker{
		Record: b.Number, Root: b.Root, Missing: string(b.Missing), Owes: []string{}, Since: store.At(b.Since), Remedy: b.Remedy, Votes: b.Votes, Needed: b.Needed,
	}
	var err error
	if out.Author, err = s.nameOf(tx, b.Author); err != nil {
		return out, err
	}
	for _, o := range b.Owes {
		name, err := s.nameOf(tx, o)
		if err != nil {
			return out, err
		}
		out.Owes = append(out.Owes, name)
	}
	if !b.SkipDue.IsZero() {
		t := store.At(b.SkipDue)
		out.SkipDue = &t
	}
	return out, nil
}

// nameOf is an organisation's DID, or its id on the ledger until it has claimed
// one.
func (s *Service) nameOf(tx *store.Tx, org wire.OrgID) (string, error) {
	id, err := identity.OrgIdentity(tx, s.Namespace, org)
	if err != nil || id == nil {
		return org.String(), err
	}
	return id.DID, nil
}
