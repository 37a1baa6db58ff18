package bench

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/parley-node/parley/wire"
)

// Limits are what the machine can do, measured in the same run as the load, so
// that a figure can be compared with them and not only with itself. Each is
// measured alone, for limitTime.
type Limits struct {
	Commits    float64 `json:"commits"`    // a second: appends of 4 KiB to a file, each synced before the next
	Signatures float64 `json:"signatures"` // a second and processor: secp256k1, signed and recovered
	HashMB     float64 `json:"hashMB"`     // MB a second and processor: SHA-256
	RoundTrips float64 `json:"roundTrips"` // a second, one after the other: a byte there and back over loopback TCP
	Requests   float64 `json:"requests"`   // a second: POSTs to a server that reads them and only answers 202
}

// limitTime is how long each limit is measured.
const limitTime = 500 * time.Millisecond

// MeasureLimits measures the machine. dir is on the volume that the nodes write
// to; posters post at the same time, as in a load.
func MeasureLimits(ctx context.Context, dir string, posters int) (*Limits, error) {
	var l Limits
	for _, m := range []struct {
		to      *float64
		what    string
		measure func(context.Context) (float64, error)
	}{
		{&l.Commits, "synced writes", func(ctx context.Context) (float64, error) { return commitRate(ctx, dir) }},
		{&l.Signatures, "signatures", signatureRate},
		{&l.HashMB, "hashes", hashRate},
		{&l.RoundTrips, "round trips", roundTripRate},
		{&l.Requests, "requests", func(ctx context.Context) (float64, error) { return requestRate(ctx, posters) }},
	} {
		limited, cancel := context.WithTimeout(ctx, limitTime)
		n, err := m.measure(limited)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("measure the machine's %s: %w", m.what, err)
		}
		*m.to = n
	}
	return &l, ctx.Err()
}

// perSecond calls f until ctx ends.
func perSecond(ctx context.Context, f func() error) (float64, error) {
	n := 0
	start := time.Now()
	for ; ctx.Err() == nil; n++ {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

func commitRate(ctx context.Context, dir string) (rate float64, err error) {
	file, err := os.Create(filepath.Join(dir, "parley-bench-limit"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	page := make([]byte, 4096)
	return perSecond(ctx, func() error {
		if _, err := file.Write(page); err != nil {
			return err
		}
		return file.Sync()
	})
}

func signatureRate(ctx context.Context) (float64, error) {
	key, err := secp256k1.GeneratePrivateKeyFromRand(rand.Reader)
	if err != nil {
		return 0, err
	}
	var digest wire.Hash
	return perSecond(ctx, func() error {
		digest[0]++
		_, err := wire.RecoverAddress(digest, wire.SignDigest(key, digest))
		return err
	})
}

func hashRate(ctx context.Context) (float64, error) {
	block := make([]byte, 1_000_000)
	return perSecond(ctx, func() error {
		sum := sha256.Sum256(block)
		block[0] = sum[0]
		return nil
	})
}

func roundTripRate(ctx context.Context) (rate float64, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	echoed := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			err = errors.Join(err, c.Close())
		}
		echoed <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return 0, err
	}
	b := []byte{0}
	rate, err = perSecond(ctx, func() error {
		if _, err := c.Write(b); err != nil {
			return err
		}
		_, err := io.ReadFull(c, b)
		return err
	})
	return rate, errors.Join(err, c.Close(), <-echoed)
}

func requestRate(ctx context.Context, posters int) (rate float64, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	answer := []byte(`{"header":{"id":"00000000-0000-0000-0000-000000000000"}}`)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the poster reports what goes wrong
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(answer)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		err = errors.Join(err, server.Close())
		if end := <-served; !errors.Is(end, http.ErrServerClosed) {
			err = errors.Join(err, end)
		}
	}()
	base := url.URL{Scheme: "http", Host: l.Addr().String()}
	address, request, err := prepare(base.String(), "/", map[string]string{"value": string(make([]byte, 200))})
	if err != nil {
		return 0, err
	}
	var all sync.WaitGroup
	var sum atomic.Int64
	failed := make(chan error, posters)
	start := time.Now()
	for range posters {
		all.Go(func() {
			p := &poster{address: address, request: request}
			defer p.close()
			for ctx.Err() == nil {
				if _, err := p.post(limitTime + time.Minute); err != nil {
					failed <- err
					return
				}
				sum.Add(1)
			}
		})
	}
	all.Wait()
	close(failed)
	return float64(sum.Load()) / time.Since(start).Seconds(), <-failed
}
