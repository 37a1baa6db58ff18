package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The database/sql driver in this file is a thin one on pgx.Conn. It differs
// from pgx's own in three ways that the store relies on:
//
//   - BEGIN, SAVEPOINT and RELEASE wait for the next statement and travel with
//     it, so that a function of a group commit costs no round trips of its own;
//     so do the statements of Tx.Send.
//   - A query's rows are read at once. A function may then run a statement while
//     it goes through the rows of another, as it may with SQLite. What has no
//     bound is read with Tx.QueryLong, through a cursor.
//   - Any Go string can be stored, also one that is not text to PostgreSQL
//     (pgtext.go).

// errLost marks an error after which the connection is gone, and with it any
// transaction that was not committed.
var errLost = errors.New("the connection to the database server is lost")

// pgConnector opens connections for one pool.
type pgConnector struct {
	config *pgx.ConnConfig
	ready  func(context.Context, *pgx.Conn) error // runs on each new connection
	share  *share                                 // its transactions take turns with those of other processes; nil for none
}

func (c *pgConnector) Driver() driver.Driver { return pgDriver{} }

func (c *pgConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, c.config)
	if err != nil {
		return nil, err
	}
	if err := c.ready(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	return &pgConn{conn: conn, share: c.share}, nil
}

// pgDriver satisfies driver.Connector; connections come from pgConnector.
type pgDriver struct{}

func (pgDriver) Open(string) (driver.Conn, error) {
	return nil, errors.New("the store opens its connections through a connector")
}

// pgConn is a connection with the statements that wait for the next one.
type pgConn struct {
	conn    *pgx.Conn
	share   *share
	waiting []waiting
}

// waiting is a statement that has yet to be sent.
type waiting struct {
	text string
	args []any
	work bool // it does something: from Tx.Send, not a savepoint and the like

	check func(int64) error // judges the one number that it returns; nil if nobody asks
}

// Statements that begin and end transactions, as the writer and readers send
// them.
const (
	sqlSavepoint = "SAVEPOINT one"
	sqlUndo      = "ROLLBACK TO SAVEPOINT one"
	sqlRelease   = "RELEASE SAVEPOINT one"
	sqlCommit    = "COMMIT"
	sqlRollback  = "ROLLBACK"
)

func (c *pgConn) IsValid() bool { return !c.conn.IsClosed() }

func (c *pgConn) Close() error { return c.conn.Close(context.Background()) }

// Begin is not used: the store begins transactions with statements.
func (c *pgConn) Begin() (driver.Tx, error) {
	return nil, errors.New("begin transactions with a statement")
}

func (c *pgConn) Prepare(query string) (driver.Stmt, error) { return &pgStmt{c, query}, nil }

// ExecContext runs what has no arguments, also several statements at once.
func (c *pgConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if len(args) > 0 {
		return c.run(ctx, query, args)
	}
	last := ""
	if n := len(c.waiting); n > 0 {
		last = c.waiting[n-1].text
	}
	switch {
	case strings.HasPrefix(query, "BEGIN"):
		c.waiting = append(c.waiting, waiting{text: query})
		if c.share != nil {
			c.waiting = append(c.waiting, c.share.beginning()...)
		}
		return driver.ResultNoRows, nil
	case query == sqlSavepoint:
		c.waiting = append(c.waiting, waiting{text: query})
		return driver.ResultNoRows, nil
	case query == sqlUndo:
		// What was not sent need not be undone.
		for n := len(c.waiting) - 1; n >= 0; n-- {
			if c.waiting[n].text == sqlSavepoint {
				c.waiting = c.waiting[:n+1]
				return driver.ResultNoRows, nil
			}
		}
		c.waiting = c.waiting[:0]
	case query == sqlRelease && last == sqlSavepoint:
		c.waiting = c.waiting[:len(c.waiting)-1]
		return driver.ResultNoRows, nil
	case query == sqlRelease && c.conn.PgConn().TxStatus() == 'T':
		c.waiting = append(c.waiting, waiting{text: query})
		return driver.ResultNoRows, nil
	case (query == sqlRollback || query == sqlCommit && !c.work()) && len(c.waiting) > 0 && strings.HasPrefix(c.waiting[0].text, "BEGIN"):
		c.waiting = c.waiting[:0] // the transaction has not begun
		return driver.ResultNoRows, nil
	}
	if query == sqlCommit && c.share != nil {
		c.waiting = append(c.waiting, c.share.ending()...)
	}
	c.waiting = append(c.waiting, waiting{text: query})
	tag, err := c.send(ctx)
	if err != nil {
		return nil, err
	}
	if query == sqlCommit && tag.String() != sqlCommit {
		return nil, errors.New("the database rolled the transaction back instead of committing it")
	}
	return driver.RowsAffected(tag.RowsAffected()), nil
}

// work reports whether a statement waits that does something.
func (c *pgConn) work() bool {
	return slices.ContainsFunc(c.waiting, func(w waiting) bool { return w.work })
}

// later lets a statement wait for the next one.
func (c *pgConn) later(query string, args []any) error {
	w := waiting{text: query, args: make([]any, len(args)), work: true}
	for i, a := range args {
		v, err := driver.DefaultParameterConverter.ConvertValue(a)
		if err != nil {
			return fmt.Errorf("argument $%d: %w", i+1, err)
		}
		w.args[i] = toPostgres(v)
	}
	c.waiting = append(c.waiting, w)
	return nil
}

// flush sends what waits by itself.
func (c *pgConn) flush(ctx context.Context) error {
	if len(c.waiting) == 0 {
		return nil
	}
	_, err := c.send(ctx)
	return err
}

// send sends what waits and returns the result of the last statement.
func (c *pgConn) send(ctx context.Context) (tag pgconn.CommandTag, err error) {
	defer func() { err = c.lost(ctx, err) }()
	if c.work() {
		last := c.waiting[len(c.waiting)-1]
		c.waiting = c.waiting[:len(c.waiting)-1]
		r, err := c.batch(ctx, last.text, last.args)
		if err != nil {
			return tag, err
		}
		return r.tag, nil
	}
	before := c.waiting
	texts := make([]string, len(before))
	for i, w := range before {
		texts[i] = w.text
	}
	c.waiting = nil
	results, err := c.conn.PgConn().Exec(ctx, strings.Join(texts, ";\n")).ReadAll()
	for i, r := range results {
		if err == nil {
			err = r.Err
		}
		if err == nil && i < len(before) && before[i].check != nil {
			err = c.judge(ctx, before[i], r.Rows)
		}
		tag = r.CommandTag
	}
	return tag, err
}

// judge checks what a statement has returned, as text. What it condemns must not
// go on, so the connection ends, and with it the transaction.
func (c *pgConn) judge(ctx context.Context, w waiting, rows [][][]byte) error {
	if len(rows) != 1 || len(rows[0]) != 1 {
		return fmt.Errorf("%s returned %d rows, want one with one number", w.text, len(rows))
	}
	n, err := strconv.ParseInt(string(rows[0][0]), 10, 64)
	if err == nil {
		err = w.check(n)
	}
	if err != nil {
		return errors.Join(err, c.conn.Close(ctx))
	}
	return nil
}

// lost marks an error that took the connection with it, unless the caller's
// context did.
func (c *pgConn) lost(ctx context.Context, err error) error {
	if err != nil && c.conn.IsClosed() && ctx.Err() == nil && !errors.Is(err, ErrOvertaken) {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// run sends a statement after those that wait, in one round trip, and reads its
// whole result.
func (c *pgConn) run(ctx context.Context, query string, args []driver.NamedValue) (*pgResult, error) {
	values := make([]any, len(args))
	for i, a := range args {
		values[i] = toPostgres(a.Value)
	}
	r, err := c.batch(ctx, query, values)
	return r, c.lost(ctx, err)
}

func (c *pgConn) batch(ctx context.Context, query string, args []any) (_ *pgResult, err error) {
	var batch pgx.Batch
	before := c.waiting
	for _, w := range before {
		batch.Queue(w.text, w.args...)
	}
	batch.Queue(query, args...)
	c.waiting = nil
	sent := c.conn.SendBatch(ctx, &batch)
	var condemned error
	defer func() {
		end := sent.Close()
		if condemned != nil { // what followed must not be committed
			err = errors.Join(condemned, c.conn.Close(ctx))
		} else if err == nil {
			err = end
		}
	}()
	for _, w := range before {
		if w.check != nil {
			var n int64
			if err := sent.QueryRow().Scan(&n); err != nil {
				return nil, err
			}
			if condemned = w.check(n); condemned != nil {
				return nil, condemned
			}
			continue
		}
		if _, err := sent.Exec(); err != nil {
			if w.work {
				err = fmt.Errorf("%w in %s", err, firstWords(w.text))
			}
			return nil, err
		}
	}
	rows, err := sent.Query()
	if err != nil {
		return nil, err
	}
	return readAll(rows)
}

// toPostgres makes of a value of database/sql one that can be stored.
func toPostgres(v any) any {
	if s, is := v.(string); is {
		return toPostgresText(s)
	}
	return v
}

// readAll reads a result and closes it.
func readAll(rows pgx.Rows) (*pgResult, error) {
	defer rows.Close()
	r := &pgResult{}
	for _, f := range rows.FieldDescriptions() {
		r.columns = append(r.columns, f.Name)
	}
	for rows.Next() {
		row, err := rows.Values()
		if err != nil {
			return nil, err
		}
		for i, v := range row {
			if row[i], err = fromPostgres(v); err != nil {
				return nil, fmt.Errorf("column %s: %w", r.columns[i], err)
			}
		}
		r.rows = append(r.rows, row)
	}
	rows.Close()
	r.tag = rows.CommandTag()
	return r, rows.Err()
}

// fromPostgres makes one of the types that database/sql knows.
func fromPostgres(v any) (any, error) {
	switch v := v.(type) {
	case nil, int64, bool, []byte, float64:
		return v, nil
	case int32:
		return int64(v), nil
	case int16:
		return int64(v), nil
	case string:
		return fromPostgresText(v), nil
	}
	return nil, fmt.Errorf("a value of type %T: cast it to one of the types that columns have", v)
}

// pgStmt is a statement's text; pgx keeps what it has prepared by the text.
type pgStmt struct {
	conn  *pgConn
	query string
}

func (s *pgStmt) Close() error  { return nil }
func (s *pgStmt) NumInput() int { return -1 } // the server counts

func (s *pgStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.query, args)
}

func (s *pgStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	r, err := s.conn.run(ctx, s.query, args)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Exec and Query are what database/sql calls without a context: it never does.
func (s *pgStmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }
func (s *pgStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, driver.ErrSkip }

// QueryContext runs a query that is not prepared.
func (c *pgConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (_ driver.Rows, err error) {
	if len(args) > 0 {
		return (&pgStmt{c, query}).QueryContext(ctx, args)
	}
	defer func() { err = c.lost(ctx, err) }()
	if err := c.flush(ctx); err != nil {
		return nil, err
	}
	rows, err := c.conn.Query(ctx, query, pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	r, err := readAll(rows)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// pgResult is a complete result: driver.Rows of a query, driver.Result of the
// rest.
type pgResult struct {
	columns []string
	rows    [][]any
	next    int
	tag     pgconn.CommandTag
}

func (r *pgResult) Columns() []string { return r.columns }
func (r *pgResult) Close() error      { return nil }

func (r *pgResult) Next(to []driver.Value) error {
	if r.next == len(r.rows) {
		return io.EOF
	}
	for i, v := range r.rows[r.next] {
		to[i] = v
	}
	r.rows[r.next] = nil // what was read may be freed
	r.next++
	return nil
}

func (r *pgResult) RowsAffected() (int64, error) { return r.tag.RowsAffected(), nil }

func (r *pgResult) LastInsertId() (int64, error) {
	return 0, errors.New("PostgreSQL has no last inserted id: use RETURNING")
}
