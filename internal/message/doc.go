// Package message holds the life of a message, broadcast and private alike.
// Read its files in the order of time:
//
//	submit.go      an application hands in a message; it is checked and stored (T1)
//	data.go        values and blobs, datatypes
//	group.go       the audience of a private message
//	batch.go       ready messages are sealed into a batch (T2)
//	send.go        the batch goes to each peer from a durable outbox
//	receive.go     a peer stores it and answers with a receipt (T3a)
//	pin.go         enough receipts: the batch is pinned on the ledger
//	submission.go  ledger transactions: signed, stored, sent, resent
//	record.go      the ledger's records come back in their final order (T3b)
//	confirm.go     order decides (T4): pins and arrivals in, verdicts out
//	machine.go     the order of one audience and its rows; lookup.go what it asks
//	verdict.go     messages are confirmed or rejected, events are written
//
// What keeps it going when something is missing:
//
//	pull.go        payloads, certificates and secrets are fetched from any holder
//	skip.go        what nobody holds is voted away
//	epoch.go       audiences change their members and keys
//	blocker.go     what a context waits for, and what to do
//
// How data goes again:
//
//	erase.go       data is destroyed, and its batches become remnants
//	remnant.go     what remains of a batch, at members that never had the data
//	request.go     authors ask the other members to erase as well
//	hold.go        legal holds keep data from being erased
//	retention.go   policies erase what is old; files and logs are cleaned
//
// Each numbered step is one database transaction. Between them there are only
// effects that may be repeated, each backed by a row, so that a restart goes on
// where the process stopped: start-up is the same code as a wake-up.
package message
