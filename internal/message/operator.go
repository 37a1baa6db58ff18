package message

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// This file holds what a person may ask for when something does not get on. The
// node tries everything by itself without end, so none of it is ever needed for
// a message to arrive: cancelling gives up, the rest is looking again at once.

// StateCancelled is that of a message whose batch was given up by hand. It is
// final.
const StateCancelled = "cancelled"

// CancelBatch gives up a private batch of ours that is not pinned yet: its
// messages are cancelled, and nothing of it is sent any more. Who has received it
// already keeps it unconfirmed until the group's epoch ends. Once its pin is
// signed a batch cannot be taken back.
func (s *Service) CancelBatch(ctx context.Context, id wire.UUID) error {
	var gone lane
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		b, err := tx.BatchByID(s.Namespace, id)
		if err != nil {
			return err
		}
		switch {
		case b == nil:
			return errs.NoSuch("batch", id.String())
		case !b.Own || b.Type != TypePrivate:
			return errs.BadRequest("FF10466", "batch %s is not a private one of this node: only such can be cancelled", id)
		}
		collecting, err := tx.MoveBatch(b.Org, b.Root, store.BatchCollecting, store.BatchCancelled, s.now())
		if err != nil {
			return err
		}
		if !collecting {
			return errs.BadRequest("FF10468", "batch %s is %s: only one that waits for receipts can be cancelled", id, b.State)
		}
		const reason = "its batch was cancelled before it was pinned"
		if err := s.dropParcels(tx, b.Root, reason); err != nil {
			return err
		}
		messages, err := tx.MessagesOfBatch(b.Root, b.Org)
		if err != nil {
			return err
		}
		gone = lane{audience: b.Audience, key: b.Key}
		return s.cancel(tx, messages, reason)
	})
	if err != nil {
		return err
	}
	s.flushes.note(gone, func(c *flushCount) { c.cancelled = true })
	s.EventsCommitted()
	s.Wake.Batch.Set()  // there is room for another one
	s.Wake.Submit.Set() // the batches behind it need not wait for it
	return nil
}

// cancel ends messages of ours and tells applications.
func (s *Service) cancel(tx *store.Tx, messages []*store.Message, reason string) error {
	now := s.now()
	seqs := make([]int64, len(messages))
	var events []*store.Event
	for i, m := range messages {
		seqs[i] = m.Seq
		for _, topic := range m.Header.Topics {
			events = append(events, &store.Event{
				ID: s.NewID(), Type: "message_rejected", Namespace: s.Namespace, Reference: &m.Header.ID, Correlator: m.Header.CID, Tx: m.TxID, Topic: topic, Created: now,
			})
		}
	}
	if _, err := tx.SetMessagesState(seqs, store.MessageUpdate{State: StateCancelled, Confirmed: now, RejectReason: reason}); err != nil {
		return err
	}
	return tx.InsertEvents(events)
}

// Rewind looks anew at everything that is open in the order: the views of all
// audiences are rebuilt from their rows, and what is missing is asked for at
// once. What was decided stays, for it is the same at every member.
func (s *Service) Rewind() {
	s.confirm.mu.Lock()
	s.confirm.loaded = false
	s.confirm.mu.Unlock()
	s.pulls.hurry()
	s.Wake.Confirm.Set()
	s.Wake.Pull.Set()
}

// hurry makes everything that is missing due.
func (p *pulls) hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.tries {
		t.attempts, t.next = 0, time.Time{}
	}
}

// RetryOperation does again what an operation of ours stands for, without
// waiting for its time, as another operation, which it returns. One that was
// retried before leads to its latest. What succeeded can be sent again, since the
// receiver takes it once, but not pinned again.
func (s *Service) RetryOperation(ctx context.Context, id wire.UUID) (fresh *store.Operation, err error) {
	var peer *wire.OrgID
	var key *wire.Address
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		peer, key = nil, nil
		old, err := latestOperation(tx, s.Namespace, id)
		if err != nil {
			return err
		}
		b, err := batchOfOperation(tx, old)
		if err != nil {
			return err
		}
		if b == nil {
			return errs.BadRequest(codeNoRetry, "operation %s is a %s, which cannot be retried by itself: repeat the request that it came from", id, old.Type)
		}
		now := s.now()
		fresh = &store.Operation{
			ID: s.NewID(), Namespace: old.Namespace, Tx: old.Tx, Type: old.Type, Status: opPending, Plugin: old.Plugin, Input: old.Input, Created: now, Updated: now,
		}
		if b.State == store.BatchCancelled || b.State == store.BatchDropped {
			return errs.Conflict(codeNoRetry, "batch %s of operation %s is %s: there is nothing to retry", b.ID, id, b.State)
		}
		switch old.Type {
		case opPinBatch:
			if b.State == store.BatchDone {
				return errs.Conflict(codeNoRetry, "batch %s of operation %s is pinned already: a pin cannot be repeated", b.ID, id)
			}
			signer, err := wire.ParseAddress(b.Key)
			if err != nil {
				return err
			}
			key = &signer
		case opSendBatch:
			to, err := receiverOf(old)
			if err != nil {
				return err
			}
			peer = &to
			kind := kindPayload
			if b.Tx.Type == TxUnpinned {
				kind = kindUnpinned
			}
			if err := tx.RetryParcel(&store.Parcel{Peer: to, Kind: kind, Root: b.Root, Org: b.Org, Op: &fresh.ID, Since: now}); err != nil {
				return err
			}
		}
		if err := tx.InsertOperations([]*store.Operation{fresh}); err != nil {
			return err
		}
		if _, err := tx.UpdateOperations([]wire.UUID{old.ID}, opFailed, nil, "it was retried as operation "+fresh.ID.String(), now); err != nil {
			return err
		}
		return tx.SetRetry(old.ID, fresh.ID, now)
	})
	if err != nil {
		return nil, err
	}
	if peer != nil {
		s.peer(*peer).hurry()
	}
	if key != nil {
		s.held.put(*key, time.Time{})
		s.Wake.Submit.Set()
	}
	return fresh, nil
}

// codeNoRetry is Parley's own: existing clients know no code for it.
const codeNoRetry = "FF90008"

// latestOperation is an operation, or the last one of those it was retried as.
func latestOperation(tx *store.Tx, namespace string, id wire.UUID) (*store.Operation, error) {
	for {
		op, err := store.Optional(tx.OperationByID(namespace, id))
		if err != nil {
			return nil, err
		}
		if op == nil {
			return nil, errs.NoSuch("operation", id.String())
		}
		if op.Retry == nil {
			return op, nil
		}
		id = *op.Retry
	}
}

// operationInput is what an operation on a batch is about.
type operationInput struct {
	Batch wire.UUID `json:"batch"`
	Peer  string    `json:"peer"`
}

// batchOfOperation is the batch of ours that an operation sends or pins; nil for
// one of another kind.
func batchOfOperation(tx *store.Tx, op *store.Operation) (*store.BatchRow, error) {
	if op.Type != opPinBatch && op.Type != opSendBatch {
		return nil, nil
	}
	var in operationInput
	if err := json.Unmarshal(op.Input, &in); err != nil {
		return nil, fmt.Errorf("input of operation %s: %w", op.ID, err)
	}
	return tx.BatchByID(op.Namespace, in.Batch)
}

func receiverOf(op *store.Operation) (org wire.OrgID, err error) {
	var in operationInput
	if err := json.Unmarshal(op.Input, &in); err != nil {
		return org, fmt.Errorf("input of operation %s: %w", op.ID, err)
	}
	if err := org.UnmarshalText([]byte(in.Peer)); err != nil {
		return org, fmt.Errorf("input of operation %s: %w", op.ID, err)
	}
	return org, nil
}

// hurry ends the peer's back-off.
func (p *Peer) hurry() {
	p.mu.Lock()
	p.failures, p.notBy = 0, time.Time{}
	p.mu.Unlock()
	p.Wake.Set()
}

// OperationDetail is how an operation on a batch goes now.
type OperationDetail struct {
	Batch       string       `json:"batch,omitempty"`       // its state
	Receipts    *int         `json:"receipts,omitempty"`    // of a pin: how many there are
	Submission  string       `json:"submission,omitempty"`  // of a pin: queued, signed, final, failed
	Account     string       `json:"account,omitempty"`     // of a pin: who signs
	Nonce       *int64       `json:"nonce,omitempty"`       // of a pin: of the account
	Transaction string       `json:"transaction,omitempty"` // of a pin: hash on the ledger
	Attempts    *int         `json:"attempts,omitempty"`    // of a sending: failed so far
	NextTry     *store.Time  `json:"nextTry,omitempty"`     // of a sending that failed
	Waiting     *bool        `json:"waiting,omitempty"`     // of a sending: it is still in the outbox
	Error       string       `json:"error,omitempty"`       // of the last attempt
	Peer        *PeerSummary `json:"peer,omitempty"`        // of a sending: to whom
}

// PeerSummary names the receiver of a batch.
type PeerSummary struct {
	Org       wire.OrgID `json:"org"`
	Endpoints []string   `json:"endpoints"`
}

// DetailOf says how an operation goes; nil for one that is not about a batch.
func (s *Service) DetailOf(ctx context.Context, op *store.Operation) (d *OperationDetail, err error) {
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		b, err := batchOfOperation(tx, op)
		if err != nil || b == nil {
			return err
		}
		d = &OperationDetail{Batch: b.State}
		if op.Type == opPinBatch {
			return d.pin(tx, b)
		}
		return d.send(tx, s, op)
	})
	return d, err
}

func (d *OperationDetail) pin(tx *store.Tx, b *store.BatchRow) error {
	receipts, err := tx.Receipts(b.Org, b.Root)
	if err != nil {
		return err
	}
	n := len(receipts)
	d.Receipts = &n
	sub, err := tx.LatestSubmission(purposePin, b.Root)
	if err != nil || sub == nil {
		return err
	}
	d.Submission, d.Account, d.Nonce, d.Error = sub.State, sub.Account.String(), sub.Nonce, sub.Error
	if sub.TxHash != (wire.Hash{}) {
		d.Transaction = "0x" + sub.TxHash.String()
	}
	return nil
}

func (d *OperationDetail) send(tx *store.Tx, s *Service, op *store.Operation) error {
	to, err := receiverOf(op)
	if err != nil {
		return err
	}
	d.Peer = &PeerSummary{Org: to, Endpoints: []string{}}
	if node := s.Network.Node(to); node != nil {
		d.Peer.Endpoints = node.Endpoints
	}
	parcel, err := tx.ParcelOfOperation(op.ID)
	if err != nil {
		return err
	}
	waiting := parcel != nil
	d.Waiting = &waiting
	if waiting {
		d.Attempts, d.Error = &parcel.Attempts, parcel.Error
		if parcel.Due != 0 {
			d.NextTry = &parcel.Due
		}
	}
	return nil
}

// PinHandle finds a handle of a pin by its sequence or, with a batch, the first
// one of the batch.
func (s *Service) PinHandle(ctx context.Context, sequence int64, batch *wire.UUID) (pin store.PinHandle, err error) {
	var q store.Query
	field, value := "sequence", any(sequence)
	if batch != nil {
		field, value = "batch", batch.String()
	}
	if err := q.Where(&store.Pins.Collection, field, value); err != nil {
		return pin, err
	}
	found, _, err := store.List(ctx, s.DB, store.Pins, s.Namespace, q)
	if err == nil && len(found) == 0 {
		return pin, errs.New(errs.CodeNotFound, http.StatusNotFound, "There is no pin of %s %v", field, value)
	}
	if err != nil {
		return pin, err
	}
	return found[len(found)-1], nil // they come newest first
}
