package api

import (
	"net/http"
	"slices"

	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
)

const (
	get    = http.MethodGet
	post   = http.MethodPost
	put    = http.MethodPut
	patch  = http.MethodPatch
	remove = http.MethodDelete
)

// routes is the table of all operations of the public API. An operation stands
// here once; its two paths, its place in the OpenAPI document and its common
// behaviour follow from it.
func (s *server) routes() []route {
	confirm := spec{confirm: true}
	return append([]route{
		// The node and its namespace.
		{get, "namespaces", "getNamespaces", "Lists the namespaces of this node", getNamespaces, spec{global: true, out: []namespace{}, flags: []string{"includeinitializing"}}},
		{get, "namespaces/{ns}", "getNamespace", "Describes a namespace", getNamespace, spec{global: true, out: namespace{}}},
		{get, "websockets", "getWebSockets", "Lists the connected WebSocket clients", getWebSockets, spec{global: true, out: webSocketStatus{}}},
		{get, "status", "getStatus", "Describes this node and its namespace", getStatus, spec{out: status{}}},
		{get, "status/multiparty", "getStatusMultiparty", "Tells how far this member's registration is", getMultipartyStatus, spec{out: multipartyStatus{}}},
		{get, "status/batchmanager", "getStatusBatchManager", "Tells how the sealing of batches goes", getBatchManager, spec{out: message.BatchManager{}}},
		{get, "status/ledger", "getStatusLedger", "Tells how far this node has followed the ledger", getLedgerStatus, spec{out: ledgerStatus{}}},
		{get, "status/peers", "getStatusPeers", "Lists the other members with what waits for them", getPeers, spec{out: []message.PeerStatus{}}},
		{get, "status/standby", "getStatusStandby", "Lists the processes of this node on its database, and which is active", getStandby, spec{out: standbyStatus{}}},
		{get, "status/incidents", "getStatusIncidents", "Lists what an operator must know", getIncidents, filtered(store.Incidents)},

		// Messages.
		{post, "messages/broadcast", "postNewMessageBroadcast", "Sends a message to all members", body(postBroadcast), confirm.io(message.Input{}, store.Message{})},
		{post, "messages/private", "postNewMessagePrivate", "Sends a message to a group", body(postPrivate), confirm.io(message.Input{}, store.Message{})},
		{post, "messages/requestreply", "postNewMessageRequestReply", "Sends a message to a group and waits for the reply", body(postRequestReply), spec{}.io(message.Input{}, messageWithData{})},
		{get, "messages", "getMsgs", "Lists messages", getMessages, filtered(store.Messages, "fetchdata")},
		{get, "messages/{msgid}", "getMsgByID", "Reads a message", getMessage, spec{out: messageWithData{}, flags: []string{"fetchdata"}}},
		{get, "messages/{msgid}/data", "getMsgData", "Lists the data of a message", getMessageData, spec{out: []store.Data{}}},
		{get, "messages/{msgid}/events", "getMsgEvents", "Lists the events about a message and its data", getMessageEvents, filtered(store.Events)},
		{get, "messages/{msgid}/transaction", "getMsgTxn", "Reads the transaction of a message", getMessageTransaction, spec{out: store.Transaction{}}},

		// Data, blobs, datatypes.
		{post, "data", "postData", "Stores a value, or uploads a blob as multipart/form-data with its fields before the file", postData,
			spec{status: http.StatusCreated, in: message.DataInput{}, out: store.Data{}, stream: true, form: true}},
		{get, "data", "getData", "Lists data", lists(store.DataItems), filtered(store.DataItems)},
		{get, "data/{dataid}", "getDataByID", "Reads a data item", byID(store.DataItems, "dataid"), spec{out: store.Data{}}},
		{get, "data/{dataid}/value", "getDataValue", "Reads the bare value of a data item", getDataValue, spec{}},
		{get, "data/{dataid}/blob", "getDataBlob", "Downloads the blob of a data item", getDataBlob, spec{stream: true}},
		{post, "data/{dataid}/value/publish", "postDataValuePublish", "Makes a value readable for all members, under the hash of its text", body(postPublishValue), spec{}.io(publishInput{}, store.Data{})},
		{post, "data/{dataid}/blob/publish", "postDataBlobPublish", "Makes a blob readable for all members, under the hash of its bytes", body(postPublishBlob), spec{}.io(publishInput{}, store.Data{})},
		{get, "published/{cid}", "getPublished", "Reads what a member has published, from whoever has it", getPublished, spec{stream: true}},
		{get, "data/{dataid}/messages", "getDataMsgs", "Lists the messages that carry a data item", getDataMessages, filtered(store.Messages)},
		{remove, "data/{dataid}", "deleteData", "Deletes a data item and its blob", deleteData, spec{status: http.StatusNoContent}},
		{get, "datasubpaths/{parent...}", "getDataSubPaths", "Lists the blob folders directly below one", getSubPaths, spec{out: []string{}}},
		{post, "datatypes", "postNewDatatype", "Defines a datatype for all members", body(postDatatype), confirm.io(message.DatatypeInput{}, store.Datatype{})},
		{get, "datatypes", "getDatatypes", "Lists datatypes", lists(store.Datatypes), filtered(store.Datatypes)},
		{get, "datatypes/{name}/{version}", "getDatatypeByName", "Reads a datatype", getDatatype, spec{out: store.Datatype{}}},

		// What was sent and what came of it.
		{get, "groups", "getGroups", "Lists groups", lists(store.Groups), filtered(store.Groups)},
		{get, "groups/{hash}", "getGroupByHash", "Reads a group", byHash(store.Groups, "hash"), spec{out: store.Group{}}},
		{get, "batches", "getBatches", "Lists batches", lists(store.Batches), filtered(store.Batches)},
		{get, "batches/{batchid}", "getBatchByID", "Reads a batch", byID(store.Batches, "batchid"), spec{out: store.Batch{}}},
		{post, "batches/{batchid}/cancel", "postBatchCancel", "Gives up a private batch that is not pinned yet, with its messages", postCancelBatch, spec{status: http.StatusNoContent}},
		{get, "pins", "getPins", "Lists the context handles of pins", lists(store.Pins), filtered(store.Pins)},
		{post, "pins/rewind", "postPinsRewind", "Looks again at everything that is open in the order", body(postRewind), spec{}.io(pinRewind{}, pinRewind{})},
		{get, "nextpins", "getNextPins", "Always empty: handles are derived from audience secrets, not counted per member", getNextPins, spec{filter: store.NextPins, out: []struct{}{}}},
		{get, "transactions", "getTxns", "Lists transactions", lists(store.Transactions), filtered(store.Transactions)},
		{get, "transactions/{txnid}", "getTxnByID", "Reads a transaction", byID(store.Transactions, "txnid"), spec{out: store.Transaction{}}},
		{get, "transactions/{txnid}/status", "getTxnStatus", "Sums up what became of a transaction", getTransactionStatus, spec{out: transactionStatus{}}},
		{get, "transactions/{txnid}/operations", "getTxnOps", "Lists the operations of a transaction", getTransactionOperations, spec{out: []store.Operation{}}},
		{get, "transactions/{txnid}/blockchainevents", "getTxnBlockchainEvents", "Lists the ledger events of a transaction", getTransactionBlockchainEvents, spec{out: []store.BlockchainEvent{}}},
		{get, "operations", "getOps", "Lists operations", lists(store.Operations), filtered(store.Operations)},
		{get, "operations/{opid}", "getOpByID", "Reads an operation", getOperation, spec{out: operationWithDetail{}, flags: []string{"fetchstatus"}}},
		{post, "operations/{opid}/retry", "postOpRetry", "Does again what an operation stands for, as a new operation", postRetry, spec{status: http.StatusAccepted, out: store.Operation{}}},
		{get, "blockchainevents", "getBlockchainEvents", "Lists ledger events", lists(store.BlockchainEvents), filtered(store.BlockchainEvents)},
		{get, "blockchainevents/{id}", "getBlockchainEventByID", "Reads a ledger event", byID(store.BlockchainEvents, "id"), spec{out: store.BlockchainEvent{}}},
		{get, "charts/histogram/{collection}", "getChartHistogram", "Counts a collection's rows over time", getHistogram,
			spec{out: []bucket{}, params: []string{"startTime", "endTime", "buckets"}}},

		// Events and subscriptions.
		{get, "events", "getEvents", "Lists events", getEvents, filtered(store.Events, "fetchreferences", "fetchreference")},
		{get, "events/{eid}", "getEventByID", "Reads an event", getEvent, spec{out: event.Enriched{}, flags: []string{"fetchreference"}}},
		{post, "subscriptions", "postNewSubscription", "Creates a subscription", body(postSubscription), spec{status: http.StatusCreated}.io(event.SubscriptionInput{}, store.Subscription{})},
		{put, "subscriptions", "putSubscription", "Creates a subscription, or replaces the one of that name", body(putSubscription), spec{}.io(event.SubscriptionInput{}, store.Subscription{})},
		{get, "subscriptions", "getSubscriptions", "Lists subscriptions", lists(store.Subscriptions), filtered(store.Subscriptions)},
		{get, "subscriptions/{subid}", "getSubscriptionByID", "Reads a subscription", getSubscription, spec{out: event.SubscriptionWithStatus{}, flags: []string{"fetchstatus"}}},
		{get, "subscriptions/{subid}/events", "getSubscriptionEventsFiltered", "Lists past events that a subscription selects", getSubscriptionEvents,
			spec{filter: &store.Events.Collection, params: []string{"startsequence", "endsequence"}, out: envelope[event.Enriched]{}}},
		{get, "subscriptions/{subid}/sse", "getSubscriptionStream", "Streams a subscription of the transport sse, named by id or name, as server-sent events", getSubscriptionStream,
			spec{stream: true, flags: []string{"autoack"}, params: []string{"lasteventid"}}},
		{get, "events/sse", "getEventStream", "Streams events from now on, or after Last-Event-ID, as server-sent events", getEventStream,
			spec{stream: true, flags: []string{"withdata", "batch"}, params: append([]string{"lasteventid", "firstevent", "envelope", "batchtimeout", "readahead"}, streamFilters...)}},
		{post, "subscriptions/{subid}/ack", "postSubscriptionAck", "Tells how far the consumers of an sse subscription have got", body(postSubscriptionAck), spec{status: http.StatusNoContent, in: acknowledgement{}}},
		{post, "subscriptions/{subid}/rewind", "postSubscriptionRewind", "Moves a subscription to an event, back or forth, and delivers anew from there", body(postSubscriptionRewind), spec{}.io(subscriptionRewind{}, event.SubscriptionWithStatus{})},
		{get, "subscriptions/{subid}/deliveries", "getSubscriptionDeliveries", "Lists what became of events that the node delivered itself", getDeliveries, filtered(store.Deliveries)},
		{post, "subscriptions/{subid}/deliveries/{did}/replay", "postSubscriptionDeliveryReplay", "Tries a delivery once more", postReplay, spec{out: store.Delivery{}}},
		{remove, "subscriptions/{subid}", "deleteSubscription", "Deletes a subscription", deleteSubscription, spec{status: http.StatusNoContent}},

		// Who is who.
		{get, "identities", "getIdentities", "Lists identities", getIdentities, filtered(store.Identities, "fetchverifiers")},
		{get, "identities/{iid...}", "getIdentityByID", "Reads an identity by id or DID", getIdentity, spec{out: identityWithVerifiers{}, flags: []string{"fetchverifiers"}}},
		{get, "identities/{iid}/did", "getIdentityDID", "Reads the DID document of an identity", getBelowIdentity("did", identityDocument), spec{out: didDocument{}}},
		{get, "identities/{iid}/verifiers", "getIdentityVerifiers", "Lists the keys of an identity", getBelowIdentity("verifiers", identityVerifiers), filtered(store.Verifiers)},
		{post, "identities", "postNewIdentity", "Claims a custom identity", body(postIdentity), confirm.io(identity.Input{}, store.Identity{})},
		{patch, "identities/{iid}", "patchUpdateIdentity", "Replaces description and profile of an identity", body(patchIdentity), confirm.io(identity.UpdateInput{}, store.Identity{})},
		{get, "verifiers", "getVerifiers", "Lists keys and certificates of identities", lists(store.Verifiers), filtered(store.Verifiers)},
		{get, "verifiers/{hash}", "getVerifierByID", "Reads a verifier", byHash(store.Verifiers, "hash"), spec{out: store.Verifier{}}},
		{post, "verifiers/resolve", "postVerifiersResolve", "Brings a verifier into its stored form", body(postVerifierResolve), spec{light: true}.io(verifierRef{}, verifierRef{})},
		{get, "network/organizations", "getNetworkOrgs", "Lists organisations", identitiesOf(identity.TypeOrg), filtered(store.Identities)},
		{post, "network/organizations", "postNewOrganization", "Registers this organisation by name, if it is not", body(postOrganization), confirm.io(identity.Input{}, store.Identity{})},
		{get, "network/organizations/{nameOrId}", "getNetworkOrg", "Reads an organisation", named(identity.TypeOrg), spec{out: store.Identity{}}},
		{post, "network/organizations/self", "postNewOrganizationSelf", "Registers this organisation, if it is not", self(identity.TypeOrg), confirm.io(struct{}{}, store.Identity{})},
		{get, "network/nodes", "getNetworkNodes", "Lists nodes", identitiesOf(identity.TypeNode), filtered(store.Identities)},
		{get, "network/nodes/{nameOrId}", "getNetworkNode", "Reads a node", named(identity.TypeNode), spec{out: store.Identity{}}},
		{post, "network/nodes/self", "postNodesSelf", "Registers this node, if it is not", self(identity.TypeNode), confirm.io(struct{}{}, store.Identity{})},
		{get, "network/identities", "getNetworkIdentities", "Lists identities", getIdentities, filtered(store.Identities, "fetchverifiers")},
		{get, "network/identities/{did...}", "getNetworkIdentityByDID", "Reads an identity by DID", getIdentityByDID, spec{out: identityWithVerifiers{}, flags: []string{"fetchverifiers"}}},
		{get, "network/diddocs/{did...}", "getNetworkDIDDocByDID", "Reads a DID document", getDIDDocument, spec{out: didDocument{}}},

		// The ledger's view, beyond what existing clients know.
		{get, "network/members", "getNetworkMembers", "Lists the members as the ledger knows them", getMembers, spec{out: []member{}}},
		{post, "network/action", "postNetworkAction", "Proposes, or votes, to end the network under its contract", body(postNetworkAction), spec{status: http.StatusAccepted}.io(networkAction{}, networkAction{})},
		{get, "network/proposals", "getNetworkProposals", "Lists what members voted on", getProposals, spec{out: administration{}}},
		{post, "network/proposals", "postNetworkProposal", "Proposes a change of the network", body(postProposal), spec{status: http.StatusAccepted}.io(change{}, submitted{})},
		{post, "network/proposals/{id}/vote", "postNetworkVote", "Votes on a proposal", body(postVote), spec{status: http.StatusAccepted}.io(voteInput{}, submitted{})},
		{post, "network/keys", "postNetworkKey", "Adds a signing key to this organisation", body(postKey), spec{status: http.StatusAccepted}.io(keyInput{}, submitted{})},
		{remove, "network/keys/{address}", "deleteNetworkKey", "Revokes a signing key of this organisation", deleteKey, spec{status: http.StatusAccepted, out: submitted{}}},
		{get, "network/transfers", "getNetworkTransfers", "Lists all transfers of the network, newest first, as every outsider sees them", getTransfers, spec{out: []transfer{}, params: []string{"limit", "before"}}},
		{get, "network/transfers/{number}", "getNetworkTransfer", "Reads a transfer", getTransfer, spec{out: transfer{}}},
		{get, "network/transfers/{number}/verify", "verifyNetworkTransfer", "Asks the chain whether it includes a transfer", verifyTransfer, spec{out: Inclusion{}}},
		{get, "contexts/{audience}/{topic}/blockers", "getContextBlockers", "Lists what a topic of the network or a group waits for", getBlockers, spec{out: []message.Blocker{}}},
	}, slices.Concat(contractRoutes(), retentionRoutes(), notYet())...)
}

// streamFilters are the filters of a stream, as those of a WebSocket.
var streamFilters = []string{"filter.events", "filter.topic", "filter.message.tag", "filter.message.group", "filter.message.author",
	"filter.transaction.type", "filter.blockchain.name", "filter.blockchain.listener"}

// filtered is the spec of a list with the query syntax.
func filtered[T any](t *store.Table[T], flags ...string) spec {
	return spec{filter: &t.Collection, out: []T{}, flags: flags}
}

// io completes a spec with the types of body and result.
func (sp spec) io(in, out any) spec {
	sp.in, sp.out = in, out
	return sp
}

// notYet are operations of existing clients that this version lacks. They
// answer 501, so that nobody takes them for a mistyped path.
func notYet() []route {
	var routes []route
	for _, op := range []struct{ method, path string }{
		{get, "tokens/{rest...}"}, {post, "tokens/{rest...}"}, {remove, "tokens/{rest...}"},
	} {
		routes = append(routes, route{method: op.method, path: op.path, handle: later, spec: spec{light: true}})
	}
	return routes
}

// adminRoutes are what an operator looks at.
func (s *server) adminRoutes() []route {
	var routes []route
	for _, op := range s.routes() {
		switch op.path {
		case "status", "status/multiparty", "status/ledger", "status/peers", "status/standby", "status/incidents", "network/members":
			routes = append(routes, op)
		}
	}
	return routes
}

// getNextPins answers with nothing: no member counts its messages per context.
func getNextPins(c *call) (any, error) {
	q, err := c.parse(store.NextPins)
	return page[struct{}]{count: q.Count}, err
}
