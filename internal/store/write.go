package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Limits of one group commit. A group never waits for more work; it only ends
// early, so that the first function in it does not wait long for its commit.
const (
	groupCount = 512
	groupTime  = 20 * time.Millisecond
)

// write is one call of DB.Write on its way through the writer.
type write struct {
	ctx     context.Context
	f       func(*Tx) error
	claimed atomic.Bool // by the writer to run it, or by its caller to give up
	result  chan error  // buffered
}

// Write runs f in a transaction. When Write returns nil, what f wrote is on
// disk; when it returns an error, f changed nothing. (After a failed commit, a
// crash of the machine can still bring the change to light: ask before doing it
// again where that matters.)
//
// Functions that wait at the same time share one commit; each is undone alone
// if it fails or panics. f may be run more than once, so it must have no effect
// outside the transaction except on variables that it sets anew each time. f
// must not call Write or Read, and must not keep tx.
//
// If ctx ends before f has started, Write returns its error at once; after
// that it waits for the outcome.
func (db *DB) Write(ctx context.Context, f func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	db.waiting.Add(1)
	defer db.waiting.Add(-1)
	w := &write{ctx: ctx, f: f, result: make(chan error, 1)}
	select {
	case db.writes <- w:
	case <-db.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.result:
		return err
	case <-ctx.Done():
		if w.claimed.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		return <-w.result
	}
}

// errUndone says that the database gave up the whole transaction, not only one
// statement of it: SQLite does so when the disk is full or fails.
var errUndone = errors.New("the database undid the whole transaction")

// writer is the one connection that writes.
type writer struct {
	db   *DB
	conn *conn // nil until opened, and after a failure
}

func (db *DB) runWriter() {
	defer close(db.stopped)
	w := &writer{db: db}
	defer w.drop()
	for {
		select {
		case first := <-db.writes:
			w.group(first)
		case <-db.closing:
			return
		}
	}
}

// group commits first together with whatever else is waiting.
func (w *writer) group(first *write) {
	if err := w.begin(); err != nil {
		w.fail([]*write{first}, err)
		return
	}
	var done []*write // to be committed
	deadline := time.Now().Add(groupTime)
	for n, next := 0, first; next != nil; n++ {
		if next.claimed.CompareAndSwap(false, true) {
			err := w.apply(next)
			if err == nil {
				done = append(done, next)
			} else {
				next.result <- w.db.explain(err)
			}
			if errors.Is(err, errUndone) {
				w.drop()
				w.again(done)
				return
			}
		}
		next = nil
		if n < groupCount && time.Now().Before(deadline) {
			select {
			case next = <-w.db.writes:
			default:
			}
		}
	}
	w.finish(done)
}

// again runs functions whose shared transaction was lost to another one, each
// in a transaction of its own.
func (w *writer) again(writes []*write) {
	for _, one := range writes {
		if err := w.begin(); err != nil {
			w.fail([]*write{one}, err)
			continue
		}
		if err := w.apply(one); err != nil {
			one.result <- w.db.explain(err)
			if errors.Is(err, errUndone) {
				w.drop()
			} else {
				w.finish(nil)
			}
			continue
		}
		w.finish([]*write{one})
	}
}

func (w *writer) begin() (err error) {
	ctx := context.Background()
	if w.conn == nil {
		if w.conn, err = w.db.openConn(ctx, w.db.pools.write); err != nil {
			w.conn = nil
			return fmt.Errorf("opening the writer of %s: %w", w.db.path, err)
		}
	}
	if err := w.conn.exec(ctx, w.db.dialect.beginWrite); err != nil {
		w.drop()
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	return nil
}

// apply runs one function inside the open transaction and undoes it if it
// fails.
func (w *writer) apply(one *write) error {
	// The context's end must not interrupt a statement: that would undo the
	// whole transaction, other functions included.
	ctx := context.WithoutCancel(one.ctx)
	if err := w.conn.exec(ctx, "SAVEPOINT one"); err != nil {
		return fmt.Errorf("%w: %w", errUndone, err)
	}
	tx := &Tx{ctx: ctx, conn: w.conn}
	err := contain(one.f, tx)
	tx.conn = nil
	w.conn.closeRows()
	if err != nil {
		if undo := w.conn.exec(ctx, "ROLLBACK TO SAVEPOINT one"); undo != nil {
			return fmt.Errorf("%w: %w", errUndone, err)
		}
	}
	if release := w.conn.exec(ctx, "RELEASE SAVEPOINT one"); release != nil {
		return fmt.Errorf("%w: %w", errUndone, errors.Join(err, release))
	}
	return err
}

// contain turns a panic of f into an error.
func contain(f func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a database transaction: %v\n%s", p, debug.Stack())
		}
	}()
	return f(tx)
}

// finish commits the open transaction and tells its functions.
func (w *writer) finish(done []*write) {
	end := "COMMIT"
	if len(done) == 0 {
		end = "ROLLBACK"
	}
	if err := w.conn.exec(context.Background(), end); err != nil {
		w.drop() // which rolls back
		w.fail(done, fmt.Errorf("committing: %w", err))
		return
	}
	if len(done) > 0 {
		w.db.commits.Add(1)
	}
	for _, one := range done {
		one.result <- nil
	}
}

func (w *writer) fail(writes []*write, err error) {
	err = w.db.explain(err)
	w.db.log.Error("database write failed", "path", w.db.path, "functions", len(writes), "error", err)
	for _, one := range writes {
		one.result <- err
	}
}

// drop closes the connection and with it any open transaction; the next group
// opens another.
func (w *writer) drop() {
	if w.conn == nil {
		return
	}
	if err := w.conn.discard(); err != nil {
		w.db.log.Warn("closing the writer failed", "path", w.db.path, "error", err)
	}
	w.conn = nil
}
