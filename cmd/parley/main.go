// Command parley is the node and its tools in one binary. Each command is a
// struct in a file of its own; parley --help lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the command ran and did not succeed
	exitUsage  = 2 // the command line or the configuration is not right
)

const description = `Parley connects the nodes of several organisations: they send each other
messages, to all or to a few, and all agree on one order, which a shared ledger
keeps. Nobody but the receivers can read what was sent.

See it work, with four organisations on this machine:   parley demo
Set up one organisation for real:                       parley init --help`

type cli struct {
	Demo    demoCmd    `cmd:"" help:"Start a network of four organisations here and play a story on it."`
	Node    nodeCmd    `cmd:"" help:"Run this organisation's node."`
	Init    initCmd    `cmd:"" help:"Make an organisation's folder: keys, certificate, configuration."`
	Network networkCmd `cmd:"" help:"Found a network."`
	Invite  inviteCmd  `cmd:"" help:"Describe this member's network to a new member."`
	Join    joinCmd    `cmd:"" help:"Make a network that of an organisation's folder."`
	Members membersCmd `cmd:"" help:"List the members, propose changes, vote."`
	Access  accessCmd  `cmd:"" help:"Say who may call this organisation's node: make, list and revoke API keys."`
	Verify  verifyCmd  `cmd:"" help:"Verify a record of a network with the chain itself."`
	Erase   eraseCmd   `cmd:"" help:"Erase data, here and at the members that received it."`
	Check   checkCmd   `cmd:"" help:"Check a node's database by an independent replay."`
	Bench   benchCmd   `cmd:"" help:"Measure latency and throughput of running nodes."`
	Config  configCmd  `cmd:"" help:"Print or check a configuration."`
	Backup  backupCmd  `cmd:"" help:"Copy an organisation's folder while its node runs."`
	Restore restoreCmd `cmd:"" help:"Make an organisation's folder of a backup."`
	Migrate migrateCmd `cmd:"" help:"Move a node's database to PostgreSQL, or to another release."`
	Signer  signerCmd  `cmd:"" help:"Sign transactions for nodes elsewhere."`
	Ledger  ledgerCmd  `cmd:"" help:"Run a validator of the bundled ledger by itself."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// usageError is an error that the user cures on the command line or in a file.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func main() { os.Exit(run(os.Args[1:])) }

// run runs one command line and gives the exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// The second signal ends the process at once.
	context.AfterFunc(ctx, stop)

	var c cli
	exit := -1
	parser, err := kong.New(&c, kong.Name("parley"), kong.Description(description), kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Exit(func(code int) { exit = code }),
		kong.Vars{"steps": demoSteps()},
		kong.BindTo(ctx, (*context.Context)(nil)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "parley:", err)
		return exitUsage
	}
	parsed, err := parser.Parse(args)
	if exit >= 0 { // --help has been answered
		return exit
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "parley: %v\nSee: parley --help\n", err)
		return exitUsage
	}
	err = parsed.Run()
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "parley:", err)
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "parley:", err)
	return exitFailed
}

type versionCmd struct{}

func (versionCmd) Run() error {
	fmt.Println("parley", version())
	return nil
}

// release is the version of the source; a build adds its commit where Go knows
// it.
const release = "0.1.0-preview"

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return release + "+" + s.Value[:12]
		}
	}
	return release
}
