package message

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// GroupInput names the members of a private message. The sender is always one.
type GroupInput struct {
	Name    string        `json:"name,omitempty"`
	Members []MemberInput `json:"members"`
}

// MemberInput is an organisation or custom identity by name, DID or id.
type MemberInput struct {
	Identity string `json:"identity,omitempty"`
	Node     string `json:"node,omitempty"`
}

// History is what a new member may read of an audience's older epochs.
const (
	HistoryAll  = "all"
	HistoryNone = "none"
)

// target is the audience that a message is for: a known one, or a group to be
// made in the message's transaction unless an equal one came up meanwhile.
type target struct {
	audience wire.Hash
	group    *draftGroup
}

type draftGroup struct {
	name    string
	members []wire.OrgID // ascending
	lookup  string
}

// knownTarget is the audience of a message if that is known without a look into
// the database; nil otherwise.
func (s *Service) knownTarget(in Input) *target {
	if in.Header.Type != TypePrivate {
		return &target{audience: s.Network.ID}
	}
	if id, ok := s.groups.Load(in.Header.Group); ok && in.Header.Group != "" {
		return &target{audience: id.(wire.Hash)}
	}
	return nil
}

// target finds the audience of a message.
func (s *Service) target(tx *store.Tx, in Input) (*target, error) {
	if in.Header.Type != TypePrivate {
		return &target{audience: s.Network.ID}, nil
	}
	if in.Header.Group != "" {
		hash, err := wire.ParseHash(string(in.Header.Group))
		if err != nil {
			return nil, errs.New("FF00107", 400, "field %q: %v", "header.group", err)
		}
		a, err := tx.AudienceByID(hash)
		if err != nil {
			return nil, err
		}
		if a == nil || a.Kind != store.KindGroup {
			return nil, errs.New("FF10226", 404, "field %q names group %s, which is not known here: name its members in %q instead", "header.group", hash, "group.members")
		}
		s.groups.Store(store.Hex(a.ID.String()), a.ID)
		return &target{audience: a.ID}, nil
	}
	if in.Group == nil || len(in.Group.Members) == 0 {
		return nil, errs.New("FF00115", 400, "field %q is missing: name at least one member, or an existing group in %q", "group.members", "header.group")
	}
	if in.Group.Name != "" {
		if err := identity.CheckName("group.name", in.Group.Name); err != nil {
			return nil, err
		}
	}
	d := &draftGroup{name: in.Group.Name, members: []wire.OrgID{s.Self.Org}}
	for _, m := range in.Group.Members {
		org, err := s.memberOrg(tx, m)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(d.members, org) {
			d.members = append(d.members, org)
		}
	}
	slices.SortFunc(d.members, compareHash)
	d.lookup = lookupOf(d.name, d.members)
	return &target{group: d}, nil
}

func compareHash(a, b wire.Hash) int { return cmp.Compare(string(a[:]), string(b[:])) }

// lookupOf is equal for groups of the same name and members.
func lookupOf(name string, members []wire.OrgID) string {
	parts := []string{name}
	for _, m := range members {
		parts = append(parts, m.String())
	}
	return strings.Join(parts, "/")
}

// memberOrg is the organisation behind a member's name.
func (s *Service) memberOrg(tx *store.Tx, m MemberInput) (org wire.OrgID, err error) {
	id, err := identity.Resolve(tx, s.Namespace, m.Identity)
	if err != nil {
		return org, err
	}
	if id == nil || id.Type == identity.TypeNode {
		return org, errs.New("FF10223", 400, "field %q names %q, which is no organisation or identity known here: see GET identities", "group.members.identity", m.Identity)
	}
	if m.Node != "" {
		node, err := identity.Resolve(tx, s.Namespace, m.Node)
		if err != nil {
			return org, err
		}
		if node == nil {
			node, err = store.Optional(tx.IdentityByDID(s.Namespace, identity.DID(identity.TypeNode, m.Node)))
			if err != nil {
				return org, err
			}
		}
		if node == nil || node.Type != identity.TypeNode || node.Org != id.Org {
			return org, errs.New("FF10224", 400, "field %q names %q, which is no node of %s: see GET network/nodes, or leave it out", "group.members.node", m.Node, id.DID)
		}
	}
	if !s.Network.Active(id.Org, identity.End) {
		return org, errs.New("FF10233", 400, "field %q names %q, which is not an active member of the network", "group.members.identity", m.Identity)
	}
	return id.Org, nil
}

// enter puts the message into its audience, which is known.
func (to *target) enter(m *store.Message) {
	m.Audience = to.audience
	if m.Header.Type == TypePrivate {
		m.Header.Group = store.Hex(m.Audience.String())
	}
}

// enterGroup makes the group, if none with this name and these members exists,
// and puts the message into it. It returns who is to be invited.
func (s *Service) enterGroup(tx *store.Tx, to *target, m *store.Message) (invite []wire.OrgID, err error) {
	a, err := tx.AudienceByLookup(to.group.lookup)
	if err != nil {
		return nil, err
	}
	known := &target{}
	if a != nil {
		known.audience = a.ID
	} else if known.audience, invite, err = s.createGroup(tx, to.group); err != nil {
		return nil, err
	}
	known.enter(m)
	return invite, nil
}

// createGroup fixes a group's first epoch with a new secret. It exists on the
// ledger from its first pin.
func (s *Service) createGroup(tx *store.Tx, d *draftGroup) (id wire.Hash, invite []wire.OrgID, err error) {
	secret := wire.NewEpochSecret(wire.Hash{})
	def := wire.EpochDefinition{
		Network: s.Network.ID, Epoch: 1, Proposer: s.Self.Org, Name: d.name, Members: d.members,
		History: HistoryAll, Created: int64(s.now()), Salt: newSalt(),
	}
	def.Commit(secret.Keys())
	if err := def.Check(); err != nil {
		return id, nil, err
	}
	if id, err = s.storeEpoch(tx, def, &secret); err != nil {
		return id, nil, err
	}
	invite = s.others(d.members)
	return id, invite, s.addInvitations(tx, def, id, invite)
}

// storeEpoch keeps an epoch of an audience, and the audience if it is new. For
// a group's first epoch the definition's hash is the audience's id.
func (s *Service) storeEpoch(tx *store.Tx, def wire.EpochDefinition, secret *wire.EpochSecret) (audience wire.Hash, err error) {
	hash, err := def.Hash()
	if err != nil {
		return audience, err
	}
	if audience, err = def.AudienceID(); err != nil {
		return audience, err
	}
	now := s.now()
	kind := store.KindGroup
	if audience == s.Network.ID {
		kind = store.KindNetwork
	}
	known, err := tx.AudienceByID(audience)
	if err != nil {
		return audience, err
	}
	if known == nil {
		a := &store.Audience{ID: audience, Kind: kind, Name: def.Name, Lookup: lookupOf(def.Name, def.Members), Created: now}
		if err := tx.InsertAudience(a); err != nil {
			return audience, err
		}
		if kind == store.KindGroup {
			if err := s.insertGroup(tx, audience, def, now); err != nil {
				return audience, err
			}
		}
	}
	e := &store.Epoch{Audience: audience, Epoch: def.Epoch, Hash: hash, Definition: def, Secret: secret}
	if kind == store.KindNetwork && def.Epoch == 1 {
		e.Activated = new(int64)
	}
	if err := tx.PutEpoch(e); err != nil {
		return audience, err
	}
	return audience, tx.Arrived(store.ArrivedSecret, audience, hash)
}

// Found keeps the network's first epoch, which this member defined when it
// founded the network.
func (s *Service) Found(ctx context.Context, d wire.EpochDefinition, secret wire.EpochSecret) error {
	hash, err := d.Hash()
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *store.Tx) error {
		have, err := tx.EpochByHash(hash)
		if err != nil || have != nil && have.Secret != nil {
			return err
		}
		_, err = s.storeEpoch(tx, d, &secret)
		return err
	})
}

// insertGroup stores what applications see of a group.
func (s *Service) insertGroup(tx *store.Tx, audience wire.Hash, def wire.EpochDefinition, at store.Time) error {
	g := &store.Group{Namespace: s.NetName, LocalNamespace: s.Namespace, Name: def.Name, Hash: store.Hex(audience.String()), Created: at}
	for _, org := range def.Members {
		m := store.Member{Identity: org.String()} // until its organisation is claimed
		id, err := identity.OrgIdentity(tx, s.Namespace, org)
		if err != nil {
			return err
		}
		if id != nil {
			m.Identity = id.DID
		}
		node, err := identity.NodeIdentity(tx, s.Namespace, org)
		if err != nil {
			return err
		}
		if node != nil {
			m.Node = &node.ID
		}
		g.Members = append(g.Members, m)
	}
	return tx.InsertGroup(g)
}

// others are the members without ourselves.
func (s *Service) others(members []wire.OrgID) []wire.OrgID {
	var o []wire.OrgID
	for _, m := range members {
		if m != s.Self.Org {
			o = append(o, m)
		}
	}
	return o
}
