package order

import (
	"fmt"
	"slices"

	"github.com/parley-node/parley/wire"
)

// activate starts a new epoch if the activation is valid; the first valid one
// wins, because a later one does not follow the then current epoch.
func (a *Audience) activate(p Pin, act wire.Activation, out *Applied) (why string) {
	def := act.Definition
	hash, why := a.follows(p, def)
	if why != "" {
		return why
	}
	approved, lack := a.approvals(p, def, hash, act.Receipts)
	holders := uint32(0)
	for _, org := range approved {
		if def.Has(org) {
			holders++
		}
	}
	if c, _ := Quorums(uint32(len(def.Members) - 1)); holders < c {
		return fmt.Sprintf("%d of %d receipts by the other members of the new epoch count; %s", holders, c, lack)
	}
	if why := a.policy(p.Org, def, approved); why != "" {
		return why
	}

	a.epochs = append(a.epochs, epoch{def, hash})
	a.keys = nil
	a.forget(&out.Tags)
	a.recount(p.Position, p.Time.UnixNano()) // who left the audience cannot vote any more
	out.Activated, out.Stalled = &def, true
	return ""
}

// follows tests that a definition is a proper next epoch: of this audience,
// after the current one, with the same topic key, proposed by the pin's author,
// and of members that the network has.
func (a *Audience) follows(p Pin, def wire.EpochDefinition) (hash wire.Hash, why string) {
	cur := a.current()
	if err := def.Check(); err != nil {
		return hash, err.Error()
	}
	hash, err := def.Hash()
	switch {
	case err != nil:
		return hash, err.Error()
	case def.Network != cur.Network:
		return hash, fmt.Sprintf("network is %s, want %s", def.Network.Short(), cur.Network.Short())
	case def.Audience != a.id:
		return hash, fmt.Sprintf("audience is %s, want %s", def.Audience.Short(), a.id.Short())
	case def.Epoch != cur.Epoch+1:
		return hash, fmt.Sprintf("epoch is %d, want %d", def.Epoch, cur.Epoch+1)
	case def.Previous != cur.hash:
		return hash, fmt.Sprintf("previous is %s, but the current epoch's definition is %s", def.Previous.Short(), cur.hash.Short())
	case def.Topic != cur.Topic:
		return hash, "the topic key changed; contexts must outlive epochs"
	case def.Proposer != p.Org:
		return hash, fmt.Sprintf("proposer is %s, but %s pins it", def.Proposer.Short(), p.Org.Short())
	}
	for _, m := range def.Members {
		if !a.net.Active(m, p.Position) {
			return hash, fmt.Sprintf("%s is not an active member of the network at %s", m.Short(), p.Position)
		}
	}
	if !a.group {
		// Who belongs to the network is the contract's to say.
		for _, m := range cur.Members {
			if !def.Has(m) && a.net.Active(m, p.Position) {
				return hash, fmt.Sprintf("%s is left out, but the ledger has it as an active member", m.Short())
			}
		}
	}
	return hash, ""
}

// approvals are the organisations, without the proposer, whose receipt says
// that they hold the definition and its secret.
func (a *Audience) approvals(p Pin, def wire.EpochDefinition, hash wire.Hash, receipts []wire.Receipt) (approved []wire.OrgID, why string) {
	c := claim{author: def.Proposer, root: hash, epoch: def.Epoch, at: p.Position, age: a.net.Params(p.Position).ReceiptAge}
	return a.countValid(receipts, c, p.Position.Block, func(org wire.OrgID) bool { return org != def.Proposer })
}

// policy is the change policy of a group: so many of its current members must
// agree that are not subjects of the change themselves, zero meaning more than
// half of them. If too few are left, all of them suffice, or a group could
// freeze.
func (a *Audience) policy(proposer wire.OrgID, def wire.EpochDefinition, approved []wire.OrgID) (why string) {
	if !a.group {
		return ""
	}
	entitled, agree := uint(0), uint(0)
	for _, m := range a.current().Members {
		if !def.Has(m) {
			continue // it is removed: a subject
		}
		entitled++
		if m == proposer || slices.Contains(approved, m) {
			agree++
		}
	}
	need := entitled/2 + 1
	if n := a.current().Policy.Approvals; n > 0 {
		need = min(n, entitled)
	}
	if agree < need {
		return fmt.Sprintf("%d of %d members that are not its subjects agree, the policy asks for %d", agree, entitled, need)
	}
	return ""
}
