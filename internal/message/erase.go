package message

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/order"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// The unit of erasure is a data item: its value, its blob and its seed are
// destroyed wherever this node keeps them. The message header stays, with the
// commitment, which tells nothing without the seed; so do the batch's place on
// the ledger, its receipts, and every proof that builds on them.

// EraseInput says why something is erased.
type EraseInput struct {
	Reason     string `json:"reason"`
	Author     string `json:"author,omitempty"`     // who wants it; the organisation if empty
	Recipients bool   `json:"recipients,omitempty"` // ask the other members to erase it as well; for messages of ours
	DryRun     bool   `json:"dryRun,omitempty"`     // only count
}

// Codes of refusals to erase.
const (
	codeUndecided   = "FF90021"
	codeDefinition  = "FF90022"
	codeUnproved    = "FF90023"
	codeUndelivered = "FF90024"
	codeNothing     = "FF90025"
	codeNotOurs     = "FF90026"
	codeShared      = "FF90027"
)

// EraseMessage erases the data of a message, also where other messages carry the
// same items. What is erased already is no error: the result is then the erasure
// that did it.
func (s *Service) EraseMessage(ctx context.Context, id wire.UUID, in EraseInput) (*store.Erasure, error) {
	return s.eraseFor(ctx, in, func(tx *store.Tx) (data []int64, before *wire.UUID, err error) {
		m, err := store.Optional(tx.MessageByID(s.Namespace, id))
		if err != nil {
			return nil, nil, err
		}
		if m == nil {
			return nil, nil, errs.NoSuch("message", id.String())
		}
		items, err := tx.DataOfMessages([]int64{m.Seq})
		return unerased(items[m.Seq]), m.Erasure, err
	})
}

// EraseData erases one data item, in whatever messages it is.
func (s *Service) EraseData(ctx context.Context, id wire.UUID, in EraseInput) (*store.Erasure, error) {
	return s.eraseFor(ctx, in, func(tx *store.Tx) (data []int64, before *wire.UUID, err error) {
		items, err := tx.DataWithID(s.Namespace, id)
		if err != nil {
			return nil, nil, err
		}
		if len(items) == 0 {
			return nil, nil, errs.NoSuch("data", id.String())
		}
		return unerased(items), items[len(items)-1].Erasure, nil
	})
}

// DeleteData removes a data item that was never sent, and erases one that was, if
// the caller may.
func (s *Service) DeleteData(ctx context.Context, id wire.UUID, author string, mayErase func() error) error {
	deleted := false
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		deleted = false
		items, err := tx.DataWithID(s.Namespace, id)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			return errs.New("FF10143", 404, "There is no data %s", id)
		}
		n, err := tx.DeleteUnsent(s.Namespace, id)
		if err != nil {
			return err
		}
		if deleted = int(n) == len(items); !deleted {
			return nil
		}
		return s.releaseBlobs(tx, items)
	})
	if err != nil {
		return err
	}
	if deleted {
		s.keeping.scrubLater()
		s.Wake.Retention.Set()
		return nil
	}
	if err := mayErase(); err != nil {
		return err
	}
	_, err = s.EraseData(ctx, id, EraseInput{Reason: "DELETE data/" + id.String(), Author: author})
	return err
}

func unerased(items []*store.Data) (seqs []int64) {
	for _, d := range items {
		if d.Erasure == nil {
			seqs = append(seqs, d.Seq)
		}
	}
	return seqs
}

// eraseFor is erase for an application. find names the data, or the erasure that
// took it before.
func (s *Service) eraseFor(ctx context.Context, in EraseInput, find func(*store.Tx) ([]int64, *wire.UUID, error)) (*store.Erasure, error) {
	if err := checkReason(in.Reason); err != nil {
		return nil, err
	}
	var data []int64
	var before *wire.UUID
	if err := s.DB.Read(ctx, func(tx *store.Tx) (err error) { data, before, err = find(tx); return err }); err != nil {
		return nil, err
	}
	if len(data) == 0 {
		if before == nil {
			return nil, errs.Conflict(codeNothing, "there is no data that could be erased")
		}
		done, err := store.Get(ctx, s.DB, store.Erasures, s.Namespace, before.String())
		return &done, err
	}
	return s.erase(ctx, eraseOrder{source: store.ErasedByOperator, author: s.person(in.Author), reason: in.Reason, recipients: in.Recipients, dry: in.DryRun}, data)
}

// eraseOrder is an erasure to be done.
type eraseOrder struct {
	source, origin, author, reason string
	recipients, dry                bool
	request                        *store.ErasureRequest // of another member, which this fulfils
}

// erasePlan is what an erasure will change, as it was when it was planned.
type erasePlan struct {
	data     []*store.Data
	messages []*store.Message // that carry any of it
	batches  []*eraseBatch    // that hold any of it
}

// eraseBatch is a batch that becomes a remnant.
type eraseBatch struct {
	row     *store.BatchRow
	epoch   *store.Epoch
	remnant *wire.Remnant
	items   []wire.Hash // commitments of what is to be erased of it
	stored  []byte      // its new envelope
	entry   []byte      // order.Entry as stored, if it was decided by order
}

// erase destroys data items, by sequence number. All of it is one transaction:
// rows, batches, parcels, the record of who and why, events, requests to others.
// Files of blobs and the database's log are cleaned after it by RetentionStep.
func (s *Service) erase(ctx context.Context, o eraseOrder, data []int64) (*store.Erasure, error) {
	// One at a time: what is planned here still holds when it is written.
	s.keeping.erasing.Lock()
	defer s.keeping.erasing.Unlock()
	plan, err := s.planErasure(ctx, o, data)
	if err != nil {
		return nil, err
	}
	done := &store.Erasure{
		ID: s.NewID(), Namespace: s.Namespace, Source: o.source, Origin: o.origin, Author: o.author, Reason: o.reason, Created: s.now(),
		Messages: int64(len(plan.messages)), Data: int64(len(plan.data)),
	}
	requests, peers, err := s.requestsFor(ctx, o, plan, done)
	if err != nil || o.dry {
		return done, err
	}
	answer, err := s.answerFor(ctx, o.request, done)
	if err != nil {
		return nil, err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if err := s.stillErasable(tx, plan); err != nil {
			return err
		}
		if err := s.writeErasure(tx, plan, done); err != nil {
			return err
		}
		if err := s.sendRequests(tx, requests, done); err != nil {
			return err
		}
		return s.giveAnswer(tx, answer)
	})
	if err != nil {
		return nil, err
	}
	s.EventsCommitted()
	s.wakePeers(peers)
	if o.request != nil {
		s.wakePeers([]wire.OrgID{o.request.Org})
	}
	s.keeping.scrubLater()
	s.Wake.Retention.Set()
	return done, nil
}

// planErasure finds all that holds the data, refuses what must be kept, and makes
// the remnants.
func (s *Service) planErasure(ctx context.Context, o eraseOrder, data []int64) (*erasePlan, error) {
	p := &erasePlan{}
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if p.data, err = tx.DataBySeq(data); err != nil {
			return err
		}
		if p.messages, err = tx.CarriersOf(data); err != nil {
			return err
		}
		if err := s.mayErase(tx, o, p.messages); err != nil {
			return err
		}
		p.batches, err = s.batchesToErase(tx, p.messages)
		return err
	})
	if err != nil {
		return nil, err
	}
	gone := map[wire.Hash]bool{}
	for _, d := range p.data {
		gone[d.Commitment] = true
	}
	for _, b := range p.batches {
		if b.remnant, err = s.contentOf(b.row, b.epoch); err != nil {
			return nil, err
		}
		b.items = itemsOf(b.remnant, gone)
		if err := s.proveLater(ctx, b); err != nil {
			return nil, err
		}
		b.remnant.Erase(b.items)
		if b.stored, err = sealRemnant(b.row, b.epoch, b.remnant); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// mayErase refuses what must be kept.
func (s *Service) mayErase(tx *store.Tx, o eraseOrder, messages []*store.Message) error {
	holds, err := tx.HoldsInForce(s.Namespace)
	if err != nil {
		return err
	}
	ours := false
	for _, m := range messages {
		ours = ours || m.Org == s.Self.Org
		if h := s.holdOn(holds, m); h != nil {
			return held(m, h)
		}
		switch {
		case m.Header.Type == TypeDefinition:
			return errs.Conflict(codeDefinition, "message %s is a definition, which all members need to read what names it: it cannot be erased", m.Header.ID)
		case m.State != StateConfirmed && m.State != StateRejected && m.State != StateCancelled:
			return errs.Conflict(codeUndecided, "message %s is %s: its data can be erased once it is confirmed or rejected", m.Header.ID, m.State)
		case o.request != nil && m.Org != o.request.Org:
			return errs.Conflict(codeShared, "message %s of another author carries the same data", m.Header.ID)
		}
	}
	if o.recipients && !ours {
		return errs.BadRequest(codeNotOurs, "field %q is true, and none of the messages is of this organisation: only their author can ask other members to erase them", "recipients")
	}
	return nil
}

// batchesToErase are the batches that the messages are in.
func (s *Service) batchesToErase(tx *store.Tx, messages []*store.Message) (batches []*eraseBatch, err error) {
	seen := map[wire.Entry]bool{}
	for _, m := range messages {
		if m.Root == nil || seen[wire.Entry{Author: m.Org, Root: *m.Root}] {
			continue // one that no member would take has no batch
		}
		seen[wire.Entry{Author: m.Org, Root: *m.Root}] = true
		b := &eraseBatch{}
		if b.row, err = tx.BatchByRoot(m.Org, *m.Root); err != nil {
			return nil, err
		}
		if b.row == nil {
			return nil, fmt.Errorf("message %s is in a batch %s that is not stored", m.Header.ID, m.Root.Short())
		}
		if b.epoch, err = epochOf(tx, b.row.Audience, b.row.Epoch); err != nil {
			return nil, err
		}
		if b.epoch == nil {
			return nil, fmt.Errorf("batch %s is of epoch %d, whose secret is not stored", b.row.ID, b.row.Epoch)
		}
		if b.row.Tx.Type == TxUnpinned {
			if err := s.undelivered(tx, b.row); err != nil {
				return nil, err
			}
		} else if b.entry, err = tx.PastEntry(b.row.Audience, b.row.Org, b.row.Root); err != nil {
			return nil, err
		}
		if b.row.State != store.BatchDone && b.row.State != store.BatchCancelled {
			return nil, errs.Conflict(codeUndecided, "message %s is in a batch of which other messages have no verdict yet: its data can be erased when they have", m.Header.ID)
		}
		batches = append(batches, b)
	}
	return batches, nil
}

// undelivered refuses to erase an unpinned batch that a member has yet to get:
// the next one of the chain names it.
func (s *Service) undelivered(tx *store.Tx, b *store.BatchRow) error {
	peers, err := tx.PeersToGet(b.Org, b.Root, kindUnpinned)
	if err != nil || len(peers) == 0 {
		return err
	}
	var names []string
	for _, p := range peers {
		name, err := s.nameOf(tx, p)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	return errs.Conflict(codeUndelivered, "unpinned batch %s has yet to reach %s: unpinned messages reach a member in one chain, and can be erased when it has them", b.ID, strings.Join(names, ", "))
}

// proveLater puts the proof into a remnant by which a member that has not got the
// batch yet will judge it: enough members must have said, in their receipts, the
// same about whether the messages conform to their datatypes. An honest author
// pins with such receipts. Without them nothing is erased.
func (s *Service) proveLater(ctx context.Context, b *eraseBatch) error {
	if b.entry == nil {
		return nil // unpinned or cancelled: nobody judges it later
	}
	var e order.Entry
	if err := json.Unmarshal(b.entry, &e); err != nil {
		return fmt.Errorf("stored entry of batch %s: %w", b.row.ID, err)
	}
	if e.Status == order.Skipped {
		return nil
	}
	if len(b.remnant.Receipts) > 0 || e.C == 0 {
		return nil // something of it was erased before, or there is nobody to ask
	}
	want, err := wire.FaultsHash(b.remnant.Faults)
	if err != nil {
		return err
	}
	var agree []wire.Receipt
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) { agree, err = tx.Receipts(b.row.Org, b.row.Root); return err })
	if err != nil {
		return err
	}
	agree = slices.DeleteFunc(agree, func(r wire.Receipt) bool { return r.Faults != want })
	ok, err := s.confirm.certifies(ctx, b.row.Audience, e, agree)
	if err == nil && !ok {
		return errs.Conflict(codeUnproved, "batch %s has too few receipts here that agree about its content: a member that has yet to get it could not judge it without its data; ask its author for its certificate", b.row.ID)
	}
	b.remnant.Receipts = agree
	return err
}

// certifies tells whether receipts are a certificate of an entry, open or
// decided.
func (c *confirmer) certifies(ctx context.Context, audience wire.Hash, e order.Entry, receipts []wire.Receipt) (ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.s.DB.Read(ctx, func(tx *store.Tx) error {
		c.tx, c.err = tx, nil
		defer func() { c.tx = nil }()
		m := c.machines[audience]
		if m == nil {
			return errs.Conflict(codeUnproved, "the order of audience %s is not loaded yet: try again", audience.Short())
		}
		ok = m.Certifies(e, receipts)
		return c.err
	})
	return ok, err
}

// stillErasable tests what may have changed since the plan was made: holds, and
// new messages with the same data.
func (s *Service) stillErasable(tx *store.Tx, p *erasePlan) error {
	holds, err := tx.HoldsInForce(s.Namespace)
	if err != nil {
		return err
	}
	seqs := make([]int64, len(p.data))
	for i, d := range p.data {
		seqs[i] = d.Seq
	}
	now, err := tx.CarriersOf(seqs)
	if err != nil {
		return err
	}
	for _, m := range now {
		if h := s.holdOn(holds, m); h != nil {
			return held(m, h)
		}
		if !slices.ContainsFunc(p.messages, func(planned *store.Message) bool { return planned.Seq == m.Seq }) {
			return errs.Conflict(codeUndecided, "message %s has just been handed in with the same data: try again when it is confirmed", m.Header.ID)
		}
	}
	return nil
}

// writeErasure carries out a plan.
func (s *Service) writeErasure(tx *store.Tx, p *erasePlan, done *store.Erasure) error {
	if err := tx.InsertErasure(done); err != nil {
		return err
	}
	seqs := make([]int64, len(p.data))
	for i, d := range p.data {
		seqs[i] = d.Seq
	}
	if err := tx.EraseData(seqs, done.ID); err != nil {
		return err
	}
	if err := s.releaseBlobs(tx, p.data); err != nil {
		return err
	}
	for _, b := range p.batches {
		if err := tx.EraseBatch(b.row.Org, b.row.Root, b.stored, done.Created); err != nil {
			return err
		}
		if !b.row.Own {
			continue
		}
		// A member that has yet to get it pulls what remains.
		if err := s.dropParcels(tx, b.row.Root, "its data was erased before the peer took it"); err != nil {
			return err
		}
	}
	var events []*store.Event
	for _, m := range p.messages {
		if err := s.eraseReferences(tx, p, m, done); err != nil {
			return err
		}
		for _, topic := range m.Header.Topics {
			id := m.Header.ID
			events = append(events, &store.Event{ID: s.NewID(), Type: "message_erased", Namespace: s.Namespace, Reference: &id, Correlator: m.Header.CID, Tx: m.TxID, Topic: topic, Created: done.Created})
		}
	}
	return tx.InsertEvents(events)
}

// eraseReferences takes the hashes of erased values out of a message, and out of
// the reason of its rejection what it may quote of them.
func (s *Service) eraseReferences(tx *store.Tx, p *erasePlan, m *store.Message, done *store.Erasure) (err error) {
	for i := range m.Data {
		ref := &m.Data[i]
		if slices.ContainsFunc(p.data, func(d *store.Data) bool { return d.ID == ref.ID && d.Hash == ref.Hash }) {
			ref.Hash = ""
		}
	}
	if m.Header.DataHash, err = refsHash(m.Data); err != nil {
		return err
	}
	for _, b := range p.batches {
		if m.Root != nil && b.row.Root == *m.Root && b.row.Org == m.Org && slices.Contains(b.remnant.Faults, uint32(m.Index)) && strings.HasPrefix(m.RejectReason, faultOfData) {
			m.RejectReason = faultErased
		}
	}
	return tx.EraseReferences(m, done.ID)
}

// releaseBlobs ends the publications of data items and forgets the blobs of either
// that nothing refers to any more.
func (s *Service) releaseBlobs(tx *store.Tx, items []*store.Data) error {
	release := map[store.Hex]bool{}
	for _, d := range items {
		references := []string{d.Public}
		if d.Blob != nil && d.Blob.Hash != "" {
			release[d.Blob.Hash] = true
			references = append(references, d.Blob.Public)
		}
		for _, reference := range references {
			if reference == "" {
				continue
			}
			hash, err := wire.ParseContentID(reference)
			if err != nil {
				return err
			}
			if err := tx.Withdraw(s.Namespace, store.Hex(hash.String()), reference); err != nil {
				return err
			}
			release[store.Hex(hash.String())] = true
		}
	}
	for _, hash := range slices.Sorted(maps.Keys(release)) {
		if err := tx.ReleaseBlob(hash, s.now()); err != nil {
			return err
		}
	}
	return nil
}

// refusedForNow tells whether an erasure may succeed later by itself.
func refusedForNow(err error) bool {
	var coded *errs.Error
	return errors.As(err, &coded) && (coded.Code == codeUndecided || coded.Code == codeUnproved || coded.Code == codeUndelivered)
}
