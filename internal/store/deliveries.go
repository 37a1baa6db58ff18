package store

import (
	"fmt"
	"strconv"
	"strings"
)

// States of a Delivery.
const (
	DeliveryRetrying    = "retrying"    // failed so far; it is tried again
	DeliveryDelivered   = "delivered"   // the target has taken it
	DeliveryFailed      = "failed"      // the target has not taken it, and the subscription does not mind
	DeliveryDead        = "dead"        // given up; it waits to be replayed
	DeliveryInterrupted = "interrupted" // the node stopped meanwhile; the events are delivered anew
)

const selectDeliveries = `SELECT id, namespace, subscription, state, frame, first, sequences, attempts, status, error, created, updated FROM deliveries`

func scanDelivery(r *Rows, d *Delivery) error {
	var sequences string
	err := r.Scan(&d.ID, &d.Namespace, &d.Subscription, &d.State, &d.Frame, &d.First, &sequences, &d.Attempts, &d.Status, &d.Error, &d.Created, &d.Updated)
	if err != nil {
		return fmt.Errorf("reading a delivery row: %w", err)
	}
	for _, text := range unlist(sequences) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("reading the delivery row %s: %w", d.ID, err)
		}
		d.Sequences = append(d.Sequences, n)
	}
	d.Events = len(d.Sequences)
	return nil
}

var upsertDeliveries = newInsert("deliveries", `ON CONFLICT (id) DO UPDATE SET state = excluded.state, attempts = excluded.attempts,
	status = excluded.status, error = excluded.error, updated = excluded.updated`,
	"", "id namespace subscription state frame first sequences attempts status error created updated")

// PutDeliveries stores deliveries, or what has become of them since they were
// stored first. Each may be given once.
func (tx *Tx) PutDeliveries(ds []*Delivery) error {
	return upsertDeliveries.rows(tx, len(ds), func(args []any, i int) []any {
		d := ds[i]
		var sequences strings.Builder
		for i, n := range d.Sequences {
			if i > 0 {
				sequences.WriteByte(',')
			}
			sequences.WriteString(strconv.FormatInt(n, 10))
		}
		return append(args, d.ID, d.Namespace, d.Subscription, d.State, d.Frame, d.First, sequences.String(), d.Attempts, d.Status, d.Error, d.Created, d.Updated)
	})
}

// TrimDeliveries deletes all but the newest deliveries of a subscription, of
// those that nobody has to look after: dead ones stay.
func (tx *Tx) TrimDeliveries(subscription UUID, keep int) error {
	err := tx.Send(`DELETE FROM deliveries WHERE subscription = $1 AND state IN ('delivered', 'failed', 'interrupted') AND seq <=
		(SELECT seq FROM deliveries WHERE subscription = $2 AND state IN ('delivered', 'failed', 'interrupted') ORDER BY seq DESC LIMIT 1 OFFSET $3)`,
		subscription, subscription, keep)
	if err != nil {
		return fmt.Errorf("trimming the deliveries of subscription %s: %w", subscription, err)
	}
	return nil
}

// InterruptDeliveries says of deliveries that were under way when the node
// stopped that they are no longer.
func (tx *Tx) InterruptDeliveries(subscription UUID, at Time) error {
	err := tx.Send(`UPDATE deliveries SET state = 'interrupted', updated = $1 WHERE subscription = $2 AND state = 'retrying'`, at, subscription)
	if err != nil {
		return fmt.Errorf("marking the interrupted deliveries of subscription %s: %w", subscription, err)
	}
	return nil
}

// SweepDeliveries deletes the deliveries of subscriptions that are no more.
func (tx *Tx) SweepDeliveries() error {
	if err := tx.Send(`DELETE FROM deliveries WHERE NOT EXISTS (SELECT 1 FROM subscriptions WHERE id = deliveries.subscription)`); err != nil {
		return fmt.Errorf("deleting the deliveries of deleted subscriptions: %w", err)
	}
	return nil
}
