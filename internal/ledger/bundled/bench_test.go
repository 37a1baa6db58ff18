package bundled

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core/types"
)

// The benchmarks run each validator as a process of its own, all on this
// machine, and talk to the first one over WebSocket.

func startNetwork(b *testing.B, n int) *running {
	var children []*child
	for _, cfg := range newNetwork(b, n) {
		children = append(children, supervise(b, cfg))
	}
	for _, c := range children {
		c.until(b, Running)
	}
	r := children[0].dial(b)
	first := newAccount(b).transfer(b)
	r.send(b, first)
	r.mined(b, first)
	return r
}

// BenchmarkLatency is the time from sending one transaction to reading its
// receipt in a final block, nothing else being in flight.
func BenchmarkLatency(b *testing.B) {
	for _, n := range []int{1, 4} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := startNetwork(b, n)
			heads := make(chan *types.Header, 64)
			sub, err := r.SubscribeNewHead(b.Context(), heads)
			if err != nil {
				b.Fatal(err)
			}
			defer sub.Unsubscribe()
			from := newAccount(b)
			var took []time.Duration
			for b.Loop() {
				tx := from.transfer(b)
				begin := time.Now()
				r.send(b, tx)
				for {
					<-heads
					if _, err := r.TransactionReceipt(b.Context(), tx.Hash()); err == nil {
						break
					}
				}
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*9/10].Microseconds())/1000, "p90-ms")
		})
	}
}

// BenchmarkThroughput sends from 16 accounts at once; each keeps 64 transactions
// in flight.
func BenchmarkThroughput(b *testing.B) {
	const accounts, inFlight = 16, 64
	for _, n := range []int{1, 4} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := startNetwork(b, n)
			var from []*account
			for range accounts {
				from = append(from, newAccount(b))
			}
			var total int
			begin := time.Now()
			for b.Loop() {
				done := make(chan error, accounts)
				var batches [][]*types.Transaction
				for _, a := range from {
					var txs []*types.Transaction
					for range inFlight {
						txs = append(txs, a.transfer(b))
					}
					batches = append(batches, txs)
					go func() { done <- sendAll(b.Context(), r, txs) }()
				}
				for range accounts {
					if err := <-done; err != nil {
						b.Fatal(err)
					}
				}
				for _, txs := range batches {
					r.mined(b, txs...)
				}
				total += accounts * inFlight
			}
			b.ReportMetric(float64(total)/time.Since(begin).Seconds(), "tx/s")
		})
	}
}

func sendAll(ctx context.Context, r *running, txs []*types.Transaction) error {
	for _, tx := range txs {
		if err := r.SendTransaction(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}
