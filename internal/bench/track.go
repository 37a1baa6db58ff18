package bench

import (
	"sync"
	"time"

	"github.com/google/uuid"
)

// tracker matches messages that were posted with the events at the receiver. An
// event may come before the POST is answered, which tells the message's id.
type tracker struct {
	mu      sync.Mutex
	open    map[uuid.UUID]time.Time // posted, or seen, and not yet both
	done    map[uuid.UUID]struct{}
	posted  int
	twice   int
	latency []time.Duration // of those that count
	slowest Slowest
	count   time.Time     // messages posted from then on count
	last    time.Time     // event
	changed chan struct{} // has a value when something arrived
}

// newTracker counts the times of no message yet.
func newTracker() *tracker {
	return &tracker{open: map[uuid.UUID]time.Time{}, done: map[uuid.UUID]struct{}{}, count: never, changed: make(chan struct{}, 1)}
}

var never = time.Unix(1<<40, 0)

// countFrom begins to count the times of messages posted from then on.
func (t *tracker) countFrom(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count = at
}

// sent notes a message that was posted at a time.
func (t *tracker) sent(id uuid.UUID, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.posted++
	if seen, ok := t.open[id]; ok {
		t.match(id, at, seen)
		return
	}
	t.open[id] = at
}

// seen notes an event about a message.
func (t *tracker) seen(id uuid.UUID, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, again := t.done[id]; again {
		t.twice++
		return
	}
	if posted, ok := t.open[id]; ok {
		t.match(id, posted, at)
		return
	}
	t.open[id] = at
}

func (t *tracker) match(id uuid.UUID, posted, seen time.Time) {
	delete(t.open, id)
	t.done[id] = struct{}{}
	if !posted.Before(t.count) {
		took := seen.Sub(posted)
		t.latency = append(t.latency, took)
		if ms(took) > t.slowest.MS {
			t.slowest = Slowest{Message: id.String(), MS: ms(took)}
		}
	}
	if seen.After(t.last) {
		t.last = seen
	}
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// missing is how many messages were posted and not seen.
func (t *tracker) missing() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.posted - len(t.done)
}
