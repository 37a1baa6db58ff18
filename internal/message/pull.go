package message

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/order"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

const (
	pullAfter   = time.Second // after the pin: until then the author is expected to push
	firstPull   = time.Second
	lastPull    = 30 * time.Second
	pullPage    = 200
	pullTimeout = 10 * time.Minute
)

// pulls remembers when each missing thing was last asked for.
type pulls struct {
	mu    sync.Mutex
	tries map[wire.Entry]*pullTry
}

type pullTry struct {
	attempts int
	next     time.Time
	nobody   bool // every other member was asked in the last round, and none had it
}

// Nobody tells whether the last round found no holder of an entry's payload.
func (p *pulls) nobody(e wire.Entry) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tries[e]
	return t != nil && t.nobody
}

// due says whether to ask for an entry now.
func (p *pulls) due(e wire.Entry, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tries[e]
	return t == nil || !now.Before(t.next)
}

func (p *pulls) tried(e wire.Entry, now time.Time, nobody bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tries[e]
	if t == nil {
		t = &pullTry{}
		p.tries[e] = t
	}
	t.next = now.Add(min(firstPull<<min(t.attempts, 8), lastPull))
	t.attempts++
	t.nobody = nobody
}

func (p *pulls) got(e wire.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tries, e)
}

// PullStep fetches what open entries lack from whoever holds it: payloads and
// certificates of pinned batches, and secrets of epochs that are current.
func (s *Service) PullStep(ctx context.Context) (more bool, err error) {
	if err := s.pullSecrets(ctx); err != nil {
		return false, err
	}
	now := s.Now()
	var open []store.OpenPin
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		open, err = tx.OpenPins(store.At(now.Add(-pullAfter)), pullPage)
		return err
	})
	if err != nil {
		return false, err
	}
	for i := range open {
		if err := s.pullEntry(ctx, &open[i]); err != nil {
			return false, err
		}
	}
	return false, nil
}

// pullEntry asks the other members for what one entry lacks.
func (s *Service) pullEntry(ctx context.Context, p *store.OpenPin) error {
	var e order.Entry
	if err := json.Unmarshal(p.Entry, &e); err != nil {
		return fmt.Errorf("stored entry %d: %w", p.Number, err)
	}
	id := wire.Entry{Author: p.Org, Root: p.Root}
	certified := p.Receipts >= int(e.C)
	if p.Held && certified || !s.pulls.due(id, s.Now()) {
		return nil
	}
	var epoch *store.Epoch
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) { epoch, err = epochOf(tx, p.Audience, p.Epoch); return err })
	if err != nil || epoch == nil {
		return err
	}
	keys := epoch.Secret.Keys()
	holders := append([]wire.OrgID{p.Org}, s.others(epoch.Definition.Members)...)
	for i, h := range holders {
		if h == s.Self.Org || i > 0 && h == p.Org || p.Held && certified {
			continue
		}
		if !p.Held {
			if err := s.pullPayload(ctx, h, p, keys); err == nil {
				p.Held = true
			} else if ctx.Err() != nil {
				return ctx.Err()
			} else {
				s.Log.Debug("a member does not give a payload", "member", h.Short(), "root", p.Root.Short(), "err", err)
			}
		}
		if !certified {
			if err := s.pullCertificate(ctx, h, p, keys); err == nil {
				certified = true // order judges it; if it does not count, the next round asks again
			}
		}
	}
	s.pulls.tried(id, s.Now(), !p.Held)
	if p.Held && certified {
		s.pulls.got(id)
	}
	if !p.Held {
		s.Wake.Confirm.Set() // it may be time to vote
	}
	return nil
}

// pullPayload fetches a batch, stores it like a pushed one, and hands our
// receipt to the audience: whoever pulls a payload receipts it.
func (s *Service) pullPayload(ctx context.Context, from wire.OrgID, p *store.OpenPin, keys wire.Keys) error {
	body, err := s.fetchAll(ctx, from, objectName(keys, p.Root, partBatch))
	if err != nil {
		return err
	}
	var env wire.Envelope
	if err := wire.Unmarshal(body, &env); err != nil {
		return err
	}
	if env.Author != p.Org || env.Root != p.Root || env.Audience != p.Audience {
		return errors.New("it gave another batch than was asked for")
	}
	if _, err := s.receivePayload(ctx, env, from); err != nil {
		return err
	}
	var members []wire.OrgID
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		epoch, err := epochOf(tx, p.Audience, p.Epoch)
		if err != nil || epoch == nil {
			return err
		}
		members = s.others(epoch.Definition.Members)
		for _, m := range members {
			if err := tx.AddParcels(store.Parcel{Peer: m, Kind: kindReceipt, Root: p.Root, Org: p.Org, Since: s.now()}); err != nil {
				return err
			}
		}
		return nil
	})
	s.wakePeers(members)
	return err
}

func (s *Service) pullCertificate(ctx context.Context, from wire.OrgID, p *store.OpenPin, keys wire.Keys) error {
	body, err := s.fetchAll(ctx, from, objectName(keys, p.Root, partCertificate))
	if err != nil {
		return err
	}
	var c wire.Certificate
	if err := wire.Unmarshal(body, &c); err != nil {
		return err
	}
	return s.receiveReceipts(ctx, c.Receipts)
}

// fetchAll reads a small object of a peer.
func (s *Service) fetchAll(ctx context.Context, from wire.OrgID, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	peer, err := s.peerOf(from)
	if err != nil {
		return nil, err
	}
	r, err := s.Exchange.Fetch(ctx, peer, name, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, exchange.MaxRequest+1))
	if err == nil && len(b) > exchange.MaxRequest {
		return nil, fmt.Errorf("object is larger than %d bytes", exchange.MaxRequest)
	}
	return b, err
}

// peerOf is where an organisation's node is, as the ledger registers it.
func (s *Service) peerOf(org wire.OrgID) (exchange.Peer, error) {
	node := s.Network.Node(org)
	if node == nil {
		return exchange.Peer{}, fmt.Errorf("the node of %s is not registered on the ledger yet", org.Short())
	}
	return exchange.Peer{Org: org, CertHash: node.CertHash, Endpoints: node.Endpoints}, nil
}

// fetchBlobs brings the blobs of a batch from a holder, chunk by chunk; what is
// here already, or partly, is not fetched again.
func (s *Service) fetchBlobs(ctx context.Context, b *wire.Batch, env wire.Envelope, keys wire.Keys, holder wire.OrgID) ([]blob.Info, error) {
	var infos []blob.Info
	for i := range b.Data {
		ref := b.Data[i].Blob
		if ref == nil {
			continue
		}
		names := blobNames{blob: objectName(keys, env.Root, blobPart(ref.Hash)), chunks: objectName(keys, env.Root, chunksPart(ref.Hash))}
		info, err := s.fetchBlob(ctx, *ref, names, holder)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, refuse(refusedBlocked, "blob %s (%d bytes): %v", ref.Hash.Short(), ref.Size, err)
		}
		infos = append(infos, *info)
	}
	return infos, nil
}

// blobNames are the objects under which a holder serves a blob.
type blobNames struct{ blob, chunks string }

// fetchBlob fetches one blob and verifies it against the batch's commitment:
// the list of chunks by the root, each chunk by the list, the whole by its hash.
func (s *Service) fetchBlob(ctx context.Context, ref wire.BlobRef, names blobNames, holder wire.OrgID) (*blob.Info, error) {
	var have *store.Blob
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		have, err = store.Optional(tx.BlobByHash(store.Hex(ref.Hash.String())))
		return err
	})
	if err != nil {
		return nil, err
	}
	info := &blob.Info{Hash: ref.Hash, Size: ref.Size}
	if have != nil {
		if have.Size != ref.Size { // who does not have it yet could never get it
			return nil, fmt.Errorf("it has %d bytes, the batch says %d", have.Size, ref.Size)
		}
		info.Chunks = have.Chunks
	} else if info.Chunks, err = s.fetchChunkList(ctx, ref, names.chunks, holder); err != nil {
		return nil, fmt.Errorf("list of chunks: %w", err)
	}
	if root := wire.BlobRoot(info.Chunks); root != ref.Root {
		return nil, fmt.Errorf("its chunks have the root %s, the batch names %s", root.Short(), ref.Root.Short())
	}
	if have != nil {
		return info, nil
	}
	peer, err := s.peerOf(holder)
	if err != nil {
		return nil, err
	}
	partial, err := s.Blobs.Partial(ctx, *info)
	if err != nil {
		return nil, err
	}
	defer partial.Close()
	if partial.Next() == len(info.Chunks) {
		return info, partial.Commit() // all was here: an earlier attempt ended before the batch was stored
	}
	r, err := s.Exchange.Fetch(ctx, peer, names.blob, int64(partial.Next())*blob.ChunkSize)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	buf := make([]byte, blob.ChunkSize)
	for partial.Next() < len(info.Chunks) {
		n, err := io.ReadFull(r, buf)
		if n > 0 && (err == nil || errors.Is(err, io.ErrUnexpectedEOF)) {
			err = partial.Append(buf[:n])
		}
		if err != nil {
			return nil, err // what was appended is kept
		}
	}
	return info, partial.Commit()
}

// fetchChunkList fetches the hashes of a blob's chunks; the caller checks them
// against the root that the batch commits to.
func (s *Service) fetchChunkList(ctx context.Context, ref wire.BlobRef, name string, holder wire.OrgID) ([]wire.Hash, error) {
	b, err := s.fetchAll(ctx, holder, name)
	if err != nil {
		return nil, err
	}
	if want := (ref.Size + blob.ChunkSize - 1) / blob.ChunkSize * 32; int64(len(b)) != want {
		return nil, fmt.Errorf("it has %d bytes, a blob of %d bytes takes %d", len(b), ref.Size, want)
	}
	chunks := make([]wire.Hash, len(b)/32)
	for i := range chunks {
		copy(chunks[i][:], b[32*i:])
	}
	return chunks, nil
}
