package api

import (
	"net/http"
	"strconv"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// bucket is one span of a histogram. Counts are text: existing clients parse
// them as integers of any size.
type bucket struct {
	Count     string      `json:"count"`
	Timestamp store.Time  `json:"timestamp"` // start of the span
	Types     []typeCount `json:"types"`
	IsCapped  bool        `json:"isCapped"`
}

type typeCount struct {
	Count string `json:"count"`
	Type  string `json:"type"`
}

const maxBuckets = 100

// charted are the collections that a histogram can be made of. tokentransfers
// joins them with the tokens.
var charted = map[string]*store.Collection{
	"events":           &store.Events.Collection,
	"messages":         &store.Messages.Collection,
	"operations":       &store.Operations.Collection,
	"transactions":     &store.Transactions.Collection,
	"blockchainevents": &store.BlockchainEvents.Collection,
	"tokentransfers":   nil,
}

func getHistogram(c *call) (any, error) {
	name := c.path("collection")
	col, known := charted[name]
	if !known {
		return nil, errs.New("FF10301", http.StatusBadRequest, "There is no histogram of %q; use events, messages, operations, transactions, tokentransfers or blockchainevents", shorten(name))
	}
	from, err := c.time("startTime")
	if err != nil {
		return nil, err
	}
	to, err := c.time("endTime")
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseInt(c.param("buckets"), 10, 64)
	if err != nil || n < 1 || n > maxBuckets {
		return nil, errs.New("FF10298", http.StatusBadRequest, "buckets is %q; give a number from 1 to %d", shorten(c.param("buckets")), maxBuckets)
	}
	if to < from {
		return nil, errs.New("FF10300", http.StatusBadRequest, "startTime %s is after endTime %s; exchange them", from, to)
	}
	if to-from < 0 { // more than 64 bits of nanoseconds
		return nil, errs.New("FF10300", http.StatusBadRequest, "startTime %s and endTime %s are more than 292 years apart; ask for less", from, to)
	}
	if to == from || col == nil {
		return []bucket{}, nil
	}
	// With a width rounded down, what remains makes one more bucket.
	width := max((to-from)/store.Time(n), 1)
	counted, err := store.Histogram(c.ctx(), c.DB, col, c.Namespace, from, to, width, int(c.Limits.HistogramCount))
	if err != nil {
		return nil, err
	}
	buckets := make([]bucket, len(counted))
	for i, b := range counted {
		buckets[i] = bucket{strconv.FormatInt(b.Total, 10), b.Start, []typeCount{}, b.Capped}
		for _, t := range b.Types {
			buckets[i].Types = append(buckets[i].Types, typeCount{strconv.FormatInt(t.Count, 10), t.Type})
		}
	}
	return buckets, nil
}

// time reads a required query parameter that holds a time.
func (c *call) time(name string) (store.Time, error) {
	t, err := store.ParseTime(c.param(name))
	if err != nil {
		return 0, errs.Wrap(err, "FF10299", http.StatusBadRequest, "The query parameter %s", name)
	}
	return t, nil
}
