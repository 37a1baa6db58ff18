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
	turns   int                  // how often a subscription was moved by hand
	rewound map[store.UUID]int   // the turn at which each was moved last; what was delivered before does not count
	running bool
	closed  bool
}

func newPositions(db *store.DB, log *slog.Logger) *positions {
	return &positions{db: db, log: log, stop: make(chan struct{}), dirty: make(map[store.UUID]int64), rewound: make(map[store.UUID]int)}
}

// turn is what set needs. Read it before the position from which delivery begins.
func (p *positions) turn() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turns
}

// movedAt is the turn at which a subscription was moved by hand last; 0 for never.
func (p *positions) movedAt(id store.UUID) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rewound[id]
}

// moved says whether a subscription was moved by hand since a turn.
func (p *positions) moved(id store.UUID, turn int) bool { return p.movedAt(id) > turn }

// set notes a new position, to be stored soon, unless the subscription was moved
// by hand since the turn. It does not block on the database.
func (p *positions) set(id store.UUID, turn int, position int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rewound[id] > turn {
		return
	}
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

// rewind moves a subscription to a position, which may lie before its present
// one, and stores it.
func (p *positions) rewind(ctx context.Context, id store.UUID, position int64) error {
	p.writing.Lock() // no write of an earlier position may come after this one
	defer p.writing.Unlock()
	p.mu.Lock()
	p.turns++
	p.rewound[id] = p.turns
	delete(p.dirty, id)
	p.mu.Unlock()
	return p.db.Write(ctx, func(tx *store.Tx) error { return tx.SetPosition(id, position) })
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
