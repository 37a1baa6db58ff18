package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/openapi"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/swagger"
	"github.com/parley-node/parley/wire"
)

// object is a JSON object of a document.
type object = openapi.Object

// describe makes the OpenAPI document of the operations in a table.
func (s *server) describe(title string, routes []route) object {
	schemas := openapi.NewSchemas(leaves)
	for i := range routes {
		if in := routes[i].spec.in; in != nil {
			schemas.Input(reflect.TypeOf(in))
		}
	}
	paths := object{}
	for i := range routes {
		op := &routes[i]
		if op.id == "" {
			continue // known, but not offered
		}
		path, variables := openapi.PathVariables("/" + op.path)
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
			paths[path] = item
		}
		item[strings.ToLower(op.method)] = operation(op, variables, schemas)
	}
	doc := object{
		"openapi": openapi.Version31,
		"info": object{
			"title": title, "version": s.Version, "license": object{"name": "Apache 2.0", "identifier": "Apache-2.0"},
			"description": "The API of a Parley node. Each path without its namespace stands for the default namespace; the form /namespaces/{ns}/… names one.",
		},
		"paths":      paths,
		"components": object{"schemas": schemas.Definitions()},
	}
	openapi.Complete(doc, s.Access.Open())
	return doc
}

// What path variables and query parameters mean that are no filters.
var meanings = map[string]string{
	"ns": "Name of a namespace", "msgid": "Id of a message", "dataid": "Id of a data item", "parent": "Folder of blobs", "name": "Name", "version": "Version",
	"hash": "Hash: 64 hexadecimal digits", "batchid": "Id of a batch", "txnid": "Id of a transaction", "opid": "Id of an operation", "collection": "Name of a collection, such as messages",
	"eid": "Id of an event", "subid": "Id of a subscription", "cid": "Content identifier", "did": "DID, or id of a delivery", "iid": "Id or DID of an identity",
	"interfaceId": "Id of an interface", "apiName": "Name of a contract API; to change it, its id", "methodPath": "Path name of a method", "eventPath": "Path name of an event",
	"fetchchildren": "With methods, events and errors", "publish": "Make it known to all members", "nameOrId": "Name or id",
	"number": "Number of a ledger record", "audience": "network, or the hash of a group", "topic": "Topic", "address": "Address of a signing key", "id": "Id",
	"fetchdata": "With the values of the messages", "fetchreference": "With what the event speaks of", "fetchreferences": "With what the events speak of",
	"fetchverifiers": "With the keys of the identities", "fetchstatus": "With the state of the moment",
	"startTime": "Beginning of the time counted: RFC 3339", "endTime": "Its end", "buckets": "How many parts it is divided into",
	"startsequence": "First sequence to look at", "endsequence": "Last one", "limit": "The most rows of an answer", "before": "Only those before this number",
	"lasteventid": "Sequence of the last event that was received; the header Last-Event-ID goes before it", "firstevent": "newest, oldest, or a sequence",
	"withdata": "With the data of messages", "batch": "Send arrays of events", "batchtimeout": "How long a batch waits to fill", "readahead": "Events in flight",
	"dryrun": "Only count what it would erase now", "author": "Who does it",
	"envelope": "cloudevents, or nothing for plain events", "autoack": "What is sent counts as acknowledged",
	"filter.events": "Types of events: a regular expression", "filter.topic": "Topics: a regular expression",
	"filter.message.tag": "Tags of messages: a regular expression", "filter.message.group": "Groups: a regular expression", "filter.message.author": "Authors: a regular expression",
	"filter.transaction.type": "Types of transactions: a regular expression",
	"filter.blockchain.name":  "Names of ledger events: a regular expression", "filter.blockchain.listener": "Listeners: a regular expression",
}

// kinds are how the values of a filter are written.
var kinds = map[store.Kind]string{
	store.KindText: "text", store.KindUUID: "a UUID", store.KindHash: "64 hexadecimal digits", store.KindTime: "a time: RFC 3339, or seconds, milliseconds or nanoseconds since 1970",
	store.KindInt: "a whole number", store.KindBigInt: "a whole number", store.KindBool: "true or false", store.KindJSON: "text of JSON", store.KindList: "text, comma-separated",
}

// streams are the content types of results that are no JSON.
var streams = map[string]string{"getEventStream": "text/event-stream", "getSubscriptionStream": "text/event-stream"}

func operation(op *route, variables []string, schemas *openapi.Schemas) object {
	params := []object{}
	add := func(in, name, description string, schema object) {
		params = append(params, object{"in": in, "name": name, "description": description, "schema": schema, "required": in == "path"})
	}
	str, boolean, whole := object{"type": "string"}, object{"type": "boolean"}, object{"type": "integer", "minimum": 0}
	for _, v := range variables {
		add("path", v, meanings[v], str)
	}
	if op.spec.confirm {
		add("query", "confirm", "Wait for the confirmation; the result is as it is then", boolean)
	}
	for _, f := range op.spec.flags {
		add("query", f, meanings[f], boolean)
	}
	for _, p := range op.spec.params {
		add("query", p, meanings[p], str)
	}
	if col := op.spec.filter; col != nil {
		for _, f := range col.Fields {
			add("query", f.Name, "Filter: [modifiers !:?[ ]][operator =@^$<>]value, where the value is "+kinds[f.Kind], str)
		}
		add("query", "sort", "Fields, comma-separated, each with - in front for descending", str)
		add("query", "skip", "Rows to leave out at the beginning", whole)
		add("query", "limit", "The most rows of an answer", whole)
		add("query", "count", "Answer with the number of all matches too", boolean)
		add("query", "ascending", "Sort in this direction", boolean)
		add("query", "descending", "Sort in this direction", boolean)
	}
	add("header", headerTimeout, "Seconds, or a duration such as 500ms", str)

	success := object{"description": "Success"}
	status := op.spec.status
	switch {
	case status == http.StatusNoContent:
	case op.spec.out != nil:
		result := schemas.Of(reflect.TypeOf(op.spec.out))
		if op.spec.filter != nil && result["type"] == "array" {
			result = object{"oneOf": []object{result, {
				"type": "object", "description": "With count", "required": []string{"count", "items", "total"},
				"properties": object{"count": object{"type": "integer"}, "total": object{"type": "integer"}, "items": result},
			}}}
		}
		success["content"] = object{"application/json": object{"schema": result}}
	case streams[op.id] != "":
		success["content"] = object{streams[op.id]: object{"schema": str}}
	case op.spec.stream:
		success["content"] = object{"application/octet-stream": object{"schema": object{"type": "string", "format": "binary"}}}
	default:
		success["content"] = object{"application/json": object{"schema": object{}}}
	}
	responses := object{"default": object{}}
	switch {
	case op.spec.confirm:
		responses["200"], responses["202"] = success, success
	case status != 0:
		responses[strconv.Itoa(status)] = success
	default:
		responses["200"] = success
	}
	need := op.needs()
	description := "Needs the role " + need.role.String()
	if need.payloads {
		description += ", with payloads"
	}
	out := object{
		"operationId": op.id, "summary": op.summary, "description": description + ".", "tags": []string{tag(op)},
		"parameters": params, "responses": responses,
	}
	if op.spec.in != nil {
		content := object{"application/json": object{"schema": schemas.Of(reflect.TypeOf(op.spec.in))}}
		if op.spec.form {
			content["multipart/form-data"] = object{"schema": object{"type": "object", "required": []string{"file"}, "properties": object{
				"autometa": str, "metadata": str, "validator": str, "datatype.name": str, "datatype.version": str,
				"file": object{"type": "string", "format": "binary", "description": "After all other fields"},
			}}}
		}
		out["requestBody"] = object{"required": true, "content": content}
	}
	return out
}

// tag groups operations by what they are about.
func tag(op *route) string {
	first, _, _ := strings.Cut(op.path, "/")
	return first
}

// leaves are types whose JSON form their structure does not show.
var leaves = map[reflect.Type]object{
	reflect.TypeFor[store.Time]():      {"type": []string{"string", "null"}, "format": "date-time"},
	reflect.TypeFor[store.UUID]():      {"type": "string", "format": "uuid"},
	reflect.TypeFor[store.Hex]():       {"type": "string", "pattern": "^([0-9a-f]{2})*$"},
	reflect.TypeFor[wire.Hash]():       {"type": "string", "pattern": "^[0-9a-f]{64}$"},
	reflect.TypeFor[wire.Address]():    {"type": "string", "pattern": "^0x[0-9a-f]{40}$"},
	reflect.TypeFor[json.RawMessage](): {},
	reflect.TypeFor[event.Options](): {
		"type": "object", "additionalProperties": true, "description": "What the transport knows; see docs/events.md", "properties": object{
			"firstEvent": object{"type": "string", "description": "newest, oldest, or a sequence"}, "readAhead": object{"type": "integer", "minimum": 0, "maximum": 65535},
			"withData": object{"type": "boolean"}, "batch": object{"type": "boolean"}, "batchTimeout": object{"type": "string", "description": "A duration such as 50ms"},
		},
	},
}

// document is an OpenAPI document of version 3.1 for one request, without
// servers, and the path of its server below the node's public URL.
type document func(r *http.Request) (doc object, server string, err error)

// documents serves a document in all its forms, and the page that shows it,
// below a path: /swagger and /openapi as JSON and YAML of OpenAPI 3.0, which
// existing tools expect there, and /openapi-3.1 as it was made.
func (s *server) documents(mux *http.ServeMux, path, title string, d document) {
	type form struct {
		older, yaml bool
	}
	for name, f := range map[string]form{
		"swagger.json": {true, false}, "swagger.yaml": {true, true}, "openapi.json": {true, false}, "openapi.yaml": {true, true},
		"openapi-3.1.json": {false, false}, "openapi-3.1.yaml": {false, true},
	} {
		mux.HandleFunc("GET "+path+"/"+name, s.guarded("openapi", access.Auditor, func(w http.ResponseWriter, r *http.Request) {
			doc, server, err := d(r)
			if err == nil {
				doc = openapi.At(doc, s.publicURL(r)+server)
				if f.older {
					doc, err = openapi.To30(doc)
				}
			}
			write, kind := openapi.JSON, "application/json"
			if f.yaml {
				write, kind = openapi.YAML, "application/yaml"
			}
			var text []byte
			if err == nil {
				text, err = write(doc)
			}
			if err != nil {
				writeError(w, err)
				return
			}
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(text) // a client that has gone needs no answer
		}))
	}
	mux.HandleFunc("GET "+path, s.guarded("swagger", access.Auditor, func(w http.ResponseWriter, r *http.Request) {
		if err := swagger.Page(w, title, strings.TrimSuffix(r.URL.Path, "/")+"/openapi.json", swaggerAssets); err != nil {
			s.Logger.Info("a page was not sent", "path", r.URL.Path, "error", err)
		}
	}))
}

// swaggerAssets is the path of the files that the page uses.
const swaggerAssets = "/api/swagger-ui"

func (s *server) swaggerAsset(w http.ResponseWriter, r *http.Request) {
	if !swagger.Asset(w, r, r.PathValue("file")) {
		writeError(w, errs.New(errs.CodeNotFound, http.StatusNotFound, "There is nothing at %s %s", r.Method, shorten(r.URL.Path)))
	}
}

// ownDocuments serves the documents of the API itself.
func (s *server) ownDocuments(mux *http.ServeMux, routes []route) {
	const title = "Parley"
	whole := sync.OnceValue(func() object { return s.describe(title, routes) })
	below := sync.OnceValue(func() object {
		var local []route
		for _, op := range routes {
			if !op.spec.global {
				local = append(local, op)
			}
		}
		return s.describe(title, local)
	})
	s.documents(mux, "/api", title, func(*http.Request) (object, string, error) {
		return whole(), strings.TrimSuffix(base, "/"), nil
	})
	s.documents(mux, base+"namespaces/{ns}/api", title, func(r *http.Request) (object, string, error) {
		name := s.localName(r.PathValue("ns"))
		if name != s.Namespace {
			return nil, "", noNamespace(name)
		}
		return below(), base + "namespaces/" + name, nil
	})
	for _, path := range []string{base, base + "namespaces/{ns}/"} {
		s.documents(mux, path+"apis/{apiName}/api", "Contract API", s.contractDocument)
	}
	mux.HandleFunc("GET "+swaggerAssets+"/{file}", s.guarded("swagger", access.Auditor, s.swaggerAsset))
}

// publicURL is the URL at which the caller reaches the node: what is configured,
// or what the request says.
func (s *server) publicURL(r *http.Request) string {
	if s.PublicURL != "" {
		return strings.TrimRight(s.PublicURL, "/")
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}
