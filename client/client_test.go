package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/nodetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve puts the API of a member on a port and returns a client of it.
func serve(t *testing.T, m *nodetest.Member, wrap func(http.Handler) http.Handler) (*client.Client, *httptest.Server) {
	t.Helper()
	sockets := event.NewWebSockets(event.WebSocketConfig{}, m.Subscriptions)
	a := api.New(api.Deps{
		Namespace: m.Namespace, DB: m.DB, Messages: m.Messages, Network: m.Network, Log: m.Events, Subscriptions: m.Subscriptions,
		WebSockets: sockets, Blobs: m.Blobs, ClaimOrg: m.ClaimOrg, ClaimNode: m.ClaimNode,
	})
	handler := a.Public
	if wrap != nil {
		handler = wrap(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := sockets.Close(ctx); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	c, err := client.New(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, server
}

func value(t *testing.T, v any) []client.DataRef {
	t.Helper()
	d, err := client.Value(v)
	if err != nil {
		t.Fatal(err)
	}
	return []client.DataRef{d}
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestClient(t *testing.T) {
	net := nodetest.Network(t, 2)
	a, _ := serve(t, net.Members[0], nil)
	b, _ := serve(t, net.Members[1], nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	t.Run("status", func(t *testing.T) {
		if err := a.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		st := must(a.Status(ctx))(t)
		if st.Org.Name != "hospital" || !st.Org.Registered || st.Org.DID == "" || len(st.Org.Verifiers) != 1 || !st.Multiparty.Enabled {
			t.Errorf("status is %+v", st)
		}
		if l := must(a.LedgerStatus(ctx))(t); l.Records == 0 || l.ChainID == 0 {
			t.Errorf("the ledger's status is %+v", l)
		}
		if p := must(a.Peers(ctx))(t); len(p) != 1 || p[0].Name != "insurer-a" {
			t.Errorf("peers are %+v", p)
		}
		if i := must(a.Incidents(ctx, nil))(t); len(i) != 0 {
			t.Errorf("incidents are %+v", i)
		}
	})

	t.Run("messages", func(t *testing.T) {
		key := client.NewMessage{Header: client.Header{Topics: []string{"m"}, Tag: "x"}, Data: value(t, map[string]int{"a": 1}), IdempotencyKey: "once"}
		m := must(a.Broadcast(ctx, key, client.Confirm()))(t)
		if m.State != client.StateConfirmed || m.Confirmed == nil {
			t.Errorf("confirmed as %+v", m)
		}
		if _, err := a.Broadcast(ctx, key); !client.IsDuplicate(err) {
			t.Errorf("the same key again: %v", err)
		}
		net.Members[1].Until("the message is there", func(tx *storeTx) (bool, error) {
			got, err := b.Message(ctx, m.Header.ID)
			if client.IsNotFound(err) {
				return false, nil
			}
			return err == nil && got.State == client.StateConfirmed && string(got.Data[0].Value) == `{"a":1}`, err
		})
		if list := must(b.Messages(ctx, url.Values{"tag": {"x"}, "fetchdata": {"true"}}))(t); len(list) != 1 || list[0].Data[0].Value == nil {
			t.Errorf("listed as %+v", list)
		}
		if n := must(b.Count(ctx, "messages", url.Values{"tag": {"x"}}))(t); n != 1 {
			t.Errorf("counted as %d", n)
		}
		p := must(a.Private(ctx, client.NewMessage{Group: &client.Group{Members: []client.Member{{Identity: "insurer-a"}}}, Data: value(t, 1)}, client.Confirm()))(t)
		if blockers := must(a.Blockers(ctx, p.Header.Group, "default"))(t); len(blockers) != 0 {
			t.Errorf("blockers are %+v", blockers)
		}
		_, err := a.Message(ctx, "no-uuid")
		e, ok := errors.AsType[*client.Error](err)
		if !ok || e.Status != 400 || e.Code != "FF00138" {
			t.Errorf("a bad id: %v", err)
		}
		late, cancel := context.WithTimeout(ctx, time.Nanosecond)
		defer cancel()
		if _, err := a.Broadcast(late, client.NewMessage{Data: value(t, 1)}, client.Confirm()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("past its deadline: %v", err)
		}
	})

	t.Run("data", func(t *testing.T) {
		schema := json.RawMessage(`{"type":"integer"}`)
		must(a.CreateDatatype(ctx, client.Datatype{Name: "n", Version: "1", Value: schema}, client.Confirm()))(t)
		if d := must(a.Datatype(ctx, "n", "1"))(t); string(d.Value) != string(schema) {
			t.Errorf("the datatype is %+v", d)
		}
		v := must(a.UploadData(ctx, client.DataRef{Value: json.RawMessage("7"), Datatype: &client.DatatypeRef{Name: "n", Version: "1"}}))(t)
		if got := must(a.Data(ctx, v.ID))(t); string(got.Value) != "7" {
			t.Errorf("the value is %s", got.Value)
		}
		content := bytes.Repeat([]byte("parley "), 300_000)
		d := must(a.UploadBlob(ctx, bytes.NewReader(content), client.BlobUpload{Filename: "f é.txt", ContentType: "text/plain", AutoMeta: true, Metadata: json.RawMessage(`{"k":"v"}`)}))(t)
		if d.Blob == nil || d.Blob.Size != int64(len(content)) || d.Blob.Name != "f é.txt" || !strings.Contains(string(d.Value), `"mimetype":"text/plain"`) {
			t.Errorf("stored as %+v with %s", d.Blob, d.Value)
		}
		r, size, err := a.Blob(ctx, d.ID)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got := must(io.ReadAll(r))(t); !bytes.Equal(got, content) || size != int64(len(content)) {
			t.Errorf("downloaded %d of %d bytes", len(got), size)
		}
		if err := a.DeleteData(ctx, d.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.Blob(ctx, d.ID); !client.IsNotFound(err) {
			t.Errorf("a deleted blob: %v", err)
		}
		broken := io.MultiReader(strings.NewReader("x"), failing{})
		if _, err := a.UploadBlob(ctx, broken, client.BlobUpload{}); !errors.Is(err, errBroken) {
			t.Errorf("a source that fails: %v", err)
		}
	})

	t.Run("network", func(t *testing.T) {
		if orgs := must(a.Organisations(ctx, nil))(t); len(orgs) != 2 {
			t.Errorf("organisations are %+v", orgs)
		}
		if nodes := must(a.Nodes(ctx, nil))(t); len(nodes) != 2 {
			t.Errorf("nodes are %+v", nodes)
		}
		members := must(a.Members(ctx))(t)
		if len(members) != 2 || !members[0].Active || members[0].Node == nil || len(members[0].Keys) != 1 || members[0].Name == "" {
			t.Errorf("members are %+v", members)
		}
		transfers := must(b.Transfers(ctx, 0, 1000))(t)
		if len(transfers) == 0 || transfers[0].Author.Name == "" || transfers[0].Handles == 0 && !transfers[0].Control || !transfers[0].Member {
			t.Errorf("transfers are %+v", transfers)
		}
		if more := must(b.Transfers(ctx, transfers[len(transfers)-1].Number, 10))(t); len(more) != 0 {
			t.Errorf("below the first transfer: %+v", more)
		}
		id := must(a.CreateIdentity(ctx, client.NewIdentity{Name: "ward-7", Key: net.Members[0].Key.String(), Description: "d"}, client.Confirm()))(t)
		got := must(a.Identity(ctx, id.DID))(t)
		if got.ID != id.ID || got.Type != "custom" || got.Parent == "" {
			t.Errorf("claimed as %+v", got)
		}
		if all := must(a.Identities(ctx, url.Values{"type": {"custom"}}))(t); len(all) != 1 {
			t.Errorf("custom identities are %+v", all)
		}
		if err := a.Propose(ctx, client.Change{}); !hasCode(err, "FF10292") {
			t.Error(err)
		}
	})

	t.Run("subscriptions", func(t *testing.T) {
		sub := must(a.PutSubscription(ctx, client.Subscription{Name: "s1", Options: client.SubscriptionOptions{FirstEvent: "oldest"}}))(t)
		if got := must(a.Subscription(ctx, sub.ID))(t); got.Status == nil || got.Name != "s1" {
			t.Errorf("the subscription is %+v", got)
		}
		if all := must(a.Subscriptions(ctx, nil))(t); len(all) != 1 {
			t.Errorf("subscriptions are %+v", all)
		}
		if events := must(a.Events(ctx, url.Values{"type": {"message_confirmed"}, "limit": {"1"}}))(t); len(events) != 1 || events[0].Message == nil {
			t.Errorf("events are %+v", events)
		}
		if err := a.DeleteSubscription(ctx, sub.ID); err != nil {
			t.Fatal(err)
		}
		if err := a.DeleteSubscription(ctx, sub.ID); !client.IsNotFound(err) {
			t.Errorf("deleted twice: %v", err)
		}
	})
}

var errBroken = errors.New("broken source")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroken }

// A listener gets every event once in order, across lost connections, and
// learns of a refusal.
func TestListen(t *testing.T) {
	net := nodetest.Network(t, 2)
	var cut atomic.Pointer[context.CancelFunc] // ends the connection that is open
	a, _ := serve(t, net.Members[0], func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/ws" {
				hijack := &hijacked{ResponseWriter: w}
				stop := context.CancelFunc(hijack.cut)
				cut.Store(&stop)
				w = hijack
			}
			next.ServeHTTP(w, r)
		})
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	for name, l := range map[string]client.ListenOptions{
		"durable":   {Name: "d"},
		"ephemeral": {Options: client.SubscriptionOptions{FirstEvent: "oldest"}, Filter: client.Filter{Events: "^message_confirmed$", Topic: "^ephemeral$"}},
		"batches":   {Options: client.SubscriptionOptions{FirstEvent: "oldest", Batch: true, ReadAhead: 3}, Filter: client.Filter{Topic: "^batches$"}},
	} {
		t.Run(name, func(t *testing.T) {
			if l.Name != "" {
				must(a.PutSubscription(ctx, client.Subscription{Name: l.Name, Filter: client.Filter{Topic: "^durable$"}, Options: client.SubscriptionOptions{FirstEvent: "oldest"}}))(t)
			}
			const n = 8
			var sent []string
			send := func() {
				for range n / 2 {
					m := must(a.Broadcast(ctx, client.NewMessage{Header: client.Header{Topics: []string{name}}, Data: value(t, 1)}, client.Confirm()))(t)
					sent = append(sent, m.Header.ID)
				}
			}
			send()
			var got []string
			done := errors.New("all are here")
			lost := 0
			l.Disconnected = func(error) { lost++ }
			err := a.Listen(ctx, l, func(_ context.Context, events []client.Event) error {
				for _, ev := range events {
					if !slices.Contains(got, ev.Reference) { // at least once
						got = append(got, ev.Reference)
					}
				}
				switch {
				case len(got) == n:
					return done
				case len(got) == n/2 && len(sent) == n/2:
					(*cut.Load())()
					send()
				}
				return nil
			})
			if !errors.Is(err, done) {
				t.Fatal(err)
			}
			if !slices.Equal(got, sent) || lost != 1 {
				t.Errorf("after %d lost connections got\n%v, sent\n%v", lost, got, sent)
			}
		})
	}

	t.Run("refused", func(t *testing.T) {
		err := a.Listen(ctx, client.ListenOptions{Filter: client.Filter{Topic: "("}}, func(context.Context, []client.Event) error { return nil })
		if _, ok := errors.AsType[*client.ProtocolError](err); !ok || !strings.Contains(err.Error(), "FF10171") {
			t.Errorf("a bad filter: %v", err)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		err := a.Listen(ctx, client.ListenOptions{Connected: cancel}, func(context.Context, []client.Event) error { return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("stopped with %v", err)
		}
	})
}

func TestNew(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1:5000", "ftp://x", "http://", "http://[::1"} {
		if _, err := client.New(address); err == nil {
			t.Errorf("%q is taken for an address", address)
		}
	}
	c, err := client.New("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := c.WaitReady(ctx); err == nil || !strings.Contains(err.Error(), "not ready") {
		t.Errorf("a node that is not there: %v", err)
	}
}

func TestErrors(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "busy") // of the test itself
	}))
	defer server.Close()
	c, err := client.New(server.URL, client.WithBasicAuth("u", "p"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Status(t.Context())
	e, ok := errors.AsType[*client.Error](err)
	if !ok || !client.IsOverload(err) || e.RetryAfter != 3*time.Second || e.Code != "" || e.Text != "busy" {
		t.Errorf("an answer of no node: %#v", err)
	}
}
