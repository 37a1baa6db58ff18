package order

import (
	"fmt"
	"testing"
	"time"

	"github.com/parley-node/parley/wire"
)

// benchmarkWorld has one author whose pins are made beforehand. open contexts
// are held open by entries whose payload never comes.
func benchmarkWorld(b *testing.B, open, pins, messages int) (w *world, n *node, first int) {
	w = newNetwork(b, 1)
	m := w.members[0]
	for i := range open {
		w.pin(m, nil, msg(fmt.Sprintf("late %d", i)))
	}
	for i := range pins {
		var batch []spec
		for j := range messages {
			batch = append(batch, msg(fmt.Sprintf("topic %d", (i*messages+j)%100)))
		}
		w.pin(m, nil, batch...)
	}
	w.next(time.Second)
	n = w.node()
	for _, p := range w.pins[:open] {
		n.apply(p)
	}
	return w, n, open
}

// BenchmarkApply: pins per second, each with one context and no control.
func BenchmarkApply(b *testing.B) {
	for _, open := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("open=%d", open), func(b *testing.B) {
			w, n, first := benchmarkWorld(b, open, b.N, 1)
			b.ReportAllocs()
			b.ResetTimer()
			for _, p := range w.pins[first:] {
				if out, err := n.a.Apply(p); err != nil || out.Void != "" {
					b.Fatal(err, out.Void)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pins/s")
		})
	}
}

// BenchmarkJudge: messages per second from payload to verdict, batches of 100
// messages over 100 contexts that all batches share.
func BenchmarkJudge(b *testing.B) {
	const size = 100
	for _, open := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("open=%d", open), func(b *testing.B) {
			batches := b.N/size + 1
			w, n, first := benchmarkWorld(b, open, batches, size)
			for _, p := range w.pins[first:] {
				if out, err := n.a.Apply(p); err != nil || out.Void != "" {
					b.Fatal(err, out.Void)
				}
			}
			n.head()
			b.ReportAllocs()
			b.ResetTimer()
			judged := 0
			for _, p := range w.pins[first:] {
				n.payload(idOf(p))
				for {
					if _, ok := n.a.Next(); !ok {
						break
					}
					judged++
				}
			}
			if judged != batches*size {
				b.Fatalf("%d verdicts, want %d", judged, batches*size)
			}
			b.ReportMetric(float64(judged)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// BenchmarkReceipt: receipts per second, one signature each.
func BenchmarkReceipt(b *testing.B) {
	w := newNetwork(b, 4)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	r := w.receipt(w.members[1], wire.Entry{Author: p.Org, Root: p.Pin.Root}, 1)
	e := n.a.entries[idOf(p)]
	for b.Loop() {
		if out := n.a.Receipt(r); !out.Counts {
			b.Fatal(out.Why)
		}
		e.Receipts = e.Receipts[:0]
	}
}
