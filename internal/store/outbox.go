package store

import (
	"errors"

	"github.com/parley-node/parley/wire"
)

// Parcel is something that a peer has yet to get.
type Parcel struct {
	ID       int64
	Peer     wire.OrgID
	Kind     string // what exchange.Send is told
	Root     wire.Hash
	Org      wire.OrgID // author of the batch; proposer of the epoch
	Op       *UUID
	Attempts int
	Due      Time
	Since    Time
	Error    string
}

// AddParcels puts parcels into the outbox; one that is there already stays.
func (tx *Tx) AddParcels(ps ...Parcel) error {
	for i := range ps {
		p := &ps[i]
		if err := tx.Send(`INSERT INTO outbox (peer, kind, root, org, op, due, since) VALUES ($1,$2,$3,$4,$5,$6,$7) ON CONFLICT (peer, kind, root, org) DO NOTHING`,
			p.Peer, p.Kind, p.Root, p.Org, p.Op, int64(p.Due), int64(p.Since)); err != nil {
			return err
		}
	}
	return nil
}

const parcelColumns = `id, peer, kind, root, org, op, attempts, due, since, error`

func scanParcel(rows *Rows, p *Parcel) error {
	return rows.Scan(&p.ID, &p.Peer, &p.Kind, &p.Root, &p.Org, &p.Op, &p.Attempts, &p.Due, &p.Since, &p.Error)
}

// DueParcels lists a peer's parcels that are due, oldest first.
func (tx *Tx) DueParcels(peer wire.OrgID, now Time, limit int) ([]Parcel, error) {
	return collect(tx, scanParcel, `SELECT `+parcelColumns+` FROM outbox WHERE peer = $1 AND due <= $2 ORDER BY id LIMIT $3`, peer, int64(now), limit)
}

// OutboxSummary is how much waits for a peer.
type OutboxSummary struct {
	Peer    wire.OrgID
	Waiting int
	Since   Time
	Error   string
}

// OutboxByPeer sums up what waits, per peer.
func (tx *Tx) OutboxByPeer() ([]OutboxSummary, error) {
	return collect(tx, func(rows *Rows, s *OutboxSummary) error {
		return rows.Scan(&s.Peer, &s.Waiting, &s.Since, &s.Error)
	}, `SELECT peer, COUNT(*), MIN(since), MAX(error) FROM outbox GROUP BY peer ORDER BY peer`)
}

// DeliveredParcel removes a parcel that its peer has.
func (tx *Tx) DeliveredParcel(id int64) error {
	err := tx.Send(`DELETE FROM outbox WHERE id = $1`, id)
	return err
}

// OperationOfParcel is the operation that a parcel belongs to now; nil if there
// is none, or no such parcel any more.
func (tx *Tx) OperationOfParcel(id int64) (op *UUID, err error) {
	err = tx.QueryRow(`SELECT op FROM outbox WHERE id = $1`, id).Scan(&op)
	if errors.Is(err, ErrNoRows) {
		return nil, nil
	}
	return op, err
}

// ParcelOfOperation is what is still to be sent for an operation; nil if
// nothing is.
func (tx *Tx) ParcelOfOperation(op UUID) (*Parcel, error) {
	return one(tx, scanParcel, `SELECT `+parcelColumns+` FROM outbox WHERE op = $1`, op)
}

// RetryParcel makes a parcel due at once and ties it to another operation. One
// that was delivered, or given up, goes into the outbox again.
func (tx *Tx) RetryParcel(p *Parcel) error {
	return tx.Send(`INSERT INTO outbox (peer, kind, root, org, op, due, since) VALUES ($1,$2,$3,$4,$5,0,$6)
		ON CONFLICT (peer, kind, root, org) DO UPDATE SET op = excluded.op, due = 0`,
		p.Peer, p.Kind, p.Root, p.Org, p.Op, int64(p.Since))
}

// FailedParcel notes an attempt and when the next is due.
func (tx *Tx) FailedParcel(id int64, due Time, reason string) error {
	err := tx.Send(`UPDATE outbox SET attempts = attempts + 1, due = $1, error = $2 WHERE id = $3`, int64(due), reason, id)
	return err
}

// DropParcels removes what is left to be sent of a batch.
func (tx *Tx) DropParcels(org wire.OrgID, root wire.Hash) error {
	err := tx.Send(`DELETE FROM outbox WHERE root = $1 AND org = $2`, root, org)
	return err
}

// PeersToGet lists the peers that have yet to get a batch.
func (tx *Tx) PeersToGet(org wire.OrgID, root wire.Hash, kind string) ([]wire.OrgID, error) {
	return collect(tx, func(r *Rows, peer *wire.OrgID) error { return r.Scan(peer) },
		`SELECT peer FROM outbox WHERE root = $1 AND org = $2 AND kind = $3 ORDER BY peer`, root, org, kind)
}

// Submission is a call to the ledger: waiting for its turn, or signed.
type Submission struct {
	ID       int64
	Account  wire.Address
	Nonce    *int64    // nil while queued
	Purpose  string    // pin, control, node, proposal, vote, key
	Root     wire.Hash // of the batch a pin is for, else zero
	Audience wire.Hash
	Epoch    uint64
	N        uint64
	Call     []byte
	TxHash   wire.Hash
	Raw      []byte
	Bump     int
	State    string
	Op       *UUID
	Created  Time
	Error    string
}

// States of a submission.
const (
	SubmissionQueued = "queued" // not signed yet
	SubmissionSigned = "signed" // on its way
	SubmissionFinal  = "final"  // its record was read from the ledger
	SubmissionFailed = "failed" // the contract refused it
)

// InsertSubmission stores a call and sets its ID.
func (tx *Tx) InsertSubmission(s *Submission) error {
	raw := s.Raw
	if raw == nil {
		raw = []byte{}
	}
	return tx.QueryRow(`INSERT INTO submissions (account, nonce, purpose, root, audience, epoch, n, call, tx_hash, raw, bump, state, op, created)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14) RETURNING id`,
		s.Account, s.Nonce, s.Purpose, s.Root, s.Audience, int64(s.Epoch), int64(s.N), s.Call, s.TxHash, raw, s.Bump, s.State, s.Op, int64(s.Created)).Scan(&s.ID)
}

// SignSubmission stores the signed form of a queued call, before it is sent;
// false if it has ended meanwhile.
func (tx *Tx) SignSubmission(s *Submission) (bool, error) {
	n, err := tx.Exec(`UPDATE submissions SET account = $1, nonce = $2, tx_hash = $3, raw = $4, bump = $5, epoch = $6, n = $7, state = 'signed' WHERE id = $8 AND state = 'queued'`,
		s.Account, s.Nonce, s.TxHash, s.Raw, s.Bump, int64(s.Epoch), int64(s.N), s.ID)
	return n == 1, err
}

const submissionColumns = `id, account, nonce, purpose, root, audience, epoch, n, call, tx_hash, raw, bump, state, op, created, error`

func scanSubmission(rows *Rows, s *Submission) error {
	return rows.Scan(&s.ID, &s.Account, &s.Nonce, &s.Purpose, &s.Root, &s.Audience, &s.Epoch, &s.N, &s.Call, &s.TxHash, &s.Raw, &s.Bump, &s.State, &s.Op, &s.Created, &s.Error)
}

// Submissions lists those in a state (queued or signed), oldest first.
func (tx *Tx) Submissions(state string) ([]Submission, error) {
	return collect(tx, scanSubmission, `SELECT `+submissionColumns+` FROM submissions WHERE state IN ('queued', 'signed') AND state = $1 ORDER BY id`, state)
}

// SubmissionByTx is nil if the transaction is not ours.
func (tx *Tx) SubmissionByTx(txHash wire.Hash) (*Submission, error) {
	return one(tx, scanSubmission, `SELECT `+submissionColumns+` FROM submissions WHERE tx_hash = $1`, txHash)
}

// LatestSubmission of a purpose and root; nil if none.
func (tx *Tx) LatestSubmission(purpose string, root wire.Hash) (*Submission, error) {
	return one(tx, scanSubmission, `SELECT `+submissionColumns+` FROM submissions WHERE purpose = $1 AND root = $2 ORDER BY id DESC LIMIT 1`, purpose, root)
}

// FinishSubmission ends a call whose record was read from the ledger, also one
// that was taken back meanwhile.
func (tx *Tx) FinishSubmission(id int64) error {
	err := tx.Send(`UPDATE submissions SET state = 'final', error = '' WHERE id = $1 AND state IN ('queued', 'signed')`, id)
	return err
}

// FailSubmission ends a call that the contract refused, and frees its nonce;
// false if it has ended already.
func (tx *Tx) FailSubmission(id int64, reason string) (bool, error) {
	n, err := tx.Exec(`UPDATE submissions SET state = 'failed', error = $1, nonce = NULL WHERE id = $2 AND state IN ('queued', 'signed')`, reason, id)
	return n == 1, err
}

// RequeueSubmission takes a signed call back to be signed again, and frees its
// nonce; false if it has ended.
func (tx *Tx) RequeueSubmission(id int64) (bool, error) {
	n, err := tx.Exec(`UPDATE submissions SET state = 'queued', nonce = NULL WHERE id = $1 AND state = 'signed'`, id)
	return n == 1, err
}

// RequeueAfter takes back what an account has signed with later nonces.
func (tx *Tx) RequeueAfter(account wire.Address, nonce int64) error {
	err := tx.Send(`UPDATE submissions SET state = 'queued', nonce = NULL WHERE account = $1 AND nonce > $2 AND state = 'signed'`, account, nonce)
	return err
}

// ControlsUnderWay counts the control pins of ours in an audience that are not
// final.
func (tx *Tx) ControlsUnderWay(audience wire.Hash) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM submissions WHERE state IN ('queued', 'signed') AND purpose = 'control' AND audience = $1`, audience).Scan(&n)
	return n, err
}
