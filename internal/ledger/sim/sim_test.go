package sim

import (
	"context"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/keys/file"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/ledgertest"
	"github.com/parley-node/parley/wire"
)

// party is a member or outsider with two keys.
type party struct {
	keys  *file.Keys
	org   wire.OrgID
	key   wire.Address
	spare wire.Address
}

func newParty(t testing.TB, name string) party {
	t.Helper()
	ks, err := file.Create(t.TempDir()+"/keys", file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	spare, err := ks.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	as, err := ks.Addresses(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return party{ks, wire.OrgIDOf(name, wire.Hash{}), as[0], spare}
}

// network founds a chain of three members; change may alter its configuration.
func network(t testing.TB, change func(*Config)) (*Chain, []party) {
	t.Helper()
	var ps []party
	cfg := Config{
		ChainID:  2026,
		Contract: wire.Address{0xc0},
		Params:   ledger.DefaultParams,
		Epoch1:   wire.Hash{1},
	}
	for _, name := range []string{"acme", "globex", "initech"} {
		p := newParty(t, name)
		ps = append(ps, p)
		cfg.Founders = append(cfg.Founders, ledger.MemberAdmitted{Org: p.org, Key: p.key})
	}
	if change != nil {
		change(&cfg)
	}
	c, err := NewChain(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, ps
}

func join(c *Chain, p party) ledgertest.Member {
	return ledgertest.Member{Org: p.org, Key: p.key, Spare: p.spare, Ledger: c.Connect(p.keys)}
}

func harness(t *testing.T, c *Chain, ps []party) ledgertest.Harness {
	h := ledgertest.Harness{
		ChainID:  c.cfg.ChainID,
		Contract: c.cfg.Contract,
		Params:   c.cfg.Params,
		Epoch1:   c.cfg.Epoch1,
		Outsider: join(c, newParty(t, "stranger")),
	}
	for _, p := range ps {
		h.Members = append(h.Members, join(c, p))
	}
	h.Cut = func(i int) func() {
		l := h.Members[i].Ledger.(*Ledger)
		l.Pause()
		return l.Resume
	}
	to := c.Install(func(wire.Address, []byte, func(CarriedPin) error) error { return nil })
	h.Custom = &ledger.ContractCall{To: &to, Data: []byte{1}}
	return h
}

func TestConformance(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T) ledgertest.Harness {
		c, ps := network(t, nil)
		return harness(t, c, ps)
	})
}

// TestConformanceSlowChain: blocks of many transactions, three confirmations,
// pages of two records.
func TestConformanceSlowChain(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T) ledgertest.Harness {
		c, ps := network(t, func(cfg *Config) {
			cfg.BlockInterval = time.Millisecond
			cfg.Tick = time.Millisecond
			cfg.Params.Confirmations = 3
		})
		h := harness(t, c, ps)
		for _, m := range h.Members {
			m.Ledger.(*Ledger).SetPage(2)
			m.Ledger.(*Ledger).SetDelay(time.Millisecond)
		}
		return h
	})
}
