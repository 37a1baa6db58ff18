package contracts

import (
	"encoding/binary"
	"fmt"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/parley-node/parley/wire"
)

// CarriedPin is a pin that a custom contract brings to the network contract
// (pinBatchData), so that the contract's own effect and the pin are one
// transaction. A member key signs Digest; its organisation is the author.
type CarriedPin struct {
	Pin    wire.Pin
	Caller wire.Address // the custom contract that may carry it
	Expiry uint64       // the last block in which it may
}

var (
	domainType     = crypto.Keccak256([]byte("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"))
	domainName     = crypto.Keccak256([]byte("Parley"))
	domainVersion  = crypto.Keccak256([]byte("1"))
	carriedPinType = crypto.Keccak256([]byte("CarriedPin(bytes32 root,bytes16 tag,bytes32 handles,bytes32 control,address caller,uint64 expiry)"))
	carriedPinData = carriedPinArguments()
)

// Digest is the EIP-712 digest that a member key signs, for one network
// contract on one chain. handles and control go in as keccak256 of their bytes,
// the handles one after the other with 16 bytes each.
func (c CarriedPin) Digest(chainID uint64, network wire.Address) wire.Hash {
	var handles []byte
	for _, h := range c.Pin.Handles {
		handles = append(handles, h[:]...)
	}
	domain := crypto.Keccak256(domainType, domainName, domainVersion, wordOf(chainID), word(network[:]))
	var tag [32]byte // bytes16 stands at the front of its word, numbers and addresses at the end
	copy(tag[:], c.Pin.Tag[:])
	message := crypto.Keccak256(carriedPinType, c.Pin.Root[:], tag[:],
		crypto.Keccak256(handles), crypto.Keccak256(c.Pin.Control), word(c.Caller[:]), wordOf(c.Expiry))
	return wire.Hash(crypto.Keccak256([]byte{0x19, 0x01}, domain, message))
}

// Data is the argument of pinBatchData for the pin and the member's signature
// over its Digest.
func (c CarriedPin) Data(signature wire.Signature) ([]byte, error) {
	data, err := carriedPinData.Pack(c.Pin.Root, c.Pin.Tag, c.Pin.Handles, c.Pin.Control, c.Expiry, signature[:])
	if err != nil {
		return nil, fmt.Errorf("encode a carried pin: %w", err)
	}
	return data, nil
}

func word(b []byte) []byte {
	var w [32]byte
	copy(w[32-len(b):], b)
	return w[:]
}

func wordOf(n uint64) []byte { return word(binary.BigEndian.AppendUint64(nil, n)) }

func carriedPinArguments() (a abi.Arguments) {
	for _, name := range []string{"bytes32", "bytes16", "bytes16[]", "bytes", "uint64", "bytes"} {
		t, err := abi.NewType(name, "", nil)
		if err != nil {
			panic("contracts: carried pin: " + err.Error())
		}
		a = append(a, abi.Argument{Type: t})
	}
	return a
}
