package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/parley-node/parley/internal/demo"
)

type demoCmd struct {
	Dir     string `type:"path" help:"Folder for the members' folders; a temporary one if not given." placeholder:"DIR"`
	Members int    `default:"4" help:"How many organisations. 4 is the least whose bundled ledger survives the loss of a member; with fewer, the story leaves out what cannot work."`
	Ledger  string `default:"bundled" enum:"bundled,dev" help:"bundled: each member runs a validator. dev: one validator for all, a process of its own, for a small laptop."`
	Once    bool   `help:"End after the story: with 0 if every claim held, else with 1 and the reason."`
	JSON    bool   `name:"json" help:"Print one JSON fact a line instead of text."`
	Break   string `help:"Plant a fault for this step, so that its claim does not hold: ${steps}." placeholder:"STEP"`
	Verbose bool   `help:"Let the nodes log in detail, to node.log in their folders."`
}

// Help adds to --help.
func (demoCmd) Help() string {
	return `Each organisation is a process with its own folder, database, keys and ports on
loopback. Ctrl-C stops them all.

Without --once the network keeps running after the story, with its URLs shown.

What --break plants for each step, all from outside of the nodes:
` + demo.Faults()
}

func (cmd demoCmd) Run(ctx context.Context) error {
	if cmd.Members < demo.MinMembers || cmd.Members > demo.MaxMembers {
		return usageError{fmt.Errorf("--members %d: give a number from %d to %d", cmd.Members, demo.MinMembers, demo.MaxMembers)}
	}
	if err := demo.CheckBreak(cmd.Break); err != nil {
		return usageError{err}
	}
	if cmd.Members < demo.DefaultMembers && cmd.Ledger == demo.LedgerBundled {
		fmt.Fprintf(os.Stderr, "note: with %d members the ledger stops when one of them stops; %d is the least that survives a loss\n", cmd.Members, demo.DefaultMembers)
	}
	err := demo.Run(ctx, demo.Options{
		Dir: cmd.Dir, Members: cmd.Members, Ledger: cmd.Ledger, Once: cmd.Once, JSON: cmd.JSON, Break: cmd.Break, Verbose: cmd.Verbose, Out: os.Stdout,
	})
	if err != nil && ctx.Err() != nil {
		return errors.New("stopped before the story was over")
	}
	return err
}

func demoSteps() string { return strings.Join(demo.Steps(), ", ") }
