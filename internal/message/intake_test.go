package message

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
	"github.com/parley-node/parley/wire"
)

// handIn is a message with one data item as a submission makes it.
func handIn(n int, key string) source {
	id := uuid.Must(uuid.NewV7())
	d := &store.Data{ID: uuid.Must(uuid.NewV7()), Validator: "json", Namespace: "ns", Value: []byte(fmt.Sprint(n)), Commitment: newSalt()}
	return source{
		row: &store.Message{
			Header:         store.MessageHeader{ID: id, Type: TypeBroadcast, TxType: TxBatchPin, Created: store.Time(n + 1), Topics: []string{"t"}},
			LocalNamespace: "ns", State: StateReady, IdempotencyKey: key, Wire: []byte{1}, Data: []store.DataRef{{ID: d.ID}},
		},
		header: &wire.MessageHeader{ID: id},
		data:   []*store.Data{d},
	}
}

// Messages that come while the writer is busy are stored in one transaction. One
// whose key is taken is refused alone; one whose caller has gone is not stored.
func TestIntake(t *testing.T) {
	db := storetest.New(t)
	in := &intake{db: db, recent: newRecent()}
	if err := in.put(t.Context(), handIn(0, "taken")); err != nil {
		t.Fatal(err)
	}
	held, release, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		done <- db.Write(t.Context(), func(*store.Tx) error { close(held); <-release; return nil })
	}()
	<-held
	commits := db.Commits()
	const count = 40
	all := make([]source, count)
	errs := make([]chan error, count)
	gone, leave := context.WithCancel(t.Context())
	for i := range count {
		key := ""
		if i == 7 {
			key = "taken"
		}
		ctx := t.Context()
		if i == 9 {
			ctx = gone
		}
		all[i], errs[i] = handIn(i+1, key), make(chan error, 1)
		go func() { errs[i] <- in.put(ctx, all[i]) }()
		for waiting(in) != i+1 {
			runtime.Gosched()
		}
	}
	leave()
	if err := <-errs[9]; !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone got %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var dup *store.DuplicateKey
	for i := range count {
		if i == 9 {
			continue
		}
		if err := <-errs[i]; i == 7 && (!errors.As(err, &dup) || dup.Key != "taken") || i != 7 && err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	err := db.Read(t.Context(), func(tx *store.Tx) error {
		ready, err := tx.ReadyMessages(nil, 1000)
		if len(ready) != 1+count-2 {
			t.Errorf("%d messages are ready", len(ready))
		}
		if found := in.recent.findReady(ready); len(found) != 1 { // those stored one by one are read
			t.Errorf("%d of them are in memory", len(found))
		}
		data, err2 := tx.DataOfMessages([]int64{all[3].row.Seq})
		if got := data[all[3].row.Seq]; len(got) != 1 || string(got[0].Value) != "4" {
			t.Errorf("the data of message 3 is %v", got)
		}
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := db.Commits() - commits; n > count {
		t.Errorf("%d commits for %d messages", n, count)
	}

	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := in.put(t.Context(), handIn(99, "")); !errors.Is(err, store.ErrClosed) {
		t.Errorf("with the database closed: %v", err)
	}
	if n := in.pending.Load(); n != 0 {
		t.Errorf("%d messages still wait", n)
	}
}

func waiting(in *intake) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.waiting)
}

// What is kept has bounds, and what others have taken does not fill it for ever.
func TestRecentIsBounded(t *testing.T) {
	r := newRecent()
	var all []source
	for i := range recentReady + 10 {
		s := handIn(i, "")
		s.row.Seq = int64(i + 1)
		all = append(all, s)
	}
	r.putReady(all)
	if len(r.ready) != recentReady || r.ready[1].row == nil {
		t.Errorf("%d messages are kept, the first is %v", len(r.ready), r.ready[1].row)
	}
	if found := r.findReady([]int64{recentReady - 1, recentReady}); len(found) != 2 || len(r.ready) != 2 {
		t.Errorf("found %d, %d are left when those before are ready no more", len(found), len(r.ready))
	}
	r.dropReady(all)
	if len(r.ready) != 0 || r.bytes != 0 {
		t.Errorf("%d messages and %d bytes are left", len(r.ready), r.bytes)
	}
	large := handIn(1, "")
	large.data[0].Value = make([]byte, recentReadyBytes+1)
	if r.putReady([]source{large}); len(r.ready) != 0 {
		t.Error("a value beyond the bound is kept")
	}

	const each = 500
	for i := range recentMessages/each + 3 {
		row := &store.BatchRow{Root: wire.Hash{byte(i)}, Envelope: make([]byte, 10)}
		messages := make([]*store.Message, each)
		for k := range messages {
			messages[k] = &store.Message{Header: store.MessageHeader{Topics: []string{"a", "b"}}}
		}
		r.putBatch(row, messages)
	}
	if r.messages > recentMessages || len(r.batches) != recentMessages/each || len(r.arrived) != len(r.batches) {
		t.Errorf("%d messages of %d batches are kept", r.messages, len(r.batches))
	}
	last := wire.Entry{Root: wire.Hash{byte(recentMessages/each + 2)}}
	if topics, ok := r.topics(last); !ok || len(topics) != 2 {
		t.Errorf("topics %v, %v", topics, ok)
	}
	if c := r.takeBatch(last); c == nil || len(c.messages) != each || c.row.Envelope != nil {
		t.Errorf("took %v", c)
	}
	if r.takeBatch(last) != nil || r.takeBatch(wire.Entry{}) != nil {
		t.Error("a batch was given twice, or after it was pushed out")
	}
}

// A message need not wake the batch worker for an audience without room, unless
// it came after the worker began to look.
func TestRoom(t *testing.T) {
	var r room
	full, other := wire.Hash{1}, wire.Hash{2}
	if !r.any(full) {
		t.Error("no room before anybody looked")
	}
	r.set([]wire.Hash{full})
	if r.any(full) || !r.any(other) {
		t.Error("room in a full audience, or none in another")
	}
	if r.look(); !r.any(full) {
		t.Error("what comes while the worker looks must wake it")
	}
}
