package api

import (
	"github.com/parley-node/parley/internal/store"
)

// list answers a query of a collection.
func list[T any](c *call, t *store.Table[T]) (page[T], error) {
	q, err := c.parse(&t.Collection)
	if err != nil {
		return page[T]{}, err
	}
	return listQuery(c, t, q)
}

func listQuery[T any](c *call, t *store.Table[T], q store.Query) (page[T], error) {
	items, total, err := store.List(c.ctx(), c.DB, t, c.Namespace, q)
	return page[T]{items, q.Count, total}, err
}

// lists is the handler of a plain list.
func lists[T any](t *store.Table[T]) handler {
	return func(c *call) (any, error) { return list(c, t) }
}

// byID is the handler that reads one row by the UUID in the path.
func byID[T any](t *store.Table[T], variable string) handler {
	return func(c *call) (any, error) {
		id, err := c.uuid(variable)
		if err != nil {
			return nil, err
		}
		return store.Get(c.ctx(), c.DB, t, c.Namespace, id.String())
	}
}

// byHash is the handler that reads one row by the hash in the path.
func byHash[T any](t *store.Table[T], variable string) handler {
	return func(c *call) (any, error) {
		hash, err := store.ParseHex(c.path(variable))
		if err != nil {
			return nil, err
		}
		return store.Get(c.ctx(), c.DB, t, c.Namespace, string(hash))
	}
}

// part lists the rows of a collection of which one field has a value, newest
// first, without limit.
func part[T any](c *call, t *store.Table[T], field string, value any) ([]T, error) {
	var q store.Query
	if err := q.Where(&t.Collection, field, value); err != nil {
		return nil, err
	}
	items, _, err := store.List(c.ctx(), c.DB, t, c.Namespace, q)
	return items, err
}
