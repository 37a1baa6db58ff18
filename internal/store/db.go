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
	Path    string       // SQLite file, whose folder must exist; or postgres://user@host/database?search_path=schema
	Readers int          // connections for Read; 0 means 4
	Log     *slog.Logger // nil means none
	Shared  *Shared      // other processes of the node use the database as well; PostgreSQL only. nil: this one has it for itself
}

// DB is one node's database. All methods are safe for concurrent use.
type DB struct {
	path    string
	name    string // path without a password
	log     *slog.Logger
	dialect dialect
	lock    *os.File // of a file; nil for a server, where the writer's connection holds the lock
	pools   pools

	readOnly bool   // there is no writer
	share    *share // nil unless the database is shared

	readers chan *conn // idle connections; nil stands for one yet to be opened
	writes  chan *write
	scrubs  chan chan error // see Scrub
	waiting atomic.Int64    // calls of Write that have not ended
	commits atomic.Int64    // transactions committed
	closing chan struct{}
	stopped chan struct{} // the writer has ended
	once    sync.Once
	closed  error
}

// ErrClosed is returned by what is called after Close.
var ErrClosed = errors.New("the database is closed")

// Open opens the database, creates its tables if they are not there, and brings
// its schema up to date. One process at a time may hold it, unless all of them
// say that they share it: a second one is
// refused with the process id of the first. A database that a newer version of
// the program has written is refused as well.
func Open(ctx context.Context, o Options) (*DB, error) {
	db, err := open(o, true)
	if err != nil {
		return nil, err
	}
	writer, err := db.prepare(ctx)
	if err != nil {
		return nil, errors.Join(db.explain(err), db.release())
	}
	for range cap(db.readers) {
		db.readers <- nil
	}
	go db.runWriter(writer)
	return db, nil
}

// ErrReadOnly is returned by Write of a database that OpenToRead has opened.
var ErrReadOnly = errors.New("the database was opened to be read only")

// OpenToRead opens a database to be looked at, also while a node has it. It
// creates and migrates nothing, so the program must be of the version that the
// database has.
func OpenToRead(ctx context.Context, o Options) (*DB, error) {
	if !isPostgres(o.Path) {
		if _, err := os.Stat(o.Path); err != nil {
			return nil, fmt.Errorf("there is no database to read: %w", err)
		}
	}
	db, err := open(o, false)
	if err != nil {
		return nil, err
	}
	db.readOnly = true
	close(db.stopped) // there is no writer
	for range cap(db.readers) {
		db.readers <- nil
	}
	if err := db.Read(ctx, func(tx *Tx) error { return db.current(ctx, tx.conn) }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// open makes the pools and, to write, takes the lock of a file.
func open(o Options, toWrite bool) (*DB, error) {
	if o.Path == "" {
		return nil, errors.New("store: Options.Path is empty; name a file or a postgres:// URL")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Readers == 0 {
		o.Readers = 4
	}
	db := &DB{
		path:    o.Path,
		name:    redact(o.Path),
		log:     o.Log,
		dialect: sqliteDialect,
		readers: make(chan *conn, o.Readers),
		writes:  make(chan *write),
		scrubs:  make(chan chan error),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
	}
	var err error
	if isPostgres(o.Path) {
		db.dialect = postgresDialect
		if o.Shared != nil {
			if db.share, err = newShare(*o.Shared); err != nil {
				return nil, err
			}
		}
		db.pools, err = openPostgres(o.Path, o.Readers, db.share)
		return db, err
	}
	if o.Shared != nil {
		return nil, fmt.Errorf("the database %s is a file, which one process has for itself: processes that stand by for each other need PostgreSQL (database: postgres://…)", db.name)
	}
	if toWrite {
		if db.lock, err = acquireLock(o.Path); err != nil {
			return nil, err
		}
	}
	if db.pools, err = openSQLite(o.Path, o.Readers); err != nil && toWrite {
		return nil, errors.Join(err, db.lock.Close())
	}
	return db, err
}

// release undoes open.
func (db *DB) release() error {
	err := db.pools.close()
	if db.lock != nil {
		err = errors.Join(err, db.lock.Close())
	}
	return err
}

// prepare migrates, refreshes the planner's statistics and returns the writer's
// connection.
func (db *DB) prepare(ctx context.Context) (*conn, error) {
	c, err := db.openConn(ctx, db.pools.write)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", db.name, err)
	}
	begin := db.migrate
	if db.share != nil {
		begin = func(ctx context.Context, c *conn) error { return db.share.enter(ctx, db, c) }
	}
	if err := begin(ctx, c); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if text := db.dialect.optimizeAtOpen; text != "" {
		if _, err := c.sql.ExecContext(ctx, text); err != nil {
			return nil, errors.Join(fmt.Errorf("refreshing statistics of %s: %w", db.name, err), c.close())
		}
	}
	return c, nil
}

// Path is the file or URL that the database is at, as Open was told: a URL may
// hold a password.
func (db *DB) Path() string { return db.path }

// Close waits for the writes under way, refuses new ones and closes the database.
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
		db.closed = errors.Join(db.closed, db.release())
	})
	return db.closed
}

// Read runs f on a snapshot of the database: what is committed when its first
// statement runs, and nothing later. f must not write, must not call Read or
// Write, and must not keep tx.
func (db *DB) Read(ctx context.Context, f func(tx *Tx) error) error {
	c, err := db.takeReader(ctx)
	if err != nil {
		return db.explain(err)
	}
	tx := &Tx{ctx: ctx, conn: c}
	defer func() { // also if f panics
		tx.conn = nil
		c.closeRows()
		if db.dialect.remote {
			go db.giveBack(ctx, c) // nobody needs to wait for the server's answer
		} else {
			db.giveBack(ctx, c)
		}
	}()
	return db.explain(f(tx))
}

// takeReader waits for a connection to read with and begins a transaction on it.
func (db *DB) takeReader(ctx context.Context) (c *conn, err error) {
	select {
	case <-db.closing:
		return nil, ErrClosed
	default:
	}
	select {
	case c = <-db.readers:
	case <-db.closing:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c == nil {
		if c, err = db.openConn(ctx, db.pools.read); err != nil {
			db.readers <- nil
			return nil, fmt.Errorf("opening a reader of %s: %w", db.name, err)
		}
	}
	if err := c.exec(ctx, db.dialect.beginRead); err != nil {
		err = errors.Join(err, c.discard())
		db.readers <- nil
		return nil, err
	}
	return c, nil
}

// giveBack ends the transaction of a reader and makes it available again.
func (db *DB) giveBack(ctx context.Context, c *conn) {
	if err := c.exec(context.WithoutCancel(ctx), sqlRollback); err != nil {
		// A statement that was interrupted may have spoilt the connection.
		if gone := c.discard(); gone != nil {
			db.log.Warn("closing a reader failed", "path", db.name, "error", gone)
		}
		c = nil
	}
	db.readers <- c
}

// Optimize refreshes the statistics that the planner chooses indexes by, where
// they are out of date. Call it every few hours: without them a filtered list
// can be hundreds of times slower.
func (db *DB) Optimize(ctx context.Context) error {
	if db.dialect.optimizeApart {
		_, err := db.pools.read.ExecContext(ctx, db.dialect.optimize)
		return db.explain(err)
	}
	return db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(db.dialect.optimize)
		return err
	})
}
