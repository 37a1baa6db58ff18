package file

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/scrypt"

	"github.com/parley-node/parley/wire"
)

const (
	name          = "keys.json"
	formatVersion = 1

	plainNotice     = "PLAIN TEXT: whoever reads this file can sign for the organisation. Set a passphrase to encrypt it. Keep a backup: lost keys cannot be recovered."
	encryptedNotice = "Encrypted with a passphrase (scrypt, AES-256-GCM). Keep a backup of this file and of the passphrase: neither can be recovered."
)

// document is the file. Exactly one of Plain and Encrypted is set.
type document struct {
	Version   int        `json:"version"`
	Notice    string     `json:"notice"`
	Plain     *secrets   `json:"plain,omitempty"`
	Encrypted *encrypted `json:"encrypted,omitempty"`
}

type secrets struct {
	Signing []signingKey `json:"signing"`
	Seal    sealPair     `json:"seal"`
}

type signingKey struct {
	Address wire.Address `json:"address"`
	Private hexBytes     `json:"private"`
}

type sealPair struct {
	Public  hexBytes `json:"public"`
	Private hexBytes `json:"private"`
}

// encrypted is the JSON of secrets under AES-256-GCM; the key comes from the
// passphrase by scrypt (RFC 7914).
type encrypted struct {
	N          int      `json:"scryptN"`
	R          int      `json:"scryptR"`
	P          int      `json:"scryptP"`
	Salt       hexBytes `json:"salt"`
	Nonce      hexBytes `json:"nonce"`
	Ciphertext hexBytes `json:"ciphertext"`
}

// scryptCost takes about 32 MiB and a tenth of a second; maxScryptCost bounds
// what a file from elsewhere may ask for.
const (
	scryptCost    = 1 << 15
	maxScryptCost = 1 << 18
)

var errNeedsPassphrase = errors.New("the keys are encrypted and no passphrase is configured; give the one they were created with")

func encode(s secrets, passphrase string) ([]byte, error) {
	d := document{Version: formatVersion, Notice: plainNotice, Plain: &s}
	if passphrase != "" {
		e, err := encrypt(s, passphrase)
		if err != nil {
			return nil, err
		}
		d = document{Version: formatVersion, Notice: encryptedNotice, Encrypted: e}
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the keys: %w", err)
	}
	return append(b, '\n'), nil
}

func decode(b []byte, passphrase string) (secrets, error) {
	var d document
	if err := strict(b, &d); err != nil {
		return secrets{}, fmt.Errorf("not a keys file: %w", err)
	}
	switch {
	case d.Version != formatVersion:
		return secrets{}, fmt.Errorf("version: %d, this program reads %d", d.Version, formatVersion)
	case (d.Plain == nil) == (d.Encrypted == nil):
		return secrets{}, errors.New("want exactly one of plain and encrypted")
	case d.Plain != nil && passphrase != "":
		return secrets{}, errors.New("the keys are in plain text although a passphrase is configured; encrypt them first, or remove the passphrase")
	case d.Plain != nil:
		return *d.Plain, nil
	case passphrase == "":
		return secrets{}, errNeedsPassphrase
	}
	return d.Encrypted.open(passphrase)
}

func encrypt(s secrets, passphrase string) (*encrypted, error) {
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the keys: %w", err)
	}
	return seal(plain, passphrase)
}

// seal encrypts bytes under a passphrase.
func seal(plain []byte, passphrase string) (*encrypted, error) {
	e := &encrypted{N: scryptCost, R: 8, P: 1, Salt: make([]byte, 32), Nonce: make([]byte, 12)}
	rand.Read(e.Salt)
	rand.Read(e.Nonce)
	aead, err := e.aead(passphrase)
	if err != nil {
		return nil, err
	}
	e.Ciphertext = aead.Seal(nil, e.Nonce, plain, nil)
	return e, nil
}

// unseal is the inverse of seal.
func (e *encrypted) unseal(passphrase string) ([]byte, error) {
	aead, err := e.aead(passphrase)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, e.Nonce, e.Ciphertext, nil)
	if err != nil {
		return nil, errors.New("the keys do not open: the passphrase is not the one they were encrypted with, or the file was changed")
	}
	return plain, nil
}

func (e *encrypted) open(passphrase string) (s secrets, err error) {
	plain, err := e.unseal(passphrase)
	if err != nil {
		return s, err
	}
	if err := strict(plain, &s); err != nil {
		return s, fmt.Errorf("the decrypted keys: %w", err)
	}
	return s, nil
}

func (e *encrypted) aead(passphrase string) (cipher.AEAD, error) {
	switch {
	case e.N < 2 || e.N > maxScryptCost || e.N&(e.N-1) != 0:
		return nil, fmt.Errorf("scryptN: %d, want a power of two up to %d", e.N, maxScryptCost)
	case e.R != 8 || e.P != 1:
		return nil, fmt.Errorf("scryptR and scryptP: %d and %d, want 8 and 1", e.R, e.P)
	case len(e.Salt) < 16:
		return nil, fmt.Errorf("salt: %d bytes, want at least 16", len(e.Salt))
	case len(e.Nonce) != 12:
		return nil, fmt.Errorf("nonce: %d bytes, want 12", len(e.Nonce))
	}
	key, err := scrypt.Key([]byte(passphrase), e.Salt, e.N, e.R, e.P, 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key from the passphrase: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("use the key from the passphrase: %w", err)
	}
	return cipher.NewGCM(block)
}

// strict decodes one JSON document without unknown fields or trailing bytes.
func strict(b []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the document")
	}
	return nil
}
