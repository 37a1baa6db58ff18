package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/parley-node/parley/wire"
)

// Erasure is one act of erasing. The messages and data items that it concerned
// refer to it.
type Erasure struct {
	ID        UUID   `json:"id"`
	Namespace string `json:"namespace"`
	Source    string `json:"source"`           // operator, policy, member, before
	Origin    string `json:"origin,omitempty"` // id of the policy, or organisation id of the member that asked
	Author    string `json:"author"`
	Reason    string `json:"reason"`
	Created   Time   `json:"created"`
	Messages  int64  `json:"messages"` // how many it concerned
	Data      int64  `json:"data"`     // how many items it erased
}

// Sources of an erasure.
const (
	ErasedByOperator = "operator" // through the API
	ErasedByPolicy   = "policy"   // of retention
	ErasedByMember   = "member"   // at the request of the messages' author
	ErasedBefore     = "before"   // it was erased before this node could get it
)

// Erasures are the acts of erasing, newest first.
var Erasures = &Table[Erasure]{Collection{
	Name: "erasures", One: "erasure", table: "erasures", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"source", KindText, "source"}, {"origin", KindText, "origin"}, {"author", KindText, "author"},
		{"reason", KindText, "reason"}, {"created", KindTime, "created"},
	},
}, `SELECT id, namespace, source, origin, author, reason, created, messages, data FROM erasures`, scanErasure}

func scanErasure(r *Rows, e *Erasure) error {
	return r.Scan(&e.ID, &e.Namespace, &e.Source, &e.Origin, &e.Author, &e.Reason, &e.Created, &e.Messages, &e.Data)
}

// InsertErasure records an act of erasing.
func (tx *Tx) InsertErasure(e *Erasure) error {
	return tx.Send(`INSERT INTO erasures (id, namespace, source, origin, author, reason, created, messages, data) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9)`,
		e.ID, e.Namespace, e.Source, e.Origin, e.Author, e.Reason, e.Created, e.Messages, e.Data)
}

// ErasedCount is how many messages and data items all erasures concerned, by
// source.
func (tx *Tx) ErasedCount() (map[string]Erasure, error) {
	sums, err := collect(tx, func(r *Rows, e *Erasure) error { return r.Scan(&e.Source, &e.Messages, &e.Data) },
		`SELECT source, CAST(SUM(messages) AS BIGINT), CAST(SUM(data) AS BIGINT) FROM erasures GROUP BY source`)
	by := map[string]Erasure{}
	for _, s := range sums {
		by[s.Source] = s
	}
	return by, err
}

// ErasedByOrigin is how many messages a policy, or a member's requests, erased.
func (tx *Tx) ErasedByOrigin(origin string) (n int64, err error) {
	return n, tx.QueryRow(`SELECT CAST(COALESCE(SUM(messages), 0) AS BIGINT) FROM erasures WHERE origin = $1`, origin).Scan(&n)
}

// EraseData destroys what data items hold: value, seed, blob, and every hash
// that a guess of the value could be tested with.
func (tx *Tx) EraseData(seqs []int64, erasure UUID) error {
	return inChunks(seqs, func(_ []int64, marks string, args []any) error {
		n := len(args)
		return tx.Send(fmt.Sprintf(`UPDATE data SET value = NULL, public = '', hash = '', blob_hash = NULL, blob_size = NULL, blob_name = NULL, blob_path = NULL,
			blob_public = NULL, blob_root = NULL, seed = $%d, erasure = $%d WHERE seq IN %s`, n+1, n+2, marks), append(args, wire.Hash{}, erasure)...)
	})
}

// EraseReferences replaces what a message says of its data, and the reason of
// its rejection, which may quote them.
func (tx *Tx) EraseReferences(m *Message, erasure UUID) error {
	refs, err := json.Marshal(append([]DataRef{}, m.Data...))
	if err != nil {
		return fmt.Errorf("message %s: encoding its data references: %w", m.Header.ID, err)
	}
	return tx.Send(`UPDATE messages SET data = $1, datahash = $2, reject_reason = $3, erasure = $4 WHERE seq = $5`,
		string(refs), string(m.Header.DataHash), m.RejectReason, erasure, m.Seq)
}

// DataBySeq returns data items by sequence number, in that order.
func (tx *Tx) DataBySeq(seqs []int64) (items []*Data, err error) {
	err = inChunks(seqs, func(_ []int64, marks string, args []any) error {
		part, err := queryAll(tx, scanDataPtr, selectData+` WHERE seq IN `+marks+` ORDER BY seq`, args...)
		items = append(items, part...)
		return err
	})
	return items, err
}

// DataWithID returns all data items with an id in a namespace: it can come with
// several contents.
func (tx *Tx) DataWithID(namespace string, id UUID) ([]*Data, error) {
	return queryAll(tx, scanDataPtr, selectData+` WHERE id = $1 AND namespace = $2 ORDER BY seq`, id, namespace)
}

// DataWithCommitment returns the data items with a commitment that are not
// erased.
func (tx *Tx) DataWithCommitment(commitment wire.Hash) ([]*Data, error) {
	return queryAll(tx, scanDataPtr, selectData+` WHERE commitment = $1 AND erasure IS NULL ORDER BY seq`, commitment)
}

// CarriersOf returns the messages that carry any of some data items, oldest
// first.
func (tx *Tx) CarriersOf(data []int64) (messages []*Message, err error) {
	seen := map[int64]bool{}
	err = inChunks(data, func(_ []int64, marks string, args []any) error {
		part, err := queryAll(tx, scanMessagePtr, selectMessages+` WHERE seq IN (SELECT message FROM message_data WHERE data IN `+marks+`) ORDER BY seq`, args...)
		for _, m := range part {
			if !seen[m.Seq] {
				seen[m.Seq] = true
				messages = append(messages, m)
			}
		}
		return err
	})
	return messages, err
}

// Decided lists messages of a namespace that are confirmed or rejected and hold
// data which is not erased, by the time of their verdict: after one of them
// (time and sequence number) and up to a time.
func (tx *Tx) Decided(namespace string, after Time, seq int64, through Time, limit int) ([]*Message, error) {
	return queryAll(tx, scanMessagePtr, selectMessages+` WHERE COALESCE(confirmed, 9223372036854775807) >= $1
		AND (COALESCE(confirmed, 9223372036854775807) > $1 OR seq > $2) AND COALESCE(confirmed, 9223372036854775807) <= $3 AND namespace = $4
		AND type <> 'definition' AND EXISTS (SELECT 1 FROM message_data l JOIN data d ON d.seq = l.data WHERE l.message = messages.seq AND d.erasure IS NULL)
		ORDER BY COALESCE(confirmed, 9223372036854775807), seq LIMIT $5`, after, seq, through, namespace, limit)
}

// ErasureRequest is a signed request to erase data, ours or another member's.
type ErasureRequest struct {
	ID        UUID       `json:"id"`
	Namespace string     `json:"namespace"`
	Digest    wire.Hash  `json:"digest"`
	Org       wire.OrgID `json:"org"` // who asks
	Own       bool       `json:"own"`
	Root      wire.Hash  `json:"root"`           // of the batch
	State     string     `json:"state"`          // sent (ours); asked, accepted, refused, erased
	Note      string     `json:"note,omitempty"` // why it is refused, or what it waits for
	Erasure   *UUID      `json:"erasure,omitempty"`
	Created   Time       `json:"created"`
	Updated   Time       `json:"updated"`

	Request []byte `json:"-"` // wire.Erasure in CBOR
	Answer  []byte `json:"-"` // of ours to theirs: wire.ErasureAnswer in CBOR
}

// States of a request.
const (
	RequestSent     = "sent"     // ours; see the answers
	RequestAsked    = "asked"    // theirs: an operator must decide
	RequestAccepted = "accepted" // theirs: it is being done
	RequestRefused  = "refused"
	RequestErased   = "erased"
)

const selectRequests = `SELECT id, namespace, digest, org, own, root, state, note, erasure, created, updated, request, answer FROM erasure_requests`

// ErasureRequests are the requests of this member and of others, newest first.
var ErasureRequests = &Table[ErasureRequest]{Collection{
	Name: "erasure requests", One: "erasure request", table: "erasure_requests", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"own", KindBool, "own"}, {"state", KindText, "state"}, {"erasure", KindUUID, "erasure"},
		{"created", KindTime, "created"}, {"updated", KindTime, "updated"},
	},
}, selectRequests, scanRequest}

func scanRequest(r *Rows, q *ErasureRequest) error {
	return r.Scan(&q.ID, &q.Namespace, &q.Digest, &q.Org, &q.Own, &q.Root, &q.State, &q.Note, &q.Erasure, &q.Created, &q.Updated, &q.Request, &q.Answer)
}

// InsertErasureRequest stores a request; false if it is known.
func (tx *Tx) InsertErasureRequest(q *ErasureRequest) (bool, error) {
	n, err := tx.Exec(`INSERT INTO erasure_requests (id, namespace, digest, request, org, own, root, state, note, erasure, created, updated, answer)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13) ON CONFLICT (digest) DO NOTHING`,
		q.ID, q.Namespace, q.Digest, q.Request, q.Org, q.Own, q.Root, q.State, q.Note, q.Erasure, q.Created, q.Updated, q.Answer)
	return n == 1, err
}

// UpdateErasureRequest stores what became of a request.
func (tx *Tx) UpdateErasureRequest(q *ErasureRequest) error {
	return tx.must(`UPDATE erasure_requests SET state = $1, note = $2, erasure = $3, answer = $4, updated = $5 WHERE digest = $6`,
		q.State, q.Note, q.Erasure, q.Answer, q.Updated, q.Digest)
}

// ErasureRequestByDigest is nil if there is none.
func (tx *Tx) ErasureRequestByDigest(digest wire.Hash) (*ErasureRequest, error) {
	return one(tx, scanRequest, selectRequests+` WHERE digest = $1`, digest)
}

// AcceptedErasures lists requests of other members that are to be carried out,
// oldest first.
func (tx *Tx) AcceptedErasures(limit int) ([]ErasureRequest, error) {
	return collect(tx, scanRequest, selectRequests+` WHERE state = 'accepted' ORDER BY seq LIMIT $1`, limit)
}

// UndecidedErasures counts the requests of a member that are not answered yet.
func (tx *Tx) UndecidedErasures(org wire.OrgID) (n int, err error) {
	return n, tx.QueryRow(`SELECT COUNT(*) FROM erasure_requests WHERE org = $1 AND NOT own AND state IN ('asked', 'accepted')`, org).Scan(&n)
}

// RequestsOfErasure lists the requests to other members that an erasure sent.
func (tx *Tx) RequestsOfErasure(erasure UUID) ([]ErasureRequest, error) {
	return collect(tx, scanRequest, selectRequests+` WHERE erasure = $1 AND own ORDER BY seq`, erasure)
}

// ErasureAnswer is what a member said to a request of ours.
type ErasureAnswer struct {
	Org    wire.OrgID `json:"org"`
	State  string     `json:"state"` // waiting, erased, refused
	Reason string     `json:"reason,omitempty"`
	At     Time       `json:"at"`

	Answer []byte `json:"-"` // wire.ErasureAnswer in CBOR; nil while it waits
}

// AnswerWaiting is the state of an answer that has not come; the others are
// RequestErased and RequestRefused.
const AnswerWaiting = "waiting"

// PutErasureAnswer stores what a member said. That it has erased stands, whatever
// it says later.
func (tx *Tx) PutErasureAnswer(request wire.Hash, a *ErasureAnswer) error {
	return tx.Send(`INSERT INTO erasure_answers (request, org, state, reason, answer, at) VALUES ($1,$2,$3,$4,$5,$6)
		ON CONFLICT (request, org) DO UPDATE SET state = excluded.state, reason = excluded.reason, answer = excluded.answer, at = excluded.at
		WHERE erasure_answers.state <> 'erased'`, request, a.Org, a.State, a.Reason, a.Answer, a.At)
}

// ErasureAnswers lists what the members said to a request of ours.
func (tx *Tx) ErasureAnswers(request wire.Hash) ([]ErasureAnswer, error) {
	return collect(tx, func(r *Rows, a *ErasureAnswer) error { return r.Scan(&a.Org, &a.State, &a.Reason, &a.At, &a.Answer) },
		`SELECT org, state, reason, at, answer FROM erasure_answers WHERE request = $1 ORDER BY org`, request)
}

// Hold is a legal hold: what it covers is not erased.
type Hold struct {
	ID        UUID   `json:"id"`
	Namespace string `json:"namespace"`
	Kind      string `json:"kind"`  // message, topic, group, author
	Value     string `json:"value"` // id, name, hash, DID
	Reason    string `json:"reason"`
	Author    string `json:"author"` // who set it
	Created   Time   `json:"created"`
	Lifted    *Time  `json:"lifted,omitempty"`
	Lifter    string `json:"lifter,omitempty"` // who lifted it
}

// Kinds of hold.
const (
	HoldMessage = "message"
	HoldTopic   = "topic"
	HoldGroup   = "group"
	HoldAuthor  = "author"
)

const selectHolds = `SELECT id, namespace, kind, value, reason, author, created, lifted, lifter FROM holds`

// Holds are the legal holds, lifted ones too, newest first.
var Holds = &Table[Hold]{Collection{
	Name: "holds", One: "hold", table: "holds", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"kind", KindText, "kind"}, {"value", KindText, "value"}, {"author", KindText, "author"},
		{"created", KindTime, "created"}, {"lifted", KindTime, "lifted"},
	},
}, selectHolds, scanHold}

func scanHold(r *Rows, h *Hold) error {
	return r.Scan(&h.ID, &h.Namespace, &h.Kind, &h.Value, &h.Reason, &h.Author, &h.Created, &h.Lifted, &h.Lifter)
}

// InsertHold sets a hold.
func (tx *Tx) InsertHold(h *Hold) error {
	return tx.Send(`INSERT INTO holds (id, namespace, kind, value, reason, author, created) VALUES ($1,$2,$3,$4,$5,$6,$7)`,
		h.ID, h.Namespace, h.Kind, h.Value, h.Reason, h.Author, h.Created)
}

// LiftHold ends a hold; false if it is lifted already, or unknown.
func (tx *Tx) LiftHold(namespace string, id UUID, lifter string, at Time) (bool, error) {
	n, err := tx.Exec(`UPDATE holds SET lifted = $1, lifter = $2 WHERE id = $3 AND namespace = $4 AND lifted IS NULL`, at, lifter, id, namespace)
	return n == 1, err
}

// HoldsInForce lists the holds of a namespace that are not lifted, oldest first.
func (tx *Tx) HoldsInForce(namespace string) ([]Hold, error) {
	return collect(tx, scanHold, selectHolds+` WHERE namespace = $1 AND lifted IS NULL ORDER BY seq`, namespace)
}

// RetentionPolicy says how long data is kept. Empty fields select everything.
type RetentionPolicy struct {
	ID         UUID   `json:"id"`
	Namespace  string `json:"namespace"`
	Topic      string `json:"topic,omitempty"`
	Datatype   string `json:"datatype,omitempty"` // name, or name/version
	Group      Hex    `json:"group,omitempty"`
	Age        int64  `json:"-"`                    // nanoseconds since the verdict
	Recipients bool   `json:"recipients,omitempty"` // ask the receivers of our messages to erase as well
	Source     string `json:"source"`               // api, config
	Author     string `json:"author"`
	Created    Time   `json:"created"`
}

// Sources of a policy.
const (
	PolicyFromAPI    = "api"
	PolicyFromConfig = "config"
)

const selectPolicies = `SELECT id, namespace, topic, datatype, group_hash, age, recipients, source, author, created FROM retention_policies`

// RetentionPolicies are the policies, newest first.
var RetentionPolicies = &Table[RetentionPolicy]{Collection{
	Name: "retention policies", One: "retention policy", table: "retention_policies", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"topic", KindText, "topic"}, {"datatype", KindText, "datatype"}, {"group", KindHash, "group_hash"},
		{"source", KindText, "source"}, {"created", KindTime, "created"},
	},
}, selectPolicies, scanPolicy}

func scanPolicy(r *Rows, p *RetentionPolicy) error {
	return r.Scan(&p.ID, &p.Namespace, &p.Topic, &p.Datatype, (*string)(&p.Group), &p.Age, &p.Recipients, &p.Source, &p.Author, &p.Created)
}

// InsertRetentionPolicy stores a policy.
func (tx *Tx) InsertRetentionPolicy(p *RetentionPolicy) error {
	return tx.Send(`INSERT INTO retention_policies (id, namespace, topic, datatype, group_hash, age, recipients, source, author, created) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10)`,
		p.ID, p.Namespace, p.Topic, p.Datatype, string(p.Group), p.Age, p.Recipients, p.Source, p.Author, p.Created)
}

// DeleteRetentionPolicy ends a policy; ErrNoRows if there is none.
func (tx *Tx) DeleteRetentionPolicy(namespace string, id UUID) error {
	return tx.must(`DELETE FROM retention_policies WHERE id = $1 AND namespace = $2`, id, namespace)
}

// RetentionPoliciesOf lists the policies of a namespace, oldest first.
func (tx *Tx) RetentionPoliciesOf(namespace string) ([]RetentionPolicy, error) {
	return collect(tx, scanPolicy, selectPolicies+` WHERE namespace = $1 ORDER BY seq`, namespace)
}

// ErrBusy: somebody still reads what is to be scrubbed; try again later.
var ErrBusy = errors.New("the database is being read")

// Scrub removes what committed erasures have left behind in the database's own
// files: SQLite's write-ahead log, which it empties (the rest of the file is
// overwritten as rows are, see openSQLite), or the old row versions of
// PostgreSQL. ErrBusy if a reader keeps it from that.
func (db *DB) Scrub(ctx context.Context) error {
	if db.dialect.remote {
		_, err := db.pools.read.ExecContext(ctx, db.dialect.scrub)
		return db.explain(err)
	}
	result := make(chan error, 1)
	select {
	case db.scrubs <- result:
	case <-db.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	return db.explain(<-result)
}

// scrub empties the write-ahead log between two groups: the writer alone has
// nobody to wait for but readers, and for those it does not wait.
func (w *writer) scrub() (err error) {
	ctx := context.Background()
	if w.conn == nil {
		if w.conn, err = w.db.openConn(ctx, w.db.pools.write); err != nil {
			w.conn = nil
			return fmt.Errorf("opening the writer of %s: %w", w.db.name, err)
		}
	}
	if err := w.conn.exec(ctx, "PRAGMA busy_timeout = 0"); err != nil {
		w.drop()
		return err
	}
	var busy, log, moved int
	err = w.conn.sql.QueryRowContext(ctx, w.db.dialect.scrub).Scan(&busy, &log, &moved)
	if restored := w.conn.exec(ctx, fmt.Sprintf("PRAGMA busy_timeout = %d", sqliteBusy.Milliseconds())); restored != nil {
		w.drop()
		return errors.Join(err, restored)
	}
	switch {
	case busyNow(err) || err == nil && busy != 0:
		return ErrBusy
	case err != nil:
		return fmt.Errorf("emptying the write-ahead log: %w", err)
	}
	return nil
}
