package identity

import (
	"fmt"
	"sort"
	"sync"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/order"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Network is what the records of the network contract say: who is a member,
// with which keys, from when until when. It is rebuilt from the stored records
// at start and extended as the feed stores new ones; the answers about a
// position never change. Safe for concurrent use.
type Network struct {
	ID       wire.Hash
	ChainID  uint64
	Contract wire.Address

	mu         sync.RWMutex
	through    uint64 // number of the last record applied
	looked     uint64 // number of the last record that LoadNew has seen, of any kind
	orgs       map[wire.OrgID]*orgLife
	keys       map[wire.Address]keyLife
	params     []paramsAt
	departures []order.Departure
	policy     ledger.Policy
	founded    *ledger.Founded
	terminated bool
	successor  wire.Address
	proposals  map[uint64]*Proposal
}

// orgLife is a member's history. It is active from an odd-numbered change to
// the next: admitted, suspended, resumed, …
type orgLife struct {
	changes []wire.Position // active after an odd number of them
	keys    []wire.Address
	node    *ledger.NodeProfile
}

type keyLife struct {
	org     wire.OrgID
	from    wire.Position
	revoked *wire.Position
}

type paramsAt struct {
	at     wire.Position
	params ledger.Params
}

// Proposal is an administrative change that members vote on.
type Proposal struct {
	ID       uint64              `json:"id"`
	Change   ledger.Proposal     `json:"change"`
	Votes    map[wire.OrgID]bool `json:"votes"`
	Executed bool                `json:"executed"`
}

// NewNetwork is the network of a contract before any record was read.
func NewNetwork(chainID uint64, contract wire.Address) *Network {
	return &Network{
		ID: wire.NetworkID(chainID, contract), ChainID: chainID, Contract: contract,
		orgs: map[wire.OrgID]*orgLife{}, keys: map[wire.Address]keyLife{}, proposals: map[uint64]*Proposal{},
	}
}

// Load applies all stored records.
func (n *Network) Load(tx *store.Tx) error {
	records, err := tx.RecordsNotPins()
	if err != nil {
		return err
	}
	return n.applyAll(records)
}

// LoadNew applies what was stored since, by another process of this node.
func (n *Network) LoadNew(tx *store.Tx) error {
	last, err := tx.LastRecord()
	if err != nil || last == nil {
		return err
	}
	n.mu.Lock()
	looked := max(n.looked, n.through)
	n.mu.Unlock()
	records, err := tx.RecordsNotPinsAfter(looked)
	if err != nil {
		return err
	}
	if err := n.applyAll(records); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looked = max(n.looked, last.Number)
	return nil
}

func (n *Network) applyAll(records []store.Record) error {
	for i := range records {
		body, err := ledger.DecodeBody(records[i].Kind, records[i].Body)
		if err != nil {
			return fmt.Errorf("record %d: %w", records[i].Number, err)
		}
		n.Apply(records[i].Number, records[i].Position, records[i].BlockTime, body)
	}
	return nil
}

// Apply takes in the next record. Records that were applied already change
// nothing, so that a feed may repeat itself after a failed transaction.
func (n *Network) Apply(number uint64, at wire.Position, time store.Time, body ledger.Body) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if number <= n.through {
		return
	}
	n.through = number
	switch b := body.(type) {
	case ledger.Founded:
		n.founded, n.policy = &b, b.Policy
		n.params = append(n.params, paramsAt{at, b.Params})
	case ledger.MemberAdmitted:
		o := n.org(b.Org)
		if len(o.changes)%2 == 0 {
			o.changes = append(o.changes, at)
		}
		n.addKey(b.Org, b.Key, at)
	case ledger.MemberSuspended:
		n.end(b.Org, at, time)
	case ledger.MemberResumed:
		if o := n.org(b.Org); len(o.changes)%2 == 0 {
			o.changes = append(o.changes, at)
		}
	case ledger.MemberRemoved:
		n.end(b.Org, at, time)
		for _, key := range n.org(b.Org).keys { // the contract ends them without a record each
			n.revoke(key, at)
		}
	case ledger.KeyAdded:
		n.addKey(b.Org, b.Key, at)
	case ledger.KeyRevoked:
		n.revoke(b.Key, at)
	case ledger.NodeRegistered:
		n.org(b.Org).node = &b.Node
	case ledger.ParamsChanged:
		n.params = append(n.params, paramsAt{at, b.Params})
	case ledger.PolicyChanged:
		n.policy = b.Policy
	case ledger.Proposed:
		n.proposals[b.ID] = &Proposal{ID: b.ID, Change: b.Proposal, Votes: map[wire.OrgID]bool{}}
	case ledger.Voted:
		if p := n.proposals[b.ID]; p != nil {
			p.Votes[b.Org] = b.Approve
		}
	case ledger.Executed:
		if p := n.proposals[b.ID]; p != nil {
			p.Executed = true
		}
	case ledger.Succeeded:
		n.successor = b.Contract
	case ledger.Terminated:
		n.terminated = true
	}
}

func (n *Network) org(id wire.OrgID) *orgLife {
	o := n.orgs[id]
	if o == nil {
		o = &orgLife{}
		n.orgs[id] = o
	}
	return o
}

func (n *Network) end(id wire.OrgID, at wire.Position, time store.Time) {
	if o := n.org(id); len(o.changes)%2 == 1 {
		o.changes = append(o.changes, at)
		// Order asks who is gone at a departure's position; a change counts from
		// the position after its own.
		n.departures = append(n.departures, order.Departure{Position: wire.Position{Block: at.Block, Log: at.Log + 1}, Time: time.Time()})
	}
}

// Departures are the records in (after, through] that suspended or removed a
// member, in ledger order.
func (n *Network) Departures(after, through wire.Position) []order.Departure {
	n.mu.RLock()
	defer n.mu.RUnlock()
	first := sort.Search(len(n.departures), func(i int) bool { return n.departures[i].Position.Compare(after) > 0 })
	last := sort.Search(len(n.departures), func(i int) bool { return n.departures[i].Position.Compare(through) > 0 })
	return n.departures[first:last:last]
}

func (n *Network) revoke(key wire.Address, at wire.Position) {
	if k, ok := n.keys[key]; ok && k.revoked == nil {
		k.revoked = &at
		n.keys[key] = k
	}
}

func (n *Network) addKey(org wire.OrgID, key wire.Address, at wire.Position) {
	if _, known := n.keys[key]; known {
		return // the contract lets a key belong to one organisation, once
	}
	n.keys[key] = keyLife{org: org, from: at}
	o := n.org(org)
	o.keys = append(o.keys, key)
}

// OrgOf is the organisation whose valid key this is at a position; false if
// the key is unknown or revoked there, or its organisation not active. A change
// counts for positions after its own.
func (n *Network) OrgOf(key wire.Address, at wire.Position) (wire.OrgID, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	k, ok := n.keys[key]
	if !ok || !k.validAt(at) || !n.active(k.org, at) {
		return wire.OrgID{}, false
	}
	return k.org, true
}

func (k keyLife) validAt(at wire.Position) bool {
	return k.from.Compare(at) < 0 && (k.revoked == nil || at.Compare(*k.revoked) <= 0)
}

// Active says whether an organisation is a member, not suspended, at a
// position.
func (n *Network) Active(org wire.OrgID, at wire.Position) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.active(org, at)
}

func (n *Network) active(org wire.OrgID, at wire.Position) bool {
	o := n.orgs[org]
	if o == nil {
		return false
	}
	before := sort.Search(len(o.changes), func(i int) bool { return o.changes[i].Compare(at) >= 0 })
	return before%2 == 1
}

// Keys are all keys that an organisation had up to a position, revoked ones
// too, oldest first.
func (n *Network) Keys(org wire.OrgID, at wire.Position) []wire.Address {
	n.mu.RLock()
	defer n.mu.RUnlock()
	o := n.orgs[org]
	if o == nil {
		return nil
	}
	var had []wire.Address
	for _, k := range o.keys {
		if n.keys[k].from.Compare(at) < 0 {
			had = append(had, k)
		}
	}
	return had
}

// ValidKeys are an organisation's valid keys at a position, oldest first; none
// if it is not active there.
func (n *Network) ValidKeys(org wire.OrgID, at wire.Position) []wire.Address {
	n.mu.RLock()
	defer n.mu.RUnlock()
	o := n.orgs[org]
	if o == nil || !n.active(org, at) {
		return nil
	}
	var valid []wire.Address
	for _, k := range o.keys {
		if n.keys[k].validAt(at) {
			valid = append(valid, k)
		}
	}
	return valid
}

// Params are the network's constants for ordering at a position.
func (n *Network) Params(at wire.Position) order.Params {
	p := n.ParamsAt(at)
	return order.Params{Window: p.Window, ReceiptAge: p.ReceiptAge, SkipAfter: p.SkipAfter, SkipGrace: p.SkipGrace}
}

// Through is the number of the last record applied.
func (n *Network) Through() uint64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.through
}

// ParamsAt are the network's constants at a position.
func (n *Network) ParamsAt(at wire.Position) ledger.Params {
	n.mu.RLock()
	defer n.mu.RUnlock()
	i := sort.Search(len(n.params), func(i int) bool { return n.params[i].at.Compare(at) >= 0 })
	if i == 0 {
		return ledger.DefaultParams
	}
	return n.params[i-1].params
}

// End is a position after everything: questions about now.
var End = wire.Position{Block: 1 << 62}

// Members lists the active members now, in order of their ids.
func (n *Network) Members() []wire.OrgID {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var all []wire.OrgID
	for id := range n.orgs {
		if n.active(id, End) {
			all = append(all, id)
		}
	}
	sort.Slice(all, func(i, j int) bool { return string(all[i][:]) < string(all[j][:]) })
	return all
}

// Founding is record 1; nil before it was read.
func (n *Network) Founding() *ledger.Founded {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.founded
}

// Node is what a member registered of its node; nil if it has not yet.
func (n *Network) Node(org wire.OrgID) *ledger.NodeProfile {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if o := n.orgs[org]; o != nil {
		return o.node
	}
	return nil
}

// OrgByCertificate finds the active member whose node presents a certificate.
func (n *Network) OrgByCertificate(hash wire.Hash) (wire.OrgID, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for id, o := range n.orgs {
		if o.node != nil && o.node.CertHash == hash && n.active(id, End) {
			return id, true
		}
	}
	return wire.OrgID{}, false
}

// Status sums up the administrative state.
type Status struct {
	Policy     ledger.Policy `json:"policy"`
	Terminated bool          `json:"terminated,omitempty"`
	Successor  *wire.Address `json:"successor,omitempty"`
	Records    uint64        `json:"records"`
	Proposals  []Proposal    `json:"proposals"`
}

// Status is the administrative state now, with all proposals.
func (n *Network) Status() Status {
	n.mu.RLock()
	defer n.mu.RUnlock()
	s := Status{Policy: n.policy, Terminated: n.terminated, Records: n.through, Proposals: []Proposal{}}
	if !n.successor.IsZero() {
		a := n.successor
		s.Successor = &a
	}
	for _, p := range n.proposals {
		c := *p
		c.Votes = map[wire.OrgID]bool{}
		for o, v := range p.Votes {
			c.Votes[o] = v
		}
		s.Proposals = append(s.Proposals, c)
	}
	sort.Slice(s.Proposals, func(i, j int) bool { return s.Proposals[i].ID < s.Proposals[j].ID })
	return s
}
