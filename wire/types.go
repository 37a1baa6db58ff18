package wire

import (
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// Version is the protocol version that this code speaks. It is part of every
// batch header and receipt, so that two versions can never be confused.
const Version = 1

// UUID identifies a message, a data item or a batch. New ones are version 7
// (time-ordered), which keeps database indexes compact.
type UUID = uuid.UUID

// Hash is 32 bytes: a SHA-256 digest, a Merkle root, a seed, a salt or a
// secret. In JSON it is 64 lower-case hex digits without a prefix.
type Hash [32]byte

// OrgID identifies an organisation on the ledger without telling its name: it
// is OrgIDOf(name, salt).
type OrgID = Hash

// Address is an Ethereum-style account address, the identity of a signing key.
// In JSON and text it is 0x and 40 lower-case hex digits.
type Address [20]byte

// Tag marks a pin for the members of its audience; to others it is noise.
type Tag [16]byte

// Handle is a masked context identifier inside a pin.
type Handle [16]byte

// ContextID identifies a topic inside one audience (HMAC of the topic name
// under the audience's topic key). Together with the audience it names a
// context, the unit of order.
type ContextID [16]byte

// Signature is a secp256k1 signature r‖s‖v (v is 0 or 1) over a 32-byte digest.
type Signature [65]byte

// Position is where a record stands on the ledger. Positions compare by block,
// then by log index inside the block.
type Position struct {
	_     struct{} `cbor:",toarray"`
	Block uint64   `json:"block"`
	Log   uint32   `json:"log"`
}

// Compare returns -1, 0 or 1 as p is before, at or after q.
func (p Position) Compare(q Position) int {
	switch {
	case p.Block < q.Block || p.Block == q.Block && p.Log < q.Log:
		return -1
	case p == q:
		return 0
	}
	return 1
}

func (p Position) String() string { return fmt.Sprintf("%d/%d", p.Block, p.Log) }

// IsZero reports whether h is all zero, which stands for "none".
func (h Hash) IsZero() bool        { return h == Hash{} }
func (h Hash) String() string      { return hex.EncodeToString(h[:]) }
func (h Hash) Short() string       { return hex.EncodeToString(h[:4]) }
func (a Address) IsZero() bool     { return a == Address{} }
func (a Address) String() string   { return "0x" + hex.EncodeToString(a[:]) }
func (t Tag) String() string       { return hex.EncodeToString(t[:]) }
func (h Handle) String() string    { return hex.EncodeToString(h[:]) }
func (c ContextID) String() string { return hex.EncodeToString(c[:]) }
func (s Signature) String() string { return "0x" + hex.EncodeToString(s[:]) }

// ParseHash reads 64 hex digits, with or without 0x.
func ParseHash(s string) (h Hash, err error) { return h, parseHex("hash", s, h[:]) }

// ParseAddress reads 40 hex digits, with or without 0x, in any case.
func ParseAddress(s string) (a Address, err error) { return a, parseHex("address", s, a[:]) }

func parseHex(what, s string, to []byte) error {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		return fmt.Errorf("%s %q is not hexadecimal: %w", what, s, err)
	}
	if len(b) != len(to) {
		return fmt.Errorf("%s %q has %d bytes, want %d", what, s, len(b), len(to))
	}
	copy(to, b)
	return nil
}

func (h Hash) MarshalText() ([]byte, error)       { return []byte(h.String()), nil }
func (h *Hash) UnmarshalText(b []byte) error      { return parseHex("hash", string(b), h[:]) }
func (a Address) MarshalText() ([]byte, error)    { return []byte(a.String()), nil }
func (a *Address) UnmarshalText(b []byte) error   { return parseHex("address", string(b), a[:]) }
func (t Tag) MarshalText() ([]byte, error)        { return []byte(t.String()), nil }
func (t *Tag) UnmarshalText(b []byte) error       { return parseHex("tag", string(b), t[:]) }
func (h Handle) MarshalText() ([]byte, error)     { return []byte(h.String()), nil }
func (h *Handle) UnmarshalText(b []byte) error    { return parseHex("handle", string(b), h[:]) }
func (c ContextID) MarshalText() ([]byte, error)  { return []byte(c.String()), nil }
func (c *ContextID) UnmarshalText(b []byte) error { return parseHex("context", string(b), c[:]) }
func (s Signature) MarshalText() ([]byte, error)  { return []byte(s.String()), nil }
func (s *Signature) UnmarshalText(b []byte) error { return parseHex("signature", string(b), s[:]) }

// Value and Scan store the fixed-size byte types as BLOB/BYTEA. A zero Hash,
// Address or Tag is stored as its zero bytes; use a pointer for NULL.
func (h Hash) Value() (driver.Value, error)      { return h[:], nil }
func (h *Hash) Scan(v any) error                 { return scanBytes("hash", v, h[:]) }
func (a Address) Value() (driver.Value, error)   { return a[:], nil }
func (a *Address) Scan(v any) error              { return scanBytes("address", v, a[:]) }
func (t Tag) Value() (driver.Value, error)       { return t[:], nil }
func (t *Tag) Scan(v any) error                  { return scanBytes("tag", v, t[:]) }
func (c ContextID) Value() (driver.Value, error) { return c[:], nil }
func (c *ContextID) Scan(v any) error            { return scanBytes("context", v, c[:]) }
func (h Handle) Value() (driver.Value, error)    { return h[:], nil }
func (h *Handle) Scan(v any) error               { return scanBytes("handle", v, h[:]) }
func (s Signature) Value() (driver.Value, error) { return s[:], nil }
func (s *Signature) Scan(v any) error            { return scanBytes("signature", v, s[:]) }

func scanBytes(what string, v any, to []byte) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(to) {
		return fmt.Errorf("%s column holds %T of %d bytes, want %d bytes", what, v, len(b), len(to))
	}
	copy(to, b)
	return nil
}

// The structures below are encoded as CBOR arrays in field order, in the
// deterministic form of RFC 8949 §4.2.1. A decoder refuses any other form and
// any extra or missing element. Times are nanoseconds since 1970 UTC.

// BatchHeader is leaf 0 of a batch. It fixes where the batch may be pinned and
// by whom, so that a batch cannot be replayed on another network, for another
// audience or under another name.
type BatchHeader struct {
	_          struct{} `cbor:",toarray"`
	Version    uint
	Network    Hash   // NetworkID(chain id, contract)
	Author     OrgID  // the organisation whose key pins it
	AuthorName string // with AuthorSalt it proves the name behind Author: OrgIDOf(AuthorName, AuthorSalt) = Author
	AuthorSalt Hash
	Node       UUID // the author's node, as existing clients show it
	Audience   Hash // the network, or a group
	Epoch      uint64
	ID         UUID
	Created    int64
	Salt       Hash
}

// MessageHeader is what the leaf hash of a message covers. Values are not in
// it: Data holds their commitments, in order.
type MessageHeader struct {
	_       struct{} `cbor:",toarray"`
	ID      UUID
	CID     *UUID // correlates a reply with its request
	Type    string
	Author  string // DID of the author: the organisation's, or an identity below it
	Key     string // the signing key as existing clients show it
	Created int64
	Topics  []string // 1 to 10, distinct
	Tag     string
	Data    []Hash // DataItem.Commitment of each item
	Salt    Hash
}

// DatatypeRef names a datatype together with the hash of its definition, so
// that a verdict never depends on which definitions a node has seen.
type DatatypeRef struct {
	_       struct{} `cbor:",toarray"`
	Name    string
	Version string
	Hash    Hash // DefinitionHash of the datatype's JSON
}

// BlobRef is the commitment to a binary attachment: a Merkle tree over 1 MiB
// chunks, salted with the data item's seed.
type BlobRef struct {
	_    struct{} `cbor:",toarray"`
	Size int64
	Root Hash   // Merkle root over the chunk hashes
	Hash Hash   // SHA-256 of the bytes, as existing clients compute it; sealed with the batch, never in clear
	Name string // file name, may be empty
	Path string // folder part, may be empty
}

// DataItem is one value and/or blob inside a batch. Its commitment hides the
// value behind Seed; a single field can be shown by its own salt alone.
type DataItem struct {
	_         struct{} `cbor:",toarray"`
	ID        UUID
	Seed      Hash
	Validator string // json, none or definition
	Datatype  *DatatypeRef
	Value     []byte // JSON text exactly as stored and returned, nil if none
	Blob      *BlobRef
}

// TraceBytes is the length of a message's trace context, if it has one.
const TraceBytes = 16 + 8 + 1

// Message is a header and, parallel to header.Data, the index of each item in
// Batch.Data (one item may be attached to several messages).
type Message struct {
	_      struct{} `cbor:",toarray"`
	Header MessageHeader
	Data   []uint32

	// Trace is the trace context of the request that made the message: trace id,
	// span id and flags of W3C Trace Context, or empty. It helps people who look
	// for a fault, decides nothing, and is no part of the message's identity.
	Trace []byte
}

// Definition is a named JSON document (datatype, identity) that a batch
// carries because its messages name it by hash.
type Definition struct {
	_    struct{} `cbor:",toarray"`
	Kind string
	Body []byte // canonical JSON text
}

// Batch is the sealed unit of transport and pinning: messages of one author
// for one audience. Its identity is its Merkle Root over header and messages.
type Batch struct {
	_           struct{} `cbor:",toarray"`
	Header      BatchHeader
	Messages    []Message
	Data        []DataItem
	Definitions []Definition
}

// EpochDefinition fixes who belongs to an audience during one epoch and
// commits to each key of the epoch separately, so that nobody can hand
// different keys to different members and keys can be disclosed one by one.
type EpochDefinition struct {
	_        struct{} `cbor:",toarray"`
	Network  Hash
	Audience Hash // zero in epoch 1 of a group, whose identity is this definition's hash; the network's id for the network
	Epoch    uint64
	Previous Hash // hash of the previous epoch's definition, zero in epoch 1
	Proposer OrgID
	Name     string
	Members  []OrgID // ascending, distinct, at least the proposer
	Policy   ChangePolicy
	History  string // all, or none: what a new member may read of older epochs
	Tag      Hash   // Commit(key) of each derived key
	Mask     Hash
	Payload  Hash
	Control  Hash
	Topic    Hash
	Created  int64
	Salt     Hash
}

// ChangePolicy says how many members other than the subject must agree to a
// change of a group. Zero means a majority.
type ChangePolicy struct {
	_         struct{} `cbor:",toarray"`
	Approvals uint
}

// EpochSecret is what the members of an epoch share. All keys derive from it
// except the topic key, which is constant for the life of the audience.
type EpochSecret struct {
	_      struct{} `cbor:",toarray"`
	Secret Hash
	Topic  Hash
}

// Pin is the ledger record of one batch.
type Pin struct {
	_       struct{} `cbor:",toarray"`
	Root    Hash     // zero in a control-only pin
	Tag     Tag
	Handles []Handle // one per distinct context of the batch, ascending by context
	Control []byte   // sealed Control, empty if none
}

// Receipt says that an organisation holds a payload (or an epoch definition)
// durably and could open it. It counts towards a certificate only if
// RecentBlock is at most K blocks before the pin.
type Receipt struct {
	_            struct{} `cbor:",toarray"`
	Version      uint
	Network      Hash
	Org          OrgID // who holds it
	Author       OrgID
	Audience     Hash
	Epoch        uint64
	Root         Hash
	Faults       Hash // FaultsHash of the messages whose data do not conform to their datatypes; zero if all do
	RecentBlock  Hash // hash of a recent final block: proves "not before"
	RecentNumber uint64
	Signature    Signature
}

// Certificate is a set of receipts of distinct organisations for one entry.
type Certificate struct {
	_        struct{} `cbor:",toarray"`
	Author   OrgID
	Root     Hash
	Receipts []Receipt
}

// Control is the part of a pin that changes authority inside an audience. It
// is sealed, padded and applied at the pin's position, never queued behind a
// payload.
type Control struct {
	_            struct{}      `cbor:",toarray"`
	Create       *Hash         // first valid pin of epoch 1 of a group: the definition's hash
	Activate     *Activation   // start of a new epoch
	Votes        []Vote        // skip votes
	Certificates []Certificate // certificates pinned against a skip
	Heartbeat    bool          // moves consensus time on an idle chain
	Digests      []Digest      // checkpoint digests of the author's verdicts
}

// Activation starts an epoch. It needs certificate-many receipts for the
// definition's hash, where v counts the new members without the proposer.
type Activation struct {
	_          struct{} `cbor:",toarray"`
	Definition EpochDefinition
	Receipts   []Receipt
}

// Entry names a pinned batch: its author and root.
type Entry struct {
	_      struct{} `cbor:",toarray"`
	Author OrgID
	Root   Hash
}

// Vote asks to skip entries whose payload nobody can get. An organisation
// either receipts an entry or votes against it, never both.
type Vote struct {
	_        struct{} `cbor:",toarray"`
	Entries  []Entry
	AllOf    *OrgID // every entry of this author that lacks a certificate and stands before this vote
	Restored bool   // cast by a node restored from a backup: counts only after 100 times G
}

// Digest is a member's running digest of its verdicts up to a position.
type Digest struct {
	_       struct{} `cbor:",toarray"`
	Through Position
	Count   uint64
	Digest  Hash
}
