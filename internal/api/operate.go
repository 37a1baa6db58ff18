package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/parley-node/parley/internal/contract"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
)

// postCancelBatch gives up a private batch that waits for receipts.
func postCancelBatch(c *call) (any, error) {
	id, err := c.uuid("batchid")
	if err != nil {
		return nil, err
	}
	return nil, c.Messages.CancelBatch(c.ctx(), id)
}

// pinRewind names a pin, by the sequence of one of its handles or by its batch.
type pinRewind struct {
	Sequence int64       `json:"sequence"`
	Batch    *store.UUID `json:"batch"`
}

// postRewind has the order look again at what is open, and answers with the pin
// that was named.
func postRewind(c *call, in pinRewind) (any, error) {
	if in.Sequence == 0 && in.Batch == nil {
		return nil, errs.BadRequest("FF10292", "give %q or %q of a pin; see GET pins", "sequence", "batch")
	}
	pin, err := c.Messages.PinHandle(c.ctx(), in.Sequence, in.Batch)
	if err != nil {
		return nil, err
	}
	c.Messages.Rewind()
	return pinRewind{pin.Sequence, pin.Batch}, nil
}

// operationWithDetail is what ?fetchstatus makes of an operation.
type operationWithDetail struct {
	store.Operation
	Detail any `json:"detail,omitempty"` // message.OperationDetail, or contract.Detail of a contract's transaction
}

func getOperation(c *call) (any, error) {
	id, err := c.uuid("opid")
	if err != nil {
		return nil, err
	}
	op, err := store.Get(c.ctx(), c.DB, store.Operations, c.Namespace, id.String())
	if err != nil || !c.flag("fetchstatus") {
		return op, err
	}
	if contract.IsOperation(op.Type) {
		detail, err := c.Contracts.Detail(c.ctx(), op.ID)
		if detail == nil { // refused before there was a transaction
			return op, err
		}
		return operationWithDetail{op, detail}, err
	}
	detail, err := c.Messages.DetailOf(c.ctx(), &op)
	if detail == nil {
		return op, err
	}
	return operationWithDetail{op, detail}, err
}

// postRetry does again what an operation stands for. Its body says nothing.
func postRetry(c *call) (any, error) {
	id, err := c.uuid("opid")
	if err != nil {
		return nil, err
	}
	op, err := store.Get(c.ctx(), c.DB, store.Operations, c.Namespace, id.String())
	if err != nil {
		return nil, err
	}
	if contract.IsOperation(op.Type) {
		return c.Contracts.Retry(c.ctx(), id)
	}
	return c.Messages.RetryOperation(c.ctx(), id)
}

func getBatchManager(c *call) (any, error) { return c.Messages.BatchManager(c.ctx()) }

// networkAction is what existing clients ask of the network as a whole.
type networkAction struct {
	Type string `json:"type"`
}

const actionTerminate = "terminate"

// postNetworkAction asks for the end of the network under this contract: a
// proposal of it or, if there is one, this member's vote for it. The members'
// policy decides.
func postNetworkAction(c *call, in networkAction) (any, error) {
	if !strings.EqualFold(in.Type, actionTerminate) {
		return nil, errs.BadRequest("FF10397", "field %q holds %q: the only action is %s; other changes are proposed with POST network/proposals", "type", shorten(in.Type), actionTerminate)
	}
	st := c.Network.Status()
	if st.Terminated {
		return nil, errs.Conflict("FF10397", "the network is terminated already")
	}
	var do ledger.Call = ledger.ProposeCall{Proposal: ledger.Proposal{Terminate: true}}
	open := slices.IndexFunc(st.Proposals, func(p identity.Proposal) bool { return p.Change.Terminate && !p.Executed })
	if open >= 0 {
		p := st.Proposals[open]
		if _, voted := p.Votes[c.Messages.Self.Org]; voted {
			return nil, errs.Conflict("FF10397", "this member has voted on proposal %d to terminate the network: the others' votes are awaited, see GET network/proposals", p.ID)
		}
		do = ledger.VoteCall{ID: p.ID, Approve: true}
	}
	if _, err := c.submit(do); err != nil {
		return nil, err
	}
	return networkAction{actionTerminate}, nil
}

// postOrganization registers this member's organisation, if it is not. Other
// organisations come to the network by a vote.
func postOrganization(c *call, in identity.Input) (any, error) {
	own := c.Messages.Self
	if in.Name != own.Name {
		return nil, errs.New("FF10358", http.StatusBadRequest,
			"field %q holds %q: this node registers its own organisation, %q; another one runs a node of its own and is admitted by vote, see POST network/proposals, or is a custom identity, see POST identities", "name", shorten(in.Name), own.Name)
	}
	return c.register(identity.TypeOrg)
}
