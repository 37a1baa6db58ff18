// Package mtls connects nodes over HTTP/2 and mutual TLS 1.3.
//
// A peer is the SHA-256 of its certificate (DER), which the ledger registers.
// There is no certificate authority, and the names and dates inside a
// certificate count for nothing: whoever proves possession of the registered
// certificate's key is the peer, until the ledger registers another one.
//
// The protocol on top is small:
//
//	POST /v1/send?kind=K               body: the request; 200 with the answer
//	GET  /v1/fetch?name=N&offset=BYTES 200 with the object from there
//
//	403  the caller's certificate is not (or no longer) registered
//	404  no such object, or not for this caller
//	413  the body is larger than exchange.MaxRequest
//	422  {"code": …, "reason": …}: exchange.Refused
//	503  try again; what went wrong stays in the log of the node that answers
package mtls

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/wire"
)

// Config says how a node talks to its peers.
type Config struct {
	Listen      string       // host:port to accept peers on; port 0 takes a free one
	Listener    net.Listener // plain TCP listener to use instead of Listen
	Late        bool         // bind Listen when Serve begins: until then peers are refused and try another endpoint. Its port must be fixed
	Certificate tls.Certificate
	Logger      *slog.Logger // slog.Default if nil
}

// limits are the times and sizes that protect a node from dead, slow and
// greedy peers. Tests shorten them.
type limits struct {
	dial      time.Duration // from first attempt to handshake, over all endpoints
	stagger   time.Duration // an endpoint that is silent this long is raced by the next
	handshake time.Duration // a caller must finish TLS within this
	ping      time.Duration // a silent connection is pinged after this …
	pong      time.Duration // … and closed if nothing comes back within this
	idle      time.Duration // a caller's unused connection is closed after this
	stall     time.Duration // a body that makes no progress for this long is given up
	body      time.Duration // a request's body must be here within this
	grace     time.Duration // how long requests in flight may take when Serve ends
	leave     time.Duration // how long the last answers then have to get out
	streams   int           // concurrent requests on one connection
	inFlight  int           // concurrent requests of one peer, over its connections
}

func defaultLimits() limits {
	return limits{
		dial: 8 * time.Second, stagger: 300 * time.Millisecond, handshake: 5 * time.Second,
		ping: 3 * time.Second, pong: 3 * time.Second, idle: 2 * time.Minute,
		stall: 30 * time.Second, body: 2 * time.Minute, grace: 5 * time.Second, leave: 100 * time.Millisecond,
		// A peer that runs this code has one connection for requests and one for
		// objects, so it stays within inFlight by the limit of each connection.
		streams: 64, inFlight: 128,
	}
}

// maxFrame is the largest HTTP/2 frame accepted. Large frames let a blob
// stream at the speed of the cipher instead of that of the frame scheduler.
const maxFrame = 1 << 20

// Exchange is the driver. Safe for concurrent use.
type Exchange struct {
	cert   tls.Certificate
	log    *slog.Logger
	limits limits
	addr   net.Addr

	closed context.Context // ends with Close
	close  context.CancelFunc

	mu       sync.Mutex
	listener net.Listener // bound and not in use by Serve, or nil
	serving  bool
	peers    map[wire.Hash]*peer
}

var _ exchange.Exchange = (*Exchange)(nil)

// New binds the listener, so that Addr is known and peers queue up until Serve
// accepts them.
func New(cfg Config) (*Exchange, error) {
	if len(cfg.Certificate.Certificate) == 0 || cfg.Certificate.PrivateKey == nil {
		return nil, errors.New("mtls: Config.Certificate is empty; load the node's certificate and its private key")
	}
	listener := cfg.Listener
	var addr net.Addr
	if cfg.Late {
		var err error
		if addr, err = net.ResolveTCPAddr("tcp", cfg.Listen); err != nil {
			return nil, fmt.Errorf("mtls: listen on %q: %w", cfg.Listen, err)
		}
	} else if listener == nil {
		if cfg.Listen == "" {
			return nil, errors.New("mtls: neither Config.Listen nor Config.Listener is set; give the host:port that peers reach this node at")
		}
		var err error
		if listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			return nil, fmt.Errorf("mtls: listen on %q: %w", cfg.Listen, err)
		}
	}
	e := &Exchange{
		cert:   cfg.Certificate,
		log:    cfg.Logger,
		limits: defaultLimits(),
		peers:  make(map[wire.Hash]*peer),
	}
	if e.addr = addr; listener != nil {
		e.addr, e.listener = listener.Addr(), listener
	}
	if e.log == nil {
		e.log = slog.Default()
	}
	e.closed, e.close = context.WithCancel(context.Background())
	return e, nil
}

// Addr is the host:port that Serve accepts peers on.
func (e *Exchange) Addr() string { return e.addr.String() }

// CertHash is what the ledger must register for this node.
func (e *Exchange) CertHash() wire.Hash { return sha256.Sum256(e.cert.Certificate[0]) }

// Close drops the connections to peers, and the listener if Serve is not
// running. Call it after Serve returned; the Exchange is of no use afterwards.
func (e *Exchange) Close() error {
	e.close()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.peers {
		p.requests.drop()
		p.objects.drop()
	}
	if e.listener == nil {
		return nil
	}
	err := e.listener.Close()
	e.listener = nil
	return err
}

// tlsConfig is common to both sides; verify gets the hash of the certificate
// that the other side proved to own.
func (e *Exchange) tlsConfig(verify func(wire.Hash) error) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{e.cert},
		NextProtos:   []string{"h2"},
		// The standard verification asks an authority about names. Ours compares
		// the certificate itself, below.
		InsecureSkipVerify: true,
		ClientAuth:         tls.RequireAnyClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			hash, err := certHash(&state)
			if err != nil {
				return err
			}
			return verify(hash)
		},
		// Every connection proves the certificate anew.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true, // blobs, not web pages
	}
}

func certHash(state *tls.ConnectionState) (wire.Hash, error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return wire.Hash{}, errors.New("mtls: the connection has no peer certificate")
	}
	return sha256.Sum256(state.PeerCertificates[0].Raw), nil
}
