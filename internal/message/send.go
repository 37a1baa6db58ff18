package message

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Kinds of request between nodes.
const (
	kindPayload     = "payload"     // wire.Envelope -> wire.Receipt; nothing if the receiver has voted to skip it
	kindUnpinned    = "unpinned"    // wire.Unpinned -> wire.Receipt
	kindCertificate = "certificate" // wire.Certificate -> nothing
	kindReceipt     = "receipt"     // wire.Receipt, given after the pin -> nothing
	kindInvite      = "invite"      // wire.Invitation -> wire.Receipt over the definition's hash
	kindActivated   = "activated"   // wire.Activated: which pin made the epoch current that the receiver joins with -> nothing
	kindSecret      = "secret"      // wire.SecretRequest -> wire.Invitation
	kindErase       = "erase"       // wire.Erasure -> nothing
	kindErased      = "erased"      // wire.ErasureAnswer -> nothing
)

// Codes of a refusal between nodes.
const (
	refusedMalformed = "malformed"        // it does not decode, or does not match its root
	refusedAudience  = "unknown_audience" // the receiver is no member, or was not invited yet
	refusedVoted     = "voted"            // the members have skipped it
	refusedBlocked   = "missing_part"     // a named blob could not be fetched
	refusedForeign   = "not_a_member"     // the sender has no business with it
	refusedEnded     = "epoch_ended"      // its epoch ended before it was pinned
	refusedSequence  = "out_of_sequence"  // an earlier unpinned batch is missing
	refusedCatching  = "catching_up"      // the receiver was restored and reads the ledger again
	refusedIdentity  = "unknown_identity" // its author's claim has not come yet
)

const (
	maxParallelSends = 8
	sendTimeout      = 10 * time.Minute // a receiver answers after it fetched the blobs
	firstBackOff     = 50 * time.Millisecond
	lastBackOff      = 30 * time.Second
)

// Peer sends one peer's parcels from the outbox. Each peer has its own, so that
// a dead or slow one delays nobody else.
type Peer struct {
	Org  wire.OrgID
	Wake Signal

	s        *Service
	mu       sync.Mutex
	inFlight map[int64]bool // parcels being sent
	failures int            // in a row, of the connection
	notBy    time.Time      // no attempt before
	again    time.Time      // when a refused parcel is due next; zero for none
	lastErr  string
	wg       sync.WaitGroup
}

// Step starts sending what is due, several parcels at a time, and returns. A
// parcel that ends wakes the peer again.
func (p *Peer) Step(ctx context.Context) (more bool, err error) {
	due, err := p.Due(ctx)
	if err != nil {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, parcel := range due {
		if len(p.inFlight) >= maxParallelSends {
			break
		}
		p.inFlight[parcel.ID] = true
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			p.Deliver(ctx, parcel)
			p.mu.Lock()
			delete(p.inFlight, parcel.ID)
			p.mu.Unlock()
			p.Wake.Set()
		}()
	}
	return false, nil
}

// Due lists parcels that may be sent now and are not under way, oldest first;
// none while the peer is put off or not registered.
func (p *Peer) Due(ctx context.Context) (due []store.Parcel, err error) {
	now := p.s.Now()
	p.mu.Lock()
	if !now.Before(p.again) {
		p.again = time.Time{}
	}
	free := maxParallelSends - len(p.inFlight)
	waiting := now.Before(p.notBy)
	p.mu.Unlock()
	if free <= 0 || waiting || p.s.Network.Node(p.Org) == nil || !p.s.Network.Active(p.Org, endPosition) {
		return nil, nil
	}
	err = p.s.DB.Read(ctx, func(tx *store.Tx) error {
		due, err = tx.DueParcels(p.Org, store.At(now), 4*maxParallelSends)
		return err
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(due, func(parcel store.Parcel) bool { return p.inFlight[parcel.ID] }), err
}

// Wait returns when no parcel is being sent any more.
func (p *Peer) Wait() { p.wg.Wait() }

// Next is when the peer, or a parcel that it refused, is to be tried again; zero
// if nothing waits for its time.
func (p *Peer) Next() time.Time {
	now := p.s.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.notBy) {
		return p.notBy
	}
	return p.again
}

// Deliver sends one parcel and records what came of it.
func (p *Peer) Deliver(ctx context.Context, parcel store.Parcel) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	start := p.s.Now()
	answer, err := p.s.sendParcel(ctx, parcel)
	if err == nil {
		err = p.s.delivered(ctx, parcel, answer)
	}
	if err == nil {
		p.s.speed.answered(p.Org, p.s.Now().Sub(start))
		p.mu.Lock()
		p.failures, p.notBy, p.lastErr = 0, time.Time{}, ""
		p.mu.Unlock()
		return
	}
	if ctx.Err() != nil && context.Cause(ctx) == context.Canceled {
		return // the node stops; the row stays
	}
	p.failed(parcel, err)
}

// failed puts the parcel off. A refusal concerns the parcel alone; anything
// else the whole peer, which is then not tried until the back-off has passed.
func (p *Peer) failed(parcel store.Parcel, err error) {
	p.s.speed.missed(p.Org)
	var refused *exchange.Refused
	delay := p.s.backOff(parcel.Attempts)
	p.mu.Lock()
	if !errors.As(err, &refused) {
		// Parcels that were under way together fail together: that is one failure
		// of the connection, not one for each.
		if delay = p.notBy.Sub(p.s.Now()); delay <= 0 {
			delay = p.s.backOff(p.failures)
			p.failures++
			p.notBy = p.s.Now().Add(delay)
		}
		p.lastErr = err.Error()
	} else if at := p.s.Now().Add(delay); p.again.IsZero() || at.Before(p.again) {
		p.again = at
	}
	p.mu.Unlock()
	p.s.Log.Warn("a peer did not take a parcel; it is tried again", "peer", p.Org.Short(), "kind", parcel.Kind, "root", parcel.Root.Short(), "in", delay, "err", err)
	due := store.At(p.s.Now().Add(delay))
	// Without the caller's deadline: an attempt that timed out is noted too.
	if err := p.s.DB.Write(context.Background(), func(tx *store.Tx) error { return tx.FailedParcel(parcel.ID, due, err.Error()) }); err != nil {
		p.s.Log.Error("could not note a failed attempt; the parcel is tried again at once", "err", err)
	}
	if refused != nil && refused.Code == refusedAudience {
		p.s.Wake.Epoch.Set() // it wants the invitation first
	}
}

// backOff doubles with each failure, with jitter so that peers do not come in
// step.
func (s *Service) backOff(failures int) time.Duration {
	d := firstBackOff << min(failures, 16)
	d = min(d, lastBackOff)
	return d/2 + s.Jitter(d/2)
}

// sendParcel puts the parcel's object together and sends it.
func (s *Service) sendParcel(ctx context.Context, p store.Parcel) ([]byte, error) {
	body, err := s.parcelBody(ctx, p)
	if err != nil || body == nil {
		return nil, err
	}
	peer, err := s.peerOf(p.Peer)
	if err != nil {
		return nil, err
	}
	return s.Exchange.Send(ctx, peer, p.Kind, body)
}

// parcelBody is what is sent; nil if it has become pointless.
func (s *Service) parcelBody(ctx context.Context, p store.Parcel) (body []byte, err error) {
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		switch p.Kind {
		case kindPayload, kindUnpinned:
			b, err := tx.BatchByRoot(p.Org, p.Root)
			if err != nil || b == nil || b.Erased != nil { // what remains of one is pulled
				return err
			}
			body = b.Envelope
		case kindCertificate:
			c, err := certificate(tx, p.Org, p.Root)
			if err != nil || c == nil {
				return err
			}
			body, err = wire.Marshal(*c)
			return err
		case kindReceipt:
			b, err := tx.BatchByRoot(p.Org, p.Root)
			if err != nil || b == nil {
				return err
			}
			body = b.Receipt
		case kindInvite:
			e, err := tx.EpochByHash(p.Root)
			if err != nil || e == nil || e.Secret == nil {
				return err
			}
			if moot, err := s.moot(tx, e); err != nil || moot {
				return err
			}
			node := s.Network.Node(p.Peer)
			if node == nil {
				return errors.New("its node is not registered on the ledger yet")
			}
			inv, err := wire.NewInvitation(e.Definition, *e.Secret, node.SealKey)
			if err != nil {
				return err
			}
			body, err = wire.Marshal(inv)
			return err
		case kindActivated:
			e, err := tx.EpochByHash(p.Root)
			if err != nil || e == nil || e.Activated == nil {
				return err
			}
			a, err := statement(tx, e)
			if err != nil || a == nil {
				return err
			}
			body, err = wire.Marshal(a)
			return err
		case kindErase, kindErased:
			q, err := tx.ErasureRequestByDigest(p.Root)
			if err != nil || q == nil {
				return err
			}
			if body = q.Answer; p.Kind == kindErase {
				body = q.Request
			}
		default:
			return fmt.Errorf("outbox row %d has the unknown kind %q", p.ID, p.Kind)
		}
		return nil
	})
	return body, err
}

// delivered stores the peer's answer and takes the parcel out of the outbox.
func (s *Service) delivered(ctx context.Context, p store.Parcel, answer []byte) error {
	var r *wire.Receipt
	if len(answer) > 0 && (p.Kind == kindPayload || p.Kind == kindInvite || p.Kind == kindUnpinned) {
		r = new(wire.Receipt)
		if err := wire.Unmarshal(answer, r); err != nil {
			return fmt.Errorf("its receipt: %w", err)
		}
		if err := s.checkReceipt(r, p); err != nil {
			s.incident(ctx, "forged_receipt", fmt.Sprintf("%s answered with a receipt that does not hold: %v", p.Peer.Short(), err), p.Root.String()+p.Peer.String())
			return err
		}
	}
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		if r != nil {
			if _, err := putReceipt(tx, r); err != nil {
				return err
			}
			if p.Kind == kindPayload {
				if err := tx.Arrived(store.ArrivedReceipt, p.Org, p.Root); err != nil {
					return err
				}
			}
		}
		if p.Op != nil {
			if err := s.sent(tx, p); err != nil {
				return err
			}
		}
		return tx.DeliveredParcel(p.ID)
	})
	if err == nil && r != nil {
		s.Wake.Submit.Set()
		s.Wake.Confirm.Set()
		if p.Kind == kindInvite {
			s.Wake.Epoch.Set()
		}
	}
	return err
}

// sent ends the operation of a parcel, which may be another one than when the
// parcel went out: an operator may have retried it.
func (s *Service) sent(tx *store.Tx, p store.Parcel) error {
	ended, err := tx.UpdateOperations([]wire.UUID{*p.Op}, opSucceeded, nil, "", s.now())
	if err != nil || len(ended) > 0 {
		return err
	}
	now, err := tx.OperationOfParcel(p.ID)
	if err != nil || now == nil {
		return err
	}
	_, err = tx.UpdateOperations([]wire.UUID{*now}, opSucceeded, nil, "", s.now())
	return err
}

// checkReceipt says whether a receipt is what the parcel asked for, signed by a
// key of the peer.
func (s *Service) checkReceipt(r *wire.Receipt, p store.Parcel) error {
	switch {
	case r.Org != p.Peer:
		return fmt.Errorf("it names organisation %s", r.Org.Short())
	case r.Root != p.Root || r.Author != p.Org || r.Network != s.Network.ID:
		return fmt.Errorf("it is for another entry (%s)", r.Root.Short())
	case !r.Faults.IsZero(): // ours conform: they were checked when they were handed in
		return errors.New("it says that data does not conform to its datatype, and all of it does")
	}
	return s.checkSignature(r)
}

// checkSignature says whether a receipt is signed by a key that the organisation
// it names has or had: a receipt outlives the key and the membership. Whether the
// key was valid where it matters, order judges.
func (s *Service) checkSignature(r *wire.Receipt) error {
	key, err := r.Signer()
	if err != nil {
		return err
	}
	if !slices.Contains(s.Network.Keys(r.Org, endPosition), key) {
		return fmt.Errorf("it is signed by %s, which is no key of %s", key, r.Org.Short())
	}
	return nil
}

// putReceipt stores a receipt whose signature was checked. One that misquotes
// the ledger can never count and is an error.
func putReceipt(tx *store.Tx, r *wire.Receipt) (fresh bool, err error) {
	hash, known, err := tx.BlockHash(r.RecentNumber)
	if err != nil {
		return false, err
	}
	if known && hash != r.RecentBlock {
		return false, refuse(refusedMalformed, "a receipt of %s names block %d with another hash than the ledger has", r.Org.Short(), r.RecentNumber)
	}
	if fresh, err := tx.AddReceipt(r, known); err != nil || fresh {
		return fresh, err
	}
	// An organisation that says two things about one batch's contents is kept to
	// the first, unless the second is what we found ourselves.
	before, err := tx.Receipts(r.Author, r.Root)
	if err != nil {
		return false, err
	}
	at := slices.IndexFunc(before, func(b wire.Receipt) bool { return b.Org == r.Org && b.Faults != r.Faults })
	if at < 0 {
		return tx.PutReceipt(r, known)
	}
	own, err := tx.BatchByRoot(r.Author, r.Root)
	if err != nil || own == nil || own.Receipt == nil {
		return false, err
	}
	var ours wire.Receipt
	if err := wire.Unmarshal(own.Receipt, &ours); err != nil || ours.Faults != r.Faults {
		return false, err
	}
	return tx.ReplaceReceipt(r, known)
}

// certificate is the set of receipts held for an entry; nil if there is none.
func certificate(tx *store.Tx, author wire.OrgID, root wire.Hash) (*wire.Certificate, error) {
	rs, err := tx.Receipts(author, root)
	if err != nil || len(rs) == 0 {
		return nil, err
	}
	return &wire.Certificate{Author: author, Root: root, Receipts: rs}, nil
}

// incident notes something that an operator must know. It is best effort on
// top of the log, which has it in any case.
func (s *Service) incident(ctx context.Context, kind, text, ref string) {
	s.Log.Error(text, "incident", kind, "ref", ref)
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.PutIncident(&store.Incident{At: s.now(), Kind: kind, Text: text, Ref: ref})
		return err
	})
	if err != nil {
		s.Log.Error("could not store an incident", "incident", kind, "err", err)
	}
}

// PeerStatus is how the exchange with one peer goes.
type PeerStatus struct {
	Org      wire.OrgID  `json:"org"`
	Name     string      `json:"name,omitempty"`
	Waiting  int         `json:"waiting"`
	Since    *store.Time `json:"since,omitempty"`
	NextTry  *store.Time `json:"nextTry,omitempty"`
	Failures int         `json:"failures,omitempty"`
	Error    string      `json:"error,omitempty"`
}

// PeersStatus lists the other members with what waits for them.
func (s *Service) PeersStatus(ctx context.Context) ([]PeerStatus, error) {
	list := []PeerStatus{}
	err := s.DB.Read(ctx, func(tx *store.Tx) error {
		waiting, err := tx.OutboxByPeer()
		if err != nil {
			return err
		}
		for _, org := range s.others(s.Network.Members()) {
			st := PeerStatus{Org: org}
			if id, err := identity.OrgIdentity(tx, s.Namespace, org); err != nil {
				return err
			} else if id != nil {
				st.Name = id.Name
			}
			for _, w := range waiting {
				if w.Peer == org {
					st.Waiting, st.Since, st.Error = w.Waiting, &w.Since, w.Error
				}
			}
			s.peersMu.Lock()
			p := s.peers[org]
			s.peersMu.Unlock()
			if p != nil {
				p.mu.Lock()
				st.Failures = p.failures
				if p.lastErr != "" {
					st.Error = p.lastErr
				}
				if !p.notBy.IsZero() {
					at := store.At(p.notBy)
					st.NextTry = &at
				}
				p.mu.Unlock()
			}
			list = append(list, st)
		}
		return nil
	})
	return list, err
}
