// Package blobtest is the conformance suite of the blob port. Every driver
// passes it.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/wire"
)

// Run runs every case on a store of its own. start prepares empty storage and
// returns how to open it; opening it again is a restart.
func Run(t *testing.T, start func(t *testing.T) (open func() blob.Store)) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, func() blob.Store)
	}{
		{"PutAndOpen", putAndOpen},
		{"PutTwice", putTwice},
		{"PutTogether", putTogether},
		{"FailedPutLeavesNothing", failedPut},
		{"Offsets", offsets},
		{"Delete", deletes},
		{"Partial", partials},
		{"PartialResumes", partialResumes},
		{"PartialRefusesWrongBytes", partialRefuses},
		{"PartialOfWrongDescription", wrongDescription},
		{"PartialOfWhatIsHere", partialOfPresent},
		{"OneUserPerPartial", oneUser},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, start(t)) })
	}
}

// content makes bytes that differ for each seed, and what a commitment needs.
func content(seed uint64, size int) ([]byte, blob.Info) {
	b := make([]byte, size)
	var key [32]byte
	key[0] = byte(seed)
	rand.NewChaCha8(key).Read(b)
	info := blob.Info{Size: int64(size), Hash: sha256.Sum256(b)}
	for at := 0; at < size; at += blob.ChunkSize {
		info.Chunks = append(info.Chunks, wire.ChunkHash(b[at:min(size, at+blob.ChunkSize)]))
	}
	return b, info
}

func chunk(b []byte, i int) []byte {
	return b[i*blob.ChunkSize : min(len(b), (i+1)*blob.ChunkSize)]
}

func put(t *testing.T, s blob.Store, b []byte) blob.Info {
	t.Helper()
	info, err := s.Put(t.Context(), bytes.NewReader(b))
	if err != nil {
		t.Fatalf("Put: %v", err)
	}
	return info
}

func wantContent(t *testing.T, s blob.Store, h wire.Hash, want []byte, offset int64) {
	t.Helper()
	r, err := s.Open(t.Context(), h, offset)
	if err != nil {
		t.Fatalf("Open at %d: %v", offset, err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("read at %d: %v", offset, err)
	}
	if !bytes.Equal(got, want[offset:]) {
		t.Errorf("the blob read at %d has %d other bytes than the %d put", offset, len(got), len(want)-int(offset))
	}
}

func wantAbsent(t *testing.T, s blob.Store, h wire.Hash) {
	t.Helper()
	r, err := s.Open(t.Context(), h, 0)
	if err == nil {
		r.Close()
	}
	if !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Open of an absent blob: %v, want ErrNotFound", err)
	}
}

func putAndOpen(t *testing.T, open func() blob.Store) {
	for i, size := range []int{0, 1, 100, blob.ChunkSize - 1, blob.ChunkSize, blob.ChunkSize + 1, 3*blob.ChunkSize + 77} {
		s := open()
		b, want := content(uint64(i), size)
		wantAbsent(t, s, want.Hash)
		// A reader may give its bytes in any pieces.
		got, err := s.Put(t.Context(), iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(b))))
		if err != nil {
			t.Fatalf("Put of %d bytes: %v", size, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("Put of %d bytes (-want +got):\n%s", size, d)
		}
		wantContent(t, s, want.Hash, b, 0)
		wantContent(t, open(), want.Hash, b, 0) // after a restart
	}
}

func putTwice(t *testing.T, open func() blob.Store) {
	s := open()
	b, _ := content(1, 5000)
	first := put(t, s, b)
	r, err := s.Open(t.Context(), first.Hash, 0)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer r.Close()
	if d := cmp.Diff(first, put(t, s, b)); d != "" {
		t.Errorf("the second Put differs: %s", d)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, b) {
		t.Errorf("a reader from before the second Put reads %d bytes, %v", len(got), err)
	}
	wantContent(t, s, first.Hash, b, 0)
}

func putTogether(t *testing.T, open func() blob.Store) {
	s := open()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			b, want := content(uint64(i%3), 100_000) // some the same
			got, err := s.Put(t.Context(), bytes.NewReader(b))
			if err != nil || got.Hash != want.Hash {
				t.Errorf("Put beside others: %v", err)
				return
			}
			wantContent(t, s, got.Hash, b, 0)
		})
	}
	wg.Wait()
}

func failedPut(t *testing.T, open func() blob.Store) {
	s := open()
	b, info := content(1, 2*blob.ChunkSize)
	broken := errors.New("the upload was cut")
	// A connection that breaks off must not pass for the end of the content.
	for _, end := range []error{io.ErrUnexpectedEOF, fmt.Errorf("body: %w", io.ErrUnexpectedEOF)} {
		if _, err := s.Put(t.Context(), io.MultiReader(bytes.NewReader(b), iotest.ErrReader(end))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Put of a reader that broke off: %v, want its error", err)
		}
	}
	_, err := s.Put(t.Context(), io.MultiReader(bytes.NewReader(b), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Errorf("Put of a broken reader: %v, want its error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, bytes.NewReader(b)); !errors.Is(err, context.Canceled) {
		t.Errorf("Put with an ended context: %v", err)
	}
	wantAbsent(t, s, info.Hash)
	put(t, s, b)
	wantContent(t, s, info.Hash, b, 0)
}

func offsets(t *testing.T, open func() blob.Store) {
	s := open()
	b, info := content(1, blob.ChunkSize+10)
	put(t, s, b)
	for _, at := range []int64{0, 1, blob.ChunkSize, info.Size - 1, info.Size} {
		wantContent(t, s, info.Hash, b, at)
	}
	for _, at := range []int64{-1, info.Size + 1} {
		if r, err := s.Open(t.Context(), info.Hash, at); err == nil || errors.Is(err, blob.ErrNotFound) {
			if r != nil {
				r.Close()
			}
			t.Errorf("Open at %d of %d bytes: %v, want an error about the offset", at, info.Size, err)
		}
	}
}

func deletes(t *testing.T, open func() blob.Store) {
	s := open()
	b, info := content(1, 100)
	other, kept := content(2, 100)
	put(t, s, b)
	put(t, s, other)
	for range 2 { // absent is no error
		if err := s.Delete(t.Context(), info.Hash); err != nil {
			t.Fatalf("Delete: %v", err)
		}
		wantAbsent(t, s, info.Hash)
	}
	wantContent(t, s, kept.Hash, other, 0)
	put(t, s, b)
	wantContent(t, s, info.Hash, b, 0)
}

func partial(t *testing.T, s blob.Store, want blob.Info) blob.Partial {
	t.Helper()
	p, err := s.Partial(t.Context(), want)
	if err != nil {
		t.Fatalf("Partial: %v", err)
	}
	return p
}

func appendChunks(t *testing.T, p blob.Partial, b []byte, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if p.Next() != i {
			t.Fatalf("Next is %d, want %d", p.Next(), i)
		}
		if err := p.Append(chunk(b, i)); err != nil {
			t.Fatalf("Append chunk %d: %v", i, err)
		}
	}
}

func finish(t *testing.T, p blob.Partial) {
	t.Helper()
	if err := p.Commit(); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func partials(t *testing.T, open func() blob.Store) {
	s := open()
	for i, size := range []int{0, 10, blob.ChunkSize, 2*blob.ChunkSize + 5} {
		b, info := content(uint64(i), size)
		p := partial(t, s, info)
		appendChunks(t, p, b, 0, len(info.Chunks))
		wantAbsent(t, s, info.Hash)
		finish(t, p)
		wantContent(t, s, info.Hash, b, 0)
	}
}

func partialResumes(t *testing.T, open func() blob.Store) {
	b, info := content(1, 3*blob.ChunkSize+5)
	s := open()
	p := partial(t, s, info)
	appendChunks(t, p, b, 0, 1)
	if err := p.Commit(); err == nil {
		t.Error("Commit with chunks missing succeeds")
	}
	if err := p.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	p = partial(t, s, info)
	appendChunks(t, p, b, 1, 3)
	// No Close: the process ends here.
	s = open()
	wantAbsent(t, s, info.Hash)
	p = partial(t, s, info)
	appendChunks(t, p, b, 3, 4)
	finish(t, p)
	wantContent(t, s, info.Hash, b, 0)
	wantContent(t, open(), info.Hash, b, 0)
}

func partialRefuses(t *testing.T, open func() blob.Store) {
	s := open()
	b, info := content(1, 2*blob.ChunkSize+5)
	p := partial(t, s, info)
	appendChunks(t, p, b, 0, 1)
	flipped := bytes.Clone(chunk(b, 1))
	flipped[1000] ^= 1
	for what, wrong := range map[string][]byte{
		"the wrong chunk": chunk(b, 0), "a changed chunk": flipped, "nothing": nil,
		"too little": chunk(b, 1)[1:], "too much": append(bytes.Clone(chunk(b, 1)), 0),
	} {
		if err := p.Append(wrong); err == nil || p.Next() != 1 {
			t.Errorf("Append of %s: %v, next is %d", what, err, p.Next())
		}
	}
	appendChunks(t, p, b, 1, 3)
	if err := p.Append([]byte{1}); err == nil {
		t.Error("Append behind the last chunk succeeds")
	}
	finish(t, p)
	wantContent(t, s, info.Hash, b, 0)
}

// wrongDescription: a sender may lie about a blob. What cannot be is refused at
// once; a false whole hash shows at the end, and does not block the true blob.
func wrongDescription(t *testing.T, open func() blob.Store) {
	s := open()
	b, info := content(1, blob.ChunkSize+5)
	negative, few, many := info, info, info
	negative.Size = -1
	few.Chunks = info.Chunks[:1]
	many.Chunks = append([]wire.Hash{{}}, info.Chunks...)
	for what, bad := range map[string]blob.Info{"a negative size": negative, "too few chunks": few, "too many chunks": many} {
		if _, err := s.Partial(t.Context(), bad); err == nil {
			t.Errorf("Partial with %s succeeds", what)
		}
	}
	lie := info
	lie.Hash = wire.Hash{1}
	p := partial(t, s, lie)
	appendChunks(t, p, b, 0, 2)
	if err := p.Commit(); err == nil {
		t.Error("Commit of bytes with another hash succeeds")
	}
	if err := p.Commit(); err == nil {
		t.Error("the second Commit of bytes with another hash succeeds")
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wantAbsent(t, s, lie.Hash)
	p = partial(t, s, info)
	appendChunks(t, p, b, 0, 2)
	finish(t, p)
	wantContent(t, s, info.Hash, b, 0)
}

func partialOfPresent(t *testing.T, open func() blob.Store) {
	s := open()
	b, info := content(1, blob.ChunkSize+5)
	put(t, s, b)
	p := partial(t, s, info)
	if p.Next() != len(info.Chunks) {
		t.Errorf("Next of a blob that is here is %d, want %d", p.Next(), len(info.Chunks))
	}
	finish(t, p)
	wantContent(t, s, info.Hash, b, 0)
}

func oneUser(t *testing.T, open func() blob.Store) {
	s := open()
	_, info := content(1, 100)
	p := partial(t, s, info)
	if _, err := s.Partial(t.Context(), info); err == nil {
		t.Error("a second download of the same blob is allowed beside the first")
	}
	if err := p.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := partial(t, s, info).Close(); err != nil {
		t.Errorf("Close of the next: %v", err)
	}
}
