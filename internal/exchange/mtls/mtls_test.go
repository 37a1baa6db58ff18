package mtls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"testing"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/exchange/exchangetest"
)

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// No names and no dates: nothing but the key matters.
	template := x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newExchange(t testing.TB) *Exchange {
	t.Helper()
	e, err := New(Config{Listen: "127.0.0.1:0", Certificate: certificate(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

func peerOf(e *Exchange) exchange.Peer {
	hash := e.CertHash()
	return exchange.Peer{Org: sha256.Sum256(hash[:]), CertHash: hash, Endpoints: []string{e.Addr()}}
}

func TestConformance(t *testing.T) {
	exchangetest.Run(t, func(t *testing.T, n int) []exchangetest.Node {
		nodes := make([]exchangetest.Node, n)
		for i := range nodes {
			e := newExchange(t)
			nodes[i] = exchangetest.Node{Exchange: e, Peer: peerOf(e)}
		}
		return nodes
	})
}
