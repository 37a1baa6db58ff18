package api

import (
	"net/http"
	"strconv"

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
	return webSocketStatus{true, c.WebSockets.Connections()}, nil
}

// sequence reads a query parameter that holds an event's sequence; absent is
// nil.
func (c *call) sequence(name string) (*int64, error) {
	text := c.param(name)
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, errs.New(errs.CodeBadValue, http.StatusBadRequest, "%s is %q, which is no sequence; give a whole number", name, shorten(text))
	}
	return &n, nil
}
