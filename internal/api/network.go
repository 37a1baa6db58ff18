package api

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// organisation names an organisation: by its id on the ledger, and by name and
// DID once it has claimed them.
type organisation struct {
	ID   wire.OrgID `json:"id"`
	Name string     `json:"name,omitempty"`
	DID  string     `json:"did,omitempty"`
}

// organisations reads the names of organisations, each once.
type organisations struct {
	tx        *store.Tx
	namespace string
	known     map[wire.OrgID]organisation
}

func (o *organisations) name(id wire.OrgID) (organisation, error) {
	if known, ok := o.known[id]; ok {
		return known, nil
	}
	org := organisation{ID: id}
	claimed, err := identity.OrgIdentity(o.tx, o.namespace, id)
	if err != nil {
		return org, err
	}
	if claimed != nil {
		org.Name, org.DID = claimed.Name, claimed.DID
	}
	if o.known == nil {
		o.known = map[wire.OrgID]organisation{}
	}
	o.known[id] = org
	return org, nil
}

// member is an organisation as the ledger knows it.
type member struct {
	organisation
	Self   bool        `json:"self,omitempty"`
	Active bool        `json:"active"`
	Keys   []memberKey `json:"keys"`
	Node   *memberNode `json:"node,omitempty"`
}

type memberKey struct {
	Address wire.Address `json:"address"`
	Revoked bool         `json:"revoked,omitempty"`
}

type memberNode struct {
	Certificate wire.Hash `json:"certificate"` // SHA-256 of it
	Endpoints   []string  `json:"endpoints"`
}

func getMembers(c *call) (any, error) {
	all := []member{}
	err := c.DB.Read(c.ctx(), func(tx *store.Tx) error {
		names := organisations{tx: tx, namespace: c.Namespace}
		for _, m := range c.Network.Directory() {
			org, err := names.name(m.Org)
			if err != nil {
				return err
			}
			out := member{organisation: org, Self: m.Org == c.Messages.Self.Org, Active: m.Active, Keys: []memberKey{}}
			for _, k := range m.Keys {
				out.Keys = append(out.Keys, memberKey{k.Address, k.Revoked})
			}
			if m.Node != nil {
				out.Node = &memberNode{m.Node.CertHash, append([]string{}, m.Node.Endpoints...)}
			}
			all = append(all, out)
		}
		return nil
	})
	return all, err
}

// change is an administrative change that members vote on. Exactly one field is
// set.
type change struct {
	Admit     *admission    `json:"admit,omitempty"`
	Suspend   *wire.OrgID   `json:"suspend,omitempty"`
	Resume    *wire.OrgID   `json:"resume,omitempty"`
	Remove    *wire.OrgID   `json:"remove,omitempty"`
	Policy    *policy       `json:"policy,omitempty"`
	Params    *params       `json:"params,omitempty"`
	Validator *validator    `json:"validator,omitempty"`
	Successor *wire.Address `json:"successor,omitempty"`
	Terminate bool          `json:"terminate,omitempty"`
}

type admission struct {
	Org wire.OrgID   `json:"org"`
	Key wire.Address `json:"key"`
}

type policy struct {
	Approvals uint64 `json:"approvals"` // zero is a majority
}

type validator struct {
	Key   wire.Hash `json:"key"`
	Power uint64    `json:"power"`
}

// params are the network's constants; what is left out of a proposal stays.
type params struct {
	Confirmations   *uint64 `json:"confirmations,omitempty"`
	ProtocolVersion *uint64 `json:"protocolVersion,omitempty"`
	ProtocolFrom    *uint64 `json:"protocolFrom,omitempty"`
	Window          *uint64 `json:"window,omitempty"`
	ReceiptAge      *uint64 `json:"receiptAge,omitempty"`
	SkipAfter       *string `json:"skipAfter,omitempty"` // durations such as 5m
	SkipGrace       *string `json:"skipGrace,omitempty"`
}

// proposal reads a change. Whether the contract accepts it is the contract's
// business.
func (ch change) proposal(now ledger.Params) (ledger.Proposal, error) {
	p := ledger.Proposal{Suspend: ch.Suspend, Resume: ch.Resume, Remove: ch.Remove, Successor: ch.Successor, Terminate: ch.Terminate}
	n := 0
	for _, set := range []bool{ch.Admit != nil, ch.Suspend != nil, ch.Resume != nil, ch.Remove != nil, ch.Policy != nil, ch.Params != nil, ch.Validator != nil, ch.Successor != nil, ch.Terminate} {
		if set {
			n++
		}
	}
	if n != 1 {
		return p, errs.BadRequest("FF10292", "the proposal has %d changes: give exactly one of admit, suspend, resume, remove, policy, params, validator, successor, terminate", n)
	}
	switch {
	case ch.Admit != nil:
		if ch.Admit.Org.IsZero() || ch.Admit.Key.IsZero() {
			return p, errs.BadRequest("FF10292", "field %q needs both the organisation's id and its first key", "admit")
		}
		p.Admit = &ledger.MemberAdmitted{Org: ch.Admit.Org, Key: ch.Admit.Key}
	case ch.Policy != nil:
		p.Policy = &ledger.Policy{Approvals: ch.Policy.Approvals}
	case ch.Validator != nil:
		p.Validator = &ledger.ValidatorChanged{Key: ch.Validator.Key, Power: ch.Validator.Power}
	case ch.Params != nil:
		if err := ch.Params.apply(&now); err != nil {
			return p, err
		}
		p.Params = &now
	}
	return p, nil
}

func (p *params) apply(to *ledger.Params) error {
	for _, f := range []struct {
		from *uint64
		to   *uint64
	}{
		{p.Confirmations, &to.Confirmations}, {p.ProtocolVersion, &to.ProtocolVersion}, {p.ProtocolFrom, &to.ProtocolFrom},
		{p.Window, &to.Window}, {p.ReceiptAge, &to.ReceiptAge},
	} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	for _, f := range []struct {
		name string
		from *string
		to   *time.Duration
	}{{"params.skipAfter", p.SkipAfter, &to.SkipAfter}, {"params.skipGrace", p.SkipGrace, &to.SkipGrace}} {
		if f.from == nil {
			continue
		}
		d, err := time.ParseDuration(*f.from)
		if err != nil || d <= 0 {
			return errs.BadRequest(errs.CodeBadValue, "field %q holds %q: give a duration such as 5m", f.name, shorten(*f.from))
		}
		*f.to = d
	}
	return nil
}

// changeOf is the JSON form of a proposal.
func changeOf(p ledger.Proposal) change {
	ch := change{Suspend: p.Suspend, Resume: p.Resume, Remove: p.Remove, Successor: p.Successor, Terminate: p.Terminate}
	if p.Admit != nil {
		ch.Admit = &admission{p.Admit.Org, p.Admit.Key}
	}
	if p.Policy != nil {
		ch.Policy = &policy{p.Policy.Approvals}
	}
	if p.Validator != nil {
		ch.Validator = &validator{p.Validator.Key, p.Validator.Power}
	}
	if v := p.Params; v != nil {
		after, grace := v.SkipAfter.String(), v.SkipGrace.String()
		ch.Params = &params{&v.Confirmations, &v.ProtocolVersion, &v.ProtocolFrom, &v.Window, &v.ReceiptAge, &after, &grace}
	}
	return ch
}

// proposalStatus is a proposal with its votes.
type proposalStatus struct {
	ID       uint64 `json:"id"`
	Change   change `json:"change"`
	Votes    []vote `json:"votes"`
	Executed bool   `json:"executed"`
}

type vote struct {
	organisation
	Approve bool `json:"approve"`
}

// administration is the network's policy and everything that was voted on.
type administration struct {
	Policy     policy           `json:"policy"`
	Terminated bool             `json:"terminated,omitempty"`
	Successor  *wire.Address    `json:"successor,omitempty"`
	Records    uint64           `json:"records"` // number of the last record read
	Proposals  []proposalStatus `json:"proposals"`
}

func getProposals(c *call) (any, error) {
	st := c.Network.Status()
	out := administration{policy{st.Policy.Approvals}, st.Terminated, st.Successor, st.Records, []proposalStatus{}}
	err := c.DB.Read(c.ctx(), func(tx *store.Tx) error {
		names := organisations{tx: tx, namespace: c.Namespace}
		for _, p := range st.Proposals {
			ps := proposalStatus{p.ID, changeOf(p.Change), []vote{}, p.Executed}
			for id, approve := range p.Votes {
				org, err := names.name(id)
				if err != nil {
					return err
				}
				ps.Votes = append(ps.Votes, vote{org, approve})
			}
			slices.SortFunc(ps.Votes, func(a, b vote) int { return slices.Compare(a.ID[:], b.ID[:]) })
			out.Proposals = append(out.Proposals, ps)
		}
		return nil
	})
	return out, err
}

// submitted answers a call to the network contract: it is signed and sent after
// this, and its effect shows in the network's state.
type submitted struct {
	Submission int64 `json:"submission"`
}

func (c *call) submit(to ledger.Call) (any, error) {
	id, err := c.Messages.Call(c.ctx(), to)
	if err != nil {
		return nil, err
	}
	return submitted{id}, nil
}

func postProposal(c *call, in change) (any, error) {
	p, err := in.proposal(c.Network.ParamsAt(identity.End))
	if err != nil {
		return nil, err
	}
	return c.submit(ledger.ProposeCall{Proposal: p})
}

type voteInput struct {
	Approve *bool `json:"approve"`
}

func postVote(c *call, in voteInput) (any, error) {
	if in.Approve == nil {
		return nil, errs.BadRequest("FF10292", "field %q is missing: true or false", "approve")
	}
	id, err := c.number("id")
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(c.Network.Status().Proposals, func(p identity.Proposal) bool { return p.ID == id }) {
		return nil, errs.NoSuch("proposal", c.path("id"))
	}
	return c.submit(ledger.VoteCall{ID: id, Approve: *in.Approve})
}

type keyInput struct {
	Key string `json:"key"`
}

func postKey(c *call, in keyInput) (any, error) {
	key, err := wire.ParseAddress(in.Key)
	if err != nil {
		return nil, errs.BadRequest("FF10354", "field %q: %v", "key", err)
	}
	return c.submit(ledger.AddKeyCall{Key: key})
}

func deleteKey(c *call) (any, error) {
	key, err := wire.ParseAddress(c.path("address"))
	if err != nil {
		return nil, errs.BadRequest("FF10354", "the path: %v", err)
	}
	own := c.Messages.Self
	if !slices.Contains(c.Network.ValidKeys(own.Org, identity.End), key) {
		return nil, errs.NoSuch("valid key of this organisation", key.String())
	}
	if key == own.Key {
		return nil, errs.Conflict("FF10355", "%s is the key that this node signs with: configure another one first", key)
	}
	return c.submit(ledger.RevokeKeyCall{Key: key})
}

func getBlockers(c *call) (any, error) {
	audience := c.Network.ID
	if name := c.path("audience"); !strings.EqualFold(name, "network") {
		var err error
		if audience, err = wire.ParseHash(name); err != nil {
			return nil, errs.New(errs.CodeBadHash, http.StatusBadRequest, "The path names audience %q; give \"network\" or the hash of a group", shorten(name))
		}
	}
	return c.Messages.Blockers(c.ctx(), audience, c.path("topic"))
}
