package node

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/keys/file"
	"github.com/parley-node/parley/internal/ledger/bundled"
	"github.com/parley-node/parley/wire"
)

// Member is the public part of a member: what it tells the founder of a network
// or, when it wants to join one, its future fellow members. It is signed with
// the key it names, so that whoever admits that key admits who made this.
type Member struct {
	Name      string           `json:"name"`
	Org       wire.OrgID       `json:"org"` // on the ledger
	Key       wire.Address     `json:"key"`
	CertHash  wire.Hash        `json:"certHash"` // SHA-256 of the node's TLS certificate
	Endpoints []string         `json:"endpoints"`
	Validator *MemberValidator `json:"validator,omitempty"` // of the bundled ledger
	Signature wire.Signature   `json:"signature"`
}

// MemberValidator is the public part of a validator of the bundled ledger.
type MemberValidator struct {
	PublicKey wire.Hash `json:"publicKey"`
	Peer      string    `json:"peer"` // nodeId@host:port
}

// digest is what the member's key signs.
func (m Member) digest() (wire.Hash, error) {
	m.Signature = wire.Signature{}
	text, err := json.Marshal(m)
	return wire.HashOf("parley/member", text), err
}

// Check says whether the signature is by the key that the member names.
func (m Member) Check() error {
	digest, err := m.digest()
	if err != nil {
		return err
	}
	signer, err := wire.RecoverAddress(digest, m.Signature)
	if err != nil {
		return fmt.Errorf("member %q: %w", m.Name, err)
	}
	if signer != m.Key {
		return fmt.Errorf("member %q: the file is signed by %s and names the key %s; ask the member for an unchanged file (parley join makes it)", m.Name, signer, m.Key)
	}
	return nil
}

// ReadMember reads a member's public part from a file and checks it.
func ReadMember(path string) (*Member, error) {
	m := new(Member)
	if err := readJSON(path, m); err != nil {
		return nil, err
	}
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// Init makes a member's folder: configuration, keys, TLS certificate and, with
// the bundled ledger, the validator's keys. c is what the configuration is to
// say; names, ids and addresses that it leaves out are chosen. A folder that is
// a member's already is refused.
func Init(ctx context.Context, c *Config) (*Member, error) {
	path := filepath.Join(c.Dir, ConfigFile)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, fmt.Errorf("%s exists already; choose an empty folder for another member", path))
	}
	if c.Org.Salt.IsZero() {
		rand.Read(c.Org.Salt[:]) // never fails: see crypto/rand
	}
	if c.Node.ID == uuid.Nil {
		c.Node.ID = uuid.Must(uuid.NewV7())
	}
	c.complete()
	if len(c.Exchange.Advertise) == 0 {
		c.Exchange.Advertise = []string{c.Exchange.Listen}
	}
	if err := c.check(false); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the member's folder: %w", err)
	}
	passphrase, err := c.passphrase()
	if err != nil {
		return nil, err
	}
	if _, err := file.OpenOrCreate(c.path(c.Keys.Dir), file.Options{Passphrase: passphrase}); err != nil {
		return nil, err
	}
	if b := c.Ledger.Bundled; b != nil {
		if _, err := bundled.Init(c.path(b.Dir)); err != nil {
			return nil, err
		}
	}
	// Last: the file says that the folder is complete.
	if err := c.write(); err != nil {
		return nil, err
	}
	return MemberOf(ctx, c)
}

// write puts the configuration into the member's folder.
func (c *Config) write() error {
	text, err := c.Marshal()
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(c.Dir, ConfigFile), text)
}

// MemberOf is the public part of the member whose folder this is, signed.
func MemberOf(ctx context.Context, c *Config) (*Member, error) {
	ks, err := openKeys(c)
	if err != nil {
		return nil, err
	}
	addresses, err := ks.Addresses(ctx)
	if err != nil {
		return nil, err
	}
	m := &Member{Name: c.Org.Name, Org: c.OrgID(), Key: addresses[0], Endpoints: c.Exchange.Advertise}
	if _, m.CertHash, err = c.certificate(); err != nil {
		return nil, err
	}
	if b := c.Ledger.Bundled; b != nil {
		id, err := bundled.ReadIdentity(c.path(b.Dir))
		if err != nil {
			return nil, err
		}
		address := b.Advertise
		if address == "" {
			address = b.P2P
		}
		m.Validator = &MemberValidator{PublicKey: id.PublicKey, Peer: id.NodeID + "@" + address}
	}
	digest, err := m.digest()
	if err != nil {
		return nil, err
	}
	m.Signature, err = ks.Sign(ctx, m.Key, digest, "member")
	return m, err
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// WriteJSON writes a value as indented JSON to a file that only the owner can
// read.
func WriteJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(text, '\n'))
}

// writeFile replaces a file as a whole: a crash leaves the old one or the new.
func writeFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
