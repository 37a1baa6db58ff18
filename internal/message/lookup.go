package message

import (
	"encoding/json"

	"github.com/parley-node/parley/internal/order"
	"github.com/parley-node/parley/wire"
)

// view answers order's questions about the ledger.
type view struct{ c *confirmer }

func (v view) OrgOf(key wire.Address, at wire.Position) (wire.OrgID, bool) {
	return v.c.s.Network.OrgOf(key, at)
}
func (v view) Active(org wire.OrgID, at wire.Position) bool { return v.c.s.Network.Active(org, at) }
func (v view) Keys(org wire.OrgID, at wire.Position) []wire.Address {
	return v.c.s.Network.Keys(org, at)
}
func (v view) Departures(after, through wire.Position) []order.Departure {
	return v.c.s.Network.Departures(after, through)
}
func (v view) Params(at wire.Position) order.Params { return v.c.s.Network.Params(at) }

func (v view) BlockHash(number uint64) (wire.Hash, bool) {
	h, ok, err := v.c.tx.BlockHash(number)
	v.c.note(err)
	return h, ok
}

// history answers order's questions about decided entries, in the transaction
// of the running step.
type history struct{ m *machine }

func (h history) Pinned(author wire.OrgID, root wire.Hash) bool {
	ok, err := h.m.c.tx.Pinned(h.m.ID(), author, root)
	h.m.c.note(err)
	return ok
}

func (h history) Confirmed(message wire.Hash, epoch uint64) bool {
	known := h.m.known[epochMessage{epoch, message}] // of an open batch: order asks about no other
	return known != nil && known.confirmed
}

func (h history) Past(author wire.OrgID, root wire.Hash) (e order.Entry, ok bool) {
	b, err := h.m.c.tx.PastEntry(h.m.ID(), author, root)
	if err == nil && b != nil {
		ok, err = true, json.Unmarshal(b, &e)
	}
	h.m.c.note(err)
	return e, ok
}

func (h history) PastFrom(author wire.OrgID, from uint64, limit int) []order.Entry {
	return h.entries(h.m.c.tx.PastEntriesOf(h.m.ID(), author, from, limit))
}

func (h history) Exposed() []order.Entry { return h.entries(h.m.c.tx.ExposedEntries(h.m.ID())) }

func (h history) entries(rows [][]byte, err error) []order.Entry {
	h.m.c.note(err)
	all := make([]order.Entry, len(rows))
	for i, b := range rows {
		h.m.c.note(json.Unmarshal(b, &all[i]))
	}
	return all
}

// Defined: definitions belong to the network's reserved context.
func (h history) Defined(before wire.Position) bool {
	m := h.m.c.machines[h.m.c.s.Network.ID]
	if m == nil || m.Stalled() && m.Through().Compare(before) < 0 {
		return false // not all pins up to there are read
	}
	return m.Settled(m.reserved, before)
}

// note keeps the first error of a look-up; the step fails with it.
func (c *confirmer) note(err error) {
	if c.err == nil {
		c.err = err
	}
}
