package transaction

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// signAtOnce is how many transactions of an account are signed, stored and sent
// together.
const signAtOnce = 100

// signQueued signs, stores and sends what is queued, account by account. One
// that cannot be signed for keeps no other from going out.
func (m *Manager) signQueued(ctx context.Context) error {
	var accounts []wire.Address
	err := m.DB.Read(ctx, func(tx *store.Tx) (err error) {
		accounts, err = tx.QueuedAccounts(m.chainID.Uint64())
		return err
	})
	if err != nil {
		return err
	}
	var failed []error
	for _, a := range accounts {
		room := m.MaxInFlight
		if f := m.flight[a]; f != nil {
			room -= len(f.txs)
		}
		if room <= 0 {
			continue
		}
		failed = append(failed, m.signFor(ctx, a, min(room, signAtOnce)))
	}
	return errors.Join(failed...)
}

// signFor signs up to limit queued transactions of an account.
func (m *Manager) signFor(ctx context.Context, account wire.Address, limit int) error {
	var queued []store.ChainTx
	err := m.DB.Read(ctx, func(tx *store.Tx) (err error) {
		queued, err = tx.QueuedChainTxs(m.chainID.Uint64(), account, limit)
		return err
	})
	if err != nil || len(queued) == 0 {
		return err
	}
	if len(queued) == limit {
		m.Woken() // there may be more
	}
	signed, err := m.signStored(ctx, account, queued)
	for _, t := range signed {
		m.fly(t, m.Now())
	}
	return errors.Join(err, m.send(ctx, signed))
}

// signStored signs transactions in their order and stores what was signed in one
// database transaction, all within one turn of the account. What comes after one
// that cannot be signed waits with it.
func (m *Manager) signStored(ctx context.Context, account wire.Address, queued []store.ChainTx) ([]*store.ChainTx, error) {
	turn, err := m.Nonces.Turn(ctx, account)
	if err != nil {
		return nil, err
	}
	defer turn.End()
	var market ethereum.Offer // asked for once, when it is needed
	var signed []*store.ChainTx
	var cancelled []Outcome
	notes := map[int64]string{}
	var failed error
	for i := range queued {
		t := &queued[i]
		if t.Cancel {
			cancelled = append(cancelled, Outcome{Tx: t, State: store.ChainTxCancelled, Reason: "it was cancelled before it was signed"})
			continue
		}
		n := turn.Next()
		if t.Nonce != nil {
			if n = *t.Nonce; !turn.Free(n) {
				notes[t.Seq] = fmt.Sprintf("nonce %d is used already; cancel it and send it again without a nonce", n)
				continue
			}
		}
		offer, err := own(t)
		if err == nil && offer.None() {
			if market.None() {
				market, err = m.Fees.Offer(ctx, m.Chain.Endpoints, 0)
			}
			offer = market
		}
		if err != nil {
			failed = err
			break
		}
		attempt, err := m.sign(ctx, t, n, offer, false)
		if err != nil {
			notes[t.Seq], failed = err.Error(), err
			break
		}
		t.Attempts, t.Nonce = append(t.Attempts, attempt), &n
		turn.Take(n)
		signed = append(signed, t)
	}
	err = m.write(ctx, func(tx *store.Tx, now store.Time) error {
		for seq, reason := range notes {
			if err := tx.NoteChainTx(seq, reason, now); err != nil {
				return err
			}
		}
		if err := m.end(tx, cancelled, now); err != nil {
			return err
		}
		return tx.SignChainTxs(signed, now)
	})
	if err != nil {
		turn.Void()
		return nil, errors.Join(failed, err)
	}
	if len(cancelled) > 0 {
		m.Committed()
	}
	return signed, failed
}

// own is what the application offers to pay itself; no offer for the policy.
func own(t *store.ChainTx) (o ethereum.Offer, err error) {
	if err := json.Unmarshal(t.Fees, &o); err != nil {
		return o, fmt.Errorf("the stored fees of operation %s: %w", t.Op, err)
	}
	return o, nil
}

// send hands the newest attempts of transactions to the chain. What the chain
// has against one is noted where an application looks; the row stays, and is sent
// again.
func (m *Manager) send(ctx context.Context, txs []*store.ChainTx) error {
	if len(txs) == 0 {
		return nil
	}
	raw := make([][]byte, len(txs))
	for i, t := range txs {
		raw[i] = t.Attempts[len(t.Attempts)-1].Raw
	}
	answers, err := m.Chain.Send(ctx, raw)
	if err != nil {
		return fmt.Errorf("send %d transactions: %w", len(txs), err)
	}
	var doubtful []common.Hash
	for i, e := range answers {
		if e != nil {
			doubtful = append(doubtful, common.Hash(txs[i].Attempts[len(txs[i].Attempts)-1].Hash))
		}
	}
	// The chain's state tells what an answer means, not its text, which each
	// implementation words in its own way.
	known, err := m.Chain.Known(ctx, doubtful)
	if err != nil {
		return fmt.Errorf("look up %d transactions that were not taken: %w", len(doubtful), err)
	}
	notes := map[*store.ChainTx]string{}
	for i, e := range answers {
		text := ""
		if e != nil {
			if !known[0] {
				text = notTaken + e.Error()
			}
			known = known[1:]
		}
		// What else is noted of a transaction stays while the chain has it.
		if text != txs[i].Reason && (text != "" || strings.HasPrefix(txs[i].Reason, notTaken)) {
			notes[txs[i]] = text
		}
	}
	if len(notes) == 0 {
		return nil
	}
	err = m.write(ctx, func(tx *store.Tx, now store.Time) error {
		for t, text := range notes {
			if err := tx.NoteChainTx(t.Seq, text, now); err != nil {
				return err
			}
			if err := tx.NoteChainAttempt(t.Attempts[len(t.Attempts)-1].Seq, text); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for t, text := range notes {
		t.Reason = text
	}
	return nil
}

// notTaken begins the reason of a transaction that the chain refuses to have.
const notTaken = "the chain does not take it: "
