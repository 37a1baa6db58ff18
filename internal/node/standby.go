package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/store"
)

// StandbyConfig makes this process one of several of the same node on one
// PostgreSQL database. They have the same organisation, node, keys, certificate
// and advertised addresses. One is active; the others read, take messages in and
// serve subscriptions, and one of them takes over when it is gone.
type StandbyConfig struct {
	Name  string        `yaml:"name,omitempty"`  // of this process, for people; the machine's name and the API's port
	API   string        `yaml:"api,omitempty"`   // URL at which its API is reached, for people; from api.listen
	Lease time.Duration `yaml:"lease,omitempty"` // silence after which others take its place; 3s. One that died is followed after a third of it
}

// checkStandby says what keeps several processes from being one node.
func (c *Config) checkStandby(bad func(field, format string, args ...any)) {
	s := c.Standby
	if s == nil {
		return
	}
	if !strings.HasPrefix(c.Database, "postgres://") && !strings.HasPrefix(c.Database, "postgresql://") {
		bad("standby", "database is %q, which one process has for itself; processes that stand by for each other share a PostgreSQL database (postgres://…)", c.Database)
	}
	if c.Ledger.Bundled != nil {
		bad("standby", "ledger.bundled is set, and a validator's key must be in exactly one process; run the validator by itself with \"parley ledger run\", and give the URL of its JSON-RPC in ledger.urls")
	}
	if s.Lease != 0 && s.Lease < time.Second {
		bad("standby.lease", "%s is shorter than a busy machine may keep a process waiting; give at least 1s", s.Lease)
	}
}

// shared is what the database is told of this process; nil without stand-by.
func (c *Config) shared() *store.Shared {
	if c.Standby == nil {
		return nil
	}
	s := &store.Shared{Name: c.Standby.Name, Node: c.Node.ID, API: cmp.Or(c.Standby.API, "http://"+c.API.Listen), Lease: c.Standby.Lease}
	if s.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown host"
		}
		s.Name = host + " " + c.API.Listen
	}
	return s
}

// work runs the node's workers until ctx ends: from now on, or, among processes
// that share a database, from when this one has the lease.
func (ns *Namespace) work(ctx context.Context) error {
	if !ns.db.Shared() {
		return ns.Node.Run(ctx)
	}
	// The workers end first, while this process still has its place.
	place, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	active, changed := make(chan struct{}), make(chan struct{}, 1)
	watched := make(chan error, 1)
	go func() {
		watched <- ns.db.Watch(place, store.Watcher{
			Active: func(term int64) {
				ns.log.Info("this process is active", "term", term)
				close(active)
			},
			Changed: func() {
				select {
				case changed <- struct{}{}:
				default:
				}
			},
		})
	}()
	go ns.followOthers(place, changed)

	workers, stop := context.WithCancel(ctx)
	defer stop()
	var err error
	select {
	case <-active:
		done := make(chan error, 1)
		go func() { done <- ns.runActive(workers) }()
		select {
		case overtaken := <-watched:
			stop()
			return errors.Join(overtaken, <-done)
		case err = <-done:
		}
	case overtaken := <-watched:
		return overtaken
	case <-ctx.Done():
		err = ns.Subscriptions.Close(context.WithoutCancel(ctx))
	}
	leave()
	return errors.Join(err, <-watched)
}

// runActive runs the workers on what the process before this one has left.
func (ns *Namespace) runActive(ctx context.Context) error {
	if err := ns.db.Read(ctx, ns.Network.Load); err != nil {
		return fmt.Errorf("load the network's members: %w", err)
	}
	return ns.Node.Run(ctx)
}

// followInterval is the shortest time between two looks at what other processes
// have committed.
const followInterval = 10 * time.Millisecond

// followOthers makes this process look at what others have committed.
func (ns *Namespace) followOthers(ctx context.Context, changed <-chan struct{}) {
	for ctx.Err() == nil {
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		if err := ns.db.Read(ctx, ns.Network.LoadNew); err != nil && ctx.Err() == nil {
			ns.log.Warn("read what other processes of this node have stored", "err", err)
		}
		ns.Events.Committed()
		ns.Messages.WakeAll()
		pause(ctx, followInterval)
	}
}
