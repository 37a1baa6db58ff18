package contract

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/nonce"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/transaction"
	"github.com/parley-node/parley/wire"
)

// Config is what a Service stands on. A namespace without a network leaves Define
// nil: then nothing can be published.
type Config struct {
	Namespace   string // local name
	NetworkName string // its name in requests; Namespace if empty

	DB     *store.DB
	Chain  *ethereum.Client
	Signer keys.Signer
	Nonces *nonce.Authority
	Fees   ethereum.FeePolicy

	// DefaultKey signs where a request names no key.
	DefaultKey func(ctx context.Context) (wire.Address, error)
	// ResolveName finds the address that a name or DID has; nil where there are no
	// identities.
	ResolveName func(ctx context.Context, name string) (wire.Address, error)
	// Define broadcasts a definition to the network's members.
	Define func(ctx context.Context, tag string, body any) (*store.Message, error)

	// Committed is called after each transaction that appended events.
	Committed func()
	Log       *slog.Logger
	Now       func() time.Time
	NewID     func() wire.UUID

	// Bounds of the transaction manager; zero for its own.
	ResendAfter, RaiseAfter time.Duration
}

// Service is the contract gateway of one namespace. Its methods are safe for
// concurrent use; the steps of Manager and ListenStep belong to one worker each.
type Service struct {
	Config
	Transactions *transaction.Manager
	// Listened tells the worker of the listeners that there is one more.
	Listened chan struct{}

	mu       sync.Mutex
	compiled map[wire.UUID]*contract // interfaces that are ready to use
	pages    map[wire.UUID]uint64    // blocks that a listener reads at once
}

// contract is an interface that is ready to use.
type contract struct {
	methods map[string]*method // by path name
	events  map[string]*abi.Event
	errors  []abi.Error
}

// method is one of a contract's.
type method struct {
	*abi.CompiledMethod
	path string
}

// New makes the gateway of a namespace. It starts nothing.
func New(c Config) *Service {
	s := &Service{Config: c, Listened: make(chan struct{}, 1), compiled: map[wire.UUID]*contract{}, pages: map[wire.UUID]uint64{}}
	s.Transactions = transaction.New(transaction.Config{
		DB: c.DB, Chain: c.Chain, Nonces: c.Nonces, Signer: c.Signer, Fees: c.Fees, Settled: s.settled, Committed: c.Committed,
		Log: c.Log, Now: c.Now, NewID: c.NewID, ResendAfter: c.ResendAfter, RaiseAfter: c.RaiseAfter,
	})
	return s
}

func (s *Service) now() store.Time { return store.At(s.Now()) }

// plugin is how operations and events name the connection to the chain.
const plugin = "ethereum"

// key is the account that signs a request: an address, or a name or DID.
func (s *Service) key(ctx context.Context, text string) (wire.Address, error) {
	if text == "" {
		return s.DefaultKey(ctx)
	}
	address, err := s.Resolve(ctx, text)
	if err != nil {
		return address, err
	}
	here, err := s.Signer.Accounts(ctx)
	if err != nil {
		return address, err
	}
	if !slices.Contains(here, address) {
		return address, errs.BadRequest("FF10354", "field %q holds %q, whose private key is not at this node: import it, or leave the field out", "key", text)
	}
	return address, nil
}

// Resolve finds the address of a key that is given as an address, or as the name
// or DID of an identity.
func (s *Service) Resolve(ctx context.Context, text string) (wire.Address, error) {
	address, err := wire.ParseAddress(text)
	if err == nil {
		return address, nil
	}
	if s.ResolveName == nil {
		return address, errs.BadRequest("FF10354", "field %q: %v", "key", err)
	}
	return s.ResolveName(ctx, text)
}

// location is where a contract is.
type location struct {
	Address string `json:"address"`
}

// address reads a location; a missing one is an error.
func address(field string, raw json.RawMessage) (wire.Address, error) {
	var l location
	if empty(raw) {
		return wire.Address{}, errs.BadRequest("FF10310", "field %q is missing: give the contract's address as {\"address\": \"0x…\"}", field)
	}
	if err := json.Unmarshal(raw, &l); err != nil || l.Address == "" {
		return wire.Address{}, errs.BadRequest("FF10310", "field %q holds %s; give the contract's address as {\"address\": \"0x…\"}", field, raw)
	}
	a, err := wire.ParseAddress(l.Address)
	if err != nil {
		return a, errs.BadRequest("FF10141", "field %q: %v", field+".address", err)
	}
	return a, nil
}

// place is the JSON of a location, in one form for each address.
func place(a wire.Address) json.RawMessage {
	return json.RawMessage(`{"address":"` + a.String() + `"}`)
}

func empty(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// notify appends an event to the log inside a database transaction.
func (s *Service) notify(tx *store.Tx, typ string, ref wire.UUID, txID *wire.UUID, topic string, at store.Time) error {
	return tx.InsertEvents([]*store.Event{{ID: s.NewID(), Type: typ, Namespace: s.Namespace, Reference: &ref, Tx: txID, Topic: topic, Created: at}})
}
