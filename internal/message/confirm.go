package message

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/order"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

const (
	pinPage     = 500
	arrivalPage = 2000
	maxVerdicts = 2000 // of one transaction
)

// confirmer turns pins and arrivals into verdicts (T4). It alone owns the order
// machines. They are a view of stored rows: after any failed transaction they
// are thrown away and rebuilt.
type confirmer struct {
	s        *Service
	mu       sync.Mutex // held by a step, and by who asks for blockers
	machines map[wire.Hash]*machine
	tags     map[wire.Tag]*machine   // which audience expects a tag
	open     map[wire.Entry]*machine // which audience has an open entry
	through  uint64                  // number of the last record applied
	members  uint64                  // number of the last record about members that the machines know
	behind   bool                    // there are more pins than one page
	loaded   bool

	tx  *store.Tx   // of the step that runs
	out *stepResult // of it
	err error       // of a look-up that order asked for
}

// machine is the order of one audience.
type machine struct {
	*order.Audience
	c       *confirmer
	seq     int64      // audiences.seq
	keys    *wire.Keys // of the current epoch
	batches map[wire.Entry]*openBatch
	fresh   map[wire.Hash]bool  // messages confirmed in the running step
	voted   map[wire.Entry]bool // this run has voted to skip
	looked  time.Time           // when it looked for overdue entries last
	beat    time.Time           // when it queued a heartbeat last
	applied uint64              // number of the last pin applied
	waiting bool                // wants to be told when the ledger moves
}

// openBatch is a batch with open messages.
type openBatch struct {
	row      *store.BatchRow
	messages []*store.Message
	noted    bool // its ledger event is written
}

// ConfirmStep applies what the feed and the peers brought since the last step,
// and writes every verdict that follows.
func (s *Service) ConfirmStep(ctx context.Context) (more bool, err error) {
	c := s.confirm
	c.mu.Lock()
	defer c.mu.Unlock()
	var out stepResult
	attempt := 0
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if attempt++; attempt > 1 {
			c.loaded = false // the first run changed the machines, but not the rows
		}
		out = stepResult{}
		c.tx, c.out, c.err = tx, &out, nil
		defer func() { c.tx, c.out = nil, nil }()
		return c.step()
	})
	if err != nil {
		c.loaded = false
		return false, err
	}
	if out.events > 0 {
		s.EventsCommitted()
	}
	for _, in := range out.incidents {
		s.Log.Error(in.Text, "incident", in.Kind, "ref", in.Ref)
	}
	if out.wakeBatch {
		s.Wake.Batch.Set()
	}
	if out.wakePull {
		s.Wake.Pull.Set()
	}
	if out.wakeEpoch {
		s.Wake.Epoch.Set()
	}
	if out.wakeSubmit {
		s.Wake.Submit.Set()
	}
	return out.more, nil
}

// stepResult is what a step leaves for after its commit.
type stepResult struct {
	more                                       bool
	events                                     int
	incidents                                  []store.Incident
	wakeBatch, wakePull, wakeEpoch, wakeSubmit bool
}

func (c *confirmer) step() error {
	tx, out := c.tx, c.out
	if !c.loaded {
		if err := c.load(); err != nil {
			return fmt.Errorf("load the order of the audiences: %w", err)
		}
	}
	arrivals, err := tx.Arrivals(arrivalPage)
	if err != nil {
		return err
	}
	for _, a := range arrivals { // secrets first: they may open audiences that pins wait for
		if a.What == store.ArrivedSecret {
			if err := c.secret(wire.Hash(a.Org)); err != nil {
				return err
			}
		}
	}
	touched := touched{}
	if err := c.pins(touched); err != nil {
		return err
	}
	for _, a := range arrivals {
		if err := c.arrival(a, touched); err != nil {
			return err
		}
	}
	if err := c.final(touched); err != nil {
		return err
	}
	verdicts := 0
	for _, m := range touched.inOrder() {
		if err := m.decide(&verdicts); err != nil {
			return err
		}
	}
	for _, in := range out.incidents {
		if _, err := tx.PutIncident(&in); err != nil {
			return err
		}
	}
	if c.err != nil {
		return c.err
	}
	if len(arrivals) > 0 {
		if err := tx.DropArrivals(arrivals[len(arrivals)-1].Seq); err != nil {
			return err
		}
	}
	out.more = c.behind || len(arrivals) == arrivalPage || verdicts >= maxVerdicts
	return tx.SetMeta(store.MetaConfirmed, strconv.FormatUint(c.through, 10))
}

// touched are the machines that a step has to do with.
type touched map[*machine]bool

// inOrder lists them in the order in which this node learned of them, so that
// a history of the same steps is the same history.
func (t touched) inOrder() []*machine {
	return slices.SortedFunc(maps.Keys(t), func(a, b *machine) int { return cmp.Compare(a.seq, b.seq) })
}

// load rebuilds all machines from their rows.
func (c *confirmer) load() error {
	c.machines, c.tags, c.open = map[wire.Hash]*machine{}, map[wire.Tag]*machine{}, map[wire.Entry]*machine{}
	c.through, c.members = 0, 0
	text, err := c.tx.Meta(store.MetaConfirmed)
	if err != nil {
		return err
	}
	if text != "" {
		if c.through, err = strconv.ParseUint(text, 10, 64); err != nil {
			return fmt.Errorf("%s holds %q: %w", store.MetaConfirmed, text, err)
		}
	}
	audiences, err := c.tx.Audiences()
	if err != nil {
		return err
	}
	for i := range audiences {
		if err := c.restore(&audiences[i]); err != nil {
			return fmt.Errorf("audience %s: %w", audiences[i].ID.Short(), err)
		}
	}
	c.loaded = true
	return nil
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
		st.Known = known.Position
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
	m := &machine{c: c, seq: a.Seq, batches: map[wire.Entry]*openBatch{}, fresh: map[wire.Hash]bool{}, voted: map[wire.Entry]bool{}, waiting: len(st.Entries) > 0}
	if last != nil {
		m.applied = last.Number
	}
	if m.Audience, err = order.Restore(st, view{c}, history{m}); err != nil {
		return err
	}
	c.machines[a.ID] = m
	if current.Secret != nil {
		if err := m.unlock(current.Secret.Keys()); err != nil {
			return err
		}
	}
	for _, e := range st.Entries {
		c.open[wire.Entry{Author: e.Author, Root: e.Root}] = m
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
	m.keys = &keys
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

// secret takes in a new epoch secret: of an audience that this node is invited
// to, or of an epoch that a machine is stalled at.
func (c *confirmer) secret(audience wire.Hash) error {
	m := c.machines[audience]
	if m != nil && !m.Stalled() {
		return nil
	}
	current, err := c.tx.CurrentEpoch(audience)
	if err != nil {
		return err
	}
	// This organisation was left out of an epoch and joined again with the next:
	// it goes on from there, without what was pinned between.
	again := m != nil && current != nil && current.Epoch > m.Epoch().Epoch
	if m != nil && !again {
		hash, err := m.Epoch().Hash()
		if err != nil {
			return err
		}
		e, err := c.tx.EpochByHash(hash)
		if err != nil || e == nil || e.Secret == nil {
			return err
		}
		c.out.wakeBatch = true
		m.waiting = true
		return m.unlock(e.Secret.Keys())
	}
	a, err := c.tx.AudienceByID(audience)
	if err != nil || a == nil {
		return err
	}
	delete(c.machines, audience)
	c.out.wakeBatch = true
	if err := c.restore(a); err != nil {
		return err
	}
	if m := c.machines[audience]; m != nil {
		m.waiting = true
	}
	return nil
}

// pins applies the next page of pins.
func (c *confirmer) pins(touched touched) error {
	pins, err := c.tx.PinsAfter(c.through, pinPage)
	if err != nil {
		return err
	}
	c.behind = len(pins) == pinPage
	last, err := c.tx.LastRecord()
	if err != nil || last == nil {
		return err
	}
	newest := *last
	if c.behind {
		newest = pins[len(pins)-1].Record
	}
	if members := min(c.s.Network.Through(), newest.Number); members > c.members {
		for _, m := range c.machines {
			m.expect(m.KeysChanged(newest.Position))
		}
		c.members = members
	}
	for i := range pins {
		p := &pins[i]
		m := c.tags[p.Pin.Pin.Tag]
		if m == nil || m.Stalled() {
			if err := c.foreign(p); err != nil {
				return err
			}
			continue
		}
		touched[m] = true
		if err := m.apply(p); err != nil {
			return err
		}
	}
	c.through = max(c.through, newest.Number)
	return nil
}

// foreign handles a pin that no audience here expects. If it is our own, its
// number or epoch was not current any more.
func (c *confirmer) foreign(p *store.Pin) error {
	if p.Pin.Org != c.s.Self.Org {
		return nil
	}
	sub, err := c.tx.SubmissionByTx(p.TxHash)
	if err != nil || sub == nil {
		return err
	}
	if m := c.machines[sub.Audience]; m == nil || m.Stalled() && sub.Epoch >= m.Epoch().Epoch {
		return nil // it will be found by its tag once the secret is here
	}
	return c.ownVoid(p, sub, sub.Epoch, sub.N, "its epoch had ended, or its number was out of the window")
}

// ownVoid issues again what a void pin of ours was to do. Its transaction is
// mined, so that it can have no later effect.
func (c *confirmer) ownVoid(p *store.Pin, sub *store.Submission, epoch, n uint64, reason string) error {
	if err := c.tx.SetPin(p.Number, sub.Audience, epoch, n, store.PinVoid, reason, nil); err != nil {
		return err
	}
	s := c.s
	s.Log.Warn("a pin of this node is void; it is issued again", "record", p.Number, "reason", reason)
	c.out.wakeSubmit = true
	if sub.Purpose == purposeControl {
		return c.tx.InsertSubmission(&store.Submission{Account: sub.Account, Purpose: purposeControl, Audience: sub.Audience, Call: sub.Call, State: store.SubmissionQueued, Created: s.now()})
	}
	m := c.machines[sub.Audience]
	if m != nil && m.Epoch().Epoch == sub.Epoch {
		return c.tx.SetBatchState(s.Self.Org, p.Pin.Pin.Root, store.BatchCollecting, s.now())
	}
	c.out.wakeBatch = true
	return s.dropBatch(c.tx, p.Pin.Pin.Root)
}

// dropBatch gives up a batch of ours whose pin can have no effect any more. Its
// messages are ready for another one.
func (s *Service) dropBatch(tx *store.Tx, root wire.Hash) error {
	if err := s.dropParcels(tx, root, "its pin can have no effect; the messages went into another batch"); err != nil {
		return err
	}
	if err := tx.LeaveBatch(s.Self.Org, root); err != nil {
		return err
	}
	return tx.SetBatchState(s.Self.Org, root, store.BatchDropped, s.now())
}

// dropParcels gives up what is still to be sent of a batch of ours, and ends the
// operations of it that are under way.
func (s *Service) dropParcels(tx *store.Tx, root wire.Hash, reason string) error {
	b, err := tx.BatchByRoot(s.Self.Org, root)
	if err != nil || b == nil {
		return err
	}
	ops, err := tx.OperationsOfTransaction(*b.Tx.ID)
	if err != nil {
		return err
	}
	var open []wire.UUID
	for _, op := range ops {
		if op.Status == opPending {
			open = append(open, op.ID)
		}
	}
	if _, err := tx.UpdateOperations(open, opFailed, nil, reason, s.now()); err != nil {
		return err
	}
	return tx.DropParcels(s.Self.Org, root)
}

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
	m.waiting = true
	m.c.open[wire.Entry{Author: done.Entry.Author, Root: done.Entry.Root}] = m
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
		if row.Live() {
			err = m.c.tx.SetEntry(row.Number, b)
		} else { // decided, and no vote can change that any more
			delete(m.c.open, wire.Entry{Author: row.Author, Root: row.Root})
			err = m.c.tx.ClosePin(row.Number, "", b)
		}
		if err != nil {
			return err
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

// arrival tells the machine what has come from a peer. What no machine waits
// for yet is looked up when its pin comes.
func (c *confirmer) arrival(a store.Arrival, touched touched) error {
	if a.What == store.ArrivedSecret {
		if m := c.machines[wire.Hash(a.Org)]; m != nil {
			touched[m] = true
		}
		return nil
	}
	m := c.open[wire.Entry{Author: a.Org, Root: a.Root}]
	if m == nil {
		return nil
	}
	touched[m] = true
	if a.What == store.ArrivedPayload {
		if err := m.payload(a.Org, a.Root); err != nil {
			return err
		}
	}
	return m.receipts(a.Org, a.Root)
}

// payload gives an open entry its messages, if they are here.
func (m *machine) payload(author wire.OrgID, root wire.Hash) error {
	id := wire.Entry{Author: author, Root: root}
	if m.batches[id] != nil {
		return nil
	}
	row, err := m.c.tx.BatchByRoot(author, root)
	if err != nil || row == nil || row.Audience != m.ID() {
		return err
	}
	messages, err := m.c.tx.MessagesOfBatch(root, author)
	if err != nil {
		return err
	}
	epoch, err := epochOf(m.c.tx, row.Audience, row.Epoch)
	if err != nil {
		return err
	}
	if epoch == nil {
		return fmt.Errorf("batch %s is stored, but not its epoch %d", row.ID, row.Epoch)
	}
	keys := epoch.Secret.Keys()
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
	for _, msg := range messages {
		hash, err := wire.ParseHash(string(msg.Hash))
		if err != nil {
			return err
		}
		o := order.Message{Hash: hash, Contexts: contextsOf([]*store.Message{msg}, keys), Reject: msg.RejectReason}
		if o.Reject == "" && msg.Header.Key != signer {
			o.Reject = fmt.Sprintf("the message names the key %s, but %s pinned it", msg.Header.Key, signer)
		}
		p.Messages = append(p.Messages, o)
	}
	if err := m.Payload(author, root, p); err != nil {
		return nil // decided meanwhile
	}
	m.batches[id] = &openBatch{row: row, messages: messages}
	return nil
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

// final tells the machines how far the ledger is final, once all pins up to
// there are applied.
func (c *confirmer) final(touched touched) error {
	if c.behind {
		return nil
	}
	f, err := readFinal(c.tx)
	if err != nil {
		return err
	}
	for _, m := range c.machines {
		if m.waiting {
			touched[m] = true
		}
	}
	for _, m := range touched.inOrder() {
		if err := m.effects(m.Final(f.Number, f.Time.Time())); err != nil {
			return err
		}
		if err := m.skips(f); err != nil {
			return err
		}
	}
	return nil
}

// lack is an open entry that lacks its payload or its certificate here.
type lack struct {
	entry       order.Entry
	audience    wire.Hash
	certificate bool
}

// lacking lists the open entries that were pinned before some time and lack
// something, in ledger order. What is stored of receipts would not tell: only
// order knows which count.
func (c *confirmer) lacking(before time.Time) (list []lack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.loaded {
		return nil
	}
	for _, m := range c.machines {
		for _, e := range m.Open() {
			certificate := uint32(len(e.Receipts)) < e.C
			if e.Time <= before.UnixNano() && (certificate || m.batches[wire.Entry{Author: e.Author, Root: e.Root}] == nil) {
				list = append(list, lack{e, m.ID(), certificate})
			}
		}
	}
	slices.SortFunc(list, func(a, b lack) int { return cmp.Compare(a.entry.Number, b.entry.Number) })
	return list
}

// decide pulls verdicts and writes them.
func (m *machine) decide(verdicts *int) error {
	w := writer{m: m, out: m.c.out}
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
	clear(m.fresh)
	m.waiting = m.Waiting()
	return nil
}

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

func (h history) Confirmed(message wire.Hash) bool {
	if h.m.fresh[message] {
		return true
	}
	ok, err := h.m.c.tx.MessageConfirmed(h.m.ID(), store.Hex(message.String()))
	h.m.c.note(err)
	return ok
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
	rows, err := h.m.c.tx.PastEntriesOf(h.m.ID(), author, from, limit)
	h.m.c.note(err)
	var all []order.Entry
	for _, b := range rows {
		var e order.Entry
		h.m.c.note(json.Unmarshal(b, &e))
		all = append(all, e)
	}
	return all
}

// note keeps the first error of a look-up; the step fails with it.
func (c *confirmer) note(err error) {
	if c.err == nil {
		c.err = err
	}
}
