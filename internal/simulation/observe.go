package simulation

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/sim"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/order"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// contextKey names a context; the stream of one author's unpinned messages is
// one of its own.
type contextKey struct {
	audience wire.Hash
	topic    string
	unpinned wire.OrgID // the author; zero for pinned messages
}

// verdict is what a member's event log says about a message.
type verdict struct {
	id     wire.UUID
	typ    string // event type
	reason string
	number uint64 // of the pin
	index  int    // in the batch
}

// history is the one order of a context, as far as any honest member has seen
// it.
type history struct {
	list []verdict
	has  map[place]bool
}

// place is what a message can have only once.
type place struct {
	id        wire.UUID
	confirmed bool
}

func (v verdict) place() place { return place{v.id, v.typ == "message_confirmed"} }

// definitions is the network's context of definitions. Who joins later finds a
// name free that was taken before its first epoch: docs/simulation.md, "Open".
const definitions = "ff_definition"

// skipReason is what order says of a message that was voted away.
const skipReason = "votes say that its payload cannot be had"

// pinned are the pins that are final on the ledger, told by the ledger itself.
type pinned struct {
	link *sim.Ledger
	next uint64
	had  *ledger.Block
	root map[uint64]wire.Hash // by record number
	list []wire.Hash
}

func (p *pinned) roots() []wire.Hash { return p.list }

// look reads what is final now.
func (w *world) look() {
	p := &w.pins
	if p.link == nil {
		p.link, p.next, p.root = w.chain.Connect(w.members[0].keys), 1, map[uint64]wire.Hash{}
	}
	for {
		a, ok, err := p.link.Poll(p.next, p.had)
		w.must(err)
		if !ok {
			return
		}
		for _, r := range a.Records {
			if b, is := r.Body.(ledger.Pinned); is && !b.Pin.Root.IsZero() {
				p.root[r.Number] = b.Pin.Root
				p.list = append(p.list, b.Pin.Root)
			}
			p.next = r.Number + 1
		}
		p.had = &a.Final
	}
}

// watch looks at every member whose database has changed, and buries the dead.
func (w *world) watch() {
	for _, m := range w.members {
		p := m.proc
		if p == nil {
			continue
		}
		if p.dead {
			w.tell(m.name, "is dead")
			m.bury()
			continue
		}
		if p.commits != p.seen || w.opt.Postgres {
			p.seen = p.commits
			if !m.liar {
				m.observe()
			}
		}
	}
}

// observe reads the member's new events and holds them against what the others
// have seen.
func (m *member) observe() {
	w := m.w
	events, err := m.proc.node.Events.After(background, m.cursor, 1000)
	w.must(err)
	if len(events) == 0 {
		return
	}
	w.progress++
	w.look()
	m.read(func(tx *store.Tx) error {
		for i := range events {
			e := &events[i]
			if e.Sequence <= m.cursor {
				w.fail("%s: event %d comes after event %d", m.name, e.Sequence, m.cursor)
			}
			m.cursor = e.Sequence
			if e.Type != "message_confirmed" && e.Type != "message_rejected" {
				continue
			}
			if err := m.event(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// event holds one verdict against the context's order.
func (m *member) event(tx *store.Tx, e *store.Event) error {
	w := m.w
	msg, err := messageOf(tx, e)
	if err != nil {
		return err
	}
	label := w.label(msg)
	v := verdict{id: msg.Header.ID, typ: e.Type, reason: msg.RejectReason, index: msg.Index}
	key := contextKey{audience: msg.Audience, topic: e.Topic}
	if msg.Header.TxType == message.TxUnpinned {
		key = contextKey{audience: msg.Audience, unpinned: msg.Org}
		if e.Topic != msg.Header.Topics[0] {
			return nil // once is enough: the stream has no topics
		}
	} else {
		if v.number, err = m.grounds(tx, msg, label); err != nil {
			return err
		}
		if strings.Contains(v.reason, skipReason) {
			m.skipped(msg, label)
			return nil // it happens when its time comes, in no order with the rest
		}
	}
	w.tell(m.name, "%s %s on %s", strings.TrimPrefix(v.typ, "message_"), label, e.Topic)
	if !m.founder || m.away { // it joined in the middle, or left out some: see joined
		m.since[key] = append(m.since[key], v)
		return nil
	}
	h := w.contexts[key]
	if h == nil {
		h = &history{has: map[place]bool{}}
		w.contexts[key] = h
	}
	at := m.at[key]
	m.at[key] = at + 1
	if at < len(h.list) {
		if want := h.list[at]; want != v {
			w.fail("%s has %s %s in place %d of %s, where the others have %s %s", m.name, label, v, at, w.contextName(key), w.labelOf(want.id), want)
		}
		return nil
	}
	if h.has[v.place()] {
		w.fail("%s has %s twice in %s", m.name, label, w.contextName(key))
	}
	if n := len(h.list); n > 0 && key.unpinned.IsZero() {
		if last := h.list[n-1]; last.number > v.number || last.number == v.number && last.index >= v.index {
			w.fail("%s has %s (record %d, message %d) in %s after record %d, message %d: not the ledger's order", m.name, label, v.number, v.index, w.contextName(key), last.number, last.index)
		}
	}
	h.has[v.place()] = true
	h.list = append(h.list, v)
	return nil
}

// messageOf is the message that an event is about. A liar can put one message
// into two batches; the second is rejected.
func messageOf(tx *store.Tx, e *store.Event) (*store.Message, error) {
	state := strings.TrimPrefix(e.Type, "message_")
	var root wire.Hash
	var org wire.OrgID
	err := tx.QueryRow(`SELECT root, org FROM messages WHERE id = $1 AND state = $2 ORDER BY seq DESC LIMIT 1`, *e.Reference, state).Scan(&root, &org)
	if err != nil {
		return nil, fmt.Errorf("message %s of event %d is not %s: %w", e.Reference, e.Sequence, state, err)
	}
	messages, err := tx.MessagesOfBatch(root, org)
	for _, m := range messages {
		if m.Header.ID == *e.Reference {
			return m, nil
		}
	}
	return nil, errors.Join(err, fmt.Errorf("message %s is not in its batch %s", e.Reference, root.Short()))
}

// grounds are what a pinned message's verdict stands on: its pin is final on
// the ledger, and enough members hold it.
func (m *member) grounds(tx *store.Tx, msg *store.Message, label string) (number uint64, err error) {
	w := m.w
	pins, err := tx.PinsOfBatch(msg.Org, *msg.Root)
	if err != nil {
		return 0, err
	}
	for i := range pins {
		if p := &pins[i]; (p.State == store.PinOpen || p.State == store.PinDone) && *p.Audience == msg.Audience {
			number = p.Number
			break
		}
	}
	if root, final := w.pins.root[number]; !final || root != *msg.Root {
		w.fail("%s decided %s, whose batch %s has no final pin (record %d)", m.name, label, msg.Root.Short(), number)
	}
	var text []byte
	if err := tx.QueryRow(`SELECT entry FROM pins WHERE number = $1`, int64(number)).Scan(&text); err != nil {
		return 0, err
	}
	var entry order.Entry
	if err := json.Unmarshal(text, &entry); err != nil {
		return 0, err
	}
	if entry.Status == order.Skipped {
		return number, nil
	}
	receipts, err := tx.Receipts(msg.Org, *msg.Root)
	if err != nil {
		return 0, err
	}
	if len(receipts) < int(entry.C) {
		w.fail("%s decided %s with %d of %d receipts", m.name, label, len(receipts), entry.C)
	}
	return number, nil
}

// skipped notes that a member has skipped a message of a batch that it holds.
func (m *member) skipped(msg *store.Message, label string) {
	w := m.w
	w.tell(m.name, "skips %s", label)
	w.story.count("skipped message")
	s := w.byID[msg.Header.ID]
	if s == nil {
		return
	}
	s.skipped = true
	if !w.profile.liar && !w.profile.outage() && msg.State == message.StateRejected {
		w.fail("%s skipped %s of %s, though nobody lied and nobody was away for long", m.name, label, s.from.name)
	}
}

// outage says whether members may be away for so long that an honest author's
// payload cannot be had.
func (p profile) outage() bool {
	return p.on["long wait"] || p.on["cut"] || p.on["isolate"] || p.on["stop"] || p.on["crash"] || p.on["ledger away"] || p.on["disk slow"]
}

func (v verdict) String() string {
	s := strings.TrimPrefix(v.typ, "message_")
	if v.reason != "" {
		s += " (" + v.reason + ")"
	}
	return fmt.Sprintf("%s as %d.%d", s, v.number, v.index)
}

// label names a message for people.
func (w *world) label(msg *store.Message) string {
	if s := w.byID[msg.Header.ID]; s != nil {
		return s.label
	}
	author := "a stranger"
	if m := w.find(msg.Org); m != nil {
		author = m.name
	}
	return fmt.Sprintf("a %s %s of %s", msg.Header.Tag, msg.Header.Type, author)
}

func (w *world) labelOf(id wire.UUID) string {
	if s := w.byID[id]; s != nil {
		return s.label
	}
	return "a definition"
}

// contextName names a context for people.
func (w *world) contextName(k contextKey) string {
	audience := "group " + k.audience.Short()
	if k.audience == w.network {
		audience = "the network"
	}
	if !k.unpinned.IsZero() {
		return fmt.Sprintf("the unpinned messages of %s to %s", w.find(k.unpinned).name, audience)
	}
	return fmt.Sprintf("topic %s of %s", k.topic, audience)
}

// kept checks that the member's database still has every message that it has
// accepted.
func (m *member) kept() {
	m.read(func(tx *store.Tx) error {
		for _, s := range m.w.sent {
			if s.from != m {
				continue
			}
			msg, err := store.Optional(tx.MessageByID("default", s.id))
			if err != nil {
				return err
			}
			if msg == nil {
				m.w.fail("%s has lost %s, which it had accepted", m.name, s.label)
			}
		}
		var last int64
		err := tx.QueryRow(`SELECT COALESCE(MAX(sequence), 0) FROM events`).Scan(&last)
		if err == nil && last < m.cursor {
			m.w.fail("%s has lost events: the last is %d, and %d was seen", m.name, last, m.cursor)
		}
		return err
	})
}

// keys lists the contexts in a fixed order.
func (w *world) keys() []contextKey {
	return slices.SortedFunc(maps.Keys(w.contexts), func(a, b contextKey) int {
		return cmp.Or(bytes.Compare(a.audience[:], b.audience[:]), strings.Compare(a.topic, b.topic), bytes.Compare(a.unpinned[:], b.unpinned[:]))
	})
}

// log is the logical history.
func (w *world) log() (lines []string) {
	for k, h := range w.contexts {
		var b strings.Builder
		fmt.Fprintf(&b, "%s:", w.logName(k))
		for _, v := range h.list {
			fmt.Fprintf(&b, " %s", w.logLabel(v))
		}
		lines = append(lines, b.String())
	}
	slices.Sort(lines)
	return lines
}

func (w *world) logLabel(v verdict) string {
	l := w.labelOf(v.id)
	if v.typ == "message_rejected" {
		l += "!"
	}
	return l
}

// logName names a context the same in every run.
func (w *world) logName(k contextKey) string {
	h := w.contexts[k]
	first := "definitions"
	if s := w.byID[h.list[0].id]; s != nil {
		first = s.label
	}
	name := k.topic
	if !k.unpinned.IsZero() {
		name = "unpinned of " + w.find(k.unpinned).name
	}
	return fmt.Sprintf("%s from %s on", name, first)
}
