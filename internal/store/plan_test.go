package store_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

// The pages that clients and the console ask for all the time walk an index in
// order: none sorts the table, with statistics or without. A million rows make
// the difference between a millisecond and seconds (BenchmarkList).
func TestCommonPagesDoNotSort(t *testing.T) {
	db := storetest.New(t)
	fill(t, db, 2000)
	for _, optimized := range []bool{false, true} {
		if optimized {
			if err := db.Optimize(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, query := range []string{"", "sort=created", "sort=-created", "sort=-sequence", "type=broadcast", "author=!x", "group=" + string(hexOf(3)), "created=>=1700000000&sort=-created"} {
			checkPlan(t, db, store.Messages, query)
		}
		for _, query := range []string{"", "type=message_confirmed", "sequence=>100", "sort=created", "type=a&type=b"} {
			checkPlan(t, db, store.Events, query)
		}
		for _, query := range []string{"", "sort=created", "status=Failed"} {
			checkPlan(t, db, store.Operations, query)
		}
		checkPlan(t, db, store.Transactions, "")
		checkPlan(t, db, store.DataItems, "")
		checkPlan(t, db, store.BlockchainEvents, "")
		checkPlan(t, db, store.Pins, "")
	}
}

func checkPlan[T any](t *testing.T, db *store.DB, table *store.Table[T], query string) {
	t.Helper()
	v, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	q, err := store.ParseQuery(&table.Collection, v, store.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	if p := plan(t, db, table, q, false); strings.Contains(p, "TEMP B-TREE") || strings.Contains(p, "Sort Key: ") && !strings.Contains(p, "Incremental Sort") {
		t.Errorf("%s?%s sorts: %s", table.Name, query, p)
	}
}
