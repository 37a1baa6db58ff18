package bundled

import (
	"context"
	"crypto/ecdsa"
	"log/slog"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/parley-node/parley/wire"
)

const testChain = 4711

// account signs transactions of one key with consecutive nonces.
type account struct {
	key   *ecdsa.PrivateKey
	addr  common.Address
	nonce uint64
}

func newAccount(t testing.TB) *account {
	t.Helper()
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &account{key: key, addr: crypto.PubkeyToAddress(key.PublicKey)}
}

func (a *account) sign(t testing.TB, to *common.Address, gas uint64, data []byte) *types.Transaction {
	t.Helper()
	tx, err := types.SignNewTx(a.key, types.LatestSignerForChainID(big.NewInt(testChain)), &types.LegacyTx{
		Nonce: a.nonce, GasPrice: new(big.Int), Gas: gas, To: to, Value: new(big.Int), Data: data,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.nonce++
	return tx
}

// transfer signs a transaction that does nothing but exist.
func (a *account) transfer(t testing.TB) *types.Transaction {
	return a.sign(t, &common.Address{19: 9}, 21000, nil)
}

// newChain makes n validator folders with one genesis.
func newChain(t testing.TB, n int, change func(*GenesisConfig)) (dirs []string) {
	t.Helper()
	c := GenesisConfig{ChainID: testChain, Time: time.Now()}
	for range n {
		dir := t.TempDir()
		id, err := Init(dir)
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
		c.Validators = append(c.Validators, GenesisValidator{PublicKey: id.PublicKey, Power: 10})
	}
	if change != nil {
		change(&c)
	}
	genesis, err := Genesis(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if err := WriteGenesis(dir, genesis); err != nil {
			t.Fatal(err)
		}
	}
	return dirs
}

// running is a validator in this process.
type running struct {
	Info
	*ethclient.Client
	stop func()
}

func start(t testing.TB, cfg Config) *running {
	t.Helper()
	if cfg.RPC == "" {
		cfg.RPC = "127.0.0.1:0"
	}
	if cfg.P2P == "" {
		cfg.P2P = "127.0.0.1:0"
	}
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan Info, 1), make(chan error, 1)
	go func() { done <- Run(ctx, cfg, func(i Info) { ready <- i }) }()
	r := &running{}
	select {
	case r.Info = <-ready:
	case err := <-done:
		cancel()
		t.Fatalf("validator ended at start: %v", err)
	}
	client, err := ethclient.Dial(r.WS)
	if err != nil {
		t.Fatal(err)
	}
	r.Client = client
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("validator did not stop cleanly: %v", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// mined waits, block by block, until the transactions are final.
func (r *running) mined(t testing.TB, txs ...*types.Transaction) []*types.Receipt {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	heads := make(chan *types.Header, 64)
	sub, err := r.SubscribeNewHead(ctx, heads)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	receipts := make([]*types.Receipt, len(txs))
	for i, tx := range txs {
		for {
			receipt, err := r.TransactionReceipt(ctx, tx.Hash())
			if err == nil {
				receipts[i] = receipt
				break
			}
			select {
			case <-heads:
			case err := <-sub.Err():
				t.Fatalf("subscription: %v", err)
			case <-ctx.Done():
				t.Fatalf("transaction %d (%s) of %d is not mined: %v", i, tx.Hash(), len(txs), err)
			}
		}
	}
	return receipts
}

func (r *running) send(t testing.TB, txs ...*types.Transaction) {
	t.Helper()
	for _, tx := range txs {
		if err := r.SendTransaction(t.Context(), tx); err != nil {
			t.Fatalf("send: %v", err)
		}
	}
}

// counter is a contract that logs topic 1 and increments slot 0 when called:
//
//	PUSH1 0 SLOAD PUSH1 1 ADD PUSH1 0 SSTORE PUSH1 1 PUSH1 0 PUSH1 0 LOG1 STOP
var (
	counterRuntime = common.FromHex("6000546001016000556001600060 00a100")
	counterDeploy  = common.FromHex("60126 00c60003960126000f3")
)

func TestSingleValidator(t *testing.T) {
	funded := newAccount(t)
	dirs := newChain(t, 1, func(c *GenesisConfig) { c.Funded = []wire.Address{wire.Address(funded.addr)} })
	r := start(t, Config{Dir: dirs[0]})
	begin := time.Now()

	txs := []*types.Transaction{funded.transfer(t), funded.transfer(t), funded.transfer(t)}
	r.send(t, txs...)
	r.send(t, txs[0]) // again is no error
	last := r.mined(t, txs...)[2]

	finalized, err := r.HeaderByNumber(t.Context(), big.NewInt(int64(rpc.FinalizedBlockNumber)))
	if err != nil {
		t.Fatal(err)
	}
	if finalized.Number.Cmp(last.BlockNumber) < 0 {
		t.Errorf("finalized is %d, a receipt was given for %d", finalized.Number, last.BlockNumber)
	}
	if finalized.BaseFee.Sign() != 0 {
		t.Errorf("base fee is %d, want 0", finalized.BaseFee)
	}
	at := sealOf(finalized).time
	if at.Before(begin) || at.After(time.Now()) {
		t.Errorf("consensus time %s is not between %s and now", at, begin)
	}
	t.Log(finalized.Number, at, finalized.Time)
}
