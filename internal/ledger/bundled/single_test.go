package bundled

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"math"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/holiman/uint256"

	"github.com/parley-node/parley/contracts"
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
	if change != nil {
		change(&c)
	}
	for range n {
		dirs = append(dirs, t.TempDir())
	}
	if _, err := InitNetwork(dirs, c); err != nil {
		t.Fatal(err)
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

// counter is a contract that adds one to slot 0 and logs topic 1 when called:
//
//	SSTORE(0, SLOAD(0)+1) LOG1(0, 0, 1) STOP
var counter = deployment("600054600101600055600160006000a100")

// deployment is the code of a transaction that deploys runtime code.
func deployment(runtime string) []byte {
	code := common.FromHex(runtime)
	// CODECOPY(0, 12, n) RETURN(0, n)
	return append([]byte{0x60, byte(len(code)), 0x60, 0x0c, 0x60, 0, 0x39, 0x60, byte(len(code)), 0x60, 0, 0xf3}, code...)
}

func TestSingleValidator(t *testing.T) {
	funded := newAccount(t)
	dir := newChain(t, 1, func(c *GenesisConfig) { c.Funded = []wire.Address{wire.Address(funded.addr)} })[0]
	r := start(t, Config{Dir: dir})
	begin := time.Now()

	deploy := funded.sign(t, nil, 1_000_000, counter)
	address := crypto.CreateAddress(funded.addr, 0)
	logs := make(chan types.Log, 8)
	sub, err := r.SubscribeFilterLogs(t.Context(), ethereum.FilterQuery{Addresses: []common.Address{address}}, logs)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	calls := []*types.Transaction{funded.sign(t, &address, 100_000, nil), funded.sign(t, &address, 100_000, nil)}
	r.send(t, deploy, calls[0], calls[1])
	r.send(t, deploy) // again is no error
	receipts := r.mined(t, deploy, calls[0], calls[1])
	r.send(t, deploy) // even when it is in a block
	for i, receipt := range receipts {
		if receipt.Status != types.ReceiptStatusSuccessful {
			t.Errorf("transaction %d failed", i)
		}
	}
	for i := range calls {
		select {
		case l := <-logs:
			if l.TxHash != calls[i].Hash() {
				t.Errorf("log %d is of transaction %s, want %s", i, l.TxHash, calls[i].Hash())
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("no log %d", i)
		}
	}
	count, err := r.StorageAt(t.Context(), address, common.Hash{}, nil)
	if err != nil || new(big.Int).SetBytes(count).Int64() != 2 {
		t.Errorf("the contract counts %x (%v), want 2", count, err)
	}

	last := receipts[2]
	finalized, err := r.HeaderByNumber(t.Context(), big.NewInt(int64(rpc.FinalizedBlockNumber)))
	if err != nil {
		t.Fatal(err)
	}
	if finalized.Hash() != last.BlockHash {
		t.Errorf("finalized is %d, the newest receipt is of block %d", finalized.Number, last.BlockNumber)
	}
	if finalized.BaseFee.Sign() != 0 {
		t.Errorf("base fee is %d, want 0", finalized.BaseFee)
	}
	var at hexutil.Uint64
	if err := r.Client.Client().CallContext(t.Context(), &at, "parley_blockTime", hexutil.EncodeBig(last.BlockNumber)); err != nil {
		t.Fatal(err)
	}
	if at := time.Unix(0, int64(at)); at.Before(begin) || at.After(time.Now()) {
		t.Errorf("consensus time %s is not between %s and now", at, begin)
	}

	// A restart has the same chain and goes on.
	r.stop()
	r = start(t, Config{Dir: dir})
	if r.Block != last.BlockNumber.Uint64() {
		t.Errorf("after the restart the head is %d, want %d", r.Block, last.BlockNumber)
	}
	more := funded.sign(t, &address, 100_000, nil)
	r.send(t, more)
	r.mined(t, more)
	found, err := r.FilterLogs(t.Context(), ethereum.FilterQuery{Addresses: []common.Address{address}, FromBlock: new(big.Int)})
	if err != nil || len(found) != 3 {
		t.Errorf("the chain has %d logs of the contract (%v), want 3", len(found), err)
	}
}

// A new account needs neither funds nor patience.
func TestNewAccountHasManyInFlight(t *testing.T) {
	r := start(t, Config{Dir: newChain(t, 1, nil)[0]})
	var all []*types.Transaction
	for range 3 {
		fresh := newAccount(t)
		var txs []*types.Transaction
		for range 40 {
			txs = append(txs, fresh.transfer(t))
		}
		// The first one comes last: even that must not matter.
		for i := len(txs) - 1; i >= 0; i-- {
			r.send(t, txs[i])
		}
		all = append(all, txs...)
	}
	r.mined(t, all...)
}

func TestRPCSurface(t *testing.T) {
	r := start(t, Config{Dir: newChain(t, 1, nil)[0]})
	for _, method := range []string{"admin_nodeInfo", "debug_traceBlockByNumber", "personal_listAccounts", "miner_start", "engine_getClientVersionV1"} {
		err := r.Client.Client().CallContext(t.Context(), new(json.RawMessage), method)
		var code rpc.Error
		if !errors.As(err, &code) || code.ErrorCode() != -32601 {
			t.Errorf("%s: %v, want method not found", method, err)
		}
	}
	price, err := r.SuggestGasPrice(t.Context())
	if err != nil || price.Sign() != 0 {
		t.Errorf("gas price %d, %v, want 0", price, err)
	}
	var status Status
	if err := r.Client.Client().CallContext(t.Context(), &status, "parley_status"); err != nil {
		t.Fatal(err)
	}
	if !status.Validating || len(status.Validators) != 1 || status.Validators[0].PublicKey != r.Identity.PublicKey || status.Validators[0].Power != 10 {
		t.Errorf("status %+v", status)
	}

	from := newAccount(t)
	for name, tx := range map[string]types.TxData{
		"too much gas": &types.LegacyTx{Gas: maxTxGas + 1, To: &common.Address{}, GasPrice: new(big.Int)},
		"blob":         &types.BlobTx{Gas: 21000, ChainID: uint256.NewInt(testChain), BlobHashes: []common.Hash{{1}}},
	} {
		signed, err := types.SignNewTx(from.key, types.LatestSignerForChainID(big.NewInt(testChain)), tx)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.SendTransaction(t.Context(), signed); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	unprotected, err := types.SignNewTx(from.key, types.HomesteadSigner{}, &types.LegacyTx{Gas: 21000, To: &common.Address{}, GasPrice: new(big.Int)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SendTransaction(t.Context(), unprotected); err == nil {
		t.Error("a transaction for no chain in particular was accepted")
	}

	// A browser page of another site must not reach the endpoint.
	post := func(header, value string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.HTTP, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if header == "Host" {
			req.Host = value
		}
		req.Header.Set(header, value)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got := res.Header.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%s %s: allowed origin %q", header, value, got)
		}
		return res.StatusCode
	}
	if code := post("Origin", "http://evil.example"); code != http.StatusOK {
		t.Errorf("origin: status %d", code) // CORS is the browser's to enforce
	}
	if code := post("Host", "evil.example"); code != http.StatusForbidden {
		t.Errorf("foreign host name: status %d, want 403", code)
	}
	if _, err := rpc.DialWebsocket(t.Context(), r.WS, "http://evil.example"); err == nil {
		t.Error("a WebSocket of another site was accepted")
	}
}

// reporter is a contract that logs its input as the network contract reports a
// validator.
func reporter() []byte {
	// CALLDATACOPY(0, 0, CALLDATASIZE) LOG4(0, 64, validatorChanged, 1, 2, 3) STOP
	return deployment("366000600037" + "6003" + "6002" + "6001" + "7f" + hex.EncodeToString(validatorChanged[:]) + "60406000a400")
}

func TestContractChangesValidators(t *testing.T) {
	owner := newAccount(t)
	contract := crypto.CreateAddress(owner.addr, 0)
	dir := newChain(t, 1, func(c *GenesisConfig) { c.NetworkContract = wire.Address(contract) })[0]
	r := start(t, Config{Dir: dir})
	other := crypto.CreateAddress(owner.addr, 1)
	r.send(t, owner.sign(t, nil, 1_000_000, reporter()), owner.sign(t, nil, 1_000_000, reporter()))

	var added wire.Hash
	added[0] = 7
	change := func(to common.Address, key wire.Hash, power uint64) {
		t.Helper()
		data := append(bytes.Clone(key[:]), make([]byte, 32)...)
		binary.BigEndian.PutUint64(data[56:], power)
		tx := owner.sign(t, &to, 200_000, data)
		r.send(t, tx)
		if receipt := r.mined(t, tx)[0]; len(receipt.Logs) != 1 {
			t.Fatalf("%d logs, want 1", len(receipt.Logs))
		}
	}
	validators := func() map[wire.Hash]uint64 {
		t.Helper()
		// Two more blocks, after which a change has its effect.
		for range 2 {
			tx := owner.transfer(t)
			r.send(t, tx)
			r.mined(t, tx)
		}
		var status Status
		if err := r.Client.Client().CallContext(t.Context(), &status, "parley_status"); err != nil {
			t.Fatal(err)
		}
		set := make(map[wire.Hash]uint64)
		for _, v := range status.Validators {
			set[v.PublicKey] = uint64(v.Power)
		}
		return set
	}
	self := r.Identity.PublicKey

	if got := contracts.NetworkABI.Events["ValidatorChanged"]; got.ID != validatorChanged || len(got.Inputs.NonIndexed()) != 2 {
		t.Fatalf("the network contract has another event: %s", got)
	}
	change(other, added, 3) // not the network contract
	if got, want := validators(), (map[wire.Hash]uint64{self: 10}); !maps.Equal(got, want) {
		t.Fatalf("a foreign contract changed the validators: %v", got)
	}
	change(contract, added, 3)
	if got, want := validators(), (map[wire.Hash]uint64{self: 10, added: 3}); !maps.Equal(got, want) {
		t.Fatalf("validators %v, want %v", got, want)
	}
	change(contract, added, 0)
	if got, want := validators(), (map[wire.Hash]uint64{self: 10}); !maps.Equal(got, want) {
		t.Fatalf("validators %v, want %v", got, want)
	}
	// None of these can be done, and none may stop the chain.
	change(contract, added, 0)
	change(contract, self, 0)
	change(contract, added, math.MaxUint64)
	change(contract, added, uint64(cmttypes.MaxTotalVotingPower))
	if got, want := validators(), (map[wire.Hash]uint64{self: 10}); !maps.Equal(got, want) {
		t.Fatalf("validators %v, want %v", got, want)
	}
}
