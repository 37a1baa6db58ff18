package api

import "github.com/parley-node/parley/internal/access"

// need is what a caller must have to be let to an operation.
type need struct {
	role       access.Role
	payloads   bool // and an auditor, the right to see payloads
	everywhere bool // in all namespaces: what it does is not of one
}

// granted says for each operation, by its id, what it needs: the whole policy on
// one page. An operation that does not stand here needs the highest role.
//
// What an auditor gets to see of values is in withhold.go.
var granted = map[need][]string{
	// Records and proofs.
	{role: access.Auditor}: {
		"getNamespaces", "getNamespace", "getStatus", "getStatusMultiparty", "getStatusLedger", "getStatusPeers", "getStatusIncidents", "getStatusStandby", "getStatusBatchManager",
		"getMsgs", "getMsgByID", "getMsgData", "getMsgEvents", "getMsgTxn",
		"getData", "getDataByID", "getDataMsgs", "getDatatypes", "getDatatypeByName",
		"getGroups", "getGroupByHash", "getBatches", "getBatchByID", "getPins", "getNextPins",
		"getTxns", "getTxnByID", "getTxnStatus", "getTxnOps", "getTxnBlockchainEvents", "getOps", "getOpByID",
		"getBlockchainEvents", "getBlockchainEventByID", "getChartHistogram",
		"getEvents", "getEventByID", "getEventStream",
		"getIdentities", "getIdentityByID", "getIdentityDID", "getIdentityVerifiers", "getVerifiers", "getVerifierByID", "postVerifiersResolve",
		"getNetworkOrgs", "getNetworkOrg", "getNetworkNodes", "getNetworkNode", "getNetworkIdentities", "getNetworkIdentityByDID", "getNetworkDIDDocByDID",
		"getNetworkMembers", "getNetworkProposals", "getNetworkTransfers", "getNetworkTransfer", "verifyNetworkTransfer", "getContextBlockers",
		"getContractInterfaces", "getContractInterface", "getContractInterfaceByNameAndVersion", "postGenerateContractInterface",
		"getContractListeners", "getContractListenerByNameOrID", "postContractListenerSignature", "getContractSigners",
		"getContractAPIs", "getContractAPIByName", "getContractAPIInterface", "getContractAPIListeners",
		"getErasures", "getErasureByID", "getErasureRequests", "getHolds", "getHoldByID", "getRetentionPolicies",
	},
	{role: access.Auditor, payloads: true}: {"getDataValue", "getDataBlob", "getDataSubPaths", "getPublished"},

	// Subscriptions, whose options are an application's, and whose positions move
	// when their events are taken.
	{role: access.Reader}: {
		"getWebSockets", "getSubscriptions", "getSubscriptionByID", "getSubscriptionEventsFiltered", "getSubscriptionStream",
		"postSubscriptionAck", "getSubscriptionDeliveries",
		"postContractQuery", "postContractAPIQuery", // what a contract says
	},

	// What an application does.
	{role: access.Operator}: {
		"postNewMessageBroadcast", "postNewMessagePrivate", "postNewMessageRequestReply",
		"postData", "deleteData", "postNewDatatype", "postDataValuePublish", "postDataBlobPublish", "postBatchCancel", "postOpRetry",
		"postNewSubscription", "putSubscription", "deleteSubscription", "postSubscriptionDeliveryReplay",
		"postNewIdentity", "patchUpdateIdentity",
		"postContractInvoke", "postContractDeploy", "postContractAPIInvoke", "postOpCancel", "postOpReplace",
		"postNewContractInterface", "postContractInterfacePublish", "deleteContractInterface",
		"postNewContractAPI", "putContractAPI", "postContractAPIPublish", "deleteContractAPI",
		"postNewContractListener", "postContractAPIListeners", "deleteContractListener",
		"postSubscriptionRewind",
	},

	// What binds the organisation, or changes the node.
	{role: access.Admin}: {
		"postNewOrganization", "postNewOrganizationSelf", "postNodesSelf", "postPinsRewind", "postNetworkAction",
		"postContractSignerSuspend", "postContractSignerResume",
		"postNetworkProposal", "postNetworkVote", "postNetworkKey", "deleteNetworkKey",
		"postMsgErase", "postDataErase", "postErasureDecision", "postHold", "deleteHold", "postRetentionPolicy", "deleteRetentionPolicy",
	},
	{role: access.Admin, everywhere: true}: {"spiGetNamespaces", "spiGetNamespace", "spiGetOps", "spiGetOpByID", "spiPatchOpByID", "spiPostReset"},
}

// needs is the policy by operation.
var needs = table(granted)

// table turns the policy around.
func table(operations map[need][]string) map[string]need {
	of := map[string]need{}
	for n, ids := range operations {
		for _, id := range ids {
			of[id] = n
		}
	}
	return of
}

// needs is what the operation needs.
func (op *route) needs() need {
	if op.id == "" {
		return need{role: access.Auditor} // known, and not offered: there is nothing to guard
	}
	if n, ok := needs[op.id]; ok {
		return n
	}
	return need{role: access.Admin, everywhere: true}
}
