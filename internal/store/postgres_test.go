package store_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

// onPostgres opens a database for a test of what only PostgreSQL does. Without a
// server there is nothing to test; the job that has one runs all tests.
func onPostgres(t *testing.T) (*store.DB, bool) {
	t.Helper()
	if !storetest.Postgres() {
		t.Log("PARLEY_TEST_POSTGRES names no server")
		return nil, false
	}
	return storetest.New(t), true
}

// together queues functions behind one that holds the writer, so that they share
// its transaction, and returns their errors.
func together(t *testing.T, db *store.DB, fs ...func(*store.Tx) error) []error {
	t.Helper()
	started, release := make(chan struct{}), make(chan struct{})
	var hold sync.Once
	results := make([]error, len(fs))
	var writers sync.WaitGroup
	writers.Go(func() {
		if err := db.Write(t.Context(), func(*store.Tx) error {
			hold.Do(func() {
				close(started)
				<-release
			})
			return nil
		}); err != nil {
			t.Errorf("the first function: %v", err)
		}
	})
	<-started
	for i, f := range fs {
		writers.Go(func() { results[i] = db.Write(t.Context(), f) })
	}
	for db.WritesWaiting() < len(fs)+1 {
		runtime.Gosched()
	}
	close(release)
	writers.Wait()
	return results
}

// failOnce raises an error of the server the first time that it runs; what
// nextval counts is not undone.
func failOnce(counter, raise string) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		var n int64
		if err := tx.QueryRow(`SELECT nextval('` + counter + `')`).Scan(&n); err != nil {
			return err
		}
		if n == 1 {
			if _, err := tx.Exec(raise); err != nil {
				return err
			}
		}
		return put(tx, counter, "")
	}
}

// A function that loses against another transaction, or whose connection ends, is
// run again, and so are those that shared its transaction; none is doubled.
func TestLostTransactionsAreRunAgain(t *testing.T) {
	for name, raise := range map[string]string{
		"serialization": `DO $$ BEGIN RAISE SQLSTATE '40001'; END $$`,
		"deadlock":      `DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$`,
		"connection":    `SELECT pg_terminate_backend(pg_backend_pid())`,
	} {
		t.Run(name, func(t *testing.T) {
			db, ok := onPostgres(t)
			if !ok {
				return
			}
			mustWrite(t, db, func(tx *store.Tx) error {
				_, err := tx.Exec(`CREATE SEQUENCE counter`)
				return err
			})
			plain := func(n int) func(*store.Tx) error {
				return func(tx *store.Tx) error { return put(tx, fmt.Sprint("plain", n), "") }
			}
			for i, err := range together(t, db, plain(1), failOnce("counter", raise), plain(2)) {
				if err != nil {
					t.Errorf("function %d: %v", i, err)
				}
			}
			if got := fmt.Sprint(names(t, db)); got != "[counter plain1 plain2]" {
				t.Errorf("stored %s", got)
			}
		})
	}
}

// A connection that ends while it commits leaves open what became of the
// transaction: that is an error, and not done again.
func TestLostCommitIsNotRepeated(t *testing.T) {
	db, ok := onPostgres(t)
	if !ok {
		return
	}
	mustWrite(t, db, func(tx *store.Tx) error {
		for _, s := range []string{
			`CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$`,
			`CREATE CONSTRAINT TRIGGER die AFTER INSERT ON meta DEFERRABLE INITIALLY DEFERRED
				FOR EACH ROW WHEN (NEW.name = 'die') EXECUTE FUNCTION die()`,
		} {
			if _, err := tx.Exec(s); err != nil {
				return err
			}
		}
		return nil
	})
	runs := 0
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		runs++
		return put(tx, "die", "")
	})
	if !errors.Is(err, store.ErrUnreachable) || runs != 1 {
		t.Errorf("after %d runs: %v", runs, err)
	}
	mustWrite(t, db, func(tx *store.Tx) error { return put(tx, "after", "") })
	if got := fmt.Sprint(names(t, db)); got != "[after]" {
		t.Errorf("stored %s", got)
	}
}

// Whoever loses the lock with its connection cannot write any more once another
// process has it.
func TestSupersededWriterIsFenced(t *testing.T) {
	first, ok := onPostgres(t)
	if !ok {
		return
	}
	mustWrite(t, first, func(tx *store.Tx) error { return put(tx, "first", "") })
	mustRead(t, first, func(tx *store.Tx) error {
		_, err := tx.Exec(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
		return err
	})
	second := storetest.Open(t, first.Path())
	mustWrite(t, second, func(tx *store.Tx) error { return put(tx, "second", "") })
	err := first.Write(t.Context(), func(tx *store.Tx) error { return put(tx, "late", "") })
	if !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), "in use by process ") {
		t.Errorf("the superseded writer: %v", err)
	}
	if got := fmt.Sprint(names(t, second)); got != "[first second]" {
		t.Errorf("stored %s", got)
	}
	if got := fmt.Sprint(names(t, first)); got != "[first second]" {
		t.Errorf("the superseded one reads %s", got)
	}
}

// The errors that a person must help with say how.
func TestServerErrorsAreExplained(t *testing.T) {
	db, ok := onPostgres(t)
	if !ok {
		return
	}
	for code, want := range map[string]struct {
		kind error
		text string
	}{
		"53100": {store.ErrDisk, "free space"},
		"58030": {store.ErrDisk, "disk fails"},
		"XX001": {store.ErrDisk, "damaged"},
		"25006": {store.ErrUnreachable, "name the primary"},
		"53300": {store.ErrUnreachable, "max_connections"},
	} {
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`DO $$ BEGIN RAISE SQLSTATE '` + code + `'; END $$`)
			return err
		})
		if !errors.Is(err, want.kind) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v", code, err)
		}
	}
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return put(tx, "after", "") }); err != nil {
		t.Errorf("after the errors: %v", err)
	}
}

// A server that is not there, a password and a name that are wrong: the error
// says what to look at and keeps the password.
func TestUnreachableServer(t *testing.T) {
	_, err := store.Open(t.Context(), store.Options{Path: "postgres://u:geheim@127.0.0.1:1/none?sslmode=disable"})
	if !errors.Is(err, store.ErrUnreachable) || strings.Contains(err.Error(), "geheim") || !strings.Contains(err.Error(), "check that the server runs") {
		t.Errorf("no server: %v", err)
	}
	if _, err := store.Open(t.Context(), store.Options{Path: "postgres://127.0.0.1:x/none?password=geheim"}); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("not a URL: %v", err)
	}
	if db, ok := onPostgres(t); ok {
		_, err := store.Open(t.Context(), store.Options{Path: strings.Replace(db.Path(), "/parley_", "/nosuch_", 1)})
		if err == nil || !strings.Contains(err.Error(), "CREATE DATABASE") {
			t.Errorf("no such database: %v", err)
		}
		_, err = store.Open(t.Context(), store.Options{Path: db.Path() + "?search_path=nosuch"})
		if err == nil || !strings.Contains(err.Error(), "names no schema that exists") {
			t.Errorf("no such schema: %v", err)
		}
	}
}

// Any Go string goes in and comes out: a peer chooses some of them.
func TestStringsThatAreNoText(t *testing.T) {
	db := storetest.New(t)
	strange := []string{"nul\x00nul", "\xff\xfe", "\ufdd0", "\ufdd000", "\x00", "ünï", "'%_\\"}
	mustWrite(t, db, func(tx *store.Tx) error {
		for _, s := range strange {
			if err := put(tx, s, "v"+s); err != nil {
				return err
			}
		}
		return nil
	})
	mustRead(t, db, func(tx *store.Tx) error {
		for _, s := range strange {
			var name, value string
			if err := tx.QueryRow(`SELECT name, value FROM meta WHERE name = $1`, s).Scan(&name, &value); err != nil || name != s || value != "v"+s {
				t.Errorf("%q came back as %q, %q, %v", s, name, value, err)
			}
		}
		return nil
	})
}
