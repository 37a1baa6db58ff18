package event

import (
	"context"
	"fmt"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// codeNotReplayable is Parley's own: the delivery is still under way, or what it
// was of is gone.
const codeNotReplayable = "FF90007"

// Replay tries a delivery once more, as its subscription is defined now, and
// returns what came of it. It moves no position. A dead delivery that succeeds is
// delivered from then on; one that fails stays dead.
func (o *Outbound) Replay(ctx context.Context, subscription, id store.UUID) (*store.Delivery, error) {
	sub, err := o.subs.Get(ctx, subscription)
	if err != nil {
		return nil, err
	}
	d, err := store.Get(ctx, o.subs.db, store.Deliveries, sub.Namespace, id.String())
	if err != nil {
		return nil, err
	}
	switch {
	case d.Subscription != sub.ID:
		return nil, errs.NoSuch("delivery", id.String())
	case d.State == store.DeliveryRetrying:
		return nil, errs.Conflict(codeNotReplayable, "delivery %s is being retried; wait until it is delivered or dead", id)
	case !carried(sub.Transport):
		return nil, errs.Conflict(codeNotReplayable, "subscription %q has the transport %q now, to which nothing can be replayed", sub.Name, sub.Transport)
	}
	u, err := o.outlet(sub)
	if err != nil {
		return nil, err
	}
	defer u.target.close()
	u.ctx, u.request = ctx, ctx
	f, err := o.frameOf(ctx, sub, &d)
	if err != nil {
		return nil, err
	}
	out := u.target.send(ctx, f)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	attempted(&d, out)
	d.State = store.DeliveryDelivered
	if out.err != nil {
		d.State = store.DeliveryDead
	}
	if err := u.end(f, &d, out); err != nil {
		return nil, err
	}
	return &d, o.journal.save(ctx)
}

// frameOf makes the frame of a delivery again.
func (o *Outbound) frameOf(ctx context.Context, sub *store.Subscription, d *store.Delivery) (*Frame, error) {
	dispatch, err := o.subs.dispatch(sub, 0, nil)
	if err != nil {
		return nil, err
	}
	var events []store.Event
	err = o.subs.db.Read(ctx, func(tx *store.Tx) (err error) {
		events, err = tx.EventsBySequence(sub.Namespace, d.Sequences)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the events of delivery %s: %w", d.ID, err)
	}
	if len(events) == 0 || len(events) < len(d.Sequences) {
		return nil, errs.Conflict(codeNotReplayable, "delivery %s was of %d events, of which %d are there still", d.ID, len(d.Sequences), len(events))
	}
	f := &Frame{ID: d.Frame, Batch: dispatch.plan.batch, Subscription: dispatch.ref}
	if f.Events, err = o.subs.log.Enrich(ctx, events); err != nil {
		return nil, err
	}
	if dispatch.plan.withData {
		err = o.subs.log.attach(ctx, f.Events)
	}
	return f, err
}
