// Package wire is what two nodes must agree on byte for byte: messages,
// batches, pins, groups and receipts; how they are encoded, hashed, sealed and
// signed. It imports nothing else of this module, so that a stranger's verifier
// needs only this package.
package wire
