// Package file keeps an organisation's private keys in a folder. It is the
// default driver of the keys port.
//
// All keys are in one file, keys.json (mode 0600, in a folder of mode 0700):
// the signing keys, the default first, and the HPKE key that peers seal secrets
// to. With a passphrase the file is encrypted (scrypt, AES-256-GCM), without
// one it is plain and says so. After opening, the keys are held in memory,
// decrypted, so that signing costs no I/O. The node's TLS identity (cert.pem,
// key.pem) lives here too; it stands for the machine, not for the organisation.
package file

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/wire"
)

// Options say how keys are protected and who learns of their use.
type Options struct {
	// Passphrase encrypts the file. Empty leaves it plain: then the protection
	// is that of the file system.
	Passphrase string
	// Log, if set, is told of each signature before it is made.
	Log func(key wire.Address, digest wire.Hash, purpose string)
}

// Keys holds the opened keys. Safe for concurrent use.
type Keys struct {
	dir        string
	log        func(wire.Address, wire.Hash, string)
	sealPublic []byte
	seal       []byte

	mu         sync.RWMutex
	passphrase string
	order      []wire.Address // the default first
	signing    map[wire.Address]*secp256k1.PrivateKey
}

var _ keys.Keys = (*Keys)(nil)

// Create makes a new folder with one signing key and one seal key. It refuses
// to touch a folder that has keys already.
func Create(dir string, o Options) (*Keys, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	private, public, err := wire.GenerateSealKey()
	if err != nil {
		return nil, fmt.Errorf("generate the seal key: %w", err)
	}
	k := &Keys{
		dir:        dir,
		log:        o.Log,
		passphrase: o.Passphrase,
		sealPublic: public,
		seal:       private,
		signing:    map[wire.Address]*secp256k1.PrivateKey{},
	}
	first, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return nil, fmt.Errorf("generate the signing key: %w", err)
	}
	k.order = []wire.Address{wire.AddressOf(first)}
	k.signing[k.order[0]] = first
	switch _, err := os.Lstat(k.path()); {
	case err == nil:
		return nil, fmt.Errorf("%s: %w: open it, or choose another folder", k.path(), fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("create the keys file: %w", err)
	}
	if err := k.save(k.order, k.signing, o.Passphrase); err != nil {
		return nil, err
	}
	return k, nil
}

// Open reads the keys of a folder that Create made. The error wraps
// fs.ErrNotExist if there are none.
func Open(dir string, o Options) (*Keys, error) {
	if err := checkMode(dir, true); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name)
	if err := checkMode(path, false); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	s, err := decode(b, o.Passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	k := &Keys{
		dir:        dir,
		log:        o.Log,
		passphrase: o.Passphrase,
		sealPublic: s.Seal.Public,
		seal:       s.Seal.Private,
		signing:    map[wire.Address]*secp256k1.PrivateKey{},
	}
	for i, e := range s.Signing {
		private, err := parsePrivate(e.Private)
		if err != nil {
			return nil, fmt.Errorf("%s: signing[%d] %s: %w", path, i, e.Address, err)
		}
		if a := wire.AddressOf(private); a != e.Address {
			return nil, fmt.Errorf("%s: signing[%d] says address %s, its private key has %s", path, i, e.Address, a)
		}
		k.order = append(k.order, e.Address)
		k.signing[e.Address] = private
	}
	if len(k.order) == 0 {
		return nil, fmt.Errorf("%s: signing: no key, want at least one", path)
	}
	return k, nil
}

// OpenOrCreate opens the keys of a folder and creates them on first use.
func OpenOrCreate(dir string, o Options) (*Keys, error) {
	k, err := Open(dir, o)
	if errors.Is(err, fs.ErrNotExist) {
		return Create(dir, o)
	}
	return k, err
}

// Addresses implements keys.Keys.
func (k *Keys) Addresses(context.Context) ([]wire.Address, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return slices.Clone(k.order), nil
}

// Sign implements keys.Keys.
func (k *Keys) Sign(ctx context.Context, key wire.Address, digest wire.Hash, purpose string) (wire.Signature, error) {
	if err := ctx.Err(); err != nil {
		return wire.Signature{}, err
	}
	k.mu.RLock()
	private := k.signing[key]
	k.mu.RUnlock()
	if private == nil {
		return wire.Signature{}, keys.ErrUnknownKey{Key: key}
	}
	if k.log != nil {
		k.log(key, digest, purpose)
	}
	return wire.SignDigest(private, digest), nil
}

// SealKey implements keys.Keys.
func (k *Keys) SealKey() []byte { return slices.Clone(k.sealPublic) }

// OpenSealed implements keys.Keys.
func (k *Keys) OpenSealed(sealed, info []byte) ([]byte, error) {
	return wire.OpenSealed(k.seal, info, sealed)
}

// NewSigningKey generates a signing key and stores it behind the others. The
// organisation adds it on the ledger before it signs with it.
func (k *Keys) NewSigningKey() (wire.Address, error) {
	private, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return wire.Address{}, fmt.Errorf("generate a signing key: %w", err)
	}
	return k.add(private)
}

// Import stores a signing key given as 32 bytes. One that is here already is
// no error.
func (k *Keys) Import(private []byte) (wire.Address, error) {
	p, err := parsePrivate(private)
	if err != nil {
		return wire.Address{}, err
	}
	return k.add(p)
}

func (k *Keys) add(private *secp256k1.PrivateKey) (wire.Address, error) {
	a := wire.AddressOf(private)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.signing[a] != nil {
		return a, nil
	}
	order := append(slices.Clone(k.order), a)
	k.signing[a] = private
	if err := k.save(order, k.signing, k.passphrase); err != nil {
		delete(k.signing, a)
		return wire.Address{}, err
	}
	k.order = order
	return a, nil
}

// SetDefault moves a key to the front.
func (k *Keys) SetDefault(key wire.Address) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.signing[key] == nil {
		return keys.ErrUnknownKey{Key: key}
	}
	order := []wire.Address{key}
	for _, a := range k.order {
		if a != key {
			order = append(order, a)
		}
	}
	if err := k.save(order, k.signing, k.passphrase); err != nil {
		return err
	}
	k.order = order
	return nil
}

// ChangePassphrase writes the file anew under another passphrase; an empty one
// leaves it plain.
func (k *Keys) ChangePassphrase(passphrase string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.save(k.order, k.signing, passphrase); err != nil {
		return err
	}
	k.passphrase = passphrase
	return nil
}

func (k *Keys) path() string { return filepath.Join(k.dir, name) }

func (k *Keys) save(order []wire.Address, signing map[wire.Address]*secp256k1.PrivateKey, passphrase string) error {
	s := secrets{Seal: sealPair{Public: k.sealPublic, Private: k.seal}}
	for _, a := range order {
		s.Signing = append(s.Signing, signingKey{Address: a, Private: signing[a].Serialize()})
	}
	b, err := encode(s, passphrase)
	if err != nil {
		return err
	}
	if err := writeFile(k.dir, name, b); err != nil {
		return fmt.Errorf("write the keys: %w", err)
	}
	return nil
}

// parsePrivate reads a private key, which must be in 1 to the group order - 1.
func parsePrivate(b []byte) (*secp256k1.PrivateKey, error) {
	if len(b) != 32 {
		return nil, fmt.Errorf("a private key has %d bytes, want 32", len(b))
	}
	var s secp256k1.ModNScalar
	if overflow := s.SetByteSlice(b); overflow || s.IsZero() {
		return nil, errors.New("the private key is not a number between 1 and the order of secp256k1")
	}
	return secp256k1.NewPrivateKey(&s), nil
}

// hexBytes are bytes that JSON shows as hex digits.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }
func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}
