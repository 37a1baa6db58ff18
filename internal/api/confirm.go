package api

import (
	"net/http"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
)

// Types of event that answer a wait.
const (
	messageConfirmed = "message_confirmed"
	messageRejected  = "message_rejected"
)

// confirmed sends a message and, with ?confirm, waits for its verdict. The wait
// starts at the event log's end as it is before sending, so that no verdict can
// slip through. It returns the message as it is then.
func (c *call) confirmed(send func() (*store.Message, error)) (*store.Message, error) {
	if !c.flag("confirm") {
		return send()
	}
	from, err := c.Log.Last(c.ctx())
	if err != nil {
		return nil, err
	}
	m, err := send()
	if err != nil || message.MessageID(m) == nil { // without a network it holds already
		return m, err
	}
	if err := c.verdict(from, m.Header.ID); err != nil {
		return nil, err
	}
	return c.message(m.Header.ID)
}

// verdict waits for the message's verdict; a rejection is FF10269.
func (c *call) verdict(from int64, id store.UUID) error {
	ev, err := c.Log.Await(c.ctx(), from, func(e *store.Event) bool {
		return e.Reference != nil && *e.Reference == id && (e.Type == messageConfirmed || e.Type == messageRejected)
	})
	if err != nil {
		return err
	}
	if ev.Type == messageConfirmed {
		return nil
	}
	m, err := c.message(id)
	if err != nil {
		return err
	}
	return errs.New("FF10269", http.StatusInternalServerError, "Message %s was rejected: %s", id, m.RejectReason)
}

// requestReply sends a private message and waits for the first message that is
// confirmed here and names it as its cid.
func (c *call) requestReply(in message.Input) (any, error) {
	switch {
	case in.Header.Group == "" && in.Group == nil:
		return nil, errs.BadRequest("FF10271", "field %q is missing: a request needs a group to answer it", "group.members")
	case in.Header.Tag == "":
		return nil, errs.BadRequest("FF10261", "field %q is missing: the tag tells the receiver that an answer is wanted", "header.tag")
	case in.Header.CID != nil:
		return nil, errs.BadRequest("FF10262", "field %q is set: a request cannot itself be an answer; leave it out", "header.cid")
	}
	from, err := c.Log.Last(c.ctx())
	if err != nil {
		return nil, err
	}
	m, err := c.Messages.Private(c.ctx(), in)
	if err != nil {
		return nil, err
	}
	id := m.Header.ID
	ev, err := c.Log.Await(c.ctx(), from, func(e *store.Event) bool {
		return e.Type == messageConfirmed && e.Correlator != nil && *e.Correlator == id ||
			e.Type == messageRejected && e.Reference != nil && *e.Reference == id
	})
	if err != nil {
		return nil, err
	}
	if ev.Type == messageRejected {
		return nil, c.verdict(from, id)
	}
	reply, err := c.message(*ev.Reference)
	if err != nil {
		return nil, err
	}
	full, err := c.withData([]store.Message{*reply})
	if err != nil {
		return nil, err
	}
	return full[0], nil
}

// enrich adds to events what they speak of.
func (c *call) enrich(events []store.Event) ([]event.Enriched, error) {
	return c.Log.Enrich(c.ctx(), events)
}
