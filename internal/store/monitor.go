package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// What the API asks to refuse work in time and to tell how the node is doing.

// OnFile says whether the database is a file here, and not on a server.
func (db *DB) OnFile() bool { return !isPostgres(db.path) }

// Size is how many bytes the database takes where it is, with its log of
// changes.
func (db *DB) Size(ctx context.Context) (bytes int64, err error) {
	if !db.OnFile() {
		err = db.Read(ctx, func(tx *Tx) error {
			return tx.QueryRow(`SELECT pg_database_size(current_database())`).Scan(&bytes)
		})
		return bytes, err
	}
	for _, name := range []string{db.path, db.path + "-wal", db.path + "-shm"} {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		bytes += info.Size()
	}
	return bytes, nil
}

// WritesWaiting is the number of calls of Write that have not ended: running,
// or waiting for the writer.
func (db *DB) WritesWaiting() int { return int(db.waiting.Load()) }

// Commits is the number of transactions committed since Open.
func (db *DB) Commits() int64 { return db.commits.Load() }

// CountReady is the number of messages that wait for a batch; it counts no more
// than most.
func (tx *Tx) CountReady(most int64) (n int64, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM (SELECT seq FROM messages WHERE state = 'ready' LIMIT $1) AS ready`, max(most, 0)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting ready messages: %w", err)
	}
	return n, nil
}

// CountOpen is the number of messages without a verdict by state; it counts no
// more than most of them. The condition is that of the index messages_order.
func (tx *Tx) CountOpen(most int64) (map[string]int64, error) {
	type count struct {
		state string
		n     int64
	}
	counts, err := queryAll(tx, func(r *Rows, c *count) error { return r.Scan(&c.state, &c.n) },
		`SELECT state, COUNT(*) FROM (SELECT state FROM messages
			WHERE COALESCE(confirmed, 9223372036854775807) = 9223372036854775807 LIMIT $1) AS open GROUP BY state`, max(most, 0))
	if err != nil {
		return nil, fmt.Errorf("counting open messages: %w", err)
	}
	open := make(map[string]int64, len(counts))
	for _, c := range counts {
		open[c.state] = c.n
	}
	return open, nil
}

// OutboxSize is the number of parcels that wait for peers.
func (tx *Tx) OutboxSize() (n int64, err error) {
	if err := tx.QueryRow(`SELECT COUNT(*) FROM outbox`).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting the outbox: %w", err)
	}
	return n, nil
}

// SubPaths returns the blob folders directly below a folder, ascending. The
// root is "/".
func (tx *Tx) SubPaths(namespace, parent string) ([]string, error) {
	if parent != "/" {
		parent += "/"
	}
	below := likeEscaper.Replace(parent)
	return queryAll(tx, func(r *Rows, p *string) error { return r.Scan(p) },
		`SELECT DISTINCT blob_path FROM data WHERE namespace = $1 AND blob_path LIKE $2 ESCAPE '\'
			AND blob_path NOT LIKE $3 ESCAPE '\' AND blob_path <> $4 ORDER BY blob_path`,
		namespace, below+"%", below+"%/%", parent)
}
