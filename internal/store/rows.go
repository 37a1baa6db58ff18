package store

import (
	"encoding/json"
	"time"

	"github.com/parley-node/parley/wire"
)

// The types in this file are rows and, through their JSON names, the API's
// objects at once. Omitted and null fields follow the shapes that existing
// clients expect.

// UUID is wire.UUID; nil pointers are left out of JSON or null, as the tag says.
type UUID = wire.UUID

// Time is a moment in nanoseconds since 1970 UTC; in JSON RFC 3339 with up to
// nine fractional digits, null when zero.
type Time int64

// Now is the moment t.
func At(t time.Time) Time { return Time(t.UnixNano()) }

// Hex is lower-case hexadecimal text of 32 bytes, empty for none.
type Hex string

// Message is a message with its references to data.
type Message struct {
	Header         MessageHeader `json:"header"`
	LocalNamespace string        `json:"localNamespace,omitempty"`
	Hash           Hex           `json:"hash,omitempty"`
	Batch          *UUID         `json:"batch,omitempty"`
	TxID           *UUID         `json:"txid,omitempty"`
	State          string        `json:"state,omitempty"` // staged, ready, sent, pending, confirmed, rejected, cancelled
	Confirmed      *Time         `json:"confirmed,omitempty"`
	RejectReason   string        `json:"rejectReason,omitempty"`
	Data           []DataRef     `json:"data"`
	Pins           []string      `json:"pins,omitempty"`
	IdempotencyKey string        `json:"idempotencyKey,omitempty"`
	Erasure        *UUID         `json:"erasure,omitempty"` // by which data of it was erased last: GET erasures/{id}

	Seq      int64      `json:"-"` // local sequence, assigned by the store
	Wire     []byte     `json:"-"` // wire.MessageHeader in CBOR
	Audience wire.Hash  `json:"-"`
	Org      wire.OrgID `json:"-"`
	Root     *wire.Hash `json:"-"` // batch
	Index    int        `json:"-"` // place in the batch
	Trace    string     `json:"-"` // traceparent of the request that made it; "" for none
}

// MessageHeader is the part of a message that all its receivers share.
type MessageHeader struct {
	ID        UUID            `json:"id"`
	CID       *UUID           `json:"cid,omitempty"`
	Type      string          `json:"type"`
	TxType    string          `json:"txtype,omitempty"`
	Author    string          `json:"author,omitempty"`
	Key       string          `json:"key,omitempty"`
	Created   Time            `json:"created"`
	Namespace string          `json:"namespace,omitempty"`
	Group     Hex             `json:"group,omitempty"`
	Topics    []string        `json:"topics,omitempty"`
	Tag       string          `json:"tag,omitempty"`
	DataHash  Hex             `json:"datahash,omitempty"`
	TxParent  *TransactionRef `json:"txparent,omitempty"`
}

// TransactionRef names a business transaction.
type TransactionRef struct {
	Type string `json:"type"`
	ID   *UUID  `json:"id,omitempty"`
}

// DataRef names a data item by id and hash.
type DataRef struct {
	ID   UUID `json:"id"`
	Hash Hex  `json:"hash,omitempty"`
}

// Data is one value and/or blob.
type Data struct {
	ID        UUID            `json:"id"`
	Validator string          `json:"validator"` // json, none, definition
	Namespace string          `json:"namespace,omitempty"`
	Hash      Hex             `json:"hash,omitempty"`
	Created   Time            `json:"created,omitempty"`
	Datatype  *DatatypeRef    `json:"datatype,omitempty"`
	Value     json.RawMessage `json:"value"`
	Public    string          `json:"public,omitempty"`
	Blob      *BlobRef        `json:"blob,omitempty"`
	Erasure   *UUID           `json:"erasure,omitempty"` // by which its content was erased

	Seq          int64      `json:"-"`
	Seed         wire.Hash  `json:"-"`
	DatatypeHash *wire.Hash `json:"-"`
	BlobRoot     *wire.Hash `json:"-"`
	Commitment   wire.Hash  `json:"-"`
}

// DatatypeRef names a datatype.
type DatatypeRef struct {
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
}

// BlobRef describes a binary attachment.
type BlobRef struct {
	Hash   Hex    `json:"hash"`
	Size   int64  `json:"size"`
	Name   string `json:"name"`
	Path   string `json:"path,omitempty"`
	Public string `json:"public,omitempty"`
}

// Datatype is a confirmed definition of a JSON shape.
type Datatype struct {
	ID        UUID            `json:"id,omitempty"`
	Message   *UUID           `json:"message,omitempty"`
	Validator string          `json:"validator"`
	Namespace string          `json:"namespace,omitempty"`
	Name      string          `json:"name,omitempty"`
	Version   string          `json:"version,omitempty"`
	Hash      Hex             `json:"hash,omitempty"`
	Created   Time            `json:"created,omitempty"`
	Value     json.RawMessage `json:"value,omitempty"`
}

// Batch is what existing clients see of a batch.
type Batch struct {
	ID        UUID            `json:"id"`
	Type      string          `json:"type"` // broadcast, private
	Namespace string          `json:"namespace"`
	Node      *UUID           `json:"node,omitempty"`
	Group     Hex             `json:"group,omitempty"`
	Created   Time            `json:"created"`
	Author    string          `json:"author,omitempty"`
	Key       string          `json:"key,omitempty"`
	Hash      Hex             `json:"hash"`
	Manifest  json.RawMessage `json:"manifest"`
	Tx        TransactionRef  `json:"tx"`
	Confirmed *Time           `json:"confirmed"`
}

// Event is one entry of the node's ordered event log.
type Event struct {
	ID         UUID   `json:"id"`
	Sequence   int64  `json:"sequence"`
	Type       string `json:"type"`
	Namespace  string `json:"namespace"`
	Reference  *UUID  `json:"reference"`
	Correlator *UUID  `json:"correlator,omitempty"`
	Tx         *UUID  `json:"tx,omitempty"`
	Topic      string `json:"topic,omitempty"`
	Created    Time   `json:"created"`
}

// Group is an audience of named members.
type Group struct {
	Namespace      string   `json:"namespace,omitempty"`
	Name           string   `json:"name"`
	Members        []Member `json:"members"`
	LocalNamespace string   `json:"localNamespace,omitempty"`
	Message        *UUID    `json:"message,omitempty"`
	Hash           Hex      `json:"hash,omitempty"`
	Created        Time     `json:"created,omitempty"`
}

// Member is an identity and its node in a group.
type Member struct {
	Identity string `json:"identity,omitempty"` // DID
	Node     *UUID  `json:"node,omitempty"`
}

// Identity is an organisation, a node or a custom identity.
type Identity struct {
	ID          UUID             `json:"id"`
	DID         string           `json:"did"`
	Type        string           `json:"type"` // org, node, custom
	Parent      *UUID            `json:"parent,omitempty"`
	Namespace   string           `json:"namespace"`
	Name        string           `json:"name,omitempty"`
	Description string           `json:"description,omitempty"`
	Profile     json.RawMessage  `json:"profile,omitempty"`
	Messages    IdentityMessages `json:"messages"`
	Created     Time             `json:"created,omitempty"`
	Updated     Time             `json:"updated,omitempty"`

	Org     wire.OrgID    `json:"-"`
	Signer  wire.Address  `json:"-"` // key that signs for a custom identity, else zero
	Claimed wire.Position `json:"-"` // of the pin that claimed it
}

// IdentityMessages are the messages that established an identity.
type IdentityMessages struct {
	Claim        *UUID `json:"claim"`
	Verification *UUID `json:"verification"`
	Update       *UUID `json:"update"`
}

// Verifier binds a key, or a certificate, to an identity.
type Verifier struct {
	Hash      Hex    `json:"hash"`
	Identity  *UUID  `json:"identity,omitempty"`
	Type      string `json:"type"` // ethereum_address, dx_peer_id
	Value     string `json:"value"`
	Namespace string `json:"namespace,omitempty"`
	Created   Time   `json:"created,omitempty"`
}

// Operation is one outward effect of a business transaction.
type Operation struct {
	ID        UUID            `json:"id"`
	Namespace string          `json:"namespace"`
	Tx        *UUID           `json:"tx"`
	Type      string          `json:"type"`
	Status    string          `json:"status"` // Initialized, Pending, Succeeded, Failed
	Plugin    string          `json:"plugin"`
	Input     json.RawMessage `json:"input,omitempty"`
	Output    json.RawMessage `json:"output,omitempty"`
	Error     string          `json:"error,omitempty"`
	Created   Time            `json:"created,omitempty"`
	Updated   Time            `json:"updated,omitempty"`
	Retry     *UUID           `json:"retry,omitempty"`
}

// Transaction groups the operations of one business action.
type Transaction struct {
	ID             UUID     `json:"id,omitempty"`
	Namespace      string   `json:"namespace,omitempty"`
	Type           string   `json:"type"`
	Created        Time     `json:"created"`
	IdempotencyKey string   `json:"idempotencyKey,omitempty"`
	BlockchainIDs  []string `json:"blockchainIds,omitempty"`
}

// PinHandle is one context handle of a pin, as existing clients list pins.
type PinHandle struct {
	Sequence   int64  `json:"sequence"`
	Namespace  string `json:"namespace"`
	Masked     bool   `json:"masked,omitempty"`
	Hash       Hex    `json:"hash,omitempty"`
	Batch      *UUID  `json:"batch,omitempty"`
	BatchHash  Hex    `json:"batchHash,omitempty"`
	Index      int64  `json:"index"`
	Dispatched bool   `json:"dispatched,omitempty"`
	Signer     string `json:"signer,omitempty"`
	Created    Time   `json:"created,omitempty"`
}

// BlockchainEvent is a decoded event of a contract.
type BlockchainEvent struct {
	ID         UUID            `json:"id,omitempty"`
	Source     string          `json:"source,omitempty"`
	Namespace  string          `json:"namespace,omitempty"`
	Name       string          `json:"name,omitempty"`
	Listener   *UUID           `json:"listener,omitempty"`
	ProtocolID string          `json:"protocolId,omitempty"`
	Output     json.RawMessage `json:"output,omitempty"`
	Info       json.RawMessage `json:"info,omitempty"`
	Timestamp  Time            `json:"timestamp,omitempty"`
	Tx         BlockchainTxRef `json:"tx"`
}

// BlockchainTxRef ties a chain event to a business transaction.
type BlockchainTxRef struct {
	Type         string `json:"type,omitempty"`
	ID           *UUID  `json:"id,omitempty"`
	BlockchainID string `json:"blockchainId,omitempty"`
}

// Subscription is a durable reader of the event log.
type Subscription struct {
	ID        UUID            `json:"id"`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Transport string          `json:"transport"`
	Filter    json.RawMessage `json:"filter"`
	Options   json.RawMessage `json:"options"`
	Ephemeral bool            `json:"ephemeral,omitempty"`
	Created   Time            `json:"created"`
	Updated   *Time           `json:"updated"`

	Position int64  `json:"-"` // sequence of the last acknowledged event
	Secret   string `json:"-"` // signs webhooks; "" for none
}

// Delivery is what became of an event, or of a batch of them, that the node
// carried to a target itself.
type Delivery struct {
	ID           UUID   `json:"id"`
	Namespace    string `json:"namespace"`
	Subscription UUID   `json:"subscription"`
	State        string `json:"state"`    // see the Delivery… constants
	Frame        UUID   `json:"frame"`    // id of the event, or of the batch
	First        int64  `json:"sequence"` // of the first event
	Events       int    `json:"events"`   // how many
	Attempts     int    `json:"attempts"`
	Status       int    `json:"status,omitempty"` // HTTP status of the last answer
	Error        string `json:"error,omitempty"`  // of the last attempt
	Created      Time   `json:"created"`
	Updated      Time   `json:"updated"`

	Sequences []int64 `json:"-"` // of the events, in order
}

// Incident is something an operator must know.
type Incident struct {
	At   Time   `json:"at"`
	Kind string `json:"kind"`
	Text string `json:"text"`
	Ref  string `json:"ref,omitempty"`
}
