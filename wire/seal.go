package wire

import (
	"crypto/hpke"
	"fmt"
)

// What is meant for one node only is sealed to its key with HPKE (RFC 9180)
// using the hybrid post-quantum KEM ML-KEM-768 + X25519, HKDF-SHA256 and
// AES-256-GCM.

func sealKEM() hpke.KEM { return hpke.MLKEM768X25519() }

// GenerateSealKey makes a new key pair for SealTo and OpenSealed, in the
// serialised form of RFC 9180 §4.
func GenerateSealKey() (private, public []byte, err error) {
	key, err := sealKEM().GenerateKey()
	if err != nil {
		return nil, nil, fmt.Errorf("generate seal key: %w", err)
	}
	private, err = key.Bytes()
	if err != nil {
		return nil, nil, fmt.Errorf("generate seal key: %w", err)
	}
	return private, key.PublicKey().Bytes(), nil
}

// SealTo encrypts plain to a public seal key. OpenSealed needs the same info.
func SealTo(public, info, plain []byte) ([]byte, error) {
	key, err := sealKEM().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("seal: public key of %d bytes: %w", len(public), err)
	}
	sealed, err := hpke.Seal(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, plain)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return sealed, nil
}

// OpenSealed decrypts what SealTo made for the public half of private.
func OpenSealed(private, info, sealed []byte) ([]byte, error) {
	key, err := sealKEM().NewPrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("open sealed: private key of %d bytes: %w", len(private), err)
	}
	plain, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed)
	if err != nil {
		return nil, fmt.Errorf("open sealed: %d bytes do not open with this key and info: %w", len(sealed), err)
	}
	return plain, nil
}
