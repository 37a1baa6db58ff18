package api

import (
	"net/http"
	"slices"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/store"
)

func getEvents(c *call) (any, error) {
	events, err := list(c, store.Events)
	if err != nil || !c.flag("fetchreferences") && !c.flag("fetchreference") {
		return events, err
	}
	full, err := c.enrich(events.items)
	return page[event.Enriched]{full, events.count, events.total}, err
}

func getEvent(c *call) (any, error) {
	id, err := c.uuid("eid")
	if err != nil {
		return nil, err
	}
	ev, err := store.Get(c.ctx(), c.DB, store.Events, c.Namespace, id.String())
	if err != nil || !c.flag("fetchreference") && !c.flag("fetchreferences") {
		return ev, err
	}
	full, err := c.enrich([]store.Event{ev})
	if err != nil {
		return nil, err
	}
	return full[0], nil
}

func postSubscription(c *call, in event.SubscriptionInput) (any, error) {
	return c.Subscriptions.Create(c.ctx(), in)
}

func putSubscription(c *call, in event.SubscriptionInput) (any, error) {
	return c.Subscriptions.CreateOrUpdate(c.ctx(), in)
}

func getSubscription(c *call) (any, error) {
	id, err := c.uuid("subid")
	if err != nil {
		return nil, err
	}
	if c.flag("fetchstatus") {
		return c.Subscriptions.GetWithStatus(c.ctx(), id)
	}
	return c.Subscriptions.Get(c.ctx(), id)
}

func deleteSubscription(c *call) (any, error) {
	id, err := c.uuid("subid")
	if err != nil {
		return nil, err
	}
	return nil, c.Subscriptions.Delete(c.ctx(), id)
}

// webSocketStatus lists the connected clients.
type webSocketStatus struct {
	Enabled     bool                     `json:"enabled"`
	Connections []event.ConnectionStatus `json:"connections"`
}

func getWebSockets(c *call) (any, error) {
	connections := c.WebSockets.Connections()
	for i := range connections {
		// Of other namespaces the caller learns nothing.
		connections[i].Subscriptions = slices.DeleteFunc(connections[i].Subscriptions, func(s event.ConnectedSubscriber) bool {
			return c.caller.Role(s.Namespace) < c.op.needs().role
		})
	}
	return webSocketStatus{true, connections}, nil
}

// getSubscriptionEvents lists what a subscription's filter selects out of the
// past; always in the counted form.
func getSubscriptionEvents(c *call) (any, error) {
	id, err := c.uuid("subid")
	if err != nil {
		return nil, err
	}
	events, total, err := c.Subscriptions.History(c.ctx(), id, c.query)
	return page[event.Enriched]{events, true, int64(total)}, err
}

// acknowledgement says how far the consumers of a stream have got.
type acknowledgement struct {
	Sequence int64 `json:"sequence"` // everything up to this event is done with
}

func postSubscriptionAck(c *call, in acknowledgement) (any, error) {
	id, err := c.uuid("subid")
	if err != nil {
		return nil, err
	}
	return nil, c.Subscriptions.Acknowledge(c.ctx(), id, in.Sequence)
}

// subscriptionRewind says where a subscription goes on.
type subscriptionRewind struct {
	Sequence *int64 `json:"sequence"` // of the last event that counts as delivered; -1 for none
}

func postSubscriptionRewind(c *call, in subscriptionRewind) (any, error) {
	id, err := c.uuid("subid")
	if err != nil {
		return nil, err
	}
	if in.Sequence == nil {
		return nil, errs.BadRequest("FF10292", "field %q is missing: the last event that shall count as delivered, -1 for none", "sequence")
	}
	return c.Subscriptions.Rewind(c.ctx(), id, *in.Sequence)
}

// eventStream is a result that goes on until the client or the node ends it.
type eventStream func(w http.ResponseWriter, r *http.Request) error

func (s eventStream) respond(c *call) error {
	ctx, release, err := c.Access.Hold(c.ctx(), c.caller)
	if err != nil {
		c.metrics.refused(err)
		return err
	}
	defer release()
	return s(c.w, c.r.WithContext(ctx))
}

func getEventStream(c *call) (any, error) {
	return eventStream(func(w http.ResponseWriter, r *http.Request) error {
		return c.Streams.ServeEphemeral(w, r, c.payloads())
	}), nil
}

func getSubscriptionStream(c *call) (any, error) {
	return eventStream(func(w http.ResponseWriter, r *http.Request) error {
		return c.Streams.ServeDurable(w, r, c.path("subid"))
	}), nil
}

// getDeliveries lists what became of the events that the node carried to a
// subscription's target itself.
func getDeliveries(c *call) (any, error) {
	id, err := c.uuid("subid")
	if err != nil {
		return nil, err
	}
	if _, err := c.Subscriptions.Get(c.ctx(), id); err != nil {
		return nil, err
	}
	q, err := c.parse(&store.Deliveries.Collection)
	if err != nil {
		return nil, err
	}
	if err := q.Where(&store.Deliveries.Collection, "subscription", id); err != nil {
		return nil, err
	}
	return listQuery(c, store.Deliveries, q)
}

// postReplay tries a delivery once more.
func postReplay(c *call) (any, error) {
	sub, err := c.uuid("subid")
	if err != nil {
		return nil, err
	}
	id, err := c.uuid("did")
	if err != nil {
		return nil, err
	}
	if c.Deliveries == nil {
		return nil, errs.NoSuch("delivery", id.String())
	}
	return c.Deliveries.Replay(c.ctx(), sub, id)
}
