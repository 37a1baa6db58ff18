package sim

import (
	"fmt"
	"slices"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// Limits of the network contract. They bound what one transaction can make
// every member store.
const (
	maxHandles   = 256
	maxControl   = 64 << 10
	maxEndpoints = 16
	maxEndpoint  = 255
	maxSealKey   = 4096
	maxPower     = 1 << 40
)

// contract is the state of the network contract: the same rules as the
// Solidity one, run by Go. Every method checks all it needs before it changes
// anything, so a refused call leaves no trace.
type contract struct {
	members    map[wire.OrgID]*member
	keys       map[wire.Address]*key
	proposals  []*proposal
	validators map[wire.Hash]uint64
	params     ledger.Params
	policy     ledger.Policy
	closed     string // why every call is refused, "" while the network is open
	carried    map[wire.Hash]bool
	emitted    []emission // by the running transaction
}

type emission struct {
	signer wire.Address
	body   ledger.Body
}

type standing int

const (
	active standing = iota
	suspended
	removed
)

type member struct {
	standing  standing
	validKeys int
}

// key remembers its organisation for ever: a key once used by one can never
// belong to another, or old pins would change hands.
type key struct {
	org   wire.OrgID
	valid bool
}

type proposal struct {
	ledger.Proposal
	votes    map[wire.OrgID]bool
	executed bool
}

func refuse(format string, args ...any) error {
	return &ledger.Refusal{Reason: fmt.Sprintf(format, args...)}
}

// found runs the constructor.
func found(cfg Config) (*contract, error) {
	c := &contract{
		members:    map[wire.OrgID]*member{},
		keys:       map[wire.Address]*key{},
		carried:    map[wire.Hash]bool{},
		validators: map[wire.Hash]uint64{},
		params:     cfg.Params,
		policy:     cfg.Policy,
	}
	if len(cfg.Founders) == 0 {
		return nil, refuse("a network needs at least one founding member")
	}
	if err := checkParams(cfg.Params); err != nil {
		return nil, err
	}
	c.emit(wire.Address{}, ledger.Founded{Params: cfg.Params, Policy: cfg.Policy, Epoch1: cfg.Epoch1})
	for _, f := range cfg.Founders {
		if err := c.checkAdmit(f); err != nil {
			return nil, err
		}
		c.admit(wire.Address{}, f)
	}
	if err := c.checkPolicy(cfg.Policy); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *contract) emit(signer wire.Address, b ledger.Body) {
	c.emitted = append(c.emitted, emission{signer, b})
}

// call runs one call of an account and leaves its records in emitted.
func (c *contract) call(from wire.Address, call ledger.Call) error {
	org, err := c.caller(from)
	if err != nil {
		return err
	}
	switch call := call.(type) {
	case ledger.PinCall:
		return c.pin(from, org, call.Pin, wire.Address{})
	case ledger.AddKeyCall:
		return c.addKey(from, org, call.Key)
	case ledger.RevokeKeyCall:
		return c.revokeKey(from, org, call.Key)
	case ledger.RegisterNodeCall:
		return c.registerNode(from, org, call.Node)
	case ledger.ProposeCall:
		return c.propose(from, org, call.Proposal)
	case ledger.VoteCall:
		return c.vote(from, org, call.ID, call.Approve)
	}
	return refuse("the network contract has no method for %T", call)
}

// caller finds the active organisation behind a key that is valid now.
func (c *contract) caller(from wire.Address) (wire.OrgID, error) {
	if c.closed != "" {
		return wire.OrgID{}, refuse("%s", c.closed)
	}
	k := c.keys[from]
	if k == nil {
		return wire.OrgID{}, refuse("account %s is no member's key; ask the members to admit its organisation", from)
	}
	switch c.members[k.org].standing {
	case suspended:
		return wire.OrgID{}, refuse("organisation %s is suspended; the other members can resume it", k.org.Short())
	case removed: // before its keys: they ended with the membership
		return wire.OrgID{}, refuse("organisation %s was removed from the network", k.org.Short())
	}
	if !k.valid {
		return wire.OrgID{}, refuse("key %s was revoked by its organisation; use one of its valid keys", from)
	}
	return k.org, nil
}

func (c *contract) pin(signer wire.Address, org wire.OrgID, p wire.Pin, via wire.Address) error {
	switch {
	case len(p.Handles) > maxHandles:
		return refuse("a pin carries %d handles, at most %d are allowed", len(p.Handles), maxHandles)
	case len(p.Control) > maxControl:
		return refuse("a pin's control has %d bytes, at most %d are allowed", len(p.Control), maxControl)
	case p.Root.IsZero() && len(p.Handles) > 0:
		return refuse("a pin without a root has %d handles, it must have none", len(p.Handles))
	case p.Root.IsZero() && len(p.Control) == 0:
		return refuse("a pin has neither a root nor a control")
	}
	c.emit(signer, ledger.Pinned{Org: org, Pin: p, Via: via})
	return nil
}

func (c *contract) checkKey(org wire.OrgID, a wire.Address) error {
	k := c.keys[a]
	switch {
	case a.IsZero():
		return refuse("a key's address is zero")
	case k != nil && k.org != org:
		return refuse("key %s belongs or belonged to another organisation", a)
	case k != nil && k.valid:
		return refuse("key %s is already valid", a)
	}
	return nil
}

func (c *contract) setKey(org wire.OrgID, a wire.Address) {
	c.keys[a] = &key{org, true}
	c.members[org].validKeys++
}

func (c *contract) addKey(from wire.Address, org wire.OrgID, a wire.Address) error {
	if err := c.checkKey(org, a); err != nil {
		return err
	}
	c.setKey(org, a)
	c.emit(from, ledger.KeyAdded{Org: org, Key: a})
	return nil
}

func (c *contract) revokeKey(from wire.Address, org wire.OrgID, a wire.Address) error {
	k := c.keys[a]
	if k == nil || k.org != org || !k.valid {
		return refuse("key %s is not a valid key of organisation %s", a, org.Short())
	}
	if c.members[org].validKeys == 1 {
		return refuse("key %s is the last of organisation %s; add another first", a, org.Short())
	}
	k.valid = false
	c.members[org].validKeys--
	c.emit(from, ledger.KeyRevoked{Org: org, Key: a})
	return nil
}

func (c *contract) registerNode(from wire.Address, org wire.OrgID, n ledger.NodeProfile) error {
	switch {
	case n.CertHash.IsZero():
		return refuse("the node's certificate hash is zero")
	case len(n.SealKey) == 0 || len(n.SealKey) > maxSealKey:
		return refuse("the node's seal key has %d bytes, want 1 to %d", len(n.SealKey), maxSealKey)
	case len(n.Endpoints) > maxEndpoints:
		return refuse("the node has %d endpoints, at most %d are allowed", len(n.Endpoints), maxEndpoints)
	}
	for _, e := range n.Endpoints {
		if len(e) == 0 || len(e) > maxEndpoint {
			return refuse("the endpoint %.40q has %d bytes, want 1 to %d", e, len(e), maxEndpoint)
		}
	}
	c.emit(from, ledger.NodeRegistered{Org: org, Node: n})
	return nil
}

// propose opens a proposal with its author's approval.
func (c *contract) propose(from wire.Address, org wire.OrgID, p ledger.Proposal) error {
	if err := c.checkProposal(p); err != nil {
		return err
	}
	c.proposals = append(c.proposals, &proposal{Proposal: p, votes: map[wire.OrgID]bool{}})
	id := uint64(len(c.proposals))
	c.emit(from, ledger.Proposed{ID: id, Proposal: p})
	return c.vote(from, org, id, true)
}

// vote executes the proposal if it completes the policy. Only the votes of
// organisations that are active now count.
func (c *contract) vote(from wire.Address, org wire.OrgID, id uint64, approve bool) error {
	if id == 0 || id > uint64(len(c.proposals)) {
		return refuse("there is no proposal %d", id)
	}
	p := c.proposals[id-1]
	if p.executed {
		return refuse("proposal %d is already executed", id)
	}
	if _, voted := p.votes[org]; voted {
		return refuse("organisation %s has already voted on proposal %d", org.Short(), id)
	}
	approvals := 0
	for voter, yes := range p.votes {
		if yes && c.members[voter].standing == active {
			approvals++
		}
	}
	passes := approve && approvals+1 >= c.needed()
	if passes {
		if err := c.checkProposal(p.Proposal); err != nil {
			return err // what it asks for became impossible since
		}
	}
	p.votes[org] = approve
	c.emit(from, ledger.Voted{ID: id, Org: org, Approve: approve})
	if passes {
		p.executed = true
		c.apply(from, p.Proposal)
		c.emit(from, ledger.Executed{ID: id})
	}
	return nil
}

// needed is how many approvals a proposal takes now. Members may leave after a
// policy was agreed, so it never asks for more than there are.
func (c *contract) needed() int {
	n := c.active()
	if c.policy.Approvals == 0 {
		return n/2 + 1
	}
	return min(int(c.policy.Approvals), n)
}

func (c *contract) active() (n int) {
	for _, m := range c.members {
		if m.standing == active {
			n++
		}
	}
	return n
}

func (c *contract) checkProposal(p ledger.Proposal) error {
	set := 0
	for _, is := range []bool{p.Admit != nil, p.Suspend != nil, p.Resume != nil, p.Remove != nil,
		p.Policy != nil, p.Params != nil, p.Validator != nil, p.Successor != nil, p.Terminate} {
		if is {
			set++
		}
	}
	if set != 1 {
		return refuse("a proposal asks for %d changes, want exactly one", set)
	}
	switch {
	case p.Admit != nil:
		return c.checkAdmit(*p.Admit)
	case p.Suspend != nil:
		return c.checkLeave(*p.Suspend, "suspended", active)
	case p.Resume != nil:
		if m := c.members[*p.Resume]; m == nil || m.standing != suspended {
			return refuse("organisation %s is not suspended", p.Resume.Short())
		}
	case p.Remove != nil:
		return c.checkLeave(*p.Remove, "removed", active, suspended)
	case p.Policy != nil:
		return c.checkPolicy(*p.Policy)
	case p.Params != nil:
		return checkParams(*p.Params)
	case p.Validator != nil:
		return c.checkValidator(*p.Validator)
	case p.Successor != nil:
		if p.Successor.IsZero() {
			return refuse("the successor contract's address is zero")
		}
	}
	return nil
}

func (c *contract) checkAdmit(a ledger.MemberAdmitted) error {
	if a.Org.IsZero() {
		return refuse("the organisation's id is zero")
	}
	if m := c.members[a.Org]; m != nil && m.standing != removed {
		return refuse("organisation %s is already a member", a.Org.Short())
	}
	return c.checkKey(a.Org, a.Key)
}

// checkLeave refuses what would leave the network without an active member.
func (c *contract) checkLeave(org wire.OrgID, verb string, from ...standing) error {
	m := c.members[org]
	if m == nil || !slices.Contains(from, m.standing) {
		return refuse("organisation %s cannot be %s: it is not a member in that state", org.Short(), verb)
	}
	if m.standing == active && c.active() == 1 {
		return refuse("organisation %s cannot be %s: it is the last active member", org.Short(), verb)
	}
	return nil
}

func (c *contract) checkPolicy(p ledger.Policy) error {
	if p.Approvals > uint64(c.active()) {
		return refuse("the policy asks for %d approvals of %d active members", p.Approvals, c.active())
	}
	return nil
}

// checkValidator refuses what would stop the consensus of a bundled ledger for
// ever.
func (c *contract) checkValidator(v ledger.ValidatorChanged) error {
	switch _, known := c.validators[v.Key]; {
	case v.Key.IsZero():
		return refuse("the validator key is zero")
	case v.Power > maxPower:
		return refuse("the validator's power is %d, at most %d is allowed", v.Power, uint64(maxPower))
	case v.Power == 0 && !known:
		return refuse("%s is no validator", v.Key.Short())
	case v.Power == 0 && len(c.validators) == 1:
		return refuse("%s is the last validator", v.Key.Short())
	}
	return nil
}

func checkParams(p ledger.Params) error {
	switch {
	case p.ProtocolVersion == 0:
		return refuse("the protocol version is 0")
	case p.Window == 0:
		return refuse("the window is 0, it must be at least 1")
	case p.ReceiptAge == 0:
		return refuse("the receipt age is 0 blocks, it must be at least 1")
	case p.SkipAfter <= 0 || p.SkipGrace <= 0:
		return refuse("the skip times are %v and %v, both must be above 0", p.SkipAfter, p.SkipGrace)
	}
	return nil
}

// apply makes a checked change.
func (c *contract) apply(from wire.Address, p ledger.Proposal) {
	switch {
	case p.Admit != nil:
		c.admit(from, *p.Admit)
	case p.Suspend != nil:
		c.members[*p.Suspend].standing = suspended
		c.emit(from, ledger.MemberSuspended{Org: *p.Suspend})
	case p.Resume != nil:
		c.members[*p.Resume].standing = active
		c.emit(from, ledger.MemberResumed{Org: *p.Resume})
	case p.Remove != nil:
		c.remove(*p.Remove)
		c.emit(from, ledger.MemberRemoved{Org: *p.Remove})
	case p.Policy != nil:
		c.policy = *p.Policy
		c.emit(from, ledger.PolicyChanged{Policy: c.policy})
	case p.Params != nil:
		c.params = *p.Params
		c.emit(from, ledger.ParamsChanged{Params: c.params})
	case p.Validator != nil:
		c.setValidator(from, *p.Validator)
	case p.Successor != nil:
		c.closed = "the network moved to the contract " + p.Successor.String()
		c.emit(from, ledger.Succeeded{Contract: *p.Successor})
	case p.Terminate:
		c.closed = "the network was terminated by its members"
		c.emit(from, ledger.Terminated{})
	}
}

// admit begins a membership with one key.
func (c *contract) admit(from wire.Address, a ledger.MemberAdmitted) {
	c.members[a.Org] = &member{}
	c.setKey(a.Org, a.Key)
	c.emit(from, a)
}

// remove ends a membership with all its keys and votes, so that an
// organisation that is admitted again starts afresh.
func (c *contract) remove(org wire.OrgID) {
	c.members[org] = &member{standing: removed}
	for _, k := range c.keys {
		if k.org == org {
			k.valid = false
		}
	}
	for _, p := range c.proposals {
		delete(p.votes, org)
	}
}

func (c *contract) setValidator(from wire.Address, v ledger.ValidatorChanged) {
	c.validators[v.Key] = v.Power
	if v.Power == 0 {
		delete(c.validators, v.Key)
	}
	c.emit(from, v)
}
