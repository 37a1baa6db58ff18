package evm

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/ethereum/ethtest"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// pins makes a block per pin, final at once or after settling.
func pins(t testing.TB, c *ethtest.Chain, l *Ledger, p party, count int) {
	t.Helper()
	n := nonceOf(t, l, p.key)
	for i := range count {
		send(t, l, sign(t, l, p.key, n+uint64(i), 0, testPin(byte(i))))
		c.Mine()
	}
	for range c.Lag {
		c.Mine()
	}
}

// ends runs Follow until it gives up, for at most some seconds.
func ends(t testing.TB, l *Ledger, next uint64) (given int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = l.Follow(ctx, next, func(_ context.Context, a ledger.Advance) error {
		given += len(a.Records)
		return nil
	})
	return given, err
}

// dropLog is an endpoint that has lost the log of one record.
func dropLog(number int64) func(string, []json.RawMessage, json.RawMessage) json.RawMessage {
	return editLogs(func(l types.Log) *types.Log {
		if l.Topics[1].Big().Int64() == number {
			return nil
		}
		return &l
	})
}

func editLogs(edit func(types.Log) *types.Log) func(string, []json.RawMessage, json.RawMessage) json.RawMessage {
	return func(method string, _ []json.RawMessage, result json.RawMessage) json.RawMessage {
		var logs []types.Log
		if method != "eth_getLogs" || json.Unmarshal(result, &logs) != nil {
			return result
		}
		kept := []*types.Log{}
		for _, l := range logs {
			if e := edit(l); e != nil {
				kept = append(kept, e)
			}
		}
		out, err := json.Marshal(kept)
		if err != nil {
			return result
		}
		return out
	}
}

// An endpoint that drops or changes a log is found out, in the middle and at
// the end; where another endpoint is honest, the network goes on.
func TestDishonestEndpoint(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{}, nil)
	pins(t, c, l, p, 3) // records 3, 4, 5
	for name, tc := range map[string]struct {
		lie  func(string, []json.RawMessage, json.RawMessage) json.RawMessage
		want uint64
	}{
		"dropped in the middle": {dropLog(4), 4},
		"dropped at the end":    {dropLog(5), 5},
		"dropped at the start":  {dropLog(1), 1},
		"changed data": {editLogs(func(l types.Log) *types.Log {
			if l.Topics[1].Big().Int64() == 4 {
				l.Data[40] ^= 1
			}
			return &l
		}), 4},
		"changed signer": {editLogs(func(l types.Log) *types.Log {
			if l.Topics[1].Big().Int64() == 3 {
				l.Topics[3][31] ^= 1
			}
			return &l
		}), 3},
	} {
		t.Run(name, func(t *testing.T) {
			liar := ethtest.NewProxy(t, c.HTTP())
			liar.Lie(tc.lie)
			cfg := Config{URLs: []string{liar.URL()}, Contract: wire.Address(l.contract)}
			var gap *ledger.Gap
			given, err := ends(t, open(t, cfg), 1)
			if !errors.As(err, &gap) || gap.Want != tc.want {
				t.Errorf("Follow ended with %v, want a gap at record %d", err, tc.want)
			}
			if uint64(given) >= tc.want {
				t.Errorf("%d records were given, the fault is at %d", given, tc.want)
			}
			cfg.URLs = append(cfg.URLs, c.HTTP())
			if rs, _ := records(t, open(t, cfg), 1, 5); len(rs) != 5 {
				t.Errorf("with an honest second endpoint Follow gave %d records", len(rs))
			}
		})
	}
}

// blocks below the final head are replaced: the feed stops, while it runs and
// when it starts again with what the caller remembers.
func TestForkBelowFinal(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{}, nil)
	pins(t, c, l, p, 2)
	rs, last := records(t, l, 1, 4)
	c.Reorg(1)
	var fork *ledger.Fork
	if _, err := ends(t, l, 5); !errors.As(err, &fork) || fork.Had.Hash != last.Hash {
		t.Errorf("Follow ended with %v, want a fork at %+v", err, last)
	}
	again := open(t, Config{URLs: []string{c.HTTP()}, Contract: wire.Address(l.contract), Known: Cursor{Record: 4, Running: rs[3].Running, Final: last}})
	if _, err := ends(t, again, 5); !errors.As(err, &fork) {
		t.Errorf("after a restart Follow ended with %v, want a fork", err)
	}
}

func TestForkWhileFollowing(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{}, nil)
	pins(t, c, l, p, 2)
	forked := false
	var fork *ledger.Fork
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := l.Follow(ctx, 1, func(_ context.Context, a ledger.Advance) error {
		if !forked {
			forked = true
			c.Reorg(2)
		}
		return nil
	})
	if !errors.As(err, &fork) {
		t.Errorf("Follow ended with %v, want a fork", err)
	}
}

// Above the final head blocks come and go, and nobody hears of it.
func TestForkAboveFinal(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{Lag: 2}, nil)
	n := nonceOf(t, l, p.key)
	tx := sign(t, l, p.key, n, 0, testPin(1))
	send(t, l, tx)
	c.Mine()
	c.Reorg(1) // the pin is gone
	if s, err := l.State(t.Context(), nil); err != nil || s.Records != 2 {
		t.Fatalf("after the reorg: %+v %v", s, err)
	}
	send(t, l, tx) // the same bytes again
	c.Settle()
	rs, _ := records(t, l, 1, 3)
	if rs[2].TxHash != tx.Hash {
		t.Errorf("record 3 is of transaction %s, sent %s", rs[2].TxHash, tx.Hash)
	}
}

// A chain that names no final block: as many confirmations as the contract
// says, and as it says after a change.
func TestConfirmations(t *testing.T) {
	ps, funded := parties(t, 1)
	c := ethtest.New(t, ethtest.Options{}, funded...)
	params := ledger.DefaultParams
	params.Confirmations = 3
	d := deployWith(t, c, params, ps...)
	work := ethtest.NewProxy(t, c.HTTP())
	work.Lie(func(method string, params []json.RawMessage, result json.RawMessage) json.RawMessage {
		if method != "eth_getBlockByNumber" {
			return result
		}
		if string(params[0]) == `"finalized"` {
			return json.RawMessage("null")
		}
		var block map[string]json.RawMessage
		if json.Unmarshal(result, &block) != nil || block == nil {
			return result
		}
		block["difficulty"] = json.RawMessage(`"0x20000"`)
		out, err := json.Marshal(block)
		if err != nil {
			return result
		}
		return out
	})
	l := open(t, Config{URLs: []string{work.URL()}, Contract: d.Contract, Keys: ps[0].keys, Fees: FeesZero})
	for range 3 {
		c.Mine()
	}
	head := c.Head().Number.Uint64()
	if _, last := records(t, l, 1, 2); last.Number != head-3 {
		t.Errorf("final block is %d, head %d, want 3 below", last.Number, head)
	}
	params.Confirmations = 1
	send(t, l, sign(t, l, ps[0].key, nonceOf(t, l, ps[0].key), 0, ledger.ProposeCall{Proposal: ledger.Proposal{Params: &params}}))
	for range 4 {
		c.Mine()
	}
	records(t, l, 3, 4)
	s, err := l.State(t.Context(), nil)
	if err != nil || s.Head.Number-s.Final.Number != 1 {
		t.Errorf("after the change: %+v %v", s, err)
	}
}

func TestFailover(t *testing.T) {
	c, direct, p := solo(t, ethtest.Options{}, nil)
	a, b := ethtest.NewProxy(t, c.HTTP()), ethtest.NewProxy(t, c.HTTP())
	l := open(t, Config{URLs: []string{a.URL(), b.URL()}, Contract: wire.Address(direct.contract), Keys: p.keys, Fees: FeesZero})
	n := nonceOf(t, l, p.key)
	restore := a.Cut()
	send(t, l, sign(t, l, p.key, n, 0, testPin(1)))
	c.Mine()
	records(t, l, 1, 3)
	if b.Count("eth_sendRawTransaction") != 1 {
		t.Error("the second endpoint did not send")
	}
	restore()
	b.Cut()
	send(t, l, sign(t, l, p.key, n+1, 0, testPin(2)))
	c.Mine()
	records(t, l, 1, 4)

	a.Cut()
	_, err := l.State(t.Context(), nil)
	if err == nil || !ethereum.Unreachable(err) {
		t.Errorf("with no endpoint left: %v", err)
	}
}

// With a cursor Follow searches nothing, and contradictions are found.
func TestKnownCursor(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{}, nil)
	pins(t, c, l, p, 3)
	rs, last := records(t, l, 1, 5)
	pins(t, c, l, p, 1)

	counted := ethtest.NewProxy(t, c.HTTP())
	var searched bool
	counted.Lie(func(method string, params []json.RawMessage, result json.RawMessage) json.RawMessage {
		var f filter
		if method == "eth_getLogs" && json.Unmarshal(params[0], &f) == nil && f.Topics != nil {
			searched = true
		}
		return result
	})
	cfg := Config{URLs: []string{counted.URL()}, Contract: wire.Address(l.contract), Known: Cursor{Record: 5, Running: rs[4].Running, Final: last}}
	if got, _ := records(t, open(t, cfg), 6, 1); got[0].Number != 6 {
		t.Errorf("resumed with record %d", got[0].Number)
	}
	if searched {
		t.Error("the endpoint was searched for a record that was known")
	}
	if got, _ := records(t, open(t, cfg), 3, 4); got[0].Number != 3 || !searched {
		t.Errorf("going back gave record %d", got[0].Number)
	}

	cfg.Known.Running[0] ^= 1
	var gap *ledger.Gap
	if _, err := ends(t, open(t, cfg), 6); !errors.As(err, &gap) {
		t.Errorf("with another running hash Follow ended with %v, want a gap", err)
	}
}

// Endpoints limit how many blocks one question may cover.
func TestLimitedRanges(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{}, nil)
	pins(t, c, l, p, 20)
	limited := ethtest.NewProxy(t, c.HTTP())
	limited.Lie(func(method string, params []json.RawMessage, result json.RawMessage) json.RawMessage {
		var f filter
		if method != "eth_getLogs" || json.Unmarshal(params[0], &f) != nil || f.BlockHash != nil {
			return result
		}
		if common.HexToHash(f.ToBlock).Big().Int64()-common.HexToHash(f.FromBlock).Big().Int64() >= 4 {
			return nil
		}
		return result
	})
	for _, next := range []uint64{1, 2, 13, 22} {
		rs, _ := records(t, open(t, Config{URLs: []string{limited.URL()}, Contract: wire.Address(l.contract)}), next, 23-int(next))
		if rs[0].Number != next || len(rs) != 23-int(next) {
			t.Errorf("from %d: %d records from %d on", next, len(rs), rs[0].Number)
		}
	}
}

// A long history comes in pages of whole blocks.
func TestPages(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{}, nil)
	n := nonceOf(t, l, p.key)
	for i := range uint64(12) {
		send(t, l, sign(t, l, p.key, n+i, 0, testPin(byte(i))))
		if i%4 == 3 {
			c.Mine() // four pins in a block
		}
	}
	for size, want := range map[int][]int{2: {2, 4, 4, 4}, 5: {6, 8}, 100: {14}} {
		l := open(t, Config{URLs: []string{c.HTTP()}, Contract: wire.Address(l.contract)})
		l.pageSize = size
		var got []int
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		sum := 0
		err := l.Follow(ctx, 1, func(_ context.Context, a ledger.Advance) error {
			if len(a.Records) > 0 {
				got = append(got, len(a.Records))
				if last := a.Records[len(a.Records)-1]; a.Final.Number < last.Block.Number {
					t.Errorf("record %d of block %d was given with block %d final", last.Number, last.Block.Number, a.Final.Number)
				}
			}
			if sum += len(a.Records); sum == 14 {
				cancel()
			}
			return nil
		})
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v, want %v (%v)", size, got, want, err)
		}
	}
}

// Consensus time is the chain's own where it tells it, else the header's.
func TestBlockTime(t *testing.T) {
	for _, clock := range []bool{true, false} {
		c, l, p := solo(t, ethtest.Options{Clock: clock}, nil)
		pins(t, c, l, p, 2)
		rs, last := records(t, l, 1, 4)
		for _, b := range []ledger.Block{rs[1].Block, rs[3].Block, last} {
			want := time.Unix(0, int64(b.Number)*125e6)
			if !clock {
				want = time.Unix(int64(c.Header(b.Number).Time), 0)
			}
			if !b.Time.Equal(want) {
				t.Errorf("clock %v: block %d has time %v, want %v", clock, b.Number, b.Time, want)
			}
		}
	}
}

// Without its announcements the chain is polled.
func TestAnnouncementsLost(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{}, func(cfg *Config) { cfg.WebSocket = "ws://127.0.0.1:1" })
	pins(t, c, l, p, 1)
	records(t, l, 1, 3)
}

func TestVerify(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{Lag: 1}, nil)
	pins(t, c, l, p, 2)
	rs, _ := records(t, l, 1, 4)
	v, err := l.Verify(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if v.Record.Number != 3 || v.Record.Block != rs[2].Block || v.Record.Running != rs[2].Running || !v.Final || v.Depth != 2 {
		t.Errorf("verified %+v", v)
	}
	if pin := v.Record.Body.(ledger.Pinned); pin.Pin.Root != testPin(0).Pin.Root {
		t.Errorf("verified %+v", pin)
	}
	all, err := l.VerifyTransaction(t.Context(), rs[0].TxHash)
	if err != nil || len(all) != 2 || all[1].Record.Number != 2 {
		t.Errorf("the founding has %d records: %v", len(all), err)
	}
	if _, err := l.Verify(t.Context(), 5); !errors.Is(err, ErrNoRecord) {
		t.Errorf("record 5: %v, want ErrNoRecord", err)
	}
	if _, err := l.VerifyTransaction(t.Context(), wire.Hash{1}); !errors.Is(err, ErrNoRecord) {
		t.Errorf("an unknown transaction: %v, want ErrNoRecord", err)
	}

	hash, err := l.BlockHash(t.Context(), rs[2].Block.Number)
	if err != nil || hash != rs[2].Block.Hash {
		t.Errorf("block hash %s %v, want %s", hash, err, rs[2].Block.Hash)
	}
	if _, err := l.BlockHash(t.Context(), 1000); err == nil {
		t.Error("a block that is not there has a hash")
	}

	liar := ethtest.NewProxy(t, c.HTTP())
	liar.Lie(editLogs(func(l types.Log) *types.Log {
		l.Data[0] ^= 1
		return &l
	}))
	if _, err := open(t, Config{URLs: []string{liar.URL()}, Contract: wire.Address(l.contract)}).Verify(t.Context(), 3); err == nil {
		t.Error("a receipt that contradicts the block's logs was believed")
	}
}

func TestOpenRefusals(t *testing.T) {
	c := ethtest.New(t, ethtest.Options{})
	for name, cfg := range map[string]Config{
		"no url":       {},
		"not a url":    {URLs: []string{"localhost:8545"}},
		"other chain":  {URLs: []string{c.HTTP()}, ChainID: 1},
		"unreachable":  {URLs: []string{"http://127.0.0.1:1"}},
		"odd protocol": {URLs: []string{c.HTTP()}, WebSocket: "http://127.0.0.1"},
	} {
		if l, err := Open(t.Context(), cfg); err == nil {
			l.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

// BenchmarkGeth is from Sign to the record in fn on a chain that makes a final
// block for each transaction.
func BenchmarkGeth(b *testing.B) {
	ps, funded := parties(b, 1)
	c := ethtest.New(b, ethtest.Options{Auto: true}, funded...)
	d := deploy(b, c, ps...)
	roundTrips(b, open(b, Config{URLs: []string{c.HTTP()}, WebSocket: c.WS(), Contract: d.Contract, Keys: ps[0].keys, Fees: FeesZero}), ps[0])
}

// roundTrips pins one after the other and waits for each.
func roundTrips(b *testing.B, l *Ledger, p party) {
	seen := make(chan uint64, 16)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() {
		done <- l.Follow(ctx, 3, func(_ context.Context, a ledger.Advance) error {
			for _, r := range a.Records {
				seen <- r.Number
			}
			return nil
		})
	}()
	nonce := nonceOf(b, l, p.key)
	for b.Loop() {
		send(b, l, sign(b, l, p.key, nonce, 0, testPin(1)))
		nonce++
		<-seen
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		b.Error(err)
	}
}
