package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/evm"
	"github.com/parley-node/parley/wire"
)

type verifyCmd struct {
	What     string   `arg:"" help:"Number of a record of the network contract, or hash of its transaction." placeholder:"NUMBER|HASH"`
	RPC      []string `name:"rpc" required:"" help:"http(s) JSON-RPC URL of the chain; may be repeated." placeholder:"URL"`
	Contract string   `required:"" help:"Address of the network contract." placeholder:"ADDRESS"`
	Root     string   `help:"Fail unless the record pins this root." placeholder:"HASH"`
}

// Help adds to --help.
func (verifyCmd) Help() string {
	return `Asks a chain whether a record of a network stands on it: from the log to its
transaction's receipt and to the block at that height. No Parley node is asked.`
}

// verified is what the chain says of a record.
type verified struct {
	Number      uint64       `json:"number"`
	Kind        string       `json:"kind"`
	Org         string       `json:"org,omitempty"`
	Root        string       `json:"root,omitempty"`
	Signer      wire.Address `json:"signer"`
	Block       uint64       `json:"block"`
	BlockHash   wire.Hash    `json:"blockHash"`
	Time        string       `json:"time"`
	Transaction wire.Hash    `json:"transaction"`
	RunningHash wire.Hash    `json:"runningHash"`
	Final       bool         `json:"final"`
}

func (cmd verifyCmd) Run(ctx context.Context) error {
	contract, err := wire.ParseAddress(cmd.Contract)
	if err != nil {
		return usageError{fmt.Errorf("--contract: %w", err)}
	}
	number, numberErr := strconv.ParseUint(cmd.What, 10, 64)
	tx, txErr := wire.ParseHash(cmd.What)
	if numberErr != nil && txErr != nil {
		return usageError{fmt.Errorf("%q is neither a record's number nor a transaction's hash of 64 hex digits", cmd.What)}
	}
	chain, err := evm.Open(ctx, evm.Config{URLs: cmd.RPC, Contract: contract})
	if err != nil {
		return err
	}
	defer chain.Close()
	var found []evm.Verified
	if numberErr == nil {
		v, err := chain.Verify(ctx, number)
		if err != nil {
			return err
		}
		found = append(found, v)
	} else if found, err = chain.VerifyTransaction(ctx, tx); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	pinned, final := false, true
	for _, v := range found {
		d := describe(v)
		pinned = pinned || d.Root != "" && d.Root == cmd.Root
		final = final && d.Final
		if err := out.Encode(d); err != nil {
			return err
		}
	}
	switch {
	case cmd.Root != "" && !pinned:
		return fmt.Errorf("the record stands on the chain, and it does not pin root %s", cmd.Root)
	case !final:
		return errors.New("the record stands on the chain, and its block is not final yet; ask again later")
	}
	return nil
}

func describe(v evm.Verified) verified {
	r := v.Record
	d := verified{
		Number: r.Number, Kind: r.Body.Kind(), Signer: r.Signer, Block: r.Position.Block, BlockHash: r.Block.Hash,
		Time: r.Block.Time.UTC().Format("2006-01-02T15:04:05.000Z"), Transaction: r.TxHash, RunningHash: r.Running, Final: v.Final,
	}
	if p, ok := r.Body.(ledger.Pinned); ok {
		d.Org, d.Root = p.Org.String(), p.Pin.Root.String()
	}
	return d
}
