package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

func put(tx *store.Tx, name, value string) error {
	_, err := tx.Exec(`INSERT INTO meta (name, value) VALUES ($1, $2)`, name, value)
	return err
}

func names(t *testing.T, db *store.DB) (list []string) {
	t.Helper()
	err := db.Read(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT name FROM meta WHERE name <> 'schema' ORDER BY name`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				return err
			}
			list = append(list, s)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestWriteIsAllOrNothing(t *testing.T) {
	db := storetest.New(t)
	boom := errors.New("boom")
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		if err := put(tx, "a", ""); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("got %v, want boom", err)
	}
	if got := names(t, db); len(got) != 0 {
		t.Fatalf("a failed write left %v", got)
	}
}

// Functions of one commit: the failing and the panicking one undo themselves,
// the others stay. The first function holds the writer until the rest queue, so
// they share a commit.
func TestGroupCommitIsolatesFailures(t *testing.T) {
	db := storetest.New(t)
	const n = 40
	release, started := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			close(started)
			<-release
			return put(tx, "first", "")
		})
		if err != nil {
			t.Errorf("first: %v", err)
		}
	})
	<-started
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			errs[i] = db.Write(t.Context(), func(tx *store.Tx) error {
				if err := put(tx, fmt.Sprintf("w%02d", i), ""); err != nil {
					return err
				}
				switch i % 4 {
				case 1:
					return put(tx, "first", "again") // violates the key
				case 2:
					panic("a bug")
				}
				return nil
			})
		})
	}
	close(release)
	wg.Wait()
	want := []string{"first"}
	for i, err := range errs {
		switch i % 4 {
		case 1:
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), "unique") {
				t.Errorf("w%02d: got %v, want a unique violation", i, err)
			}
		case 2:
			if err == nil || !strings.Contains(err.Error(), "panic in a database transaction: a bug") {
				t.Errorf("w%02d: got %v, want a contained panic", i, err)
			}
		default:
			if err != nil {
				t.Errorf("w%02d: %v", i, err)
			}
			want = append(want, fmt.Sprintf("w%02d", i))
		}
	}
	if got := names(t, db); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("stored %v, want %v", got, want)
	}
}

func TestReadIsASnapshot(t *testing.T) {
	db := storetest.New(t)
	count := func(tx *store.Tx) (n int, err error) {
		return n, tx.QueryRow(`SELECT COUNT(*) FROM meta`).Scan(&n)
	}
	err := db.Read(t.Context(), func(tx *store.Tx) error {
		before, err := count(tx)
		if err != nil {
			return err
		}
		if err := db.Write(t.Context(), func(tx *store.Tx) error { return put(tx, "x", "") }); err != nil {
			return err
		}
		after, err := count(tx)
		if before != after {
			t.Errorf("a snapshot saw %d rows, then %d", before, after)
		}
		if _, err := tx.Exec(`DELETE FROM meta`); err == nil {
			t.Error("a reader may write")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, db); fmt.Sprint(got) != "[x]" {
		t.Errorf("after the write: %v", got)
	}
}

// The same text twice at once must not disturb the outer query.
func TestNestedQueryOfTheSameText(t *testing.T) {
	db := storetest.New(t)
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		for i := range 3 {
			if err := put(tx, fmt.Sprint("n", i), ""); err != nil {
				return err
			}
		}
		const q = `SELECT name FROM meta WHERE name LIKE $1 ORDER BY name`
		outer, err := tx.Query(q, "n%")
		if err != nil {
			return err
		}
		defer outer.Close()
		var seen []string
		for outer.Next() {
			var a, b string
			if err := outer.Scan(&a); err != nil {
				return err
			}
			if err := tx.QueryRow(q, "n2").Scan(&b); err != nil {
				return err
			}
			seen = append(seen, a+b)
		}
		if got := fmt.Sprint(seen); got != "[n0n2 n1n2 n2n2]" {
			t.Errorf("nested query saw %s", got)
		}
		return outer.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Long results come complete and in order, also one within another, and next to
// one that was left midway.
func TestQueryLong(t *testing.T) {
	db := storetest.New(t)
	const n = 2*1000 + 7 // more than two fetches
	mustWrite(t, db, func(tx *store.Tx) error {
		for i := range n {
			if err := put(tx, fmt.Sprintf("n%04d", i), ""); err != nil {
				return err
			}
		}
		return nil
	})
	const query = `SELECT name FROM meta WHERE name LIKE $1 ORDER BY name`
	each := func(tx *store.Tx, like string, f func(i int, name string) error) (i int, err error) {
		rows, err := tx.QueryLong(query, like)
		if err != nil {
			return 0, err
		}
		defer rows.Close()
		for ; rows.Next(); i++ {
			var name string
			if err := rows.Scan(&name); err != nil {
				return i, err
			}
			if err := f(i, name); err != nil {
				return i, err
			}
		}
		return i, rows.Err()
	}
	mustRead(t, db, func(tx *store.Tx) error {
		midway := errors.New("midway")
		if _, err := each(tx, "n%", func(int, string) error { return midway }); err != midway {
			t.Errorf("left midway: %v", err)
		}
		inner := 0
		total, err := each(tx, "n%", func(i int, name string) error {
			if name != fmt.Sprintf("n%04d", i) {
				t.Errorf("row %d is %s", i, name)
			}
			if i%500 != 0 {
				return nil
			}
			got, err := each(tx, name[:3]+"%", func(int, string) error { return nil })
			inner += got
			return err
		})
		if total != n || inner != 4*100+7 {
			t.Errorf("%d rows and %d within, want %d and %d", total, inner, n, 4*100+7)
		}
		return err
	})
	err := db.Read(t.Context(), func(tx *store.Tx) error {
		_, err := tx.QueryLong(`SELECT nosuch FROM meta`)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("a wrong query: %v", err)
	}
}

// Rows that a function forgets to close must not block the commit.
func TestForgottenRows(t *testing.T) {
	db := storetest.New(t)
	if err := db.Write(t.Context(), func(tx *store.Tx) error {
		if err := put(tx, "a", ""); err != nil {
			return err
		}
		_, err := tx.Query(`SELECT name FROM meta`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, db); fmt.Sprint(got) != "[a]" {
		t.Errorf("stored %v", got)
	}
}

func TestContextEnds(t *testing.T) {
	db := storetest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Write(ctx, func(tx *store.Tx) error { return put(tx, "a", "") }); !errors.Is(err, context.Canceled) {
		t.Errorf("write with an ended context: %v", err)
	}
	if err := db.Read(ctx, func(tx *store.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("read with an ended context: %v", err)
	}

	// A context that ends while the function runs does not tear the write.
	ctx, cancel = context.WithCancel(t.Context())
	if err := db.Write(ctx, func(tx *store.Tx) error {
		cancel()
		return put(tx, "b", "")
	}); err != nil {
		t.Errorf("write whose context ended midway: %v", err)
	}

	// A long read is interrupted, and the reader works afterwards.
	for range 6 {
		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Millisecond)
		err := db.Read(ctx, func(tx *store.Tx) error {
			var n int64
			return tx.QueryRow(`WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT COUNT(*) FROM c`).Scan(&n)
		})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("endless read: %v", err)
		}
		if got := names(t, db); fmt.Sprint(got) != "[b]" {
			t.Errorf("stored %v", got)
		}
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	db := storetest.New(t)
	_, err := store.Open(t.Context(), store.Options{Path: db.Path()})
	if err == nil || !strings.Contains(err.Error(), "in use by process ") {
		t.Fatalf("a second Open: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
	if err := db.Read(t.Context(), func(tx *store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	storetest.Open(t, db.Path())
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	path := storetest.Path(t)
	db := storetest.Open(t, path)
	if err := db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE meta SET value = '99' WHERE name = 'schema'`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), store.Options{Path: path})
	if err == nil || !strings.Contains(err.Error(), "schema version 99") {
		t.Fatalf("opening a newer database: %v", err)
	}
}

func TestMigrationsApplyInOrder(t *testing.T) { store.CheckMigrations(t, storetest.EmptyPath(t)) }

func TestMigrate(t *testing.T) {
	newest, err := store.SchemaVersion()
	if err != nil {
		t.Fatal(err)
	}
	path := storetest.EmptyPath(t)
	for _, version := range []int{newest, 1, newest} {
		if err := store.Migrate(t.Context(), store.Options{Path: path}, version); err != nil {
			t.Fatalf("to %d: %v", version, err)
		}
	}
	for _, version := range []int{0, newest + 1} {
		if err := store.Migrate(t.Context(), store.Options{Path: path}, version); err == nil {
			t.Errorf("a migration to version %d is accepted", version)
		}
	}
	db := storetest.Open(t, path)
	if err := store.Migrate(t.Context(), store.Options{Path: path}, 1); err == nil || !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("a database in use: %v", err)
	}
	mustWrite(t, db, func(tx *store.Tx) error { return tx.InsertMessages([]*store.Message{newMessage(t, 1)}) })
}

func TestOpenExplainsItself(t *testing.T) {
	if _, err := store.Open(t.Context(), store.Options{}); err == nil {
		t.Error("an empty path is accepted")
	}
	_, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "no", "such.db")})
	if err == nil || !strings.Contains(err.Error(), "check that the folder exists") {
		t.Errorf("a missing folder: %v", err)
	}
}

// A full database refuses a large write with a remedy, undoes it alone, keeps
// what shared its commit, and goes on when there is space again.
func TestDiskFull(t *testing.T) {
	db := storetest.Open(t, storetest.File(t))
	pages := func(limit string) {
		t.Helper()
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			var n int64
			return tx.QueryRow(`PRAGMA max_page_count = ` + limit).Scan(&n)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pages("1") // cannot shrink below what is used, so: not one page more
	big := strings.Repeat("x", 1<<20)
	release, started := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	var small, large, last error
	wg.Go(func() {
		small = db.Write(t.Context(), func(tx *store.Tx) error {
			select {
			case <-started:
			default:
				close(started)
				<-release
			}
			return put(tx, "small", "")
		})
	})
	<-started
	wg.Go(func() { large = db.Write(t.Context(), func(tx *store.Tx) error { return put(tx, "large", big) }) })
	wg.Go(func() { last = db.Write(t.Context(), func(tx *store.Tx) error { return put(tx, "last", "") }) })
	close(release)
	wg.Wait()
	if !errors.Is(large, store.ErrDisk) || !strings.Contains(large.Error(), "free space") {
		t.Errorf("the large write: %v", large)
	}
	if small != nil || last != nil {
		t.Errorf("the small writes: %v, %v", small, last)
	}
	pages("100000")
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return put(tx, "large", big) }); err != nil {
		t.Errorf("after space came back: %v", err)
	}
	if got := fmt.Sprint(names(t, db)); got != "[large last small]" {
		t.Errorf("stored %s", got)
	}
}

// A whole database lives inside a synctest bubble, virtual time included.
func TestInsideABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := storetest.New(t)
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Hour)
				if err := db.Write(t.Context(), func(tx *store.Tx) error { return put(tx, fmt.Sprint("h", i), "") }); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := names(t, db); len(got) != 5 {
			t.Errorf("stored %v", got)
		}
	})
}

func TestOptimize(t *testing.T) {
	if err := storetest.New(t).Optimize(t.Context()); err != nil {
		t.Fatal(err)
	}
}
