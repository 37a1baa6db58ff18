package identity

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// In a namespace without a network, identities are an address book of this
// node's: entries of any type, whose keys and certificates nobody vouches for
// but who enters them.

// NewEntry checks an application's wish for an entry of the address book. Key is
// an address, or for a node the id of its certificate; it may be left out.
func NewEntry(tx *store.Tx, namespace string, id wire.UUID, in Input) (*Claim, error) {
	typ := strings.ToLower(in.Type)
	if typ == "" {
		typ = TypeCustom
	}
	if !slices.Contains([]string{TypeOrg, TypeNode, TypeCustom}, typ) {
		return nil, errs.BadRequest("FF10358", "field %q holds %q: use org, node or custom", "type", in.Type)
	}
	if err := CheckName("name", in.Name); err != nil {
		return nil, err
	}
	if err := checkProfile(in.Profile); err != nil {
		return nil, err
	}
	c := &Claim{ID: id, DID: DID(typ, in.Name), Type: typ, Name: in.Name, Description: in.Description, Profile: in.Profile, Key: in.Key}
	if in.Key != "" && typ != TypeNode {
		key, err := wire.ParseAddress(in.Key)
		if err != nil {
			return nil, errs.BadRequest("FF10354", "field %q: %v", "key", err)
		}
		c.Key = key.String()
	}
	if in.Parent != "" {
		parent, err := Resolve(tx, namespace, in.Parent)
		if err != nil {
			return nil, err
		}
		if parent == nil {
			return nil, errs.BadRequest("FF10277", "field %q names %q, which is no identity known here: see GET identities", "parent", in.Parent)
		}
		c.Parent = &parent.ID
	}
	return c, nil
}

// ApplyEntry stores an entry of the address book, or says why it is not valid.
func ApplyEntry(tx *store.Tx, namespace string, c Claim, at store.Time) (stored *store.Identity, reject string, err error) {
	have, err := store.Optional(tx.IdentityByDID(namespace, c.DID))
	if err != nil {
		return nil, "", err
	}
	if have != nil {
		return nil, fmt.Sprintf("the DID %s is taken", c.DID), nil
	}
	id := &store.Identity{
		ID: c.ID, DID: c.DID, Type: c.Type, Parent: c.Parent, Namespace: namespace, Name: c.Name,
		Description: c.Description, Profile: c.Profile, Created: at, Updated: at,
	}
	kind, value := VerifierAddress, c.Key
	if c.Type == TypeNode {
		kind = VerifierPeer
		var p NodeProfile
		if value == "" && json.Unmarshal(c.Profile, &p) == nil {
			value = p.ID
		}
	}
	if value != "" {
		taken, err := store.Optional(tx.VerifierByValue(namespace, kind, value))
		if err != nil {
			return nil, "", err
		}
		if taken != nil {
			return nil, fmt.Sprintf("%s is the key of identity %s", value, taken.Identity), nil
		}
	}
	if err := tx.UpsertIdentity(id); err != nil {
		return nil, "", err
	}
	if value != "" {
		err = putVerifier(tx, namespace, id.ID, kind, value, at)
	}
	return id, "", err
}
