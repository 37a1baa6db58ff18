package store

import (
	"encoding/json"
	"errors"
	"fmt"
)

const selectTransactions = `SELECT id, namespace, type, created, idempotency_key, blockchain_ids FROM transactions`

var insertTransactions = newInsert("transactions", "", "", "id namespace type created idempotency_key blockchain_ids")

// InsertTransactions stores business transactions. An idempotency key that is
// taken, by a stored transaction or an earlier one of the list, is a
// *DuplicateKey and nothing is stored.
func (tx *Tx) InsertTransactions(transactions []*Transaction) error {
	keys := map[[2]string]UUID{}
	for _, t := range transactions {
		if t.IdempotencyKey == "" {
			continue
		}
		key := [2]string{t.Namespace, t.IdempotencyKey}
		id, taken := keys[key]
		if !taken {
			err := tx.QueryRow(`SELECT id FROM transactions WHERE namespace = $1 AND idempotency_key = $2`, key[0], key[1]).Scan(&id)
			if err != nil && !errors.Is(err, ErrNoRows) {
				return fmt.Errorf("looking up idempotency key %q: %w", t.IdempotencyKey, err)
			}
			taken = err == nil
		}
		if taken {
			return &DuplicateKey{t.IdempotencyKey, id}
		}
		keys[key] = t.ID
	}
	return insertTransactions.rows(tx, len(transactions), func(args []any, i int) []any {
		t := transactions[i]
		return append(args, t.ID, t.Namespace, t.Type, t.Created, textOrNull(t.IdempotencyKey), list(t.BlockchainIDs))
	})
}

func scanTransaction(r *Rows, t *Transaction) error {
	var ids string
	if err := r.Scan(&t.ID, &t.Namespace, &t.Type, &t.Created, nullable(&t.IdempotencyKey), &ids); err != nil {
		return fmt.Errorf("reading a transaction row: %w", err)
	}
	t.BlockchainIDs = unlist(ids)
	return nil
}

func scanTransactionPtr(r *Rows, t **Transaction) error {
	*t = new(Transaction)
	return scanTransaction(r, *t)
}

// TransactionByID returns a transaction of a namespace, or ErrNoRows.
func (tx *Tx) TransactionByID(namespace string, id UUID) (*Transaction, error) {
	return queryOne(tx, scanTransactionPtr, selectTransactions+` WHERE id = $1 AND namespace = $2`, id, namespace)
}

// AddBlockchainID adds the hash of a ledger transaction to a business
// transaction, once; ErrNoRows if there is no such transaction.
func (tx *Tx) AddBlockchainID(id UUID, blockchainID string) error {
	var ids string
	if err := tx.QueryRow(`SELECT blockchain_ids FROM transactions WHERE id = $1`, id).Scan(&ids); err != nil {
		return err
	}
	known := unlist(ids)
	for _, k := range known {
		if k == blockchainID {
			return nil
		}
	}
	return tx.must(`UPDATE transactions SET blockchain_ids = $1 WHERE id = $2`, list(append(known, blockchainID)), id)
}

// Status of an operation.
const (
	OpInitialized = "Initialized" // recorded, not yet accepted by whoever carries it out
	OpPending     = "Pending"
	OpSucceeded   = "Succeeded"
	OpFailed      = "Failed"
)

const selectOperations = `SELECT id, namespace, tx, type, status, plugin, input, output, error, created, updated, retry FROM operations`

var insertOperations = newInsert("operations", "", "", "id namespace tx type status plugin input output error created updated retry")

// InsertOperations stores operations.
func (tx *Tx) InsertOperations(operations []*Operation) error {
	return insertOperations.rows(tx, len(operations), func(args []any, i int) []any {
		o := operations[i]
		return append(args, o.ID, o.Namespace, o.Tx, o.Type, o.Status, o.Plugin, jsonOrNull(o.Input), jsonOrNull(o.Output),
			o.Error, o.Created, o.Updated, o.Retry)
	})
}

func scanOperation(r *Rows, o *Operation) error {
	err := r.Scan(&o.ID, &o.Namespace, &o.Tx, &o.Type, &o.Status, &o.Plugin, (*[]byte)(&o.Input), (*[]byte)(&o.Output),
		&o.Error, &o.Created, &o.Updated, &o.Retry)
	if err != nil {
		return fmt.Errorf("reading an operation row: %w", err)
	}
	return nil
}

func scanOperationPtr(r *Rows, o **Operation) error {
	*o = new(Operation)
	return scanOperation(r, *o)
}

// UpdateOperations gives operations a status, an output (nil keeps what is
// there) and an error text at a time, and returns the ids of those that changed.
// It goes only forward: Succeeded and Failed stay, and nothing becomes
// Initialized again.
func (tx *Tx) UpdateOperations(ids []UUID, status string, output json.RawMessage, errorText string, at Time) (changed []UUID, err error) {
	err = inChunks(ids, func(_ []UUID, marks string, args []any) error {
		n := len(args)
		some, err := queryAll(tx, func(r *Rows, id *UUID) error { return r.Scan(id) }, fmt.Sprintf(
			`UPDATE operations SET status = $%d, output = COALESCE($%d, output), error = $%d, updated = $%d
			WHERE id IN %s AND (status = 'Initialized' OR status = 'Pending' AND $%d <> 'Initialized') RETURNING id`,
			n+1, n+2, n+3, n+4, marks, n+1), append(args, status, jsonOrNull(output), errorText, at)...)
		changed = append(changed, some...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("giving %d operations the status %q: %w", len(ids), status, err)
	}
	return changed, nil
}

// SetRetry notes that an operation was tried again as another one; ErrNoRows if
// there is no such operation.
func (tx *Tx) SetRetry(id, retry UUID, at Time) error {
	return tx.must(`UPDATE operations SET retry = $1, updated = $2 WHERE id = $3`, retry, at, id)
}

// OperationByID returns an operation of a namespace, or ErrNoRows.
func (tx *Tx) OperationByID(namespace string, id UUID) (*Operation, error) {
	return queryOne(tx, scanOperationPtr, selectOperations+` WHERE id = $1 AND namespace = $2`, id, namespace)
}

// OperationsOfTransaction returns the operations of a business transaction,
// oldest first.
func (tx *Tx) OperationsOfTransaction(id UUID) ([]*Operation, error) {
	return queryAll(tx, scanOperationPtr, selectOperations+` WHERE tx = $1 ORDER BY seq`, id)
}

const selectBlockchainEvents = `SELECT id, source, namespace, name, listener, protocol_id, output, info, timestamp, tx_type, tx_id, tx_blockchain_id FROM blockchain_events`

var insertBlockchainEvents = newInsert("blockchain_events", "", "", "id source namespace name listener protocol_id output info timestamp tx_type tx_id tx_blockchain_id")

// InsertBlockchainEvents stores decoded events of contracts.
func (tx *Tx) InsertBlockchainEvents(events []*BlockchainEvent) error {
	return insertBlockchainEvents.rows(tx, len(events), func(args []any, i int) []any {
		e := events[i]
		return append(args, e.ID, e.Source, e.Namespace, e.Name, e.Listener, e.ProtocolID, jsonOrNull(e.Output),
			jsonOrNull(e.Info), e.Timestamp, e.Tx.Type, e.Tx.ID, e.Tx.BlockchainID)
	})
}

func scanBlockchainEvent(r *Rows, e *BlockchainEvent) error {
	err := r.Scan(&e.ID, &e.Source, &e.Namespace, &e.Name, &e.Listener, &e.ProtocolID, (*[]byte)(&e.Output), (*[]byte)(&e.Info),
		&e.Timestamp, &e.Tx.Type, &e.Tx.ID, &e.Tx.BlockchainID)
	if err != nil {
		return fmt.Errorf("reading a blockchain event row: %w", err)
	}
	return nil
}

func scanBlockchainEventPtr(r *Rows, e **BlockchainEvent) error {
	*e = new(BlockchainEvent)
	return scanBlockchainEvent(r, *e)
}

// BlockchainEventsOfTransaction returns the contract events of a business
// transaction, oldest first.
func (tx *Tx) BlockchainEventsOfTransaction(id UUID) ([]*BlockchainEvent, error) {
	return queryAll(tx, scanBlockchainEventPtr, selectBlockchainEvents+` WHERE tx_id = $1 ORDER BY seq`, id)
}
