// Package api serves the node's HTTP API: the paths, JSON shapes, query syntax
// and error codes that existing clients of this field know, and what Parley
// adds to them.
//
// One table of operations (routes.go) is the source of the mux, of both forms of
// each path (/api/v1/X and /api/v1/namespaces/{ns}/X) and of the OpenAPI
// document. A handler decodes, calls the package that owns the rule, and
// returns a value or an error; it holds no business rule itself. What every
// request has in common stands in one place each:
//
//	guard.go   who may call: no foreign web page, no rebound host name
//	gate.go    overload: refuse early rather than queue without end
//	router.go  the table becomes a mux; both path forms; 404 and 405
//	call.go    one request: parameters, body, timeout, result, error
//	confirm.go ?confirm=true and request/reply wait on the event log
package api
