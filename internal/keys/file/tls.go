package file

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/parley-node/parley/wire"
)

const (
	certName = "cert.pem"
	keyName  = "key.pem"

	certYears = 10
)

// TLSCertificate loads the node's TLS identity from cert.pem and key.pem in
// dir, or creates it: a self-signed P-256 certificate that is valid for ten
// years. Peers know a node by the second result, the SHA-256 of the
// certificate (DER), which the member registers on the ledger; commonName is
// for people to read.
func TLSCertificate(dir, commonName string) (tls.Certificate, wire.Hash, error) {
	if err := makeDir(dir); err != nil {
		return tls.Certificate{}, wire.Hash{}, err
	}
	cert, err := loadCertificate(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createCertificate(dir, commonName); err != nil {
			return tls.Certificate{}, wire.Hash{}, fmt.Errorf("create the TLS certificate: %w", err)
		}
		cert, err = loadCertificate(dir)
	}
	if err != nil {
		return tls.Certificate{}, wire.Hash{}, err
	}
	return cert, sha256.Sum256(cert.Certificate[0]), nil
}

// loadCertificate returns fs.ErrNotExist only if the certificate is missing:
// it is written after the key, so a key alone is half a creation, and a
// certificate alone is a loss that must not be papered over.
func loadCertificate(dir string) (tls.Certificate, error) {
	certPath, keyPath := filepath.Join(dir, certName), filepath.Join(dir, keyName)
	if _, err := os.Stat(certPath); err != nil {
		return tls.Certificate{}, fmt.Errorf("look at the TLS certificate: %w", err)
	}
	if _, err := os.Stat(keyPath); errors.Is(err, fs.ErrNotExist) {
		return tls.Certificate{}, fmt.Errorf("%s is here without its private key %s; restore the key from a backup, or remove the certificate and register the new one on the ledger", certPath, keyPath)
	}
	if err := checkMode(keyPath, false); err != nil {
		return tls.Certificate{}, err
	}
	cert, err := tls.LoadX509KeyPair(certPath, keyPath)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load the TLS certificate %s: %w", certPath, err)
	}
	if now := time.Now(); now.After(cert.Leaf.NotAfter) {
		return tls.Certificate{}, fmt.Errorf("the TLS certificate %s expired on %s; remove it and %s, restart, and register the new one on the ledger",
			certPath, cert.Leaf.NotAfter.Format(time.DateOnly), keyPath)
	}
	return cert, nil
}

func createCertificate(dir, commonName string) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		DNSNames:              []string{"localhost"},
		NotBefore:             now.Add(-time.Hour), // a peer's clock may be behind
		NotAfter:              now.AddDate(certYears, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	// The key first: see loadCertificate.
	if err := writeFile(dir, keyName, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})); err != nil {
		return err
	}
	return writeFile(dir, certName, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
}
