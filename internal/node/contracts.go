package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"

	"github.com/parley-node/parley/internal/contract"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/keys/keystore"
	"github.com/parley-node/parley/internal/keys/remote"
	"github.com/parley-node/parley/internal/ledger/evm"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/nonce"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// ContractsConfig is the contract gateway: which chain, who pays what, and whose
// keys sign. Without it contracts are called on the network's ledger, with the
// organisation's keys and the ledger's fees.
type ContractsConfig struct {
	ChainID       uint64   `yaml:"chainId,omitempty"`       // of another chain than the network's
	URLs          []string `yaml:"urls,omitempty"`          // http(s) JSON-RPC endpoints of that chain; the next is used when one fails
	WebSocket     string   `yaml:"websocket,omitempty"`     // ws(s) endpoint that announces blocks; without it the chain is polled
	Confirmations uint64   `yaml:"confirmations,omitempty"` // blocks on top of a final one, on a chain that names none itself
	Fees          string   `yaml:"fees,omitempty"`          // auto, zero, legacy, dynamic or fixed; those of the ledger if empty
	GasPrice      string   `yaml:"gasPrice,omitempty"`      // wei per gas, with fixed fees
	MaxGasPrice   string   `yaml:"maxGasPrice,omitempty"`   // wei per gas that no offer exceeds, however often it is raised

	Keystore *KeystoreConfig `yaml:"keystore,omitempty"` // more keys, in a folder
	Signer   *SignerConfig   `yaml:"signer,omitempty"`   // more keys, on another machine
}

// KeystoreConfig is a folder of V3 key files, which is read again as it changes.
type KeystoreConfig struct {
	Dir            string `yaml:"dir"`
	PassphraseFile string `yaml:"passphraseFile,omitempty"` // its first line opens files that have no .password file of their own
}

// SignerConfig is a signing service, such as parley signer.
type SignerConfig struct {
	URL       string `yaml:"url"`                 // http(s)://host:port
	Protocol  string `yaml:"protocol,omitempty"`  // web3signer (the default) or jsonrpc (eth_signTransaction)
	TokenFile string `yaml:"tokenFile,omitempty"` // its first line is sent as a bearer token
	CAFile    string `yaml:"caFile,omitempty"`    // PEM certificates that the service's is checked against; the system's if empty
	CertFile  string `yaml:"certFile,omitempty"`  // PEM certificate of this node, for mutual TLS
	KeyFile   string `yaml:"keyFile,omitempty"`
}

// open connects to the service.
func (s *SignerConfig) open(path func(string) string) (*remote.Signer, error) {
	cfg := remote.Config{URL: s.URL, Protocol: s.Protocol}
	if s.TokenFile != "" {
		token, err := FirstLine(path(s.TokenFile))
		if err != nil {
			return nil, fmt.Errorf("contracts.signer.tokenFile: %w", err)
		}
		cfg.Token = token
	}
	if s.CAFile != "" || s.CertFile != "" {
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if s.CAFile != "" {
		text, err := os.ReadFile(path(s.CAFile))
		if err != nil {
			return nil, fmt.Errorf("contracts.signer.caFile: %w", err)
		}
		cfg.TLS.RootCAs = x509.NewCertPool()
		if !cfg.TLS.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("contracts.signer.caFile: %s holds no certificate in PEM", s.CAFile)
		}
	}
	if s.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(path(s.CertFile), path(s.KeyFile))
		if err != nil {
			return nil, fmt.Errorf("contracts.signer.certFile: %w", err)
		}
		cfg.TLS.Certificates = []tls.Certificate{pair}
	}
	signer, err := remote.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("contracts.signer: %w", err)
	}
	return signer, nil
}

// check says what is wrong.
func (c *ContractsConfig) check(bad func(field, format string, args ...any)) {
	if len(c.URLs) > 0 && c.ChainID == 0 {
		bad("contracts.chainId", "it is missing; say which chain the urls lead to, so that another one is noticed")
	}
	if len(c.URLs) == 0 && (c.ChainID != 0 || c.WebSocket != "") {
		bad("contracts.urls", "it is empty; name the JSON-RPC endpoints of the chain, or leave chainId and websocket out")
	}
	if err := ethereum.CheckWebSocket(c.WebSocket); err != nil {
		bad("contracts.websocket", "%v", err)
	}
	if c.Fees != "" || c.GasPrice != "" || c.MaxGasPrice != "" {
		fees := c.Fees
		if fees == "" {
			fees = "auto"
		}
		if _, err := ethereum.ParseFeePolicy(fees, c.GasPrice, c.MaxGasPrice); err != nil {
			bad("contracts.fees", "%v", err)
		}
	}
}

// Gateway is the chain that a node calls contracts on.
type Gateway struct {
	Chain  *ethereum.Client
	Fees   ethereum.FeePolicy
	Signer keys.Signer
	// Other says that it is another chain than the network's ledger.
	Other bool
}

// gateway opens the connection for contracts. The chain need not be reachable
// yet.
func (ns *Namespace) gateway(ks keys.Keys, ledger evm.Config) (*Gateway, error) {
	c := ns.Config.Contracts
	cfg := ethereum.Config{URLs: ledger.URLs, WebSocket: ledger.WebSocket, ChainID: ledger.ChainID, Confirmations: c.Confirmations, Logger: ns.log}
	signers := keys.Signers{keys.Local{Keys: ks}}
	if c.Keystore != nil {
		o := keystore.Options{Log: ns.log}
		if c.Keystore.PassphraseFile != "" {
			o.PassphraseFile = ns.Config.path(c.Keystore.PassphraseFile)
		}
		folder, err := keystore.Open(ns.Config.path(c.Keystore.Dir), o)
		if err != nil {
			return nil, fmt.Errorf("contracts.keystore: %w", err)
		}
		signers = append(signers, folder)
	}
	if c.Signer != nil {
		service, err := c.Signer.open(ns.Config.path)
		if err != nil {
			return nil, err
		}
		signers = append(signers, service)
	}
	g := &Gateway{Signer: signers}
	if len(c.URLs) > 0 {
		cfg.URLs, cfg.WebSocket, cfg.ChainID, g.Other = c.URLs, c.WebSocket, c.ChainID, c.ChainID != ledger.ChainID
	}
	fees := c.Fees
	if fees == "" {
		fees = cmp.Or(ns.Config.Ledger.Fees, "auto")
	}
	var err error
	if g.Fees, err = ethereum.ParseFeePolicy(fees, c.GasPrice, c.MaxGasPrice); err != nil {
		return nil, fmt.Errorf("contracts.fees: %w", err)
	}
	if g.Chain, err = ethereum.New(cfg); err != nil {
		return nil, fmt.Errorf("contracts: %w", err)
	}
	return g, nil
}

// newContracts makes the contract gateway. Without a chain it only takes the
// definitions that other members publish: their verdict is the same everywhere.
func (n *Node) newContracts() *contract.Service {
	cfg := contract.Config{
		Namespace: n.Namespace, DB: n.DB, Nonces: n.Nonces, Define: n.Messages.Define,
		DefaultKey: n.Messages.SigningKey, ResolveName: n.resolveName,
		Committed: n.Events.Committed, Log: n.Log, Now: n.Now, NewID: n.NewID,
	}
	if g := n.Gateway; g != nil {
		cfg.Chain, cfg.Fees, cfg.Signer = g.Chain, g.Fees, g.Signer
		if g.Other {
			cfg.Nonces = otherNonces(n.DB, g.Chain)
		}
	}
	return contract.New(cfg)
}

// otherNonces gives out the nonces of a chain that no network is on.
func otherNonces(db *store.DB, chain *ethereum.Client) *nonce.Authority {
	return nonce.New(nonce.Config{DB: db, Chain: chain.ChainID, Count: func(ctx context.Context, account wire.Address) (uint64, error) {
		_, pending, err := chain.Count(ctx, [20]byte(account))
		return pending, err
	}})
}

// resolveName finds the address of an identity by name or DID.
func (n *Node) resolveName(ctx context.Context, name string) (address wire.Address, err error) {
	err = n.DB.Read(ctx, func(tx *store.Tx) error {
		for _, did := range []string{name, identity.DID(identity.TypeOrg, name), identity.DID(identity.TypeCustom, name)} {
			id, err := store.Optional(tx.IdentityByDID(n.Namespace, did))
			if err != nil {
				return err
			}
			if id == nil {
				continue
			}
			of, err := tx.VerifiersOf([]wire.UUID{id.ID})
			if err != nil {
				return err
			}
			for _, v := range of[id.ID] {
				if v.Type == identity.VerifierAddress {
					address, err = wire.ParseAddress(v.Value)
					return err
				}
			}
		}
		return errs.New("FF10354", http.StatusBadRequest, "field %q holds %q, which is no address, and no name or DID of an identity with a key", "key", name)
	})
	return address, err
}

// gatewayWorkers are the loops of the contract gateway.
func (n *Node) gatewayWorkers() []Worker {
	if n.Gateway == nil {
		return nil
	}
	return []Worker{
		{"transactions", message.Signal(n.Contracts.Transactions.Wake), n.Contracts.Transactions.Step},
		{"listeners", message.Signal(n.Contracts.Listened), n.Contracts.ListenStep},
	}
}

// announce wakes the gateway's workers with each new block.
func (n *Node) announce(ctx context.Context) {
	if n.Gateway == nil {
		return
	}
	a := n.Gateway.Chain.Announce(ctx)
	defer a.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.Wake:
			n.Contracts.Transactions.Woken()
			message.Signal(n.Contracts.Listened).Set()
		}
	}
}
