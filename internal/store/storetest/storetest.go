// Package storetest gives each test a fresh, migrated database in milliseconds:
// an SQLite file, or, with the environment variable PARLEY_TEST_POSTGRES, a
// database on the PostgreSQL server at that URL, whose user may create some.
package storetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/parley-node/parley/internal/store"
)

// Postgres reports whether the tests run on PostgreSQL, for those about what
// only one kind of database has.
func Postgres() bool { return os.Getenv(serverURL) != "" }

// template is the content of an empty, migrated database file.
var template = sync.OnceValues(func() (file []byte, err error) {
	dir, err := os.MkdirTemp("", "storetest")
	if err != nil {
		return nil, fmt.Errorf("making the template database: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "template.db")
	db, err := store.Open(context.Background(), store.Options{Path: path})
	if err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil { // moves the write-ahead log into the file
		return nil, err
	}
	return os.ReadFile(path)
})

// New returns an empty database of the test's own, closed when the test ends. It
// may be used inside a testing/synctest bubble.
func New(t testing.TB) *store.DB {
	t.Helper()
	return Open(t, Path(t))
}

// Path returns the path of an empty, migrated database that nobody has opened
// yet: a file, or a URL.
func Path(t testing.TB) string {
	t.Helper()
	if Postgres() {
		name, err := templateDatabase()
		if err != nil {
			t.Fatalf("making the template database: %v", err)
		}
		return newPostgres(t, name)
	}
	return File(t)
}

// EmptyPath returns the path of a database without any table, which nobody has
// opened yet.
func EmptyPath(t testing.TB) string {
	t.Helper()
	if Postgres() {
		return newPostgres(t, "template0")
	}
	return filepath.Join(t.TempDir(), "parley.db")
}

// File is Path on SQLite, whatever the environment says.
func File(t testing.TB) string {
	t.Helper()
	file, err := template()
	if err != nil {
		t.Fatal(err)
	}
	return write(t, file)
}

// Copy returns the path of a copy of a database that nobody has open.
func Copy(t testing.TB, path string) string {
	t.Helper()
	if Postgres() {
		return newPostgres(t, databaseName(path))
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, file)
}

// write puts a database file into the test's own folder.
func write(t testing.TB, file []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "parley.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Open opens a database, for tests that close it and open it again.
func Open(t testing.TB, path string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("closing %s: %v", path, err)
		}
	})
	return db
}
