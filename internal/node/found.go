package node

import (
	"crypto/rand"
	"slices"
	"time"

	"github.com/parley-node/parley/wire"
)

// Found defines the first epoch of a network: its founding members and a new
// secret. The definition's hash is an argument of the network contract; the
// founder keeps both and its node invites the others.
func Found(network wire.Hash, founder wire.OrgID, members []wire.OrgID, at time.Time) (*Founding, error) {
	f := &Founding{Secret: wire.NewEpochSecret(wire.Hash{})}
	f.Definition = wire.EpochDefinition{
		Network: network, Audience: network, Epoch: 1, Proposer: founder, Name: "network",
		Members: slices.Clone(members), History: "all", Created: at.UnixNano(),
	}
	if _, err := rand.Read(f.Definition.Salt[:]); err != nil {
		return nil, err
	}
	slices.SortFunc(f.Definition.Members, func(a, b wire.OrgID) int { return slices.Compare(a[:], b[:]) })
	f.Definition.Commit(f.Secret.Keys())
	return f, f.Definition.Check()
}
