package event

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/store"
)

// consume serves an ephemeral subscription to a transport until the test ends.
func (b *bench) consume(t testing.TB, filter Filter, options Options, transport Transport, autoAck bool) *Consumer {
	t.Helper()
	e, err := b.subs.Ephemeral(t.Context(), filter, options)
	if err != nil {
		t.Fatal(err)
	}
	c := NewConsumer(transport, autoAck, new(atomic.Uint64))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.subs.ServeEphemeral(ctx, e, c) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return c
}

func TestInFlightNeverExceedsTheWindow(t *testing.T) {
	b := newBench(t)
	ahead := uint16(3)
	frames := make(chan *Frame, 100)
	c := b.consume(t, Filter{}, Options{ReadAhead: &ahead}, func(f *Frame) error { frames <- f; return nil }, false)
	b.fill(t, 50)
	for i := range 50 {
		f := <-frames
		if want := fmt.Sprint("t", i); f.Events[0].Topic != want {
			t.Fatalf("frame %d has topic %q, want %q", i, f.Events[0].Topic, want)
		}
		c.mu.Lock()
		inflight := len(c.inflight)
		c.mu.Unlock()
		if inflight > 4 {
			t.Fatalf("%d frames are in flight, more than readAhead + 1", inflight)
		}
		if !c.Ack(&f.ID) {
			t.Fatalf("frame %d cannot be acknowledged", i)
		}
		if c.Ack(&f.ID) {
			t.Fatalf("frame %d was acknowledged twice", i)
		}
	}
}

func TestBatchWaitsForItsTimeoutAndGrowsBehindAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		batch, size := true, uint16(10)
		frames := make(chan *Frame, 10)
		c := b.consume(t, Filter{}, Options{Batch: &batch, ReadAhead: &size, BatchTimeout: "300ms"},
			func(f *Frame) error { frames <- f; return nil }, false)
		synctest.Wait()
		start := time.Now()
		b.fill(t, 2)
		f := <-frames
		if took := time.Since(start); len(f.Events) != 2 || took < 300*time.Millisecond || took > 400*time.Millisecond {
			t.Fatalf("a batch of %d after %v, want 2 after 300ms", len(f.Events), took)
		}
		// While the first is in flight nothing else is sent, and the next one grows.
		b.fill(t, 3)
		time.Sleep(5 * time.Second) // of the bubble's time
		b.fill(t, 4)
		synctest.Wait()
		if len(frames) != 0 {
			t.Fatal("a second batch was sent before the first was acknowledged")
		}
		c.Ack(nil)
		if f = <-frames; len(f.Events) != 7 {
			t.Errorf("the second batch has %d events, want all 7", len(f.Events))
		}
		c.Ack(&f.ID)
	})
}

// A filter that selects nothing still moves the stored position, now and then.
func TestPositionMovesOverWhatTheFilterExcludes(t *testing.T) {
	b := newBench(t)
	sub := b.create(t, `{"name":"app","filter":{"events":"^nothing$"}}`)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.subs.Serve(ctx, "app", NewConsumer(func(*Frame) error { return errors.New("not expected") }, false, new(atomic.Uint64)))
	}()
	b.fill(t, 2*passInterval)
	last := int64(2 * passInterval)
	n := &node{bench: b}
	n.until(t, "the position has moved", func() bool { return n.position(t, sub.ID) >= last-passInterval })
	b.fill(t, 10)
	if err := b.log.Next(ctx, last+9); err != nil {
		t.Fatal(err)
	}
	n.until(t, "the position is stored", func() bool {
		s, err := b.subs.Get(t.Context(), sub.ID)
		return err == nil && s.Position >= last-passInterval
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve = %v, want context.Canceled", err)
	}
}

func TestConsumerThatHasGoneEndsServe(t *testing.T) {
	b := newBench(t)
	sub := b.create(t, `{"name":"app"}`)
	b.fill(t, 1)
	gone := errors.New("broken pipe")
	err := b.subs.Serve(t.Context(), "app", NewConsumer(func(*Frame) error { return gone }, true, new(atomic.Uint64)))
	if !errors.Is(err, gone) {
		t.Fatalf("Serve = %v, want %v", err, gone)
	}
	if s, err := b.subs.Get(t.Context(), sub.ID); err != nil || s.Position != 0 {
		t.Errorf("position %d, %v; what could not be sent must not count", s.Position, err)
	}
}

// Many acknowledgements become few writes, and Close stores the last of them.
func TestPositionsAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		sub := b.create(t, `{"name":"app"}`)
		read := func() int64 {
			s, err := b.subs.Get(t.Context(), sub.ID)
			if err != nil {
				t.Fatal(err)
			}
			return s.Position
		}
		p := b.subs.positions
		p.set(sub.ID, 0, 1)
		synctest.Wait()
		if got := read(); got != 1 {
			t.Fatalf("position %d is stored, want the first one at once", got)
		}
		for i := range 1000 {
			p.set(sub.ID, 0, int64(i))
		}
		p.set(sub.ID, 0, 7) // never back
		synctest.Wait()
		if got := read(); got != 1 {
			t.Errorf("position %d is stored within the interval, want 1 still", got)
		}
		time.Sleep(positionInterval) // of the bubble's time
		synctest.Wait()
		if got := read(); got != 999 {
			t.Errorf("position %d is stored, want 999", got)
		}
		p.set(sub.ID, 0, 2000)
		p.set(uuid.New(), 0, 5) // of a subscription deleted meanwhile
		if err := b.subs.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != 2000 {
			t.Errorf("position %d is stored by Close, want 2000", got)
		}
	})
}

// What is acknowledged out of order counts only up to the first gap.
func TestAcksOutOfOrder(t *testing.T) {
	var position int64
	c := NewConsumer(func(*Frame) error { return nil }, false, new(atomic.Uint64))
	c.begin(Ref{}, 10, 0, 0, func(p int64) { position = p })
	var ids []uuid.UUID
	for _, sequence := range []int64{3, 5, 9} { // the others do not match the filter
		id := uuid.New()
		ids = append(ids, id)
		f := &Frame{ID: id, Events: []Enriched{{Event: store.Event{ID: id, Sequence: sequence}}}}
		if err := c.send(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	c.pass(20)
	for _, step := range []struct {
		ack  int
		want int64
	}{{1, 0}, {0, 8}, {2, 20}} {
		if !c.Ack(&ids[step.ack]) || position != step.want {
			t.Errorf("after ack of frame %d the position is %d, want %d", step.ack, position, step.want)
		}
	}
	if c.Ack(nil) {
		t.Error("an ack was accepted with nothing in flight")
	}
}
