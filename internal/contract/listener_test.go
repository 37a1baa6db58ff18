package contract

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/ethereum/ethtest"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// listen runs the listeners' worker until it has nothing to do at once.
func (w *world) listen() {
	w.t.Helper()
	for {
		next, err := w.ListenStep(w.t.Context())
		must(w.t, err)
		if next > time.Microsecond {
			return
		}
	}
}

// received lists the chain events of the event log, in its order, as
// "name value", with a minus in front of those that were dropped.
func (w *world) received(topic string) (all []string) {
	w.t.Helper()
	must(w.t, w.DB.Read(w.t.Context(), func(tx *store.Tx) error {
		all = nil
		entries, err := tx.EventsAfter("default", 0, 10_000)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Topic != topic {
				continue
			}
			found, err := tx.BlockchainEventsByID("default", []wire.UUID{*e.Reference})
			if err != nil {
				return err
			}
			var out map[string]any
			if err := json.Unmarshal(found[*e.Reference].Output, &out); err != nil {
				return err
			}
			sign := ""
			if e.Type == eventDropped {
				sign = "-"
			}
			all = append(all, fmt.Sprint(sign, found[*e.Reference].Name, " ", out["value"]))
		}
		return nil
	}))
	return all
}

func (w *world) listener(in ListenerInput) *store.Listener {
	w.t.Helper()
	l, err := w.CreateListener(w.t.Context(), in)
	must(w.t, err)
	return l
}

func byPath(ffi wire.UUID, path string, at json.RawMessage) FilterInput {
	return FilterInput{Interface: &store.InterfaceRef{ID: &ffi}, EventPath: path, Location: at}
}

// invoke runs a call to its end.
func (w *world) invoke(r CallRequest) *store.Operation {
	w.t.Helper()
	op, err := w.Invoke(w.t.Context(), r)
	must(w.t, err)
	return w.finish(op.ID)
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestListenersFromOldestBlockAndNewest(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	w.invoke(call(ffi, at, "set", `{"x": 1}`))
	second := w.invoke(call(ffi, at, "set", `{"x": 2}`))
	var out receipt
	must(t, json.Unmarshal(second.Output, &out))

	w.listener(ListenerInput{FilterInput: byPath(ffi, "Changed", at), Topic: "oldest", Options: &store.ListenerOptions{FirstEvent: "oldest"}})
	w.listener(ListenerInput{FilterInput: byPath(ffi, "Changed", nil), Topic: "block", Options: &store.ListenerOptions{FirstEvent: fmt.Sprint(out.BlockNumber)}})
	l := w.listener(ListenerInput{FilterInput: byPath(ffi, "Changed", at), Topic: "newest", Name: "mine"})
	elsewhere := json.RawMessage(`{"address":"0x` + strings.Repeat("ee", 20) + `"}`)
	w.listener(ListenerInput{FilterInput: byPath(ffi, "Changed", elsewhere), Topic: "elsewhere", Options: &store.ListenerOptions{FirstEvent: "oldest"}})
	w.listen()
	third := w.invoke(call(ffi, at, "many", `{"n": 3}`))
	st, err := w.ListenerStatus(t.Context(), l)
	must(t, err)
	if !st.Catchup || st.Lag == 0 {
		t.Errorf("before the listener reads, its status is %+v", st)
	}
	w.listen()
	want(t, "oldest", w.received("oldest"), "[Changed 1 Changed 2 Changed 0 Changed 1 Changed 2]")
	want(t, "block", w.received("block"), "[Changed 2 Changed 0 Changed 1 Changed 2]")
	want(t, "newest", w.received("newest"), "[Changed 0 Changed 1 Changed 2]")
	want(t, "elsewhere", w.received("elsewhere"), "[]")

	// The events name the business transaction, and the status the last of them.
	page, _, err := store.List(t.Context(), w.DB, store.BlockchainEvents, "default", store.Query{Limit: 1})
	must(t, err)
	if e := page[0]; e.Tx.ID == nil || *e.Tx.ID != *third.Tx || e.Tx.Type != TxInvoke || e.Source != "ethereum" {
		t.Errorf("the last event is %+v of %+v", e.Tx, e)
	}
	l, err = w.Listener(t.Context(), "mine")
	must(t, err)
	st, err = w.ListenerStatus(t.Context(), l)
	must(t, err)
	if st.Catchup || st.Lag != 0 || st.Checkpoint.LogIndex != 2 || st.Checkpoint.Block != int64(st.Final) {
		t.Errorf("its status is %+v", st)
	}
	must(t, w.DeleteListener(t.Context(), "mine"))
	w.invoke(call(ffi, at, "set", `{"x": 9}`))
	w.listen()
	want(t, "after its end", len(w.received("newest")), 3)
}

func TestListenerWithSeveralFilters(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	other, _ := abi.Generate(json.RawMessage(`[{"type":"event","name":"Changed","inputs":[{"name":"from","type":"address"},{"name":"value","type":"uint256"}]}]`))
	l := w.listener(ListenerInput{Topic: "all", Options: &store.ListenerOptions{FirstEvent: "oldest"}, Filters: []FilterInput{
		byPath(ffi, "Changed", at), byPath(ffi, "Stored", nil),
		{Event: &other.Events[0].EventDefinition}, // the same topic, but nothing is indexed: other events
	}})
	a := strings.TrimSuffix(strings.TrimPrefix(string(at), `{"address":"`), `"}`)
	want(t, "signature", l.Signature, "*:Changed(address,uint256);*:Stored(string,(uint64,address,(string,uint256)[],int8[2][])) [i=0];"+a+":Changed(address,uint256) [i=0]")
	w.invoke(call(ffi, at, "set", `{"x": 1}`))
	w.invoke(call(ffi, at, "store", `{"key":"k","order":{"id":5,"buyer":"0x`+strings.Repeat("ab", 20)+`","lines":[],"grid":[]}}`))
	w.invoke(call(ffi, at, "set", `{"x": 2}`))
	w.listen()
	want(t, "events", w.received("all"), "[Changed 1 Stored <nil> Changed 2]")

	_, err := w.CreateListener(t.Context(), ListenerInput{Topic: "all", Filters: []FilterInput{byPath(ffi, "Stored", nil), byPath(ffi, "Changed", at), {Event: &other.Events[0].EventDefinition}}})
	wantCode(t, err, "FF10383", l.Name)
	_, err = w.CreateListener(t.Context(), ListenerInput{Topic: "more", Filters: []FilterInput{byPath(ffi, "Changed", nil), byPath(ffi, "Changed", at)}})
	wantCode(t, err, "FF10477", "twice")
	_, err = w.CreateListener(t.Context(), ListenerInput{Topic: "more", FilterInput: byPath(ffi, "Chang", nil)})
	wantCode(t, err, "FF10370", "Chang")
	_, err = w.CreateListener(t.Context(), ListenerInput{Topic: "more"})
	wantCode(t, err, "FF10317", "event")
	_, err = w.CreateListener(t.Context(), ListenerInput{FilterInput: byPath(ffi, "Changed", nil)})
	wantCode(t, err, "FF00140", "topic")
	_, err = w.CreateListener(t.Context(), ListenerInput{Topic: "more", FilterInput: byPath(ffi, "Changed", nil), Options: &store.ListenerOptions{FirstEvent: "yesterday"}})
	wantCode(t, err, "FF10428", "yesterday")
}

// TestReorganisationBelowTheCheckpoint: the chain changes below what the listener
// took for final. What is gone is marked and told of, what stands is not told
// again, and what came instead is delivered, in order.
func TestReorganisationBelowTheCheckpoint(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	w.invoke(call(ffi, at, "set", `{"x": 1}`))
	w.listener(ListenerInput{FilterInput: byPath(ffi, "Changed", at), Topic: "t", Options: &store.ListenerOptions{FirstEvent: "oldest"}})
	w.invoke(call(ffi, at, "set", `{"x": 2}`))
	w.invoke(call(ffi, at, "set", `{"x": 3}`))
	w.listen()
	want(t, "before", w.received("t"), "[Changed 1 Changed 2 Changed 3]")

	w.restart() // what is needed is in the database
	w.chain.Reorg(2)
	w.listen()
	want(t, "after the reorganisation", w.received("t"), "[Changed 1 Changed 2 Changed 3 -Changed 2 -Changed 3]")
	w.invoke(call(ffi, at, "set", `{"x": 4}`))
	w.listen()
	want(t, "what came instead", w.received("t"), "[Changed 1 Changed 2 Changed 3 -Changed 2 -Changed 3 Changed 4]")
	marked, _, err := store.List(t.Context(), w.DB, store.BlockchainEvents, "default", store.Query{})
	must(t, err)
	removed := 0
	for _, e := range marked {
		if strings.Contains(string(e.Info), `"removed":true`) {
			removed++
		}
	}
	want(t, "marked as removed", removed, 2)
	var incidents []store.Incident
	must(t, w.DB.Read(t.Context(), func(tx *store.Tx) (err error) { incidents, err = tx.Incidents(10); return err }))
	if len(incidents) != 1 || incidents[0].Kind != "reorganisation" {
		t.Errorf("incidents: %+v", incidents)
	}
}

// TestListenerWaitsForFinality: an event is told when its block is final, and a
// reorganisation above that is not noticed at all.
func TestListenerWaitsForFinality(t *testing.T) {
	w := newWorld(t, ethtest.Options{Lag: 3})
	at, ffi := w.sample()
	w.listener(ListenerInput{FilterInput: byPath(ffi, "Changed", at), Topic: "t"})
	op, err := w.Invoke(t.Context(), call(ffi, at, "set", `{"x": 1}`))
	must(t, err)
	must(t, w.step())
	w.chain.Mine()
	w.listen()
	want(t, "mined", w.received("t"), "[]")
	w.chain.Reorg(1)
	must(t, w.step())
	if w.operation(op.ID).Status != store.OpPending {
		t.Error("the operation ended although its block is gone")
	}
	w.skew += time.Minute // it is time to send again what the chain has lost
	w.finish(op.ID)
	w.listen()
	want(t, "final", w.received("t"), "[Changed 1]")
}

// TestCatchUp: a listener that starts late reads a busy contract in pages, each
// event once and in order, across restarts; the log tells how fast.
func TestCatchUp(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	const calls, each = 20, 500
	var last wire.UUID
	for range calls {
		op, err := w.Invoke(t.Context(), call(ffi, at, "many", fmt.Sprintf(`{"n": %d}`, each)))
		must(t, err)
		last = op.ID
		must(t, w.step())
		w.chain.Mine() // a block each
	}
	w.finish(last)
	l := w.listener(ListenerInput{FilterInput: byPath(ffi, "Changed", at), Topic: "t", Options: &store.ListenerOptions{FirstEvent: "oldest"}})
	w.setPage(l.ID, 3)
	start := time.Now()
	_, err := w.ListenStep(t.Context())
	must(t, err)
	w.restart()
	w.listen()
	took := time.Since(start)
	t.Logf("%d events in %s: %.0f a second", calls*each, took, calls*each/took.Seconds())
	var places []string
	must(t, w.DB.Read(t.Context(), func(tx *store.Tx) error {
		events, _, err := store.ListTx(tx, store.BlockchainEvents, "default", store.Query{})
		for _, e := range events {
			places = append(places, e.ProtocolID)
		}
		return err
	}))
	slices.Reverse(places) // newest first
	if len(places) != calls*each || !slices.IsSorted(places) || len(slices.Compact(places)) != calls*each {
		t.Errorf("%d events, sorted %t", len(places), slices.IsSorted(places))
	}
}
