package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// ErrNoRows is what Row.Scan and the functions that look up one row return when
// there is none.
var ErrNoRows = sql.ErrNoRows

// Tx is a transaction, or a snapshot for reading. It is good only inside the
// function it was given to, and only for one goroutine. Statements are written
// in the dialect that SQLite and PostgreSQL share, with $1, $2 … for arguments;
// each distinct text is prepared once per connection, so keep the number of
// texts small.
type Tx struct {
	ctx    context.Context
	conn   *conn // nil when the function has returned
	failed error // of the first statement that failed
}

// fail notes a statement's error. PostgreSQL then refuses what follows, so no
// function may go on, on any database.
func (tx *Tx) fail(err error, query string) error {
	err = fmt.Errorf("%w in %s", err, firstWords(query))
	if tx.failed == nil {
		tx.failed = err
	}
	return err
}

// Context is the context of the call, with its values; in a write it does not
// end before the function does.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Exec runs a statement and returns the number of rows it changed.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	r, err := tx.exec(query, args)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// insert is Exec that also returns the number of the last row inserted. SQLite
// only: a server knows it by RETURNING.
func (tx *Tx) insert(query string, args []any) (rows, last int64, err error) {
	r, err := tx.exec(query, args)
	if err != nil {
		return 0, 0, err
	}
	if rows, err = r.RowsAffected(); err == nil {
		last, err = r.LastInsertId()
	}
	return rows, last, err
}

func (tx *Tx) exec(query string, args []any) (sql.Result, error) {
	if tx.conn == nil {
		return nil, sql.ErrTxDone
	}
	s, err := tx.conn.statement(tx.ctx, query)
	if err != nil {
		return nil, tx.fail(err, query)
	}
	defer s.release()
	r, err := s.sql.ExecContext(tx.ctx, args...)
	if err != nil {
		return nil, tx.fail(err, query)
	}
	return r, nil
}

// Send is Exec for a statement whose count nobody needs. To a server it travels
// with the next statement, which then returns its error, or else the end of the
// function does: return at once what either gives.
func (tx *Tx) Send(query string, args ...any) error {
	if tx.conn == nil {
		return sql.ErrTxDone
	}
	if !tx.conn.remote {
		_, err := tx.Exec(query, args...)
		return err
	}
	err := tx.conn.onServer(func(c *pgConn) error { return c.later(query, args) })
	if err != nil {
		return tx.fail(err, query)
	}
	return nil
}

// Query runs a statement that returns rows. Close them. A server sends all of
// them at once: use QueryLong where there is no bound.
func (tx *Tx) Query(query string, args ...any) (*Rows, error) {
	if tx.conn == nil {
		return nil, sql.ErrTxDone
	}
	s, err := tx.conn.statement(tx.ctx, query)
	if err != nil {
		return nil, tx.fail(err, query)
	}
	r, err := s.sql.QueryContext(tx.ctx, args...)
	if err != nil {
		s.release()
		return nil, tx.fail(err, query)
	}
	return tx.opened(&Rows{rows: r, stmt: s, conn: tx.conn}), nil
}

// longFetch is how many rows of a long query a server sends at a time.
const longFetch = 1000

// QueryLong is Query for any number of rows, of which only some are in memory at
// a time.
func (tx *Tx) QueryLong(query string, args ...any) (*Rows, error) {
	if tx.conn == nil {
		return nil, sql.ErrTxDone
	}
	if !tx.conn.remote {
		return tx.Query(query, args...)
	}
	r := &Rows{conn: tx.conn, tx: tx}
	for n := 1; r.cursor == ""; n++ { // the first name that is free: few names are few texts
		r.cursor = fmt.Sprintf("long%d", n)
		for other := range tx.conn.open {
			if other.cursor == r.cursor {
				r.cursor = ""
			}
		}
	}
	if _, err := tx.Exec("DECLARE "+r.cursor+" NO SCROLL CURSOR FOR "+query, args...); err != nil {
		return nil, err
	}
	if err := r.fetch(); err != nil {
		return nil, err
	}
	return tx.opened(r), nil
}

func (tx *Tx) opened(r *Rows) *Rows {
	tx.conn.open[r] = struct{}{}
	return r
}

// QueryRow runs a statement that returns one row, or ErrNoRows when scanned.
func (tx *Tx) QueryRow(query string, args ...any) *Row {
	rows, err := tx.Query(query, args...)
	return &Row{rows, err}
}

// Rows is the result of a query.
type Rows struct {
	rows *sql.Rows
	stmt *stmt // nil with a cursor
	conn *conn

	cursor string // of a long query
	tx     *Tx
	read   int // of the rows fetched last
	failed error
}

// Next goes to the next row; false if there is none, or an error.
func (r *Rows) Next() bool {
	if r.failed != nil {
		return false
	}
	if r.rows.Next() {
		r.read++
		return true
	}
	if r.cursor == "" || r.read < longFetch || r.rows.Err() != nil {
		return false
	}
	if r.failed = r.fetch(); r.failed != nil {
		return false
	}
	return r.Next()
}

// fetch gets the next rows of a cursor. The statement is not prepared: with each
// query that a cursor's name is used for, it gives other columns.
func (r *Rows) fetch() error {
	text := fmt.Sprintf("FETCH %d FROM %s", longFetch, r.cursor)
	rows, err := r.conn.sql.QueryContext(r.tx.ctx, text)
	if err != nil {
		return r.tx.fail(err, text)
	}
	r.rows, r.read = rows, 0
	return nil
}

func (r *Rows) Scan(to ...any) error { return r.rows.Scan(to...) }

// Err is the error that ended the rows, if one did.
func (r *Rows) Err() error {
	if r.failed != nil {
		return r.failed
	}
	return r.rows.Err()
}

// Close ends the query. It may be called again.
func (r *Rows) Close() error {
	if _, open := r.conn.open[r]; !open {
		return nil
	}
	delete(r.conn.open, r)
	err := r.rows.Close()
	if r.stmt != nil {
		r.stmt.release()
		return err
	}
	if r.tx.failed != nil { // the server has closed it
		return err
	}
	return errors.Join(err, r.conn.exec(r.tx.ctx, "CLOSE "+r.cursor))
}

// Row is the result of QueryRow.
type Row struct {
	rows *Rows
	err  error
}

// Scan reads the row's columns; ErrNoRows if there is no row.
func (r *Row) Scan(to ...any) error {
	if r.err != nil {
		return r.err
	}
	if !r.rows.Next() {
		err := errors.Join(r.rows.Err(), r.rows.Close())
		if err == nil {
			return ErrNoRows
		}
		return err
	}
	err := r.rows.Scan(to...)
	return errors.Join(err, r.rows.Close())
}

// conn is a database connection with its prepared statements. It is used by one
// goroutine at a time.
type conn struct {
	sql   *sql.Conn
	marks func(query string) string // dialect.marks
	stmts map[string]*stmt
	open  map[*Rows]struct{}

	remote bool // dialect.remote
}

// stmt is a prepared statement. It can run once at a time: a query whose rows
// are still open gets a second one for its text.
type stmt struct {
	sql   *sql.Stmt
	busy  bool
	spare bool // not cached; closed when released
}

// maxStatements bounds what a connection keeps: lists with filters make many
// different texts.
const maxStatements = 400

func (db *DB) openConn(ctx context.Context, pool *sql.DB) (*conn, error) {
	c, err := pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{sql: c, marks: db.dialect.marks, stmts: map[string]*stmt{}, open: map[*Rows]struct{}{}, remote: db.dialect.remote}, nil
}

func (c *conn) statement(ctx context.Context, query string) (*stmt, error) {
	cached := c.stmts[query]
	if cached != nil && !cached.busy {
		cached.busy = true
		return cached, nil
	}
	p, err := c.sql.PrepareContext(ctx, c.marks(query))
	if err != nil {
		return nil, err
	}
	s := &stmt{sql: p, busy: true, spare: cached != nil}
	if s.spare {
		return s, nil
	}
	if len(c.stmts) >= maxStatements {
		for text, old := range c.stmts { // any one: the common ones come back at once
			if !old.busy {
				delete(c.stmts, text)
				if err := old.sql.Close(); err != nil {
					return nil, errors.Join(err, p.Close())
				}
				break
			}
		}
	}
	c.stmts[query] = s
	return s, nil
}

// release makes the statement available again. Closing a spare one finalizes a
// statement that has already reported its errors.
func (s *stmt) release() {
	s.busy = false
	if s.spare {
		_ = s.sql.Close()
	}
}

func (c *conn) exec(ctx context.Context, query string) error {
	s, err := c.statement(ctx, query)
	if err != nil {
		return err
	}
	defer s.release()
	_, err = s.sql.ExecContext(ctx)
	return err
}

// flush sends what Send has put off.
func (c *conn) flush(ctx context.Context) error {
	if !c.remote {
		return nil
	}
	return c.onServer(func(pg *pgConn) error {
		if !pg.work() {
			return nil
		}
		return pg.flush(ctx)
	})
}

// onServer hands the driver's connection to f, for what only PostgreSQL has.
func (c *conn) onServer(f func(*pgConn) error) error {
	return c.sql.Raw(func(driverConn any) error {
		pg, ok := driverConn.(*pgConn)
		if !ok {
			return errors.New("the database is not PostgreSQL")
		}
		return f(pg)
	})
}

// closeRows closes what a function forgot to close: open rows would keep the
// transaction from ending.
func (c *conn) closeRows() {
	for r := range c.open {
		_ = r.Close() // whoever forgot to close them did not look at the error either
	}
}

func (c *conn) closeStatements() error {
	c.closeRows()
	var err error
	for _, s := range c.stmts {
		err = errors.Join(err, s.sql.Close())
	}
	clear(c.stmts)
	return err
}

func (c *conn) close() error {
	return errors.Join(c.closeStatements(), c.sql.Close())
}

// discard closes the connection for good instead of giving it back to the pool.
func (c *conn) discard() error {
	err := c.closeStatements()
	bad := c.sql.Raw(func(any) error { return driver.ErrBadConn })
	if errors.Is(bad, driver.ErrBadConn) || errors.Is(bad, sql.ErrConnDone) {
		bad = nil
	}
	return errors.Join(err, bad)
}

// firstWords shortens a statement for an error text.
func firstWords(query string) string {
	const most = 60
	if len(query) > most {
		return query[:most] + "…"
	}
	return query
}
