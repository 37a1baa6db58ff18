// Package evm runs the conformance suite of the ledger port on a second EVM
// implementation, anvil, so that the driver does not come to depend on the
// habits of go-ethereum.
package evm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/keys/file"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/evm"
	"github.com/parley-node/parley/internal/ledger/ledgertest"
	"github.com/parley-node/parley/wire"
)

const chainID = 31337

// anvil is a running chain. It mines a block for each transaction; a block is
// final when two more are on top of it.
type anvil struct {
	t    *testing.T
	rpc  string // host:port
	http *http.Client
}

func startAnvil(t *testing.T) *anvil {
	t.Helper()
	const program = "node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("anvil is not installed; run npm ci in e2e/evm: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &anvil{t: t, rpc: l.Addr().String(), http: http.DefaultClient}
	_, port, err := net.SplitHostPort(a.rpc)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	cmd := exec.Command(program, "--host", "127.0.0.1", "--port", port, "--chain-id", fmt.Sprint(chainID), "--slots-in-an-epoch", "1", "--accounts", "1", "--silent")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx := t.Context(); ; {
		if err := a.call(ctx, nil, "eth_chainId"); err == nil {
			return a
		} else if ctx.Err() != nil {
			t.Fatalf("anvil does not answer: %v", err)
		}
		<-tick.C
	}
}

// call makes one JSON-RPC call.
func (a *anvil) call(ctx context.Context, out any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+a.rpc, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	answer := struct {
		Result any
		Error  *struct{ Message string }
	}{Result: out}
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("%s: %w: %s", method, err, text)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %s", method, answer.Error.Message)
	}
	return nil
}

// settle makes everything that was sent final.
func (a *anvil) settle() {
	if err := a.call(a.t.Context(), nil, "anvil_mine", "0x3"); err != nil && a.t.Context().Err() == nil {
		a.t.Error(err)
	}
}

type party struct {
	org        wire.OrgID
	keys       *file.Keys
	key, spare wire.Address
}

// party makes keys, and gives their accounts funds: gas has a price here.
func (a *anvil) party(id byte) party {
	a.t.Helper()
	ctx := a.t.Context()
	k, err := file.Create(a.t.TempDir()+"/keys", file.Options{})
	if err != nil {
		a.t.Fatal(err)
	}
	spare, err := k.NewSigningKey()
	if err != nil {
		a.t.Fatal(err)
	}
	all, err := k.Addresses(ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, address := range all {
		if err := a.call(ctx, nil, "anvil_setBalance", address.String(), "0x56bc75e2d63100000"); err != nil { // 100 ether
			a.t.Fatal(err)
		}
	}
	return party{org: wire.OrgID{0xaa, id}, keys: k, key: all[0], spare: spare}
}

func (a *anvil) open(t *testing.T, cfg evm.Config) *evm.Ledger {
	t.Helper()
	cfg.URLs, cfg.ChainID, cfg.Poll = []string{"http://" + a.rpc}, chainID, 5*time.Millisecond
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	l, err := evm.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// deploy founds a network, and makes blocks until it is final.
func (a *anvil) deploy(t *testing.T, f evm.Founding, founder party) evm.Deployed {
	t.Helper()
	l := a.open(t, evm.Config{Keys: founder.keys})
	type result struct {
		evm.Deployed
		error
	}
	done := make(chan result, 1)
	go func() {
		d, err := l.Deploy(t.Context(), founder.key, f)
		done <- result{d, err}
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			if r.error != nil {
				t.Fatal(r.error)
			}
			return r.Deployed
		case <-tick.C:
			a.settle()
		}
	}
}

func TestConformance(t *testing.T) {
	a := startAnvil(t)
	var parties []party
	for id := range byte(4) {
		parties = append(parties, a.party(id+1))
	}
	epoch1 := wire.Hash{0xe1}
	ledgertest.Run(t, func(t *testing.T) ledgertest.Harness {
		f := evm.Founding{Params: ledger.DefaultParams, Epoch1: epoch1}
		for _, p := range parties[:3] {
			f.Members = append(f.Members, ledger.MemberAdmitted{Org: p.org, Key: p.key})
		}
		d := a.deploy(t, f, parties[0])
		h := ledgertest.Harness{
			ChainID: chainID, Contract: d.Contract, Params: ledger.DefaultParams, Epoch1: epoch1, Move: a.settle,
			Custom: &ledger.ContractCall{To: &wire.Address{19: 4}, Data: []byte("the identity contract at address 4")},
		}
		for i, p := range parties {
			l := a.open(t, evm.Config{Contract: d.Contract, FromBlock: d.Block, Keys: p.keys})
			m := ledgertest.Member{Org: p.org, Key: p.key, Spare: p.spare, Ledger: l}
			if i == 3 {
				h.Outsider = m
			} else {
				h.Members = append(h.Members, m)
			}
		}
		return h
	})
}
