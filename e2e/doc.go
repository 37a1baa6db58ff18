// Package e2e tests the parley binary from outside, against real processes,
// real ledgers and the clients that people already have. It is a module of its
// own, so that nothing it needs becomes a dependency of Parley.
//
//	process_test.go  the binary and its processes
//	network_test.go  networks of real members, and their traffic
//	demo_test.go     parley demo, and each fault that it can plant
//	crash_test.go    SIGKILL, a full disk, no ledger, two processes on a folder
//	sdk_test.go      the npm SDK of existing clients (sdk/)
//	evm/             the ledger driver on a second EVM implementation
//	wire/            a second implementation of the wire format
//
// PARLEY names a binary to test; without it the tests build one.
package e2e
