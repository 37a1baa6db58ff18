// Package blob is the port to binary attachments at rest. Objects are named by
// the SHA-256 of their content and immutable. Drivers: disk.
package blob

import (
	"context"
	"errors"
	"io"

	"github.com/parley-node/parley/wire"
)

// Store keeps blobs. Safe for concurrent use.
type Store interface {
	// Put reads r to the end and stores it durably (synced to disk) under the
	// hash of its bytes, and returns what a commitment needs: size, hash and the
	// hashes of its 1 MiB chunks in order. Putting the same bytes again is no
	// error. Nothing is visible before Put returns.
	Put(ctx context.Context, r io.Reader) (Info, error)
	// Open reads from a byte offset. ErrNotFound if absent.
	Open(ctx context.Context, hash wire.Hash, offset int64) (io.ReadCloser, error)
	// Delete removes a blob; absent is no error.
	Delete(ctx context.Context, hash wire.Hash) error
	// Partial opens a resumable download of a blob that is expected to have the
	// given chunk hashes. Chunks are appended in order, each verified before it
	// is kept; Next is the first missing one, also after a restart.
	Partial(ctx context.Context, want Info) (Partial, error)
}

// Partial is a download in progress. One user at a time.
type Partial interface {
	Next() int
	Append(chunk []byte) error // wrong bytes are refused and change nothing
	// Commit verifies the whole hash, syncs, and makes the blob visible.
	Commit() error
	Close() error // keeps what was appended
}

// Info describes a blob.
type Info struct {
	Hash   wire.Hash
	Size   int64
	Chunks []wire.Hash
}

// ChunkSize is the unit of verification and resumption.
const ChunkSize = 1 << 20

// ErrNotFound: no blob with this hash.
var ErrNotFound = errors.New("blob not found")
