package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// insert is a multi-row INSERT into one table.
type insert struct {
	table   string
	columns []string
	texts   map[int]string // statement by number of rows
	asking  map[int]string // the same with what RETURNING asks for, if anything
}

// Rows go out in blocks of these sizes, so that each table has only that many
// statements to prepare.
var blocks = [...]int{64, 16, 4, 1}

// newInsert prepares the texts. rest is what follows the values; returning, with
// "" for nothing, is what the rows are asked for.
func newInsert(table, rest, returning, columns string) *insert {
	in := &insert{table: table, columns: strings.Fields(columns), texts: map[int]string{}, asking: map[int]string{}}
	for _, rows := range blocks {
		var b strings.Builder
		fmt.Fprintf(&b, "INSERT INTO %s (%s) VALUES ", table, strings.Join(in.columns, ","))
		for r := range rows {
			if r > 0 {
				b.WriteByte(',')
			}
			b.WriteString(values(r*len(in.columns)+1, len(in.columns)))
		}
		if rest != "" {
			b.WriteString(" " + rest)
		}
		in.texts[rows] = b.String()
		in.asking[rows] = b.String() + " RETURNING " + returning
	}
	return in
}

// values is "($first,$first+1, …)" for n arguments.
func values(first, n int) string {
	var b strings.Builder
	for i := range n {
		sep := ","
		if i == 0 {
			sep = "("
		}
		fmt.Fprintf(&b, "%s$%d", sep, first+i)
	}
	return b.String() + ")"
}

// run inserts n rows, whose arguments row appends, and hands each block to exec:
// the index of its first row, how many rows, and the arguments.
func (in *insert) run(n int, row func(args []any, i int) []any, exec func(first, rows int, args []any) error) error {
	args := make([]any, 0, min(n, blocks[0])*len(in.columns))
	for first := 0; first < n; {
		rows := blocks[slices.IndexFunc(blocks[:], func(size int) bool { return size <= n-first })]
		args = args[:0]
		for i := range rows {
			args = row(args, first+i)
		}
		if err := exec(first, rows, args); err != nil {
			return fmt.Errorf("inserting into %s: %w", in.table, err)
		}
		first += rows
	}
	return nil
}

// rows inserts rows whose sequence numbers nobody asks for.
func (in *insert) rows(tx *Tx, n int, row func(args []any, i int) []any) error {
	return in.run(n, row, func(_, rows int, args []any) error { return tx.Send(in.texts[rows], args...) })
}

// numbered inserts rows into a table whose "returning" is its serial column, and
// reports each row's number. Numbers ascend in the order of the rows.
func (in *insert) numbered(tx *Tx, n int, row func(args []any, i int) []any, number func(i int, seq int64)) error {
	return in.run(n, row, func(first, rows int, args []any) error {
		if !tx.conn.remote { // the one writer's numbers follow each other
			_, last, err := tx.insert(in.texts[rows], args)
			for i := range rows {
				number(first+i, last-int64(rows-1-i))
			}
			return err
		}
		seqs, err := queryAll(tx, func(r *Rows, seq *int64) error { return r.Scan(seq) }, in.asking[rows], args...)
		if err != nil {
			return err
		}
		if len(seqs) != rows {
			return fmt.Errorf("%d rows were numbered, want %d", len(seqs), rows)
		}
		slices.SortFunc(seqs, cmp.Compare) // RETURNING promises no order
		for i, seq := range seqs {
			number(first+i, seq)
		}
		return nil
	})
}

// queryAll collects all rows of a query.
func queryAll[T any](tx *Tx, scan func(*Rows, *T) error, query string, args ...any) (all []T, err error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var one T
		if err := scan(rows, &one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// queryOne returns the first row of a query, or ErrNoRows.
func queryOne[T any](tx *Tx, scan func(*Rows, *T) error, query string, args ...any) (one T, err error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return one, err
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return one, err
		}
		return one, ErrNoRows
	}
	return one, scan(rows, &one)
}

// inChunks calls f with parts of ids that fit one statement.
func inChunks[T any](ids []T, f func(part []T, marks string, args []any) error) error {
	for part := range slices.Chunk(ids, 64) {
		args := make([]any, 0, 64)
		for _, id := range part {
			args = append(args, id)
		}
		// A few fixed lengths keep the number of prepared texts small; the last
		// argument fills up, which an IN list does not mind.
		size := 64
		for _, small := range []int{1, 8} {
			if len(args) <= small {
				size = small
				break
			}
		}
		for len(args) < size {
			args = append(args, args[len(args)-1])
		}
		if err := f(part, values(1, size), args); err != nil {
			return err
		}
	}
	return nil
}
