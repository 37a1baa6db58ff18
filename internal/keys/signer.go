package keys

import (
	"context"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/parley-node/parley/wire"
)

// Signer signs chain transactions of applications. Drivers: this package's Local
// (the node's own keys), keystore (a folder of V3 files), remote (a signing
// service). Safe for concurrent use.
type Signer interface {
	// Accounts lists the accounts that it can sign for, in a fixed order.
	Accounts(ctx context.Context) ([]wire.Address, error)
	// SignTransaction signs an unsigned transaction, given as the bytes whose
	// Keccak-256 hash is signed (EIP-155 or EIP-2718). purpose says who asked for
	// what; it is written to the signing log. ErrUnknownKey if the key is not
	// here.
	SignTransaction(ctx context.Context, account wire.Address, unsigned []byte, purpose string) (wire.Signature, error)
}

// Local signs with an organisation's own keys.
type Local struct{ Keys Keys }

var _ Signer = Local{}

// Accounts implements Signer.
func (l Local) Accounts(ctx context.Context) ([]wire.Address, error) { return l.Keys.Addresses(ctx) }

// SignTransaction implements Signer.
func (l Local) SignTransaction(ctx context.Context, account wire.Address, unsigned []byte, purpose string) (wire.Signature, error) {
	return l.Keys.Sign(ctx, account, wire.Hash(crypto.Keccak256Hash(unsigned)), purpose)
}

// Signers are several, asked in order: the first that has a key signs with it.
type Signers []Signer

var _ Signer = Signers(nil)

// Accounts implements Signer. An account that several have is listed once.
func (s Signers) Accounts(ctx context.Context) (all []wire.Address, err error) {
	seen := map[wire.Address]bool{}
	for _, one := range s {
		some, err := one.Accounts(ctx)
		if err != nil {
			return nil, err
		}
		for _, a := range some {
			if !seen[a] {
				seen[a] = true
				all = append(all, a)
			}
		}
	}
	return all, nil
}

// SignTransaction implements Signer.
func (s Signers) SignTransaction(ctx context.Context, account wire.Address, unsigned []byte, purpose string) (wire.Signature, error) {
	for _, one := range s {
		signature, err := one.SignTransaction(ctx, account, unsigned, purpose)
		if _, unknown := err.(ErrUnknownKey); !unknown {
			return signature, err
		}
	}
	return wire.Signature{}, ErrUnknownKey{Key: account}
}
