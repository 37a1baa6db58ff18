package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
	"github.com/parley-node/parley/wire"
)

const ns = "default"

func newID(t testing.TB) store.UUID {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func hash(n int) wire.Hash { return wire.Hash{31: byte(n), 30: byte(n >> 8), 29: byte(n >> 16)} }

func hexOf(n int) store.Hex { return store.Hex(hash(n).String()) }

func mustWrite(t testing.TB, db *store.DB, f func(tx *store.Tx) error) {
	t.Helper()
	if err := db.Write(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, db *store.DB, f func(tx *store.Tx) error) {
	t.Helper()
	if err := db.Read(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func newMessage(t testing.TB, n int) *store.Message {
	return &store.Message{
		Header: store.MessageHeader{
			ID: newID(t), Type: "broadcast", TxType: "batch_pin", Author: "did:firefly:org/a", Key: "0xaa",
			Created: store.Time(1_700_000_000_000_000_000 + int64(n)), Namespace: ns, Topics: []string{"t1", "t2"},
			Tag: "tag", DataHash: hexOf(1),
		},
		LocalNamespace: ns, Hash: hexOf(n), State: "ready", Data: []store.DataRef{},
		Wire: []byte{1, 2}, Audience: hash(7), Org: hash(8),
	}
}

func TestMessagesRoundTrip(t *testing.T) {
	db := storetest.New(t)
	var list []*store.Message
	for n := range 150 { // more than two blocks and a rest
		list = append(list, newMessage(t, n))
	}
	full := list[100]
	cid, batch, txid, parent := newID(t), newID(t), newID(t), newID(t)
	root, confirmed := hash(99), store.Time(5)
	full.Header.CID, full.Batch, full.TxID = &cid, &batch, &txid
	full.Header.Group = hexOf(3)
	full.Header.TxParent = &store.TransactionRef{Type: "token_transfer", ID: &parent}
	full.Root, full.Index, full.Confirmed = &root, 4, &confirmed
	full.State, full.RejectReason, full.Pins, full.IdempotencyKey = "rejected", "why", []string{"p1", "p2"}, "key"
	full.Data = []store.DataRef{{ID: newID(t), Hash: hexOf(5)}}
	mustWrite(t, db, func(tx *store.Tx) error { return tx.InsertMessages(list) })
	for i, m := range list {
		if i > 0 && m.Seq != list[i-1].Seq+1 {
			t.Fatalf("message %d has seq %d after %d", i, m.Seq, list[i-1].Seq)
		}
	}
	mustRead(t, db, func(tx *store.Tx) error {
		for _, want := range []*store.Message{list[0], full, list[149]} {
			got, err := tx.MessageByID(ns, want.Header.ID)
			if err != nil {
				return err
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("message %d (-want +got):\n%s", want.Seq, d)
			}
		}
		got, err := tx.MessageByHash(hash(7), full.Header.ID, full.Hash)
		if err != nil || got.Seq != full.Seq {
			t.Errorf("by hash: %v, %v", got, err)
		}
		if _, err := tx.MessageByID("other", full.Header.ID); !errors.Is(err, store.ErrNoRows) {
			t.Errorf("in another namespace: %v", err)
		}
		ready, err := tx.ReadyMessages(nil, 120)
		if err != nil || len(ready) != 120 || ready[100] != list[101].Seq {
			t.Errorf("%d ready messages, %v", len(ready), err)
		}
		return nil
	})
}

func TestMessageState(t *testing.T) {
	db := storetest.New(t)
	var list []*store.Message
	var seqs []int64
	root, batch, txid := hash(50), newID(t), newID(t)
	for n := range 70 {
		list = append(list, newMessage(t, n))
	}
	mustWrite(t, db, func(tx *store.Tx) error {
		if err := tx.InsertMessages(list); err != nil {
			return err
		}
		for i, m := range list {
			if i != 20 && i != 40 { // those go elsewhere, so that the batch has gaps
				seqs = append(seqs, m.Seq)
			}
		}
		b := &store.BatchRow{
			Batch: store.Batch{ID: batch, Type: "broadcast", Namespace: ns, Author: "a", Key: "k", Hash: hexOf(50), Manifest: []byte("{}"), Tx: store.TransactionRef{Type: "batch_pin", ID: &txid}},
			Org:   hash(8), Root: root, Audience: hash(7), Epoch: 1, Envelope: []byte{1}, Own: true, State: store.BatchCollecting,
		}
		if _, err := tx.InsertBatch(b); err != nil {
			return err
		}
		return tx.EnterBatch(seqs, b, "sent")
	})
	mustWrite(t, db, func(tx *store.Tx) error {
		if n, err := tx.SetMessagesState(seqs[:1], store.MessageUpdate{State: "rejected", Confirmed: 77, RejectReason: "why", Pins: []string{"p"}}); err != nil || n != 1 {
			t.Errorf("%d messages changed, %v", n, err)
		}
		return tx.ConfirmMessages(seqs[15:30], 78)
	})
	mustRead(t, db, func(tx *store.Tx) error {
		got, err := tx.MessagesOfBatch(root, hash(8))
		if err != nil || len(got) != 68 {
			t.Fatalf("%d messages of the batch, %v", len(got), err)
		}
		for i, m := range got {
			if m.Seq != seqs[i] || m.Index != i || *m.Batch != batch || *m.TxID != txid {
				t.Errorf("place %d holds %+v", i, m)
			}
		}
		if m := got[0]; m.State != "rejected" || *m.Confirmed != 77 || m.RejectReason != "why" || m.Pins[0] != "p" || *m.Root != root {
			t.Errorf("the rejected message is %+v", m)
		}
		for i, m := range got[1:] {
			confirmed := i+1 >= 15 && i+1 < 30
			if confirmed && (m.State != "confirmed" || *m.Confirmed != 78) || !confirmed && (m.State != "sent" || m.Confirmed != nil || m.Pins != nil) {
				t.Errorf("place %d holds %+v", i+1, m)
			}
		}
		before, err := tx.ConfirmedBefore(hash(7), 1, append(got[10:20], list[20]))
		if err != nil || len(before) != 5 || before[0] != got[15].Hash {
			t.Errorf("confirmed before: %v, %v", before, err)
		}
		if other, err := tx.ConfirmedBefore(hash(7), 2, got); err != nil || len(other) != 0 {
			t.Errorf("confirmed in another epoch: %v, %v", other, err)
		}
		for _, i := range []int{20, 40} {
			if m, err := tx.MessageByID(ns, list[i].Header.ID); err != nil || m.Batch != nil || m.State != "ready" {
				t.Errorf("a message of no batch is %+v, %v", m, err)
			}
		}
		return nil
	})
}

func TestIdempotencyKeys(t *testing.T) {
	db := storetest.New(t)
	a, b, c := newMessage(t, 1), newMessage(t, 2), newMessage(t, 3)
	a.IdempotencyKey, b.IdempotencyKey, c.IdempotencyKey = "k", "k", "k"
	c.LocalNamespace = "other"
	mustWrite(t, db, func(tx *store.Tx) error { return tx.InsertMessages([]*store.Message{a, c}) })
	for _, list := range [][]*store.Message{{b}, {newMessage(t, 4), b}} {
		err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.InsertMessages(list) })
		if dup, ok := errors.AsType[*store.DuplicateKey](err); !ok || dup.ID != a.Header.ID || dup.Key != "k" {
			t.Errorf("the same key again: %v", err)
		}
	}
	d, e := newMessage(t, 5), newMessage(t, 6)
	d.IdempotencyKey, e.IdempotencyKey = "twice", "twice"
	err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.InsertMessages([]*store.Message{d, e}) })
	if dup, ok := errors.AsType[*store.DuplicateKey](err); !ok || dup.ID != d.Header.ID {
		t.Errorf("the same key twice in one list: %v", err)
	}

	tx1 := &store.Transaction{ID: newID(t), Namespace: ns, Type: "batch_pin", Created: 1, IdempotencyKey: "k"}
	tx2 := &store.Transaction{ID: newID(t), Namespace: ns, Type: "batch_pin", Created: 1, IdempotencyKey: "k"}
	mustWrite(t, db, func(tx *store.Tx) error { return tx.InsertTransactions([]*store.Transaction{tx1}) })
	err = db.Write(t.Context(), func(tx *store.Tx) error { return tx.InsertTransactions([]*store.Transaction{tx2}) })
	if dup, ok := errors.AsType[*store.DuplicateKey](err); !ok || dup.ID != tx1.ID {
		t.Errorf("the key of a transaction again: %v", err)
	}
}

func TestDataIsStoredOnceAndByteForByte(t *testing.T) {
	db := storetest.New(t)
	values := []string{`{"b":1,"a":[1.10,2e5]}`, `"\u003c é \u2028"`, `12345678901234567890.10`, `null`, ``}
	var items []*store.Data
	for i, v := range values {
		d := &store.Data{ID: newID(t), Validator: "json", Namespace: ns, Hash: hexOf(i), Created: 9, Seed: hash(i), Commitment: hash(100 + i)}
		if v != "" {
			d.Value = json.RawMessage(v)
		}
		items = append(items, d)
	}
	blobRoot, typeHash := hash(30), hash(31)
	items[0].Blob = &store.BlobRef{Hash: hexOf(32), Size: 12, Name: "a.txt", Path: "/x"}
	items[0].BlobRoot = &blobRoot
	items[1].Datatype, items[1].DatatypeHash = &store.DatatypeRef{Name: "n", Version: "1"}, &typeHash
	mustWrite(t, db, func(tx *store.Tx) error { return tx.InsertData(items) })

	again := *items[2]
	again.Seq = 0
	other := again
	other.Commitment = hash(500) // the same id from another author
	mustWrite(t, db, func(tx *store.Tx) error {
		twice := other
		list := []*store.Data{&again, &other, &twice}
		if err := tx.InsertData(list); err != nil {
			return err
		}
		if twice.Seq != other.Seq {
			t.Errorf("one item twice in a list got %d and %d", other.Seq, twice.Seq)
		}
		return nil
	})
	if again.Seq != items[2].Seq || other.Seq == items[2].Seq {
		t.Errorf("the same item got %d, another commitment %d, the first had %d", again.Seq, other.Seq, items[2].Seq)
	}
	mustRead(t, db, func(tx *store.Tx) error {
		for i, want := range items {
			if i == 2 {
				continue // shadowed by the newer one
			}
			got, err := tx.DataByID(ns, want.ID)
			if err != nil {
				return err
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("item %d (-want +got):\n%s", i, d)
			}
			if string(got.Value) != values[i] {
				t.Errorf("value %q came back as %q", values[i], got.Value)
			}
		}
		n, err := tx.BlobUsers(hexOf(32))
		if n != 1 {
			t.Errorf("the blob has %d users", n)
		}
		return err
	})

	m1, m2 := newMessage(t, 1), newMessage(t, 2)
	mustWrite(t, db, func(tx *store.Tx) error {
		if err := tx.InsertMessages([]*store.Message{m1, m2}); err != nil {
			return err
		}
		if err := tx.LinkData([]store.DataLink{{Message: m1.Seq, Data: items[1].Seq}, {Message: m1.Seq, Index: 1, Data: items[0].Seq}}); err != nil {
			return err
		}
		return tx.LinkData([]store.DataLink{{Message: m2.Seq, Data: items[0].Seq}})
	})
	mustRead(t, db, func(tx *store.Tx) error {
		of, err := tx.DataOfMessages([]int64{m1.Seq, m2.Seq, 999})
		if err != nil {
			return err
		}
		want := map[int64][]*store.Data{m1.Seq: {items[1], items[0]}, m2.Seq: {items[0]}}
		if d := cmp.Diff(want, of); d != "" {
			t.Errorf("data of messages (-want +got):\n%s", d)
		}
		with, err := tx.MessagesOfData(ns, items[0].ID)
		if err != nil || len(with) != 2 {
			t.Errorf("%d messages carry the item, %v", len(with), err)
		}
		return nil
	})
	mustWrite(t, db, func(tx *store.Tx) error {
		n, err := tx.DeleteUnsent(ns, items[0].ID)
		if n != 0 {
			t.Errorf("%d rows deleted that messages carry", n)
		}
		unsent := *items[0]
		unsent.ID = newID(t)
		err = errors.Join(err, tx.InsertData([]*store.Data{&unsent}))
		n, err2 := tx.DeleteUnsent(ns, unsent.ID)
		if n != 1 {
			t.Errorf("%d rows deleted that no message carries", n)
		}
		return errors.Join(err, err2)
	})
}

func TestBlobs(t *testing.T) {
	db := storetest.New(t)
	b := &store.Blob{Hash: hexOf(1), Size: 3 << 20, Chunks: []wire.Hash{hash(1), hash(2), hash(3)}, Created: 4}
	mustWrite(t, db, func(tx *store.Tx) error { return errors.Join(tx.InsertBlob(b), tx.InsertBlob(b)) })
	mustRead(t, db, func(tx *store.Tx) error {
		got, err := tx.BlobByHash(b.Hash)
		if d := cmp.Diff(b, got); d != "" {
			t.Errorf("blob (-want +got):\n%s", d)
		}
		return err
	})
	mustWrite(t, db, func(tx *store.Tx) error { return tx.ReleaseBlob(b.Hash, 5) })
	mustRead(t, db, func(tx *store.Tx) error {
		if _, err := tx.BlobByHash(b.Hash); !errors.Is(err, store.ErrNoRows) {
			t.Errorf("after deletion: %v", err)
		}
		return nil
	})
}

func TestEvents(t *testing.T) {
	db := storetest.New(t)
	var list []*store.Event
	ref, corr, txID := newID(t), newID(t), newID(t)
	for i := range 100 {
		list = append(list, &store.Event{ID: newID(t), Type: "message_confirmed", Namespace: ns, Reference: &ref, Topic: fmt.Sprint("t", i), Created: store.Time(i + 1)})
	}
	list[50].Correlator, list[50].Tx = &corr, &txID
	list[51].Namespace = "other"
	mustWrite(t, db, func(tx *store.Tx) error { return tx.InsertEvents(list) })
	mustRead(t, db, func(tx *store.Tx) error {
		got, err := tx.EventsAfter(ns, list[49].Sequence, 3)
		if err != nil || len(got) != 3 {
			t.Fatalf("%d events, %v", len(got), err)
		}
		for i, want := range []*store.Event{list[50], list[52], list[53]} {
			if d := cmp.Diff(*want, got[i]); d != "" {
				t.Errorf("event %d (-want +got):\n%s", i, d)
			}
		}
		last, err := tx.LastEvent()
		if last != list[99].Sequence {
			t.Errorf("the last event is %d, want %d", last, list[99].Sequence)
		}
		return err
	})
	// A number is never given out again.
	next := &store.Event{ID: newID(t), Type: "x", Namespace: ns, Created: 1}
	mustWrite(t, db, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM events`)
		return errors.Join(err, tx.InsertEvents([]*store.Event{next}))
	})
	if next.Sequence != list[99].Sequence+1 {
		t.Errorf("after deleting all, the next event has %d", next.Sequence)
	}
}

func TestSubscriptions(t *testing.T) {
	db := storetest.New(t)
	s := &store.Subscription{ID: newID(t), Namespace: ns, Name: "app", Transport: "websockets", Filter: json.RawMessage(`{"a":1}`), Options: json.RawMessage(`{}`), Created: 3, Position: 12}
	mustWrite(t, db, func(tx *store.Tx) error { return tx.InsertSubscription(s) })
	twin := *s
	twin.ID = newID(t)
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.InsertSubscription(&twin) }); !errors.Is(err, store.ErrExists) {
		t.Errorf("the same name again: %v", err)
	}
	updated := store.Time(8)
	s.Updated, s.Transport, s.Options = &updated, "webhooks", json.RawMessage(`{"url":"x"}`)
	mustWrite(t, db, func(tx *store.Tx) error {
		changed := *s
		changed.Position = 1 // must not count
		return errors.Join(tx.UpdateSubscription(&changed), tx.SetPosition(s.ID, 40))
	})
	s.Position = 40
	mustRead(t, db, func(tx *store.Tx) error {
		byName, err := tx.SubscriptionByName(ns, "app")
		if d := cmp.Diff(s, byName); d != "" || err != nil {
			t.Errorf("by name (-want +got), %v:\n%s", err, d)
		}
		all, err := tx.Subscriptions()
		if len(all) != 1 {
			t.Errorf("%d subscriptions", len(all))
		}
		return err
	})
	mustWrite(t, db, func(tx *store.Tx) error { return tx.DeleteSubscription(s.ID) })
	err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.SetPosition(s.ID, 1) })
	if !errors.Is(err, store.ErrNoRows) {
		t.Errorf("moving a deleted subscription: %v", err)
	}
}

func TestOperationsGoForwardOnly(t *testing.T) {
	db := storetest.New(t)
	txID := newID(t)
	op := func(status string) *store.Operation {
		return &store.Operation{ID: newID(t), Namespace: ns, Tx: &txID, Type: "blockchain_invoke", Status: status, Plugin: "p", Input: json.RawMessage(`{"x":1}`), Created: 1, Updated: 1}
	}
	all := []string{store.OpInitialized, store.OpPending, store.OpSucceeded, store.OpFailed}
	for _, from := range all {
		for _, to := range all {
			o := op(from)
			want := from == store.OpInitialized || from == store.OpPending && to != store.OpInitialized
			mustWrite(t, db, func(tx *store.Tx) error {
				if err := tx.InsertOperations([]*store.Operation{o}); err != nil {
					return err
				}
				changed, err := tx.UpdateOperations([]store.UUID{o.ID, newID(t)}, to, json.RawMessage(`{"y":2}`), "e", 5)
				if (len(changed) == 1) != want {
					t.Errorf("%s to %s changed %d rows", from, to, len(changed))
				}
				return err
			})
			if want {
				o.Status, o.Output, o.Error, o.Updated = to, json.RawMessage(`{"y":2}`), "e", 5
			}
			mustRead(t, db, func(tx *store.Tx) error {
				got, err := tx.OperationByID(ns, o.ID)
				if d := cmp.Diff(o, got); d != "" {
					t.Errorf("%s to %s (-want +got):\n%s", from, to, d)
				}
				return err
			})
		}
	}
	mustRead(t, db, func(tx *store.Tx) error {
		list, err := tx.OperationsOfTransaction(txID)
		if len(list) != len(all)*len(all) {
			t.Errorf("%d operations of the transaction", len(list))
		}
		return err
	})
}

func TestTransactionsAndBlockchainEvents(t *testing.T) {
	db := storetest.New(t)
	tr := &store.Transaction{ID: newID(t), Namespace: ns, Type: "contract_invoke", Created: 2}
	ev := &store.BlockchainEvent{ID: newID(t), Source: "ethereum", Namespace: ns, Name: "Changed", ProtocolID: "000000000001/000000/000001",
		Output: json.RawMessage(`{"a":"1"}`), Info: json.RawMessage(`{}`), Timestamp: 7,
		Tx: store.BlockchainTxRef{Type: "contract_invoke", ID: &tr.ID, BlockchainID: "0x1"}}
	mustWrite(t, db, func(tx *store.Tx) error {
		return errors.Join(
			tx.InsertTransactions([]*store.Transaction{tr}),
			tx.InsertBlockchainEvents([]*store.BlockchainEvent{ev}),
			tx.AddBlockchainID(tr.ID, "0x1"), tx.AddBlockchainID(tr.ID, "0x2"), tx.AddBlockchainID(tr.ID, "0x1"))
	})
	tr.BlockchainIDs = []string{"0x1", "0x2"}
	mustRead(t, db, func(tx *store.Tx) error {
		got, err := tx.TransactionByID(ns, tr.ID)
		if d := cmp.Diff(tr, got); d != "" {
			t.Errorf("transaction (-want +got):\n%s", d)
		}
		events, err2 := tx.BlockchainEventsOfTransaction(tr.ID)
		if d := cmp.Diff([]*store.BlockchainEvent{ev}, events); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		return errors.Join(err, err2)
	})
}

func TestDirectory(t *testing.T) {
	db := storetest.New(t)
	claim, node := newID(t), newID(t)
	id := &store.Identity{ID: newID(t), DID: "did:firefly:org/a", Type: "org", Namespace: ns, Name: "a", Profile: json.RawMessage(`{"k":1}`),
		Messages: store.IdentityMessages{Claim: &claim}, Created: 1, Updated: 2, Org: hash(4)}
	v := &store.Verifier{Hash: hexOf(1), Identity: &id.ID, Type: "ethereum_address", Value: "0xab", Namespace: ns, Created: 3}
	g := &store.Group{Namespace: ns, LocalNamespace: ns, Name: "g", Members: []store.Member{{Identity: id.DID, Node: &node}}, Hash: hexOf(2), Created: 4}
	dt := &store.Datatype{ID: newID(t), Validator: "json", Namespace: ns, Name: "d", Version: "1", Hash: hexOf(3), Created: 5, Value: json.RawMessage(`{"type": "object"}`)}
	mustWrite(t, db, func(tx *store.Tx) error {
		return errors.Join(tx.UpsertIdentity(id), tx.UpsertVerifier(v), tx.InsertGroup(g), tx.InsertDatatype(dt))
	})
	id.Description = "changed"
	mustWrite(t, db, func(tx *store.Tx) error { return errors.Join(tx.UpsertIdentity(id), tx.UpsertVerifier(v)) })
	for what, f := range map[string]func(tx *store.Tx) error{
		"group":    func(tx *store.Tx) error { return tx.InsertGroup(g) },
		"datatype": func(tx *store.Tx) error { d := *dt; d.ID = newID(t); return tx.InsertDatatype(&d) },
	} {
		if err := db.Write(t.Context(), f); !errors.Is(err, store.ErrExists) {
			t.Errorf("%s again: %v", what, err)
		}
	}
	mustRead(t, db, func(tx *store.Tx) error {
		byDID, err1 := tx.IdentityByDID(ns, id.DID)
		byID, err2 := tx.IdentityByID(ns, id.ID)
		ofOrg, err3 := tx.IdentitiesOfOrg(ns, hash(4), "org")
		verifier, err4 := tx.VerifierByValue(ns, "ethereum_address", "0xab")
		of, err5 := tx.VerifiersOf([]store.UUID{id.ID, node})
		group, err6 := tx.GroupByHash(ns, g.Hash)
		datatype, err7 := tx.DatatypeByName(ns, "d", "1")
		want := []any{id, id, []*store.Identity{id}, v, map[store.UUID][]*store.Verifier{id.ID: {v}}, g, dt}
		got := []any{byDID, byID, ofOrg, verifier, of, group, datatype}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("directory (-want +got):\n%s", d)
		}
		return errors.Join(err1, err2, err3, err4, err5, err6, err7)
	})
}

func TestIncidentsAreRecordedOnce(t *testing.T) {
	db := storetest.New(t)
	mustWrite(t, db, func(tx *store.Tx) error {
		for i := range 3 {
			fresh, err := tx.PutIncident(&store.Incident{At: store.Time(i + 1), Kind: "lie", Text: "text", Ref: "a"})
			if err != nil {
				return err
			}
			if fresh != (i == 0) {
				t.Errorf("time %d: fresh is %v", i, fresh)
			}
		}
		_, err := tx.PutIncident(&store.Incident{At: 9, Kind: "lie", Text: "text", Ref: "b"})
		return err
	})
	mustRead(t, db, func(tx *store.Tx) error {
		list, err := tx.Incidents(10)
		want := []store.Incident{{At: 9, Kind: "lie", Text: "text", Ref: "b"}, {At: 1, Kind: "lie", Text: "text", Ref: "a"}}
		if d := cmp.Diff(want, list); d != "" {
			t.Errorf("incidents (-want +got):\n%s", d)
		}
		return err
	})
}
