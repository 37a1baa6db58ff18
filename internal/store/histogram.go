package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Bucket is the rows of one span of time, by type.
type Bucket struct {
	Start  Time
	Total  int64
	Types  []TypeCount // by name; nil where rows have no type
	Capped bool        // the span has more rows than were counted
}

// TypeCount is how many of the counted rows have a type.
type TypeCount struct {
	Type  string
	Count int64
}

// Histogram counts a collection's rows in spans of a width, from one time up to
// and without another, by their time (created, or timestamp for what has no
// created). No span counts more than most rows.
func Histogram(ctx context.Context, db *DB, c *Collection, namespace string, from, to, width Time, most int) ([]Bucket, error) {
	if width <= 0 || to < from {
		return nil, fmt.Errorf("histogram of %s from %d to %d in spans of %d: times must ascend and spans be positive", c.Name, from, to, width)
	}
	at, timed := c.time()
	if !timed {
		return nil, fmt.Errorf("%s have no time to count by", c.Name)
	}
	kind := "''"
	f, typed := c.Field("type")
	if typed {
		kind = f.column
	}
	text := "SELECT kind, COUNT(*) FROM (SELECT " + kind + " AS kind FROM " + c.table +
		" WHERE " + at.column + " >= $1 AND " + at.column + " < $2 AND namespace = $3 LIMIT $4) AS counted GROUP BY kind"
	var buckets []Bucket
	err := db.Read(ctx, func(tx *Tx) error {
		buckets = nil
		for start := from; start < to; start += width {
			end := to
			if width < to-start {
				end = start + width
			}
			types, err := queryAll(tx, func(r *Rows, n *TypeCount) error { return r.Scan(&n.Type, &n.Count) }, text, start, end, namespace, most+1)
			if err != nil {
				return fmt.Errorf("counting %s: %w", c.Name, err)
			}
			b := Bucket{Start: start}
			slices.SortFunc(types, func(a, b TypeCount) int { return strings.Compare(a.Type, b.Type) })
			for _, n := range types {
				b.Total += n.Count
			}
			if b.Total > int64(most) { // the row too many only proves that there is one
				b.Capped = true
				b.Total--
				if types[len(types)-1].Count--; types[len(types)-1].Count == 0 {
					types = types[:len(types)-1]
				}
			}
			if typed {
				b.Types = types
			}
			buckets = append(buckets, b)
			if end == to {
				break
			}
		}
		return nil
	})
	return buckets, err
}
