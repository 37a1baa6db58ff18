package transaction

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/nonce"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Config is what a Manager stands on.
type Config struct {
	DB     *store.DB
	Chain  *ethereum.Client
	Nonces *nonce.Authority // shared with all that signs with the same keys
	Signer keys.Signer
	Fees   ethereum.FeePolicy

	// Settled tells of transactions that have become final, inside the database
	// transaction that ends their rows.
	Settled func(tx *store.Tx, done []Outcome) error
	// Committed is called after each such transaction.
	Committed func()

	Log   *slog.Logger
	Now   func() time.Time
	NewID func() wire.UUID

	MaxInFlight int           // signed and not final, per account; 500 if zero
	ResendAfter time.Duration // without news of a transaction; 2 s if zero
	RaiseAfter  time.Duration // that a transaction was next in line and not mined; 30 s if zero
}

// Outcome is what became of a transaction.
type Outcome struct {
	Tx      *store.ChainTx
	State   string            // store.ChainTxSucceeded, …Failed or …Cancelled
	Hash    wire.Hash         // the attempt that was mined; zero if none was
	Receipt *ethereum.Receipt // nil if none was mined
	Revert  []byte            // what the contract returned when it failed; may be empty
	Reason  string            // why it failed, where that is not in Revert
}

// Manager brings the transactions of one chain to their end. Step belongs to one
// worker; everything else is safe for concurrent use.
type Manager struct {
	Config
	// Wake tells the worker that there is something to do.
	Wake chan struct{}

	chainID *big.Int
	flight  map[wire.Address]*flight // what is signed, by account; nil before the first Step

	mu      sync.Mutex
	changed []wire.UUID // operations whose rows an application changed
	trouble error       // of the last Step
}

// flight is what an account has under way.
type flight struct {
	txs []*flying // by nonce
	gap time.Time // since when the chain waits for a nonce that nobody holds
}

// flying is a transaction that is signed and not final.
type flying struct {
	*store.ChainTx
	sent    time.Time // when its newest attempt was handed to the chain last
	line    time.Time // since when it is the next that the chain could mine
	missing time.Time // since when its nonce is used and it has no receipt
}

// newest is the attempt that was signed last.
func (f *flying) newest() *store.ChainAttempt { return &f.Attempts[len(f.Attempts)-1] }

// New prepares a manager.
func New(c Config) *Manager {
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 500
	}
	if c.ResendAfter == 0 {
		c.ResendAfter = 2 * time.Second
	}
	if c.RaiseAfter == 0 {
		c.RaiseAfter = 30 * time.Second
	}
	return &Manager{Config: c, Wake: make(chan struct{}, 1)}
}

// Woken wakes the worker, or notes that it has to look again.
func (m *Manager) Woken() {
	select {
	case m.Wake <- struct{}{}:
	default:
	}
}

// Step does what is due. next is when to look again if nothing wakes it before,
// zero if nothing is under way.
func (m *Manager) Step(ctx context.Context) (next time.Duration, err error) {
	defer func() {
		m.mu.Lock()
		m.trouble = err
		m.mu.Unlock()
	}()
	if err := m.load(ctx); err != nil {
		return 0, err
	}
	if err := m.refresh(ctx); err != nil {
		return 0, err
	}
	err = errors.Join(m.settle(ctx), m.signQueued(ctx), m.resend(ctx))
	if len(m.flight) == 0 {
		return 0, err
	}
	return m.Chain.Poll, err
}

// load reads once what an earlier run left under way.
func (m *Manager) load(ctx context.Context) error {
	if m.flight != nil {
		return nil
	}
	id, err := m.Chain.ChainID(ctx)
	if err != nil {
		return fmt.Errorf("ask the chain for its id: %w", err)
	}
	var signed []store.ChainTx
	err = m.DB.Read(ctx, func(tx *store.Tx) (err error) {
		signed, err = tx.SignedChainTxs(id)
		return err
	})
	if err != nil {
		return err
	}
	m.chainID = new(big.Int).SetUint64(id)
	m.flight = map[wire.Address]*flight{}
	for i := range signed {
		m.fly(&signed[i], time.Time{})
	}
	return nil
}

// fly adds a signed transaction to what is under way.
func (m *Manager) fly(t *store.ChainTx, sent time.Time) *flying {
	f := m.flight[t.Account]
	if f == nil {
		f = &flight{}
		m.flight[t.Account] = f
	}
	one := &flying{ChainTx: t, sent: sent}
	at, _ := slices.BinarySearchFunc(f.txs, *t.Nonce, func(o *flying, n int64) int { return int(*o.Nonce - n) })
	f.txs = slices.Insert(f.txs, at, one)
	return one
}

// land removes transactions from what is under way.
func (m *Manager) land(account wire.Address, done map[int64]bool) {
	f := m.flight[account]
	f.txs = slices.DeleteFunc(f.txs, func(o *flying) bool { return done[o.Seq] })
	if len(f.txs) == 0 {
		delete(m.flight, account)
	}
}

// change notes that an application changed the row of an operation.
func (m *Manager) change(op wire.UUID) {
	m.mu.Lock()
	m.changed = append(m.changed, op)
	m.mu.Unlock()
	m.Woken()
}

// refresh reads again the rows that applications have changed.
func (m *Manager) refresh(ctx context.Context) error {
	m.mu.Lock()
	ops := m.changed
	m.changed = nil
	m.mu.Unlock()
	for _, op := range ops {
		var row *store.ChainTx
		err := m.DB.Read(ctx, func(tx *store.Tx) (err error) { row, err = tx.ChainTxByOp(op); return err })
		if err != nil {
			m.change(op)
			return err
		}
		if row == nil || m.flight[row.Account] == nil {
			continue
		}
		for _, f := range m.flight[row.Account].txs {
			if f.Seq == row.Seq {
				f.Cancel, f.Fees = row.Cancel, row.Fees
			}
		}
	}
	return nil
}

// write is a database transaction of the worker's.
func (m *Manager) write(ctx context.Context, f func(tx *store.Tx, now store.Time) error) error {
	now := store.At(m.Now())
	return m.DB.Write(ctx, func(tx *store.Tx) error { return f(tx, now) })
}

// sign makes a new attempt of a transaction, with a nonce and an offer. It only
// uses up the nonce if cancels. Nothing is stored yet.
func (m *Manager) sign(ctx context.Context, t *store.ChainTx, n int64, offer ethereum.Offer, cancels bool) (store.ChainAttempt, error) {
	to, value, data, gas := (*common.Address)(t.To), new(big.Int), t.Data, t.Gas
	purpose := fmt.Sprintf("%s, operation %s", t.Kind, t.Op)
	if cancels {
		self := common.Address(t.Account)
		to, data, gas, purpose = &self, nil, transferGas, "cancel "+purpose
	} else if _, ok := value.SetString(t.Value, 10); !ok {
		return store.ChainAttempt{}, fmt.Errorf("the stored value %q is not a number", t.Value)
	}
	tx := offer.Transaction(m.chainID, uint64(n), gas, to, value, data)
	unsigned, err := ethereum.Unsigned(m.chainID, tx)
	if err != nil {
		return store.ChainAttempt{}, err
	}
	signature, err := m.Signer.SignTransaction(ctx, t.Account, unsigned, purpose)
	if err != nil {
		return store.ChainAttempt{}, fmt.Errorf("sign with %s: %w", t.Account, err)
	}
	if tx, err = tx.WithSignature(types.LatestSignerForChainID(m.chainID), signature[:]); err != nil {
		return store.ChainAttempt{}, fmt.Errorf("sign with %s: %w", t.Account, err)
	}
	raw, err := tx.MarshalBinary()
	if err != nil {
		return store.ChainAttempt{}, fmt.Errorf("encode the transaction: %w", err)
	}
	fees, err := json.Marshal(offer)
	if err != nil {
		return store.ChainAttempt{}, err
	}
	m.Log.Info("a transaction was signed", "account", t.Account, "nonce", n, "purpose", purpose, "hash", wire.Hash(tx.Hash()).String())
	return store.ChainAttempt{Hash: wire.Hash(tx.Hash()), Nonce: n, Raw: raw, Cancels: cancels, Fees: fees, Created: store.At(m.Now())}, nil
}

// transferGas is what a plain transfer costs.
const transferGas = 21_000
