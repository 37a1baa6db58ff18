package evm

import (
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/parley-node/parley/contracts"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/ethereum/ethtest"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

func testPin(i byte) ledger.PinCall {
	return ledger.PinCall{Pin: wire.Pin{Root: wire.Hash{1, i}, Tag: wire.Tag{2, i}, Handles: []wire.Handle{{3, i}}, Control: []byte{4, i}}}
}

// solo is a network of one member on a fresh chain.
func solo(t testing.TB, o ethtest.Options, change func(*Config)) (*ethtest.Chain, *Ledger, party) {
	t.Helper()
	ps, funded := parties(t, 1)
	c := ethtest.New(t, o, funded...)
	d := deploy(t, c, ps...)
	cfg := Config{URLs: []string{c.HTTP()}, Contract: d.Contract, FromBlock: d.Block, Keys: ps[0].keys, Fees: feesOf(c)}
	if change != nil {
		change(&cfg)
	}
	return c, open(t, cfg), ps[0]
}

func sign(t testing.TB, l *Ledger, from wire.Address, nonce uint64, bump int, call ledger.Call) ledger.Signed {
	t.Helper()
	tx, err := l.Sign(t.Context(), from, nonce, bump, call)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func send(t testing.TB, l *Ledger, tx ledger.Signed) {
	t.Helper()
	if err := l.Send(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
}

func nonceOf(t testing.TB, l *Ledger, a wire.Address) uint64 {
	t.Helper()
	s, err := l.State(t.Context(), &a)
	if err != nil {
		t.Fatal(err)
	}
	return s.Nonce
}

func decodeTx(t testing.TB, tx ledger.Signed) *types.Transaction {
	t.Helper()
	var out types.Transaction
	if err := out.UnmarshalBinary(tx.Raw); err != nil {
		t.Fatal(err)
	}
	return &out
}

func TestPrices(t *testing.T) {
	priced, auto, p := solo(t, ethtest.Options{Priced: true}, nil)
	n := nonceOf(t, auto, p.key)

	first := decodeTx(t, sign(t, auto, p.key, n, 0, testPin(1)))
	second := decodeTx(t, sign(t, auto, p.key, n, 1, testPin(1)))
	base := priced.Head().BaseFee
	if first.Type() != types.DynamicFeeTxType || first.GasFeeCap().Cmp(base) <= 0 || first.GasTipCap().Sign() <= 0 {
		t.Errorf("automatic fees gave type %d, cap %v, tip %v with base fee %v", first.Type(), first.GasFeeCap(), first.GasTipCap(), base)
	}
	for _, pair := range [][2]*big.Int{{first.GasFeeCap(), second.GasFeeCap()}, {first.GasTipCap(), second.GasTipCap()}} {
		tenth := new(big.Int).Div(new(big.Int).Mul(pair[0], big.NewInt(110)), big.NewInt(100))
		if pair[1].Cmp(tenth) <= 0 {
			t.Errorf("a bump raises %v to %v only", pair[0], pair[1])
		}
	}
	for fees, want := range map[Fees]uint8{FeesZero: types.LegacyTxType, FeesLegacy: types.LegacyTxType, FeesDynamic: types.DynamicFeeTxType} {
		l := open(t, Config{URLs: []string{priced.HTTP()}, Contract: wire.Address(auto.contract), Keys: p.keys, Fees: fees})
		tx := decodeTx(t, sign(t, l, p.key, n, 0, testPin(1)))
		if tx.Type() != want || (tx.GasFeeCap().Sign() == 0) != (fees == FeesZero) {
			t.Errorf("fees %d gave type %d and price %v", fees, tx.Type(), tx.GasFeeCap())
		}
	}

	// A chain with free gas asks for nothing, and nothing is offered.
	_, free, q := solo(t, ethtest.Options{}, func(cfg *Config) { cfg.Fees = FeesZero })
	if tx := decodeTx(t, sign(t, free, q.key, 1, 3, testPin(1))); tx.GasPrice().Sign() != 0 {
		t.Errorf("gas price %v on a free chain", tx.GasPrice())
	}
}

// A bump replaces a waiting transaction; the replaced one can then be proved
// never to be mined, once the other is final.
func TestReplacement(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{Priced: true, Lag: 2}, nil)
	n := nonceOf(t, l, p.key)
	old, same, better := sign(t, l, p.key, n, 0, testPin(1)), sign(t, l, p.key, n, 0, testPin(2)), sign(t, l, p.key, n, 1, testPin(1))
	send(t, l, old)
	if err := l.Send(t.Context(), same); err == nil || !strings.Contains(err.Error(), "bump") {
		t.Errorf("a second transaction at the same price: %v, want the advice to bump", err)
	}
	send(t, l, better)
	c.Mine()
	if err := l.Send(t.Context(), old); err == nil || errors.Is(err, ledger.ErrNonceUsed) {
		t.Errorf("the replaced transaction before finality: %v, want an error that is not final", err)
	}
	if settled, err := l.Outcome(t.Context(), old); settled || err != nil {
		t.Errorf("its outcome before finality: %v %v", settled, err)
	}
	if settled, err := l.Outcome(t.Context(), better); settled || err != nil {
		t.Errorf("the other's outcome before finality: %v %v", settled, err)
	}
	c.Settle()
	if err := l.Send(t.Context(), old); !errors.Is(err, ledger.ErrNonceUsed) {
		t.Errorf("the replaced transaction: %v, want ErrNonceUsed", err)
	}
	if settled, err := l.Outcome(t.Context(), old); settled || !errors.Is(err, ledger.ErrNonceUsed) {
		t.Errorf("its outcome: %v %v, want ErrNonceUsed", settled, err)
	}
	if settled, err := l.Outcome(t.Context(), better); !settled || err != nil {
		t.Errorf("the other's outcome: %v %v, want settled", settled, err)
	}
}

// A refused pin is mined as a failure, and told once that is final.
func TestRefusedPin(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{Lag: 1}, nil)
	tx := sign(t, l, p.spare, 0, 0, testPin(1)) // not a key of the contract
	send(t, l, tx)
	c.Mine()
	send(t, l, tx) // the chain has it; that it failed is not final
	if settled, err := l.Outcome(t.Context(), tx); settled || err != nil {
		t.Errorf("outcome before finality: %v %v", settled, err)
	}
	c.Mine()
	var refusal *ledger.Refusal
	if settled, err := l.Outcome(t.Context(), tx); !settled || !errors.As(err, &refusal) || !strings.Contains(refusal.Reason, p.spare.String()) {
		t.Errorf("outcome: %v %v, want a refusal that names the account", settled, err)
	}
	if err := l.Send(t.Context(), tx); !errors.As(err, &refusal) {
		t.Errorf("sent again: %v, want a refusal", err)
	}
}

// A refused administrative call burns no nonce.
func TestRefusedBeforeSending(t *testing.T) {
	_, l, p := solo(t, ethtest.Options{}, nil)
	n := nonceOf(t, l, p.key)
	var refusal *ledger.Refusal
	err := l.Send(t.Context(), sign(t, l, p.key, n, 0, ledger.VoteCall{ID: 7}))
	if !errors.As(err, &refusal) || refusal.Reason != "there is no proposal 7" {
		t.Errorf("got %v", err)
	}
	if got := nonceOf(t, l, p.key); got != n {
		t.Errorf("the nonce went from %d to %d", n, got)
	}
}

func TestNoFunds(t *testing.T) {
	ps, funded := parties(t, 1)
	c := ethtest.New(t, ethtest.Options{Priced: true}, funded[0])
	d := deploy(t, c, ps...)
	l := open(t, Config{URLs: []string{c.HTTP()}, Contract: d.Contract, Keys: ps[0].keys})
	err := l.Send(t.Context(), sign(t, l, ps[0].spare, 0, 0, testPin(1)))
	if err == nil || !strings.Contains(err.Error(), "needs funds") {
		t.Errorf("got %v, want the advice to fund the account", err)
	}
}

// The fixed gas of a pin holds for the largest and costliest one.
func TestGasOfLargestPin(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{}, nil)
	call := testPin(1)
	call.Pin.Control = make([]byte, 64<<10)
	for i := range call.Pin.Control {
		call.Pin.Control[i] = 0xff
	}
	call.Pin.Handles = make([]wire.Handle, 256)
	for i := range call.Pin.Handles {
		for j := range call.Pin.Handles[i] {
			call.Pin.Handles[i][j] = 0xff
		}
	}
	tx := sign(t, l, p.key, nonceOf(t, l, p.key), 0, call)
	send(t, l, tx)
	c.Mine()
	if settled, err := l.Outcome(t.Context(), tx); !settled || err != nil {
		t.Errorf("the largest pin: %v %v", settled, err)
	}
	mined, err := receiptOf(t, l, tx)
	if err != nil {
		t.Fatal(err)
	}
	limit := decodeTx(t, tx).Gas()
	t.Logf("%d of %d gas", uint64(mined.GasUsed), limit)
	if limit > 1<<24 {
		t.Errorf("the limit of %d is above the cap of EIP-7825", limit)
	}
}

func receiptOf(t testing.TB, l *Ledger, tx ledger.Signed) (*receipt, error) {
	return ethereum.Call[*receipt](t.Context(), l.endpoints, "eth_getTransactionReceipt", common.Hash(tx.Hash))
}

// A custom contract carries a pin for a member who never sends a transaction.
func TestCarriedPin(t *testing.T) {
	c, l, p := solo(t, ethtest.Options{}, nil)
	// The custom contract is made by a plain account and passes call data on.
	create := ledger.ContractCall{Data: passOn(l.contract)}
	tx := sign(t, l, p.spare, 0, 0, create)
	send(t, l, tx)
	c.Mine()
	custom := contracts.AddressOf(p.spare, 0)

	pin := testPin(9).Pin
	digest := wire.CarriedPinDigest(ethtest.ChainID, wire.Address(l.contract), custom, 1000, pin)
	signature, err := p.keys.Sign(t.Context(), p.key, digest, "carried pin")
	if err != nil {
		t.Fatal(err)
	}
	data, err := contracts.CarriedPinData(pin, 1000, signature)
	if err != nil {
		t.Fatal(err)
	}
	input, err := contracts.NetworkABI.Pack("pinBatchData", data)
	if err != nil {
		t.Fatal(err)
	}
	carry := ledger.ContractCall{To: &custom, Data: input}
	tx = sign(t, l, p.spare, 1, 0, carry)
	send(t, l, tx)
	c.Mine()
	rs, _ := records(t, l, 3, 1)
	got, ok := rs[0].Body.(ledger.Pinned)
	if !ok || got.Via != custom || got.Org != p.org || got.Pin.Root != pin.Root || rs[0].Signer != p.key || rs[0].TxHash != tx.Hash {
		t.Errorf("record %+v", rs[0])
	}

	// What the network contract refuses comes back through the custom one.
	var refusal *ledger.Refusal
	if _, err := l.Sign(t.Context(), p.spare, 2, 0, carry); !errors.As(err, &refusal) || !strings.Contains(refusal.Reason, "was pinned before") {
		t.Errorf("carried twice: %v", err)
	}
}

// passOn is the creation code of a contract that calls the target with its own
// call data and passes a revert on.
func passOn(target common.Address) []byte {
	run := append([]byte{
		0x36, 0x60, 0x00, 0x60, 0x00, 0x37, // CALLDATACOPY(0, 0, CALLDATASIZE)
		0x60, 0x00, 0x60, 0x00, 0x36, 0x60, 0x00, 0x60, 0x00, // out 0 0, in CALLDATASIZE 0, value 0
		0x73}, target[:]...) // PUSH20 target
	run = append(run, 0x5a, 0xf1, // CALL with all gas
		0x3d, 0x60, 0x00, 0x60, 0x00, 0x3e, // RETURNDATACOPY(0, 0, RETURNDATASIZE)
		0x60, 0x33, 0x57, // JUMPI(51) if the call succeeded
		0x3d, 0x60, 0x00, 0xfd, // REVERT(0, RETURNDATASIZE)
		0x5b, 0x3d, 0x60, 0x00, 0xf3) // 51: RETURN(0, RETURNDATASIZE)
	return append([]byte{0x60, byte(len(run)), 0x60, 0x0c, 0x60, 0x00, 0x39, 0x60, byte(len(run)), 0x60, 0x00, 0xf3}, run...)
}

func TestDeployRefusal(t *testing.T) {
	ps, funded := parties(t, 1)
	c := ethtest.New(t, ethtest.Options{Auto: true}, funded...)
	l := open(t, Config{URLs: []string{c.HTTP()}, Keys: ps[0].keys, Fees: FeesZero})
	_, err := l.Deploy(t.Context(), ps[0].key, Founding{Params: ledger.DefaultParams})
	var refusal *ledger.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != meanings["NoFounder"] {
		t.Errorf("a network without members: %v", err)
	}
	if _, err := l.Sign(t.Context(), ps[0].key, 0, 0, testPin(1)); err == nil {
		t.Error("a pin was signed for no contract")
	}
}
