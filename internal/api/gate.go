package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// codeOverload is Parley's own: existing clients know no code for it.
const codeOverload = "FF90003"

// gate keeps an overloaded node answering: beyond a bound, work is refused at
// once with a time to come back, instead of waiting in a queue that only grows.
type gate struct {
	db     *store.DB
	queued func() int // messages on their way into the database, beside the writes
	limits Limits
	now    func() time.Time

	mu     sync.Mutex
	ready  int64     // messages that wait for a batch
	asked  time.Time // when ready was counted
	asking bool
}

// readyAge is how old the count of ready messages may be.
const readyAge = 250 * time.Millisecond

// enter refuses a request that would write, while too much waits.
func (g *gate) enter(ctx context.Context) error {
	if n := g.db.WritesWaiting() + g.queued(); n >= g.limits.QueuedWrites {
		return errs.New(codeOverload, http.StatusTooManyRequests, "%d writes wait for the database, which is the most; try again in a second", n)
	}
	ready, err := g.readyMessages(ctx)
	if err != nil {
		return err
	}
	if ready >= g.limits.ReadyMessages {
		return errs.New(codeOverload, http.StatusServiceUnavailable, "%d messages wait to be sent, which is the most; check that the ledger and the peers can be reached, and try again later", ready)
	}
	return nil
}

// readyMessages counts at most every readyAge; others get the last count.
func (g *gate) readyMessages(ctx context.Context) (int64, error) {
	g.mu.Lock()
	if g.asking || !g.asked.IsZero() && g.now().Sub(g.asked) < readyAge {
		defer g.mu.Unlock()
		return g.ready, nil
	}
	g.asking = true
	g.mu.Unlock()

	var n int64
	err := g.db.Read(ctx, func(tx *store.Tx) (err error) {
		n, err = tx.CountReady(g.limits.ReadyMessages)
		return err
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asking = false
	if err != nil {
		return 0, err
	}
	g.ready, g.asked = n, g.now()
	return n, nil
}
