package message

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

const (
	// A definition's receipters help to invite members who were not reached.
	inviteHelpAfter = 10 * time.Second
	// The member with the lowest id proposes a change; the next one takes over
	// if it does not.
	proposeTurn = 15 * time.Second
)

// EpochStep keeps audiences and their members in step: it invites members who
// do not have the current epoch's secret, proposes a new epoch when members
// have come or gone, and activates a proposed one that enough members hold.
// An audience for which nothing is left to do is left alone until its epochs or
// the network's members change.
func (s *Service) EpochStep(ctx context.Context) (more bool, err error) {
	if s.Network.Founding() == nil {
		return false, nil
	}
	through := s.Network.Through()
	var audiences []store.Audience
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) { audiences, err = tx.UntendedAudiences(through); return err })
	if err != nil {
		return false, err
	}
	var tended []membership
	for i := range audiences {
		seen, err := s.readMembership(ctx, audiences[i].ID)
		if err != nil {
			return false, err
		}
		done, err := s.tendAudience(ctx, seen)
		if err != nil {
			return false, fmt.Errorf("audience %s: %w", audiences[i].ID.Short(), err)
		}
		if done {
			tended = append(tended, seen)
		}
	}
	if len(tended) == 0 {
		return false, nil
	}
	return false, s.DB.Write(ctx, func(tx *store.Tx) error {
		for _, seen := range tended {
			now, err := membershipOf(tx, seen.audience.ID)
			if err != nil {
				return err
			}
			if !now.same(seen) {
				continue // it has changed since we looked
			}
			if err := tx.SetTended(seen.audience.ID, through); err != nil {
				return err
			}
		}
		return nil
	})
}

// membership is what is stored of an audience's members.
type membership struct {
	audience *store.Audience
	epochs   []store.Epoch
}

func (s *Service) readMembership(ctx context.Context, audience wire.Hash) (m membership, err error) {
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) { m, err = membershipOf(tx, audience); return err })
	return m, err
}

func membershipOf(tx *store.Tx, audience wire.Hash) (m membership, err error) {
	if m.audience, err = tx.AudienceByID(audience); err != nil {
		return m, err
	}
	m.epochs, err = tx.Epochs(audience)
	return m, err
}

// same tells whether nothing was stored between two looks.
func (m membership) same(o membership) bool {
	return (m.audience.Begun == nil) == (o.audience.Begun == nil) && slices.EqualFunc(m.epochs, o.epochs, func(x, y store.Epoch) bool {
		return x.Hash == y.Hash && (x.Secret == nil) == (y.Secret == nil) && (x.Activated == nil) == (y.Activated == nil)
	})
}

// tendAudience does what one audience's membership asks for now. It tells
// whether nothing is left to do or to wait for.
func (s *Service) tendAudience(ctx context.Context, m membership) (done bool, err error) {
	a, epochs := m.audience, m.epochs
	active := activated(epochs)
	if len(active) == 0 {
		return true, nil // we are invited to an epoch that is not current yet
	}
	current := &active[len(active)-1]
	if current.Secret == nil || !current.Definition.Has(s.Self.Org) {
		return true, nil
	}
	late := s.now()-store.Time(current.Definition.Created) > store.Time(inviteHelpAfter)
	invited := false
	if current.Definition.Proposer == s.Self.Org || late {
		if invited, err = s.invite(ctx, current); err != nil {
			return false, err
		}
	}
	if current.Activated != nil && len(active) > 1 {
		if err := s.tellActivated(ctx, &active[len(active)-2], current); err != nil {
			return false, err
		}
	}
	if a.Kind == store.KindGroup && a.Begun == nil {
		return invited, nil // changes follow the ledger, on which it does not exist yet
	}
	members := s.present(a.ID, current)
	if slices.Equal(members, current.Definition.Members) {
		return invited, nil
	}
	for i := range epochs {
		e := &epochs[i]
		if e.Epoch == current.Epoch+1 && e.Definition.Proposer == s.Self.Org && e.Secret != nil && e.Definition.Previous == current.Hash && slices.Equal(e.Definition.Members, members) {
			return false, s.pursue(ctx, current, e)
		}
	}
	return false, s.propose(ctx, a, current, members)
}

// present are the members that an audience's next epoch should have: of the
// network all active members whose node is registered, of a group those of its
// members that are still active.
func (s *Service) present(audience wire.Hash, current *store.Epoch) (members []wire.OrgID) {
	if audience == s.Network.ID {
		for _, m := range s.Network.Members() {
			if current.Definition.Has(m) || s.Network.Node(m) != nil {
				members = append(members, m)
			}
		}
		return members
	}
	for _, m := range current.Definition.Members {
		if s.Network.Active(m, endPosition) {
			members = append(members, m)
		}
	}
	return members
}

// invite puts an invitation into the outbox of each member whose receipt for
// the epoch's definition is not here, and tells whether there is none.
func (s *Service) invite(ctx context.Context, e *store.Epoch) (all bool, err error) {
	var missing []wire.OrgID
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		receipts, err := tx.Receipts(e.Definition.Proposer, e.Hash)
		for _, m := range s.others(e.Definition.Members) {
			if m != e.Definition.Proposer && s.Network.Active(m, endPosition) && !slices.ContainsFunc(receipts, func(r wire.Receipt) bool { return r.Org == m }) {
				missing = append(missing, m)
			}
		}
		return err
	})
	if err != nil || len(missing) == 0 {
		return err == nil, err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error { return s.addInvitations(tx, e.Definition, e.Hash, missing) })
	s.wakePeers(missing)
	return false, err
}

func (s *Service) addInvitations(tx *store.Tx, d wire.EpochDefinition, hash wire.Hash, members []wire.OrgID) error {
	for _, m := range members {
		if err := tx.AddParcels(store.Parcel{Peer: m, Kind: kindInvite, Root: hash, Org: d.Proposer, Since: s.now()}); err != nil {
			return err
		}
	}
	return nil
}

// moot says whether a proposed epoch can have no effect any more: another one
// followed the epoch before it, or the members have changed again.
func (s *Service) moot(tx *store.Tx, e *store.Epoch) (bool, error) {
	if e.Epoch == 1 || e.Activated != nil {
		return false, nil
	}
	current, err := tx.CurrentEpoch(e.Audience)
	if err != nil || current == nil {
		return false, err
	}
	return e.Definition.Previous != current.Hash || !slices.Equal(e.Definition.Members, s.present(e.Audience, current)), nil
}

// propose starts a new epoch with other members, if it is our turn.
func (s *Service) propose(ctx context.Context, a *store.Audience, current *store.Epoch, members []wire.OrgID) error {
	if !slices.Contains(members, s.Self.Org) || !s.ourTurn(current, members) {
		return nil
	}
	secret := wire.NewEpochSecret(current.Secret.Topic)
	d := wire.EpochDefinition{
		Network: s.Network.ID, Audience: a.ID, Epoch: current.Epoch + 1, Previous: current.Hash, Proposer: s.Self.Org, Name: current.Definition.Name,
		Members: members, Policy: current.Definition.Policy, History: current.Definition.History, Created: int64(s.now()), Salt: newSalt(),
	}
	d.Commit(secret.Keys())
	if err := d.Check(); err != nil {
		return err
	}
	hash, err := d.Hash()
	if err != nil {
		return err
	}
	s.Log.Info("members have changed; a new epoch is proposed", "audience", a.ID.Short(), "epoch", d.Epoch, "members", len(members))
	return s.DB.Write(ctx, func(tx *store.Tx) error {
		if err := tx.PutEpoch(&store.Epoch{Audience: a.ID, Epoch: d.Epoch, Hash: hash, Definition: d, Secret: &secret}); err != nil {
			return err
		}
		return s.addInvitations(tx, d, hash, s.others(members))
	})
}

// ourTurn lets the remaining old members propose one after the other.
func (s *Service) ourTurn(current *store.Epoch, members []wire.OrgID) bool {
	s.epochMu.Lock()
	defer s.epochMu.Unlock()
	key := current.Hash
	since, ok := s.changeSeen[key]
	if !ok {
		since = s.Now()
		s.changeSeen[key] = since
	}
	place := 0
	for _, m := range members {
		if m == s.Self.Org {
			break
		}
		if current.Definition.Has(m) {
			place++
		}
	}
	return s.Now().Sub(since) >= time.Duration(place)*proposeTurn
}

// pursue invites the members of an epoch that we proposed, and has it activated
// when enough of them hold its secret.
func (s *Service) pursue(ctx context.Context, current, next *store.Epoch) error {
	var receipts []wire.Receipt
	var queued *store.Submission
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if receipts, err = tx.Receipts(s.Self.Org, next.Hash); err != nil {
			return err
		}
		queued, err = tx.LatestSubmission(purposeControl, next.Hash)
		return err
	})
	if err != nil {
		return err
	}
	// One that is mined and did not count, because members changed or receipts
	// were too old, is tried again after a while with the receipts of then.
	if queued != nil && (queued.State == store.SubmissionQueued || queued.State == store.SubmissionSigned || s.now()-queued.Created < store.Time(refusedWait)) {
		return nil
	}
	if len(receipts) < needed(len(next.Definition.Members)-1) || !s.approved(current, next, receipts) {
		_, err = s.invite(ctx, next)
		return err
	}
	call, err := wire.Marshal(wire.Control{Activate: &wire.Activation{Definition: next.Definition, Receipts: receipts}})
	if err != nil {
		return err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		return tx.InsertSubmission(&store.Submission{
			Account: s.Self.Key, Purpose: purposeControl, Root: next.Hash, Audience: next.Audience, Call: call, State: store.SubmissionQueued, Created: s.now(),
		})
	})
	s.Wake.Submit.Set()
	return err
}

// approved says whether the old members of a group that the change is not about
// agree in the number that its policy asks for; a receipt is the agreement.
func (s *Service) approved(current, next *store.Epoch, receipts []wire.Receipt) bool {
	if current.Audience == s.Network.ID {
		return true // who belongs to the network is the contract's own vote
	}
	unconcerned, agree := 0, 0
	for _, m := range current.Definition.Members {
		if !next.Definition.Has(m) {
			continue
		}
		unconcerned++
		if m == s.Self.Org || slices.ContainsFunc(receipts, func(r wire.Receipt) bool { return r.Org == m }) {
			agree++
		}
	}
	want := int(current.Definition.Policy.Approvals)
	if want == 0 {
		want = unconcerned/2 + 1
	}
	return agree >= want
}

// receiveInvitation keeps an epoch's definition and secret and answers with a
// receipt for them.
func (s *Service) receiveInvitation(ctx context.Context, from wire.OrgID, body []byte) ([]byte, error) {
	var inv wire.Invitation
	if err := wire.Unmarshal(body, &inv); err != nil {
		return nil, refuse(refusedMalformed, "invitation: %v", err)
	}
	if err := s.takeInvitation(ctx, from, &inv); err != nil {
		return nil, err
	}
	hash, err := inv.Definition.Hash()
	if err != nil {
		return nil, err
	}
	audience, err := inv.Definition.AudienceID()
	if err != nil {
		return nil, err
	}
	r, err := s.signReceipt(ctx, inv.Definition.Proposer, audience, inv.Definition.Epoch, hash, nil)
	if err != nil {
		return nil, err
	}
	return wire.Marshal(*r)
}

// takeInvitation checks an invitation against what the ledger and earlier
// epochs say, and stores it.
func (s *Service) takeInvitation(ctx context.Context, from wire.OrgID, inv *wire.Invitation) error {
	d := inv.Definition
	if err := d.Check(); err != nil {
		return refuse(refusedMalformed, "definition: %v", err)
	}
	if d.Network != s.Network.ID || !d.Has(s.Self.Org) || !d.Has(from) || !d.Has(d.Proposer) {
		return refuse(refusedForeign, "the definition is for another network, or does not list the sender, the proposer and this organisation")
	}
	hash, err := d.Hash()
	if err != nil {
		return err
	}
	if d.Audience == s.Network.ID && d.Epoch == 1 {
		if f := s.Network.Founding(); f == nil || f.Epoch1 != hash {
			return refuse(refusedMalformed, "the network's first epoch has another definition on the ledger")
		}
	}
	secret, err := inv.Open(s.Keys.OpenSealed)
	if err != nil {
		return refuse(refusedMalformed, "the secret does not open: %v", err)
	}
	if err := d.CheckKeys(secret.Keys()); err != nil {
		return refuse(refusedMalformed, "the secret is not the definition's: %v", err)
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if err := s.agree(tx, &d, hash); err != nil {
			return err
		}
		_, err := s.storeEpoch(tx, d, &secret)
		return err
	})
	if err != nil {
		return err
	}
	s.Wake.Confirm.Set()
	s.Wake.Batch.Set()
	return nil
}

// agree refuses a change of an audience that this node belongs to, unless it is
// what the ledger asks for: our receipt for its definition counts as our approval,
// and no member may use that to turn another out, or to bring an outsider in.
func (s *Service) agree(tx *store.Tx, d *wire.EpochDefinition, hash wire.Hash) error {
	if d.Epoch == 1 {
		return nil
	}
	epochs, err := tx.Epochs(d.Audience)
	if err != nil {
		return err
	}
	active := activated(epochs)
	if len(active) == 0 {
		return nil // we join with it
	}
	current := &active[len(active)-1]
	if current.Epoch >= d.Epoch { // decided already: only the one that won is of use
		if slices.ContainsFunc(active, func(e store.Epoch) bool { return e.Hash == hash }) {
			return nil
		}
		return refuse(refusedForeign, "epoch %d has begun with another definition", d.Epoch)
	}
	if !current.Definition.Has(s.Self.Org) {
		return nil // we were left out, and join again
	}
	if want := s.present(d.Audience, current); d.Previous != current.Hash || !slices.Equal(d.Members, want) {
		return refuse(refusedAudience, "the %d members of the proposed epoch %d are not those that this node finds on the ledger after epoch %d", len(d.Members), d.Epoch, current.Epoch)
	}
	return nil
}

// handOutSecret gives a member of an epoch its invitation again.
func (s *Service) handOutSecret(ctx context.Context, from wire.OrgID, body []byte) ([]byte, error) {
	var req wire.SecretRequest
	if err := wire.Unmarshal(body, &req); err != nil {
		return nil, refuse(refusedMalformed, "secret request: %v", err)
	}
	var answer []byte
	err := s.DB.Read(ctx, func(tx *store.Tx) error {
		e, err := epochOf(tx, req.Audience, req.Epoch)
		if err != nil {
			return err
		}
		node := s.Network.Node(from)
		if e == nil || !e.Definition.Has(from) || node == nil {
			return refuse(refusedForeign, "no such secret for this organisation")
		}
		inv, err := wire.NewInvitation(e.Definition, *e.Secret, node.SealKey)
		if err != nil {
			return err
		}
		answer, err = wire.Marshal(inv)
		return err
	})
	return answer, err
}

// pullSecret asks the members of a current epoch for its secret, which is missing.
func (s *Service) pullSecret(ctx context.Context, e *store.Epoch) error {
	for _, m := range s.others(e.Definition.Members) {
		err := s.pullSecretFrom(ctx, m, e)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.Log.Debug("a member does not give a secret", "member", m.Short(), "epoch", e.Epoch, "err", err)
	}
	return nil
}

func (s *Service) pullSecretFrom(ctx context.Context, from wire.OrgID, e *store.Epoch) error {
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	peer, err := s.peerOf(from)
	if err != nil {
		return err
	}
	body, err := wire.Marshal(wire.SecretRequest{Audience: e.Audience, Epoch: e.Epoch})
	if err != nil {
		return err
	}
	answer, err := s.Exchange.Send(ctx, peer, kindSecret, body)
	if err != nil {
		return err
	}
	var inv wire.Invitation
	if err := wire.Unmarshal(answer, &inv); err != nil {
		return err
	}
	if h, err := inv.Definition.Hash(); err != nil || h != e.Hash {
		return fmt.Errorf("%s gave the secret of another definition", from.Short())
	}
	return s.takeInvitation(ctx, from, &inv)
}
