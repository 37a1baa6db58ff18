package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// States of a message, as stored.
const (
	confirmed = "confirmed"
	rejected  = "rejected"
)

// judge decides messages in the second walk, when it is known what the members
// skip.
type judge struct {
	c         *checker
	first     *replay
	open      map[wire.Hash][]*pending // by audience, in ledger order
	repeated  map[string]bool          // audience and hash of messages stored more than once; true when one is confirmed
	lastEvent map[contextName]int64    // sequence of the newest event
	defs      *definitions
	schemas   schemas
}

type contextName struct {
	audience wire.Hash
	topic    string
}

// pending is an entry that has not got all its verdicts.
type pending struct {
	*entry
	messages []judged // nil until the payload is here
	whole    string   // why the batch is rejected as a whole
	holds    bool     // its payload is here
	certain  bool     // enough receipts are here, or its certificate is on the ledger
	decided  bool     // all its messages are
}

// judged is a message of an entry.
type judged struct {
	header   *wire.MessageHeader
	hash     wire.Hash
	contexts []wire.ContextID
	body     []byte // of a definition
	reject   string // whatever comes
	done     bool
}

func newJudge(c *checker, first *replay) *judge {
	return &judge{
		c: c, first: first, open: map[wire.Hash][]*pending{}, repeated: map[string]bool{}, lastEvent: map[contextName]int64{},
		defs: newDefinitions(),
	}
}

// enter puts a new entry at the end of its contexts and decides what can be
// decided now.
func (j *judge) enter(r *replay, e *entry) error {
	j.c.sum.Entries++
	p := &pending{entry: e}
	if err := j.load(r, p); err != nil {
		return err
	}
	j.open[e.a.id] = append(j.open[e.a.id], p)
	return j.settle(r, e.a.id)
}

// load reads the payload and the receipts of an entry.
func (j *judge) load(r *replay, p *pending) error {
	author, root := p.pin.Record.Pin.Org, p.pin.Record.Pin.Pin.Root
	receipts, err := r.tx.Receipts(author, root)
	if err != nil {
		return err
	}
	horizon := p.pin.Position.Block
	if r.final.Number > horizon {
		horizon = r.final.Number
	}
	p.certain = j.first.certified[p.id()] || len(r.count(p.entry, receipts, horizon)) >= p.certifies()
	row, err := r.tx.BatchByRoot(author, root)
	if err != nil || row == nil || row.Audience != p.a.id {
		return err
	}
	keys, err := j.c.keysOf(row.Audience, row.Epoch)
	if err != nil || keys == nil {
		return err
	}
	b, err := j.c.decode(row, keys)
	if err != nil {
		return nil // reported with the batches; to the order it is not here
	}
	p.holds = true
	if b.remnant != nil { // it stands for the batch if enough receipts say the same of what is gone
		p.holds = len(r.count(p.entry, b.remnant.Receipts, horizon)) >= p.certifies()
	}
	p.whole = p.bad
	if p.whole == "" && row.Epoch != p.pin.Epoch {
		p.whole = fmt.Sprintf("the batch was sealed in epoch %d and pinned in epoch %d", row.Epoch, p.pin.Epoch)
	}
	touched := map[wire.ContextID]bool{}
	for i := range b.Messages {
		m := judged{header: &b.Messages[i].Header, reject: j.fault(b, i, p.pin.Signer.String())}
		if m.hash, err = m.header.LeafHash(); err != nil {
			return err
		}
		for _, t := range m.header.Topics {
			ctx := keys.Context(t)
			m.contexts = append(m.contexts, ctx)
			touched[ctx] = true
			if !slices.Contains(p.contexts, ctx) && p.whole == "" {
				p.whole = fmt.Sprintf("message %d is in context %s, which the pin does not name", i, ctx)
			}
		}
		if len(b.Messages[i].Data) == 1 {
			m.body = b.Data[b.Messages[i].Data[0]].Value
		}
		p.messages = append(p.messages, m)
	}
	for _, ctx := range p.contexts {
		if !touched[ctx] && p.whole == "" {
			p.whole = fmt.Sprintf("the pin names context %s, in which the batch has no message", ctx)
		}
	}
	return nil
}

// settle goes through the open entries of an audience in ledger order. A
// message is decided if nothing before it is open in any of its contexts.
func (j *judge) settle(r *replay, audience wire.Hash) error {
	blocked := map[wire.ContextID]bool{}
	free := func(contexts []wire.ContextID) bool {
		return !slices.ContainsFunc(contexts, func(c wire.ContextID) bool { return blocked[c] })
	}
	block := func(contexts []wire.ContextID) {
		for _, c := range contexts {
			blocked[c] = true
		}
	}
	left := j.open[audience][:0]
	for _, p := range j.open[audience] {
		done := true
		switch {
		case j.first.skipped[p.id()]:
			if err := j.skip(r, p); err != nil {
				return err
			}
		case !p.holds || !p.certain:
			done = false
			block(p.contexts)
		case p.whole != "":
			if done = free(p.contexts); !done {
				block(p.contexts)
				break
			}
			for i := range p.messages {
				if err := j.message(r, p, i, p.whole); err != nil {
					return err
				}
			}
		default:
			for i := range p.messages {
				m := &p.messages[i]
				if m.done {
					continue
				}
				if !free(m.contexts) || m.reject == "" && custom(m.header.Author) && j.undefined(r, p.pin.Number) {
					done = false
					block(m.contexts)
					continue
				}
				if err := j.message(r, p, i, m.reject); err != nil {
					return err
				}
			}
		}
		if p.decided = done; !done {
			left = append(left, p)
		} else if err := j.closed(r, p); err != nil {
			return err
		}
	}
	clear(j.open[audience][len(left):])
	j.open[audience] = left
	return nil
}

// undefined tells whether definitions that were pinned before a record have no
// verdict. They wait for none but earlier ones, so what is open now stays so.
func (j *judge) undefined(r *replay, number uint64) bool {
	network := r.audiences[j.c.Network]
	if network == nil || network.keys == nil {
		return true
	}
	definitions := network.keys.Context(reserved)
	return slices.ContainsFunc(j.open[network.id], func(p *pending) bool {
		switch {
		case p.decided || p.pin.Number >= number:
			return false
		case p.messages == nil || p.whole != "":
			return slices.Contains(p.contexts, definitions)
		}
		return slices.ContainsFunc(p.messages, func(m judged) bool { return !m.done && slices.Contains(m.contexts, definitions) })
	})
}

// message is the verdict about one message: rejected for a reason, or confirmed
// unless it is a repetition or an invalid definition.
func (j *judge) message(r *replay, p *pending, i int, reject string) error {
	m := &p.messages[i]
	m.done = true
	if reject == "" {
		again, err := j.again(p, m)
		if err != nil {
			return err
		}
		if again {
			reject = "the same message was confirmed before"
		} else if reject, err = j.apply(r, p, m); err != nil {
			return err
		}
	}
	state := confirmed
	if reject != "" {
		state = rejected
	} else {
		j.remember(p, m.hash)
	}
	return j.verdict(r, p, i, state, reject, true)
}

// again tells whether a message with this hash, which covers its id, is confirmed
// already in the epoch. Only those that the database has twice can be.
func (j *judge) again(p *pending, m *judged) (bool, error) {
	k := repeatKey(p, m.hash)
	if was, known := j.repeated[k]; known {
		return was, nil
	}
	n, err := count(j.c.tx, `SELECT COUNT(*) FROM messages WHERE id = $1 AND hash = $2 AND audience = $3`, m.header.ID, m.hash.String(), p.a.id)
	if n > 1 {
		j.repeated[k] = false
	}
	return false, err
}

func (j *judge) remember(p *pending, hash wire.Hash) {
	k := repeatKey(p, hash)
	if _, known := j.repeated[k]; known {
		j.repeated[k] = true
	}
}

func repeatKey(p *pending, hash wire.Hash) string {
	return fmt.Sprint(p.a.id, p.pin.Epoch, hash)
}

// skip is the verdict about an entry that the members voted away. What was
// confirmed before is not taken back; that needs a lie, which is an incident.
func (j *judge) skip(r *replay, p *pending) error {
	reason := fmt.Sprintf("%d of %d votes say that its payload cannot be had", p.skips(), len(p.voters))
	for i := range p.messages {
		if err := j.verdict(r, p, i, rejected, reason, false); err != nil {
			return err
		}
	}
	return nil
}

// lag is how long a skip may be due before a node that was told the time must
// have acted on it.
const lag = int64(10e9)

// late tells whether the node may still be about to decide an entry.
func (j *judge) late(r *replay, p *pending) bool {
	since, skipped := j.first.overdue[p.id()]
	return !r.settled || p.a.keys == nil || skipped && int64(r.final.Time)-since < lag
}

// closed tests the pin of an entry that has all its verdicts.
func (j *judge) closed(r *replay, p *pending) error {
	row := p.pin
	if row.State != store.PinDone && !j.late(r, p) {
		j.c.differ(Pin, fmt.Sprintf("pin %d", row.Number), row.State, "done: nothing before it is open, and payload and receipts are here", "restart the node; if it stays, "+rebuild)
	}
	return j.c.handles(row)
}

// finish tests the entries that wait for something.
func (j *judge) finish(r *replay) error {
	for _, list := range j.open {
		for _, p := range list {
			j.c.sum.Open++
			if p.pin.State == store.PinDone {
				j.c.differ(Pin, fmt.Sprintf("pin %d", p.pin.Number), "done", "open: "+p.lacks(), rebuild)
			}
			if err := j.c.handles(p.pin); err != nil {
				return err
			}
			for i := range p.messages {
				if !p.messages[i].done {
					if err := j.undecided(r, p, i); err != nil {
						return err
					}
				}
			}
		}
	}
	return j.defs.finish(j.c)
}

func (p *pending) lacks() string {
	var lacks []string
	if !p.holds {
		lacks = append(lacks, "its payload is not here")
	}
	if !p.certain {
		lacks = append(lacks, "its certificate is not here")
	}
	if len(lacks) == 0 {
		return "an entry before it is open"
	}
	return strings.Join(lacks, ", ")
}

// messageRow is what a verdict is compared with.
type messageRow struct {
	id     wire.UUID
	state  string
	reason string
	tx     *wire.UUID
}

// row finds the row of a message of a batch.
func (j *judge) row(p *pending, i int) (*messageRow, error) {
	rows, err := all(j.c.tx, func(rows *store.Rows, m *messageRow) error { return rows.Scan(&m.id, &m.state, &m.reason, &m.tx) },
		`SELECT id, state, reject_reason, tx_id FROM messages
		WHERE batch = (SELECT id FROM batches WHERE root = $1 AND org = $2) AND root = $1 AND org = $2 AND idx = $3`, p.pin.Record.Pin.Pin.Root, p.pin.Record.Pin.Org, i)
	if err != nil || len(rows) != 1 {
		return nil, err // reported with the batch's content
	}
	return &rows[0], nil
}

// verdict compares a message's row and events with a verdict.
func (j *judge) verdict(r *replay, p *pending, i int, state, reason string, ordered bool) error {
	j.c.sum.Messages++
	m, err := j.row(p, i)
	if err != nil || m == nil {
		return err
	}
	where := "message " + m.id.String()
	if m.state != confirmed && m.state != rejected && j.late(r, p) {
		return nil
	}
	if m.state == confirmed && !ordered {
		n, err := count(j.c.tx, `SELECT COUNT(*) FROM incidents WHERE kind = 'overruled' AND ref = $1`, p.pin.Record.Pin.Pin.Root.String())
		if err != nil || n > 0 {
			return err // known to the operator: the ledger overruled what this node had confirmed
		}
	}
	if m.state != state {
		j.c.differ(Verdict, where, strings.TrimSpace(m.state+" "+m.reason), strings.TrimSpace(state+" "+reason), compare)
		return nil
	}
	if !strings.HasPrefix(m.reason, reason) || reason == "" && m.reason != "" {
		j.c.differ(Verdict, where, show(m.reason), show(reason), compare)
	}
	return j.events(p, &p.messages[i], state, ordered)
}

// undecided compares the row of a message that has no verdict yet.
func (j *judge) undecided(r *replay, p *pending, i int) error {
	m, err := j.row(p, i)
	if err != nil || m == nil {
		return err
	}
	if m.state == confirmed || m.state == rejected {
		j.c.differ(Verdict, "message "+m.id.String(), m.state, "undecided: "+p.lacks(), compare)
	}
	return nil
}

// eventRow is an event of a message.
type eventRow struct {
	sequence   int64
	typ        string
	topic      string
	correlator *wire.UUID
}

// events tests that a message has one event per topic, and that they stand
// behind those of what the ledger put before it. A topic that the pin does not
// name has no place on the ledger.
func (j *judge) events(p *pending, m *judged, state string, ordered bool) error {
	h := m.header
	rows, err := all(j.c.tx, func(rows *store.Rows, e *eventRow) error {
		return rows.Scan(&e.sequence, &e.typ, &e.topic, &e.correlator)
	},
		`SELECT e.sequence, e.type, e.topic, e.correlator FROM events e JOIN messages m ON m.tx_id = e.tx AND m.id = e.reference
		WHERE e.reference = $1 AND e.type IN ('message_confirmed', 'message_rejected') AND m.root = $2 AND m.org = $3 ORDER BY e.sequence`,
		h.ID, p.pin.Record.Pin.Pin.Root, p.pin.Record.Pin.Org)
	if err != nil {
		return err
	}
	where := "events of message " + h.ID.String()
	for k, topic := range h.Topics {
		ordered := ordered && slices.Contains(p.contexts, m.contexts[k])
		var of []eventRow
		for _, e := range rows {
			if e.topic == topic {
				of = append(of, e)
			}
		}
		if len(of) != 1 {
			j.c.differ(Event, where, fmt.Sprintf("%d on topic %s", len(of), topic), "one", rebuild)
		}
		for _, e := range of {
			if e.typ != "message_"+state {
				j.c.differ(Event, where, e.typ, "message_"+state, rebuild)
			}
			if cid := h.CID; (cid == nil) != (e.correlator == nil) || cid != nil && *cid != *e.correlator {
				j.c.differ(Event, where, fmt.Sprintf("correlator %v", e.correlator), fmt.Sprintf("correlator %v", cid), rebuild)
			}
			name := contextName{p.a.id, topic}
			if ordered && e.sequence < j.lastEvent[name] {
				j.c.differ(Order, where, fmt.Sprintf("event %d on topic %s", e.sequence, topic), fmt.Sprintf("after event %d, as on the ledger", j.lastEvent[name]), compare)
			}
			if ordered {
				j.lastEvent[name] = max(j.lastEvent[name], e.sequence)
			}
		}
	}
	if len(rows) > len(h.Topics) {
		for _, e := range rows {
			if !slices.Contains(h.Topics, e.topic) {
				j.c.differ(Event, where, "one on topic "+e.topic, "none: the message is not on it", rebuild)
			}
		}
	}
	return nil
}

// events tests that no event speaks of a message that has no verdict.
func (c *checker) events(*replay) error {
	type stray struct {
		sequence  int64
		typ       string
		reference *wire.UUID
	}
	_, err := each(c.tx, func(rows *store.Rows, s *stray) error { return rows.Scan(&s.sequence, &s.typ, &s.reference) },
		func(s *stray) error {
			c.differ(Event, fmt.Sprintf("event %d", s.sequence), fmt.Sprintf("%s of %v", s.typ, s.reference), "no such message, or it has no verdict", rebuild)
			return nil
		},
		`SELECT e.sequence, e.type, e.reference FROM events e WHERE e.type IN ('message_confirmed', 'message_rejected')
		AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.id = e.reference
			AND ('message_' || m.state = e.type OR m.state = 'cancelled' AND e.type = 'message_rejected')) ORDER BY e.sequence`)
	if err != nil {
		return err
	}
	n, err := count(c.tx, `SELECT COUNT(*) FROM events`)
	c.sum.Events = int(n)
	return err
}
