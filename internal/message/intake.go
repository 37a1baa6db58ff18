package message

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/parley-node/parley/internal/store"
)

// intake puts messages that are handed in at the same time into the database
// together (T1). While one transaction waits for the writer, all that come join
// it: the more work there is, the less a message costs.
type intake struct {
	db *store.DB

	mu      sync.Mutex
	waiting []*handedIn
	started bool // a transaction will take what waits
}

// maxIntake bounds the messages of one transaction.
const maxIntake = 500

// handedIn is a message on its way into the database.
type handedIn struct {
	message *store.Message
	items   []item
	done    chan error // buffered
}

// put stores a message of a known audience with its data. If ctx ends before
// that has begun, nothing is stored; after that it waits for the outcome.
func (in *intake) put(ctx context.Context, m *store.Message, items []item) error {
	h := &handedIn{message: m, items: items, done: make(chan error, 1)}
	in.mu.Lock()
	in.waiting = append(in.waiting, h)
	in.start()
	in.mu.Unlock()
	select {
	case err := <-h.done:
		return err
	case <-ctx.Done():
	}
	in.mu.Lock()
	at := slices.Index(in.waiting, h)
	if at >= 0 {
		in.waiting = slices.Delete(in.waiting, at, at+1)
	}
	in.mu.Unlock()
	if at >= 0 {
		return ctx.Err()
	}
	return <-h.done
}

// start sees to it that what waits is taken. The caller holds the lock.
func (in *intake) start() {
	if !in.started && len(in.waiting) > 0 {
		in.started = true
		go in.store()
	}
}

// take is what the next transaction stores.
func (in *intake) take() []*handedIn {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := min(len(in.waiting), maxIntake)
	taken := slices.Clone(in.waiting[:n])
	in.waiting = slices.Delete(in.waiting, 0, n)
	in.started = false
	in.start()
	return taken
}

// store runs one transaction. If it fails for what one of the messages holds,
// such as an idempotency key that is taken, each is stored alone: none suffers
// for another.
func (in *intake) store() {
	var all []*handedIn
	var fault error // of the statements; after it nothing was stored
	err := in.db.Write(context.Background(), func(tx *store.Tx) error {
		if all == nil {
			all = in.take()
		}
		fault = insertMessages(tx, all)
		return fault
	})
	if all == nil { // the writer did not come to it
		all = in.take()
	}
	if fault != nil && len(all) > 1 && !errors.Is(err, store.ErrDisk) && !errors.Is(err, store.ErrUnreachable) {
		for _, h := range all {
			h.done <- in.db.Write(context.Background(), func(tx *store.Tx) error { return insertMessages(tx, []*handedIn{h}) })
		}
		return
	}
	for _, h := range all {
		h.done <- err
	}
}

// insertMessages stores messages and their data; data that is stored already is
// linked.
func insertMessages(tx *store.Tx, all []*handedIn) error {
	messages := make([]*store.Message, len(all))
	var rows []*store.Data
	for i, h := range all {
		messages[i] = h.message
		for _, it := range h.items {
			rows = append(rows, it.row)
		}
	}
	if err := tx.InsertMessages(messages); err != nil {
		return err
	}
	if err := tx.InsertData(rows); err != nil {
		return err
	}
	links := make([]store.DataLink, 0, len(rows))
	for _, h := range all {
		for i, it := range h.items {
			links = append(links, store.DataLink{Message: h.message.Seq, Index: i, Data: it.row.Seq})
		}
	}
	return tx.LinkData(links)
}
