package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/store"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// node is a bench with a real HTTP server in front.
type node struct {
	*bench
	ws   *WebSockets
	http *httptest.Server
}

func newNode(t testing.TB, cfg WebSocketConfig) *node {
	b := newBench(t)
	cfg.Logger = b.subs.logger
	n := &node{bench: b, ws: NewWebSockets(cfg, b.subs)}
	mux := http.NewServeMux()
	mux.Handle("/ws", n.ws)
	mux.HandleFunc("/ns/{ns}/ws", func(w http.ResponseWriter, r *http.Request) { n.ws.ServeNamespace(w, r, r.PathValue("ns")) })
	n.http = httptest.NewServer(mux)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := n.ws.Close(ctx); err != nil {
			t.Errorf("close the WebSockets: %v", err)
		}
		n.http.Close()
	})
	return n
}

// client is a WebSocket client as existing ones are.
type client struct {
	*websocket.Conn
	t   testing.TB
	ctx context.Context
}

func (n *node) dial(t testing.TB, path string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	conn, _, err := websocket.Dial(ctx, n.http.URL+path, nil)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	conn.SetReadLimit(-1)
	t.Cleanup(func() {
		_ = conn.CloseNow() // closed by most tests already
		cancel()
	})
	return &client{conn, t, ctx}
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	if err := c.Write(c.ctx, websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		c.t.Fatal(err)
	}
}

// received is any frame that a server sends.
type received struct {
	ID           uuid.UUID
	Type         string
	Error        string
	Sequence     int64
	Topic        string
	Subscription Ref
	Message      *store.Message
	Events       []received
}

func (c *client) next() (f received) {
	c.t.Helper()
	_, text, err := c.Read(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	return f
}

// expect reads events and checks their topics.
func (c *client) expect(topics ...string) []received {
	c.t.Helper()
	var frames []received
	for _, topic := range topics {
		f := c.next()
		if f.Topic != topic {
			c.t.Fatalf("got %s with topic %q, want topic %q (then %v)", f.Type, f.Topic, topic, topics)
		}
		frames = append(frames, f)
	}
	return frames
}

func (c *client) ack(f received) {
	c.t.Helper()
	c.send(`{"type":"ack","id":"%s","subscription":{"id":"%s","namespace":"%s","name":"%s"}}`,
		f.ID, f.Subscription.ID, f.Subscription.Namespace, f.Subscription.Name)
}

// hangUp closes and returns when the node has let the connection go.
func (c *client) hangUp(n *node) {
	c.t.Helper()
	before := len(n.ws.Connections())
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		c.t.Fatal(err)
	}
	n.until(c.t, "the connection has ended", func() bool { return len(n.ws.Connections()) < before })
}

// until polls for what shows itself in no other way.
func (n *node) until(t testing.TB, what string, true func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !true() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v until %s", patience, what)
		}
	}
}

func (n *node) position(t testing.TB, id uuid.UUID) int64 {
	t.Helper()
	s, err := n.subs.GetWithStatus(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s.Status.CurrentOffset
}

func TestDurableDeliveryInOrderOneAtATime(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	sub := n.create(t, `{"name":"app"}`)
	n.fill(t, 3)
	c := n.dial(t, "/ws")
	c.send(`{"type":"start","namespace":"default","name":"app"}`)
	for i := range 3 {
		f := c.expect(fmt.Sprint("t", i))[0]
		if want := (Ref{ID: sub.ID, Namespace: ns, Name: "app"}); f.Subscription != want {
			t.Errorf("delivery is of %+v, want %+v", f.Subscription, want)
		}
		c.ack(f)
	}
	n.until(t, "position 3", func() bool { return n.position(t, sub.ID) == 3 })
	n.fill(t, 1)
	c.expect("t0")
}

func TestAckForms(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	n.create(t, `{"name":"app","options":{"readAhead":10}}`)
	n.fill(t, 6)
	c := n.dial(t, "/ws")
	c.send(`{"type":"start","namespace":"default","name":"app"}`)
	f := c.expect("t0", "t1", "t2", "t3", "t4", "t5")
	c.send(`{"type":"ack"}`)
	c.send(`{"type":"ack","id":"%s"}`, f[1].ID)
	c.send(`{"type":"ack","id":"%s","subscription":{"namespace":"default","name":"app"}}`, f[2].ID)
	c.send(`{"type":"ack","subscription":{"id":"%s"}}`, f[3].Subscription.ID)
	n.until(t, "position 4", func() bool { return n.position(t, f[0].Subscription.ID) == 4 })
}

// Only what was not acknowledged comes again, whatever the order of acks.
func TestReconnectRedeliversTheUnacknowledged(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	sub := n.create(t, `{"name":"app","options":{"readAhead":9}}`)
	n.fill(t, 20)
	c := n.dial(t, "/ws?namespace=default&name=app")
	f := c.expect("t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9")
	for _, i := range []int{2, 0, 1, 4} { // t3 is missing, so t4 does not count yet
		c.ack(f[i])
	}
	n.until(t, "position 3", func() bool { return n.position(t, sub.ID) == 3 })
	c.hangUp(n)
	n.until(t, "stored position 3", func() bool {
		s, err := n.subs.Get(t.Context(), sub.ID)
		return err == nil && s.Position == 3
	})
	again := n.dial(t, "/ws?namespace=default&name=app")
	var want []string
	for i := 3; i < 13; i++ {
		want = append(want, fmt.Sprint("t", i))
	}
	again.expect(want...)
}

func TestSecondConsumerStandsBy(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	n.create(t, `{"name":"app","options":{"readAhead":4}}`)
	first := n.dial(t, "/ws?namespace=default&name=app")
	n.until(t, "the first has started", func() bool { return n.subs.queued("app") == 1 })
	second := n.dial(t, "/ws?namespace=default&name=app")
	n.until(t, "both have started", func() bool { return n.subs.queued("app") == 2 })
	n.fill(t, 5)
	f := first.expect("t0", "t1", "t2", "t3", "t4")
	first.ack(f[0])
	first.ack(f[1])
	n.until(t, "position 2", func() bool { return n.position(t, f[0].Subscription.ID) == 2 })
	first.hangUp(n)
	second.expect("t2", "t3", "t4") // had it been served before, t0 would be first
}

// queued is how many consumers are in line for a name.
func (s *Subscriptions) queued(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lines[name]; l != nil {
		return len(l.queue)
	}
	return 0
}

func TestStartBeforeTheSubscriptionExists(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	c := n.dial(t, "/ws")
	c.send(`{"type":"start","namespace":"default","name":"later"}`)
	n.until(t, "it is in line", func() bool { return n.subs.queued("later") == 1 })
	n.create(t, `{"name":"later"}`)
	n.fill(t, 1)
	c.expect("t0")
}

// A replaced definition takes effect at once; what was in flight under the old
// one comes again if the new one selects it, and late acks for it do no harm.
func TestReplacedDefinitionRestartsDelivery(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	sub := n.create(t, `{"name":"app","options":{"readAhead":4}}`)
	n.fill(t, 8)
	c := n.dial(t, "/ws?namespace=default&name=app")
	f := c.expect("t0", "t1", "t2", "t3", "t4")
	c.ack(f[0])
	n.until(t, "position 1", func() bool { return n.position(t, sub.ID) == 1 })
	c.expect("t5") // there is room again
	if _, err := n.subs.CreateOrUpdate(t.Context(), input(t, `{"name":"app","filter":{"topic":"[37]"},"options":{"readAhead":4}}`)); err != nil {
		t.Fatal(err)
	}
	g := c.expect("t3", "t7")
	for _, late := range f[1:] {
		c.ack(late) // t3's counts: it is the same event
	}
	c.ack(g[1])
	n.until(t, "position 8", func() bool { return n.position(t, sub.ID) == 8 })
	c.ack(g[0]) // a second ack for t3, whose first delivery was withdrawn
	n.append(t, &store.Event{Type: "x", Topic: "3"})
	c.expect("3")
}

func TestDeletedSubscriptionEndsDelivery(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	sub := n.create(t, `{"name":"app"}`)
	n.fill(t, 2)
	c := n.dial(t, "/ws?namespace=default&name=app")
	f := c.expect("t0")
	if err := n.subs.Delete(t.Context(), sub.ID); err != nil {
		t.Fatal(err)
	}
	n.create(t, `{"name":"app","options":{"firstEvent":"1"}}`)
	c.expect("t1")
	c.ack(f[0]) // named by the id of the deleted one, and by name
}

func TestEphemeralByQuery(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	msg, _, _, _, _, _ := n.insertObjects(t)
	n.fill(t, 3) // before: not delivered
	c := n.dial(t, "/ws?namespace=default&ephemeral&autoack&changeevents=.*&filter.events=message&filter.message.tag=^order$")
	n.until(t, "it has started", func() bool {
		conns := n.ws.Connections()
		return len(conns) == 1 && len(conns[0].Subscriptions) == 1
	})
	n.fill(t, 3)
	n.append(t, &store.Event{Type: "message_confirmed", Reference: &msg.Header.ID, Topic: "a"},
		&store.Event{Type: "message_confirmed", Topic: "of no message"},
		&store.Event{Type: "message_confirmed", Reference: &msg.Header.ID, Topic: "b"})
	f := c.expect("a", "b")
	if f[0].Message == nil || f[0].Message.Header.Tag != "order" {
		t.Errorf("the event lacks its message: %+v", f[0])
	}
	if r := f[0].Subscription; r.ID.String() != r.Name || r.Namespace != ns || r.ID == uuid.Nil {
		t.Errorf("an ephemeral subscription is named %+v, want its id for a name", r)
	}
}

func TestEphemeralByStartFromOldest(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	n.fill(t, 3)
	c := n.dial(t, "/ns/default/ws")
	c.send(`{"type":"START","ephemeral":true,"filter":{"topic":"t[12]"},"options":{"firstEvent":"oldest","readAhead":3}}`)
	c.expect("t1", "t2")
}

func TestSeveralSubscriptionsOnOneConnection(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	a := n.create(t, `{"name":"a","filter":{"topic":"a"}}`)
	b := n.create(t, `{"name":"b","filter":{"topic":"b"}}`)
	c := n.dial(t, "/ws")
	for _, name := range []string{"a", "b", "a"} { // the second start of a changes nothing
		c.send(`{"type":"start","namespace":"default","name":"%s"}`, name)
	}
	n.append(t, &store.Event{Topic: "b1"})
	c.expect("b1")
	n.append(t, &store.Event{Topic: "a2"})
	c.expect("a2")
	c.send(`{"type":"ack"}`) // the oldest of all is b1
	n.until(t, "b's position is 1", func() bool { return n.position(t, b.ID) >= 1 })
	c.send(`{"type":"ack"}`)
	n.until(t, "a's position is 2", func() bool { return n.position(t, a.ID) >= 2 })
}

func TestBatches(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	sub := n.create(t, `{"name":"app","options":{"batch":true,"readAhead":4,"batchTimeout":"10"}}`)
	n.fill(t, 10)
	c := n.dial(t, "/ws?namespace=default&name=app")
	var sizes []int
	next := 0
	for next < 10 {
		f := c.next()
		if f.Type != "event_batch" || f.Subscription.Name != "app" {
			t.Fatalf("got %+v, want an event_batch", f)
		}
		for _, e := range f.Events {
			if e.Topic != fmt.Sprint("t", next) || e.Subscription != f.Subscription {
				t.Errorf("event %d of the batches is %+v", next, e)
			}
			next++
		}
		sizes = append(sizes, len(f.Events))
		c.ack(f)
	}
	if !slices.Equal(sizes, []int{4, 4, 2}) {
		t.Errorf("batches of %v, want 4, 4 and, after batchTimeout, 2", sizes)
	}
	n.until(t, "position 10", func() bool { return n.position(t, sub.ID) == 10 })
}

// expectDrop checks that the connection ends without a close frame.
func (c *client) expectDrop() {
	c.t.Helper()
	_, text, err := c.Read(c.ctx)
	if err == nil {
		c.t.Fatalf("got %s, want the connection to drop", text)
	}
	if code := websocket.CloseStatus(err); code != -1 {
		c.t.Errorf("closed with %v, want no close frame: %v", code, err)
	}
	if c.ctx.Err() != nil {
		c.t.Errorf("the connection did not drop")
	}
}

func TestProtocolErrorsDropTheConnection(t *testing.T) {
	n := newNode(t, WebSocketConfig{Authorize: func(r *http.Request, namespace string, durable bool) (bool, error) {
		if r.Header.Get("Authorization") == "" && strings.Contains(r.URL.RawQuery, "strict") {
			return false, errors.New("a secret")
		}
		return true, nil
	}})
	for _, test := range []struct{ path, frames, code string }{
		{"/ws", `{`, ""},
		{"/ws", `[]`, ""},
		{"/ws", `{"type":5}`, ""},
		{"/ws", `{"type":"dance"}`, "FF10177"},
		{"/ws", `{"type":"ack","id":"x"}`, ""},
		{"/ws", `{"type":"ack"}`, "FF10175"},
		{"/ws?namespace=default&ephemeral", `{"type":"ack","id":"4f0de51f-4bd4-4b3f-a9a8-7ae0c4b2b1cf"}`, "FF10175"},
		{"/ws?namespace=default&ephemeral", `{"type":"ack","subscription":{"namespace":"default","name":"other"}}`, "FF10175"},
		{"/ws?namespace=default&ephemeral&autoack", `{"type":"ack"}`, "FF10180"},
		{"/ws?namespace=default&ephemeral", `{"type":"start","namespace":"default","name":"a","autoack":true}`, "FF10179"},
		{"/ws", `{"type":"start","name":"a"}`, "FF10178"},
		{"/ws", `{"type":"start","namespace":"default"}`, "FF10178"},
		{"/ws", `{"type":"start","namespace":"mars","name":"a"}`, "FF10436"},
		{"/ws", `{"type":"start","namespace":"default","name":"a","options":{"withData":true}}`, "FF10244"},
		{"/ws", `{"type":"start","namespace":"default","ephemeral":true,"filter":{"events":"("}}`, "FF10171"},
		{"/ws", `{"type":"start","namespace":"default","ephemeral":true,"options":{"firstEvent":"x"}}`, "FF10191"},
		{"/ns/default/ws", `{"type":"start","namespace":"mars","name":"a"}`, "FF10462"},
		{"/ws?strict", `{"type":"start","namespace":"default","name":"a"}`, "FF00000"},
	} {
		c := n.dial(t, test.path)
		c.send("%s", test.frames)
		f := c.next()
		want := "FF10176: Invalid data: " + test.code
		if f.Type != "protocol_error" || !strings.HasPrefix(f.Error, want) || strings.Contains(f.Error, "secret") {
			t.Errorf("%s %s: got %+v, want a protocol_error that begins with %q", test.path, test.frames, f, want)
		}
		c.expectDrop()
	}
}

func TestErrorsOfTheQueryLeaveTheSocketOpen(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	for path, code := range map[string]string{
		"/ws?ephemeral":             "FF10178",
		"/ws?name=a":                "FF10178",
		"/ws?namespace=mars&name=a": "FF10187",
		"/ws?namespace=default&ephemeral&filter.events=" + url.QueryEscape("("): "FF10171",
		"/ws?namespace=default&ephemeral&readahead=x":                           "FF00143",
		"/ns/default/ws?namespace=mars":                                         "FF10462",
	} {
		c := n.dial(t, path)
		if f := c.next(); f.Type != "protocol_error" || !strings.HasPrefix(f.Error, code+": ") {
			t.Errorf("%s: got %+v, want a protocol_error with %s", path, f, code)
		}
		last, err := n.log.Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.send(`{"type":"start","namespace":"default","ephemeral":true,"options":{"firstEvent":"%d"}}`, last)
		n.fill(t, 1)
		c.expect("t0")
		c.hangUp(n)
	}
}

func TestUnknownNamespaceInThePath(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	resp, err := http.Get(n.http.URL + "/ns/mars/ws")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 404 || !strings.Contains(string(body), `{"error":"FF10109: `) {
		t.Errorf("got %d %s (%v), want 404 with FF10109", resp.StatusCode, body, err)
	}
}

func TestOrigins(t *testing.T) {
	n := newNode(t, WebSocketConfig{AllowedOrigins: []string{"app.example.com"}})
	for origin, allowed := range map[string]bool{
		"":                          true,
		n.http.URL:                  true,
		"https://app.example.com":   true,
		"https://evil.example.com":  false,
		"https://app.example.com.x": false,
		"null":                      false,
	} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		conn, resp, err := websocket.Dial(ctx, n.http.URL+"/ws", &websocket.DialOptions{HTTPHeader: header})
		if (err == nil) != allowed {
			t.Errorf("origin %q: %v, want allowed = %t", origin, err, allowed)
		}
		if err != nil && (resp == nil || resp.StatusCode != http.StatusForbidden) {
			t.Errorf("origin %q: answered %v, want 403", origin, resp)
		}
		if conn != nil {
			_ = conn.CloseNow()
		}
		cancel()
	}
}

func TestConnectionsAreListed(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	if text, err := json.Marshal(n.ws.Connections()); err != nil || string(text) != "[]" {
		t.Errorf("without connections: %s, %v", text, err)
	}
	c := n.dial(t, "/ws?namespace=default&name=app")
	c.send(`{"type":"start","namespace":"default","ephemeral":true,"filter":{"topic":"x"}}`)
	n.until(t, "both have started", func() bool {
		conns := n.ws.Connections()
		return len(conns) == 1 && len(conns[0].Subscriptions) == 2
	})
	conn := n.ws.Connections()[0]
	if conn.ID == uuid.Nil || conn.RemoteAddress == "" || conn.UserAgent == "" {
		t.Errorf("connection %+v lacks id, address or agent", conn)
	}
	durable, ephemeral := conn.Subscriptions[0], conn.Subscriptions[1]
	if durable.Name != "app" || durable.Ephemeral || durable.Namespace != ns || durable.StartTime == 0 {
		t.Errorf("durable subscription is listed as %+v", durable)
	}
	if ephemeral.Name != "" || !ephemeral.Ephemeral || ephemeral.Filter.Topic != "x" {
		t.Errorf("ephemeral subscription is listed as %+v", ephemeral)
	}
}

// Close waits for the acks of what is in flight, says goodbye and stores the
// position.
func TestCloseDrainsAndStores(t *testing.T) {
	n := newNode(t, WebSocketConfig{DrainTime: patience})
	sub := n.create(t, `{"name":"app","options":{"readAhead":1}}`)
	n.fill(t, 5)
	c := n.dial(t, "/ws?namespace=default&name=app")
	f := c.expect("t0", "t1")
	closed := make(chan error, 1)
	go func() { closed <- n.ws.Close(c.ctx) }()
	n.until(t, "it is draining", func() bool {
		n.ws.mu.Lock()
		defer n.ws.mu.Unlock()
		for conn := range n.ws.conns {
			conn.mu.Lock()
			closing := conn.closing
			conn.mu.Unlock()
			return closing
		}
		return false
	})
	c.ack(f[0])
	c.ack(f[1])
	if _, text, err := c.Read(c.ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("got %s, %v; want a close frame with 1001", text, err)
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	stored, err := n.subs.Get(t.Context(), sub.ID)
	if err != nil || stored.Position != 2 {
		t.Errorf("stored %+v, %v; want position 2", stored, err)
	}
	late := n.dial(t, "/ws")
	if _, _, err := late.Read(late.ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("a connection after Close ended with %v, want 1001", err)
	}
}

// A client that shows nothing for long, not even pongs, makes room for the next.
func TestSilentClientIsDropped(t *testing.T) {
	n := newNode(t, WebSocketConfig{PingInterval: 10 * time.Millisecond, SilenceLimit: 50 * time.Millisecond})
	n.create(t, `{"name":"app"}`)
	n.dial(t, "/ws?namespace=default&name=app") // never reads, so never sends a pong
	n.until(t, "it is in line", func() bool { return n.subs.queued("app") == 1 })
	n.until(t, "it was dropped", func() bool { return n.subs.queued("app") == 0 })
}

func TestPingIsAnswered(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	c := n.dial(t, "/ws")
	ctx := c.CloseRead(c.ctx)
	if err := c.Ping(ctx); err != nil {
		t.Fatal(err)
	}
}

// A client that reads slowly holds up the log, and misses nothing.
func TestSlowClientMissesNothing(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	const count = 3000
	sub := n.create(t, `{"name":"app","options":{"readAhead":65535}}`)
	topic := strings.Repeat("x", 4000) // 12 MB in all: more than the sockets buffer
	events := make([]*store.Event, count)
	for i := range events {
		events[i] = &store.Event{Type: "x", Topic: topic}
	}
	n.append(t, events...)
	c := n.dial(t, "/ws?namespace=default&name=app&autoack")
	n.until(t, "writing stands still", func() bool {
		at := n.position(t, sub.ID)
		return at > 0 && at < count
	})
	for i := range count {
		if f := c.next(); f.Sequence != int64(i+1) {
			t.Fatalf("event %d has sequence %d", i, f.Sequence)
		}
	}
	n.until(t, "all are acknowledged", func() bool { return n.position(t, sub.ID) == count })
}

// Whatever a client sends, it gets an error or is understood.
func FuzzClientFrames(f *testing.F) {
	for _, seed := range []string{
		`{"type":"start","namespace":"default","name":"a"}`,
		`{"type":"start","namespace":"default","ephemeral":true,"autoack":true,"filter":{"events":".*","message":{"tag":"x"}},"options":{"batch":true,"readAhead":3,"batchTimeout":"1s","firstEvent":"oldest"}}`,
		`{"type":"ack"}`, `{"type":"ack","id":"4f0de51f-4bd4-4b3f-a9a8-7ae0c4b2b1cf","subscription":{"id":"4f0de51f-4bd4-4b3f-a9a8-7ae0c4b2b1cf","namespace":"default","name":"a"}}`,
		`{"type":"ack","subscription":null}`, `{"type":null}`, `null`, `{}`, ``, `{"type":"start","options":[]}`, "\xff\x00",
	} {
		f.Add([]byte(seed))
	}
	b := newBench(f)
	server := NewWebSockets(WebSocketConfig{}, b.subs)
	f.Fuzz(func(t *testing.T, text []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &connection{server: server, request: httptest.NewRequest("GET", "/ws", nil), ctx: ctx, cancel: cancel}
		first := c.handle(text)
		second := c.handle(text)
		cancel()
		c.deliveries.Wait()
		if first != nil && second == nil {
			t.Errorf("%q was refused (%v) and then accepted", text, first)
		}
	})
}

// Where an ephemeral subscription of the query begins is settled before the
// client learns that it is connected: what happens from then on is delivered.
func TestEphemeralBeginsAtTheUpgrade(t *testing.T) {
	var n *node
	n = newNode(t, WebSocketConfig{Authorize: func(*http.Request, string, bool) (payloads bool, err error) { // is asked after the upgrade
		n.append(t, &store.Event{Topic: "at once"})
		return true, nil
	}})
	n.fill(t, 3)
	n.dial(t, "/ws?namespace=default&ephemeral&autoack").expect("at once")
}
