package event

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/store"
)

// target is where an outlet delivers to.
type target interface {
	// send tries once. It may be called from several goroutines.
	send(ctx context.Context, f *Frame) attempt
	// close frees what the target holds; it is not called during a send.
	close()
}

// attempt is what came of trying once.
type attempt struct {
	err       error         // nil if the target has taken the frame
	permanent bool          // trying again cannot help
	after     time.Duration // the target asks not to be tried again before
	status    int           // HTTP status; 0 if there was no answer
	answer    *answer       // for a reply; nil if none is wanted
}

// policy says how often an outlet tries, and what happens then.
type policy struct {
	retries  int           // after the first attempt; negative for no end
	first    time.Duration // wait before the first retry; it doubles
	longest  time.Duration // longest wait
	tolerant bool          // what is given up counts as acknowledged, instead of dead
	parallel bool          // events of different topics do not wait for each other
	fast     bool          // acknowledge first, then deliver
}

const (
	// maxAhead is how many events may be acknowledged before the oldest that is
	// not: what a topic that is stuck holds up, and what is delivered again if
	// the node stops meanwhile.
	maxAhead = 10_000

	// maxFast is how many events that were acknowledged first are delivered at a
	// time.
	maxFast = 32

	// maxAfter bounds what a target may ask to wait for.
	maxAfter = 5 * time.Minute
)

// outlet carries the events of one definition of a subscription to its target.
//
// Without parallelTopics it is one line: each frame is delivered, given up or
// found to be none of its business before the next one is tried, so that the
// target sees the events in the order of the log.
type outlet struct {
	*Outbound
	sub    *store.Subscription
	turn   int // of the positions, before that of sub was read
	target target
	policy policy
	reply  func(ctx context.Context, f *Frame, out attempt) error // nil if answers are of no interest
	skip   func(f *Frame) bool                                    // what is acknowledged and not sent; nil for nothing

	consumer *Consumer
	fail     context.CancelCauseFunc // ends run
	ctx      context.Context         // of run
	request  context.Context         // of requests: ends a grace later
	sending  sync.WaitGroup
	free     chan struct{} // with policy.fast: one for each delivery under way

	mu    sync.Mutex
	lines map[string][]*Frame // with policy.parallel: by topic, the first one is under way
}

// outlet prepares the delivery of a definition. Its errors are for people.
func (o *Outbound) outlet(sub *store.Subscription) (*outlet, error) {
	var options Options
	if err := json.Unmarshal(sub.Options, &options); err != nil {
		return nil, err
	}
	out := &outlet{Outbound: o, sub: sub, lines: map[string][]*Frame{}, free: make(chan struct{}, maxFast)}
	if sub.Transport == TransportWebhooks {
		w, err := options.webhook()
		if err != nil {
			return nil, err
		}
		return out, w.open(out)
	}
	b, err := options.broker(sub.Transport)
	if err != nil {
		return nil, err
	}
	// A broker that cannot be reached takes nothing of any subscription: to wait
	// for it loses nothing, and to go on would lose the order.
	out.policy = policy{retries: -1, first: 250 * time.Millisecond, longest: 30 * time.Second}
	out.target, err = o.brokers.open(sub, b, o.cfg.Source)
	return out, err
}

// run delivers until ctx ends. Attempts under way get a moment to end, since what
// they deliver and nobody hears of is delivered again.
func (u *outlet) run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	u.fail = fail
	request, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	u.ctx, u.request = ctx, request
	ended := make(chan struct{})
	var watch sync.WaitGroup
	defer watch.Wait()
	defer close(ended)
	watch.Go(func() {
		select {
		case <-ctx.Done():
			pause(context.Background(), u.cfg.Grace, ended)
			cancel()
		case <-ended:
		}
	})
	take := u.one
	switch {
	case u.policy.parallel:
		take = u.line
	case u.policy.fast:
		take = u.later
	}
	u.consumer = NewConsumer(take, !u.policy.parallel, new(atomic.Uint64))
	u.consumer.serves = u.sub.Transport
	u.consumer.finish = u.sending.Wait
	err := u.subs.serve(ctx, nil, u.sub, u.turn, u.consumer)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// one delivers a frame before it returns; that acknowledges it.
func (u *outlet) one(f *Frame) error { return u.deliver(f) }

// later acknowledges a frame at once and delivers it when it can.
func (u *outlet) later(f *Frame) error {
	select {
	case u.free <- struct{}{}:
	case <-u.ctx.Done():
		return u.ctx.Err()
	}
	u.sending.Go(func() {
		defer func() { <-u.free }()
		if err := u.deliver(f); err != nil {
			u.abandon(f, err)
		}
	})
	return nil
}

// abandon keeps what was acknowledged first and not delivered before the outlet
// stopped, so that it can be replayed.
func (u *outlet) abandon(f *Frame, cause error) {
	d, err := u.record(f)
	if err == nil {
		d.State, d.Error = store.DeliveryDead, cut("the node stopped first: "+cause.Error(), maxErrorText)
		err = u.journal.keep(u.ctx, d)
	}
	if err != nil {
		u.log.Error("an event with fastack is lost", "namespace", u.sub.Namespace, "subscription", u.sub.Name, "sequence", f.Events[0].Sequence, "error", err)
	}
}

// line puts a frame behind those of its topic.
func (u *outlet) line(f *Frame) error {
	if u.ctx.Err() != nil {
		return u.ctx.Err()
	}
	topic := f.Events[0].Topic
	u.mu.Lock()
	defer u.mu.Unlock()
	_, busy := u.lines[topic]
	u.lines[topic] = append(u.lines[topic], f)
	if !busy {
		u.sending.Go(func() { u.drain(topic) })
	}
	return nil
}

// drain delivers the frames of a topic, one after the other, until there are
// none or the outlet stops.
func (u *outlet) drain(topic string) {
	for {
		u.mu.Lock()
		if len(u.lines[topic]) == 0 {
			delete(u.lines, topic)
			u.mu.Unlock()
			return
		}
		f := u.lines[topic][0]
		u.mu.Unlock()
		if err := u.deliver(f); err != nil {
			u.fail(err)
			return // the line stays, so that nothing overtakes
		}
		u.consumer.Ack(&f.ID)
		u.mu.Lock()
		u.lines[topic] = u.lines[topic][1:]
		u.mu.Unlock()
	}
}

// deliver carries a frame to the target, with as many attempts as the policy
// allows. When it returns nil, the frame has been taken, or what became of it
// is stored. An error means that the outlet stops.
func (u *outlet) deliver(f *Frame) error {
	if u.skip != nil && u.skip(f) {
		return nil
	}
	d, err := u.record(f)
	if err != nil {
		return err
	}
	if u.ctx.Err() != nil && !u.policy.fast {
		return u.ctx.Err()
	}
	for {
		out := u.target.send(u.request, f)
		if out.err != nil && u.request.Err() != nil {
			return u.request.Err() // nobody knows; it is delivered again
		}
		attempted(d, out)
		if out.permanent && len(f.Events) > 1 {
			return u.split(f)
		}
		if out.err == nil {
			d.State = store.DeliveryDelivered
			return u.end(f, d, out)
		}
		if out.permanent || u.policy.retries >= 0 && d.Attempts > u.policy.retries {
			d.State = store.DeliveryDead
			if u.policy.tolerant {
				d.State = store.DeliveryFailed
			}
			u.log.Warn("an event was not delivered", "namespace", u.sub.Namespace, "subscription", u.sub.Name,
				"sequence", d.First, "attempts", d.Attempts, "state", d.State, "error", out.err)
			return u.end(f, d, out)
		}
		d.State = store.DeliveryRetrying
		if err := u.journal.note(u.request, d); err != nil {
			return err
		}
		if pause(u.ctx, u.policy.wait(d.Attempts, out.after), nil); u.ctx.Err() != nil {
			return u.ctx.Err()
		}
	}
}

// split delivers the events of a frame one by one, so that the one that cannot be
// delivered does not take the others with it.
func (u *outlet) split(f *Frame) error {
	for i := range f.Events {
		one := &Frame{ID: f.Events[i].ID, Batch: f.Batch, Subscription: f.Subscription, Events: f.Events[i : i+1]}
		if err := u.deliver(one); err != nil {
			return err
		}
	}
	return nil
}

// end does what follows from the last attempt, before the frame counts as
// acknowledged: the reply is stored, and so is what is given up.
func (u *outlet) end(f *Frame, d *store.Delivery, out attempt) error {
	for tries := 1; u.reply != nil && out.answer != nil; tries++ {
		err := u.reply(u.request, f, out)
		if err == nil {
			break
		}
		if permanent(err) {
			d.State, d.Error = store.DeliveryDead, "reply: "+err.Error()
			break
		}
		if u.ctx.Err() != nil {
			return u.ctx.Err()
		}
		u.log.Warn("a webhook's answer cannot be sent as a reply; trying again", "namespace", u.sub.Namespace, "subscription", u.sub.Name, "error", err)
		pause(u.ctx, u.policy.wait(tries, 0), nil)
	}
	if d.State == store.DeliveryDead {
		return u.journal.keep(u.ctx, d)
	}
	return u.journal.note(u.request, d)
}

// wait is how long to wait after a number of attempts: doubling, and with half
// of it random, so that many outlets do not come back at once.
func (p *policy) wait(attempts int, asked time.Duration) time.Duration {
	d := min(p.first<<min(attempts-1, 30), p.longest)
	if d <= 0 {
		d = p.longest
	}
	d = d/2 + rand.N(d/2+1)
	return max(d, min(asked, maxAfter))
}

// record begins the log entry of a frame.
func (u *outlet) record(f *Frame) (*store.Delivery, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	now := store.At(time.Now())
	return &store.Delivery{
		ID: id, Namespace: u.sub.Namespace, Subscription: u.sub.ID, Frame: f.ID,
		First: f.Events[0].Sequence, Sequences: f.sequences(), Events: len(f.Events), Created: now, Updated: now,
	}, nil
}

func (f *Frame) sequences() []int64 {
	list := make([]int64, len(f.Events))
	for i := range f.Events {
		list[i] = f.Events[i].Sequence
	}
	return list
}

// maxErrorText bounds what the log keeps of an error.
const maxErrorText = 500

// attempted adds an attempt to a log entry.
func attempted(d *store.Delivery, out attempt) {
	d.Attempts++
	d.Status, d.Error, d.Updated = out.status, "", store.At(time.Now())
	if out.err != nil {
		d.Error = cut(out.err.Error(), maxErrorText)
	}
}
