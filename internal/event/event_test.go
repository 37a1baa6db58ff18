package event

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

const ns = "default"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a log, its subscriptions and ways to fill it.
type bench struct {
	db   *store.DB
	log  *Log
	subs *Subscriptions
}

func newBench(t testing.TB) *bench {
	db := storetest.New(t)
	log := NewLog(db, ns)
	b := &bench{db: db, log: log, subs: NewSubscriptions(log, slog.New(slog.NewTextHandler(t.Output(), nil)))}
	t.Cleanup(func() {
		if err := b.subs.Close(context.Background()); err != nil {
			t.Errorf("close subscriptions: %v", err)
		}
	})
	return b
}

// append adds events to the log and signals them.
func (b *bench) append(t testing.TB, events ...*store.Event) {
	t.Helper()
	for _, e := range events {
		if e.ID == uuid.Nil {
			e.ID = uuid.New()
		}
		if e.Namespace == "" {
			e.Namespace = ns
		}
		e.Created = store.At(time.Now())
	}
	if err := b.db.Write(context.Background(), func(tx *store.Tx) error { return tx.InsertEvents(events) }); err != nil {
		t.Fatal(err)
	}
	b.log.Committed()
}

// fill adds n transaction_submitted events with topics t0, t1 …
func (b *bench) fill(t testing.TB, n int) []*store.Event {
	t.Helper()
	events := make([]*store.Event, n)
	for i := range events {
		events[i] = &store.Event{Type: "transaction_submitted", Topic: fmt.Sprintf("t%d", i)}
	}
	b.append(t, events...)
	return events
}
