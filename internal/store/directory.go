package store

import (
	"encoding/json"
	"fmt"

	"github.com/parley-node/parley/wire"
)

// Who and what the network knows: datatypes, identities, verifiers, groups; and
// what an operator must know: incidents.

const selectDatatypes = `SELECT id, message, validator, namespace, name, version, hash, created, value FROM datatypes`

func scanDatatype(r *Rows, d *Datatype) error {
	err := r.Scan(&d.ID, &d.Message, &d.Validator, &d.Namespace, &d.Name, &d.Version, &d.Hash, &d.Created, (*[]byte)(&d.Value))
	if err != nil {
		return fmt.Errorf("reading a datatype row: %w", err)
	}
	return nil
}

func scanDatatypePtr(r *Rows, d **Datatype) error {
	*d = new(Datatype)
	return scanDatatype(r, *d)
}

// InsertDatatype stores a confirmed datatype; an id, or a name and version of
// the namespace, that is taken is ErrExists.
func (tx *Tx) InsertDatatype(d *Datatype) error {
	return tx.insertNew("datatype "+d.Name+" "+d.Version, `INSERT INTO datatypes
		(id, message, validator, namespace, name, version, hash, created, value)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
		d.ID, d.Message, d.Validator, d.Namespace, d.Name, d.Version, string(d.Hash), d.Created, jsonObject(d.Value))
}

// insertNew runs an INSERT … ON CONFLICT DO NOTHING of one row, and turns the
// conflict into ErrExists.
func (tx *Tx) insertNew(what, text string, args ...any) error {
	n, err := tx.Exec(text, args...)
	if err != nil {
		return fmt.Errorf("storing %s: %w", what, err)
	}
	if n == 0 {
		return fmt.Errorf("%s: %w", what, ErrExists)
	}
	return nil
}

// DatatypeByName returns a datatype, or ErrNoRows.
func (tx *Tx) DatatypeByName(namespace, name, version string) (*Datatype, error) {
	return queryOne(tx, scanDatatypePtr, selectDatatypes+` WHERE namespace = $1 AND name = $2 AND version = $3`, namespace, name, version)
}

const selectIdentities = `SELECT id, did, parent, type, namespace, name, description, profile, msg_claim, msg_verification, msg_update, created, updated, org, signer, claimed_block, claimed_log FROM identities`

func scanIdentity(r *Rows, i *Identity) error {
	err := r.Scan(&i.ID, &i.DID, &i.Parent, &i.Type, &i.Namespace, &i.Name, &i.Description, (*[]byte)(&i.Profile),
		&i.Messages.Claim, &i.Messages.Verification, &i.Messages.Update, &i.Created, &i.Updated, &i.Org,
		&i.Signer, &i.Claimed.Block, &i.Claimed.Log)
	if err != nil {
		return fmt.Errorf("reading an identity row: %w", err)
	}
	return nil
}

func scanIdentityPtr(r *Rows, i **Identity) error {
	*i = new(Identity)
	return scanIdentity(r, *i)
}

// UpsertIdentity stores an identity, or replaces the one with the same id.
// Another identity of the namespace with the same DID is a UNIQUE violation.
func (tx *Tx) UpsertIdentity(i *Identity) error {
	err := tx.Send(`INSERT INTO identities (id, did, parent, type, namespace, name, description, profile,
			msg_claim, msg_verification, msg_update, created, updated, org, signer, claimed_block, claimed_log)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
		ON CONFLICT (id) DO UPDATE SET did = excluded.did, parent = excluded.parent, type = excluded.type,
			namespace = excluded.namespace, name = excluded.name, description = excluded.description,
			profile = excluded.profile, msg_claim = excluded.msg_claim, msg_verification = excluded.msg_verification,
			msg_update = excluded.msg_update, created = excluded.created, updated = excluded.updated, org = excluded.org,
			signer = excluded.signer, claimed_block = excluded.claimed_block, claimed_log = excluded.claimed_log`,
		i.ID, i.DID, i.Parent, i.Type, i.Namespace, i.Name, i.Description, jsonOrNull(i.Profile),
		i.Messages.Claim, i.Messages.Verification, i.Messages.Update, i.Created, i.Updated, i.Org, i.Signer, i.Claimed.Block, i.Claimed.Log)
	if err != nil {
		return fmt.Errorf("storing identity %s: %w", i.DID, err)
	}
	return nil
}

// IdentityByID returns an identity of a namespace, or ErrNoRows.
func (tx *Tx) IdentityByID(namespace string, id UUID) (*Identity, error) {
	return queryOne(tx, scanIdentityPtr, selectIdentities+` WHERE id = $1 AND namespace = $2`, id, namespace)
}

// IdentityByDID returns an identity of a namespace, or ErrNoRows. DIDs are
// case-sensitive.
func (tx *Tx) IdentityByDID(namespace, did string) (*Identity, error) {
	return queryOne(tx, scanIdentityPtr, selectIdentities+` WHERE namespace = $1 AND did = $2`, namespace, did)
}

// IdentitiesOfOrg returns the identities of an organisation, of one type if
// kind is not empty, oldest first.
func (tx *Tx) IdentitiesOfOrg(namespace string, org wire.OrgID, kind string) ([]*Identity, error) {
	return queryAll(tx, scanIdentityPtr, selectIdentities+` WHERE namespace = $1 AND org = $2 AND (type = $3 OR $3 = '') ORDER BY seq`, namespace, org, kind)
}

const selectVerifiers = `SELECT hash, identity, type, value, namespace, created FROM verifiers`

func scanVerifier(r *Rows, v *Verifier) error {
	if err := r.Scan(&v.Hash, &v.Identity, &v.Type, &v.Value, &v.Namespace, &v.Created); err != nil {
		return fmt.Errorf("reading a verifier row: %w", err)
	}
	return nil
}

func scanVerifierPtr(r *Rows, v **Verifier) error {
	*v = new(Verifier)
	return scanVerifier(r, *v)
}

// UpsertVerifier stores a verifier, or gives the one with the same hash to
// another identity.
func (tx *Tx) UpsertVerifier(v *Verifier) error {
	err := tx.Send(`INSERT INTO verifiers (hash, identity, type, value, namespace, created) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (hash) DO UPDATE SET identity = excluded.identity, created = excluded.created`,
		string(v.Hash), v.Identity, v.Type, v.Value, v.Namespace, v.Created)
	if err != nil {
		return fmt.Errorf("storing verifier %s: %w", v.Value, err)
	}
	return nil
}

// DeleteVerifier removes a verifier; absent is no error.
func (tx *Tx) DeleteVerifier(hash Hex) error {
	err := tx.Send(`DELETE FROM verifiers WHERE hash = $1`, string(hash))
	return err
}

// VerifierByValue returns a verifier of a namespace, or ErrNoRows.
func (tx *Tx) VerifierByValue(namespace, kind, value string) (*Verifier, error) {
	return queryOne(tx, scanVerifierPtr, selectVerifiers+` WHERE value = $1 AND type = $2 AND namespace = $3 ORDER BY seq DESC LIMIT 1`, value, kind, namespace)
}

// VerifiersOf returns the verifiers of identities, oldest first, by identity.
func (tx *Tx) VerifiersOf(identities []UUID) (map[UUID][]*Verifier, error) {
	of := make(map[UUID][]*Verifier, len(identities))
	err := inChunks(identities, func(_ []UUID, marks string, args []any) error {
		all, err := queryAll(tx, scanVerifierPtr, selectVerifiers+` WHERE identity IN `+marks+` ORDER BY seq`, args...)
		for _, v := range all {
			of[*v.Identity] = append(of[*v.Identity], v)
		}
		return err
	})
	return of, err
}

const selectGroups = `SELECT hash, namespace, name, members, message, created FROM groups`

func scanGroup(r *Rows, g *Group) error {
	var members string
	if err := r.Scan(&g.Hash, &g.Namespace, &g.Name, &members, &g.Message, &g.Created); err != nil {
		return fmt.Errorf("reading a group row: %w", err)
	}
	g.LocalNamespace = g.Namespace
	if err := json.Unmarshal([]byte(members), &g.Members); err != nil {
		return fmt.Errorf("group %s: its members %q: %w", g.Hash, members, err)
	}
	return nil
}

func scanGroupPtr(r *Rows, g **Group) error {
	*g = new(Group)
	return scanGroup(r, *g)
}

// InsertGroup stores a group; one that is there already is ErrExists.
func (tx *Tx) InsertGroup(g *Group) error {
	members, err := json.Marshal(append([]Member{}, g.Members...))
	if err != nil {
		return fmt.Errorf("group %s: encoding its members: %w", g.Hash, err)
	}
	return tx.insertNew("group "+string(g.Hash), `INSERT INTO groups (hash, namespace, name, members, message, created)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (hash) DO NOTHING`,
		string(g.Hash), g.Namespace, g.Name, string(members), g.Message, g.Created)
}

// UpdateGroup replaces members and message of a group; ErrNoRows if there is
// none.
func (tx *Tx) UpdateGroup(g *Group) error {
	members, err := json.Marshal(append([]Member{}, g.Members...))
	if err != nil {
		return fmt.Errorf("group %s: encoding its members: %w", g.Hash, err)
	}
	return tx.must(`UPDATE groups SET members = $1, message = $2 WHERE hash = $3`, string(members), g.Message, string(g.Hash))
}

// GroupByHash returns a group of a namespace, or ErrNoRows.
func (tx *Tx) GroupByHash(namespace string, hash Hex) (*Group, error) {
	return queryOne(tx, scanGroupPtr, selectGroups+` WHERE hash = $1 AND namespace = $2`, string(hash), namespace)
}

// PutIncident records an incident once per kind and reference, and reports
// whether it is new.
func (tx *Tx) PutIncident(i *Incident) (fresh bool, err error) {
	n, err := tx.Exec(`INSERT INTO incidents (at, kind, text, ref) VALUES ($1, $2, $3, $4) ON CONFLICT (kind, ref) DO NOTHING`,
		i.At, i.Kind, i.Text, i.Ref)
	if err != nil {
		return false, fmt.Errorf("recording the incident %q: %w", i.Kind, err)
	}
	return n == 1, nil
}

func scanIncident(r *Rows, i *Incident) error { return r.Scan(&i.At, &i.Kind, &i.Text, &i.Ref) }

// Incidents returns the newest incidents, newest first.
func (tx *Tx) Incidents(limit int) ([]Incident, error) {
	return queryAll(tx, scanIncident, `SELECT at, kind, text, ref FROM incidents ORDER BY seq DESC LIMIT $1`, limit)
}
