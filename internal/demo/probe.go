package demo

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/keys/file"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// secret is an epoch's secret as it lies in a member's database.
type secret struct {
	audience wire.Hash
	wire.EpochSecret
}

// secrets reads all audience secrets from a member's database: what somebody
// with its folder in hand would have. The node may be running.
func secrets(m *Member) (all []secret, err error) {
	db, err := sql.Open("sqlite", "file:"+m.database()+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.Query(`SELECT audience, secret FROM epochs WHERE secret IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("read the secrets of %s: %w", m.Name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var s secret
		var raw []byte
		if err := rows.Scan(&s.audience, &raw); err != nil {
			return nil, err
		}
		if err := wire.Unmarshal(raw, &s.EpochSecret); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

// objectName is the name under which the private message's receivers serve its
// payload to each other. Only they can compute it.
func (s *story) objectName() (string, error) {
	root, err := wire.ParseHash(s.root)
	if err != nil {
		return "", err
	}
	group, err := wire.ParseHash(s.record.Header.Group)
	if err != nil {
		return "", err
	}
	all, err := secrets(s.hospital())
	if err != nil {
		return "", err
	}
	for _, secret := range all {
		if secret.audience == group {
			return s.root + "/" + secret.Keys().ObjectName(root, "batch"), nil
		}
	}
	return "", fmt.Errorf("the hospital has no secret of group %s", group)
}

// pull asks a member's node for an object, with the certificate of another.
func pull(ctx context.Context, as, from *Member, name string) ([]byte, error) {
	x, err := as.connect()
	if err != nil {
		return nil, err
	}
	defer x.Close()
	peer, err := from.peer()
	if err != nil {
		return nil, err
	}
	r, err := x.Fetch(ctx, peer, name, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, exchange.MaxRequest))
}

// opens says whether the secrets of one member, or the private keys of another,
// open a sealed payload.
func opens(secretsOf, keysOf *Member, e *wire.Envelope) (bool, error) {
	all, err := secrets(secretsOf)
	if err != nil {
		return false, err
	}
	if len(all) == 0 {
		return false, fmt.Errorf("%s has no secrets at all; the probe is worthless", secretsOf.Name)
	}
	for _, s := range all {
		if _, err := s.Keys().OpenPayload(e.Author, e.Root, e.Sealed); err == nil {
			return true, nil
		}
	}
	ks, err := file.Open(filepath.Join(keysOf.Config.Dir, keysOf.Config.Keys.Dir), file.Options{})
	if err != nil {
		return false, err
	}
	for _, info := range [][]byte{nil, e.Root[:], e.Audience[:]} {
		if _, err := ks.OpenSealed(e.Sealed, info); err == nil {
			return true, nil
		}
	}
	return false, nil
}

// search looks for byte strings in all files below a folder. It gives where it
// found each first, and how many bytes it has read.
func search(ctx context.Context, dir string, needles map[string][]byte) (found map[string]string, size int64, err error) {
	found = map[string]string{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		size += int64(len(text))
		for what, needle := range needles {
			if found[what] == "" && bytes.Contains(text, needle) {
				found[what] = path
			}
		}
		return nil
	})
	return found, size, err
}

// tamper stops the member's node, changes its database, and starts it again.
func (m *Member) tamper(ctx context.Context, statement string, args ...any) error {
	if err := m.proc.stop(); err != nil {
		return err
	}
	if err := m.alter(ctx, statement, args...); err != nil {
		return err
	}
	if err := m.Start(); err != nil {
		return err
	}
	return waitFor(ctx, m.Name+" is connected to the ledger again", func(ctx context.Context) (bool, error) {
		if !m.up() {
			return false, fmt.Errorf("its node has ended: %s", lastLine(m.logFile()))
		}
		st, err := m.API.LedgerStatus(ctx)
		return err == nil && st.Connection != nil && st.Connection.State == "connected", nil // an error: not up yet
	})
}

// alter changes the database of a member that is down.
func (m *Member) alter(ctx context.Context, statement string, args ...any) error {
	db, err := store.Open(ctx, store.Options{Path: m.database()})
	if err != nil {
		return err
	}
	err = db.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec(statement, args...)
		if err == nil && n == 0 {
			return errors.New("nothing was changed in the database")
		}
		return err
	})
	return errors.Join(err, db.Close())
}
