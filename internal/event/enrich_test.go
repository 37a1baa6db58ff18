package event

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/store"
)

// insertObjects stores one object of every kind that events speak of.
func (b *bench) insertObjects(t testing.TB) (msg *store.Message, txn *store.Transaction, op *store.Operation, bce *store.BlockchainEvent, dt *store.Datatype, id *store.Identity) {
	t.Helper()
	listener := uuid.New()
	msg = &store.Message{
		Header: store.MessageHeader{ID: uuid.New(), Type: "broadcast", Author: "did:firefly:org/a", Created: 1e18,
			Namespace: ns, Topics: []string{"orders"}, Tag: "order"},
		LocalNamespace: ns, State: "confirmed", Data: []store.DataRef{{ID: uuid.New()}}, Wire: []byte{1},
	}
	txn = &store.Transaction{ID: uuid.New(), Namespace: ns, Type: "batch_pin", Created: 1e18}
	op = &store.Operation{ID: uuid.New(), Namespace: ns, Type: "blockchain_invoke", Status: "Failed", Plugin: "ethereum", Error: "reverted", Created: 1e18, Updated: 1e18}
	bce = &store.BlockchainEvent{ID: uuid.New(), Namespace: ns, Source: "ethereum", Name: "Changed", Listener: &listener, Timestamp: 1e18}
	dt = &store.Datatype{ID: uuid.New(), Namespace: ns, Name: "widget", Version: "1", Validator: "json", Created: 1e18, Value: json.RawMessage(`{}`)}
	id = &store.Identity{ID: uuid.New(), DID: "did:firefly:org/b", Type: "org", Namespace: ns, Name: "b", Created: 1e18, Updated: 1e18}
	err := b.db.Write(t.Context(), func(tx *store.Tx) error {
		for _, insert := range []func() error{
			func() error { return tx.InsertMessages([]*store.Message{msg}) },
			func() error { return tx.InsertTransactions([]*store.Transaction{txn}) },
			func() error { return tx.InsertOperations([]*store.Operation{op}) },
			func() error { return tx.InsertBlockchainEvents([]*store.BlockchainEvent{bce}) },
			func() error { return tx.InsertDatatype(dt) },
			func() error { return tx.UpsertIdentity(id) },
		} {
			if err := insert(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return msg, txn, op, bce, dt, id
}

func TestEnrichAddsTheObjectOfEachEvent(t *testing.T) {
	b := newBench(t)
	msg, txn, op, bce, dt, id := b.insertObjects(t)
	gone := uuid.New()
	events := []store.Event{
		{Type: "message_confirmed", Reference: &msg.Header.ID, Topic: "orders"},
		{Type: "message_rejected", Reference: &msg.Header.ID, Topic: "more"},
		{Type: "transaction_submitted", Reference: &txn.ID},
		{Type: "blockchain_invoke_op_failed", Reference: &op.ID},
		{Type: "token_transfer_op_failed", Reference: &op.ID},
		{Type: "blockchain_event_received", Reference: &bce.ID},
		{Type: "datatype_confirmed", Reference: &dt.ID},
		{Type: "identity_updated", Reference: &id.ID},
		{Type: "message_confirmed", Reference: &gone},
		{Type: "message_confirmed"},
		{Type: "namespace_confirmed", Reference: &msg.Header.ID},
	}
	out, err := b.log.Enrich(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, e := range out {
		keys = append(keys, objectKey(t, e))
	}
	want := []string{"message", "message", "transaction", "operation", "operation", "blockchainEvent", "datatype", "identity", "", "", ""}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	if out[0].Message.Header.Tag != "order" || out[3].Operation.Error != "reverted" || out[5].BlockchainEvent.Name != "Changed" {
		t.Errorf("an object has the wrong content: %+v %+v %+v", out[0].Message, out[3].Operation, out[5].BlockchainEvent)
	}
}

// objectKey is the JSON name of the object that e has besides the event's own
// fields.
func objectKey(t *testing.T, e Enriched) string {
	t.Helper()
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{"id", "sequence", "type", "namespace", "reference", "topic", "created"} {
		if _, there := fields[own]; !there && own != "topic" {
			t.Errorf("%s lacks %q", text, own)
		}
		delete(fields, own)
	}
	if len(fields) > 1 {
		t.Errorf("%s has more than one object", text)
	}
	for key := range fields {
		return key
	}
	return ""
}

func TestEnrichManyOfOnePage(t *testing.T) {
	b := newBench(t)
	const n = 300
	messages := make([]*store.Message, n)
	events := make([]store.Event, n)
	for i := range messages {
		messages[i] = &store.Message{Header: store.MessageHeader{ID: uuid.New(), Type: "private", Topics: []string{"x"}, Namespace: ns},
			LocalNamespace: ns, State: "confirmed", Data: []store.DataRef{}, Wire: []byte{1}}
		events[i] = store.Event{Type: "message_confirmed", Reference: &messages[i].Header.ID}
	}
	if err := b.db.Write(t.Context(), func(tx *store.Tx) error { return tx.InsertMessages(messages) }); err != nil {
		t.Fatal(err)
	}
	out, err := b.log.Enrich(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range out {
		if e.Message == nil || e.Message.Header.ID != messages[i].Header.ID {
			t.Fatalf("event %d speaks of %v, want message %s", i, e.Message, messages[i].Header.ID)
		}
	}
}
