package api

import (
	"net/http"
	"strings"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/store"
)

// hidden are the fields by which who may not see payloads cannot filter or sort
// either: the answers would tell them bit by bit.
var hidden = map[string][]string{
	store.DataItems.Name:  {"value", "public", "blob.name", "blob.path", "blob.public"},
	store.Operations.Name: {"input", "output", "error"},
	store.Messages.Name:   {"rejectreason"},
}

// probes refuses a query that asks about what is withheld.
func (c *call) probes(col *store.Collection) error {
	for _, field := range hidden[col.Name] {
		for name, values := range c.query {
			asked := strings.EqualFold(name, field)
			if strings.EqualFold(name, "sort") {
				asked = strings.Contains(strings.ToLower(strings.Join(values, ",")), field)
			}
			if asked {
				return errs.New(codeForbidden, http.StatusForbidden, "%s may not see payloads, and so not ask about %s of %s; leave %s out, or have payloads granted", c.caller.Name, field, col.Name, name)
			}
		}
	}
	return nil
}

// withhold takes the payloads out of a result.
func withhold(result any) any {
	switch r := result.(type) {
	case store.Data:
		return r.WithoutPayload()
	case *store.Data:
		bare := r.WithoutPayload()
		return &bare
	case []*store.Data:
		return each(r, func(d *store.Data) *store.Data { bare := d.WithoutPayload(); return &bare })
	case page[store.Data]:
		r.items = each(r.items, store.Data.WithoutPayload)
		return r
	case store.Message:
		return r.WithoutPayload()
	case *store.Message:
		bare := r.WithoutPayload()
		return &bare
	case page[store.Message]:
		r.items = each(r.items, store.Message.WithoutPayload)
		return r
	case messageWithData:
		return r.withoutPayload()
	case page[messageWithData]:
		r.items = each(r.items, messageWithData.withoutPayload)
		return r
	case store.Operation:
		return r.WithoutPayload()
	case page[store.Operation]:
		r.items = each(r.items, store.Operation.WithoutPayload)
		return r
	case []store.Operation:
		return each(r, store.Operation.WithoutPayload)
	case event.Enriched:
		return r.WithoutPayload()
	case page[event.Enriched]:
		r.items = each(r.items, event.Enriched.WithoutPayload)
		return r
	case transactionStatus:
		return r.withoutPayload()
	}
	return result
}

func each[T any](items []T, f func(T) T) []T {
	out := make([]T, len(items))
	for i := range items {
		out[i] = f(items[i])
	}
	return out
}

func (m messageWithData) withoutPayload() messageWithData {
	m.Message = m.Message.WithoutPayload()
	m.Data = each(m.Data, func(d inlineData) inlineData { d.Value = nil; return d })
	return m
}
