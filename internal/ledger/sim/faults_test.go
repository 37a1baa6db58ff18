package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

func pinCall(i int) ledger.PinCall {
	return ledger.PinCall{Pin: wire.Pin{Root: wire.HashOf("test", fmt.Append(nil, i)), Handles: []wire.Handle{{byte(i)}}}}
}

func signed(t testing.TB, l *Ledger, p party, nonce uint64, bump int, call ledger.Call) ledger.Signed {
	t.Helper()
	tx, err := l.Sign(t.Context(), p.key, nonce, bump, call)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// sent signs and sends a pin with the account's next nonce.
func sent(t testing.TB, l *Ledger, p party, i int) ledger.Signed {
	t.Helper()
	tx := signed(t, l, p, state(t, l, p).Nonce, 0, pinCall(i))
	if err := l.Send(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	return tx
}

func state(t testing.TB, l *Ledger, p party) ledger.State {
	t.Helper()
	s, err := l.State(t.Context(), &p.key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pinRoots of all mined pins, in order.
func pinRoots(c *Chain) (roots []wire.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.records {
		if p, ok := r.Body.(ledger.Pinned); ok {
			roots = append(roots, p.Pin.Root)
		}
	}
	return roots
}

func root(i int) wire.Hash { return pinCall(i).Pin.Root }

// following runs Follow inside a synctest bubble.
type following struct {
	mu  sync.Mutex
	got followed
}

type followed struct {
	records  []ledger.Record
	advances []ledger.Advance
	err      error
}

func followFrom(t *testing.T, l *Ledger, next uint64) *following {
	f := &following{}
	go func() {
		err := l.Follow(t.Context(), next, func(_ context.Context, a ledger.Advance) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.got.records = append(f.got.records, a.Records...)
			f.got.advances = append(f.got.advances, a)
			return nil
		})
		f.mu.Lock()
		defer f.mu.Unlock()
		f.got.err = err
	}()
	return f
}

// now waits until nothing moves any more and tells what was given so far.
func (f *following) now() followed {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got
}

// founding is how many records the three founders' network starts with.
const founding = 4

func TestFailNextSend(t *testing.T) {
	c, ps := network(t, nil)
	l := c.Connect(ps[0].keys)
	l.FailNextSend(true)
	l.FailNextSend(false)
	tx := signed(t, l, ps[0], 0, 0, pinCall(1))
	for i, mined := range []bool{false, true, true} {
		err := l.Send(t.Context(), tx)
		if wantFail := i < 2; errors.Is(err, ErrUnreachable) != wantFail || (err != nil) != wantFail {
			t.Errorf("send %d: %v", i, err)
		}
		if got, err := l.Outcome(t.Context(), tx); got != mined || err != nil {
			t.Errorf("after send %d mined is %v (%v), want %v", i, got, err, mined)
		}
	}
	if got := pinRoots(c); len(got) != 1 {
		t.Errorf("three sends of one transaction gave %d pins", len(got))
	}
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ps := network(t, nil)
		l, other := c.Connect(ps[0].keys), c.Connect(ps[1].keys)
		f := followFrom(t, l, 1)
		f.now()
		l.Pause()
		tx := signed(t, l, ps[0], 0, 0, pinCall(1))
		if err := l.Send(t.Context(), tx); !errors.Is(err, ErrUnreachable) {
			t.Errorf("Send while paused: %v", err)
		}
		if _, err := l.State(t.Context(), nil); !errors.Is(err, ErrUnreachable) {
			t.Errorf("State while paused: %v", err)
		}
		sent(t, other, ps[1], 2)
		if got := len(f.now().records); got != founding {
			t.Errorf("a paused follower has %d records, want %d", got, founding)
		}
		l.Resume()
		if got := len(f.now().records); got != founding+1 {
			t.Errorf("after Resume the follower has %d records, want %d", got, founding+1)
		}
	})
}

func TestHoldReplaceRelease(t *testing.T) {
	c, ps := network(t, nil)
	l := c.Connect(ps[0].keys)
	c.Hold()
	sent(t, l, ps[0], 1)
	low := sent(t, l, ps[0], 2)
	if s := state(t, l, ps[0]); s.Nonce != 2 || s.Records != founding {
		t.Errorf("with two held pins State is %+v", s)
	}
	same := signed(t, l, ps[0], 1, 0, pinCall(3))
	if err := l.Send(t.Context(), same); err == nil {
		t.Error("another transaction with the same nonce and bump is accepted")
	}
	high := signed(t, l, ps[0], 1, 1, pinCall(4))
	if err := l.Send(t.Context(), high); err != nil {
		t.Fatal(err)
	}
	c.Mine() // an empty one
	if s := state(t, l, ps[0]); s.Records != founding || s.Head.Number != 2 {
		t.Errorf("a block made while transactions are held left %+v", s)
	}
	c.Release()
	if got, want := pinRoots(c), []wire.Hash{root(1), root(4)}; !slices.Equal(got, want) {
		t.Errorf("released pins are %v, want %v", got, want)
	}
	if s := state(t, l, ps[0]); s.Head.Number != 3 {
		t.Errorf("two held pins took %d blocks, want one", s.Head.Number-2)
	}
	if err := l.Send(t.Context(), low); !errors.Is(err, ledger.ErrNonceUsed) {
		t.Errorf("the replaced transaction: %v, want ErrNonceUsed", err)
	}
}

func TestDropWaiting(t *testing.T) {
	c, ps := network(t, nil)
	l := c.Connect(ps[0].keys)
	c.Hold()
	tx := sent(t, l, ps[0], 1)
	if n := c.DropWaiting(); n != 1 {
		t.Errorf("dropped %d transactions, want 1", n)
	}
	c.Release()
	if s := state(t, l, ps[0]); s.Records != founding || s.Nonce != 0 {
		t.Errorf("after the drop State is %+v", s)
	}
	if err := l.Send(t.Context(), tx); err != nil || len(pinRoots(c)) != 1 {
		t.Errorf("sent again: %v, %d pins", err, len(pinRoots(c)))
	}
}

// TestShuffle: transactions of different accounts change places, those of one
// account do not, and a seed repeats.
func TestShuffle(t *testing.T) {
	mined := func(seed uint64) (order []int) {
		c, ps := network(t, func(cfg *Config) { cfg.Rand = rand.New(rand.NewPCG(seed, 0)) })
		c.Hold()
		for i := range 12 {
			sent(t, c.Connect(ps[i%3].keys), ps[i%3], i)
		}
		c.Release()
		for _, r := range pinRoots(c) {
			for i := range 12 {
				if r == root(i) {
					order = append(order, i)
				}
			}
		}
		return order
	}
	first := mined(1)
	if len(first) != 12 || slices.IsSorted(first) {
		t.Errorf("the order is %v, want another one than sent", first)
	}
	last := map[int]int{}
	for _, i := range first {
		if before, ok := last[i%3]; ok && before > i {
			t.Errorf("the order %v breaks the nonces of account %d", first, i%3)
		}
		last[i%3] = i
	}
	if again := mined(1); !slices.Equal(first, again) {
		t.Errorf("one seed gave %v and %v", first, again)
	}
}

func TestForkBelowFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ps := network(t, nil)
		l := c.Connect(ps[0].keys)
		f := followFrom(t, l, 1)
		for i := range 3 {
			sent(t, l, ps[0], i)
		}
		f.now()
		if err := c.Fork(2); err != nil {
			t.Fatal(err)
		}
		err := f.now().err
		var fork *ledger.Fork
		if !errors.As(err, &fork) || fork.Had.Number != 4 || fork.Found.Number != 4 || fork.Had.Hash == fork.Found.Hash {
			t.Errorf("Follow over a fork below final ended with %v (%+v)", err, fork)
		}
		if s := state(t, l, ps[0]); s.Records != founding+1 || s.Nonce != 3 {
			t.Errorf("after the fork State is %+v, want two transactions to wait again", s)
		}
		c.Mine()
		if got, want := pinRoots(c), []wire.Hash{root(0), root(1), root(2)}; !slices.Equal(got, want) {
			t.Errorf("mined again the pins are %v, want %v", got, want)
		}
		if err := c.Fork(1000); err == nil {
			t.Error("a fork below the genesis is possible")
		}
	})
}

// TestForkAboveFinal: followers never saw the replaced blocks.
func TestForkAboveFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ps := network(t, func(cfg *Config) { cfg.Params.Confirmations = 3 })
		l := c.Connect(ps[0].keys)
		f := followFrom(t, l, 1)
		for i := range 3 {
			sent(t, l, ps[0], i)
		}
		if err := c.Fork(3); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			c.Mine()
		}
		got := f.now()
		if got.err != nil || len(got.records) != founding+3 {
			t.Fatalf("Follow gave %d records and %v, want %d", len(got.records), got.err, founding+3)
		}
		if p := got.records[founding].Position; p.Block != 5 {
			t.Errorf("the first pin is in block %d, want 5, the first after the fork", p.Block)
		}
	})
}

// TestForkKeepsTheGenesis: forks after forks replay the same founding.
func TestForkKeepsTheGenesis(t *testing.T) {
	c, ps := network(t, nil)
	l := c.Connect(ps[0].keys)
	before := slices.Clone(c.blocks)
	for i := range 4 {
		sent(t, l, ps[0], i)
		if err := c.Fork(1); err != nil {
			t.Fatal(err)
		}
		c.Mine()
	}
	for i, b := range before {
		if c.blocks[i].Block != b.Block {
			t.Errorf("block %d was %+v and is %+v", i, b.Block, c.blocks[i].Block)
		}
	}
	for i := 1; i < len(c.blocks); i++ {
		for _, r := range c.records {
			if r.Block.Number == uint64(i) && r.Block != c.blocks[i].Block {
				t.Errorf("record %d tells block %+v, the chain has %+v", r.Number, r.Block, c.blocks[i].Block)
			}
		}
	}
}

func TestDroppedRecordIsAGap(t *testing.T) {
	for _, number := range []uint64{2, founding + 1, founding + 3} { // in a page, first and last of one
		synctest.Test(t, func(t *testing.T) {
			c, ps := network(t, nil)
			l := c.Connect(ps[0].keys)
			for i := range 3 {
				sent(t, l, ps[0], i)
			}
			l.Drop(number)
			f := followFrom(t, l, 1).now()
			var gap *ledger.Gap
			if !errors.As(f.err, &gap) || gap.Want != number {
				t.Errorf("Follow without record %d ended with %v", number, f.err)
			}
			if len(f.records) >= int(number) {
				t.Errorf("Follow gave %d records, record %d was dropped", len(f.records), number)
			}
			if g := followFrom(t, c.Connect(ps[1].keys), 1).now(); g.err != nil || len(g.records) != founding+3 {
				t.Errorf("another endpoint gave %d records and %v", len(g.records), g.err)
			}
		})
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ps := network(t, nil)
		l := c.Connect(ps[0].keys)
		l.SetDelay(3 * time.Second)
		f := followFrom(t, l, 1)
		if got := len(f.now().advances); got != 0 {
			t.Errorf("at once a delayed follower has %d advances", got)
		}
		time.Sleep(time.Second) // virtual
		sent(t, l, ps[0], 1)
		for _, step := range []struct {
			sleep time.Duration
			want  int
		}{
			{500 * time.Millisecond, 0}, // 1.5 s
			{2 * time.Second, founding}, // 3.5 s
			{time.Second, founding + 1}, // 4.5 s
		} {
			time.Sleep(step.sleep)
			if got := len(f.now().records); got != step.want {
				t.Errorf("the follower has %d records, want %d", got, step.want)
			}
		}
	})
}

func TestPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ps := network(t, nil)
		l := c.Connect(ps[0].keys)
		c.Hold()
		for i := range 5 {
			sent(t, l, ps[0], i)
		}
		c.Release() // all in block 2
		l.SetPage(3)
		var got []string
		for _, a := range followFrom(t, l, 1).now().advances {
			got = append(got, fmt.Sprintf("%d records, final %d", len(a.Records), a.Final.Number))
		}
		want := []string{"3 records, final 0", "3 records, final 1", "3 records, final 2"}
		if !slices.Equal(got, want) {
			t.Errorf("pages of 3 are %q, want %q", got, want)
		}
	})
}

func TestBlockInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ps := network(t, func(cfg *Config) { cfg.BlockInterval = 2 * time.Second })
		l := c.Connect(ps[0].keys)
		start := state(t, l, ps[0]).Head
		sent(t, l, ps[0], 1)
		time.Sleep(time.Second)
		sent(t, l, ps[0], 2)
		synctest.Wait()
		if s := state(t, l, ps[0]); s.Head != start {
			t.Errorf("after one of two seconds the head is %+v", s.Head)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		s := state(t, l, ps[0])
		if s.Records != founding+2 || s.Head.Number != start.Number+1 || s.Head.Time.Sub(start.Time) != 2*time.Second {
			t.Errorf("after two seconds State is %+v, started at %v", s, start.Time)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if now := state(t, l, ps[0]); now.Head != s.Head {
			t.Errorf("an idle chain moved from %+v to %+v", s.Head, now.Head)
		}
	})
}

func TestTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ps := network(t, func(cfg *Config) { cfg.Tick = time.Second })
		following := followFrom(t, c.Connect(ps[0].keys), 1)
		time.Sleep(10*time.Second + 1)
		f := following.now()
		if len(f.advances) != 11 || len(f.records) != founding {
			t.Errorf("ten seconds gave %d advances and %d records, want 11 and %d", len(f.advances), len(f.records), founding)
		}
		for i := 1; i < len(f.advances); i++ {
			if d := f.advances[i].Final.Time.Sub(f.advances[i-1].Final.Time); d != time.Second {
				t.Errorf("advance %d came %v of consensus time after the one before", i, d)
			}
		}
		c.Close()
		time.Sleep(time.Minute)
		if more := len(following.now().advances) - len(f.advances); more != 0 {
			t.Errorf("a closed chain gave %d more advances", more)
		}
	})
}

func TestTimeNeverRunsBack(t *testing.T) {
	clock := time.Unix(1000, 0)
	c, ps := network(t, func(cfg *Config) { cfg.Now = func() time.Time { return clock } })
	l := c.Connect(ps[0].keys)
	sent(t, l, ps[0], 1)
	before := state(t, l, ps[0]).Head
	clock = time.Unix(500, 0)
	sent(t, l, ps[0], 2)
	if after := state(t, l, ps[0]).Head; !after.Time.Equal(before.Time) || after.Hash == before.Hash {
		t.Errorf("after the clock was set back block %+v follows %+v", after, before)
	}
}

func TestTransactionOfAnotherNetwork(t *testing.T) {
	c, ps := network(t, nil)
	other, _ := network(t, func(cfg *Config) { cfg.ChainID++ })
	tx := signed(t, other.Connect(ps[0].keys), ps[0], 0, 0, pinCall(1))
	var refusal *ledger.Refusal
	if err := c.Connect(ps[0].keys).Send(t.Context(), tx); err == nil || errors.As(err, &refusal) {
		t.Errorf("a transaction of another chain: %v, want an error before the contract", err)
	}
}

func TestClosed(t *testing.T) {
	c, ps := network(t, nil)
	l := c.Connect(ps[0].keys)
	tx := signed(t, l, ps[0], 0, 0, pinCall(1))
	c.Close()
	if err := l.Send(t.Context(), tx); !errors.Is(err, ErrClosed) {
		t.Errorf("Send to a closed chain: %v", err)
	}
	if _, err := l.State(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("State of a closed chain: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	c, ps := network(f, nil)
	l := c.Connect(ps[0].keys)
	for _, call := range []ledger.Call{pinCall(1), ledger.AddKeyCall{}, ledger.RevokeKeyCall{}, ledger.RegisterNodeCall{},
		ledger.ProposeCall{Proposal: ledger.Proposal{Terminate: true}}, ledger.VoteCall{ID: 1}, ledger.ContractCall{}} {
		f.Add(signed(f, l, ps[0], 0, 0, call).Raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		tx, err := decode(raw)
		if err == nil && tx.call == nil {
			t.Error("a transaction without a call was decoded")
		}
	})
}

func BenchmarkPin(b *testing.B) {
	c, ps := network(b, nil)
	l := c.Connect(ps[0].keys)
	nonce := uint64(0)
	for b.Loop() {
		if err := l.Send(b.Context(), signed(b, l, ps[0], nonce, 0, pinCall(int(nonce)))); err != nil {
			b.Fatal(err)
		}
		nonce++
	}
}
