package store

import (
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/parley-node/parley/wire"
)

const identityColumns = `id, did, type, parent, name, description, profile, msg_claim, msg_verification, msg_update, created, updated, org`

func (tx *Tx) identity(namespace, where string, args ...any) (*Identity, error) {
	id := Identity{Namespace: namespace}
	var profile sql.NullString
	err := tx.QueryRow(`SELECT `+identityColumns+` FROM identities WHERE namespace = $1 AND `+where, append([]any{namespace}, args...)...).Scan(
		&id.ID, &id.DID, &id.Type, &id.Parent, &id.Name, &id.Description, &profile,
		&id.Messages.Claim, &id.Messages.Verification, &id.Messages.Update, &id.Created, &id.Updated, &id.Org)
	if errors.Is(err, ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if profile.Valid {
		id.Profile = json.RawMessage(profile.String)
	}
	return &id, nil
}

// IdentityByID is nil if there is none.
func (tx *Tx) IdentityByID(namespace string, id UUID) (*Identity, error) {
	return tx.identity(namespace, `id = $2`, id)
}

// IdentityByDID is nil if there is none.
func (tx *Tx) IdentityByDID(namespace, did string) (*Identity, error) {
	return tx.identity(namespace, `did = $2`, did)
}

// OrgIdentity is the identity that an organisation claimed; nil until then.
func (tx *Tx) OrgIdentity(namespace string, org wire.OrgID) (*Identity, error) {
	return tx.identity(namespace, `type = 'org' AND org = $2`, org)
}

// NodeIdentity is the first node that an organisation claimed; nil until then.
func (tx *Tx) NodeIdentity(namespace string, org wire.OrgID) (*Identity, error) {
	return tx.identity(namespace, `type = 'node' AND org = $2 ORDER BY seq LIMIT 1`, org)
}
