package message

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Publishing makes the value or the blob of a data item readable for every
// member of the network, without sending it to anybody. It is known by the hash
// of its bytes; who wants it asks the members in turn, checks what it gets, and
// serves it from then on as well. See docs/adr/0007-publishing.md.

const (
	txDataPublish = "data_publish"
	opUploadValue = "sharedstorage_upload_value"
	opUploadBlob  = "sharedstorage_upload_blob"

	// maxPublished bounds what a member must take before it can tell whether it
	// is what it asked for.
	maxPublished = 1 << 30

	partPublished = "published/" // + content identifier: what peers ask for
)

// PublishValue makes the value of a data item public under the hash of its
// text, and returns the item with the reference in its field public.
func (s *Service) PublishValue(ctx context.Context, id wire.UUID, idempotencyKey string) (*store.Data, error) {
	d, err := s.dataToPublish(ctx, id)
	if err != nil {
		return nil, err
	}
	if d.Value == nil {
		return nil, errs.BadRequest("FF10199", "data %s has no value to publish: publish its blob", id)
	}
	s.blobUse.RLock()
	defer s.blobUse.RUnlock()
	info, err := s.Blobs.Put(ctx, bytes.NewReader(d.Value))
	if err != nil {
		return nil, err
	}
	return s.publish(ctx, publication{item: id, key: idempotencyKey, op: opUploadValue, blob: blobRow(info, s.now())})
}

// PublishBlob makes the blob of a data item public under the hash of its bytes,
// and returns the item with the reference in its field blob.public.
func (s *Service) PublishBlob(ctx context.Context, id wire.UUID, idempotencyKey string) (*store.Data, error) {
	d, err := s.dataToPublish(ctx, id)
	if err != nil {
		return nil, err
	}
	if d.Blob == nil {
		return nil, errs.New("FF10241", http.StatusNotFound, "data %s has no blob to publish: publish its value", id)
	}
	if d.Blob.Size > maxPublished {
		return nil, errs.BadRequest("FF10241", "the blob of data %s has %d bytes: at most %d can be published; send it in a message", id, d.Blob.Size, int64(maxPublished))
	}
	var have *store.Blob
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		have, err = store.Optional(tx.BlobByHash(d.Blob.Hash))
		return err
	})
	if err != nil {
		return nil, err
	}
	if have == nil {
		return nil, errs.New("FF10239", http.StatusNotFound, "the blob %s of data %s is not here: wait until its message is confirmed", d.Blob.Hash, id)
	}
	return s.publish(ctx, publication{item: id, key: idempotencyKey, op: opUploadBlob, blob: have})
}

func (s *Service) dataToPublish(ctx context.Context, id wire.UUID) (d *store.Data, err error) {
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		d, err = store.Optional(tx.DataByID(s.Namespace, id))
		return err
	})
	if err == nil && d == nil {
		return nil, errs.NoSuch("data", id.String())
	}
	return d, err
}

// publication is a content of a data item that is here and about to be public.
type publication struct {
	item wire.UUID
	key  string // idempotency key
	op   string // type of the operation
	blob *store.Blob
}

// publish records a publication in one transaction: there is nothing to upload,
// as members fetch it from here.
func (s *Service) publish(ctx context.Context, p publication) (d *store.Data, err error) {
	if len(p.key) > maxIdempotencyKey {
		return nil, errs.BadRequest("FF00127", "field %q has %d characters: at most %d are allowed", "idempotencyKey", len(p.key), maxIdempotencyKey)
	}
	hash, err := wire.ParseHash(string(p.blob.Hash))
	if err != nil {
		return nil, err
	}
	reference := wire.ContentID(hash)
	input, err := json.Marshal(map[string]string{"dataId": p.item.String()})
	if err != nil {
		return nil, err
	}
	output, err := json.Marshal(map[string]string{"payloadRef": reference})
	if err != nil {
		return nil, err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		now := s.now()
		transaction := &store.Transaction{ID: s.NewID(), Namespace: s.Namespace, Type: txDataPublish, Created: now, IdempotencyKey: p.key}
		if err := tx.InsertTransactions([]*store.Transaction{transaction}); err != nil {
			return err
		}
		err := tx.ShowPublished(s.Namespace, p.item, p.op == opUploadBlob, reference)
		if errors.Is(err, store.ErrNoRows) { // deleted meanwhile
			return errs.NoSuch("data", p.item.String())
		}
		if err != nil {
			return err
		}
		if err := tx.InsertBlob(p.blob); err != nil {
			return err
		}
		if err := tx.Publish(s.Namespace, p.blob.Hash, now); err != nil {
			return err
		}
		if err := tx.InsertOperations([]*store.Operation{{
			ID: s.NewID(), Namespace: s.Namespace, Tx: &transaction.ID, Type: p.op, Status: opSucceeded, Plugin: "exchange",
			Input: input, Output: output, Created: now, Updated: now,
		}}); err != nil {
			return err
		}
		if err := tx.InsertEvents([]*store.Event{{
			ID: s.NewID(), Type: "transaction_submitted", Namespace: s.Namespace, Reference: &transaction.ID, Tx: &transaction.ID, Topic: txDataPublish, Created: now,
		}}); err != nil {
			return err
		}
		d, err = tx.DataByID(s.Namespace, p.item)
		return err
	})
	if dup, ok := errors.AsType[*store.DuplicateKey](err); ok {
		return nil, errs.TxKeyReused(p.key, dup.ID.String())
	}
	if err != nil {
		return nil, err
	}
	s.EventsCommitted()
	return d, nil
}

// OpenPublished reads a published content, by the SHA-256 of its bytes, and
// tells its size. What is not here is fetched from the members, each in turn, and
// kept.
func (s *Service) OpenPublished(ctx context.Context, hash wire.Hash) (r io.ReadCloser, size int64, err error) {
	here, err := s.published(ctx, hash)
	if err == nil && !here {
		err = s.fetchPublished(ctx, hash)
	}
	if err != nil {
		return nil, 0, err
	}
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		b, err := tx.BlobByHash(store.Hex(hash.String()))
		if err == nil {
			size = b.Size
		}
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	r, err = s.Blobs.Open(ctx, hash, 0)
	return r, size, err
}

func (s *Service) published(ctx context.Context, hash wire.Hash) (here bool, err error) {
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		here, err = tx.Published(s.Namespace, store.Hex(hash.String()))
		return err
	})
	return here, err
}

func (s *Service) fetchPublished(ctx context.Context, hash wire.Hash) error {
	s.blobUse.RLock()
	defer s.blobUse.RUnlock()
	var silent []string
	for _, member := range s.others(s.Network.Members()) {
		info, err := s.fetchContent(ctx, member, hash)
		if err == nil {
			return s.DB.Write(ctx, func(tx *store.Tx) error {
				if err := tx.InsertBlob(blobRow(*info, s.now())); err != nil {
					return err
				}
				return tx.Publish(s.Namespace, store.Hex(hash.String()), s.now())
			})
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, exchange.ErrNotFound) {
			s.Log.Warn("a member does not give a published content", "member", member.Short(), "content", hash.Short(), "err", err)
			silent = append(silent, member.Short())
		}
	}
	reason := "no member has published it"
	if len(silent) > 0 {
		reason = fmt.Sprintf("nobody who could be reached has published it, and %s gave no usable answer: try again later", strings.Join(silent, ", "))
	}
	return errs.New(errs.CodeNotFound, http.StatusNotFound, "There is no content %s: %s", wire.ContentID(hash), reason)
}

// fetchContent brings a published content from one member into the blob store.
func (s *Service) fetchContent(ctx context.Context, member wire.OrgID, want wire.Hash) (*blob.Info, error) {
	peer, err := s.peerOf(member)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(chunkTimeout, cancel)
	defer late.Stop()
	r, err := s.Exchange.Fetch(ctx, peer, partPublished+wire.ContentID(want), 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	info, err := s.Blobs.Put(ctx, &verified{src: r, want: want, sum: sha256.New(), progress: func() { late.Reset(chunkTimeout) }})
	return &info, err
}

// verified passes on the bytes of a content and fails at their end, or beyond
// the bound, unless they are the content that was asked for: then the blob
// store keeps nothing of them.
type verified struct {
	src      io.Reader
	want     wire.Hash
	sum      hash.Hash
	size     int64
	progress func() // called as bytes come
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.src.Read(p)
	if n > 0 {
		v.progress()
	}
	v.sum.Write(p[:n]) // a hash never fails
	v.size += int64(n)
	if v.size > maxPublished {
		return 0, fmt.Errorf("it has more than the %d bytes that can be published", int64(maxPublished))
	}
	if errors.Is(err, io.EOF) {
		if got := wire.Hash(v.sum.Sum(nil)); got != v.want {
			return 0, fmt.Errorf("it gave bytes with the hash %s", got)
		}
	}
	return n, err
}

// openPublished serves a published content to a member.
func (s *Service) openPublished(ctx context.Context, from wire.OrgID, id string, offset int64) (io.ReadCloser, error) {
	hash, err := wire.ParseContentID(id)
	if err != nil || !s.Network.Active(from, endPosition) {
		return nil, exchange.ErrNotFound
	}
	here, err := s.published(ctx, hash)
	if err != nil {
		return nil, err
	}
	if !here {
		return nil, exchange.ErrNotFound
	}
	r, err := s.Blobs.Open(ctx, hash, offset)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, exchange.ErrNotFound
	}
	return r, err
}
