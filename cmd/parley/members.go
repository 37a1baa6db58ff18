package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/internal/node"
)

type membersCmd struct {
	List           membersListCmd      `cmd:"" default:"withargs" help:"List the members as the ledger knows them."`
	Proposals      membersProposalsCmd `cmd:"" help:"List what the members voted on."`
	ProposeAdmit   proposeAdmitCmd     `cmd:"" help:"Propose to admit an organisation, from its member.json."`
	ProposeSuspend proposeSuspendCmd   `cmd:"" help:"Propose to suspend a member."`
	ProposeResume  proposeResumeCmd    `cmd:"" help:"Propose to resume a suspended member."`
	ProposeRemove  proposeRemoveCmd    `cmd:"" help:"Propose to remove a member for good."`
	Vote           voteCmd             `cmd:"" help:"Vote on a proposal."`
}

type membersListCmd struct{ nodeURL }

func (cmd membersListCmd) Run(ctx context.Context) error {
	c, err := cmd.client()
	if err != nil {
		return err
	}
	members, err := c.Members(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tORGANISATION\tSTATE\tKEYS\tNODE")
	for _, m := range members {
		state, endpoints := "active", "none registered"
		if !m.Active {
			state = "not active"
		}
		if m.Self {
			state += ", this node's"
		}
		if m.Node != nil {
			endpoints = strings.Join(m.Node.Endpoints, " ")
		}
		var keys []string
		for _, k := range m.Keys {
			if !k.Revoked {
				keys = append(keys, k.Address)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.ID, state, strings.Join(keys, " "), endpoints)
	}
	return w.Flush()
}

type membersProposalsCmd struct{ nodeURL }

func (cmd membersProposalsCmd) Run(ctx context.Context) error {
	c, err := cmd.client()
	if err != nil {
		return err
	}
	a, err := c.Administration(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tCHANGE\tSTATE\tVOTES")
	for _, p := range a.Proposals {
		state := "open"
		if p.Executed {
			state = "executed"
		}
		var votes []string
		for _, v := range p.Votes {
			answer := "no"
			if v.Approve {
				answer = "yes"
			}
			votes = append(votes, firstOf(v.Name, v.ID)+" "+answer)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", p.ID, changeText(p.Change), state, strings.Join(votes, ", "))
	}
	return w.Flush()
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func changeText(c client.Change) string {
	switch {
	case c.Admit != nil:
		return "admit " + c.Admit.Org
	case c.Suspend != "":
		return "suspend " + c.Suspend
	case c.Resume != "":
		return "resume " + c.Resume
	case c.Remove != "":
		return "remove " + c.Remove
	case c.Successor != "":
		return "successor " + c.Successor
	case c.Terminate:
		return "terminate"
	case c.Policy != nil:
		return "policy " + string(c.Policy)
	case c.Params != nil:
		return "params " + string(c.Params)
	case c.Validator != nil:
		return "validator " + string(c.Validator)
	}
	return "unknown"
}

type proposeAdmitCmd struct {
	nodeURL
	File string `arg:"" type:"existingfile" help:"member.json of the organisation."`
}

func (cmd proposeAdmitCmd) Run(ctx context.Context) error {
	m, err := node.ReadMember(cmd.File)
	if err != nil {
		return usageError{err}
	}
	fmt.Printf("%s asks to be admitted as organisation %s with key %s.\n", m.Name, m.Org, m.Key)
	return propose(ctx, cmd.nodeURL, client.Change{Admit: &client.Admission{Org: m.Org.String(), Key: m.Key.String()}})
}

// aMember names a member in a proposal.
type aMember struct {
	nodeURL
	Member string `arg:"" help:"Name, or id on the ledger, of the member."`
}

type (
	proposeSuspendCmd struct{ aMember }
	proposeResumeCmd  struct{ aMember }
	proposeRemoveCmd  struct{ aMember }
)

func (cmd proposeSuspendCmd) Run(ctx context.Context) error {
	return cmd.propose(ctx, func(org string) client.Change { return client.Change{Suspend: org} })
}

func (cmd proposeResumeCmd) Run(ctx context.Context) error {
	return cmd.propose(ctx, func(org string) client.Change { return client.Change{Resume: org} })
}

func (cmd proposeRemoveCmd) Run(ctx context.Context) error {
	return cmd.propose(ctx, func(org string) client.Change { return client.Change{Remove: org} })
}

func (a aMember) propose(ctx context.Context, change func(org string) client.Change) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	members, err := c.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.ID == a.Member || m.Name == a.Member {
			return propose(ctx, a.nodeURL, change(m.ID))
		}
	}
	return usageError{fmt.Errorf("there is no member %q; parley members lists them", a.Member)}
}

func propose(ctx context.Context, u nodeURL, change client.Change) error {
	c, err := u.client()
	if err != nil {
		return err
	}
	if err := c.Propose(ctx, change); err != nil {
		return err
	}
	fmt.Println("Proposed. Once it is on the ledger, parley members proposals shows it, with its number to vote on.")
	return nil
}

type voteCmd struct {
	nodeURL
	ID     uint64 `arg:"" help:"Number of the proposal."`
	Answer string `arg:"" enum:"yes,no" help:"yes or no."`
}

func (cmd voteCmd) Run(ctx context.Context) error {
	c, err := cmd.client()
	if err != nil {
		return err
	}
	if cmd.ID == 0 {
		return usageError{errors.New("proposals are numbered from 1")}
	}
	if err := c.Vote(ctx, cmd.ID, cmd.Answer == "yes"); err != nil {
		return err
	}
	fmt.Printf("Voted %s on proposal %d.\n", cmd.Answer, cmd.ID)
	return nil
}
