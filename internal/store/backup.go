package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// BackupTo writes a copy of a SQLite database to a new file, as it is at one
// moment. The node may go on writing meanwhile. The copy is on disk when
// BackupTo returns. A PostgreSQL database is copied with the server's own tools.
func (db *DB) BackupTo(ctx context.Context, file string) error {
	if db.dialect.remote {
		return fmt.Errorf("the database %s is on a PostgreSQL server: copy it with pg_dump, or let the server archive its log", db.name)
	}
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s is there already: give a new file", file)
	}
	// A connection of its own: readers may write nothing, not even another file.
	p, err := openSQLite(db.path, 1)
	if err != nil {
		return err
	}
	_, err = p.write.ExecContext(ctx, `VACUUM INTO ?`, file)
	if err = errors.Join(err, p.close()); err != nil {
		return db.explain(fmt.Errorf("copying %s to %s: %w", db.name, file, err))
	}
	return syncPaths(file, filepath.Dir(file))
}

// syncPaths makes files and folders durable.
func syncPaths(names ...string) error {
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = f.Sync()
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return fmt.Errorf("writing %s to disk: %w", name, err)
		}
	}
	return nil
}
