package message

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// An author asks the members that have its messages to erase data of them
// (wire.Erasure), and each answers when it has decided (wire.ErasureAnswer). Both
// are signed, stored with what they belong to, and sent from the outbox.

// What to do when an author asks to erase what it has sent.
const (
	RequestsAsk    = "ask"    // an operator decides
	RequestsAccept = "accept" // it is done, unless a legal hold forbids it
	RequestsRefuse = "refuse"
)

// refusedBusy: too many requests of the sender wait here already.
const refusedBusy = "busy"

// maxUndecided bounds how many requests of one member wait for their answer.
const maxUndecided = 10_000

// requestsFor makes the signed requests of an erasure, one for each batch of
// ours, and says whom they go to.
func (s *Service) requestsFor(ctx context.Context, o eraseOrder, p *erasePlan, done *store.Erasure) (list []outgoingRequest, peers []wire.OrgID, err error) {
	if !o.recipients || o.dry {
		return nil, nil, nil
	}
	here, err := s.Keys.Addresses(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, b := range p.batches {
		if !b.row.Own || len(b.items) == 0 {
			continue
		}
		e := wire.Erasure{Version: wire.Version, Network: s.Network.ID, Org: s.Self.Org, Audience: b.row.Audience, Root: b.row.Root, Items: b.items, Reason: o.reason, At: int64(done.Created)}
		digest, err := e.Digest()
		if err != nil {
			return nil, nil, err
		}
		if e.Signature, err = s.Keys.Sign(ctx, s.keyNow(here), digest, "erasure"); err != nil {
			return nil, nil, err
		}
		body, err := wire.Marshal(e)
		if err != nil {
			return nil, nil, err
		}
		r := outgoingRequest{row: store.ErasureRequest{
			ID: s.NewID(), Namespace: s.Namespace, Digest: digest, Request: body, Org: s.Self.Org, Own: true, Root: b.row.Root,
			State: store.RequestSent, Erasure: &done.ID, Created: done.Created, Updated: done.Created,
		}}
		if r.to, err = s.mayHave(ctx, b); err != nil {
			return nil, nil, err
		}
		for _, m := range r.to {
			if !slices.Contains(peers, m) {
				peers = append(peers, m)
			}
		}
		list = append(list, r)
	}
	return list, peers, nil
}

// outgoingRequest is a request with the members it goes to.
type outgoingRequest struct {
	row store.ErasureRequest
	to  []wire.OrgID
}

// mayHave are the other members that may have a batch of ours: those of its
// epoch, and those that joined the audience since.
func (s *Service) mayHave(ctx context.Context, b *eraseBatch) (members []wire.OrgID, err error) {
	members = s.others(b.epoch.Definition.Members)
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		now, err := tx.CurrentEpoch(b.row.Audience)
		if err != nil || now == nil {
			return err
		}
		for _, m := range s.others(now.Definition.Members) {
			if !slices.Contains(members, m) {
				members = append(members, m)
			}
		}
		return nil
	})
	return members, err
}

// sendRequests stores requests of ours and puts them into the outbox.
func (s *Service) sendRequests(tx *store.Tx, requests []outgoingRequest, done *store.Erasure) error {
	for i := range requests {
		r := &requests[i]
		if _, err := tx.InsertErasureRequest(&r.row); err != nil {
			return err
		}
		for _, m := range r.to {
			if err := tx.PutErasureAnswer(r.row.Digest, &store.ErasureAnswer{Org: m, State: store.AnswerWaiting, At: done.Created}); err != nil {
				return err
			}
			if err := tx.AddParcels(store.Parcel{Peer: m, Kind: kindErase, Root: r.row.Digest, Org: s.Self.Org, Since: done.Created}); err != nil {
				return err
			}
		}
	}
	return nil
}

// receiveErasure stores another member's request. Who did not write the batch has
// no say in it.
func (s *Service) receiveErasure(ctx context.Context, from wire.OrgID, body []byte) error {
	var e wire.Erasure
	if err := wire.Unmarshal(body, &e); err != nil {
		return refuse(refusedMalformed, "erasure: %v", err)
	}
	if err := e.Check(); err != nil {
		return refuse(refusedMalformed, "%v", err)
	}
	if e.Network != s.Network.ID || e.Org != from {
		return refuse(refusedForeign, "the request is of another network or another organisation than its sender")
	}
	signer, err := e.Signer()
	if err != nil {
		return refuse(refusedMalformed, "erasure: %v", err)
	}
	if org, ok := s.Network.OrgOf(signer, endPosition); !ok || org != from {
		return refuse(refusedForeign, "the request is not signed by a valid key of its sender")
	}
	digest, err := e.Digest()
	if err != nil {
		return err
	}
	q := &store.ErasureRequest{
		ID: s.NewID(), Namespace: s.Namespace, Digest: digest, Request: body, Org: from, Root: e.Root,
		State: store.RequestAsked, Note: "an operator must decide: POST erasures/requests/{id}/decision", Created: s.now(), Updated: s.now(),
	}
	var answer *wire.ErasureAnswer
	switch s.Retention.Requests {
	case RequestsAccept:
		q.State, q.Note = store.RequestAccepted, ""
	case RequestsRefuse:
		if answer, err = s.signAnswer(ctx, digest, "this member erases nothing at the request of others", q.Created); err != nil {
			return err
		}
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.UndecidedErasures(from)
		if err != nil {
			return err
		}
		if n >= maxUndecided {
			return refuse(refusedBusy, "%d requests of this organisation wait for a decision here", n)
		}
		epochs, err := tx.Epochs(e.Audience)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(epochs, func(k store.Epoch) bool { return k.Secret != nil && k.Definition.Has(from) }) {
			return refuse(refusedAudience, "audience %s is not known here, or the sender is no member of it", e.Audience.Short())
		}
		fresh, err := tx.InsertErasureRequest(q)
		if err != nil || !fresh {
			return err
		}
		if err := s.giveAnswer(tx, answerTo(q, answer, nil)); err != nil {
			return err
		}
		return tx.InsertEvents([]*store.Event{{ID: s.NewID(), Type: "erasure_requested", Namespace: s.Namespace, Reference: &q.ID, Created: q.Created}})
	})
	if err != nil {
		return err
	}
	s.EventsCommitted()
	s.wakePeers([]wire.OrgID{from})
	s.Wake.Retention.Set()
	return nil
}

// signAnswer signs that a request is fulfilled, or, with a reason, refused.
func (s *Service) signAnswer(ctx context.Context, request wire.Hash, refusal string, at store.Time) (*wire.ErasureAnswer, error) {
	if len(refusal) > wire.MaxReason {
		refusal = refusal[:wire.MaxReason]
	}
	a := &wire.ErasureAnswer{Version: wire.Version, Network: s.Network.ID, Org: s.Self.Org, Request: request, Erased: refusal == "", Reason: refusal, At: int64(at)}
	digest, err := a.Digest()
	if err != nil {
		return nil, err
	}
	here, err := s.Keys.Addresses(ctx)
	if err != nil {
		return nil, err
	}
	a.Signature, err = s.Keys.Sign(ctx, s.keyNow(here), digest, "erasure answer")
	return a, err
}

// givenAnswer is a request with the answer that it is about to get.
type givenAnswer struct {
	request *store.ErasureRequest
	answer  *wire.ErasureAnswer
	erasure *wire.UUID
}

func answerTo(q *store.ErasureRequest, a *wire.ErasureAnswer, erasure *wire.UUID) *givenAnswer {
	if a == nil {
		return nil
	}
	return &givenAnswer{q, a, erasure}
}

// answerFor is the receipt for a request that an erasure fulfils; nil if it is of
// our own accord.
func (s *Service) answerFor(ctx context.Context, q *store.ErasureRequest, done *store.Erasure) (*givenAnswer, error) {
	if q == nil {
		return nil, nil
	}
	a, err := s.signAnswer(ctx, q.Digest, "", done.Created)
	return answerTo(q, a, &done.ID), err
}

// giveAnswer stores an answer of ours and puts it into the outbox.
func (s *Service) giveAnswer(tx *store.Tx, g *givenAnswer) (err error) {
	if g == nil {
		return nil
	}
	q := *g.request
	if q.Answer, err = wire.Marshal(*g.answer); err != nil {
		return err
	}
	q.State, q.Note, q.Updated, q.Erasure = store.RequestErased, "", store.Time(g.answer.At), g.erasure
	if !g.answer.Erased {
		q.State, q.Note = store.RequestRefused, g.answer.Reason
	}
	if err := tx.UpdateErasureRequest(&q); err != nil {
		return err
	}
	return tx.AddParcels(store.Parcel{Peer: q.Org, Kind: kindErased, Root: q.Digest, Org: q.Org, Since: q.Updated})
}

// receiveErasureAnswer stores what a member says to a request of ours.
func (s *Service) receiveErasureAnswer(ctx context.Context, from wire.OrgID, body []byte) error {
	var a wire.ErasureAnswer
	if err := wire.Unmarshal(body, &a); err != nil {
		return refuse(refusedMalformed, "erasure answer: %v", err)
	}
	if err := a.Check(); err != nil {
		return refuse(refusedMalformed, "%v", err)
	}
	if a.Network != s.Network.ID || a.Org != from {
		return refuse(refusedForeign, "the answer is of another network or another organisation than its sender")
	}
	signer, err := a.Signer()
	if err != nil {
		return refuse(refusedMalformed, "erasure answer: %v", err)
	}
	if !slices.Contains(s.Network.Keys(from, endPosition), signer) {
		return refuse(refusedForeign, "the answer is signed by %s, which is no key of its sender", signer)
	}
	row := &store.ErasureAnswer{Org: from, State: store.RequestErased, Reason: a.Reason, At: store.Time(a.At), Answer: body}
	if !a.Erased {
		row.State = store.RequestRefused
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		q, err := tx.ErasureRequestByDigest(a.Request)
		if err != nil {
			return err
		}
		if q == nil || !q.Own {
			return refuse(refusedMalformed, "this organisation has made no request %s", a.Request.Short())
		}
		before, err := tx.ErasureAnswers(a.Request)
		if err != nil {
			return err
		}
		asked := slices.IndexFunc(before, func(b store.ErasureAnswer) bool { return b.Org == from })
		if asked < 0 {
			return refuse(refusedForeign, "this organisation was not asked")
		}
		if before[asked].State == row.State {
			return nil // it came again
		}
		if err := tx.PutErasureAnswer(a.Request, row); err != nil {
			return err
		}
		return tx.InsertEvents([]*store.Event{{ID: s.NewID(), Type: "erasure_answered", Namespace: s.Namespace, Reference: q.Erasure, Created: s.now()}})
	})
	if err == nil {
		s.EventsCommitted()
	}
	return err
}

// Decision is what an operator says to a request of another member.
type Decision struct {
	Accept *bool  `json:"accept"`
	Reason string `json:"reason,omitempty"` // of a refusal; the member is told
}

// DecideErasure accepts or refuses another member's request. One that was refused
// can be accepted later.
func (s *Service) DecideErasure(ctx context.Context, id wire.UUID, d Decision) (*store.ErasureRequest, error) {
	if d.Accept == nil {
		return nil, errs.BadRequest(errs.CodeBadValue, "field %q is missing: true or false", "accept")
	}
	if !*d.Accept {
		if err := checkReason(d.Reason); err != nil {
			return nil, err
		}
	}
	q, err := store.Get(ctx, s.DB, store.ErasureRequests, s.Namespace, id.String())
	if err != nil {
		return nil, err
	}
	if q.Own || q.State == store.RequestErased || q.State == store.RequestRefused && !*d.Accept {
		return nil, errs.Conflict(codeNothing, "request %s is %s: only another member's request that is not fulfilled can be decided", id, q.State)
	}
	var answer *wire.ErasureAnswer
	at := s.now()
	if !*d.Accept {
		if answer, err = s.signAnswer(ctx, q.Digest, d.Reason, at); err != nil {
			return nil, err
		}
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if answer != nil {
			return s.giveAnswer(tx, answerTo(&q, answer, nil))
		}
		q.State, q.Note, q.Updated = store.RequestAccepted, "", at
		return tx.UpdateErasureRequest(&q)
	})
	if err != nil {
		return nil, err
	}
	s.wakePeers([]wire.OrgID{q.Org})
	s.Wake.Retention.Set()
	q, err = store.Get(ctx, s.DB, store.ErasureRequests, s.Namespace, id.String())
	return &q, err
}

// carryOut does what an accepted request asks for, or refuses it. A request for
// what is not here, or not decided, waits.
func (s *Service) carryOut(ctx context.Context, q *store.ErasureRequest) error {
	var e wire.Erasure
	if err := wire.Unmarshal(q.Request, &e); err != nil {
		return fmt.Errorf("stored erasure request %s: %w", q.ID, err)
	}
	var data []int64
	wait, refusal, who := "", "", ""
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if who, err = s.nameOf(tx, q.Org); err != nil {
			return err
		}
		data, wait, refusal, err = s.requested(tx, &e)
		return err
	})
	if err != nil {
		return err
	}
	if wait == "" && refusal == "" && len(data) > 0 {
		_, err = s.erase(ctx, eraseOrder{source: store.ErasedByMember, origin: q.Org.String(), author: who, reason: e.Reason, request: q}, data)
		var coded *errs.Error
		var hold *heldError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &hold):
			refusal = hold.toPeer()
		case refusedForNow(err):
			wait = err.Error()
		case errors.As(err, &coded):
			refusal = coded.Text
		default:
			return err
		}
	}
	at := s.now()
	if wait != "" {
		if wait == q.Note {
			return nil
		}
		q.Note, q.Updated = wait, at
		return s.DB.Write(ctx, func(tx *store.Tx) error { return tx.UpdateErasureRequest(q) })
	}
	// Refused, or nothing of it is left here.
	answer, err := s.signAnswer(ctx, q.Digest, refusal, at)
	if err != nil {
		return err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error { return s.giveAnswer(tx, answerTo(q, answer, q.Erasure)) })
	s.wakePeers([]wire.OrgID{q.Org})
	return err
}

// requested finds the data that a request names and that is still here. wait says
// what has to come first, refusal why it can never be done.
func (s *Service) requested(tx *store.Tx, e *wire.Erasure) (data []int64, wait, refusal string, err error) {
	row, err := tx.BatchByRoot(e.Org, e.Root)
	if err != nil {
		return nil, "", "", err
	}
	if row == nil {
		past, err := tx.PastEntry(e.Audience, e.Org, e.Root)
		if err != nil || past != nil { // the members have skipped it: it never was here
			return nil, "", "", err
		}
		return nil, "the batch is not here yet", "", nil
	}
	if row.Audience != e.Audience {
		return nil, "", "the batch is of another audience", nil
	}
	messages, err := tx.MessagesOfBatch(row.Root, row.Org)
	if err != nil {
		return nil, "", "", err
	}
	named := map[wire.Hash]bool{}
	seqs := make([]int64, len(messages))
	for i, m := range messages {
		var h wire.MessageHeader
		if err := wire.Unmarshal(m.Wire, &h); err != nil {
			return nil, "", "", fmt.Errorf("stored header of message %s: %w", m.Header.ID, err)
		}
		for _, c := range h.Data {
			named[c] = true
		}
		seqs[i] = m.Seq
	}
	for _, c := range e.Items {
		if !named[c] {
			return nil, "", fmt.Sprintf("the batch has no data item %s", c), nil
		}
	}
	of, err := tx.DataOfMessages(seqs)
	if err != nil {
		return nil, "", "", err
	}
	for _, m := range messages {
		for _, d := range of[m.Seq] {
			if d.Erasure == nil && slices.Contains(e.Items, d.Commitment) && !slices.Contains(data, d.Seq) {
				data = append(data, d.Seq)
			}
		}
	}
	return data, "", "", nil
}

// ErasureStatus is an erasure with what the other members said to it.
type ErasureStatus struct {
	store.Erasure
	Requests []RequestStatus `json:"requests"`
}

// RequestStatus is a request of ours to other members. Request and the answers'
// Signed are what was signed, in CBOR (wire.Erasure, wire.ErasureAnswer), so that
// anyone can verify them.
type RequestStatus struct {
	ID      wire.UUID      `json:"id"`
	Digest  wire.Hash      `json:"digest"`
	Root    wire.Hash      `json:"root"`
	Request []byte         `json:"request"`
	Answers []AnswerStatus `json:"answers"`
}

// AnswerStatus is one member's answer.
type AnswerStatus struct {
	store.ErasureAnswer
	Name   string `json:"name"`
	Signed []byte `json:"signed,omitempty"`
}

// Erasure reads an erasure with all answers.
func (s *Service) Erasure(ctx context.Context, id wire.UUID) (*ErasureStatus, error) {
	out := &ErasureStatus{Requests: []RequestStatus{}}
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if out.Erasure, err = store.GetTx(tx, store.Erasures, s.Namespace, id.String()); err != nil {
			return err
		}
		requests, err := tx.RequestsOfErasure(id)
		if err != nil {
			return err
		}
		for _, q := range requests {
			r := RequestStatus{ID: q.ID, Digest: q.Digest, Root: q.Root, Request: q.Request, Answers: []AnswerStatus{}}
			answers, err := tx.ErasureAnswers(q.Digest)
			if err != nil {
				return err
			}
			for _, a := range answers {
				name, err := s.nameOf(tx, a.Org)
				if err != nil {
					return err
				}
				r.Answers = append(r.Answers, AnswerStatus{a, name, a.Answer})
			}
			out.Requests = append(out.Requests, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
