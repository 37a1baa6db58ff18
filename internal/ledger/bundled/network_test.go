package bundled

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/parley-node/parley/wire"
)

// childEnv carries the Config of a validator that this test binary runs as a
// child process instead of the tests.
const childEnv = "PARLEY_TEST_LEDGER"

func TestMain(m *testing.M) {
	text := os.Getenv(childEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	if text == "fail" {
		fmt.Fprintln(os.Stderr, "cannot go on")
		os.Exit(3)
	}
	if text, ok := strings.CutPrefix(text, "parent:"); ok {
		superviseForever(text)
	}
	var cfg Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	if err := Serve(ctx, cfg, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// superviseForever is a parent process: it supervises a validator and tells on
// standard output when it runs.
func superviseForever(text string) {
	err := Supervise(context.Background(), ChildConfig{
		Env: []string{childEnv + "=" + text},
		Log: os.Getenv("PARLEY_TEST_LOG"),
	}, func(s ChildState) {
		if s.Phase == Running {
			fmt.Println("running")
		}
	})
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// freeAddress is a loopback address that nobody listened on a moment ago.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// newNetwork makes the configurations of n validators of one chain that know
// each other.
func newNetwork(t testing.TB, n int) []Config {
	t.Helper()
	var cfgs []Config
	var peers []string
	for _, dir := range newChain(t, n, nil) {
		id, err := ReadIdentity(dir)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{Dir: dir, RPC: freeAddress(t), P2P: freeAddress(t)}
		cfgs = append(cfgs, cfg)
		peers = append(peers, id.NodeID+"@"+cfg.P2P)
	}
	for i := range cfgs {
		cfgs[i].Peers = slices.Delete(slices.Clone(peers), i, i+1)
	}
	return cfgs
}

// child is a supervised validator process.
type child struct {
	cfg    Config
	states chan ChildState
	stop   func()
}

func supervise(t testing.TB, cfg Config) *child {
	t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &child{cfg: cfg, states: make(chan ChildState, 256)}
	done := make(chan error, 1)
	go func() {
		done <- Supervise(ctx, ChildConfig{
			Env: []string{childEnv + "=" + string(text)},
			Log: filepath.Join(cfg.Dir, "ledger.log"),
		}, func(s ChildState) { c.states <- s })
	}()
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("supervise: %v", err)
		}
		if t.Failed() {
			if log, err := os.ReadFile(filepath.Join(cfg.Dir, "ledger.log")); err == nil {
				t.Logf("log of %s:\n%s", cfg.RPC, log[max(0, len(log)-4000):])
			}
		}
	})
	t.Cleanup(c.stop)
	return c
}

// until waits for a phase and returns the state that has it.
func (c *child) until(t testing.TB, phase Phase) ChildState {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case s := <-c.states:
			if s.Phase == phase {
				return s
			}
			if s.Err != nil && s.Phase == Pausing {
				t.Logf("%s: %v", c.cfg.RPC, s.Err)
			}
		case <-limit:
			t.Fatalf("%s: not %s after 20 s", c.cfg.RPC, phase)
		}
	}
}

func (c *child) dial(t testing.TB) *running {
	t.Helper()
	client, err := ethclient.Dial("ws://" + c.cfg.RPC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &running{Client: client}
}

// kill ends the process as a power cut would.
func kill(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// sameChain fails unless all validators have the same block at a height that
// all of them reach.
func sameChain(t testing.TB, number *big.Int, all ...*running) {
	t.Helper()
	var want *types.Header
	for i, r := range all {
		r.reaches(t, number)
		h, err := r.HeaderByNumber(t.Context(), number)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = h
		}
		if h.Hash() != want.Hash() {
			t.Errorf("validator %d has block %s at %d, validator 0 has %s", i, h.Hash(), number, want.Hash())
		}
	}
}

// reaches waits until the validator has a block.
func (r *running) reaches(t testing.TB, number *big.Int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	heads := make(chan *types.Header, 1024)
	sub, err := r.SubscribeNewHead(ctx, heads)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	for {
		head, err := r.HeaderByNumber(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if head.Number.Cmp(number) >= 0 {
			return
		}
		select {
		case <-heads:
		case <-ctx.Done():
			t.Fatalf("at block %d after 20 s, want %d", head.Number, number)
		}
	}
}

// acknowledged is what a client was told to be final.
type acknowledged struct {
	mu       sync.Mutex
	receipts []*types.Receipt
}

// load sends transactions one by one and notes every receipt, until the
// validator goes away or ctx ends.
func (a *acknowledged) load(ctx context.Context, t *testing.T, address string) {
	client, err := ethclient.DialContext(ctx, "ws://"+address)
	if err != nil {
		return
	}
	defer client.Close()
	heads := make(chan *types.Header, 64)
	sub, err := client.SubscribeNewHead(ctx, heads)
	if err != nil {
		return
	}
	from := newAccount(t)
	for ctx.Err() == nil {
		tx := from.transfer(t)
		if client.SendTransaction(ctx, tx) != nil {
			return
		}
		for {
			receipt, err := client.TransactionReceipt(ctx, tx.Hash())
			if err == nil {
				a.mu.Lock()
				a.receipts = append(a.receipts, receipt)
				a.mu.Unlock()
				break
			}
			select {
			case <-heads:
			case <-sub.Err():
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// reached waits until n receipts are noted.
func (a *acknowledged) reached(t *testing.T, r *running, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	heads := make(chan *types.Header, 1024)
	sub, err := r.SubscribeNewHead(ctx, heads)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	for {
		a.mu.Lock()
		have := len(a.receipts)
		a.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-heads:
		case <-ctx.Done():
			t.Fatalf("%d receipts after 30 s, want %d", have, n)
		}
	}
}

// kept fails for every noted receipt that the chain does not have any more.
func (a *acknowledged) kept(t *testing.T, r *running) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, want := range a.receipts {
		got, err := r.TransactionReceipt(t.Context(), want.TxHash)
		if err != nil || got.BlockHash != want.BlockHash {
			t.Errorf("transaction %s was final in block %s and is lost: %v", want.TxHash, want.BlockHash, err)
		}
	}
	t.Logf("%d acknowledged transactions are kept", len(a.receipts))
}

func TestKillSingleUnderLoad(t *testing.T) {
	t.Parallel()
	c := supervise(t, newNetwork(t, 1)[0])
	var ack acknowledged
	for round := range 3 {
		state := c.until(t, Running)
		r := c.dial(t)
		ctx, cancel := context.WithCancel(t.Context())
		var senders sync.WaitGroup
		for range 3 {
			senders.Go(func() { ack.load(ctx, t, c.cfg.RPC) })
		}
		ack.reached(t, r, 20*(round+1))
		kill(t, state.PID)
		if ended := c.until(t, Pausing); ended.Err == nil {
			t.Error("no reason given for the end of a killed process")
		}
		cancel()
		senders.Wait()
	}
	c.until(t, Running)
	r := c.dial(t)
	ack.kept(t, r)
	tx := newAccount(t).transfer(t)
	r.send(t, tx)
	r.mined(t, tx)
}

func TestFourValidators(t *testing.T) {
	t.Parallel()
	var children []*child
	for _, cfg := range newNetwork(t, 4) {
		children = append(children, supervise(t, cfg))
	}
	pids, all := make([]int, 4), make([]*running, 4)
	up := func(i int) {
		pids[i] = children[i].until(t, Running).PID
		all[i] = children[i].dial(t)
	}
	for i := range children {
		up(i)
	}

	// One order, whoever takes the transactions in.
	var txs []*types.Transaction
	for i := range 40 {
		from := newAccount(t)
		for range 2 {
			tx := from.transfer(t)
			all[i%4].send(t, tx)
			txs = append(txs, tx)
		}
	}
	highest := new(big.Int)
	for _, receipt := range all[0].mined(t, txs...) {
		if receipt.BlockNumber.Cmp(highest) > 0 {
			highest = receipt.BlockNumber
		}
	}
	sameChain(t, highest, all...)

	// Three go on without the fourth, which catches up.
	var ack acknowledged
	ctx, cancel := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	for i := range 3 {
		senders.Go(func() { ack.load(ctx, t, children[i].cfg.RPC) })
	}
	ack.reached(t, all[0], 10)
	kill(t, pids[3])
	ack.reached(t, all[0], 30)
	up(3)
	head, err := all[0].HeaderByNumber(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	sameChain(t, head.Number, all...)

	// All four at once, under load.
	for _, pid := range pids {
		kill(t, pid)
	}
	cancel()
	senders.Wait()
	for i := range children {
		up(i)
	}
	last := newAccount(t).transfer(t)
	all[1].send(t, last)
	sameChain(t, all[1].mined(t, last)[0].BlockNumber, all...)
	for _, r := range all {
		ack.kept(t, r)
	}
}

func TestSuperviseRestartsAndGivesReasons(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var states []ChildState
	err := Supervise(ctx, ChildConfig{Env: []string{childEnv + "=fail"}, Log: filepath.Join(t.TempDir(), "log")}, func(s ChildState) {
		states = append(states, s)
		if s.Phase == Starting && s.Restarts == 2 {
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var phases []Phase
	for _, s := range states {
		phases = append(phases, s.Phase)
		if (s.PID != 0) != (s.Phase == Starting) {
			t.Errorf("%s with pid %d", s.Phase, s.PID)
		}
		if s.Phase == Pausing && (s.Err == nil || !bytes.Contains([]byte(s.Err.Error()), []byte("cannot go on"))) {
			t.Errorf("reason %v does not tell the process's last words", s.Err)
		}
	}
	if want := []Phase{Starting, Pausing, Starting, Pausing, Starting, Ended}; !slices.Equal(phases, want) {
		t.Errorf("phases %v, want %v", phases, want)
	}
}

func TestChildEndsWithKilledParent(t *testing.T) {
	cfg := newNetwork(t, 1)[0]
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), childEnv+"=parent:"+string(text), "PARLEY_TEST_LOG="+filepath.Join(cfg.Dir, "ledger.log"))
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer parent.Process.Kill()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "running\n" {
		t.Fatalf("%q, %v", line, err)
	}
	r := (&child{cfg: cfg}).dial(t)
	sub, err := r.SubscribeNewHead(t.Context(), make(chan *types.Header, 64))
	if err != nil {
		t.Fatal(err)
	}
	kill(t, parent.Process.Pid)
	select {
	case <-sub.Err():
	case <-time.After(10 * time.Second):
		t.Fatal("the validator outlives its parent")
	}
	if err := parent.Wait(); err == nil {
		t.Error("the parent ended well in spite of being killed")
	}
}

// A follower joins a running chain, passes transactions on, and becomes a
// validator by decision of the network contract.
func TestFollowerBecomesValidator(t *testing.T) {
	owner := newAccount(t)
	contract := crypto.CreateAddress(owner.addr, 0)
	dir := newChain(t, 1, func(c *GenesisConfig) { c.NetworkContract = wire.Address(contract) })[0]
	founder := start(t, Config{Dir: dir, P2P: freeAddress(t)})
	deploy := owner.sign(t, nil, 1_000_000, reporter())
	founder.send(t, deploy)
	founder.mined(t, deploy)

	joinerDir := t.TempDir()
	id, err := Init(joinerDir)
	if err != nil {
		t.Fatal(err)
	}
	genesis, err := os.ReadFile(filepath.Join(dir, genesisFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteGenesis(joinerDir, genesis); err != nil {
		t.Fatal(err)
	}
	joiner := start(t, Config{Dir: joinerDir, P2P: freeAddress(t), Peers: []string{founder.Peer}})
	joiner.reaches(t, big.NewInt(1))

	data := append(bytes.Clone(id.PublicKey[:]), make([]byte, 32)...)
	binary.BigEndian.PutUint64(data[56:], 10)
	admit := owner.sign(t, &contract, 200_000, data)
	joiner.send(t, admit)
	at := joiner.mined(t, admit)[0].BlockNumber
	// From two blocks on, neither can decide without the other.
	var last *types.Receipt
	for _, via := range []*running{founder, joiner, founder, joiner} {
		tx := owner.transfer(t)
		via.send(t, tx)
		last = via.mined(t, tx)[0]
	}
	if last.BlockNumber.Cmp(new(big.Int).Add(at, big.NewInt(4))) < 0 {
		t.Errorf("at block %d, want at least four after %d", last.BlockNumber, at)
	}
	sameChain(t, last.BlockNumber, founder, joiner)
	var status Status
	if err := joiner.Client.Client().CallContext(t.Context(), &status, "parley_status"); err != nil {
		t.Fatal(err)
	}
	if !status.Validating || len(status.Validators) != 2 || len(status.Peers) != 1 || status.Syncing {
		t.Errorf("status %+v", status)
	}
}

// A child ends when the pipe from its parent closes, which is what is left of a
// parent that was killed.
func TestServeEndsWithParent(t *testing.T) {
	cfg := newNetwork(t, 1)[0]
	in, parent := io.Pipe()
	fromChild, out := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Serve(t.Context(), cfg, in, out) }()
	var info Info
	if err := json.NewDecoder(fromChild).Decode(&info); err != nil {
		t.Fatal(err)
	}
	if info.HTTP != "http://"+cfg.RPC || info.ChainID != testChain {
		t.Errorf("info %+v", info)
	}
	if err := parent.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestLogFileIsLimited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.log")
	l, err := openLogFile(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 50 {
		if _, err := fmt.Fprintf(l, "line %02d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	now, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	if len(now) > 100 || len(before) > 100 || !bytes.HasSuffix(append(before, now...), []byte("line 47\nline 48\nline 49\n")) {
		t.Errorf("%d and %d bytes kept: %q %q", len(before), len(now), before, now)
	}
	if got := l.last(); got != "line 45 | line 46 | line 47 | line 48 | line 49" {
		t.Errorf("last words %q", got)
	}
	if _, err := os.Stat(path + ".2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a third file: %v", err)
	}
}
