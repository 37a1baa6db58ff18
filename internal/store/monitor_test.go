package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
	"github.com/parley-node/parley/wire"
)

func TestSubPaths(t *testing.T) {
	db := storetest.New(t)
	mustWrite(t, db, func(tx *store.Tx) error {
		var items []*store.Data
		for i, path := range []string{"/", "/a", "/a/b", "/a/b/c", "/a/b", "/a_", "/a%/x", "/axb"} {
			items = append(items, &store.Data{
				ID: newID(t), Namespace: ns, Validator: "json", Commitment: wire.Hash{byte(i)},
				Blob: &store.BlobRef{Name: path + "/f", Path: path},
			})
		}
		return tx.InsertData(items)
	})
	for parent, want := range map[string][]string{
		"/":    {"/a", "/a_", "/axb"},
		"/a":   {"/a/b"},
		"/a/b": {"/a/b/c"},
		"/a_":  nil,
		"/a%":  {"/a%/x"},
	} {
		var got []string
		err := db.Read(t.Context(), func(tx *store.Tx) (err error) { got, err = tx.SubPaths(ns, parent); return err })
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("below %s (-want +got), %v:\n%s", parent, err, d)
		}
	}
}

func TestCounts(t *testing.T) {
	db := storetest.New(t)
	mustWrite(t, db, func(tx *store.Tx) error {
		if db.WritesWaiting() != 1 {
			t.Errorf("%d writes wait while one runs", db.WritesWaiting())
		}
		var messages []*store.Message
		for _, state := range []string{"ready", "ready", "ready", "sent", "pending", "confirmed"} {
			m := &store.Message{Header: store.MessageHeader{ID: newID(t), Namespace: ns}, State: state}
			if state == "confirmed" {
				at := store.Time(1)
				m.Confirmed = &at
			}
			messages = append(messages, m)
		}
		return tx.InsertMessages(messages)
	})
	err := db.Read(t.Context(), func(tx *store.Tx) error {
		if n, err := tx.CountReady(2); n != 2 || err != nil {
			t.Errorf("counted up to 2: %d, %v", n, err)
		}
		if n, err := tx.CountReady(100); n != 3 || err != nil {
			t.Errorf("counted up to 100: %d, %v", n, err)
		}
		open, err := tx.CountOpen(100)
		if d := cmp.Diff(map[string]int64{"ready": 3, "sent": 1, "pending": 1}, open); d != "" {
			t.Errorf("open messages (-want +got):\n%s", d)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if db.WritesWaiting() != 0 {
		t.Errorf("%d writes wait while none runs", db.WritesWaiting())
	}
}
