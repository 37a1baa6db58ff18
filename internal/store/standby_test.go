package store_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

// sharing opens a database once more, as another process of the node would. A
// test has no time to waste: nobody is silent unless the test says so.
func sharing(t *testing.T, path, name string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: path, Shared: &store.Shared{Name: name, Lease: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// silence makes a process one that was not heard of for longer than its lease.
func silence(t *testing.T, by *store.DB, name string) {
	t.Helper()
	err := by.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE processes SET seen = seen - 3 * lease WHERE name = $1`, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func beat(t *testing.T, db *store.DB) (active bool) {
	t.Helper()
	if err := db.BeatOnce(t.Context(), store.Watcher{Active: func(int64) { active = true }}); err != nil {
		t.Fatal(err)
	}
	return active
}

func set(db *store.DB, name, value string) error {
	return db.Write(context.Background(), func(tx *store.Tx) error { return put(tx, name, value) })
}

// One process has the lease. When it is silent another takes it, and what the
// first one writes after that, alone or in a group, changes nothing.
func TestLeaseFences(t *testing.T) {
	if !storetest.Postgres() {
		t.Log("PARLEY_TEST_POSTGRES names no server")
		return
	}
	path := storetest.Path(t)
	a, b := sharing(t, path, "a"), sharing(t, path, "b")
	if !beat(t, a) || a.Term() != 1 {
		t.Fatalf("the first process has term %d, want 1", a.Term())
	}
	if beat(t, b) || b.Term() != 0 {
		t.Fatal("two processes have the lease")
	}
	for name, db := range map[string]*store.DB{"a": a, "b": b} {
		if err := set(db, "written by "+name, "yes"); err != nil {
			t.Fatalf("%s writes: %v", name, err)
		}
	}
	sub := uuid.New()
	if mine, err := a.Claim(t.Context(), sub); err != nil || !mine {
		t.Fatalf("a claims: %t, %v", mine, err)
	}
	if mine, err := b.Claim(t.Context(), sub); err != nil || mine {
		t.Fatalf("b claims what a has: %t, %v", mine, err)
	}

	silence(t, b, "a")
	if !beat(t, b) || b.Term() != 2 {
		t.Fatalf("the second process has term %d, want 2", b.Term())
	}
	if mine, err := b.Claim(t.Context(), sub); err != nil || !mine {
		t.Fatalf("b claims what a had: %t, %v", mine, err)
	}
	// The functions of a group share one transaction.
	for i, err := range together(t, a, func(tx *store.Tx) error { return put(tx, "late 1", "") },
		func(tx *store.Tx) error { return tx.Send(`INSERT INTO meta (name, value) VALUES ('late 2', '')`) },
		func(tx *store.Tx) error { _, err := tx.Exec(`DELETE FROM meta`); return err }) {
		if !errors.Is(err, store.ErrOvertaken) {
			t.Errorf("write %d of the overtaken process: %v, want ErrOvertaken", i, err)
		}
	}
	if err := set(a, "late 3", ""); !errors.Is(err, store.ErrOvertaken) {
		t.Errorf("a later write: %v, want ErrOvertaken", err)
	}
	if err := a.BeatOnce(t.Context(), store.Watcher{}); !errors.Is(err, store.ErrOvertaken) {
		t.Errorf("its next beat: %v, want ErrOvertaken", err)
	}
	var n int
	err := b.Read(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT COUNT(*) FROM meta WHERE name LIKE 'late%'`).Scan(&n)
	})
	if err != nil || n != 0 {
		t.Errorf("%d late writes are stored, %v", n, err)
	}
	l, err := b.Lease(t.Context())
	if err != nil || l.Term != 2 || len(l.Processes) != 1 || !l.Processes[0].Active || !l.Processes[0].Self || l.Processes[0].Name != "b" {
		t.Errorf("the lease is %+v, %v", l, err)
	}
}

// A process that leaves in order is followed at once, and each hears of what the
// other commits.
func TestHandover(t *testing.T) {
	if !storetest.Postgres() {
		t.Log("PARLEY_TEST_POSTGRES names no server")
		return
	}
	path := storetest.Path(t)
	watch := func(name string) (db *store.DB, active chan int64, changed chan struct{}, stop func()) {
		db = sharing(t, path, name)
		active, changed = make(chan int64, 1), make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() {
			err := db.Watch(ctx, store.Watcher{
				Active: func(term int64) { active <- term },
				Changed: func() {
					select {
					case changed <- struct{}{}:
					default:
					}
				},
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		stop = func() { cancel(); done.Wait() }
		t.Cleanup(stop)
		return db, active, changed, stop
	}
	_, active, _, stop := watch("a")
	if term := <-active; term != 1 {
		t.Fatalf("a has term %d", term)
	}
	b, next, changed, _ := watch("b")
	<-changed // what was there before it listened
	other := sharing(t, path, "c")
	if err := set(other, "news", ""); err != nil {
		t.Fatal(err)
	}
	<-changed
	if b.Term() != 0 {
		t.Fatal("b is active beside a")
	}
	stop()
	if term := <-next; term != 2 {
		t.Errorf("b has term %d after a left, want 2", term)
	}
}

// Who shares a database and who wants it alone keep out of each other's way, and
// so do two nodes.
func TestSharedIsAgreed(t *testing.T) {
	if !storetest.Postgres() {
		_, err := store.Open(t.Context(), store.Options{Path: storetest.Path(t), Shared: &store.Shared{Name: "a"}})
		if err == nil || !strings.Contains(err.Error(), "PostgreSQL") {
			t.Errorf("a file is shared: %v", err)
		}
		return
	}
	path := storetest.Path(t)
	sharing(t, path, "a")
	if _, err := store.Open(t.Context(), store.Options{Path: path}); !errors.Is(err, store.ErrInUse) {
		t.Errorf("a process that wants the database alone: %v, want ErrInUse", err)
	}
	_, err := store.Open(t.Context(), store.Options{Path: path, Shared: &store.Shared{Name: "stranger", Node: uuid.New()}})
	if err == nil || !strings.Contains(err.Error(), "of its own") {
		t.Errorf("a process of another node: %v", err)
	}
	alone := storetest.New(t)
	if _, err := store.Open(t.Context(), store.Options{Path: alone.Path(), Shared: &store.Shared{Name: "late"}}); !errors.Is(err, store.ErrInUse) {
		t.Errorf("sharing what a process has alone: %v, want ErrInUse", err)
	}
}
