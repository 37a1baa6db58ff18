package message

import (
	"cmp"
	"context"
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
	usualPinPage = 500
	arrivalPage  = 2000
	maxVerdicts  = 2000 // of one transaction
)

// confirmer turns pins and arrivals into verdicts (T4). It alone owns the order
// machines. They are a view of stored rows: after any failed transaction they
// are thrown away and rebuilt.
type confirmer struct {
	s        *Service
	mu       sync.Mutex // held by a step, and by who asks for blockers
	machines map[wire.Hash]*machine
	tags     map[wire.Tag]*machine     // which audience expects a tag
	waiting  map[*machine]bool         // want to be told when the ledger moves
	open     map[wire.Entry][]*machine // which audiences have an entry open: a liar can pin one batch in several
	through  uint64                    // number of the last record applied
	members  uint64                    // number of the last record about members that the machines know
	behind   bool                      // there are more pins than one page
	loaded   bool

	tx  *store.Tx   // of the step that runs
	out *stepResult // of it
	err error       // of a look-up that order asked for
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
// a history of the same steps is the same history. The network is the first:
// messages of groups may wait for its definitions.
func (t touched) inOrder() []*machine {
	return slices.SortedFunc(maps.Keys(t), func(a, b *machine) int {
		switch network := a.c.s.Network.ID; network {
		case a.ID():
			return -1
		case b.ID():
			return 1
		}
		return cmp.Compare(a.seq, b.seq)
	})
}

// load rebuilds all machines from their rows.
func (c *confirmer) load() error {
	c.machines, c.tags = map[wire.Hash]*machine{}, map[wire.Tag]*machine{}
	c.open, c.waiting = map[wire.Entry][]*machine{}, map[*machine]bool{}
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
	return c.watchExposed()
}

// watchExposed has the audiences look at the ledger's time again whose decided
// entries hold votes: members may have left, which may complete them.
func (c *confirmer) watchExposed() error {
	exposed, err := c.tx.ExposedAudiences()
	for _, id := range exposed {
		if m := c.machines[id]; m != nil {
			c.waiting[m] = true
		}
	}
	return err
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
		c.waiting[m] = true
		return m.unlock(e.Secret.Keys())
	}
	a, err := c.tx.AudienceByID(audience)
	if err != nil || a == nil {
		return err
	}
	delete(c.machines, audience)
	delete(c.waiting, m)
	c.out.wakeBatch = true
	if err := c.restore(a); err != nil {
		return err
	}
	if m := c.machines[audience]; m != nil {
		c.waiting[m] = true
	}
	return nil
}

// pins applies the next page of pins.
func (c *confirmer) pins(touched touched) error {
	pins, err := c.tx.PinsAfter(c.through, c.s.PinPage)
	if err != nil {
		return err
	}
	c.behind = len(pins) == c.s.PinPage
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
			m.expect(m.KeysChanged(behind(newest.Position)))
		}
		c.members = members
		if err := c.watchExposed(); err != nil {
			return err
		}
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
	m := c.machines[sub.Audience]
	sameEpoch := m != nil && m.Epoch().Epoch == sub.Epoch
	if sameEpoch { // whatever made it void may still hold: a transaction costs
		s.held.put(sub.Account, s.Now().Add(voidWait))
	}
	if sub.Purpose == purposeControl {
		return c.tx.InsertSubmission(&store.Submission{Account: sub.Account, Purpose: purposeControl, Audience: sub.Audience, Call: sub.Call, State: store.SubmissionQueued, Created: s.now()})
	}
	// A restored node pins once more what it does not know to be pinned.
	others, err := c.tx.PinsOfBatch(s.Self.Org, p.Pin.Pin.Root)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(others, func(o store.Pin) bool { return o.State == store.PinOpen || o.State == store.PinDone }) {
		return nil
	}
	if sameEpoch {
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
	return tx.DropBatch(s.Self.Org, root, s.now())
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

// arrival tells the machine what has come from a peer. What no machine waits
// for yet is looked up when its pin comes.
func (c *confirmer) arrival(a store.Arrival, touched touched) error {
	if a.What == store.ArrivedSecret {
		if m := c.machines[wire.Hash(a.Org)]; m != nil {
			touched[m] = true
		}
		return nil
	}
	for _, m := range c.open[wire.Entry{Author: a.Org, Root: a.Root}] {
		touched[m] = true
		if a.What == store.ArrivedPayload {
			if err := m.payload(a.Org, a.Root); err != nil {
				return err
			}
		}
		if err := m.receipts(a.Org, a.Root); err != nil {
			return err
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
	if err := c.s.restoredRead(c.tx, f.Number); err != nil {
		return err
	}
	for m := range c.waiting {
		touched[m] = true
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

// enter notes that an audience has an entry open; leave, that it has not any
// more.
func (m *machine) enter(id wire.Entry) {
	if open := m.c.open[id]; !slices.Contains(open, m) {
		m.c.open[id] = append(open, m)
	}
}

func (m *machine) leave(id wire.Entry) {
	open := slices.DeleteFunc(m.c.open[id], func(o *machine) bool { return o == m })
	if m.c.open[id] = open; len(open) == 0 {
		delete(m.c.open, id)
	}
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
	for m := range c.waiting { // so do all with open entries
		for _, e := range m.Open() {
			id := wire.Entry{Author: e.Author, Root: e.Root}
			certificate := uint32(len(e.Receipts)) < e.C
			if e.Time <= before.UnixNano() && (certificate || m.batches[id] == nil) {
				list = append(list, lack{e, m.ID(), certificate})
			}
		}
	}
	slices.SortFunc(list, func(a, b lack) int { return cmp.Compare(a.entry.Number, b.entry.Number) })
	return list
}
