package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
)

// A backup is a folder with fixed names: what the configuration calls them and
// where it keeps them does not matter there.
const (
	backupManifest = "backup.json" // written last: it says that the rest is complete
	backupConfig   = ConfigFile
	backupDatabase = "parley.db"
	backupKeys     = "keys"
	backupBlobs    = "blobs"
	backupFounding = "founding.json"
)

// Backup is what a backup says of itself.
type Backup struct {
	Org      string    `json:"org"`
	Node     string    `json:"node"`
	Created  time.Time `json:"created"`
	Schema   int       `json:"schema"`   // version of the database
	Database string    `json:"database"` // sqlite: in the backup; postgres: backed up with the server's tools
	Record   uint64    `json:"record"`   // number of the last ledger record that the database holds
}

// MakeBackup copies a member's folder into a new one while the node runs:
// configuration, keys with the certificate, attachments, and a SQLite database
// as it is at one moment. It holds all that the configuration names, except
// passphrases, files for webhooks and brokers, and the validator's folder, of
// which no second copy may ever run.
func MakeBackup(ctx context.Context, c *Config, file, to string) (b *Backup, err error) {
	if err := newFolder(to); err != nil {
		return nil, err
	}
	db, err := store.OpenToRead(ctx, store.Options{Path: c.database()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	b = &Backup{Org: c.Org.Name, Node: c.Node.ID.String(), Created: time.Now().UTC(), Database: "postgres"}
	if b.Schema, err = store.SchemaVersion(); err != nil {
		return nil, err
	}
	// The database before the attachments: each is on disk before the row that
	// names it.
	source := db
	if !strings.Contains(c.Database, "://") {
		b.Database = "sqlite"
		name := filepath.Join(to, backupDatabase)
		if err := db.BackupTo(ctx, name); err != nil {
			return nil, err
		}
		if source, err = store.OpenToRead(ctx, store.Options{Path: name}); err != nil {
			return nil, fmt.Errorf("read the copy of the database: %w", err)
		}
		defer func() { err = errors.Join(err, source.Close()) }()
	}
	if err := source.Read(ctx, func(tx *store.Tx) error {
		last, err := tx.LastRecord()
		if last != nil {
			b.Record = last.Number
		}
		return err
	}); err != nil {
		return nil, err
	}
	copies := [][2]string{{file, backupConfig}, {c.path(c.Keys.Dir), backupKeys}, {c.path(c.Blobs.Dir), backupBlobs}}
	if c.Founding != "" {
		copies = append(copies, [2]string{c.path(c.Founding), backupFounding})
	}
	for _, pair := range copies {
		if err := copyTree(ctx, pair[0], filepath.Join(to, pair[1])); err != nil {
			return nil, err
		}
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, err
	}
	return b, writeFile(filepath.Join(to, backupManifest), append(text, '\n'))
}

// RestoreBackup makes a member's folder of a backup. It overwrites nothing. The
// database is marked, so that the node knows that it may have forgotten what it
// signed since. One on a PostgreSQL server must have been restored before.
func RestoreBackup(ctx context.Context, from, dir string) (*Backup, error) {
	text, err := os.ReadFile(filepath.Join(from, backupManifest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not a complete backup: it has no %s, which parley backup writes last", from, backupManifest)
	}
	if err != nil {
		return nil, err
	}
	b := new(Backup)
	if err := json.Unmarshal(text, b); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(from, backupManifest), err)
	}
	c, err := ReadConfig(from)
	if err != nil {
		return nil, err
	}
	if c.Dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	copies := [][2]string{{backupKeys, c.path(c.Keys.Dir)}, {backupBlobs, c.path(c.Blobs.Dir)}, {backupConfig, filepath.Join(c.Dir, ConfigFile)}}
	if b.Database == "sqlite" {
		copies = append([][2]string{{backupDatabase, c.database()}}, copies...)
	}
	if c.Founding != "" {
		copies = append([][2]string{{backupFounding, c.path(c.Founding)}}, copies...)
	}
	for _, pair := range copies {
		if _, err := os.Lstat(pair[1]); !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, fmt.Errorf("%s is there already, and a restore overwrites nothing: move it away, or restore into another folder", pair[1]))
		}
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	for _, pair := range copies {
		if err := copyTree(ctx, filepath.Join(from, pair[0]), pair[1]); err != nil {
			return nil, err
		}
	}
	return b, MarkRestored(ctx, c)
}

// MarkRestored tells the node of a member's folder, which must not run, that its
// database was taken back to an earlier state.
func MarkRestored(ctx context.Context, c *Config) (err error) {
	db, err := store.Open(ctx, store.Options{Path: c.database(), Log: c.Logger()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.Write(ctx, message.MarkRestored)
}

// newFolder makes a folder, which must be empty if it is there.
func newFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	there, err := os.ReadDir(dir)
	if err == nil && len(there) > 0 {
		err = fmt.Errorf("%s is not empty: give a new folder for each backup", dir)
	}
	return err
}

// copyTree copies a file, or a folder with all that is in it, and has it written
// to disk. What is gone when its turn comes, as an attachment may be that was
// erased, is left out; so are files that are being written.
func copyTree(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, below)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		err = copyFile(path, target)
		if errors.Is(err, fs.ErrNotExist) && below != "." {
			return nil
		}
		return err
	})
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil {
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return out.Sync()
}
