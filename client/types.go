package client

import (
	"encoding/json"
	"time"
)

// The types of this file are the JSON objects of the API. Ids are UUIDs and
// hashes hexadecimal, as text. A nil time is one that has not come.

// Status describes a node and its namespace.
type Status struct {
	Namespace struct {
		Name        string `json:"name"`
		NetworkName string `json:"networkName"`
		Description string `json:"description"`
	} `json:"namespace"`
	Node struct {
		Name       string `json:"name"`
		Registered bool   `json:"registered"`
		ID         string `json:"id"`
	} `json:"node"`
	Org struct {
		Name       string     `json:"name"`
		Registered bool       `json:"registered"`
		DID        string     `json:"did"`
		ID         string     `json:"id"`
		Verifiers  []Verifier `json:"verifiers"`
	} `json:"org"`
	Multiparty struct {
		Enabled  bool `json:"enabled"`
		Contract struct {
			Active struct {
				Location struct {
					Address string `json:"address"`
				} `json:"location"`
			} `json:"active"`
		} `json:"contract"`
	} `json:"multiparty"`
	Version string `json:"version"`
}

// LedgerStatus is how far a node has followed the ledger.
type LedgerStatus struct {
	Contract string `json:"contract"`
	ChainID  uint64 `json:"chainId"`
	Network  string `json:"network"`
	Final    *struct {
		Number uint64    `json:"number"`
		Hash   string    `json:"hash"`
		Time   time.Time `json:"time"`
	} `json:"final"`
	Records uint64 `json:"records"`
	Applied uint64 `json:"applied"`
	Waiting uint64 `json:"waiting"`

	Connection *Connection `json:"connection"`
}

// Connection is how a node and its ledger are connected now.
type Connection struct {
	State     string `json:"state"`   // connected, waiting or stopped
	Waiting   string `json:"waiting"` // for what, in words
	Validator *struct {
		Phase    string `json:"phase"`
		PID      int    `json:"pid"`
		RPC      string `json:"rpc"`
		Restarts int    `json:"restarts"`
		Error    string `json:"error"`
	} `json:"validator"` // of the bundled ledger, if the node runs one
}

// Batch is what was sent and pinned as one.
type Batch struct {
	ID        string     `json:"id"`
	Type      string     `json:"type"`
	Group     string     `json:"group"`
	Author    string     `json:"author"`
	Key       string     `json:"key"`
	Created   time.Time  `json:"created"`
	Hash      string     `json:"hash"` // the root that is pinned on the ledger
	Confirmed *time.Time `json:"confirmed"`
}

// PeerStatus is how the exchange with another member goes.
type PeerStatus struct {
	Org      string     `json:"org"`
	Name     string     `json:"name"`
	Waiting  int        `json:"waiting"`
	Since    *time.Time `json:"since"`
	NextTry  *time.Time `json:"nextTry"`
	Failures int        `json:"failures"`
	Error    string     `json:"error"`
}

// Incident is something an operator must know.
type Incident struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	Text string    `json:"text"`
	Ref  string    `json:"ref"`
}

// Verifier is a key, or a certificate, of an identity.
type Verifier struct {
	Hash     string `json:"hash,omitempty"`
	Identity string `json:"identity,omitempty"`
	Type     string `json:"type"`
	Value    string `json:"value"`
}

// Header is a message's header. To send one, everything may be left out.
type Header struct {
	ID        string     `json:"id,omitempty"`
	CID       string     `json:"cid,omitempty"` // of the message that this one answers
	Type      string     `json:"type,omitempty"`
	TxType    string     `json:"txtype,omitempty"`
	Author    string     `json:"author,omitempty"`
	Key       string     `json:"key,omitempty"`
	Created   *time.Time `json:"created,omitempty"`
	Namespace string     `json:"namespace,omitempty"`
	Group     string     `json:"group,omitempty"`
	Topics    []string   `json:"topics,omitempty"`
	Tag       string     `json:"tag,omitempty"`
	DataHash  string     `json:"datahash,omitempty"`
}

// DataRef is a data item of a message: its id, or a value to be stored.
type DataRef struct {
	ID        string          `json:"id,omitempty"`
	Hash      string          `json:"hash,omitempty"`
	Validator string          `json:"validator,omitempty"`
	Datatype  *DatatypeRef    `json:"datatype,omitempty"`
	Value     json.RawMessage `json:"value,omitempty"`
}

// DatatypeRef names a datatype.
type DatatypeRef struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Value makes a data item of anything that becomes JSON.
func Value(v any) (DataRef, error) {
	b, err := json.Marshal(v)
	return DataRef{Value: b}, err
}

// Group names the members of a private message; the sender is always one.
type Group struct {
	Name    string   `json:"name,omitempty"`
	Members []Member `json:"members"`
}

// Member is an identity, by name or DID, and optionally which of its nodes.
type Member struct {
	Identity string `json:"identity"`
	Node     string `json:"node,omitempty"`
}

// NewMessage is a message to be sent.
type NewMessage struct {
	Header         Header    `json:"header"`
	Group          *Group    `json:"group,omitempty"` // private messages only
	Data           []DataRef `json:"data"`
	IdempotencyKey string    `json:"idempotencyKey,omitempty"`
}

// States of a message.
const (
	StateReady     = "ready"
	StateSent      = "sent"
	StatePending   = "pending"
	StateConfirmed = "confirmed"
	StateRejected  = "rejected"
)

// Message is a message as the node has it. Data has values only where they were
// asked for.
type Message struct {
	Header         Header     `json:"header"`
	Hash           string     `json:"hash"`
	State          string     `json:"state"`
	Batch          string     `json:"batch"`
	TxID           string     `json:"txid"`
	Confirmed      *time.Time `json:"confirmed"`
	RejectReason   string     `json:"rejectReason"`
	Data           []DataRef  `json:"data"`
	IdempotencyKey string     `json:"idempotencyKey"`
}

// Data is a stored value and/or blob.
type Data struct {
	ID        string          `json:"id"`
	Hash      string          `json:"hash"`
	Validator string          `json:"validator"`
	Created   *time.Time      `json:"created"`
	Datatype  *DatatypeRef    `json:"datatype"`
	Value     json.RawMessage `json:"value"`
	Blob      *struct {
		Hash string `json:"hash"`
		Size int64  `json:"size"`
		Name string `json:"name"`
		Path string `json:"path"`
	} `json:"blob"`
}

// Datatype is a JSON schema that the network has agreed on.
type Datatype struct {
	ID      string          `json:"id,omitempty"`
	Message string          `json:"message,omitempty"`
	Name    string          `json:"name"`
	Version string          `json:"version"`
	Hash    string          `json:"hash,omitempty"`
	Value   json.RawMessage `json:"value"`
}

// Identity is an organisation, a node or a custom identity.
type Identity struct {
	ID          string          `json:"id"`
	DID         string          `json:"did"`
	Type        string          `json:"type"`
	Parent      string          `json:"parent"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Profile     json.RawMessage `json:"profile"`
	Verifiers   []Verifier      `json:"verifiers"` // where asked for
}

// NewIdentity is a custom identity to be claimed.
type NewIdentity struct {
	Name        string          `json:"name"`
	Parent      string          `json:"parent,omitempty"`
	Key         string          `json:"key"`
	Description string          `json:"description,omitempty"`
	Profile     json.RawMessage `json:"profile,omitempty"`
}

// Event is an entry of the node's event log. Those that Listen delivers, and
// those read with references, have the object they speak of.
type Event struct {
	ID         string    `json:"id"`
	Sequence   int64     `json:"sequence"`
	Type       string    `json:"type"`
	Namespace  string    `json:"namespace"`
	Reference  string    `json:"reference"`
	Correlator string    `json:"correlator"`
	Tx         string    `json:"tx"`
	Topic      string    `json:"topic"`
	Created    time.Time `json:"created"`

	Message         *Message        `json:"message,omitempty"`
	Transaction     json.RawMessage `json:"transaction,omitempty"`
	Datatype        *Datatype       `json:"datatype,omitempty"`
	Identity        *Identity       `json:"identity,omitempty"`
	Operation       json.RawMessage `json:"operation,omitempty"`
	BlockchainEvent json.RawMessage `json:"blockchainEvent,omitempty"`
}

// Subscription is a durable reader of the event log.
type Subscription struct {
	ID        string              `json:"id,omitempty"`
	Name      string              `json:"name"`
	Transport string              `json:"transport,omitempty"`
	Filter    Filter              `json:"filter"`
	Options   SubscriptionOptions `json:"options"`
	Status    *struct {
		CurrentOffset int64 `json:"currentOffset"`
	} `json:"status,omitempty"`
}

// Filter selects events by regular expressions; an empty one selects all.
type Filter struct {
	Events  string        `json:"events,omitempty"` // event type
	Topic   string        `json:"topic,omitempty"`
	Message MessageFilter `json:"message"`
}

// MessageFilter selects by the message that an event speaks of.
type MessageFilter struct {
	Tag    string `json:"tag,omitempty"`
	Group  string `json:"group,omitempty"`
	Author string `json:"author,omitempty"`
}

// SubscriptionOptions say how events are delivered.
type SubscriptionOptions struct {
	FirstEvent   string `json:"firstEvent,omitempty"` // newest (default), oldest, or a sequence
	ReadAhead    int    `json:"readAhead,omitempty"`
	Batch        bool   `json:"batch,omitempty"`
	BatchTimeout string `json:"batchTimeout,omitempty"`
}

// Organisation names a member of the network.
type Organisation struct {
	ID   string `json:"id"` // on the ledger
	Name string `json:"name"`
	DID  string `json:"did"`
}

// NetworkMember is an organisation as the ledger knows it.
type NetworkMember struct {
	Organisation
	Self   bool `json:"self"`
	Active bool `json:"active"`
	Keys   []struct {
		Address string `json:"address"`
		Revoked bool   `json:"revoked"`
	} `json:"keys"`
	Node *struct {
		Certificate string   `json:"certificate"`
		Endpoints   []string `json:"endpoints"`
	} `json:"node"`
}

// Administration is the network's policy and everything that was voted on.
type Administration struct {
	Policy struct {
		Approvals uint64 `json:"approvals"` // zero is a majority
	} `json:"policy"`
	Terminated bool   `json:"terminated"`
	Successor  string `json:"successor"`
	Records    uint64 `json:"records"`
	Proposals  []struct {
		ID     uint64 `json:"id"`
		Change Change `json:"change"`
		Votes  []struct {
			Organisation
			Approve bool `json:"approve"`
		} `json:"votes"`
		Executed bool `json:"executed"`
	} `json:"proposals"`
}

// Change is an administrative change to be voted on; exactly one field is set.
type Change struct {
	Admit     *Admission      `json:"admit,omitempty"`
	Suspend   string          `json:"suspend,omitempty"` // ids of organisations
	Resume    string          `json:"resume,omitempty"`
	Remove    string          `json:"remove,omitempty"`
	Policy    json.RawMessage `json:"policy,omitempty"`
	Params    json.RawMessage `json:"params,omitempty"`
	Validator json.RawMessage `json:"validator,omitempty"`
	Successor string          `json:"successor,omitempty"`
	Terminate bool            `json:"terminate,omitempty"`
}

// Admission is a new member: its id on the ledger, and its first key.
type Admission struct {
	Org string `json:"org"`
	Key string `json:"key"`
}

// Transfer is what every outsider sees of a pin on the ledger.
type Transfer struct {
	Number          uint64       `json:"number"`
	Author          Organisation `json:"author"`
	Key             string       `json:"key"`
	Root            string       `json:"root"`
	Tag             string       `json:"tag"`
	Handles         int          `json:"handles"`
	Control         bool         `json:"control"`
	Block           uint64       `json:"block"`
	Log             uint32       `json:"log"`
	BlockHash       string       `json:"blockHash"`
	Time            time.Time    `json:"time"`
	TransactionHash string       `json:"transactionHash"`
	Member          bool         `json:"member"` // whether the node can read it
	State           string       `json:"state"`
	Reason          string       `json:"reason"`
}

// Inclusion is what the chain says of a transfer when it is asked again.
type Inclusion struct {
	Included        bool   `json:"included"`
	Number          uint64 `json:"number"`
	Block           uint64 `json:"block"`
	BlockHash       string `json:"blockHash"`
	TransactionHash string `json:"transactionHash"`
	FinalBlock      uint64 `json:"finalBlock"`
	Reason          string `json:"reason"`
}

// Blocker is an entry that keeps a topic from going on.
type Blocker struct {
	Record  uint64     `json:"record"`
	Author  string     `json:"author"`
	Root    string     `json:"root"`
	Missing string     `json:"missing"`
	Owes    []string   `json:"owes"`
	Since   time.Time  `json:"since"`
	Remedy  string     `json:"remedy"`
	Votes   int        `json:"votes"`
	Needed  int        `json:"needed"`
	SkipDue *time.Time `json:"skipDue"`
}

// Erase says why something is to be erased.
type Erase struct {
	Reason     string `json:"reason"`
	Author     string `json:"author,omitempty"`     // who wants it; the organisation if empty
	Recipients bool   `json:"recipients,omitempty"` // ask the other members as well
	DryRun     bool   `json:"dryRun,omitempty"`     // only count
}

// Erasure is an act of erasing.
type Erasure struct {
	ID       string           `json:"id"`
	Source   string           `json:"source"`           // operator, policy, member, before
	Origin   string           `json:"origin,omitempty"` // policy, or member that asked
	Author   string           `json:"author"`
	Reason   string           `json:"reason"`
	Created  string           `json:"created"`
	Messages int              `json:"messages"`
	Data     int              `json:"data"`
	Requests []ErasureRequest `json:"requests,omitempty"`
}

// ErasureRequest is a signed request to other members. Request and the answers'
// Signed are CBOR (wire.Erasure, wire.ErasureAnswer).
type ErasureRequest struct {
	ID      string          `json:"id"`
	Digest  string          `json:"digest"`
	Root    string          `json:"root"`
	Request []byte          `json:"request"`
	Answers []ErasureAnswer `json:"answers"`
}

// ErasureAnswer is what a member said to a request.
type ErasureAnswer struct {
	Org    string `json:"org"`
	Name   string `json:"name"`
	State  string `json:"state"` // waiting, erased, refused
	Reason string `json:"reason,omitempty"`
	At     string `json:"at"`
	Signed []byte `json:"signed,omitempty"`
}
