package message

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/parley-node/parley/internal/store"
)

// intake puts messages that are handed in at the same time into the database
// together (T1). While one transaction waits for the writer, all that come join
// it: the more work there is, the less a message costs.
type intake struct {
	db     *store.DB
	recent *recent

	pending atomic.Int64 // calls of put that have not ended

	mu      sync.Mutex
	waiting []*handedIn
	started bool // a transaction will take what waits
}

// maxIntake bounds the messages of one transaction.
const maxIntake = 500

// handedIn is a message on its way into the database.
type handedIn struct {
	source
	done chan error // buffered
}

// put stores a message of a known audience with its data. If ctx ends before
// that has begun, nothing is stored; after that it waits for the outcome.
func (in *intake) put(ctx context.Context, m source) error {
	in.pending.Add(1)
	defer in.pending.Add(-1)
	h := &handedIn{m, make(chan error, 1)}
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
		fault = insertMessages(tx, sources(all))
		return fault
	})
	if all == nil { // the writer did not come to it
		all = in.take()
	}
	if fault != nil && len(all) > 1 && !errors.Is(err, store.ErrDisk) && !errors.Is(err, store.ErrUnreachable) {
		for _, h := range all {
			h.done <- in.db.Write(context.Background(), func(tx *store.Tx) error { return insertMessages(tx, []source{h.source}) })
		}
		return
	}
	if err == nil {
		in.recent.putReady(ownCopies(all))
	}
	for _, h := range all {
		h.done <- err
	}
}

func sources(all []*handedIn) []source {
	list := make([]source, len(all))
	for i, h := range all {
		list[i] = h.source
	}
	return list
}

// ownCopies has rows of its own, for those handed in go back to the callers.
func ownCopies(all []*handedIn) []source {
	list := sources(all)
	for i := range list {
		row := *list[i].row
		list[i].row = &row
	}
	return list
}

// insertMessages stores messages and their data; data that is stored already is
// linked.
func insertMessages(tx *store.Tx, all []source) error {
	messages := make([]*store.Message, len(all))
	var rows []*store.Data
	for i, s := range all {
		messages[i] = s.row
		rows = append(rows, s.data...)
	}
	if err := tx.InsertMessages(messages); err != nil {
		return err
	}
	if err := tx.InsertData(rows); err != nil {
		return err
	}
	links := make([]store.DataLink, 0, len(rows))
	for _, s := range all {
		for i, d := range s.data {
			links = append(links, store.DataLink{Message: s.row.Seq, Index: i, Data: d.Seq})
		}
	}
	return tx.LinkData(links)
}
