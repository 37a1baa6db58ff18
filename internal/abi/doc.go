// Package abi knows how contracts are called: interfaces (FFI) and their
// generation from Solidity's ABI, and JSON values to ABI encoding and back.
//
//	ffi.go       interfaces as clients see them; generating one from an ABI
//	types.go     types of parameters, out of their JSON schemas
//	encode.go    JSON values to go-ethereum's ABI values; errors name the path
//	decode.go    and back; events out of logs
//	contract.go  methods, events and errors that are ready to use
//
// The encoding itself is go-ethereum's.
package abi
