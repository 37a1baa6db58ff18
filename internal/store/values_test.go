package store_test

import (
	"encoding/json"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

func TestTimeJSON(t *testing.T) {
	for in, want := range map[string]string{
		`null`:                                  `null`,
		`""`:                                    `null`,
		`0`:                                     `null`,
		`1700000000`:                            `"2023-11-14T22:13:20Z"`,
		`"1700000000"`:                          `"2023-11-14T22:13:20Z"`,
		`1700000000123`:                         `"2023-11-14T22:13:20.123Z"`,
		`1700000000123456789`:                   `"2023-11-14T22:13:20.123456789Z"`,
		`"2023-11-14T22:13:20.120000000+01:00"`: `"2023-11-14T21:13:20.12Z"`,
		`"0001-01-01T00:00:00Z"`:                `null`,
		`-1`:                                    `"1969-12-31T23:59:59Z"`,
	} {
		var at store.Time
		if err := json.Unmarshal([]byte(in), &at); err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got, err := json.Marshal(at); err != nil || string(got) != want {
			t.Errorf("%s became %s, want %s (%v)", in, got, want, err)
		}
	}
	for _, in := range []string{`"yesterday"`, `1.5`, `9999999999`, `-9999999999999`, `"9999-01-01T00:00:00Z"`, `true`} {
		var at store.Time
		if err := json.Unmarshal([]byte(in), &at); errs.Code(err) != "FF00136" {
			t.Errorf("%s: %v, want FF00136", in, err)
		}
	}
	if at := store.At(time.Unix(5, 6)); at != 5_000_000_006 || !at.Time().Equal(time.Unix(5, 6)) || !store.Time(0).Time().IsZero() {
		t.Error("At and Time do not invert each other")
	}
}

func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{"", "0", "-1", "1e9", "2023-11-14T22:13:20Z", "9223372036854775807", "2262-04-11T23:47:16.854775807Z", "1677-09-21T00:12:43Z"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := store.ParseTime(text)
		if err != nil {
			if errs.Code(err) != "FF00136" {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if at == 0 {
			return
		}
		if again, err := store.ParseTime(at.String()); err != nil || again != at {
			t.Fatalf("%q is %d, printed %s, read again %d (%v)", text, at, at, again, err)
		}
	})
}

func TestHexJSON(t *testing.T) {
	good := strings.Repeat("aB", 32)
	for in, want := range map[string]store.Hex{`null`: "", `""`: "", `"` + good + `"`: store.Hex(strings.ToLower(good)), `"0x` + good + `"`: store.Hex(strings.ToLower(good))} {
		var h store.Hex
		if err := json.Unmarshal([]byte(in), &h); err != nil || h != want {
			t.Errorf("%s is %q (%v), want %q", in, h, err, want)
		}
	}
	for in, code := range map[string]string{`"xyz"`: "FF00106", `"abc"`: "FF00107", `"abcd"`: "FF00107"} {
		var h store.Hex
		if err := json.Unmarshal([]byte(in), &h); errs.Code(err) != code {
			t.Errorf("%s: %v, want %s", in, err, code)
		}
	}
}

// What existing clients see: nothing where nothing is, null where they expect
// null.
func TestShapes(t *testing.T) {
	for _, c := range []struct {
		object any
		want   string
	}{
		{store.Operation{}, `{"id":"00000000-0000-0000-0000-000000000000","namespace":"","tx":null,"type":"","status":"","plugin":""}`},
		{store.Identity{}, `{"id":"00000000-0000-0000-0000-000000000000","did":"","type":"","namespace":"","messages":{"claim":null,"verification":null,"update":null}}`},
		{store.Data{Value: json.RawMessage(`{"b":1.0,"a":"\u003c"}`)}, `{"id":"00000000-0000-0000-0000-000000000000","validator":"","value":{"b":1.0,"a":"\u003c"}}`},
		{store.Data{}, `{"id":"00000000-0000-0000-0000-000000000000","validator":"","value":null}`},
		{store.Subscription{Filter: json.RawMessage(`{}`), Options: json.RawMessage(`{}`)}, `{"id":"00000000-0000-0000-0000-000000000000","namespace":"","name":"","transport":"","filter":{},"options":{},"created":null,"updated":null}`},
	} {
		if got, err := json.Marshal(c.object); err != nil || string(got) != c.want {
			t.Errorf("%T is\n%s, want\n%s (%v)", c.object, got, c.want, err)
		}
	}
}

func TestSortableInt(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	numbers := []*big.Int{big.NewInt(0), big.NewInt(-1), big.NewInt(1), big.NewInt(9), big.NewInt(10), big.NewInt(-10)}
	for range 200 {
		n := new(big.Int).SetUint64(random.Uint64())
		n.Lsh(n, uint(random.IntN(200))).Rsh(n, uint(random.IntN(260)))
		if random.IntN(2) == 0 {
			n.Neg(n)
		}
		numbers = append(numbers, n)
	}
	texts := make([]string, len(numbers))
	for i, n := range numbers {
		text, err := store.SortableInt(n)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = text
		if back, err := store.ParseSortableInt(text); err != nil || back.Cmp(n) != 0 {
			t.Fatalf("%s is stored as %s and read as %s (%v)", n, text, back, err)
		}
		for j := range i {
			if strings.Compare(texts[j], text) != numbers[j].Cmp(n) {
				t.Fatalf("%s and %s sort as %s and %s", numbers[j], n, texts[j], text)
			}
		}
	}
	if _, err := store.SortableInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(1000), nil)); err == nil {
		t.Error("a thousand digits are accepted")
	}
}

func FuzzParseSortableInt(f *testing.F) {
	for _, seed := range []string{"10010", "1002", "0", "19990", "0998998", "1001x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := store.ParseSortableInt(text)
		if err != nil {
			return
		}
		if again, err := store.SortableInt(n); err != nil || len(again) > len(text) {
			t.Fatalf("%q is %s, stored again as %q (%v)", text, n, again, err)
		}
	})
}
