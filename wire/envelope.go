package wire

import "fmt"

// Envelope is a sealed payload as peers send, serve and store it (exchange kind
// "payload"; object part "batch").
type Envelope struct {
	_        struct{} `cbor:",toarray"`
	Author   OrgID
	Audience Hash
	Epoch    uint64
	Root     Hash
	Sealed   []byte // Keys.SealPayload of Batch.Encode
}

// Invitation hands an epoch's definition and its secret to one member. Sealed
// opens to Marshal(EpochSecret) with the receiver's node key; its info is the
// definition's hash (exchange kind "invite"; the answer is a Receipt whose Root
// is that hash).
type Invitation struct {
	_          struct{} `cbor:",toarray"`
	Definition EpochDefinition
	Sealed     []byte
}

// SecretRequest asks a member for an epoch's invitation (exchange kind
// "secret"; the answer is an Invitation).
type SecretRequest struct {
	_        struct{} `cbor:",toarray"`
	Audience Hash
	Epoch    uint64
}

// Unpinned is a batch that is not pinned: the same envelope, numbered per
// author and audience from 1 and signed (exchange kind "unpinned"; the answer
// is a Receipt whose Root is Digest, so that it cannot count for a pin). Previous
// is the Digest of the batch before it, zero for the first.
type Unpinned struct {
	_         struct{} `cbor:",toarray"`
	Envelope  Envelope
	Sequence  uint64
	Previous  Hash
	Signature Signature
}

// NewInvitation seals an epoch's secret to a member's public seal key.
func NewInvitation(d EpochDefinition, s EpochSecret, public []byte) (Invitation, error) {
	if err := d.CheckKeys(s.Keys()); err != nil {
		return Invitation{}, err
	}
	info, err := d.Hash()
	if err != nil {
		return Invitation{}, err
	}
	plain, err := Marshal(s)
	if err != nil {
		return Invitation{}, err
	}
	sealed, err := SealTo(public, info[:], plain)
	return Invitation{Definition: d, Sealed: sealed}, err
}

// Open checks the definition, opens the secret and checks that it is the one
// which the definition commits to. open is the node's decryption with its seal
// key (keys.Keys.OpenSealed).
func (i Invitation) Open(open func(sealed, info []byte) ([]byte, error)) (EpochSecret, error) {
	if err := i.Definition.Check(); err != nil {
		return EpochSecret{}, err
	}
	info, err := i.Definition.Hash()
	if err != nil {
		return EpochSecret{}, err
	}
	plain, err := open(i.Sealed, info[:])
	if err != nil {
		return EpochSecret{}, fmt.Errorf("invitation to epoch %d: %w", i.Definition.Epoch, err)
	}
	var s EpochSecret
	if err := Unmarshal(plain, &s); err != nil {
		return EpochSecret{}, fmt.Errorf("invitation to epoch %d: %w", i.Definition.Epoch, err)
	}
	return s, i.Definition.CheckKeys(s.Keys())
}

// Digest is what Signature signs: everything else. Of the sealed bytes it covers
// the hash, so that the signature can be verified when they are erased.
func (u Unpinned) Digest() (Hash, error) { return u.DigestOf(SealedHash(u.Envelope.Sealed)) }

// SealedHash names the sealed bytes of a batch.
func SealedHash(sealed []byte) Hash { return HashOf("parley/sealed", sealed) }

// DigestOf is Digest where only the hash of the sealed bytes is left
// (Remnant.Sealed).
func (u Unpinned) DigestOf(sealed Hash) (Hash, error) {
	head, err := Marshal(struct {
		_        struct{} `cbor:",toarray"`
		Author   OrgID
		Audience Hash
		Epoch    uint64
		Root     Hash
		Sequence uint64
		Previous Hash
	}{
		Author: u.Envelope.Author, Audience: u.Envelope.Audience, Epoch: u.Envelope.Epoch,
		Root: u.Envelope.Root, Sequence: u.Sequence, Previous: u.Previous,
	})
	if err != nil {
		return Hash{}, err
	}
	return HashOf("parley/unpinned", head, sealed[:]), nil
}

// Signer is the address that signed.
func (u Unpinned) Signer() (Address, error) {
	digest, err := u.Digest()
	if err != nil {
		return Address{}, err
	}
	return RecoverAddress(digest, u.Signature)
}

// Activated tells a member that joins with an epoch which pin made it current
// (kind "activated"). The receiver cannot read that pin; what is enclosed shows
// whose word it is to take.
type Activated struct {
	_          struct{}        `cbor:",toarray"`
	Definition Hash            // of the epoch
	Pin        uint64          // number of the record on the ledger
	Previous   EpochDefinition // of the epoch before
	Receipts   []Receipt       // for the definition, as the pin holds them
}
