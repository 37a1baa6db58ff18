// Package check is a second opinion on a node's database. It replays the
// records of the ledger and the payloads that the node holds, plainly and by
// itself: simple maps and loops, none of the code by which the node made its
// decisions (package order). Whatever the stored rows say differently is
// reported.
//
//	check.go        what is checked, and how it is reported
//	members.go      who belongs to the network, with which keys, from when on
//	audience.go     epochs, pin numbers, votes: what each pin means
//	replay.go       the walk along the stored records
//	verdict.go      what becomes of each message, and in which order
//	content.go      rows against the payloads that they came from
//	definition.go   datatypes and identities
//	outward.go      batches, operations, the outbox, ledger calls, receipts
//	unpinned.go     chains of batches without a pin
//	blob.go         attachments
//	erasure.go      what is erased, by whom
//	source.go       stored records against the ledger itself
//
// Memory is bounded by what is open and by the number of members, audiences,
// contexts and definitions; all else is read page by page.
package check

import (
	"context"
	"errors"
	"fmt"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Source is the node that is checked. It may be running: everything is read
// from one snapshot of its database.
type Source struct {
	DB        *store.DB
	Namespace string
	Network   wire.Hash  // wire.NetworkID
	Self      wire.OrgID // whose node it is

	Blobs  blob.Store    // nil: attachments are not read
	Ledger ledger.Ledger // nil: the stored records are taken for the ledger's
}

// Kind says what sort of thing differs.
type Kind string

// Kinds of difference.
const (
	Record     Kind = "record"     // a ledger record is missing, out of order, or not what the ledger says
	Pin        Kind = "pin"        // what a pin means: audience, epoch, number, state
	Handle     Kind = "handle"     // how a pin's handles are listed
	Epoch      Kind = "epoch"      // an epoch's definition, secret or activation
	Window     Kind = "window"     // pin numbers used
	Audience   Kind = "audience"   // a group's beginning
	Verdict    Kind = "verdict"    // a message's state or the reason of its rejection
	Event      Kind = "event"      // a message's events: missing, twice, of another type
	Order      Kind = "order"      // events of a context in another order than the ledger's
	Message    Kind = "message"    // a message's row against its payload
	Data       Kind = "data"       // a data item's row against its payload
	Blob       Kind = "blob"       // an attachment that is missing or altered
	Batch      Kind = "batch"      // a batch's row or payload
	Receipt    Kind = "receipt"    // a receipt that does not hold
	Datatype   Kind = "datatype"   // datatypes against the definitions confirmed
	Identity   Kind = "identity"   // identities against the claims confirmed
	Contract   Kind = "contract"   // published interfaces and contract APIs against their definitions
	Operation  Kind = "operation"  // an operation that should have ended, or should not
	Outbox     Kind = "outbox"     // a parcel for or of something that is not there
	Submission Kind = "submission" // a ledger call against the ledger
	Unpinned   Kind = "unpinned"   // a chain of batches without a pin
	Erasure    Kind = "erasure"    // what is erased without a record of it, or is not and should be
)

// Difference is one thing that the database says and the replay does not.
type Difference struct {
	Kind       Kind   `json:"kind"`
	Where      string `json:"where"` // which row
	Stored     string `json:"stored"`
	Recomputed string `json:"recomputed"`
	Remedy     string `json:"remedy"`
}

func (d Difference) String() string {
	return fmt.Sprintf("%s %s: stored %s, recomputed %s; %s", d.Kind, d.Where, d.Stored, d.Recomputed, d.Remedy)
}

// Remedies. A derived row can be made again; what came from others can be
// fetched again; what this node alone knows must come from a backup.
const (
	rebuild = "the row is derived: restore the database from a backup, or join anew with the same keys and let the node replay"
	refetch = "the payload or a copy of it is at the other members: restore the database from a backup, or join anew with the same keys"
	compare = "compare with another member's node before anything is trusted"
	restore = "restore the database from a backup; only this node knew it"
)

// Summary counts what was looked at.
type Summary struct {
	Records, Pins, Entries, Messages, Events, Batches, Data, Blobs int
	Open                                                           int // entries that wait for something
	Erased                                                         int // data items of which the content is erased
	Differences                                                    int
}

// Run checks a node and calls report for each difference, in no particular
// order. An error means that the check could not be done.
func Run(ctx context.Context, s Source, report func(Difference)) (Summary, error) {
	c := &checker{Source: s, report: report}
	if err := s.DB.Read(ctx, c.database); err != nil {
		return c.sum, fmt.Errorf("check the database: %w", err)
	}
	if err := c.blobs(ctx); err != nil {
		return c.sum, fmt.Errorf("check the attachments: %w", err)
	}
	if err := c.ledger(ctx); err != nil {
		return c.sum, fmt.Errorf("check the records against the ledger: %w", err)
	}
	return c.sum, nil
}

// checker is one run.
type checker struct {
	Source
	report func(Difference)
	sum    Summary
	tx     *store.Tx
}

func (c *checker) differ(k Kind, where string, stored, recomputed any, remedy string) {
	c.sum.Differences++
	c.report(Difference{k, where, fmt.Sprint(stored), fmt.Sprint(recomputed), remedy})
}

// equal reports two values that should be the same.
func equal[T comparable](c *checker, k Kind, where string, stored, recomputed T, remedy string) {
	if stored != recomputed {
		c.differ(k, where, show(stored), show(recomputed), remedy)
	}
}

// show makes empty values visible.
func show(v any) string {
	if s := fmt.Sprint(v); s != "" {
		return s
	}
	return "nothing"
}

// database runs all that reads the database, in one snapshot.
func (c *checker) database(tx *store.Tx) error {
	c.tx = tx
	if err := c.recordRows(); err != nil || c.sum.Differences > 0 {
		return err // all else follows from the records: without them nothing can be said
	}
	// What the ledger alone decides comes first: an entry that the members skip
	// is skipped whatever is here of it.
	first := newReplay(c)
	if err := first.run(); err != nil {
		return err
	}
	second := newReplay(c)
	second.judge = newJudge(c, first)
	if err := second.run(); err != nil {
		return err
	}
	if err := second.judge.finish(second); err != nil {
		return err
	}
	for _, part := range []func(*replay) error{
		c.epochs, c.windows, c.events, c.batches, c.dataRows, c.unpinned, c.receipts, c.operations, c.outbox, c.submissions, c.erasures,
	} {
		if err := part(second); err != nil {
			return err
		}
	}
	return nil
}

// page is how many rows are read at a time.
const page = 1000

// each runs a query and calls f for each row, one after the other.
func each[T any](tx *store.Tx, scan func(*store.Rows, *T) error, f func(*T) error, query string, args ...any) (n int, err error) {
	rows, err := tx.QueryLong(query, args...)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var t T
		if err := scan(rows, &t); err != nil {
			return n, err
		}
		n++
		if err := f(&t); err != nil {
			return n, err
		}
	}
	return n, rows.Err()
}

// all collects the rows of a query.
func all[T any](tx *store.Tx, scan func(*store.Rows, *T) error, query string, args ...any) (list []T, err error) {
	_, err = each(tx, scan, func(t *T) error { list = append(list, *t); return nil }, query, args...)
	return list, err
}

func scanInt(r *store.Rows, n *int64) error   { return r.Scan(n) }
func scanText(r *store.Rows, s *string) error { return r.Scan(s) }

// count is the single number that a query returns.
func count(tx *store.Tx, query string, args ...any) (n int64, err error) {
	return n, tx.QueryRow(query, args...).Scan(&n)
}
