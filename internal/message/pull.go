package message

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

const (
	pullAfter    = time.Second // after the pin: until then the author is expected to push
	firstPull    = time.Second
	lastPull     = 30 * time.Second
	maxPulls     = 16               // at once
	pullTimeout  = 30 * time.Second // for one object of at most exchange.MaxRequest bytes
	chunkTimeout = time.Minute      // for each chunk of a blob
)

// pulls remembers when each missing thing was last asked for, and what is being
// asked for now: one that hangs at a slow holder delays nothing else.
type pulls struct {
	mu      sync.Mutex
	tries   map[wire.Entry]*pullTry
	running int
	ended   sync.WaitGroup
}

type pullTry struct {
	attempts int
	next     time.Time
	running  bool
	nobody   bool // every other member was asked in the last round, and none had it
}

// Nobody tells whether the last round found no holder of an entry's payload.
func (p *pulls) nobody(e wire.Entry) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tries[e]
	return t != nil && t.nobody
}

// begin says whether to ask for something now; who does ends that with tried.
func (p *pulls) begin(e wire.Entry, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tries[e]
	if t == nil {
		t = &pullTry{}
		p.tries[e] = t
	}
	if t.running || now.Before(t.next) || p.running >= maxPulls {
		return false
	}
	t.running = true
	p.running++
	return true
}

func (p *pulls) tried(e wire.Entry, now time.Time, nobody bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tries[e]
	t.next = now.Add(min(firstPull<<min(t.attempts, 8), lastPull))
	t.attempts++
	t.running, t.nobody = false, nobody
	p.running--
}

// keep forgets what is not missing any more.
func (p *pulls) keep(missing []Pull) {
	still := make(map[wire.Entry]bool, len(missing))
	for _, m := range missing {
		still[m.id] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for e, t := range p.tries {
		if !still[e] && !t.running {
			delete(p.tries, e)
		}
	}
}

// PullStep starts to fetch what is missing and due, several things at once, and
// returns.
func (s *Service) PullStep(ctx context.Context) (more bool, err error) {
	missing, err := s.Missing(ctx)
	for _, p := range missing {
		if p.Begin() {
			s.pulls.ended.Go(func() { p.Fetch(ctx) })
		}
	}
	return false, err
}

// Pull is one missing thing: the payload or certificate of an open entry, or the
// secret of an epoch that is current.
type Pull struct {
	s     *Service
	id    wire.Entry // of an epoch: its proposer and hash
	fetch func(context.Context) (nobody bool, err error)
}

// Missing lists what is missing, whether its time to be asked for has come or
// not.
func (s *Service) Missing(ctx context.Context) (list []Pull, err error) {
	var secrets []store.Epoch
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) { secrets, err = tx.EpochsWithoutSecret(); return err })
	if err != nil {
		return nil, err
	}
	for i := range secrets {
		if e := &secrets[i]; e.Definition.Has(s.Self.Org) {
			list = append(list, Pull{s, wire.Entry{Author: e.Definition.Proposer, Root: e.Hash}, func(ctx context.Context) (bool, error) { return false, s.pullSecret(ctx, e) }})
		}
	}
	for _, l := range s.confirm.lacking(s.Now().Add(-pullAfter)) {
		list = append(list, Pull{s, wire.Entry{Author: l.entry.Author, Root: l.entry.Root}, func(ctx context.Context) (bool, error) { return s.pullEntry(ctx, l) }})
	}
	s.pulls.keep(list)
	return list, nil
}

// Begin says whether to fetch it now; who does calls Fetch.
func (p Pull) Begin() bool { return p.s.pulls.begin(p.id, p.s.Now()) }

// Fetch asks for it and notes what came of that.
func (p Pull) Fetch(ctx context.Context) {
	s := p.s
	nobody, err := p.fetch(ctx)
	s.pulls.tried(p.id, s.Now(), nobody)
	if err != nil && ctx.Err() == nil {
		s.Log.Error("a pull failed; it is tried again", "root", p.id.Root.Short(), "err", err)
	}
	s.Wake.Pull.Set()
	if nobody {
		s.Wake.Confirm.Set() // it may be time to vote
	}
}

// WaitPulls returns when nothing is being pulled any more.
func (s *Service) WaitPulls() { s.pulls.ended.Wait() }

// pullEntry asks the other members for what one entry lacks. nobody has the
// payload if it is still missing after that.
func (s *Service) pullEntry(ctx context.Context, l lack) (nobody bool, err error) {
	e := &l.entry
	var epoch *store.Epoch
	var have *store.BatchRow
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if epoch, err = epochOf(tx, l.audience, e.Epoch); err != nil {
			return err
		}
		have, err = tx.BatchByRoot(e.Author, e.Root)
		return err
	})
	if err != nil || epoch == nil {
		return false, err
	}
	held := have != nil && have.Audience == l.audience
	if held {
		if err := s.renewReceipt(ctx, l, have, epoch); err != nil {
			return false, err
		}
	}
	keys := epoch.Secret.Keys()
	certificate := l.certificate
	var remnant *foundRemnant
	holders := append([]wire.OrgID{e.Author}, s.others(epoch.Definition.Members)...)
	for i, h := range holders {
		if h == s.Self.Org || i > 0 && h == e.Author || !s.Network.Active(h, endPosition) || held && !certificate {
			continue
		}
		if !held {
			err := s.pullPayload(ctx, h, l, keys)
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			if held = err == nil; !held {
				s.Log.Debug("a member does not give a payload", "member", h.Short(), "root", e.Root.Short(), "err", err)
			}
			if errors.Is(err, exchange.ErrNotFound) && remnant == nil {
				remnant = s.pullRemnant(ctx, h, l, epoch)
			}
		}
		if certificate {
			// Order judges it; if it does not count, the next round asks again.
			certificate = s.pullCertificate(ctx, h, e.Root, keys) != nil
		}
	}
	if !held && remnant != nil { // nobody has all of it any more
		err := s.receiveRemnant(ctx, remnant, epoch)
		return err != nil, err
	}
	return !held, nil
}

// renewReceipt gives another receipt for an entry whose pin came so late that
// ours is too old to count. Else a long wait for the other receipts, or a ledger
// that was idle before, would leave the entry without a certificate for ever:
// who has receipted it cannot vote to skip it.
func (s *Service) renewReceipt(ctx context.Context, l lack, have *store.BatchRow, epoch *store.Epoch) error {
	e := &l.entry
	if !l.certificate || have.Receipt == nil {
		return nil
	}
	var old wire.Receipt
	if err := wire.Unmarshal(have.Receipt, &old); err != nil {
		return fmt.Errorf("stored receipt for %s: %w", e.Root.Short(), err)
	}
	if old.RecentNumber+e.ReceiptAge >= e.Position.Block {
		return nil
	}
	fresh, err := s.renewedReceipt(ctx, old)
	if err != nil {
		return err
	}
	stored, err := wire.Marshal(*fresh)
	if err != nil {
		return err
	}
	members := s.others(epoch.Definition.Members)
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := putReceipt(tx, fresh); err != nil {
			return err
		}
		if err := tx.SetBatchReceipt(e.Author, e.Root, stored); err != nil {
			return err
		}
		if err := s.addReceipts(tx, members, e.Author, e.Root); err != nil {
			return err
		}
		return tx.Arrived(store.ArrivedReceipt, e.Author, e.Root)
	})
	s.wakePeers(members)
	s.Wake.Confirm.Set()
	return err
}

// addReceipts puts our receipt for a batch into the outbox of each member.
func (s *Service) addReceipts(tx *store.Tx, members []wire.OrgID, author wire.OrgID, root wire.Hash) error {
	for _, m := range members {
		if err := tx.AddParcels(store.Parcel{Peer: m, Kind: kindReceipt, Root: root, Org: author, Since: s.now()}); err != nil {
			return err
		}
	}
	return nil
}

// pullPayload fetches a batch, stores it like a pushed one, and hands our
// receipt to the audience: whoever pulls a payload receipts it.
func (s *Service) pullPayload(ctx context.Context, from wire.OrgID, l lack, keys wire.Keys) error {
	e := &l.entry
	body, err := s.fetchAll(ctx, from, objectName(keys, e.Root, partBatch))
	if err != nil {
		return err
	}
	var env wire.Envelope
	if err := wire.Unmarshal(body, &env); err != nil {
		return err
	}
	if env.Author != e.Author || env.Root != e.Root || env.Audience != l.audience {
		return errors.New("it gave another batch than was asked for")
	}
	receipt, err := s.receivePayload(ctx, env, from)
	if err != nil || receipt == nil {
		return err
	}
	var members []wire.OrgID
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		epoch, err := epochOf(tx, l.audience, e.Epoch)
		if err != nil || epoch == nil {
			return err
		}
		members = s.others(epoch.Definition.Members)
		return s.addReceipts(tx, members, e.Author, e.Root)
	})
	s.wakePeers(members)
	return err
}

func (s *Service) pullCertificate(ctx context.Context, from wire.OrgID, root wire.Hash, keys wire.Keys) error {
	body, err := s.fetchAll(ctx, from, objectName(keys, root, partCertificate))
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

// fetchBlobs brings the blobs of a batch, known by root, from a holder, chunk by
// chunk; what is here already, or partly, is not fetched again.
func (s *Service) fetchBlobs(ctx context.Context, b *wire.Batch, root wire.Hash, keys wire.Keys, holder wire.OrgID) ([]blob.Info, error) {
	var infos []blob.Info
	for i := range b.Data {
		ref := b.Data[i].Blob
		if ref == nil {
			continue
		}
		names := blobNames{blob: objectName(keys, root, blobPart(ref.Hash)), chunks: objectName(keys, root, chunksPart(ref.Hash))}
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
	// A holder that gives no chunk in time is left; what it gave is kept.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(chunkTimeout, cancel)
	defer late.Stop()
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
		late.Reset(chunkTimeout)
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
