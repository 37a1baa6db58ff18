package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/parley-node/parley/internal/node"
)

type backupCmd struct {
	folder
	To string `arg:"" type:"path" help:"A new folder for the backup." placeholder:"FOLDER"`
}

// Help adds to --help.
func (backupCmd) Help() string {
	return `The node may run meanwhile. The backup has the configuration, keys, certificate,
attachments, and a SQLite database as it is at one moment. Back a PostgreSQL
database up with pg_dump or the server's archive, before this. It does not have
passphrases, files of webhooks and brokers, and the validator's folder. Guard it
like the keys that are in it.`
}

func (cmd backupCmd) Run(ctx context.Context) error {
	c, err := cmd.read()
	if err != nil {
		return err
	}
	file := cmd.Config
	if file == "" {
		file = filepath.Join(c.Dir, node.ConfigFile)
	}
	b, err := node.MakeBackup(ctx, c, file, cmd.To)
	if err != nil {
		return fmt.Errorf("back up %s: %w", c.Dir, err)
	}
	fmt.Printf("%s holds the folder of %s, with the ledger up to record %d\n", cmd.To, b.Org, b.Record)
	if b.Database != "sqlite" {
		fmt.Println("The database is on a server and not in it: keep the backup that you made of it before this one together with it.")
	}
	return nil
}

type restoreCmd struct {
	From string `arg:"" optional:"" type:"path" help:"The backup. Without it, the folder stays, and only its database is marked: after the server's tools have taken it back." placeholder:"FOLDER"`
	Dir  string `short:"d" required:"" type:"path" env:"PARLEY_DIR" help:"The member's folder." placeholder:"DIR"`
}

// Help adds to --help.
func (restoreCmd) Help() string {
	return `Stop the node for good before, wherever it ran: two copies of a member must never
run. Nothing is overwritten. The node then reads from the ledger and the other
members what came after the backup. It gives no receipt before it has read the
ledger, and casts no vote to skip for as many blocks as a receipt is good for.`
}

func (cmd restoreCmd) Run(ctx context.Context) error {
	if cmd.From == "" {
		c, err := folder{Dir: cmd.Dir}.read()
		if err != nil {
			return err
		}
		if err := node.MarkRestored(ctx, c); err != nil {
			return fmt.Errorf("mark the database of %s: %w", c.Dir, err)
		}
		fmt.Println("The database is marked as taken back to an earlier state. Start the node.")
		return nil
	}
	b, err := node.RestoreBackup(ctx, cmd.From, cmd.Dir)
	if err != nil {
		return fmt.Errorf("restore %s: %w", cmd.From, err)
	}
	fmt.Printf("%s is the folder of %s as of %s, with the ledger up to record %d. Start the node.\n", cmd.Dir, b.Org, b.Created.Format("2006-01-02 15:04:05 MST"), b.Record)
	return nil
}
