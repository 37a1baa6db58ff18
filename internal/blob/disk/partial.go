package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/wire"
)

// partial is a download in progress.
type partial struct {
	store *Store
	want  blob.Info
	here  bool      // the whole blob is in the store
	file  *os.File  // nil if here, or closed
	whole hash.Hash // over the chunks kept so far
	next  int
}

// Partial implements blob.Store. What an earlier run kept is hashed again: a
// crash may have left a chunk that was never written out.
func (s *Store) Partial(ctx context.Context, want blob.Info) (blob.Partial, error) {
	if err := check(want); err != nil {
		return nil, err
	}
	s.mu.Lock()
	busy := s.partials[want.Hash]
	s.partials[want.Hash] = true
	s.mu.Unlock()
	if busy {
		return nil, fmt.Errorf("blob %s is being downloaded already; close that download first", want.Hash)
	}
	p := &partial{store: s, want: want, whole: sha256.New()}
	if err := p.resume(ctx); err != nil {
		return nil, fmt.Errorf("download blob %s: %w", want.Hash, errors.Join(s.explain(err), p.Close()))
	}
	return p, nil
}

// check refuses a description that no blob can have.
func check(want blob.Info) error {
	if want.Size < 0 {
		return fmt.Errorf("download blob %s: size: %d is negative", want.Hash, want.Size)
	}
	chunks := (want.Size + blob.ChunkSize - 1) / blob.ChunkSize
	if int64(len(want.Chunks)) != chunks {
		return fmt.Errorf("download blob %s: chunks: %d hashes, a size of %d takes %d", want.Hash, len(want.Chunks), want.Size, chunks)
	}
	return nil
}

func (p *partial) resume(ctx context.Context) error {
	switch _, err := os.Stat(p.store.object(p.want.Hash)); {
	case err == nil:
		p.here, p.next = true, len(p.want.Chunks)
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	f, err := os.OpenFile(p.store.partial(p.want.Hash), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	p.file = f
	buf := buffers.Get().(*[blob.ChunkSize]byte)
	defer buffers.Put(buf)
	for p.next < len(p.want.Chunks) {
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk := buf[:p.length(p.next)]
		if _, err := io.ReadFull(f, chunk); err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		} else if err != nil {
			return err
		}
		if wire.ChunkHash(chunk) != p.want.Chunks[p.next] {
			break
		}
		p.whole.Write(chunk)
		p.next++
	}
	return p.rewind()
}

// length of chunk i: only the last may be short.
func (p *partial) length(i int) int64 {
	return min(blob.ChunkSize, p.want.Size-int64(i)*blob.ChunkSize)
}

// rewind cuts the file behind the last chunk that is kept.
func (p *partial) rewind() error {
	end := min(int64(p.next)*blob.ChunkSize, p.want.Size)
	if err := p.file.Truncate(end); err != nil {
		return err
	}
	_, err := p.file.Seek(end, io.SeekStart)
	return err
}

func (p *partial) Next() int { return p.next }

func (p *partial) Append(chunk []byte) error {
	switch {
	case p.next == len(p.want.Chunks):
		return fmt.Errorf("blob %s has all of its %d chunks", p.want.Hash, p.next)
	case p.file == nil:
		return p.closed()
	case int64(len(chunk)) != p.length(p.next):
		return fmt.Errorf("chunk %d of blob %s has %d bytes, want %d", p.next, p.want.Hash, len(chunk), p.length(p.next))
	}
	if got := wire.ChunkHash(chunk); got != p.want.Chunks[p.next] {
		return fmt.Errorf("chunk %d of blob %s has hash %s, want %s; ask another member for it", p.next, p.want.Hash, got, p.want.Chunks[p.next])
	}
	if _, err := p.file.Write(chunk); err != nil {
		return fmt.Errorf("chunk %d of blob %s: %w", p.next, p.want.Hash, errors.Join(p.store.explain(err), p.rewind()))
	}
	p.whole.Write(chunk)
	p.next++
	return nil
}

func (p *partial) Commit() error {
	if p.next < len(p.want.Chunks) {
		return fmt.Errorf("blob %s misses chunks %d to %d", p.want.Hash, p.next, len(p.want.Chunks)-1)
	}
	if p.here {
		return nil
	}
	if p.file == nil {
		return p.closed()
	}
	var got wire.Hash
	p.whole.Sum(got[:0])
	if got != p.want.Hash {
		// The chunks are what was asked for, so the description was wrong and
		// nothing can complete this download.
		err := errors.Join(p.file.Truncate(0), p.file.Close(), os.Remove(p.file.Name()))
		p.file = nil
		return errors.Join(fmt.Errorf("the chunks of blob %s make a blob of hash %s; its sender described it wrongly", p.want.Hash, got), err)
	}
	err := p.store.publish(p.file, p.want.Hash)
	p.file = nil // publish closed it
	if err != nil {
		return fmt.Errorf("keep blob %s: %w", p.want.Hash, p.store.explain(err))
	}
	p.here = true
	return nil
}

func (p *partial) closed() error {
	return fmt.Errorf("the download of blob %s ended; open it again", p.want.Hash)
}

func (p *partial) Close() error {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	delete(p.store.partials, p.want.Hash)
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	p.file = nil
	return err
}
