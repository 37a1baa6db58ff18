package event

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// The frames of the WebSocket protocol: text, one JSON document each.

// startFrame asks for a subscription.
type startFrame struct {
	AutoAck   *bool   `json:"autoack"`
	Namespace string  `json:"namespace"`
	Name      string  `json:"name"` // of a durable subscription
	Ephemeral bool    `json:"ephemeral"`
	Filter    Filter  `json:"filter"`  // of an ephemeral one
	Options   Options `json:"options"` // of an ephemeral one

	fromQuery bool // of the upgrade, and no frame
}

// ackFrame acknowledges a delivery. Without an id it is the oldest in flight;
// without a subscription, the only one.
type ackFrame struct {
	ID           *store.UUID `json:"id"`
	Subscription *refFrame   `json:"subscription"`
}

type refFrame struct {
	ID        *store.UUID `json:"id"`
	Namespace string      `json:"namespace"`
	Name      string      `json:"name"`
}

type errorFrame struct {
	Type  string `json:"type"`
	Error string `json:"error"`
}

// deliveryFrame is an event on its way to a consumer.
type deliveryFrame struct {
	*Enriched
	Subscription *Ref `json:"subscription"`
}

type batchFrame struct {
	Type         string          `json:"type"`
	ID           store.UUID      `json:"id"`
	Subscription *Ref            `json:"subscription"`
	Events       []deliveryFrame `json:"events"`
}

// encode is the JSON that a client gets.
func (f *Frame) encode() ([]byte, error) {
	if !f.Batch {
		return json.Marshal(deliveryFrame{&f.Events[0], &f.Subscription})
	}
	b := batchFrame{Type: "event_batch", ID: f.ID, Subscription: &f.Subscription, Events: make([]deliveryFrame, len(f.Events))}
	for i := range f.Events {
		b.Events[i] = deliveryFrame{&f.Events[i], &f.Subscription}
	}
	return json.Marshal(b)
}

// handle acts on a client's frame. An error ends the connection.
func (c *connection) handle(text []byte) error {
	var action struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(text, &action); err != nil {
		return err
	}
	switch strings.ToLower(action.Type) {
	case "start":
		var in startFrame
		if err := json.Unmarshal(text, &in); err != nil {
			return err
		}
		return c.start(&in)
	case "ack":
		var in ackFrame
		if err := json.Unmarshal(text, &in); err != nil {
			return err
		}
		return c.ack(&in)
	}
	return errs.BadRequest("FF10177", "type is %q; it must be start or ack", action.Type)
}

// autoStart begins the subscription that the upgrade's query asks for, if any.
func (c *connection) autoStart(q url.Values) error {
	namespace := q.Get("namespace")
	autoAck := flag(q, "autoack")
	c.mu.Lock()
	c.autoAck = autoAck
	c.mu.Unlock()
	in := startFrame{fromQuery: true, AutoAck: &autoAck, Namespace: namespace, Name: q.Get("name"), Ephemeral: flag(q, "ephemeral")}
	wrongScope := c.scope != "" && namespace != "" && namespace != c.scope
	if !in.Ephemeral && in.Name == "" && !wrongScope {
		return nil
	}
	if _, known := c.server.subscriptions(in.Namespace); !known && namespace != "" && c.scope == "" {
		return errs.New("FF10187", http.StatusNotFound, "There is no namespace %q", namespace)
	}
	var err error
	if in.Options, err = queryOptions(q); err != nil {
		return err
	}
	in.Filter = queryFilter(q)
	return c.start(&in)
}

// queryOptions reads batch, batchtimeout and readahead.
func queryOptions(q url.Values) (o Options, err error) {
	if q.Has("batch") {
		batch := flag(q, "batch")
		o.Batch = &batch
	}
	o.BatchTimeout = q.Get("batchtimeout")
	if text := q.Get("readahead"); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return o, errs.BadRequest(errs.CodeBadValue, "readahead is %q; it must be a whole number from 0 to %d", text, maxReadAhead)
		}
		ahead := uint16(n)
		o.ReadAhead = &ahead
	}
	return o, nil
}

// flag is a query parameter that is true by its presence, unless it says false.
func flag(q url.Values, name string) bool {
	return q.Has(name) && !strings.EqualFold(q.Get(name), "false")
}
