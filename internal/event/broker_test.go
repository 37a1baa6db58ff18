package event

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/parley-node/parley/internal/store"
)

// natsServer runs a real NATS server with JetStream in this process.
func natsServer(t testing.TB, port int, dir string) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true, MaxPayload: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not start")
	}
	return s
}

func stopNATS(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// stored reads the messages of a stream.
func stored(t testing.TB, url string, n int) []jetstream.Msg {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.OrderedConsumer(t.Context(), "EVENTS", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var list []jetstream.Msg
	for range n {
		m, err := c.Next(jetstream.FetchMaxWait(patience))
		if err != nil {
			t.Fatalf("after %d messages: %v", len(list), err)
		}
		list = append(list, m)
	}
	info, err := js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if got := info.CachedInfo().State.Msgs; got != uint64(n) {
		t.Errorf("the stream has %d messages, want %d", got, n)
	}
	return list
}

func makeStream(t testing.TB, url string) {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"parley.>"}}); err != nil {
		t.Fatal(err)
	}
}

func TestNATSStoresEachEventOnceAndInOrder(t *testing.T) {
	dir := t.TempDir()
	s := natsServer(t, server.RANDOM_PORT, dir)
	url := s.ClientURL()
	port := s.Addr().(*net.TCPAddr).Port
	cfg := OutboundConfig{NATS: map[string]NATSConfig{"default": {URLs: []string{url}}}, Source: "did:firefly:org/acme"}
	o := newOutward(t, cfg)
	// The stream is made later: nothing is lost meanwhile.
	sub := o.create(t, `{"name":"broker","transport":"nats","options":{"subject":"parley.events","envelope":"cloudevents"}}`)
	events := o.fill(t, 120)
	o.until("the broker is tried without a stream", func() bool { return len(o.deliveries(sub)) > 0 })
	makeStream(t, url)
	o.until("all are stored", func() bool { return o.position(sub) == events[119].Sequence })

	// Delivered again, after a loss of memory: the stream knows the ids.
	if err := o.db.Write(t.Context(), func(tx *store.Tx) error { return tx.SetPosition(sub.ID, 100) }); err != nil {
		t.Fatal(err)
	}
	o.restart(cfg)
	o.until("they are published again", func() bool { return o.position(sub) == events[119].Sequence })

	// The broker is away for a while.
	stopNATS(s)
	more := o.fill(t, 30)
	o.until("the broker is missed", func() bool {
		list := o.deliveries(sub)
		return len(list) > 0 && list[0].State == store.DeliveryRetrying && list[0].First > 120
	})
	s = natsServer(t, port, dir)
	defer stopNATS(s)
	o.until("the rest is stored", func() bool { return o.position(sub) == more[29].Sequence })

	all := append(events, more...)
	for i, m := range stored(t, url, len(all)) {
		var e struct {
			ID   string
			Data struct{ Sequence int64 }
		}
		if err := json.Unmarshal(m.Data(), &e); err != nil || e.ID != all[i].ID.String() || e.Data.Sequence != all[i].Sequence {
			t.Fatalf("message %d is %s, want event %s: %v", i, m.Data(), all[i].ID, err)
		}
		if h := m.Headers(); h.Get("Content-Type") != mediaCloudEvent || h.Get(headerEventID) != e.ID || h.Get(headerEventType) != "transaction_submitted" {
			t.Fatalf("message %d has the headers %v", i, h)
		}
	}
}

// An event that the broker can never take does not take others with it.
func TestTooLargeForNATSIsDeadAlone(t *testing.T) {
	s := natsServer(t, server.RANDOM_PORT, t.TempDir())
	defer stopNATS(s)
	makeStream(t, s.ClientURL())
	o := newOutward(t, OutboundConfig{NATS: map[string]NATSConfig{"default": {URLs: []string{s.ClientURL()}}}})
	o.append(t, &store.Event{Type: "x", Topic: "a"}, &store.Event{Type: "x", Topic: strings.Repeat("b", 70_000)}, &store.Event{Type: "x", Topic: "c"})
	sub := o.create(t, `{"name":"broker","transport":"nats","options":{"subject":"parley.events","firstEvent":"oldest"}}`)
	o.until("all are done with", func() bool { return o.position(sub) == 3 })
	stored(t, s.ClientURL(), 2)
	dead := 0
	for _, d := range o.deliveries(sub) {
		if d.State == store.DeliveryDead {
			dead++
			if d.First != 2 || d.Events != 1 {
				t.Errorf("dead %+v", d)
			}
		}
	}
	if dead != 1 {
		t.Errorf("%d deliveries are dead, want 1", dead)
	}
}

func TestKafkaKeepsTheOrderOfATopic(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "events"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	o := newOutward(t, OutboundConfig{Kafka: map[string]KafkaConfig{"default": {Brokers: cluster.ListenAddrs()}}})
	var events []*store.Event
	for i := range 200 {
		events = append(events, &store.Event{Type: "x", Topic: fmt.Sprint("topic", i%7)})
	}
	o.append(t, events...)
	sub := o.create(t, `{"name":"broker","transport":"kafka","options":{"topic":"events","firstEvent":"oldest"}}`)
	o.until("all are produced", func() bool { return o.position(sub) == 200 })

	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("events"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	last, partition := map[string]int64{}, map[string]int32{}
	for n := 0; n < 200; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			var e received
			if err := json.Unmarshal(r.Value, &e); err != nil {
				t.Fatal(err)
			}
			key := string(r.Key)
			if at, seen := partition[key]; key != e.Topic || seen && at != r.Partition || e.Sequence <= last[key] {
				t.Errorf("event %d of %s came with key %s after %d", e.Sequence, e.Topic, key, last[key])
			}
			partition[key], last[key] = r.Partition, e.Sequence
			if len(r.Headers) != 4 || string(r.Headers[1].Value) != e.ID.String() {
				t.Errorf("headers %v", r.Headers)
			}
		})
	}
}

// A cluster that cannot be reached at first gets everything once, later.
func TestKafkaIsWaitedFor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o := newOutward(t, OutboundConfig{Kafka: map[string]KafkaConfig{"default": {Brokers: []string{fmt.Sprint("127.0.0.1:", port)}}}})
	sub := o.create(t, `{"name":"broker","transport":"kafka","options":{"topic":"events"}}`)
	events := o.fill(t, 10)
	cluster, err := kfake.NewCluster(kfake.Ports(port), kfake.NumBrokers(1), kfake.SeedTopics(1, "events"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	o.until("all are produced", func() bool { return o.position(sub) == events[9].Sequence })
	if info := cluster.PartitionInfo("events", 0); info == nil || info.HighWatermark != 10 {
		t.Errorf("the partition is %+v, want 10 records", info)
	}
}

// A node stops in time although its broker is away.
func TestStopWhileABrokerIsAway(t *testing.T) {
	o := newOutward(t, OutboundConfig{
		NATS:  map[string]NATSConfig{"default": {URLs: []string{"nats://127.0.0.1:1"}}},
		Kafka: map[string]KafkaConfig{"default": {Brokers: []string{"127.0.0.1:1"}}},
	})
	sub := o.create(t, `{"name":"n","transport":"nats","options":{"subject":"a"}}`)
	o.create(t, `{"name":"k","transport":"kafka","options":{"topic":"a"}}`)
	o.fill(t, 3)
	o.until("NATS was tried", func() bool { return len(o.deliveries(sub)) > 0 })
	start := time.Now()
	o.halt()
	if took := time.Since(start); took > patience/2 {
		t.Errorf("stopping took %v", took)
	}
}

func TestBadBrokersAreRefused(t *testing.T) {
	o := newOutward(t, OutboundConfig{NATS: map[string]NATSConfig{"default": {}}, Kafka: map[string]KafkaConfig{"main": {}}})
	for _, body := range []string{
		`"transport":"nats","options":{}`, `"transport":"nats","options":{"subject":"a.*"}`, `"transport":"nats","options":{"subject":"a..b"}`,
		`"transport":"nats","options":{"subject":"$JS.API"}`, `"transport":"nats","options":{"subject":"a","connection":"other"}`,
		`"transport":"kafka","options":{"topic":"a"}`, `"transport":"kafka","options":{"topic":"a b","connection":"main"}`,
		`"transport":"kafka","options":{"topic":"a","connection":"main","envelope":"x"}`,
	} {
		if _, err := o.subs.Create(t.Context(), input(t, `{"name":"a",`+body+`}`)); err == nil || !strings.HasPrefix(err.Error(), "FF00143") {
			t.Errorf("%s: %v", body, err)
		}
	}
}
