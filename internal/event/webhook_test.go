package event

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/store"
)

var loopback = []string{"127.0.0.0/8", "::1"}

// outward is a bench whose subscriptions the node carries itself.
type outward struct {
	*bench
	t    testing.TB
	out  *Outbound
	stop context.CancelFunc
	done chan error
}

func newOutward(t testing.TB, cfg OutboundConfig) *outward {
	return outwardOn(t, newBench(t), cfg)
}

func outwardOn(t testing.TB, b *bench, cfg OutboundConfig) *outward {
	t.Helper()
	cfg.Grace = time.Millisecond
	out, err := NewOutbound(b.subs, cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := &outward{bench: b, t: t, out: out}
	o.start()
	t.Cleanup(o.halt)
	return o
}

func (o *outward) start() {
	var ctx context.Context
	ctx, o.stop = context.WithCancel(context.Background())
	o.done = make(chan error, 1)
	go func() { o.done <- o.out.Run(ctx) }()
}

func (o *outward) halt() {
	if o.stop == nil {
		return
	}
	o.stop()
	if err := <-o.done; err != nil {
		o.t.Errorf("Run = %v", err)
	}
	o.stop = nil
}

// restart stops as a node does and goes on with what the database holds.
func (o *outward) restart(cfg OutboundConfig) {
	o.t.Helper()
	o.halt()
	cfg.Grace = time.Millisecond
	o.subs = NewSubscriptions(o.log, o.subs.logger)
	o.t.Cleanup(func() {
		if err := o.subs.Close(context.Background()); err != nil {
			o.t.Error(err)
		}
	})
	var err error
	if o.out, err = NewOutbound(o.subs, cfg); err != nil {
		o.t.Fatal(err)
	}
	o.start()
}

func (o *outward) until(what string, ok func() bool) {
	o.t.Helper()
	(&node{bench: o.bench}).until(o.t, what, ok)
}

func (o *outward) position(sub *store.Subscription) int64 {
	s, err := o.subs.GetWithStatus(context.Background(), sub.ID)
	if err != nil {
		o.t.Fatal(err)
	}
	return s.Status.CurrentOffset
}

func (o *outward) deliveries(sub *store.Subscription) []store.Delivery {
	o.t.Helper()
	if err := o.out.journal.save(context.Background()); err != nil {
		o.t.Fatal(err)
	}
	var q store.Query
	if err := q.Where(&store.Deliveries.Collection, "subscription", sub.ID); err != nil {
		o.t.Fatal(err)
	}
	list, _, err := store.List(context.Background(), o.db, store.Deliveries, ns, q)
	if err != nil {
		o.t.Fatal(err)
	}
	return list
}

// called is a request that a receiver has got.
type called struct {
	*http.Request
	body string
}

// topic is that of the event in the body.
func (c called) topic(t testing.TB) string {
	t.Helper()
	var e struct{ Topic string }
	if err := json.Unmarshal([]byte(c.body), &e); err != nil {
		t.Fatalf("%s: %v", c.body, err)
	}
	return e.Topic
}

// receiver is a real HTTP server that shows each request to the test and answers
// as the test says.
type receiver struct {
	*httptest.Server
	calls  chan called
	mu     sync.Mutex
	answer func(w http.ResponseWriter, c called)
}

func newReceiver(t testing.TB, answer func(w http.ResponseWriter, c called)) *receiver {
	r := &receiver{calls: make(chan called, 10_000), answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // the client has gone
		}
		c := called{req, string(body)}
		r.mu.Lock()
		answer := r.answer
		r.mu.Unlock()
		r.calls <- c
		if answer != nil {
			answer(w, c)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answers(answer func(w http.ResponseWriter, c called)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func status(code int) func(http.ResponseWriter, called) {
	return func(w http.ResponseWriter, _ called) { w.WriteHeader(code) }
}

func (r *receiver) next(t testing.TB) called {
	t.Helper()
	select {
	case c := <-r.calls:
		return c
	case <-time.After(patience):
		t.Fatal("no request came")
		return called{}
	}
}

func (o *outward) hook(url, options string) *store.Subscription {
	o.t.Helper()
	if options != "" {
		options = "," + options
	}
	return o.create(o.t, fmt.Sprintf(`{"name":"hook","transport":"webhooks","options":{"url":%q,"retry":{"initialDelay":"1ms","maxDelay":"5ms"}%s}}`, url, options))
}

func TestWebhookDeliversInOrderAndMovesThePosition(t *testing.T) {
	o := newOutward(t, OutboundConfig{Allow: loopback})
	r := newReceiver(t, nil)
	sub := o.hook(r.URL+"/in?a=1", `"headers":{"X-Key":"k"},"query":{"b":"2"}`)
	events := o.fill(t, 20)
	for i := range events {
		c := r.next(t)
		if got, want := c.topic(t), fmt.Sprint("t", i); got != want {
			t.Fatalf("request %d has topic %q, want %q", i, got, want)
		}
		if c.Method != "POST" || c.URL.Path != "/in" || c.URL.RawQuery != "a=1&b=2" || c.Header.Get("X-Key") != "k" || c.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("request %s %s with %v", c.Method, c.URL, c.Header)
		}
		if c.Header.Get(headerWebhookID) != events[i].ID.String() {
			t.Errorf("webhook-id is %q, want the event's id", c.Header.Get(headerWebhookID))
		}
	}
	o.until("the position moves", func() bool { return o.position(sub) == events[19].Sequence })
	o.until("all are logged", func() bool { return len(o.deliveries(sub)) == 20 })
	for _, d := range o.deliveries(sub) {
		if d.State != store.DeliveryDelivered || d.Attempts != 1 || d.Status != 200 || d.Events != 1 {
			t.Errorf("delivery %+v", d)
		}
	}
}

func TestWebhookRetriesUntilTaken(t *testing.T) {
	for name, fault := range map[string]func(w http.ResponseWriter, c called){
		"500": status(500),
		"reset after processing": func(w http.ResponseWriter, _ called) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close() // as a crash would
			}
		},
		"redirect to a page": func(w http.ResponseWriter, _ called) { w.Header().Set("Location", "/login"); w.WriteHeader(302) },
		"redirect to the metadata service": func(w http.ResponseWriter, _ called) {
			w.Header().Set("Location", "http://169.254.169.254/latest")
			w.WriteHeader(307)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutward(t, OutboundConfig{Allow: loopback})
			r := newReceiver(t, fault)
			sub := o.hook(r.URL, "")
			events := o.fill(t, 2)
			ids := map[string]bool{}
			for range 3 {
				c := r.next(t)
				if c.Method != "POST" || c.topic(t) != "t0" {
					t.Fatalf("%s %s: another event came before the first was taken", c.Method, c.body)
				}
				ids[c.Header.Get(headerWebhookID)] = true
			}
			if len(ids) != 1 {
				t.Errorf("attempts have the ids %v; they must be the same", ids)
			}
			if o.position(sub) != 0 {
				t.Error("the position moved before the event was taken")
			}
			r.answers(status(204))
			o.until("both are taken", func() bool { return o.position(sub) == events[1].Sequence })
		})
	}
}

func TestWebhookTimesOut(t *testing.T) {
	o := newOutward(t, OutboundConfig{Allow: loopback})
	r := newReceiver(t, func(_ http.ResponseWriter, c called) { <-c.Context().Done() })
	sub := o.hook(r.URL, `"httpOptions":{"requestTimeout":"20ms"}`)
	o.fill(t, 1)
	r.next(t)
	r.next(t)
	r.answers(status(200))
	o.until("it is taken", func() bool { return o.position(sub) == 1 })
	d := o.deliveries(sub)
	if len(d) != 1 || d[0].Attempts < 3 {
		t.Errorf("deliveries %+v", d)
	}
}

func TestRestartLosesNothing(t *testing.T) {
	cfg := OutboundConfig{Allow: loopback}
	o := newOutward(t, cfg)
	r := newReceiver(t, nil)
	o.hook(r.URL, "")
	seen := map[string]bool{}
	for round := range 4 {
		o.fill(t, 50)
		c := r.next(t)
		seen[c.Header.Get(headerWebhookID)] = true
		if round%2 == 0 {
			r.answers(func(_ http.ResponseWriter, c called) { <-c.Context().Done() }) // it has it, and the node stops first
		} else {
			r.answers(nil)
		}
		o.restart(cfg)
	}
	r.answers(nil)
	o.restart(cfg)
	for len(seen) < 200 {
		seen[r.next(t).Header.Get(headerWebhookID)] = true
	}
}

func TestDeadLetterAndReplay(t *testing.T) {
	o := newOutward(t, OutboundConfig{Allow: loopback})
	r := newReceiver(t, func(w http.ResponseWriter, c called) {
		if strings.Contains(c.body, `"topic":"t1"`) {
			http.Error(w, "no such order", http.StatusUnprocessableEntity)
		}
	})
	sub := o.create(t, fmt.Sprintf(`{"name":"hook","transport":"webhooks","options":{"url":%q,"retry":{"count":2,"initialDelay":"1ms"}}}`, r.URL))
	events := o.fill(t, 3)
	o.until("the log goes on after the dead one", func() bool { return o.position(sub) == events[2].Sequence })
	o.until("all are logged", func() bool { return len(o.deliveries(sub)) == 3 })
	var dead store.Delivery
	for _, d := range o.deliveries(sub) {
		if d.State == store.DeliveryDead {
			dead = d
		}
	}
	if dead.First != events[1].Sequence || dead.Attempts != 3 || dead.Status != 422 || !strings.Contains(dead.Error, "no such order") {
		t.Fatalf("dead delivery %+v", dead)
	}
	again, err := o.out.Replay(t.Context(), sub.ID, dead.ID)
	if err != nil || again.State != store.DeliveryDead || again.Attempts != 4 {
		t.Fatalf("replay to a receiver that refuses: %+v, %v", again, err)
	}
	r.answers(nil)
	again, err = o.out.Replay(t.Context(), sub.ID, dead.ID)
	if err != nil || again.State != store.DeliveryDelivered || again.Attempts != 5 || again.Error != "" {
		t.Fatalf("replay: %+v, %v", again, err)
	}
	if stored, err := store.Get(t.Context(), o.db, store.Deliveries, ns, dead.ID.String()); err != nil || stored.State != store.DeliveryDelivered {
		t.Errorf("stored %+v, %v", stored, err)
	}
	for range len(r.calls) - 1 {
		r.next(t)
	}
	if c := r.next(t); c.topic(t) != "t1" || c.Header.Get(headerWebhookID) != events[1].ID.String() {
		t.Errorf("replayed as %s", c.body)
	}
	if _, err := o.out.Replay(t.Context(), sub.ID, uuid.New()); err == nil {
		t.Error("a delivery that does not exist was replayed")
	}
}

func TestAckAnyStatusGoesOn(t *testing.T) {
	o := newOutward(t, OutboundConfig{Allow: loopback})
	r := newReceiver(t, status(500))
	sub := o.create(t, fmt.Sprintf(`{"name":"hook","transport":"webhooks","options":{"url":%q,"ackAnyStatus":true}}`, r.URL))
	events := o.fill(t, 3)
	o.until("all are acknowledged", func() bool { return o.position(sub) == events[2].Sequence })
	if n := len(r.calls); n != 3 {
		t.Errorf("%d requests, want one for each event", n)
	}
}

// One topic that is refused holds up its own events and no others.
func TestParallelTopics(t *testing.T) {
	o := newOutward(t, OutboundConfig{Allow: loopback})
	r := newReceiver(t, func(w http.ResponseWriter, c called) {
		if strings.Contains(c.body, `"topic":"stuck"`) {
			w.WriteHeader(503)
		}
	})
	sub := o.hook(r.URL, `"parallelTopics":true`)
	events := []*store.Event{{Type: "x", Topic: "stuck"}, {Type: "x", Topic: "stuck"}}
	for i := range 100 {
		events = append(events, &store.Event{Type: "x", Topic: fmt.Sprint("free", i%3), Reference: new(uuid.New())})
	}
	o.append(t, events...)
	of := map[string][]string{}
	for n := 0; n < 100; {
		c := r.next(t)
		if topic := c.topic(t); topic != "stuck" {
			of[topic] = append(of[topic], c.Header.Get(headerWebhookID))
			n++
		}
	}
	for topic, ids := range of {
		var want []string
		for _, e := range events {
			if e.Topic == topic {
				want = append(want, e.ID.String())
			}
		}
		if !slices.Equal(ids, want) {
			t.Errorf("topic %s came out of order", topic)
		}
	}
	if o.position(sub) != 0 {
		t.Error("the position passed over an event that was not taken")
	}
	r.answers(nil)
	o.until("all are taken", func() bool { return o.position(sub) == 102 })
}

func TestFastAckDoesNotWait(t *testing.T) {
	o := newOutward(t, OutboundConfig{Allow: loopback})
	free := make(chan struct{})
	r := newReceiver(t, func(http.ResponseWriter, called) { <-free })
	sub := o.hook(r.URL, `"fastack":true`)
	events := o.fill(t, 10)
	o.until("all are acknowledged", func() bool { return o.position(sub) == events[9].Sequence })
	close(free)
	for range 10 {
		r.next(t)
	}
}

func TestWebhookIsSigned(t *testing.T) {
	o := newOutward(t, OutboundConfig{Allow: loopback})
	r := newReceiver(t, nil)
	key := []byte("0123456789abcdef0123456789abcdef")
	secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
	sub := o.hook(r.URL, `"secret":"`+secret+`"`)
	verify := func(c called) bool {
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", c.Header.Get("webhook-id"), c.Header.Get("webhook-timestamp"), c.body)
		return c.Header.Get("webhook-signature") == "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	o.fill(t, 1)
	if c := r.next(t); !verify(c) {
		t.Errorf("signature %q does not fit", c.Header.Get("webhook-signature"))
	}
	// The secret is never shown, and what is read can be written back.
	read, err := o.subs.Get(t.Context(), sub.ID)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(read)
	if err != nil || strings.Contains(string(text), secret) || !strings.Contains(string(text), hiddenSecret) {
		t.Fatalf("read as %s", text)
	}
	same, err := o.subs.CreateOrUpdate(t.Context(), input(t, string(text)))
	if err != nil || same.Updated != nil {
		t.Fatalf("written back: %+v, %v", same, err)
	}
	var in map[string]any
	if err := json.Unmarshal(text, &in); err != nil {
		t.Fatal(err)
	}
	in["options"].(map[string]any)["method"] = "put"
	if text, err = json.Marshal(in); err != nil {
		t.Fatal(err)
	}
	if _, err := o.subs.CreateOrUpdate(t.Context(), input(t, string(text))); err != nil {
		t.Fatal(err)
	}
	o.fill(t, 1)
	for {
		c := r.next(t)
		if !verify(c) {
			t.Fatal("the secret was lost by writing the subscription back")
		}
		if c.Method == "PUT" {
			break
		}
	}
}

func TestWebhookOfDataMadeOfAMessage(t *testing.T) {
	for _, test := range []struct {
		options, data string
		path, query   string
		header, body  string
	}{
		{``, `{"a":1}`, "/base", "", "", `{"a":1}`},
		{``, `"text"`, "/base", "", "", `"text"`},
		{`"input":{"path":"p","query":"q","headers":"h","body":"b"}`, `{"p":"/x y/%2F","q":{"k":"v","n":7},"h":{"X-Dyn":"d"},"b":[1]}`, "/base/x%20y/%252F", "k=v&n=7", "d", `[1]`},
		{`"input":{"headers":"h"},"headers":{"X-Dyn":"ours"}`, `{"h":{"X-Dyn":"theirs"}}`, "/base", "", "ours", `{"h":{"X-Dyn":"theirs"}}`},
	} {
		o := newOutward(t, OutboundConfig{Allow: loopback})
		r := newReceiver(t, nil)
		o.hook(r.URL+"/base", test.options)
		o.message(t, "", test.data)
		c := r.next(t)
		if c.URL.EscapedPath() != test.path || c.URL.RawQuery != test.query || c.Header.Get("X-Dyn") != test.header || c.body != test.body {
			t.Errorf("%s: got %s with X-Dyn %q and %s", test.options, c.URL, c.Header.Get("X-Dyn"), c.body)
		}
	}
}

// Data that would lead the request elsewhere is given up at once.
func TestDataMayNotLeaveThePathOrSetHeadersOfTheNode(t *testing.T) {
	for _, data := range []string{`{"p":"../admin"}`, `{"p":".."}`, `{"p":5}`, `{"h":{"Host":"x"}}`, `{"h":{"Webhook-Id":"x"}}`, `{"h":{"A\r\nB":"x"}}`, `{"h":{"A":"x\r\ny"}}`, `{"h":3}`} {
		o := newOutward(t, OutboundConfig{Allow: loopback})
		r := newReceiver(t, nil)
		sub := o.hook(r.URL+"/base", `"input":{"path":"p","headers":"h"}`)
		o.message(t, "", data)
		o.until("it is dead", func() bool {
			d := o.deliveries(sub)
			return len(d) == 1 && d[0].State == store.DeliveryDead
		})
		if len(r.calls) != 0 {
			t.Errorf("%s was sent", data)
		}
	}
}

// message stores a confirmed message with a data value and its event.
func (b *bench) message(t testing.TB, cid, value string) store.UUID {
	t.Helper()
	m := &store.Message{
		Header:         store.MessageHeader{ID: uuid.New(), Type: "broadcast", Author: "did:firefly:org/acme", Created: 1e18, Namespace: ns, Topics: []string{"orders"}},
		LocalNamespace: ns, State: "confirmed", Wire: []byte{1},
	}
	if cid != "" {
		m.Header.CID = new(uuid.MustParse(cid))
	}
	d := &store.Data{ID: uuid.New(), Validator: "json", Namespace: ns, Created: 1e18, Value: json.RawMessage(value)}
	m.Data = []store.DataRef{{ID: d.ID}}
	err := b.db.Write(context.Background(), func(tx *store.Tx) error {
		if err := tx.InsertData([]*store.Data{d}); err != nil {
			return err
		}
		if err := tx.InsertMessages([]*store.Message{m}); err != nil {
			return err
		}
		return tx.LinkData([]store.DataLink{{Message: m.Seq, Data: d.Seq}})
	})
	if err != nil {
		t.Fatal(err)
	}
	b.append(t, &store.Event{Type: "message_confirmed", Topic: "orders", Reference: &m.Header.ID})
	return m.Header.ID
}

func TestReplyAndItsLoopGuard(t *testing.T) {
	replies := make(chan Reply, 10)
	fail := make(chan struct{}, 1)
	fail <- struct{}{}
	o := newOutward(t, OutboundConfig{Allow: loopback, Reply: func(_ context.Context, r Reply) error {
		select {
		case <-fail:
			return errors.New("the database is busy")
		default:
			replies <- r
			return nil
		}
	}})
	r := newReceiver(t, func(w http.ResponseWriter, _ called) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(418)
		fmt.Fprint(w, `{"ok":1}`)
	})
	sub := o.hook(r.URL, `"reply":true,"replytag":"answer","input":{"replytx":"pinned"}`)
	o.message(t, uuid.NewString(), `{}`) // answers another one
	id := o.message(t, "", `{"pinned":false}`)
	got := <-replies
	var a answer
	if err := json.Unmarshal(got.Value, &a); err != nil {
		t.Fatal(err)
	}
	if got.Request.Header.ID != id || got.Tag != "answer" || got.TxType != "unpinned" || a.Status != 418 || string(a.Body) != `{"ok":1}` || a.Headers["Content-Type"] == "" || got.Key == "" {
		t.Errorf("reply %+v with %+v", got, a)
	}
	o.until("it is acknowledged", func() bool { return o.position(sub) == 2 })
	if len(r.calls) != 1 {
		t.Errorf("%d requests; a message that is an answer must not be sent", len(r.calls))
	}
	r.Close()
	o.message(t, "", `{}`)
	got = <-replies
	if err := json.Unmarshal(got.Value, &a); err != nil || a.Status != 502 || !strings.Contains(string(a.Body), "error") {
		t.Errorf("reply of a receiver that is down: %s, %v", got.Value, err)
	}
}

// The receiver asks for a certificate, and the webhook shows the one that the
// operator has given to it by name.
func TestWebhookWithMutualTLS(t *testing.T) {
	names := make(chan int, 1)
	r := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { names <- len(req.TLS.PeerCertificates) }))
	r.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	r.StartTLS()
	t.Cleanup(r.Close)
	roots := x509.NewCertPool()
	roots.AddCert(r.Certificate())
	o := newOutward(t, OutboundConfig{Allow: loopback, TLS: map[string]*tls.Config{
		"partner": {RootCAs: roots, Certificates: r.TLS.Certificates},
		"plain":   {RootCAs: roots},
	}})
	sub := o.create(t, fmt.Sprintf(`{"name":"plain","transport":"webhooks","options":{"url":%q,"tlsConfigName":"plain","retry":{"enabled":false}}}`, r.URL))
	o.hook(r.URL, `"tlsConfigName":"partner"`)
	o.fill(t, 1)
	if n := <-names; n != 1 {
		t.Errorf("the receiver saw %d certificates", n)
	}
	o.until("without a certificate it is dead", func() bool {
		d := o.deliveries(sub)
		return len(d) == 1 && d[0].State == store.DeliveryDead && strings.Contains(d[0].Error, "certificate")
	})
}

func TestWebhookBatchAndCloudEvents(t *testing.T) {
	o := newOutward(t, OutboundConfig{Allow: loopback, Source: "did:firefly:org/acme/namespaces/default"})
	r := newReceiver(t, nil)
	o.hook(r.URL, `"batch":true,"readAhead":3,"batchTimeout":"5s","envelope":"cloudevents"`)
	events := o.fill(t, 3)
	c := r.next(t)
	var list []struct {
		SpecVersion, ID, Source, Type, Subject, Sequence string
		Data                                             struct{ ID string }
	}
	if err := json.Unmarshal([]byte(c.body), &list); err != nil || len(list) != 3 {
		t.Fatalf("%s: %v", c.body, err)
	}
	if e := list[1]; e.SpecVersion != "1.0" || e.ID != events[1].ID.String() || e.Source != o.out.cfg.Source || e.Type != "parley.transaction_submitted" ||
		e.Subject != "t1" || e.Sequence != fmt.Sprintf("%020d", events[1].Sequence) || e.Data.ID != e.ID {
		t.Errorf("CloudEvent %+v", e)
	}
	if got := c.Header.Get("Content-Type"); got != mediaCloudEvents {
		t.Errorf("content type %q", got)
	}
}

func TestChangedAndDeletedWebhooks(t *testing.T) {
	o := newOutward(t, OutboundConfig{Allow: loopback})
	first, second := newReceiver(t, nil), newReceiver(t, nil)
	sub := o.hook(first.URL, "")
	events := o.fill(t, 1)
	first.next(t)
	o.until("it is taken", func() bool { return o.position(sub) == events[0].Sequence })
	if _, err := o.subs.CreateOrUpdate(t.Context(), input(t, fmt.Sprintf(`{"name":"hook","transport":"webhooks","options":{"url":%q}}`, second.URL))); err != nil {
		t.Fatal(err)
	}
	// The old definition may take an event that is already under way.
	for changed := false; !changed; {
		o.fill(t, 1)
		select {
		case c := <-second.calls:
			changed = true
			if c.topic(t) != "t0" {
				t.Errorf("got %s", c.body)
			}
		case <-first.calls:
		case <-time.After(patience):
			t.Fatal("neither the old nor the new address was called")
		}
	}
	if err := o.subs.Delete(t.Context(), sub.ID); err != nil {
		t.Fatal(err)
	}
}

func TestBadWebhooksAreRefused(t *testing.T) {
	o := newOutward(t, OutboundConfig{})
	for options, code := range map[string]string{
		`{}`:                                                                      "FF10242",
		`{"url":"ftp://example.com"}`:                                             "FF00143",
		`{"url":"http://127.0.0.1/x"}`:                                            "FF00143",
		`{"url":"http://localhost:1"}`:                                            "FF00143",
		`{"url":"http://[::ffff:10.0.0.1]/"}`:                                     "FF00143",
		`{"url":"https://u:p@example.com"}`:                                       "FF00143",
		`{"url":"https://example.com","headers":{"a":1}}`:                         "FF10243",
		`{"url":"https://example.com","query":[]}`:                                "FF10243",
		`{"url":"https://example.com","headers":{"Host":"x"}}`:                    "FF00143",
		`{"url":"https://example.com","tlsConfigName":"x"}`:                       "FF10455",
		`{"url":"https://example.com","secret":"short"}`:                          "FF00143",
		`{"url":"https://example.com","secret":"********"}`:                       "FF00143",
		`{"url":"https://example.com","retry":{"count":-1}}`:                      "FF00143",
		`{"url":"https://example.com","retry":{"initialDelay":"x"}}`:              "FF00143",
		`{"url":"https://example.com","envelope":"x"}`:                            "FF00143",
		`{"url":"https://example.com","reply":true}`:                              "FF00143",
		`{"url":"https://example.com","batch":true,"withData":true}`:              "FF10460",
		`{"url":"https://example.com","httpOptions":{"proxyURL":"http://[::1]"}}`: "FF00143",
	} {
		_, err := o.subs.Create(t.Context(), input(t, `{"name":"a","transport":"webhooks","options":`+options+`}`))
		if err == nil || !strings.HasPrefix(err.Error(), code+":") {
			t.Errorf("%s: %v, want %s", options, err, code)
		}
		if err != nil && strings.Contains(err.Error(), "short") {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func FuzzWebhookOptions(f *testing.F) {
	f.Add(`{"url":"https://example.com","headers":{"a":"b"},"retry":{"count":3,"initialDelay":5}}`)
	f.Add(`{"url":"http://[::1]:80/","secret":"whsec_AAAA","input":{"path":"p"},"httpOptions":{"requestTimeout":"1s"}}`)
	f.Add(`{"method":"\u0000","query":{},"deadLetter":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		var o Options
		if json.Unmarshal([]byte(text), &o) != nil {
			return
		}
		g, err := newGuard(nil)
		if err != nil {
			t.Fatal(err)
		}
		w, err := o.webhook()
		if err != nil || w.check(&Outbound{guard: g}) != nil {
			return
		}
		p := w.policy()
		for _, n := range []int{1, 2, 40, 1 << 20} {
			if d := p.wait(n, 0); d < 0 || d > p.longest+time.Nanosecond {
				t.Errorf("waits %v after %d attempts, at most %v", d, n, p.longest)
			}
		}
	})
}
