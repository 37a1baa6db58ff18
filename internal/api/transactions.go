package api

import (
	"cmp"
	"encoding/json"
	"slices"

	"github.com/parley-node/parley/internal/store"
)

// transaction reads the transaction that the path names.
func (c *call) transaction() (store.Transaction, error) {
	id, err := c.uuid("txnid")
	if err != nil {
		return store.Transaction{}, err
	}
	return store.Get(c.ctx(), c.DB, store.Transactions, c.Namespace, id.String())
}

func getTransactionOperations(c *call) (any, error) {
	tx, err := c.transaction()
	if err != nil {
		return nil, err
	}
	return part(c, store.Operations, "tx", tx.ID.String())
}

func getTransactionBlockchainEvents(c *call) (any, error) {
	tx, err := c.transaction()
	if err != nil {
		return nil, err
	}
	return part(c, store.BlockchainEvents, "tx.id", tx.ID.String())
}

// transactionStatus sums up what became of a business transaction.
type transactionStatus struct {
	Status  string              `json:"status"`
	Details []transactionDetail `json:"details"`
}

// transactionDetail is one thing that belongs to a transaction, or is expected.
type transactionDetail struct {
	Type      string          `json:"type"` // Operation, BlockchainEvent, Batch
	Subtype   string          `json:"subtype,omitempty"`
	Status    string          `json:"status"`
	Timestamp store.Time      `json:"timestamp,omitempty"`
	ID        *store.UUID     `json:"id,omitempty"`
	Error     string          `json:"error,omitempty"`
	Info      json.RawMessage `json:"info,omitempty"`
}

const txBatchPin = "batch_pin"

// getTransactionStatus lists operations, ledger events and the batch. Of a
// pinned batch both a ledger event and the batch are expected; while one is
// missing the transaction is pending.
func getTransactionStatus(c *call) (any, error) {
	tx, err := c.transaction()
	if err != nil {
		return nil, err
	}
	id := tx.ID.String()
	ops, err := part(c, store.Operations, "tx", id)
	if err != nil {
		return nil, err
	}
	chain, err := part(c, store.BlockchainEvents, "tx.id", id)
	if err != nil {
		return nil, err
	}
	var batches []store.Batch
	if tx.Type == txBatchPin {
		if batches, err = part(c, store.Batches, "tx.id", id); err != nil {
			return nil, err
		}
	}
	return statusOf(tx, ops, chain, batches), nil
}

func statusOf(tx store.Transaction, ops []store.Operation, chain []store.BlockchainEvent, batches []store.Batch) transactionStatus {
	st := transactionStatus{Status: store.OpSucceeded, Details: []transactionDetail{}}
	add := func(d transactionDetail) { st.Details = append(st.Details, d) }
	for _, op := range ops {
		add(transactionDetail{Type: "Operation", Subtype: op.Type, Status: op.Status, Timestamp: op.Updated, ID: &op.ID, Error: op.Error, Info: op.Output})
		if op.Retry != nil {
			continue // what became of it shows in the later operation
		}
		switch {
		case op.Status == store.OpFailed:
			st.Status = store.OpFailed
		case op.Status != store.OpSucceeded && st.Status != store.OpFailed:
			st.Status = store.OpPending
		}
	}
	expect := func(kind, subtype string, found int) {
		if tx.Type == txBatchPin && found == 0 {
			add(transactionDetail{Type: kind, Subtype: subtype, Status: store.OpPending})
			if st.Status != store.OpFailed {
				st.Status = store.OpPending
			}
		}
	}
	expect("BlockchainEvent", "", len(chain))
	for _, ev := range chain {
		add(transactionDetail{Type: "BlockchainEvent", Subtype: ev.Name, Status: store.OpSucceeded, Timestamp: ev.Timestamp, ID: &ev.ID, Info: ev.Info})
	}
	confirmed := 0
	for _, b := range batches {
		if b.Confirmed != nil {
			confirmed++
			add(transactionDetail{Type: "Batch", Subtype: b.Type, Status: store.OpSucceeded, Timestamp: *b.Confirmed, ID: &b.ID})
		}
	}
	expect("Batch", "", confirmed)
	slices.SortStableFunc(st.Details, func(a, b transactionDetail) int {
		pendingA, pendingB := a.Status == store.OpPending, b.Status == store.OpPending
		switch {
		case pendingA && !pendingB:
			return -1
		case pendingB && !pendingA:
			return 1
		}
		return cmp.Compare(b.Timestamp, a.Timestamp)
	})
	return st
}

func (st transactionStatus) withoutPayload() transactionStatus {
	st.Details = each(st.Details, func(d transactionDetail) transactionDetail {
		if d.Type != "Operation" {
			return d
		}
		d.Info = nil
		if d.Error != "" {
			d.Error = "withheld"
		}
		return d
	})
	return st
}
