package bench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/parley-node/parley/client"
)

// runBlobs sends blobs in private messages, one after the other, and takes the
// time from the POST of the message to its confirmation at the receiver, which
// by then has verified the blob.
func runBlobs(ctx context.Context, o Options) (*Result, error) {
	g, err := group(ctx, o)
	if err != nil {
		return nil, err
	}
	r := &Result{}
	var times, posts []time.Duration
	var rates []float64
	began := time.Now()
	for range max(o.Count, 1) {
		up, err := o.Sender.UploadBlob(ctx, noise(o.Size), client.BlobUpload{Filename: "bench"})
		if err != nil {
			return nil, fmt.Errorf("upload a blob of %d bytes: %w", o.Size, err)
		}
		took, posted, err := sendBlob(ctx, o, g, up.ID)
		if err != nil {
			return nil, err
		}
		times, posts = append(times, took), append(posts, posted)
		rates = append(rates, float64(o.Size)/1e6/took.Seconds())
		r.Posted++
	}
	slices.Sort(rates)
	r.Seconds = time.Since(began).Seconds()
	r.MBPerSecond = rates[len(rates)/2]
	r.Post, r.Latency = timesOf(posts), timesOf(times)
	r.PostRate = float64(r.Posted) / r.Seconds
	r.ConfirmRate = r.PostRate
	return r, nil
}

// sendBlob posts a message with a blob and waits until the receiver has
// confirmed it.
func sendBlob(ctx context.Context, o Options, g *client.Group, data string) (took, posted time.Duration, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ids := make(chan string, 64)
	connected, heard := make(chan struct{}, 16), make(chan error, 1)
	go func() {
		heard <- o.Receiver.Listen(ctx, client.ListenOptions{
			Filter:    client.Filter{Events: "^message_confirmed$", Topic: "^" + topic + "$"},
			Connected: func() { connected <- struct{}{} },
		}, func(ctx context.Context, events []client.Event) error {
			for _, e := range events {
				select {
				case ids <- e.Reference:
				case <-ctx.Done():
				}
			}
			return nil
		})
	}()
	select {
	case <-connected:
	case err := <-heard:
		return 0, 0, fmt.Errorf("listen at the receiver: %w", err)
	}
	start := time.Now()
	m, err := o.Sender.Private(ctx, client.NewMessage{
		Header: client.Header{Topics: []string{topic}}, Group: g, Data: []client.DataRef{{ID: data}},
	})
	if err != nil {
		return 0, 0, fmt.Errorf("post a message with a blob: %w", err)
	}
	posted = time.Since(start)
	for {
		select {
		case id := <-ids:
			if id == m.Header.ID {
				return time.Since(start), posted, nil
			}
		case err := <-heard:
			return 0, 0, fmt.Errorf("listen at the receiver: %w", err)
		}
	}
}

// noise is a stream of bytes that do not compress.
func noise(size int) io.Reader {
	var seed [32]byte
	now := time.Now().UnixNano() // so that no blob is there already
	for i := range 8 {
		seed[i] = byte(now >> (8 * i))
	}
	return io.LimitReader(rand.NewChaCha8(seed), int64(size))
}
