// Package contract is the gateway to smart contracts: any contract on an Ethereum
// chain as an API.
//
//	service.go     what it stands on; whose key signs
//	interfaces.go  interfaces (FFI): made, published, deleted
//	apis.go        an interface at a place
//	definition.go  what other members publish
//	call.go        requests to call a contract, resolved to bytes
//	invoke.go      invocations and deployments: operations, and how they end
//	query.go       calls without a transaction
//	listener.go    who wants which events
//	follow.go      events of contracts in their order, and reorganisations
//	openapi.go     the OpenAPI document of a contract API
//
// Bringing transactions to the chain is the business of package transaction,
// encoding values that of package abi.
package contract
