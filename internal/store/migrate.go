package store

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migration is one numbered file of the folder migrations.
type migration struct {
	version int
	name    string
	text    string
}

// migrations lists the files in order. Their names begin with 0001, 0002 … and
// leave no number out.
func migrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return nil, fmt.Errorf("listing migrations: %w", err)
	}
	var list []migration
	for i, name := range names { // Glob sorts
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s: its name must begin with %04d_", name, i+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("reading migration %s: %w", name, err)
		}
		list = append(list, migration{version, name, string(text)})
	}
	return list, nil
}

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

// migrate brings the schema to the newest version, one transaction per file.
func (db *DB) migrate(ctx context.Context, c *conn) error {
	list, err := migrations(migrationFiles)
	if err != nil {
		return err
	}
	return db.apply(ctx, c, list)
}

func (db *DB) apply(ctx context.Context, c *conn, list []migration) error {
	version, err := db.schemaVersion(ctx, c)
	if err != nil {
		return fmt.Errorf("reading the schema version of %s: %w", db.name, err)
	}
	if version > len(list) {
		return fmt.Errorf("database %s has schema version %d, and this program knows versions up to %d: use the newer program that wrote it, or restore an older backup", db.name, version, len(list))
	}
	for _, m := range list[version:] {
		if err := db.applyOne(ctx, c, m); err != nil {
			return fmt.Errorf("migrating %s with %s: %w", db.name, m.name, err)
		}
		db.log.Info("database migrated", "path", db.name, "version", m.version)
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

func (db *DB) applyOne(ctx context.Context, c *conn, m migration) (err error) {
	text := m.text
	for token, is := range db.dialect.tokens {
		text = strings.ReplaceAll(text, token, is)
	}
	if _, err := c.sql.ExecContext(ctx, db.dialect.beginWrite); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, undo := c.sql.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
			err = errors.Join(err, undo)
		}
	}()
	if _, err := c.sql.ExecContext(ctx, text); err != nil {
		return err
	}
	const put = `INSERT INTO meta (name, value) VALUES ('schema', $1)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`
	if _, err := c.sql.ExecContext(ctx, put, strconv.Itoa(m.version)); err != nil {
		return err
	}
	_, err = c.sql.ExecContext(ctx, "COMMIT")
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
