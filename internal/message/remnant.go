package message

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// erasedPart is what is gone of a batch, and by which erasure. A nil one stands
// for a batch that is whole.
type erasedPart struct {
	remnant *wire.Remnant
	erasure wire.UUID
}

// of tells whether some data of message i is gone.
func (p *erasedPart) of(i int) bool { return p != nil && p.remnant.Erased(i) }

// mark marks the row of item at as erased, if it is.
func (p *erasedPart) mark(d *store.Data, at uint32) {
	if p != nil && p.remnant.Data[at].Erased != nil {
		d.Erasure = &p.erasure
	}
}

// sealedOf is the sealed part of a stored batch, pinned or not.
func sealedOf(row *store.BatchRow) (env wire.Envelope, u *wire.Unpinned, err error) {
	if row.Tx.Type == TxUnpinned {
		u = new(wire.Unpinned)
		err = wire.Unmarshal(row.Envelope, u)
		return u.Envelope, u, err
	}
	return env, nil, wire.Unmarshal(row.Envelope, &env)
}

// openRemnant opens what remains of a stored batch.
func openRemnant(row *store.BatchRow, epoch *store.Epoch) (*wire.Remnant, []wire.Hash, error) {
	env, _, err := sealedOf(row)
	if err != nil {
		return nil, nil, fmt.Errorf("stored remnant of batch %s: %w", row.ID, err)
	}
	r, leaves, err := checkedRemnant(env, epoch)
	if err != nil {
		return nil, nil, fmt.Errorf("stored remnant of batch %s: %w", row.ID, err)
	}
	return r, leaves, nil
}

// checkedRemnant decrypts what remains of a batch and checks all that needs no
// state.
func checkedRemnant(env wire.Envelope, epoch *store.Epoch) (*wire.Remnant, []wire.Hash, error) {
	plain, err := epoch.Secret.Keys().OpenPayload(env.Author, env.Root, env.Sealed)
	if err != nil {
		return nil, nil, err
	}
	r, err := wire.DecodeRemnant(plain)
	if err != nil {
		return nil, nil, err
	}
	leaves, err := r.CheckedLeaves()
	if err != nil {
		return nil, nil, err
	}
	if root := wire.MerkleRoot(leaves); root != env.Root {
		return nil, nil, fmt.Errorf("it has the root %s, not %s", root.Short(), env.Root.Short())
	}
	if h := &r.Header; h.Author != env.Author || h.Audience != env.Audience || h.Epoch != env.Epoch {
		return nil, nil, fmt.Errorf("it was sealed for another author, audience or epoch")
	}
	return r, leaves, nil
}

// foundRemnant is what remains of a batch, from a member that has erased some of
// it.
type foundRemnant struct {
	env     wire.Envelope
	remnant *wire.Remnant
	leaves  []wire.Hash
	holder  wire.OrgID
}

// pullRemnant asks a member for what remains of a batch; nil if it has no such
// thing either, or one whose receipts do not prove what it says about what is
// gone: another member may have one.
func (s *Service) pullRemnant(ctx context.Context, from wire.OrgID, l lack, epoch *store.Epoch) *foundRemnant {
	e := &l.entry
	body, err := s.fetchAll(ctx, from, objectName(epoch.Secret.Keys(), e.Root, partRemnant))
	if err != nil {
		return nil
	}
	f := &foundRemnant{holder: from}
	fault := wire.Unmarshal(body, &f.env)
	if fault == nil && (f.env.Author != e.Author || f.env.Root != e.Root || f.env.Audience != l.audience || f.env.Epoch != epoch.Epoch) {
		fault = errors.New("it is of another batch")
	}
	if fault == nil {
		f.remnant, f.leaves, fault = checkedRemnant(f.env, epoch)
	}
	if fault == nil && f.remnant.Header.Network != s.Network.ID {
		fault = errors.New("it was sealed for another network")
	}
	if fault == nil {
		proved, err := s.confirm.certifies(ctx, l.audience, *e, f.remnant.Receipts)
		if err != nil {
			s.Log.Error("a remnant could not be judged; it is pulled again", "root", e.Root.Short(), "err", err)
			return nil
		}
		if !proved {
			fault = errors.New("its receipts do not prove what it says about the data that is gone")
		}
	}
	if fault != nil {
		s.incident(ctx, "bad_payload", fmt.Sprintf("%s gave a remnant of batch %s that is refused: %v", from.Short(), e.Root.Short(), fault), e.Root.String()+from.String())
		return nil
	}
	return f
}

// receiveRemnant stores what remains of a batch that this node never had whole,
// with the receipts that stand for the rest. It gives none itself: it does not
// hold the payload.
func (s *Service) receiveRemnant(ctx context.Context, from *foundRemnant, epoch *store.Epoch) error {
	env, r, leaves := from.env, from.remnant, from.leaves
	b := r.Batch()
	s.blobUse.RLock()
	defer s.blobUse.RUnlock()
	blobs, err := s.fetchBlobs(ctx, b, env.Root, epoch.Secret.Keys(), from.holder)
	if err != nil {
		return err
	}
	stored, err := wire.Marshal(env)
	if err != nil {
		return err
	}
	row, err := s.batchRow(env, b, leaves, stored)
	if err != nil {
		return err
	}
	row.State, row.Erased = store.BatchHeld, &row.Since
	gone := &erasedPart{remnant: r, erasure: s.NewID()}
	messages, data, _, err := s.receivedRows(b, leaves, row, gone)
	if err != nil {
		return err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if decided, err := tx.PastEntry(env.Audience, env.Author, env.Root); err != nil || decided != nil {
			return err // skipped meanwhile
		}
		fresh, err := tx.InsertBatch(row)
		if err != nil || !fresh {
			return err
		}
		for i := range r.Receipts {
			if _, err := putReceipt(tx, &r.Receipts[i]); err != nil {
				return err
			}
		}
		return s.storeRemnant(tx, gone, messages, data, blobs, row, from.holder)
	})
	s.Wake.Confirm.Set()
	return err
}

func (s *Service) storeRemnant(tx *store.Tx, gone *erasedPart, messages []*store.Message, data [][]*store.Data, blobs []blob.Info, row *store.BatchRow, holder wire.OrgID) error {
	holderName, err := s.nameOf(tx, holder)
	if err != nil {
		return err
	}
	note := &store.Erasure{
		ID: gone.erasure, Namespace: s.Namespace, Source: store.ErasedBefore, Origin: holder.String(), Author: holderName,
		Reason: "it was erased before this node could get it", Created: row.Since,
	}
	for _, m := range messages {
		if m.Erasure != nil {
			note.Messages++
		}
	}
	for i := range gone.remnant.Data {
		if gone.remnant.Data[i].Erased != nil {
			note.Data++
		}
	}
	if err := tx.InsertErasure(note); err != nil {
		return err
	}
	if err := storeReceived(tx, messages, data, blobs, row); err != nil {
		return err
	}
	return tx.Arrived(store.ArrivedPayload, row.Org, row.Root)
}

// contentOf opens a stored batch as a remnant, from which nothing may be erased
// yet.
func (s *Service) contentOf(row *store.BatchRow, epoch *store.Epoch) (*wire.Remnant, error) {
	if row.Erased != nil {
		r, _, err := openRemnant(row, epoch)
		return r, err
	}
	env, _, err := sealedOf(row)
	if err != nil {
		return nil, fmt.Errorf("stored batch %s: %w", row.ID, err)
	}
	b, leaves, err := s.openBatch(env, epoch)
	if err != nil {
		return nil, fmt.Errorf("stored batch %s: %w", row.ID, err)
	}
	_, _, faults, err := s.receivedRows(b, leaves, row, nil)
	if err != nil {
		return nil, err
	}
	return b.Remnant(faults, wire.SealedHash(env.Sealed)), nil
}

// sealRemnant is the stored form of a batch after something of it was erased.
func sealRemnant(row *store.BatchRow, epoch *store.Epoch, r *wire.Remnant) ([]byte, error) {
	plain, err := r.Encode()
	if err != nil {
		return nil, err
	}
	env, u, err := sealedOf(row)
	if err != nil {
		return nil, err
	}
	if env.Sealed, err = epoch.Secret.Keys().SealPayload(env.Author, env.Root, plain); err != nil {
		return nil, err
	}
	if u == nil {
		return wire.Marshal(env)
	}
	u.Envelope = env
	return wire.Marshal(*u)
}

// itemsOf are the commitments of a batch's items that are among some, ascending.
func itemsOf(r *wire.Remnant, of map[wire.Hash]bool) (items []wire.Hash) {
	for i := range r.Messages {
		for _, c := range r.Messages[i].Header.Data {
			if of[c] && !slices.Contains(items, c) {
				items = append(items, c)
			}
		}
	}
	slices.SortFunc(items, compareHash)
	return items
}
