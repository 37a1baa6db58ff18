// Package keystore signs chain transactions with the keys of a folder of Web3
// Secret Storage files (version 3), as Ethereum clients write them. A driver of
// the port keys.Signer.
//
// The passphrase of a file is the first line of the file with .password in place
// of its extension, or of the folder's one passphrase file. The folder is read
// again when it changes: a file that is put there can sign, one that is removed
// cannot any more, without a restart. Keys are decrypted when they sign first.
package keystore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/wire"
)

// rescan is how old what is known of the folder may be.
const rescan = time.Second

// Options say how files are opened.
type Options struct {
	PassphraseFile string // for files without one of their own; may be empty
	Log            *slog.Logger
	Now            func() time.Time // time.Now if nil
}

// Keystore is an open folder. Safe for concurrent use.
type Keystore struct {
	dir string
	o   Options

	mu     sync.Mutex
	looked time.Time
	order  []wire.Address
	files  map[wire.Address]*entry
}

// entry is a file of the folder.
type entry struct {
	path    string
	size    int64
	changed time.Time
	key     *secp256k1.PrivateKey // nil until it has signed
}

var _ keys.Signer = (*Keystore)(nil)

// Open reads a folder's list of keys.
func Open(dir string, o Options) (*Keystore, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	k := &Keystore{dir: dir, o: o, files: map[wire.Address]*entry{}}
	return k, k.scan()
}

// scan reads the folder's list, unless that was done just now. The caller holds
// the lock, or is alone.
func (k *Keystore) scan() error {
	if !k.looked.IsZero() && k.o.Now().Sub(k.looked) < rescan {
		return nil
	}
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return fmt.Errorf("read the keystore: %w", err)
	}
	had := k.files
	k.looked, k.order, k.files = k.o.Now(), nil, map[wire.Address]*entry{}
	for _, d := range entries {
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return fmt.Errorf("read the keystore: %w", err)
		}
		if !info.Mode().IsRegular() || strings.HasPrefix(d.Name(), ".") || strings.HasSuffix(d.Name(), passwordSuffix) {
			continue
		}
		e := &entry{path: filepath.Join(k.dir, d.Name()), size: info.Size(), changed: info.ModTime()}
		address, err := addressOf(e.path)
		if err != nil {
			k.o.Log.Warn("a file in the keystore is no key and is left out", "file", e.path, "err", err)
			continue
		}
		if other := k.files[address]; other != nil {
			k.o.Log.Warn("two files of the keystore have the same address; the first counts", "file", e.path, "first", other.path)
			continue
		}
		if old := had[address]; old != nil && old.path == e.path && old.size == e.size && old.changed.Equal(e.changed) {
			e.key = old.key
		} else {
			k.o.Log.Info("the keystore has a key", "address", address, "file", e.path)
		}
		k.files[address] = e
		k.order = append(k.order, address)
	}
	for address := range had {
		if k.files[address] == nil {
			k.o.Log.Info("a key was removed from the keystore", "address", address)
		}
	}
	return nil
}

const passwordSuffix = ".password"

// addressOf reads the address that a file names.
func addressOf(path string) (wire.Address, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return wire.Address{}, err
	}
	var f struct {
		Address string `json:"address"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return wire.Address{}, err
	}
	if f.Version != 3 {
		return wire.Address{}, fmt.Errorf("its version is %d, want 3", f.Version)
	}
	return wire.ParseAddress(f.Address)
}

// Accounts implements keys.Signer.
func (k *Keystore) Accounts(ctx context.Context) ([]wire.Address, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.scan(); err != nil {
		return nil, err
	}
	return slices.Clone(k.order), nil
}

// SignTransaction implements keys.Signer.
func (k *Keystore) SignTransaction(ctx context.Context, account wire.Address, unsigned []byte, purpose string) (wire.Signature, error) {
	if err := ctx.Err(); err != nil {
		return wire.Signature{}, err
	}
	key, err := k.key(account)
	if err != nil {
		return wire.Signature{}, err
	}
	digest := wire.Hash(crypto.Keccak256Hash(unsigned))
	k.o.Log.Info("signing", "account", account, "digest", digest, "purpose", purpose)
	return wire.SignDigest(key, digest), nil
}

func (k *Keystore) key(account wire.Address) (*secp256k1.PrivateKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.scan(); err != nil {
		return nil, err
	}
	e := k.files[account]
	if e == nil {
		return nil, keys.ErrUnknownKey{Key: account}
	}
	if e.key != nil {
		return e.key, nil
	}
	text, err := os.ReadFile(e.path)
	if err != nil {
		return nil, fmt.Errorf("read the keystore: %w", err)
	}
	passphrase, err := k.passphrase(e.path)
	if err != nil {
		return nil, err
	}
	key, err := Decrypt(text, passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.path, err)
	}
	if is := wire.AddressOf(key); is != account {
		return nil, fmt.Errorf("%s: it names the address %s, and its key has %s", e.path, account, is)
	}
	e.key = key
	return key, nil
}

// passphrase finds that of a file.
func (k *Keystore) passphrase(path string) (string, error) {
	own := strings.TrimSuffix(path, filepath.Ext(path)) + passwordSuffix
	text, err := os.ReadFile(own)
	if errors.Is(err, fs.ErrNotExist) && k.o.PassphraseFile != "" {
		text, err = os.ReadFile(k.o.PassphraseFile)
	}
	if err != nil {
		return "", fmt.Errorf("the passphrase of %s: %w; write it into %s", path, err, own)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimRight(line, "\r"), nil
}
