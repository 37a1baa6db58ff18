package event

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// connection is one WebSocket client with the subscriptions it has started.
//
// One goroutine reads its frames and one per subscription writes events. A write
// blocks while the client is slow, and with it the reading of the log for that
// subscription: nothing piles up in memory and nothing is dropped.
type connection struct {
	server  *WebSockets
	ws      *websocket.Conn
	request *http.Request // the upgrade, for authorization
	id      store.UUID
	scope   string // the namespace that the path fixes, "" if none
	newest  int64  // the newest event at the upgrade, if the query starts an ephemeral subscription
	started time.Time
	ctx     context.Context // ends with the connection
	cancel  context.CancelFunc

	clock atomic.Uint64 // frames sent
	heard atomic.Int64  // when the client last showed that it is there, in ns since 1970

	deliveries sync.WaitGroup

	mu      sync.Mutex
	autoAck bool
	closing bool
	streams []*stream // in order of start
}

// stream is one started subscription.
type stream struct {
	consumer *Consumer
	status   ConnectedSubscriber
}

// run serves the connection until it ends.
func (c *connection) run() {
	defer func() {
		c.cancel()
		c.deliveries.Wait()
		// Without a close frame: after a protocol error existing clients expect the
		// connection to drop, and in all other cases it is closed already.
		_ = c.ws.CloseNow()
	}()
	c.deliveries.Go(c.keepAlive)
	if err := c.autoStart(c.request.URL.Query()); err != nil {
		if c.away(err) {
			return
		}
		// Told, but no reason to part: the client may yet send a start frame.
		if c.writeError(err) != nil {
			return
		}
	}
	for {
		_, text, err := c.ws.Read(c.ctx)
		switch {
		case err == nil:
		case errors.Is(err, context.DeadlineExceeded) && c.ctx.Err() == nil:
			// A pong could not be written within seconds because an event is being
			// written to a client that does not read. It is slow, not gone.
			continue
		default:
			return
		}
		c.alive()
		if err := c.handle(text); err != nil {
			if c.away(err) {
				return
			}
			// The client has gone already if this fails.
			_ = c.writeError(errs.Wrap(err, "FF10176", http.StatusBadRequest, "Invalid data"))
			return
		}
	}
}

// away closes the connection if its namespace is being started.
func (c *connection) away(err error) bool {
	if !errors.Is(err, errAway) {
		return false
	}
	// The client has gone already if this fails.
	_ = c.ws.Close(websocket.StatusTryAgainLater, errAway.Error())
	return true
}

func (c *connection) alive() { c.heard.Store(time.Now().UnixNano()) }

// keepAlive finds clients that have gone without a word: they would keep their
// place in the line of a durable subscription. Whoever takes data is there.
func (c *connection) keepAlive() {
	tick := time.NewTicker(c.server.cfg.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
		if time.Since(time.Unix(0, c.heard.Load())) > c.server.cfg.SilenceLimit {
			c.cancel()
			return
		}
		ctx, cancel := context.WithTimeout(c.ctx, c.server.cfg.PingInterval)
		if c.ws.Ping(ctx) == nil { // a failed ping is judged by the silence that follows
			c.alive()
		}
		cancel()
	}
}

// start begins a subscription.
func (c *connection) start(in *startFrame) error {
	if in.Namespace == "" {
		in.Namespace = c.scope
	}
	if c.scope != "" && in.Namespace != c.scope {
		return errs.BadRequest("FF10462", "namespace is %q, but this socket is for namespace %q; use /ws for others", in.Namespace, c.scope)
	}
	if in.Namespace == "" || in.Name == "" && !in.Ephemeral {
		return errs.BadRequest("FF10178", "start has namespace %q and name %q; it needs a namespace, and a name unless it is ephemeral", in.Namespace, in.Name)
	}
	subs, known := c.server.subscriptions(in.Namespace)
	if !known {
		return errs.New("FF10436", http.StatusNotFound, "There is no namespace %q", in.Namespace)
	}
	if subs == nil {
		return errAway
	}
	transport := Transport(c.deliver)
	if authorize := c.server.cfg.Authorize; authorize != nil {
		payloads, err := authorize(c.request, in.Namespace, !in.Ephemeral)
		if err != nil {
			return public(err)
		}
		if !payloads {
			transport = withhold(transport)
		}
	}
	if _, err := in.Options.plan(TransportWebSockets); err != nil {
		return err
	}
	var ephemeral *Ephemeral
	if in.Ephemeral {
		var err error
		if in.fromQuery {
			ephemeral, err = subs.ephemeral(TransportWebSockets, in.Filter, in.Options, c.newest)
		} else {
			ephemeral, err = subs.Ephemeral(c.ctx, in.Filter, in.Options)
		}
		if err != nil {
			return public(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.AutoAck != nil {
		if len(c.streams) > 0 && *in.AutoAck != c.autoAck {
			return errs.BadRequest("FF10179", "autoack is %t, but this connection was started with %t; use a second connection", *in.AutoAck, c.autoAck)
		}
		c.autoAck = *in.AutoAck
	}
	if c.closing || !in.Ephemeral && c.has(in.Namespace, in.Name) {
		return nil // a second consumer on this connection would only stand by for the first
	}
	st := &stream{
		consumer: NewConsumer(transport, c.autoAck, &c.clock),
		status: ConnectedSubscriber{
			StartTime: store.At(time.Now()),
			Ephemeral: in.Ephemeral,
			Namespace: in.Namespace,
			Name:      in.Name,
			Filter:    in.Filter,
		},
	}
	if in.Ephemeral {
		st.status.Name = ""
	}
	c.streams = append(c.streams, st)
	c.deliveries.Go(func() {
		var err error
		if ephemeral != nil {
			err = subs.ServeEphemeral(c.ctx, ephemeral, st.consumer)
		} else {
			err = subs.Serve(c.ctx, in.Name, st.consumer)
		}
		if c.ctx.Err() == nil {
			c.server.cfg.Logger.Info("WebSocket delivery ended", "connection", c.id,
				"namespace", in.Namespace, "subscription", in.Name, "error", err)
			c.cancel()
		}
	})
	return nil
}

// serves says whether the connection has a subscription of a namespace.
func (c *connection) serves(namespace string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.scope == namespace || slices.ContainsFunc(c.streams, func(st *stream) bool { return st.status.Namespace == namespace })
}

// public keeps what only the node's operator should see out of a frame.
func public(err error) error { return errors.New(errs.Public(err)) }

func (c *connection) has(namespace, name string) bool {
	for _, st := range c.streams {
		if !st.status.Ephemeral && st.status.Namespace == namespace && st.status.Name == name {
			return true
		}
	}
	return false
}

// ack acknowledges a frame. What it names must be in flight.
func (c *connection) ack(in *ackFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.autoAck {
		return errs.BadRequest("FF10180", "This connection was started with autoack; do not send ack, or start without autoack")
	}
	if c.acknowledge(in) {
		return nil
	}
	what := "the oldest delivery"
	if in.ID != nil {
		what = "delivery " + in.ID.String()
	}
	return errs.BadRequest("FF10175", "ack of %s matches nothing in flight; acknowledge each delivery once, with the id and the subscription it came with", what)
}

func (c *connection) acknowledge(in *ackFrame) bool {
	if in.Subscription != nil {
		for _, st := range c.streams {
			if st.is(in.Subscription) && st.consumer.Ack(in.ID) {
				return true
			}
		}
		return false
	}
	if in.ID != nil {
		return len(c.streams) == 1 && c.streams[0].consumer.Ack(in.ID)
	}
	var oldest *stream
	first := ^uint64(0)
	for _, st := range c.streams {
		if nth, any := st.consumer.Oldest(); any && nth < first {
			oldest, first = st, nth
		}
	}
	if oldest != nil && oldest.consumer.Ack(nil) {
		return true
	}
	for _, st := range c.streams { // perhaps of a frame that was withdrawn
		if st.consumer.Ack(nil) {
			return true
		}
	}
	return false
}

// is reports whether the stream is of the subscription that an ack names: by its
// id, or by namespace and name, which outlive a subscription that is made anew.
func (st *stream) is(ref *refFrame) bool {
	current := st.consumer.Ref()
	if ref.ID != nil && *ref.ID == current.ID {
		return true
	}
	return ref.Name != "" && ref.Name == current.Name && ref.Namespace == current.Namespace
}

// deliver writes an event frame; it is the Transport of the streams.
func (c *connection) deliver(f *Frame) error {
	text, err := f.encode()
	if err != nil {
		return err
	}
	return c.write(text)
}

func (c *connection) write(text []byte) error {
	if err := c.ws.Write(c.ctx, websocket.MessageText, text); err != nil {
		return err
	}
	c.alive()
	return nil
}

func (c *connection) writeError(err error) error {
	text, bad := json.Marshal(errorFrame{Type: "protocol_error", Error: err.Error()})
	if bad != nil {
		return bad
	}
	return c.write(text)
}

// shutdown ends the connection in order: nothing more is sent, what is in flight
// may be acknowledged, and the client is told that the node goes.
func (c *connection) shutdown(ctx context.Context) {
	stop := context.AfterFunc(ctx, c.cancel)
	defer stop()
	c.mu.Lock()
	c.closing = true
	streams := c.streams
	c.mu.Unlock()
	timer := time.NewTimer(c.server.cfg.DrainTime)
	defer timer.Stop()
	for _, st := range streams {
		drained := st.consumer.drain()
		select {
		case <-drained:
		case <-timer.C:
			timer.Reset(0) // no time for the others either
		case <-c.ctx.Done():
		}
	}
	// A client that does not answer the close frame is cut off all the same.
	_ = c.ws.Close(websocket.StatusGoingAway, "the node is stopping")
	c.cancel()
}

func (c *connection) status() ConnectionStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := ConnectionStatus{
		ID:            c.id,
		RemoteAddress: c.request.RemoteAddr,
		UserAgent:     c.request.UserAgent(),
		Subscriptions: make([]ConnectedSubscriber, 0, len(c.streams)),
	}
	for _, st := range c.streams {
		out.Subscriptions = append(out.Subscriptions, st.status)
	}
	return out
}
