package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/nodetest"
	"github.com/parley-node/parley/wire"
)

func TestBasics(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	s := serve(t, net.Members[0], nil)

	t.Run("paths", func(t *testing.T) {
		for _, c := range []struct {
			method, path string
			status       int
			code         string
		}{
			{"GET", "status", 200, ""},
			{"GET", "namespaces/default/status", 200, ""},
			{"GET", "namespaces/undefined/status", 200, ""}, // a client's way to leave it out
			{"GET", "namespaces/other/status", 404, "FF10436"},
			{"GET", "namespaces/default", 200, ""},
			{"GET", "namespaces/other", 404, "FF10436"},
			{"GET", "nothing", 404, "FF10109"},
			{"GET", "/nothing", 404, "FF10109"},
			{"GET", "namespaces/default/namespaces", 404, "FF10109"},
			{"GET", "/livez", 200, ""},
			{"POST", "status", 405, ""},
			{"DELETE", "messages", 405, ""},
			{"GET", "messages/not-a-uuid", 400, "FF00138"},
			{"GET", "data/not-a-uuid", 400, "FF00138"},
			{"GET", "events/not-a-uuid", 400, "FF00138"},
			{"GET", "operations/not-a-uuid", 400, "FF00138"},
			{"GET", "transactions/not-a-uuid/status", 400, "FF00138"},
			{"GET", "subscriptions/not-a-uuid", 400, "FF00138"},
			{"GET", "batches/not-a-uuid", 400, "FF00138"},
			{"GET", "identities/not-a-uuid", 400, "FF00138"},
			{"GET", "identities/not-a-uuid/verifiers", 400, "FF00138"},
			{"GET", "messages/" + absent, 404, "FF10109"},
			{"GET", "messages/" + absent + "/data", 404, "FF10109"},
			{"GET", "messages/" + absent + "/events", 404, "FF10109"},
			{"GET", "messages/" + absent + "/transaction", 404, "FF10109"},
			{"GET", "data/" + absent, 404, "FF10109"},
			{"GET", "data/" + absent + "/value", 404, "FF10109"},
			{"GET", "data/" + absent + "/blob", 404, "FF00164"},
			{"GET", "data/" + absent + "/messages", 404, "FF10109"},
			{"DELETE", "data/" + absent, 404, "FF10143"},
			{"GET", "events/" + absent + "?fetchreference", 404, "FF10109"},
			{"GET", "operations/" + absent, 404, "FF10109"},
			{"GET", "transactions/" + absent, 404, "FF10109"},
			{"GET", "transactions/" + absent + "/status", 404, "FF10109"},
			{"GET", "transactions/" + absent + "/operations", 404, "FF10109"},
			{"GET", "blockchainevents/" + absent, 404, "FF10109"},
			{"GET", "batches/" + absent, 404, "FF10109"},
			{"GET", "subscriptions/" + absent, 404, "FF10109"},
			{"GET", "subscriptions/" + absent + "/events", 404, "FF10109"},
			{"DELETE", "subscriptions/" + absent, 404, "FF10109"},
			{"GET", "identities/" + absent, 404, "FF10109"},
			{"GET", "identities/did:firefly:org/nobody", 500, "FF10277"},
			{"GET", "network/identities/did:firefly:org/nobody", 500, "FF10277"},
			{"GET", "network/diddocs/did:firefly:org/nobody", 500, "FF10277"},
			{"GET", "network/organizations/nobody", 404, "FF10109"},
			{"GET", "network/organizations/-bad-", 400, "FF00140"},
			{"GET", "network/nodes/nobody", 404, "FF10109"},
			{"GET", "datatypes/a/b", 404, "FF00164"},
			{"GET", "groups/" + strings.Repeat("ab", 32), 404, "FF10109"},
			{"GET", "groups/xyz", 400, "FF00106"},
			{"GET", "verifiers/" + strings.Repeat("ab", 32), 404, "FF10109"},
			{"GET", "network/transfers/0", 400, "FF00143"},
			{"GET", "network/transfers/999999", 404, "FF10109"},
			{"GET", "network/transfers/1/verify", 501, "FF10414"},
			{"GET", "contexts/network/nobody-used-it/blockers", 200, ""},
			{"GET", "contexts/" + strings.Repeat("ab", 32) + "/t/blockers", 404, "FF10226"},
			{"GET", "contexts/xyz/t/blockers", 400, "FF00107"},
			{"GET", "tokens/pools", 501, "FF10414"},
			{"POST", "contracts/deploy", 400, "FF10414"},
			{"POST", "apis/x/invoke/y", 400, "FF10414"},
			{"POST", "network/action", 400, "FF10397"},
			{"POST", "pins/rewind", 400, "FF10292"},
			{"POST", "batches/" + absent + "/cancel", 404, "FF10109"},
			{"POST", "batches/not-a-uuid/cancel", 400, "FF00138"},
			{"POST", "operations/" + absent + "/retry", 404, "FF10109"},
			{"POST", "data/" + absent + "/value/publish", 404, "FF10109"},
			{"POST", "data/" + absent + "/blob/publish", 404, "FF10109"},
			{"GET", "published/not-a-cid", 400, "FF00107"},
			{"GET", "published/" + wire.ContentID(wire.Hash{1}), 404, "FF10109"},
		} {
			a := s.do(c.method, c.path, "{}").is(c.status, c.code)
			if c.status == http.StatusMethodNotAllowed && (len(a.body) != 0 || a.header.Get("Allow") == "") {
				t.Errorf("%s: 405 with body %q and Allow %q", a.what, a.body, a.header.Get("Allow"))
			}
		}
	})

	t.Run("clean paths", func(t *testing.T) {
		a := s.get("namespaces/default//network/organizations?limit=3&count").is(301, "")
		if got := a.header.Get("Location"); got != v1+"namespaces/default/network/organizations?limit=3&count" {
			t.Errorf("redirected to %q", got)
		}
		s.get("//websockets").is(301, "")
		a = s.get("/api/v1//websockets").is(301, "")
		if got := a.header.Get("Location"); got != "/api/v1/websockets" {
			t.Errorf("redirected to %q", got)
		}
	})

	t.Run("content types", func(t *testing.T) {
		resolve := `{"value":"0x` + strings.Repeat("AB", 20) + `"}`
		for kind, want := range map[string]int{
			"application/json": 200, "application/json; charset=utf-8": 200, "application/json-patch+json": 200,
			"application/x-www-form-urlencoded": 400, "text/plain": 400, // the body is not looked at
			"": 415, "application/xml": 415, "multipart/form-data; boundary=x": 415,
		} {
			a := s.do("POST", "verifiers/resolve", resolve, "Content-Type", kind)
			if a.status != want {
				t.Errorf("content type %q: %d %s, want %d", kind, a.status, a.body, want)
			}
			if want == 415 {
				a.is(415, "FF00162")
			}
		}
		// Also where there is nothing to send; but never for GET and DELETE.
		s.do("POST", "network/nodes/self", "", "Content-Type", "").is(415, "FF00162")
		s.do("GET", "status", "", "Content-Type", "application/xml").is(200, "")
	})

	t.Run("bodies", func(t *testing.T) {
		s.post("messages/broadcast", `{"header":`).is(400, "FF90004")
		s.post("messages/broadcast", ``).is(400, "FF90004")
		s.post("messages/broadcast", `[]`).is(400, "FF90004")
		s.post("messages/broadcast", `{"header":{"cid":"no"}}`).is(400, "FF00138")
		s.post("messages/private", `{"header":{"group":"zz"}}`).is(400, "FF00106")
		s.post("messages/private", `{"header":{"group":"abcd"}}`).is(400, "FF00107")
		s.post("messages/broadcast", `{"data":[{"value":"`+strings.Repeat("x", 9<<20)+`"}]}`).is(413, "FF90005")
		s.post("verifiers/resolve", `{"unknown":1,"VALUE":"0x`+strings.Repeat("ab", 20)+`"} trailing`).is(200, "")
		s.post("verifiers/resolve", `{"type":"fabric_msp_id","value":"x"}`).is(400, "FF10428")
	})

	t.Run("queries", func(t *testing.T) {
		s.get("messages?limit=1001").is(400, "FF00192")
		s.get("messages?skip=1001").is(400, "FF00191")
		s.get("messages?created=x").is(400, "FF00143")
		s.get("messages?created=@1").is(400, "FF00145")
		s.get("messages?tag=?@").is(400, "FF00144")
		s.get("messages?tag=!<x").is(400, "FF00193")
		s.get("messages?skip=0$&unknown=1&namespace=x").is(200, "")
		if a := s.get("messages?tag=nothing-has-it").is(200, ""); string(a.body) != "[]\n" {
			t.Errorf("an empty list is %q", a.body)
		}
		if a := s.get("messages?tag=nothing-has-it&count").is(200, ""); string(a.body) != `{"count":0,"total":0,"items":[]}`+"\n" {
			t.Errorf("an empty counted list is %q", a.body)
		}
		// Never counted, whatever is asked.
		for _, path := range []string{"namespaces?count&limit=1"} {
			if a := s.get(path).is(200, ""); a.body[0] != '[' {
				t.Errorf("%s is %s", path, a.body)
			}
		}
	})

	t.Run("every list", func(t *testing.T) {
		for _, path := range []string{"messages", "data", "datatypes", "groups", "batches", "pins", "nextpins", "transactions", "operations", "blockchainevents",
			"events", "subscriptions", "identities", "verifiers", "network/organizations", "network/nodes", "network/identities", "status/incidents"} {
			if a := s.get(path+"?limit=1").is(200, ""); a.body[0] != '[' {
				t.Errorf("%s is %s", path, a.body)
			}
			e := into[struct {
				Count int
				Total *int
				Items []object
			}](s.get(path+"?limit=1&count=true").is(200, ""))
			if e.Total == nil || e.Items == nil || e.Count != len(e.Items) || *e.Total < e.Count {
				t.Errorf("%s counts as %+v", path, e)
			}
		}
	})

	t.Run("timeouts", func(t *testing.T) {
		for value, want := range map[string]int{"0.000001": 408, "1ns": 408, "10": 200, "2m": 200, "nonsense": 200, "-1": 200, "1e300": 200, "NaN": 200} {
			if a := s.do("GET", "messages", "", "Request-Timeout", value); a.status != want {
				t.Errorf("Request-Timeout %q: %d %s, want %d", value, a.status, a.body, want)
			}
		}
	})

	t.Run("request id", func(t *testing.T) {
		if got := s.do("GET", "status", "", "X-FireFly-Request-ID", "abc").header.Get("X-FireFly-Request-ID"); got != "abc" {
			t.Errorf("the id comes back as %q", got)
		}
		if s.get("status").header.Get("X-FireFly-Request-ID") == "" {
			t.Error("a request without an id gets none")
		}
	})

	t.Run("histogram", func(t *testing.T) {
		s.get("charts/histogram/nothing?startTime=1&endTime=2&buckets=1").is(400, "FF10301")
		s.get("charts/histogram/events?startTime=x&endTime=2&buckets=1").is(400, "FF10299")
		s.get("charts/histogram/events?startTime=1&endTime=2&buckets=101").is(400, "FF10298")
		s.get("charts/histogram/events?startTime=1&endTime=2&buckets=0").is(400, "FF10298")
		s.get("charts/histogram/events?startTime=2&endTime=1&buckets=1").is(400, "FF10300")
		s.get("charts/histogram/events?startTime=-9223372036&endTime=9223372036854775807&buckets=1").is(400, "FF10300")
		if a := s.get("charts/histogram/events?startTime=2&endTime=2&buckets=3").is(200, ""); string(a.body) != "[]\n" {
			t.Errorf("no span of time has the buckets %s", a.body)
		}
		buckets := into[[]struct {
			Count, Timestamp string
			Types            []struct{ Count, Type string }
			IsCapped         *bool
		}](s.get("charts/histogram/events?startTime=1600000000&endTime=4000000000&buckets=2").is(200, ""))
		if len(buckets) != 2 || buckets[0].Count == "0" || len(buckets[0].Types) == 0 || buckets[0].IsCapped == nil {
			t.Errorf("buckets are %+v", buckets)
		}
	})

	t.Run("admin and metrics", func(t *testing.T) {
		s.get(s.admin+v1+"status").is(200, "")
		s.get(s.admin+v1+"status/peers").is(200, "")
		s.get(s.admin+v1+"messages").is(404, "FF10109")
		s.get(s.admin+"/livez").is(200, "")
		s.get(s.stats+"/livez").is(200, "")
		text := string(s.get(s.stats+"/metrics").is(200, "").body)
		for _, name := range []string{`parley_messages_open{state="ready"} `, "parley_outbox_waiting ", "parley_ledger_records ", "parley_ledger_records_waiting ",
			"parley_database_commits_total ", `parley_http_requests_total{operation="getStatus",status="200"} `, "parley_websocket_connections 0", "parley_incidents 0"} {
			if !strings.Contains(text, name) {
				t.Errorf("the metrics lack %s", name)
			}
		}
	})
}

const absent = "00000000-0000-4000-8000-000000000000"

func TestGuard(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 1)
	s := serve(t, net.Members[0], func(d *api.Deps) {
		d.Security = api.Security{AllowedHosts: []string{"node.example.com"}, AllowedOrigins: []string{"https://app.example.com"}}
	})
	host := strings.TrimPrefix(s.url, "http://")
	for _, c := range []struct {
		name   string
		method string
		header []string
		status int
	}{
		{"no browser", "GET", nil, 200},
		{"same origin", "GET", []string{"Origin", "http://" + host}, 200},
		{"another port", "GET", []string{"Origin", "http://127.0.0.1:1"}, 403},
		{"a page on the web", "GET", []string{"Origin", "https://evil.example.com"}, 403},
		{"a sandboxed page", "GET", []string{"Origin", "null"}, 403},
		{"a form of a page on the web", "POST", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"a link from the web", "GET", []string{"Sec-Fetch-Site", "cross-site"}, 200},
		{"a rebound name", "GET", []string{"Host", "evil.example.com:5000"}, 403},
		{"a rebound name with its own origin", "GET", []string{"Host", "evil.example.com", "Origin", "http://evil.example.com"}, 403},
		{"localhost", "GET", []string{"Host", "localhost:5000"}, 200},
		{"an IP address", "GET", []string{"Host", "[::1]:5000"}, 200},
		{"an allowed name", "GET", []string{"Host", "NODE.example.com:5000"}, 200},
		{"an allowed origin", "GET", []string{"Origin", "https://app.example.com"}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := "status"
			if c.method == "POST" {
				path = "messages/broadcast"
			}
			a := s.do(c.method, path, `{"data":[{"value":1}]}`, c.header...).is(c.status, "")
			if c.status == 403 {
				a.is(403, "FF00170")
			}
			if got := a.header.Get("Access-Control-Allow-Origin"); (got != "") != (c.name == "an allowed origin") {
				t.Errorf("Access-Control-Allow-Origin is %q", got)
			}
		})
	}
	t.Run("preflight", func(t *testing.T) {
		s.do("OPTIONS", "status", "", "Origin", "https://evil.example.com", "Access-Control-Request-Method", "POST").is(403, "FF00170")
		a := s.do("OPTIONS", "status", "", "Origin", "https://app.example.com", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type").is(204, "")
		if a.header.Get("Access-Control-Allow-Headers") != "content-type" || a.header.Get("Access-Control-Allow-Credentials") != "true" {
			t.Errorf("the answer is %v", a.header)
		}
	})
	if n := len(into[[]object](s.get("messages?type=broadcast"))); n != 0 {
		t.Errorf("%d messages of foreign pages were accepted", n)
	}
}

// Beyond a bound, writes are refused at once and reads still served.
func TestOverload(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 1)
	s := serve(t, net.Members[0], func(d *api.Deps) { d.Limits.QueuedWrites = -1 })
	a := s.post("messages/broadcast", `{"data":[{"value":1}]}`).is(429, "FF90003")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.get("messages").is(200, "")
	s.post("verifiers/resolve", `{"value":"0x`+strings.Repeat("ab", 20)+`"}`).is(200, "")

	s = serve(t, net.Members[0], func(d *api.Deps) { d.Limits.ReadyMessages = -1 })
	if a := s.post("messages/broadcast", `{"data":[{"value":1}]}`).is(503, "FF90003"); a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.get("messages").is(200, "")
}
