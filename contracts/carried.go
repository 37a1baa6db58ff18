package contracts

import (
	"fmt"

	"github.com/ethereum/go-ethereum/accounts/abi"

	"github.com/parley-node/parley/wire"
)

var carriedPinData = carriedPinArguments()

// CarriedPinData is the argument of pinBatchData: a pin that a custom contract
// carries, with the signature of a member key over wire.CarriedPinDigest. The
// key's organisation is the pin's author.
func CarriedPinData(p wire.Pin, expiry uint64, signature wire.Signature) ([]byte, error) {
	data, err := carriedPinData.Pack(p.Root, p.Tag, p.Handles, p.Control, expiry, signature[:])
	if err != nil {
		return nil, fmt.Errorf("encode a carried pin: %w", err)
	}
	return data, nil
}

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
