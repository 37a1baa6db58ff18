package wire

import (
	"fmt"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"
)

func keccak(parts ...[]byte) (h Hash) {
	k := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		k.Write(p)
	}
	k.Sum(h[:0])
	return h
}

func addressOf(pub *secp256k1.PublicKey) (a Address) {
	h := keccak(pub.SerializeUncompressed()[1:])
	copy(a[:], h[12:])
	return a
}

// AddressOf is the account address of a private key: the last 20 bytes of
// Keccak-256 of the public key.
func AddressOf(priv *secp256k1.PrivateKey) Address { return addressOf(priv.PubKey()) }

// compactBase is what the ecdsa package adds to the recovery bit.
const compactBase = 27

// SignDigest signs a 32-byte digest: deterministic (RFC 6979), with the lower
// of the two possible s.
func SignDigest(priv *secp256k1.PrivateKey, digest Hash) (sig Signature) {
	compact := ecdsa.SignCompact(priv, digest[:], false)
	copy(sig[:64], compact[1:])
	sig[64] = compact[0] - compactBase
	return sig
}

// RecoverAddress gives the address of the key that signed. It refuses a high s
// and a v other than 0 or 1, so that nobody can turn one valid signature into
// another one.
func RecoverAddress(digest Hash, sig Signature) (Address, error) {
	if sig[64] > 1 {
		return Address{}, fmt.Errorf("signature: v is %d, want 0 or 1", sig[64])
	}
	var s secp256k1.ModNScalar
	if overflow := s.SetByteSlice(sig[32:64]); overflow || s.IsZero() {
		return Address{}, fmt.Errorf("signature: s %x is not in the range of the curve", sig[32:64])
	}
	if s.IsOverHalfOrder() {
		return Address{}, fmt.Errorf("signature: s %x is above half the order; sign with the lower s", sig[32:64])
	}
	var compact [65]byte
	compact[0] = compactBase + sig[64]
	copy(compact[1:], sig[:64])
	pub, _, err := ecdsa.RecoverCompact(compact[:], digest[:])
	if err != nil {
		return Address{}, fmt.Errorf("signature: %w", err)
	}
	return addressOf(pub), nil
}

// Digest is what Signature signs: all other fields.
func (r Receipt) Digest() (Hash, error) {
	return hashValue("parley/receipt", struct {
		_            struct{} `cbor:",toarray"`
		Version      uint
		Network      Hash
		Org, Author  OrgID
		Audience     Hash
		Epoch        uint64
		Root         Hash
		Faults       Hash
		RecentBlock  Hash
		RecentNumber uint64
	}{
		Version: r.Version, Network: r.Network, Org: r.Org, Author: r.Author, Audience: r.Audience,
		Epoch: r.Epoch, Root: r.Root, Faults: r.Faults, RecentBlock: r.RecentBlock, RecentNumber: r.RecentNumber,
	})
}

// Signer is the address that signed the receipt. Whose key it is, only the
// ledger knows.
func (r Receipt) Signer() (Address, error) {
	digest, err := r.Digest()
	if err != nil {
		return Address{}, err
	}
	return RecoverAddress(digest, r.Signature)
}

// CarriedPinDigest is the EIP-712 digest that a member key signs for a pin
// which a custom contract (caller) hands to the network contract, valid up to
// block expiry. handles are hashed as their plain concatenation, 16 bytes each,
// without the padding that Solidity's encodePacked gives to array elements.
func CarriedPinDigest(chainID uint64, contract, caller Address, expiry uint64, p Pin) Hash {
	domainType := keccak([]byte("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"))
	name, version := keccak([]byte("Parley")), keccak([]byte("1"))
	domain := keccak(domainType[:], name[:], version[:], wordOf(be64(chainID)), wordOf(contract[:]))

	pinType := keccak([]byte("CarriedPin(bytes32 root,bytes16 tag,bytes32 handles,bytes32 control,address caller,uint64 expiry)"))
	packed := make([]byte, 0, len(Handle{})*len(p.Handles))
	for _, h := range p.Handles {
		packed = append(packed, h[:]...)
	}
	handles, control := keccak(packed), keccak(p.Control)
	var tag [32]byte // bytesN values are padded on the right
	copy(tag[:], p.Tag[:])
	pin := keccak(pinType[:], p.Root[:], tag[:], handles[:], control[:], wordOf(caller[:]), wordOf(be64(expiry)))

	return keccak([]byte{0x19, 0x01}, domain[:], pin[:])
}

// wordOf pads a number or an address on the left to 32 bytes.
func wordOf(b []byte) []byte {
	w := make([]byte, 32)
	copy(w[32-len(b):], b)
	return w
}
