// Package exchange is the port to other members' nodes: private, authenticated
// by the certificate that the ledger registers for a node. Drivers: mtls,
// local (in memory). Every driver passes exchangetest.
package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/parley-node/parley/wire"
)

// Exchange connects one node with its peers. It keeps no state of its own:
// durability is the caller's, by its outbox rows.
type Exchange interface {
	// Send delivers one request of at most MaxRequest bytes and returns the
	// peer's answer. A nil error means that the peer's handler returned, after
	// its database committed. Otherwise: *Refused if the handler said no,
	// ErrWrongPeer if the certificate is not the registered one, and any other
	// error if the outcome is unknown. Calls to one peer never wait for another.
	Send(ctx context.Context, to Peer, kind string, body []byte) ([]byte, error)

	// Fetch opens a named object at the peer from a byte offset. The caller
	// verifies what it reads and closes the reader. ErrNotFound if the peer has
	// no such object or does not show it to us.
	Fetch(ctx context.Context, from Peer, name string, offset int64) (io.ReadCloser, error)

	// Serve accepts requests until ctx ends. authorise maps the SHA-256 of a
	// caller's certificate to the organisation it is registered for, or refuses
	// the connection; it is asked again for every request, so that a removed
	// member loses access at once. No handler runs any more when Serve returns,
	// with ctx.Err unless it could not listen. It may then be called again.
	Serve(ctx context.Context, authorise func(certHash wire.Hash) (wire.OrgID, bool), h Handler) error
}

// Peer is where and who another node is, as the ledger registers it.
type Peer struct {
	Org       wire.OrgID
	CertHash  wire.Hash
	Endpoints []string // host:port, tried in order
}

// Handler answers peers. from is authenticated.
type Handler interface {
	// Receive handles one request; its answer is sent back once it returns. A
	// *Refused error is shown to the peer; any other error is logged here and
	// the peer is only told to try again.
	Receive(ctx context.Context, from wire.OrgID, kind string, body []byte) ([]byte, error)
	// Open gives the object from a byte offset, or ErrNotFound.
	Open(ctx context.Context, from wire.OrgID, name string, offset int64) (io.ReadCloser, error)
}

// MaxRequest bounds the body of Send and its answer.
const MaxRequest = 8 << 20

// CodeTooLarge is the code of the Refused that a request or an answer of more
// than MaxRequest bytes gets: the same bytes will never fit.
const CodeTooLarge = "too_large"

// TooLarge refuses a body (what says which) of more than MaxRequest bytes.
func TooLarge(what string, size int) *Refused {
	return &Refused{Code: CodeTooLarge, Reason: fmt.Sprintf(
		"%s has %d bytes, at most %d fit; split the batch or send the value as a blob", what, size, MaxRequest)}
}

// Refused is a definite no of the peer; trying again with the same bytes is
// useless until something changes. Code is stable, Reason is for people.
type Refused struct{ Code, Reason string }

func (r *Refused) Error() string { return "peer refused (" + r.Code + "): " + r.Reason }

var (
	// ErrWrongPeer: the certificate presented is not the one registered.
	ErrWrongPeer = errors.New("peer presented a certificate that is not registered for it")
	// ErrNotFound: no such object, or not for this peer.
	ErrNotFound = errors.New("object not found")
)
