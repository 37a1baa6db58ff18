package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// namespace describes a namespace of this process.
type namespace struct {
	Name        string     `json:"name"`
	NetworkName string     `json:"networkName"`
	Description string     `json:"description"`
	Created     store.Time `json:"created"`

	// Of one that does not run.
	Initializing        bool   `json:"initializing,omitempty"`
	InitializationError string `json:"initializationError,omitempty"` // why; it is tried again
}

func (s *server) namespace() namespace {
	return namespace{Name: s.Namespace, NetworkName: s.NetworkName, Description: s.Description, Created: s.Created}
}

// getNamespaces lists those in which the caller has a role.
func getNamespaces(c *call) (any, error) {
	if c.Host != nil {
		return slices.DeleteFunc(c.Host.list(c.flag("includeinitializing")), func(n namespace) bool { return c.caller.Role(n.Name) == access.None }), nil
	}
	if c.caller.Role(c.Namespace) == access.None {
		return []namespace{}, nil
	}
	return []namespace{c.namespace()}, nil
}

func getNamespace(c *call) (any, error) {
	if c.Host != nil {
		n, err := c.Host.find(c.path("ns"))
		if err != nil {
			return nil, err
		}
		return n.namespace, nil
	}
	if name := c.path("ns"); c.localName(name) != c.Namespace {
		return nil, noNamespace(name)
	}
	return c.namespace(), nil
}

type nodeStatus struct {
	Name       string      `json:"name"`
	Registered bool        `json:"registered"`
	ID         *store.UUID `json:"id,omitempty"`
}

type orgStatus struct {
	Name       string        `json:"name"`
	Registered bool          `json:"registered"`
	DID        string        `json:"did,omitempty"`
	ID         *store.UUID   `json:"id,omitempty"`
	Verifiers  []verifierRef `json:"verifiers,omitempty"`
}

type plugin struct {
	Name       string `json:"name,omitempty"`
	PluginType string `json:"pluginType"`
}

// plugins tells existing clients in their words what the node stands on.
type plugins struct {
	Blockchain    []plugin `json:"blockchain"`
	Database      []plugin `json:"database"`
	DataExchange  []plugin `json:"dataExchange"`
	Events        []plugin `json:"events"`
	Identity      []plugin `json:"identity"`
	SharedStorage []plugin `json:"sharedStorage"`
	Tokens        []plugin `json:"tokens"`
}

type networkContract struct {
	Index      int              `json:"index"`
	Location   contractLocation `json:"location"`
	FirstEvent string           `json:"firstEvent"`
	Info       contractInfo     `json:"info"`
	Status     string           `json:"status,omitempty"` // in status/multiparty only
}

type contractLocation struct {
	Address wire.Address `json:"address"`
}

type contractInfo struct {
	Subscription string `json:"subscription"`
	Version      int    `json:"version"`
	FinalEvent   string `json:"finalEvent,omitempty"`
}

type contracts struct {
	Active     networkContract   `json:"active"`
	Terminated []networkContract `json:"terminated,omitempty"`
}

type multiparty struct {
	Enabled  bool       `json:"enabled"`
	Contract *contracts `json:"contract,omitempty"` // singular here, plural in status/multiparty
}

type status struct {
	Namespace  namespace   `json:"namespace"`
	Node       *nodeStatus `json:"node,omitempty"` // of a network's namespace, as org
	Org        *orgStatus  `json:"org,omitempty"`
	Plugins    plugins     `json:"plugins"`
	Multiparty multiparty  `json:"multiparty"`
	Version    string      `json:"version,omitempty"` // of the program; beyond the reference
	Disk       *Disk       `json:"disk,omitempty"`    // beyond the reference, too
}

// registrations are what this member has claimed, nil until confirmed.
func (c *call) registrations() (org, node *store.Identity, verifiers []*store.Verifier, err error) {
	err = c.DB.Read(c.ctx(), func(tx *store.Tx) error {
		if org, err = identity.OrgIdentity(tx, c.Namespace, c.Messages.Self.Org); err != nil || org == nil {
			return err
		}
		if node, err = identity.NodeIdentity(tx, c.Namespace, c.Messages.Self.Org); err != nil {
			return err
		}
		of, err := tx.VerifiersOf([]store.UUID{org.ID})
		verifiers = of[org.ID]
		return err
	})
	return org, node, verifiers, err
}

// plugins names what the namespace stands on.
func (s *server) plugins() plugins {
	database := plugin{s.Plugins.Database, "sqlite3"}
	if strings.Contains(s.DB.Path(), "://") {
		database.PluginType = "postgres"
	}
	database.Name = cmp.Or(database.Name, strings.TrimSuffix(database.PluginType, "3"))
	p := plugins{
		Blockchain: []plugin{}, Database: []plugin{database}, DataExchange: []plugin{},
		Events:   []plugin{{PluginType: "websockets"}, {PluginType: "webhooks"}},
		Identity: []plugin{}, SharedStorage: []plugin{}, Tokens: []plugin{},
	}
	if s.networked() || s.Plugins.Blockchain != "" {
		p.Blockchain = []plugin{{cmp.Or(s.Plugins.Blockchain, "ethereum"), "ethereum"}}
	}
	if s.networked() {
		p.DataExchange = []plugin{{cmp.Or(s.Plugins.DataExchange, "parley"), "ffdx"}}
	}
	if name := s.Plugins.SharedStorage; name != "" {
		p.SharedStorage = []plugin{{name, "parley"}}
	}
	return p
}

func getStatus(c *call) (any, error) {
	org, node, verifiers, err := c.registrations()
	if err != nil {
		return nil, err
	}
	st := status{
		Namespace: c.namespace(),
		Plugins:   c.plugins(),
		Version:   c.Version,
	}
	if c.Disk != nil {
		st.Disk = c.Disk()
	}
	if !c.networked() {
		return st, nil
	}
	own := c.Messages.Self
	st.Node, st.Org = &nodeStatus{Name: own.NodeName}, &orgStatus{Name: own.Name}
	st.Multiparty = multiparty{true, &contracts{Active: c.contract()}}
	if org != nil {
		st.Org.Registered, st.Org.DID, st.Org.ID = true, org.DID, &org.ID
		for _, v := range verifiers {
			st.Org.Verifiers = append(st.Org.Verifiers, verifierRef{v.Type, v.Value})
		}
	}
	if node != nil {
		st.Node.Registered, st.Node.ID = true, &node.ID
	}
	return st, nil
}

func (c *call) contract() networkContract {
	return networkContract{
		Location: contractLocation{c.Network.Contract}, FirstEvent: "0",
		Info: contractInfo{Subscription: c.Network.ID.String(), Version: wire.Version},
	}
}

// Status of a registration.
const (
	unregistered = "unregistered"
	registering  = "registering"
	registered   = "registered"
)

type registration struct {
	Status  string      `json:"status"`
	Pending *store.UUID `json:"pendingRegistrationMessageId,omitempty"`
}

type multipartyStatus struct {
	Enabled   bool         `json:"enabled"`
	Org       registration `json:"org"`
	Node      registration `json:"node"`
	Contracts *contracts   `json:"contracts,omitempty"`
}

func getMultipartyStatus(c *call) (any, error) {
	if !c.networked() {
		return multipartyStatus{}, nil
	}
	org, node, _, err := c.registrations()
	if err != nil {
		return nil, err
	}
	var st ledgerStatus
	var claims []store.Message
	err = c.DB.Read(c.ctx(), func(tx *store.Tx) error {
		if st, err = c.ledgerStatus(tx); err != nil || org != nil && node != nil {
			return err
		}
		q := store.Query{Limit: 1}
		for field, value := range map[string]any{"tag": identity.TagClaim, "author": c.Messages.Self.DID()} {
			if err := q.Where(&store.Messages.Collection, field, value); err != nil {
				return err
			}
		}
		claims, _, err = store.ListTx(tx, store.Messages, c.Namespace, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := multipartyStatus{Enabled: true, Org: registration{Status: registered}, Node: registration{Status: registered}}
	pending := registration{Status: unregistered}
	if len(claims) > 0 && claims[0].Confirmed == nil {
		pending = registration{registering, &claims[0].Header.ID}
	}
	switch {
	case org == nil:
		out.Org, out.Node = pending, registration{Status: unregistered}
	case node == nil:
		out.Node = pending
	}
	out.Contracts = &contracts{Active: c.contract()}
	out.Contracts.Active.Status = "synced"
	if st.Waiting > 0 {
		out.Contracts.Active.Status = "syncing"
	}
	return out, nil
}

// ledgerStatus is how far this node has followed the ledger.
type ledgerStatus struct {
	Contract wire.Address    `json:"contract"`
	ChainID  uint64          `json:"chainId"`
	Network  wire.Hash       `json:"network"`
	Final    json.RawMessage `json:"final,omitempty"` // final block up to which it has read
	Records  uint64          `json:"records"`         // number of the last record stored
	Applied  uint64          `json:"applied"`         // number of the last one whose effect is decided
	Waiting  uint64          `json:"waiting"`         // records stored, and not applied yet

	Connection *Connection `json:"connection,omitempty"`
}

func (s *server) ledgerStatus(tx *store.Tx) (ledgerStatus, error) {
	st := ledgerStatus{Contract: s.Network.Contract, ChainID: s.Network.ChainID, Network: s.Network.ID}
	if s.Connection != nil {
		now := s.Connection()
		st.Connection = &now
	}
	final, err := tx.Meta(store.MetaFinal)
	if err != nil {
		return st, err
	}
	if final != "" {
		st.Final = json.RawMessage(final)
	}
	last, err := tx.LastRecord()
	if err != nil {
		return st, err
	}
	if last != nil {
		st.Records = last.Number
	}
	applied, err := tx.Meta(store.MetaConfirmed)
	if err != nil {
		return st, err
	}
	if applied != "" {
		if st.Applied, err = strconv.ParseUint(applied, 10, 64); err != nil {
			return st, fmt.Errorf("%s holds %q: %w", store.MetaConfirmed, applied, err)
		}
	}
	st.Waiting = st.Records - min(st.Applied, st.Records)
	return st, nil
}

func getLedgerStatus(c *call) (any, error) {
	var st ledgerStatus
	err := c.DB.Read(c.ctx(), func(tx *store.Tx) (err error) {
		st, err = c.ledgerStatus(tx)
		return err
	})
	return st, err
}

func getPeers(c *call) (any, error) { return c.Messages.PeersStatus(c.ctx()) }

// getIncidents lists what an operator must know, newest first.
func getIncidents(c *call) (any, error) {
	q, err := c.parse(&store.Incidents.Collection)
	if err != nil {
		return nil, err
	}
	items, total, err := store.List(c.ctx(), c.DB, store.Incidents, "", q) // of no namespace
	return page[store.Incident]{items, q.Count, total}, err
}

// codeUnsupported is what existing clients know for an operation that the
// namespace does not offer.
const codeUnsupported = "FF10414"

// later answers an operation of existing clients that this version lacks.
func later(*call) (any, error) {
	return nil, errs.New(codeUnsupported, http.StatusNotImplemented, "This operation is not available in this version of Parley")
}

// standbyStatus tells who carries this node's work.
type standbyStatus struct {
	Enabled   bool            `json:"enabled"`         // other processes may stand by
	Role      string          `json:"role"`            // of the process that answers: active or standby
	Term      int64           `json:"term,omitempty"`  // of the lease; it grows with each change
	Since     *store.Time     `json:"since,omitempty"` // of the term
	Processes []store.Process `json:"processes"`
}

func getStandby(c *call) (any, error) {
	st := standbyStatus{Role: "active", Processes: []store.Process{}}
	l, err := c.DB.Lease(c.ctx())
	if err != nil || l == nil {
		return st, err
	}
	st.Enabled, st.Term, st.Since, st.Processes = true, l.Term, &l.Since, l.Processes
	if c.DB.Term() == 0 {
		st.Role = "standby"
	}
	return st, nil
}
