package store

import (
	"database/sql"
	"errors"
	"iter"
	"strings"

	"github.com/parley-node/parley/wire"
)

// BatchRow is a batch with what the protocol needs of it.
type BatchRow struct {
	Batch
	Seq        int64
	AuthorName string // as the batch header proves it
	Org        wire.OrgID
	Root       wire.Hash
	Audience   wire.Hash
	Epoch      uint64
	Envelope   []byte // wire.Envelope, or wire.Unpinned, in CBOR
	Erased     *Time  // since when the envelope holds what remains of it, a wire.Remnant
	Own        bool
	State      string
	Since      Time
	Receipt    []byte
}

// States of a batch.
const (
	BatchCollecting = "collecting" // ours: sent to the peers, receipts are coming in
	BatchPinning    = "pinning"    // ours: its pin is signed
	BatchHeld       = "held"       // a peer's: stored and receipted
	BatchDone       = "done"       // decided
	BatchDropped    = "dropped"    // ours: its pin was void, its messages went into another batch
	BatchCancelled  = "cancelled"  // ours: given up by hand before it was pinned, and its messages with it
)

// InsertBatch stores a sealed or received batch; false if it is known.
func (tx *Tx) InsertBatch(b *BatchRow) (bool, error) {
	n, err := tx.Exec(`INSERT INTO batches (id, type, namespace, node, group_hash, created, author, key, hash, manifest, tx_type, tx_id, confirmed,
			author_name, org, root, audience, epoch, envelope, own, state, since, receipt, erased)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,NULL,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22,$23) ON CONFLICT (root, org) DO NOTHING`,
		b.ID, b.Type, b.Namespace, b.Node, nullHex(b.Group), int64(b.Created), b.Author, b.Key, string(b.Hash), string(b.Manifest), b.Tx.Type, b.Tx.ID,
		b.AuthorName, b.Org, b.Root, b.Audience, int64(b.Epoch), b.Envelope, b.Own, b.State, int64(b.Since), b.Receipt, b.Erased)
	return n == 1, err
}

func nullHex(h Hex) any {
	if h == "" {
		return nil
	}
	return string(h)
}

// batchOf is the id of the batch with root $1 of organisation $2. Messages are
// found by it; that they name the root as well matters, for an author may give
// two batches one id.
const batchOf = `(SELECT id FROM batches WHERE root = $1 AND org = $2)`

const batchRowColumns = `seq, id, type, namespace, node, group_hash, created, author, key, hash, manifest, tx_type, tx_id, confirmed,
	author_name, org, root, audience, epoch, envelope, own, state, since, receipt, erased`

// lightBatchColumns leave out what is large.
var lightBatchColumns = strings.NewReplacer("manifest", "NULL", "envelope", "NULL").Replace(batchRowColumns)

func scanBatchRow(rows *Rows, b *BatchRow) error {
	var group sql.NullString
	var hash string
	if err := rows.Scan(&b.Seq, &b.ID, &b.Type, &b.Namespace, &b.Node, &group, &b.Created, &b.Author, &b.Key, &hash, (*[]byte)(&b.Manifest), &b.Tx.Type, &b.Tx.ID, &b.Confirmed,
		&b.AuthorName, &b.Org, &b.Root, &b.Audience, &b.Epoch, &b.Envelope, &b.Own, &b.State, &b.Since, &b.Receipt, &b.Erased); err != nil {
		return err
	}
	b.Group, b.Hash = Hex(group.String), Hex(hash)
	return nil
}

// BatchByRoot is nil if this node does not hold it.
func (tx *Tx) BatchByRoot(org wire.OrgID, root wire.Hash) (*BatchRow, error) {
	return one(tx, scanBatchRow, `SELECT `+batchRowColumns+` FROM batches WHERE root = $1 AND org = $2`, root, org)
}

// BatchState is the state of a batch; "" if this node does not hold it.
func (tx *Tx) BatchState(org wire.OrgID, root wire.Hash) (state string, err error) {
	err = tx.QueryRow(`SELECT state FROM batches WHERE root = $1 AND org = $2`, root, org).Scan(&state)
	if errors.Is(err, ErrNoRows) {
		return "", nil
	}
	return state, err
}

// BatchByID is the newest batch of a namespace with an id; nil if there is none.
func (tx *Tx) BatchByID(namespace string, id UUID) (*BatchRow, error) {
	return one(tx, scanBatchRow, `SELECT `+batchRowColumns+` FROM batches WHERE id = $1 AND namespace = $2 ORDER BY seq DESC LIMIT 1`, id, namespace)
}

// BatchesByRoot lists the batches with a root, whoever the author.
func (tx *Tx) BatchesByRoot(root wire.Hash) ([]BatchRow, error) {
	return collect(tx, scanBatchRow, `SELECT `+batchRowColumns+` FROM batches WHERE root = $1`, root)
}

// OwnBatches lists our batches in a state, oldest first, without their envelopes
// and manifests, which are large.
func (tx *Tx) OwnBatches(state string) ([]BatchRow, error) {
	return collect(tx, scanBatchRow, `SELECT `+lightBatchColumns+` FROM batches WHERE own AND state <> 'done' AND state = $1 ORDER BY seq`, state)
}

// ForgetUnpinned removes the peers' batches of an audience's epochs before one
// that no pin names, with their messages: such a batch can never be pinned, and
// its author has put the messages into another.
func (tx *Tx) ForgetUnpinned(audience wire.Hash, before uint64) error {
	const ended = `SELECT b.seq FROM batches b WHERE b.audience = $1 AND b.epoch < $2 AND NOT b.own AND b.state = 'held'
		AND NOT EXISTS (SELECT 1 FROM pins p WHERE p.root = b.root AND p.org = b.org AND p.audience = b.audience AND p.state IN ('open', 'done'))`
	const messages = `SELECT m.seq FROM messages m JOIN batches b ON b.id = m.batch AND b.root = m.root AND b.org = m.org WHERE b.seq IN (` + ended + `)`
	for _, remove := range []string{
		`DELETE FROM message_data WHERE message IN (` + messages + `)`,
		`DELETE FROM messages WHERE seq IN (` + messages + `)`,
		`DELETE FROM batches WHERE seq IN (` + ended + `)`,
	} {
		if err := tx.Send(remove, audience, int64(before)); err != nil {
			return err
		}
	}
	return nil
}

// InFlight counts our batches per audience that are not decided yet.
func (tx *Tx) InFlight() (map[wire.Hash]int, error) {
	rows, err := tx.Query(`SELECT audience, COUNT(*) FROM batches WHERE own AND state <> 'done' AND state IN ('collecting', 'pinning') GROUP BY audience`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := map[wire.Hash]int{}
	for rows.Next() {
		var a wire.Hash
		var n int
		if err := rows.Scan(&a, &n); err != nil {
			return nil, err
		}
		counts[a] = n
	}
	return counts, rows.Err()
}

// OpenBatch is a batch of ours that is not decided yet.
type OpenBatch struct {
	ID       UUID
	Audience wire.Hash
	Key      string
}

// OpenBatches lists our batches that are not decided yet, oldest first.
func (tx *Tx) OpenBatches() ([]OpenBatch, error) {
	return collect(tx, func(rows *Rows, b *OpenBatch) error { return rows.Scan(&b.ID, &b.Audience, &b.Key) },
		`SELECT id, audience, key FROM batches WHERE own AND state <> 'done' AND state IN ('collecting', 'pinning') ORDER BY seq`)
}

// BlobsOfBatch lists the hashes of the blobs that a batch's messages carry.
func (tx *Tx) BlobsOfBatch(org wire.OrgID, root wire.Hash) ([]Hex, error) {
	return collect(tx, func(rows *Rows, h *Hex) error { return rows.Scan((*string)(h)) },
		`SELECT DISTINCT d.blob_hash FROM messages m JOIN message_data l ON l.message = m.seq JOIN data d ON d.seq = l.data
		WHERE m.batch = `+batchOf+` AND m.root = $1 AND m.org = $2 AND d.blob_hash IS NOT NULL`, root, org)
}

// EnterBatch ties messages to the batch that they went into, in its order.
func (tx *Tx) EnterBatch(seqs []int64, b *BatchRow, state string) error {
	for at, r := range runs(seqs) {
		if err := tx.Send(`UPDATE messages SET state = $1, batch = $2, tx_id = $3, org = $4, root = $5, idx = seq - $6 WHERE seq BETWEEN $7 AND $8`,
			state, b.ID, b.Tx.ID, b.Org, b.Root, r.first-int64(at), r.first, r.last); err != nil {
			return err
		}
	}
	return nil
}

// run is a range of sequence numbers without a gap.
type run struct{ first, last int64 }

// runs cuts ascending numbers where one is missing: messages that come one
// after the other, as under load, are changed by one statement. Each run comes
// with the place of its first number.
func runs(seqs []int64) iter.Seq2[int, run] {
	return func(yield func(int, run) bool) {
		for from := 0; from < len(seqs); {
			to := from + 1
			for to < len(seqs) && seqs[to] == seqs[to-1]+1 {
				to++
			}
			if !yield(from, run{seqs[from], seqs[to-1]}) {
				return
			}
			from = to
		}
	}
}

// LeaveBatch takes the undecided messages out of a batch whose pin can no
// longer count, so that they go into another.
func (tx *Tx) LeaveBatch(org wire.OrgID, root wire.Hash) error {
	err := tx.Send(`UPDATE messages SET state = 'ready', batch = NULL, tx_id = NULL, root = NULL, idx = NULL WHERE batch = `+batchOf+` AND root = $1 AND org = $2 AND state = 'sent'`, root, org)
	return err
}

// SetBatchState moves a batch on.
func (tx *Tx) SetBatchState(org wire.OrgID, root wire.Hash, state string, at Time) error {
	err := tx.Send(`UPDATE batches SET state = $1, since = $2 WHERE root = $3 AND org = $4`, state, int64(at), root, org)
	return err
}

// DropBatch gives up a batch of ours: nobody will ask for its payload.
func (tx *Tx) DropBatch(org wire.OrgID, root wire.Hash, at Time) error {
	return tx.Send(`UPDATE batches SET state = 'dropped', since = $1, envelope = $2 WHERE root = $3 AND org = $4`, int64(at), []byte{}, root, org)
}

// EraseBatch puts what remains of a batch into its place.
func (tx *Tx) EraseBatch(org wire.OrgID, root wire.Hash, envelope []byte, at Time) error {
	return tx.Send(`UPDATE batches SET envelope = $1, erased = $2 WHERE root = $3 AND org = $4`, envelope, at, root, org)
}

// MoveBatch moves a batch from one state to another; false if it is not in the
// first any more.
func (tx *Tx) MoveBatch(org wire.OrgID, root wire.Hash, from, to string, at Time) (bool, error) {
	n, err := tx.Exec(`UPDATE batches SET state = $1, since = $2 WHERE root = $3 AND org = $4 AND state = $5`, to, int64(at), root, org, from)
	return n == 1, err
}

// FinishBatch marks a batch as decided at a time.
func (tx *Tx) FinishBatch(org wire.OrgID, root wire.Hash, at Time) error {
	err := tx.Send(`UPDATE batches SET state = 'done', since = $1, confirmed = $1 WHERE root = $2 AND org = $3`, int64(at), root, org)
	return err
}

// PutReceipt stores a receipt; false if a better one of that organisation is
// here. known says that its recent block is on the ledger as it claims: one that
// names a block not read yet is kept, but gives way to any other, so that a
// receipt which will never count cannot stand in the way of one that does.
func (tx *Tx) PutReceipt(r *wire.Receipt, known bool) (bool, error) {
	b, err := wire.Marshal(*r)
	if err != nil {
		return false, err
	}
	n, err := tx.Exec(`INSERT INTO receipts (root, author, org, receipt, recent, known) VALUES ($1,$2,$3,$4,$5,$6)
		ON CONFLICT (root, author, org) DO UPDATE SET receipt = excluded.receipt, recent = excluded.recent, known = excluded.known
		WHERE NOT receipts.known OR (excluded.known AND excluded.recent > receipts.recent)`,
		r.Root, r.Author, r.Org, b, int64(r.RecentNumber), known)
	return n == 1, err
}

// AddReceipt stores a receipt; false if one of that organisation is here.
func (tx *Tx) AddReceipt(r *wire.Receipt, known bool) (bool, error) {
	b, err := wire.Marshal(*r)
	if err != nil {
		return false, err
	}
	n, err := tx.Exec(`INSERT INTO receipts (root, author, org, receipt, recent, known) VALUES ($1,$2,$3,$4,$5,$6) ON CONFLICT (root, author, org) DO NOTHING`,
		r.Root, r.Author, r.Org, b, int64(r.RecentNumber), known)
	return n == 1, err
}

// ReplaceReceipt stores a receipt in the place of whatever is here of that
// organisation.
func (tx *Tx) ReplaceReceipt(r *wire.Receipt, known bool) (bool, error) {
	if err := tx.Send(`DELETE FROM receipts WHERE root = $1 AND author = $2 AND org = $3`, r.Root, r.Author, r.Org); err != nil {
		return false, err
	}
	return tx.PutReceipt(r, known)
}

// Receipts lists what is held for a batch or epoch definition.
func (tx *Tx) Receipts(author wire.OrgID, root wire.Hash) ([]wire.Receipt, error) {
	return collect(tx, func(rows *Rows, r *wire.Receipt) error {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return err
		}
		return wire.Unmarshal(b, r)
	}, `SELECT receipt FROM receipts WHERE root = $1 AND author = $2 ORDER BY org`, root, author)
}

// Vote records that we vote to skip an entry of an audience; false if we hold a
// receipt of ours for it: an organisation does one or the other, never both. A
// receipt for the same batch in another audience, where it belongs, is no
// obstacle.
func (tx *Tx) Vote(self wire.OrgID, audience wire.Hash, author wire.OrgID, root wire.Hash, at Time) (bool, error) {
	receipts, err := tx.Receipts(author, root)
	if err != nil {
		return false, err
	}
	for _, r := range receipts {
		if r.Org == self && r.Audience == audience {
			return false, nil
		}
	}
	err = tx.Send(`INSERT INTO votes (root, author, audience, at) VALUES ($1,$2,$3,$4) ON CONFLICT (root, author, audience) DO NOTHING`, root, author, audience, int64(at))
	return err == nil, err
}

// Voted says whether we voted to skip an entry of an audience.
func (tx *Tx) Voted(audience wire.Hash, author wire.OrgID, root wire.Hash) (bool, error) {
	var n int
	err := tx.QueryRow(`SELECT COUNT(*) FROM votes WHERE root = $1 AND author = $2 AND audience = $3`, root, author, audience).Scan(&n)
	return n > 0, err
}

// SetBatchReceipt replaces our own receipt for a batch.
func (tx *Tx) SetBatchReceipt(org wire.OrgID, root wire.Hash, receipt []byte) error {
	err := tx.Send(`UPDATE batches SET receipt = $1 WHERE root = $2 AND org = $3`, receipt, root, org)
	return err
}

// Arrival tells the confirm loop that something it may wait for is here.
type Arrival struct {
	Seq  int64
	What string // payload, receipt, secret
	Root wire.Hash
	Org  wire.OrgID // author; for a secret the audience
}

// What arrived.
const (
	ArrivedPayload = "payload"
	ArrivedReceipt = "receipt"
	ArrivedSecret  = "secret"
)

// Arrived notes an arrival for the confirm loop, in the transaction that
// stores the thing itself.
func (tx *Tx) Arrived(what string, org wire.OrgID, root wire.Hash) error {
	err := tx.Send(`INSERT INTO arrivals (what, root, org) VALUES ($1,$2,$3)`, what, root, org)
	return err
}

// Arrivals lists what is to be looked at.
func (tx *Tx) Arrivals(limit int) ([]Arrival, error) {
	return collect(tx, func(rows *Rows, a *Arrival) error { return rows.Scan(&a.Seq, &a.What, &a.Root, &a.Org) },
		`SELECT seq, what, root, org FROM arrivals ORDER BY seq LIMIT $1`, limit)
}

// DropArrivals forgets those up to a sequence.
func (tx *Tx) DropArrivals(through int64) error {
	err := tx.Send(`DELETE FROM arrivals WHERE seq <= $1`, through)
	return err
}

// OwnDefinitions tells about the definition messages with a tag that an
// organisation has sent, whatever became of them: how many there are, how many
// of them wait for a verdict, and the newest epoch in which one was sealed.
func (tx *Tx) OwnDefinitions(org wire.OrgID, tag string) (sent, waiting int, epoch uint64, err error) {
	err = tx.QueryRow(`SELECT COUNT(*), COALESCE(SUM(CASE WHEN m.state IN ('ready', 'sent') THEN 1 ELSE 0 END), 0), COALESCE(MAX(b.epoch), 0)
		FROM messages m LEFT JOIN batches b ON b.root = m.root AND b.org = m.org
		WHERE m.org = $1 AND m.type = 'definition' AND m.tag = $2`, org, tag).Scan(&sent, &waiting, &epoch)
	return sent, waiting, epoch, err
}
