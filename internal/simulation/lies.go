package simulation

import (
	"bytes"
	"crypto/rand"
	"slices"

	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Kinds of request between nodes that a liar meddles with.
const (
	payloads    = "payload"
	activations = "activated"
)

// lies are what a member does at present that its node's code would not. Its
// node is the same as everybody's; it is lied around it.
type lies struct {
	withhold bool // pins, but gives the payload to as few as suffice, or to nobody
	alter    bool // sends other bytes
	forge    bool // answers with receipts that do not hold
	hollow   bool // receipts what it throws away
}

// lie lets the liar begin or end a kind of lie, or do something once.
func (w *world) lie() bool {
	liars := some(w.running(), func(m *member) bool { return m.liar && m.belongs && !m.away })
	if len(liars) == 0 {
		return false
	}
	m := liars[0]
	l := &m.lies
	toggles := []struct {
		name string
		on   *bool
	}{
		{"withholds payloads", &l.withhold}, {"alters payloads", &l.alter}, {"forges receipts", &l.forge}, {"receipts what it throws away", &l.hollow},
	}
	switch n := w.rng.IntN(10); {
	case n < 4:
		t := toggles[n]
		*t.on = !*t.on
		w.tell(m.name, "LIES: %s: %v", t.name, *t.on)
	case n == 4:
		return w.junkPin(m, "a payload that does not exist", nil)
	case n == 5:
		return w.pinAgain(m)
	case n == 6:
		return w.junkPin(m, "garbage as its control", []byte("no sealed control"))
	case n == 7:
		return w.badHandles(m)
	default:
		return w.doubleStatement(m)
	}
	w.story.count("lie")
	return true
}

// falsify is the liar's hand on its own requests and answers.
func (w *world) falsify(m local.Message) (body []byte, err error, lied bool) {
	from := w.named(m.From)
	if from == nil || !from.liar || from.proc == nil {
		return nil, nil, false
	}
	l := &from.lies
	switch {
	case m.Kind == payloads && !m.Answer && l.withhold && w.named(m.To).index%2 == 0,
		m.Kind == local.KindFetch && l.withhold:
		w.tell(m.From, "LIES: withholds a payload from %s", m.To)
		return nil, errAstray, true
	case m.Kind == payloads && !m.Answer && l.alter:
		w.tell(m.From, "LIES: sends %s other bytes", m.To)
		body = bytes.Clone(m.Body)
		body[len(body)-1-w.rng.IntN(min(64, len(body)))] ^= 1
		return body, nil, true
	case m.Kind == activations && !m.Answer && l.alter:
		var a wire.Activated
		others := some(w.members, func(o *member) bool { return o.founder && o.belongs && !o.away })
		if wire.Unmarshal(m.Body, &a) != nil || a.Pin < 2 || len(others) < 3 {
			return nil, nil, false // of two, one that lies is no minority
		}
		a.Pin = 1 + uint64(w.rng.IntN(int(a.Pin)-1))
		w.tell(m.From, "LIES: tells %s that record %d activated the epoch", m.To, a.Pin)
		body, err = wire.Marshal(a)
		return body, err, true
	case m.Kind == payloads && m.Answer && l.forge:
		w.tell(m.From, "LIES: forges a receipt for %s", m.To)
		var r wire.Receipt
		if wire.Unmarshal(m.Body, &r) != nil {
			return nil, nil, false
		}
		if w.chance(500) {
			r.Org = w.named(m.To).org // in another's name
		} else {
			r.Epoch++
		}
		body, err = wire.Marshal(r)
		return body, err, true
	}
	return nil, nil, false
}

// answer is what a liar says without asking its node.
func (l *lies) answer(p *process, from wire.OrgID, kind string, body []byte) (answer []byte, lied bool) {
	if !l.hollow || kind != payloads {
		return nil, false
	}
	w, m := p.w, p.m
	var env wire.Envelope
	if wire.Unmarshal(body, &env) != nil {
		return nil, false
	}
	r := wire.Receipt{Version: wire.Version, Network: w.network, Org: m.org, Author: env.Author, Audience: env.Audience, Epoch: env.Epoch, Root: env.Root}
	m.read(func(tx *store.Tx) error {
		last, err := tx.LastRecord()
		if last != nil {
			r.RecentBlock, r.RecentNumber = last.BlockHash, last.Position.Block
		}
		return err
	})
	digest, err := r.Digest()
	w.must(err)
	r.Signature, err = m.keys.Sign(background, m.self.Key, digest, "lie")
	w.must(err)
	answer, err = wire.Marshal(r)
	w.must(err)
	w.tell(m.name, "LIES: receipts %s and throws it away", env.Root.Short())
	return answer, true
}

// epochs of the liar's audiences that it can pin in.
func (m *member) currentEpochs() (list []*store.Epoch) {
	m.read(func(tx *store.Tx) error {
		audiences, err := tx.Audiences()
		if err != nil {
			return err
		}
		for _, a := range audiences {
			e, err := tx.CurrentEpoch(a.ID)
			if err != nil {
				return err
			}
			if e != nil && e.Secret != nil && e.Definition.Has(m.org) && (a.Kind == store.KindNetwork || a.Begun != nil) {
				list = append(list, e)
			}
		}
		return nil
	})
	return list
}

// sneak has the liar's own node sign and send a pin that it did not make.
func (m *member) sneak(e *store.Epoch, make func(keys wire.Keys, n uint64) (wire.Pin, error)) bool {
	p := m.proc
	var pin wire.Pin
	err := p.db.Write(p.ctx, func(tx *store.Tx) error {
		n, err := tx.NextNumber(e.Audience, e.Epoch, m.self.Key)
		if err != nil {
			return err
		}
		if pin, err = make(e.Secret.Keys(), n); err != nil {
			return err
		}
		call, err := wire.Marshal(pin)
		if err != nil {
			return err
		}
		if err := tx.TakeNumber(e.Audience, e.Epoch, m.self.Key, n); err != nil {
			return err
		}
		return tx.InsertSubmission(&store.Submission{
			Account: m.self.Key, Purpose: "pin", Root: pin.Root, Audience: e.Audience, Epoch: e.Epoch, N: n, Call: call, State: store.SubmissionQueued, Created: store.At(m.w.now),
		})
	})
	if err != nil {
		m.w.tell(m.name, "fails to lie: %v", err)
		return false
	}
	m.w.story.count("lie")
	return true
}

// randomRoot is of nothing.
func randomRoot() (h wire.Hash) {
	_, _ = rand.Read(h[:]) // never fails
	return h
}

// handlesOf masks the contexts of some topics as a pin must.
func handlesOf(keys wire.Keys, key wire.Address, n uint64, root wire.Hash, topics []string) (handles []wire.Handle) {
	var contexts []wire.ContextID
	for _, t := range topics {
		contexts = append(contexts, keys.Context(t))
	}
	slices.SortFunc(contexts, func(a, b wire.ContextID) int { return slices.Compare(a[:], b[:]) })
	for i, c := range contexts {
		handles = append(handles, keys.MaskHandle(key, n, root, i, c))
	}
	return handles
}

// junkPin pins a batch that nobody can ever get.
func (w *world) junkPin(m *member, what string, control []byte) bool {
	epochs := m.currentEpochs()
	if len(epochs) == 0 {
		return false
	}
	e, root := pick(w, epochs), randomRoot()
	w.tell(m.name, "LIES: pins %s (%s)", what, root.Short())
	return m.sneak(e, func(keys wire.Keys, n uint64) (wire.Pin, error) {
		return wire.Pin{Root: root, Tag: keys.PinTag(m.self.Key, n), Handles: handlesOf(keys, m.self.Key, n, root, topics[:2]), Control: control}, nil
	})
}

// badHandles pins with contexts in the wrong order.
func (w *world) badHandles(m *member) bool {
	epochs := m.currentEpochs()
	if len(epochs) == 0 {
		return false
	}
	e, root := pick(w, epochs), randomRoot()
	w.tell(m.name, "LIES: pins %s with handles out of order", root.Short())
	return m.sneak(e, func(keys wire.Keys, n uint64) (wire.Pin, error) {
		h := handlesOf(keys, m.self.Key, n, root, topics[:2])
		slices.Reverse(h)
		return wire.Pin{Root: root, Tag: keys.PinTag(m.self.Key, n), Handles: h}, nil
	})
}

// pinAgain pins a batch that is pinned already: its own with the very contexts
// that it has, or another's.
func (w *world) pinAgain(m *member) bool {
	epochs, roots := m.currentEpochs(), w.pins.roots()
	if len(epochs) == 0 || len(roots) == 0 {
		return false
	}
	e, root, in := pick(w, epochs), pick(w, roots), topics[:1]
	if w.chance(700) {
		if root, in = m.ownBatch(e); in == nil {
			return false
		}
	}
	w.tell(m.name, "LIES: pins %s, which is pinned already", root.Short())
	return m.sneak(e, func(keys wire.Keys, n uint64) (wire.Pin, error) {
		return wire.Pin{Root: root, Tag: keys.PinTag(m.self.Key, n), Handles: handlesOf(keys, m.self.Key, n, root, in)}, nil
	})
}

// ownBatch is one that the member has sealed in an epoch, with its topics.
func (m *member) ownBatch(e *store.Epoch) (root wire.Hash, in []string) {
	m.read(func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT root FROM batches WHERE own AND audience = $1 AND epoch = $2 AND tx_type <> 'unpinned' ORDER BY seq`, e.Audience, int64(e.Epoch))
		if err != nil {
			return err
		}
		defer rows.Close()
		var roots []wire.Hash
		for rows.Next() {
			if err := rows.Scan(&root); err != nil {
				return err
			}
			roots = append(roots, root)
		}
		if err := rows.Err(); err != nil || len(roots) == 0 {
			return err
		}
		root = pick(m.w, roots)
		messages, err := tx.MessagesOfBatch(root, m.org)
		for _, msg := range messages {
			for _, t := range msg.Header.Topics {
				if !slices.Contains(in, t) {
					in = append(in, t)
				}
			}
		}
		return err
	})
	return root, in
}

// doubleStatement votes against an entry of somebody else, also one that it has
// receipted itself, or that has its verdict.
func (w *world) doubleStatement(m *member) bool {
	epochs := m.currentEpochs()
	if len(epochs) == 0 {
		return false
	}
	e := pick(w, epochs)
	var pinned []wire.Entry
	m.read(func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT org, root FROM pins WHERE audience = $1 AND state IN ('open', 'done') AND org <> $2 ORDER BY number DESC LIMIT 6`, e.Audience, m.org)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id wire.Entry
			if err := rows.Scan(&id.Author, &id.Root); err != nil {
				return err
			}
			pinned = append(pinned, id)
		}
		return rows.Err()
	})
	if len(pinned) == 0 {
		return false
	}
	against := pick(w, pinned)
	w.tell(m.name, "LIES: votes against %s", against.Root.Short())
	return m.sneak(e, func(keys wire.Keys, n uint64) (wire.Pin, error) {
		pin := wire.Pin{Tag: keys.PinTag(m.self.Key, n)}
		var err error
		pin.Control, err = keys.SealControl(wire.Control{Votes: []wire.Vote{{Entries: []wire.Entry{against}}}}, m.self.Key, n, wire.Hash{}, nil)
		return pin, err
	})
}
