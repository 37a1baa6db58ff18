package message

import (
	"slices"
	"time"

	"github.com/parley-node/parley/wire"
)

const (
	overdueEvery   = time.Second     // between looks at all that is open
	heartbeatEvery = 2 * time.Second // between moves of consensus time on an idle chain
	votesOfPin     = 512             // entries; well under what a control may hold
)

// skips looks at what a machine waits for too long: it votes against entries
// that no member holds, and moves consensus time where it stands still because
// nobody sends anything. It runs inside the confirm step.
func (m *machine) skips(final finalBlock) error {
	s := m.c.s
	now := s.Now()
	if m.Stalled() || now.Sub(m.looked) < overdueEvery || !s.Network.Active(s.Self.Org, endPosition) {
		return nil
	}
	m.looked = now
	consensus := final.Time.Time()
	age := s.Network.Params(endPosition).ReceiptAge
	mark, err := s.restoredMark(m.c.tx)
	if err != nil {
		return err
	}
	var vote, marked []wire.Entry
	for _, e := range m.Overdue(consensus) {
		if !mark.mayVote(final.Number, age) {
			break
		}
		id := wire.Entry{Author: e.Author, Root: e.Root}
		if m.batches[id] != nil || !m.MayVote(id, s.Self.Org) || !s.pulls.nobody(id) || m.voted[id] {
			continue
		}
		ok, err := m.c.tx.Vote(s.Self.Org, m.ID(), e.Author, e.Root, s.now())
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		m.voted[id] = true
		if mark.marksVote(e.Position.Block, age) {
			marked = append(marked, id)
		} else {
			vote = append(vote, id)
		}
	}
	if len(vote)+len(marked) > 0 {
		s.Log.Warn("nobody holds these payloads; this organisation votes to skip them", "audience", m.ID().Short(), "entries", len(vote)+len(marked))
		for restored, entries := range map[bool][]wire.Entry{false: vote, true: marked} {
			for part := range slices.Chunk(entries, votesOfPin) {
				if err := m.queue(wire.Control{Votes: []wire.Vote{{Entries: part, Restored: restored}}}); err != nil {
					return err
				}
			}
		}
	}
	return m.heartbeat(consensus)
}

// heartbeat pins an empty control if the wall clock says that a deadline has
// passed which consensus time has not reached.
func (m *machine) heartbeat(consensus time.Time) error {
	s := m.c.s
	now := s.Now()
	if now.Sub(m.beat) < heartbeatEvery {
		return nil
	}
	// Any control of ours that is under way moves it too. One that cannot get
	// through, because the ledger is away, must not pile up.
	if under, err := m.c.tx.ControlsUnderWay(m.ID()); err != nil || under > 0 {
		return err
	}
	for _, e := range m.Open() {
		due := e.SkipDue
		if due == 0 && (e.Payload == nil || uint32(len(e.Receipts)) < e.C) {
			due = e.Time + e.SkipAfter
		}
		if due == 0 || consensus.UnixNano() >= due || now.UnixNano() < due {
			continue
		}
		m.beat = now
		return m.queue(wire.Control{Heartbeat: true})
	}
	return nil
}
