package contracts

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/ethclient/simulated"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"
	"golang.org/x/crypto/sha3"

	"github.com/parley-node/parley/wire"
)

// The simulated chain is go-ethereum itself, mining when it is told to.

const chainID = 1337

type (
	bytes32 = [32]byte
	bytes16 = [16]byte

	// The contract's structs, as accounts/abi wants them.
	params struct {
		Confirmations, ProtocolVersion, ProtocolFrom, Window, ReceiptAge, SkipAfter, SkipGrace uint64
	}
	founder struct {
		Org bytes32
		Key common.Address
	}
	validator struct {
		Key   bytes32
		Power uint64
	}
)

// The contract's Action enum.
const (
	admit uint8 = iota
	suspend
	resume
	remove
	setPolicy
	setParams
	setValidator
	setSuccessor
	terminate
)

var defaultParams = params{Confirmations: 3, ProtocolVersion: 1, Window: 16, ReceiptAge: 100, SkipAfter: 5e9, SkipGrace: 1e9}

// network is a deployed contract with its founding members' keys.
type network struct {
	t       testing.TB
	chain   *simulated.Backend
	address common.Address
	keys    []*ecdsa.PrivateKey // founder i signs with keys[i]; the rest are nobody's yet
	nonces  map[common.Address]uint64
}

type setup struct {
	founders   int
	approvals  uint64
	validators []validator
}

// found deploys a network. Ten more funded keys are there for later members.
func found(t testing.TB, s setup) *network {
	t.Helper()
	n := newChain(t, s.founders+10)
	receipt := n.deploy(n.founders(s.founders), defaultParams, s.approvals, bytes32{0xe1}, s.validators)
	if receipt.Status != types.ReceiptStatusSuccessful {
		t.Fatal("the constructor reverted")
	}
	return n
}

func newChain(t testing.TB, accounts int) *network {
	n := &network{t: t, nonces: map[common.Address]uint64{}}
	alloc := types.GenesisAlloc{}
	for i := range accounts {
		// Fixed keys: addresses, and so gas, are the same in each run.
		seed := sha256.Sum256(fmt.Appendf(nil, "key %d", i))
		key, err := crypto.ToECDSA(seed[:])
		if err != nil {
			t.Fatal(err)
		}
		n.keys = append(n.keys, key)
		alloc[addr(key)] = types.Account{Balance: new(big.Int).Lsh(big.NewInt(1), 80)}
	}
	n.chain = simulated.NewBackend(alloc, simulated.WithBlockGasLimit(60_000_000), func(_ *node.Config, c *ethconfig.Config) {
		c.TrieCleanCache, c.TrieDirtyCache, c.SnapshotCache, c.DatabaseCache = 8, 8, 8, 8
	})
	t.Cleanup(func() {
		if err := n.chain.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func addr(k *ecdsa.PrivateKey) common.Address { return crypto.PubkeyToAddress(k.PublicKey) }

// org is founder i's organisation.
func org(i int) bytes32 { return bytes32{0xaa, byte(i + 1)} }

func (n *network) founders(count int) (f []founder) {
	for i := range count {
		f = append(f, founder{org(i), addr(n.keys[i])})
	}
	return f
}

func (n *network) deploy(founders []founder, p params, approvals uint64, epoch1 bytes32, validators []validator) *types.Receipt {
	n.t.Helper()
	if validators == nil {
		validators = []validator{}
	}
	args, err := NetworkABI.Pack("", founders, p, approvals, epoch1, validators)
	if err != nil {
		n.t.Fatal(err)
	}
	deployer := addr(n.keys[0])
	n.address = common.Address(AddressOf(wire.Address(deployer), n.nonces[deployer]))
	return n.transact(n.keys[0], nil, append(slices.Clone(NetworkBytecode), args...))
}

// transact mines one transaction in its own block.
func (n *network) transact(from *ecdsa.PrivateKey, to *common.Address, data []byte) *types.Receipt {
	n.t.Helper()
	ctx, client := n.t.Context(), n.chain.Client()
	head, err := client.HeaderByNumber(ctx, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	tx, err := types.SignNewTx(from, types.LatestSignerForChainID(big.NewInt(chainID)), &types.LegacyTx{
		Nonce: n.nonces[addr(from)], GasPrice: new(big.Int).Add(head.BaseFee, big.NewInt(1e9)), Gas: 16_000_000, To: to, Data: data,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.nonces[addr(from)]++
	if err := client.SendTransaction(ctx, tx); err != nil {
		n.t.Fatal(err)
	}
	n.chain.Commit()
	receipt, err := client.TransactionReceipt(ctx, tx.Hash())
	if err != nil {
		n.t.Fatal(err)
	}
	return receipt
}

func (n *network) pack(method string, args ...any) []byte {
	n.t.Helper()
	data, err := NetworkABI.Pack(method, args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return data
}

// do mines a call that must succeed and returns its records' names, in order.
func (n *network) do(from *ecdsa.PrivateKey, method string, args ...any) []string {
	n.t.Helper()
	r := n.transact(from, &n.address, n.pack(method, args...))
	if r.Status != types.ReceiptStatusSuccessful {
		n.t.Fatalf("%s reverted: %v", method, n.refusal(addr(from), n.address, n.pack(method, args...)))
	}
	var names []string
	for _, l := range r.Logs {
		names = append(names, n.event(l).Name)
	}
	return names
}

// refuse checks that a call reverts with a named error, printed with its
// arguments: "Name(argument, …)".
func (n *network) refuse(want string, from *ecdsa.PrivateKey, method string, args ...any) {
	n.t.Helper()
	if got := n.refusal(addr(from), n.address, n.pack(method, args...)); got != want {
		n.t.Errorf("%s: got %q, want %q", method, got, want)
	}
}

func (n *network) refusal(from, to common.Address, data []byte) string {
	n.t.Helper()
	_, err := n.chain.Client().CallContract(n.t.Context(), ethereum.CallMsg{From: from, To: &to, Data: data}, nil)
	return n.reason(err)
}

func (n *network) reason(err error) string {
	n.t.Helper()
	if err == nil {
		return "accepted"
	}
	var revert rpc.DataError
	if !errors.As(err, &revert) {
		return err.Error()
	}
	text, _ := revert.ErrorData().(string)
	data := common.FromHex(text)
	if len(data) < 4 {
		return "no reason"
	}
	e, err := NetworkABI.ErrorByID([4]byte(data[:4]))
	if err != nil {
		n.t.Fatal(err)
	}
	values, err := e.Inputs.Unpack(data[4:])
	if err != nil {
		n.t.Fatal(err)
	}
	var out []string
	for _, v := range values {
		switch v := v.(type) {
		case bytes32:
			out = append(out, hex.EncodeToString(v[:2]))
		default:
			out = append(out, fmt.Sprint(v))
		}
	}
	return e.Name + "(" + strings.Join(out, ", ") + ")"
}

// query calls a view and returns its first result.
func query[T any](n *network, method string, args ...any) T {
	n.t.Helper()
	out, err := n.chain.Client().CallContract(n.t.Context(), ethereum.CallMsg{To: &n.address, Data: n.pack(method, args...)}, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	values, err := NetworkABI.Unpack(method, out)
	if err != nil {
		n.t.Fatal(err)
	}
	return *abi.ConvertType(values[0], new(T)).(*T)
}

func (n *network) event(l *types.Log) *abi.Event {
	n.t.Helper()
	e, err := NetworkABI.EventByID(l.Topics[0])
	if err != nil {
		n.t.Fatal(err)
	}
	return e
}

// arguments of an action, abi-encoded.
func pack(t testing.TB, values ...any) []byte {
	t.Helper()
	var args abi.Arguments
	for _, v := range values {
		name := map[string]string{"[32]uint8": "bytes32", "common.Address": "address", "uint64": "uint64"}[fmt.Sprintf("%T", v)]
		if p, ok := v.(params); ok {
			return pack(t, p.Confirmations, p.ProtocolVersion, p.ProtocolFrom, p.Window, p.ReceiptAge, p.SkipAfter, p.SkipGrace)
		}
		typ, err := abi.NewType(name, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, abi.Argument{Type: typ})
	}
	b, err := args.Pack(values...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// logs are all the contract's logs so far.
func (n *network) logs() []types.Log {
	n.t.Helper()
	logs, err := n.chain.Client().FilterLogs(n.t.Context(), ethereum.FilterQuery{Addresses: []common.Address{n.address}})
	if err != nil {
		n.t.Fatal(err)
	}
	return logs
}

// checkLog recomputes the record chain from the raw logs, with nothing but a
// hash function, and compares it with what the contract says of itself.
func (n *network) checkLog() {
	n.t.Helper()
	logs := n.logs()
	var running bytes32
	for i, l := range logs {
		data := sha3.NewLegacyKeccak256()
		data.Write(l.Data)
		h := sha3.NewLegacyKeccak256()
		h.Write(running[:])
		h.Write(l.Topics[0][:])
		h.Write(l.Topics[3][:])
		h.Write(data.Sum(nil))
		running = bytes32(h.Sum(nil))
		if got := l.Topics[1].Big().Uint64(); got != uint64(i+1) {
			n.t.Fatalf("log %d has number %d", i, got)
		}
		if bytes32(l.Topics[2]) != running {
			n.t.Fatalf("record %d: running hash %x, want %x", i+1, l.Topics[2], running)
		}
		e := n.event(&l)
		values, err := e.Inputs.NonIndexed().Unpack(l.Data)
		if err != nil {
			n.t.Fatalf("record %d: %s does not decode: %v", i+1, e.Name, err)
		}
		again, err := e.Inputs.NonIndexed().Pack(values...)
		if err != nil || !slices.Equal(again, l.Data) {
			n.t.Fatalf("record %d: %s is not the canonical encoding of its fields (%v)", i+1, e.Name, err)
		}
	}
	if got := query[uint64](n, "records"); got != uint64(len(logs)) {
		n.t.Errorf("the contract counts %d records, there are %d logs", got, len(logs))
	}
	if got := query[bytes32](n, "running"); got != running {
		n.t.Errorf("the contract's running hash is %x, want %x", got, running)
	}
}

func sameNames(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("records %v, want %v", got, want)
	}
}
