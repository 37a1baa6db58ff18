package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// errRead ends the feed: all stored records have been compared.
var errRead = errors.New("all stored records are read")

// ledger reads the ledger again from its first record and compares each with
// the stored one.
func (c *checker) ledger(ctx context.Context) error {
	if c.Ledger == nil {
		return nil
	}
	var last uint64
	err := c.DB.Read(ctx, func(tx *store.Tx) error {
		r, err := tx.LastRecord()
		if r != nil {
			last = r.Number
		}
		return err
	})
	if err != nil {
		return err
	}
	state, err := c.Ledger.State(ctx, nil)
	if err != nil {
		return err
	}
	if state.Records < last {
		c.differ(Record, "the last record", last, fmt.Sprintf("%d, as the contract counts them", state.Records), compare)
		last = state.Records
	}
	if last == 0 {
		return nil
	}
	err = c.Ledger.Follow(ctx, 1, func(ctx context.Context, a ledger.Advance) error {
		err := c.DB.Read(ctx, func(tx *store.Tx) error {
			for i := range a.Records {
				if r := &a.Records[i]; r.Number <= last {
					if err := c.same(tx, r); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err == nil && len(a.Records) > 0 && a.Records[len(a.Records)-1].Number >= last {
			return errRead
		}
		return err
	})
	if errors.Is(err, errRead) {
		return nil
	}
	return err
}

// same compares one record with its row.
func (c *checker) same(tx *store.Tx, r *ledger.Record) error {
	where := fmt.Sprintf("record %d", r.Number)
	row, err := tx.RecordByNumber(r.Number)
	if err != nil {
		return err
	}
	if row == nil {
		c.differ(Record, where, "nothing", r.Body.Kind(), refetch)
		return nil
	}
	head := func(running wire.Hash, at wire.Position, block wire.Hash, tx wire.Hash, signer wire.Address, kind string) string {
		return fmt.Sprintf("%s by %s at %s, block %s, transaction %s, running hash %s", kind, signer, at, block, tx, running)
	}
	equal(c, Record, where, head(row.Running, row.Position, row.BlockHash, row.TxHash, row.Signer, row.Kind),
		head(r.Running, r.Position, r.Block.Hash, r.TxHash, r.Signer, r.Body.Kind()), compare)
	pinned, ok := r.Body.(ledger.Pinned)
	if !ok {
		body, err := ledger.EncodeBody(r.Body)
		if err == nil && !sameJSON(body, row.Body) {
			c.differ(Record, where+" body", string(row.Body), string(body), compare)
		}
		return err
	}
	p, err := tx.PinByNumber(r.Number)
	if err != nil || p == nil {
		return err // reported with the rows
	}
	stored := &p.Record.Pin.Pin
	if p.Record.Pin.Org != pinned.Org || p.Record.Pin.Via != pinned.Via || stored.Root != pinned.Pin.Root || stored.Tag != pinned.Pin.Tag ||
		!slices.Equal(stored.Handles, pinned.Pin.Handles) || !bytes.Equal(stored.Control, pinned.Pin.Control) {
		c.differ(Record, where+" pin", fmt.Sprintf("%+v", *p.Record.Pin), fmt.Sprintf("%+v", pinned), compare)
	}
	return nil
}

// sameJSON compares two texts without regard to white space.
func sameJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
