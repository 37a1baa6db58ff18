package event

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/parley-node/parley/internal/store"
)

// messages stores n messages with their confirmations in the log.
func (b *bench) messages(t testing.TB, n int) {
	t.Helper()
	for n > 0 {
		page := min(n, 500)
		n -= page
		msgs := make([]*store.Message, page)
		events := make([]*store.Event, page)
		for i := range msgs {
			msgs[i] = &store.Message{
				Header: store.MessageHeader{ID: uuid.New(), Type: "broadcast", TxType: "batch_pin", Author: "did:firefly:org/acme",
					Key: "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed", Created: 1e18, Namespace: ns, Topics: []string{"orders"}, Tag: "order"},
				LocalNamespace: ns, State: "confirmed", Data: []store.DataRef{{ID: uuid.New()}}, Wire: []byte{1},
			}
			events[i] = &store.Event{ID: uuid.New(), Namespace: ns, Type: "message_confirmed", Reference: &msgs[i].Header.ID, Topic: "orders"}
		}
		err := b.db.Write(context.Background(), func(tx *store.Tx) error {
			if err := tx.InsertMessages(msgs); err != nil {
				return err
			}
			return tx.InsertEvents(events)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	b.log.Committed()
}

// BenchmarkOneSocket measures enriched message events delivered to one socket
// over loopback: in batches with an acknowledgement each, and singly with autoack.
func BenchmarkOneSocket(b *testing.B) {
	for _, mode := range []struct{ name, options, query string }{
		{"batch=50", `{"batch":true,"firstEvent":"oldest"}`, ""},
		{"batch=500", `{"batch":true,"readAhead":500,"firstEvent":"oldest"}`, ""},
		{"single/autoack", `{"readAhead":50,"firstEvent":"oldest"}`, "&autoack"},
	} {
		b.Run(mode.name, func(b *testing.B) {
			n := newNode(b, WebSocketConfig{})
			n.create(b, fmt.Sprintf(`{"name":"app","options":%s}`, mode.options))
			n.messages(b, b.N)
			b.ResetTimer()
			ctx := b.Context()
			conn, _, err := websocket.Dial(ctx, n.http.URL+"/ws?namespace=default&name=app"+mode.query, nil)
			if err != nil {
				b.Fatal(err)
			}
			conn.SetReadLimit(-1)
			c := &client{conn, b, ctx}
			count := func(text []byte) (n int) { // cheaper than decoding: the client is not what is measured
				const mark = `"sequence":`
				for i := 0; i+len(mark) <= len(text); i++ {
					if text[i] == '"' && string(text[i:i+len(mark)]) == mark {
						n++
					}
				}
				return n
			}
			for got := 0; got < b.N; {
				_, text, err := conn.Read(ctx)
				if err != nil {
					b.Fatal(err)
				}
				got += count(text)
				if mode.query == "" {
					c.send(`{"type":"ack"}`)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkAwait measures events, their storing included, while 5000 callers
// wait for others.
func BenchmarkAwait(b *testing.B) {
	n := newBench(b)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{}, 5000)
	for range cap(ended) {
		other := uuid.New()
		go func() {
			// Cancelled at the end of the benchmark, which is its only outcome.
			_, _ = n.log.AwaitAbout(ctx, 0, other, func(*store.Event) bool { return true })
			ended <- struct{}{}
		}()
	}
	b.ResetTimer()
	n.messages(b, b.N)
	if err := n.log.Next(ctx, int64(b.N)-1); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	cancel()
	for range cap(ended) {
		<-ended
	}
}

// BenchmarkWebhook measures events delivered to one real
// receiver over loopback, the log of deliveries included.
func BenchmarkWebhook(b *testing.B) {
	for _, mode := range []struct{ name, options string }{
		{"one by one", `"withData":false`},
		{"parallelTopics", `"withData":false,"parallelTopics":true`},
		{"batch=50", `"batch":true`},
	} {
		b.Run(mode.name, func(b *testing.B) {
			o := newOutward(b, OutboundConfig{Allow: loopback})
			r := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer r.Close()
			for n := 0; n < b.N; n += 500 {
				events := make([]*store.Event, min(500, b.N-n))
				for i := range events {
					events[i] = &store.Event{Type: "transaction_submitted", Topic: fmt.Sprint("t", i%20)}
				}
				o.append(b, events...)
			}
			b.ResetTimer()
			sub := o.create(b, fmt.Sprintf(`{"name":"hook","transport":"webhooks","options":{"url":%q,"firstEvent":"oldest",%s}}`, r.URL, mode.options))
			o.until("all are taken", func() bool { return o.position(sub) == int64(b.N) })
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkNATS measures events stored by a real server's stream in groups of 50.
func BenchmarkNATS(b *testing.B) {
	s := natsServer(b, server.RANDOM_PORT, b.TempDir())
	defer stopNATS(s)
	makeStream(b, s.ClientURL())
	o := newOutward(b, OutboundConfig{NATS: map[string]NATSConfig{"default": {URLs: []string{s.ClientURL()}}}})
	for n := 0; n < b.N; n += 500 {
		o.fill(b, min(500, b.N-n))
	}
	b.ResetTimer()
	sub := o.create(b, `{"name":"broker","transport":"nats","options":{"subject":"parley.events","firstEvent":"oldest"}}`)
	o.until("all are stored", func() bool { return o.position(sub) == int64(b.N) })
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
