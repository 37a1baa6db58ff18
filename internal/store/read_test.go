package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

// A database can be read by a second process while a node has it, and is not
// changed by that.
func TestOpenToRead(t *testing.T) {
	ctx := context.Background()
	path := storetest.Path(t)
	node, err := store.Open(ctx, store.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	if err := node.Write(ctx, func(tx *store.Tx) error { return tx.SetMeta("a", "b") }); err != nil {
		t.Fatal(err)
	}
	reader, err := store.OpenToRead(ctx, store.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	var got string
	if err := reader.Read(ctx, func(tx *store.Tx) (err error) { got, err = tx.Meta("a"); return err }); err != nil || got != "b" {
		t.Fatalf("the second process reads %q, %v", got, err)
	}
	if err := reader.Write(ctx, func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrReadOnly) {
		t.Fatalf("a write to it gives %v", err)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	if err := node.Write(ctx, func(tx *store.Tx) error { return tx.SetMeta("a", "c") }); err != nil {
		t.Fatal(err)
	}
}

// What is not there is not created.
func TestOpenToReadNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.db")
	if _, err := store.OpenToRead(context.Background(), store.Options{Path: path}); err == nil {
		t.Fatal("a database that is not there was opened")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("reading created the file: %v", err)
	}
}
