package api

import "github.com/parley-node/parley/internal/access"

// Operation is a row of the table of routes, for tests.
type Operation struct {
	Method, Path, ID string
	Role             access.Role
	Payloads         bool // needs them
	Global, Stream   bool
	Stated           bool // in the policy
}

// Operations is the table of routes.
func Operations() []Operation {
	var ops []Operation
	for _, op := range (&server{}).routes() {
		_, stated := needs[op.id]
		n := op.needs()
		ops = append(ops, Operation{op.method, op.path, op.id, n.role, n.payloads, op.spec.global, op.spec.stream, stated})
	}
	return ops
}

// Policy is the ids in the policy of roles.
func Policy() []string {
	var ids []string
	for id := range needs {
		ids = append(ids, id)
	}
	return ids
}
