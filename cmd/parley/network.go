package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/node"
)

type networkCmd struct {
	Found  networkFoundCmd  `cmd:"" help:"Found a network with other members, from their public parts."`
	Deploy networkDeployCmd `cmd:"" help:"Put the contract of a network that was founded on its ledger."`
}

type networkFoundCmd struct {
	folder
	Members       []string      `arg:"" optional:"" type:"existingfile" help:"member.json of each other founding member." placeholder:"FILE"`
	ChainID       uint64        `name:"chain-id" default:"2021" help:"Chain id of a new bundled ledger."`
	Approvals     uint64        `help:"How many members must approve a change of the network; a majority if not given."`
	SkipAfter     time.Duration `default:"5m" help:"How long a payload that nobody has may block its topics before the members vote to skip it."`
	SkipGrace     time.Duration `default:"1m" help:"How long a holder then has to show it."`
	Confirmations uint64        `help:"Blocks on top before a position is final, on chains that name no final block."`
	Out           string        `default:"network.json" type:"path" help:"File to write the network's description to." placeholder:"FILE"`
}

// Help adds to --help.
func (networkFoundCmd) Help() string {
	return `One member founds, in its own folder, for all. On a chain that others run, the
contract is deployed at once. With the bundled ledger the members are its first
validators, so they have to run first:

    every member   parley join --network network.json  and  parley node run
    the founder    parley network deploy`
}

func (cmd networkFoundCmd) Run(ctx context.Context) error {
	c, err := node.LoadConfig(cmd.path())
	if err != nil {
		return usageError{err}
	}
	o := node.FoundOptions{ChainID: cmd.ChainID, Params: ledger.DefaultParams, Policy: ledger.Policy{Approvals: cmd.Approvals}}
	o.Params.SkipAfter, o.Params.SkipGrace, o.Params.Confirmations = cmd.SkipAfter, cmd.SkipGrace, cmd.Confirmations
	for _, path := range cmd.Members {
		m, err := node.ReadMember(path)
		if err != nil {
			return usageError{err}
		}
		o.Members = append(o.Members, *m)
	}
	n, err := node.FoundNetwork(ctx, c, o)
	if err != nil {
		return err
	}
	if err := node.WriteJSON(cmd.Out, n); err != nil {
		return err
	}
	fmt.Printf("The network will have contract %s on chain %d. Its description for the other members: %s\n", n.Contract, n.ChainID, cmd.Out)
	if c.Ledger.Bundled != nil {
		fmt.Println("When the members' nodes run:  parley network deploy --dir", c.Dir)
		return nil
	}
	return deploy(ctx, c)
}

type networkDeployCmd struct {
	folder
	Wait time.Duration `default:"2m" help:"How long to wait for the ledger."`
}

func (cmd networkDeployCmd) Run(ctx context.Context) error {
	c, err := cmd.read()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cmd.Wait, fmt.Errorf("gave up after %s; check that more than two thirds of the founding members' nodes run", cmd.Wait))
	defer cancel()
	return deploy(ctx, c)
}

// deploy tries until the ledger can be reached or ctx ends.
func deploy(ctx context.Context, c *node.Config) error {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		d, err := node.Deploy(ctx, c)
		if err == nil {
			fmt.Printf("The network's contract %s is on the ledger.\n", d.Contract)
			return nil
		}
		var refused *ledger.Refusal
		if errors.As(err, &refused) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-again.C:
		}
	}
}
