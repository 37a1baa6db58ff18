package node

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/parley-node/parley/internal/store"
)

// CopyDatabase copies the SQLite database of a member's folder, whose node must
// not run, into an empty PostgreSQL one. The file stays as it is; the
// configuration decides which of the two the node uses from now on.
func CopyDatabase(ctx context.Context, c *Config, url string, progress func(store.CopyProgress)) (err error) {
	if strings.Contains(c.Database, "://") {
		return fmt.Errorf("the configuration in %s names a server as the node's database already: it must name the SQLite file", c.Dir)
	}
	from, err := store.Open(ctx, store.Options{Path: c.database(), Log: c.Logger()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := store.Open(ctx, store.Options{Path: url, Log: c.Logger()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := store.CopyToPostgres(ctx, from, to, progress); err != nil {
		return err
	}
	if err := to.Optimize(ctx); err != nil {
		return fmt.Errorf("all is copied, but the planner's statistics are missing: %w", err)
	}
	return nil
}

// DatabaseVersion tells the schema version of the database of a member's folder,
// also while the node runs, and the one that this program makes.
func DatabaseVersion(ctx context.Context, c *Config) (have, want int, err error) {
	if want, err = store.SchemaVersion(); err != nil {
		return 0, 0, err
	}
	have, err = store.Version(ctx, store.Options{Path: c.database(), Log: c.Logger()})
	return have, want, err
}

// MigrateDatabase takes the database of a member's folder, whose node must not
// run, to a schema version: back to that of an older release, or forward again.
func MigrateDatabase(ctx context.Context, c *Config, version int) error {
	return store.Migrate(ctx, store.Options{Path: c.database(), Log: c.Logger()}, version)
}
