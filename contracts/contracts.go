// Package contracts holds Parley's Solidity sources and what they compile to:
// the network contract, through which members share one order of records.
//
// Network.abi and Network.bin are committed, so that Go builds need no Solidity
// compiler; build.mjs rebuilds them byte for byte. This package knows how to
// encode calls and to recognise records; running them is the business of a
// ledger driver (internal/ledger/evm).
package contracts

import (
	_ "embed"
	"encoding/hex"
	"strings"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/parley-node/parley/wire"
)

//go:embed Network.abi
var networkABI string

//go:embed Network.bin
var networkBytecode string

// NetworkABI describes the methods, events and errors of the network contract.
var NetworkABI = parseABI(networkABI)

// NetworkBytecode is the network contract's creation code, without the
// constructor's arguments.
var NetworkBytecode = parseHex(networkBytecode)

// The embedded artifacts are as much part of the program as its source; a
// damaged one is caught by the first test, as a bad regexp.MustCompile would be.

func parseABI(s string) abi.ABI {
	a, err := abi.JSON(strings.NewReader(s))
	if err != nil {
		panic("contracts: Network.abi: " + err.Error())
	}
	return a
}

func parseHex(s string) []byte {
	b, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil {
		panic("contracts: Network.bin: " + err.Error())
	}
	return b
}

// AddressOf is the address of the contract that an account creates with the
// given account nonce. The genesis of a bundled ledger names the network
// contract by it before anyone has deployed it.
func AddressOf(deployer wire.Address, nonce uint64) wire.Address {
	return wire.Address(crypto.CreateAddress(common.Address(deployer), nonce))
}
