package event

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/store"
)

// positionInterval is the shortest time between two writes of positions. A crash
// costs a redelivery of what was acknowledged within it.
const positionInterval = 100 * time.Millisecond

// positions writes the positions of all subscriptions: many acknowledgements
// become one write. A position is stored only after everything up to it has been
// acknowledged, or passed over by the filter.
type positions struct {
	db  *store.DB
	log *slog.Logger

	stop    chan struct{}
	stopped sync.WaitGroup

	writing sync.Mutex // one write at a time: who gets it finds whatever is dirty by then

	mu      sync.Mutex
	dirty   map[store.UUID]int64 // subscription -> position, not yet stored
	running bool
	closed  bool
}

func newPositions(db *store.DB, log *slog.Logger) *positions {
	return &positions{db: db, log: log, stop: make(chan struct{}), dirty: make(map[store.UUID]int64)}
}

// set notes a new position, to be stored soon. It does not block on the database.
func (p *positions) set(id store.UUID, position int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, there := p.dirty[id]; there && old >= position {
		return
	}
	p.dirty[id] = position
	if !p.running && !p.closed {
		p.running = true
		p.stopped.Go(p.run)
	}
}

// get returns a position that is not stored yet.
func (p *positions) get(id store.UUID) (position int64, there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	position, there = p.dirty[id]
	return position, there
}

// run writes while there is something to write.
func (p *positions) run() {
	timer := time.NewTimer(positionInterval)
	defer timer.Stop()
	for {
		if err := p.save(context.Background()); err != nil {
			p.log.Error("store subscription positions; trying again", "error", err)
		}
		timer.Reset(positionInterval)
		select {
		case <-timer.C:
		case <-p.stop:
		}
		p.mu.Lock()
		if len(p.dirty) == 0 || p.closed {
			p.running = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
	}
}

// save stores every position that was set before the call. What could not be
// stored stays noted.
func (p *positions) save(ctx context.Context) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.Lock()
	batch := p.dirty
	p.dirty = make(map[store.UUID]int64)
	p.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	err := p.db.Write(ctx, func(tx *store.Tx) error {
		for id, position := range batch {
			err := tx.SetPosition(id, position)
			if err != nil && !errors.Is(err, store.ErrNoRows) { // no row: deleted meanwhile
				return err
			}
		}
		return nil
	})
	if err == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, position := range batch {
		if newer, there := p.dirty[id]; !there || newer < position {
			p.dirty[id] = position
		}
	}
	return err
}

// close stores what is left and ends the writer.
func (p *positions) close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.stop)
	}
	p.mu.Unlock()
	p.stopped.Wait()
	return p.save(ctx)
}
