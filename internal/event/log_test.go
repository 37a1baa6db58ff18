package event

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

func TestNextReturnsAtOnceAndAfterCommit(t *testing.T) {
	b := newBench(t)
	b.fill(t, 3)
	if err := b.log.Next(t.Context(), 2); err != nil {
		t.Fatalf("event 3 is there: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- b.log.Next(t.Context(), 3) }()
	b.fill(t, 1)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestNextEndsWithContext(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.log.Next(ctx, 0) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("Next = %v, want context.Canceled", err)
	}
}

// A commit that nobody signals, such as another process's, is found by polling.
func TestNextFindsUnsignalledEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := storetest.New(t)
		log := NewLog(db, ns)
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- log.Next(t.Context(), 0) }()
		synctest.Wait()
		ev := []*store.Event{{ID: uuid.New(), Type: "x", Namespace: ns}}
		if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.InsertEvents(ev) }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited > 2*pollInterval {
			t.Errorf("found after %v, want within two polls", waited)
		}
	})
}

func TestLogIsOfOneNamespace(t *testing.T) {
	b := newBench(t)
	b.append(t, &store.Event{Type: "a", Namespace: "other"}, &store.Event{Type: "b"})
	events, err := b.log.After(t.Context(), 0, 10)
	if err != nil || len(events) != 1 || events[0].Type != "b" {
		t.Fatalf("After = %v, %v; want the one event of %s", events, err, ns)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	b.append(t, &store.Event{Type: "c", Namespace: "other"})
	if err := b.log.Next(ctx, events[0].Sequence); err == nil {
		t.Error("Next returned for an event of another namespace")
	}
}

func TestAwaitTimesOutWithItsCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := NewLog(storetest.New(t), ns)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		_, err := log.Await(ctx, 0, func(*store.Event) bool { return false })
		if errs.Code(err) != "FF10260" || errs.Status(err) != 408 {
			t.Fatalf("Await = %v (status %d), want FF10260 with 408", err, errs.Status(err))
		}
	})
}

func TestAwaitAboutAnyNameOfAnEvent(t *testing.T) {
	b := newBench(t)
	var ids [3]uuid.UUID
	for i := range ids {
		ids[i] = uuid.New()
	}
	b.append(t, &store.Event{Type: "other", Correlator: &ids[1]},
		&store.Event{Type: "wanted", Reference: &ids[0], Correlator: &ids[1], Tx: &ids[2]})
	for i, id := range ids {
		got, err := b.log.AwaitAbout(t.Context(), 0, id, func(e *store.Event) bool { return e.Type == "wanted" })
		if err != nil || got.Type != "wanted" {
			t.Errorf("by name %d: %v, %v", i, got, err)
		}
	}
}

// An answer that arrives between taking the position and waiting is not missed,
// and an older event is not taken for it.
func TestAwaitStartsWhereItWasTold(t *testing.T) {
	b := newBench(t)
	old := b.fill(t, 1)[0]
	from, err := b.log.Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wanted := &store.Event{Type: old.Type}
	b.append(t, wanted)
	b.fill(t, readPage+10)
	got, err := b.log.Await(t.Context(), from, func(e *store.Event) bool { return e.Type == old.Type })
	if err != nil || got.ID != wanted.ID {
		t.Fatalf("Await = %v, %v; want event %s", got, err, wanted.ID)
	}
}

func TestThousandsAwaitAtOnce(t *testing.T) {
	t.Run("by match", func(t *testing.T) {
		thousandsAwait(t, func(l *Log, ref uuid.UUID) (*store.Event, error) {
			return l.Await(t.Context(), 0, func(e *store.Event) bool { return e.Reference != nil && *e.Reference == ref })
		})
	})
	t.Run("by id", func(t *testing.T) {
		thousandsAwait(t, func(l *Log, ref uuid.UUID) (*store.Event, error) {
			return l.AwaitAbout(t.Context(), 0, ref, func(e *store.Event) bool { return e.Type == "message_confirmed" })
		})
	})
}

func thousandsAwait(t *testing.T, await func(*Log, uuid.UUID) (*store.Event, error)) {
	b := newBench(t)
	const n = 5000
	refs := make([]uuid.UUID, n)
	events := make([]*store.Event, n)
	for i := range refs {
		refs[i] = uuid.New()
		events[n-1-i] = &store.Event{Type: "message_confirmed", Reference: &refs[i], Topic: fmt.Sprint(i)}
	}
	var waiters sync.WaitGroup
	failed := make(chan error, n)
	for i := range n {
		waiters.Go(func() {
			got, err := await(b.log, refs[i])
			if err != nil {
				failed <- err
			} else if got.Topic != fmt.Sprint(i) {
				failed <- fmt.Errorf("waiter %d got the event of waiter %s", i, got.Topic)
			}
		})
	}
	for page := 0; page < n; page += 250 {
		b.append(t, events[page:page+250]...)
	}
	waiters.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	b.log.mu.Lock()
	defer b.log.mu.Unlock()
	if len(b.log.waiters) != 0 {
		t.Errorf("%d waiters are left", len(b.log.waiters))
	}
}

// A waiter that comes while the reader is at a later page is shown what it asked
// for first.
func TestOfferNeverSkipsForALateWaiter(t *testing.T) {
	log := NewLog(storetest.New(t), ns)
	all := func(*store.Event) bool { return true }
	late := &waiter{after: 0, match: all, found: make(chan outcome, 1)}
	due := &waiter{after: 500, match: all, found: make(chan outcome, 1)}
	log.waiters[late], log.waiters[due] = struct{}{}, struct{}{}
	log.offer(500, []store.Event{{Sequence: 501}})
	if len(due.found) != 1 {
		t.Error("the waiter at 500 was not shown event 501")
	}
	if len(late.found) != 0 || late.after != 0 {
		t.Errorf("the waiter at 0 has come to %d without events 1 to 500", late.after)
	}
}

func TestWaitersGetTheErrorOfTheRead(t *testing.T) {
	path := storetest.Path(t)
	db, err := store.Open(t.Context(), store.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	log := NewLog(db, ns)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := log.Next(t.Context(), 0); !errors.Is(err, store.ErrClosed) {
		t.Fatalf("Next = %v, want store.ErrClosed", err)
	}
}
