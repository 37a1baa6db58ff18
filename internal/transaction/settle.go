package transaction

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// settle looks what became final, account by account.
func (m *Manager) settle(ctx context.Context) error {
	var failed []error
	for account := range m.flight {
		failed = append(failed, m.settleFor(ctx, account))
	}
	return errors.Join(failed...)
}

// settleFor ends the transactions of an account whose nonces are used in final
// blocks.
func (m *Manager) settleFor(ctx context.Context, account wire.Address) error {
	f := m.flight[account]
	var used []*flying
	fate, err := m.Chain.Fate(ctx, common.Address(account), func(final uint64) (hashes []common.Hash) {
		used = used[:0]
		for _, t := range f.txs {
			if uint64(*t.Nonce) >= final {
				break
			}
			used = append(used, t)
			for _, a := range t.Attempts {
				hashes = append(hashes, common.Hash(a.Hash))
			}
		}
		return hashes
	})
	if err != nil {
		return fmt.Errorf("ask the chain about the transactions of %s: %w", account, err)
	}
	var done []Outcome
	var foreign []*flying
	for _, t := range used {
		o, err := m.outcome(ctx, t, fate.Receipts)
		if err != nil {
			return err
		}
		switch {
		case o != nil:
			done = append(done, *o)
		case t.missing.IsZero():
			t.missing = m.Now() // asked again before anything is concluded
		case m.Now().Sub(t.missing) >= m.ResendAfter:
			foreign = append(foreign, t)
		}
	}
	if err := m.conclude(ctx, account, done, foreign); err != nil {
		return err
	}
	return m.watchLine(ctx, account, fate)
}

// outcome is what became of a transaction whose nonce is used; nil if none of its
// attempts was mined.
func (m *Manager) outcome(ctx context.Context, t *flying, receipts map[common.Hash]*ethereum.Receipt) (*Outcome, error) {
	for i := range t.Attempts {
		a := &t.Attempts[i]
		r := receipts[common.Hash(a.Hash)]
		if r == nil {
			continue
		}
		o := &Outcome{Tx: t.ChainTx, State: store.ChainTxSucceeded, Hash: a.Hash, Receipt: r}
		switch {
		case a.Cancels && t.Kind != store.ChainTxFiller:
			o.State, o.Reason = store.ChainTxCancelled, "it was cancelled: its nonce is used by "+a.Hash.String()
		case r.Status != 1:
			return o, m.explain(ctx, t, a, o)
		}
		return o, nil
	}
	return nil, nil
}

// explain finds out why a mined transaction failed.
func (m *Manager) explain(ctx context.Context, t *flying, a *store.ChainAttempt, o *Outcome) error {
	var tx types.Transaction
	if err := tx.UnmarshalBinary(a.Raw); err != nil {
		return fmt.Errorf("the stored transaction %s is damaged: %w", a.Hash, err)
	}
	o.State = store.ChainTxFailed
	block := uint64(o.Receipt.BlockNumber)
	why, err := m.Chain.WhyFailed(ctx, ethereum.MessageOf(common.Address(t.Account), &tx), block)
	switch {
	case err != nil:
		return err
	case why != nil && len(why.Data) > 0:
		o.Revert = why.Data
	case uint64(o.Receipt.GasUsed) >= tx.Gas():
		o.Reason = fmt.Sprintf("the transaction in block %d used up its gas limit of %d; set a higher one in options.gas", block, tx.Gas())
	case why != nil:
		o.Reason = "the contract reverted without a reason"
	default:
		o.Reason = fmt.Sprintf("the transaction failed in block %d for a reason that the chain cannot tell any more", block)
	}
	return nil
}

// conclude ends rows, and takes those back whose nonce somebody else used.
func (m *Manager) conclude(ctx context.Context, account wire.Address, done []Outcome, foreign []*flying) error {
	for _, t := range foreign {
		if t.Cancel || t.Kind == store.ChainTxFiller { // nothing is left to do
			done = append(done, Outcome{Tx: t.ChainTx, State: store.ChainTxCancelled, Reason: "another transaction of the account used its nonce"})
		}
	}
	foreign = slices.DeleteFunc(foreign, func(t *flying) bool { return t.Cancel || t.Kind == store.ChainTxFiller })
	if len(done) == 0 && len(foreign) == 0 {
		return nil
	}
	err := m.write(ctx, func(tx *store.Tx, now store.Time) error {
		for _, t := range foreign {
			reason := fmt.Sprintf("another program uses the account: it took nonce %d; the transaction is signed again", *t.Nonce)
			if err := tx.RequeueChainTx(t.Seq, reason, now); err != nil {
				return err
			}
			incident := &store.Incident{At: now, Kind: "nonce_taken", Ref: t.newest().Hash.String(),
				Text: fmt.Sprintf("another program uses account %s: nonce %d was taken, operation %s is signed again; give each node a key of its own", account, *t.Nonce, t.Op)}
			if _, err := tx.PutIncident(incident); err != nil {
				return err
			}
		}
		return m.end(tx, done, now)
	})
	if err != nil {
		return err
	}
	m.Committed()
	landed := map[int64]bool{}
	for _, o := range done {
		landed[o.Tx.Seq] = true
	}
	for _, t := range foreign {
		landed[t.Seq] = true
	}
	m.land(account, landed)
	if len(foreign) > 0 {
		m.Woken()
		return m.Nonces.Forget(ctx, account)
	}
	return nil
}

// end ends rows inside a database transaction. One that has ended stays as it is.
func (m *Manager) end(tx *store.Tx, done []Outcome, now store.Time) error {
	var fresh []Outcome
	for _, o := range done {
		first, err := tx.EndChainTx(o.Tx.Seq, o.State, o.Reason, now)
		if err != nil {
			return err
		}
		if first && o.Tx.Kind != store.ChainTxFiller {
			fresh = append(fresh, o)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return m.Settled(tx, fresh)
}
