package evm

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/ethereum/ethtest"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/bundled"
	"github.com/parley-node/parley/internal/ledger/ledgertest"
	"github.com/parley-node/parley/wire"
)

// startBundled runs the real bundled ledger with one validator.
func startBundled(t testing.TB) bundled.Info {
	t.Helper()
	dir := t.TempDir()
	if _, err := bundled.InitNetwork([]string{dir}, bundled.GenesisConfig{ChainID: ethtest.ChainID, Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	cfg := bundled.Config{
		Dir: dir, RPC: "127.0.0.1:0", P2P: "127.0.0.1:0",
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan bundled.Info, 1), make(chan error, 1)
	go func() { done <- bundled.Run(ctx, cfg, func(i bundled.Info) { ready <- i }) }()
	select {
	case err := <-done:
		cancel()
		t.Fatal(err)
		return bundled.Info{}
	case info := <-ready:
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return info
	}
}

// TestConformanceBundled: the members have no funds.
func TestConformanceBundled(t *testing.T) {
	chain := startBundled(t)
	ps, _ := parties(t, 4)
	ledgertest.Run(t, func(t *testing.T) ledgertest.Harness {
		cfg := Config{URLs: []string{chain.HTTP}, WebSocket: chain.WS, ChainID: ethtest.ChainID, Fees: FeesZero, Keys: ps[0].keys}
		f := Founding{Params: ledger.DefaultParams, Epoch1: testEpoch1}
		for _, p := range ps[:3] {
			f.Members = append(f.Members, ledger.MemberAdmitted{Org: p.org, Key: p.key})
		}
		d, err := open(t, cfg).Deploy(t.Context(), ps[0].key, f)
		if err != nil {
			t.Fatal(err)
		}
		h := ledgertest.Harness{ChainID: ethtest.ChainID, Params: ledger.DefaultParams, Epoch1: testEpoch1, Contract: d.Contract}
		cfg.Contract, cfg.FromBlock = d.Contract, d.Block
		for i, p := range ps {
			cfg.Keys = p.keys
			l := open(t, cfg)
			if !l.blockTime {
				t.Fatal("the bundled ledger does not tell consensus time")
			}
			if m := member(l, p); i == 3 {
				h.Outsider = m
			} else {
				h.Members = append(h.Members, m)
			}
		}
		h.Custom = &ledger.ContractCall{To: &wire.Address{19: 4}, Data: []byte("the identity contract at address 4")}
		return h
	})
}

// BenchmarkBundled is from Sign to the record in fn on the bundled ledger.
func BenchmarkBundled(b *testing.B) {
	chain := startBundled(b)
	ps, _ := parties(b, 1)
	cfg := Config{URLs: []string{chain.HTTP}, WebSocket: chain.WS, Fees: FeesZero, Keys: ps[0].keys}
	d, err := open(b, cfg).Deploy(b.Context(), ps[0].key, Founding{
		Members: []ledger.MemberAdmitted{{Org: ps[0].org, Key: ps[0].key}}, Params: ledger.DefaultParams,
	})
	if err != nil {
		b.Fatal(err)
	}
	cfg.Contract, cfg.FromBlock = d.Contract, d.Block
	roundTrips(b, open(b, cfg), ps[0])
}
