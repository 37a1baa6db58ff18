package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/parley-node/parley/internal/ledger/evm"
	"github.com/parley-node/parley/internal/node"
)

// memberFile is the public part of a member, in its folder.
const memberFile = "member.json"

type initCmd struct {
	Dir            string   `short:"d" required:"" type:"path" help:"The folder to make." placeholder:"DIR"`
	Org            string   `required:"" help:"Name of the organisation. It cannot change later." placeholder:"NAME"`
	Node           string   `help:"Name of its node; the organisation's name and -node if not given." placeholder:"NAME"`
	API            string   `name:"api" default:"127.0.0.1:5000" help:"host:port of the API for applications." placeholder:"HOST:PORT"`
	Admin          string   `default:"127.0.0.1:5001" help:"host:port of the operator's status." placeholder:"HOST:PORT"`
	Metrics        string   `default:"127.0.0.1:6000" help:"host:port of the metrics." placeholder:"HOST:PORT"`
	Exchange       string   `default:"0.0.0.0:5002" help:"host:port to accept other members' nodes on." placeholder:"HOST:PORT"`
	Advertise      []string `required:"" help:"host:port at which other members reach that; may be repeated." placeholder:"HOST:PORT"`
	Ledger         []string `default:"bundled" help:"bundled, to run a validator of the bundled ledger, or the http(s) JSON-RPC URLs of a chain that others run." placeholder:"bundled|URL"`
	WebSocket      string   `name:"websocket" help:"ws(s) endpoint of that chain that announces blocks." placeholder:"URL"`
	Fees           string   `help:"What transactions on that chain pay: auto, zero, legacy or dynamic." placeholder:"FEES"`
	RPC            string   `name:"rpc" default:"127.0.0.1:8545" help:"Loopback host:port of the validator's JSON-RPC." placeholder:"HOST:PORT"`
	P2P            string   `name:"p2p" default:"0.0.0.0:26656" help:"host:port for other validators." placeholder:"HOST:PORT"`
	P2PAdvertise   string   `name:"p2p-advertise" help:"host:port at which others reach that." placeholder:"HOST:PORT"`
	PassphraseFile string   `type:"existingfile" help:"File whose first line encrypts the keys; without it they are plain files." placeholder:"FILE"`
}

// Help adds to --help.
func (initCmd) Help() string {
	return `Makes a member's folder: parley.yaml, signing and sealing keys, a TLS certificate,
a validator's keys, and member.json, the public part, which is signed.

Then either found a network together:
    every member sends its member.json to one of them, who runs  parley network found
or join one:
    a member makes an invitation with  parley invite;  you run  parley join`
}

func (cmd initCmd) Run(ctx context.Context) error {
	c := &node.Config{
		Dir: cmd.Dir, Org: node.OrgConfig{Name: cmd.Org}, Node: node.NodeConfig{Name: cmd.Node},
		API: node.APIConfig{Listen: cmd.API}, Admin: node.ListenConfig{Listen: cmd.Admin}, Metrics: node.ListenConfig{Listen: cmd.Metrics},
		Exchange: node.ExchangeConfig{Listen: cmd.Exchange, Advertise: cmd.Advertise},
		Keys:     node.KeysConfig{PassphraseFile: cmd.PassphraseFile},
		Ledger:   node.LedgerConfig{Fees: cmd.Fees},
	}
	if len(cmd.Ledger) == 1 && cmd.Ledger[0] == "bundled" {
		c.Ledger.Bundled = &node.BundledConfig{RPC: cmd.RPC, P2P: cmd.P2P, Advertise: cmd.P2PAdvertise}
	} else {
		for _, u := range cmd.Ledger {
			if !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") {
				return usageError{fmt.Errorf("--ledger %q is neither bundled nor an http(s) URL", u)}
			}
		}
		c.Ledger.URLs, c.Ledger.WebSocket = cmd.Ledger, cmd.WebSocket
	}
	if cmd.Fees != "" {
		if _, err := evm.ParseFees(cmd.Fees); err != nil {
			return usageError{err}
		}
	}
	m, err := node.Init(ctx, c)
	if err != nil {
		return err
	}
	path := filepath.Join(c.Dir, memberFile)
	if err := node.WriteJSON(path, m); err != nil {
		return err
	}
	fmt.Printf("%s is a member's folder now.\n  organisation  %s (%s)\n  signing key   %s\n  public part   %s\n", c.Dir, m.Name, m.Org, m.Key, path)
	if c.Keys.PassphraseFile == "" {
		fmt.Println("The keys in it are not encrypted: protect the folder.")
	}
	return nil
}

type joinCmd struct {
	folder
	Network string `required:"" type:"existingfile" help:"Description of the network, from parley network found or parley invite." placeholder:"FILE"`
}

// Help adds to --help.
func (joinCmd) Help() string {
	return `Makes the network that of this folder. A founding member then runs its node. Anybody
else sends member.json to a member, who proposes its admission (parley members
propose-admit); once the members have agreed, the node takes part.`
}

func (cmd joinCmd) Run(ctx context.Context) error {
	n, err := node.ReadNetwork(cmd.Network)
	if err != nil {
		return usageError{err}
	}
	c, err := node.LoadConfig(cmd.path())
	if err != nil {
		return usageError{err}
	}
	if err := n.Join(c); err != nil {
		return err
	}
	m, err := node.MemberOf(ctx, c)
	if err != nil {
		return err
	}
	path := filepath.Join(c.Dir, memberFile)
	if err := node.WriteJSON(path, m); err != nil {
		return err
	}
	fmt.Printf("The network of contract %s on chain %d is now that of %s.\nRequest for admission, unless it is a founding member: %s\nRun it:  parley node run --dir %s\n", n.Contract, n.ChainID, c.Dir, path, c.Dir)
	return nil
}

type inviteCmd struct {
	folder
	Out string `default:"network.json" type:"path" help:"File to write the network's description to." placeholder:"FILE"`
}

func (cmd inviteCmd) Run(ctx context.Context) error {
	c, err := cmd.read()
	if err != nil {
		return err
	}
	n, err := node.Invite(ctx, c)
	if err != nil {
		return err
	}
	if err := node.WriteJSON(cmd.Out, n); err != nil {
		return err
	}
	fmt.Printf("%s describes the network; it holds no secret.\nThe new member runs:  parley init …  and  parley join --network %s\nand sends its member.json back, for:  parley members propose-admit member.json\n", cmd.Out, filepath.Base(cmd.Out))
	return nil
}
