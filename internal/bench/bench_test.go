package bench

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestPercentiles(t *testing.T) {
	var d []time.Duration
	for i := 100; i > 0; i-- {
		d = append(d, time.Duration(i)*time.Millisecond)
	}
	if got, want := timesOf(d), (Times{P50: 50, P95: 95, P99: 99, Max: 100}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := timesOf(d[:1]), (Times{P50: 1, P95: 1, P99: 1, Max: 1}); got != want {
		t.Errorf("of one: got %v, want %v", got, want)
	}
	if got := timesOf(nil); got != (Times{}) {
		t.Errorf("of none: got %v", got)
	}
}

func TestSlope(t *testing.T) {
	if got := slope([]float64{0, 1, 2, 3}, []float64{5, 7, 9, 11}); got != 2 {
		t.Errorf("slope %v, want 2", got)
	}
	if got := slope([]float64{1}, []float64{1}); got != 0 {
		t.Errorf("slope of one point %v, want 0", got)
	}
}

// The limits are measured for real, and leave nothing behind.
func TestLimits(t *testing.T) {
	dir := t.TempDir()
	l, err := MeasureLimits(t.Context(), dir, 4)
	if err != nil {
		t.Fatal(err)
	}
	for name, rate := range map[string]float64{"commits": l.Commits, "signatures": l.Signatures, "hash": l.HashMB, "round trips": l.RoundTrips, "requests": l.Requests} {
		if rate < 1 {
			t.Errorf("%s: %v a second", name, rate)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := MeasureLimits(t.Context(), filepath.Join(dir, "none"), 1); err == nil {
		t.Error("a folder that is not there was measured")
	}
}

// An event may come before the answer to the POST; one that comes again is
// counted, and one that never comes is missing.
func TestTracker(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	ids := make([]uuid.UUID, 4)
	for i := range ids {
		ids[i] = uuid.New()
	}
	tr := newTracker()
	tr.sent(ids[3], at(-10)) // warm-up
	tr.seen(ids[3], at(-5))
	tr.countFrom(start)
	tr.sent(ids[0], at(0))
	tr.seen(ids[0], at(30))
	tr.seen(ids[1], at(50))
	tr.sent(ids[1], at(10))
	tr.seen(ids[1], at(51))
	tr.sent(ids[2], at(20))
	if got := tr.missing(); got != 1 {
		t.Errorf("%d missing, want 1", got)
	}
	if tr.twice != 1 {
		t.Errorf("%d twice, want 1", tr.twice)
	}
	if got, want := timesOf(tr.latency), (Times{P50: 30, P95: 40, P99: 40, Max: 40}); got != want {
		t.Errorf("latency %v, want %v", got, want)
	}
	if want := (Slowest{Message: ids[1].String(), MS: 40}); tr.slowest != want {
		t.Errorf("slowest %v, want %v", tr.slowest, want)
	}
}
