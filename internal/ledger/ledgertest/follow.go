package ledgertest

import (
	"context"
	"errors"
	"sync"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// sameRecords compares records by meaning: an empty list and no list are equal.
var sameRecords = cmp.Options{
	cmpopts.EquateEmpty(),
	cmpopts.IgnoreUnexported(wire.Pin{}, wire.Position{}),
}

func (n *network) same(what string, got, want []ledger.Record) {
	n.Helper()
	if d := cmp.Diff(want, got, sameRecords); d != "" {
		n.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func founding(n *network) {
	rs := n.feed.all()
	f, ok := rs[0].Body.(ledger.Founded)
	if !ok || f.Params != n.Params || f.Policy != (ledger.Policy{}) || f.Epoch1 != n.Epoch1 {
		n.Errorf("record 1 is %+v, want the founding with %+v and epoch 1 %s", rs[0].Body, n.Params, n.Epoch1)
	}
	for i, m := range n.Members {
		if want := (ledger.MemberAdmitted{Org: m.Org, Key: m.Key}); rs[1+i].Body != want {
			n.Errorf("record %d is %+v, want %+v", 2+i, rs[1+i].Body, want)
		}
	}
	n.contiguous(rs)
}

// contiguous checks what holds for any run of records from number 1.
func (n *network) contiguous(rs []ledger.Record) {
	n.Helper()
	seen := map[wire.Hash]bool{}
	for i, r := range rs {
		if r.Number != uint64(i)+1 {
			n.Fatalf("record %d of the feed has number %d", i+1, r.Number)
		}
		if r.Running.IsZero() || seen[r.Running] {
			n.Errorf("record %d has running hash %s, zero or seen before", r.Number, r.Running)
		}
		seen[r.Running] = true
		if r.Block.Number != r.Position.Block || r.Block.Hash.IsZero() || r.Block.Time.IsZero() {
			n.Errorf("record %d is at %s in block %+v", r.Number, r.Position, r.Block)
		}
		if i == 0 {
			continue
		}
		before := rs[i-1]
		if r.Position.Compare(before.Position) <= 0 {
			n.Errorf("record %d is at %s, the one before at %s", r.Number, r.Position, before.Position)
		}
		if r.Block.Time.Before(before.Block.Time) {
			n.Errorf("record %d is in a block of %s, the one before of %s", r.Number, r.Block.Time, before.Block.Time)
		}
		if r.Block.Number == before.Block.Number && !cmp.Equal(r.Block, before.Block) {
			n.Errorf("records %d and %d tell block %d differently", before.Number, r.Number, r.Block.Number)
		}
	}
}

// sameOrderForAll: all members pin at once, and all see one sequence in which
// each account's pins stand in nonce order and are what was sent.
func sameOrderForAll(n *network) {
	const each = 8
	base := len(n.feed.all())
	var wg sync.WaitGroup
	errs := make(chan error, len(n.Members)*each)
	for i, m := range n.Members {
		nonce := n.state(m, &m.Key).Nonce
		wg.Go(func() {
			for j := range each {
				tx, err := m.Ledger.Sign(n.ctx, m.Key, nonce+uint64(j), 0, pin(i*each+j, j))
				if err == nil {
					err = m.Ledger.Send(n.ctx, tx)
				}
				if err != nil {
					errs <- err
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		n.Fatalf("send a pin: %v", err)
	}
	n.move()

	total := base + len(n.Members)*each
	want := n.feed.atLeast(total)
	n.contiguous(want)
	for _, m := range n.Members[1:] {
		n.same("another member's feed", n.follow(m.Ledger, 1).atLeast(total), want)
	}
	next := make([]int, len(n.Members))
	for _, r := range want[base:] {
		p, ok := r.Body.(ledger.Pinned)
		if !ok {
			n.Fatalf("record %d is a %s, want a pin", r.Number, r.Body.Kind())
		}
		i := n.memberOf(p.Org)
		if r.Signer != n.Members[i].Key || !p.Via.IsZero() || r.TxHash.IsZero() {
			n.Errorf("record %d: signer %s, via %s, transaction %s; want the direct pin of %s", r.Number, r.Signer, p.Via, r.TxHash, n.Members[i].Key)
		}
		if d := cmp.Diff(pin(i*each+next[i], next[i]).Pin, p.Pin, sameRecords); d != "" {
			n.Errorf("pin %d of member %d (-sent +recorded):\n%s", next[i], i, d)
		}
		next[i]++
	}
}

func (n *network) memberOf(org wire.OrgID) int {
	n.Helper()
	for i, m := range n.Members {
		if m.Org == org {
			return i
		}
	}
	n.Fatalf("organisation %s is no member", org)
	return -1
}

func resumeAnywhere(n *network) {
	for i := range 5 {
		n.do(n.Members[i%3], pin(i, 1), 1)
	}
	all := n.feed.all()
	for next := 1; next <= len(all)+1; next++ {
		f := n.follow(n.Members[1].Ledger, uint64(next))
		f.final(all[len(all)-1].Block.Number) // an Advance comes even if no record does
		n.same("a resumed feed", f.atLeast(len(all)-next+1), all[next-1:])
		f.stop()
	}
}

// nothingTwice: a follower that goes away and comes back again and again, while
// pins go on, sees each record once.
func nothingTwice(n *network) {
	var got []ledger.Record
	for i := range 6 {
		n.do(n.Members[0], pin(i, 1), 1)
		f := n.follow(n.Members[1].Ledger, uint64(len(got))+1)
		got = append(got, f.atLeast(1)...)
		if i%2 == 0 {
			continue // leaves the old follower running beside the next
		}
		f.stop()
	}
	f := n.follow(n.Members[1].Ledger, uint64(len(got))+1)
	want := n.feed.all()
	got = append(got, f.atLeast(len(want)-len(got))...)
	n.same("the feed in pieces", got, want)
}

func cutConnection(n *network) {
	if n.Cut == nil {
		return // the driver has no connection, or its own tests cut it
	}
	f := n.follow(n.Members[1].Ledger, 1)
	f.atLeast(len(n.feed.all()))
	for i := range 4 {
		restore := n.Cut(1)
		n.do(n.Members[0], pin(i, 1), 1)
		restore()
		n.do(n.Members[0], pin(10+i, 1), 1)
		want := n.feed.all()
		n.same("the feed over a cut connection", f.atLeast(len(want)), want)
	}
}

func finalIsMonotonic(n *network) {
	for i := range 6 {
		n.do(n.Members[i%3], pin(i, 1), 1)
	}
	f := n.follow(n.Members[2].Ledger, 3)
	f.atLeast(len(n.feed.all()) - 2)
	for _, f := range []*feed{n.feed, f} {
		f.mu.Lock()
		var last ledger.Block
		for i, a := range f.advances {
			if a.Final.Number < last.Number || a.Final.Time.Before(last.Time) || a.Final.Hash.IsZero() {
				n.Errorf("advance %d says final %+v, the one before %+v", i, a.Final, last)
			}
			// A block's records may come in parts; it is final with the last part.
			for _, r := range a.Records {
				if r.Block.Number <= last.Number {
					n.Errorf("record %d of block %d came after block %d was said to be complete", r.Number, r.Block.Number, last.Number)
				}
			}
			last = a.Final
		}
		if newest := f.records[len(f.records)-1]; last.Number < newest.Block.Number {
			n.Errorf("all records are here, but final is %d, below block %d of the newest", last.Number, newest.Block.Number)
		}
		f.mu.Unlock()
	}
}

func fnErrorEndsFollow(n *network) {
	mine := errors.New("the database is full")
	calls := 0
	err := n.Members[1].Ledger.Follow(n.ctx, 1, func(context.Context, ledger.Advance) error {
		calls++
		return mine
	})
	if !errors.Is(err, mine) || calls != 1 {
		n.Errorf("Follow called fn %d times and returned %v, want one call and its error", calls, err)
	}
}

func contextEndsFollow(n *network) {
	f := n.follow(n.Members[1].Ledger, 1)
	f.atLeast(1)
	if err := f.stop(); !errors.Is(err, context.Canceled) {
		n.Errorf("Follow ended with %v, want context.Canceled", err)
	}
}
