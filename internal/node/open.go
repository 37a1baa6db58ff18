package node

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/blob/disk"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/exchange/mtls"
	"github.com/parley-node/parley/internal/keys/file"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/evm"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/trace"
	"github.com/parley-node/parley/internal/trace/otlp"
	"github.com/parley-node/parley/wire"
)

// Process is a node with all that it needs from its machine: database, keys,
// connections, HTTP ports, and its validator of the bundled ledger.
type Process struct {
	*Node
	Config *Config

	log       *slog.Logger
	db        *store.DB
	exchange  *mtls.Exchange
	ledger    *lateLedger
	chain     *Gateway
	validator *validator // nil without the bundled ledger
	sockets   *event.WebSockets
	streams   *event.Streams
	servers   []*server
	access    *access.Control
	traces    *otlp.Exporter // nil without a collector
	space     *space
}

// server is one HTTP port.
type server struct {
	name     string
	listener net.Listener
	http     *http.Server
}

// Open opens what the configuration names, and nothing runs yet. It is the one
// place that chooses drivers. An unreachable ledger is no error: the node then
// runs degraded and says what it waits for.
func Open(ctx context.Context, c *Config, log *slog.Logger, version string) (p *Process, err error) {
	p = &Process{Config: c, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	// First, for its lock: two processes on one folder must not get further.
	if p.db, err = store.Open(ctx, store.Options{Path: c.database(), Log: log, Shared: c.shared()}); err != nil {
		return p, err
	}
	ks, err := openKeys(c)
	if err != nil {
		return p, err
	}
	addresses, err := ks.Addresses(ctx)
	if err != nil {
		return p, err
	}
	cert, certHash, err := c.certificate()
	if err != nil {
		return p, err
	}
	if p.exchange, err = mtls.New(mtls.Config{Listen: c.Exchange.Listen, Late: c.Standby != nil, Certificate: cert, Logger: log}); err != nil {
		return p, err
	}
	blobs, err := disk.Open(c.path(c.Blobs.Dir), disk.Options{})
	if err != nil {
		return p, err
	}
	chain, err := p.openLedger(ks)
	if err != nil {
		return p, err
	}
	if p.chain, err = p.gateway(ks, chain); err != nil {
		return p, err
	}
	founding, err := readFounding(c)
	if err != nil {
		return p, err
	}
	record := trace.NewRecorder(log, nil, 0)
	if c.Tracing.OTLP != "" {
		if p.traces, err = otlp.New(ctx, c.Tracing.OTLP, c.Node.Name, c.Org.Name, version); err != nil {
			return p, err
		}
		record = trace.NewRecorder(log, p.traces.Export, cmp.Or(c.Tracing.Sample, 1))
	}
	outbound, err := c.outbound()
	if err != nil {
		return p, err
	}
	p.Node, err = New(ctx, Parts{
		Self: message.Self{
			Org: c.OrgID(), Name: c.Org.Name, Salt: c.Org.Salt, Key: addresses[0], Node: c.Node.ID, NodeName: c.Node.Name,
		},
		Namespace: c.Namespace, ChainID: c.Ledger.ChainID, Contract: c.Ledger.Contract,
		DB: p.db, Keys: ks, Ledger: p.ledger, Exchange: p.exchange, Blobs: blobs, Gateway: p.chain,
		Profile:  ledger.NodeProfile{CertHash: certHash, SealKey: ks.SealKey(), Endpoints: c.Exchange.Advertise},
		Founding: founding, Outbound: outbound, Trace: record, Log: log,
	})
	if err != nil {
		return p, err
	}
	return p, p.listen(version)
}

// openKeys opens the organisation's keys with the configured passphrase.
func openKeys(c *Config) (*file.Keys, error) {
	passphrase, err := c.passphrase()
	if err != nil {
		return nil, err
	}
	dir := c.path(c.Keys.Dir)
	ks, err := file.Open(dir, file.Options{Passphrase: passphrase})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there are no keys in %s; restore them from a backup, or make a new member with parley init: %w", dir, err)
	}
	return ks, err
}

// certificate is the node's, towards other nodes, with its hash.
func (c *Config) certificate() (tls.Certificate, wire.Hash, error) {
	passphrase, err := c.passphrase()
	if err != nil {
		return tls.Certificate{}, wire.Hash{}, err
	}
	return file.TLSCertificate(c.path(c.Keys.Dir), c.Node.Name, passphrase)
}

// passphrase is what opens the keys; empty if they are not encrypted.
func (c *Config) passphrase() (string, error) {
	if name := c.Keys.PassphraseEnv; name != "" {
		value, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("keys.passphraseEnv: the environment variable %s is not set; set it to the passphrase of the keys", name)
		}
		return value, nil
	}
	if c.Keys.PassphraseFile == "" {
		return "", nil
	}
	line, err := FirstLine(c.path(c.Keys.PassphraseFile))
	if err != nil {
		return "", fmt.Errorf("keys.passphraseFile: %w", err)
	}
	return line, nil
}

// FirstLine reads a secret: the first line of a file.
func FirstLine(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line := bufio.NewScanner(f)
	if !line.Scan() {
		return "", errors.Join(fmt.Errorf("%s is empty; write the secret into its first line", f.Name()), line.Err())
	}
	return strings.TrimRight(line.Text(), "\r"), nil
}

// openLedger prepares the connection to the chain. The bundled ledger's
// endpoint is the validator that this process supervises.
func (p *Process) openLedger(ks *file.Keys) (evm.Config, error) {
	c := &p.Config.Ledger
	fees, err := evm.ParseFees(c.Fees)
	if err != nil {
		return evm.Config{}, err
	}
	cfg := evm.Config{
		URLs: c.URLs, WebSocket: c.WebSocket, Contract: c.Contract, FromBlock: c.FromBlock, ChainID: c.ChainID,
		Keys: ks, Fees: fees, Logger: p.log,
	}
	switch {
	case c.Bundled != nil:
		p.validator = newValidator(p.Config, p.log)
		cfg.URLs, cfg.WebSocket = []string{"http://" + c.Bundled.RPC}, "ws://"+c.Bundled.RPC
	case len(c.URLs) == 0:
		return cfg, errors.New("ledger: neither bundled nor urls is set")
	}
	p.ledger = &lateLedger{retry: make(chan struct{}, 1), open: func(ctx context.Context) (*evm.Ledger, error) {
		cfg := cfg
		err := p.db.Read(ctx, func(tx *store.Tx) (err error) {
			cfg.Known.Record, cfg.Known.Running, cfg.Known.Final, err = message.Cursor(tx)
			return err
		})
		if err != nil {
			return nil, err
		}
		return evm.Open(ctx, cfg)
	}}
	if p.validator != nil {
		p.validator.running = p.ledger.woken
	}
	return cfg, nil
}

// listen binds the HTTP ports, so that a taken one is told at once.
func (p *Process) listen(version string) error {
	c := p.Config
	var err error
	if p.access, err = c.control(p.log); err != nil {
		return err
	}
	p.sockets = event.NewWebSockets(event.WebSocketConfig{AllowedOrigins: c.API.AllowedOrigins, Authorize: api.AuthorizeEvents, Logger: p.log}, p.Subscriptions)
	p.space = p.newSpace()
	p.streams = event.NewStreams(p.Subscriptions, event.StreamConfig{Source: p.source(), Logger: p.log})
	surface := api.New(api.Deps{
		Namespace: p.Namespace, Version: version,
		DB: p.db, Messages: p.Messages, Network: p.Network, Log: p.Events, Subscriptions: p.Subscriptions,
		WebSockets: p.sockets, Streams: p.streams, Deliveries: p.Deliveries, Blobs: p.Blobs, Contracts: p.Contracts, Verify: p.verify, Connection: p.connection, Disk: p.space.forecast, ClaimOrg: p.ClaimOrg, ClaimNode: p.ClaimNode,
		Trace: p.Trace, PublicURL: c.API.PublicURL,
		Security: api.Security{AllowedHosts: c.API.AllowedHosts, AllowedOrigins: c.API.AllowedOrigins},
		Access:   p.access, OpenMetrics: loopback(c.Metrics.Listen), QuietRequests: c.Log.Requests == "off",
		Limits: api.Limits{Body: c.API.Limits.Body, Blob: c.API.Limits.Blob},
		Logger: p.log,
	})
	for _, s := range []struct {
		name string
		ListenConfig
		handler http.Handler
	}{
		{"api", c.API.port(), surface.Public},
		{"admin", c.Admin, surface.Admin},
		{"metrics", c.Metrics, surface.Metrics},
	} {
		conf, err := c.serverTLS(s.name, s.TLS)
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", s.Listen)
		if err != nil {
			return fmt.Errorf("%s.listen: %w; stop the process that has this port, or choose another one in %s", s.name, err, ConfigFile)
		}
		if conf != nil {
			l = tls.NewListener(l, conf)
		}
		p.servers = append(p.servers, &server{s.name, l, api.NewServer(s.handler, p.log)})
	}
	return nil
}

// URL is the base URL of one of the HTTP ports api, admin and metrics.
func (p *Process) URL(name string) string {
	scheme := "http"
	for _, port := range []struct {
		name string
		tls  *ServerTLS
	}{{"api", p.Config.API.TLS}, {"admin", p.Config.Admin.TLS}, {"metrics", p.Config.Metrics.TLS}} {
		if port.name == name && port.tls != nil {
			scheme = "https"
		}
	}
	return scheme + "://" + p.Addresses()[name]
}

// Addresses are the addresses listened on, by the names api, admin, metrics and
// exchange.
func (p *Process) Addresses() map[string]string {
	a := map[string]string{"exchange": p.exchange.Addr()}
	for _, s := range p.servers {
		a[s.name] = s.listener.Addr().String()
	}
	return a
}

// stopWithin bounds how long HTTP requests may take to end when the node stops.
const stopWithin = 5 * time.Second

// Run runs the node until ctx ends, or until a part fails without which it is of
// no use. It then stops in the order in which nothing is cut off: HTTP, the
// node's workers, the database, and the validator.
func (p *Process) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	validatorCtx, stopValidator := context.WithCancel(context.WithoutCancel(ctx))
	validatorDone := make(chan error, 1)
	go func() {
		err := p.validator.run(validatorCtx)
		if err != nil {
			fail(err)
		}
		validatorDone <- err
	}()

	workers, stopWorkers := context.WithCancel(context.WithoutCancel(ctx))
	workersDone := make(chan error, 1)
	go func() {
		err := p.work(workers)
		if err != nil {
			fail(err)
		}
		workersDone <- err
	}()
	go p.access.Watch(workers)
	measured := make(chan struct{})
	go func() {
		defer close(measured)
		p.space.run(workers)
	}()
	for _, s := range p.servers {
		go func() {
			if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
				fail(fmt.Errorf("%s: %w", s.name, err))
			}
		}()
	}
	<-ctx.Done()
	p.log.Info("the node stops")
	err := p.stopHTTP()
	stopWorkers()
	<-measured
	err = errors.Join(err, <-workersDone, p.close())
	stopValidator()
	err = errors.Join(err, <-validatorDone)
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// stopHTTP lets requests end, and closes what does not end in time.
func (p *Process) stopHTTP() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	p.streams.Close()
	err := p.sockets.Close(ctx)
	for _, s := range p.servers {
		if e := s.http.Shutdown(ctx); e != nil {
			err = errors.Join(err, s.http.Close())
		}
	}
	return err
}

// close releases what Open opened.
func (p *Process) close() error {
	var err error
	for _, s := range p.servers {
		if e := s.listener.Close(); !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	if p.exchange != nil {
		err = errors.Join(err, p.exchange.Close())
	}
	if p.ledger != nil {
		p.ledger.Close()
	}
	if p.chain != nil {
		p.chain.Chain.Close()
	}
	if p.db != nil {
		err = errors.Join(err, p.db.Close())
	}
	if p.traces != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if e := p.traces.Close(ctx); e != nil { // the collector's fault, and not the node's
			p.log.Warn("the last traces were not sent", "error", e)
		}
	}
	return err
}

// verify reads a record from the chain again and compares it with the stored
// one.
func (p *Process) verify(ctx context.Context, number uint64) (*api.Inclusion, error) {
	var have *store.Record
	err := p.db.Read(ctx, func(tx *store.Tx) (err error) { have, err = tx.RecordByNumber(number); return err })
	if err != nil || have == nil {
		return nil, err
	}
	found, err := p.ledger.Verify(ctx, number)
	if errors.Is(err, evm.ErrNoRecord) {
		return &api.Inclusion{Number: number, Reason: "the chain holds no such record"}, nil
	}
	if err != nil {
		return nil, errs.New("FF10158", http.StatusServiceUnavailable, "The ledger cannot be asked for record %d now: %v", number, err)
	}
	r := found.Record
	in := &api.Inclusion{
		Number: number, Block: r.Position.Block, Log: r.Position.Log, BlockHash: r.Block.Hash, BlockTime: store.At(r.Block.Time), TransactionHash: r.TxHash,
		FinalBlock: r.Position.Block + found.Depth,
	}
	in.Reason = difference(have, &r)
	in.Included = in.Reason == "" && found.Final
	if in.Reason == "" && !found.Final {
		in.Reason = "its block is not final yet"
	}
	return in, nil
}

// difference says what a stored record and the chain disagree about.
func difference(have *store.Record, chain *ledger.Record) string {
	switch {
	case have.Running != chain.Running:
		return fmt.Sprintf("the running hash on the chain is %s, here it is %s", chain.Running, have.Running)
	case have.TxHash != chain.TxHash:
		return fmt.Sprintf("the chain has it in transaction %s, here it is %s", chain.TxHash, have.TxHash)
	case have.BlockHash != chain.Block.Hash:
		return fmt.Sprintf("the chain has it in block %s, here it is %s", chain.Block.Hash, have.BlockHash)
	case have.Signer != chain.Signer:
		return fmt.Sprintf("the chain says that %s signed it, here it is %s", chain.Signer, have.Signer)
	}
	if pinned, ok := chain.Body.(ledger.Pinned); ok && have.Pin != nil && have.Pin.Pin.Root != pinned.Pin.Root {
		return fmt.Sprintf("the root on the chain is %s, here it is %s", pinned.Pin.Root, have.Pin.Pin.Root)
	}
	return ""
}

// connection is how this process and its ledger are, for the status pages.
func (p *Process) connection() api.Connection {
	c := api.Connection{State: "connected"}
	if p.db.Shared() && p.db.Term() == 0 {
		c.State, c.Waiting = "standby", "another process of this node follows the ledger; see status/standby"
		return c
	}
	opened, err := p.ledger.state()
	broken := false
	if opened != nil {
		err, broken = p.FeedError()
	}
	switch {
	case broken:
		c.State, c.Waiting = "stopped", err.Error()
	case err != nil:
		c.State, c.Waiting = "waiting", err.Error()
	case opened == nil:
		c.State, c.Waiting = "waiting", "the first connection to the ledger is being made"
	}
	if p.validator != nil {
		c.Validator = p.validator.status()
	}
	return c
}
