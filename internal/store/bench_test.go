package store_test

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

// BenchmarkWrite is what 50 concurrent writers of one row each get done.
func BenchmarkWrite(b *testing.B) {
	db := storetest.New(b)
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	b.ResetTimer()
	for range 50 {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				err := db.Write(b.Context(), func(tx *store.Tx) error {
					return tx.InsertEvents([]*store.Event{{ID: newID(b), Type: "message_confirmed", Namespace: ns, Topic: "t", Created: 1}})
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "rows/s")
}

// BenchmarkWriteAlone is the latency of one write at a time.
func BenchmarkWriteAlone(b *testing.B) {
	db := storetest.New(b)
	for b.Loop() {
		mustWrite(b, db, func(tx *store.Tx) error {
			return tx.InsertEvents([]*store.Event{{ID: newID(b), Type: "message_confirmed", Namespace: ns, Topic: "t", Created: 1}})
		})
	}
}

// BenchmarkReadOne is a look-up by key, with its transaction.
func BenchmarkReadOne(b *testing.B) {
	db := storetest.New(b)
	m := newMessage(b, 1)
	mustWrite(b, db, func(tx *store.Tx) error { return tx.InsertMessages([]*store.Message{m}) })
	for b.Loop() {
		mustRead(b, db, func(tx *store.Tx) error { _, err := tx.MessageByID(ns, m.Header.ID); return err })
	}
}

// BenchmarkInsert500Messages is a batch of messages in one transaction.
func BenchmarkInsert500Messages(b *testing.B) {
	db := storetest.New(b)
	for b.Loop() {
		b.StopTimer()
		list := make([]*store.Message, 500)
		for i := range list {
			list[i] = newMessage(b, i)
		}
		b.StartTimer()
		mustWrite(b, db, func(tx *store.Tx) error { return tx.InsertMessages(list) })
	}
	b.ReportMetric(float64(500*b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkNew is a fresh database for a test.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if err := storetest.New(b).Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is the start on a million messages and as many events;
// PARLEY_BENCH_ROWS sets another number. The first start after that many rows
// came also refreshes the planner's statistics.
func BenchmarkOpen(b *testing.B) {
	path := storetest.Path(b)
	db, err := store.Open(b.Context(), store.Options{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	fill(b, db, benchRows(b))
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	var first time.Duration
	for b.Loop() {
		start := time.Now()
		db, err := store.Open(b.Context(), store.Options{Path: path})
		if err != nil {
			b.Fatal(err)
		}
		mustRead(b, db, func(tx *store.Tx) error { _, err := tx.LastEvent(); return err })
		if first == 0 {
			first = time.Since(start)
		}
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(first.Milliseconds()), "first-ms")
}

// benchRows is how many rows the benchmarks of a large database make.
func benchRows(b *testing.B) int {
	text := os.Getenv("PARLEY_BENCH_ROWS")
	if text == "" {
		return 1_000_000
	}
	rows, err := strconv.Atoi(text)
	if err != nil {
		b.Fatalf("PARLEY_BENCH_ROWS: %v", err)
	}
	return rows
}

// BenchmarkList shows lists of a million messages and as many events, as the
// console and clients ask for them, with and without the planner's statistics;
// and the plan of each. PARLEY_BENCH_ROWS sets another number.
func BenchmarkList(b *testing.B) {
	db := storetest.New(b)
	fill(b, db, benchRows(b))
	for _, analysed := range []string{"fresh", "optimized"} {
		if analysed == "optimized" {
			if err := db.Optimize(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		for _, query := range []string{
			"limit=25", "limit=25&skip=1000", "limit=25&count=true", "limit=25&sort=created", "limit=25&sort=-sequence",
			"limit=25&type=broadcast", "limit=25&created=>1700000000000900000", "limit=25&created=>=1700000000&type=private&sort=-created",
			"limit=25&tag=!",
			"limit=25&topics=t5", "limit=25&group=" + string(hexOf(3)),
		} {
			b.Run(analysed+"/messages?"+query, func(b *testing.B) { benchList(b, db, store.Messages, query) })
		}
		for _, query := range []string{
			"limit=25", "limit=25&type=message_confirmed", "limit=25&type=nosuch", "limit=25&created=>=1700000000",
			"limit=25&sequence=>999000", "limit=25&reference=0190a1b2-0000-7000-8000-000000000001", "limit=25&type=message_confirmed&created=>1700000000000000100&sort=sequence",
		} {
			b.Run(analysed+"/events?"+query, func(b *testing.B) { benchList(b, db, store.Events, query) })
		}
	}
}

func benchList[T any](b *testing.B, db *store.DB, table *store.Table[T], query string) {
	v, err := url.ParseQuery(query)
	if err != nil {
		b.Fatal(err)
	}
	q, err := store.ParseQuery(&table.Collection, v, store.DefaultLimits)
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, _, err := store.List(b.Context(), db, table, ns, q); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.Log(plan(b, db, table, q, true))
}

// plan is the database's plan for a list. Without sorting, PostgreSQL shows what
// it would do with a long table: it sorts only where no index has the order.
func plan[T any](t testing.TB, db *store.DB, table *store.Table[T], q store.Query, sorting bool) string {
	t.Helper()
	text, args := store.ListText(table, ns, q)
	var steps []string
	mustRead(t, db, func(tx *store.Tx) error {
		explain, to := "EXPLAIN QUERY PLAN ", []any{new(int), new(int), new(int)}
		if storetest.Postgres() {
			explain, to = "EXPLAIN ", nil
			if !sorting {
				if _, err := tx.Exec("SET LOCAL enable_sort = off"); err != nil {
					return err
				}
			}
		}
		rows, err := tx.Query(explain+text, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var step string
			if err := rows.Scan(append(to, &step)...); err != nil {
				return err
			}
			steps = append(steps, strings.TrimSpace(step))
		}
		return rows.Err()
	})
	return strings.Join(steps, "; ")
}

// fill stores messages, nearly all confirmed, and an event for each.
func fill(t testing.TB, db *store.DB, rows int) {
	t.Helper()
	const block = 5000
	for first := 0; first < rows; first += block {
		var messages []*store.Message
		var events []*store.Event
		for n := first; n < min(first+block, rows); n++ {
			m := newMessage(t, n)
			m.Header.Topics = []string{fmt.Sprint("t", n%100)}
			m.State = "confirmed"
			if n%2 == 1 {
				m.Header.Type = "private"
				m.Header.Group = hexOf(n % 50)
			}
			if at := m.Header.Created + 1000; n%1000 != 0 {
				m.Confirmed = &at
			}
			messages = append(messages, m)
			events = append(events, &store.Event{ID: newID(t), Type: "message_confirmed", Namespace: ns, Reference: &m.Header.ID, Topic: m.Header.Topics[0], Created: m.Header.Created})
		}
		mustWrite(t, db, func(tx *store.Tx) error {
			if err := tx.InsertMessages(messages); err != nil {
				return err
			}
			return tx.InsertEvents(events)
		})
	}
}
