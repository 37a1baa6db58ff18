package event

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"strconv"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// historySpan is how many sequence numbers one look into the past may cover.
const historySpan = 1000

// History returns the events that a subscription's filter selects out of a range
// of the log, as if it had been there at the time: the last ones, up to the
// query's limit, in order, and how many there are in the whole range.
//
// The query has startsequence (inclusive) and endsequence (exclusive), which may
// be at most 1000 apart (FF10463); by default the range ends with the newest
// event and covers as much as it may. Its other parameters restrict the events
// further, as in any list of events. A subscription that is not there is FF10109.
func (s *Subscriptions) History(ctx context.Context, id store.UUID, query url.Values) (events []Enriched, total int, err error) {
	sub, err := s.Get(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	var filter Filter
	if err := json.Unmarshal(sub.Filter, &filter); err != nil {
		return nil, 0, err
	}
	m, err := filter.compile()
	if err != nil {
		return nil, 0, err
	}
	newest, err := s.log.Last(ctx)
	if err != nil {
		return nil, 0, err
	}
	start, end, err := historyRange(query, newest)
	if err != nil {
		return nil, 0, err
	}
	asked, err := store.ParseQuery(&store.Events.Collection, query, store.DefaultLimits)
	if err != nil {
		return nil, 0, err
	}

	// Every event of the range is read, and the limit applies to what matches.
	query = maps.Clone(query)
	query.Del("skip")
	query.Del("ascending")
	query.Del("descending")
	query["sequence"] = append([]string{"[>=" + strconv.FormatInt(start, 10), "[<" + strconv.FormatInt(end, 10)}, query["sequence"]...)
	query["sort"] = []string{"sequence"}
	query["limit"] = []string{strconv.Itoa(historySpan)}
	q, err := store.ParseQuery(&store.Events.Collection, query, store.DefaultLimits)
	if err != nil {
		return nil, 0, err
	}
	page, _, err := store.List(ctx, s.db, store.Events, s.log.namespace, q)
	if err != nil {
		return nil, 0, err
	}
	early := make([]store.Event, 0, len(page))
	for _, e := range page {
		if m.early(e.Type, e.Topic) {
			early = append(early, e)
		}
	}
	enriched, err := s.log.Enrich(ctx, early)
	if err != nil {
		return nil, 0, err
	}
	events = make([]Enriched, 0, len(enriched))
	for i := range enriched {
		if m.match(&enriched[i]) {
			events = append(events, enriched[i])
		}
	}
	total = len(events)
	if limit := int(asked.Limit); limit > 0 && total > limit {
		events = events[total-limit:]
	}
	return events, total, nil
}

// historyRange reads the range of a query: start inclusive, end exclusive.
func historyRange(query url.Values, newest int64) (start, end int64, err error) {
	read := func(name string, absent int64) (int64, error) {
		text := query.Get(name)
		if text == "" {
			return absent, nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < -1 {
			return 0, errs.BadRequest(errs.CodeBadValue, "%s is %q; it must be a sequence number", name, text)
		}
		return n, nil
	}
	const absent = -2
	if start, err = read("startsequence", absent); err != nil {
		return 0, 0, err
	}
	if end, err = read("endsequence", absent); err != nil {
		return 0, 0, err
	}
	switch {
	case start == absent && end == absent:
		end = newest + 1
		start = end - historySpan
	case start == absent:
		start = end - historySpan
	case end == absent:
		end = start + historySpan
	}
	if end < start {
		return 0, 0, errs.BadRequest("FF10464", "startsequence %d is above endsequence %d; swap them", start, end)
	}
	if end-start > historySpan {
		return 0, 0, errs.BadRequest("FF10463", "startsequence %d and endsequence %d are more than %d apart; ask for a smaller range", start, end, historySpan)
	}
	return start, end, nil
}
