package check

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// blobs reads every attachment that data items name, and compares it with what
// they commit to. An attachment never changes, so no snapshot is needed.
func (c *checker) blobs(ctx context.Context) error {
	if c.Blobs == nil {
		return nil
	}
	type row struct {
		hash string
		size int64
		root *wire.Hash
		have int64
	}
	after := ""
	for {
		var rows []row
		err := c.DB.Read(ctx, func(tx *store.Tx) (err error) {
			rows, err = all(tx, func(r *store.Rows, b *row) error { return r.Scan(&b.hash, &b.size, &b.root, &b.have) },
				`SELECT DISTINCT d.blob_hash, d.blob_size,
					(SELECT r.blob_root FROM data r WHERE r.blob_hash = d.blob_hash AND r.blob_size = d.blob_size AND r.blob_root IS NOT NULL ORDER BY r.blob_root DESC LIMIT 1),
					(SELECT COUNT(*) FROM blobs b WHERE b.hash = d.blob_hash AND b.size = d.blob_size)
				FROM data d WHERE d.blob_hash > $1 ORDER BY d.blob_hash LIMIT $2`, after, page)
			return err
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, b := range rows {
			after = b.hash
			where := "blob " + b.hash
			if b.have == 0 {
				c.differ(Blob, where, "no row with its size", fmt.Sprintf("one of %d bytes", b.size), refetch)
			}
			if err := c.blob(ctx, where, b.hash, b.size, b.root); err != nil {
				return err
			}
		}
	}
}

// blob reads one attachment chunk by chunk.
func (c *checker) blob(ctx context.Context, where, name string, size int64, root *wire.Hash) (err error) {
	c.sum.Blobs++
	hash, err := wire.ParseHash(name)
	if err != nil {
		c.differ(Blob, where, name, err, refetch)
		return nil
	}
	r, err := c.Blobs.Open(ctx, hash, 0)
	if errors.Is(err, blob.ErrNotFound) {
		c.differ(Blob, where, "missing from the blob store", fmt.Sprintf("%d bytes", size), refetch)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var chunks []wire.Hash
	sum, total := sha256.New(), int64(0)
	buf := make([]byte, blob.ChunkSize)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			sum.Write(buf[:n])
			chunks = append(chunks, wire.ChunkHash(buf[:n]))
			total += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			c.differ(Blob, where, err, "readable", refetch)
			return nil
		}
	}
	equal(c, Blob, where, fmt.Sprintf("%d bytes with hash %x", total, sum.Sum(nil)), fmt.Sprintf("%d bytes with hash %s", size, name), refetch)
	if root != nil {
		equal(c, Blob, where+" chunks", wire.BlobRoot(chunks), *root, refetch)
	}
	return nil
}
