package identity

import (
	"encoding/json"
	"strings"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Input is a custom identity as an application asks for it.
type Input struct {
	Name        string          `json:"name"`
	Type        string          `json:"type,omitempty"`   // custom, which is also the default
	Parent      string          `json:"parent,omitempty"` // id, DID or name; default the organisation
	Key         string          `json:"key,omitempty"`    // address of one of the organisation's keys
	Description string          `json:"description,omitempty"`
	Profile     json.RawMessage `json:"profile,omitempty"`
}

// NewClaim checks an application's wish and makes the claim to be broadcast. It
// refuses what can be known to be refused; who claims a DID first is known only
// when the claim is confirmed.
func NewClaim(tx *store.Tx, namespace string, self wire.OrgID, id wire.UUID, in Input) (*Claim, error) {
	typ := strings.ToLower(in.Type)
	switch typ {
	case "":
		typ = TypeCustom
	case TypeCustom:
	case TypeOrg, TypeNode:
		return nil, errs.BadRequest("FF10358", "field %q holds %q: this node registers its organisation and itself; use POST network/organizations/self or network/nodes/self", "type", in.Type)
	default:
		return nil, errs.BadRequest("FF10358", "field %q holds %q: use custom", "type", in.Type)
	}
	if err := CheckName("name", in.Name); err != nil {
		return nil, err
	}
	if in.Key == "" {
		return nil, errs.BadRequest("FF10352", "field %q is missing: give the address of the key that signs for the identity", "key")
	}
	key, err := wire.ParseAddress(in.Key)
	if err != nil {
		return nil, errs.BadRequest("FF10354", "field %q: %v", "key", err)
	}
	if err := checkProfile(in.Profile); err != nil {
		return nil, err
	}
	parent, err := parentOf(tx, namespace, self, in.Parent)
	if err != nil {
		return nil, err
	}
	return &Claim{
		ID: id, DID: DID(typ, in.Name), Type: typ, Parent: &parent.ID, Name: in.Name,
		Description: in.Description, Profile: in.Profile, Key: key.String(),
	}, nil
}

// parentOf is the identity of this organisation that a new one is below.
func parentOf(tx *store.Tx, namespace string, self wire.OrgID, what string) (parent *store.Identity, err error) {
	if what == "" {
		parent, err = OrgIdentity(tx, namespace, self)
	} else {
		parent, err = Resolve(tx, namespace, what)
	}
	switch {
	case err != nil:
		return nil, err
	case parent == nil && what == "":
		return nil, errs.BadRequest("FF10277", "this organisation is not registered yet, so nothing can be below it: wait for its registration")
	case parent == nil:
		return nil, errs.BadRequest("FF10277", "field %q names %q, which is no identity known here: see GET identities", "parent", what)
	case parent.Org != self || parent.Type == TypeNode:
		return nil, errs.BadRequest("FF10366", "field %q names %s, which is no identity of this organisation that others can be below", "parent", parent.DID)
	}
	return parent, nil
}

// checkProfile says whether a profile is a JSON object, null or nothing.
func checkProfile(profile json.RawMessage) error {
	var object map[string]json.RawMessage
	if len(profile) > 0 && json.Unmarshal(profile, &object) != nil {
		return errs.BadRequest(errs.CodeBadValue, "field %q is no JSON object", "profile")
	}
	return nil
}

// UpdateInput replaces what an identity says of itself.
type UpdateInput struct {
	Description string          `json:"description,omitempty"`
	Profile     json.RawMessage `json:"profile"`
}

// NewUpdate checks an application's wish and makes the update to be broadcast.
// The profile's id stays if the new profile has none.
func NewUpdate(tx *store.Tx, namespace string, self wire.OrgID, id wire.UUID, in UpdateInput) (*Update, *store.Identity, error) {
	have, err := store.Optional(tx.IdentityByID(namespace, id))
	if err != nil {
		return nil, nil, err
	}
	if have == nil {
		return nil, nil, errs.NoSuch("identity", id.String())
	}
	if have.Org != self {
		return nil, nil, errs.BadRequest("FF10366", "identity %s belongs to another organisation, which alone can change it", have.DID)
	}
	profile := map[string]json.RawMessage{}
	if len(in.Profile) == 0 || json.Unmarshal(in.Profile, &profile) != nil || profile == nil {
		return nil, nil, errs.BadRequest("FF10480", "field %q is missing or no JSON object: give the whole profile; {} empties it", "profile")
	}
	var before map[string]json.RawMessage
	if _, given := profile["id"]; !given && json.Unmarshal(have.Profile, &before) == nil && before["id"] != nil {
		profile["id"] = before["id"]
		if in.Profile, err = json.Marshal(profile); err != nil {
			return nil, nil, err
		}
	}
	return &Update{ID: id, Description: in.Description, Profile: in.Profile}, have, nil
}
