package api

import "github.com/parley-node/parley/internal/access"

// Operation is a row of the table of routes, for tests.
type Operation struct {
	Method, Path, ID string
	Role             access.Role
	Payloads         bool // needs them
	Global, Stream   bool
	Stated           bool // in the policy
	Body             bool
	Fields           []string // of its filter
}

// Operations is the table of routes.
func Operations() []Operation {
	var ops []Operation
	for _, op := range (&server{}).routes() {
		_, stated := needs[op.id]
		n := op.needs()
		o := Operation{Method: op.method, Path: op.path, ID: op.id, Role: n.role, Payloads: n.payloads, Global: op.spec.global, Stream: op.spec.stream, Stated: stated, Body: op.spec.in != nil}
		if op.spec.filter != nil {
			for _, f := range op.spec.filter.Fields {
				o.Fields = append(o.Fields, f.Name)
			}
		}
		ops = append(ops, o)
	}
	return ops
}

// ProviderOperations are the ids of the service provider interface.
func ProviderOperations() []string {
	var ids []string
	for _, op := range (&server{}).spiRoutes() {
		ids = append(ids, op.id)
	}
	return ids
}

// Policy is the ids in the policy of roles.
func Policy() []string {
	var ids []string
	for id := range needs {
		ids = append(ids, id)
	}
	return ids
}
