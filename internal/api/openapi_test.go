package api_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/nodetest"
	"github.com/parley-node/parley/internal/store"
)

// load reads a document and judges it by its version's specification.
func load(t *testing.T, path string, text []byte) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if err := doc.Validate(context.Background(), openapi3.EnableSchemaPatternValidation()); err != nil {
		t.Errorf("%s: %v", path, err)
	}
	return doc
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	s := serve(t, net.Members[0], nil)

	for _, prefix := range []string{"/api", "/api/v1/namespaces/default/api"} {
		for file, version := range map[string]string{"openapi.json": "3.0.3", "openapi.yaml": "3.0.3", "swagger.json": "3.0.3", "swagger.yaml": "3.0.3", "openapi-3.1.json": "3.1.0", "openapi-3.1.yaml": "3.1.0"} {
			path := prefix + "/" + file
			a := s.get(path).is(200, "")
			if isJSON := json.Valid(a.body); isJSON != strings.HasSuffix(file, ".json") || !strings.HasSuffix(a.header.Get("Content-Type"), file[strings.Index(file, ".")+2:]) && !strings.HasSuffix(a.header.Get("Content-Type"), "json") && !strings.HasSuffix(a.header.Get("Content-Type"), "yaml") {
				t.Errorf("%s is JSON: %t, of type %s", path, isJSON, a.header.Get("Content-Type"))
			}
			doc := load(t, path, a.body)
			if doc.OpenAPI != version {
				t.Errorf("%s has version %s, want %s", path, doc.OpenAPI, version)
			}
			local := prefix != "/api"
			server := s.url + "/api/v1"
			if local {
				server += "/namespaces/default"
			}
			if len(doc.Servers) != 1 || doc.Servers[0].URL != server {
				t.Errorf("%s: servers are %+v, want %s", path, doc.Servers, server)
			}
			complete(t, path, doc, local)
		}
	}
	s.get("/api/v1/namespaces/other/api/openapi.json").is(404, "FF10436")

	// The page holds nothing from elsewhere, and its files are there.
	for _, path := range []string{"/api", "/api/v1/namespaces/default/api"} {
		page := s.get(path).is(200, "")
		if !strings.Contains(page.header.Get("Content-Security-Policy"), "script-src 'self'") || !strings.Contains(string(page.body), `data-document="`+path+`/openapi.json"`) {
			t.Errorf("%s: %v %s", path, page.header, page.body)
		}
		for _, link := range regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllSubmatch(page.body, -1) {
			s.get(string(link[1])).is(200, "")
		}
	}
	for _, name := range []string{"none.js", "..%2fswagger.go", "dist"} {
		s.get("/api/swagger-ui/"+name).is(404, "FF10109")
	}
}

// complete checks that a document says all that the table of routes knows.
func complete(t *testing.T, path string, doc *openapi3.T, local bool) {
	t.Helper()
	described := map[string]*openapi3.Operation{}
	for at, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			described[op.OperationID] = op
			if op.Summary == "" || !strings.Contains(op.Description, "role") || len(op.Tags) != 1 {
				t.Errorf("%s: %s %s says not what it does, needs, or belongs to", path, method, at)
			}
			for _, v := range pathVariable.FindAllStringSubmatch(at, -1) {
				if p := op.Parameters.GetByInAndName("path", v[1]); p == nil || !p.Required || p.Description == "" {
					t.Errorf("%s: %s %s does not describe {%s}", path, method, at, v[1])
				}
			}
			for _, p := range op.Parameters {
				if p.Value.Description == "" || p.Value.Schema == nil {
					t.Errorf("%s: %s %s does not describe %s", path, method, at, p.Value.Name)
				}
			}
			for _, status := range []string{"default", "401", "403", "429", "503"} {
				r := op.Responses.Value(status)
				if r == nil || r.Value.Content.Get("application/json") == nil {
					t.Errorf("%s: %s %s does not describe its answer %s", path, method, at, status)
				}
			}
		}
	}
	for _, op := range api.Operations() {
		d := described[op.ID]
		if offered := op.ID != "" && !(local && op.Global); offered != (d != nil) {
			t.Errorf("%s: operation %s %s is described: %t", path, op.Method, op.Path, d != nil)
		}
		if d == nil {
			continue
		}
		if op.Body != (d.RequestBody != nil) {
			t.Errorf("%s: the body of %s is described: %t", path, op.ID, !op.Body)
		}
		for _, field := range op.Fields {
			if d.Parameters.GetByInAndName("query", field) == nil {
				t.Errorf("%s: the filter %s of %s is not described", path, field, op.ID)
			}
		}
	}
	for _, name := range []string{"key", "header", "user"} {
		if doc.Components.SecuritySchemes[name] == nil {
			t.Errorf("%s: no security scheme %s", path, name)
		}
	}
}

// What the API answers fits the document.
func TestAnswersFitTheDocument(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	s := serve(t, net.Members[0], nil)
	doc := load(t, "openapi.json", s.get("/api/openapi.json").body)

	s.post("datatypes?confirm=true", `{"name":"widget","version":"1","value":{"type":"object"}}`).is(200, "")
	sent := into[store.Message](s.post("messages/private?confirm=true", `{"header":{"tag":"x"},"group":{"members":[{"identity":"`+net.Members[1].Name+`"}]},
		"data":[{"value":{"a":1},"datatype":{"name":"widget","version":"1"}}]}`).is(200, ""))
	s.post("subscriptions", `{"name":"app","options":{"readAhead":5}}`).is(201, "")
	first := func(collection string) object {
		list := into[[]object](s.get(collection+"?limit=1").is(200, ""))
		if len(list) == 0 {
			t.Fatalf("there are no %s", collection)
		}
		return list[0]
	}
	event := first("blockchainevents")["id"].(string)
	values := map[string]string{
		"ns": "default", "msgid": sent.Header.ID.String(), "dataid": sent.Data[0].ID.String(), "collection": "messages", "audience": "network", "topic": "default",
		"batchid": sent.Batch.String(), "txnid": sent.TxID.String(), "name": "widget", "version": "1", "number": fmt.Sprint(first("network/transfers")["number"]), "nameOrId": net.Members[0].Name,
		"eid": first("events")["id"].(string), "opid": first("operations")["id"].(string), "subid": first("subscriptions")["id"].(string),
		"iid": first("identities")["id"].(string), "did": "did:firefly:org/" + net.Members[0].Name,
	}
	hashes := map[string]string{"groups/{hash}": string(sent.Header.Group), "verifiers/{hash}": first("verifiers")["hash"].(string)}
	old := into[store.Message](s.post("messages/broadcast?confirm", `{"data":[{"value":"to be erased"}]}`).is(200, ""))
	ids := map[string]string{
		"erasures/{id}": into[store.Erasure](s.post("messages/"+old.Header.ID.String()+"/erase", `{"reason":"a test"}`).is(200, "")).ID.String(),
		"holds/{id}":    into[store.Hold](s.post("holds", `{"kind":"topic","value":"claims","reason":"a test"}`).is(201, "")).ID.String(),
	}
	s.post("retention/policies", `{"topic":"claims","age":"90d"}`).is(201, "")
	fitted := 0
	for _, op := range api.Operations() {
		if op.Method != "GET" || op.ID == "" || op.Stream || op.ID == "getNetworkNode" || op.ID == "verifyNetworkTransfer" {
			continue
		}
		values["hash"], values["id"] = hashes[op.Path], cmp.Or(ids[op.Path], event)
		at := "/" + strings.ReplaceAll(op.Path, "...}", "}")
		span := ""
		if op.ID == "getChartHistogram" {
			span = "&startTime=1600000000&endTime=4000000000&buckets=2"
		}
		for _, query := range []string{"?", "?fetchdata&fetchreference&fetchreferences&fetchverifiers&fetchstatus", "?count&limit=1"} {
			path := fill(op.Path, values) + query + span
			a := s.get(path)
			if a.status != 200 {
				t.Errorf("%s: %d %s", path, a.status, a.body)
				continue
			}
			schema := doc.Paths.Value(at).Get.Responses.Value("200").Value.Content.Get("application/json").Schema.Value
			var body any
			if err := json.Unmarshal(a.body, &body); err != nil {
				t.Fatal(err)
			}
			if err := schema.VisitJSON(body, openapi3.MultiErrors()); err != nil {
				t.Errorf("%s: %v\n%s", path, firstLine(err), a.body)
			}
			fitted++
		}
	}
	if fitted < 100 {
		t.Errorf("only %d answers were compared", fitted)
	}
}

func firstLine(err error) string {
	lines := strings.Split(fmt.Sprint(err), "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "" })[:min(3, len(lines))], " ")
}
