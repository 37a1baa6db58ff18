// Package ledgertest is the conformance suite of the ledger port. Every driver
// passes it: it states what the rest of the node may rely on.
package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// Harness is a fresh network for one case.
type Harness struct {
	// Members are the founders, in the order of the contract's founding, at
	// least 3. The network's policy is a majority.
	Members []Member
	// Outsider has a funded account and a connection, but is no member.
	Outsider Member
	// What the network was founded with.
	ChainID  uint64
	Contract wire.Address
	Params   ledger.Params
	Epoch1   wire.Hash

	// Move makes all that was sent so far final, on a chain that does not make
	// blocks by itself. nil if it does.
	Move func()
	// Cut interrupts the connection of a member until restore is called. nil if
	// the driver's tests cannot do that.
	Cut func(member int) (restore func())
	// Custom is a call that changes no member's state and that a custom contract
	// on this chain accepts. nil if there is none.
	Custom *ledger.ContractCall
	// Patience is how long a case waits for the chain, 30 s if 0.
	Patience time.Duration
}

// Member is one party with its own connection. Both keys are held by the
// connection and have funds where the chain asks for fees; only Key is known
// to the contract.
type Member struct {
	Org    wire.OrgID
	Key    wire.Address
	Spare  wire.Address
	Ledger ledger.Ledger
}

// Run runs every case on a fresh network.
func Run(t *testing.T, start func(t *testing.T) Harness) {
	for _, c := range []struct {
		name string
		run  func(*network)
	}{
		{"Founding", founding},
		{"SameOrderForAll", sameOrderForAll},
		{"ResumeAnywhere", resumeAnywhere},
		{"NothingTwiceAfterReconnect", nothingTwice},
		{"CutConnection", cutConnection},
		{"SignHasNoEffect", signHasNoEffect},
		{"SendIsIdempotent", sendIsIdempotent},
		{"NonceUsed", nonceUsed},
		{"NonceGapWaits", nonceGapWaits},
		{"OnlyOwnKeysSign", onlyOwnKeysSign},
		{"ChangedTransaction", changedTransaction},
		{"PinRefusals", pinRefusals},
		{"PinLimits", pinLimits},
		{"Keys", keyLife},
		{"Suspension", suspension},
		{"Removal", removal},
		{"Voting", voting},
		{"ProposalKinds", proposalKinds},
		{"ProposalRefusals", proposalRefusals},
		{"LastMemberStays", lastMemberStays},
		{"Successor", successor},
		{"Terminate", terminate},
		{"NodeRegistration", nodeRegistration},
		{"CustomContract", customContract},
		{"FinalIsMonotonic", finalIsMonotonic},
		{"FnErrorEndsFollow", fnErrorEndsFollow},
		{"ContextEndsFollow", contextEndsFollow},
		{"StateCounts", stateCounts},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := start(t)
			if len(h.Members) < 3 {
				t.Fatalf("the harness gives %d members, the suite needs 3", len(h.Members))
			}
			patience := h.Patience
			if patience == 0 {
				patience = 30 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			t.Cleanup(cancel)
			n := &network{T: t, Harness: h, ctx: ctx}
			n.feed = n.follow(h.Members[0].Ledger, 1)
			n.feed.atLeast(1 + len(h.Members))
			c.run(n)
		})
	}
}

// network is a harness with the helpers of the cases. feed is what the first
// member sees from record 1 on.
type network struct {
	*testing.T
	Harness
	ctx  context.Context
	feed *feed
}

func (n *network) move() {
	if n.Move != nil {
		n.Move()
	}
}

func (n *network) state(m Member, account *wire.Address) ledger.State {
	n.Helper()
	s, err := m.Ledger.State(n.ctx, account)
	if err != nil {
		n.Fatalf("State: %v", err)
	}
	return s
}

func (n *network) sign(m Member, key wire.Address, nonce uint64, call ledger.Call) ledger.Signed {
	n.Helper()
	tx, err := m.Ledger.Sign(n.ctx, key, nonce, 0, call)
	if err != nil {
		n.Fatalf("Sign %T: %v", call, err)
	}
	if tx.Nonce != nonce {
		n.Fatalf("Sign gave nonce %d, asked for %d", tx.Nonce, nonce)
	}
	return tx
}

func (n *network) send(m Member, tx ledger.Signed) {
	n.Helper()
	if err := m.Ledger.Send(n.ctx, tx); err != nil {
		n.Fatalf("Send: %v", err)
	}
}

// do sends a call that is expected to succeed with a number of records, and
// returns those.
func (n *network) do(m Member, call ledger.Call, records int) []ledger.Record {
	n.Helper()
	return n.doWith(m, m.Key, call, records)
}

func (n *network) doWith(m Member, key wire.Address, call ledger.Call, records int) []ledger.Record {
	n.Helper()
	before := int(n.state(m, nil).Records)
	n.send(m, n.sign(m, key, n.state(m, &key).Nonce, call))
	n.move()
	got := n.feed.atLeast(before + records)[before:]
	for _, r := range got {
		if r.Signer != key {
			n.Fatalf("record %d (%s) has signer %s, sent by %s", r.Number, r.Body.Kind(), r.Signer, key)
		}
	}
	if len(got) != records {
		n.Fatalf("%T gave %d records, want %d", call, len(got), records)
	}
	return got
}

// refused sends a call that the contract must refuse, at once or, on chains
// where that shows only in the block, when the mined transaction is sent again.
// It checks that no record came of it and that the account is not stuck.
func (n *network) refused(m Member, key wire.Address, call ledger.Call) {
	n.Helper()
	before := n.state(m, &key)
	tx := n.sign(m, key, before.Nonce, call)
	var err error
	for err == nil {
		seen := n.feed.steps()
		if err = m.Ledger.Send(n.ctx, tx); err == nil {
			n.move()
			n.feed.step(seen)
		}
	}
	var refusal *ledger.Refusal
	if !errors.As(err, &refusal) {
		n.Fatalf("Send of a %T that must be refused: %v, want a *ledger.Refusal", call, err)
	}
	if refusal.Reason == "" {
		n.Fatalf("the refusal of a %T gives no reason", call)
	}
	after := n.state(m, &key)
	if after.Records != before.Records {
		n.Fatalf("the refused %T left %d records", call, after.Records-before.Records)
	}
	if after.Nonce != before.Nonce && after.Nonce != before.Nonce+1 {
		n.Fatalf("after a refusal the next nonce is %d, it was %d", after.Nonce, before.Nonce)
	}
}

// pin makes a pin that differs for each number.
func pin(i int, handles int) ledger.PinCall {
	p := wire.Pin{Root: wire.HashOf("ledgertest", fmt.Append(nil, i)), Control: []byte("sealed")}
	copy(p.Tag[:], p.Root[:])
	for h := range handles {
		p.Handles = append(p.Handles, wire.Handle{byte(i), byte(h >> 8), byte(h)})
	}
	return ledger.PinCall{Pin: p}
}

// feed collects what Follow gives.
type feed struct {
	n      *network
	cancel context.CancelFunc

	mu       sync.Mutex
	changed  chan struct{}
	records  []ledger.Record
	advances []ledger.Advance
	done     bool
	err      error
}

// follow starts a follower in the background; it ends with the test.
func (n *network) follow(l ledger.Ledger, next uint64) *feed {
	ctx, cancel := context.WithCancel(n.ctx)
	f := &feed{n: n, cancel: cancel, changed: make(chan struct{})}
	go func() {
		err := l.Follow(ctx, next, func(_ context.Context, a ledger.Advance) error {
			f.update(func() {
				f.records = append(f.records, a.Records...)
				f.advances = append(f.advances, a)
			})
			return nil
		})
		f.update(func() { f.done, f.err = true, err })
	}()
	n.Cleanup(func() { f.stop() })
	return f
}

func (f *feed) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// stop ends Follow and waits for it.
func (f *feed) stop() error {
	f.cancel()
	for {
		f.mu.Lock()
		done, err, changed := f.done, f.err, f.changed
		f.mu.Unlock()
		if done {
			return err
		}
		<-changed
	}
}

// until waits for a condition on what was collected so far.
func (f *feed) until(what string, ok func() bool) {
	f.n.Helper()
	for {
		f.mu.Lock()
		met, done, err, changed := ok(), f.done, f.err, f.changed
		have := len(f.records)
		f.mu.Unlock()
		switch {
		case met:
			return
		case done:
			f.n.Fatalf("Follow ended with %v, waiting for %s", err, what)
		}
		select {
		case <-changed:
		case <-f.n.ctx.Done():
			f.n.Fatalf("gave up waiting for %s, have %d records", what, have)
		}
	}
}

// atLeast waits for a number of records and returns all there are.
func (f *feed) atLeast(count int) []ledger.Record {
	f.n.Helper()
	f.until(fmt.Sprintf("record %d", count), func() bool { return len(f.records) >= count })
	return f.all()
}

func (f *feed) all() []ledger.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.records)
}

// steps is how often Follow called.
func (f *feed) steps() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.advances)
}

// step waits until Follow called once more than seen.
func (f *feed) step(seen int) {
	f.n.Helper()
	f.until("another block", func() bool { return len(f.advances) > seen })
}

// final waits until a block is final.
func (f *feed) final(block uint64) {
	f.n.Helper()
	f.until(fmt.Sprintf("block %d to be final", block), func() bool {
		return len(f.advances) > 0 && f.advances[len(f.advances)-1].Final.Number >= block
	})
}
