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
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

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

// Process is one namespace with all that it needs from its machine: database,
// keys, connections, and its validator of the bundled ledger.
type Process struct {
	*Node
	Config *Config

	log       *slog.Logger
	created   store.Time
	db        *store.DB
	exchange  *mtls.Exchange // nil without a network, as ledger
	ledger    *lateLedger
	chain     *Gateway
	validator *validator // nil without the bundled ledger
	streams   *event.Streams
	retire    func()         // ends the calls of its API; set by the host
	traces    *otlp.Exporter // nil without a collector
	space     *space
}

// openNamespace opens what the configuration names, and nothing runs yet. It is
// the one place that chooses drivers. An unreachable ledger is no error: the node
// then runs degraded and says what it waits for.
func openNamespace(ctx context.Context, c *Config, log *slog.Logger, version string) (p *Process, err error) {
	p = &Process{Config: c, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return p, err
	}
	// First, for its lock: two processes on one folder must not get further.
	if p.db, err = store.Open(ctx, store.Options{Path: c.database(), Log: log, Shared: c.shared()}); err != nil {
		return p, err
	}
	if p.created, err = p.firstStart(ctx); err != nil {
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
	record, err := p.record(ctx, version)
	if err != nil {
		return p, err
	}
	parts := Parts{
		Self:      message.Self{Key: addresses[0]},
		Namespace: c.Namespace, NetworkName: c.NetworkNamespace, ChainID: c.Ledger.ChainID, Contract: c.Ledger.Contract,
		DB: p.db, Keys: ks, Trace: record, Log: log,
	}
	if parts.Blobs, err = disk.Open(c.path(c.Blobs.Dir), disk.Options{}); err != nil {
		return p, err
	}
	if parts.Outbound, err = c.outbound(); err != nil {
		return p, err
	}
	if c.Networked() {
		if err := p.join(&parts, ks); err != nil {
			return p, err
		}
	} else if len(c.Contracts.URLs) > 0 {
		if p.chain, err = p.gateway(ks, evm.Config{}); err != nil {
			return p, err
		}
	}
	parts.Gateway = p.chain
	if p.Node, err = New(ctx, parts); err != nil {
		return p, err
	}
	p.space = p.newSpace()
	p.streams = event.NewStreams(p.Subscriptions, event.StreamConfig{Source: p.source(), Logger: log})
	return p, nil
}

// record writes down what happens, in the log and for a collector if there is
// one.
func (p *Process) record(ctx context.Context, version string) (*trace.Recorder, error) {
	c := p.Config
	if c.Tracing.OTLP == "" {
		return trace.NewRecorder(p.log, nil, 0), nil
	}
	var err error
	if p.traces, err = otlp.New(ctx, c.Tracing.OTLP, cmp.Or(c.Node.Name, c.Namespace), c.Org.Name, version); err != nil {
		return nil, err
	}
	return trace.NewRecorder(p.log, p.traces.Export, cmp.Or(c.Tracing.Sample, 1)), nil
}

// join adds what connects a member to its network.
func (p *Process) join(parts *Parts, ks *file.Keys) error {
	c := p.Config
	cert, certHash, err := c.certificate()
	if err != nil {
		return err
	}
	if p.exchange, err = mtls.New(mtls.Config{Listen: c.Exchange.Listen, Late: c.Standby != nil, Certificate: cert, Logger: p.log}); err != nil {
		return err
	}
	parts.Self = message.Self{
		Org: c.OrgID(), Name: c.Org.Name, Salt: c.Org.Salt, Key: parts.Self.Key, Node: c.Node.ID, NodeName: c.Node.Name,
	}
	chain, err := p.openLedger(ks)
	if err != nil {
		return err
	}
	if p.chain, err = p.gateway(ks, chain); err != nil {
		return err
	}
	parts.Ledger, parts.Exchange = p.ledger, p.exchange
	parts.Profile = ledger.NodeProfile{CertHash: certHash, SealKey: ks.SealKey(), Endpoints: c.Exchange.Advertise}
	parts.Retention = c.Retention.retention()
	parts.Founding, err = readFounding(c)
	return err
}

// firstStart is when the namespace was started for the first time.
func (p *Process) firstStart(ctx context.Context) (at store.Time, err error) {
	now := store.At(time.Now())
	err = p.db.Write(ctx, func(tx *store.Tx) error {
		text, err := tx.Meta(store.MetaCreated)
		if err != nil {
			return err
		}
		if text == "" {
			at = now
			return tx.SetMeta(store.MetaCreated, strconv.FormatInt(int64(at), 10))
		}
		n, err := strconv.ParseInt(text, 10, 64)
		at = store.Time(n)
		return err
	})
	return at, err
}

// openKeys opens the organisation's keys with the configured passphrase. Those of
// a namespace without a network are registered nowhere: they are made if there
// are none.
func openKeys(c *Config) (*file.Keys, error) {
	passphrase, err := c.passphrase()
	if err != nil {
		return nil, err
	}
	dir := c.path(c.Keys.Dir)
	if !c.Networked() {
		return file.OpenOrCreate(dir, file.Options{Passphrase: passphrase})
	}
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

// surface is the namespace's API, within that of the process.
func (p *Process) surface(shared api.Deps) *api.API {
	d := shared
	d.Namespace, d.NetworkName, d.Description, d.Created = p.Namespace, p.NetworkName, p.Config.Description, p.created
	d.DB, d.Messages, d.Network, d.Log, d.Subscriptions = p.db, p.Messages, p.Network, p.Events, p.Subscriptions
	d.Streams, d.Deliveries, d.Blobs = p.streams, p.Deliveries, p.Blobs
	d.Plugins = api.Plugins(p.Config.Plugins)
	d.Trace, d.Disk = p.Trace, p.space.forecast
	if p.ledger != nil || p.chain != nil {
		d.Contracts = p.Contracts
	}
	if p.ledger != nil {
		d.Verify, d.Connection, d.ClaimOrg, d.ClaimNode = p.verify, p.connection, p.ClaimOrg, p.ClaimNode
	}
	return api.New(d)
}

// run runs the namespace until ctx ends, or until a part fails without which it
// is of no use. It then stops in the order in which nothing is cut off: the
// node's workers, the database, and the validator. Whoever calls its API has to
// have gone before ctx ends.
func (p *Process) run(ctx context.Context) error {
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
	measured := make(chan struct{})
	go func() {
		defer close(measured)
		p.space.run(workers)
	}()
	<-ctx.Done()
	p.log.Info("the node stops")
	p.retire()
	stopWorkers()
	<-measured
	err := errors.Join(<-workersDone, p.close())
	stopValidator()
	err = errors.Join(err, <-validatorDone)
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// close releases what openNamespace opened.
func (p *Process) close() error {
	var err error
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
