package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/parley-node/parley/internal/errs"
)

// Table is a collection whose rows are read as a T.
type Table[T any] struct {
	Collection
	query string // SELECT … FROM …, without WHERE
	scan  func(*Rows, *T) error
}

// List returns one page of a collection, and the number of all matching rows if
// q.Count, else -1. An empty namespace means all. The page is never nil.
func List[T any](ctx context.Context, db *DB, t *Table[T], namespace string, q Query) (page []T, total int64, err error) {
	total = -1
	err = db.Read(ctx, func(tx *Tx) error {
		page, total, err = ListTx(tx, t, namespace, q)
		return err
	})
	return page, total, err
}

// ListTx is List inside a transaction.
func ListTx[T any](tx *Tx, t *Table[T], namespace string, q Query) (page []T, total int64, err error) {
	var s sqlText
	s.WriteString(t.query)
	q.where(&s, namespace)
	q.page(&s, &t.Collection)
	page, err = queryAll(tx, t.scan, s.String(), s.args...)
	if err != nil {
		return nil, -1, fmt.Errorf("listing %s: %w", t.Name, err)
	}
	if page == nil {
		page = []T{}
	}
	if !q.Count {
		return page, -1, nil
	}
	total, err = CountTx(tx, &t.Collection, namespace, q)
	return page, total, err
}

// CountTx is the number of rows that match a query, whatever its page.
func CountTx(tx *Tx, c *Collection, namespace string, q Query) (total int64, err error) {
	var s sqlText
	s.WriteString("SELECT COUNT(*) FROM " + c.table)
	q.where(&s, namespace)
	if err := tx.QueryRow(s.String(), s.args...).Scan(&total); err != nil {
		return -1, fmt.Errorf("counting %s: %w", c.Name, err)
	}
	return total, nil
}

// Get returns the newest row with a key: the id, or the hash of groups and
// verifiers. None is the error FF10109 with status 404.
func Get[T any](ctx context.Context, db *DB, t *Table[T], namespace, key string) (one T, err error) {
	err = db.Read(ctx, func(tx *Tx) error {
		one, err = GetTx(tx, t, namespace, key)
		return err
	})
	return one, err
}

// GetTx is Get inside a transaction.
func GetTx[T any](tx *Tx, t *Table[T], namespace, key string) (one T, err error) {
	one, err = queryOne(tx, t.scan, t.query+" WHERE "+t.key+" = $1 AND namespace = $2 ORDER BY "+t.serial+" DESC LIMIT 1", key, namespace)
	if errors.Is(err, ErrNoRows) {
		return one, errs.NoSuch(t.One, key)
	}
	if err != nil {
		return one, fmt.Errorf("reading %s %s: %w", t.One, key, err)
	}
	return one, nil
}
