// Package nonce gives out the account nonces of one chain. Everything that this
// node signs with a key, be it a pin of the network contract or an application's
// call of some other contract, gets its nonce here: one key has one sequence of
// nonces, whoever uses it.
//
// Nothing is stored here. A nonce counts as taken once a signed transaction that
// has it is stored, which its taker does before it ends its turn.
package nonce

import (
	"context"
	"fmt"
	"sync"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Config is what an Authority stands on.
type Config struct {
	DB *store.DB
	// Chain is the chain's id, which may have to be asked for.
	Chain func(context.Context) (uint64, error)
	// Network says that the calls of the network contract go to this chain.
	Network bool
	// Count asks the chain for an account's next nonce, counting what waits.
	Count func(ctx context.Context, account wire.Address) (uint64, error)
}

// Authority gives out nonces. Safe for concurrent use.
type Authority struct {
	cfg Config

	mu       sync.Mutex
	accounts map[wire.Address]*account
}

// account is what is known of one; it belongs to who holds its turn.
type account struct {
	turn  chan struct{} // holds a token while somebody has the turn
	known bool
	next  int64          // the first nonce that may be free
	taken map[int64]bool // beyond next, after a gap
}

// New makes an authority that knows nothing yet.
func New(cfg Config) *Authority {
	return &Authority{cfg: cfg, accounts: map[wire.Address]*account{}}
}

func (a *Authority) account(address wire.Address) *account {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.accounts[address] == nil {
		a.accounts[address] = &account{turn: make(chan struct{}, 1)}
	}
	return a.accounts[address]
}

// Turn is the right to sign with an account. Nobody else gets a nonce of it
// until End.
type Turn struct{ a *account }

// Turn waits for the account's turn. The first time, and after Forget, it asks
// the chain and the database which nonces are used.
func (a *Authority) Turn(ctx context.Context, address wire.Address) (*Turn, error) {
	of := a.account(address)
	select {
	case of.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t := &Turn{of}
	if of.known {
		return t, nil
	}
	if err := a.learn(ctx, address, of); err != nil {
		t.End()
		return nil, err
	}
	return t, nil
}

func (a *Authority) learn(ctx context.Context, address wire.Address, of *account) error {
	next, err := a.cfg.Count(ctx, address)
	if err != nil {
		return fmt.Errorf("ask the ledger for the next nonce of %s: %w", address, err)
	}
	chain, err := a.cfg.Chain(ctx)
	if err != nil {
		return fmt.Errorf("ask the ledger for its id: %w", err)
	}
	var taken []int64
	err = a.cfg.DB.Read(ctx, func(tx *store.Tx) error {
		taken, err = tx.TakenNonces(chain, address, a.cfg.Network)
		return err
	})
	if err != nil {
		return err
	}
	of.next, of.known, of.taken = int64(next), true, map[int64]bool{}
	for _, n := range taken {
		of.taken[n] = true
	}
	return nil
}

// Next is the account's next nonce: the first from what the chain has counted
// that nothing of ours is signed with. So a gap, which a refused call may leave,
// is filled before anything else.
func (t *Turn) Next() int64 {
	n := t.a.next
	for t.a.taken[n] {
		n++
	}
	return n
}

// Free says whether nothing of ours holds a nonce, nor the chain has used it.
func (t *Turn) Free(n int64) bool { return n >= t.a.next && !t.a.taken[n] }

// Take uses up a nonce.
func (t *Turn) Take(n int64) {
	t.a.taken[n] = true
	for t.a.taken[t.a.next] {
		delete(t.a.taken, t.a.next)
		t.a.next++
	}
}

// Void makes the next turn ask again: what was taken in this one was not stored.
func (t *Turn) Void() { t.a.known = false }

// End passes the turn on.
func (t *Turn) End() { <-t.a.turn }

// Forget makes the next turn ask the chain and the database again: a nonce was
// used by somebody else, or has become free.
func (a *Authority) Forget(ctx context.Context, address wire.Address) error {
	of := a.account(address)
	select {
	case of.turn <- struct{}{}:
		of.known = false
		<-of.turn
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
