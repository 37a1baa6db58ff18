package message

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// FeedFrom is the number of the record that the feed is to start at.
func (s *Service) FeedFrom(ctx context.Context) (next uint64, err error) {
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		last, err := tx.LastRecord()
		if err != nil {
			return err
		}
		next = 1
		if last != nil {
			next = last.Number + 1
		}
		return nil
	})
	return next, err
}

// Cursor is how far the ledger is stored: the number and running hash of the
// last record, and the final block up to which the feed has read; zero values
// where there is none.
func Cursor(tx *store.Tx) (number uint64, running wire.Hash, final ledger.Block, err error) {
	last, err := tx.LastRecord()
	if err != nil {
		return 0, wire.Hash{}, ledger.Block{}, err
	}
	if last != nil {
		number, running = last.Number, last.Running
	}
	f, err := readFinal(tx)
	if err != nil || f.Hash == "" {
		return number, running, ledger.Block{}, err
	}
	final = ledger.Block{Number: f.Number, Time: f.Time.Time()}
	final.Hash, err = wire.ParseHash(f.Hash)
	return number, running, final, err
}

// finalBlock is the stored form of the final block up to which the feed has
// read.
type finalBlock struct {
	Number uint64     `json:"number"`
	Hash   string     `json:"hash"`
	Time   store.Time `json:"time"`
}

// Record stores a step of the ledger, its records and the feed's position in
// one transaction (T3b). It is what ledger.Follow calls.
func (s *Service) Record(ctx context.Context, a ledger.Advance) error {
	rows := make([]store.Record, len(a.Records))
	members := false
	for i := range a.Records {
		r := &a.Records[i]
		row := store.Record{
			Number: r.Number, Running: r.Running, Position: r.Position, BlockHash: r.Block.Hash, BlockTime: store.At(r.Block.Time),
			TxHash: r.TxHash, Signer: r.Signer, Kind: r.Body.Kind(),
		}
		if p, ok := r.Body.(ledger.Pinned); ok {
			row.Pin = &store.PinBody{Org: p.Org, Pin: p.Pin, Via: p.Via}
		} else {
			var err error
			if row.Body, err = ledger.EncodeBody(r.Body); err != nil {
				return err
			}
			members = true
			// Before the commit: who reads the rows must find the members in
			// place. To apply a record twice changes nothing.
			s.Network.Apply(r.Number, r.Position, store.Time(row.BlockTime), r.Body)
		}
		rows[i] = row
	}
	final, err := json.Marshal(finalBlock{a.Final.Number, a.Final.Hash.String(), store.At(a.Final.Time)})
	if err != nil {
		return err
	}
	var askHead bool
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		last, err := tx.LastRecord()
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			var have uint64
			if last != nil {
				have = last.Number
			}
			if rows[0].Number != have+1 {
				return &ledger.Gap{Want: have + 1, Got: rows[0].Number, Reason: fmt.Sprintf("record %d follows record %d", rows[0].Number, have)}
			}
		}
		if err := tx.InsertRecords(s.Namespace, rows); err != nil {
			return err
		}
		for i := range rows {
			sub, err := tx.SubmissionByTx(rows[i].TxHash)
			if err != nil {
				return err
			}
			if sub != nil {
				if err := tx.FinishSubmission(sub.ID); err != nil {
					return err
				}
			}
			switch b := a.Records[i].Body.(type) {
			case ledger.KeyAdded:
				err = s.Network.SyncVerifiers(tx, s.Namespace, b.Org, rows[i].BlockTime)
			case ledger.MemberRemoved:
				err = s.forgetPeer(tx, b.Org)
			}
			if err != nil {
				return err
			}
		}
		if askHead, err = s.recordsForgotten(tx, rows); err != nil {
			return err
		}
		return tx.SetMeta(store.MetaFinal, string(final))
	})
	if err != nil {
		return err
	}
	if askHead {
		if err := s.askHead(ctx); err != nil {
			return err
		}
	}
	s.Wake.Confirm.Set()
	if members {
		s.Wake.Epoch.Set()
		s.Wake.Submit.Set()
		s.wakeAllPeers() // a node may have come or moved
	}
	return nil
}

// forgetPeer gives up what is still to be sent to a member that was removed: for
// good, unlike one that is suspended.
func (s *Service) forgetPeer(tx *store.Tx, org wire.OrgID) error {
	ops, err := tx.DropParcelsTo(org)
	if err != nil || len(ops) == 0 {
		return err
	}
	_, err = tx.UpdateOperations(ops, opFailed, nil, fmt.Sprintf("organisation %s was removed from the network", org.Short()), s.now())
	return err
}

// FeedBroken tells whether the feed ended because the ledger broke its promise,
// and notes that as an incident. Such a feed must not go on by itself.
func (s *Service) FeedBroken(ctx context.Context, err error) bool {
	var fork *ledger.Fork
	var gap *ledger.Gap
	if !errors.As(err, &fork) && !errors.As(err, &gap) {
		return false
	}
	s.incident(ctx, "ledger_broken", fmt.Sprintf("the ledger feed has stopped: %v. Do not trust this endpoint; compare it with another member's before you go on", err), err.Error())
	return true
}

// readFinal is the final block of the last advance; zero before the first.
func readFinal(tx *store.Tx) (f finalBlock, err error) {
	text, err := tx.Meta(store.MetaFinal)
	if err != nil || text == "" {
		return f, err
	}
	return f, json.Unmarshal([]byte(text), &f)
}
