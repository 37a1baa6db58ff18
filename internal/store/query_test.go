package store_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

// cell is a value of a probe, nil for NULL.
type cell any

// samples holds, by field, what the probes' rows have. Row r has sample r mod
// their number.
var samples = map[string][]cell{
	"s":    {"", "a", "A", "abc", "aBC", "100%", "1000", "a_c", `a\c`, "xabcx", nil},
	"u":    {"0190a1b2-0000-7000-8000-000000000001", "0190a1b2-0000-7000-8000-000000000002", nil},
	"h":    {strings.Repeat("ab", 32), strings.Repeat("cd", 32), nil},
	"t":    {int64(0), int64(1_700_000_000_000_000_000), int64(1_700_000_000_000_000_001), nil},
	"i":    {int64(-5), int64(0), int64(9), int64(10), nil},
	"n":    {"-100", "-9", "0", "9", "10", "340282366920938463463374607431768211456", nil},
	"b":    {true, false, nil},
	"j":    {`{"a":1}`, `"A"`, nil},
	"a":    {"", "x", "x,y", "y", nil},
	"none": {nil},
}

var matches = map[string][]string{
	"s":    {"", "a", "A", "abc", "%", "_", `\`, "0"},
	"u":    {"", "0190a1b2-0000-7000-8000-000000000001", "0190A1B2-0000-7000-8000-000000000001", "0190a1b2", "nonsense"},
	"h":    {"", strings.Repeat("ab", 32), strings.Repeat("AB", 32), "abab"},
	"t":    {"1700000000", "1700000000000", "1700000000000000001", "2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000000001Z"},
	"i":    {"-5", "0", "10"},
	"n":    {"-100", "-10", "0", "10", "340282366920938463463374607431768211457"},
	"b":    {"true", "TRUE", "false", "", "yes"},
	"j":    {`{"a":1}`, "a", ""},
	"a":    {"", "x", "X", "y"},
	"none": {"", "x"},
}

const probeRows = 23

func probes(t testing.TB) *store.DB {
	t.Helper()
	db := storetest.New(t)
	mustWrite(t, db, func(tx *store.Tx) error {
		if _, err := tx.Exec(store.ProbeTable); err != nil {
			return err
		}
		for row := range probeRows {
			args := []any{row + 1, ns}
			for _, f := range []string{"s", "u", "h", "t", "i", "n", "b", "j", "a"} {
				v := samples[f][row%len(samples[f])]
				if text, ok := v.(string); ok && f == "n" {
					n, _ := new(big.Int).SetString(text, 10)
					sortable, err := store.SortableInt(n)
					if err != nil {
						return err
					}
					v = sortable
				}
				args = append(args, v)
			}
			if _, err := tx.Exec(`INSERT INTO probes (seq, namespace, s, u, h, t, i, n, b, j, a) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, args...); err != nil {
				return err
			}
		}
		return nil
	})
	return db
}

func list(t testing.TB, db *store.DB, values url.Values) []int64 {
	t.Helper()
	q, err := store.ParseQuery(&store.Probes.Collection, values, store.Limits{DefaultLimit: 1000, MaxLimit: 1000, MaxSkip: 1000})
	if err != nil {
		t.Fatalf("%v: %v", values, err)
	}
	page, _, err := store.List(t.Context(), db, store.Probes, ns, q)
	if err != nil {
		t.Fatalf("%v: %v", values, err)
	}
	seqs := []int64{}
	for _, p := range page {
		seqs = append(seqs, p.Seq)
	}
	return seqs
}

// expect is what a comparison means, written without SQL. Ordinary text and
// numbers only; NULL never compares.
func expect(v cell, field, op, match string, negate, fold bool) bool {
	if v == nil {
		return false
	}
	var order int
	var text, part string
	switch have := v.(type) {
	case string:
		text, part = have, match
		if field == "n" {
			a, _ := new(big.Int).SetString(have, 10)
			b, _ := new(big.Int).SetString(match, 10)
			order = a.Cmp(b)
			break
		}
		if fold {
			text, part = strings.ToLower(text), strings.ToLower(part)
		}
		order = strings.Compare(text, part)
	case int64:
		var want int64
		if field == "t" {
			at, _ := store.ParseTime(match)
			want = int64(at)
		} else {
			fmt.Sscan(match, &want)
		}
		order = cmp.Compare(have, want)
	case bool:
		number := map[bool]int{true: 1}
		order = cmp.Compare(number[have], number[strings.EqualFold(match, "true")])
	}
	var is bool
	switch op {
	case "", "=":
		is = order == 0
	case "@":
		is = strings.Contains(text, part)
	case "^":
		is = strings.HasPrefix(text, part)
	case "$":
		is = strings.HasSuffix(text, part)
	case "<", "<<":
		is = order < 0
	case "<=":
		is = order <= 0
	case ">", ">>":
		is = order > 0
	case ">=":
		is = order >= 0
	}
	return is != negate
}

// Every operator with every modifier on every kind of field gives either the
// right rows or the right error.
func TestEveryOperatorOnEveryKind(t *testing.T) {
	db := probes(t)
	cases := 0
	for _, f := range store.Probes.Fields {
		for _, op := range []string{"", "=", "@", "^", "$", "<", "<<", "<=", ">", ">>", ">="} {
			for _, mods := range []string{"", "!", ":", "!:", "?", "!?", "[", "]"} {
				for _, match := range matches[f.Name] {
					cases++
					value := mods + op + match
					negate, fold, null := strings.Contains(mods, "!"), strings.Contains(mods, ":"), strings.Contains(mods, "?")
					orders := op != "" && strings.Contains("<>", op[:1])
					textOp := op != "" && strings.Contains("@^$", op)
					number := f.Kind == store.KindTime || f.Kind == store.KindInt || f.Kind == store.KindBigInt || f.Kind == store.KindBool
					code := ""
					switch {
					case orders && (negate || fold || null):
						code = "FF00193"
					case number && (textOp || fold):
						code = "FF00145"
					case null && match == "" && textOp:
						code = "FF00144"
					}
					q, err := store.ParseQuery(&store.Probes.Collection, url.Values{f.Name: {value}}, store.Limits{})
					if errs.Code(err) != code || err != nil && errs.Status(err) != 400 {
						t.Errorf("%s=%s: got %v, want the code %q", f.Name, value, err, code)
						continue
					}
					if err != nil {
						continue
					}
					page, _, err := store.List(t.Context(), db, store.Probes, ns, q)
					if err != nil {
						t.Errorf("%s=%s: %v", f.Name, value, err)
						continue
					}
					got := map[int64]bool{}
					for _, p := range page {
						got[p.Seq] = true
					}
					for row := range probeRows {
						v := samples[f.Name][row%len(samples[f.Name])]
						want := expect(v, f.Name, op, match, negate, fold)
						if null && match == "" {
							want = (v == nil) != negate
						}
						if got[int64(row+1)] != want {
							t.Errorf("%s=%s: row with %#v: listed %v, want %v", f.Name, value, v, got[int64(row+1)], want)
						}
					}
				}
			}
		}
	}
	if cases < 3000 {
		t.Errorf("only %d cases", cases)
	}
}

func TestQueryCombines(t *testing.T) {
	db := probes(t)
	count := func(query string) int {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		return len(list(t, db, v))
	}
	one := func(s string) int { return count("s=" + s) }
	for _, c := range []struct {
		query string
		want  int
	}{
		{"", probeRows},
		{"s=a&s=abc", one("a") + one("abc")},     // the same field: any
		{"s=a&S=abc&s=a", one("a") + one("abc")}, // in any case of its name
		{"s=^a&s=[$c", count("s=^a&j=!!&s=[$c")}, // all, if one value says [
		{"s=[^a&s=$c", 8},                        // abc, aBC is not, a_c, a\c: see below
		{"s=a&i=9", count("i=9&s=a")},            // different fields: all
		{"nosuch=1&created=x&s=a", one("a")},     // unknown ones: nothing
		{"u=nonsense", 0},                        // a malformed id matches nothing
		{"none=?&s=a", one("a")},                 // no column: always NULL
		{"none=!?", 0},
		{"none=x&none=", 0},
		{"s=!", probeRows - one("") - count("s=?")}, // not empty, and not NULL
		{"b=?&b=true", count("b=?") + count("b=true")},
		{"i=>-5&i=[<10", count("i=0") + count("i=9")},
		{"s=%3E%3C", 0}, // ><: greater than "<"
	} {
		if c.query == "s=[^a&s=$c" {
			c.want = one("abc") + one("a_c") + one(`a%5Cc`)
		}
		if c.query == "s=^a&s=[$c" {
			c.want = one("abc") + one("a_c") + one(`a%5Cc`)
		}
		if c.query == "s=%3E%3C" {
			for row := range probeRows {
				if s, ok := samples["s"][row%len(samples["s"])].(string); ok && s > "<" {
					c.want++
				}
			}
		}
		if got := count(c.query); got != c.want {
			t.Errorf("%q lists %d rows, want %d", c.query, got, c.want)
		}
	}
}

func TestQueryErrors(t *testing.T) {
	many := make([]string, 501)
	for _, c := range []struct {
		values url.Values
		code   string
	}{
		{url.Values{"i": {"x"}}, "FF00143"},
		{url.Values{"i": {""}}, "FF00143"},
		{url.Values{"i": {"9223372036854775808"}}, "FF00143"},
		{url.Values{"n": {"1.5"}}, "FF00143"},
		{url.Values{"t": {"yesterday"}}, "FF00143"},
		{url.Values{"t": {"99999999999999999999"}}, "FF00143"},
		{url.Values{"s": {strings.Repeat("x", 9000)}}, "FF00143"},
		{url.Values{"s": many}, "FF00143"},
		{url.Values{"i": {"@1"}}, "FF00145"},
		{url.Values{"b": {"^t"}}, "FF00145"},
		{url.Values{"t": {":1"}}, "FF00145"},
		{url.Values{"s": {"?@"}}, "FF00144"},
		{url.Values{"s": {"?>"}}, "FF00193"},
		{url.Values{"s": {">!x"}}, "FF00193"},
		{url.Values{"limit": {"1001"}}, "FF00192"},
		{url.Values{"limit": {"99999999999999999999999"}}, "FF00192"},
		{url.Values{"skip": {"1001"}}, "FF00191"},
	} {
		_, err := store.ParseQuery(&store.Probes.Collection, c.values, store.DefaultLimits)
		if errs.Code(err) != c.code || errs.Status(err) != 400 {
			t.Errorf("%.80s: got %v, want %s", fmt.Sprint(c.values), err, c.code)
		}
	}
}

func TestSortAndPage(t *testing.T) {
	db := probes(t)
	newest := list(t, db, url.Values{})
	if !slices.IsSortedFunc(newest, func(a, b int64) int { return cmp.Compare(b, a) }) {
		t.Errorf("the default order is %v", newest)
	}
	for query, want := range map[string][]int64{
		"limit=2":                             {23, 22},
		"limit=2&skip=1":                      {22, 21},
		"limit=0&skip=20":                     {3, 2, 1}, // no limit together with skip works
		"skip=20$&limit=1":                    {23},      // what is no number counts as 0
		"sort=i&limit=1&i=!?":                 {1},
		"sort=-i&limit=2":                     {19, 14}, // 10 is the largest
		"sort=s,-i&s=!?&limit=1":              {23},     // s is "", and of those i is 9 before 0
		"sort=s&sort=-i&s=!?&limit=1":         {23},
		"sort=I,nosuch&limit=1":               {23}, // names match in lower case only
		"sort=i&descending&limit=1":           {19},
		"sort=-i&ascending=true&i=!?&limit=1": {1},
		"sort=i&descending=true&ascending":    list(t, db, url.Values{"sort": {"-i"}}),
		"sort=none&limit=1":                   {23},
	} {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got := list(t, db, v); !slices.Equal(got, want) {
			t.Errorf("%q lists %v, want %v", query, got, want)
		}
	}
	q, err := store.ParseQuery(&store.Probes.Collection, url.Values{}, store.DefaultLimits)
	if err != nil || q.Limit != 25 || q.Count {
		t.Errorf("the default query is %+v, %v", q, err)
	}
	for _, text := range []string{"", "true", "TRUE"} {
		if q, _ := store.ParseQuery(&store.Probes.Collection, url.Values{"count": {text}}, store.DefaultLimits); !q.Count {
			t.Errorf("count=%s does not count", text)
		}
	}
	q, err = store.ParseQuery(&store.Probes.Collection, url.Values{"count": {""}, "limit": {"3"}, "s": {"!"}}, store.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	page, total, err := store.List(t.Context(), db, store.Probes, ns, q)
	if err != nil || len(page) != 3 || total != int64(len(list(t, db, url.Values{"s": {"!"}}))) {
		t.Errorf("a counted page has %d rows of %d, %v", len(page), total, err)
	}
	page, total, err = store.List(t.Context(), db, store.Probes, "other", store.Query{})
	if err != nil || page == nil || len(page) != 0 || total != -1 {
		t.Errorf("an empty page is %v of %d, %v", page, total, err)
	}
}

func TestWhereAndGet(t *testing.T) {
	db := probes(t)
	var q store.Query
	if err := q.Where(&store.Probes.Collection, "i", 9, 10); err != nil {
		t.Fatal(err)
	}
	page, _, err := store.List(t.Context(), db, store.Probes, ns, q)
	if want := len(list(t, db, url.Values{"i": {"9", "10"}})); err != nil || len(page) != want {
		t.Errorf("%d rows with 9 or 10, want %d; %v", len(page), want, err)
	}
	if err := q.Where(&store.Probes.Collection, "nosuch", 1); err == nil {
		t.Error("an unknown field is accepted")
	}
	p, err := store.Get(t.Context(), db, store.Probes, ns, "7")
	if err != nil || p.Seq != 7 {
		t.Errorf("row 7 is %v, %v", p, err)
	}
	if _, err := store.Get(t.Context(), db, store.Probes, ns, "77"); errs.Code(err) != "FF10109" || errs.Status(err) != 404 {
		t.Errorf("a missing row: %v", err)
	}
}

// Messages: unconfirmed first, then the newest confirmation.
func TestMessageOrder(t *testing.T) {
	db := storetest.New(t)
	confirmed := map[int]store.Time{1: 50, 2: 90, 4: 50}
	var all []*store.Message
	for n := range 6 {
		m := newMessage(t, n)
		if at, ok := confirmed[n]; ok {
			m.Confirmed = &at
		}
		all = append(all, m)
	}
	mustWrite(t, db, func(tx *store.Tx) error { return tx.InsertMessages(all) })
	page, _, err := store.List(t.Context(), db, store.Messages, ns, store.Query{})
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for _, m := range page {
		got = append(got, m.Seq-all[0].Seq)
	}
	if want := []int64{5, 3, 0, 2, 4, 1}; !slices.Equal(got, want) {
		t.Errorf("the order is %v, want %v", got, want)
	}
}

// collection is what all tables have in common for a test.
type collection struct {
	*store.Collection
	list func(ctx context.Context, db *store.DB, q store.Query) error
}

func of[T any](table *store.Table[T]) collection {
	return collection{&table.Collection, func(ctx context.Context, db *store.DB, q store.Query) error {
		_, _, err := store.List(ctx, db, table, ns, q)
		return err
	}}
}

func collections() []collection {
	return []collection{
		of(store.Messages), of(store.Batches), of(store.Transactions), of(store.DataItems), of(store.Datatypes),
		of(store.Operations), of(store.Subscriptions), of(store.Events), of(store.Pins), of(store.Identities),
		of(store.Verifiers), of(store.Groups), of(store.BlockchainEvents), of(store.Interfaces), of(store.ContractAPIs), of(store.Listeners),
	}
}

// Every field of every collection exists, filters, and sorts.
func TestEveryField(t *testing.T) {
	db := storetest.New(t)
	for _, c := range collections() {
		for _, f := range c.Fields {
			value := map[store.Kind]string{store.KindTime: "1", store.KindInt: "1", store.KindBool: "true"}[f.Kind]
			for _, v := range []url.Values{{f.Name: {value}}, {f.Name: {"!?"}}, {"sort": {f.Name}}, {f.Name: {value, "?"}, "sort": {"-" + f.Name}, "count": {""}}} {
				q, err := store.ParseQuery(c.Collection, v, store.DefaultLimits)
				if err == nil {
					err = c.list(t.Context(), db, q)
				}
				if err != nil {
					t.Errorf("%s: %v: %v", c.Name, v, err)
				}
			}
		}
	}
}

// FuzzParseQuery: whatever clients send is refused with a code, or runs.
func FuzzParseQuery(f *testing.F) {
	for _, seed := range []string{
		"", "limit=25&count=true", "type=^blockchain", "error=!", "blob.hash=!?", "created=>=1700000000&sort=-created",
		"tokenIndex=", "s=[!:@a&s=]^b", "i=><5", "b=true&b=?", "n=>0", "t=<2023-01-01T00:00:00Z", "skip=0$", "a=!:$%25_\\",
		"s=%00&u=%ff", "sort=a,-b,,c&descending", "id=x&ID=y", "s=>>=&i=<<1",
	} {
		f.Add(seed)
	}
	db := probes(f)
	all := append(collections(), of(store.Probes))
	allowed := []string{"FF00143", "FF00144", "FF00145", "FF00191", "FF00192", "FF00193"}
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		for _, c := range all {
			q, err := store.ParseQuery(c.Collection, v, store.DefaultLimits)
			if err != nil {
				if !slices.Contains(allowed, errs.Code(err)) || errs.Status(err) != 400 {
					t.Fatalf("%s: %q: %v", c.Name, query, err)
				}
				continue
			}
			if err := c.list(t.Context(), db, q); err != nil {
				t.Fatalf("%s: %q: %v", c.Name, query, err)
			}
		}
	})
}

// The fields are those that existing clients know, with their kinds.
func TestFieldsMatchTheReference(t *testing.T) {
	kinds := map[store.Kind]string{
		store.KindText: "s", store.KindUUID: "u", store.KindHash: "b", store.KindTime: "t", store.KindInt: "i",
		store.KindBool: "o", store.KindJSON: "j", store.KindList: "a",
	}
	b, err := os.ReadFile(filepath.Join("testdata", "filters.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]map[string]string
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	for _, c := range collections() {
		got := map[string]string{}
		for _, f := range c.Fields {
			got[f.Name] = kinds[f.Kind]
		}
		if fmt.Sprint(got) != fmt.Sprint(want[c.Name]) {
			t.Errorf("%s: fields\n%v, want\n%v", c.Name, got, want[c.Name])
		}
	}
}
