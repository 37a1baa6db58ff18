package nodetest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// decide has the running members carry a proposal, and waits until all of them
// have seen it executed.
func (net *Net) decide(p ledger.Proposal, by ...*Member) {
	t := net.t
	t.Helper()
	id := uint64(len(by[0].Network.Status().Proposals)) // proposals count from 0 or 1: looked up below
	_, err := by[0].Messages.Call(context.Background(), ledger.ProposeCall{Proposal: p})
	must(t, err)
	for _, m := range by {
		m.Until("the proposal is there", func(*store.Tx) (bool, error) { return uint64(len(m.Network.Status().Proposals)) > id, nil })
	}
	all := by[0].Network.Status().Proposals
	number := all[len(all)-1].ID
	executed := func(m *Member) bool {
		for _, p := range m.Network.Status().Proposals {
			if p.ID == number {
				return p.Executed
			}
		}
		return false
	}
	for _, m := range by {
		if executed(m) {
			continue
		}
		_, err := m.Messages.Call(context.Background(), ledger.VoteCall{ID: number, Approve: true})
		must(t, err)
		m.Until("its vote is on the ledger", func(*store.Tx) (bool, error) {
			for _, p := range m.Network.Status().Proposals {
				if p.ID == number && (p.Executed || p.Votes[m.Org]) {
					return true, nil
				}
			}
			return false, nil
		})
	}
	for _, m := range by {
		m.Until("the proposal is executed", func(*store.Tx) (bool, error) { return executed(m), nil })
	}
}

// epoch waits until an audience is in an epoch with a number of members, whose
// secret the member has.
func (m *Member) epoch(audience wire.Hash, number uint64, members int) {
	m.net.t.Helper()
	m.Until(fmt.Sprintf("epoch %d of %d members is current", number, members), func(tx *store.Tx) (bool, error) {
		e, err := tx.CurrentEpoch(audience)
		return e != nil && e.Epoch == number && len(e.Definition.Members) == members && e.Secret != nil, err
	})
}

// A member is suspended with messages under way, and resumed later. Meanwhile
// the others go on without it, in an epoch whose secret it does not have. What
// it had under way is confirmed after it is back.
func TestSuspendedAndResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 4)
		d, rest := net.Members[3], net.Members[:3]
		first := d.Broadcast(`0`, "t").Header.ID
		net.agree("t", []wire.UUID{first}, net.Members...)
		d.Ledger.Pause()
		late := d.Broadcast(`1`, "t").Header.ID // on its way, not pinned
		net.decide(ledger.Proposal{Suspend: &d.Org}, rest...)
		d.Ledger.Resume()
		for _, m := range rest {
			m.epoch(net.ID(), 2, 3)
		}
		between := rest[0].Broadcast(`2`, "t").Header.ID
		net.agree("t", []wire.UUID{first, between}, rest...)
		if got := d.Order("t"); len(got) != 1 {
			t.Errorf("the suspended member has %d verdicts, it had 1", len(got))
		}
		net.decide(ledger.Proposal{Resume: &d.Org}, rest...)
		for _, m := range net.Members {
			m.epoch(net.ID(), 3, 4)
		}
		for _, m := range net.Members {
			m.Confirmed(late)
		}
		net.agreeOn("t", rest...)
		after := d.Broadcast(`3`, "t").Header.ID
		for _, m := range net.Members {
			m.Confirmed(after)
		}
	})
}

// A member is removed with messages under way. They are confirmed nowhere, the
// network and its groups go on in new epochs, and it can read none of that.
func TestRemovedMidFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 4)
		d, rest := net.Members[3], net.Members[:3]
		others := func(m *Member, of []*Member) []*Member {
			return slices.DeleteFunc(slices.Clone(of), func(o *Member) bool { return o == m })
		}
		first := rest[0].Private(`0`, others(rest[0], net.Members), "t")
		var sent []wire.UUID
		sent = append(sent, first.Header.ID)
		net.agree("t", sent, net.Members...)
		group, err := wire.ParseHash(string(rest[0].Confirmed(first.Header.ID).Header.Group))
		must(t, err)
		d.Ledger.Pause()
		lost := d.Private(`"lost"`, rest, "t").Header.ID
		net.decide(ledger.Proposal{Remove: &d.Org}, rest...)
		d.Ledger.Resume()
		for _, m := range rest {
			m.epoch(net.ID(), 2, 3)
			m.epoch(group, 2, 3)
		}
		for i, m := range rest {
			msg, err := m.Messages.Private(t.Context(), toGroup(fmt.Sprint(i), group, "t"))
			must(t, err)
			sent = append(sent, msg.Header.ID)
		}
		net.agree("t", sent, rest...)
		d.without("u")
		if got := d.Order("t"); len(got) != 1 || slices.Contains(rest[0].Order("t"), lost) {
			t.Errorf("the removed member has %d verdicts, it had 1; or its last message was confirmed", len(got))
		}
		d.Stop()
	})
}

// A member changes its key. What was signed with the old one stays, and a member
// that was away the whole time accepts it.
func TestKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 4)
		a, away := net.Members[0], net.Members[3]
		away.Stop()
		old := a.Key
		var sent []wire.UUID
		send := func() {
			sent = append(sent, a.Broadcast(`1`, "t").Header.ID, net.Members[1].Broadcast(`2`, "t").Header.ID)
			net.agree("t", sent, net.Members[:3]...)
		}
		send()
		key := a.addKey()
		a.Stop()
		must(t, a.keys.SetDefault(key))
		a.Key, a.self.Key = key, key
		a.Start()
		send()
		_, err := a.Messages.Call(t.Context(), ledger.RevokeKeyCall{Key: old})
		must(t, err)
		a.Until("the old key is revoked", func(*store.Tx) (bool, error) { return len(a.Network.ValidKeys(a.Org, identity.End)) == 1, nil })
		send()
		away.Start()
		net.agree("t", sent, net.Members...)
	})
}

// An organisation joins a running network. It gets the current epoch's secret,
// takes part, and groups can have it as a member.
func TestLateJoiner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := New(t, Options{Members: 3, Admit: 1})
		net.Ready()
		old, joiner := net.Members[:3], net.Members[3]
		var before []wire.UUID
		for _, m := range old {
			before = append(before, m.Broadcast(`1`, "t").Header.ID)
		}
		net.agree("t", before, old...)
		joiner.Start()
		net.decide(ledger.Proposal{Admit: &ledger.MemberAdmitted{Org: joiner.Org, Key: joiner.Key}}, old...)
		for _, m := range net.Members {
			m.epoch(net.ID(), 2, 4)
		}
		after := []wire.UUID{joiner.Broadcast(`2`, "u").Header.ID, old[0].Broadcast(`3`, "u").Header.ID}
		net.agree("u", after, net.Members...)
		for _, m := range old {
			m.Until("the joiner has a name", func(tx *store.Tx) (bool, error) {
				id, err := identity.NodeIdentity(tx, m.Namespace, joiner.Org)
				return id != nil, err
			})
		}
		for _, m := range old {
			joiner.Until("it knows "+m.Name+" by name", func(tx *store.Tx) (bool, error) {
				id, err := identity.NodeIdentity(tx, joiner.Namespace, m.Org)
				return id != nil, err
			})
		}
		id := joiner.Private(`4`, []*Member{old[0]}, "p").Header.ID
		net.agree("p", []wire.UUID{id}, joiner, old[0])
		joiner.Kill()
		joiner.Start()
		last := old[1].Broadcast(`5`, "u").Header.ID
		net.agree("u", append(after, last), net.Members...)
	})
}

// Audiences in which nothing is left to do for their membership are not looked
// at again and again.
func TestSettledAudiencesRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a, b := net.Members[0], net.Members[1]
		b.Confirmed(a.Private(`1`, []*Member{b}, "t").Header.ID)
		net.Quiet()
		for _, m := range net.Members {
			m.Until("its audiences rest", func(tx *store.Tx) (bool, error) {
				untended, err := tx.UntendedAudiences(m.Network.Through())
				return len(untended) == 0, err
			})
		}
	})
}
