package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/uuid"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Types of identity.
const (
	TypeOrg    = "org"
	TypeNode   = "node"
	TypeCustom = "custom"
)

// Types of verifier.
const (
	VerifierAddress = "ethereum_address"
	VerifierPeer    = "dx_peer_id"
)

// Claim is the definition by which a member announces an identity of its own.
// It travels as a broadcast in the network's reserved context; the first valid
// claim of a DID in ledger order wins.
type Claim struct {
	ID          wire.UUID       `json:"id"`
	DID         string          `json:"did"`
	Type        string          `json:"type"`
	Parent      *wire.UUID      `json:"parent,omitempty"`
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Profile     json.RawMessage `json:"profile,omitempty"`
	Key         string          `json:"key,omitempty"`  // signing key of a custom identity
	Salt        *wire.Hash      `json:"salt,omitempty"` // of an organisation: with the name it gives the id on the ledger
}

// Update replaces an identity's description and profile.
type Update struct {
	ID          wire.UUID       `json:"id"`
	Description string          `json:"description,omitempty"`
	Profile     json.RawMessage `json:"profile"`
}

// NodeProfile is what a node claim says of the node, in the names that existing
// clients read.
type NodeProfile struct {
	ID       string `json:"id"` // hash of the TLS certificate
	Endpoint string `json:"endpoint"`
	Cert     string `json:"cert,omitempty"`
}

var nameRule = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z._-]{0,62}[0-9A-Za-z])?$`)

// CheckName applies the rule for names: 1 to 64 of letters, digits, dot, dash
// and underscore, a letter or digit at both ends.
func CheckName(field, name string) error {
	if !nameRule.MatchString(name) {
		return errs.New("FF00140", 400, "field %q holds %q: a name has 1 to 64 letters, digits, dots, dashes or underscores, with a letter or digit at both ends", field, name)
	}
	return nil
}

// DID is the decentralised identifier of a name.
func DID(typ, name string) string {
	switch typ {
	case TypeOrg:
		return "did:firefly:org/" + name
	case TypeNode:
		return "did:firefly:node/" + name
	}
	return "did:firefly:" + name
}

// OrgName is the name in an organisation's DID; false if it is no such DID.
func OrgName(did string) (string, bool) { return strings.CutPrefix(did, "did:firefly:org/") }

// IsCustomDID tells whether a DID is in the form of a custom identity's.
func IsCustomDID(did string) bool {
	name, ok := strings.CutPrefix(did, "did:firefly:")
	return ok && nameRule.MatchString(name)
}

// ApplyClaim judges a claim by the organisation org (whose batch named it orgName)
// and stores it if it is valid. A non-empty reject says why it is not. It asks
// the ledger about the position of the claim's pin, never about now: members that
// read it later must find the same. A claim that is stored already is valid and
// changes nothing (stored is nil): members repeat theirs for who joins later.
func (n *Network) ApplyClaim(tx *store.Tx, namespace string, org wire.OrgID, orgName string, c Claim, message wire.UUID, pinned wire.Position, at store.Time) (stored *store.Identity, reject string, err error) {
	if CheckName("name", c.Name) != nil {
		return nil, fmt.Sprintf("identity name %q is not allowed", c.Name), nil
	}
	if want := DID(c.Type, c.Name); c.DID != want {
		return nil, fmt.Sprintf("an identity of type %q and name %q has the DID %s, not %s", c.Type, c.Name, want, c.DID), nil
	}
	if c.ID == (wire.UUID{}) {
		return nil, "the identity has no id", nil
	}
	if have, err := store.Optional(tx.IdentityByID(namespace, c.ID)); err != nil {
		return nil, "", err
	} else if have != nil && have.DID == c.DID && have.Org == org {
		return nil, "", nil
	}
	var parent *store.Identity
	switch c.Type {
	case TypeOrg:
		if c.Name != orgName || c.Salt == nil || wire.OrgIDOf(c.Name, *c.Salt) != org {
			return nil, fmt.Sprintf("the organisation %q is not the author of this claim", c.Name), nil
		}
		if have, err := OrgIdentity(tx, namespace, org); err != nil {
			return nil, "", err
		} else if have != nil {
			return nil, fmt.Sprintf("this organisation has an identity already: %s", have.DID), nil
		}
	case TypeNode, TypeCustom:
		if c.Parent == nil {
			return nil, "the identity names no parent", nil
		}
		if parent, err = store.Optional(tx.IdentityByID(namespace, *c.Parent)); err != nil {
			return nil, "", err
		}
		if parent == nil || parent.Org != org || parent.Type == TypeNode {
			return nil, fmt.Sprintf("parent %s is no identity of the author", c.Parent), nil
		}
	default:
		return nil, fmt.Sprintf("identity type %q is not one of org, node, custom", c.Type), nil
	}
	if have, err := store.Optional(tx.IdentityByDID(namespace, c.DID)); err != nil {
		return nil, "", err
	} else if have != nil {
		return nil, fmt.Sprintf("the DID %s is taken", c.DID), nil
	}
	if have, err := store.Optional(tx.IdentityByID(namespace, c.ID)); err != nil {
		return nil, "", err
	} else if have != nil {
		return nil, fmt.Sprintf("the id %s is taken by %s", c.ID, have.DID), nil
	}
	var signer wire.Address
	if c.Type == TypeCustom {
		if signer, err = wire.ParseAddress(c.Key); err != nil {
			return nil, fmt.Sprintf("key: %v", err), nil
		}
		if owner, ok := n.OrgOf(signer, pinned); !ok || owner != org {
			return nil, fmt.Sprintf("key %s is no key of the author", signer), nil
		}
	}
	id := &store.Identity{
		ID: c.ID, DID: c.DID, Type: c.Type, Parent: c.Parent, Namespace: namespace, Name: c.Name, Description: c.Description, Profile: c.Profile,
		Messages: store.IdentityMessages{Claim: &message}, Created: at, Updated: at, Org: org, Signer: signer, Claimed: pinned,
	}
	if err := tx.UpsertIdentity(id); err != nil {
		return nil, "", err
	}
	switch c.Type {
	case TypeOrg:
		err = n.SyncVerifiers(tx, namespace, org, at)
	case TypeNode:
		var p NodeProfile
		if json.Unmarshal(c.Profile, &p) == nil && p.ID != "" {
			err = putVerifier(tx, namespace, id.ID, VerifierPeer, p.ID, at)
		}
	case TypeCustom:
		err = putVerifier(tx, namespace, id.ID, VerifierAddress, strings.ToLower(c.Key), at)
	}
	return id, "", err
}

// ApplyUpdate judges an update by org and stores it if it is valid.
func ApplyUpdate(tx *store.Tx, namespace string, org wire.OrgID, u Update, message *wire.UUID, at store.Time) (stored *store.Identity, reject string, err error) {
	id, err := store.Optional(tx.IdentityByID(namespace, u.ID))
	if err != nil {
		return nil, "", err
	}
	if id == nil || id.Org != org {
		return nil, fmt.Sprintf("identity %s is none of the author", u.ID), nil
	}
	id.Description, id.Profile, id.Updated, id.Messages.Update = u.Description, u.Profile, at, message
	return id, "", tx.UpsertIdentity(id)
}

// SyncVerifiers makes the organisation's ledger keys verifiers of its identity,
// once that is claimed.
func (n *Network) SyncVerifiers(tx *store.Tx, namespace string, org wire.OrgID, at store.Time) error {
	id, err := OrgIdentity(tx, namespace, org)
	if err != nil || id == nil {
		return err
	}
	for _, key := range n.ValidKeys(org, End) {
		if err := putVerifier(tx, namespace, id.ID, VerifierAddress, key.String(), at); err != nil {
			return err
		}
	}
	return nil
}

// putVerifier stores a verifier of an identity. A key of the organisation may
// sign for a custom identity of it as well: then both have it.
func putVerifier(tx *store.Tx, namespace string, identity wire.UUID, typ, value string, at store.Time) error {
	sum := sha256.Sum256([]byte(namespace + "\x00" + typ + "\x00" + value + "\x00" + identity.String()))
	return tx.UpsertVerifier(&store.Verifier{Hash: store.Hex(hex.EncodeToString(sum[:])), Identity: &identity, Type: typ, Value: value, Namespace: namespace, Created: at})
}

// Resolve finds an identity by the name of an organisation, by DID, by id or by
// the name of a custom identity; nil if there is none.
func Resolve(tx *store.Tx, namespace, what string) (*store.Identity, error) {
	for _, did := range []string{what, DID(TypeOrg, what), DID(TypeCustom, what)} {
		if id, err := store.Optional(tx.IdentityByDID(namespace, did)); err != nil || id != nil {
			return id, err
		}
	}
	id, err := uuid.Parse(what)
	if err != nil {
		return nil, nil // no name, no DID, no id: unknown
	}
	return store.Optional(tx.IdentityByID(namespace, id))
}

// OrgIdentity is the identity that an organisation claimed; nil until then.
func OrgIdentity(tx *store.Tx, namespace string, org wire.OrgID) (*store.Identity, error) {
	return first(tx.IdentitiesOfOrg(namespace, org, TypeOrg))
}

// NodeIdentity is the first node that an organisation claimed; nil until then.
func NodeIdentity(tx *store.Tx, namespace string, org wire.OrgID) (*store.Identity, error) {
	return first(tx.IdentitiesOfOrg(namespace, org, TypeNode))
}

func first(all []*store.Identity, err error) (*store.Identity, error) {
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}
