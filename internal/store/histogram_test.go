package store_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

func TestHistogram(t *testing.T) {
	db := storetest.New(t)
	mustWrite(t, db, func(tx *store.Tx) error {
		var events []*store.Event
		for i := range 20 {
			kind := "a"
			if i%4 == 0 {
				kind = "b"
			}
			events = append(events, &store.Event{ID: newID(t), Type: kind, Namespace: ns, Created: store.Time(100 + i)})
		}
		return tx.InsertEvents(events)
	})
	got, err := store.Histogram(t.Context(), db, &store.Events.Collection, ns, 100, 122, 10, 8)
	want := []store.Bucket{
		{Start: 100, Total: 8, Capped: true},
		{Start: 110, Total: 8, Capped: true},
		{Start: 120},
	}
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	for i := range got {
		var sum int64
		for _, n := range got[i].Types {
			sum += n.Count
		}
		if sum != got[i].Total {
			t.Errorf("bucket %d: types add up to %d of %d", i, sum, got[i].Total)
		}
		got[i].Types = nil
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("capped buckets (-want +got):\n%s", d)
	}
	got, err = store.Histogram(t.Context(), db, &store.Events.Collection, ns, 100, 105, 5, 100)
	want = []store.Bucket{{Start: 100, Total: 5, Types: []store.TypeCount{{Type: "a", Count: 3}, {Type: "b", Count: 2}}}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("bucket (-want +got), %v:\n%s", err, d)
	}
	// The end of time does not overflow.
	if got, err := store.Histogram(t.Context(), db, &store.BlockchainEvents.Collection, ns, math.MaxInt64-5, math.MaxInt64, 3, 100); err != nil || len(got) != 2 || got[0].Types != nil {
		t.Errorf("at the end of time: %v, %v", got, err)
	}
	for _, bad := range [][3]store.Time{{5, 10, 0}, {10, 5, 1}} {
		if _, err := store.Histogram(t.Context(), db, &store.Events.Collection, ns, bad[0], bad[1], bad[2], 100); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}
