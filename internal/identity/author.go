package identity

import (
	"fmt"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Author finds the custom identity of this organisation that an application
// names as the author of a message, by DID, name or id.
func Author(tx *store.Tx, namespace string, self wire.OrgID, what string) (*store.Identity, error) {
	id, err := Resolve(tx, namespace, what)
	switch {
	case err != nil:
		return nil, err
	case id == nil:
		return nil, errs.BadRequest("FF10206", "field %q holds %q, which is no identity known here: see GET identities, or claim it with POST identities and wait until the claim is confirmed", "header.author", what)
	case id.Org != self:
		return nil, errs.BadRequest("FF10206", "field %q holds %q, which is %s of another organisation: give your organisation or an identity below it", "header.author", what, id.DID)
	case id.Type == TypeNode:
		return nil, errs.BadRequest("FF10206", "field %q holds %q, which is a node: give your organisation or a custom identity below it", "header.author", what)
	}
	return id, nil
}

// SignerOf is the key that alone signs for an identity at a position; false if
// any key of its organisation does.
func (n *Network) SignerOf(id *store.Identity, at wire.Position) (wire.Address, bool) {
	owner, valid := n.OrgOf(id.Signer, at)
	return id.Signer, valid && owner == id.Org
}

// Refute says why a message that org's key signed at a position cannot be from
// the custom identity did, or nothing. It asks the claims that were pinned before
// and the ledger, never about now: members that read it later must find the same.
// Those claims must be judged.
//
// The key of the claim signs. Once that one is revoked, any of the organisation
// does, or the identity would fall silent with it.
func (n *Network) Refute(tx *store.Tx, namespace, did string, org wire.OrgID, key string, pinned wire.Position) (reason string, err error) {
	id, err := store.Optional(tx.IdentityByDID(namespace, did))
	if err != nil {
		return "", err
	}
	if id == nil || id.Type != TypeCustom || id.Claimed.Compare(pinned) >= 0 {
		return fmt.Sprintf("the author %s was not claimed before the message was pinned", did), nil
	}
	if id.Org != org {
		return fmt.Sprintf("the author %s is an identity of another organisation", did), nil
	}
	if signer, own := n.SignerOf(id, pinned); own && key != signer.String() {
		return fmt.Sprintf("the key %s signed, but %s signs for the author %s", key, signer, did), nil
	}
	return "", nil
}
