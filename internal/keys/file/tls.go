package file

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
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
// for people to read. The key is encrypted with the passphrase of the other
// keys, unless that is empty.
func TLSCertificate(dir, commonName, passphrase string) (tls.Certificate, wire.Hash, error) {
	if err := makeDir(dir); err != nil {
		return tls.Certificate{}, wire.Hash{}, err
	}
	cert, err := loadCertificate(dir, passphrase)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createCertificate(dir, commonName, passphrase); err != nil {
			return tls.Certificate{}, wire.Hash{}, fmt.Errorf("create the TLS certificate: %w", err)
		}
		cert, err = loadCertificate(dir, passphrase)
	}
	if err != nil {
		return tls.Certificate{}, wire.Hash{}, err
	}
	return cert, sha256.Sum256(cert.Certificate[0]), nil
}

// loadCertificate returns fs.ErrNotExist only if the certificate is missing:
// it is written after the key, so a key alone is half a creation, and a
// certificate alone is a loss that must not be papered over.
func loadCertificate(dir, passphrase string) (tls.Certificate, error) {
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
	chain, err := os.ReadFile(certPath)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read the TLS certificate: %w", err)
	}
	key, err := readKey(keyPath, passphrase)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", keyPath, err)
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load the TLS certificate %s: %w", certPath, err)
	}
	if now := time.Now(); now.After(cert.Leaf.NotAfter) {
		return tls.Certificate{}, fmt.Errorf("the TLS certificate %s expired on %s; remove it and %s, restart, and register the new one on the ledger",
			certPath, cert.Leaf.NotAfter.Format(time.DateOnly), keyPath)
	}
	return cert, nil
}

// Types of the PEM block in the key's file.
const (
	plainKey  = "PRIVATE KEY"       // PKCS #8
	sealedKey = "PARLEY SEALED KEY" // that, as in keys.json under a passphrase
)

// readKey reads the private key as PEM of PKCS #8.
func readKey(path, passphrase string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("it holds no PEM block")
	case block.Type == plainKey && passphrase != "":
		return nil, errors.New("the TLS key is in plain text although a passphrase is configured; remove it and the certificate, restart, and register the new one on the ledger, or remove the passphrase")
	case block.Type == plainKey:
		return text, nil
	case block.Type != sealedKey:
		return nil, fmt.Errorf("it holds a PEM block %q, want %q or %q", block.Type, plainKey, sealedKey)
	case passphrase == "":
		return nil, errNeedsPassphrase
	}
	var sealed encrypted
	if err := strict(block.Bytes, &sealed); err != nil {
		return nil, fmt.Errorf("the sealed key: %w", err)
	}
	key, err := sealed.unseal(passphrase)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: plainKey, Bytes: key}), nil
}

func createCertificate(dir, commonName, passphrase string) error {
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
	block := &pem.Block{Type: plainKey, Bytes: key}
	if passphrase != "" {
		sealed, err := seal(key, passphrase)
		if err != nil {
			return err
		}
		block.Type = sealedKey
		if block.Bytes, err = json.Marshal(sealed); err != nil {
			return err
		}
	}
	// The key first: see loadCertificate.
	if err := writeFile(dir, keyName, pem.EncodeToMemory(block)); err != nil {
		return err
	}
	return writeFile(dir, certName, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
}
