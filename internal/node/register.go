package node

import (
	"context"
	"encoding/json"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
)

// registrar introduces this member to the others: its node on the ledger, then
// its organisation and its node by name in the network's reserved context.
type registrar struct {
	n      *Node
	signal message.Signal
	done   atomic.Bool // nothing was missing at the last look
}

// confirmed wakes the registrar while its own claims may be among what was
// confirmed.
func (r *registrar) confirmed() {
	if !r.done.Load() {
		r.signal.Set()
	}
}

// Step does what is missing, one thing after the other: each shows up here as
// done only when it has come back from the ledger.
func (r *registrar) Step(ctx context.Context) (more bool, err error) {
	n := r.n
	if !n.Network.Active(n.Self.Org, identity.End) {
		return false, nil // not a member yet
	}
	if have := n.Network.Node(n.Self.Org); have == nil || !have.Equal(n.Profile) {
		return false, n.Messages.RegisterNode(ctx, n.Profile)
	}
	var org, node *store.Identity
	var sent, waiting int
	var claimed, current uint64 // epochs of the network
	err = n.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if org, err = identity.OrgIdentity(tx, n.Namespace, n.Self.Org); err != nil {
			return err
		}
		if node, err = identity.NodeIdentity(tx, n.Namespace, n.Self.Org); err != nil {
			return err
		}
		if sent, waiting, claimed, err = tx.OwnDefinitions(n.Self.Org, identity.TagClaim); err != nil {
			return err
		}
		e, err := tx.CurrentEpoch(n.Network.ID)
		if e != nil {
			current = e.Epoch
		}
		return err
	})
	if err != nil {
		return false, err
	}
	r.done.Store(node != nil)
	switch {
	case org == nil && sent == 0:
		_, err = n.ClaimOrg(ctx)
	case org != nil && node == nil && sent == 1:
		_, err = n.ClaimNode(ctx)
	case node != nil && waiting == 0 && claimed < current:
		// A member that joined with this epoch cannot read the older ones.
		if _, err = n.ClaimOrg(ctx); err == nil {
			_, err = n.ClaimNode(ctx)
		}
	}
	return false, err
}

// ClaimOrg announces the organisation by its name.
func (n *Node) ClaimOrg(ctx context.Context) (*store.Message, error) {
	salt := n.Self.Salt
	return n.Messages.Define(ctx, identity.TagClaim, identity.Claim{
		ID: uuid.NewSHA1(n.Self.Node, []byte("organisation")), DID: n.Self.DID(), Type: identity.TypeOrg, Name: n.Self.Name, Salt: &salt,
	})
}

// ClaimNode announces the node, below the organisation.
func (n *Node) ClaimNode(ctx context.Context) (*store.Message, error) {
	parent := uuid.NewSHA1(n.Self.Node, []byte("organisation"))
	p := identity.NodeProfile{ID: n.Profile.CertHash.String()}
	if len(n.Profile.Endpoints) > 0 {
		p.Endpoint = n.Profile.Endpoints[0]
	}
	profile, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return n.Messages.Define(ctx, identity.TagClaim, identity.Claim{
		ID: n.Self.Node, DID: identity.DID(identity.TypeNode, n.Self.NodeName), Type: identity.TypeNode, Parent: &parent, Name: n.Self.NodeName, Profile: profile,
	})
}
