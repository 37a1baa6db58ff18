package transaction

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// gapAfter is how long a nonce that nobody holds may keep others waiting before
// it is used up.
const gapAfter = 5 * time.Second

// resend sends again what the chain may have lost, with a higher offer where that
// helps, and signs what takes transactions off the chain.
func (m *Manager) resend(ctx context.Context) error {
	var failed []error
	for _, f := range m.flight {
		var again []*store.ChainTx
		for _, t := range f.txs {
			due, err := m.renew(ctx, t)
			if err != nil {
				failed = append(failed, err)
				continue
			}
			if due || m.Now().Sub(t.sent) >= m.ResendAfter && len(again) < signAtOnce {
				again = append(again, t.ChainTx)
				t.sent = m.Now()
			}
		}
		failed = append(failed, m.send(ctx, again))
	}
	return errors.Join(failed...)
}

// renew signs a new attempt of a transaction if one is due: to cancel it, to
// offer what the application offers now, or because it is next in line and not
// mined for long.
func (m *Manager) renew(ctx context.Context, t *flying) (bool, error) {
	last := t.newest()
	var had, asked ethereum.Offer
	if err := errors.Join(json.Unmarshal(last.Fees, &had), json.Unmarshal(t.Fees, &asked)); err != nil {
		return false, fmt.Errorf("the stored fees of operation %s: %w", t.Op, err)
	}
	switch {
	case t.Cancel && !last.Cancels:
		offer, err := m.Fees.Offer(ctx, m.Chain.Endpoints, 0)
		if err != nil {
			return false, err
		}
		if least := had.Raised(1, nil); !offer.Beats(had) {
			offer = least
		}
		return true, m.replace(ctx, t, offer, true)
	case last.Cancels:
		return false, nil
	case !asked.None():
		if fees, err := json.Marshal(asked); err != nil || bytes.Equal(fees, last.Fees) {
			return false, err
		}
		return true, m.replace(ctx, t, asked, false)
	case m.Fees.Fees == ethereum.FeesZero || t.line.IsZero() || m.Now().Sub(t.line) < m.RaiseAfter:
		return false, nil
	}
	t.line = m.Now() // whatever comes of it, the next look is as far away
	offer, err := m.Fees.Offer(ctx, m.Chain.Endpoints, 0)
	if err != nil {
		return false, err
	}
	if !offer.Beats(had) {
		offer = had.Raised(1, m.Fees.Cap)
	}
	if !offer.Beats(had) {
		return false, m.note(ctx, t, fmt.Sprintf("it is not mined, and its offer cannot be raised further: the cap is %s wei per gas; raise it, or cancel", m.Fees.Cap))
	}
	return true, m.replace(ctx, t, offer, false)
}

// replace signs and stores a new attempt with the same nonce.
func (m *Manager) replace(ctx context.Context, t *flying, offer ethereum.Offer, cancels bool) error {
	attempt, err := m.sign(ctx, t.ChainTx, *t.Nonce, offer, cancels)
	if err != nil {
		return errors.Join(err, m.note(ctx, t, err.Error()))
	}
	renewed := *t.ChainTx
	renewed.Attempts = append(append([]store.ChainAttempt{}, t.Attempts...), attempt)
	if err := m.write(ctx, func(tx *store.Tx, now store.Time) error { return tx.SignChainTxs([]*store.ChainTx{&renewed}, now) }); err != nil {
		return err
	}
	*t.ChainTx = renewed
	return nil
}

// note tells applications why a transaction waits.
func (m *Manager) note(ctx context.Context, t *flying, reason string) error {
	if t.Reason == reason {
		return nil
	}
	if err := m.write(ctx, func(tx *store.Tx, now store.Time) error { return tx.NoteChainTx(t.Seq, reason, now) }); err != nil {
		return err
	}
	t.Reason = reason
	return nil
}

// watchLine notes which transaction the chain could mine next, and uses up nonces
// that nobody holds and others wait for.
func (m *Manager) watchLine(ctx context.Context, account wire.Address, fate ethereum.Fate) error {
	f := m.flight[account]
	if f == nil {
		return nil
	}
	first := f.txs[0]
	if uint64(*first.Nonce) <= fate.Latest {
		if f.gap = (time.Time{}); first.line.IsZero() {
			first.line = m.Now()
		}
		return nil
	}
	if fate.Pending >= uint64(*first.Nonce) { // others of the account wait before it
		f.gap = time.Time{}
		return nil
	}
	if f.gap.IsZero() {
		f.gap = m.Now()
	}
	if m.Now().Sub(f.gap) < gapAfter {
		return nil
	}
	f.gap = time.Time{}
	return m.fill(ctx, account, int64(fate.Pending), *first.Nonce)
}

// fill uses up the nonces from one up to another that nothing of ours holds.
func (m *Manager) fill(ctx context.Context, account wire.Address, from, to int64) error {
	if err := m.Nonces.Forget(ctx, account); err != nil {
		return err
	}
	turn, err := m.Nonces.Turn(ctx, account)
	if err != nil {
		return err
	}
	defer turn.End()
	offer, err := m.Fees.Offer(ctx, m.Chain.Endpoints, 0)
	if err != nil {
		return err
	}
	var fillers []*store.ChainTx
	now := store.At(m.Now())
	for n := from; n < to; n++ {
		if !turn.Free(n) {
			continue
		}
		t := &store.ChainTx{
			Op: m.NewID(), Kind: store.ChainTxFiller, Chain: m.chainID.Uint64(), Account: account, Nonce: &n, To: &account,
			Value: "0", Data: []byte{}, Gas: transferGas, State: store.ChainTxQueued, Created: now, Updated: now,
		}
		attempt, err := m.sign(ctx, t, n, offer, true)
		if err != nil {
			return err
		}
		t.Attempts = []store.ChainAttempt{attempt}
		fillers = append(fillers, t)
		turn.Take(n)
	}
	err = m.write(ctx, func(tx *store.Tx, now store.Time) error {
		if err := tx.InsertChainTxs(fillers); err != nil {
			return err
		}
		return tx.SignChainTxs(fillers, now)
	})
	if err != nil {
		turn.Void()
		return err
	}
	for _, t := range fillers {
		m.Log.Warn("a nonce that nobody holds kept others waiting and is used up", "account", account, "nonce", *t.Nonce)
		t.Fees = json.RawMessage("{}")
		m.fly(t, m.Now())
	}
	return m.send(ctx, fillers)
}
