package identity

import (
	"slices"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// Member is an organisation as the ledger knows it, members of the past too.
type Member struct {
	Org    wire.OrgID
	Active bool // a member now, neither suspended nor removed
	Keys   []MemberKey
	Node   *ledger.NodeProfile // nil until it registered one
}

// MemberKey is a signing key of an organisation.
type MemberKey struct {
	Address wire.Address
	Revoked bool
}

// Directory lists all organisations that are or were members, in order of
// their ids.
func (n *Network) Directory() []Member {
	n.mu.RLock()
	defer n.mu.RUnlock()
	all := make([]Member, 0, len(n.orgs))
	for id, o := range n.orgs {
		m := Member{Org: id, Active: n.active(id, End), Node: o.node}
		for _, k := range o.keys {
			m.Keys = append(m.Keys, MemberKey{k, n.keys[k].revoked != nil})
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Member) int { return slices.Compare(a.Org[:], b.Org[:]) })
	return all
}
