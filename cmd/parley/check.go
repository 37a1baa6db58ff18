package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/parley-node/parley/internal/check"
	"github.com/parley-node/parley/internal/node"
)

type checkCmd struct {
	folder
	Ledger bool `help:"Also compare the stored records with the ledger's, which must be reachable."`
	JSON   bool `name:"json" help:"Print one JSON object a line."`
}

// Help adds to --help.
func (checkCmd) Help() string {
	return `Replays the ledger's records and the payloads that the node holds, independently of
the code that decided, and lists where the database says otherwise. The node may
run meanwhile. Ends with 1 if there is a difference.`
}

func (cmd checkCmd) Run(ctx context.Context) error {
	c, err := cmd.read()
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	sum, err := node.Check(ctx, c, cmd.Ledger, func(d check.Difference) {
		if !cmd.JSON {
			fmt.Println(d)
			return
		}
		// Whoever reads may have gone; the count at the end still fails.
		_ = out.Encode(d)
	})
	if err != nil {
		return fmt.Errorf("check %s: %w", c.Dir, err)
	}
	if cmd.JSON {
		if err := out.Encode(sum); err != nil {
			return err
		}
	} else {
		fmt.Printf("%d ledger records, %d pins, %d messages, %d events, %d batches, %d data items and %d attachments were checked; %d entries are open, %d data items are erased, as recorded\n",
			sum.Records, sum.Pins, sum.Messages, sum.Events, sum.Batches, sum.Data, sum.Blobs, sum.Open, sum.Erased)
	}
	if sum.Differences > 0 {
		return fmt.Errorf("%d differences", sum.Differences)
	}
	return nil
}
