package simulation

import (
	"slices"

	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// voters are the running members who may act on the network's membership.
func (w *world) voters() []*member {
	return some(w.running(), func(m *member) bool {
		return m.belongs && !m.away && m.proc.node.Network.Active(m.org, identity.End)
	})
}

// call has a member call the network contract.
func (w *world) call(m *member, what string, c ledger.Call) bool {
	if _, err := m.proc.node.Messages.Call(m.proc.ctx, c); err != nil {
		w.tell(m.name, "cannot ask the contract: %v", err)
		return false
	}
	w.tell(m.name, "%s", what)
	return true
}

// admit asks for the admission of a candidate and starts its node.
func (w *world) admit() bool {
	candidates := some(w.members, func(m *member) bool { return !m.founder && !m.belongs && m.proc == nil })
	voters := w.voters()
	if len(candidates) == 0 || len(voters) == 0 {
		return false
	}
	c := candidates[0]
	if !w.call(pick(w, voters), "proposes to admit "+c.name, ledger.ProposeCall{Proposal: ledger.Proposal{Admit: &ledger.MemberAdmitted{Org: c.org, Key: c.self.Key}}}) {
		return false
	}
	c.belongs = true
	c.start()
	return true
}

// suspend asks for the suspension of a member, while enough others stay.
func (w *world) suspend() bool {
	voters := w.voters()
	staying := some(w.members, func(m *member) bool { return m.belongs && !m.away })
	if len(voters) < 2 || len(staying) < 4 {
		return false
	}
	m, by := pick(w, staying), pick(w, voters)
	if m == by || !by.proc.node.Network.Active(m.org, identity.End) || !w.call(by, "proposes to suspend "+m.name, ledger.ProposeCall{Proposal: ledger.Proposal{Suspend: &m.org}}) {
		return false
	}
	m.away = true
	return true
}

// resume asks for a suspended member's return.
func (w *world) resume() bool {
	voters := w.voters()
	gone := some(w.members, func(m *member) bool { return m.belongs && m.away })
	if len(voters) == 0 || len(gone) == 0 {
		return false
	}
	m, by := pick(w, gone), pick(w, voters)
	n := by.proc.node.Network
	if n.Active(m.org, identity.End) || w.proposed(by, func(p ledger.Proposal) bool { return p.Resume != nil && *p.Resume == m.org }) {
		return false
	}
	return w.call(by, "proposes to resume "+m.name, ledger.ProposeCall{Proposal: ledger.Proposal{Resume: &m.org}})
}

// remove asks for the removal of a member, while enough others stay.
func (w *world) remove() bool {
	voters := w.voters()
	staying := some(w.members, func(m *member) bool { return m.belongs && !m.away })
	if len(voters) < 2 || len(staying) < 4 {
		return false
	}
	m, by := pick(w, staying), pick(w, voters)
	if m == by || !by.proc.node.Network.Active(m.org, identity.End) || !w.call(by, "proposes to remove "+m.name, ledger.ProposeCall{Proposal: ledger.Proposal{Remove: &m.org}}) {
		return false
	}
	m.belongs = false
	return true
}

// proposed says whether a member knows an open proposal.
func (w *world) proposed(m *member, is func(ledger.Proposal) bool) bool {
	return slices.ContainsFunc(m.proc.node.Network.Status().Proposals, func(p identity.Proposal) bool { return !p.Executed && is(p.Change) })
}

// vote approves one open proposal that the member has not voted on.
func (w *world) vote() bool {
	voters := w.voters()
	if len(voters) == 0 {
		return false
	}
	return w.approve(pick(w, voters))
}

func (w *world) approve(m *member) bool {
	for _, p := range m.proc.node.Network.Status().Proposals {
		if _, voted := p.Votes[m.org]; p.Executed || voted || m.voted[p.ID] {
			continue
		}
		if m.voted == nil {
			m.voted = map[uint64]bool{}
		}
		m.voted[p.ID] = true
		return w.call(m, "approves a proposal", ledger.VoteCall{ID: p.ID, Approve: true})
	}
	return false
}

// rotate moves a member to a new key in three steps, one per call: the key is
// added; the node starts with it; the old one is revoked once nothing that it
// is to sign is under way.
func (w *world) rotate() bool {
	list := some(w.voters(), func(m *member) bool { return !m.liar })
	if len(list) == 0 {
		return false
	}
	m := pick(w, list)
	n := m.proc.node.Network
	switch {
	case m.old != wire.Address{}:
		if m.signs(m.old) {
			return false
		}
		old := m.old
		if !w.call(m, "revokes its old key", ledger.RevokeKeyCall{Key: old}) {
			return false
		}
		m.old = wire.Address{}
	case m.next != wire.Address{}:
		if !slices.Contains(n.ValidKeys(m.org, identity.End), m.next) {
			return false
		}
		m.stop()
		m.old, m.self.Key, m.next = m.self.Key, m.next, wire.Address{}
		w.tell(m.name, "signs with its new key %s", m.self.Key)
		m.start()
	default:
		key, err := m.keys.NewSigningKey()
		w.must(err)
		if !w.call(m, "adds a key", ledger.AddKeyCall{Key: key}) {
			return false
		}
		m.next = key
	}
	return true
}

// signs says whether something of the member's is to be signed by a key yet.
func (m *member) signs(key wire.Address) bool {
	n := 0
	m.read(func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT (SELECT COUNT(*) FROM messages WHERE key = $1 AND org = $2 AND state IN ('ready', 'sent'))
			+ (SELECT COUNT(*) FROM submissions WHERE account = $3 AND state IN ('queued', 'signed'))
			+ (SELECT COUNT(*) FROM outbox WHERE kind = 'payload' AND org = $2)`, key.String(), m.org, key).Scan(&n)
	})
	return n > 0
}
