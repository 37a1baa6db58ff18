package api_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/nodetest"
	"github.com/parley-node/parley/internal/store"
)

// callers is an access file with a caller for each role, and their keys.
type callers struct {
	t    *testing.T
	path string
	file access.File
	keys map[string]string // by name
}

func newCallers(t *testing.T) *callers {
	c := &callers{t: t, path: filepath.Join(t.TempDir(), "access.json"), keys: map[string]string{}}
	for _, role := range []access.Role{access.Auditor, access.Reader, access.Operator, access.Admin} {
		c.add(role.String(), nil, access.Grant{Namespace: "default", Role: role})
	}
	c.add("granted", nil, access.Grant{Namespace: "default", Role: access.Auditor, Payloads: true})
	c.add("stranger", nil, access.Grant{Namespace: "elsewhere", Role: access.Admin})
	return c
}

func (c *callers) add(name string, limits *access.Limits, grants ...access.Grant) {
	c.t.Helper()
	key, err := c.file.Add(name, true, grants, limits, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	c.keys[name] = key
	c.write()
}

func (c *callers) write() {
	c.t.Helper()
	if err := c.file.Write(c.path); err != nil {
		c.t.Fatal(err)
	}
}

// control is the access control for Deps.
func (c *callers) control() *access.Control {
	c.t.Helper()
	control, err := access.New(access.Config{File: c.path, Logger: slog.New(slog.NewTextHandler(c.t.Output(), nil))})
	if err != nil {
		c.t.Fatal(err)
	}
	return control
}

var pathVariable = regexp.MustCompile(`\{(\w+)(\.\.\.)?\}`)

// fill puts values into the variables of a route's path.
func fill(path string, values map[string]string) string {
	return pathVariable.ReplaceAllStringFunc(path, func(v string) string {
		name := pathVariable.FindStringSubmatch(v)[1]
		if value, ok := values[name]; ok {
			return value
		}
		return absent
	})
}

func TestThePolicyAndTheTableOfRoutesFit(t *testing.T) {
	known := map[string]bool{}
	asks := []string{ // a POST, and changes nothing
		"postVerifiersResolve", "postSubscriptionAck", "postContractQuery", "postContractAPIQuery", "postGenerateContractInterface", "postContractListenerSignature",
	}
	for _, op := range api.Operations() {
		known[op.ID] = true
		if op.ID != "" && !op.Stated {
			t.Errorf("%s %s (%s) stands in no line of the policy: add it to needs", op.Method, op.Path, op.ID)
		}
		if changes := op.Method != http.MethodGet && !slices.Contains(asks, op.ID); changes && op.ID != "" && op.Role < access.Operator {
			t.Errorf("%s %s changes something, and needs only %s", op.Method, op.Path, op.Role)
		}
	}
	for _, id := range api.ProviderOperations() {
		known[id] = true
	}
	for _, id := range api.Policy() {
		if !known[id] {
			t.Errorf("the policy speaks of %s, which is no operation", id)
		}
	}
}

// Every operation, in both forms of its path, on both ports, for nobody and for
// each role.
func TestEveryRouteAsksForItsRole(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	who := newCallers(t)
	s := serve(t, net.Members[0], func(d *api.Deps) { d.Access = who.control() })
	roles := map[string]access.Role{"auditor": access.Auditor, "granted": access.Auditor, "reader": access.Reader, "operator": access.Operator, "admin": access.Admin, "stranger": access.None}

	check := func(method, url string, need access.Role, payloads, global bool) {
		t.Helper()
		// A stream ends with its time.
		s.do(method, url, `{}`, "Request-Timeout", "100ms").is(401, "FF00169")
		s.do(method, url, `{}`, "Request-Timeout", "100ms", "Authorization", "Bearer parley_"+strings.Repeat("A", 43)).is(401, "FF00169")
		for name, role := range roles {
			if global && name == "stranger" {
				role = access.Admin // somewhere
			}
			allowed := role >= need && (!payloads || name != "auditor")
			a := s.do(method, url, `{}`, "Request-Timeout", "100ms", "X-API-Key", who.keys[name])
			if !allowed {
				a.is(403, "FF00170")
			} else if a.status == 401 || a.status == 403 {
				t.Errorf("%s %s as %s: status %d, %s", method, url, name, a.status, a.body)
			}
		}
	}
	seen := 0
	for _, op := range api.Operations() {
		path := fill(op.Path, map[string]string{"ns": "default", "collection": "messages", "audience": "network"})
		check(op.Method, path, op.Role, op.Payloads, op.Global && !strings.Contains(op.Path, "{ns}"))
		seen++
		if !op.Global {
			check(op.Method, "namespaces/default/"+path, op.Role, op.Payloads, false)
		}
	}
	if seen < 80 {
		t.Errorf("only %d operations were tried", seen)
	}
	for _, path := range []string{"/ws", "/api/openapi.json", "/api/swagger.json", s.stats + "/metrics"} {
		check("GET", path, access.Auditor, false, true)
	}
	for _, path := range []string{"/api/v1/namespaces/default/ws", "/api/v1/namespaces/default/api/openapi.json", s.admin + v1 + "status", s.admin + v1 + "status/incidents", s.admin + v1 + "namespaces/default/status/peers"} {
		check("GET", path, access.Auditor, false, false)
	}
	// Who is not known learns not even what there is.
	for _, path := range []string{"/nothing", "namespaces/other/status", s.admin + v1 + "messages", s.stats + "/nothing"} {
		s.get(path).is(401, "FF00169")
	}
	if challenge := s.get("status").header.Values("WWW-Authenticate"); len(challenge) != 2 {
		t.Errorf("the challenge is %q", challenge)
	}
	for _, host := range []string{s.url, s.admin, s.stats} {
		s.get(host+"/livez").is(200, "")
	}

	// A namespace list shows what is the caller's.
	if list := into[[]object](s.do("GET", "namespaces", "", "X-API-Key", who.keys["stranger"])); len(list) != 0 {
		t.Errorf("a stranger sees %v", list)
	}
	if list := into[[]object](s.do("GET", "namespaces", "", "X-API-Key", who.keys["auditor"])); len(list) != 1 {
		t.Errorf("an auditor sees %v", list)
	}

	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", "scan.png")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(part, "content")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s.do("POST", "data", form.String(), "Content-Type", w.FormDataContentType()).is(401, "FF00169")
	s.do("POST", "data", form.String(), "Content-Type", w.FormDataContentType(), "X-API-Key", who.keys["reader"]).is(403, "FF00170")
	s.do("POST", "data", form.String(), "Content-Type", w.FormDataContentType(), "X-API-Key", who.keys["operator"]).is(201, "")
}

// socket opens a WebSocket as a caller.
func (s *site) socket(path, key string) (*websocket.Conn, error) {
	s.t.Helper()
	ws, _, err := websocket.Dial(s.t.Context(), "ws"+strings.TrimPrefix(s.url, "http")+path, &websocket.DialOptions{
		HTTPClient: s.client, Subprotocols: []string{"parley", "bearer." + key}, // as a browser does it
	})
	if err == nil {
		s.t.Cleanup(func() { _ = ws.CloseNow() })
		if ws.Subprotocol() != "parley" {
			s.t.Errorf("the subprotocol is %q", ws.Subprotocol())
		}
	}
	return ws, err
}

// read reads a frame.
func read(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, text, err := ws.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An auditor sees that something was sent, when, by whom and with which hashes,
// and nowhere what it says.
func TestAuditorsSeeNoPayloads(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	who := newCallers(t)
	s := serve(t, net.Members[0], func(d *api.Deps) { d.Access = who.control() })
	as := func(name, path string) *answer {
		t.Helper()
		return s.do("GET", path, "", "X-API-Key", who.keys[name], "Request-Timeout", "300ms")
	}

	watch := map[string]*websocket.Conn{}
	for _, name := range []string{"auditor", "granted", "reader"} {
		ws, err := s.socket("/ws", who.keys[name])
		if err != nil {
			t.Fatal(err)
		}
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"start","namespace":"default","ephemeral":true,"autoack":true,"filter":{"message":{"tag":"damages"}},"options":{"firstEvent":"oldest"}}`)); err != nil {
			t.Fatal(err)
		}
		watch[name] = ws
	}
	const secret, fileName = "tell-nobody-4711", "scan-of-jane-doe.png"
	post := func(path, body string, header ...string) *answer {
		return s.do("POST", path, body, append(header, "X-API-Key", who.keys["operator"])...)
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", fileName)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(part, secret)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	blob := into[store.Data](post("data", form.String(), "Content-Type", w.FormDataContentType()).is(201, ""))
	sent := into[store.Message](post("messages/private?confirm=true", `{"header":{"tag":"damages"},"group":{"members":[{"identity":"`+net.Members[1].Name+`"}]},
		"data":[{"value":{"diagnosis":"`+secret+`"}},{"id":"`+blob.ID.String()+`"}]}`).is(200, ""))

	values := map[string]string{
		"ns": "default", "msgid": sent.Header.ID.String(), "dataid": sent.Data[0].ID.String(), "collection": "messages", "audience": "network", "topic": "default",
		"batchid": sent.Batch.String(), "txnid": sent.TxID.String(), "hash": string(sent.Header.Group), "parent": "",
	}
	events := into[[]store.Event](as("reader", "events?type=message_confirmed").is(200, ""))
	ops := into[[]store.Operation](as("reader", "operations").is(200, ""))
	values["eid"], values["opid"] = events[0].ID.String(), ops[0].ID.String()

	leaks := func(a *answer) bool {
		return bytes.Contains(a.body, []byte(secret)) || bytes.Contains(a.body, []byte(fileName))
	}
	shown := 0
	for _, op := range api.Operations() {
		if op.Method != "GET" || op.ID == "" || op.Role > access.Auditor {
			continue
		}
		path := fill(op.Path, values)
		for _, query := range []string{"", "?fetchdata&fetchreferences&fetchreference&fetchverifiers&fetchstatus&withdata&count&firstevent=0", "?limit=1000&firstevent=oldest&withdata&batch&batchtimeout=1ms"} {
			if a := as("auditor", path+query); leaks(a) {
				t.Errorf("%s tells an auditor: %s", path+query, a.body)
			}
			if leaks(as("granted", path+query)) {
				shown++
			} else if leaks(as("reader", path+query)) {
				t.Errorf("%s shows a reader more than an auditor with payloads granted", path+query)
			}
		}
	}
	// That the probes find what is there.
	if shown < 10 {
		t.Errorf("only %d answers hold the payload for who may see it", shown)
	}
	for name, ws := range watch {
		text := read(t, ws)
		if !strings.Contains(text, sent.Header.ID.String()) || !strings.Contains(text, string(sent.Data[0].Hash)) {
			t.Errorf("%s got %s", name, text)
		}
		if strings.Contains(text, secret) {
			t.Errorf("%s got %s, and a WebSocket carries no values", name, text)
		}
	}

	// What is hidden cannot be asked about either.
	for _, q := range []string{"data?value=@tell", "data?VALUE=!x", "data?blob.name=^scan", "data?sort=value", "data?sort=-created,-blob.path", "operations?input=@x", "messages?rejectreason=x", "messages/" + values["msgid"] + "/data"} {
		want := 403
		if !strings.Contains(q, "=") {
			want = 200
		}
		if a := as("auditor", q); a.status != want {
			t.Errorf("%s as an auditor: %d, want %d", q, a.status, want)
		}
		as("granted", q).is(200, "")
	}

	// A durable subscription's events are its application's.
	post("subscriptions", `{"name":"app"}`).is(201, "")
	ws, err := s.socket("/ws?namespace=default&name=app", who.keys["auditor"])
	if err != nil {
		t.Fatal(err)
	}
	if text := read(t, ws); !strings.Contains(text, "FF00170") {
		t.Errorf("an auditor takes from a durable subscription: %s", text)
	}
	stranger, err := s.socket("/ws?namespace=default&ephemeral", who.keys["stranger"])
	if err != nil {
		t.Fatal(err)
	}
	if text := read(t, stranger); !strings.Contains(text, "FF00170") {
		t.Errorf("a stranger reads events: %s", text)
	}
}

func TestLimitsOfACaller(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 1)
	who := newCallers(t)
	operator := access.Grant{Namespace: "default", Role: access.Operator}
	who.add("slow", &access.Limits{Rate: 0.5, Burst: 2}, operator)
	who.add("few", &access.Limits{Sockets: 2}, operator)
	who.add("small", &access.Limits{Body: 100}, operator)
	control := who.control()
	var lines lockedBuffer
	s := serve(t, net.Members[0], func(d *api.Deps) {
		d.Access, d.Logger = control, slog.New(slog.NewJSONHandler(&lines, nil))
	})
	as := func(name, method, path, body string) *answer {
		t.Helper()
		return s.do(method, path, body, "X-API-Key", who.keys[name])
	}

	as("slow", "GET", "status", "").is(200, "")
	as("slow", "GET", "nothing", "").is(404, "")
	if wait := as("slow", "GET", "status", "").is(429, "FF90003").header.Get("Retry-After"); wait != "2" {
		t.Errorf("Retry-After is %q, want 2 seconds", wait)
	}
	as("few", "GET", "status", "").is(200, "") // others are not concerned

	as("small", "POST", "data", `{"value":"`+strings.Repeat("x", 200)+`"}`).is(413, "FF90005")
	as("few", "POST", "data", `{"value":"`+strings.Repeat("x", 200)+`"}`).is(201, "")

	first, err := s.socket("/ws?namespace=default&ephemeral", who.keys["few"])
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+v1+"events/sse", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", who.keys["few"])
	stream, err := s.client.Do(req)
	if err != nil || stream.StatusCode != 200 {
		t.Fatalf("an event stream: %v, %v", stream, err)
	}
	defer stream.Body.Close()
	if _, err := s.socket("/ws", who.keys["few"]); err == nil || !strings.Contains(err.Error(), "429") {
		t.Errorf("a third socket: %v, want 429", err)
	}
	as("few", "GET", "events/sse", "").is(429, "FF90003")

	// Revoked, the caller loses both.
	who.file.Revoke("few")
	who.write()
	if err := control.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := first.Read(t.Context()); err == nil {
		t.Error("the socket of a revoked caller goes on")
	}
	if _, err := io.Copy(io.Discard, stream.Body); err != nil && ctx.Err() != nil {
		t.Errorf("the stream of a revoked caller goes on: %v", err)
	}
	as("few", "GET", "status", "").is(401, "FF00169")

	text := lines.String()
	for _, want := range []string{`"caller":"slow","method":"GET","route":"getStatus","status":200`, `"caller":"slow","method":"GET","route":"none","status":429`, `"caller":"slow","method":"GET","route":"none","status":404`,
		`"caller":"small","method":"POST","route":"postData","status":413`, `"caller":"-","method":"GET","route":"none","status":401`, `"trace":"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the log has no line with %s:\n%s", want, text)
		}
	}
	for name, key := range who.keys {
		if strings.Contains(text, key) {
			t.Errorf("the log holds the key of %s", name)
		}
	}
	numbers := string(s.do("GET", s.stats+"/metrics", "", "X-API-Key", who.keys["admin"]).is(200, "").body)
	for _, want := range []string{`parley_http_refusals_total{reason="unauthenticated"}`, `parley_http_refusals_total{reason="limit"} 3`} {
		if !strings.Contains(numbers, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// lockedBuffer takes the log of several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
