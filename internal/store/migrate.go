package store

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migration is one numbered file of the folder migrations, with the one that
// takes it back.
type migration struct {
	version int
	name    string
	text    string
	down    string // "" for the first, below which there is nothing
}

// migrations lists the files in order. Their names begin with 0001, 0002 … and
// leave no number out. Each from 0002 on has a companion whose name ends with
// .down.sql: it takes the schema, and what was stored in it, back to the release
// before.
func migrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return nil, fmt.Errorf("listing migrations: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, downSuffix) })
	var list []migration
	for i, name := range names { // Glob sorts
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s: its name must begin with %04d_", name, i+1)
		}
		m := migration{version: version, name: name}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("reading migration %s: %w", name, err)
		}
		m.text = string(text)
		if version > 1 {
			down := strings.TrimSuffix(name, ".sql") + downSuffix
			if text, err = fs.ReadFile(files, down); err != nil {
				return nil, fmt.Errorf("migration %s needs %s, which takes it back: %w", name, down, err)
			}
			m.down = string(text)
		}
		list = append(list, m)
	}
	return list, nil
}

const downSuffix = ".down.sql"

// SchemaID names the schema that this program makes: programs with the same id
// can use each other's databases.
func SchemaID() (string, error) {
	list, err := migrations(migrationFiles)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, m := range list {
		fmt.Fprintf(h, "%s %d\n%s", m.name, len(m.text), m.text)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// SchemaVersion is the version that Open brings a database to.
func SchemaVersion() (int, error) {
	list, err := migrations(migrationFiles)
	return len(list), err
}

// Version is the schema version of a database, which a process may use meanwhile;
// 0 if it is empty.
func Version(ctx context.Context, o Options) (version int, err error) {
	if !isPostgres(o.Path) {
		if _, err := os.Stat(o.Path); err != nil {
			return 0, fmt.Errorf("there is no database to read: %w", err)
		}
	}
	db, err := open(o, false)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.release()) }()
	c, err := db.openConn(ctx, db.pools.read)
	if err != nil {
		return 0, db.explain(fmt.Errorf("opening %s: %w", db.name, err))
	}
	defer func() { err = errors.Join(err, c.close()) }()
	version, err = db.schemaVersion(ctx, c)
	return version, db.explain(err)
}

// Migrate takes a database that no process uses to a version, forward or back:
// an older release opens it only at a version that it knows. Going back loses
// what the older schema cannot hold. Open goes forward by itself.
func Migrate(ctx context.Context, o Options, version int) (err error) {
	list, err := migrations(migrationFiles)
	if err != nil {
		return err
	}
	if version < 1 || version > len(list) {
		return fmt.Errorf("there is no schema version %d: this program knows 1 to %d", version, len(list))
	}
	db, err := open(o, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.release()) }()
	c, err := db.openConn(ctx, db.pools.write)
	if err != nil {
		return db.explain(fmt.Errorf("opening %s: %w", db.name, err))
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return db.explain(db.apply(ctx, c, list, version))
}

// migrate brings the schema to the newest version.
func (db *DB) migrate(ctx context.Context, c *conn) error {
	list, err := migrations(migrationFiles)
	if err != nil {
		return err
	}
	return db.apply(ctx, c, list, len(list))
}

// apply brings the schema to a version, one transaction per file.
func (db *DB) apply(ctx context.Context, c *conn, list []migration, to int) error {
	version, err := db.schemaVersion(ctx, c)
	if err != nil {
		return fmt.Errorf("reading the schema version of %s: %w", db.name, err)
	}
	if version > len(list) {
		return fmt.Errorf("database %s has schema version %d, and this program knows versions up to %d: use the newer program that wrote it, let that one take it back (parley migrate to %d), or restore an older backup", db.name, version, len(list), len(list))
	}
	for version != to {
		text, next, name := "", version+1, ""
		if version < to {
			text, name = list[version].text, list[version].name
		} else {
			text, name, next = list[version-1].down, list[version-1].name+" taken back", version-1
		}
		if err := db.applyOne(ctx, c, text, next); err != nil {
			return fmt.Errorf("migrating %s with %s: %w", db.name, name, err)
		}
		version = next
		db.log.Info("database migrated", "path", db.name, "version", version)
	}
	return nil
}

// current is an error unless the database has the schema of this program.
func (db *DB) current(ctx context.Context, c *conn) error {
	list, err := migrations(migrationFiles)
	if err != nil {
		return err
	}
	version, err := db.schemaVersion(ctx, c)
	if err != nil {
		return fmt.Errorf("reading the schema version of %s: %w", db.name, err)
	}
	if version != len(list) {
		return fmt.Errorf("database %s has schema version %d, this program reads version %d: use the program that the node runs", db.name, version, len(list))
	}
	return nil
}

// applyOne runs a migration's text and notes the version that it leads to.
func (db *DB) applyOne(ctx context.Context, c *conn, text string, version int) (err error) {
	for token, is := range db.dialect.tokens {
		text = strings.ReplaceAll(text, token, is)
	}
	if _, err := c.sql.ExecContext(ctx, db.dialect.beginWrite); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, undo := c.sql.ExecContext(context.WithoutCancel(ctx), sqlRollback)
			err = errors.Join(err, undo)
		}
	}()
	if _, err := c.sql.ExecContext(ctx, text); err != nil {
		return err
	}
	const put = `INSERT INTO meta (name, value) VALUES ('schema', $1)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`
	if _, err := c.sql.ExecContext(ctx, put, strconv.Itoa(version)); err != nil {
		return err
	}
	_, err = c.sql.ExecContext(ctx, sqlCommit)
	return err
}

// schemaVersion is 0 for an empty database.
func (db *DB) schemaVersion(ctx context.Context, c *conn) (int, error) {
	var tables int
	if err := c.sql.QueryRowContext(ctx, db.dialect.hasMeta).Scan(&tables); err != nil || tables == 0 {
		return 0, err
	}
	var text string
	if err := c.sql.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = 'schema'`).Scan(&text); err != nil {
		return 0, err
	}
	version, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("meta.schema is %q, not a number: the file was not written by this program", text)
	}
	return version, nil
}
