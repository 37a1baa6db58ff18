package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
// if it fails or panics, or goes on after a statement that failed. f may be run more than once, so it must have no effect
// outside the transaction except on variables that it sets anew each time. f
// must not call Write or Read, and must not keep tx.
//
// If ctx ends before f has started, Write returns its error at once; after
// that it waits for the outcome.
func (db *DB) Write(ctx context.Context, f func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if db.readOnly {
		return ErrReadOnly
	}
	if db.share != nil && db.share.lost.Load() {
		return ErrOvertaken
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

func (db *DB) runWriter(c *conn) {
	defer close(db.stopped)
	w := &writer{db: db, conn: c}
	defer w.drop()
	for {
		select {
		case first := <-db.writes:
			w.group(first)
		case result := <-db.scrubs:
			result <- w.scrub()
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
	var done, again []*write // to be committed, and to be run once more
	deadline := time.Now().Add(groupTime)
	for n, next := 0, first; next != nil; n++ {
		if next.claimed.CompareAndSwap(false, true) {
			err := w.apply(next)
			switch {
			case err == nil:
				done = append(done, next)
			case w.db.dialect.transient(err):
				again = append(again, next)
			default:
				next.result <- w.db.explain(err)
			}
			if errors.Is(err, errUndone) {
				w.drop()
				w.again(append(done, again...))
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
	w.again(again)
}

// again runs functions whose shared transaction was lost, each in a transaction
// of its own.
func (w *writer) again(writes []*write) {
	for _, one := range writes {
		err := w.alone(one)
		for attempt := 1; err != nil && w.db.dialect.transient(err) && !errors.Is(err, errCommit) && attempt < attempts; attempt++ {
			if !w.pause(attempt) {
				break
			}
			err = w.alone(one)
		}
		one.result <- w.db.explain(err)
	}
}

// Bounds of trying a transaction again that lost against another, or whose
// connection was lost.
const (
	attempts   = 5
	firstPause = 10 * time.Millisecond
)

// pause waits between attempts, longer each time and never as long as a rival
// does; false if the database is closing.
func (w *writer) pause(attempt int) bool {
	most := firstPause << attempt
	t := time.NewTimer(most/2 + rand.N(most/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.db.closing:
		return false
	}
}

// alone runs one function in a transaction of its own.
func (w *writer) alone(one *write) error {
	if err := w.begin(); err != nil {
		return err
	}
	err := w.apply(one)
	if errors.Is(err, errUndone) {
		w.drop()
		return err
	}
	if err != nil {
		return errors.Join(err, w.end(sqlRollback))
	}
	return w.end(sqlCommit)
}

func (w *writer) begin() (err error) {
	ctx := context.Background()
	if w.conn == nil {
		if w.conn, err = w.db.openConn(ctx, w.db.pools.write); err != nil {
			w.conn = nil
			return fmt.Errorf("opening the writer of %s: %w", w.db.name, err)
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
	if err := w.conn.exec(ctx, sqlSavepoint); err != nil {
		return fmt.Errorf("%w: %w", errUndone, err)
	}
	tx := &Tx{ctx: ctx, conn: w.conn}
	err := contain(one.f, tx)
	if err == nil && tx.failed != nil {
		err = fmt.Errorf("the function goes on after a statement that failed: %w", tx.failed)
	}
	tx.conn = nil
	w.conn.closeRows()
	if err == nil {
		err = w.conn.flush(ctx)
	}
	if err != nil {
		if undo := w.conn.exec(ctx, sqlUndo); undo != nil {
			return fmt.Errorf("%w: %w", errUndone, err)
		}
	}
	if release := w.conn.exec(ctx, sqlRelease); release != nil {
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

// errCommit marks a commit that failed. What the database then has is not known
// if the connection to it was lost.
var errCommit = errors.New("committing")

// end ends the open transaction.
func (w *writer) end(with string) error {
	if err := w.conn.exec(context.Background(), with); err != nil {
		w.drop() // which rolls back
		return fmt.Errorf("%w: %w", errCommit, err)
	}
	if with == sqlCommit {
		w.db.commits.Add(1)
	}
	return nil
}

// finish commits the open transaction and tells its functions.
func (w *writer) finish(done []*write) {
	with := sqlCommit
	if len(done) == 0 {
		with = sqlRollback
	}
	if err := w.end(with); err != nil {
		w.fail(done, err)
		return
	}
	for _, one := range done {
		one.result <- nil
	}
}

func (w *writer) fail(writes []*write, err error) {
	err = w.db.explain(err)
	w.db.log.Error("database write failed", "path", w.db.name, "functions", len(writes), "error", err)
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
		w.db.log.Warn("closing the writer failed", "path", w.db.name, "error", err)
	}
	w.conn = nil
}
