package signer

import (
	"bytes"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/keys/file"
	"github.com/parley-node/parley/internal/keys/remote"
	"github.com/parley-node/parley/wire"
)

// TestBothProtocols: a node signs with keys that are elsewhere, by either API,
// and the service's log tells who asked for what.
func TestBothProtocols(t *testing.T) {
	ks, err := file.Create(t.TempDir()+"/keys", file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := ks.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	service := httptest.NewServer(Handler(Config{Keys: keys.Local{Keys: ks}, Token: "secret", Log: slog.New(slog.NewTextHandler(&log, nil))}))
	t.Cleanup(service.Close)
	id, to := big.NewInt(2021), common.HexToAddress("0x1234")
	for _, protocol := range []string{remote.Web3Signer, remote.JSONRPC} {
		for name, offer := range map[string]ethereum.Offer{"legacy": {Price: big.NewInt(7)}, "free": {Price: new(big.Int)}, "dynamic": {Tip: big.NewInt(1), Cap: big.NewInt(9)}} {
			for _, target := range []*common.Address{&to, nil} {
				t.Run(protocol+"/"+name, func(t *testing.T) {
					s, err := remote.New(remote.Config{URL: service.URL, Protocol: protocol, Token: "secret"})
					if err != nil {
						t.Fatal(err)
					}
					all, err := s.Accounts(t.Context())
					if err != nil || len(all) != 2 || all[1] != second {
						t.Fatalf("accounts %v %v", all, err)
					}
					unsigned, err := ethereum.Unsigned(id, offer.Transaction(id, 5, 100_000, target, big.NewInt(3), []byte{1, 2, 3}))
					if err != nil {
						t.Fatal(err)
					}
					got, err := s.SignTransaction(t.Context(), second, unsigned, "invoke 42")
					if err != nil {
						t.Fatal(err)
					}
					want, err := keys.Local{Keys: ks}.SignTransaction(t.Context(), second, unsigned, "")
					if err != nil || got != want {
						t.Errorf("signature %x, want %x: %v", got, want, err)
					}
					if _, err := s.SignTransaction(t.Context(), wire.Address{9}, unsigned, ""); err != (keys.ErrUnknownKey{Key: wire.Address{9}}) {
						t.Errorf("an unknown key gives %v", err)
					}
				})
			}
		}
	}
	if text := log.String(); !strings.Contains(text, "invoke 42") || !strings.Contains(text, "nonce=5") || !strings.Contains(text, "127.0.0.1") {
		t.Errorf("the log does not tell who asked for what: %s", text)
	}
}

// TestRefused: without the token, and for what is no transaction.
func TestRefused(t *testing.T) {
	ks, err := file.Create(t.TempDir()+"/keys", file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	service := httptest.NewServer(Handler(Config{Keys: keys.Local{Keys: ks}, Token: "secret", Log: slog.New(slog.DiscardHandler)}))
	t.Cleanup(service.Close)
	s, err := remote.New(remote.Config{URL: service.URL, Token: "guess"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Accounts(t.Context()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("a wrong token gives %v", err)
	}
	good, err := remote.New(remote.Config{URL: service.URL, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	all, err := good.Accounts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := good.SignTransaction(t.Context(), all[0], []byte("\x19\x01 an EIP-712 digest"), ""); err == nil || !strings.Contains(err.Error(), "no unsigned transaction") {
		t.Errorf("other bytes give %v", err)
	}
	resp, err := http.Post(service.URL+"/", "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("JSON-RPC without a token gives %s", resp.Status)
	}
}

// FuzzArguments: what is taken for a transaction is one, byte for byte.
func FuzzArguments(f *testing.F) {
	id := big.NewInt(1)
	for _, o := range []ethereum.Offer{{Price: big.NewInt(1)}, {Tip: big.NewInt(1), Cap: big.NewInt(2)}} {
		unsigned, err := ethereum.Unsigned(id, o.Transaction(id, 1, 2, nil, big.NewInt(3), []byte{4}))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(unsigned)
	}
	f.Fuzz(func(t *testing.T, unsigned []byte) {
		a, err := remote.Arguments(wire.Address{}, unsigned)
		if err != nil {
			return
		}
		offer := ethereum.Offer{Price: (*big.Int)(a.GasPrice)}
		if a.MaxFeePerGas != nil {
			offer = ethereum.Offer{Tip: (*big.Int)(a.MaxPriorityFeePerGas), Cap: (*big.Int)(a.MaxFeePerGas)}
		}
		again, err := ethereum.Unsigned((*big.Int)(a.ChainID), offer.Transaction((*big.Int)(a.ChainID), uint64(a.Nonce), uint64(a.Gas), a.To, (*big.Int)(a.Value), a.Data))
		if err != nil || !bytes.Equal(again, unsigned) {
			t.Errorf("%x comes back as %x: %v", unsigned, again, err)
		}
	})
}
