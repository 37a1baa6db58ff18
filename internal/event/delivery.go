package event

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/parley-node/parley/internal/store"
)

// Ref names the subscription of a delivery.
type Ref struct {
	ID        store.UUID `json:"id"`
	Namespace string     `json:"namespace"`
	Name      string     `json:"name"`
}

// Frame is what a transport sends as one, and its consumer acknowledges as one:
// an event, or in batch mode an array of them.
type Frame struct {
	ID           store.UUID // of the event, or of the batch
	Batch        bool
	Envelope     string // that a stream puts around events; see Options
	Subscription Ref
	Events       []Enriched // one, unless Batch; in order of sequence
}

// Transport hands a frame to a consumer. It blocks while the consumer is slow,
// which holds up reading ahead, so that nothing is ever dropped. An error means
// that the consumer has gone, and Transport is not called again.
type Transport func(*Frame) error

// Consumer is one connected reader of one subscription. It knows which frames
// are on their way: sent, and not yet acknowledged.
type Consumer struct {
	transport Transport
	autoAck   bool
	clock     *atomic.Uint64 // counts the frames of all consumers of a connection
	room      chan struct{}  // holds at most one "a frame was acknowledged"
	drained   chan struct{}  // closed when draining and nothing is in flight

	serves string // transport of the subscriptions that it may consume
	manual bool   // taking a frame does not move the stored position
	resume *int64 // start after this instead of the stored position
	finish func() // waits for deliveries under way when no more are to be made; may be nil

	mu        sync.Mutex
	ref       Ref         // of the delivery under way
	window    int         // how many frames may be in flight
	ahead     int         // how many may be acknowledged before the oldest one in flight
	unacked   int         // how many of inflight are not acknowledged
	passed    int64       // everything up to it was sent, or passed over by the filter
	moved     func(int64) // told of each new position, under mu
	inflight  []flight    // oldest first; never begins with an acknowledged one
	withdrawn map[store.UUID]struct{}
	draining  bool
}

// flight is a sent frame that is not acknowledged, or stands behind one.
type flight struct {
	id    store.UUID
	first int64  // sequence of its first event
	nth   uint64 // of the connection's frames
	acked bool
}

// NewConsumer returns a consumer to be served once. With autoAck a frame counts
// as acknowledged as soon as the transport has taken it. Consumers that share a
// connection share its clock, which tells the oldest of their frames.
func NewConsumer(transport Transport, autoAck bool, clock *atomic.Uint64) *Consumer {
	return &Consumer{
		transport: transport,
		autoAck:   autoAck,
		clock:     clock,
		serves:    TransportWebSockets,
		room:      make(chan struct{}, 1),
		drained:   make(chan struct{}),
		withdrawn: make(map[store.UUID]struct{}),
	}
}

// Ref is the subscription that is being delivered; its id is zero until then.
func (c *Consumer) Ref() Ref {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ref
}

// Oldest returns the clock's count of the oldest frame in flight.
func (c *Consumer) Oldest() (nth uint64, any bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.inflight) == 0 {
		return 0, false
	}
	return c.inflight[0].nth, true
}

// Ack acknowledges the frame with an id, or the oldest one in flight if id is
// nil. It reports whether there is such a frame. Acknowledging a frame that was
// withdrawn, because its subscription has changed, is accepted without effect.
func (c *Consumer) Ack(id *store.UUID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := -1
	for i := range c.inflight {
		if !c.inflight[i].acked && (id == nil || c.inflight[i].id == *id) {
			at = i
			break
		}
	}
	if at < 0 {
		return c.forget(id)
	}
	c.inflight[at].acked = true
	c.unacked--
	defer func() {
		select {
		case c.room <- struct{}{}:
		default:
		}
	}()
	if at > 0 {
		return true // the position waits for the frames before it
	}
	n := 1
	for n < len(c.inflight) && c.inflight[n].acked {
		n++
	}
	c.inflight = c.inflight[n:]
	c.moved(c.position())
	c.settle()
	return true
}

// forget removes a frame, or any frame, from those that were withdrawn.
func (c *Consumer) forget(id *store.UUID) bool {
	if id != nil {
		_, there := c.withdrawn[*id]
		delete(c.withdrawn, *id)
		return there
	}
	for any := range c.withdrawn {
		delete(c.withdrawn, any)
		return true
	}
	return false
}

// begin starts a delivery after a position; moved hears of every later one.
func (c *Consumer) begin(ref Ref, window, ahead int, position int64, moved func(int64)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ref, c.window, c.ahead, c.passed, c.moved = ref, window, ahead, position, moved
}

// end withdraws what is in flight, to be sent again by whoever serves the
// subscription next, and returns the position.
func (c *Consumer) end() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	position := c.position()
	for _, f := range c.inflight {
		if !f.acked {
			c.withdrawn[f.id] = struct{}{}
		}
	}
	c.inflight, c.unacked = nil, 0
	c.settle()
	return position
}

// position is the highest sequence up to which everything was acknowledged, or
// passed over by the filter. c.mu is held.
func (c *Consumer) position() int64 {
	if len(c.inflight) > 0 {
		return c.inflight[0].first - 1
	}
	return c.passed
}

// pass notes that everything up to a sequence was looked at and nothing of it is
// left to send. It returns the position.
func (c *Consumer) pass(sequence int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passed = sequence
	return c.position()
}

// waitRoom waits until a frame may be sent. It reports whether it had to wait.
func (c *Consumer) waitRoom(ctx context.Context) (waited bool, err error) {
	for {
		c.mu.Lock()
		free := !c.draining && c.unacked < c.window && len(c.inflight) < c.window+c.ahead
		c.mu.Unlock()
		if free {
			return waited, nil
		}
		waited = true
		select {
		case <-c.room:
		case <-ctx.Done():
			return waited, ctx.Err()
		}
	}
}

// send sends a frame as soon as there is room for it.
func (c *Consumer) send(ctx context.Context, f *Frame) error {
	if _, err := c.waitRoom(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	// Noted before it is sent, since the acknowledgement may come at once.
	c.inflight = append(c.inflight, flight{id: f.ID, first: f.Events[0].Sequence, nth: c.clock.Add(1)})
	c.unacked++
	c.passed = f.Events[len(f.Events)-1].Sequence
	c.mu.Unlock()
	if err := c.transport(f); err != nil {
		return &goneError{err}
	}
	if c.autoAck {
		c.Ack(&f.ID)
	}
	return nil
}

// drain stops sending. The channel is closed once nothing is in flight.
func (c *Consumer) drain() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.settle()
	return c.drained
}

func (c *Consumer) settle() {
	if !c.draining || len(c.inflight) > 0 {
		return
	}
	select {
	case <-c.drained:
	default:
		close(c.drained)
	}
}

// goneError marks an error of the transport: the consumer's, not the log's.
type goneError struct{ cause error }

func (e *goneError) Error() string { return "the consumer has gone: " + e.cause.Error() }
func (e *goneError) Unwrap() error { return e.cause }
