package main

import (
	"context"
	"fmt"
	"os"

	"github.com/parley-node/parley/internal/node"
	"github.com/parley-node/parley/internal/store"
)

type migrateCmd struct {
	SQLiteToPostgres sqliteToPostgresCmd `cmd:"" name:"sqlite-to-postgres" help:"Copy the node's SQLite database into an empty PostgreSQL one."`
	Status           migrateStatusCmd    `cmd:"" help:"Tell the schema version of the node's database and that of this program."`
	To               migrateToCmd        `cmd:"" help:"Take the node's database to the schema version of another release."`
}

type sqliteToPostgresCmd struct {
	folder
	URL string `arg:"" help:"Where to: postgres://user@host/database, with ?search_path=schema for a schema. It must hold nothing." placeholder:"URL"`
}

// Help adds to --help.
func (sqliteToPostgresCmd) Help() string {
	return `Stop the node first. The copy is one transaction: after an error the target is as
empty as before, and the command can be given again. Every row is read back and
compared. The file stays; set "database" in parley.yaml to the URL to use the copy.
A password is best kept out of the URL: PGPASSWORD and ~/.pgpass are read.`
}

func (cmd sqliteToPostgresCmd) Run(ctx context.Context) error {
	c, err := cmd.read()
	if err != nil {
		return err
	}
	var rows int64
	err = node.CopyDatabase(ctx, c, cmd.URL, func(p store.CopyProgress) {
		if p.Done && p.Step == "verified" {
			rows += p.Rows
		}
		if p.Rows > 0 {
			fmt.Fprintf(os.Stderr, "%s: %d rows %s\n", p.Table, p.Rows, p.Step)
		}
	})
	if err != nil {
		return fmt.Errorf("copy the database of %s: %w", c.Dir, err)
	}
	fmt.Printf("%d rows were copied and compared. The node uses them once its configuration says so:\n  database: <the URL given here>\n", rows)
	return nil
}

type migrateStatusCmd struct{ folder }

func (cmd migrateStatusCmd) Run(ctx context.Context) error {
	c, err := cmd.read()
	if err != nil {
		return err
	}
	have, want, err := node.DatabaseVersion(ctx, c)
	if err != nil {
		return fmt.Errorf("read the database of %s: %w", c.Dir, err)
	}
	fmt.Printf("the database has schema version %d, this program makes it version %d\n", have, want)
	if have > want {
		return fmt.Errorf("the database is of a newer release: use that one, or let it take the database back with: parley migrate to %d", want)
	}
	return nil
}

type migrateToCmd struct {
	folder
	Version int `arg:"" help:"Schema version. A release that is too old for the database tells the one it knows." placeholder:"VERSION"`
}

// Help adds to --help.
func (migrateToCmd) Help() string {
	return `Needed only to go back to an older release: run it with the newer one, with the
node stopped and a backup made, because what the older schema cannot hold is lost.
Going forward happens by itself when the node starts.`
}

func (cmd migrateToCmd) Run(ctx context.Context) error {
	c, err := cmd.read()
	if err != nil {
		return err
	}
	if err := node.MigrateDatabase(ctx, c, cmd.Version); err != nil {
		return fmt.Errorf("migrate the database of %s: %w", c.Dir, err)
	}
	fmt.Printf("the database has schema version %d\n", cmd.Version)
	return nil
}
