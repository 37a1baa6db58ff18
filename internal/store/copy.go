package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// CopyProgress tells how far a copy is.
type CopyProgress struct {
	Table string
	Step  string // copied, verified
	Rows  int64  // of the table so far
	Done  bool   // with this step of the table
}

// copyReport is after how many rows the progress is told.
const copyReport = 50_000

// CopyToPostgres copies all that an SQLite database holds into a PostgreSQL one
// that holds nothing, and continues its sequences. It reads back every row: what
// it returns nil for is the same, row for row. The copy is one transaction, so
// that after an error the target is as empty as before and the copy can be
// started again.
func CopyToPostgres(ctx context.Context, from, to *DB, progress func(CopyProgress)) error {
	if isPostgres(from.path) || !isPostgres(to.path) {
		return fmt.Errorf("copying %s to %s: the source must be an SQLite file and the target a postgres:// URL", from.name, to.name)
	}
	return to.Write(ctx, func(target *Tx) error {
		return from.Read(ctx, func(source *Tx) error {
			tables, err := tablesToCopy(source, target)
			if err != nil {
				return err
			}
			for _, t := range tables {
				if err := t.copy(ctx, source, target, progress); err != nil {
					return fmt.Errorf("copying table %s: %w", t.name, err)
				}
			}
			return nil
		})
	})
}

// copyTable is a table with its columns in the order of the target.
type copyTable struct {
	name    string
	columns []string
	types   []string // as the target's information_schema names them
	serial  string   // column with a sequence, or ""
}

// tablesToCopy lists the tables, which both databases must have, and refuses a
// target that holds something.
func tablesToCopy(source, target *Tx) ([]*copyTable, error) {
	var tables []*copyTable
	_, err := queryAll(target, func(r *Rows, _ *struct{}) error {
		var table, column, kind, identity string
		if err := r.Scan(&table, &column, &kind, &identity); err != nil {
			return err
		}
		if len(tables) == 0 || tables[len(tables)-1].name != table {
			tables = append(tables, &copyTable{name: table})
		}
		t := tables[len(tables)-1]
		t.columns, t.types = append(t.columns, column), append(t.types, kind)
		if identity == "YES" {
			t.serial = column
		}
		return nil
	}, `SELECT table_name::text, column_name::text, data_type::text, is_identity::text FROM information_schema.columns
		WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position`)
	if err != nil {
		return nil, fmt.Errorf("listing the target's tables: %w", err)
	}
	there, err := queryAll(source, func(r *Rows, name *string) error { return r.Scan(name) },
		`SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("listing the source's tables: %w", err)
	}
	var names []string
	for _, t := range tables {
		names = append(names, t.name)
	}
	slices.Sort(names)
	if !slices.Equal(names, there) {
		return nil, fmt.Errorf("the source has the tables %v and the target %v: give the target a schema of its own", there, names)
	}
	for _, t := range tables {
		rest := ""
		if t.name == "meta" {
			rest = ` WHERE name <> 'schema'`
		}
		var rows int64
		if err := target.QueryRow(`SELECT COUNT(*) FROM (SELECT 1 FROM ` + t.name + rest + ` LIMIT 1) AS any_row`).Scan(&rows); err != nil {
			return nil, err
		}
		if rows > 0 {
			return nil, fmt.Errorf("the target's table %s is not empty: name a database or schema that nobody has written to", t.name)
		}
	}
	return tables, nil
}

func (t *copyTable) copy(ctx context.Context, source, target *Tx, progress func(CopyProgress)) error {
	if t.name == "meta" { // the source's says the same schema version
		if _, err := target.Exec(`DELETE FROM meta`); err != nil {
			return err
		}
	}
	from := &copySource{table: t, progress: progress}
	var err error
	if from.rows, err = source.Query(t.query()); err != nil {
		return err
	}
	defer from.rows.Close()
	back := copySum{table: t, progress: progress}
	err = target.conn.onServer(func(pg *pgConn) (err error) {
		defer func() { err = pg.lost(ctx, err) }()
		if err := pg.flush(ctx); err != nil {
			return err
		}
		c := pg.conn
		if _, err := c.CopyFrom(ctx, pgx.Identifier{t.name}, t.columns, from); err != nil {
			return err
		}
		from.report(true)
		rows, err := c.Query(ctx, t.query())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			row, err := rows.Values()
			if err != nil {
				return err
			}
			if err := back.add(row); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	if back.rows != from.sum.rows || back.sum != from.sum.sum {
		return fmt.Errorf("%d rows were read and the target has %d, or their contents differ", from.sum.rows, back.rows)
	}
	back.report(true)
	return t.continueSequence(source, target)
}

func (t *copyTable) query() string {
	return `SELECT ` + strings.Join(t.columns, ", ") + ` FROM ` + t.name
}

// continueSequence lets the target's numbers go on where the source's are, also
// beyond rows that were deleted.
func (t *copyTable) continueSequence(source, target *Tx) error {
	if t.serial == "" {
		return nil
	}
	var last int64
	err := source.QueryRow(`SELECT seq FROM sqlite_sequence WHERE name = $1`, t.name).Scan(&last)
	if errors.Is(err, ErrNoRows) || err == nil && last == 0 {
		return nil // nothing was ever numbered
	}
	if err != nil {
		return fmt.Errorf("reading its sequence: %w", err)
	}
	var now int64
	if err := target.QueryRow(`SELECT setval(pg_get_serial_sequence($1, $2), $3)`, t.name, t.serial, last).Scan(&now); err != nil {
		return fmt.Errorf("continuing its sequence after %d: %w", last, err)
	}
	return nil
}

// copySource reads a table of the source for COPY.
type copySource struct {
	table    *copyTable
	progress func(CopyProgress)
	rows     *Rows
	row      []any
	sum      copySum
	err      error
}

func (s *copySource) Next() bool {
	if !s.rows.Next() {
		s.err = s.rows.Err()
		return false
	}
	s.row = make([]any, len(s.table.columns))
	to := make([]any, len(s.row))
	for i := range s.row {
		to[i] = &s.row[i]
	}
	if s.err = s.rows.Scan(to...); s.err != nil {
		return false
	}
	for i, v := range s.row {
		if s.row[i], s.err = forPostgres(v, s.table.types[i]); s.err != nil {
			s.err = fmt.Errorf("row %d, column %s: %w", s.sum.rows+1, s.table.columns[i], s.err)
			return false
		}
	}
	if s.err = s.sum.add(s.row); s.err != nil {
		return false
	}
	if s.sum.rows%copyReport == 0 {
		s.report(false)
	}
	return true
}

func (s *copySource) Values() ([]any, error) { return s.row, nil }
func (s *copySource) Err() error             { return s.err }

func (s *copySource) report(done bool) {
	s.progress(CopyProgress{Table: s.table.name, Step: "copied", Rows: s.sum.rows, Done: done})
}

// forPostgres is a value of SQLite, which keeps types loosely, as one of a
// column's type.
func forPostgres(v any, kind string) (any, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case int64:
		switch kind {
		case "boolean":
			return v != 0, nil
		case "bigint":
			return v, nil
		}
	case bool:
		if kind == "boolean" {
			return v, nil
		}
	case string:
		switch kind {
		case "text":
			return toPostgresText(v), nil
		case "bytea":
			return []byte(v), nil
		}
	case []byte:
		switch kind {
		case "text":
			return toPostgresText(string(v)), nil
		case "bytea":
			return bytes(v), nil // the driver gives nil for an empty one, which is not NULL
		}
	}
	return nil, fmt.Errorf("the source has a value of type %T where the target wants %s", v, kind)
}

// copySum is a digest of rows that does not depend on their order.
type copySum struct {
	table    *copyTable
	progress func(CopyProgress)
	rows     int64
	sum      [4]uint64
	buffer   []byte
}

func (s *copySum) add(row []any) error {
	b := s.buffer[:0]
	for _, v := range row {
		switch v := v.(type) {
		case nil:
			b = append(b, 0)
		case int64:
			b = binary.BigEndian.AppendUint64(append(b, 1), uint64(v))
		case bool:
			b = append(b, 2)
			if v {
				b = append(b, 1)
			} else {
				b = append(b, 0)
			}
		case string:
			b = append(binary.BigEndian.AppendUint64(append(b, 3), uint64(len(v))), v...)
		case []byte:
			b = append(binary.BigEndian.AppendUint64(append(b, 4), uint64(len(v))), v...)
		default:
			return fmt.Errorf("a value of type %T cannot be compared", v)
		}
	}
	s.buffer = b
	h := sha256.Sum256(b)
	for i := range s.sum {
		s.sum[i] += binary.BigEndian.Uint64(h[8*i:])
	}
	s.rows++
	if s.progress != nil && s.rows%copyReport == 0 {
		s.report(false)
	}
	return nil
}

func (s *copySum) report(done bool) {
	s.progress(CopyProgress{Table: s.table.name, Step: "verified", Rows: s.rows, Done: done})
}
