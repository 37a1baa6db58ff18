package event

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/store"
)

const (
	// journalInterval is the shortest time between two writes of the log of
	// deliveries. A crash costs the entries of that time, never an event.
	journalInterval = 100 * time.Millisecond

	// keptDeliveries is how many deliveries, besides dead ones, a subscription's
	// log keeps; it is trimmed each time a quarter of that was added.
	keptDeliveries = 1000

	// maxUnsaved bounds the entries in memory while the database is slow.
	maxUnsaved = 5000
)

// journal writes the log of deliveries: many entries become one write.
type journal struct {
	db  *store.DB
	log *slog.Logger

	stop    chan struct{}
	stopped sync.WaitGroup
	writing sync.Mutex // one write at a time, so that an older entry never replaces a newer one

	mu      sync.Mutex
	dirty   map[store.UUID]*store.Delivery
	added   map[store.UUID]int // by subscription, since its log was trimmed
	running bool
	closed  bool
}

func newJournal(db *store.DB, log *slog.Logger) *journal {
	return &journal{db: db, log: log, stop: make(chan struct{}), dirty: map[store.UUID]*store.Delivery{}, added: map[store.UUID]int{}}
}

// note stores an entry soon. It waits only if too many wait already.
func (j *journal) note(ctx context.Context, d *store.Delivery) error {
	j.mu.Lock()
	if len(j.dirty) >= maxUnsaved {
		j.mu.Unlock()
		if err := j.save(ctx); err != nil {
			return err
		}
		j.mu.Lock()
	}
	defer j.mu.Unlock()
	entry := *d // as it is now; the delivery goes on
	j.dirty[d.ID] = &entry
	j.added[d.Subscription]++
	if !j.running && !j.closed {
		j.running = true
		j.stopped.Go(j.run)
	}
	return nil
}

// keep stores an entry before it returns, however long that takes: what it tells
// of is acknowledged after that.
func (j *journal) keep(ctx context.Context, d *store.Delivery) error {
	j.mu.Lock()
	entry := *d // as it is now; the delivery goes on
	j.dirty[d.ID] = &entry
	j.mu.Unlock()
	for {
		err := j.save(context.WithoutCancel(ctx))
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		j.log.Error("store a delivery that was given up; trying again", "delivery", d.ID, "error", err)
		pause(ctx, time.Second, nil)
	}
}

// run writes while there is something to write.
func (j *journal) run() {
	timer := time.NewTimer(journalInterval)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-j.stop:
		}
		if err := j.save(context.Background()); err != nil {
			j.log.Error("store the log of deliveries; trying again", "error", err)
		}
		j.mu.Lock()
		if len(j.dirty) == 0 || j.closed {
			j.running = false
			j.mu.Unlock()
			return
		}
		j.mu.Unlock()
		timer.Reset(journalInterval)
	}
}

// save stores what was noted before the call. What could not be stored stays.
func (j *journal) save(ctx context.Context) error {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	batch := make([]*store.Delivery, 0, len(j.dirty))
	for _, d := range j.dirty {
		batch = append(batch, d)
	}
	// The ids ascend with time, and the rows are listed in the order of storing.
	slices.SortFunc(batch, func(a, b *store.Delivery) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	clear(j.dirty)
	var trim []store.UUID
	for sub, n := range j.added {
		if n >= keptDeliveries/4 {
			trim = append(trim, sub)
			delete(j.added, sub)
		}
	}
	j.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	err := j.db.Write(ctx, func(tx *store.Tx) error {
		if err := tx.PutDeliveries(batch); err != nil {
			return err
		}
		for _, sub := range trim {
			if err := tx.TrimDeliveries(sub, keptDeliveries); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, d := range batch {
		if _, newer := j.dirty[d.ID]; !newer {
			j.dirty[d.ID] = d
		}
	}
	return fmt.Errorf("store %d deliveries: %w", len(batch), err)
}

// close stores what is left and ends the writer.
func (j *journal) close(ctx context.Context) error {
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		close(j.stop)
	}
	j.mu.Unlock()
	j.stopped.Wait()
	return j.save(ctx)
}

// cut shortens text that came from outside, and keeps it valid.
func cut(text string, most int) string {
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}
