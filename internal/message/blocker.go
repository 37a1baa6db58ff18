package message

import (
	"context"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/order"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Blocker is an entry that keeps a context from going on: what it lacks, who
// owes it, since when, and what to do.
type Blocker struct {
	Record  uint64      `json:"record"` // number of the pin on the ledger
	Author  string      `json:"author"` // DID, or the organisation's id
	Root    wire.Hash   `json:"root"`
	Missing string      `json:"missing"`
	Owes    []string    `json:"owes"`
	Since   store.Time  `json:"since"`
	Remedy  string      `json:"remedy"`
	Votes   int         `json:"votes"`
	Needed  int         `json:"needed"` // votes that skip it
	SkipDue *store.Time `json:"skipDue,omitempty"`
}

// Blockers says what a topic of an audience waits for; empty if nothing does.
// audience is the network's id or a group's.
func (s *Service) Blockers(ctx context.Context, audience wire.Hash, topic string) ([]Blocker, error) {
	c := s.confirm
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []Blocker{}
	err := s.DB.Read(ctx, func(tx *store.Tx) error {
		c.tx, c.err = tx, nil
		defer func() { c.tx = nil }()
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
		return c.err
	})
	return list, err
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
