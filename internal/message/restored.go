package message

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// A node whose database was taken back to an earlier state has forgotten what it
// signed since: receipts, which promise to hold a payload, and votes, which say
// that it cannot be had. Giving both for one batch would break the promise that
// an organisation gives one or the other. So such a node
//
//   - gives no receipt before it has read the ledger up to where it stood when
//     the node came back: its own votes are on it;
//   - casts no vote for K blocks after that: receipts that it forgot are as old
//     then as a certificate may be, so that no new one is made of them;
//   - casts votes marked as restored, which need a hundred times longer, against
//     what was pinned before: a certificate may hold a forgotten receipt.
//
// All else comes back by the usual steps: the feed reads the ledger again, what
// is lacking is pulled from the members, numbers and nonces follow the ledger.

// restored is the stored mark of such a node.
type restored struct {
	// Head is the number of the ledger's newest block when the node came back;
	// zero until the ledger was asked.
	Head uint64 `json:"head"`
	// Read says that all pins up to Head are applied.
	Read bool `json:"read"`
}

// MarkRestored notes that the database was taken back to an earlier state. The
// node must not run.
func MarkRestored(tx *store.Tx) error { return writeRestored(tx, restored{}) }

func writeRestored(tx *store.Tx, r restored) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return tx.SetMeta(store.MetaRestored, string(text))
}

// readRestored is nil if the node never was taken back.
func readRestored(tx *store.Tx) (*restored, error) {
	text, err := tx.Meta(store.MetaRestored)
	if err != nil || text == "" {
		return nil, err
	}
	r := new(restored)
	if err := json.Unmarshal([]byte(text), r); err != nil {
		return nil, fmt.Errorf("%s holds %q: %w", store.MetaRestored, text, err)
	}
	return r, nil
}

// restoredMark is readRestored for the hot paths: most nodes never were, and
// need not ask the database each time.
func (s *Service) restoredMark(tx *store.Tx) (*restored, error) {
	if !s.wasRestored.Load() {
		return nil, nil
	}
	return readRestored(tx)
}

// mayVote tells whether a certificate can no longer be made of receipts that the
// node has forgotten; age is K.
func (r *restored) mayVote(final, age uint64) bool {
	return r == nil || r.Read && final > r.Head+age
}

// marksVote tells whether a vote against an entry that was pinned in a block must
// say that it is a restored node's.
func (r *restored) marksVote(block, age uint64) bool {
	return r != nil && block <= r.Head+age
}

// restoredRead notes that all pins up to a final block are applied.
func (s *Service) restoredRead(tx *store.Tx, final uint64) error {
	r, err := s.restoredMark(tx)
	if err != nil || r == nil || r.Read || r.Head == 0 || final < r.Head {
		return err
	}
	r.Read = true
	return writeRestored(tx, *r)
}

// forgotten tells whether a record is a batch of ours that is not here: then the
// database is older than the ledger says that it was.
func (s *Service) forgotten(tx *store.Tx, r *store.Record) (bool, error) {
	if r.Pin == nil || r.Pin.Org != s.Self.Org || r.Pin.Pin.Root.IsZero() || !r.Pin.Via.IsZero() {
		return false, nil
	}
	known, err := tx.BatchByRoot(s.Self.Org, r.Pin.Pin.Root)
	return known == nil, err
}

// noteForgotten marks the node as restored, unless it is.
func (s *Service) noteForgotten(tx *store.Tx, r *store.Record) error {
	mark, err := readRestored(tx)
	if err != nil || mark != nil {
		return err
	}
	s.wasRestored.Store(true)
	if _, err := tx.PutIncident(&store.Incident{
		At: s.now(), Kind: "restored", Ref: r.TxHash.String(),
		Text: fmt.Sprintf("record %d pins a batch of this organisation that its database does not hold, so the database is older than that: the node reads the rest from the ledger and the other members, and casts no vote to skip for a while", r.Number),
	}); err != nil {
		return err
	}
	return MarkRestored(tx)
}

// askHead completes a mark with the ledger's newest block.
func (s *Service) askHead(ctx context.Context) error {
	st, err := s.Ledger.State(ctx, nil)
	if err != nil {
		return fmt.Errorf("ask the ledger where it stands, after the database was restored: %w", err)
	}
	return s.DB.Write(ctx, func(tx *store.Tx) error {
		mark, err := readRestored(tx)
		if err != nil || mark == nil || mark.Head > 0 {
			return err
		}
		return writeRestored(tx, restored{Head: max(st.Head.Number, 1)})
	})
}

// recordsForgotten looks at the records of an advance, inside the transaction
// that stores them. ask: the ledger's head is to be asked for after it.
func (s *Service) recordsForgotten(tx *store.Tx, rows []store.Record) (ask bool, err error) {
	for i := range rows {
		gone, err := s.forgotten(tx, &rows[i])
		if err != nil {
			return false, err
		}
		if gone {
			if err := s.noteForgotten(tx, &rows[i]); err != nil {
				return false, err
			}
			break
		}
	}
	mark, err := s.restoredMark(tx)
	return mark != nil && mark.Head == 0, err
}

// receiptsWait refuses a batch while the node may have voted against it and does
// not know.
func (s *Service) receiptsWait(tx *store.Tx, root wire.Hash) error {
	r, err := s.restoredMark(tx)
	if err != nil || r == nil || r.Read {
		return err
	}
	return refuse(refusedCatching, "this node was restored, and has not read the ledger up to its head yet: batch %s is taken after that", root.Short())
}

// ownVote notes a vote of ours that is on the ledger, for a database that has
// forgotten it.
func (s *Service) ownVote(tx *store.Tx, audience wire.Hash, e wire.Entry) error {
	_, err := tx.Vote(s.Self.Org, audience, e.Author, e.Root, s.now())
	return err
}
