package api_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/nodetest"
)

// allocated is how many bytes the process has allocated since it began.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func TestBadBodies(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 1)
	s := serve(t, net.Members[0], nil)
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		name, body string
		status     int
		code, says string
	}{
		{"depth 10,000", `{"value":` + deep(10_000) + `}`, 400, "FF90004", "depth"},
		{"depth of an object", `{"value":` + strings.Repeat(`{"a":`, 10_000) + `1` + strings.Repeat(`}`, 10_000) + `}`, 400, "FF90004", "depth"},
		{"depth that is never closed", strings.Repeat("[", 1_000_000), 400, "FF90004", "depth"},
		{"invalid UTF-8 in a value", "{\"value\":\"\xff\"}", 400, "FF90004", "UTF-8"},
		{"half a character at the end", "{\"value\":\"\xe2\x82\"}", 400, "FF90004", "UTF-8"},
		{"invalid UTF-8 after the value", "{\"value\":1} \xff", 400, "FF90004", "UTF-8"},
		{"invalid UTF-8 in a key", "{\"value\":1,\"\xc0\xaf\":2}", 400, "FF90004", "UTF-8"},
		{"nothing", ``, 400, "FF90004", "empty"},
		{"half", `{"value":`, 400, "FF90004", "EOF"},
		{"a control character", "{\"value\":\"\x01\"}", 400, "FF90004", "invalid character"},
		{"a list", `[]`, 400, "FF90004", "array"},
		{"a huge number for a field", `{"datatype":{"name":1e999}}`, 400, "FF90004", "number"},
		{"a name without end", `{"datatype":{"name":"` + strings.Repeat("x", 100_000) + `","version":"1"}}`, 400, "", ""},
		// Not wrong, and kept as they came.
		{"duplicate keys in a value", `{"value":{"a":1,"a":2}}`, 201, "", `{"a":1,"a":2}`},
		{"half of a surrogate pair, escaped", `{"value":"\ud800"}`, 201, "", `"\ud800"`},
		{"a number that no type holds", `{"value":1e999999}`, 201, "", `1e999999`},
		// The last one counts, as existing servers have it.
		{"duplicate keys of ours", `{"value":1,"value":2}`, 201, "", `"value":2`},
	} {
		a := s.post("data", c.body).is(c.status, c.code)
		if !strings.Contains(string(a.body), c.says) {
			t.Errorf("%s: %s, want %q", c.name, a.body, c.says)
		}
		if len(a.body) > 2000 {
			t.Errorf("%s: the answer has %d bytes", c.name, len(a.body))
		}
	}
	for name, form := range map[string]string{
		"no part":          "",
		"no end":           "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\ncontent",
		"no header":        "--b\r\n\r\ncontent\r\n--b--\r\n",
		"a broken header":  "--b\r\nContent-Disposition\r\n\r\ncontent\r\n--b--\r\n",
		"a header, no end": "--b\r\n" + strings.Repeat("X: y\r\n", 100_000),
		"another boundary": "--c\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\ncontent\r\n--c--\r\n",
		"a text not UTF-8": "--b\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n\xff\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\ncontent\r\n--b--\r\n",
		"a name not UTF-8": "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"\xff\"\r\n\r\ncontent\r\n--b--\r\n",
	} {
		if a := s.do("POST", "data", form, "Content-Type", "multipart/form-data; boundary=b"); a.status != 400 || len(a.body) > 2000 {
			t.Errorf("a form with %s: %d %.300s", name, a.status, a.body)
		}
	}
	s.do("POST", "data", "x", "Content-Type", "multipart/form-data").is(400, "FF90004")
	s.get("status").is(200, "")
}

// endless is a body of n bytes that nobody has in memory.
type endless struct{ left int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), e.left)
	for i := range p[:n] {
		p[i] = '1'
	}
	e.left -= n
	return int(n), nil
}

// A body of 100 MB costs the node no more memory than the limit of bodies
// allows, or a stream's buffer. Not parallel: the memory is the process's.
func TestLargeBodiesTakeBoundedMemory(t *testing.T) {
	net := nodetest.Network(t, 1)
	s := serve(t, net.Members[0], nil)
	const size = 100 << 20
	send := func(kind string, body io.Reader) (int, uint64) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+v1+"data", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", kind)
		before := allocated()
		resp, err := s.client.Do(req)
		if err != nil {
			return 0, allocated() - before // refused, and cut off while it was being sent
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, allocated() - before
	}
	status, took := send(jsonCT, io.MultiReader(strings.NewReader(`{"value":`), &endless{size}, strings.NewReader(`}`)))
	if status != 413 && status != 0 || took > 64<<20 {
		t.Errorf("100 MB of JSON: status %d, %d MiB allocated", status, took>>20)
	}
	status, took = send("multipart/form-data; boundary=b", io.MultiReader(
		strings.NewReader("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n"), &endless{size}, strings.NewReader("\r\n--b--\r\n")))
	if status != 201 || took > 32<<20 {
		t.Errorf("an upload of 100 MB: status %d, %d MiB allocated", status, took>>20)
	}
	status, took = send("multipart/form-data; boundary=b", io.MultiReader(
		strings.NewReader("--b\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n"), &endless{size}, strings.NewReader("\r\n--b--\r\n")))
	if status != 413 && status != 0 || took > 32<<20 {
		t.Errorf("a form field of 100 MB: status %d, %d MiB allocated", status, took>>20)
	}
	s.get("status").is(200, "")
}

// Many sockets, some of whose clients never acknowledge or never read, while
// others get everything.
func TestManySocketsAndSlowConsumers(t *testing.T) {
	net := nodetest.Network(t, 1)
	who := newCallers(t)
	who.add("many", &access.Limits{Sockets: 1000}, access.Grant{Namespace: "default", Role: access.Reader})
	s := serve(t, net.Members[0], func(d *api.Deps) { d.Access, d.QuietRequests = who.control(), true })
	const most = 1000

	before := allocated()
	var failed sync.Map
	var opened sync.WaitGroup
	slots := make(chan struct{}, 50)
	for i := range most {
		slots <- struct{}{}
		opened.Go(func() {
			defer func() { <-slots }()
			// Each wants events, and acknowledges none of them.
			ws, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(s.url, "http")+"/ws?namespace=default&ephemeral&filter.events=message_confirmed", &websocket.DialOptions{
				HTTPClient: s.client, HTTPHeader: http.Header{"X-Api-Key": {who.keys["many"]}},
			})
			if err != nil {
				failed.Store(i, err)
				return
			}
			t.Cleanup(func() { _ = ws.CloseNow() })
		})
	}
	opened.Wait()
	failed.Range(func(i, err any) bool { t.Errorf("socket %v: %v", i, err); return true })
	if _, err := s.socket("/ws", who.keys["many"]); err == nil || !strings.Contains(err.Error(), "429") {
		t.Errorf("socket %d: %v, want 429", most+1, err)
	}
	if each := (allocated() - before) / most; each > 256<<10 {
		t.Errorf("a socket, with both of its ends, took %d KiB", each>>10)
	}

	// Another caller is not concerned, and gets every event in order.
	ws, err := s.socket("/ws?namespace=default&ephemeral&autoack&filter.events=message_confirmed", who.keys["reader"])
	if err != nil {
		t.Fatal(err)
	}
	const messages = 50
	for i := range messages {
		s.do("POST", "messages/broadcast?confirm=true", fmt.Sprintf(`{"header":{"tag":"n%d"},"data":[{"value":%d}]}`, i, i), "X-API-Key", who.keys["operator"]).is(200, "")
	}
	for i := range messages {
		if text := read(t, ws); !strings.Contains(text, fmt.Sprintf(`"tag":"n%d"`, i)) {
			t.Fatalf("event %d is %s", i, text)
		}
	}
}

// A webhook that never answers, one that answers garbage without end, and one
// that is well: the last gets everything.
func TestBadWebhooksDisturbNobody(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 1)
	m := net.Members[0]
	s := serve(t, m, func(d *api.Deps) { d.Deliveries = m.Deliveries })

	reached := make(chan struct{}, 100)
	stop := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	defer hangs.Close()
	defer close(stop)
	garbage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(299)
		_, _ = io.Copy(w, &endless{1 << 40}) // until the node has enough
	}))
	defer garbage.Close()
	traces := make(chan string, 100)
	bodies := make(chan []byte, 100)
	well := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		traces <- r.Header.Get("Traceparent")
		bodies <- text
	}))
	defer well.Close()
	for name, url := range map[string]string{"hangs": hangs.URL, "garbage": garbage.URL, "well": well.URL} {
		s.post("subscriptions", `{"name":"`+name+`","transport":"webhooks","filter":{"events":"message_confirmed","message":{"tag":"call"}},"options":{"url":"`+url+`"}}`).is(201, "")
	}
	before := allocated()
	const calls = 5
	for i := range calls {
		s.do("POST", "messages/broadcast?confirm=true", fmt.Sprintf(`{"header":{"tag":"call"},"data":[{"value":{"n":%d}}]}`, i), "Traceparent", fmt.Sprintf("00-%032x-%016x-00", i+1, 7)).is(200, "")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i := range calls {
		select {
		case text := <-bodies:
			if !bytes.Contains(text, fmt.Appendf(nil, `{"n":%d}`, i)) {
				t.Errorf("call %d got %s", i, text)
			}
			if parent := <-traces; !strings.HasPrefix(parent, fmt.Sprintf("00-%032x-", i+1)) {
				t.Errorf("call %d belongs to the trace %q", i, parent)
			}
		case <-ctx.Done():
			t.Fatalf("call %d did not come", i)
		}
	}
	<-reached
	<-reached
	if took := allocated() - before; took > 256<<20 {
		t.Errorf("%d MiB were allocated meanwhile", took>>20)
	}
	s.get("status").is(200, "")
}

// One trace id goes from the request at one member to the webhook of another.
func TestOneTraceToTheOtherMember(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	a := serve(t, net.Members[0], nil)
	b := serve(t, net.Members[1], func(d *api.Deps) { d.Deliveries = net.Members[1].Deliveries })
	got := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Traceparent") }))
	defer hook.Close()
	b.post("subscriptions", `{"name":"all","transport":"webhooks","filter":{"events":"message_confirmed","message":{"tag":"traced"}},"options":{"url":"`+hook.URL+`"}}`).is(201, "")
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, kind := range []string{"batch_pin", "unpinned"} {
		resp := a.do("POST", "messages/private", `{"header":{"tag":"traced","txtype":"`+kind+`"},"group":{"members":[{"identity":"`+net.Members[1].Name+`"}]},"data":[{"value":1}]}`,
			"Traceparent", "00-"+id+"-00f067aa0ba902b7-01").is(202, "")
		if parent := <-got; !strings.HasPrefix(parent, "00-"+id+"-") || !strings.HasSuffix(parent, "-01") {
			t.Errorf("the other member's webhook belongs to the trace %q", parent)
		}
		if own := resp.header.Get("Traceresponse"); !strings.HasPrefix(own, "00-"+id+"-") || strings.Contains(own, "00f067aa0ba902b7") {
			t.Errorf("the answer belongs to %q", own)
		}
	}
	// A request without a trace begins one.
	own := a.post("messages/private", `{"header":{"tag":"traced"},"group":{"members":[{"identity":"`+net.Members[1].Name+`"}]},"data":[{"value":1}]}`).is(202, "").header.Get("Traceresponse")
	if parent := <-got; len(own) != 55 || parent[:36] != own[:36] {
		t.Errorf("the answer belongs to %q, the delivery to %q", own, parent)
	}
}
