package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// Ledger is one member's connection to the chain. Its fields are guarded by
// the chain's mutex.
type Ledger struct {
	chain *Chain
	keys  keys.Keys

	paused   bool
	failSend []bool // faults of the next sends; true: lost before it reached the chain
	delay    time.Duration
	page     int
	dropped  map[uint64]bool
}

var _ ledger.Ledger = (*Ledger)(nil)

// ErrUnreachable is what a paused connection and FailNextSend answer with.
var ErrUnreachable = errors.New("the simulated chain did not answer")

// Sign implements ledger.Ledger.
func (l *Ledger) Sign(ctx context.Context, from wire.Address, nonce uint64, bump int, call ledger.Call) (ledger.Signed, error) {
	return sign(ctx, l.keys, from, txBody{ChainID: l.chain.cfg.ChainID, Contract: l.chain.cfg.Contract, Nonce: nonce, Bump: bump}, call)
}

// Send implements ledger.Ledger. A refused transaction was mined all the same,
// so its nonce is used; sending it again answers with the same refusal.
func (l *Ledger) Send(ctx context.Context, tx ledger.Signed) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t, err := decode(tx.Raw) // before the lock: recovering the signer is slow
	if err != nil {
		return fmt.Errorf("send transaction %s: %w", tx.Hash.Short(), err)
	}
	l.chain.mu.Lock()
	defer l.chain.mu.Unlock()
	if l.paused {
		return ErrUnreachable
	}
	fail, lost := false, false
	if len(l.failSend) > 0 {
		fail, lost = true, l.failSend[0]
		l.failSend = l.failSend[1:]
	}
	if lost {
		return ErrUnreachable
	}
	err = l.chain.send(t)
	if fail {
		return ErrUnreachable
	}
	return err
}

// Outcome says whether a transaction was mined, and if so returns the
// *ledger.Refusal of one that the contract refused.
func (l *Ledger) Outcome(ctx context.Context, tx ledger.Signed) (mined bool, err error) {
	l.chain.mu.Lock()
	defer l.chain.mu.Unlock()
	if err := l.reachable(ctx); err != nil {
		return false, err
	}
	t := l.chain.txs[tx.Hash]
	if t == nil || !t.mined {
		return false, nil
	}
	return true, t.refusal
}

// State implements ledger.Ledger.
func (l *Ledger) State(ctx context.Context, account *wire.Address) (ledger.State, error) {
	c := l.chain
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := l.reachable(ctx); err != nil {
		return ledger.State{}, err
	}
	s := ledger.State{
		ChainID:  c.cfg.ChainID,
		Contract: c.cfg.Contract,
		Head:     c.blocks[len(c.blocks)-1].Block,
		Final:    c.blocks[c.final].Block,
		Records:  uint64(len(c.records)),
	}
	if account != nil {
		s.Nonce = c.pendingNonce(*account)
	}
	return s, nil
}

func (l *Ledger) reachable(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case l.chain.closed:
		return ErrClosed
	case l.paused:
		return ErrUnreachable
	}
	return nil
}

// Follow implements ledger.Ledger. It trusts the chain as little as a driver
// of a remote endpoint would: numbers, running hash and final blocks are
// checked before fn sees them.
func (l *Ledger) Follow(ctx context.Context, next uint64, fn func(context.Context, ledger.Advance) error) error {
	if next == 0 {
		return errors.New("follow from record 0: the first record is 1")
	}
	var had *ledger.Block
	for {
		adv, ready, changed, ripe, err := l.look(next, had)
		if err != nil {
			return err
		}
		if ready {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := fn(ctx, adv); err != nil {
				return err
			}
			had = &adv.Final
			next += uint64(len(adv.Records))
			continue
		}
		if err := wait(ctx, changed, ripe); err != nil {
			return err
		}
	}
}

// Poll is one step of Follow for who waits in its own way: the next advance
// after what was had, if there is one now. had is the final block of the last
// advance, nil for none.
func (l *Ledger) Poll(next uint64, had *ledger.Block) (adv ledger.Advance, ok bool, err error) {
	adv, ok, _, _, err = l.look(next, had)
	return adv, ok, err
}

// wait returns when the chain changed or, if ripe is above 0, that much later.
func wait(ctx context.Context, changed <-chan struct{}, ripe time.Duration) error {
	var due <-chan time.Time
	if ripe > 0 {
		t := time.NewTimer(ripe)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-due:
	}
	return nil
}

// look reads the next page. If there is none to give yet it returns what to
// wait for: a change of the chain, and how long until a block that this
// connection's delay still hides ripens (0 if there is none).
func (l *Ledger) look(next uint64, had *ledger.Block) (adv ledger.Advance, ready bool, changed <-chan struct{}, ripe time.Duration, err error) {
	c := l.chain
	c.mu.Lock()
	defer c.mu.Unlock()
	changed = c.changed
	if l.paused || c.closed {
		return
	}
	final := c.final
	if l.delay > 0 {
		now := time.Now()
		for final > 0 && c.blocks[final].finalAt.Add(l.delay).After(now) {
			ripe = c.blocks[final].finalAt.Add(l.delay).Sub(now)
			final--
		}
	}
	if final == 0 {
		return // the contract does not exist yet, as far as this connection knows
	}
	if had != nil {
		if final < had.Number {
			return // this endpoint lags behind what was given already
		}
		if found := c.blocks[had.Number].Block; found.Hash != had.Hash {
			err = &ledger.Fork{Had: *had, Found: found}
			return
		}
	}
	end := c.blocks[final].records
	if end < next-1 {
		return // lags
	}
	last := end
	if l.page > 0 {
		last = min(end, next-1+uint64(l.page))
	}
	adv.Final = c.blocks[final].Block
	if last < end {
		adv.Final = c.complete(last)
	}
	if last < next && had != nil && adv.Final.Number == had.Number {
		return
	}
	adv.Records, err = l.read(next, last)
	return adv, err == nil, changed, 0, err
}

// complete is the highest block all of whose records are among the first n.
func (c *Chain) complete(n uint64) ledger.Block {
	b := c.records[n].Block.Number // the block of the first record that is left out
	return c.blocks[b-1].Block
}

// read returns the records from next to last as this connection's endpoint
// tells them, checked.
func (l *Ledger) read(next, last uint64) ([]ledger.Record, error) {
	c := l.chain
	var told []ledger.Record
	for _, r := range c.records[next-1 : last] {
		if !l.dropped[r.Number] {
			told = append(told, r)
		}
	}
	var hash wire.Hash
	if next > 1 {
		hash = c.records[next-2].Running
	}
	want := next
	for _, r := range told {
		if r.Number != want {
			return nil, &ledger.Gap{Want: want, Got: r.Number, Reason: fmt.Sprintf("record %d follows record %d", r.Number, want-1)}
		}
		if hash = running(hash, r.Body); hash != r.Running {
			return nil, &ledger.Gap{Want: want, Got: r.Number, Reason: fmt.Sprintf("record %d does not match its running hash", r.Number)}
		}
		want++
	}
	if want != last+1 {
		return nil, &ledger.Gap{Want: want, Got: last, Reason: fmt.Sprintf("the contract counts %d records, the endpoint ends at %d", last, want-1)}
	}
	return told, nil
}

// FailNextSend makes one more of the coming Sends fail with ErrUnreachable. A
// lost one never reached the chain; otherwise the chain has it and only the
// answer was lost.
func (l *Ledger) FailNextSend(lost bool) {
	l.chain.mu.Lock()
	defer l.chain.mu.Unlock()
	l.failSend = append(l.failSend, lost)
}

// Pause cuts the connection off until Resume: Send, State and Outcome fail,
// Follow hears nothing.
func (l *Ledger) Pause() { l.set(func() { l.paused = true }) }

// Resume ends Pause.
func (l *Ledger) Resume() { l.set(func() { l.paused = false }) }

// SetDelay makes this connection learn of each final block that much later.
func (l *Ledger) SetDelay(d time.Duration) { l.set(func() { l.delay = d }) }

// SetPage limits the records of one Advance; 0 is no limit.
func (l *Ledger) SetPage(n int) { l.set(func() { l.page = n }) }

// Drop makes this connection's endpoint leave out one record, which ends
// Follow with *ledger.Gap.
func (l *Ledger) Drop(number uint64) {
	l.set(func() {
		if l.dropped == nil {
			l.dropped = map[uint64]bool{}
		}
		l.dropped[number] = true
	})
}

func (l *Ledger) set(change func()) {
	l.chain.mu.Lock()
	defer l.chain.mu.Unlock()
	change()
	l.chain.notify()
}
