package simulation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/check"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

const (
	roundsToKnow   = 200 // until all founders know each other, without faults
	roundsToSettle = 700 // until all is delivered once the faults have stopped
)

// ready lets the network come up: the founders register, invite and claim their
// names.
func (w *world) ready() {
	for range roundsToKnow {
		w.round()
		known := true
		for _, m := range w.members[:w.profile.founders] {
			for _, o := range w.members[:w.profile.founders] {
				known = known && m.names(o)
			}
		}
		if known {
			w.tell("", "all founders know each other")
			return
		}
	}
	w.fail("after %d rounds without faults the founders do not know each other", roundsToKnow)
}

// round lets every member do everything once, and moves time on: little while
// something happens, more while all wait.
func (w *world) round() {
	before := w.progress
	for _, m := range w.running() {
		for range 50 {
			if !m.feed() {
				break
			}
		}
		for _, worker := range m.proc.workers {
			m.step(worker)
		}
		for _, p := range m.proc.node.Messages.Peers() {
			for range 4 {
				due := m.due(p)
				if len(due) == 0 {
					break
				}
				for _, parcel := range due {
					m.deliver(p, parcel)
				}
			}
		}
	}
	w.chain.Mine()
	w.watch()
	pause := 100 * time.Millisecond
	if w.progress == before {
		pause = 3 * time.Second
	}
	w.now = w.now.Add(pause)
}

// settle stops all faults and lies and lets the network come to rest. All that
// can be delivered must be delivered within a bound.
func (w *world) settle() {
	w.tell("", "the faults stop")
	w.faults = false
	for _, m := range w.members {
		for _, o := range w.members {
			w.net.Heal(m.name, o.name)
		}
		m.link.Resume()
		m.link.SetPage(0)
		m.skew, m.lies = 0, lies{}
		if m.proc != nil {
			m.proc.fault = nil
		} else if m.belongs || m.founder {
			m.start()
			m.kept()
		}
	}
	w.chain.Release()
	for w.lateLetter() {
		w.watch()
	}
	why := ""
	for range roundsToSettle {
		for _, m := range w.voters() {
			w.approve(m)
		}
		w.round()
		if why = w.busy(); why == "" {
			w.tell("", "all is quiet")
			return
		}
	}
	w.fail("%d rounds after the faults have stopped there is something under way: %s", roundsToSettle, why)
}

// present are the members that are held to everything at the end: in the
// network, and never suspended.
func (w *world) present() []*member {
	return some(w.members, func(m *member) bool {
		return m.belongs && !m.away && w.active(m)
	})
}

// active says whether the ledger has the member as active now.
func (w *world) active(m *member) bool {
	for _, o := range w.running() {
		if o.proc.node.Network.Founding() != nil && o.belongs && !o.away {
			return o.proc.node.Network.Active(m.org, identity.End)
		}
	}
	return false
}

// busy says what is still under way anywhere; nothing if all is quiet.
func (w *world) busy() string {
	w.look()
	here := map[wire.OrgID]bool{}
	for _, m := range w.present() {
		here[m.org] = true
	}
	for _, m := range w.present() {
		what := ""
		m.read(func(tx *store.Tx) (err error) { what, err = w.underWay(tx, m, here); return err })
		if what != "" {
			return m.name + ": " + what
		}
	}
	return ""
}

func (w *world) underWay(tx *store.Tx, m *member, here map[wire.OrgID]bool) (string, error) {
	if open, err := w.undecided(tx); err != nil || open != "" {
		return open, err
	}
	for _, q := range []struct{ what, query string }{
		{"arrivals", `SELECT COUNT(*) FROM arrivals`},
		{"ledger calls", `SELECT COUNT(*) FROM submissions WHERE state IN ('queued', 'signed')`},
		{"own batches", `SELECT COUNT(*) FROM batches WHERE own AND state IN ('collecting', 'pinning')`},
		{"open pins", `SELECT COUNT(*) FROM pins WHERE state = 'open'`},
	} {
		var n int
		if err := tx.QueryRow(q.query).Scan(&n); err != nil {
			return "", err
		}
		if n > 0 {
			return fmt.Sprintf("%d %s", n, q.what), nil
		}
	}
	waiting, err := tx.OutboxByPeer()
	if err != nil {
		return "", err
	}
	for _, p := range waiting {
		if here[p.Peer] {
			return fmt.Sprintf("%d parcels for %s %s", p.Waiting, w.find(p.Peer).name, p.Error), nil
		}
	}
	through, err := tx.Meta(store.MetaConfirmed)
	if err != nil {
		return "", err
	}
	if last := fmt.Sprint(w.pins.next - 1); through != last {
		return fmt.Sprintf("%s of %s records applied", through, last), nil
	}
	e, err := tx.CurrentEpoch(w.network)
	if err != nil {
		return "", err
	}
	if e == nil || e.Secret == nil {
		return "without the network's secret", nil
	}
	for _, o := range w.members {
		if w.active(o) != e.Definition.Has(o.org) {
			return fmt.Sprintf("the network's epoch %d and its members differ in %s", e.Epoch, o.name), nil
		}
	}
	return "", nil
}

// undecided names the messages without a verdict of members that are still
// there. What an author who has left had not pinned stays as it is.
func (w *world) undecided(tx *store.Tx) (string, error) {
	rows, err := tx.Query(`SELECT id, state, org, root FROM messages WHERE state IN ('ready', 'sent', 'pending') ORDER BY seq`)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var open []string
	for rows.Next() {
		var id wire.UUID
		var state string
		var org wire.OrgID
		var root []byte
		if err := rows.Scan(&id, &state, &org, &root); err != nil {
			return "", err
		}
		author, label := w.find(org), id.String()
		if !author.belongs || author.away {
			continue
		}
		if s := w.byID[id]; s != nil {
			label = s.label
		}
		open = append(open, fmt.Sprintf("%s of %s is %s in batch %.4x", label, author.name, state, root))
	}
	return strings.Join(open, ", "), rows.Err()
}

// compare holds the members' final states against each other, and each against
// a replay of its own database.
func (w *world) compare() {
	for _, m := range w.present() {
		if m.liar {
			continue
		}
		m.kept()
		m.whole()
		for _, s := range w.sent {
			if s.from == m || s.to == nil && m.founder || contains(s.to, m) {
				m.arrived(s)
			}
		}
		m.checked()
	}
}

func contains(list []*member, m *member) bool {
	for _, o := range list {
		if o == m {
			return true
		}
	}
	return false
}

// whole checks that the member has every context of its audiences to the end.
func (m *member) whole() {
	w := m.w
	for _, key := range w.keys() {
		h, belongs := w.contexts[key], false
		m.read(func(tx *store.Tx) error {
			e, err := tx.CurrentEpoch(key.audience)
			belongs = e != nil && e.Definition.Has(m.org)
			return err
		})
		if !belongs {
			continue
		}
		if !m.founder {
			m.joined(key, h)
			continue
		}
		if author := w.find(key.unpinned); author != nil && (!author.belongs || author.away) {
			continue // it left before all had what it sent
		}
		if at := m.at[key]; at != len(h.list) {
			w.fail("%s has %d of %d verdicts of %s", m.name, at, len(h.list), w.contextName(key))
		}
	}
}

// joined checks that a member which came later has the end of a context's
// order, from its first message there on.
func (m *member) joined(key contextKey, h *history) {
	own := m.since[key]
	if len(own) == 0 {
		return
	}
	first := slices.IndexFunc(h.list, func(v verdict) bool { return v.id == own[0].id && v.number == own[0].number })
	if first < 0 || len(h.list)-first != len(own) {
		m.w.fail("%s has %d verdicts of %s, which are not the last ones of the others:\n%v\n%v", m.name, len(own), m.w.contextName(key), own, h.list)
	}
	for i, v := range own {
		want := h.list[first+i]
		sameMessage := v.id == want.id && v.number == want.number && v.index == want.index
		if v != want && !(sameMessage && key.topic == definitions) {
			m.w.fail("%s, which came later, has %s %s in %s, where the others have %s %s", m.name, m.w.labelOf(v.id), v, m.w.contextName(key), m.w.labelOf(want.id), want)
		}
	}
}

// arrived checks that an accepted message has come to its end at a member.
func (m *member) arrived(s *sent) {
	w := m.w
	var msg *store.Message
	m.read(func(tx *store.Tx) (err error) { msg, err = store.Optional(tx.MessageByID("default", s.id)); return err })
	faithful := !s.refused && !s.skipped && s.from.belongs && !s.from.away && !s.from.liar
	switch {
	case msg == nil && faithful:
		w.fail("%s of %s has never come to %s", s.label, s.from.name, m.name)
	case msg == nil:
	case msg.State == message.StateConfirmed:
	case faithful:
		w.fail("%s of %s is %s at %s: %s", s.label, s.from.name, msg.State, m.name, msg.RejectReason)
	}
}

// checked replays the member's database.
func (m *member) checked() {
	w := m.w
	blobs, err := m.blobs()
	w.must(err)
	// Whoever confirmed an entry before the ledger skipped it keeps that, with
	// an incident. It takes a voter who has receipted what it votes against.
	overruled := false
	m.read(func(tx *store.Tx) error {
		var n int
		err := tx.QueryRow(`SELECT COUNT(*) FROM incidents WHERE kind = 'overruled'`).Scan(&n)
		overruled = n > 0
		return err
	})
	if overruled && !w.profile.liar {
		w.fail("%s was overruled by votes, though nobody lied", m.name)
	}
	var found []check.Difference
	_, err = check.Run(background, check.Source{
		DB: m.proc.db, Namespace: "default", Network: w.network, Self: m.org, Blobs: blobs, Ledger: w.chain.Connect(m.keys),
	}, func(d check.Difference) { found = append(found, d) })
	w.must(err)
	if len(found) == 0 {
		return
	}
	if overruled && slices.ContainsFunc(found, func(d check.Difference) bool { return strings.Contains(d.Recomputed, skipReason) }) {
		w.tell(m.name, "keeps what votes have skipped: %s", found[0])
		w.story.count("overruled")
		return
	}
	w.fail("%s: check finds %d differences: %s", m.name, len(found), found[0])
}
