package bench

import (
	"context"
	"net/url"
	"sync"
	"time"
)

// runList reads the newest messages over and over.
func runList(ctx context.Context, o Options) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	r := &Result{}
	var mu sync.Mutex
	var times []time.Duration
	var readers sync.WaitGroup
	began := time.Now()
	for range o.Posters {
		readers.Go(func() {
			for {
				start := time.Now()
				_, err := o.Sender.Messages(ctx, url.Values{"limit": {"25"}})
				if ctx.Err() != nil {
					return
				}
				mu.Lock()
				if err != nil {
					r.Errors++
					r.FirstErr = err.Error()
				} else {
					r.Posted++
					times = append(times, time.Since(start))
				}
				mu.Unlock()
			}
		})
	}
	readers.Wait()
	r.Seconds = time.Since(began).Seconds()
	r.PostRate = float64(r.Posted) / r.Seconds
	r.Post = timesOf(times)
	r.Latency = r.Post
	return r, nil
}
