package api_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/nodetest"
)

// handlerOf is the public API of a lone member.
func handlerOf(f *testing.F) http.Handler {
	m := nodetest.Network(f, 1).Members[0]
	return api.New(api.Deps{
		Namespace: m.Namespace, DB: m.DB, Messages: m.Messages, Network: m.Network, Log: m.Events, Subscriptions: m.Subscriptions,
		WebSockets: event.NewWebSockets(event.WebSocketConfig{}, m.Subscriptions), Blobs: m.Blobs, Contracts: m.Contracts, ClaimOrg: m.ClaimOrg, ClaimNode: m.ClaimNode,
	}).Public
}

// ask sends a request straight to the handler. Whatever a client sends, it is
// the client's fault: the node's own failures are FF00000.
func ask(t *testing.T, h http.Handler, method, target, kind, body string) {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return // no server gets this far
	}
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.URL, r.RequestURI, r.Host = u, target, "localhost"
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code < 200 || w.Code > 599 || strings.Contains(w.Body.String(), "FF00000") {
		t.Errorf("%s %s with %q: %d %s", method, target, body, w.Code, w.Body)
	}
}

func FuzzBody(f *testing.F) {
	h := handlerOf(f)
	targets := []string{
		"messages/broadcast", "messages/private", "data", "datatypes", "identities", "subscriptions", "verifiers/resolve",
		"network/proposals/1/vote", "network/keys",
	}
	for i, seed := range []string{
		`{"header":{"tag":"t","topics":["a"]},"data":[{"value":{"a":1}}]}`,
		`{"group":{"members":[{"identity":"hospital"}]},"data":[{"value":null}]}`,
		`{"value":"x","validator":"none","datatype":{"name":"n","version":"1"}}`,
		`{"name":"n","version":"1","value":{"type":"object","$ref":"#"}}`,
		`{"name":"n","key":"0x0000000000000000000000000000000000000001","profile":[]}`,
		`{"name":"n","filter":{"events":"("},"options":{"firstEvent":-1,"batch":true}}`,
		`{"type":1}`, `{"approve":null}`, `{"key":"\ud800"}`, "{", "null", "[]", "\x00",
	} {
		f.Add(uint8(i), seed)
	}
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		method := http.MethodPost
		target := targets[int(which)%len(targets)]
		if which%2 == 1 && target == "subscriptions" {
			method = http.MethodPut
		}
		ask(t, h, method, v1+target, jsonCT, body)
	})
}

func FuzzForm(f *testing.F) {
	h := handlerOf(f)
	f.Add("multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=\"autometa\"\r\n\r\ntrue\r\n--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\nabc\r\n--B--\r\n")
	f.Add("multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n[1]\r\n--B\r\nContent-Disposition: form-data; filename=\"../f\"\r\n\r\n\r\n--B--")
	f.Add("multipart/form-data; boundary=B", "--B\r\n\r\n--B--")
	f.Add("multipart/form-data; boundary=\"\"", "")
	f.Add("multipart/form-data", "x")
	f.Fuzz(func(t *testing.T, kind, body string) { ask(t, h, http.MethodPost, v1+"data", kind, body) })
}

func FuzzTarget(f *testing.F) {
	h := handlerOf(f)
	for _, seed := range []string{
		"messages", "messages?sort=-created,tag&skip=0$&limit=3&count", "messages?confirmed=?&tag=[!:^x&tag=]$y", "messages/%2f?fetchdata",
		"namespaces/default//network/organizations?limit=x", "identities/did:firefly:org/did/verifiers?fetchverifiers", "identities/%00/did",
		"network/organizations/a+b", "datasubpaths/%25/_", "datasubpaths", "charts/histogram/events?startTime=1&endTime=9e9&buckets=7",
		"charts/histogram/messages?startTime=0&endTime=9223372036854775807&buckets=100", "charts/histogram/messages?startTime=-9223372036&endTime=9223372036854775807&buckets=1",
		"network/transfers?before=1&limit=0", "network/transfers/9999999999999999999", "contexts/network/%F0%28/blockers",
		"subscriptions/" + absent + "/events?startsequence=-1&endsequence=x", "data?value=@%25&blob.size=>=3&created=<<1", "verifiers/0x", "groups/%zz",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) { ask(t, h, http.MethodGet, v1+target, "", "") })
}
