// Package demo founds a network of organisations on this machine, each a
// process of its own with its own folder, and plays a story on it. Every claim
// of the story is checked through the public API or on the ledger; what it does
// to the nodes it does from outside.
//
// process.go, network.go and member.go run the organisations, relay.go disturbs
// their network, story.go plays, probe.go tries to read what is not meant for
// the reader, fault.go plants what makes a claim fail, report.go tells.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Options of a demonstration.
type Options struct {
	Dir     string // for the members' folders; a temporary one if empty
	Members int
	Ledger  string // LedgerBundled or LedgerDev
	Once    bool   // end after the story
	JSON    bool
	Break   string // step whose claim a fault is planted for
	Verbose bool
	Out     io.Writer
}

// names of the members, in order; the first founds the network.
var names = []string{"hospital", "insurer-a", "insurer-b", "regulator", "laboratory", "pharmacy", "ambulance", "auditor"}

// Names are those of the first members.
func Names(count int) []string { return slices.Clone(names[:count]) }

// Bounds of Options.Members.
const (
	MinMembers     = 2
	DefaultMembers = 4 // the least that a Byzantine fault tolerant ledger of one validator each needs to survive a loss
)

// MaxMembers is how many members the demonstration has names for.
var MaxMembers = len(names)

// Run founds a network, plays the story and, unless Once is set, leaves it
// running until ctx ends. An error says which claim did not hold, and why.
func Run(ctx context.Context, o Options) (err error) {
	r := newReport(o.Out, o.JSON)
	dir := o.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "parley-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	r.say("%d organisations found a network: %s (folders in %s)", o.Members, strings.Join(names[:o.Members], ", "), dir)
	level := "warn"
	if o.Verbose {
		level = "debug"
	}
	n, err := NewNetwork(ctx, NetworkOptions{Dir: dir, Names: names[:o.Members], Ledger: o.Ledger, Relays: true, LogLevel: level})
	if err != nil {
		return fmt.Errorf("found the network: %w", err)
	}
	defer func() {
		r.say("stopping %d nodes", len(n.Members))
		err = errors.Join(err, n.Stop())
	}()
	s := &story{Network: n, report: r, o: o}
	if err := s.play(ctx); err != nil {
		return err
	}
	if o.Once {
		return nil
	}
	s.leaveRunning()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
			if err := n.alive(); err != nil {
				return err
			}
		}
	}
}

// CheckBreak says whether there is a step of this name.
func CheckBreak(step string) error {
	if step == "" || slices.Contains(Steps(), step) {
		return nil
	}
	return fmt.Errorf("there is no step %q to break; the steps are %s", step, strings.Join(Steps(), ", "))
}
