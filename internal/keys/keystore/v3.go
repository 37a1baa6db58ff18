package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/google/uuid"
	"golang.org/x/crypto/scrypt"

	"github.com/parley-node/parley/wire"
)

// file is Web3 Secret Storage, version 3.
type file struct {
	Address string `json:"address"`
	Crypto  struct {
		Cipher     string `json:"cipher"`
		CipherText string `json:"ciphertext"`
		Params     struct {
			IV string `json:"iv"`
		} `json:"cipherparams"`
		KDF       string    `json:"kdf"`
		KDFParams kdfParams `json:"kdfparams"`
		MAC       string    `json:"mac"`
	} `json:"crypto"`
	ID      string `json:"id"`
	Version int    `json:"version"`
}

type kdfParams struct {
	Length int    `json:"dklen"`
	Salt   string `json:"salt"`
	N      int    `json:"n,omitempty"` // scrypt
	R      int    `json:"r,omitempty"`
	P      int    `json:"p,omitempty"`
	Count  int    `json:"c,omitempty"` // pbkdf2
	PRF    string `json:"prf,omitempty"`
}

// Bounds that keep a damaged file from taking all memory and time.
const (
	maxScrypt = 1 << 30 // bytes: 128·n·r
	maxP      = 16
	maxCount  = 10_000_000
)

// derive makes the key that opens a file, 32 bytes.
func (k kdfParams) derive(kdf, passphrase string) ([]byte, error) {
	salt, err := hex.DecodeString(k.Salt)
	if err != nil {
		return nil, fmt.Errorf("crypto.kdfparams.salt: %w", err)
	}
	if k.Length != 32 {
		return nil, fmt.Errorf("crypto.kdfparams.dklen is %d, want 32", k.Length)
	}
	switch kdf {
	case "scrypt":
		if k.N < 2 || k.R < 1 || k.P < 1 || k.P > maxP || k.N > maxScrypt/128 || k.R > maxScrypt/128/k.N {
			return nil, fmt.Errorf("crypto.kdfparams: scrypt with n=%d r=%d p=%d is out of bounds", k.N, k.R, k.P)
		}
		return scrypt.Key([]byte(passphrase), salt, k.N, k.R, k.P, k.Length)
	case "pbkdf2":
		if k.PRF != "hmac-sha256" || k.Count < 1 || k.Count > maxCount {
			return nil, fmt.Errorf("crypto.kdfparams: pbkdf2 with prf %q and c=%d is not supported", k.PRF, k.Count)
		}
		return pbkdf2.Key(sha256.New, passphrase, salt, k.Count, k.Length)
	}
	return nil, fmt.Errorf("crypto.kdf %q is neither scrypt nor pbkdf2", kdf)
}

// Decrypt opens a file's key.
func Decrypt(text []byte, passphrase string) (*secp256k1.PrivateKey, error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	if f.Version != 3 || f.Crypto.Cipher != "aes-128-ctr" {
		return nil, fmt.Errorf("version %d with cipher %q is not supported, want 3 with aes-128-ctr", f.Version, f.Crypto.Cipher)
	}
	sealed, err1 := hex.DecodeString(f.Crypto.CipherText)
	iv, err2 := hex.DecodeString(f.Crypto.Params.IV)
	mac, err3 := hex.DecodeString(f.Crypto.MAC)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("crypto: %w", err)
	}
	if len(sealed) != 32 || len(iv) != aes.BlockSize {
		return nil, fmt.Errorf("crypto: ciphertext and iv have %d and %d bytes, want 32 and %d", len(sealed), len(iv), aes.BlockSize)
	}
	derived, err := f.Crypto.KDFParams.derive(f.Crypto.KDF, passphrase)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(crypto.Keccak256(derived[16:32], sealed), mac) != 1 {
		return nil, errors.New("the passphrase is wrong, or the file is damaged")
	}
	plain, err := ctr(derived[:16], iv, sealed)
	if err != nil {
		return nil, err
	}
	var s secp256k1.ModNScalar
	if overflow := s.SetByteSlice(plain); overflow || s.IsZero() {
		return nil, errors.New("the key is not a number between 1 and the order of secp256k1")
	}
	return secp256k1.NewPrivateKey(&s), nil
}

// Encrypt makes a file of a key, with scrypt of 2^n.
func Encrypt(key *secp256k1.PrivateKey, passphrase string, n int) ([]byte, error) {
	random := make([]byte, 32+aes.BlockSize)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	var f file
	f.Address, f.ID, f.Version = wire.AddressOf(key).String()[2:], uuid.NewString(), 3
	c := &f.Crypto
	c.Cipher, c.KDF = "aes-128-ctr", "scrypt"
	c.KDFParams = kdfParams{Length: 32, Salt: hex.EncodeToString(random[:32]), N: 1 << n, R: 8, P: 1}
	derived, err := c.KDFParams.derive(c.KDF, passphrase)
	if err != nil {
		return nil, err
	}
	sealed, err := ctr(derived[:16], random[32:], key.Serialize())
	if err != nil {
		return nil, err
	}
	c.Params.IV, c.CipherText, c.MAC = hex.EncodeToString(random[32:]), hex.EncodeToString(sealed), hex.EncodeToString(crypto.Keccak256(derived[16:32], sealed))
	return json.MarshalIndent(f, "", "  ")
}

// ctr encrypts or decrypts with AES-128 in counter mode.
func ctr(key, iv, in []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(in))
	cipher.NewCTR(block, iv).XORKeyStream(out, in)
	return out, nil
}
