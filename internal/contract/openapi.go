package contract

import (
	"context"
	"encoding/json"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// object is a JSON object of the document.
type object = map[string]any

// EventSignature is the signature of an interface's event in those of listeners.
func (s *Service) EventSignature(ctx context.Context, id wire.UUID, path string) (string, error) {
	c, err := s.use(ctx, id)
	if err != nil {
		return "", err
	}
	e := c.events[path]
	if e == nil {
		return "", errs.BadRequest("FF10370", "field %q: the interface has no event %q", "eventPath", shorten(path))
	}
	compiled, err := e.EventDefinition.Compile()
	if err != nil {
		return "", err
	}
	return compiled.FilterSignature(), nil
}

// OpenAPI describes a contract API as an OpenAPI document without servers: an
// operation to invoke and to query each method, and to listen to each event.
func (s *Service) OpenAPI(ctx context.Context, a *store.ContractAPI) (map[string]any, error) {
	row, err := s.Interface(ctx, a.Interface)
	if err != nil {
		return nil, err
	}
	ffi, err := interfaceOf(row)
	if err != nil {
		return nil, err
	}
	str := object{"type": "string"}
	confirm := []object{{"in": "query", "name": "confirm", "description": "Wait until the transaction is final", "schema": object{"type": "boolean"}}}
	paths := object{"/interface": object{"get": operation("interface", "The interface of this API", nil, object{"type": "object"})}}
	located := func(properties object) object {
		if len(a.Location) == 0 {
			properties["location"] = object{"type": "object", "properties": object{"address": str}, "required": []string{"address"}}
		}
		return object{"type": "object", "properties": properties}
	}
	for i := range ffi.Methods {
		m := &ffi.Methods[i]
		input, err := parameters(m.Params)
		if err != nil {
			return nil, err
		}
		output, err := parameters(named(m.Returns))
		if err != nil {
			return nil, err
		}
		options := object{"type": "object", "description": "gas, gasPrice, maxFeePerGas, maxPriorityFeePerGas, value, nonce; of a query blockNumber"}
		invoke := operation("invoke_"+m.Pathname, m.Description, located(object{
			"input": input, "key": str, "idempotencyKey": str, "options": options,
		}), object{"type": "object", "description": "The operation; GET operations/{id} tells what became of it"})
		invoke["parameters"] = confirm
		paths["/invoke/"+m.Pathname] = object{"post": invoke}
		paths["/query/"+m.Pathname] = object{"post": operation("query_"+m.Pathname, m.Description, located(object{"input": input, "key": str, "options": options}), output)}
	}
	for i := range ffi.Events {
		e := &ffi.Events[i]
		create := operation("createlistener_"+e.Pathname, e.Description, located(object{
			"topic": str, "name": str, "options": object{"type": "object", "properties": object{"firstEvent": object{"type": "string", "description": "newest, oldest, or a block number"}}},
		}), object{"type": "object"})
		paths["/listeners/"+e.Pathname] = object{
			"post": create,
			"get":  operation("getlistener_"+e.Pathname, e.Description, nil, object{"type": "array", "items": object{"type": "object"}}),
		}
	}
	return object{
		"openapi": "3.1.0",
		"info":    object{"title": ffi.Name, "version": ffi.Version, "description": ffi.Description},
		"paths":   paths,
	}, nil
}

// operation is one of the document's.
func operation(id, description string, in, out object) object {
	op := object{
		"operationId": id, "description": description,
		"responses": object{
			"200":     object{"description": "Success", "content": object{"application/json": object{"schema": out}}},
			"default": object{"description": "The request failed", "content": object{"application/json": object{"schema": object{"type": "object", "properties": object{"error": object{"type": "string"}}}}}},
		},
	}
	if in != nil {
		op["requestBody"] = object{"content": object{"application/json": object{"schema": in}}}
	}
	return op
}

// named gives outputs the names that their values have.
func named(returns []abi.Param) []abi.Param {
	out := make([]abi.Param, len(returns))
	for i, p := range returns {
		if out[i] = p; p.Name == "" {
			out[i].Name = abi.OutputName(i)
		}
	}
	return out
}

// parameters is the schema of an object with parameters by name.
func parameters(params []abi.Param) (object, error) {
	properties, required := object{}, []string{}
	for _, p := range params {
		var schema any
		if err := json.Unmarshal(p.Schema, &schema); err != nil {
			return nil, err
		}
		properties[p.Name] = withoutDetails(schema)
		required = append(required, p.Name)
	}
	return object{"type": "object", "properties": properties, "required": required}, nil
}

// withoutDetails leaves out what is no JSON Schema: the ABI types.
func withoutDetails(v any) any {
	switch v := v.(type) {
	case map[string]any:
		clean := object{}
		for k, x := range v {
			if k != "details" || !isDetails(x) {
				clean[k] = withoutDetails(x)
			}
		}
		return clean
	case []any:
		for i := range v {
			v[i] = withoutDetails(v[i])
		}
	}
	return v
}

// isDetails tells the ABI's details from a tuple's field of that name.
func isDetails(v any) bool {
	o, ok := v.(map[string]any)
	if !ok {
		return false
	}
	_, text := o["type"].(string)
	_, schema := o["details"]
	return text && !schema
}
