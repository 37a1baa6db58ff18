package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
)

// Options say where a database is.
type Options struct {
	Path    string       // file; its folder must exist
	Readers int          // connections for Read; 0 means 4
	Log     *slog.Logger // nil means none
}

// DB is one node's database. All methods are safe for concurrent use.
type DB struct {
	path    string
	log     *slog.Logger
	dialect dialect
	lock    *os.File
	pools   pools

	readers chan *conn // idle connections; nil stands for one yet to be opened
	writes  chan *write
	waiting atomic.Int64 // calls of Write that have not ended
	commits atomic.Int64 // transactions committed
	closing chan struct{}
	stopped chan struct{} // the writer has ended
	once    sync.Once
	closed  error
}

// ErrClosed is returned by what is called after Close.
var ErrClosed = errors.New("the database is closed")

// Open opens the database, creates it if it is not there, and brings its schema
// up to date. One process at a time may hold it: a second one is refused with
// the process id of the first. A database that a newer version of the program
// has written is refused as well.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Path == "" {
		return nil, errors.New("store: Options.Path is empty; name a file")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Readers == 0 {
		o.Readers = 4
	}
	lock, err := acquireLock(o.Path)
	if err != nil {
		return nil, err
	}
	db := &DB{
		path:    o.Path,
		log:     o.Log,
		dialect: sqliteDialect,
		lock:    lock,
		readers: make(chan *conn, o.Readers),
		writes:  make(chan *write),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
	}
	if db.pools, err = openSQLite(o.Path, o.Readers); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := db.prepare(ctx); err != nil {
		return nil, errors.Join(db.explain(err), db.pools.close(), lock.Close())
	}
	for range o.Readers {
		db.readers <- nil
	}
	go db.runWriter()
	return db, nil
}

// prepare migrates and refreshes the planner's statistics.
func (db *DB) prepare(ctx context.Context) error {
	c, err := db.openConn(ctx, db.pools.write)
	if err != nil {
		return fmt.Errorf("opening %s: %w", db.path, err)
	}
	if err := db.migrate(ctx, c); err != nil {
		return errors.Join(err, c.close())
	}
	if _, err := c.sql.ExecContext(ctx, db.dialect.optimizeAtOpen); err != nil {
		return errors.Join(fmt.Errorf("refreshing statistics of %s: %w", db.path, err), c.close())
	}
	return c.close()
}

// Path is the file that the database is in.
func (db *DB) Path() string { return db.path }

// Close waits for the writes under way, refuses new ones and closes the file.
// Every Read must have returned. Calling it again returns the same result.
func (db *DB) Close() error {
	db.once.Do(func() {
		close(db.closing)
		<-db.stopped
		for range cap(db.readers) {
			if c := <-db.readers; c != nil {
				db.closed = errors.Join(db.closed, c.close())
			}
		}
		db.closed = errors.Join(db.closed, db.pools.close(), db.lock.Close())
	})
	return db.closed
}

// Read runs f on a snapshot of the database: what is committed when its first
// statement runs, and nothing later. f must not write, must not call Read or
// Write, and must not keep tx.
func (db *DB) Read(ctx context.Context, f func(tx *Tx) error) error {
	var c *conn
	select {
	case <-db.closing:
		return ErrClosed
	default:
	}
	select {
	case c = <-db.readers:
	case <-db.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	keep := c
	defer func() { db.readers <- keep }() // also if f panics
	keep = nil
	if c == nil {
		var err error
		if c, err = db.openConn(ctx, db.pools.read); err != nil {
			return db.explain(fmt.Errorf("opening a reader of %s: %w", db.path, err))
		}
	}
	if err := c.exec(ctx, db.dialect.beginRead); err != nil {
		return errors.Join(db.explain(err), c.discard())
	}
	tx := &Tx{ctx: ctx, conn: c}
	err := func() error {
		defer func() {
			tx.conn = nil
			c.closeRows()
			// A statement that was interrupted may have spoilt the connection.
			if end := c.exec(context.WithoutCancel(ctx), "ROLLBACK"); end != nil {
				if gone := c.discard(); gone != nil {
					db.log.Warn("closing a reader failed", "path", db.path, "error", gone)
				}
				return
			}
			keep = c
		}()
		return f(tx)
	}()
	return db.explain(err)
}

// Optimize refreshes the statistics that the planner chooses indexes by, where
// they are out of date. Call it every few hours: without them a filtered list
// can be hundreds of times slower.
func (db *DB) Optimize(ctx context.Context) error {
	return db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(db.dialect.optimize)
		return err
	})
}
