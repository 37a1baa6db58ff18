package message

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/order"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// writer writes the verdicts of one machine and step: message states in bulk,
// events in the order of the verdicts.
type writer struct {
	m         *machine
	out       *stepResult
	confirmed []int64                // messages.seq
	entries   map[uint64]order.Entry // still open, by pin, as the last verdict left them
	events    []*store.Event
}

// verdict writes one decision of order.
func (w *writer) verdict(v order.Verdict) error {
	tx := w.m.c.tx
	id := wire.Entry{Author: v.Author, Root: v.Root}
	b := w.m.batches[id]
	if b != nil && !b.noted {
		b.noted = true
		if err := w.noteOnLedger(v, b); err != nil {
			return err
		}
	}
	if b != nil {
		switch {
		case v.Index != order.Whole:
			if err := w.message(v, b.messages[v.Index]); err != nil {
				return err
			}
		default:
			for _, m := range b.messages {
				if m.State == StateConfirmed || m.State == StateRejected {
					continue
				}
				if err := w.message(v, m); err != nil {
					return err
				}
			}
		}
	}
	if v.Overruled {
		w.out.incidents = append(w.out.incidents, store.Incident{
			At: w.m.c.s.now(), Kind: "overruled", Ref: v.Root.String(),
			Text: fmt.Sprintf("batch %s was confirmed here before the network skipped it; what was confirmed stands, compare with the other members", v.Root.Short()),
		})
	}
	if !v.EntryDone {
		w.entries[v.Number] = v.Row
		return nil
	}
	delete(w.entries, v.Number)
	row, err := entryRow(v.Row)
	if err != nil {
		return err
	}
	if v.Kind == order.SkippedEntry && v.Author == w.m.c.s.Self.Org {
		if err := w.m.c.s.dropParcels(tx, v.Root, v.Reason); err != nil { // nobody needs it any more
			return err
		}
	}
	if b != nil {
		w.m.close(id)
		if err := tx.FinishBatch(v.Author, v.Root, w.m.c.s.now()); err != nil {
			return err
		}
		if v.Author == w.m.c.s.Self.Org {
			w.out.wakeBatch = true
		}
	}
	if v.Row.Live() {
		return tx.SetEntry(v.Number, row)
	}
	w.m.leave(id)
	return tx.ClosePin(v.Number, v.Reason, row, v.Row.Exposed())
}

// noteOnLedger writes what applications see of the pin: a ledger event, and
// the end of our operation.
func (w *writer) noteOnLedger(v order.Verdict, b *openBatch) error {
	tx, s := w.m.c.tx, w.m.c.s
	pin, err := tx.PinByNumber(v.Number)
	if err != nil {
		return err
	}
	output, err := json.Marshal(map[string]any{"author": v.Author, "root": v.Root, "contexts": len(pin.Pin.Pin.Handles)})
	if err != nil {
		return err
	}
	txHash := "0x" + pin.TxHash.String()
	info, err := json.Marshal(map[string]any{
		"address": s.Network.Contract, "blockNumber": pin.Position.Block, "logIndex": pin.Position.Log, "signature": "pin",
		"timestamp": pin.BlockTime, "transactionHash": txHash, "blockHash": "0x" + pin.BlockHash.String(),
	})
	if err != nil {
		return err
	}
	ev := &store.BlockchainEvent{
		ID: s.NewID(), Source: "ledger", Namespace: s.Namespace, Name: "BatchPin", Output: output, Info: info, Timestamp: pin.BlockTime,
		ProtocolID: fmt.Sprintf("%012d/%06d/%06d", pin.Position.Block, 0, pin.Position.Log),
		Tx:         store.BlockchainTxRef{Type: TxBatchPin, ID: b.row.Tx.ID, BlockchainID: txHash},
	}
	if err := tx.InsertBlockchainEvents([]*store.BlockchainEvent{ev}); err != nil {
		return err
	}
	if err := tx.AddBlockchainID(*b.row.Tx.ID, txHash); err != nil {
		return err
	}
	w.events = append(w.events, &store.Event{
		ID: s.NewID(), Type: "blockchain_event_received", Namespace: s.Namespace, Reference: &ev.ID, Tx: b.row.Tx.ID, Topic: "ff_batch_pin", Created: s.now(),
	})
	if !b.row.Own {
		return nil
	}
	ops, err := tx.OperationsOfTransaction(*b.row.Tx.ID)
	if err != nil {
		return err
	}
	for _, op := range ops {
		if op.Type != opPinBatch {
			continue
		}
		out, err := json.Marshal(map[string]any{"transactionHash": txHash, "protocolId": ev.ProtocolID})
		if err != nil {
			return err
		}
		if _, err := tx.UpdateOperations([]wire.UUID{op.ID}, opSucceeded, out, "", s.now()); err != nil {
			return err
		}
	}
	return nil
}

// message writes the verdict about one message. A confirmed definition is
// applied here, and may still be rejected by who applies it: it is at the head
// of the network's reserved context, so every member finds the same.
func (w *writer) message(v order.Verdict, m *store.Message) error {
	reason := v.Reason
	var defined Defined
	if v.Kind == order.Confirmed {
		var err error
		if reason, defined, err = w.apply(m, v.Row.Position); err != nil {
			return err
		}
	}
	now := w.m.c.s.now()
	typ := "message_confirmed"
	if v.Kind != order.Confirmed || reason != "" {
		typ = "message_rejected"
		m.State = StateRejected
		if err := w.flushMessages(); err != nil {
			return err
		}
		if _, err := w.m.c.tx.SetMessagesState([]int64{m.Seq}, store.MessageUpdate{State: StateRejected, Confirmed: now, RejectReason: reason}); err != nil {
			return err
		}
	} else {
		m.State = StateConfirmed
		w.m.known[epochMessage{v.Row.Epoch, v.Message}].confirmed = true
		w.confirmed = append(w.confirmed, m.Seq)
	}
	s := w.m.c.s
	if defined.Event != "" {
		ref := defined.Ref
		w.events = append(w.events, &store.Event{ID: s.NewID(), Type: defined.Event, Namespace: s.Namespace, Reference: &ref, Tx: m.TxID, Topic: definitionTopic, Created: now})
	}
	s.Trace.After(m.Trace, "confirm", m.Header.Created.Time(), now.Time(), slog.String("message", m.Header.ID.String()), slog.String("state", m.State), slog.Uint64("pin", v.Number))
	for _, topic := range m.Header.Topics {
		id := m.Header.ID
		w.events = append(w.events, &store.Event{
			ID: s.NewID(), Type: typ, Namespace: s.Namespace, Reference: &id, Correlator: m.Header.CID, Tx: m.TxID, Topic: topic, Created: now,
		})
	}
	return nil
}

// apply tests what depends on definitions, and hands a definition to its owner,
// who may reject it.
func (w *writer) apply(m *store.Message, at wire.Position) (reject string, d Defined, err error) {
	tx, s := w.m.c.tx, w.m.c.s
	if identity.IsCustomDID(m.Header.Author) {
		reject, err = s.Network.Refute(tx, s.Namespace, m.Header.Author, m.Org, m.Header.Key, at)
		return reject, d, err
	}
	if m.Header.Type != TypeDefinition {
		return "", d, nil
	}
	owner := s.Definitions[m.Header.Tag]
	if owner == nil {
		return fmt.Sprintf("definitions of kind %q are unknown to this version", m.Header.Tag), d, nil
	}
	data, err := tx.DataOfMessages([]int64{m.Seq})
	if err != nil {
		return "", d, err
	}
	if len(data[m.Seq]) != 1 {
		return "a definition has exactly one data item", d, nil
	}
	d, err = owner(tx, Definition{Org: m.Org, OrgName: w.authorName(m), Message: m, Body: data[m.Seq][0].Value, Pinned: at, At: s.now()})
	return d.Reject, d, err
}

// authorName is the organisation's name in the batch header, which the batch's
// checks have tied to the author's id on the ledger.
func (w *writer) authorName(m *store.Message) string {
	return w.m.batches[wire.Entry{Author: m.Org, Root: *m.Root}].row.AuthorName
}

// flushMessages writes the confirmed messages so far.
func (w *writer) flushMessages() error {
	if len(w.confirmed) == 0 {
		return nil
	}
	slices.Sort(w.confirmed)
	err := w.m.c.tx.ConfirmMessages(w.confirmed, w.m.c.s.now())
	w.confirmed = w.confirmed[:0]
	return err
}

// flush writes what is collected.
func (w *writer) flush() error {
	if err := w.flushMessages(); err != nil {
		return err
	}
	for _, number := range slices.Sorted(maps.Keys(w.entries)) {
		row, err := entryRow(w.entries[number])
		if err != nil {
			return err
		}
		if err := w.m.c.tx.SetEntry(number, row); err != nil {
			return err
		}
	}
	if len(w.events) == 0 {
		return nil
	}
	w.out.events += len(w.events)
	return w.m.c.tx.InsertEvents(w.events)
}
