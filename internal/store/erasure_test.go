package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
	"github.com/parley-node/parley/wire"
)

// What is erased is not in the database's files any more, however long it was
// and whatever was written around it; an item that is erased and comes again is a
// row of its own.
func TestErasedDataLeavesTheFiles(t *testing.T) {
	if storetest.Postgres() {
		return // the files are the server's
	}
	db := storetest.New(t)
	trace := []byte("Unverwechselbar-Zauberlehrling")
	var items []*store.Data
	for i := range 300 {
		value := append(append([]byte{'"'}, bytes.Repeat(trace, 1+i%200)...), '"') // in a page, and in many
		items = append(items, &store.Data{ID: newID(t), Validator: "json", Namespace: ns, Hash: hexOf(i), Value: value, Seed: wire.Hash{1}, Commitment: hash(i)})
	}
	for _, d := range items { // one by one, so that pages split
		mustWrite(t, db, func(tx *store.Tx) error { return tx.InsertData([]*store.Data{d}) })
	}
	found := func() (n int) {
		for _, suffix := range []string{"", "-wal"} {
			content, err := os.ReadFile(db.Path() + suffix)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			n += bytes.Count(content, trace)
		}
		return n
	}
	if found() == 0 {
		t.Fatal("the values are not found where they are: the test would prove nothing")
	}
	erasure := newID(t)
	var seqs []int64
	for _, d := range items {
		seqs = append(seqs, d.Seq)
	}
	mustWrite(t, db, func(tx *store.Tx) error { return tx.EraseData(seqs, erasure) })
	if err := db.Scrub(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := found(); n > 0 {
		t.Errorf("the values are still there %d times", n)
	}
	again := *items[0]
	mustWrite(t, db, func(tx *store.Tx) error { return tx.InsertData([]*store.Data{&again}) })
	if again.Seq == items[0].Seq {
		t.Error("an item that came again took the place of the erased one")
	}
}
