// Package bundled is a complete permissioned Ethereum chain in one process:
// CometBFT agrees on the order of blocks, go-ethereum executes them. Members
// run one validator each, so nobody has to operate a chain before they can
// share a ledger.
//
// To the rest of Parley it is one more Ethereum JSON-RPC endpoint, served by
// the evm driver. This package therefore knows nothing of messages or pins; it
// only reads one kind of event, the network contract's ValidatorChanged.
//
// # One block
//
// A CometBFT block is either empty or [RLP of an Ethereum header, raw
// transaction, ...]. The proposer executes the mempool's transactions in
// arrival order and proposes the sealed result; every validator executes it
// again before it votes (ProcessProposal), so agreement covers the state root
// of the very block that is voted on. A decided block is final at once:
// latest, safe and finalized are always the same block.
//
// Consensus state beyond Ethereum's own rides in the header's prevRandao field
// (EIP-4399), which an Ethereum chain without a beacon leaves free: the
// CometBFT height, so that no second database has to be kept in step, and the
// consensus time in nanoseconds. A contract can read the latter as
// block.prevrandao >> 192.
//
// # Time
//
// Ethereum's header time advances at least one second per block and runs ahead
// of the clock when blocks come faster. Consensus time does not: the proposer
// takes its clock, and validators refuse a time that is not after the parent's,
// is before CometBFT's own median time, or is more than MaxClockAhead ahead of
// their own clock.
//
// # Price
//
// Gas costs nothing. A block uses at most half of its gas limit, therefore the
// base fee of EIP-1559 stays at its genesis value, zero, for ever.
//
// # Processes
//
// Run owns its process: go-ethereum's logger is process-wide, and both engines
// end the process or stop working on errors that they hold impossible. Run it
// in a child process and watch that with Supervise.
package bundled
