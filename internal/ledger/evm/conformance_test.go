package evm

import (
	"context"
	"log/slog"
	"testing"
	"time"

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

var testEpoch1 = wire.Hash{0xe1}

// deploy founds a network of parties; c makes blocks by itself, or by move.
func deploy(t testing.TB, c *testChain, fees Fees, move func(), founders ...party) Deployed {
	t.Helper()
	l := open(t, Config{URLs: []string{c.http()}, ChainID: testChainID, Keys: founders[0].keys, Fees: fees})
	f := Founding{Params: ledger.DefaultParams, Epoch1: testEpoch1}
	for _, p := range founders {
		f.Members = append(f.Members, ledger.MemberAdmitted{Org: p.org, Key: p.key})
	}
	s, err := l.State(t.Context(), &founders[0].key)
	if err != nil {
		t.Fatal(err)
	}
	tx, address, err := l.SignDeploy(t.Context(), founders[0].key, s.Nonce, f)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Send(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	move()
	if err := l.wait(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	return Deployed{Contract: address, TxHash: tx.Hash}
}

func member(l ledger.Ledger, p party) ledgertest.Member {
	return ledgertest.Member{Org: p.org, Key: p.key, Spare: p.spare, Ledger: l}
}

// TestConformance: free gas, blocks on demand that are final at once and
// announced, as on the bundled ledger.
func TestConformance(t *testing.T) {
	conformance(t, chainOptions{auto: true}, func(c *testChain, cfg *Config) {
		cfg.Fees, cfg.WebSocket = FeesZero, c.ws()
	})
}

// TestConformanceLaggingFinality: fees, blocks that become final two blocks
// later, and polling, as on a public chain.
func TestConformanceLaggingFinality(t *testing.T) {
	conformance(t, chainOptions{fees: true, lag: 2}, func(*testChain, *Config) {})
}

func conformance(t *testing.T, o chainOptions, configure func(*testChain, *Config)) {
	ledgertest.Run(t, func(t *testing.T) ledgertest.Harness {
		ps, funded := parties(t, 4)
		c := newTestChain(t, o, funded...)
		move := func() {}
		h := ledgertest.Harness{ChainID: testChainID, Params: ledger.DefaultParams, Epoch1: testEpoch1}
		if !o.auto {
			move = func() {
				for range o.lag + 1 {
					c.mine()
				}
			}
			h.Move = move
		}
		fees := FeesAuto
		if !o.fees {
			fees = FeesZero
		}
		d := deploy(t, c, fees, move, ps[:3]...)
		h.Contract = d.Contract
		cuts := make([]*proxy, len(ps))
		for i, p := range ps {
			cuts[i] = newProxy(t, c.http())
			cfg := Config{URLs: []string{cuts[i].url()}, Contract: d.Contract, ChainID: testChainID, Keys: p.keys}
			configure(c, &cfg)
			m := member(open(t, cfg), p)
			if i == 3 {
				h.Outsider = m
			} else {
				h.Members = append(h.Members, m)
			}
		}
		h.Cut = func(i int) func() { return cuts[i].cut() }
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
