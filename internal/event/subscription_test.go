package event

import (
	"encoding/json"
	"fmt"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

func input(t testing.TB, text string) (in SubscriptionInput) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		t.Fatal(err)
	}
	return in
}

func (b *bench) create(t testing.TB, text string) *store.Subscription {
	t.Helper()
	sub, err := b.subs.Create(t.Context(), input(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func TestCreatedSubscriptionLooksAsClientsExpect(t *testing.T) {
	b := newBench(t)
	b.fill(t, 24)
	sub := b.create(t, `{"namespace":"ignored","name":"app1","filter":{"events":"message_.*","tag":"old"},
		"options":{"readAhead":5,"myKey":{"b":1,"a":[2]}}}`)
	read, err := b.subs.Get(t.Context(), sub.ID)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(read)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"id":"%s","namespace":"default","name":"app1","transport":"websockets",`+
		`"filter":{"events":"message_.*","message":{},"transaction":{},"blockchainevent":{},"tag":"old"},`+
		`"options":{"firstEvent":"24","myKey":{"b":1,"a":[2]},"readAhead":5,"withData":false},`+
		`"created":"%s","updated":null}`, sub.ID, sub.Created)
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("subscription (-want +got):\n%s", diff)
	}
}

func TestFirstEventIsResolvedAtCreation(t *testing.T) {
	b := newBench(t)
	b.fill(t, 7)
	for i, test := range []struct{ option, want string }{
		{`{}`, "7"}, {`{"firstEvent":"newest"}`, "7"}, {`{"firstEvent":"oldest"}`, "-1"},
		{`{"firstEvent":"3"}`, "3"}, {`{"firstEvent":0}`, "0"}, {`{"firstEvent":-1}`, "-1"}, {`{"firstEvent":null}`, "7"},
	} {
		sub := b.create(t, fmt.Sprintf(`{"name":"s%d","options":%s}`, i, test.option))
		var got struct{ FirstEvent string }
		if err := json.Unmarshal(sub.Options, &got); err != nil || got.FirstEvent != test.want || fmt.Sprint(sub.Position) != test.want {
			t.Errorf("options %s: firstEvent %q at position %d, want %s (%v)", test.option, got.FirstEvent, sub.Position, test.want, err)
		}
	}
}

func TestBadSubscriptionsAreRefused(t *testing.T) {
	b := newBench(t)
	b.create(t, `{"name":"taken"}`)
	for _, test := range []struct {
		body, code string
		status     int
	}{
		{`{"name":"taken"}`, "FF10193", 409},
		{`{"name":""}`, "FF00140", 400},
		{`{"name":"-a"}`, "FF00140", 400},
		{`{"name":"a b"}`, "FF00140", 400},
		{`{"name":"12345678901234567890123456789012345678901234567890123456789012345"}`, "FF00140", 400},
		{`{"name":"4f0de51f-4bd4-4b3f-a9a8-7ae0c4b2b1cf"}`, "FF00141", 400},
		{`{"name":"a","transport":"system"}`, "FF10266", 500},
		{`{"name":"a","transport":"webhooks"}`, "FF10172", 500},
		{`{"name":"a","transport":"pigeons"}`, "FF10172", 500},
		{`{"name":"a","filter":{"events":"("}}`, "FF10171", 500},
		{`{"name":"a","filter":{"author":"["}}`, "FF10171", 500},
		{`{"name":"a","options":{"firstEvent":"-2"}}`, "FF10191", 400},
		{`{"name":"a","options":{"firstEvent":"soon"}}`, "FF10191", 400},
		{`{"name":"a","options":{"withData":true}}`, "FF10244", 400},
		{`{"name":"a","options":{"withData":true,"batch":true}}`, "FF10460", 400},
		{`{"name":"a","options":{"tlsConfigName":"x"}}`, "FF10455", 400},
		{`{"name":"a","options":{"batchTimeout":"soon"}}`, "FF00143", 400},
	} {
		_, err := b.subs.Create(t.Context(), input(t, test.body))
		if errs.Code(err) != test.code || errs.Status(err) != test.status {
			t.Errorf("%s: %v (status %d), want %s with %d", test.body, err, errs.Status(err), test.code, test.status)
		}
	}
	var in SubscriptionInput
	for _, options := range []string{`{"readAhead":65536}`, `{"readAhead":-1}`, `{"batch":"yes"}`, `{"firstEvent":[]}`, `[]`} {
		if err := json.Unmarshal([]byte(`{"name":"a","options":`+options+`}`), &in); errs.Code(err) != "FF00143" {
			t.Errorf("options %s: %v, want FF00143", options, err)
		}
	}
}

func TestNoMoreSubscriptionsThanTheLimit(t *testing.T) {
	b := newBench(t)
	err := b.db.Write(t.Context(), func(tx *store.Tx) error {
		for i := range maxSubscriptions {
			if err := tx.InsertSubscription(&store.Subscription{ID: uuid.New(), Namespace: ns, Name: fmt.Sprint("s", i), Transport: TransportWebSockets}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.subs.Create(t.Context(), SubscriptionInput{Name: "more"}); errs.Code(err) != codeTooMany {
		t.Errorf("Create = %v, want %s", err, codeTooMany)
	}
	if _, err := b.subs.CreateOrUpdate(t.Context(), SubscriptionInput{Name: "s1"}); err != nil {
		t.Errorf("replacing one at the limit: %v", err)
	}
}

func TestPutKeepsPositionAndFirstEvent(t *testing.T) {
	b := newBench(t)
	b.fill(t, 3)
	made, err := b.subs.CreateOrUpdate(t.Context(), input(t, `{"name":"a","options":{"firstEvent":"1"}}`))
	if err != nil || made.Updated != nil {
		t.Fatalf("first PUT: %+v, %v", made, err)
	}
	same, err := b.subs.CreateOrUpdate(t.Context(), input(t, `{"name":"a","options":{"firstEvent":"newest"}}`))
	if err != nil || same.ID != made.ID || same.Updated != nil {
		t.Fatalf("an equal PUT changed something: %+v, %v", same, err)
	}
	changed, err := b.subs.CreateOrUpdate(t.Context(), input(t, `{"name":"a","filter":{"topic":"x"},"options":{"firstEvent":"oldest"}}`))
	if err != nil || changed.ID != made.ID || changed.Updated == nil || changed.Position != 1 {
		t.Fatalf("a PUT with another filter: %+v, %v", changed, err)
	}
	if diff := cmp.Diff(string(made.Options), string(changed.Options)); diff != "" {
		t.Errorf("options (-first +now):\n%s", diff)
	}
}

func TestSubscriptionsAreListed(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"a", "b", "c"} {
		b.create(t, `{"name":"`+name+`"}`)
	}
	q, err := store.ParseQuery(&store.Subscriptions.Collection, url.Values{"name": {"b", "c"}, "count": {""}}, store.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	got, total, err := b.subs.List(t.Context(), q)
	if err != nil || total != 2 || len(got) != 2 || got[0].Name != "c" || got[1].Name != "b" {
		t.Errorf("List = %+v, %d, %v; want c and b", got, total, err)
	}
}

func TestDeletedSubscriptionIsGone(t *testing.T) {
	b := newBench(t)
	sub := b.create(t, `{"name":"a"}`)
	if err := b.subs.Delete(t.Context(), sub.ID); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"delete again": b.subs.Delete(t.Context(), sub.ID),
		"get":          second(b.subs.Get(t.Context(), sub.ID)),
		"status":       second(b.subs.GetWithStatus(t.Context(), sub.ID)),
		"history":      third(b.subs.History(t.Context(), sub.ID, nil)),
	} {
		if errs.Status(err) != 404 {
			t.Errorf("%s: %v, want a 404", what, err)
		}
	}
}

func second[T any](_ T, err error) error        { return err }
func third[T, U any](_ T, _ U, err error) error { return err }

func TestFilterMatches(t *testing.T) {
	listener := uuid.New()
	message := Enriched{Event: store.Event{Type: "message_confirmed", Topic: "orders"},
		Message: &store.Message{Header: store.MessageHeader{Tag: "po", Group: "abcd", Author: "did:firefly:org/a"}}}
	txn := Enriched{Event: store.Event{Type: "transaction_submitted", Topic: "batch_pin"}, Transaction: &store.Transaction{Type: "batch_pin"}}
	chain := Enriched{Event: store.Event{Type: "blockchain_event_received", Topic: "orders"},
		BlockchainEvent: &store.BlockchainEvent{Name: "Changed", Listener: &listener}}
	for _, test := range []struct {
		filter              string
		message, txn, chain bool
	}{
		{`{}`, true, true, true},
		{`{"events":"confirmed"}`, true, false, false},
		{`{"events":"^message_|^trans"}`, true, true, false},
		{`{"topic":"ord"}`, true, false, true},
		{`{"topics":"ord"}`, true, false, true},
		{`{"topic":"batch","topics":"ord"}`, false, true, false},
		{`{"message":{"tag":"^po$"}}`, true, false, false},
		{`{"tag":"^po$"}`, true, false, false},
		{`{"tag":"^po$","message":{"tag":"other"}}`, false, false, false},
		{`{"message":{"tag":"^(po)?$"}}`, true, true, true},
		{`{"message":{"group":"abc","author":"org/a"}}`, true, false, false},
		{`{"group":"x"}`, false, false, false},
		{`{"author":"org/b"}`, false, false, false},
		{`{"transaction":{"type":"pin"}}`, false, true, false},
		{`{"blockchainevent":{"name":"Chan"}}`, false, false, true},
		{`{"blockchainevent":{"listener":"` + listener.String() + `"}}`, false, false, true},
		{`{"events":"blockchain","blockchainevent":{"name":"Other"}}`, false, false, false},
	} {
		var f Filter
		if err := json.Unmarshal([]byte(test.filter), &f); err != nil {
			t.Fatal(err)
		}
		m, err := f.compile()
		if err != nil {
			t.Fatal(err)
		}
		got := []bool{m.match(&message), m.match(&txn), m.match(&chain)}
		if diff := cmp.Diff([]bool{test.message, test.txn, test.chain}, got); diff != "" {
			t.Errorf("%s on message, transaction, chain event (-want +got):\n%s", test.filter, diff)
		}
	}
}

func TestHistory(t *testing.T) {
	b := newBench(t)
	sub := b.create(t, `{"name":"a","filter":{"topic":"[02468]$"}}`)
	b.fill(t, 1500) // sequence n has topic t(n-1)
	topics := func(query string) (got []string, total int, err error) {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		events, total, err := b.subs.History(t.Context(), sub.ID, v)
		for _, e := range events {
			got = append(got, e.Topic)
		}
		return got, total, err
	}
	for _, test := range []struct {
		query string
		want  []string
		total int
	}{
		{"startsequence=1&endsequence=5", []string{"t0", "t2"}, 2},
		{"startsequence=2&endsequence=6", []string{"t2", "t4"}, 2},
		{"startsequence=1&endsequence=1001&limit=2", []string{"t996", "t998"}, 500},
		{"limit=1", []string{"t1498"}, 500},
		{"startsequence=1401&limit=1", []string{"t1498"}, 50},
		{"endsequence=3", []string{"t0"}, 1},
		{"startsequence=9&endsequence=9", nil, 0},
		{"startsequence=1&endsequence=100&topic=t6&topic=t7", []string{"t6"}, 1},
	} {
		got, total, err := topics(test.query)
		if diff := cmp.Diff(test.want, got); diff != "" || total != test.total || err != nil {
			t.Errorf("%s: total %d, %v, want %d (-want +got):\n%s", test.query, total, err, test.total, diff)
		}
	}
	for query, code := range map[string]string{
		"startsequence=1&endsequence=1002": "FF10463",
		"startsequence=9&endsequence=8":    "FF10464",
		"startsequence=x":                  "FF00143",
	} {
		if _, _, err := topics(query); errs.Code(err) != code {
			t.Errorf("%s: %v, want %s", query, err, code)
		}
	}
}

func FuzzOptions(f *testing.F) {
	for _, seed := range []string{`{}`, `{"firstEvent":5,"readAhead":1,"batch":true,"batchTimeout":"1s","x":[1,{"y":null}]}`,
		`{"firstEvent":"newest","withData":null}`, `null`, `[]`, `{"batchTimeout":9223372036854775807}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var o Options
		if json.Unmarshal(text, &o) != nil {
			return
		}
		if p, err := o.plan(TransportWebSockets); err == nil && (p.window < 1 || p.window > maxReadAhead+1 || p.wait < 0) {
			t.Fatalf("%s makes the plan %+v", text, p)
		}
		once, err := json.Marshal(o)
		if err != nil {
			t.Fatalf("%s was read and cannot be written: %v", text, err)
		}
		var again Options
		if err := json.Unmarshal(once, &again); err != nil {
			t.Fatalf("%s was written and cannot be read: %v", once, err)
		}
		twice, err := json.Marshal(again)
		if err != nil || string(twice) != string(once) {
			t.Fatalf("%s became %s (%v)", once, twice, err)
		}
	})
}
