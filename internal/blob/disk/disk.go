// Package disk keeps blobs in a folder. It is the default driver of the blob
// port.
//
//	objects/ab/cdef…   whole blobs, named by the hex SHA-256 of their bytes
//	incoming/          what Put writes before its name is known
//	partial/abcdef…    downloads in progress, verified chunks only
//
// A blob appears under objects by one rename, after its bytes were synced; the
// folder is synced before the call returns.
package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/wire"
)

// Options change how blobs are kept.
type Options struct {
	// NoSync leaves out the syncs to disk: faster, and a power loss may lose
	// blobs that were acknowledged. For tests and throw-away networks only.
	NoSync bool
}

// Store is a folder of blobs. One process at a time uses it.
type Store struct {
	dir     string
	options Options

	mu       sync.Mutex
	partials map[wire.Hash]bool // in use
}

var _ blob.Store = (*Store)(nil)

// Open uses a folder, which it creates if needed, and removes what a crash
// left of unfinished Puts.
func Open(dir string, o Options) (*Store, error) {
	s := &Store{dir: dir, options: o, partials: map[wire.Hash]bool{}}
	if err := os.RemoveAll(s.incoming()); err != nil {
		return nil, fmt.Errorf("clear unfinished blobs: %w", err)
	}
	for _, d := range []string{s.incoming(), filepath.Join(dir, "objects"), filepath.Join(dir, "partial")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("create the blob folder: %w", s.explain(err))
		}
	}
	if err := s.syncDir(dir); err != nil {
		return nil, fmt.Errorf("create the blob folder: %w", err)
	}
	return s, nil
}

// OpenToRead uses a folder beside the process that owns it: it creates and
// removes nothing. Only Store.Open may be called.
func OpenToRead(dir string) (*Store, error) {
	if _, err := os.Stat(filepath.Join(dir, "objects")); err != nil {
		return nil, fmt.Errorf("there is no blob folder to read: %w", err)
	}
	return &Store{dir: dir, partials: map[wire.Hash]bool{}}, nil
}

func (s *Store) incoming() string { return filepath.Join(s.dir, "incoming") }

func (s *Store) object(h wire.Hash) string {
	name := h.String()
	return filepath.Join(s.dir, "objects", name[:2], name[2:])
}

func (s *Store) partial(h wire.Hash) string { return filepath.Join(s.dir, "partial", h.String()) }

// buffers hold one chunk each: Put and Partial read a whole chunk before they
// hash and write it.
var buffers = sync.Pool{New: func() any { return new([blob.ChunkSize]byte) }}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, r io.Reader) (blob.Info, error) {
	f, err := os.CreateTemp(s.incoming(), "put-*")
	if err != nil {
		return blob.Info{}, fmt.Errorf("store a blob: %w", s.explain(err))
	}
	info, err := write(ctx, f, r)
	if err == nil {
		err = s.publish(f, info.Hash)
	} else {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		if e := os.Remove(f.Name()); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
		return blob.Info{}, fmt.Errorf("store a blob: %w", s.explain(err))
	}
	return info, nil
}

// write copies r into f and hashes on the way: the bytes are touched once. The
// hash of the whole runs beside the hash of the chunk and the write.
func write(ctx context.Context, f *os.File, r io.Reader) (info blob.Info, err error) {
	buf := buffers.Get().(*[blob.ChunkSize]byte)
	defer buffers.Put(buf)
	whole := sha256.New()
	for {
		if err := ctx.Err(); err != nil {
			return info, err
		}
		n, readErr := fill(buf[:], r)
		if readErr != nil && readErr != io.EOF {
			return info, readErr
		}
		if n > 0 {
			chunk := buf[:n]
			var beside sync.WaitGroup
			beside.Go(func() { whole.Write(chunk) })
			info.Chunks = append(info.Chunks, wire.ChunkHash(chunk))
			info.Size += int64(n)
			_, err := f.Write(chunk)
			beside.Wait()
			if err != nil {
				return info, err
			}
		}
		if readErr != nil { // the end
			whole.Sum(info.Hash[:0])
			return info, nil
		}
	}
}

// fill reads until buf is full, or gives the reader's error. Unlike that of
// io.ReadFull an io.ErrUnexpectedEOF is always the reader's own: a connection
// that broke off is not the end of a blob.
func fill(buf []byte, r io.Reader) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// publish syncs and closes a finished file and gives it its name.
func (s *Store) publish(f *os.File, h wire.Hash) error {
	if !s.options.NoSync {
		if err := f.Sync(); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	to := s.object(h)
	switch err := os.Mkdir(filepath.Dir(to), 0o700); {
	case err == nil:
		if err := s.syncDir(filepath.Join(s.dir, "objects")); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	// The same bytes put before are replaced by the same bytes.
	if err := os.Rename(f.Name(), to); err != nil {
		return err
	}
	return s.syncDir(filepath.Dir(to))
}

// Open implements blob.Store.
func (s *Store) Open(ctx context.Context, hash wire.Hash, offset int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(s.object(hash))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", hash, blob.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", hash, err)
	}
	i, err := f.Stat()
	if err == nil && (offset < 0 || offset > i.Size()) {
		err = fmt.Errorf("offset: %d, the blob has %d bytes", offset, i.Size())
	}
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", hash, errors.Join(err, f.Close()))
	}
	return f, nil
}

// Delete implements blob.Store. It also drops an abandoned download.
func (s *Store) Delete(ctx context.Context, hash wire.Hash) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.partials[hash] {
		if err := os.Remove(s.partial(hash)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete the download of blob %s: %w", hash, err)
		}
	}
	err := os.Remove(s.object(hash))
	if err == nil {
		err = s.syncDir(filepath.Dir(s.object(hash)))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete blob %s: %w", hash, err)
	}
	return nil
}

// syncDir makes renames and removals in a folder durable.
func (s *Store) syncDir(dir string) error {
	if s.options.NoSync || runtime.GOOS == "windows" { // where folders cannot be synced
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// explain adds the remedy to an error that means the disk is full.
func (s *Store) explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("no space left for blobs in %s; free space or enlarge that disk, the operation is then retried: %w", s.dir, err)
	}
	return err
}
