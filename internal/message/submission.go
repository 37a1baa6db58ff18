package message

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// resendAfter is when a transaction that has not come back as a record is sent
// again. Sending what the chain has is no error.
const resendAfter = 2 * time.Second

// Submitter signs ledger calls and sends them. There is one per node: an
// account's calls, and with them its pin numbers, are mined in the order in which
// they were made. It shares the account's nonces with whoever else signs with
// the key (Config.Nonces).
type Submitter struct {
	s    *Service
	sent map[int64]time.Time // when a signed submission was sent last
}

// NewSubmitter makes the node's submitter.
func (s *Service) NewSubmitter() *Submitter {
	return &Submitter{s: s, sent: map[int64]time.Time{}}
}

// Step signs what is due, stores it, and sends it; then sends again what is
// overdue. next is when to look again if nothing wakes it before. What cannot be
// signed does not keep the rest from going out.
func (u *Submitter) Step(ctx context.Context) (next time.Duration, err error) {
	next, fresh, failed := u.sign(ctx)
	for _, sub := range fresh {
		if err := u.send(ctx, sub); err != nil {
			return 0, errors.Join(failed, err)
		}
	}
	return next, errors.Join(failed, u.resend(ctx))
}

// sign gives pins and queued calls their numbers, nonces and signatures. The
// signing happens outside of the transaction that stores it; as nobody else
// gives out numbers, what was read before still holds. What is queued was made
// before what is due, so it goes first.
func (u *Submitter) sign(ctx context.Context) (next time.Duration, fresh []*store.Submission, err error) {
	s := u.s
	if s.Network.Founding() == nil {
		return 0, nil, nil // the contract is not there yet
	}
	var due []dueBatch
	var queued []store.Submission
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		if due, next, err = s.dueBatches(tx); err != nil {
			return err
		}
		queued, err = tx.Submissions(store.SubmissionQueued)
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	var failed []error
	// The contract takes no pin of a suspended member. What it has to pin waits
	// for the record that resumes it, which wakes the submitter.
	suspended := !s.Network.Active(s.Self.Org, endPosition)
	if suspended {
		due, next = nil, 0
	}
	for i := range queued {
		sub := &queued[i]
		if suspended && sub.Purpose != purposeCall {
			continue
		}
		if wait := u.waits(sub.Account); wait > 0 && sub.Purpose != purposeCall {
			next = sooner(next, wait)
			continue
		}
		signed, err := u.signQueued(ctx, sub)
		if err != nil {
			failed = append(failed, fmt.Errorf("sign submission %d (%s): %w", sub.ID, sub.Purpose, err))
		}
		if signed {
			fresh = append(fresh, sub)
		}
	}
	behind := map[wire.Hash]bool{} // audiences in which an earlier batch could not go
	for _, b := range due {
		if behind[b.row.Audience] {
			continue
		}
		sub, wait, err := u.signPin(ctx, b)
		if err != nil {
			failed = append(failed, fmt.Errorf("pin batch %s: %w", b.row.ID, err))
		}
		if sub == nil {
			next = sooner(next, wait)
			behind[b.row.Audience] = true
			continue
		}
		fresh = append(fresh, sub)
	}
	return next, fresh, errors.Join(failed...)
}

// waits is for how long the pins of an account are still put off.
func (u *Submitter) waits(account wire.Address) time.Duration {
	return u.s.held.until(account).Sub(u.s.Now())
}

// holds are the accounts whose pins are put off, and until when: the contract
// refused one, or one was void, and the next would fare no better at once.
type holds struct {
	mu   sync.Mutex
	ends map[wire.Address]time.Time
}

func (h *holds) put(account wire.Address, until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ends[account] = until
}

func (h *holds) until(account wire.Address) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ends[account]
}

// sooner is the shorter of two waits, where zero or less stands for none.
func sooner(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

// signPin takes the next pin number, signs the transaction and stores it together
// with the batch's new state. No submission and a wait: its account is put off.
func (u *Submitter) signPin(ctx context.Context, b dueBatch) (sub *store.Submission, wait time.Duration, err error) {
	s := u.s
	key, err := wire.ParseAddress(b.row.Key)
	if err != nil {
		return nil, 0, err
	}
	if wait = u.waits(key); wait > 0 {
		return nil, wait, nil
	}
	turn, err := s.Nonces.Turn(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	defer turn.End()
	nonce := turn.Next()
	n, err := u.nextNumber(ctx, b.row.Audience, b.row.Epoch, key)
	if err != nil {
		return nil, 0, err
	}
	var pin wire.Pin
	if err := s.DB.Read(ctx, func(tx *store.Tx) error { pin, err = s.pinOf(tx, b, key, n); return err }); err != nil {
		return nil, 0, err
	}
	sub = &store.Submission{Account: key, Purpose: purposePin, Root: b.row.Root, Audience: b.row.Audience, Epoch: b.row.Epoch, N: n, State: store.SubmissionSigned, Created: s.now()}
	if sub.Call, err = wire.Marshal(pin); err != nil {
		return nil, 0, err
	}
	if err := u.signInto(ctx, sub, nonce, ledger.PinCall{Pin: pin}); err != nil {
		return nil, 0, err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if err := tx.TakeNumber(sub.Audience, sub.Epoch, key, n); err != nil {
			return err
		}
		if err := tx.InsertSubmission(sub); err != nil {
			return err
		}
		if err := s.passOnCertificate(tx, b, sub.Created); err != nil {
			return err
		}
		open, err := tx.MoveBatch(b.row.Org, b.row.Root, store.BatchCollecting, store.BatchPinning, sub.Created)
		if err == nil && !open {
			err = errBatchGone
		}
		return err
	})
	if errors.Is(err, errBatchGone) {
		u.s.Wake.Submit.Set() // for the batches behind it
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	turn.Take(nonce)
	s.wakePeers(s.others(b.epoch.Definition.Members))
	return sub, 0, nil
}

// errBatchGone undoes the pin of a batch that was given up while it was signed.
var errBatchGone = errors.New("the batch does not wait for its pin any more")

// nextNumber is the next pin number of a key. It is taken in the transaction
// that stores what was signed with it, before that is sent: nobody else gives
// out numbers, and a signature that was not stored never leaves the process.
func (u *Submitter) nextNumber(ctx context.Context, audience wire.Hash, epoch uint64, key wire.Address) (n uint64, err error) {
	err = u.s.DB.Read(ctx, func(tx *store.Tx) error {
		n, err = tx.NextNumber(audience, epoch, key)
		return err
	})
	return n, err
}

// signQueued signs a call that waits for its turn. False if it cannot go yet.
func (u *Submitter) signQueued(ctx context.Context, sub *store.Submission) (bool, error) {
	s := u.s
	if sub.Purpose != purposePin { // a pin's key is in its messages
		here, err := s.Keys.Addresses(ctx)
		if err != nil {
			return false, err
		}
		if key := s.keyNow(here); key != sub.Account {
			sub.Account, sub.N = key, 0
		}
	}
	turn, err := s.Nonces.Turn(ctx, sub.Account)
	if err != nil {
		return false, err
	}
	defer turn.End()
	nonce := turn.Next()
	var call ledger.Call
	switch sub.Purpose {
	case purposeControl:
		var c wire.Control
		if err := wire.Unmarshal(sub.Call, &c); err != nil {
			return false, u.giveUp(ctx, sub, err)
		}
		var e *store.Epoch
		if err := s.DB.Read(ctx, func(tx *store.Tx) error { e, err = tx.CurrentEpoch(sub.Audience); return err }); err != nil {
			return false, err
		}
		if e == nil || e.Secret == nil {
			return false, nil
		}
		// What comes back to the queue without having been mined keeps its
		// number: the pin is the same one. Numbers that were thrown away would
		// soon leave the window.
		if sub.N == 0 || sub.Epoch != e.Epoch {
			if sub.N, err = u.nextNumber(ctx, sub.Audience, e.Epoch, sub.Account); err != nil {
				return false, err
			}
			sub.Epoch = e.Epoch
		}
		pin, err := s.controlPin(e, c, sub.Account, sub.N)
		if err != nil {
			return false, u.giveUp(ctx, sub, err)
		}
		call = ledger.PinCall{Pin: pin}
	case purposePin: // taken back because it was refused, or another transaction took its nonce
		var pin wire.Pin
		if err := wire.Unmarshal(sub.Call, &pin); err != nil {
			return false, u.giveUp(ctx, sub, err)
		}
		call = ledger.PinCall{Pin: pin}
	default:
		if call, err = ledger.DecodeCall(sub.Call); err != nil {
			return false, u.giveUp(ctx, sub, err)
		}
	}
	var refusal *ledger.Refusal
	if err := u.signInto(ctx, sub, nonce, call); errors.As(err, &refusal) {
		return false, u.giveUp(ctx, sub, refusal)
	} else if err != nil {
		return false, err
	}
	var stored bool
	err = s.DB.Write(ctx, func(tx *store.Tx) (err error) {
		if sub.Purpose == purposeControl {
			if err := tx.TakeNumber(sub.Audience, sub.Epoch, sub.Account, sub.N); err != nil {
				return err
			}
		}
		stored, err = tx.SignSubmission(sub)
		return err
	})
	if err != nil || !stored {
		return false, err
	}
	turn.Take(nonce)
	return true, nil
}

// giveUp ends a queued call that can never be signed as it is.
func (u *Submitter) giveUp(ctx context.Context, sub *store.Submission, why error) error {
	s := u.s
	s.incident(ctx, "impossible_call", fmt.Sprintf("a %s of this node cannot be signed: %v", sub.Purpose, why), fmt.Sprint(sub.ID))
	return s.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.FailSubmission(sub.ID, why.Error())
		return err
	})
}

func (u *Submitter) signInto(ctx context.Context, sub *store.Submission, nonce int64, call ledger.Call) error {
	signed, err := u.s.Ledger.Sign(ctx, sub.Account, uint64(nonce), sub.Bump, call)
	if err != nil {
		return err
	}
	sub.Nonce, sub.TxHash, sub.Raw, sub.State = &nonce, signed.Hash, signed.Raw, store.SubmissionSigned
	return nil
}

// send hands a signed call to the ledger. What the ledger says for certain is
// recorded; anything else leaves the row, which is sent again.
func (u *Submitter) send(ctx context.Context, sub *store.Submission) error {
	s := u.s
	u.sent[sub.ID] = s.Now()
	err := s.Ledger.Send(ctx, ledger.Signed{Hash: sub.TxHash, Nonce: uint64(*sub.Nonce), Raw: sub.Raw})
	var refusal *ledger.Refusal
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ledger.ErrNonceUsed):
		return u.nonceUsed(ctx, sub)
	case errors.As(err, &refusal):
		return u.refused(ctx, sub, refusal)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	s.Log.Warn("the ledger did not take a transaction; it is sent again", "purpose", sub.Purpose, "tx", sub.TxHash.Short(), "err", err)
	return nil
}

// nonceUsed handles a nonce that some transaction of the account has taken. If
// it is this very call, its record is on the way (or stored already); if the
// record does not come, somebody else uses the account, and the call is signed
// again with a new nonce.
func (u *Submitter) nonceUsed(ctx context.Context, sub *store.Submission) error {
	s := u.s
	mined, err := s.Ledger.Outcome(ctx, ledger.Signed{Hash: sub.TxHash, Nonce: uint64(*sub.Nonce), Raw: sub.Raw})
	var refusal *ledger.Refusal
	switch {
	case errors.As(err, &refusal):
		return u.refused(ctx, sub, refusal)
	case errors.Is(err, ledger.ErrNonceUsed): // for certain: a final block holds another
	case err != nil:
		s.Log.Warn("could not ask the ledger what became of a transaction", "tx", sub.TxHash.Short(), "err", err)
		return nil
	case mined:
		return nil // its record follows
	}
	s.incident(ctx, "nonce_taken", fmt.Sprintf("another program uses account %s: nonce %d was taken, the call is signed again; give each node a key of its own", sub.Account, *sub.Nonce), sub.TxHash.String())
	delete(u.sent, sub.ID)
	if err := s.DB.Write(ctx, func(tx *store.Tx) error { _, err := tx.RequeueSubmission(sub.ID); return err }); err != nil {
		return err
	}
	if err := s.Nonces.Forget(ctx, sub.Account); err != nil {
		return err
	}
	s.Wake.Submit.Set()
	return nil
}

// refused handles a call that the contract does not take. A pin is put off with
// all others of its account, as it is and under its number, until the reason,
// such as a suspension, is gone: that takes people. Any other call has failed.
//
// Whether the refusal used the account's nonce depends on the chain. If it did
// not, what is signed with later ones would wait for ever, and is signed again.
func (u *Submitter) refused(ctx context.Context, sub *store.Submission, r *ledger.Refusal) error {
	s := u.s
	st, err := s.Ledger.State(ctx, &sub.Account)
	if err != nil {
		s.Log.Warn("could not ask the ledger for the next nonce of a refused call", "tx", sub.TxHash.Short(), "err", err)
		return nil // it is sent, and refused, again
	}
	s.incident(ctx, "refused_call", fmt.Sprintf("the network contract refused a %s of this node: %s", sub.Purpose, r.Reason), sub.TxHash.String())
	delete(u.sent, sub.ID)
	if sub.Purpose != purposeCall {
		s.held.put(sub.Account, s.Now().Add(refusedWait))
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		var open bool // its record may have come meanwhile
		var err error
		switch {
		case sub.Purpose == purposeCall:
			open, err = tx.FailSubmission(sub.ID, r.Reason)
		case sub.Purpose == purposePin && u.revoked(sub.Account):
			open, err = u.unseal(tx, sub, r)
		default:
			open, err = tx.RequeueSubmission(sub.ID)
		}
		if err != nil || !open || int64(st.Nonce) > *sub.Nonce {
			return err
		}
		return tx.RequeueAfter(sub.Account, *sub.Nonce)
	})
	if err != nil {
		return err
	}
	return s.Nonces.Forget(ctx, sub.Account)
}

// revoked says that a key of ours was revoked, and not that we are suspended.
func (u *Submitter) revoked(key wire.Address) bool {
	_, valid := u.s.Network.OrgOf(key, endPosition)
	return !valid && u.s.Network.Active(u.s.Self.Org, endPosition)
}

// unseal takes a batch apart whose pin can never be mined, because its key was
// revoked: its messages go into another batch, under the present key.
func (u *Submitter) unseal(tx *store.Tx, sub *store.Submission, r *ledger.Refusal) (open bool, err error) {
	s := u.s
	last, err := tx.LastRecord()
	if err != nil {
		return false, err
	}
	if last == nil || last.Number < s.Network.Through() { // the pin may stand before the revocation
		return tx.RequeueSubmission(sub.ID)
	}
	if open, err = tx.FailSubmission(sub.ID, r.Reason); err != nil || !open {
		return open, err
	}
	s.Wake.Batch.Set() // a wake too early costs a look
	return true, s.dropBatch(tx, sub.Root)
}

// resend sends what has not come back as a record for a while.
func (u *Submitter) resend(ctx context.Context) error {
	var signed []store.Submission
	err := u.s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		signed, err = tx.Submissions(store.SubmissionSigned)
		return err
	})
	if err != nil {
		return err
	}
	open := map[int64]bool{}
	now := u.s.Now()
	for i := range signed {
		open[signed[i].ID] = true
	}
	for i := range signed {
		sub := &signed[i]
		if now.Sub(u.sent[sub.ID]) < resendAfter {
			continue
		}
		if err := u.send(ctx, sub); err != nil {
			return err
		}
	}
	for id := range u.sent {
		if !open[id] {
			delete(u.sent, id)
		}
	}
	return nil
}

// RegisterNode has our node's certificate, seal key and endpoints put on the
// ledger, unless that is under way.
func (s *Service) RegisterNode(ctx context.Context, p ledger.NodeProfile) error {
	body, err := ledger.EncodeCall(ledger.RegisterNodeCall{Node: p})
	if err != nil {
		return err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		for _, state := range []string{store.SubmissionQueued, store.SubmissionSigned} {
			open, err := tx.Submissions(state)
			if err != nil {
				return err
			}
			for _, sub := range open {
				if sub.Purpose == purposeCall && bytes.Equal(sub.Call, body) {
					return nil
				}
			}
		}
		return tx.InsertSubmission(&store.Submission{Account: s.Self.Key, Purpose: purposeCall, Call: body, State: store.SubmissionQueued, Created: s.now()})
	})
	s.Wake.Submit.Set()
	return err
}
