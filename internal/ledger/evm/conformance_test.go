package evm

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/ethereum/ethtest"
	"github.com/parley-node/parley/internal/keys/file"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/ledgertest"
	"github.com/parley-node/parley/wire"
)

// party is a member to be: keys, and a connection once the chain runs.
type party struct {
	org   wire.OrgID
	keys  *file.Keys
	key   wire.Address
	spare wire.Address
}

func newParty(t testing.TB, id byte) party {
	t.Helper()
	k, err := file.Create(t.TempDir()+"/keys", file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	spare, err := k.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	all, err := k.Addresses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return party{org: wire.OrgID{0xaa, id}, keys: k, key: all[0], spare: spare}
}

func parties(t testing.TB, n int) (ps []party, funded []wire.Address) {
	for i := range n {
		p := newParty(t, byte(i+1))
		ps = append(ps, p)
		funded = append(funded, p.key, p.spare)
	}
	return ps, funded
}

func open(t testing.TB, cfg Config) *Ledger {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if cfg.Poll == 0 {
		cfg.Poll = 2 * time.Millisecond
	}
	l, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// feesOf suit a chain.
func feesOf(c *ethtest.Chain) Fees {
	if c.Priced {
		return FeesAuto
	}
	return FeesZero
}

var testEpoch1 = wire.Hash{0xe1}

// deploy founds a network of parties.
func deploy(t testing.TB, c *ethtest.Chain, founders ...party) Deployed {
	t.Helper()
	return deployWith(t, c, ledger.DefaultParams, founders...)
}

func deployWith(t testing.TB, c *ethtest.Chain, params ledger.Params, founders ...party) Deployed {
	t.Helper()
	l := open(t, Config{URLs: []string{c.HTTP()}, ChainID: ethtest.ChainID, Keys: founders[0].keys, Fees: feesOf(c)})
	f := Founding{Params: params, Epoch1: testEpoch1}
	for _, p := range founders {
		f.Members = append(f.Members, ledger.MemberAdmitted{Org: p.org, Key: p.key})
	}
	type result struct {
		Deployed
		error
	}
	done := make(chan result, 1)
	go func() {
		d, err := l.Deploy(t.Context(), founders[0].key, f)
		done <- result{d, err}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			if r.error != nil {
				t.Fatal(r.error)
			}
			return r.Deployed
		case <-tick.C:
			if !c.Auto && c.Waiting() {
				c.Settle()
			}
		}
	}
}

func member(l ledger.Ledger, p party) ledgertest.Member {
	return ledgertest.Member{Org: p.org, Key: p.key, Spare: p.spare, Ledger: l}
}

// TestConformance: free gas, blocks on demand that are final at once and
// announced, as on the bundled ledger.
func TestConformance(t *testing.T) {
	conformance(t, ethtest.Options{Auto: true}, func(c *ethtest.Chain, cfg *Config) {
		cfg.Fees, cfg.WebSocket = FeesZero, c.WS()
	})
}

// TestConformanceLaggingFinality: fees, blocks that become final two blocks
// later, and polling, as on a public chain.
func TestConformanceLaggingFinality(t *testing.T) {
	conformance(t, ethtest.Options{Priced: true, Lag: 2}, func(*ethtest.Chain, *Config) {})
}

// conformance runs the suite on one chain, with a fresh contract for each case.
func conformance(t *testing.T, o ethtest.Options, configure func(*ethtest.Chain, *Config)) {
	ps, funded := parties(t, 4)
	c := ethtest.New(t, o, funded...)
	ledgertest.Run(t, func(t *testing.T) ledgertest.Harness {
		h := ledgertest.Harness{ChainID: ethtest.ChainID, Params: ledger.DefaultParams, Epoch1: testEpoch1}
		if !o.Auto {
			h.Move = c.Settle
		}
		d := deploy(t, c, ps[:3]...)
		h.Contract = d.Contract
		cuts := make([]*ethtest.Proxy, len(ps))
		for i, p := range ps {
			cuts[i] = ethtest.NewProxy(t, c.HTTP())
			cfg := Config{URLs: []string{cuts[i].URL()}, Contract: d.Contract, FromBlock: d.Block, ChainID: ethtest.ChainID, Keys: p.keys}
			configure(c, &cfg)
			m := member(open(t, cfg), p)
			if i == 3 {
				h.Outsider = m
			} else {
				h.Members = append(h.Members, m)
			}
		}
		h.Cut = func(i int) func() { return cuts[i].Cut() }
		h.Custom = &ledger.ContractCall{To: &wire.Address{19: 4}, Data: []byte("the identity contract at address 4")}
		return h
	})
}

// records collects what Follow gives until enough is there.
func records(t testing.TB, l *Ledger, next uint64, count int) (rs []ledger.Record, last ledger.Block) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := l.Follow(ctx, next, func(_ context.Context, a ledger.Advance) error {
		rs, last = append(rs, a.Records...), a.Final
		if len(rs) >= count {
			cancel()
		}
		return nil
	})
	if len(rs) < count {
		t.Fatalf("Follow gave %d records and ended with %v, want %d", len(rs), err, count)
	}
	return rs, last
}
