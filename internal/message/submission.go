package message

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// resendAfter is when a transaction that has not come back as a record is sent
// again. Sending what the chain has is no error.
const resendAfter = 2 * time.Second

// Submitter signs ledger calls and sends them. There is one per node: it alone
// gives out account nonces, so that an account's transactions, and with them
// its pin numbers, are mined in the order in which they were made.
type Submitter struct {
	s     *Service
	nonce map[wire.Address]int64 // next one of each account
	sent  map[int64]time.Time    // when a signed submission was sent last
}

// NewSubmitter makes the node's submitter.
func (s *Service) NewSubmitter() *Submitter {
	return &Submitter{s: s, nonce: map[wire.Address]int64{}, sent: map[int64]time.Time{}}
}

// Step signs what is due, stores it, and sends it; then sends again what is
// overdue. next is when to look again if nothing wakes it before.
func (u *Submitter) Step(ctx context.Context) (next time.Duration, err error) {
	next, fresh, err := u.sign(ctx)
	if err != nil {
		return 0, err
	}
	for _, sub := range fresh {
		if err := u.send(ctx, sub); err != nil {
			return 0, err
		}
	}
	return next, u.resend(ctx)
}

// sign gives pins and queued calls their numbers, nonces and signatures. The
// signing happens outside of the transaction that stores it; as nobody else
// gives out numbers, what was read before still holds.
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
	if err != nil || len(due)+len(queued) == 0 {
		return next, nil, err
	}
	for _, b := range due {
		sub, err := u.signPin(ctx, b)
		if err != nil {
			return 0, fresh, fmt.Errorf("pin batch %s: %w", b.row.ID, err)
		}
		fresh = append(fresh, sub)
	}
	for i := range queued {
		signed, err := u.signQueued(ctx, &queued[i])
		if err != nil {
			return 0, fresh, fmt.Errorf("sign submission %d: %w", queued[i].ID, err)
		}
		if signed {
			fresh = append(fresh, &queued[i])
		}
	}
	return next, fresh, nil
}

// signPin takes the next pin number, signs the transaction and stores it together
// with the batch's new state.
func (u *Submitter) signPin(ctx context.Context, b dueBatch) (*store.Submission, error) {
	s := u.s
	key, err := wire.ParseAddress(b.row.Key)
	if err != nil {
		return nil, err
	}
	nonce, err := u.next(ctx, key)
	if err != nil {
		return nil, err
	}
	n, err := u.nextNumber(ctx, b.row.Audience, b.row.Epoch, key)
	if err != nil {
		return nil, err
	}
	var pin wire.Pin
	if err := s.DB.Read(ctx, func(tx *store.Tx) error { pin, err = s.pinOf(tx, b, key, n); return err }); err != nil {
		return nil, err
	}
	sub := &store.Submission{Account: key, Purpose: purposePin, Root: b.row.Root, Audience: b.row.Audience, Epoch: b.row.Epoch, N: n, State: store.SubmissionSigned, Created: s.now()}
	if sub.Call, err = wire.Marshal(pin); err != nil {
		return nil, err
	}
	if err := u.signInto(ctx, sub, nonce, ledger.PinCall{Pin: pin}); err != nil {
		return nil, err
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
		return tx.SetBatchState(b.row.Org, b.row.Root, store.BatchPinning, sub.Created)
	})
	if err != nil {
		return nil, err
	}
	u.nonce[key] = nonce + 1
	s.wakePeers(s.others(b.epoch.Definition.Members))
	return sub, nil
}

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
	nonce, err := u.next(ctx, sub.Account)
	if err != nil {
		return false, err
	}
	var call ledger.Call
	switch sub.Purpose {
	case purposeControl:
		var c wire.Control
		if err := wire.Unmarshal(sub.Call, &c); err != nil {
			return false, err
		}
		var e *store.Epoch
		if err := s.DB.Read(ctx, func(tx *store.Tx) error { e, err = tx.CurrentEpoch(sub.Audience); return err }); err != nil {
			return false, err
		}
		if e == nil || e.Secret == nil {
			return false, nil
		}
		if sub.N, err = u.nextNumber(ctx, sub.Audience, e.Epoch, sub.Account); err != nil {
			return false, err
		}
		sub.Epoch = e.Epoch
		pin, err := s.controlPin(e, c, sub.Account, sub.N)
		if err != nil {
			return false, err
		}
		call = ledger.PinCall{Pin: pin}
	case purposePin: // taken back because another transaction took its nonce
		var pin wire.Pin
		if err := wire.Unmarshal(sub.Call, &pin); err != nil {
			return false, err
		}
		call = ledger.PinCall{Pin: pin}
	default:
		if call, err = ledger.DecodeCall(sub.Call); err != nil {
			return false, err
		}
	}
	if err := u.signInto(ctx, sub, nonce, call); err != nil {
		return false, err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if sub.Purpose == purposeControl {
			if err := tx.TakeNumber(sub.Audience, sub.Epoch, sub.Account, sub.N); err != nil {
				return err
			}
		}
		return tx.SignSubmission(sub)
	})
	if err != nil {
		return false, err
	}
	u.nonce[sub.Account] = nonce + 1
	return true, nil
}

func (u *Submitter) signInto(ctx context.Context, sub *store.Submission, nonce int64, call ledger.Call) error {
	signed, err := u.s.Ledger.Sign(ctx, sub.Account, uint64(nonce), sub.Bump, call)
	if err != nil {
		return err
	}
	sub.Nonce, sub.TxHash, sub.Raw, sub.State = &nonce, signed.Hash, signed.Raw, store.SubmissionSigned
	return nil
}

// next is the account's next nonce: after those we have signed, and after those
// that the chain has counted, whichever is further.
func (u *Submitter) next(ctx context.Context, account wire.Address) (int64, error) {
	if n, ok := u.nonce[account]; ok {
		return n, nil
	}
	st, err := u.s.Ledger.State(ctx, &account)
	if err != nil {
		return 0, fmt.Errorf("ask the ledger for the next nonce of %s: %w", account, err)
	}
	next := int64(st.Nonce)
	err = u.s.DB.Read(ctx, func(tx *store.Tx) error {
		signed, err := tx.Submissions(store.SubmissionSigned)
		for _, sub := range signed {
			if sub.Account == account && sub.Nonce != nil {
				next = max(next, *sub.Nonce+1)
			}
		}
		return err
	})
	return next, err
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
	case err != nil:
		s.Log.Warn("could not ask the ledger what became of a transaction", "tx", sub.TxHash.Short(), "err", err)
		return nil
	case mined:
		return nil // its record follows
	}
	s.incident(ctx, "nonce_taken", fmt.Sprintf("another program uses account %s: nonce %d was taken, the call is signed again; give each node a key of its own", sub.Account, *sub.Nonce), sub.TxHash.String())
	delete(u.sent, sub.ID)
	delete(u.nonce, sub.Account)
	if err := s.DB.Write(ctx, func(tx *store.Tx) error { return tx.RequeueSubmission(sub.ID) }); err != nil {
		return err
	}
	s.Wake.Submit.Set()
	return nil
}

// refused ends a call that the contract does not take. A batch whose pin was
// refused is pinned again under a new number, once the reason is gone. Whether
// the refusal used the account's nonce depends on the chain, so it is asked.
func (u *Submitter) refused(ctx context.Context, sub *store.Submission, r *ledger.Refusal) error {
	s := u.s
	s.incident(ctx, "refused_call", fmt.Sprintf("the network contract refused a %s of this node: %s", sub.Purpose, r.Reason), sub.TxHash.String())
	delete(u.sent, sub.ID)
	delete(u.nonce, sub.Account)
	return s.DB.Write(ctx, func(tx *store.Tx) error {
		if err := tx.EndSubmission(sub.ID, store.SubmissionFailed, r.Reason); err != nil {
			return err
		}
		if sub.Purpose != purposePin {
			return nil
		}
		return tx.SetBatchState(s.Self.Org, sub.Root, store.BatchCollecting, s.now())
	})
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
		sub := &signed[i]
		open[sub.ID] = true
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
