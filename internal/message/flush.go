package message

import (
	"context"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// lane is what one batch can hold: messages of one key for one audience.
type lane struct {
	audience wire.Hash
	key      string
	unpinned bool
}

// flushes remembers how the sealing of batches goes, by lane, since the node
// started.
type flushes struct {
	mu    sync.Mutex
	order []lane
	of    map[lane]*flushCount
}

type flushCount struct {
	started, failed time.Time // the last sealing, the last failure
	err             string
	blocked         bool
	cancelled       bool
	failures        int64

	// Of all batches.
	batches, bytes, messages, data int64
	took                           time.Duration
}

// note lets a lane's count be changed.
func (f *flushes) note(l lane, change func(*flushCount)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		f.of = map[lane]*flushCount{}
	}
	c := f.of[l]
	if c == nil {
		c = &flushCount{}
		f.of[l] = c
		f.order = append(f.order, l)
	}
	change(c)
}

// BatchManager is how the sealing of messages into batches goes.
type BatchManager struct {
	Processors []BatchProcessor `json:"processors"`
}

// BatchProcessor is one lane: messages of one key for one audience.
type BatchProcessor struct {
	Dispatcher string      `json:"dispatcher"` // pinned_broadcast, pinned_private, unpinned_private
	Name       string      `json:"name"`       // dispatcher, key and, for a group, its hash
	Status     FlushStatus `json:"status"`
}

// FlushStatus counts since the node started.
type FlushStatus struct {
	LastFlushTime        *store.Time `json:"lastFlushStartTime"`
	Flushing             *wire.UUID  `json:"flushing,omitempty"` // the oldest batch that is not decided
	Cancelled            bool        `json:"cancelled"`          // a batch was cancelled since the last one was sealed
	Blocked              bool        `json:"blocked"`            // messages wait, and none of them can go into a batch now
	LastFlushError       string      `json:"lastFlushError,omitempty"`
	LastFlushErrorTime   *store.Time `json:"lastFlushErrorTime,omitempty"`
	AverageBatchBytes    int64       `json:"averageBatchBytes"` // before encryption
	AverageBatchMessages float64     `json:"averageBatchMessages"`
	AverageBatchData     float64     `json:"averageBatchData"`
	AverageFlushTimeMS   int64       `json:"averageFlushTimeMS"` // to seal and store it
	TotalBatches         int64       `json:"totalBatches"`
	TotalErrors          int64       `json:"totalErrors"`
}

// BatchManager sums up the lanes that were used since the node started, in the
// order of their first use.
func (s *Service) BatchManager(ctx context.Context) (*BatchManager, error) {
	var open []store.OpenBatch
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) { open, err = tx.OpenBatches(); return err })
	if err != nil {
		return nil, err
	}
	oldest := map[lane]*wire.UUID{}
	for i := len(open) - 1; i >= 0; i-- {
		oldest[lane{audience: open[i].Audience, key: open[i].Key}] = &open[i].ID
	}
	f := &s.flushes
	f.mu.Lock()
	defer f.mu.Unlock()
	all := &BatchManager{Processors: []BatchProcessor{}}
	for _, l := range f.order {
		p := BatchProcessor{Dispatcher: "pinned_private", Status: f.of[l].status()}
		switch {
		case l.audience == s.Network.ID:
			p.Dispatcher = "pinned_broadcast"
		case l.unpinned:
			p.Dispatcher = "unpinned_private"
		}
		p.Name = p.Dispatcher + "|" + l.key
		if l.audience != s.Network.ID {
			p.Name += "|" + l.audience.String()
		}
		p.Status.Flushing = oldest[l]
		all.Processors = append(all.Processors, p)
	}
	return all, nil
}

func (c *flushCount) status() FlushStatus {
	st := FlushStatus{Cancelled: c.cancelled, Blocked: c.blocked, LastFlushError: c.err, TotalBatches: c.batches, TotalErrors: c.failures}
	when := func(t time.Time) *store.Time {
		if t.IsZero() {
			return nil
		}
		at := store.At(t)
		return &at
	}
	st.LastFlushTime, st.LastFlushErrorTime = when(c.started), when(c.failed)
	if n := c.batches; n > 0 {
		st.AverageBatchBytes, st.AverageFlushTimeMS = c.bytes/n, (c.took / time.Duration(n)).Milliseconds()
		st.AverageBatchMessages, st.AverageBatchData = float64(c.messages)/float64(n), float64(c.data)/float64(n)
	}
	return st
}
