package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/evm"
	"github.com/parley-node/parley/wire"
)

// lateLedger is a ledger that may not be reachable yet. A node starts without
// one: it takes messages in, answers its peers, and says what it waits for.
type lateLedger struct {
	open  func(context.Context) (*evm.Ledger, error)
	retry chan struct{} // wakes a Follow that waits for the connection

	attempt sync.Mutex // held while the connection is made

	mu     sync.Mutex
	opened *evm.Ledger
	err    error // of the last attempt
}

var _ ledger.Ledger = (*lateLedger)(nil)

// connectEvery is the pause between attempts to reach the ledger.
const connectEvery = 200 * time.Millisecond

// get gives the connection, which it makes if it is not there. One caller at a
// time tries.
func (l *lateLedger) get(ctx context.Context) (*evm.Ledger, error) {
	l.attempt.Lock()
	defer l.attempt.Unlock()
	if opened, _ := l.state(); opened != nil {
		return opened, nil
	}
	opened, err := l.open(ctx)
	if err != nil {
		err = fmt.Errorf("the ledger is not reachable yet: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened, l.err = opened, err
	return opened, err
}

// state gives the connection, or why there is none yet.
func (l *lateLedger) state() (*evm.Ledger, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opened, l.err
}

// wait makes the connection, however long that takes.
func (l *lateLedger) wait(ctx context.Context) (*evm.Ledger, error) {
	tick := time.NewTicker(connectEvery)
	defer tick.Stop()
	for {
		opened, err := l.get(ctx)
		if err == nil {
			return opened, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-tick.C:
		case <-l.retry:
		}
	}
}

// woken says that the ledger may be reachable now.
func (l *lateLedger) woken() {
	select {
	case l.retry <- struct{}{}:
	default:
	}
}

func (l *lateLedger) Close() {
	if opened, _ := l.state(); opened != nil {
		opened.Close()
	}
}

func (l *lateLedger) Sign(ctx context.Context, from wire.Address, nonce uint64, bump int, call ledger.Call) (ledger.Signed, error) {
	e, err := l.get(ctx)
	if err != nil {
		return ledger.Signed{}, err
	}
	return e.Sign(ctx, from, nonce, bump, call)
}

func (l *lateLedger) Send(ctx context.Context, tx ledger.Signed) error {
	e, err := l.get(ctx)
	if err != nil {
		return err
	}
	return e.Send(ctx, tx)
}

func (l *lateLedger) Outcome(ctx context.Context, tx ledger.Signed) (bool, error) {
	e, err := l.get(ctx)
	if err != nil {
		return false, err
	}
	return e.Outcome(ctx, tx)
}

func (l *lateLedger) Follow(ctx context.Context, next uint64, fn func(context.Context, ledger.Advance) error) error {
	e, err := l.wait(ctx)
	if err != nil {
		return err
	}
	return e.Follow(ctx, next, fn)
}

func (l *lateLedger) State(ctx context.Context, account *wire.Address) (ledger.State, error) {
	e, err := l.get(ctx)
	if err != nil {
		return ledger.State{}, err
	}
	return e.State(ctx, account)
}

// Verify reads a record from the chain again. See evm.Ledger.Verify.
func (l *lateLedger) Verify(ctx context.Context, number uint64) (evm.Verified, error) {
	e, err := l.get(ctx)
	if err != nil {
		return evm.Verified{}, err
	}
	return e.Verify(ctx, number)
}
