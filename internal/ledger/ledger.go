// Package ledger is the port to the shared ledger of a network: it carries
// signed calls to the network contract and gives back the contract's records
// in one final order.
//
// Drivers: evm (any Ethereum JSON-RPC chain), sim (in memory). The bundled
// ledger is one more Ethereum chain to this port. Every driver passes
// ledgertest.
package ledger

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/parley-node/parley/wire"
)

// Ledger is one member's connection to the network contract. All methods are
// safe for concurrent use.
type Ledger interface {
	// Sign turns a call into a signed transaction of the account from with the
	// given account nonce. It has no outward effect; the caller stores the
	// result before it calls Send, so that a restart sends the same bytes.
	// Signing again with the same nonce and a higher Bump replaces the earlier
	// transaction on chains with fees.
	Sign(ctx context.Context, from wire.Address, nonce uint64, bump int, call Call) (Signed, error)

	// Send hands a signed transaction to the chain. It is idempotent: sending
	// what the chain already has is no error. It returns ErrNonceUsed if another
	// transaction of the account took the nonce, a *Refusal if the contract
	// would refuse the call, and any other error if the outcome is unknown; then
	// the caller sends the same bytes again.
	Send(ctx context.Context, tx Signed) error

	// Outcome asks what became of a transaction that was sent. A nil error says
	// whether it is mined and did what it should; a *Refusal that it was mined
	// and the contract refused it; any other error that the answer is unknown.
	Outcome(ctx context.Context, tx Signed) (mined bool, err error)

	// Follow calls fn with every record from number next on (the first is 1),
	// without gap, in order, only once final. An Advance with no records tells
	// that the final head moved. fn returns after its database committed; an
	// error from fn ends Follow with that error. Follow reconnects by itself and
	// returns only when ctx ends (ctx.Err), fn fails, or the ledger broke its
	// promise (*Fork, *Gap), which is an incident.
	Follow(ctx context.Context, next uint64, fn func(context.Context, Advance) error) error

	// State is a fresh look at the chain for status pages and start-up.
	// With an account it includes that account's next nonce.
	State(ctx context.Context, account *wire.Address) (State, error)
}

// Signed is a transaction that is ready to send.
type Signed struct {
	Hash  wire.Hash
	Nonce uint64
	Raw   []byte
}

// Block is a final block. Time is consensus time: it never runs ahead of the
// validators' clocks, unlike the one-second steps of an Ethereum header.
type Block struct {
	Number uint64
	Hash   wire.Hash
	Time   time.Time
}

// Advance is a step of the final ledger: contiguous records and the final
// block up to which everything has now been given.
type Advance struct {
	Records []Record
	Final   Block
}

// Record is one entry of the network contract's numbered, hash-chained log.
type Record struct {
	Number   uint64
	Running  wire.Hash // running hash over all records up to this one
	Position wire.Position
	Block    Block // the block that holds it
	TxHash   wire.Hash
	Signer   wire.Address // the account that is responsible: sender, or EIP-712 signer of a carried pin
	Body     Body
}

// Body is one of the kinds below.
type Body interface{ Kind() string }

type (
	// Pinned is a pin by a member. Via is the custom contract that carried it
	// (pinBatchData), zero for a direct pin.
	Pinned struct {
		Org wire.OrgID
		Pin wire.Pin
		Via wire.Address
	}
	// Founded is record 1: the constructor's arguments.
	Founded struct {
		Params Params
		Policy Policy
		Epoch1 wire.Hash // hash of the network audience's first EpochDefinition
	}
	MemberAdmitted struct {
		Org wire.OrgID
		Key wire.Address
	}
	MemberSuspended struct{ Org wire.OrgID }
	MemberResumed   struct{ Org wire.OrgID }
	MemberRemoved   struct{ Org wire.OrgID }
	KeyAdded        struct {
		Org wire.OrgID
		Key wire.Address
	}
	KeyRevoked struct {
		Org wire.OrgID
		Key wire.Address
	}
	// NodeRegistered tells how to reach an organisation's node and how to seal
	// secrets for it. A later one of the same organisation replaces it.
	NodeRegistered struct {
		Org  wire.OrgID
		Node NodeProfile
	}
	ParamsChanged    struct{ Params Params }
	PolicyChanged    struct{ Policy Policy }
	ValidatorChanged struct {
		Key   wire.Hash
		Power uint64
	} // ed25519 validator key of the bundled ledger
	Proposed struct {
		ID       uint64
		Proposal Proposal
	}
	Voted struct {
		ID      uint64
		Org     wire.OrgID
		Approve bool
	}
	Executed   struct{ ID uint64 }
	Succeeded  struct{ Contract wire.Address } // successor contract: this one refuses from now on
	Terminated struct{}
)

func (Pinned) Kind() string           { return "pin" }
func (Founded) Kind() string          { return "founded" }
func (MemberAdmitted) Kind() string   { return "member_admitted" }
func (MemberSuspended) Kind() string  { return "member_suspended" }
func (MemberResumed) Kind() string    { return "member_resumed" }
func (MemberRemoved) Kind() string    { return "member_removed" }
func (KeyAdded) Kind() string         { return "key_added" }
func (KeyRevoked) Kind() string       { return "key_revoked" }
func (NodeRegistered) Kind() string   { return "node_registered" }
func (ParamsChanged) Kind() string    { return "params_changed" }
func (PolicyChanged) Kind() string    { return "policy_changed" }
func (ValidatorChanged) Kind() string { return "validator_changed" }
func (Proposed) Kind() string         { return "proposed" }
func (Voted) Kind() string            { return "voted" }
func (Executed) Kind() string         { return "executed" }
func (Succeeded) Kind() string        { return "succeeded" }
func (Terminated) Kind() string       { return "terminated" }

// NodeProfile is what a member publishes of its node.
type NodeProfile struct {
	CertHash  wire.Hash // SHA-256 of the node's TLS certificate (DER)
	SealKey   []byte    // HPKE public key (ML-KEM-768 + X25519)
	Endpoints []string  // host:port, most preferred first; a stand-by's too
}

// Equal says whether two profiles say the same.
func (p NodeProfile) Equal(q NodeProfile) bool {
	return p.CertHash == q.CertHash && bytes.Equal(p.SealKey, q.SealKey) && slices.Equal(p.Endpoints, q.Endpoints)
}

// Params are the network's agreed constants. Durations are consensus time.
type Params struct {
	Confirmations   uint64 // blocks on top before a position is final, for chains without finality
	ProtocolVersion uint64
	ProtocolFrom    uint64        // the block from which ProtocolVersion holds; zero for at once
	Window          uint64        // W: how far n may run ahead of or behind the highest valid one
	ReceiptAge      uint64        // K: how many blocks a receipt's recent block may lie before the pin
	SkipAfter       time.Duration // T: nodes vote against an entry nobody holds
	SkipGrace       time.Duration // G: from the completing vote until the skip takes effect
}

// DefaultParams suit a network whose members answer within minutes.
var DefaultParams = Params{ProtocolVersion: wire.Version, Window: 16, ReceiptAge: 100_000, SkipAfter: 5 * time.Minute, SkipGrace: time.Minute}

// Policy is how many members must approve an administrative proposal; zero is
// a majority.
type Policy struct{ Approvals uint64 }

// Call is a request to the contract: one of the kinds below.
type Call interface{ call() }

type (
	PinCall          struct{ Pin wire.Pin }
	AddKeyCall       struct{ Key wire.Address }
	RevokeKeyCall    struct{ Key wire.Address }
	RegisterNodeCall struct{ Node NodeProfile }
	ProposeCall      struct{ Proposal Proposal }
	VoteCall         struct {
		ID      uint64
		Approve bool
	}
	// ContractCall is any other contract's method, already encoded.
	ContractCall struct {
		To   *wire.Address
		Data []byte
	}
)

func (PinCall) call()          {}
func (AddKeyCall) call()       {}
func (RevokeKeyCall) call()    {}
func (RegisterNodeCall) call() {}
func (ProposeCall) call()      {}
func (VoteCall) call()         {}
func (ContractCall) call()     {}

// Proposal is an administrative change that members vote on. It executes with
// the vote that completes the policy. Exactly one field is set.
type Proposal struct {
	Admit     *MemberAdmitted
	Suspend   *wire.OrgID
	Resume    *wire.OrgID
	Remove    *wire.OrgID
	Policy    *Policy
	Params    *Params
	Validator *ValidatorChanged
	Successor *wire.Address
	Terminate bool
}

// State is what a member sees of the chain at one moment.
type State struct {
	ChainID  uint64
	Contract wire.Address
	Head     Block
	Final    Block
	Records  uint64 // number of the contract's newest record at Head
	Nonce    uint64 // the account's next nonce, counting pending transactions
}

// ErrNonceUsed: another transaction of the account was mined with this nonce.
var ErrNonceUsed = errors.New("account nonce already used")

// Refusal is the contract's own answer to a call that it would not accept.
type Refusal struct{ Reason string }

func (r *Refusal) Error() string { return "the network contract refuses: " + r.Reason }

// Fork: a block that was final is no longer on the chain.
type Fork struct{ Had, Found Block }

func (f *Fork) Error() string { return "the chain changed below a final block" }

// Gap: the contract's numbering or running hash does not continue. An endpoint
// dropped or changed a log.
type Gap struct {
	Want, Got uint64
	Reason    string
}

func (g *Gap) Error() string { return "the ledger's records do not continue: " + g.Reason }
