package transaction

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Codes that are Parley's own.
const (
	codeEnded      = "FF90020" // 409, the transaction has its final state
	codeNoReplace  = "FF90021" // 409, a waiting transaction cannot be replaced
	codeLowerOffer = "FF90022" // 400, an offer that no node would take in place of the present one
)

// Signer is an account and what is under way for it.
type Signer struct {
	Address   wire.Address `json:"address"`
	Queued    int          `json:"queued"`   // not signed yet
	InFlight  int          `json:"inFlight"` // signed, not final
	Suspended bool         `json:"suspended"`
	Reason    string       `json:"reason,omitempty"` // of the suspension
	Since     store.Time   `json:"since,omitempty"`
	Trouble   string       `json:"trouble,omitempty"` // what keeps the worker from going on, if anything does
}

// Signers lists the accounts that this node signs with, and others that
// something is under way for.
func (m *Manager) Signers(ctx context.Context) ([]Signer, error) {
	id, err := m.Chain.ChainID(ctx)
	if err != nil {
		return nil, err
	}
	here, err := m.Signer.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	var counts []store.ChainTxCount
	var suspended []store.SuspendedSigner
	err = m.DB.Read(ctx, func(tx *store.Tx) error {
		if counts, err = tx.ChainTxCounts(id); err != nil {
			return err
		}
		suspended, err = tx.SuspendedSigners(id)
		return err
	})
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	trouble := ""
	if m.trouble != nil {
		trouble = m.trouble.Error()
	}
	m.mu.Unlock()
	var all []Signer
	of := func(a wire.Address) *Signer {
		for i := range all {
			if all[i].Address == a {
				return &all[i]
			}
		}
		all = append(all, Signer{Address: a, Trouble: trouble})
		return &all[len(all)-1]
	}
	for _, a := range here {
		of(a)
	}
	for _, c := range counts {
		s := of(c.Account)
		s.Queued, s.InFlight = c.Queued, c.Signed
	}
	for _, x := range suspended {
		s := of(x.Account)
		s.Suspended, s.Reason, s.Since = true, x.Reason, x.Since
	}
	return all, nil
}

// Suspend keeps what is queued of an account, now or later, from being signed.
// What is signed goes on.
func (m *Manager) Suspend(ctx context.Context, account wire.Address, reason string) error {
	id, err := m.Chain.ChainID(ctx)
	if err != nil {
		return err
	}
	return m.write(ctx, func(tx *store.Tx, now store.Time) error {
		return tx.SuspendSigner(id, store.SuspendedSigner{Account: account, Reason: reason, Since: now})
	})
}

// Resume ends a suspension.
func (m *Manager) Resume(ctx context.Context, account wire.Address) error {
	id, err := m.Chain.ChainID(ctx)
	if err != nil {
		return err
	}
	defer m.Woken()
	return m.DB.Write(ctx, func(tx *store.Tx) error { return tx.ResumeSigner(id, account) })
}

// ByOperation is the transaction of an operation with its attempts; nil if it has
// none.
func (m *Manager) ByOperation(ctx context.Context, op wire.UUID) (row *store.ChainTx, err error) {
	err = m.DB.Read(ctx, func(tx *store.Tx) error {
		row, err = tx.ChainTxByOp(op)
		return err
	})
	return row, err
}

// open is ByOperation of one that has not ended.
func (m *Manager) open(ctx context.Context, op wire.UUID) (*store.ChainTx, error) {
	row, err := m.ByOperation(ctx, op)
	switch {
	case err != nil:
		return nil, err
	case row == nil:
		return nil, errs.NoSuch("transaction of operation", op.String())
	case row.State != store.ChainTxQueued && row.State != store.ChainTxSigned:
		return nil, errs.Conflict(codeEnded, "The transaction of operation %s is %s already; nothing can change it", op, row.State)
	}
	return row, nil
}

// Cancel takes a transaction off the chain, if it is not mined yet: another one
// that does nothing and offers more takes its nonce. Which of the two the chain
// mines shows in the operation.
func (m *Manager) Cancel(ctx context.Context, op wire.UUID) error {
	row, err := m.open(ctx, op)
	if err != nil {
		return err
	}
	if row.State == store.ChainTxSigned && m.Fees.Fees == ethereum.FeesZero {
		return errs.Conflict(codeNoReplace, "The transaction of operation %s is on its way, and on a chain without fees nothing can take its place", op)
	}
	err = m.write(ctx, func(tx *store.Tx, now store.Time) error { _, err := tx.CancelChainTx(row.Seq, now); return err })
	if errors.Is(err, store.ErrNoRows) {
		_, err = m.open(ctx, op)
	}
	if err == nil {
		m.change(op)
	}
	return err
}

// Replace changes what a transaction offers to pay. On its way it must offer a
// tenth more than before in each part.
func (m *Manager) Replace(ctx context.Context, op wire.UUID, offer ethereum.Offer) error {
	row, err := m.open(ctx, op)
	if err != nil {
		return err
	}
	if offer.None() {
		return errs.BadRequest("FF10292", "field %q is missing: say what to offer, or both %q and %q", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas")
	}
	if n := len(row.Attempts); n > 0 {
		var had ethereum.Offer
		if err := json.Unmarshal(row.Attempts[n-1].Fees, &had); err != nil {
			return err
		}
		if !offer.Beats(had) {
			least, err := json.Marshal(had.Raised(1, nil))
			if err != nil {
				return err
			}
			return errs.BadRequest(codeLowerOffer, "The offer is too low to take the place of the present one; %s would do", least)
		}
	}
	fees, err := json.Marshal(offer)
	if err != nil {
		return err
	}
	err = m.write(ctx, func(tx *store.Tx, now store.Time) error { return tx.SetChainTxFees(row.Seq, fees, now) })
	if errors.Is(err, store.ErrNoRows) {
		_, err = m.open(ctx, op)
	}
	if err == nil {
		m.change(op)
	}
	return err
}
