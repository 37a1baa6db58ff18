package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/wire"
)

type eraseCmd struct {
	Message eraseMessageCmd `cmd:"" help:"Erase the data of a message."`
	Data    eraseDataCmd    `cmd:"" help:"Erase a data item, in whatever messages it is."`
	Show    eraseShowCmd    `cmd:"" help:"Print an erasure with the answers of the members that were asked, as JSON."`
	Verify  eraseVerifyCmd  `cmd:"" help:"Verify the signatures of an erasure's answers, without any node."`
}

// eraseOptions are why and how far something is erased.
type eraseOptions struct {
	nodeURL
	Reason     string `required:"" help:"Why; it is recorded for ever."`
	Author     string `help:"Who wants it; the organisation if not given." placeholder:"WHO"`
	Recipients bool   `help:"Ask the other members that have it to erase it as well."`
	DryRun     bool   `help:"Only say how much it would be."`
}

func (o eraseOptions) run(erase func(*client.Client, client.Erase) (*client.Erasure, error)) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	done, err := erase(c, client.Erase{Reason: o.Reason, Author: o.Author, Recipients: o.Recipients, DryRun: o.DryRun})
	if err != nil {
		return err
	}
	if o.DryRun {
		fmt.Printf("%d data items of %d messages would be erased\n", done.Data, done.Messages)
		return nil
	}
	fmt.Printf("erased %d data items of %d messages: erasure %s\n", done.Data, done.Messages, done.ID)
	return nil
}

type eraseMessageCmd struct {
	ID string `arg:"" help:"Id of the message."`
	eraseOptions
}

func (cmd eraseMessageCmd) Run(ctx context.Context) error {
	return cmd.run(func(c *client.Client, e client.Erase) (*client.Erasure, error) { return c.EraseMessage(ctx, cmd.ID, e) })
}

type eraseDataCmd struct {
	ID string `arg:"" help:"Id of the data item."`
	eraseOptions
}

func (cmd eraseDataCmd) Run(ctx context.Context) error {
	return cmd.run(func(c *client.Client, e client.Erase) (*client.Erasure, error) { return c.EraseData(ctx, cmd.ID, e) })
}

type eraseShowCmd struct {
	ID string `arg:"" help:"Id of the erasure."`
	nodeURL
}

func (cmd eraseShowCmd) Run(ctx context.Context) error {
	c, err := cmd.client()
	if err != nil {
		return err
	}
	e, err := c.Erasure(ctx, cmd.ID)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(e)
}

type eraseVerifyCmd struct {
	File    string `arg:"" help:"What parley erase show printed." placeholder:"FILE"`
	Members string `required:"" help:"What GET network/members answers: whose key is whose." placeholder:"FILE"`
}

// Help adds to --help.
func (eraseVerifyCmd) Help() string {
	return `Tests that each request is signed by the organisation that asked, and each answer by
the one that gave it, for that very request. Ends with 1 if a signature does not
hold, or if a member has not erased.`
}

func (cmd eraseVerifyCmd) Run() error {
	var e client.Erasure
	var members []client.NetworkMember
	for file, to := range map[string]any{cmd.File: &e, cmd.Members: &members} {
		text, err := os.ReadFile(file)
		if err != nil {
			return usageError{err}
		}
		if err := json.Unmarshal(text, to); err != nil {
			return usageError{fmt.Errorf("%s: %w", file, err)}
		}
	}
	if len(e.Requests) == 0 {
		return fmt.Errorf("erasure %s asked nobody: there is nothing to verify", e.ID)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BATCH\tMEMBER\tANSWER\tREASON")
	missing := 0
	for _, r := range e.Requests {
		root, digest, err := verifiedRequest(r, members)
		if err != nil {
			return err
		}
		for _, a := range r.Answers {
			state, reason := "no answer yet", ""
			if len(a.Signed) > 0 {
				answer, err := verifiedAnswer(a, digest, members)
				if err != nil {
					return err
				}
				if state, reason = "refused", answer.Reason; answer.Erased {
					state = "erased"
				}
			}
			if state != "erased" {
				missing++
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", root.Short(), firstOf(a.Name, a.Org), state, reason)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if missing > 0 {
		return fmt.Errorf("%d members have not erased", missing)
	}
	return nil
}

// verifiedRequest decodes a request whose signature holds.
func verifiedRequest(r client.ErasureRequest, members []client.NetworkMember) (root, digest wire.Hash, err error) {
	var e wire.Erasure
	if err := wire.Unmarshal(r.Request, &e); err != nil {
		return root, digest, fmt.Errorf("request %s: %w", r.ID, err)
	}
	if err := e.Check(); err != nil {
		return root, digest, fmt.Errorf("request %s: %w", r.ID, err)
	}
	signer, err := e.Signer()
	if err == nil {
		err = ownedBy(signer, e.Org, members)
	}
	if err != nil {
		return root, digest, fmt.Errorf("request %s: %w", r.ID, err)
	}
	digest, err = e.Digest()
	return e.Root, digest, err
}

// verifiedAnswer decodes an answer to a request, given by its digest, whose
// signature holds.
func verifiedAnswer(a client.ErasureAnswer, digest wire.Hash, members []client.NetworkMember) (*wire.ErasureAnswer, error) {
	answer := new(wire.ErasureAnswer)
	if err := wire.Unmarshal(a.Signed, answer); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", a.Org, err)
	}
	if err := answer.Check(); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", a.Org, err)
	}
	if answer.Request != digest || answer.Org.String() != a.Org {
		return nil, fmt.Errorf("answer of %s: it is that of %s to the request %s", a.Org, answer.Org, answer.Request)
	}
	signer, err := answer.Signer()
	if err == nil {
		err = ownedBy(signer, answer.Org, members)
	}
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", a.Org, err)
	}
	return answer, nil
}

// ownedBy tests that a key is or was one of an organisation's.
func ownedBy(signer wire.Address, org wire.OrgID, members []client.NetworkMember) error {
	for _, m := range members {
		for _, k := range m.Keys {
			if m.ID == org.String() && k.Address == signer.String() {
				return nil
			}
		}
	}
	return fmt.Errorf("it is signed by %s, which is no key of %s", signer, org)
}
