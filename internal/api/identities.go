package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// verifierRef is a verifier without its book-keeping.
type verifierRef struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// identityWithVerifiers is what ?fetchverifiers makes of an identity.
type identityWithVerifiers struct {
	store.Identity
	Verifiers []verifierRef `json:"verifiers" openapi:"optional"`
}

// verified adds their verifiers to identities, with one query for all.
func (c *call) verified(identities []store.Identity) ([]identityWithVerifiers, error) {
	ids := make([]store.UUID, len(identities))
	for i := range identities {
		ids[i] = identities[i].ID
	}
	var of map[store.UUID][]*store.Verifier
	err := c.DB.Read(c.ctx(), func(tx *store.Tx) (err error) {
		of, err = tx.VerifiersOf(ids)
		return err
	})
	if err != nil {
		return nil, err
	}
	full := make([]identityWithVerifiers, len(identities))
	for i := range identities {
		full[i] = identityWithVerifiers{identities[i], []verifierRef{}}
		for _, v := range of[identities[i].ID] {
			full[i].Verifiers = append(full[i].Verifiers, verifierRef{v.Type, v.Value})
		}
	}
	return full, nil
}

func getIdentities(c *call) (any, error) {
	identities, err := list(c, store.Identities)
	if err != nil || !c.flag("fetchverifiers") {
		return identities, err
	}
	full, err := c.verified(identities.items)
	return page[identityWithVerifiers]{full, identities.count, identities.total}, err
}

// identitiesOf is the handler that lists identities of one type.
func identitiesOf(typ string) handler {
	return func(c *call) (any, error) {
		q, err := c.parse(&store.Identities.Collection)
		if err != nil {
			return nil, err
		}
		if err := q.Where(&store.Identities.Collection, "type", typ); err != nil {
			return nil, err
		}
		return listQuery(c, store.Identities, q)
	}
}

// shownIdentity answers with an identity, with its verifiers if asked for.
func (c *call) shownIdentity(id store.Identity) (any, error) {
	if !c.flag("fetchverifiers") {
		return id, nil
	}
	full, err := c.verified([]store.Identity{id})
	if err != nil {
		return nil, err
	}
	return full[0], nil
}

const didPrefix = "did:"

// getIdentity finds an identity by id or, if the path says so, by DID.
func getIdentity(c *call) (any, error) {
	id, err := c.namedIdentity(c.path("iid"))
	if err != nil {
		return nil, err
	}
	return c.shownIdentity(id)
}

// namedIdentity finds an identity by its id or DID.
func (c *call) namedIdentity(name string) (store.Identity, error) {
	if strings.HasPrefix(name, didPrefix) {
		return c.identityByDID(name)
	}
	id, err := uuid.Parse(name)
	if err != nil {
		return store.Identity{}, errs.BadUUID(shorten(name))
	}
	return store.Get(c.ctx(), c.DB, store.Identities, c.Namespace, id.String())
}

// identityByDID finds an identity; existing clients get 500 for an unknown one.
func (c *call) identityByDID(did string) (store.Identity, error) {
	var id *store.Identity
	err := c.DB.Read(c.ctx(), func(tx *store.Tx) (err error) {
		id, err = tx.IdentityByDID(c.Namespace, did)
		return err
	})
	if errors.Is(err, store.ErrNoRows) {
		return store.Identity{}, errs.New("FF10277", http.StatusInternalServerError, "There is no identity %q; DIDs are case-sensitive, see GET identities", shorten(did))
	}
	if err != nil {
		return store.Identity{}, err
	}
	return *id, nil
}

func getIdentityByDID(c *call) (any, error) {
	id, err := c.identityByDID(c.path("did"))
	if err != nil {
		return nil, err
	}
	return c.shownIdentity(id)
}

// named is the handler that finds an organisation or a node by name, DID or id.
func named(typ string) handler {
	return func(c *call) (any, error) {
		name := c.path("nameOrId")
		var id *store.Identity
		err := c.DB.Read(c.ctx(), func(tx *store.Tx) (err error) {
			if parsed, bad := uuid.Parse(name); bad == nil {
				id, err = store.Optional(tx.IdentityByID(c.Namespace, parsed))
				return err
			}
			did := name
			if !strings.HasPrefix(name, didPrefix) {
				if err := identity.CheckName("nameOrId", name); err != nil {
					return err
				}
				did = identity.DID(typ, name)
			}
			id, err = store.Optional(tx.IdentityByDID(c.Namespace, did))
			return err
		})
		if err != nil {
			return nil, err
		}
		if id == nil || id.Type != typ {
			return nil, errs.NoSuch(typ, shorten(name))
		}
		return *id, nil
	}
}

// getBelowIdentity separates {id}/did and {id}/verifiers from a DID whose last
// part is one of these words.
func getBelowIdentity(last string, h func(*call, store.Identity) (any, error)) handler {
	return func(c *call) (any, error) {
		name := c.path("iid")
		if strings.HasPrefix(name, didPrefix) {
			id, err := c.identityByDID(name + "/" + last)
			if err != nil {
				return nil, err
			}
			return c.shownIdentity(id)
		}
		id, err := c.namedIdentity(name)
		if err != nil {
			return nil, err
		}
		return h(c, id)
	}
}

func identityVerifiers(c *call, id store.Identity) (any, error) {
	q, err := c.parse(&store.Verifiers.Collection)
	if err != nil {
		return nil, err
	}
	if err := q.Where(&store.Verifiers.Collection, "identity", id.ID.String()); err != nil {
		return nil, err
	}
	return listQuery(c, store.Verifiers, q)
}

// didDocument is a DID document, as the W3C's DID Core defines it.
type didDocument struct {
	Context            []string             `json:"@context"`
	ID                 string               `json:"id"`
	Authentication     []string             `json:"authentication"`
	VerificationMethod []verificationMethod `json:"verificationMethod"`
}

type verificationMethod struct {
	ID                  string `json:"id"`
	Type                string `json:"type"`
	Controller          string `json:"controller"`
	BlockchainAccountID string `json:"blockchainAcountId,omitempty"` // so spelt by existing clients
	DataExchangePeerID  string `json:"dataExchangePeerID,omitempty"`
}

func identityDocument(c *call, id store.Identity) (any, error) {
	verifiers, err := part(c, store.Verifiers, "identity", id.ID.String())
	if err != nil {
		return nil, err
	}
	slices.Reverse(verifiers) // oldest first
	doc := didDocument{
		Context:        []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/ed25519-2020/v1"},
		ID:             id.DID,
		Authentication: []string{}, VerificationMethod: []verificationMethod{},
	}
	for _, v := range verifiers {
		m := verificationMethod{ID: string(v.Hash), Controller: id.DID}
		switch v.Type {
		case identity.VerifierAddress:
			m.Type, m.BlockchainAccountID = "EcdsaSecp256k1VerificationKey2019", v.Value
		case identity.VerifierPeer:
			m.Type, m.DataExchangePeerID = "FireFlyDataExchangePeerIdentity", v.Value
		default:
			continue
		}
		doc.VerificationMethod = append(doc.VerificationMethod, m)
		doc.Authentication = append(doc.Authentication, "#"+string(v.Hash))
	}
	return doc, nil
}

func getDIDDocument(c *call) (any, error) {
	id, err := c.identityByDID(c.path("did"))
	if err != nil {
		return nil, err
	}
	return identityDocument(c, id)
}

// postIdentity broadcasts the claim of a custom identity.
func postIdentity(c *call, in identity.Input) (any, error) {
	if !c.networked() {
		return postEntry(c, in)
	}
	var claim *identity.Claim
	id := c.NewID()
	err := c.DB.Read(c.ctx(), func(tx *store.Tx) (err error) {
		claim, err = identity.NewClaim(tx, c.Namespace, c.Messages.Self.Org, id, in)
		return err
	})
	if err != nil {
		return nil, err
	}
	m, err := c.confirmed(func() (*store.Message, error) { return c.Messages.Define(c.ctx(), identity.TagClaim, claim) })
	if err != nil {
		return nil, err
	}
	if c.flag("confirm") {
		return store.Get(c.ctx(), c.DB, store.Identities, c.Namespace, id.String())
	}
	return claimed(c.Namespace, claim, m), nil
}

// claimed is an identity as its claim states it, before it is confirmed.
func claimed(namespace string, claim *identity.Claim, m *store.Message) store.Identity {
	return store.Identity{
		ID: claim.ID, DID: claim.DID, Type: claim.Type, Parent: claim.Parent, Namespace: namespace, Name: claim.Name,
		Description: claim.Description, Profile: claim.Profile, Messages: store.IdentityMessages{Claim: &m.Header.ID},
		Created: m.Header.Created, Updated: m.Header.Created,
	}
}

// patchIdentity broadcasts the update of an identity of this organisation.
func patchIdentity(c *call, in identity.UpdateInput) (any, error) {
	id, err := c.uuid("iid")
	if err != nil {
		return nil, err
	}
	var update *identity.Update
	var have *store.Identity
	err = c.DB.Read(c.ctx(), func(tx *store.Tx) (err error) {
		update, have, err = identity.NewUpdate(tx, c.Namespace, c.Messages.Self.Org, id, in)
		return err
	})
	if err != nil {
		return nil, err
	}
	m, err := c.confirmed(func() (*store.Message, error) { return c.Messages.Define(c.ctx(), identity.TagUpdate, update) })
	if err != nil {
		return nil, err
	}
	if c.flag("confirm") {
		return store.Get(c.ctx(), c.DB, store.Identities, c.Namespace, id.String())
	}
	have.Description, have.Profile, have.Messages.Update = update.Description, update.Profile, message.MessageID(m)
	return *have, nil
}

// postVerifierResolve brings a verifier's value into the form that is stored.
func postVerifierResolve(c *call, in verifierRef) (any, error) {
	typ := strings.ToLower(in.Type)
	if typ != "" && typ != identity.VerifierAddress {
		return nil, errs.BadRequest("FF10428", "field %q holds %q: this ledger's keys are of type %s", "type", shorten(in.Type), identity.VerifierAddress)
	}
	address, err := wire.ParseAddress(in.Value)
	if err != nil {
		return nil, errs.BadRequest("FF10354", "field %q: %v", "value", err)
	}
	return verifierRef{identity.VerifierAddress, address.String()}, nil
}

// self is the handler that registers this member's organisation or node, which
// the node also does by itself. What is registered already is returned.
func self(typ string) handler {
	return body(func(c *call, _ map[string]json.RawMessage) (any, error) { return c.register(typ) })
}

func (c *call) register(typ string) (any, error) {
	find := func() (id *store.Identity, err error) {
		err = c.DB.Read(c.ctx(), func(tx *store.Tx) error {
			if typ == identity.TypeOrg {
				id, err = identity.OrgIdentity(tx, c.Namespace, c.Messages.Self.Org)
			} else {
				id, err = identity.NodeIdentity(tx, c.Namespace, c.Messages.Self.Org)
			}
			return err
		})
		return id, err
	}
	have, err := find()
	if err != nil || have != nil {
		return have, err
	}
	claim := c.ClaimOrg
	if typ == identity.TypeNode {
		claim = c.ClaimNode
	}
	m, err := c.confirmed(func() (*store.Message, error) { return claim(c.ctx()) })
	if err != nil {
		return nil, err
	}
	if c.flag("confirm") {
		return find()
	}
	s := c.Messages.Self
	now := store.Identity{Type: typ, Name: s.Name, DID: s.DID(), Namespace: c.Namespace, Messages: store.IdentityMessages{Claim: &m.Header.ID}, Created: m.Header.Created}
	if typ == identity.TypeNode {
		now.Name, now.DID, now.ID = s.NodeName, identity.DID(typ, s.NodeName), s.Node
	}
	return now, nil
}
