package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/parley-node/parley/wire"
)

// DuplicateKey is the refusal of an idempotency key that an earlier message or
// transaction of the namespace has.
type DuplicateKey struct {
	Key string
	ID  UUID // of the earlier one
}

func (e *DuplicateKey) Error() string {
	return fmt.Sprintf("idempotency key %q was already used by %s", e.Key, e.ID)
}

const messageColumns = `id, cid, type, tx_type, author, key, created, namespace, group_hash, topics, tag, datahash,
	hash, batch, tx_id, state, confirmed, reject_reason, pins, idempotency_key, data, parent_type, parent_id,
	header, audience, org, root, idx, trace, erasure`

const selectMessages = `SELECT seq, ` + messageColumns + ` FROM messages`

var insertMessages = newInsert("messages", "", "seq",
	`id cid type tx_type author key created namespace group_hash topics tag datahash
	hash batch tx_id state confirmed reject_reason pins idempotency_key data parent_type parent_id
	header audience org root idx trace erasure`)

// InsertMessages stores messages and sets their Seq, ascending in the order
// given. LocalNamespace, or else the header's, is where they belong. An idempotency key that is
// taken, by a stored message or an earlier one of the list, is a *DuplicateKey
// and nothing is stored.
func (tx *Tx) InsertMessages(messages []*Message) error {
	keys := map[[2]string]UUID{}
	for _, m := range messages {
		if m.IdempotencyKey == "" {
			continue
		}
		key := [2]string{m.namespace(), m.IdempotencyKey}
		id, taken := keys[key]
		if !taken {
			err := tx.QueryRow(`SELECT id FROM messages WHERE namespace = $1 AND idempotency_key = $2`, key[0], key[1]).Scan(&id)
			if err != nil && !errors.Is(err, ErrNoRows) {
				return fmt.Errorf("looking up idempotency key %q: %w", m.IdempotencyKey, err)
			}
			taken = err == nil
		}
		if taken {
			return &DuplicateKey{m.IdempotencyKey, id}
		}
		keys[key] = m.Header.ID
	}
	refs := make([]string, len(messages))
	for i, m := range messages {
		b, err := json.Marshal(append([]DataRef{}, m.Data...)) // [] rather than null
		if err != nil {
			return fmt.Errorf("message %s: encoding its data references: %w", m.Header.ID, err)
		}
		refs[i] = string(b)
	}
	return insertMessages.numbered(tx, len(messages), func(args []any, i int) []any {
		m := messages[i]
		h := &m.Header
		var parentType, parentID any
		if h.TxParent != nil {
			parentType, parentID = h.TxParent.Type, h.TxParent.ID
		}
		return append(args, h.ID, h.CID, h.Type, h.TxType, h.Author, h.Key, h.Created, m.namespace(),
			textOrNull(h.Group), list(h.Topics), h.Tag, string(h.DataHash), string(m.Hash), m.Batch, m.TxID,
			m.State, m.Confirmed, m.RejectReason, list(m.Pins), textOrNull(m.IdempotencyKey), refs[i],
			parentType, parentID, bytes(m.Wire), m.Audience, m.Org, m.Root, m.Index, m.Trace, m.Erasure)
	}, func(i int, seq int64) { messages[i].Seq = seq })
}

func (m *Message) namespace() string { return cmp.Or(m.LocalNamespace, m.Header.Namespace) }

// bytes is the argument for a NOT NULL bytes column: empty for nil.
func bytes(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func scanMessage(r *Rows, m *Message) error {
	h := &m.Header
	var (
		topics, pins, refs string
		parentType         *string
		parentID           *UUID
		index              *int
	)
	err := r.Scan(&m.Seq, &h.ID, &h.CID, &h.Type, &h.TxType, &h.Author, &h.Key, &h.Created, &m.LocalNamespace,
		nullable(&h.Group), &topics, &h.Tag, &h.DataHash, &m.Hash, &m.Batch, &m.TxID,
		&m.State, &m.Confirmed, &m.RejectReason, &pins, nullable(&m.IdempotencyKey), &refs,
		&parentType, &parentID, &m.Wire, &m.Audience, &m.Org, &m.Root, &index, &m.Trace, &m.Erasure)
	if err != nil {
		return fmt.Errorf("reading a message row: %w", err)
	}
	h.Namespace = m.LocalNamespace
	h.Topics, m.Pins = unlist(topics), unlist(pins)
	if parentType != nil {
		h.TxParent = &TransactionRef{Type: *parentType, ID: parentID}
	}
	if index != nil {
		m.Index = *index
	}
	if err := json.Unmarshal([]byte(refs), &m.Data); err != nil {
		return fmt.Errorf("message %s: its data references %q: %w", h.ID, refs, err)
	}
	return nil
}

func scanMessagePtr(r *Rows, m **Message) error {
	*m = new(Message)
	return scanMessage(r, *m)
}

// decidedFirst orders messages that share an id, which only a lie brings about:
// one that is confirmed is what the network knows by it, and none that comes
// later takes its place.
const decidedFirst = ` ORDER BY CASE state WHEN 'confirmed' THEN 0 ELSE 1 END, seq`

// MessageByID returns the message with an id in a namespace, or ErrNoRows; of
// several the confirmed one, else the oldest.
func (tx *Tx) MessageByID(namespace string, id UUID) (*Message, error) {
	return queryOne(tx, scanMessagePtr, selectMessages+` WHERE id = $1 AND namespace = $2`+decidedFirst+` LIMIT 1`, id, namespace)
}

// MessageByHash returns the message with an id and a leaf hash, which covers
// the id, in an audience, or ErrNoRows.
func (tx *Tx) MessageByHash(audience wire.Hash, id UUID, hash Hex) (*Message, error) {
	return queryOne(tx, scanMessagePtr, selectMessages+` WHERE id = $1 AND hash = $2 AND audience = $3 ORDER BY seq LIMIT 1`, id, hash, audience)
}

// ConfirmedBefore lists the hashes, among those of some messages, under which an
// epoch of an audience has a pinned message that is confirmed. Unpinned ones do
// not count: not every member has the same.
func (tx *Tx) ConfirmedBefore(audience wire.Hash, epoch uint64, messages []*Message) (hashes []Hex, err error) {
	ids := make([]UUID, len(messages)) // a hash covers the id
	for i, m := range messages {
		ids[i] = m.Header.ID
	}
	err = inChunks(ids, func(_ []UUID, marks string, args []any) error {
		some, err := queryAll(tx, func(r *Rows, h *Hex) error { return r.Scan(h) }, `SELECT hash FROM messages WHERE id IN `+marks+
			` AND audience = $`+strconv.Itoa(len(args)+1)+` AND state = 'confirmed' AND tx_type <> 'unpinned'
			AND EXISTS (SELECT 1 FROM batches b WHERE b.root = messages.root AND b.org = messages.org AND b.epoch = $`+strconv.Itoa(len(args)+2)+`)`,
			append(args, audience, int64(epoch))...)
		hashes = append(hashes, some...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for %d messages that were confirmed before: %w", len(messages), err)
	}
	return hashes, nil
}

// MessagesOfBatch returns the messages of an organisation's batch in the order
// of the batch.
func (tx *Tx) MessagesOfBatch(root wire.Hash, org wire.OrgID) ([]*Message, error) {
	return queryAll(tx, scanMessagePtr, selectMessages+` WHERE batch = `+batchOf+` AND root = $1 AND org = $2 ORDER BY idx`, root, org)
}

// MessagesBySeq returns messages by sequence number, in no certain order.
func (tx *Tx) MessagesBySeq(seqs []int64) (messages []*Message, err error) {
	err = inChunks(seqs, func(_ []int64, marks string, args []any) error {
		some, err := queryAll(tx, scanMessagePtr, selectMessages+` WHERE seq IN `+marks, args...)
		messages = append(messages, some...)
		return err
	})
	return messages, err
}

// ReadyMessages returns the sequence numbers of the oldest messages that wait to
// be put in a batch, those of some audiences excepted.
func (tx *Tx) ReadyMessages(except []wire.Hash, limit int) ([]int64, error) {
	args := []any{limit}
	where := ` WHERE state = 'ready'`
	for i, a := range except {
		where += fmt.Sprintf(` AND audience <> $%d`, i+2)
		args = append(args, a)
	}
	return queryAll(tx, func(r *Rows, seq *int64) error { return r.Scan(seq) }, `SELECT seq FROM messages`+where+` ORDER BY seq LIMIT $1`, args...)
}

// MessageUpdate says what SetMessages changes: what is nil or empty stays.
type MessageUpdate struct {
	State        string
	Confirmed    Time
	RejectReason string
	Batch        *UUID
	TxID         *UUID
	Root         *wire.Hash
	Pins         []string
}

// SetMessagesState changes messages by sequence number and returns how many
// there were.
func (tx *Tx) SetMessagesState(seqs []int64, u MessageUpdate) (changed int64, err error) {
	confirmed := &u.Confirmed
	if u.Confirmed == 0 {
		confirmed = nil
	}
	err = inChunks(seqs, func(_ []int64, marks string, args []any) error {
		n := len(args)
		text := fmt.Sprintf(`UPDATE messages SET state = COALESCE($%d, state), confirmed = COALESCE($%d, confirmed),
			reject_reason = COALESCE($%d, reject_reason), batch = COALESCE($%d, batch), tx_id = COALESCE($%d, tx_id),
			root = COALESCE($%d, root), pins = COALESCE($%d, pins) WHERE seq IN %s`, n+1, n+2, n+3, n+4, n+5, n+6, n+7, marks)
		rows, err := tx.Exec(text, append(args, textOrNull(u.State), confirmed, textOrNull(u.RejectReason),
			u.Batch, u.TxID, u.Root, textOrNull(list(u.Pins)))...)
		changed += rows
		return err
	})
	if err != nil {
		return changed, fmt.Errorf("changing the state of %d messages to %q: %w", len(seqs), u.State, err)
	}
	return changed, nil
}

// ConfirmMessages gives messages, by ascending sequence number, the state
// confirmed. It writes less than SetMessagesState: only what this changes.
func (tx *Tx) ConfirmMessages(seqs []int64, at Time) error {
	for _, r := range runs(seqs) {
		if err := tx.Send(`UPDATE messages SET state = 'confirmed', confirmed = $1 WHERE seq BETWEEN $2 AND $3`, at, r.first, r.last); err != nil {
			return fmt.Errorf("confirming messages %d to %d: %w", r.first, r.last, err)
		}
	}
	return nil
}

// RekeyMessage stores another key, and the hash and header that follow from it,
// of a message that waits to be put in a batch.
func (tx *Tx) RekeyMessage(m *Message) error {
	err := tx.Send(`UPDATE messages SET key = $1, hash = $2, header = $3 WHERE seq = $4 AND state = 'ready'`, m.Header.Key, string(m.Hash), m.Wire, m.Seq)
	return err
}
