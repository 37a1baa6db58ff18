package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/errs"
)

// Transports of durable subscriptions. To the first two a consumer connects; the
// others the node carries itself.
const (
	TransportWebSockets = "websockets" // consumers that connect to /ws
	TransportSSE        = "sse"        // consumers of server-sent events
	TransportWebhooks   = "webhooks"   // HTTP requests to a URL
	TransportNATS       = "nats"       // messages of a NATS JetStream stream
	TransportKafka      = "kafka"      // records of a Kafka topic
)

// carried says whether the node carries a transport's events itself.
func carried(transport string) bool {
	switch transport {
	case TransportWebhooks, TransportNATS, TransportKafka:
		return true
	}
	return false
}

const (
	// FirstNewest starts a subscription after the newest event there is.
	FirstNewest = "newest"
	// FirstOldest starts a subscription with the first event of the log.
	FirstOldest = "oldest"

	maxReadAhead     = math.MaxUint16
	defaultBatchSize = 50
	defaultBatchWait = 50 * time.Millisecond

	// defaultParallel is how many events are on their way at once where topics
	// proceed independently.
	defaultParallel = 32
)

// Options says how a subscription is delivered. Keys that this version does not
// know are kept and returned as they came.
type Options struct {
	FirstEvent   string  // newest, oldest or a sequence of at least -1; delivery starts after it; "" is newest
	ReadAhead    *uint16 // events in flight beyond the first; in batch mode the size of a batch
	WithData     *bool   // deliver the data of messages; not with websockets; default of webhooks
	Batch        *bool   // deliver arrays of events, one acknowledgement for each
	BatchTimeout string  // how long a batch waits to fill: a duration such as 50ms, or a number of milliseconds

	other map[string]json.RawMessage
}

// The JSON names of the options.
const (
	optFirstEvent   = "firstEvent"
	optReadAhead    = "readAhead"
	optWithData     = "withData"
	optBatch        = "batch"
	optBatchTimeout = "batchTimeout"
)

// UnmarshalJSON reads the options. Its errors are coded and name the option.
func (o *Options) UnmarshalJSON(text []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return errs.BadRequest(errs.CodeBadValue, "options is not a JSON object: %s", text)
	}
	*o = Options{}
	for _, known := range []struct {
		name string
		read func(json.RawMessage) error
		want string
	}{
		{optFirstEvent, func(v json.RawMessage) (err error) { o.FirstEvent, err = textOrNumber(v); return },
			`"newest", "oldest" or a sequence of at least -1`},
		{optReadAhead, func(v json.RawMessage) error { return json.Unmarshal(v, &o.ReadAhead) },
			"a whole number from 0 to " + strconv.Itoa(maxReadAhead)},
		{optWithData, func(v json.RawMessage) error { return json.Unmarshal(v, &o.WithData) }, "true or false"},
		{optBatch, func(v json.RawMessage) error { return json.Unmarshal(v, &o.Batch) }, "true or false"},
		{optBatchTimeout, func(v json.RawMessage) (err error) { o.BatchTimeout, err = textOrNumber(v); return },
			`a duration such as "50ms" or a number of milliseconds`},
	} {
		value, given := all[known.name]
		if !given {
			continue
		}
		if err := known.read(value); err != nil {
			return errs.BadRequest(errs.CodeBadValue, "options.%s is %s; it must be %s", known.name, value, known.want)
		}
		delete(all, known.name)
	}
	if len(all) > 0 {
		o.other = all
	}
	return nil
}

// MarshalJSON writes the options that are set, sorted by name.
func (o Options) MarshalJSON() ([]byte, error) {
	all := make(map[string]any, len(o.other)+5)
	for name, value := range o.other {
		all[name] = value
	}
	if o.FirstEvent != "" {
		all[optFirstEvent] = o.FirstEvent
	}
	if o.ReadAhead != nil {
		all[optReadAhead] = *o.ReadAhead
	}
	if o.WithData != nil {
		all[optWithData] = *o.WithData
	}
	if o.Batch != nil {
		all[optBatch] = *o.Batch
	}
	if o.BatchTimeout != "" {
		all[optBatchTimeout] = o.BatchTimeout
	}
	return json.Marshal(all)
}

// textOrNumber reads a JSON string, or the text of a number; null is "".
func textOrNumber(v json.RawMessage) (string, error) {
	v = bytes.TrimSpace(v)
	if len(v) > 0 && v[0] != '"' {
		var n *json.Number
		err := json.Unmarshal(v, &n)
		if err != nil || n == nil {
			return "", err
		}
		return n.String(), nil
	}
	var s string
	err := json.Unmarshal(v, &s)
	return s, err
}

// read decodes an option that only some transports have, if it is given and not
// null. The error says what the option must be.
func (o *Options) read(name string, to any, want string) error {
	text, given := o.other[name]
	if !given || string(bytes.TrimSpace(text)) == "null" {
		return nil
	}
	if err := json.Unmarshal(text, to); err != nil {
		if e, coded := errors.AsType[*errs.Error](err); coded {
			return e
		}
		return errs.BadRequest(errs.CodeBadValue, "options.%s is %s; it must be %s", name, text, want)
	}
	return nil
}

// plan is how to deliver, from checked options.
type plan struct {
	window   int           // events in flight, or the size of the one batch in flight
	batch    bool          // deliver arrays
	wait     time.Duration // how long a batch waits to fill
	ahead    int           // frames that may be acknowledged before the oldest one in flight
	withData bool          // with the data of messages
	envelope string        // of streams; targets have their own
}

// plan checks the options for a transport and completes them: what a transport
// cannot do is refused, what it does without being asked is written down.
func (o *Options) plan(transport string) (plan, error) {
	batch := o.Batch != nil && *o.Batch
	withData := o.WithData != nil && *o.WithData
	switch {
	case batch && withData:
		return plan{}, errs.BadRequest("FF10460", "options.withData and options.batch are both true; set one of them to false")
	case withData && transport == TransportWebSockets:
		return plan{}, errs.BadRequest("FF10244", "options.withData is true, which websockets do not offer; leave it out and fetch the data of the messages you need")
	}
	if o.WithData == nil {
		withData = transport == TransportWebhooks && !batch
	}
	o.WithData = &withData

	p := plan{window: 1, batch: batch, withData: withData}
	var parallel bool
	if transport == TransportWebhooks {
		if err := o.read(optParallelTopics, &parallel, "true or false"); err != nil {
			return plan{}, err
		}
	}
	if parallel {
		p.window, p.ahead = defaultParallel, maxAhead
	}
	switch {
	case batch && (o.ReadAhead == nil || *o.ReadAhead == 0):
		p.window = defaultBatchSize
	case batch:
		p.window = int(*o.ReadAhead)
	case o.ReadAhead != nil:
		p.window = int(*o.ReadAhead) + 1
	}
	p.wait = defaultBatchWait
	if o.BatchTimeout != "" {
		wait, err := parseDuration(o.BatchTimeout)
		if err != nil {
			return plan{}, err
		}
		p.wait = wait
	}
	if transport == TransportSSE {
		if err := o.read(optEnvelope, &p.envelope, `"cloudevents"`); err != nil {
			return plan{}, err
		}
		if err := checkEnvelope(p.envelope); err != nil {
			return plan{}, err
		}
	}
	if transport == TransportNATS || transport == TransportKafka {
		// A broker takes many events at once, each as a message of its own.
		if !p.batch && o.ReadAhead == nil {
			p.window = defaultBatchSize
		}
		if o.BatchTimeout == "" {
			p.wait = 0
		}
		p.batch = true
	}
	return p, nil
}

// parseDuration reads "50ms" or "50", which is in milliseconds.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if ms, bad := strconv.ParseInt(text, 10, 64); bad == nil && ms <= math.MaxInt64/int64(time.Millisecond) {
		d, err = time.Duration(ms)*time.Millisecond, nil
	}
	if err != nil || d < 0 {
		return 0, errs.BadRequest(errs.CodeBadValue, "options.batchTimeout is %q; it must be a duration such as 50ms or a number of milliseconds, not below 0", text)
	}
	return d, nil
}

// firstEvent is the position that delivery starts after: newest is the highest
// sequence there is now.
func (o *Options) firstEvent(newest int64) (int64, error) {
	switch strings.ToLower(o.FirstEvent) {
	case "", FirstNewest:
		return newest, nil
	case FirstOldest:
		return -1, nil
	}
	n, err := strconv.ParseInt(o.FirstEvent, 10, 64)
	if err != nil || n < -1 {
		return 0, errs.BadRequest("FF10191", `options.firstEvent is %q; it must be "newest", "oldest" or a sequence of at least -1`, o.FirstEvent)
	}
	return n, nil
}
