package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

const selectEvents = `SELECT sequence, id, type, namespace, reference, correlator, tx, topic, created FROM events`

var insertEvents = newInsert("events", "", "sequence", "id type namespace reference correlator tx topic created")

// InsertEvents appends to the event log and sets Sequence, ascending in the
// order given. Sequence is the order of commits: who has read up to a number
// will never see a smaller one appear.
func (tx *Tx) InsertEvents(events []*Event) error {
	return insertEvents.numbered(tx, len(events), func(args []any, i int) []any {
		e := events[i]
		return append(args, e.ID, e.Type, e.Namespace, e.Reference, e.Correlator, e.Tx, e.Topic, e.Created)
	}, func(i int, seq int64) { events[i].Sequence = seq })
}

func scanEvent(r *Rows, e *Event) error {
	if err := r.Scan(&e.Sequence, &e.ID, &e.Type, &e.Namespace, &e.Reference, &e.Correlator, &e.Tx, &e.Topic, &e.Created); err != nil {
		return fmt.Errorf("reading an event row: %w", err)
	}
	return nil
}

// EventsAfter returns the first events of a namespace, at most limit, whose
// sequence is greater than after.
func (tx *Tx) EventsAfter(namespace string, after int64, limit int) ([]Event, error) {
	return queryAll(tx, scanEvent, selectEvents+` WHERE sequence > $1 AND namespace = $2 ORDER BY sequence LIMIT $3`, after, namespace, limit)
}

// EventsBySequence returns events of a namespace by sequence, in order. One that
// is not there is left out.
func (tx *Tx) EventsBySequence(namespace string, sequences []int64) (events []Event, err error) {
	err = inChunks(sequences, func(_ []int64, marks string, args []any) error {
		part, err := queryAll(tx, scanEvent, selectEvents+` WHERE sequence IN `+marks+
			` AND namespace = $`+strconv.Itoa(len(args)+1)+` ORDER BY sequence`, append(args, namespace)...)
		events = append(events, part...)
		return err
	})
	return events, err
}

// LastEvent is the sequence of the newest event, 0 if there is none.
func (tx *Tx) LastEvent() (seq int64, err error) {
	return seq, tx.QueryRow(`SELECT COALESCE(MAX(sequence), 0) FROM events`).Scan(&seq)
}

const selectSubscriptions = `SELECT id, namespace, name, transport, filter, options, created, updated, position, secret FROM subscriptions`

func scanSubscription(r *Rows, s *Subscription) error {
	err := r.Scan(&s.ID, &s.Namespace, &s.Name, &s.Transport, (*[]byte)(&s.Filter), (*[]byte)(&s.Options), &s.Created, &s.Updated, &s.Position, &s.Secret)
	if err != nil {
		return fmt.Errorf("reading a subscription row: %w", err)
	}
	return nil
}

func scanSubscriptionPtr(r *Rows, s **Subscription) error {
	*s = new(Subscription)
	return scanSubscription(r, *s)
}

// ErrExists is returned by an insertion whose id or name is taken.
var ErrExists = errors.New("exists already")

// InsertSubscription stores a new subscription; a name that the namespace has
// already is ErrExists.
func (tx *Tx) InsertSubscription(s *Subscription) error {
	n, err := tx.Exec(`INSERT INTO subscriptions (id, namespace, name, transport, filter, options, created, updated, position, secret)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (namespace, name) DO NOTHING`,
		s.ID, s.Namespace, s.Name, s.Transport, jsonObject(s.Filter), jsonObject(s.Options), s.Created, s.Updated, s.Position, s.Secret)
	if err != nil {
		return fmt.Errorf("storing subscription %s: %w", s.Name, err)
	}
	if n == 0 {
		return fmt.Errorf("subscription %s: %w", s.Name, ErrExists)
	}
	return nil
}

// jsonObject is the argument for a NOT NULL column of JSON text: "{}" for nil.
func jsonObject(b json.RawMessage) string {
	if b == nil {
		return "{}"
	}
	return string(b)
}

// UpdateSubscription replaces transport, filter, options, secret and the time of
// change of a subscription, never its position; ErrNoRows if there is none.
func (tx *Tx) UpdateSubscription(s *Subscription) error {
	return tx.must(`UPDATE subscriptions SET transport = $1, filter = $2, options = $3, updated = $4, secret = $5 WHERE id = $6`,
		s.Transport, jsonObject(s.Filter), jsonObject(s.Options), s.Updated, s.Secret, s.ID)
}

// DeleteSubscription removes a subscription and its deliveries, also those that
// could not be made; ErrNoRows if there is none.
func (tx *Tx) DeleteSubscription(id UUID) error {
	if err := tx.Send(`DELETE FROM deliveries WHERE subscription = $1`, id); err != nil {
		return fmt.Errorf("deleting the deliveries of subscription %s: %w", id, err)
	}
	return tx.must(`DELETE FROM subscriptions WHERE id = $1`, id)
}

// SetPosition moves a subscription to the last event acknowledged. It moves back
// as well, which is how events are replayed; ErrNoRows if there is none.
func (tx *Tx) SetPosition(id UUID, sequence int64) error {
	return tx.must(`UPDATE subscriptions SET position = $1 WHERE id = $2`, sequence, id)
}

// SubscriptionByID returns a subscription of a namespace, or ErrNoRows.
func (tx *Tx) SubscriptionByID(namespace string, id UUID) (*Subscription, error) {
	return queryOne(tx, scanSubscriptionPtr, selectSubscriptions+` WHERE id = $1 AND namespace = $2`, id, namespace)
}

// SubscriptionByName returns a subscription of a namespace, or ErrNoRows.
func (tx *Tx) SubscriptionByName(namespace, name string) (*Subscription, error) {
	return queryOne(tx, scanSubscriptionPtr, selectSubscriptions+` WHERE namespace = $1 AND name = $2`, namespace, name)
}

// Subscriptions returns all subscriptions of all namespaces, oldest first.
func (tx *Tx) Subscriptions() ([]*Subscription, error) {
	return queryAll(tx, scanSubscriptionPtr, selectSubscriptions+` ORDER BY seq`)
}

// must runs a statement that changes exactly the row it names: ErrNoRows if it
// changes none.
func (tx *Tx) must(text string, args ...any) error {
	n, err := tx.Exec(text, args...)
	if err == nil && n == 0 {
		return ErrNoRows
	}
	return err
}
