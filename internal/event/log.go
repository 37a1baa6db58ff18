package event

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

const (
	// pollInterval bounds how long an event stays unseen whose commit nobody
	// signalled: one that another process wrote, or after a missed signal.
	pollInterval = time.Second

	// readPage is how many events one query reads.
	readPage = 500
)

// Log is the ordered event log of one namespace. All its methods may be called
// from any goroutine.
//
// However many callers wait, one goroutine reads the database for all of them.
// It runs only while somebody waits, so a Log needs no Close.
type Log struct {
	db        *store.DB
	namespace string
	poll      time.Duration
	signal    chan struct{} // holds at most one "look again" for the reader

	mu      sync.Mutex
	waiters map[*waiter]struct{}
	reading bool // the reader goroutine runs
}

// waiter is one caller of Next or Await.
type waiter struct {
	after int64       // sequence up to which match has been asked
	about *store.UUID // what the event must name, nil if anything
	match func(*store.Event) bool
	found chan outcome // holds one
}

type outcome struct {
	event *store.Event
	err   error
}

// NewLog returns the event log of a namespace in db.
func NewLog(db *store.DB, namespace string) *Log {
	return &Log{
		db:        db,
		namespace: namespace,
		poll:      pollInterval,
		signal:    make(chan struct{}, 1),
		waiters:   make(map[*waiter]struct{}),
	}
}

// Namespace is the namespace that the log is of.
func (l *Log) Namespace() string { return l.namespace }

// Committed says that a transaction that inserted events has been committed. It
// never blocks. Without it events are still found, up to a second later.
func (l *Log) Committed() { l.wake() }

// wake makes the reader look again, at the log and at who waits.
func (l *Log) wake() {
	select {
	case l.signal <- struct{}{}:
	default: // the reader has yet to take an earlier signal and will see this too
	}
}

// Last returns the sequence of the newest event of the whole database, 0 if
// there is none. Every later event of the namespace has a higher one.
func (l *Log) Last(ctx context.Context) (last int64, err error) {
	err = l.db.Read(ctx, func(tx *store.Tx) error {
		last, err = tx.LastEvent()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read the last event: %w", err)
	}
	return last, nil
}

// After returns up to limit events with a sequence above after, in order.
func (l *Log) After(ctx context.Context, after int64, limit int) (events []store.Event, err error) {
	err = l.db.Read(ctx, func(tx *store.Tx) error {
		events, err = tx.EventsAfter(l.namespace, after, limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read events after %d: %w", after, err)
	}
	return events, nil
}

// Next waits until the log has an event with a sequence above after. It returns
// the context's error if that ends first, or the error of a failed read.
func (l *Log) Next(ctx context.Context, after int64) error {
	_, err := l.wait(ctx, after, nil, func(*store.Event) bool { return true })
	return err
}

// Await waits for the first event with a sequence above from that match accepts.
// To miss no answer, take from with Last before sending what the answer is to.
//
// match is called for each event in order, on a goroutine that all callers
// share: it must be quick and must not block. Past the context's deadline the
// error is FF10260 (408); what was sent goes on.
func (l *Log) Await(ctx context.Context, from int64, match func(*store.Event) bool) (*store.Event, error) {
	return await(l.wait(ctx, from, nil, match))
}

// AwaitAbout is Await for an event that names an id, as its reference, its
// correlator or its transaction; match is asked about no other. It is the one to
// use where many wait at once, since each event then costs next to nothing for
// those whom it does not concern.
func (l *Log) AwaitAbout(ctx context.Context, from int64, id store.UUID, match func(*store.Event) bool) (*store.Event, error) {
	return await(l.wait(ctx, from, &id, match))
}

func await(ev *store.Event, err error) (*store.Event, error) {
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, errs.New("FF10260", http.StatusRequestTimeout,
			"No confirmation arrived before the request's time was up; the work goes on. Ask for its state later, or raise Request-Timeout")
	}
	return ev, err
}

func (l *Log) wait(ctx context.Context, after int64, about *store.UUID, match func(*store.Event) bool) (*store.Event, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	w := &waiter{after: after, about: about, match: match, found: make(chan outcome, 1)}
	l.mu.Lock()
	l.waiters[w] = struct{}{}
	start := !l.reading
	l.reading = true
	l.mu.Unlock()
	if start {
		go l.read()
	} else {
		l.wake() // the reader may be asleep at a higher sequence than after
	}
	select {
	case o := <-w.found:
		return o.event, o.err
	case <-ctx.Done():
	}
	l.mu.Lock()
	delete(l.waiters, w)
	idle := len(l.waiters) == 0
	l.mu.Unlock()
	if idle {
		l.wake() // let the reader end
	}
	select {
	case o := <-w.found: // found at the last moment: better than an error
		return o.event, o.err
	default:
		return nil, context.Cause(ctx)
	}
}

// read serves the waiters until there are none. Its context is its own: it reads
// for all of them, and no single one may cut the read short.
func (l *Log) read() {
	ctx := context.Background()
	timer := time.NewTimer(l.poll)
	defer timer.Stop()
	for {
		from, any := l.lowest()
		if !any {
			return
		}
		page, err := l.After(ctx, from, readPage)
		if err != nil {
			l.fail(err)
			continue
		}
		l.offer(from, page)
		if len(page) > 0 {
			continue
		}
		timer.Reset(l.poll)
		select {
		case <-l.signal:
		case <-timer.C:
		}
	}
}

// lowest returns the lowest sequence that a waiter still has to see events
// after. If nobody waits it marks the reader as ended.
func (l *Log) lowest() (from int64, any bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiters) == 0 {
		l.reading = false
		return 0, false
	}
	from = math.MaxInt64
	for w := range l.waiters {
		from = min(from, w.after)
	}
	return from, true
}

// offer shows the page that follows from to every waiter it is due to: not to
// one that has seen it, nor to one that came meanwhile and must see what stands
// before the page first.
func (l *Log) offer(from int64, page []store.Event) {
	if len(page) == 0 {
		return
	}
	last := page[len(page)-1].Sequence
	naming := index(page)
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.waiters {
		if w.after < from || w.after >= last {
			continue
		}
		if ev := w.find(page, naming); ev != nil {
			w.found <- outcome{event: ev}
			delete(l.waiters, w)
		}
		w.after = last
	}
}

// index lists, for each id that events of a page name, the places of the events.
func index(page []store.Event) map[store.UUID][]int {
	naming := make(map[store.UUID][]int, len(page))
	for i := range page {
		e := &page[i]
		for _, id := range []*store.UUID{e.Reference, e.Correlator, e.Tx} {
			if id != nil {
				naming[*id] = append(naming[*id], i)
			}
		}
	}
	return naming
}

// find returns a copy of the first event of a page that the waiter waits for.
func (w *waiter) find(page []store.Event, naming map[store.UUID][]int) *store.Event {
	try := func(e *store.Event) *store.Event {
		if e.Sequence <= w.after || !w.match(e) {
			return nil
		}
		found := *e
		return &found
	}
	if w.about != nil {
		for _, i := range naming[*w.about] {
			if ev := try(&page[i]); ev != nil {
				return ev
			}
		}
		return nil
	}
	for i := range page {
		if ev := try(&page[i]); ev != nil {
			return ev
		}
	}
	return nil
}

// fail ends every wait with the error of a read, which the waiters know better
// how to treat than the reader does.
func (l *Log) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.waiters {
		w.found <- outcome{err: err}
		delete(l.waiters, w)
	}
}
