package storetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/parley-node/parley/internal/store"
)

// serverURL is the environment variable with the URL of a PostgreSQL server.
const serverURL = "PARLEY_TEST_POSTGRES"

// newPostgres creates a database for one test, a copy of another one that nobody
// is connected to, and drops it afterwards. Nothing of it is shared with other
// tests, so that each may have its own synctest bubble.
func newPostgres(t testing.TB, from string) string {
	t.Helper()
	name := "parley_test_" + strings.ToLower(rand.Text()[:16])
	if err := onServer(`CREATE DATABASE ` + name + ` ENCODING 'UTF8' TEMPLATE ` + from); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := onServer(`DROP DATABASE ` + name + ` WITH (FORCE)`); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
	})
	return databaseURL(name)
}

// databaseName is the database that a URL names.
func databaseName(path string) string {
	u, err := url.Parse(path)
	if err != nil {
		return path // the server tells that there is none
	}
	return strings.TrimPrefix(u.Path, "/")
}

// onServer runs statements on the server's own database.
func onServer(statements ...string) error {
	ctx := context.Background()
	c, err := pgx.Connect(ctx, os.Getenv(serverURL))
	if err != nil {
		return fmt.Errorf("%s: %w", serverURL, err)
	}
	defer c.Close(ctx)
	for _, s := range statements {
		if _, err := c.PgConn().Exec(ctx, s).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// databaseURL is the server's URL with another database.
func databaseURL(name string) string {
	u, err := url.Parse(os.Getenv(serverURL))
	if err != nil {
		return os.Getenv(serverURL) // whoever connects tells what is wrong
	}
	u.Path = "/" + name
	return u.String()
}

// templateDatabase makes the migrated database that those of tests are copies
// of, unless an earlier process has: its name is that of the schema.
func templateDatabase() (string, error) {
	id, err := store.SchemaID()
	if err != nil {
		return "", err
	}
	name := "parley_template_" + id
	ctx := context.Background()
	c, err := pgx.Connect(ctx, os.Getenv(serverURL))
	if err != nil {
		return "", fmt.Errorf("%s: %w", serverURL, err)
	}
	defer c.Close(ctx)
	var there bool
	const exists = `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`
	if err := c.QueryRow(ctx, exists, name).Scan(&there); err != nil || there {
		return name, err
	}
	// Several test processes start at the same time; this connection's end frees
	// the lock.
	if _, err := c.Exec(ctx, `SELECT pg_advisory_lock(hashtextextended($1, 0))`, name); err != nil {
		return "", err
	}
	if err := c.QueryRow(ctx, exists, name).Scan(&there); err != nil || there {
		return name, err
	}
	draft := name + "_draft"
	for _, s := range []string{`DROP DATABASE IF EXISTS ` + draft, `CREATE DATABASE ` + draft + ` TEMPLATE template0 ENCODING 'UTF8'`} {
		if _, err := c.Exec(ctx, s); err != nil {
			return "", err
		}
	}
	db, err := store.Open(ctx, store.Options{Path: databaseURL(draft)})
	if err != nil {
		return "", err
	}
	if err := db.Close(); err != nil {
		return "", err
	}
	_, err = c.Exec(ctx, `ALTER DATABASE `+draft+` RENAME TO `+name)
	return name, err
}
