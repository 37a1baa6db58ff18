package wire

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Keys are the keys of one epoch of an audience, held by its members' nodes.
type Keys struct {
	Tag     Hash // marks the audience's pins
	Mask    Hash // hides which contexts a pin touches
	Payload Hash // encrypts batches and names them for peers
	Control Hash // encrypts the control part of a pin
	Topic   Hash // turns topic names into context ids; the same in every epoch
}

// NewEpochSecret makes the secret of a new epoch. topic is the topic secret
// that the audience already has, or zero to make a new audience's.
func NewEpochSecret(topic Hash) EpochSecret {
	s := EpochSecret{Topic: topic}
	rand.Read(s.Secret[:]) // never fails: see crypto/rand
	if topic.IsZero() {
		rand.Read(s.Topic[:])
	}
	return s
}

// Keys derives the epoch's keys with HKDF-SHA256 (RFC 5869), no salt, one label
// each. All derive from Secret but Topic, which derives from s.Topic.
func (s EpochSecret) Keys() Keys {
	return Keys{
		Tag:     derive(s.Secret, nil, "parley/key/tag"),
		Mask:    derive(s.Secret, nil, "parley/key/mask"),
		Payload: derive(s.Secret, nil, "parley/key/payload"),
		Control: derive(s.Secret, nil, "parley/key/control"),
		Topic:   derive(s.Topic, nil, "parley/key/topic"),
	}
}

func derive(secret Hash, salt []byte, info string) (key Hash) {
	copy(key[:], must(hkdf.Key(sha256.New, secret[:], salt, info, len(key)))) // fails only for lengths above 8,160
	return key
}

// KeyCommitment is what EpochDefinition holds for each derived key, so that a
// key disclosed later can be checked by anyone.
func KeyCommitment(key Hash) Hash { return HashOf("parley/key", key[:]) }

// Bounds of an epoch definition.
const (
	MaxMembers   = 4096
	MaxGroupName = 256 // bytes
)

// Hash identifies the definition; of epoch 1 of a group it is the group's id.
func (d EpochDefinition) Hash() (Hash, error) { return hashValue("parley/epoch", d) }

// AudienceID is the audience that the definition is an epoch of.
func (d EpochDefinition) AudienceID() (Hash, error) {
	if !d.Audience.IsZero() {
		return d.Audience, nil
	}
	if d.Epoch != 1 {
		return Hash{}, fmt.Errorf("epoch definition: audience is missing in epoch %d; only epoch 1 of a group has none", d.Epoch)
	}
	return d.Hash()
}

// Has reports whether org is a member in this epoch.
func (d EpochDefinition) Has(org OrgID) bool {
	_, ok := slices.BinarySearchFunc(d.Members, org, compareHash)
	return ok
}

func compareHash(a, b Hash) int { return bytes.Compare(a[:], b[:]) }

// Check tests everything about a definition that needs no other knowledge.
func (d EpochDefinition) Check() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("epoch definition: "+format, a...)
	}
	switch {
	case d.Network.IsZero():
		return bad("network is missing")
	case d.Epoch == 0:
		return bad("epoch is 0; the first is 1")
	case d.Epoch == 1 && !d.Previous.IsZero():
		return bad("previous is %s in epoch 1, which has none", d.Previous)
	case d.Epoch > 1 && d.Previous.IsZero():
		return bad("previous is missing in epoch %d", d.Epoch)
	case d.Epoch == 1 && !d.Audience.IsZero() && d.Audience != d.Network:
		return bad("audience is %s in epoch 1; it is zero for a group and the network's id for the network", d.Audience)
	case d.Epoch > 1 && d.Audience.IsZero():
		return bad("audience is missing in epoch %d", d.Epoch)
	case len(d.Name) > MaxGroupName:
		return bad("name has %d bytes, at most %d are allowed", len(d.Name), MaxGroupName)
	case !utf8.ValidString(d.Name):
		return bad("name %q is not valid UTF-8", d.Name)
	case len(d.Members) == 0 || len(d.Members) > MaxMembers:
		return bad("it has %d members, want 1 to %d", len(d.Members), MaxMembers)
	case d.Policy.Approvals > uint(len(d.Members)):
		return bad("policy asks for %d approvals of %d members", d.Policy.Approvals, len(d.Members))
	case d.History != "all" && d.History != "none":
		return bad("history is %q, want all or none", d.History)
	case d.Salt.IsZero():
		return bad("salt is missing; it must be random")
	}
	for i, m := range d.Members {
		if m.IsZero() {
			return bad("member %d is zero", i)
		}
		if i > 0 && compareHash(d.Members[i-1], m) >= 0 {
			return bad("members are not ascending and distinct at %d (%s)", i, m.Short())
		}
	}
	if !d.Has(d.Proposer) {
		return bad("proposer %s is not among the members", d.Proposer.Short())
	}
	for _, c := range d.commitments(Keys{}) {
		if c.want.IsZero() {
			return bad("the commitment to the %s key is missing", c.name)
		}
	}
	return nil
}

// CheckKeys tests that the keys are the ones which the definition commits to.
func (d EpochDefinition) CheckKeys(k Keys) error {
	for _, c := range d.commitments(k) {
		if KeyCommitment(c.key) != c.want {
			return fmt.Errorf("epoch %d: the %s key is not the one that the definition commits to; ask another member for the secret", d.Epoch, c.name)
		}
	}
	return nil
}

type keyCommitment struct {
	name      string
	key, want Hash
}

func (d EpochDefinition) commitments(k Keys) [5]keyCommitment {
	return [...]keyCommitment{
		{"tag", k.Tag, d.Tag},
		{"mask", k.Mask, d.Mask},
		{"payload", k.Payload, d.Payload},
		{"control", k.Control, d.Control},
		{"topic", k.Topic, d.Topic},
	}
}

// Commit fills in the commitments to the keys.
func (d *EpochDefinition) Commit(k Keys) {
	d.Tag, d.Mask, d.Payload = KeyCommitment(k.Tag), KeyCommitment(k.Mask), KeyCommitment(k.Payload)
	d.Control, d.Topic = KeyCommitment(k.Control), KeyCommitment(k.Topic)
}

// PinTag marks the pin number n (from 1) of a signing key.
func (k Keys) PinTag(key Address, n uint64) (t Tag) {
	m := macOf(k.Tag, "parley/tag", key[:], be64(n))
	copy(t[:], m[:])
	return t
}

// Context is the id of a topic in this audience.
func (k Keys) Context(topic string) (c ContextID) {
	m := macOf(k.Topic, "parley/context", []byte(topic))
	copy(c[:], m[:])
	return c
}

// MaskHandle hides a context inside pin number n of a signing key, as handle i
// (from 0).
func (k Keys) MaskHandle(key Address, n uint64, root Hash, i int, c ContextID) Handle {
	return Handle(k.mask(key, n, root, i, c))
}

// UnmaskHandle is the inverse of MaskHandle.
func (k Keys) UnmaskHandle(key Address, n uint64, root Hash, i int, h Handle) ContextID {
	return ContextID(k.mask(key, n, root, i, h))
}

func (k Keys) mask(key Address, n uint64, root Hash, i int, b [16]byte) [16]byte {
	m := macOf(k.Mask, "parley/handle", key[:], be64(n), root[:], be64(uint64(i)))
	for j := range b {
		b[j] ^= m[j]
	}
	return b
}

// ObjectName is the name under which members serve a part of the batch root to
// each other (exchange.Fetch). Parts: "batch", "certificate", and "blob/" with
// the blob's hash in hex. Only members can tell or guess the name.
func (k Keys) ObjectName(root Hash, part string) string {
	return macOf(k.Payload, "parley/object", root[:], []byte(part)).String()
}
