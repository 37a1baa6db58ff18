package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/parley-node/parley/client"
)

// claim is one step of the story: what is done, and what must then be true.
type claim struct {
	step  string
	least int // members needed; 0 for any number
	// play does it and checks it. It gives a line or two of plain words, and the
	// ids of what it made.
	play func(*story, context.Context) (told, error)
	// fault says what --break plants, from outside, so that the claim is false.
	fault string
}

// told is what a step has to say.
type told struct {
	text string
	ids  map[string]string
}

// claims are the story, in order.
var claims = []claim{
	{"ready", 0, (*story).ready, "one member is never started"},
	{"broadcast", 0, (*story).broadcast, "one member is killed before the datatype and the price list are sent"},
	{"schema", 0, (*story).schema, "a record that conforms is sent instead of the broken one"},
	{"private", 0, (*story).private, "the attachment is changed before it is uploaded"},
	{"reply", 0, (*story).reply, "the reply does not name the message that it answers"},
	{"same-order", 0, (*story).sameOrder, "one side writes to the topic without telling the other"},
	{"ledger", 3, (*story).ledger, "the outsider's copy of the ledger is changed in its database"},
	{"outsider-api", 3, (*story).outsiderAPI, "the outsiders are made receivers of one more copy of the record"},
	{"outsider-pull", 3, (*story).outsiderPull, "the outsider's pull is made with a receiver's certificate"},
	{"outsider-decrypt", 3, (*story).outsiderDecrypt, "the outsider is given the receivers' secrets"},
	{"outsider-files", 3, (*story).outsiderFiles, "the attachment is copied into the outsider's folder"},
	{"no-overtaking", 3, (*story).noOvertaking, "the second message is sent on another topic, so that nothing holds it"},
	{"one-order", 0, (*story).oneOrder, "a message on the topic is shown to some members only"},
	{"crash", 0, (*story).crash, "the event of a message that the killed member had confirmed is deleted from its database"},
	{"nothing-twice", 0, (*story).nothingTwice, "an event of the killed member is doubled in its database"},
}

// Steps are the names of the story's steps, for --break.
func Steps() []string {
	var steps []string
	for _, c := range claims {
		steps = append(steps, c.step)
	}
	return steps
}

// Faults tells for each step what --break plants.
func Faults() string {
	var b strings.Builder
	for _, c := range claims {
		fmt.Fprintf(&b, "  %-17s %s\n", c.step, c.fault)
	}
	return b.String()
}

// story is the demonstration under way.
type story struct {
	*Network
	report *report
	o      Options
	broken bool // a fault is to be planted for the step under way

	// What earlier steps leave to later ones.
	record *client.Message // the private message
	blob   string          // data id of its attachment
	root   string          // of the batch that carried it
}

// How long a claim may take to come true: a healthy network takes a fraction of
// a second. A network with a member that is never started never gets ready, and
// that much patience shows it.
const (
	patience      = 45 * time.Second
	patienceReady = 20 * time.Second // if a fault is planted
)

// errClaim is a claim that did not hold.
type errClaim struct {
	step string
	error
}

func (e *errClaim) Error() string { return fmt.Sprintf("step %s does not hold: %v", e.step, e.error) }
func (e *errClaim) Unwrap() error { return e.error }

// play goes through the story until a claim does not hold.
func (s *story) play(ctx context.Context) error {
	for _, c := range claims {
		if len(s.Members) < c.least {
			if s.o.Break == c.step {
				return fmt.Errorf("step %s needs %d members, there are %d", c.step, c.least, len(s.Members))
			}
			continue
		}
		s.broken = s.o.Break == c.step
		limit := patience
		if s.broken {
			if c.step == "ready" {
				limit = patienceReady
			}
			s.report.say("planting a fault for step %s: %s", c.step, c.fault)
		}
		step, cancel := context.WithTimeout(ctx, limit)
		what, err := c.play(s, step)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && s.broken {
			err = errors.New("a fault was planted, and the check did not notice")
			s.report.tell(Fact{Step: c.step, Text: c.step + ": the check is worthless", Error: err.Error()})
			return &errClaim{c.step, err}
		}
		if err != nil {
			s.report.tell(Fact{Step: c.step, Text: c.step + " does not hold", Error: err.Error(), IDs: what.ids})
			return &errClaim{c.step, err}
		}
		if what.text != "" { // ready has told more than a text
			s.report.tell(Fact{Step: c.step, OK: true, Text: what.text, IDs: what.ids})
		}
	}
	return nil
}

// The roles of the story. insurer-b and the regulator are those who are not
// told; which of them there are depends on the number of members.
func (s *story) hospital() *Member { return s.Members[0] }
func (s *story) insurerA() *Member { return s.Members[1] }

// outsiders are the members who do not belong to the private group.
func (s *story) outsiders() []*Member { return s.Members[2:min(4, len(s.Members))] }

// ready starts the members and waits until all know each other.
func (s *story) ready(ctx context.Context) (told, error) {
	start := s.Members
	if s.broken {
		start = start[:len(start)-1]
	}
	if err := s.Start(ctx, start...); err != nil {
		return told{}, err
	}
	s.report.say("the network's contract is on the ledger: %s", s.hospital().Config.Ledger.Contract)
	if err := s.Ready(ctx); err != nil {
		return told{}, err
	}
	f := Fact{Step: "ready", OK: true, Text: fmt.Sprintf("ready: %d members are admitted and know each other", len(s.Members))}
	for _, m := range s.Members {
		pid, validator, err := m.PIDs(ctx)
		if err != nil {
			return told{}, err
		}
		f.Members = append(f.Members, MemberFact{
			Org: m.Name, API: "http://" + m.Config.API.Listen, Admin: "http://" + m.Config.Admin.Listen, Metrics: "http://" + m.Config.Metrics.Listen,
			PID: pid, ValidatorPID: validator, Dir: m.Config.Dir,
		})
	}
	f.Ledger = &LedgerFact{RPC: s.RPC, ChainID: s.hospital().Config.Ledger.ChainID, Contract: s.hospital().Config.Ledger.Contract.String()}
	s.report.tell(f)
	return told{}, nil
}

// leaveRunning tells what one can do with the network now.
func (s *story) leaveRunning() {
	h, b := s.hospital().Config.API.Listen, s.Members[len(s.Members)-1].Config.API.Listen
	s.report.text("\nThe network keeps running. Ctrl-C stops it.\n\n")
	for _, m := range s.Members {
		s.report.text("  %-11s API http://%s/api/v1   admin http://%s   metrics http://%s/metrics\n", m.Name, m.Config.API.Listen, m.Config.Admin.Listen, m.Config.Metrics.Listen)
	}
	s.report.text("  %-11s %s\n\nTry:\n", "ledger", s.RPC)
	s.report.text("  curl -s http://%s/api/v1/messages?limit=3\n", h)
	s.report.text("  curl -s -H 'Content-Type: application/json' -d '{\"header\":{\"topics\":[\"news\"]},\"data\":[{\"value\":\"hello\"}]}' 'http://%s/api/v1/messages/broadcast?confirm=true'\n", h)
	s.report.text("  curl -s -H 'Content-Type: application/json' -d '{\"group\":{\"members\":[{\"identity\":\"%s\"}]},\"data\":[{\"value\":\"for you only\"}]}' 'http://%s/api/v1/messages/private?confirm=true'\n", s.insurerA().Name, h)
	s.report.text("  curl -s http://%s/api/v1/network/transfers?limit=3      # what %s sees of it\n", b, s.Members[len(s.Members)-1].Name)
	s.report.text("  curl -s http://%s/api/v1/status/ledger\n\n", h)
}
