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

// Namespace is one namespace with all that it needs from its machine: database,
// keys, connections, and its validator of the bundled ledger.
type Namespace struct {
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
func openNamespace(ctx context.Context, c *Config, log *slog.Logger, version string) (ns *Namespace, err error) {
	ns = &Namespace{Config: c, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, ns.close())
		}
	}()
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return ns, err
	}
	// First, for its lock: two processes on one folder must not get further.
	if ns.db, err = store.Open(ctx, store.Options{Path: c.database(), Log: log, Shared: c.shared()}); err != nil {
		return ns, err
	}
	if ns.created, err = ns.firstStart(ctx); err != nil {
		return ns, err
	}
	ks, err := openKeys(c)
	if err != nil {
		return ns, err
	}
	addresses, err := ks.Addresses(ctx)
	if err != nil {
		return ns, err
	}
	record, err := ns.record(ctx, version)
	if err != nil {
		return ns, err
	}
	parts := Parts{
		Self:      message.Self{Key: addresses[0]},
		Namespace: c.Namespace, NetworkName: c.NetworkNamespace, ChainID: c.Ledger.ChainID, Contract: c.Ledger.Contract,
		DB: ns.db, Keys: ks, Trace: record, Log: log,
	}
	if parts.Blobs, err = disk.Open(c.path(c.Blobs.Dir), disk.Options{}); err != nil {
		return ns, err
	}
	if parts.Outbound, err = c.outbound(); err != nil {
		return ns, err
	}
	if c.Networked() {
		if err := ns.join(&parts, ks); err != nil {
			return ns, err
		}
	} else if len(c.Contracts.URLs) > 0 {
		if ns.chain, err = ns.gateway(ks, evm.Config{}); err != nil {
			return ns, err
		}
	}
	parts.Gateway = ns.chain
	if ns.Node, err = New(ctx, parts); err != nil {
		return ns, err
	}
	ns.space = ns.newSpace()
	ns.streams = event.NewStreams(ns.Subscriptions, event.StreamConfig{Source: ns.source(), Logger: log})
	return ns, nil
}

// record writes down what happens, in the log and for a collector if there is
// one.
func (ns *Namespace) record(ctx context.Context, version string) (*trace.Recorder, error) {
	c := ns.Config
	if c.Tracing.OTLP == "" {
		return trace.NewRecorder(ns.log, nil, 0), nil
	}
	var err error
	if ns.traces, err = otlp.New(ctx, c.Tracing.OTLP, cmp.Or(c.Node.Name, c.Namespace), c.Org.Name, version); err != nil {
		return nil, err
	}
	return trace.NewRecorder(ns.log, ns.traces.Export, cmp.Or(c.Tracing.Sample, 1)), nil
}

// join adds what connects a member to its network.
func (ns *Namespace) join(parts *Parts, ks *file.Keys) error {
	c := ns.Config
	cert, certHash, err := c.certificate()
	if err != nil {
		return err
	}
	if ns.exchange, err = mtls.New(mtls.Config{Listen: c.Exchange.Listen, Late: c.Standby != nil, Certificate: cert, Logger: ns.log}); err != nil {
		return err
	}
	parts.Self = message.Self{
		Org: c.OrgID(), Name: c.Org.Name, Salt: c.Org.Salt, Key: parts.Self.Key, Node: c.Node.ID, NodeName: c.Node.Name,
	}
	chain, err := ns.openLedger(ks)
	if err != nil {
		return err
	}
	if ns.chain, err = ns.gateway(ks, chain); err != nil {
		return err
	}
	parts.Ledger, parts.Exchange = ns.ledger, ns.exchange
	parts.Profile = ledger.NodeProfile{CertHash: certHash, SealKey: ks.SealKey(), Endpoints: c.Exchange.Advertise}
	parts.Retention = c.Retention.retention()
	parts.Founding, err = readFounding(c)
	return err
}

// firstStart is when the namespace was started for the first time.
func (ns *Namespace) firstStart(ctx context.Context) (at store.Time, err error) {
	now := store.At(time.Now())
	err = ns.db.Write(ctx, func(tx *store.Tx) error {
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
func (ns *Namespace) openLedger(ks *file.Keys) (evm.Config, error) {
	c := &ns.Config.Ledger
	fees, err := evm.ParseFees(c.Fees)
	if err != nil {
		return evm.Config{}, err
	}
	cfg := evm.Config{
		URLs: c.URLs, WebSocket: c.WebSocket, Contract: c.Contract, FromBlock: c.FromBlock, ChainID: c.ChainID,
		Keys: ks, Fees: fees, Logger: ns.log,
	}
	switch {
	case c.Bundled != nil:
		ns.validator = newValidator(ns.Config, ns.log)
		cfg.URLs, cfg.WebSocket = []string{"http://" + c.Bundled.RPC}, "ws://"+c.Bundled.RPC
	case len(c.URLs) == 0:
		return cfg, errors.New("ledger: neither bundled nor urls is set")
	}
	ns.ledger = &lateLedger{retry: make(chan struct{}, 1), open: func(ctx context.Context) (*evm.Ledger, error) {
		cfg := cfg
		err := ns.db.Read(ctx, func(tx *store.Tx) (err error) {
			cfg.Known.Record, cfg.Known.Running, cfg.Known.Final, err = message.Cursor(tx)
			return err
		})
		if err != nil {
			return nil, err
		}
		return evm.Open(ctx, cfg)
	}}
	if ns.validator != nil {
		ns.validator.running = ns.ledger.woken
	}
	return cfg, nil
}

// surface is the namespace's API, within that of the process.
func (ns *Namespace) surface(shared api.Deps) *api.API {
	d := shared
	d.Namespace, d.NetworkName, d.Description, d.Created = ns.Namespace, ns.NetworkName, ns.Config.Description, ns.created
	d.DB, d.Messages, d.Network, d.Log, d.Subscriptions = ns.db, ns.Messages, ns.Network, ns.Events, ns.Subscriptions
	d.Streams, d.Deliveries, d.Blobs = ns.streams, ns.Deliveries, ns.Blobs
	d.Plugins = api.Plugins(ns.Config.Plugins)
	d.Trace, d.Disk = ns.Trace, ns.space.forecast
	if ns.ledger != nil || ns.chain != nil {
		d.Contracts = ns.Contracts
	}
	if ns.ledger != nil {
		d.Verify, d.Connection, d.ClaimOrg, d.ClaimNode = ns.verify, ns.connection, ns.ClaimOrg, ns.ClaimNode
	}
	return api.New(d)
}

// run runs the namespace until ctx ends, or until a part fails without which it
// is of no use. It then stops in the order in which nothing is cut off: the
// node's workers, the database, and the validator. Whoever calls its API has to
// have gone before ctx ends.
func (ns *Namespace) run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	validatorCtx, stopValidator := context.WithCancel(context.WithoutCancel(ctx))
	validatorDone := make(chan error, 1)
	go func() {
		err := ns.validator.run(validatorCtx)
		if err != nil {
			fail(err)
		}
		validatorDone <- err
	}()

	workers, stopWorkers := context.WithCancel(context.WithoutCancel(ctx))
	workersDone := make(chan error, 1)
	go func() {
		err := ns.work(workers)
		if err != nil {
			fail(err)
		}
		workersDone <- err
	}()
	measured := make(chan struct{})
	go func() {
		defer close(measured)
		ns.space.run(workers)
	}()
	<-ctx.Done()
	ns.log.Info("the node stops")
	ns.retire()
	stopWorkers()
	<-measured
	err := errors.Join(<-workersDone, ns.close())
	stopValidator()
	err = errors.Join(err, <-validatorDone)
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// close releases what openNamespace opened.
func (ns *Namespace) close() error {
	var err error
	if ns.exchange != nil {
		err = errors.Join(err, ns.exchange.Close())
	}
	if ns.ledger != nil {
		ns.ledger.Close()
	}
	if ns.chain != nil {
		ns.chain.Chain.Close()
	}
	if ns.db != nil {
		err = errors.Join(err, ns.db.Close())
	}
	if ns.traces != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if e := ns.traces.Close(ctx); e != nil { // the collector's fault, and not the node's
			ns.log.Warn("the last traces were not sent", "error", e)
		}
	}
	return err
}

// verify reads a record from the chain again and compares it with the stored
// one.
func (ns *Namespace) verify(ctx context.Context, number uint64) (*api.Inclusion, error) {
	var have *store.Record
	err := ns.db.Read(ctx, func(tx *store.Tx) (err error) { have, err = tx.RecordByNumber(number); return err })
	if err != nil || have == nil {
		return nil, err
	}
	found, err := ns.ledger.Verify(ctx, number)
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
func (ns *Namespace) connection() api.Connection {
	c := api.Connection{State: "connected"}
	if ns.db.Shared() && ns.db.Term() == 0 {
		c.State, c.Waiting = "standby", "another process of this node follows the ledger; see status/standby"
		return c
	}
	opened, err := ns.ledger.state()
	broken := false
	if opened != nil {
		err, broken = ns.FeedError()
	}
	switch {
	case broken:
		c.State, c.Waiting = "stopped", err.Error()
	case err != nil:
		c.State, c.Waiting = "waiting", err.Error()
	case opened == nil:
		c.State, c.Waiting = "waiting", "the first connection to the ledger is being made"
	}
	if ns.validator != nil {
		c.Validator = ns.validator.status()
	}
	return c
}
