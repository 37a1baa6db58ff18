package bundled

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	cmtdb "github.com/cometbft/cometbft-db"
	cmtcfg "github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/mempool"
	cmtnode "github.com/cometbft/cometbft/node"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/proxy"
	rpccore "github.com/cometbft/cometbft/rpc/core"
	sm "github.com/cometbft/cometbft/state"
	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common/hexutil"
	gethlog "github.com/ethereum/go-ethereum/log"
	"github.com/ethereum/go-ethereum/rpc"
)

// Config says how one validator (or a follower that votes on nothing) runs.
type Config struct {
	Dir   string   // its folder, prepared by Init and WriteGenesis
	RPC   string   // host:port of Ethereum JSON-RPC over HTTP and WebSocket, on a loopback address; port 0 takes any free one
	P2P   string   // host:port where other validators connect
	Peers []string // NodeID@host:port of the other validators, as many as are known
	Allow []string // node ids that may connect besides Peers; empty allows everyone who knows the address

	// Advertise is where others reach P2P if that differs from the address
	// listened on, as it does behind a gateway or with 0.0.0.0.
	Advertise string

	// TimeoutCommit waits after each decision for votes that come late. Zero does
	// not wait, which gives the least latency; more makes fewer, larger blocks.
	TimeoutCommit time.Duration
	// TimeoutPropose is how long to wait for a proposer before the next one has
	// its turn; zero is one second.
	TimeoutPropose time.Duration

	Logger *slog.Logger // nil logs nothing
}

// Info is what a caller needs to know of a running validator.
type Info struct {
	ChainID  uint64   `json:"chainId"`
	HTTP     string   `json:"http"` // JSON-RPC URL
	WS       string   `json:"ws"`   // JSON-RPC URL for subscriptions
	Peer     string   `json:"peer"` // NodeID@host:port, for the others' Peers
	Identity Identity `json:"identity"`
	Block    uint64   `json:"block"` // newest block at start
}

// Run runs the validator until ctx ends, then stops it and returns nil. It calls
// ready once JSON-RPC answers. An error means that the validator cannot go on;
// starting again resumes where it stopped.
func Run(ctx context.Context, cfg Config, ready func(Info)) (err error) {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	host, port, err := rpcAddress(cfg.RPC)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(filepath.Join(cfg.Dir, genesisFile))
	if err != nil {
		return fmt.Errorf("read genesis (put it there with WriteGenesis): %w", err)
	}
	doc, state, err := parseGenesis(raw)
	if err != nil {
		return err
	}
	id, err := ReadIdentity(cfg.Dir)
	if err != nil {
		return err
	}
	gethlog.SetDefault(gethlog.NewLogger(quiet{log.With("engine", "ethereum").Handler()}))

	engine, err := openEngine(filepath.Join(cfg.Dir, "data"), host, port, state.Ethereum)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.close()) }()

	intake := newIntake(engine, time.Now, log)
	application := &app{engine: engine, intake: intake, contract: state.NetworkContract, allow: allowedPeers(cfg), now: time.Now, log: log}

	api := &parleyAPI{engine: engine}
	engine.stack.RegisterAPIs([]rpc.API{{Namespace: "parley", Service: api}, {Namespace: "eth", Service: &ethAPI{intake}}})
	if err := engine.start(); err != nil {
		return err
	}
	comet, env, err := newComet(ctx, cfg, doc, application, log)
	if err != nil {
		return err
	}
	if err := comet.Start(); err != nil {
		return fmt.Errorf("start consensus on %s: %w", cfg.P2P, err)
	}
	defer func() {
		if stopErr := comet.Stop(); stopErr != nil {
			err = errors.Join(err, fmt.Errorf("stop consensus: %w", stopErr))
			return
		}
		comet.Wait()
	}()
	status := func() (Status, error) { return statusOf(engine, env, id) }
	api.status.Store(&status)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if consensus, ok := env.ConsensusState.(interface{ Wait() }); ok {
		// CometBFT stops voting after an internal failure but keeps its process
		// alive; ending Run makes the failure visible and curable.
		go func() {
			consensus.Wait()
			cancel(errors.New("consensus stopped by itself, the log tells why"))
		}()
	}
	feed := make(chan error, 1)
	go func() {
		feed <- intake.run(ctx, func(raw []byte) error {
			err := comet.Mempool().CheckTx(raw, nil, mempool.TxInfo{})
			if errors.Is(err, mempool.ErrTxInCache) {
				return nil
			}
			return err
		}, comet.Mempool().Flush)
	}()
	if ready != nil {
		ready(Info{
			ChainID:  state.Ethereum.Config.ChainID.Uint64(),
			HTTP:     engine.stack.HTTPEndpoint(),
			WS:       engine.stack.WSEndpoint(),
			Peer:     id.NodeID + "@" + cmp.Or(cfg.Advertise, cfg.P2P),
			Identity: id,
			Block:    engine.head().Number.Uint64(),
		})
	}
	select {
	case err := <-feed:
		return err
	case <-ctx.Done():
		err := <-feed
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
			err = errors.Join(cause, err)
		}
		return err
	}
}

// allowedPeers is the set of node ids that may connect, nil for all.
func allowedPeers(cfg Config) map[string]bool {
	if len(cfg.Allow) == 0 {
		return nil
	}
	allow := make(map[string]bool)
	for _, id := range cfg.Allow {
		allow[id] = true
	}
	for _, peer := range cfg.Peers {
		id, _, _ := strings.Cut(peer, "@")
		allow[id] = true
	}
	return allow
}

// newComet prepares consensus and replays what the engine has not yet seen.
func newComet(ctx context.Context, cfg Config, doc *cmttypes.GenesisDoc, application *app, log *slog.Logger) (*cmtnode.Node, *rpccore.Environment, error) {
	pv, err := loadValidator(cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	nodeKey, err := p2p.LoadNodeKey(filepath.Join(cfg.Dir, nodeKeyFile))
	if err != nil {
		return nil, nil, fmt.Errorf("read node key: %w", err)
	}
	config := cometConfig(cfg)
	if err := config.ValidateBasic(); err != nil {
		return nil, nil, fmt.Errorf("ledger configuration: %w", err)
	}
	// The application asks CometBFT's state store for the validator set.
	open := func(c *cmtcfg.DBContext) (cmtdb.DB, error) {
		db, err := cmtcfg.DefaultDBProvider(c)
		if err == nil && c.ID == "state" {
			application.validatorsAt = sm.NewStore(db, sm.StoreOptions{}).LoadValidators
		}
		return db, err
	}
	genesis := func() (*cmttypes.GenesisDoc, error) { return doc, nil }
	node, err := cmtnode.NewNodeWithContext(ctx, config, pv, nodeKey, proxy.NewConnSyncLocalClientCreator(application),
		genesis, open, cmtnode.DefaultMetricsProvider(config.Instrumentation), cometLog{slog.New(quiet{log.With("engine", "consensus").Handler()})})
	if err != nil {
		return nil, nil, fmt.Errorf("open consensus in %s: %w", cfg.Dir, err)
	}
	env, err := node.ConfigureRPC()
	if err != nil {
		return nil, nil, fmt.Errorf("open consensus in %s: %w", cfg.Dir, err)
	}
	return node, env, nil
}

func cometConfig(cfg Config) *cmtcfg.Config {
	propose := cmp.Or(cfg.TimeoutPropose, time.Second)
	c := cmtcfg.DefaultConfig()
	c.SetRoot(cfg.Dir)
	c.DBBackend = string(cmtdb.GoLevelDBBackend)
	c.RPC.ListenAddress = "" // everything that is asked for is on the Ethereum endpoint
	c.TxIndex.Indexer = "null"
	c.FilterPeers = len(cfg.Allow) > 0

	c.P2P.ListenAddress = "tcp://" + cfg.P2P
	c.P2P.ExternalAddress = cfg.Advertise
	c.P2P.PersistentPeers = strings.Join(cfg.Peers, ",")
	// Members may share an address behind a gateway, and use private networks.
	c.P2P.AllowDuplicateIP, c.P2P.AddrBookStrict = true, false
	c.P2P.FlushThrottleTimeout = 2 * time.Millisecond
	c.P2P.SendRate, c.P2P.RecvRate = 50<<20, 50<<20

	c.Consensus.TimeoutPropose = propose
	c.Consensus.TimeoutPrevote, c.Consensus.TimeoutPrecommit = propose/2, propose/2
	c.Consensus.TimeoutCommit = cfg.TimeoutCommit
	c.Consensus.SkipTimeoutCommit = cfg.TimeoutCommit == 0
	c.Consensus.CreateEmptyBlocks = false
	c.Consensus.PeerGossipSleepDuration = 10 * time.Millisecond

	c.Mempool.Size, c.Mempool.CacheSize = maxPoolTxs, 2*maxPoolTxs
	c.Mempool.MaxTxBytes = maxTxBytes
	c.Mempool.MaxTxsBytes = 256 << 20
	return c
}

// rpcAddress splits the JSON-RPC address. The endpoint knows no users, so it is
// for this machine only.
func rpcAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("ledger RPC address %q: %w", address, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", 0, fmt.Errorf("ledger RPC address %q: the endpoint has no access control, use 127.0.0.1", address)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("ledger RPC address %q: port %q is not a number from 0 to 65535", address, text)
	}
	return host, port, nil
}

func statusOf(e *engine, env *rpccore.Environment, id Identity) (Status, error) {
	head := e.head()
	s := Status{
		NodeID:    id.NodeID,
		PublicKey: id.PublicKey,
		Block:     hexutil.Uint64(head.Number.Uint64()),
		Height:    hexutil.Uint64(env.BlockStore.Height()),
		Time:      hexutil.Uint64(sealOf(head).time.UnixNano()),
		Syncing:   env.ConsensusReactor.WaitSync(),
		Peers:     []Peer{},
	}
	set, err := env.StateStore.LoadValidators(env.BlockStore.Height() + 1)
	if err != nil {
		return Status{}, fmt.Errorf("validator set: %w", err)
	}
	for _, v := range set.Validators {
		one := Validator{Power: hexutil.Uint64(v.VotingPower)}
		copy(one.PublicKey[:], v.PubKey.Bytes())
		s.Validators = append(s.Validators, one)
		s.Validating = s.Validating || one.PublicKey == id.PublicKey
	}
	for _, peer := range env.P2PPeers.Peers().Copy() {
		s.Peers = append(s.Peers, Peer{NodeID: string(peer.ID()), Address: peer.RemoteAddr().String(), Outbound: peer.IsOutbound()})
	}
	return s, nil
}
