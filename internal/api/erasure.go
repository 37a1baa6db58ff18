package api

import (
	"net/http"

	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
)

// author is who does something that is recorded for ever: the caller, or, where
// callers have no names, whom the request names.
func (c *call) author(named string) string {
	if c.caller.Name == access.Local {
		return named
	}
	return c.caller.Name
}

// postErase erases the data of a message.
func postErase(c *call, in message.EraseInput) (any, error) {
	in.Author = c.author(in.Author)
	id, err := c.uuid("msgid")
	if err != nil {
		return nil, err
	}
	return c.Messages.EraseMessage(c.ctx(), id, in)
}

// postEraseData erases one data item.
func postEraseData(c *call, in message.EraseInput) (any, error) {
	in.Author = c.author(in.Author)
	id, err := c.uuid("dataid")
	if err != nil {
		return nil, err
	}
	return c.Messages.EraseData(c.ctx(), id, in)
}

func getErasure(c *call) (any, error) {
	id, err := c.uuid("id")
	if err != nil {
		return nil, err
	}
	return c.Messages.Erasure(c.ctx(), id)
}

func postDecision(c *call, in message.Decision) (any, error) {
	id, err := c.uuid("id")
	if err != nil {
		return nil, err
	}
	return c.Messages.DecideErasure(c.ctx(), id, in)
}

func postHold(c *call, in message.HoldInput) (any, error) {
	in.Author = c.author(in.Author)
	return c.Messages.SetHold(c.ctx(), in)
}

// deleteHold lifts a hold; its record stays.
func deleteHold(c *call) (any, error) {
	id, err := c.uuid("id")
	if err != nil {
		return nil, err
	}
	return nil, c.Messages.LiftHold(c.ctx(), id, c.author(c.param("author")))
}

func getPolicies(c *call) (any, error) { return c.Messages.Policies(c.ctx()) }

// postPolicy makes a policy, or with ?dryrun only counts what it would erase now.
func postPolicy(c *call, in message.PolicyInput) (any, error) {
	if c.flag("dryrun") {
		return c.Messages.PreviewPolicy(c.ctx(), in)
	}
	in.Author = c.author(in.Author)
	return c.Messages.AddPolicy(c.ctx(), in)
}

func deletePolicy(c *call) (any, error) {
	id, err := c.uuid("id")
	if err != nil {
		return nil, err
	}
	return nil, c.Messages.DeletePolicy(c.ctx(), id)
}

// retentionRoutes are Parley's own operations on how long data is kept.
func retentionRoutes() []route {
	return []route{
		{post, "messages/{msgid}/erase", "postMsgErase", "Erases the data of a message, and may ask the other members to", body(postErase), spec{}.io(message.EraseInput{}, store.Erasure{})},
		{post, "data/{dataid}/erase", "postDataErase", "Erases a data item wherever it is, and may ask the other members to", body(postEraseData), spec{}.io(message.EraseInput{}, store.Erasure{})},
		{get, "erasures", "getErasures", "Lists what was erased, when, by whom and why", lists(store.Erasures), filtered(store.Erasures)},
		{get, "erasures/{id}", "getErasureByID", "Reads an erasure with the signed answers of the members that were asked", getErasure, spec{out: message.ErasureStatus{}}},
		{get, "erasures/requests", "getErasureRequests", "Lists the requests to erase, of this member and of others", lists(store.ErasureRequests), filtered(store.ErasureRequests)},
		{post, "erasures/requests/{id}/decision", "postErasureDecision", "Accepts or refuses another member's request to erase", body(postDecision), spec{}.io(message.Decision{}, store.ErasureRequest{})},
		{post, "holds", "postHold", "Sets a legal hold on a message, a topic, a group or an author", body(postHold), spec{status: http.StatusCreated}.io(message.HoldInput{}, store.Hold{})},
		{get, "holds", "getHolds", "Lists legal holds, lifted ones too", lists(store.Holds), filtered(store.Holds)},
		{get, "holds/{id}", "getHoldByID", "Reads a legal hold", byID(store.Holds, "id"), spec{out: store.Hold{}}},
		{remove, "holds/{id}", "deleteHold", "Lifts a legal hold", deleteHold, spec{status: http.StatusNoContent, params: []string{"author"}}},
		{post, "retention/policies", "postRetentionPolicy", "Makes a retention policy; with dryrun counts what it would erase now", body(postPolicy),
			spec{status: http.StatusCreated, flags: []string{"dryrun"}}.io(message.PolicyInput{}, message.Policy{})},
		{get, "retention/policies", "getRetentionPolicies", "Lists the retention policies with what they did", getPolicies, spec{out: []message.Policy{}}},
		{remove, "retention/policies/{id}", "deleteRetentionPolicy", "Ends a retention policy", deletePolicy, spec{status: http.StatusNoContent}},
	}
}
