package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// spiBase is where the service provider interface is, at the admin port: what
// microservices beside the node use, and who operates it.
const spiBase = "/spi/v1/"

// spiRoutes are the operations of the service provider interface. They belong to
// no namespace: each names its own.
func (s *server) spiRoutes() []route {
	global := spec{global: true}
	return []route{
		{get, "namespaces", "spiGetNamespaces", "Lists the namespaces of this process", getNamespaces, spec{global: true, out: []namespace{}, flags: []string{"includeinitializing"}}},
		{get, "namespaces/{ns}", "spiGetNamespace", "Describes a namespace", getNamespace, spec{global: true, out: namespace{}}},
		{get, "namespaces/{ns}/operations", "spiGetOps", "Lists the operations of a namespace", within(lists(store.Operations)),
			spec{global: true, filter: &store.Operations.Collection, out: []store.Operation{}}},
		{get, "operations/{nsopid}", "spiGetOpByID", "Reads an operation by namespace:id", spiGetOperation, spec{global: true, out: store.Operation{}}},
		{patch, "operations/{nsopid}", "spiPatchOpByID", "Tells what became of an operation, by namespace:id", body(spiPatchOperation), global.io(operationUpdate{}, struct{}{})},
		{post, "reset", "spiPostReset", "Reads the configuration again and restarts what changed", spiReset, spec{global: true, status: http.StatusNoContent, light: true}},
	}
}

// within runs a handler in the namespace of the path.
func within(h handler) handler {
	return func(c *call) (any, error) {
		s, leave, err := c.Host.running(c.path("ns"))
		if err != nil {
			return nil, err
		}
		defer leave()
		c.server = s
		return h(c)
	}
}

// namespaced runs a function in the namespace, and with the id, of a path's
// namespace:id.
func (c *call) namespaced(f func(s *server, id store.UUID) (any, error)) (any, error) {
	text := c.path("nsopid")
	ns, id, ok := strings.Cut(text, ":")
	if !ok || ns == "" {
		return nil, errs.BadRequest("FF10411", "%q is not of the form namespace:id", shorten(text))
	}
	parsed, err := uuid.Parse(id)
	if err != nil {
		return nil, errs.BadUUID(shorten(id))
	}
	s, leave, err := c.Host.running(ns)
	if err != nil {
		return nil, err
	}
	defer leave()
	c.server = s
	if err := permit(c.caller, c.op.needs(), s.Namespace); err != nil {
		return nil, err
	}
	return f(s, parsed)
}

func spiGetOperation(c *call) (any, error) {
	return c.namespaced(func(s *server, id store.UUID) (any, error) {
		return store.Get(c.ctx(), s.DB, store.Operations, s.Namespace, id.String())
	})
}

// operationUpdate is what a connector reports of an operation.
type operationUpdate struct {
	Status string          `json:"status"` // Pending, Succeeded or Failed
	Output json.RawMessage `json:"output,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// spiPatchOperation notes what became of an operation. What is decided stays.
func spiPatchOperation(c *call, in operationUpdate) (any, error) {
	status := ""
	for _, known := range []string{store.OpPending, store.OpSucceeded, store.OpFailed} {
		if strings.EqualFold(in.Status, known) {
			status = known
		}
	}
	if status == "" {
		return nil, errs.BadRequest("FF10376", "field %q holds %q: use Pending, Succeeded or Failed", "status", shorten(in.Status))
	}
	return c.namespaced(func(s *server, id store.UUID) (any, error) {
		if _, err := store.Get(c.ctx(), s.DB, store.Operations, s.Namespace, id.String()); err != nil {
			return nil, err
		}
		err := s.DB.Write(c.ctx(), func(tx *store.Tx) error {
			_, err := tx.UpdateOperations([]store.UUID{id}, status, in.Output, in.Error, store.At(s.Now()))
			return err
		})
		return struct{}{}, err
	})
}

// spiReset makes the process read its configuration again. A mistake in it is
// answered, and changes nothing.
func spiReset(c *call) (any, error) {
	if c.Reset == nil {
		return nil, errs.New(codeUnsupported, http.StatusNotImplemented, "This process has no configuration file to read again")
	}
	return nil, c.Reset(context.WithoutCancel(c.ctx()))
}
