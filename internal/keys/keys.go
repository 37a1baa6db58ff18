// Package keys is the port to an organisation's private keys. They never leave
// it: callers get signatures. Drivers: file (a folder with encrypted keys).
package keys

import (
	"context"

	"github.com/parley-node/parley/wire"
)

// Keys signs for one organisation. Safe for concurrent use.
type Keys interface {
	// Addresses lists the signing keys that are here, the default first.
	Addresses(ctx context.Context) ([]wire.Address, error)
	// Sign signs a 32-byte digest with the key of an address. purpose says what
	// for ("pin", "receipt", "transaction" …) and is written to the signing log.
	// ErrUnknownKey if the key is not here.
	Sign(ctx context.Context, key wire.Address, digest wire.Hash, purpose string) (wire.Signature, error)
	// SealKey is the public HPKE key that peers seal secrets to.
	SealKey() []byte
	// OpenSealed opens what was sealed to SealKey (wire.SealTo).
	OpenSealed(sealed, info []byte) ([]byte, error)
}

// ErrUnknownKey names a signing key that this node does not hold.
type ErrUnknownKey struct{ Key wire.Address }

func (e ErrUnknownKey) Error() string {
	return "no private key here for " + e.Key.String() + "; import it into the node's keys folder, or sign with one of its own"
}
