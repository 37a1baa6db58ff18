package demo

import (
	"context"
	"fmt"
	"time"
)

// story is the demonstration under way.
type story struct {
	*Network
	report *report
	o      Options
}

// Patience with a claim that is to come true: a healthy network takes a
// fraction of a second.
const patience = 30 * time.Second

func (s *story) play(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	return nil
}

// ready starts the members and waits until all know each other.
func (s *story) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	if err := s.Start(ctx); err != nil {
		return err
	}
	s.report.say("the network contract is on the ledger")
	for _, m := range s.Members {
		err := waitFor(ctx, m.Name+" knows all members", func(ctx context.Context) (bool, error) {
			if err := s.alive(); err != nil {
				return false, err
			}
			var orgs, nodes []struct{ Name string }
			if m.get(ctx, "network/organizations", &orgs) != nil || m.get(ctx, "network/nodes", &nodes) != nil {
				return false, nil // not up yet
			}
			return len(orgs) == len(s.Members) && len(nodes) == len(s.Members), nil
		})
		if err != nil {
			return err
		}
	}
	f := Fact{Step: "ready", OK: true, Text: fmt.Sprintf("the network is ready: %d members know each other", len(s.Members))}
	for _, m := range s.Members {
		st, err := m.ledger(ctx)
		if err != nil {
			return err
		}
		f.Members = append(f.Members, MemberFact{
			Org: m.Name, API: m.API, Admin: m.admin, Metrics: "http://" + m.Config.Metrics.Listen,
			PID: m.proc.pid(), ValidatorPID: st.Connection.Validator.PID, Dir: m.Config.Dir,
		})
	}
	f.Ledger = &LedgerFact{RPC: s.RPC, ChainID: s.Members[0].Config.Ledger.ChainID, Contract: s.Members[0].Config.Ledger.Contract.String()}
	s.report.tell(f)
	return nil
}

// leaveRunning tells what one can do with the network now.
func (s *story) leaveRunning() {
	for _, m := range s.Members {
		s.report.say("%-10s API %s  admin %s", m.Name, m.API, m.admin)
	}
}

// Steps are the names of the story's steps, for --break.
func Steps() []string { return []string{"ready"} }
