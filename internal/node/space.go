package node

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/store"
)

// Bounds of measuring what is on disk.
const (
	spaceEvery  = time.Minute
	spaceWindow = time.Hour // whose growth is taken for the rate
	spaceShare  = 500       // of the time, at most one part goes into measuring
	century     = 100 * 365 * 24 * time.Hour
)

// space watches what a member's node keeps on disk: how much, how fast it grows,
// and when its volume will be full.
type space struct {
	folder string // on the volume that is watched
	parts  []spacePart
	now    func() time.Time
	free   func(folder string) (bytes int64, known bool, err error)
	log    *slog.Logger

	mu      sync.Mutex
	samples []spaceSample // of spaceWindow, oldest first
}

type spacePart struct {
	name  string
	here  bool // on the member's volume
	bytes func(context.Context) (int64, error)
}

type spaceSample struct {
	at   time.Time
	used map[string]int64
	here int64 // bytes on the volume, of all parts
	free *int64
}

// space is that of the process.
func (ns *Namespace) newSpace() *space {
	c := ns.Config
	s := &space{folder: c.Dir, now: time.Now, free: freeBytes, log: ns.log}
	s.parts = []spacePart{
		{"database", ns.db.OnFile(), ns.db.Size},
		{"blobs", true, folderSize(c.path(c.Blobs.Dir))},
	}
	if c.Ledger.Bundled != nil {
		s.parts = append(s.parts, spacePart{"ledger", true, folderSize(c.path(c.Ledger.Bundled.Dir))})
	}
	return s
}

// run measures until ctx ends.
func (s *space) run(ctx context.Context) {
	for ctx.Err() == nil {
		start := s.now()
		if err := s.measure(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("what is on disk could not be measured; it is tried again", "folder", s.folder, "err", err)
		}
		pause(ctx, max(spaceEvery, spaceShare*s.now().Sub(start)))
	}
}

func (s *space) measure(ctx context.Context) error {
	sample := spaceSample{at: s.now(), used: map[string]int64{}}
	for _, p := range s.parts {
		n, err := p.bytes(ctx)
		if err != nil {
			return err
		}
		sample.used[p.name] = n
		if p.here {
			sample.here += n
		}
	}
	free, known, err := s.free(s.folder)
	if err != nil {
		return err
	}
	if known {
		sample.free = &free
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.samples) > 0 && sample.at.Sub(s.samples[0].at) > spaceWindow {
		s.samples = s.samples[1:]
	}
	s.samples = append(s.samples, sample)
	return nil
}

// forecast is what is known now; nil before the first measurement.
func (s *space) forecast() *api.Disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.samples) == 0 {
		return nil
	}
	first, last := s.samples[0], s.samples[len(s.samples)-1]
	d := &api.Disk{Measured: store.At(last.at), Used: last.used, Free: last.free}
	took := last.at.Sub(first.at)
	if took <= 0 {
		return d
	}
	perDay := int64(float64(last.here-first.here) / took.Hours() * 24)
	d.PerDay = &perDay
	if perDay <= 0 || last.free == nil {
		return d
	}
	days := float64(*last.free) / float64(perDay)
	if days < century.Hours()/24 {
		full := store.At(last.at.Add(time.Duration(days * 24 * float64(time.Hour))))
		d.Full = &full
	}
	return d
}

// folderSize is the size of the files below a folder. One that goes meanwhile, as
// databases' files do, does not count.
func folderSize(dir string) func(context.Context) (int64, error) {
	return func(ctx context.Context) (sum int64, err error) {
		return sum, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				var info fs.FileInfo
				if info, err = d.Info(); err == nil {
					sum += info.Size()
				}
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return errors.Join(err, ctx.Err())
		})
	}
}
