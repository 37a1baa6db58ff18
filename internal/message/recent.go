package message

import (
	"slices"
	"sync"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Bounds of what is kept in memory.
const (
	recentReady      = 5000     // messages that wait for a batch
	recentReadyBytes = 16 << 20 // of their values
	recentMessages   = 8000     // of batches
)

// recent keeps what this process has stored a moment ago and needs again at once:
// messages that wait for a batch, with their data, and the messages of batches
// that were sealed or received. The rows decide what is ready and which batches
// there are; this only saves reading what does not change. What is not here is
// read.
type recent struct {
	mu       sync.Mutex
	ready    map[int64]source // by messages.seq
	bytes    int
	batches  map[wire.Entry]*content
	arrived  []wire.Entry // oldest first
	messages int          // of batches
}

// content is a batch with its messages, in order. The messages belong to who
// takes it.
type content struct {
	row      *store.BatchRow
	messages []*store.Message
}

func newRecent() *recent {
	return &recent{ready: map[int64]source{}, batches: map[wire.Entry]*content{}}
}

// putReady keeps messages that were stored as ready. What is there stays, for
// the oldest go first.
func (r *recent) putReady(all []source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range all {
		if len(r.ready) >= recentReady || r.bytes+s.size() > recentReadyBytes {
			return
		}
		if _, there := r.ready[s.row.Seq]; !there {
			r.ready[s.row.Seq] = s
			r.bytes += s.size()
		}
	}
}

// findReady gives those of some messages that are here.
func (r *recent) findReady(seqs []int64) map[int64]source {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := make(map[int64]source, len(seqs))
	for _, seq := range seqs {
		if s, ok := r.ready[seq]; ok {
			found[seq] = s
		}
	}
	if len(r.ready) >= recentReady && len(seqs) > 0 { // what others put into batches must not fill it for ever
		for seq, s := range r.ready {
			if seq < seqs[0] {
				r.bytes -= s.size()
				delete(r.ready, seq)
			}
		}
	}
	return found
}

// dropReady forgets messages that are not ready any more, or not as they were.
func (r *recent) dropReady(all []source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range all {
		if had, ok := r.ready[s.row.Seq]; ok {
			r.bytes -= had.size()
			delete(r.ready, s.row.Seq)
		}
	}
}

// putBatch keeps a batch that was stored, in place of the oldest ones.
func (r *recent) putBatch(row *store.BatchRow, messages []*store.Message) {
	id := wire.Entry{Author: row.Org, Root: row.Root}
	light := *row
	light.Envelope, light.Manifest = nil, nil
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.batches[id] != nil {
		return
	}
	r.batches[id] = &content{&light, messages}
	r.arrived = append(r.arrived, id)
	r.messages += len(messages)
	for r.messages > recentMessages {
		r.forget(r.arrived[0])
	}
}

// takeBatch gives a batch to the confirm loop, which changes its messages; nil
// if it is not here.
func (r *recent) takeBatch(id wire.Entry) *content {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.batches[id]
	if c != nil {
		r.forget(id)
	}
	return c
}

// topics are those of a batch's messages; false if it is not here.
func (r *recent) topics(id wire.Entry) (topics []string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.batches[id]
	if c == nil {
		return nil, false
	}
	return topicsOf(c.messages), true
}

func (r *recent) forget(id wire.Entry) {
	r.messages -= len(r.batches[id].messages)
	delete(r.batches, id)
	r.arrived = slices.DeleteFunc(r.arrived, func(e wire.Entry) bool { return e == id })
}
