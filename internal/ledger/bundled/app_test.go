package bundled

import (
	"bytes"
	"context"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/trie"
)

// newApp is the application of a validator without CometBFT around it. Its
// clock stands at the returned time.
func newApp(t *testing.T) (*app, time.Time) {
	t.Helper()
	dir := newChain(t, 1, nil)[0]
	raw, err := os.ReadFile(filepath.Join(dir, genesisFile))
	if err != nil {
		t.Fatal(err)
	}
	doc, state, err := parseGenesis(raw)
	if err != nil {
		t.Fatal(err)
	}
	e, err := openEngine(filepath.Join(dir, "data"), "127.0.0.1", 0, state.Ethereum)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	clock := doc.GenesisTime.Add(time.Hour)
	now := func() time.Time { return clock }
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	set := cmttypes.NewValidatorSet([]*cmttypes.Validator{cmttypes.NewValidator(doc.Validators[0].PubKey, 10)})
	return &app{
		engine: e, intake: newIntake(e, now, log), now: now, log: log,
		validatorsAt: func(int64) (*cmttypes.ValidatorSet, error) { return set, nil },
	}, clock
}

func rawTxs(t *testing.T, txs ...*types.Transaction) (raw [][]byte) {
	t.Helper()
	for _, tx := range txs {
		b, err := tx.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, b)
	}
	return raw
}

func (a *app) mustPropose(t *testing.T, height int64, at time.Time, txs ...*types.Transaction) [][]byte {
	t.Helper()
	res, err := a.PrepareProposal(t.Context(), &abci.RequestPrepareProposal{Height: height, Time: at, Txs: rawTxs(t, txs...), MaxTxBytes: maxBlockBytes})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Txs) == 0 {
		t.Fatal("proposed an empty block")
	}
	return res.Txs
}

func (a *app) accepts(t *testing.T, height int64, at time.Time, items [][]byte) bool {
	t.Helper()
	res, err := a.ProcessProposal(t.Context(), &abci.RequestProcessProposal{Height: height, Time: at, Txs: items})
	if err != nil {
		t.Fatal(err)
	}
	return res.IsAccepted()
}

func (a *app) decide(t *testing.T, height int64, at time.Time, items [][]byte) {
	t.Helper()
	if _, err := a.FinalizeBlock(t.Context(), &abci.RequestFinalizeBlock{Height: height, Time: at, Txs: items}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Commit(t.Context(), &abci.RequestCommit{}); err != nil {
		t.Fatal(err)
	}
}

// A proposer that does not follow the rules gets no vote, whichever field of its
// block it bends.
func TestByzantineProposals(t *testing.T) {
	a, clock := newApp(t)
	from := newAccount(t)
	median := clock.Add(-time.Second)
	a.decide(t, 5, median, a.mustPropose(t, 5, median, from.transfer(t)))
	parent := a.engine.head()

	next := from.transfer(t)
	good := a.mustPropose(t, 9, median, next)
	var header types.Header
	if err := rlp.DecodeBytes(good[0], &header); err != nil {
		t.Fatal(err)
	}
	at := sealOf(&header).time
	reseal := func(h *types.Header, at time.Time, height int64) {
		h.MixDigest = seal{time: at, height: height}.encode()
		h.Time = ethereumTime(at, parent)
	}
	for name, bend := range map[string]func(h *types.Header){
		"parent":               func(h *types.Header) { h.ParentHash = a.engine.chain.Genesis().Hash() },
		"unknown parent":       func(h *types.Header) { h.ParentHash[0] ^= 1 },
		"number":               func(h *types.Header) { h.Number = big.NewInt(3) },
		"huge number":          func(h *types.Header) { h.Number = new(big.Int).Lsh(big.NewInt(1), 80) },
		"height":               func(h *types.Header) { reseal(h, at, 8) },
		"seal's middle":        func(h *types.Header) { h.MixDigest[12] = 1 },
		"time in the future":   func(h *types.Header) { reseal(h, clock.Add(MaxClockAhead+1), 9) },
		"time before median":   func(h *types.Header) { reseal(h, median.Add(-1), 9) },
		"time of the parent":   func(h *types.Header) { reseal(h, sealOf(parent).time, 9) },
		"Ethereum time later":  func(h *types.Header) { h.Time++ },
		"Ethereum time before": func(h *types.Header) { h.Time = parent.Time },
		"gas limit up":         func(h *types.Header) { h.GasLimit += 1000 },
		"gas limit down":       func(h *types.Header) { h.GasLimit -= 1000 },
		"gas used":             func(h *types.Header) { h.GasUsed++ },
		"too much gas used":    func(h *types.Header) { h.GasUsed = maxBlockGas + 1 },
		"base fee":             func(h *types.Header) { h.BaseFee = big.NewInt(1) },
		"fee recipient":        func(h *types.Header) { h.Coinbase[0] = 1 },
		"extra data":           func(h *types.Header) { h.Extra = []byte("hello") },
		"state root":           func(h *types.Header) { h.Root[0] ^= 1 },
		"transaction root":     func(h *types.Header) { h.TxHash[0] ^= 1 },
		"receipt root":         func(h *types.Header) { h.ReceiptHash[0] ^= 1 },
		"bloom":                func(h *types.Header) { h.Bloom[0] ^= 1 },
		"difficulty":           func(h *types.Header) { h.Difficulty = big.NewInt(1) },
		"nonce":                func(h *types.Header) { h.Nonce[0] = 1 },
		"uncles":               func(h *types.Header) { h.UncleHash[0] ^= 1 },
		"beacon root":          func(h *types.Header) { h.ParentBeaconRoot = &common.Hash{1} },
		"requests":             func(h *types.Header) { h.RequestsHash = &common.Hash{1} },
		"no requests hash":     func(h *types.Header) { h.RequestsHash = nil },
		"withdrawals":          func(h *types.Header) { h.WithdrawalsHash = &common.Hash{1} },
		"blob gas":             func(h *types.Header) { used := uint64(1 << 17); h.BlobGasUsed = &used },
		"excess blob gas":      func(h *types.Header) { excess := uint64(1); h.ExcessBlobGas = &excess },
	} {
		bent := types.CopyHeader(&header)
		bend(bent)
		raw, err := rlp.EncodeToBytes(bent)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if a.accepts(t, 9, median, append([][]byte{raw}, good[1:]...)) {
			t.Errorf("%s: accepted", name)
		}
	}

	stranger := newAccount(t)
	stranger.nonce = 5
	blob, err := types.SignNewTx(stranger.key, types.LatestSigner(a.engine.chain.Config()), &types.BlobTx{Gas: 21000, BlobHashes: []common.Hash{{1}}})
	if err != nil {
		t.Fatal(err)
	}
	gap := rawTxs(t, stranger.transfer(t))[0]
	otherChain, err := types.SignNewTx(from.key, types.LatestSignerForChainID(big.NewInt(1)), &types.LegacyTx{Nonce: 1, Gas: 21000, To: &common.Address{}, GasPrice: new(big.Int)})
	if err != nil {
		t.Fatal(err)
	}
	lists := map[string][][]byte{
		"no transactions":         good[:1],
		"no header":               good[1:],
		"header of junk":          {[]byte("junk"), good[1]},
		"trailing bytes":          {append(slices.Clone(good[0]), 0), good[1]},
		"transaction of junk":     {good[0], []byte("junk")},
		"transaction exchanged":   {good[0], gap},
		"transaction added":       {good[0], good[1], gap},
		"transaction twice":       {good[0], good[1], good[1]},
		"blob transaction":        {good[0], good[1], rawTxs(t, blob)[0]},
		"another chain's":         {good[0], rawTxs(t, otherChain)[0]},
		"too many":                append([][]byte{good[0]}, slices.Repeat(good[1:], maxBlockTxs+1)...),
		"the decided block again": {mustHeader(t, parent), good[1]},
	}
	for name, items := range lists {
		if a.accepts(t, 9, median, items) {
			t.Errorf("%s: accepted", name)
		}
	}
	// A block whose header is right for an inexecutable transaction cannot exist;
	// the nearest lie is a consistent header over one.
	lie := types.CopyHeader(&header)
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(gap); err != nil {
		t.Fatal(err)
	}
	lie.TxHash = types.NewBlock(lie, &types.Body{Transactions: types.Transactions{tx}, Withdrawals: types.Withdrawals{}}, nil, trie.NewStackTrie(nil)).TxHash()
	if a.accepts(t, 9, median, [][]byte{mustHeader(t, lie), gap}) {
		t.Error("transaction with a nonce gap: accepted")
	}

	// After all this the honest block is still welcome, and becomes final.
	if !a.accepts(t, 9, median, good) {
		t.Fatal("the honest block was refused")
	}
	// Nor does its header open the door to other transactions in a later round.
	for name, items := range lists {
		if a.accepts(t, 9, median, items) {
			t.Errorf("%s, after the honest block: accepted", name)
		}
	}
	a.decide(t, 9, median, good)
	if head := a.engine.head(); head.Hash() != header.Hash() || a.engine.chain.CurrentFinalBlock().Hash() != header.Hash() {
		t.Errorf("head is %d %s, want %s", head.Number, head.Hash(), header.Hash())
	}
}

func mustHeader(t *testing.T, h *types.Header) []byte {
	t.Helper()
	raw, err := rlp.EncodeToBytes(h)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Consensus time follows the proposer's clock unless the validators' median or
// the parent is later; block times stay apart by a second, as Ethereum demands.
func TestConsensusTime(t *testing.T) {
	a, clock := newApp(t)
	from := newAccount(t)
	height := int64(1)
	block := func(now, median time.Time) *types.Header {
		t.Helper()
		a.now = func() time.Time { return now }
		height++
		items := a.mustPropose(t, height, median, from.transfer(t))
		if !a.accepts(t, height, median, items) {
			t.Fatal("own proposal refused")
		}
		a.decide(t, height, median, items)
		return a.engine.head()
	}
	long := clock.Add(-30 * time.Minute) // the last votes on an idle chain
	h := block(clock, long)
	if at := sealOf(h).time; !at.Equal(clock) || h.Time != uint64(clock.Unix()) {
		t.Errorf("after idling: %s and %d, want %s", at, h.Time, clock)
	}
	late := clock.Add(5 * time.Second)
	if at := sealOf(block(clock, late)).time; !at.Equal(late) {
		t.Errorf("proposer's clock behind: %s, want the median %s", at, late)
	}
	h = block(clock, long)
	if at := sealOf(h).time; !at.Equal(late.Add(1)) {
		t.Errorf("clock went back: %s, want just after %s", at, late)
	}
	if h.Time != uint64(late.Unix())+1 {
		t.Errorf("Ethereum time %d, want %d", h.Time, late.Unix()+1)
	}
}

// A block never uses more than half of its gas limit, so that gas stays free,
// and the rest waits for the next one.
func TestBlockStaysUnderGasTarget(t *testing.T) {
	a, clock := newApp(t)
	// Burns all its gas: JUMPDEST PUSH1 0 JUMP.
	owner := newAccount(t)
	burner := owner.sign(t, nil, 1_000_000, deployment("5b600056"))
	address := crypto.CreateAddress(owner.addr, burner.Nonce())
	a.decide(t, 1, clock, a.mustPropose(t, 1, clock, burner))

	var txs []*types.Transaction
	for range maxBlockGas/maxTxGas + 2 {
		txs = append(txs, owner.sign(t, &address, maxTxGas, nil))
	}
	a.decide(t, 2, clock, a.mustPropose(t, 2, clock, txs...))
	if head := a.engine.head(); head.GasUsed > maxBlockGas || head.GasUsed == 0 {
		t.Errorf("block uses %d gas, at most %d is allowed", head.GasUsed, maxBlockGas)
	}
	a.decide(t, 3, clock, a.mustPropose(t, 3, clock, txs...))
	if fee := a.engine.head().BaseFee; fee.Sign() != 0 {
		t.Errorf("the base fee rose to %d", fee)
	}
}

// Transactions of one account that arrived out of order still fit one block.
func TestProposalSortsNonces(t *testing.T) {
	a, clock := newApp(t)
	from := newAccount(t)
	txs := []*types.Transaction{from.transfer(t), from.transfer(t), from.transfer(t), from.transfer(t)}
	slices.Reverse(txs)
	items := a.mustPropose(t, 1, clock, txs...)
	if len(items) != 5 {
		t.Errorf("block of %d transactions, want 4", len(items)-1)
	}
	if !a.accepts(t, 1, clock, items) {
		t.Error("refused")
	}
}

// What does not fit the proposal's bytes waits.
func TestProposalFitsBytes(t *testing.T) {
	a, clock := newApp(t)
	from := newAccount(t)
	var txs []*types.Transaction
	for range 10 {
		txs = append(txs, from.sign(t, &common.Address{1}, 2_000_000, bytes.Repeat([]byte{1}, 30_000)))
	}
	const room = 100_000
	res, err := a.PrepareProposal(t.Context(), &abci.RequestPrepareProposal{Height: 1, Time: clock, Txs: rawTxs(t, txs...), MaxTxBytes: room})
	if err != nil {
		t.Fatal(err)
	}
	var items []cmttypes.Tx
	for _, raw := range res.Txs {
		items = append(items, raw)
	}
	if size := cmttypes.ComputeProtoSizeForTxs(items); size > room || len(items) != 4 {
		t.Errorf("%d items of %d bytes together, want 4 in at most %d", len(items), size, room)
	}
}

func TestCheckTx(t *testing.T) {
	a, _ := newApp(t)
	known := newAccount(t)
	check := func(tx *types.Transaction, kind abci.CheckTxType) uint32 {
		t.Helper()
		res, err := a.CheckTx(t.Context(), &abci.RequestCheckTx{Tx: rawTxs(t, tx)[0], Type: kind})
		if err != nil {
			t.Fatal(err)
		}
		return res.Code
	}
	first, second := known.transfer(t), known.transfer(t)
	if code := check(second, abci.CheckTxType_New); code != codeLater {
		t.Errorf("second before first: code %d, want %d", code, codeLater)
	}
	if code := check(first, abci.CheckTxType_New); code != abci.CodeTypeOK {
		t.Errorf("first: code %d", code)
	}
	if code := check(first, abci.CheckTxType_Recheck); code != abci.CodeTypeOK {
		t.Errorf("first again: code %d", code)
	}
	if code := check(newAccount(t).transfer(t), abci.CheckTxType_Recheck); code != codeGone {
		t.Errorf("unknown: code %d, want %d", code, codeGone)
	}
	res, err := a.CheckTx(t.Context(), &abci.RequestCheckTx{Tx: []byte("junk")})
	if err != nil || res.Code != codeInvalid {
		t.Errorf("junk: code %d, %v", res.Code, err)
	}
}

// A transaction that no peer heard of is spread again until there is a block.
func TestStalledTransactionsAreSpreadAgain(t *testing.T) {
	a, _ := newApp(t)
	a.intake.every = 5 * time.Millisecond
	offered, flushed := make(chan []byte, 1024), make(chan struct{}, 1024)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- a.intake.run(ctx, func(raw []byte) error { offered <- raw; return nil }, func() { flushed <- struct{}{} })
	}()
	tx := newAccount(t).transfer(t)
	if err := a.intake.add(tx, false); err != nil {
		t.Fatal(err)
	}
	raw := rawTxs(t, tx)[0]
	for range 3 {
		<-flushed
		if !bytes.Equal(<-offered, raw) {
			t.Fatal("another transaction was offered")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestPeerList(t *testing.T) {
	a, _ := newApp(t)
	ask := func(id string) bool {
		t.Helper()
		res, err := a.Query(t.Context(), &abci.RequestQuery{Path: "/p2p/filter/id/" + id})
		if err != nil {
			t.Fatal(err)
		}
		return res.IsOK()
	}
	if !ask("anyone") {
		t.Error("without a list everyone may connect")
	}
	a.allow = map[string]bool{"friend": true}
	if !ask("friend") || ask("stranger") {
		t.Error("the list is not followed")
	}
}

func TestRPCAddressIsLocal(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:8545": true, "localhost:0": true, "[::1]:1": true,
		"0.0.0.0:8545": false, ":8545": false, "192.0.2.1:1": false, "127.0.0.1": false, "127.0.0.1:x": false, "127.0.0.1:65536": false,
	} {
		if _, _, err := rpcAddress(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestGenesisRefusesNonsense(t *testing.T) {
	good := GenesisConfig{ChainID: 1, Time: time.Unix(1, 0), Validators: []GenesisValidator{{PublicKey: [32]byte{1}, Power: 1}}}
	first, err := Genesis(good)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Genesis(good); err != nil || !bytes.Equal(first, again) {
		t.Errorf("equal configs make different files (%v)", err)
	}
	for want, change := range map[string]func(*GenesisConfig){
		"chain id":      func(c *GenesisConfig) { c.ChainID = 0 },
		"no validators": func(c *GenesisConfig) { c.Validators = nil },
		"power 0":       func(c *GenesisConfig) { c.Validators = []GenesisValidator{{}} },
		"duplicate":     func(c *GenesisConfig) { c.Validators = append(c.Validators, c.Validators[0]) },
		"start time":    func(c *GenesisConfig) { c.Time = time.Time{} },
	} {
		c := good
		change(&c)
		if _, err := Genesis(c); err == nil || !strings.Contains(strings.ToLower(err.Error()), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	dir := t.TempDir()
	if _, err := Init(dir); err != nil {
		t.Fatal(err)
	}
	if err := WriteGenesis(dir, first); err != nil {
		t.Fatal(err)
	}
	good.ChainID = 2
	other, err := Genesis(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteGenesis(dir, other); err == nil {
		t.Error("another chain's genesis replaced the first")
	}
}

func FuzzDecodeBlock(f *testing.F) {
	tx := newAccount(f).transfer(f)
	raw, err := tx.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	block := types.NewBlock(&types.Header{Number: big.NewInt(1), Difficulty: new(big.Int)}, &types.Body{Transactions: types.Transactions{tx}}, nil, trie.NewStackTrie(nil))
	header, err := rlp.EncodeToBytes(block.Header())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(header, raw)
	f.Add([]byte{}, []byte{})
	f.Add(header, []byte{3})
	f.Fuzz(func(t *testing.T, header, tx []byte) {
		block, err := decodeBlock([][]byte{header, tx}, func(common.Hash) *types.Transaction { return nil })
		if err != nil {
			return
		}
		again, err := encodeBlock(block)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again[0], header) || !bytes.Equal(again[1], tx) {
			t.Error("two encodings of one block")
		}
		// Rules must not fail on any header that decodes.
		_ = checkHeader(block.Header(), &types.Header{Number: new(big.Int)}, 1, time.Unix(0, 0))
	})
}
