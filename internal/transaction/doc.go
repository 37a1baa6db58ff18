// Package transaction brings applications' transactions to a chain, each exactly
// once, and follows them until they are final.
//
// A transaction is a row before anything else (Tx.InsertChainTxs, state queued).
// One worker, Manager.Step, does the rest, and each of its outward effects may be
// repeated:
//
//	sign.go     takes nonces, signs, stores the signed bytes, and only then sends
//	settle.go   looks what became final, and ends rows in one database transaction
//	resend.go   sends again, raises offers, cancels, fills gaps in the nonces
//
// A nonce is the guard against doing something twice: all signed forms of a row
// have the same one, so at most one of them can be mined. A row gets another
// nonce only when a final block holds a transaction with its nonce that is none
// of its own.
package transaction
