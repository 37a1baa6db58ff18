package order

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-node/parley/wire"
)

func TestActivationNeeds(t *testing.T) {
	type setup struct {
		w                 *world
		a, b, c, outsider *member
		holders           []*member
		proposer          *member
		mutate            func(*wire.EpochDefinition)
	}
	for name, c := range map[string]struct {
		change func(*setup)
		why    string
	}{
		"all in order":          {func(s *setup) {}, ""},
		"c receipts":            {func(s *setup) { s.holders = s.holders[:1] }, "receipts by the other members"},
		"distinct receipts":     {func(s *setup) { s.holders = []*member{s.b, s.b} }, "receipts by the other members"},
		"others' receipts":      {func(s *setup) { s.holders = []*member{s.a, s.b} }, "receipts by the other members"},
		"members' receipts":     {func(s *setup) { s.holders = []*member{s.b, s.outsider} }, "receipts by the other members"},
		"the next epoch":        {func(s *setup) { s.mutate = func(d *wire.EpochDefinition) { d.Epoch = 3 } }, "epoch is 3"},
		"the current before it": {func(s *setup) { s.mutate = func(d *wire.EpochDefinition) { d.Previous = s.w.hash() } }, "previous"},
		"the same topic key":    {func(s *setup) { s.mutate = func(d *wire.EpochDefinition) { d.Topic = s.w.hash() } }, "topic"},
		"the same audience":     {func(s *setup) { s.mutate = func(d *wire.EpochDefinition) { d.Audience = s.w.network } }, "audience"},
		"its own proposer":      {func(s *setup) { s.proposer = s.b }, "proposer"},
		"active members":        {func(s *setup) { s.w.setActive(s.c, false) }, "not an active member"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newGroup(t, 5, 3, wire.ChangePolicy{})
			s := &setup{w: w, a: w.members[0], b: w.members[1], c: w.members[2], outsider: w.members[4], proposer: w.members[0]}
			s.holders = []*member{s.b, s.c}
			n := w.node()
			n.apply(w.pin(s.a, create(w)))
			c.change(s)
			def, secret := w.propose(s.a, w.orgs(4)) // v = 3, c = 2
			if s.mutate != nil {
				s.mutate(&def)
			}
			out := n.apply(w.pin(s.proposer, w.activation(def, s.holders...)))
			wantValid(t, out)
			if c.why == "" {
				if out.Activated == nil || !out.Stalled || n.a.Epoch().Epoch != 2 {
					t.Fatalf("not activated: %v", out.Ignored)
				}
				w.adopt(def, secret)
				n.unlock()
				return
			}
			if out.Activated != nil || len(out.Ignored) != 1 || !strings.Contains(out.Ignored[0], c.why) {
				t.Fatalf("activated %v, ignored %v; want %q", out.Activated != nil, out.Ignored, c.why)
			}
			wantValid(t, n.apply(w.pin(s.a, nil, msg("a")))) // the old epoch stays current
		})
	}
}

func TestGroupChangePolicy(t *testing.T) {
	// Four members: 0 proposes. Subjects have no say in their own case.
	for name, c := range map[string]struct {
		approvals uint
		members   []int // of the new epoch
		holders   []int
		why       string
	}{
		"majority without the removed":         {0, []int{0, 1, 2}, []int{1}, ""},
		"removed member's receipt counts not":  {3, []int{0, 1, 2}, []int{1, 3}, "2 of 3"},
		"majority without the added":           {0, []int{0, 1, 2, 3, 4}, []int{1, 4}, "2 of 4"},
		"three of four":                        {0, []int{0, 1, 2, 3, 4}, []int{1, 2}, ""},
		"policy asks for all":                  {4, []int{0, 1, 2, 3, 4}, []int{1, 2, 4}, "3 of 4"},
		"policy asks for more than there are":  {4, []int{0, 1}, []int{1}, ""},
		"policy asks for one, c asks for more": {1, []int{0, 1, 2, 3}, []int{1}, "receipts by the other members"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newGroup(t, 5, 4, wire.ChangePolicy{Approvals: c.approvals})
			pick := func(is []int) (ms []*member, ids []wire.OrgID) {
				for _, i := range is {
					ms, ids = append(ms, w.members[i]), append(ids, w.members[i].org)
				}
				return ms, ids
			}
			n := w.node()
			n.apply(w.pin(w.members[0], create(w)))
			_, ids := pick(c.members)
			def, _ := w.propose(w.members[0], ids)
			def.Policy.Approvals = 0
			holders, _ := pick(c.holders)
			out := n.apply(w.pin(w.members[0], w.activation(def, holders...)))
			if (out.Activated != nil) != (c.why == "") || c.why != "" && !strings.Contains(out.Ignored[0], c.why) {
				t.Fatalf("activated %v, ignored %v; want %q", out.Activated != nil, out.Ignored, c.why)
			}
		})
	}
}

// Members of the network are the contract's to decide: an epoch of the network
// audience cannot leave one out.
func TestNetworkEpochCannotLeaveOutAMember(t *testing.T) {
	w := newNetwork(t, 4)
	n := w.node()
	def, _ := w.propose(w.members[0], w.orgs(3))
	control := w.activation(def, w.members[1:3]...)
	if out := n.apply(w.pin(w.members[0], control)); out.Activated != nil {
		t.Fatal("three members left the fourth out of the network")
	}
	w.setActive(w.members[3], false)
	if out := n.apply(w.pin(w.members[0], control)); out.Activated == nil {
		t.Fatalf("a member that the ledger removed stays: %v", out.Ignored)
	}
}

func TestFirstValidActivationWins(t *testing.T) {
	w := newGroup(t, 3, 3, wire.ChangePolicy{})
	a, b, c := w.members[0], w.members[1], w.members[2]
	n := w.node()
	n.apply(w.pin(a, create(w)))
	first, secret := w.propose(a, w.orgs(3))
	second, _ := w.propose(b, w.orgs(3))
	p1 := w.pin(a, w.activation(first, b, c))
	p2 := w.pin(b, w.activation(second, a, c))
	old := w.pin(c, nil, msg("a"))
	n.apply(p1)
	w.adopt(first, secret)
	n.unlock()
	for _, p := range []Pin{p2, old} {
		wantVoid(t, n.apply(p), "not expected in epoch 2") // for all alike: its epoch has passed
	}
	if got := n.a.Epoch(); got.Salt != first.Salt {
		t.Fatal("the second activation won")
	}
	out := n.apply(w.pin(c, nil, msg("a")))
	if wantValid(t, out); out.N != 1 || out.Epoch != 2 {
		t.Fatalf("n %d in epoch %d: numbers count per epoch", out.N, out.Epoch)
	}
}

func TestContextsOutliveEpochs(t *testing.T) {
	w := newGroup(t, 2, 2, wire.ChangePolicy{})
	a, b := w.members[0], w.members[1]
	n := w.node()
	p1 := w.pin(a, create(w), msg("a"))
	n.apply(p1)
	def, secret := w.propose(a, w.orgs(2))
	n.apply(w.pin(a, w.activation(def, b)))
	w.adopt(def, secret)
	n.unlock()
	p2 := w.pin(b, nil, msg("a"))
	n.apply(p2)
	n.head()
	n.payload(idOf(p2))
	n.receive(w.receipt(a, idOf(p2), 2))
	n.expectVerdicts(t, n.judge()) // it stands behind the entry of epoch 1
	n.payload(idOf(p1))
	n.receive(w.receipt(b, idOf(p1), 1))
	n.expectVerdicts(t, n.judge(), fmt.Sprintf("%d/0 confirmed", p1.Number), fmt.Sprintf("%d/0 confirmed", p2.Number))
}

func TestStalledMachineGoesOnWithWhatItHasAndNeverOvertakes(t *testing.T) {
	w := newGroup(t, 2, 2, wire.ChangePolicy{})
	a, b := w.members[0], w.members[1]
	n := w.node()
	early := w.pin(a, create(w), msg("a"))
	n.apply(early)
	w.next(testAfter - time.Second)
	late := w.pin(a, nil, msg("b"))
	n.apply(late)
	def, secret := w.propose(a, w.orgs(2))
	if out := n.apply(w.pin(a, w.activation(def, b))); !out.Stalled || !n.a.Stalled() {
		t.Fatal("the machine is not stalled without the new secret")
	}
	n.expectNoTags()
	w.next(2 * time.Second)
	w.adopt(def, secret)
	vote := w.pin(b, vote(idOf(early))) // which the stalled machine cannot read
	if _, err := n.a.Apply(vote); err == nil {
		t.Fatal("a stalled machine applied a pin")
	}
	through := n.a.Through()
	n.head()
	if n.a.Through() != through {
		t.Fatal("a stalled machine moved on")
	}
	for _, p := range []Pin{early, late} {
		n.payload(idOf(p))
		n.receive(w.receipt(b, idOf(p), 1))
	}
	// early is older than T: a vote against it may be pinned that is not seen.
	n.expectVerdicts(t, n.judge(), fmt.Sprintf("%d/0 confirmed", late.Number))
	if bs := n.a.Blockers(w.contexts("a")[0], a.org); len(bs) != 1 || bs[0].Missing != MissingSecret {
		t.Fatalf("blockers %+v, want the missing secret", bs)
	}
	n.unlock()
	n.expectVerdicts(t, n.judge()) // not before the pins that follow are applied
	n.applyAll()
	n.expectVerdicts(t, n.judge())
	w.next(testGrace)
	n.head()
	n.expectVerdicts(t, n.judge(), fmt.Sprintf("%d/-1 skipped", early.Number))
}

func TestUnlockedMachineJudgesWhatItHeldBack(t *testing.T) {
	w := newGroup(t, 2, 2, wire.ChangePolicy{})
	a, b := w.members[0], w.members[1]
	n := w.node()
	p := w.pin(a, create(w), msg("a"))
	n.apply(p)
	def, secret := w.propose(a, w.orgs(2))
	n.apply(w.pin(a, w.activation(def, b)))
	w.next(testAfter)
	n.head()
	n.payload(idOf(p))
	n.receive(w.receipt(b, idOf(p), 1))
	n.expectVerdicts(t, n.judge())
	w.adopt(def, secret)
	n.unlock()
	n.head()
	n.expectVerdicts(t, n.judge(), fmt.Sprintf("%d/0 confirmed", p.Number))
}

func TestLeavingTheNetworkEndsGroupRights(t *testing.T) {
	w := newGroup(t, 3, 3, wire.ChangePolicy{})
	n := w.node()
	n.apply(w.pin(w.members[0], create(w)))
	w.setActive(w.members[2], false)
	wantVoid(t, n.apply(w.pin(w.members[2], nil, msg("a"))), "active member")
	if row := n.apply(w.pin(w.members[0], nil, msg("a"))).Entry; row.V != 1 {
		t.Fatalf("v = %d, want 1", row.V)
	}
}

func TestMemberThatLeftTheGroupCountsAsGone(t *testing.T) {
	w := newGroup(t, 4, 4, wire.ChangePolicy{})
	a, b, c := w.members[0], w.members[1], w.members[2]
	n := w.node()
	n.apply(w.pin(a, create(w)))
	p := w.pin(a, nil, msg("a")) // v = 3, s = 2
	n.apply(p)
	n.vote(idOf(p), false, b)
	n.wantDue(t, idOf(p), -1)
	same, secret := w.propose(a, w.orgs(4))
	n.apply(w.pin(a, w.activation(same, b, c)))
	w.adopt(same, secret)
	n.unlock()
	n.wantDue(t, idOf(p), -1)
	def, secret := w.propose(a, w.orgs(3))
	out := n.apply(w.pin(a, w.activation(def, b, c)))
	if out.Activated == nil || !slices.ContainsFunc(out.Changed, func(e Entry) bool { return e.SkipDue != 0 }) {
		t.Fatalf("activated %v, changed %v: the member that left must count", out.Activated != nil, out.Changed)
	}
	w.adopt(def, secret)
	n.unlock()
	n.wantDue(t, idOf(p), testGrace)
}
