package store

import (
	"encoding/json"
	"fmt"

	"github.com/parley-node/parley/wire"
)

// ChainTx is a transaction that this node brings to a chain for an application.
type ChainTx struct {
	Seq       int64
	Op        UUID  // the operation that it carries out
	Tx        *UUID // its business transaction; nil of a filler
	Namespace string
	Kind      string // type of the operation, or ChainTxFiller
	Chain     uint64
	Account   wire.Address
	Nonce     *int64        // nil while queued, unless the application chose it
	To        *wire.Address // nil creates a contract
	Value     string        // wei, decimal
	Data      []byte
	Gas       uint64
	Fees      json.RawMessage // what the application offers to pay; {} for the policy
	State     string
	Cancel    bool // the application wants it off the chain
	Reason    string
	Created   Time
	Updated   Time

	Attempts []ChainAttempt // oldest first, where a function says that it reads them
}

// ChainTxFiller is the kind of a transaction that only uses up a nonce, which
// others with higher ones wait for.
const ChainTxFiller = "filler"

// States of a ChainTx.
const (
	ChainTxQueued    = "queued"    // not signed yet
	ChainTxSigned    = "signed"    // on its way
	ChainTxSucceeded = "succeeded" // final
	ChainTxFailed    = "failed"    // final: the contract refused it
	ChainTxCancelled = "cancelled" // final: its nonce was used up, or never given
)

// ChainAttempt is one signed form of a ChainTx.
type ChainAttempt struct {
	Seq     int64
	Hash    wire.Hash
	Nonce   int64
	Raw     []byte
	Cancels bool
	Fees    json.RawMessage
	Created Time
	Error   string
}

const chainTxColumns = `seq, op, tx, namespace, kind, chain, account, nonce, target, value, data, gas, fees, state, cancel, reason, created, updated`

func scanChainTx(r *Rows, t *ChainTx) error {
	var target []byte
	err := r.Scan(&t.Seq, &t.Op, &t.Tx, &t.Namespace, &t.Kind, &t.Chain, &t.Account, &t.Nonce, &target, &t.Value, &t.Data, &t.Gas,
		(*[]byte)(&t.Fees), &t.State, &t.Cancel, &t.Reason, &t.Created, &t.Updated)
	if err != nil {
		return fmt.Errorf("reading a chain transaction row: %w", err)
	}
	if len(target) > 0 {
		t.To = new(wire.Address)
		return t.To.Scan(target)
	}
	return nil
}

var insertChainTxs = newInsert("chain_txs", "", "seq", "op tx namespace kind chain account nonce target value data gas fees state created updated")

// InsertChainTxs stores transactions and sets Seq.
func (tx *Tx) InsertChainTxs(txs []*ChainTx) error {
	return insertChainTxs.numbered(tx, len(txs), func(args []any, i int) []any {
		t := txs[i]
		target := []byte{}
		if t.To != nil {
			target = t.To[:]
		}
		return append(args, t.Op, t.Tx, t.Namespace, t.Kind, int64(t.Chain), t.Account, t.Nonce, target, t.Value, t.Data, int64(t.Gas),
			jsonObject(t.Fees), t.State, t.Created, t.Updated)
	}, func(i int, seq int64) { txs[i].Seq = seq })
}

// QueuedAccounts lists the accounts that have something to sign and are not
// suspended.
func (tx *Tx) QueuedAccounts(chain uint64) ([]wire.Address, error) {
	return collect(tx, func(r *Rows, a *wire.Address) error { return r.Scan(a) }, `SELECT DISTINCT account FROM chain_txs
		WHERE chain = $1 AND state IN ('queued', 'signed') AND state = 'queued'
		AND NOT EXISTS (SELECT 1 FROM suspended_signers s WHERE s.chain = chain_txs.chain AND s.account = chain_txs.account)
		ORDER BY account`, int64(chain))
}

// QueuedChainTxs lists what is to be signed with an account, oldest first.
func (tx *Tx) QueuedChainTxs(chain uint64, account wire.Address, limit int) ([]ChainTx, error) {
	return collect(tx, scanChainTx, `SELECT `+chainTxColumns+` FROM chain_txs
		WHERE chain = $1 AND state IN ('queued', 'signed') AND state = 'queued' AND account = $2 ORDER BY seq LIMIT $3`, int64(chain), account, limit)
}

// SignedChainTxs lists what is on its way, by account and nonce, with its
// attempts.
func (tx *Tx) SignedChainTxs(chain uint64) ([]ChainTx, error) {
	all, err := collect(tx, scanChainTx, `SELECT `+chainTxColumns+` FROM chain_txs
		WHERE chain = $1 AND state IN ('queued', 'signed') AND state = 'signed' ORDER BY account, nonce`, int64(chain))
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Attempts, err = tx.chainAttempts(all[i].Seq); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ChainTxByOp returns the transaction of an operation with its attempts, nil if
// it has none.
func (tx *Tx) ChainTxByOp(op UUID) (*ChainTx, error) {
	t, err := one(tx, scanChainTx, `SELECT `+chainTxColumns+` FROM chain_txs WHERE op = $1`, op)
	if err != nil || t == nil {
		return nil, err
	}
	t.Attempts, err = tx.chainAttempts(t.Seq)
	return t, err
}

func (tx *Tx) chainAttempts(of int64) ([]ChainAttempt, error) {
	return collect(tx, func(r *Rows, a *ChainAttempt) error {
		return r.Scan(&a.Seq, &a.Hash, &a.Nonce, &a.Raw, &a.Cancels, (*[]byte)(&a.Fees), &a.Created, &a.Error)
	}, `SELECT seq, hash, nonce, raw, cancels, fees, created, error FROM chain_attempts WHERE chain_tx = $1 ORDER BY seq`, of)
}

var insertChainAttempts = newInsert("chain_attempts", "", "seq", "chain_tx hash nonce raw cancels fees created")

// SignChainTxs stores a new attempt, the last of its list, of each transaction,
// which has Nonce set. It is stored before it is sent. ErrNoRows if one has
// ended.
func (tx *Tx) SignChainTxs(txs []*ChainTx, at Time) error {
	for _, t := range txs {
		n, err := tx.Exec(`UPDATE chain_txs SET state = 'signed', nonce = $1, reason = '', updated = $2
			WHERE seq = $3 AND state IN ('queued', 'signed')`, t.Nonce, at, t.Seq)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("chain transaction of operation %s has ended: %w", t.Op, ErrNoRows)
		}
	}
	return insertChainAttempts.numbered(tx, len(txs), func(args []any, i int) []any {
		a := &txs[i].Attempts[len(txs[i].Attempts)-1]
		return append(args, txs[i].Seq, a.Hash, a.Nonce, a.Raw, a.Cancels, jsonObject(a.Fees), a.Created)
	}, func(i int, seq int64) { txs[i].Attempts[len(txs[i].Attempts)-1].Seq = seq })
}

// EndChainTx gives a transaction its final state; false if it has one.
func (tx *Tx) EndChainTx(seq int64, state, reason string, at Time) (bool, error) {
	n, err := tx.Exec(`UPDATE chain_txs SET state = $1, reason = $2, updated = $3 WHERE seq = $4 AND state IN ('queued', 'signed')`, state, reason, at, seq)
	return n == 1, err
}

// SetChainTxFees changes what a transaction offers to pay; ErrNoRows if it has
// ended.
func (tx *Tx) SetChainTxFees(seq int64, fees json.RawMessage, at Time) error {
	return tx.must(`UPDATE chain_txs SET fees = $1, updated = $2 WHERE seq = $3 AND state IN ('queued', 'signed')`, jsonObject(fees), at, seq)
}

// RequeueChainTx takes a transaction back to be signed with another nonce,
// because the chain used its nonce for something else.
func (tx *Tx) RequeueChainTx(seq int64, reason string, at Time) error {
	return tx.Send(`UPDATE chain_txs SET state = 'queued', nonce = NULL, reason = $1, updated = $2 WHERE seq = $3 AND state = 'signed'`, reason, at, seq)
}

// NoteChainTx says why a transaction waits; "" if nothing is wrong.
func (tx *Tx) NoteChainTx(seq int64, reason string, at Time) error {
	return tx.Send(`UPDATE chain_txs SET reason = $1, updated = $2 WHERE seq = $3 AND reason <> $1 AND state IN ('queued', 'signed')`, reason, at, seq)
}

// NoteChainAttempt keeps what the chain had against an attempt.
func (tx *Tx) NoteChainAttempt(seq int64, text string) error {
	return tx.Send(`UPDATE chain_attempts SET error = $1 WHERE seq = $2`, text, seq)
}

// CancelChainTx notes that a transaction is to be taken off the chain. It tells
// the state that it was in, ErrNoRows if it has ended.
func (tx *Tx) CancelChainTx(seq int64, at Time) (state string, err error) {
	err = tx.QueryRow(`UPDATE chain_txs SET cancel = TRUE, updated = $1 WHERE seq = $2 AND state IN ('queued', 'signed') RETURNING state`, at, seq).Scan(&state)
	return state, err
}

// TakenNonces lists the nonces that signed transactions of an account hold, also
// calls of the network contract, if they go to this chain.
func (tx *Tx) TakenNonces(chain uint64, account wire.Address, withSubmissions bool) ([]int64, error) {
	scan := func(r *Rows, n *int64) error { return r.Scan(n) }
	taken, err := collect(tx, scan, `SELECT nonce FROM chain_txs WHERE chain = $1 AND account = $2 AND state = 'signed'`, int64(chain), account)
	if err != nil || !withSubmissions {
		return taken, err
	}
	calls, err := collect(tx, scan, `SELECT nonce FROM submissions WHERE account = $1 AND state = 'signed' AND state IN ('queued', 'signed') AND nonce IS NOT NULL`, account)
	return append(taken, calls...), err
}

// ChainTxRef says which operation and business transaction a transaction on a
// chain belongs to.
type ChainTxRef struct {
	Op, Tx UUID
	Type   string // of the business transaction
}

// ChainTxsByHash finds the transactions of this node among some on a chain.
func (tx *Tx) ChainTxsByHash(hashes []wire.Hash) (map[wire.Hash]ChainTxRef, error) {
	type row struct {
		hash wire.Hash
		ref  ChainTxRef
	}
	found := map[wire.Hash]ChainTxRef{}
	err := inChunks(hashes, func(_ []wire.Hash, marks string, args []any) error {
		rows, err := queryAll(tx, func(r *Rows, w *row) error { return r.Scan(&w.hash, &w.ref.Op, &w.ref.Tx, &w.ref.Type) },
			`SELECT a.hash, c.op, c.tx, t.type FROM chain_attempts a JOIN chain_txs c ON c.seq = a.chain_tx JOIN transactions t ON t.id = c.tx WHERE a.hash IN `+marks, args...)
		for _, w := range rows {
			found[w.hash] = w.ref
		}
		return err
	})
	return found, err
}

// SuspendedSigner is an account for which nothing new is signed.
type SuspendedSigner struct {
	Account wire.Address
	Reason  string
	Since   Time
}

// SuspendSigner keeps what is queued of an account from being signed.
func (tx *Tx) SuspendSigner(chain uint64, s SuspendedSigner) error {
	return tx.Send(`INSERT INTO suspended_signers (chain, account, reason, since) VALUES ($1, $2, $3, $4)
		ON CONFLICT (chain, account) DO UPDATE SET reason = excluded.reason`, int64(chain), s.Account, s.Reason, s.Since)
}

// ResumeSigner ends a suspension; none is no error.
func (tx *Tx) ResumeSigner(chain uint64, account wire.Address) error {
	return tx.Send(`DELETE FROM suspended_signers WHERE chain = $1 AND account = $2`, int64(chain), account)
}

// SuspendedSigners lists the suspended accounts of a chain.
func (tx *Tx) SuspendedSigners(chain uint64) ([]SuspendedSigner, error) {
	return collect(tx, func(r *Rows, s *SuspendedSigner) error { return r.Scan(&s.Account, &s.Reason, &s.Since) },
		`SELECT account, reason, since FROM suspended_signers WHERE chain = $1 ORDER BY account`, int64(chain))
}

// ChainTxCount is how much of an account is under way.
type ChainTxCount struct {
	Account        wire.Address
	Queued, Signed int
}

// ChainTxCounts counts what is under way on a chain, by account.
func (tx *Tx) ChainTxCounts(chain uint64) ([]ChainTxCount, error) {
	return collect(tx, func(r *Rows, c *ChainTxCount) error { return r.Scan(&c.Account, &c.Queued, &c.Signed) },
		`SELECT account, SUM(CASE WHEN state = 'queued' THEN 1 ELSE 0 END), SUM(CASE WHEN state = 'signed' THEN 1 ELSE 0 END)
		FROM chain_txs WHERE chain = $1 AND state IN ('queued', 'signed') GROUP BY account ORDER BY account`, int64(chain))
}

// TransactionByKey finds the transaction that has an idempotency key; nil if
// there is none.
func (tx *Tx) TransactionByKey(namespace, key string) (*Transaction, error) {
	return Optional(queryOne(tx, scanTransactionPtr, selectTransactions+` WHERE namespace = $1 AND idempotency_key = $2`, namespace, key))
}
