package disk

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/blob/blobtest"
	"github.com/parley-node/parley/wire"
)

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) func() blob.Store {
		dir := filepath.Join(t.TempDir(), "blobs")
		return func() blob.Store { return open(t, dir, Options{}) }
	})
}

// files lists all files below a folder.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestNothingIsLeftBehind(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if err := os.WriteFile(filepath.Join(s.incoming(), "put-crashed"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	info, err := s.Put(t.Context(), strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	if got, want := files(t, dir), []string{"objects/2c/" + info.Hash.String()[2:]}; len(got) != 1 || got[0] != want[0] {
		t.Errorf("the folder holds %q, want %q", got, want)
	}
	if err := s.Delete(t.Context(), info.Hash); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); got != nil {
		t.Errorf("after Delete the folder holds %q", got)
	}
}

// TestPartialAfterPowerLoss: a chunk whose bytes never reached the disk is
// fetched again.
func TestPartialAfterPowerLoss(t *testing.T) {
	dir := t.TempDir()
	b := bytes.Repeat([]byte("parley!!"), blob.ChunkSize/4) // two chunks
	info, err := open(t, t.TempDir(), Options{NoSync: true}).Put(t.Context(), bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, Options{})
	p, err := s.Partial(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := p.Append(b[i*blob.ChunkSize:][:blob.ChunkSize]); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(s.partial(info.Hash), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 4096), blob.ChunkSize+8192); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	p, err = open(t, dir, Options{}).Partial(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	if p.Next() != 1 {
		t.Errorf("after a damaged second chunk Next is %d, want 1", p.Next())
	}
	if err := p.Append(b[blob.ChunkSize:]); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Commit(), p.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestFullDiskNamesTheRemedy(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	full := &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	err := s.explain(full)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free space") || !strings.Contains(err.Error(), s.dir) {
		t.Errorf("a full disk is reported as %q", err)
	}
}

func benchmarkPut(b *testing.B, o Options, size int) {
	s := open(b, b.TempDir(), o)
	data := make([]byte, size)
	b.SetBytes(int64(size))
	for i := 0; b.Loop(); i++ {
		data[0], data[1] = byte(i), byte(i>>8)
		info, err := s.Put(b.Context(), bytes.NewReader(data))
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Delete(b.Context(), info.Hash); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut64M(b *testing.B)       { benchmarkPut(b, Options{NoSync: true}, 64<<20) }
func BenchmarkPut64MSynced(b *testing.B) { benchmarkPut(b, Options{}, 64<<20) }
func BenchmarkPut4K(b *testing.B)        { benchmarkPut(b, Options{NoSync: true}, 4<<10) }
func BenchmarkPut4KSynced(b *testing.B)  { benchmarkPut(b, Options{}, 4<<10) }

func BenchmarkChunkHash(b *testing.B) {
	chunk := make([]byte, blob.ChunkSize)
	b.SetBytes(blob.ChunkSize)
	for b.Loop() {
		wire.ChunkHash(chunk)
	}
}
