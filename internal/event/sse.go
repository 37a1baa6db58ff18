package event

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// StreamConfig is how server-sent events behave. The zero value is the default.
type StreamConfig struct {
	Source       string        // of events as CloudEvents: a URI reference
	Heartbeat    time.Duration // how often a client hears something; 0 means 15 s
	SilenceLimit time.Duration // a client that takes nothing for so long has gone; 0 means 2 min
	Logger       *slog.Logger  // nil means none
}

// Streams serves the subscriptions of a namespace as server-sent events (HTML
// Living Standard, section 9.2): one data line of JSON each, whose id is the
// sequence of the event. A client that is slow holds up the reading of the log
// for its stream alone; nothing is dropped.
type Streams struct {
	cfg  StreamConfig
	subs *Subscriptions

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// NewStreams returns the streams of subs.
func NewStreams(subs *Subscriptions, cfg StreamConfig) *Streams {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, 15*time.Second)
	cfg.SilenceLimit = cmp.Or(cfg.SilenceLimit, 2*time.Minute)
	s := &Streams{cfg: cfg, subs: subs}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends all streams and waits for them. Their clients come back by
// themselves, and go on where they were.
func (s *Streams) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
}

// ServeDurable streams a durable subscription of the transport sse, by name or
// id, until the client goes. The stream starts after the event that Last-Event-ID
// names, which counts as acknowledged; without one it starts at the stored
// position. What is sent moves that position only with ?autoack; else the client
// says how far it got, by its next Last-Event-ID or by Acknowledge.
//
// An error means that nothing was written.
func (s *Streams) ServeDurable(w http.ResponseWriter, r *http.Request, nameOrID string) error {
	sub, err := s.find(r.Context(), nameOrID)
	if err != nil {
		return err
	}
	if sub.Transport != TransportSSE {
		return errs.Conflict(codeWrongTransport, "subscription %q has the transport %q; create one with the transport sse to read it here", sub.Name, sub.Transport)
	}
	last, err := lastEvent(r)
	if err != nil {
		return err
	}
	if last != nil {
		if err := s.subs.Acknowledge(r.Context(), sub.ID, *last); err != nil {
			return err
		}
	}
	return s.serve(w, r, func(ctx context.Context, st *eventStream) error {
		c := NewConsumer(st.deliver, true, new(atomic.Uint64))
		c.serves, c.manual, c.resume = TransportSSE, !flag(r.URL.Query(), "autoack"), last
		return s.subs.Serve(ctx, sub.Name, c)
	})
}

// ServeEphemeral streams the events that the query's filter selects, from now
// on, or after the event that Last-Event-ID or ?firstevent names; payloads says
// whether with values. An error means that nothing was written.
func (s *Streams) ServeEphemeral(w http.ResponseWriter, r *http.Request, payloads bool) error {
	q := r.URL.Query()
	options, err := queryOptions(q)
	if err != nil {
		return err
	}
	if flag(q, "withdata") {
		with := true
		options.WithData = &with
	}
	options.FirstEvent = q.Get("firstevent")
	last, err := lastEvent(r)
	if err != nil {
		return err
	}
	if last != nil {
		options.FirstEvent = strconv.FormatInt(*last, 10)
	}
	if err := checkEnvelope(q.Get(optEnvelope)); err != nil {
		return err
	}
	newest, err := s.subs.log.Last(r.Context())
	if err != nil {
		return err
	}
	e, err := s.subs.ephemeral(TransportSSE, queryFilter(q), options, newest)
	if err != nil {
		return err
	}
	e.plan.envelope = q.Get(optEnvelope)
	return s.serve(w, r, func(ctx context.Context, st *eventStream) error {
		transport := Transport(st.deliver)
		if !payloads {
			transport = withhold(transport)
		}
		return s.subs.ServeEphemeral(ctx, e, NewConsumer(transport, true, new(atomic.Uint64)))
	})
}

// find returns a subscription by id or name.
func (s *Streams) find(ctx context.Context, nameOrID string) (*store.Subscription, error) {
	if id, err := uuid.Parse(nameOrID); err == nil {
		return s.subs.Get(ctx, id)
	}
	sub, err := s.subs.ByName(ctx, nameOrID)
	if err == nil && sub == nil {
		err = errs.NoSuch("subscription", nameOrID)
	}
	return sub, err
}

// lastEvent is the sequence that the client has got so far: from Last-Event-ID,
// which browsers send when they come back, or the parameter lasteventid for the
// first time. Nil if it says nothing.
func lastEvent(r *http.Request) (*int64, error) {
	text := cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("lasteventid"))
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < -1 || n == math.MaxInt64 {
		return nil, errs.BadRequest(errs.CodeBadValue, "Last-Event-ID is %q; it must be the id of an event of this stream, which is its sequence", cut(text, 50))
	}
	return &n, nil
}

// serve writes a stream until the client goes or the streams are closed.
func (s *Streams) serve(w http.ResponseWriter, r *http.Request, run func(context.Context, *eventStream) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errs.New(errs.CodeTimeout, http.StatusServiceUnavailable, "The node is stopping; come back in a moment")
	}
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	st := &eventStream{w: w, control: http.NewResponseController(w), limit: s.cfg.SilenceLimit, source: s.cfg.Source}
	// A write that blocks ends with the stream; what closes the response may
	// take a moment still.
	defer func() { _ = st.control.SetWriteDeadline(time.Now().Add(time.Second)) }()
	defer context.AfterFunc(ctx, st.cut)()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy must not gather events
	w.WriteHeader(http.StatusOK)
	if st.write([]byte("retry: 2000\n\n")) != nil {
		return nil // gone already
	}
	var beat sync.WaitGroup
	defer beat.Wait()
	defer cancel()
	beat.Go(func() {
		tick := time.NewTicker(s.cfg.Heartbeat)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if st.write([]byte(":\n\n")) != nil {
				cancel()
			}
		}
	})
	if err := run(ctx, st); ctx.Err() == nil {
		s.cfg.Logger.Info("an event stream ended", "namespace", s.subs.log.namespace, "remote", r.RemoteAddr, "error", err)
	}
	return nil
}

// eventStream is one client's response.
type eventStream struct {
	source  string
	limit   time.Duration
	control *http.ResponseController

	mu sync.Mutex // events and heartbeats take turns
	w  http.ResponseWriter

	ended atomic.Bool
}

// deliver writes a frame; it is the Transport of streams.
func (st *eventStream) deliver(f *Frame) error {
	var text []byte
	var err error
	if f.Envelope == "" {
		text, err = f.encode()
	} else {
		text, _, err = cloudEvents(f, st.source, bare)
	}
	if err != nil {
		return err
	}
	last := f.Events[len(f.Events)-1].Sequence
	return st.write(fmt.Appendf(make([]byte, 0, len(text)+40), "id: %d\ndata: %s\n\n", last, text))
}

// write sends text to the client, which takes it in time or has gone.
func (st *eventStream) write(text []byte) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.control.SetWriteDeadline(time.Now().Add(st.limit)); err != nil {
		return err
	}
	if st.ended.Load() {
		return http.ErrAbortHandler
	}
	if _, err := st.w.Write(text); err != nil {
		return err
	}
	return st.control.Flush()
}

// cut ends a write under way, and all later ones.
func (st *eventStream) cut() {
	st.ended.Store(true)
	// A connection that is closed already needs no deadline.
	_ = st.control.SetWriteDeadline(time.Now())
}

// queryFilter reads the filter of a URL's query.
func queryFilter(q url.Values) Filter {
	return Filter{
		Events:          q.Get("filter.events"),
		Topic:           q.Get("filter.topic"),
		Message:         MessageFilter{Tag: q.Get("filter.message.tag"), Group: q.Get("filter.message.group"), Author: q.Get("filter.message.author")},
		Transaction:     TransactionFilter{Type: q.Get("filter.transaction.type")},
		BlockchainEvent: BlockchainEventFilter{Name: q.Get("filter.blockchain.name"), Listener: q.Get("filter.blockchain.listener")},
		Topics:          q.Get("filter.topics"),
		Tag:             q.Get("filter.tag"),
		Group:           q.Get("filter.group"),
		Author:          q.Get("filter.author"),
	}
}
