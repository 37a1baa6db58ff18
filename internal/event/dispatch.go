package event

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/store"
)

const (
	// enrichChunk bounds how many enriched events wait for a slow consumer.
	enrichChunk = 100

	// passInterval is how many events a filter passes over before the position
	// is stored: often enough that a restart need not read them all again.
	passInterval = 1000
)

// line is the queue of the consumers of one durable subscription, by arrival.
// The first is served; the others stand by.
type line struct {
	queue   []chan struct{} // one per consumer, closed when it is first
	changed chan struct{}   // closed when the subscription is created, updated or deleted
}

// Serve delivers the durable subscription of a name to a consumer until ctx ends
// or the consumer has gone. One consumer at a time is served; the next one in
// line goes on where its acknowledgements ended. The subscription need not exist
// yet: delivery begins when it is created.
func (s *Subscriptions) Serve(ctx context.Context, name string, c *Consumer) error {
	turn := s.join(name)
	defer s.leave(name, turn)
	select {
	case <-turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	for ctx.Err() == nil {
		changed := s.changed(name)
		turn := s.positions.turn()
		sub, err := s.ByName(ctx, name)
		if err != nil && ctx.Err() == nil {
			s.logger.Warn("read subscription; trying again", "namespace", s.log.namespace, "subscription", name, "error", err)
		}
		if sub == nil || sub.Transport != c.serves {
			pause(ctx, s.log.poll, changed)
			continue
		}
		mine, err := s.db.Claim(ctx, sub.ID)
		if err != nil && ctx.Err() == nil {
			s.logger.Warn("claim subscription; trying again", "namespace", s.log.namespace, "subscription", name, "error", err)
		}
		if !mine { // another process of this node delivers it
			pause(ctx, s.log.poll, changed)
			continue
		}
		err = s.serve(ctx, changed, sub, turn, c)
		s.release(ctx, sub)
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// release lets other processes of this node deliver a subscription. It ends when
// they can: what a process holds that is gone is free as well.
func (s *Subscriptions) release(ctx context.Context, sub *store.Subscription) {
	ctx = context.WithoutCancel(ctx)
	for {
		err := s.db.Release(ctx, sub.ID)
		if err == nil || errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrOvertaken) {
			return
		}
		s.logger.Warn("release subscription; trying again", "namespace", sub.Namespace, "subscription", sub.Name, "error", err)
		pause(ctx, s.log.poll, nil)
	}
}

// watch announces a change that another process of this node makes to the
// definition of a subscription, until ctx ends.
func (s *Subscriptions) watch(ctx context.Context, sub *store.Subscription) {
	for {
		pause(ctx, s.log.poll, nil)
		if ctx.Err() != nil {
			return
		}
		now, err := s.ByName(ctx, sub.Name)
		if err == nil && (now == nil || !sameDefinition(now, sub)) {
			s.announce(sub.Name)
			return
		}
	}
}

func sameDefinition(a, b *store.Subscription) bool {
	if a.ID != b.ID || (a.Updated == nil) != (b.Updated == nil) {
		return false
	}
	return a.Updated == nil || *a.Updated == *b.Updated
}

// serve delivers one definition of a durable subscription, until it changes or is
// moved back.
func (s *Subscriptions) serve(ctx context.Context, changed <-chan struct{}, sub *store.Subscription, turn int, c *Consumer) error {
	d, err := s.dispatch(sub, turn, c)
	if err != nil { // stored definitions have been checked, so another version wrote it
		s.logger.Error("subscription cannot be delivered until it is replaced",
			"namespace", sub.Namespace, "subscription", sub.Name, "error", err)
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return nil
	}
	position := sub.Position
	if c.resume != nil {
		position = *c.resume
	}
	if c.manual {
		d.store = func(int64) {}
	}
	c.begin(d.ref, d.frames(), d.plan.ahead, position, d.store)
	watching, stop := context.WithCancel(ctx)
	if s.db.Shared() {
		go s.watch(watching, sub)
	}
	err = d.runUntil(ctx, changed, position)
	stop()
	if c.finish != nil {
		c.finish()
	}
	reached := c.end()
	if c.manual {
		c.resume = nil
		if !s.positions.moved(sub.ID, turn) {
			c.resume = &reached // where it goes on under a new definition
		}
	} else if reached != sub.Position {
		d.store(reached) // whoever is served next reads it from the database
	}
	if err := s.positions.save(context.WithoutCancel(ctx)); err != nil {
		s.logger.Error("store subscription position; its last events will be delivered again",
			"namespace", sub.Namespace, "subscription", sub.Name, "error", err)
	}
	if gone := (*goneError)(nil); errors.As(err, &gone) {
		return err
	}
	return nil
}

// dispatch prepares the delivery of a stored definition.
func (s *Subscriptions) dispatch(sub *store.Subscription, turn int, c *Consumer) (*dispatch, error) {
	var filter Filter
	if err := json.Unmarshal(sub.Filter, &filter); err != nil {
		return nil, err
	}
	m, err := filter.compile()
	if err != nil {
		return nil, err
	}
	var options Options
	if err := json.Unmarshal(sub.Options, &options); err != nil {
		return nil, err
	}
	p, err := options.plan(sub.Transport)
	if err != nil {
		return nil, err
	}
	return &dispatch{
		log:      s.log,
		logger:   s.logger,
		consumer: c,
		ref:      Ref{ID: sub.ID, Namespace: sub.Namespace, Name: sub.Name},
		matcher:  m,
		plan:     p,
		store:    func(position int64) { s.positions.set(sub.ID, turn, position) },
	}, nil
}

// ServeEphemeral delivers a subscription that lives as long as its consumer.
func (s *Subscriptions) ServeEphemeral(ctx context.Context, e *Ephemeral, c *Consumer) error {
	d := &dispatch{
		log:      s.log,
		logger:   s.logger,
		consumer: c,
		ref:      e.ref,
		matcher:  e.matcher,
		plan:     e.plan,
		store:    func(int64) {},
	}
	c.begin(d.ref, d.frames(), 0, e.after, d.store)
	defer c.end()
	return d.run(ctx, e.after)
}

// join queues a consumer; the channel is closed when it is first.
func (s *Subscriptions) join(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lines[name]
	if l == nil {
		l = &line{changed: make(chan struct{})}
		s.lines[name] = l
	}
	turn := make(chan struct{})
	if len(l.queue) == 0 {
		close(turn)
	}
	l.queue = append(l.queue, turn)
	return turn
}

// leave removes a consumer and lets the next one be first.
func (s *Subscriptions) leave(name string, turn chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lines[name]
	at := slices.Index(l.queue, turn)
	l.queue = slices.Delete(l.queue, at, at+1)
	switch {
	case len(l.queue) == 0:
		delete(s.lines, name)
	case at == 0:
		close(l.queue[0])
	}
}

// changed is closed when the definition of the name changes. It is only called
// by a consumer in line.
func (s *Subscriptions) changed(name string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines[name].changed
}

// announce tells the consumer of a subscription that its definition has changed.
func (s *Subscriptions) announce(name string) {
	if s.outbound != nil {
		s.outbound.wake()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lines[name]; l != nil {
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// dispatch carries one subscription's events from the log to a consumer.
type dispatch struct {
	log      *Log
	logger   *slog.Logger
	consumer *Consumer
	ref      Ref
	matcher  *matcher
	plan     plan
	store    func(position int64) // notes a position, to be stored soon

	at      int64      // everything up to it was read
	noted   int64      // position last given to store because of what the filter passed over
	pending []Enriched // matched, not sent: the batch that fills
	due     time.Time  // when it is sent although not full
}

// frames is how many frames may be in flight.
func (d *dispatch) frames() int {
	if d.plan.batch {
		return 1
	}
	return d.plan.window
}

// runUntil runs until changed is closed, too.
func (d *dispatch) runUntil(ctx context.Context, changed <-chan struct{}, after int64) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	})
	return d.run(ctx, after)
}

// run reads, filters, enriches and sends until ctx ends or the consumer is gone.
func (d *dispatch) run(ctx context.Context, after int64) error {
	d.at, d.noted = after, after
	for {
		err := d.step(ctx)
		if gone := (*goneError)(nil); errors.As(err, &gone) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			d.logger.Warn("read events for a subscription; trying again",
				"namespace", d.ref.Namespace, "subscription", d.ref.Name, "error", err)
			pause(ctx, d.log.poll, nil)
		}
	}
}

// step handles one page of events, or waits for one.
func (d *dispatch) step(ctx context.Context) error {
	page, err := d.log.After(ctx, d.at, readPage)
	if err != nil {
		return err
	}
	if len(page) == 0 {
		return d.atEnd(ctx)
	}
	for len(page) > 0 {
		n := 0 // of the page that the next chunk is made of
		wanted := make([]store.Event, 0, min(len(page), enrichChunk))
		for ; n < len(page) && len(wanted) < enrichChunk; n++ {
			if d.matcher.early(page[n].Type, page[n].Topic) {
				wanted = append(wanted, page[n])
			}
		}
		enriched, err := d.log.Enrich(ctx, wanted)
		if err != nil {
			return err
		}
		last := page[n-1].Sequence
		for i := range enriched {
			if !d.matcher.match(&enriched[i]) {
				continue
			}
			if err := d.add(ctx, enriched[i]); err != nil {
				return err
			}
		}
		page, d.at = page[n:], last
	}
	d.pass()
	return nil
}

// atEnd waits for more events, or for the time to send a batch that is not full.
func (d *dispatch) atEnd(ctx context.Context) error {
	if len(d.pending) == 0 {
		return d.log.Next(ctx, d.at)
	}
	if waited, err := d.consumer.waitRoom(ctx); waited || err != nil {
		return err // the batch may grow by what has come meanwhile
	}
	wait, cancel := context.WithDeadline(ctx, d.due)
	defer cancel()
	err := d.log.Next(wait, d.at)
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		return d.flush(ctx)
	}
	return err
}

// add puts an event in line to be sent, and sends what is complete.
func (d *dispatch) add(ctx context.Context, e Enriched) error {
	if len(d.pending) == 0 {
		d.due = time.Now().Add(d.plan.wait)
	}
	d.pending = append(d.pending, e)
	if d.plan.batch && len(d.pending) < d.plan.window {
		return nil
	}
	return d.flush(ctx)
}

// flush sends what is pending as one frame.
func (d *dispatch) flush(ctx context.Context) error {
	if d.plan.withData {
		if err := d.log.attach(ctx, d.pending); err != nil {
			return err
		}
	}
	f := &Frame{ID: d.pending[0].ID, Batch: d.plan.batch, Envelope: d.plan.envelope, Subscription: d.ref, Events: d.pending}
	if f.Batch {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		f.ID = id
	}
	d.pending = nil
	return d.consumer.send(ctx, f)
}

// pass moves the position over what the filter has excluded.
func (d *dispatch) pass() {
	if len(d.pending) > 0 {
		return
	}
	if position := d.consumer.pass(d.at); position-d.noted >= passInterval {
		d.store(position)
		d.noted = position
	}
}

// pause waits for a time, or until ctx or done ends it.
func pause(ctx context.Context, d time.Duration, done <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	case <-ctx.Done():
	}
}
