package api

import (
	"net/http"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
)

// needsNetwork are the operations, by id, that mean nothing in a namespace
// without a network.
var needsNetwork = map[string]bool{
	"postNewMessageBroadcast": true, "postNewMessagePrivate": true, "postNewMessageRequestReply": true,
	"getDataMsgs": true, "postDataValuePublish": true, "postDataBlobPublish": true, "getPublished": true,
	"postBatchCancel": true, "postPinsRewind": true,
	"getGroups": true, "getGroupByHash": true,
	"getStatusBatchManager": true, "getStatusLedger": true, "getStatusPeers": true,
	"postNewOrganizationSelf": true, "postNodesSelf": true, "postNewOrganization": true, "postNetworkAction": true,
	"getNetworkMembers": true, "getNetworkProposals": true, "postNetworkProposal": true, "postNetworkVote": true,
	"postNetworkKey": true, "deleteNetworkKey": true,
	"getNetworkTransfers": true, "getNetworkTransfer": true, "verifyNetworkTransfer": true, "getContextBlockers": true,
}

// networked reports whether the namespace has a network.
func (s *server) networked() bool { return s.Messages.Networked() }

// offered refuses an operation that needs a network, where there is none.
func (c *call) offered() error {
	if needsNetwork[c.op.id] && !c.networked() {
		return errs.New(codeUnsupported, http.StatusBadRequest, "Namespace %q is no part of a network (mode gateway), which %s needs", c.Namespace, c.op.id)
	}
	return nil
}

// postEntry adds an identity to the address book of a namespace without a
// network.
func postEntry(c *call, in identity.Input) (any, error) {
	var claim *identity.Claim
	id := c.NewID()
	err := c.DB.Read(c.ctx(), func(tx *store.Tx) (err error) {
		claim, err = identity.NewEntry(tx, c.Namespace, id, in)
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err := c.Messages.Define(c.ctx(), identity.TagClaim, claim); err != nil {
		return nil, err
	}
	return store.Get(c.ctx(), c.DB, store.Identities, c.Namespace, id.String())
}
