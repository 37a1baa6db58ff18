package contracts

import (
	"math"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
)

func TestFounding(t *testing.T) {
	n := found(t, setup{founders: 3, approvals: 2, validators: []validator{{bytes32{1}, 10}, {bytes32{2}, 20}}})
	n.checkLog()
	var names []string
	for _, l := range n.logs() {
		names = append(names, n.event(&l).Name)
		if common.BytesToAddress(l.Topics[3][:]) != addr(n.keys[0]) {
			t.Errorf("a founding record is not the deployer's: %x", l.Topics[3])
		}
	}
	sameNames(t, names, "Founded", "MemberAdmitted", "MemberAdmitted", "MemberAdmitted", "ValidatorChanged", "ValidatorChanged")
	if got := query[params](n, "params"); got != defaultParams {
		t.Errorf("params %+v", got)
	}
	if got := query[uint64](n, "policy"); got != 2 {
		t.Errorf("policy %d", got)
	}
	if got := query[bytes32](n, "epoch1"); got != (bytes32{0xe1}) {
		t.Errorf("epoch1 %x", got)
	}
	if got := query[[]bytes32](n, "memberList"); len(got) != 3 || got[2] != org(2) {
		t.Errorf("members %x", got)
	}
	if got := query[uint64](n, "validatorPower", bytes32{2}); got != 20 {
		t.Errorf("power %d", got)
	}
	if !query[bool](n, "isValidKey", addr(n.keys[1])) || query[bool](n, "isValidKey", addr(n.keys[3])) {
		t.Error("key validity after founding is wrong")
	}
}

func TestFoundingRefusals(t *testing.T) {
	n := newChain(t, 3)
	noParams := defaultParams
	noParams.Window = 0
	one := n.founders(1)
	for _, c := range []struct {
		want       string
		founders   []founder
		params     params
		approvals  uint64
		validators []validator
	}{
		{"NoFounder()", []founder{}, defaultParams, 0, nil},
		{"ZeroOrg()", []founder{{bytes32{}, addr(n.keys[0])}}, defaultParams, 0, nil},
		{"ZeroKey()", []founder{{org(0), common.Address{}}}, defaultParams, 0, nil},
		{"AlreadyMember(aa01)", append(n.founders(1), founder{org(0), addr(n.keys[1])}), defaultParams, 0, nil},
		{"KeyOfOtherMember(" + addr(n.keys[0]).Hex() + ")", append(n.founders(1), founder{org(1), addr(n.keys[0])}), defaultParams, 0, nil},
		{"PolicyAboveMembers(2, 1)", one, defaultParams, 2, nil},
		{"InvalidParams(window)", one, noParams, 0, nil},
		{"UnknownValidator(0100)", one, defaultParams, 0, []validator{{bytes32{1}, 0}}},
	} {
		if c.validators == nil {
			c.validators = []validator{}
		}
		args := n.pack("", c.founders, c.params, c.approvals, bytes32{}, c.validators)
		got := n.refusalOfCreation(append(append([]byte{}, NetworkBytecode...), args...))
		if got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestMembership(t *testing.T) {
	n := found(t, setup{founders: 3}) // majority: 2 of 3
	a, b, c, d := n.keys[0], n.keys[1], n.keys[2], n.keys[3]
	n.refuse("UnknownKey("+addr(d).Hex()+")", d, "propose", admit, pack(t, org(3), addr(d)))

	sameNames(t, n.do(a, "propose", admit, pack(t, org(3), addr(d))), "Proposed", "Voted")
	n.refuse("VotedBefore(1, aa01)", a, "vote", uint64(1), true)
	sameNames(t, n.do(b, "vote", uint64(1), true), "Voted", "MemberAdmitted", "Executed")
	n.refuse("ProposalExecuted(1)", c, "vote", uint64(1), true)
	n.refuse("UnknownProposal(0)", c, "vote", uint64(0), true)
	n.refuse("UnknownProposal(2)", c, "vote", uint64(2), true)
	n.refuse("AlreadyMember(aa04)", a, "propose", admit, pack(t, org(3), addr(n.keys[4])))

	// Now 3 of 4. A vote against does not execute, whatever else was voted.
	n.do(a, "propose", suspend, pack(t, org(3)))
	n.do(b, "vote", uint64(2), true)
	sameNames(t, n.do(d, "vote", uint64(2), false), "Voted")
	sameNames(t, n.do(c, "vote", uint64(2), true), "Voted", "MemberSuspended", "Executed")
	n.refuse("MemberNotActive(aa04)", d, "vote", uint64(2), true)
	n.refuse("MemberNotActive(aa04)", a, "propose", suspend, pack(t, org(3)))
	n.refuse("MemberNotActive(aa04)", d, "addKey", addr(n.keys[5]))
	n.refuse("MemberNotSuspended(aa02)", a, "propose", resume, pack(t, org(1)))

	n.do(a, "propose", resume, pack(t, org(3)))
	sameNames(t, n.do(b, "vote", uint64(3), true), "Voted", "MemberResumed", "Executed")
	if !query[bool](n, "isValidKey", addr(d)) {
		t.Error("a resumed member's key is not valid")
	}

	n.do(a, "propose", remove, pack(t, org(3)))
	n.do(b, "vote", uint64(4), true)
	sameNames(t, n.do(c, "vote", uint64(4), true), "Voted", "MemberRemoved", "Executed")
	n.refuse("MemberNotActive(aa04)", d, "pin", bytes32{1}, bytes16{}, []bytes16{{1}}, []byte{})
	n.refuse("NotMember(aa04)", a, "propose", remove, pack(t, org(3)))
	n.refuse("NotMember(aa09)", a, "propose", remove, pack(t, org(8)))
	n.checkLog()
}

// A removed member that comes back starts anew: its old keys stay invalid until
// it adds them again, and its old votes do not count.
func TestReadmission(t *testing.T) {
	n := found(t, setup{founders: 3, approvals: 2})
	a, b, c := n.keys[0], n.keys[1], n.keys[2]
	fresh, second := n.keys[3], n.keys[4]
	n.do(c, "addKey", addr(second))
	n.do(c, "propose", setPolicy, pack(t, uint64(1))) // 1: c approves

	n.do(a, "propose", remove, pack(t, org(2)))
	n.do(b, "vote", uint64(2), true)
	n.refuse("KeyOfOtherMember("+addr(c).Hex()+")", a, "propose", admit, pack(t, org(7), addr(c)))
	n.do(a, "propose", admit, pack(t, org(2), addr(fresh)))
	n.do(b, "vote", uint64(3), true)

	n.refuse("KeyNotValid("+addr(c).Hex()+")", c, "vote", uint64(1), true)
	n.refuse("KeyNotValid("+addr(second).Hex()+")", fresh, "revokeKey", addr(second))
	n.refuse("LastKey(aa03)", fresh, "revokeKey", addr(fresh))

	// c's approval of 1 was given in its former membership: one more is not enough.
	sameNames(t, n.do(a, "vote", uint64(1), true), "Voted")
	sameNames(t, n.do(fresh, "vote", uint64(1), true), "Voted", "PolicyChanged", "Executed")

	sameNames(t, n.do(fresh, "addKey", addr(c)), "KeyAdded")
	n.do(c, "pin", bytes32{1}, bytes16{}, []bytes16{{1}}, []byte{})
	n.checkLog()
}

func TestSuspendedVotesDoNotCount(t *testing.T) {
	n := found(t, setup{founders: 4, approvals: 3})
	a, b, c, d := n.keys[0], n.keys[1], n.keys[2], n.keys[3]
	n.do(d, "propose", setPolicy, pack(t, uint64(1))) // 1: d
	n.do(a, "vote", uint64(1), true)                  // 1: d, a
	n.do(a, "propose", suspend, pack(t, org(3)))
	n.do(b, "vote", uint64(2), true)
	n.do(c, "vote", uint64(2), true)
	// Needed: 3. Counting: a, b; d is suspended.
	sameNames(t, n.do(b, "vote", uint64(1), true), "Voted")
	sameNames(t, n.do(c, "vote", uint64(1), true), "Voted", "PolicyChanged", "Executed")
	n.checkLog()
}

// A policy that removals left above the number of members means all of them.
func TestPolicyNeverLocksOut(t *testing.T) {
	n := found(t, setup{founders: 3, approvals: 3})
	a, b, c := n.keys[0], n.keys[1], n.keys[2]
	n.refuse("PolicyAboveMembers(4, 3)", a, "propose", setPolicy, pack(t, uint64(4)))
	n.do(a, "propose", remove, pack(t, org(2)))
	n.do(b, "vote", uint64(1), true)
	sameNames(t, n.do(c, "vote", uint64(1), true), "Voted", "MemberRemoved", "Executed")
	if got := query[uint64](n, "required"); got != 2 {
		t.Errorf("required %d, want 2", got)
	}
	n.do(a, "propose", remove, pack(t, org(1)))
	sameNames(t, n.do(b, "vote", uint64(2), true), "Voted", "MemberRemoved", "Executed")
	n.refuse("LastActiveMember(aa01)", a, "propose", remove, pack(t, org(0)))
	n.refuse("LastActiveMember(aa01)", a, "propose", suspend, pack(t, org(0)))
	// One member alone decides with its proposal.
	sameNames(t, n.do(a, "propose", admit, pack(t, org(5), addr(n.keys[5]))), "Proposed", "Voted", "MemberAdmitted", "Executed")
	n.checkLog()
}

// What became impossible since it was proposed is refused when it would
// execute, and leaves no trace.
func TestExecutionIsChecked(t *testing.T) {
	n := found(t, setup{founders: 2, approvals: 2})
	a, b := n.keys[0], n.keys[1]
	n.do(a, "propose", admit, pack(t, org(3), addr(n.keys[3])))
	n.do(a, "propose", admit, pack(t, org(3), addr(n.keys[4])))
	n.do(b, "vote", uint64(1), true)
	before := query[uint64](n, "records")
	n.refuse("AlreadyMember(aa04)", b, "vote", uint64(2), true)
	r := n.transact(b, &n.address, n.pack("vote", uint64(2), true))
	if r.Status != types.ReceiptStatusFailed || query[uint64](n, "records") != before {
		t.Error("a refused vote left a trace")
	}
	n.checkLog()
}

func TestParamsPolicyValidators(t *testing.T) {
	n := found(t, setup{founders: 1, validators: []validator{{bytes32{1}, 10}}})
	a := n.keys[0]
	next := defaultParams
	next.ProtocolVersion, next.ProtocolFrom = 2, 1000
	sameNames(t, n.do(a, "propose", setParams, pack(t, next)), "Proposed", "Voted", "ParamsChanged", "Executed")
	if got := query[params](n, "params"); got != next {
		t.Errorf("params %+v", got)
	}
	for field, change := range map[string]func(*params){
		"protocolVersion": func(p *params) { p.ProtocolVersion = 0 },
		"window":          func(p *params) { p.Window = 0 },
		"receiptAge":      func(p *params) { p.ReceiptAge = 0 },
		"skipAfter":       func(p *params) { p.SkipAfter = math.MaxInt64 + 1 },
		"skipGrace":       func(p *params) { p.SkipGrace = 0 },
	} {
		bad := defaultParams
		change(&bad)
		n.refuse("InvalidParams("+field+")", a, "propose", setParams, pack(t, bad))
	}

	n.refuse("UnknownValidator(0900)", a, "propose", setValidator, pack(t, bytes32{9}, uint64(0)))
	n.refuse("LastValidator(0100)", a, "propose", setValidator, pack(t, bytes32{1}, uint64(0)))
	n.refuse("ZeroKey()", a, "propose", setValidator, pack(t, bytes32{}, uint64(1)))
	n.refuse("PowerTooHigh(1099511627777, 1099511627776)", a, "propose", setValidator, pack(t, bytes32{1}, uint64(1<<40+1)))
	sameNames(t, n.do(a, "propose", setValidator, pack(t, bytes32{2}, uint64(5))), "Proposed", "Voted", "ValidatorChanged", "Executed")
	n.do(a, "propose", setValidator, pack(t, bytes32{2}, uint64(6))) // a change of power adds none
	n.do(a, "propose", setValidator, pack(t, bytes32{1}, uint64(0)))
	n.refuse("LastValidator(0200)", a, "propose", setValidator, pack(t, bytes32{2}, uint64(0)))

	n.refuse("WrongArguments(31)", a, "propose", setPolicy, make([]byte, 31))
	n.refuse("WrongArguments(32)", a, "propose", terminate, make([]byte, 32))
	n.refuse("no reason", a, "propose", uint8(9), []byte{}) // no such action
	n.checkLog()
}

func TestKeys(t *testing.T) {
	n := found(t, setup{founders: 2})
	a, b, second := n.keys[0], n.keys[1], n.keys[2]
	n.refuse("LastKey(aa01)", a, "revokeKey", addr(a))
	n.refuse("ZeroKey()", a, "addKey", common.Address{})
	n.refuse("UnknownKey("+addr(second).Hex()+")", second, "addKey", addr(second))
	sameNames(t, n.do(a, "addKey", addr(second)), "KeyAdded")
	n.refuse("KeyValidAlready("+addr(second).Hex()+")", a, "addKey", addr(second))
	n.refuse("KeyOfOtherMember("+addr(second).Hex()+")", b, "addKey", addr(second))
	n.refuse("KeyOfOtherMember("+addr(second).Hex()+")", b, "revokeKey", addr(second))
	n.refuse("UnknownKey("+addr(n.keys[7]).Hex()+")", a, "revokeKey", addr(n.keys[7]))

	// The second key may end the first, which is then of no use to anyone.
	sameNames(t, n.do(second, "revokeKey", addr(a)), "KeyRevoked")
	n.refuse("KeyNotValid("+addr(a).Hex()+")", a, "addKey", addr(n.keys[7]))
	n.refuse("KeyNotValid("+addr(a).Hex()+")", second, "revokeKey", addr(a))
	n.refuse("KeyOfOtherMember("+addr(a).Hex()+")", b, "addKey", addr(a))
	n.refuse("LastKey(aa01)", second, "revokeKey", addr(second))
	// Its own organisation may bring it back.
	sameNames(t, n.do(second, "addKey", addr(a)), "KeyAdded")
	sameNames(t, n.do(a, "revokeKey", addr(second)), "KeyRevoked")
	n.checkLog()
}

func TestRegisterNode(t *testing.T) {
	n := found(t, setup{founders: 1})
	a := n.keys[0]
	seal := make([]byte, 1216)
	sameNames(t, n.do(a, "registerNode", bytes32{1}, seal, []string{"node.example:5000", "standby.example:5000"}), "NodeRegistered")
	sameNames(t, n.do(a, "registerNode", bytes32{1}, seal, []string{}), "NodeRegistered")
	n.refuse("InvalidNode(certHash)", a, "registerNode", bytes32{}, seal, []string{"x:1"})
	n.refuse("InvalidNode(sealKey)", a, "registerNode", bytes32{1}, []byte{}, []string{"x:1"})
	n.refuse("InvalidNode(sealKey)", a, "registerNode", bytes32{1}, make([]byte, 4097), []string{"x:1"})
	n.refuse("InvalidNode(endpoints)", a, "registerNode", bytes32{1}, seal, []string{""})
	n.refuse("InvalidNode(endpoints)", a, "registerNode", bytes32{1}, seal, []string{strings.Repeat("x", 256)})
	n.refuse("InvalidNode(endpoints)", a, "registerNode", bytes32{1}, seal, strings.Split(strings.Repeat("x", 17), ""))
	n.refuse("UnknownKey("+addr(n.keys[1]).Hex()+")", n.keys[1], "registerNode", bytes32{1}, seal, []string{"x:1"})
	n.checkLog()
}

func TestSuccessorAndTermination(t *testing.T) {
	everything := func(n *network, want string) {
		a := n.keys[0]
		n.refuse(want, a, "pin", bytes32{1}, bytes16{}, []bytes16{{1}}, []byte{})
		n.refuse(want, a, "addKey", addr(n.keys[5]))
		n.refuse(want, a, "revokeKey", addr(a))
		n.refuse(want, a, "registerNode", bytes32{1}, []byte{1}, []string{})
		n.refuse(want, a, "propose", terminate, []byte{})
		n.refuse(want, a, "vote", uint64(1), true)
		n.checkLog()
	}
	t.Run("successor", func(t *testing.T) {
		n := found(t, setup{founders: 1})
		next := common.Address{0x42}
		n.refuse("InvalidSuccessor("+common.Address{}.Hex()+")", n.keys[0], "propose", setSuccessor, pack(t, common.Address{}))
		n.refuse("InvalidSuccessor("+n.address.Hex()+")", n.keys[0], "propose", setSuccessor, pack(t, n.address))
		sameNames(t, n.do(n.keys[0], "propose", setSuccessor, pack(t, next)), "Proposed", "Voted", "Succeeded", "Executed")
		everything(n, "NetworkSucceeded("+next.Hex()+")")
	})
	t.Run("termination", func(t *testing.T) {
		n := found(t, setup{founders: 1})
		sameNames(t, n.do(n.keys[0], "propose", terminate, []byte{}), "Proposed", "Voted", "Terminated", "Executed")
		everything(n, "NetworkTerminated()")
	})
}

func TestProposalView(t *testing.T) {
	n := found(t, setup{founders: 3})
	n.do(n.keys[0], "propose", suspend, pack(t, org(2)))
	n.do(n.keys[2], "vote", uint64(1), false)
	p := query[struct {
		Action    uint8
		Executed  bool
		Arguments []byte
	}](n, "proposal", uint64(1))
	if p.Action != suspend || p.Executed || string(p.Arguments) != string(pack(t, org(2))) {
		t.Errorf("proposal %+v", p)
	}
	n.refuse("UnknownProposal(2)", n.keys[0], "proposal", uint64(2))
}
