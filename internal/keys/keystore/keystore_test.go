package keystore

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/wire"
)

// The test vectors of the specification of Web3 Secret Storage.
const (
	vectorKey    = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
	vectorPBKDF2 = `{"address":"008aeeda4d805471df9b2a5b0f38a0c3bcba786b","crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},"ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2","kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},"mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}`
)

func TestVector(t *testing.T) {
	key, err := Decrypt([]byte(vectorPBKDF2), "testpassword")
	if err != nil || hex.EncodeToString(key.Serialize()) != vectorKey {
		t.Errorf("got %v", err)
	}
	if _, err := Decrypt([]byte(vectorPBKDF2), "wrong"); err == nil || !strings.Contains(err.Error(), "passphrase is wrong") {
		t.Errorf("a wrong passphrase gives %v", err)
	}
}

func newKey(t testing.TB) *secp256k1.PrivateKey {
	t.Helper()
	k, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// put writes a key's file with its passphrase.
func put(t testing.TB, dir, name string, key *secp256k1.PrivateKey, own bool) {
	t.Helper()
	text, err := Encrypt(key, "secret", 4)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if own {
		base := strings.TrimSuffix(name, filepath.Ext(name))
		if err := os.WriteFile(filepath.Join(dir, base+passwordSuffix), []byte("secret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHotReload: keys come and go with their files.
func TestHotReload(t *testing.T) {
	dir, first, second := t.TempDir(), newKey(t), newKey(t)
	common := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(common, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "a.json", first, true)
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	k, err := Open(dir, Options{PassphraseFile: common, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	unsigned := []byte("a transaction")
	sign := func(key *secp256k1.PrivateKey) error {
		signature, err := k.SignTransaction(t.Context(), wire.AddressOf(key), unsigned, "test")
		if err != nil {
			return err
		}
		signer, err := wire.RecoverAddress(wire.Hash(crypto.Keccak256Hash(unsigned)), signature)
		if err == nil && signer != wire.AddressOf(key) {
			t.Errorf("signed by %s", signer)
		}
		return err
	}
	if err := sign(first); err != nil {
		t.Error(err)
	}
	var unknown keys.ErrUnknownKey
	if err := sign(second); !errors.As(err, &unknown) {
		t.Errorf("an unknown key gives %v", err)
	}
	put(t, dir, "UTC--2026--b", second, false)
	now = now.Add(2 * rescan)
	if err := sign(second); err != nil {
		t.Error(err)
	}
	if all, err := k.Accounts(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("accounts %v %v", all, err)
	}
	if err := os.Remove(filepath.Join(dir, "a.json")); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * rescan)
	if err := sign(first); !errors.As(err, &unknown) {
		t.Errorf("a removed key gives %v", err)
	}
}

// FuzzDecrypt: a file may be anything.
func FuzzDecrypt(f *testing.F) {
	text, err := Encrypt(newKey(f), "secret", 4)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":3,"crypto":{"cipher":"aes-128-ctr","kdf":"scrypt","kdfparams":{"dklen":32,"n":1073741824,"r":8,"p":1}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var file file
		if json.Unmarshal(text, &file) == nil && (file.Crypto.KDFParams.N > 1<<10 || file.Crypto.KDFParams.R > 1<<6 || file.Crypto.KDFParams.Count > 1<<10) {
			return // possible, and slow
		}
		if key, err := Decrypt(text, "secret"); err == nil && key == nil {
			t.Error("neither a key nor an error")
		}
	})
}
