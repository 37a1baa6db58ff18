package message

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/order"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// machine is the order of one audience.
type machine struct {
	*order.Audience
	c        *confirmer
	seq      int64          // audiences.seq
	keys     *wire.Keys     // of the current epoch
	reserved wire.ContextID // of definitions, once keys are known: epochs do not change it
	batches  map[wire.Entry]*openBatch
	known    map[epochMessage]*knownMessage // those of the batches
	voted    map[wire.Entry]bool            // this run has voted to skip
	looked   time.Time                      // when it looked for overdue entries last
	beat     time.Time                      // when it queued a heartbeat last
	applied  uint64                         // number of the last pin applied
}

// epochMessage is a message in an epoch: once in each it can be confirmed, since
// a member that joins with one knows nothing of those before.
type epochMessage struct {
	epoch uint64
	hash  wire.Hash
}

// knownMessage is a message of open batches. Only a lie puts one message into
// several.
type knownMessage struct {
	batches   int  // how many hold it
	confirmed bool // in one of them, or before
}

// openBatch is a batch with open messages.
type openBatch struct {
	row      *store.BatchRow
	messages []*store.Message
	hashes   []wire.Hash // of the messages
	noted    bool        // its ledger event is written
}

// restore rebuilds one machine and brings it up to the point that the others
// have reached.
func (c *confirmer) restore(a *store.Audience) error {
	epochs, err := c.tx.Epochs(a.ID)
	if err != nil {
		return err
	}
	active := activated(epochs)
	if len(active) == 0 {
		return nil // proposed to us, not current yet
	}
	st := order.State{Audience: a.ID, Group: a.Kind == store.KindGroup, Created: a.Kind == store.KindNetwork || a.Begun != nil || active[0].Epoch > 1}
	for _, e := range active {
		st.Epochs = append(st.Epochs, e.Definition)
	}
	current := active[len(active)-1]
	windows, err := c.tx.Windows(a.ID)
	if err != nil {
		return err
	}
	for _, w := range windows {
		if w.Epoch == current.Epoch {
			st.Windows = append(st.Windows, order.Window{Epoch: w.Epoch, Key: w.Key, High: w.High, Used: w.Used})
		}
	}
	last, err := c.tx.LastApplied(a.ID)
	if err != nil {
		return err
	}
	if last != nil {
		st.Through = last.Position
	}
	known, err := c.tx.RecordByNumber(c.through)
	if err != nil {
		return err
	}
	if known != nil {
		st.Known = behind(known.Position)
	}
	rows, err := c.tx.OpenEntries(a.ID)
	if err != nil {
		return err
	}
	for _, b := range rows {
		var e order.Entry
		if err := json.Unmarshal(b, &e); err != nil {
			return fmt.Errorf("stored entry: %w", err)
		}
		st.Entries = append(st.Entries, e)
	}
	m := &machine{c: c, seq: a.Seq, batches: map[wire.Entry]*openBatch{}, known: map[epochMessage]*knownMessage{}, voted: map[wire.Entry]bool{}}
	if last != nil {
		m.applied = last.Number
	}
	if m.Audience, err = order.Restore(st, view{c}, history{m}); err != nil {
		return err
	}
	c.machines[a.ID] = m
	c.setWaiting(m, len(st.Entries) > 0)
	if current.Secret != nil {
		if err := m.unlock(current.Secret.Keys()); err != nil {
			return err
		}
	}
	for _, e := range st.Entries {
		m.enter(wire.Entry{Author: e.Author, Root: e.Root})
		if e.Status == order.Open {
			if err := m.payload(e.Author, e.Root); err != nil {
				return err
			}
			if err := m.receipts(e.Author, e.Root); err != nil {
				return err
			}
		}
	}
	return c.err
}

// activated are the epochs of an audience that are or were current. A group
// that is not on the ledger yet has its first.
func activated(epochs []store.Epoch) []store.Epoch {
	var active []store.Epoch
	for _, e := range epochs {
		if e.Activated != nil || e.Epoch == 1 {
			active = append(active, e)
		}
	}
	return active
}

func (m *machine) unlock(keys wire.Keys) error {
	change, err := m.Unlock(keys)
	if err != nil {
		return err
	}
	m.keys, m.reserved = &keys, keys.Context(definitionTopic)
	m.expect(change)
	return m.catchUp()
}

// expect keeps the map of expected tags.
func (m *machine) expect(t order.Tags) {
	for _, tag := range t.Removed {
		delete(m.c.tags, tag)
	}
	for _, tag := range t.Added {
		m.c.tags[tag] = m
	}
}

// catchUp finds pins that were read before this node knew the audience's
// secret, by their tags, and applies them in ledger order.
func (m *machine) catchUp() error {
	for !m.Stalled() {
		pins, err := m.c.tx.PinsByTag(m.applied, m.Expected())
		if err != nil {
			return err
		}
		if len(pins) == 0 || pins[0].Number > m.c.through {
			return nil // the rest comes with the feed
		}
		// Only the first is sure to be next: it may bring new expected tags.
		if err := m.apply(&pins[0]); err != nil {
			return err
		}
	}
	return nil
}

// behind is the position after one: there a record at it counts.
func behind(p wire.Position) wire.Position { return wire.Position{Block: p.Block, Log: p.Log + 1} }

// apply applies a pin to its audience and stores what it did.
func (m *machine) apply(p *store.Pin) error {
	tx := m.c.tx
	done, err := m.Apply(order.Pin{Number: p.Number, Position: p.Position, Time: p.BlockTime.Time(), Key: p.Signer, Org: p.Pin.Org, Pin: p.Pin.Pin})
	if err != nil {
		return err
	}
	m.applied = p.Number
	m.expect(done.Tags)
	if done.Void != "" {
		if p.Pin.Org == m.c.s.Self.Org {
			if sub, err := tx.SubmissionByTx(p.TxHash); err != nil {
				return err
			} else if sub != nil {
				return m.c.ownVoid(p, sub, done.Epoch, done.N, done.Void)
			}
		}
		return tx.SetPin(p.Number, m.ID(), done.Epoch, done.N, store.PinVoid, done.Void, nil)
	}
	state, row := store.PinControl, []byte(nil)
	switch {
	case done.Entry != nil:
		state = store.PinOpen
		if row, err = entryRow(*done.Entry); err != nil {
			return err
		}
	case done.Duplicate:
		state = store.PinDuplicate
	}
	if err := tx.SetPin(p.Number, m.ID(), done.Epoch, done.N, state, "", row); err != nil {
		return err
	}
	w := done.Window
	if err := tx.PutWindow(m.ID(), store.Window{Epoch: w.Epoch, Key: w.Key, High: w.High, Used: w.Used}); err != nil {
		return err
	}
	if done.Created {
		if err := tx.BeginAudience(m.ID(), p.Number); err != nil {
			return err
		}
	}
	if err := m.effects(done.Effects); err != nil {
		return err
	}
	if done.Activated != nil {
		if err := m.activate(p, *done.Activated); err != nil {
			return err
		}
	}
	if done.Entry == nil {
		return nil
	}
	m.c.waiting[m] = true
	m.enter(wire.Entry{Author: done.Entry.Author, Root: done.Entry.Root})
	if err := m.payload(done.Entry.Author, done.Entry.Root); err != nil {
		return err
	}
	return m.receipts(done.Entry.Author, done.Entry.Root)
}

// entryRow is the stored form of an entry. The payload is left out: it is read
// from the messages again.
func entryRow(e order.Entry) ([]byte, error) {
	e.Payload = nil
	return json.Marshal(e)
}

// activate makes a new epoch the audience's current one.
func (m *machine) activate(p *store.Pin, d wire.EpochDefinition) error {
	tx, out := m.c.tx, m.c.out
	hash, err := d.Hash()
	if err != nil {
		return err
	}
	number := int64(p.Number)
	if err := tx.PutEpoch(&store.Epoch{Audience: m.ID(), Epoch: d.Epoch, Hash: hash, Definition: d, Activated: &number}); err != nil {
		return err
	}
	if err := m.endEpoch(d.Epoch); err != nil {
		return err
	}
	out.wakeEpoch, out.wakeBatch, out.wakePull = true, true, true
	m.keys = nil
	e, err := tx.EpochByHash(hash)
	if err != nil {
		return err
	}
	if e.Secret == nil {
		return nil // stalled until it is pulled
	}
	change, err := m.Unlock(e.Secret.Keys())
	if err != nil {
		return err
	}
	keys := e.Secret.Keys()
	m.keys = &keys
	m.expect(change)
	return nil
}

// endEpoch gives up what was sealed before an epoch and is not pinned: from now
// on its pin would be void. The authors, we among them, put the messages into
// other batches.
func (m *machine) endEpoch(next uint64) error {
	tx, s := m.c.tx, m.c.s
	if err := tx.ForgetUnpinned(m.ID(), next); err != nil {
		return err
	}
	own, err := tx.OwnBatches(store.BatchCollecting) // no pin of these is on its way
	if err != nil {
		return err
	}
	for i := range own {
		if b := &own[i]; b.Audience == m.ID() && b.Epoch < next {
			if err := s.dropBatch(tx, b.Root); err != nil {
				return err
			}
		}
	}
	return nil
}

// effects stores what a step changed in other entries.
func (m *machine) effects(e order.Effects) error {
	for _, row := range e.Changed {
		b, err := entryRow(row)
		if err != nil {
			return err
		}
		id := wire.Entry{Author: row.Author, Root: row.Root}
		if row.Live() {
			m.enter(id)
			err = m.c.tx.SetEntry(row.Number, b)
		} else { // decided, and its votes do not suffice
			m.leave(id)
			err = m.c.tx.ClosePin(row.Number, "", b, row.Exposed())
		}
		if err != nil {
			return err
		}
	}
	for _, v := range e.Votes {
		if v.Org == m.c.s.Self.Org {
			if err := m.c.s.ownVote(m.c.tx, m.ID(), v.Entry); err != nil {
				return err
			}
		}
	}
	for _, in := range e.Incidents {
		m.c.out.incidents = append(m.c.out.incidents, store.Incident{
			At: m.c.s.now(), Kind: "double_statement", Ref: in.Entry.Root.String() + in.Org.String(),
			Text: fmt.Sprintf("%s signed a receipt for batch %s and also voted that it cannot get it; the two signatures prove the lie", in.Org.Short(), in.Entry.Root.Short()),
		})
	}
	for _, entry := range e.Contested {
		if err := m.pinCertificate(entry); err != nil {
			return err
		}
	}
	return nil
}

// pinCertificate has the certificate of an entry pinned before a skip of it
// takes effect.
func (m *machine) pinCertificate(entry wire.Entry) error {
	c, err := certificate(m.c.tx, entry.Author, entry.Root)
	if err != nil || c == nil {
		return err
	}
	return m.queue(wire.Control{Certificates: []wire.Certificate{*c}})
}

// queue has a control pinned in this audience.
func (m *machine) queue(c wire.Control) error {
	call, err := wire.Marshal(c)
	if err != nil {
		return err
	}
	m.c.out.wakeSubmit = true
	s := m.c.s
	return m.c.tx.InsertSubmission(&store.Submission{Account: s.Self.Key, Purpose: purposeControl, Audience: m.ID(), Call: call, State: store.SubmissionQueued, Created: s.now()})
}

// payload gives an open entry its messages, if they are here.
func (m *machine) payload(author wire.OrgID, root wire.Hash) error {
	id := wire.Entry{Author: author, Root: root}
	if m.batches[id] != nil {
		return nil
	}
	state, err := m.c.tx.BatchState(author, root)
	if err != nil || state == "" {
		return err
	}
	var c *content
	if state != store.BatchDropped { // a dropped one's messages have gone into another
		c = m.c.s.recent.takeBatch(id)
	}
	if c == nil {
		if c, err = m.read(author, root); err != nil {
			return err
		}
	}
	row, messages := c.row, c.messages
	if row.Audience != m.ID() {
		return nil
	}
	epoch, err := epochOf(m.c.tx, row.Audience, row.Epoch)
	if err != nil {
		return err
	}
	if epoch == nil {
		return fmt.Errorf("batch %s is stored, but not its epoch %d", row.ID, row.Epoch)
	}
	contextOf := remembered(epoch.Secret.Keys().Context)
	var p order.Payload
	signer := ""
	if e, ok := m.Entry(author, root); ok {
		pin, err := m.c.tx.PinByNumber(e.Number)
		if err != nil {
			return err
		}
		signer = pin.Signer.String()
		if e.Epoch != row.Epoch {
			p.Reject = fmt.Sprintf("the batch was sealed in epoch %d and pinned in epoch %d", row.Epoch, e.Epoch)
		}
		if err := m.c.tx.NameHandles(e.Number, row.ID); err != nil {
			return err
		}
	}
	before, err := m.c.tx.ConfirmedBefore(m.ID(), row.Epoch, messages)
	if err != nil {
		return err
	}
	for _, msg := range messages {
		hash, err := wire.ParseHash(string(msg.Hash))
		if err != nil {
			return err
		}
		o := order.Message{Hash: hash, Contexts: contextsOf(msg.Header.Topics, contextOf), Reject: msg.RejectReason, AfterDefinitions: identity.IsCustomDID(msg.Header.Author)}
		if o.Reject == "" && msg.Header.Key != signer {
			o.Reject = fmt.Sprintf("the message names the key %s, but %s pinned it", msg.Header.Key, signer)
		}
		p.Messages = append(p.Messages, o)
	}
	if err := m.Payload(author, root, p); err != nil {
		return nil // decided meanwhile
	}
	b := &openBatch{row: row, messages: messages, hashes: make([]wire.Hash, len(messages))}
	for i, msg := range messages {
		hash := p.Messages[i].Hash
		b.hashes[i] = hash
		k := epochMessage{row.Epoch, hash}
		if m.known[k] == nil {
			m.known[k] = &knownMessage{confirmed: slices.Contains(before, msg.Hash)}
		}
		m.known[k].batches++
	}
	m.batches[id] = b
	return nil
}

// read reads a batch with its messages.
func (m *machine) read(author wire.OrgID, root wire.Hash) (*content, error) {
	row, err := m.c.tx.BatchByRoot(author, root)
	if err != nil {
		return nil, err
	}
	messages, err := m.c.tx.MessagesOfBatch(root, author)
	return &content{row, messages}, err
}

// remembered computes each context of a batch once.
func remembered(context func(topic string) wire.ContextID) func(topic string) wire.ContextID {
	known := map[string]wire.ContextID{}
	return func(topic string) wire.ContextID {
		c, ok := known[topic]
		if !ok {
			c = context(topic)
			known[topic] = c
		}
		return c
	}
}

// close forgets a batch whose messages are all decided.
func (m *machine) close(id wire.Entry) {
	b := m.batches[id]
	for _, hash := range b.hashes {
		k := epochMessage{b.row.Epoch, hash}
		if m.known[k].batches--; m.known[k].batches == 0 {
			delete(m.known, k)
		}
	}
	delete(m.batches, id)
}

// receipts gives an open entry the receipts that are here.
func (m *machine) receipts(author wire.OrgID, root wire.Hash) error {
	rs, err := m.c.tx.Receipts(author, root)
	if err != nil {
		return err
	}
	for _, r := range rs {
		o := m.Receipt(r)
		if !o.Counts && !o.Later {
			m.c.s.Log.Warn("a receipt does not count", "org", r.Org.Short(), "root", root.Short(), "reason", o.Why)
		}
		if err := m.effects(order.Effects{Incidents: o.Incidents}); err != nil {
			return err
		}
		if o.Contested {
			if err := m.pinCertificate(wire.Entry{Author: author, Root: root}); err != nil {
				return err
			}
		}
	}
	return nil
}

// setWaiting keeps the set of machines that want to know when the ledger moves.
func (c *confirmer) setWaiting(m *machine, waiting bool) {
	if waiting {
		c.waiting[m] = true
	} else {
		delete(c.waiting, m)
	}
}

// decide pulls verdicts and writes them.
func (m *machine) decide(verdicts *int) error {
	w := writer{m: m, out: m.c.out, entries: map[uint64]order.Entry{}}
	for *verdicts < maxVerdicts {
		v, ok := m.Next()
		if !ok {
			break
		}
		*verdicts++
		if err := w.verdict(v); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	m.c.setWaiting(m, m.Waiting())
	return nil
}
