package ledgertest

import (
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// kinds of records, as a string.
func kinds(rs []ledger.Record) string {
	var s []string
	for _, r := range rs {
		s = append(s, r.Body.Kind())
	}
	return strings.Join(s, " ")
}

func (n *network) wantKinds(rs []ledger.Record, want string) {
	n.Helper()
	if got := kinds(rs); got != want {
		n.Fatalf("the call gave the records %q, want %q", got, want)
	}
}

// decide proposes by the first member, lets the others approve until the
// majority is there, and returns the record of the effect.
func (n *network) decide(p ledger.Proposal) ledger.Record {
	n.Helper()
	active := n.activeMembers()
	needed := len(active)/2 + 1
	call := ledger.ProposeCall{Proposal: p}
	if needed == 1 {
		return n.do(active[0], call, 4)[2]
	}
	rs := n.do(active[0], call, 2)
	n.wantKinds(rs, "proposed voted")
	id := rs[0].Body.(ledger.Proposed).ID
	for _, m := range active[1 : needed-1] {
		n.wantKinds(n.do(m, ledger.VoteCall{ID: id, Approve: true}, 1), "voted")
	}
	rs = n.do(active[needed-1], ledger.VoteCall{ID: id, Approve: true}, 3)
	if got := kinds(rs); !strings.HasPrefix(got, "voted ") || !strings.HasSuffix(got, " executed") {
		n.Fatalf("the completing vote gave the records %q, want voted, the effect, executed", got)
	}
	if e := rs[2].Body.(ledger.Executed); e.ID != id {
		n.Fatalf("proposal %d was voted on, %d executed", id, e.ID)
	}
	return rs[1]
}

// activeMembers replays the feed.
func (n *network) activeMembers() (active []Member) {
	out := map[wire.OrgID]bool{}
	for _, r := range n.feed.all() {
		switch b := r.Body.(type) {
		case ledger.MemberSuspended:
			out[b.Org] = true
		case ledger.MemberResumed:
			delete(out, b.Org)
		case ledger.MemberRemoved:
			out[b.Org] = true
		case ledger.MemberAdmitted:
			delete(out, b.Org)
		}
	}
	for _, m := range n.Members {
		if !out[m.Org] {
			active = append(active, m)
		}
	}
	return active
}

func pinRefusals(n *network) {
	m := n.Members[0]
	many := pin(1, 257)
	n.refused(m, m.Key, many)

	rootless := pin(2, 0)
	rootless.Pin.Root = wire.Hash{}
	rootless.Pin.Control = nil
	n.refused(m, m.Key, rootless)

	handles := pin(3, 1)
	handles.Pin.Root = wire.Hash{}
	n.refused(m, m.Key, handles)

	long := pin(4, 1)
	long.Pin.Control = make([]byte, 64<<10+1)
	n.refused(m, m.Key, long)

	n.refused(n.Outsider, n.Outsider.Key, pin(5, 1))
	n.refused(m, m.Spare, pin(6, 1))
}

func pinLimits(n *network) {
	most := pin(1, 256)
	most.Pin.Control = make([]byte, 64<<10)
	most.Pin.Control[0] = 7
	control := pin(2, 0)
	control.Pin.Root = wire.Hash{}
	bare := pin(3, 0)
	bare.Pin.Control = nil
	for _, call := range []ledger.PinCall{most, control, bare} {
		r := n.do(n.Members[1], call, 1)[0]
		want := ledger.Pinned{Org: n.Members[1].Org, Pin: call.Pin}
		if d := cmp.Diff(want, r.Body, sameRecords); d != "" {
			n.Errorf("the pin's record (-want +got):\n%s", d)
		}
	}
}

func keyLife(n *network) {
	m, other := n.Members[0], n.Members[1]
	n.refused(m, m.Key, ledger.RevokeKeyCall{Key: m.Key}) // the last one
	n.refused(m, m.Key, ledger.AddKeyCall{Key: m.Key})    // valid already
	n.refused(m, m.Key, ledger.AddKeyCall{Key: other.Key})
	n.refused(m, m.Key, ledger.AddKeyCall{})
	n.refused(n.Outsider, n.Outsider.Key, ledger.AddKeyCall{Key: n.Outsider.Spare})

	if r := n.do(m, ledger.AddKeyCall{Key: m.Spare}, 1)[0]; r.Body != (ledger.KeyAdded{Org: m.Org, Key: m.Spare}) {
		n.Errorf("adding a key gave %+v", r.Body)
	}
	n.doWith(m, m.Spare, pin(1, 1), 1)
	n.refused(other, other.Key, ledger.RevokeKeyCall{Key: m.Key})
	if r := n.doWith(m, m.Spare, ledger.RevokeKeyCall{Key: m.Key}, 1)[0]; r.Body != (ledger.KeyRevoked{Org: m.Org, Key: m.Key}) {
		n.Errorf("revoking a key gave %+v", r.Body)
	}
	n.refused(m, m.Key, pin(2, 1))
	n.refused(m, m.Spare, ledger.RevokeKeyCall{Key: m.Key})    // not valid any more
	n.refused(other, other.Key, ledger.AddKeyCall{Key: m.Key}) // was another's once
	n.doWith(m, m.Spare, ledger.AddKeyCall{Key: m.Key}, 1)     // its own may come back
	n.do(m, pin(3, 1), 1)
}

func suspension(n *network) {
	out := n.Members[2]
	if r := n.decide(ledger.Proposal{Suspend: &out.Org}); r.Body != (ledger.MemberSuspended{Org: out.Org}) {
		n.Errorf("a suspension gave %+v", r.Body)
	}
	n.refused(out, out.Key, pin(1, 1))
	n.refused(out, out.Key, ledger.AddKeyCall{Key: out.Spare})
	n.refused(out, out.Key, ledger.VoteCall{ID: 1, Approve: true})
	m := n.Members[0]
	n.refused(m, m.Key, ledger.ProposeCall{Proposal: ledger.Proposal{Suspend: &out.Org}})
	if r := n.decide(ledger.Proposal{Resume: &out.Org}); r.Body != (ledger.MemberResumed{Org: out.Org}) {
		n.Errorf("resuming gave %+v", r.Body)
	}
	n.refused(m, m.Key, ledger.ProposeCall{Proposal: ledger.Proposal{Resume: &out.Org}})
	n.do(out, pin(2, 1), 1)
}

func removal(n *network) {
	out := n.Members[2]
	if r := n.decide(ledger.Proposal{Remove: &out.Org}); r.Body != (ledger.MemberRemoved{Org: out.Org}) {
		n.Errorf("a removal gave %+v", r.Body)
	}
	n.refused(out, out.Key, pin(1, 1))
	m := n.Members[0]
	n.refused(m, m.Key, ledger.ProposeCall{Proposal: ledger.Proposal{Remove: &out.Org}})
	n.refused(m, m.Key, ledger.ProposeCall{Proposal: ledger.Proposal{Resume: &out.Org}})

	// It may come back, with a key that the members agree on; its old one stays out.
	admit := ledger.MemberAdmitted{Org: out.Org, Key: out.Spare}
	if r := n.decide(ledger.Proposal{Admit: &admit}); r.Body != admit {
		n.Errorf("an admission gave %+v", r.Body)
	}
	n.doWith(out, out.Spare, pin(2, 1), 1)
	n.refused(out, out.Key, pin(3, 1))
}

// voting: one vote per organisation, no execution before the majority, none
// twice, and votes of those who are out do not count.
func voting(n *network) {
	a, b, c := n.Members[0], n.Members[1], n.Members[2]
	newcomer := ledger.MemberAdmitted{Org: n.Outsider.Org, Key: n.Outsider.Key}

	n.refused(n.Outsider, n.Outsider.Key, ledger.ProposeCall{Proposal: ledger.Proposal{Admit: &newcomer}})
	rs := n.do(a, ledger.ProposeCall{Proposal: ledger.Proposal{Admit: &newcomer}}, 2)
	proposed, ok := rs[0].Body.(ledger.Proposed)
	if !ok || proposed.Proposal.Admit == nil || *proposed.Proposal.Admit != newcomer {
		n.Fatalf("a proposal gave %+v", rs[0].Body)
	}
	id := proposed.ID
	if want := (ledger.Voted{ID: id, Org: a.Org, Approve: true}); rs[1].Body != want {
		n.Errorf("the proposer's vote is %+v, want %+v", rs[1].Body, want)
	}
	n.refused(a, a.Key, ledger.VoteCall{ID: id, Approve: true})
	n.refused(b, b.Key, ledger.VoteCall{ID: id + 1, Approve: true})
	n.refused(b, b.Key, ledger.VoteCall{ID: 0, Approve: true})
	n.refused(n.Outsider, n.Outsider.Key, ledger.VoteCall{ID: id, Approve: true})
	n.refused(n.Outsider, n.Outsider.Key, pin(1, 1))

	rs = n.do(b, ledger.VoteCall{ID: id, Approve: false}, 1)
	if want := (ledger.Voted{ID: id, Org: b.Org, Approve: false}); rs[0].Body != want {
		n.Errorf("a vote against is %+v, want %+v", rs[0].Body, want)
	}
	n.refused(b, b.Key, ledger.VoteCall{ID: id, Approve: true}) // no second thoughts
	if len(n.Members) == 3 {
		n.wantKinds(n.do(c, ledger.VoteCall{ID: id, Approve: true}, 3), "voted member_admitted executed")
		n.refused(c, c.Key, ledger.VoteCall{ID: id, Approve: true})
		n.do(n.Outsider, pin(2, 1), 1)
	}
}

func proposalKinds(n *network) {
	params := n.Params
	params.Window, params.SkipAfter = 32, params.SkipAfter+1
	if r := n.decide(ledger.Proposal{Params: &params}); r.Body != (ledger.ParamsChanged{Params: params}) {
		n.Errorf("new parameters gave %+v", r.Body)
	}
	validator := ledger.ValidatorChanged{Key: wire.Hash{1}, Power: 10}
	if r := n.decide(ledger.Proposal{Validator: &validator}); r.Body != validator {
		n.Errorf("a validator gave %+v", r.Body)
	}
	policy := ledger.Policy{Approvals: 1}
	if r := n.decide(ledger.Proposal{Policy: &policy}); r.Body != (ledger.PolicyChanged{Policy: policy}) {
		n.Errorf("a policy gave %+v", r.Body)
	}
	// One approval is enough now: the proposal executes with the proposer's vote.
	policy.Approvals = 0
	n.wantKinds(n.do(n.Members[1], ledger.ProposeCall{Proposal: ledger.Proposal{Policy: &policy}}, 4),
		"proposed voted policy_changed executed")
}

func proposalRefusals(n *network) {
	m := n.Members[0]
	tooMany := ledger.Policy{Approvals: uint64(len(n.Members)) + 1}
	nobody := wire.OrgID{9}
	window := n.Params
	window.Window = 0
	version := n.Params
	version.ProtocolVersion = 0
	for _, p := range []ledger.Proposal{
		{Policy: &tooMany},
		{Suspend: &nobody},
		{Resume: &nobody},
		{Remove: &nobody},
		{Admit: &ledger.MemberAdmitted{Org: m.Org, Key: m.Spare}},
		{Admit: &ledger.MemberAdmitted{Org: nobody, Key: n.Members[1].Key}},
		{Admit: &ledger.MemberAdmitted{Org: nobody}},
		{Admit: &ledger.MemberAdmitted{Key: m.Spare}},
		{Params: &window},
		{Params: &version},
		{Validator: &ledger.ValidatorChanged{Power: 1}},
		{Validator: &ledger.ValidatorChanged{Key: wire.Hash{9}}},
		{Successor: &wire.Address{}},
	} {
		n.refused(m, m.Key, ledger.ProposeCall{Proposal: p})
	}
}

func lastMemberStays(n *network) {
	last := n.Members[0]
	for _, m := range n.Members[1:] {
		n.decide(ledger.Proposal{Suspend: &m.Org})
	}
	n.refused(last, last.Key, ledger.ProposeCall{Proposal: ledger.Proposal{Remove: &last.Org}})
	n.refused(last, last.Key, ledger.ProposeCall{Proposal: ledger.Proposal{Suspend: &last.Org}})
	n.do(last, pin(1, 1), 1)
	n.decide(ledger.Proposal{Resume: &n.Members[1].Org})
	n.do(n.Members[1], pin(2, 1), 1)
}

func successor(n *network) {
	next := wire.Address{1, 2, 3}
	if r := n.decide(ledger.Proposal{Successor: &next}); r.Body != (ledger.Succeeded{Contract: next}) {
		n.Errorf("a successor gave %+v", r.Body)
	}
	n.refused(n.Members[0], n.Members[0].Key, pin(1, 1))
	n.refused(n.Members[1], n.Members[1].Key, ledger.ProposeCall{Proposal: ledger.Proposal{Terminate: true}})
}

func terminate(n *network) {
	if r := n.decide(ledger.Proposal{Terminate: true}); r.Body != (ledger.Terminated{}) {
		n.Errorf("a termination gave %+v", r.Body)
	}
	for _, m := range n.Members {
		n.refused(m, m.Key, pin(1, 1))
	}
}

func nodeRegistration(n *network) {
	m := n.Members[1]
	node := ledger.NodeProfile{
		CertHash:  wire.Hash{1},
		SealKey:   make([]byte, 1216),
		Endpoints: []string{"node.example:5000", "standby.example:5000"},
	}
	for range 2 { // a later one replaces the first
		r := n.do(m, ledger.RegisterNodeCall{Node: node}, 1)[0]
		if d := cmp.Diff(ledger.NodeRegistered{Org: m.Org, Node: node}, r.Body); d != "" {
			n.Errorf("the registration's record (-want +got):\n%s", d)
		}
		node.Endpoints = node.Endpoints[:1]
	}
	n.refused(n.Outsider, n.Outsider.Key, ledger.RegisterNodeCall{Node: node})
	for _, bad := range []ledger.NodeProfile{
		{SealKey: node.SealKey},
		{CertHash: node.CertHash},
		{CertHash: node.CertHash, SealKey: node.SealKey, Endpoints: []string{""}},
		{CertHash: node.CertHash, SealKey: node.SealKey, Endpoints: []string{strings.Repeat("x", 256)}},
		{CertHash: node.CertHash, SealKey: node.SealKey, Endpoints: make([]string, 17)},
	} {
		n.refused(m, m.Key, ledger.RegisterNodeCall{Node: bad})
	}
}
