package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/parley-node/parley/contracts"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/bundled"
	"github.com/parley-node/parley/internal/ledger/evm"
	"github.com/parley-node/parley/wire"
)

// NetworkFile describes a network to those who are to be members: where its
// contract is and how to reach its ledger. It holds no secret.
type NetworkFile struct {
	ChainID   uint64       `json:"chainId"`
	Contract  wire.Address `json:"contract"`
	FromBlock uint64       `json:"fromBlock,omitempty"`
	// Of the bundled ledger:
	Genesis []byte   `json:"genesis,omitempty"` // the genesis file: in base64, for all must have the same bytes
	Peers   []string `json:"peers,omitempty"`   // nodeId@host:port of validators
}

// ReadNetwork reads a network's description.
func ReadNetwork(path string) (*NetworkFile, error) {
	n := new(NetworkFile)
	if err := readJSON(path, n); err != nil {
		return nil, err
	}
	if n.ChainID == 0 || n.Contract.IsZero() {
		return nil, fmt.Errorf("%s: chainId or contract is missing; it is no network description as parley network found makes it", path)
	}
	return n, nil
}

// foundingFile is founding.json at the member that founds a network: what the
// contract is made with, and the first epoch with its secret.
type foundingFile struct {
	Nonce      uint64                    `json:"nonce"` // account nonce that gives the contract its address
	Members    []ledger.MemberAdmitted   `json:"members"`
	Params     ledger.Params             `json:"params"`
	Policy     ledger.Policy             `json:"policy"`
	Validators []ledger.ValidatorChanged `json:"validators,omitempty"`
	Definition wire.EpochDefinition      `json:"definition"`
	Secret     wire.EpochSecret          `json:"secret"`
}

const foundingName = "founding.json"

// FoundOptions are the choices of who founds a network.
type FoundOptions struct {
	ChainID uint64        // of a new bundled ledger; on another chain that chain's is taken
	Members []Member      // founding members; the founder is added if it is missing
	Params  ledger.Params // ledger.DefaultParams if zero
	Policy  ledger.Policy // majority if zero
}

// FoundNetwork prepares a network in the founder's folder: its first epoch, the
// genesis of a bundled ledger, and the address that the contract will have. It
// deploys nothing yet; see Deploy.
func FoundNetwork(ctx context.Context, c *Config, o FoundOptions) (*NetworkFile, error) {
	path := filepath.Join(c.Dir, foundingName)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, fmt.Errorf("%s exists already: this member has founded a network; use another folder for another network", path))
	}
	self, err := MemberOf(ctx, c)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(o.Members, func(m Member) bool { return m.Org == self.Org }) {
		o.Members = append([]Member{*self}, o.Members...)
	}
	if o.Params == (ledger.Params{}) {
		o.Params = ledger.DefaultParams
	}
	n := &NetworkFile{ChainID: o.ChainID}
	f := foundingFile{Params: o.Params, Policy: o.Policy}
	var orgs []wire.OrgID
	for _, m := range o.Members {
		if slices.Contains(orgs, m.Org) {
			return nil, fmt.Errorf("member %q is given twice", m.Name)
		}
		orgs = append(orgs, m.Org)
		f.Members = append(f.Members, ledger.MemberAdmitted{Org: m.Org, Key: m.Key})
	}
	if c.Ledger.Bundled == nil {
		chain, err := openChain(ctx, c, evm.Config{})
		if err != nil {
			return nil, err
		}
		defer chain.Close()
		state, err := chain.State(ctx, &self.Key)
		if err != nil {
			return nil, err
		}
		n.ChainID, n.FromBlock, f.Nonce = state.ChainID, state.Head.Number, state.Nonce
	}
	n.Contract = contracts.AddressOf(self.Key, f.Nonce)
	if c.Ledger.Bundled != nil {
		if err := n.foundLedger(&f, o.Members); err != nil {
			return nil, err
		}
	}
	founding, err := Found(wire.NetworkID(n.ChainID, n.Contract), self.Org, orgs, time.Now())
	if err != nil {
		return nil, err
	}
	f.Definition, f.Secret = founding.Definition, founding.Secret
	if err := WriteJSON(path, f); err != nil {
		return nil, err
	}
	c.Founding = foundingName
	return n, n.Join(c)
}

// foundLedger makes the genesis of a bundled ledger of the members' validators.
func (n *NetworkFile) foundLedger(f *foundingFile, members []Member) error {
	g := bundled.GenesisConfig{ChainID: n.ChainID, Time: time.Now(), NetworkContract: n.Contract}
	for _, m := range members {
		if m.Validator == nil {
			return fmt.Errorf("member %q has no validator; let it make its folder with parley init --ledger bundled", m.Name)
		}
		g.Validators = append(g.Validators, bundled.GenesisValidator{PublicKey: m.Validator.PublicKey, Power: validatorPower, Name: m.Name})
		g.Funded = append(g.Funded, m.Key)
		f.Validators = append(f.Validators, ledger.ValidatorChanged{Key: m.Validator.PublicKey, Power: validatorPower})
		n.Peers = append(n.Peers, m.Validator.Peer)
	}
	var err error
	n.Genesis, err = bundled.Genesis(g)
	return err
}

// validatorPower is the voting power of a founding validator.
const validatorPower = 10

// Join makes the network the one of a member's folder.
func (n *NetworkFile) Join(c *Config) error {
	l := &c.Ledger
	if !l.Contract.IsZero() && l.Contract != n.Contract {
		return fmt.Errorf("%s belongs to the network of contract %s; use another folder for another network", c.Dir, l.Contract)
	}
	l.ChainID, l.Contract, l.FromBlock = n.ChainID, n.Contract, n.FromBlock
	switch {
	case len(n.Genesis) > 0 && l.Bundled != nil:
		dir := c.path(l.Bundled.Dir)
		if err := bundled.WriteGenesis(dir, n.Genesis); err != nil {
			return err
		}
		id, err := bundled.ReadIdentity(dir)
		if err != nil {
			return err
		}
		l.Bundled.Peers = slices.DeleteFunc(slices.Clone(n.Peers), func(p string) bool { return len(p) > len(id.NodeID) && p[:len(id.NodeID)] == id.NodeID })
	case len(n.Genesis) > 0 && len(l.URLs) == 0:
		return errors.New("the network uses the bundled ledger, and this folder was made without it; make it with parley init --ledger bundled, or set ledger.urls")
	case len(n.Genesis) == 0 && l.Bundled != nil:
		return errors.New("the network uses a chain that others run; make the folder with parley init --ledger URL")
	}
	return c.write()
}

// Invite describes the network of a member's folder to those who want to join
// it. The member's own validator is the first that they are to connect to.
func Invite(ctx context.Context, c *Config) (*NetworkFile, error) {
	n := &NetworkFile{ChainID: c.Ledger.ChainID, Contract: c.Ledger.Contract, FromBlock: c.Ledger.FromBlock}
	if c.Ledger.Bundled == nil {
		return n, nil
	}
	self, err := MemberOf(ctx, c)
	if err != nil {
		return nil, err
	}
	n.Peers = append([]string{self.Validator.Peer}, c.Ledger.Bundled.Peers...)
	n.Genesis, err = bundled.ReadGenesis(c.path(c.Ledger.Bundled.Dir))
	return n, err
}

// Deploy puts the network contract of the founder's folder on the chain and
// waits until it is final there. One that is there already is no error.
func Deploy(ctx context.Context, c *Config) (evm.Deployed, error) {
	var f foundingFile
	if err := readJSON(filepath.Join(c.Dir, foundingName), &f); err != nil {
		return evm.Deployed{}, fmt.Errorf("this member has founded no network (parley network found): %w", err)
	}
	hash, err := f.Definition.Hash()
	if err != nil {
		return evm.Deployed{}, err
	}
	chain, err := openChain(ctx, c, evm.Config{Contract: c.Ledger.Contract, ChainID: c.Ledger.ChainID})
	if err != nil {
		return evm.Deployed{}, err
	}
	defer chain.Close()
	ks, err := openKeys(c)
	if err != nil {
		return evm.Deployed{}, err
	}
	addresses, err := ks.Addresses(ctx)
	if err != nil {
		return evm.Deployed{}, err
	}
	state, err := chain.State(ctx, &addresses[0])
	if err != nil {
		return evm.Deployed{}, err
	}
	switch {
	case state.Records > 0:
		return evm.Deployed{Contract: c.Ledger.Contract, Block: c.Ledger.FromBlock}, nil
	case state.Nonce != f.Nonce:
		return evm.Deployed{}, fmt.Errorf("account %s has sent %d transactions since the network was prepared, so the contract would get another address; remove %s and run parley network found again",
			addresses[0], state.Nonce-f.Nonce, filepath.Join(c.Dir, foundingName))
	}
	return chain.Deploy(ctx, addresses[0], evm.Founding{Members: f.Members, Params: f.Params, Policy: f.Policy, Epoch1: hash, Validators: f.Validators})
}

// openChain connects to the configured chain with the member's keys.
func openChain(ctx context.Context, c *Config, cfg evm.Config) (*evm.Ledger, error) {
	ks, err := openKeys(c)
	if err != nil {
		return nil, err
	}
	cfg.Keys = ks
	if cfg.Fees, err = evm.ParseFees(c.Ledger.Fees); err != nil {
		return nil, err
	}
	cfg.URLs, cfg.WebSocket = c.Ledger.URLs, c.Ledger.WebSocket
	if c.Ledger.Bundled != nil {
		cfg.URLs = []string{"http://" + c.Ledger.Bundled.RPC}
	}
	return evm.Open(ctx, cfg)
}

// readFounding reads the network's first epoch at the member that founded it;
// nil at the others.
func readFounding(c *Config) (*Founding, error) {
	if c.Founding == "" {
		return nil, nil
	}
	var f foundingFile
	if err := readJSON(c.path(c.Founding), &f); err != nil {
		return nil, fmt.Errorf("founding: %w", err)
	}
	if id := wire.NetworkID(c.Ledger.ChainID, c.Ledger.Contract); f.Definition.Network != id {
		return nil, fmt.Errorf("founding: %s is of network %s, the configuration names network %s; correct ledger.chainId and ledger.contract, or remove the key founding", c.path(c.Founding), f.Definition.Network, id)
	}
	return &Founding{Definition: f.Definition, Secret: f.Secret}, nil
}
