package message

import (
	"context"
	"fmt"
	"slices"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// How a member joins with a later epoch: the pin that made it current is a
// control under the keys of the epoch before, which the member does not have. So
// the members that stayed tell it, each for itself, and it believes the majority
// of them. Who they are follows from receipts: honest members among those that
// receipted the epoch have found its predecessor current (see agree).

// tellActivated tells the members of an epoch which pin made it current, if this
// node has read that itself. Who has read it too ignores it.
func (s *Service) tellActivated(ctx context.Context, before, current *store.Epoch) error {
	others := s.others(current.Definition.Members)
	if before == nil || before.Secret == nil || len(others) == 0 {
		return nil
	}
	done := "told/" + current.Hash.String()
	told := ""
	if err := s.DB.Read(ctx, func(tx *store.Tx) (err error) { told, err = tx.Meta(done); return err }); err != nil || told != "" {
		return err
	}
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		for _, m := range others {
			if err := tx.AddParcels(store.Parcel{Peer: m, Kind: kindActivated, Root: current.Hash, Org: current.Definition.Proposer, Since: s.now()}); err != nil {
				return err
			}
		}
		return tx.SetMeta(done, "yes")
	})
	s.wakePeers(others)
	return err
}

// statement is what this node has read of an epoch's activation; nil if it has
// not read it.
func statement(tx *store.Tx, e *store.Epoch) (*wire.Activated, error) {
	before, err := tx.EpochByHash(e.Definition.Previous)
	if err != nil || before == nil || before.Secret == nil || e.Activated == nil {
		return nil, err
	}
	pin, err := tx.PinByNumber(uint64(*e.Activated))
	if err != nil {
		return nil, err
	}
	if pin == nil {
		return nil, fmt.Errorf("epoch %d of audience %s was activated by record %d, which is not stored", e.Epoch, e.Audience.Short(), *e.Activated)
	}
	p := &pin.Record.Pin.Pin
	control, err := before.Secret.Keys().OpenControl(p.Control, pin.Signer, pin.N, p.Root, p.Handles)
	if err != nil {
		return nil, fmt.Errorf("record %d, which activated epoch %d of audience %s: %w", pin.Number, e.Epoch, e.Audience.Short(), err)
	}
	if control.Activate == nil {
		return nil, fmt.Errorf("record %d holds no activation of epoch %d of audience %s", pin.Number, e.Epoch, e.Audience.Short())
	}
	return &wire.Activated{Definition: e.Hash, Pin: pin.Number, Previous: before.Definition, Receipts: control.Activate.Receipts}, nil
}

// receiveActivated lets a member that joins with an epoch treat it as current
// once most of those who can read its activation have named the same pin.
func (s *Service) receiveActivated(ctx context.Context, from wire.OrgID, body []byte) error {
	var a wire.Activated
	if err := wire.Unmarshal(body, &a); err != nil {
		return refuse(refusedMalformed, "activation: %v", err)
	}
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		e, err := tx.EpochByHash(a.Definition)
		if err != nil {
			return err
		}
		if e == nil || e.Secret == nil || !e.Definition.Has(from) {
			return refuse(refusedAudience, "the epoch is unknown here: send the invitation first")
		}
		epochs, err := tx.Epochs(e.Audience)
		if err != nil {
			return err
		}
		// A member of an earlier epoch reads the ledger, and believes nobody;
		// unless the epoch before this one was without it, so that it cannot read.
		if active := activated(epochs); len(active) > 0 {
			last := &active[len(active)-1]
			if last.Secret != nil || last.Definition.Has(s.Self.Org) || e.Definition.Previous != last.Hash {
				return nil
			}
		}
		pin, err := tx.PinByNumber(a.Pin)
		if err != nil {
			return err
		}
		if pin == nil {
			return refuse(refusedAudience, "record %d is not read here yet", a.Pin)
		}
		if pin.Pin.Org != e.Definition.Proposer || len(pin.Pin.Pin.Control) == 0 {
			return refuse(refusedMalformed, "record %d is no control of the epoch's proposer", a.Pin)
		}
		stayed, err := s.stayed(tx, e, &a, pin)
		if err != nil {
			return err
		}
		if !slices.Contains(stayed, from) {
			return refuse(refusedForeign, "%s did not belong to the epoch before: it cannot have read the activation", from.Short())
		}
		if err := tx.PutAttestation(e.Hash, from, a.Pin); err != nil {
			return err
		}
		who, err := tx.Attestations(e.Hash, a.Pin)
		if err != nil {
			return err
		}
		agree := 0
		for _, org := range stayed {
			if slices.Contains(who, org) {
				agree++
			}
		}
		if agree < len(stayed)/2+1 {
			return nil
		}
		number := int64(a.Pin)
		e.Activated = &number
		if err := tx.PutEpoch(e); err != nil {
			return err
		}
		return tx.Arrived(store.ArrivedSecret, e.Audience, e.Hash)
	})
	s.Wake.Confirm.Set()
	s.Wake.Epoch.Set()
	return err
}

// stayed are the other members of an epoch that belonged to the one before it,
// which a statement about its activation encloses with its receipts.
func (s *Service) stayed(tx *store.Tx, e *store.Epoch, a *wire.Activated, pin *store.Pin) (stayed []wire.OrgID, err error) {
	if h, err := a.Previous.Hash(); err != nil || h != e.Definition.Previous {
		return nil, refuse(refusedMalformed, "the enclosed definition is not that of the epoch before")
	}
	var holders []wire.OrgID
	for i := range a.Receipts {
		r := &a.Receipts[i]
		if slices.Contains(holders, r.Org) || r.Org == e.Definition.Proposer || !e.Definition.Has(r.Org) {
			continue
		}
		if holds, err := s.receiptHolds(tx, r, e, pin.Position); err != nil {
			return nil, err
		} else if holds {
			holders = append(holders, r.Org)
		}
	}
	if c := needed(len(e.Definition.Members) - 1); len(holders) < c {
		return nil, refuse(refusedMalformed, "%d of %d receipts for the epoch hold", len(holders), c)
	}
	for _, m := range s.others(e.Definition.Members) {
		if a.Previous.Has(m) {
			stayed = append(stayed, m)
		}
	}
	return stayed, nil
}

// receiptHolds tests a receipt for an epoch's definition as of a position.
func (s *Service) receiptHolds(tx *store.Tx, r *wire.Receipt, e *store.Epoch, at wire.Position) (bool, error) {
	if r.Version != wire.Version || r.Network != s.Network.ID || r.Audience != e.Audience || r.Epoch != e.Epoch ||
		r.Author != e.Definition.Proposer || r.Root != e.Hash || r.RecentNumber > at.Block || at.Block-r.RecentNumber > s.Network.Params(at).ReceiptAge {
		return false, nil
	}
	key, err := r.Signer()
	if err != nil {
		return false, nil // no signature at all
	}
	if org, valid := s.Network.OrgOf(key, at); !valid || org != r.Org {
		return false, nil
	}
	hash, known, err := tx.BlockHash(r.RecentNumber)
	return known && hash == r.RecentBlock, err
}
