package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

// fillEveryTable puts rows of all kinds of values into each table of an SQLite
// database: NULL where a column may be, empty and strange ones, extremes.
func fillEveryTable(t *testing.T, db *store.DB, rows int) {
	t.Helper()
	mustWrite(t, db, func(tx *store.Tx) error {
		tables, err := column(tx, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'`)
		if err != nil {
			return err
		}
		for _, table := range tables {
			if table == "meta" {
				continue
			}
			columns, err := column(tx, `SELECT name || ' ' || upper(type) || ' ' || "notnull" || ' ' || pk FROM pragma_table_info('`+table+`')`)
			if err != nil {
				return err
			}
			for n := range rows {
				var names, marks []string
				var args []any
				for i, c := range columns {
					var name, kind string
					var required, key int
					if _, err := fmt.Sscan(c, &name, &kind, &required, &key); err != nil {
						return fmt.Errorf("%s: %q: %w", table, c, err)
					}
					if kind == "INTEGER" {
						continue // the database numbers it
					}
					names, marks = append(names, name), append(marks, fmt.Sprint("$", len(args)+1))
					args = append(args, valueOf(kind, required+key > 0, n, i))
				}
				if _, err := tx.Exec(`INSERT INTO `+table+` (`+strings.Join(names, ",")+`) VALUES (`+strings.Join(marks, ",")+`)`, args...); err != nil {
					return err
				}
			}
		}
		_, err = tx.Exec(`DELETE FROM arrivals WHERE seq = (SELECT MAX(seq) FROM arrivals)`) // its number is used up
		return err
	})
}

func valueOf(kind string, required bool, n, column int) any {
	if !required && n%3 == 2 {
		return nil
	}
	switch kind {
	case "TEXT":
		return []string{"", "plain", "nul\x00", "\xff", "ünï"}[n%5] + fmt.Sprint(n, column)
	case "BLOB":
		if n == 0 {
			return []byte{}
		}
		return []byte{byte(n), byte(n >> 8), 0, 0xff}
	case "BOOLEAN":
		return n%2 == 0
	}
	return []int64{1<<63 - 1, -1 << 63, 0}[n%3] ^ int64(n)
}

// column lists the first column of a query as text.
func column(tx *store.Tx, query string) (all []string, err error) {
	rows, err := tx.Query(query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

func TestCopyToPostgres(t *testing.T) {
	target, ok := onPostgres(t)
	if !ok {
		return
	}
	source := storetest.Open(t, storetest.File(t))
	fillEveryTable(t, source, 60)
	mustWrite(t, source, func(tx *store.Tx) error { return tx.SetMeta("some", "thing\x00") })
	message := newMessage(t, 1)
	message.Header.Tag = "nul\x00"
	mustWrite(t, source, func(tx *store.Tx) error { return tx.InsertMessages([]*store.Message{message}) })

	// An attempt that ends midway leaves nothing.
	ctx, cancel := context.WithCancel(t.Context())
	err := store.CopyToPostgres(ctx, source, target, func(p store.CopyProgress) {
		if p.Table == "messages" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("an interrupted copy: %v", err)
	}

	done := map[string]int64{}
	err = store.CopyToPostgres(t.Context(), source, target, func(p store.CopyProgress) {
		if p.Done {
			done[p.Table+" "+p.Step] = p.Rows
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, rows := range map[string]int64{"messages copied": 61, "messages verified": 61, "meta copied": 2, "votes verified": 60, "arrivals copied": 59} {
		if done[what] != rows {
			t.Errorf("%s: %d rows, want %d", what, done[what], rows)
		}
	}
	var copied *store.Message
	mustRead(t, target, func(tx *store.Tx) (err error) { copied, err = tx.MessageByID(ns, message.Header.ID); return err })
	if d := cmp.Diff(message, copied); d != "" {
		t.Errorf("a message (-source +target):\n%s", d)
	}
	// Numbers go on, also after those that were deleted.
	next := newMessage(t, 2)
	mustWrite(t, target, func(tx *store.Tx) error {
		if v, err := tx.Meta("some"); v != "thing\x00" || err != nil {
			t.Errorf("meta: %q, %v", v, err)
		}
		if err := tx.Arrived(store.ArrivedPayload, hash(1), hash(2)); err != nil {
			return err
		}
		return tx.InsertMessages([]*store.Message{next})
	})
	if next.Seq != message.Seq+1 {
		t.Errorf("the message after %d got %d", message.Seq, next.Seq)
	}
	mustRead(t, target, func(tx *store.Tx) error {
		seq, err := column(tx, `SELECT MAX(seq)::text FROM arrivals`)
		if len(seq) != 1 || seq[0] != "61" {
			t.Errorf("the next arrival got %v, want 61", seq)
		}
		return err
	})

	err = store.CopyToPostgres(t.Context(), source, target, func(store.CopyProgress) {})
	if err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("a target that holds something: %v", err)
	}
	err = store.CopyToPostgres(t.Context(), source, source, func(store.CopyProgress) {})
	if err == nil || !strings.Contains(err.Error(), "the target a postgres:// URL") {
		t.Errorf("a file as the target: %v", err)
	}
}
