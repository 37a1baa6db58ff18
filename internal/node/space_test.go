package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The forecast follows from the growth of what is on the volume; what is
// elsewhere does not fill it.
func TestDiskForecast(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var local, remote, free int64 = 1000, 1000, 100_000
	size := func(n *int64) func(context.Context) (int64, error) {
		return func(context.Context) (int64, error) { return *n, nil }
	}
	s := &space{
		now: func() time.Time { return at }, log: slog.New(slog.DiscardHandler),
		parts: []spacePart{{"blobs", true, size(&local)}, {"database", false, size(&remote)}},
		free:  func(string) (int64, bool, error) { return free, true, nil },
	}
	measure := func(after time.Duration, grown int64) {
		t.Helper()
		at = at.Add(after)
		local, remote, free = local+grown, remote+1_000_000, free-grown
		if err := s.measure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s.forecast() != nil {
		t.Error("a forecast without a measurement")
	}
	measure(0, 0)
	if d := s.forecast(); d.PerDay != nil || d.Full != nil || d.Used["blobs"] != 1000 || *d.Free != 100_000 {
		t.Errorf("after one measurement: %+v", d)
	}
	measure(30*time.Minute, 500)
	d := s.forecast()
	if *d.PerDay != 24_000 {
		t.Errorf("500 bytes in half an hour are %d a day", *d.PerDay)
	}
	if want := at.Add(99_500 * 24 * time.Hour / 24_000); d.Full.Time().Sub(want).Abs() > time.Second {
		t.Errorf("full at %s, want %s", d.Full, want)
	}
	measure(90*time.Minute, 0) // the growth is over an hour old
	measure(time.Minute, 0)
	if d := s.forecast(); *d.PerDay != 0 || d.Full != nil {
		t.Errorf("without growth: %+v", d)
	}
	broken := errors.New("broken")
	s.parts = append(s.parts, spacePart{"ledger", true, func(context.Context) (int64, error) { return 0, broken }})
	if err := s.measure(t.Context()); !errors.Is(err, broken) {
		t.Errorf("a part that cannot be measured: %v", err)
	}
}

func TestFolderSize(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]int{"x": 10, "a/y": 200, "a/b/z": 3000} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := folderSize(dir)(t.Context()); n != 3210 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := folderSize(filepath.Join(dir, "none"))(t.Context()); n != 0 || err != nil {
		t.Errorf("a folder that is not there has %d bytes, %v", n, err)
	}
	if free, known, err := freeBytes(dir); err != nil || known && free <= 0 {
		t.Errorf("free: %d, %v, %v", free, known, err)
	}
}
