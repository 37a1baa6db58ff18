package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ethereum/go-ethereum/rpc"

	"github.com/parley-node/parley/internal/ledger/bundled"
	"github.com/parley-node/parley/internal/node"
)

// Kinds of ledger.
const (
	LedgerBundled = "bundled" // each member runs a validator
	LedgerDev     = "dev"     // one validator for all, a process of its own
)

// NetworkOptions say what network to found.
type NetworkOptions struct {
	Dir      string // the members' folders are made below it
	Names    []string
	Ledger   string
	Relays   bool   // put a relay in front of each member's exchange
	LogLevel string // of the nodes; info if empty
}

// Network is a network of members, each a process of its own, on this machine.
type Network struct {
	Members []*Member
	RPC     string // of the ledger, at the founder

	o   NetworkOptions
	dev *process // the only validator of a dev ledger
}

// chainID is what the ledger of a demonstration calls itself.
const chainID = 2021

// NewNetwork makes the folders of a network's members and founds it; Start
// starts it.
func NewNetwork(ctx context.Context, o NetworkOptions) (n *Network, err error) {
	n = &Network{o: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Stop())
		}
	}()
	ports, err := freePorts(7*len(o.Names) + 2)
	if err != nil {
		return n, err
	}
	take := func() string {
		address := ports[0]
		ports = ports[1:]
		return address
	}
	if o.Ledger == LedgerDev {
		if err := n.startDev(take(), take()); err != nil {
			return n, err
		}
	}
	var public []node.Member
	for _, name := range o.Names {
		c := &node.Config{
			Dir: filepath.Join(o.Dir, name), Org: node.OrgConfig{Name: name},
			API: node.APIConfig{Listen: take()}, Admin: node.ListenConfig{Listen: take()}, Metrics: node.ListenConfig{Listen: take()},
			Exchange: node.ExchangeConfig{Listen: take()}, Log: node.LogConfig{Level: o.LogLevel},
		}
		m, err := newMember(c)
		if err != nil {
			return n, err
		}
		n.Members = append(n.Members, m)
		advertise := take()
		if o.Relays {
			l, err := net.Listen("tcp", advertise)
			if err != nil {
				return n, err
			}
			m.relay = newRelay(l, c.Exchange.Listen)
			c.Exchange.Advertise = []string{advertise}
		}
		if o.Ledger == LedgerDev {
			c.Ledger = node.LedgerConfig{URLs: []string{n.RPC}, WebSocket: "ws" + n.RPC[len("http"):], Fees: "zero"}
		} else {
			c.Ledger.Bundled = &node.BundledConfig{RPC: take(), P2P: take()}
		}
		member, err := node.Init(ctx, c)
		if err != nil {
			return n, err
		}
		public = append(public, *member)
	}
	founder := n.Members[0]
	if o.Ledger == LedgerBundled {
		n.RPC = "http://" + founder.Config.Ledger.Bundled.RPC
	}
	if n.dev != nil {
		err := waitFor(ctx, "the ledger answers", func(ctx context.Context) (bool, error) {
			if err := n.alive(); err != nil {
				return false, err
			}
			return answers(ctx, n.RPC)
		})
		if err != nil {
			return n, err
		}
	}
	described, err := node.FoundNetwork(ctx, founder.Config, node.FoundOptions{ChainID: chainID, Members: public})
	if err != nil {
		return n, err
	}
	for _, m := range n.Members[1:] {
		if err := described.Join(m.Config); err != nil {
			return n, err
		}
	}
	return n, nil
}

// startDev starts the only validator of a dev ledger.
func (n *Network) startDev(rpc, p2p string) error {
	dir := filepath.Join(n.o.Dir, "ledger")
	if _, err := bundled.InitNetwork([]string{dir}, bundled.GenesisConfig{ChainID: chainID, Time: time.Now()}); err != nil {
		return err
	}
	n.RPC = "http://" + rpc
	var err error
	n.dev, err = startProcess(filepath.Join(dir, "ledger.log"), nil, node.LedgerArgs(dir, node.BundledConfig{RPC: rpc, P2P: p2p})...)
	return err
}

// Start starts the members, all if none are named, and deploys the network's
// contract.
func (n *Network) Start(ctx context.Context, members ...*Member) error {
	if len(members) == 0 {
		members = n.Members
	}
	for _, m := range members {
		if err := m.Start(); err != nil {
			return err
		}
	}
	if err := n.validate(ctx, members); err != nil {
		return err
	}
	var last error
	err := waitFor(ctx, "the network's contract is on the ledger", func(ctx context.Context) (bool, error) {
		if err := n.alive(); err != nil {
			return false, err
		}
		_, last = node.Deploy(ctx, n.Members[0].Config)
		return last == nil, nil
	})
	return errors.Join(err, last)
}

// Ready waits until all members that run know all members by name and node.
func (n *Network) Ready(ctx context.Context) error {
	for _, m := range n.Members {
		if !m.up() {
			continue
		}
		err := waitFor(ctx, m.Name+" knows all members by name and node", func(ctx context.Context) (bool, error) {
			if err := n.alive(); err != nil {
				return false, err
			}
			orgs, err := m.API.Organisations(ctx, nil)
			if err != nil {
				return false, nil // not up yet
			}
			nodes, err := m.API.Nodes(ctx, nil)
			return err == nil && len(orgs) == len(n.Members) && len(nodes) == len(n.Members), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// LedgerPID is the process id of a dev ledger's only validator; 0 without one.
func (n *Network) LedgerPID() int {
	if n.dev == nil {
		return 0
	}
	return n.dev.pid()
}

// validate waits until the validators of the members agree with each other. A
// transaction that comes before is thrown away by those who are not there yet,
// and costs seconds.
func (n *Network) validate(ctx context.Context, members []*Member) error {
	if n.dev != nil {
		return nil
	}
	for _, m := range members {
		c, err := rpc.DialContext(ctx, "http://"+m.Config.Ledger.Bundled.RPC)
		if err != nil {
			return err
		}
		defer c.Close()
		err = waitFor(ctx, "the validator of "+m.Name+" takes part", func(ctx context.Context) (bool, error) {
			if err := n.alive(); err != nil {
				return false, err
			}
			var st bundled.Status
			err := c.CallContext(ctx, &st, "parley_status")
			return err == nil && !st.Syncing && st.Height > 0, nil // an error: not up yet
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// alive says which process has ended, if one has.
func (n *Network) alive() error {
	for _, m := range n.Members {
		if m.proc != nil && !m.proc.running() && !m.proc.ended {
			return fmt.Errorf("the node of %s has ended (%v); its last words: %s", m.Name, m.proc.err, lastLine(m.logFile()))
		}
	}
	if n.dev != nil && !n.dev.running() {
		return fmt.Errorf("the ledger has ended (%v); its last words: %s", n.dev.err, lastLine(filepath.Join(n.o.Dir, "ledger", "ledger.log")))
	}
	return nil
}

// Stop stops all processes, the ledger last.
func (n *Network) Stop() error {
	errs := make([]error, len(n.Members))
	done := make(chan struct{})
	for i, m := range n.Members {
		go func() {
			if m.proc != nil {
				errs[i] = m.proc.stop()
			}
			if m.relay != nil {
				errs[i] = errors.Join(errs[i], m.relay.close())
			}
			done <- struct{}{}
		}()
	}
	for range n.Members {
		<-done
	}
	err := errors.Join(errs...)
	if n.dev != nil {
		err = errors.Join(err, n.dev.stop())
	}
	return err
}

// freePorts finds loopback addresses that nobody listens on.
func freePorts(count int) ([]string, error) {
	var addresses []string
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // all at the end, so that none is found twice
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// lastLine is the end of a log, for error messages.
func lastLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return lastOf(string(text))
}
