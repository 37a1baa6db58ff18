package contracts

import (
	"bytes"
	"crypto/ecdsa"
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/math"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"

	"github.com/parley-node/parley/wire"
)

func (n *network) refusalOfCreation(code []byte) string {
	n.t.Helper()
	_, err := n.chain.Client().CallContract(n.t.Context(), ethereum.CallMsg{From: addr(n.keys[0]), Data: code}, nil)
	return n.reason(err)
}

// lastPin decodes the newest record, which must be a pin.
func (n *network) lastPin() (signer common.Address, carrier common.Address, p wire.Pin) {
	n.t.Helper()
	logs := n.logs()
	l := logs[len(logs)-1]
	var e struct {
		Org, Root bytes32
		Tag       bytes16
		Handles   []bytes16
		Control   []byte
		Carrier   common.Address
	}
	if err := NetworkABI.UnpackIntoInterface(&e, "Pinned", l.Data); err != nil {
		n.t.Fatal(err)
	}
	p = wire.Pin{Root: e.Root, Tag: e.Tag, Control: e.Control}
	for _, h := range e.Handles {
		p.Handles = append(p.Handles, h)
	}
	return common.BytesToAddress(l.Topics[3][:]), e.Carrier, p
}

func handles(count int) []bytes16 {
	h := make([]bytes16, count)
	for i := range h {
		h[i] = bytes16{1, byte(i >> 8), byte(i), 15: 0xff}
	}
	return h
}

func wireHandles(count int) (out []wire.Handle) {
	for _, h := range handles(count) {
		out = append(out, h)
	}
	return out
}

func TestPin(t *testing.T) {
	n := found(t, setup{founders: 2})
	b := n.keys[1]
	sameNames(t, n.do(b, "pin", bytes32{7}, bytes16{8}, handles(256), make([]byte, 64<<10)), "Pinned")
	signer, carrier, p := n.lastPin()
	if signer != addr(b) || carrier != (common.Address{}) || p.Root != (wire.Hash{7}) || p.Tag != (wire.Tag{8}) ||
		len(p.Handles) != 256 || p.Handles[255] != wire.Handle(handles(256)[255]) || len(p.Control) != 64<<10 {
		t.Errorf("pin %x by %v via %v", p.Root, signer, carrier)
	}
	sameNames(t, n.do(b, "pin", bytes32{}, bytes16{8}, []bytes16{}, []byte{1}), "Pinned")

	n.refuse("TooManyHandles(257, 256)", b, "pin", bytes32{7}, bytes16{8}, handles(257), []byte{})
	n.refuse("ControlTooLong(65537, 65536)", b, "pin", bytes32{7}, bytes16{8}, handles(1), make([]byte, 64<<10+1))
	n.refuse("HandlesWithoutRoot()", b, "pin", bytes32{}, bytes16{8}, handles(1), []byte{1})
	n.refuse("EmptyPin()", b, "pin", bytes32{}, bytes16{8}, []bytes16{}, []byte{})
	n.refuse("UnknownKey("+addr(n.keys[5]).Hex()+")", n.keys[5], "pin", bytes32{7}, bytes16{8}, handles(1), []byte{})
	n.checkLog()
}

// carriedPin is a pin for a caller, as a member signs it.
type carriedPin struct {
	pin    wire.Pin
	caller common.Address
	expiry uint64
}

func (n *network) sign(key *ecdsa.PrivateKey, c carriedPin) (sig wire.Signature) {
	n.t.Helper()
	digest := wire.CarriedPinDigest(chainID, wire.Address(n.address), wire.Address(c.caller), c.expiry, c.pin)
	b, err := crypto.Sign(digest[:], key)
	if err != nil {
		n.t.Fatal(err)
	}
	return wire.Signature(b)
}

func (n *network) data(c carriedPin, sig wire.Signature) []byte {
	n.t.Helper()
	data, err := CarriedPinData(c.pin, c.expiry, sig)
	if err != nil {
		n.t.Fatal(err)
	}
	return data
}

func (n *network) carry(key *ecdsa.PrivateKey, c carriedPin) []byte {
	n.t.Helper()
	return n.data(c, n.sign(key, c))
}

// forwarder is the creation code of a custom contract that passes its call
// data on to a target and bubbles up a revert.
func forwarder(target common.Address) []byte {
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

func TestCarriedPin(t *testing.T) {
	n := found(t, setup{founders: 2})
	b, outsider := n.keys[1], n.keys[5]
	custom := n.transact(outsider, nil, forwarder(n.address)).ContractAddress
	pin := wire.Pin{Root: wire.Hash{7}, Tag: wire.Tag{8}, Handles: wireHandles(3), Control: []byte("control")}
	good := carriedPin{pin, custom, 1000}

	via := func(c common.Address, data []byte) string {
		t.Helper()
		return n.refusal(addr(outsider), c, n.pack("pinBatchData", data))
	}
	if got := via(custom, n.carry(outsider, good)); got != "UnknownKey("+addr(outsider).Hex()+")" {
		t.Errorf("signed by an outsider: %s", got)
	}
	// The signature holds for its caller only, and for what it covers only: for
	// anything else another signer is recovered, who is nobody.
	stolen := n.carry(b, good)
	if got := n.refusal(addr(outsider), n.address, n.pack("pinBatchData", stolen)); got[:10] != "UnknownKey" {
		t.Errorf("carried by another caller: %s", got)
	}
	sig := n.sign(b, good)
	for name, change := range map[string]func(*carriedPin){
		"root":    func(c *carriedPin) { c.pin.Root[0]++ },
		"tag":     func(c *carriedPin) { c.pin.Tag[0]++ },
		"handles": func(c *carriedPin) { c.pin.Handles = wireHandles(2) },
		"control": func(c *carriedPin) { c.pin.Control = []byte("changed") },
		"expiry":  func(c *carriedPin) { c.expiry++ },
	} {
		bad := good
		change(&bad)
		if got := via(custom, n.data(bad, sig)); got[:10] != "UnknownKey" && got != "InvalidSignature()" {
			t.Errorf("changed %s: %s", name, got)
		}
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"expired":  {n.carry(b, carriedPin{pin, custom, 1}), "PinExpired(1, 2)"},
		"handles":  {n.carry(b, carriedPin{wire.Pin{Root: wire.Hash{1}, Handles: wireHandles(257)}, custom, 1000}), "TooManyHandles(257, 256)"},
		"empty":    {n.carry(b, carriedPin{caller: custom, expiry: 1000}), "EmptyPin()"},
		"high s":   {n.data(good, highS(sig)), "InvalidSignature()"},
		"garbage":  {[]byte{1, 2, 3}, "no reason"},
		"bad v":    {n.data(good, badV(sig)), "InvalidSignature()"},
		"no bytes": {nil, "no reason"},
	} {
		if got := via(custom, c.data); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}

	data := n.carry(b, good)
	if r := n.transact(outsider, &custom, n.pack("pinBatchData", data)); r.Status != types.ReceiptStatusSuccessful {
		t.Fatal("a good carried pin was refused: ", via(custom, data))
	}
	signer, carrier, got := n.lastPin()
	if signer != addr(b) || carrier != custom || got.Root != pin.Root || len(got.Handles) != 3 || !bytes.Equal(got.Control, pin.Control) {
		t.Errorf("carried pin %+v by %v via %v", got, signer, carrier)
	}
	if got := via(custom, data); got[:17] != "PinCarriedBefore(" {
		t.Errorf("carried twice: %s", got)
	}
	// v as 27 or 28, the form of most wallets, is the same signature: no second pin.
	wallet := sig
	wallet[64] += 27
	if got := via(custom, n.data(good, wallet)); got[:17] != "PinCarriedBefore(" {
		t.Errorf("carried twice in wallet form: %s", got)
	}
	n.checkLog()
}

// highS is the other valid form of an ECDSA signature, which must be refused.
func highS(sig wire.Signature) wire.Signature {
	s := new(big.Int).Sub(crypto.S256().Params().N, new(big.Int).SetBytes(sig[32:64]))
	s.FillBytes(sig[32:64])
	sig[64] ^= 1
	return sig
}

func badV(sig wire.Signature) wire.Signature {
	sig[64] = 5
	return sig
}

// The digest is the same three times: by package wire, by the contract, and by
// go-ethereum's general EIP-712 code as a wallet would compute it.
func TestCarriedPinDigest(t *testing.T) {
	n := found(t, setup{founders: 1})
	for _, count := range []int{0, 1, 2, 256} {
		c := carriedPin{
			pin:    wire.Pin{Root: wire.Hash{1, 31: 2}, Tag: wire.Tag{3, 15: 4}, Handles: wireHandles(count), Control: bytes.Repeat([]byte{5}, count)},
			caller: common.Address{6, 19: 7}, expiry: 1<<63 + 9,
		}
		ours := wire.CarriedPinDigest(chainID, wire.Address(n.address), wire.Address(c.caller), c.expiry, c.pin)
		if c.pin.Control == nil {
			c.pin.Control = []byte{}
		}
		theirs := query[bytes32](n, "carriedPinDigest", bytes32(c.pin.Root), bytes16(c.pin.Tag), handles(count), c.pin.Control, c.caller, c.expiry)
		if ours != theirs {
			t.Errorf("%d handles: ours %x, the contract's %x", count, ours, theirs)
		}
		var packed []byte
		for _, h := range c.pin.Handles {
			packed = append(packed, h[:]...)
		}
		wallet, _, err := apitypes.TypedDataAndHash(apitypes.TypedData{
			PrimaryType: "CarriedPin",
			Types: apitypes.Types{
				"EIP712Domain": {{Name: "name", Type: "string"}, {Name: "version", Type: "string"}, {Name: "chainId", Type: "uint256"}, {Name: "verifyingContract", Type: "address"}},
				"CarriedPin":   {{Name: "root", Type: "bytes32"}, {Name: "tag", Type: "bytes16"}, {Name: "handles", Type: "bytes32"}, {Name: "control", Type: "bytes32"}, {Name: "caller", Type: "address"}, {Name: "expiry", Type: "uint64"}},
			},
			Domain: apitypes.TypedDataDomain{Name: "Parley", Version: "1", ChainId: math.NewHexOrDecimal256(chainID), VerifyingContract: n.address.Hex()},
			Message: apitypes.TypedDataMessage{
				"root": c.pin.Root[:], "tag": c.pin.Tag[:], "handles": crypto.Keccak256(packed), "control": crypto.Keccak256(c.pin.Control),
				"caller": c.caller.Hex(), "expiry": new(big.Int).SetUint64(c.expiry),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours[:], wallet) {
			t.Errorf("%d handles: ours %x, a wallet's %x", count, ours, wallet)
		}
	}
}

func TestAddressOf(t *testing.T) {
	n := newChain(t, 1)
	r := n.deploy(n.founders(1), defaultParams, 0, bytes32{}, nil)
	if r.ContractAddress != n.address {
		t.Errorf("deployed at %v, expected %v", r.ContractAddress, n.address)
	}
}

// A pin stays cheap: it stores a number and a hash, the rest is log. The bounds
// are a tenth above what was measured.
func TestPinGas(t *testing.T) {
	n := found(t, setup{founders: 1})
	n.do(n.keys[0], "pin", bytes32{1}, bytes16{1}, handles(1), []byte{})
	for _, c := range []struct {
		handles, control int
		most             uint64
	}{{1, 0, 62_000}, {10, 0, 75_000}, {256, 0, 400_000}, {0, 512, 75_000}} {
		root := bytes32{2}
		if c.handles == 0 {
			root = bytes32{}
		}
		r := n.transact(n.keys[0], &n.address, n.pack("pin", root, bytes16{1}, handles(c.handles), bytes.Repeat([]byte{0xcc}, c.control)))
		t.Logf("%d handles, %d bytes of control: %d gas", c.handles, c.control, r.GasUsed)
		if r.Status != types.ReceiptStatusSuccessful || r.GasUsed > c.most {
			t.Errorf("%d handles, %d bytes of control: %d gas, want at most %d", c.handles, c.control, r.GasUsed, c.most)
		}
	}
}

func BenchmarkPin(b *testing.B) {
	n := found(b, setup{founders: 1})
	var gas uint64
	for b.Loop() {
		gas = n.transact(n.keys[0], &n.address, n.pack("pin", bytes32{1}, bytes16{1}, handles(3), []byte{})).GasUsed
	}
	b.ReportMetric(float64(gas), "gas/pin")
}
