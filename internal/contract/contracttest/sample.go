// Package contracttest holds the contract that tests of the gateway call. Its
// artifacts are rebuilt by contracts/build.mjs.
package contracttest

import (
	_ "embed"
	"encoding/json"
	"strings"
)

//go:embed Sample.abi
var sampleABI []byte

//go:embed Sample.bin
var sampleCode string

// ABI describes the contract.
func ABI() json.RawMessage { return sampleABI }

// Code is its creation code, in hexadecimal, without the constructor's argument.
func Code() string { return strings.TrimSpace(sampleCode) }
