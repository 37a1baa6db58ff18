package nodetest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
)

// Messages per second from 50 posters to confirmed at the receiver: two
// members, real SQLite, the simulated ledger with a block every 30 ms.
func BenchmarkPrivate(b *testing.B)   { benchmark(b, true) }
func BenchmarkBroadcast(b *testing.B) { benchmark(b, false) }

func benchmark(b *testing.B, private bool) {
	net := New(b, Options{Members: 2, Block: 30 * time.Millisecond})
	net.Ready()
	from, to := net.Members[0], net.Members[1]
	in := message.Input{Header: message.Header{Topics: []string{"bench"}}, Data: []message.DataInput{{Value: []byte(`"` + string(make100()) + `"`)}}}
	if private {
		in.Group = &message.GroupInput{Members: []message.MemberInput{{Identity: to.Name}}}
		to.Confirmed(from.Private(`"first"`, []*Member{to}, "bench").Header.ID)
	}
	ctx := context.Background()
	last, err := to.Events.Last(ctx)
	must(b, err)
	b.ResetTimer()
	var posters sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	for range 50 {
		posters.Add(1)
		go func() {
			defer posters.Done()
			for left.Add(-1) >= 0 {
				send := from.Messages.Broadcast
				if private {
					send = from.Messages.Private
				}
				if _, err := send(ctx, in); err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	posters.Wait()
	posted := b.Elapsed()
	for seen := 0; seen < b.N; {
		must(b, to.Events.Next(ctx, last))
		events, err := to.Events.After(ctx, last, 1000)
		must(b, err)
		for _, e := range events {
			last = e.Sequence
			if e.Type == "message_confirmed" {
				seen++
			}
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(b.N)/posted.Seconds(), "posted/s")
}

// BenchmarkLatency is the time from one private message to its confirmation at
// the receiver, with nothing else going on and a ledger that takes no time.
func BenchmarkLatency(b *testing.B) {
	net := New(b, Options{Members: 2})
	net.Ready()
	from, to := net.Members[0], net.Members[1]
	ctx := context.Background()
	for b.Loop() {
		last, err := to.Events.Last(ctx)
		must(b, err)
		id := from.Private(`"x"`, []*Member{to}, "bench").Header.ID
		_, err = to.Events.Await(ctx, last, func(e *store.Event) bool {
			return e.Type == "message_confirmed" && *e.Reference == id
		})
		must(b, err)
	}
}

func make100() []byte {
	b := make([]byte, 100)
	for i := range b {
		b[i] = 'x'
	}
	return b
}
