package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/client"
)

// drainPatience ends a measurement whose receiver sees nothing new for so long.
const drainPatience = 30 * time.Second

// load is a measurement of messages under way.
type load struct {
	o       Options
	msg     client.NewMessage
	call    *client.ContractCall // in place of a message
	track   *tracker
	stopped time.Time // end of posting

	mu       sync.Mutex
	post     []time.Duration
	posted   int // that count
	errors   int
	firstErr error
}

func runMessages(ctx context.Context, o Options) (*Result, error) {
	msg, err := message(ctx, o)
	if err != nil {
		return nil, err
	}
	return (&load{o: o, msg: msg, track: newTracker()}).measure(ctx, client.Filter{Events: "^message_(confirmed|rejected)$", Topic: "^" + topic + "$"})
}

// measure posts, and listens for the events that tell what became of it.
func (l *load) measure(ctx context.Context, filter client.Filter) (*Result, error) {
	o := l.o
	listening, stop := context.WithCancel(ctx)
	defer stop()
	connected := make(chan struct{}, 16)
	heard := make(chan error, 1)
	go func() {
		heard <- o.Receiver.Listen(listening, client.ListenOptions{
			Filter:    filter,
			Options:   client.SubscriptionOptions{ReadAhead: 500, Batch: true, BatchTimeout: "5ms"},
			Connected: func() { connected <- struct{}{} },
		}, l.hear)
	}()
	select {
	case <-connected:
	case err := <-heard:
		return nil, fmt.Errorf("listen at the receiver: %w", err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// A first message makes the group and shows that the subscription works.
	if err := l.first(ctx); err != nil {
		return nil, err
	}
	l.track.countFrom(time.Now().Add(o.Warmup))
	if err := l.run(ctx, l.track.count.Add(o.Duration)); err != nil {
		return nil, err
	}
	if err := l.drain(ctx, heard); err != nil {
		return nil, err
	}
	stop()
	return l.result(), nil
}

// message is what is posted over and over.
func message(ctx context.Context, o Options) (client.NewMessage, error) {
	text := make([]byte, o.Size)
	for i := range text {
		text[i] = "abcdefghijklmnopqrstuvwxyz"[i%26]
	}
	value, err := json.Marshal(string(text))
	if err != nil {
		return client.NewMessage{}, err
	}
	m := client.NewMessage{Header: client.Header{Topics: []string{topic}}, Data: []client.DataRef{{Value: value}}}
	if o.Kind == Broadcast {
		return m, nil
	}
	m.Group, err = group(ctx, o)
	return m, err
}

// group is the group of sender and receiver.
func group(ctx context.Context, o Options) (*client.Group, error) {
	st, err := o.Receiver.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the receiver for its name: %w", err)
	}
	return &client.Group{Name: "bench", Members: []client.Member{{Identity: st.Org.DID}}}, nil
}

func (l *load) hear(_ context.Context, events []client.Event) error {
	now := time.Now()
	for _, e := range events {
		id, err := uuid.Parse(e.Reference)
		if err != nil {
			return fmt.Errorf("event %s: reference: %w", e.ID, err)
		}
		if e.Type == "message_rejected" || strings.HasSuffix(e.Type, "_op_failed") {
			l.failed(fmt.Errorf("%s: %s", e.Type, id))
		}
		l.track.seen(id, now)
	}
	return nil
}

// send posts one, by the API call of its kind, and returns its id.
func (l *load) send(ctx context.Context, options ...client.CallOption) (id uuid.UUID, err error) {
	if l.call != nil {
		op, err := l.o.Sender.Invoke(ctx, *l.call, options...)
		if err != nil {
			return id, err
		}
		return uuid.Parse(op.ID)
	}
	post := l.o.Sender.Private
	if l.o.Kind == Broadcast {
		post = l.o.Sender.Broadcast
	}
	m, err := post(ctx, l.msg, options...)
	if err != nil {
		return id, err
	}
	if l.msg.Group != nil { // the first one makes the group; the others name it by its hash
		l.msg.Group, l.msg.Header.Group = nil, m.Header.Group
	}
	return uuid.Parse(m.Header.ID)
}

func (l *load) first(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainPatience)
	defer cancel()
	at := time.Now()
	id, err := l.send(ctx, client.Confirm())
	if err != nil {
		return fmt.Errorf("post the first %s: %w", l.o.Kind, err)
	}
	l.track.sent(id, at)
	for l.track.missing() > 0 {
		select {
		case <-l.track.changed:
		case <-ctx.Done():
			return errors.New("the receiver does not see the first message; are both nodes members of one network?")
		}
	}
	return nil
}

// run posts until a time: at a rate, or each poster as fast as it goes.
func (l *load) run(ctx context.Context, until time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	path, body := "messages/"+l.o.Kind, any(l.msg)
	if l.call != nil {
		path, body = "contracts/invoke", l.call
	}
	address, request, err := prepare(l.o.Sender.URL(), "/api/v1/namespaces/"+url.PathEscape(l.o.Sender.Namespace())+"/"+path, body)
	if err != nil {
		return err
	}
	due := make(chan time.Time)
	if l.o.Rate > 0 {
		go schedule(ctx, due, l.o.Rate)
	}
	var posters sync.WaitGroup
	for range l.o.Posters {
		posters.Go(func() {
			p := &poster{address: address, request: request}
			defer p.close()
			for ctx.Err() == nil {
				at := time.Now()
				if l.o.Rate > 0 {
					select {
					case at = <-due:
					case <-ctx.Done():
						return
					}
				}
				l.postOne(p, at)
			}
		})
	}
	posters.Wait()
	l.stopped = time.Now()
	return nil
}

// schedule says when each message is due. A message that no poster takes in
// time keeps its time: waiting for a poster is part of its latency.
func schedule(ctx context.Context, due chan<- time.Time, rate float64) {
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		at := start.Add(time.Duration(float64(n) / rate * float64(time.Second)))
		if wait := time.Until(at); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
		select {
		case due <- at:
		case <-ctx.Done():
			return
		}
	}
}

// postOne posts one message. It does not end with the time of posting: what was
// begun is finished, so that no message is sent without being counted.
func (l *load) postOne(p *poster, at time.Time) {
	id, err := p.post(drainPatience)
	if err != nil {
		l.failed(err)
		return
	}
	l.track.sent(id, at)
	if at.Before(l.track.count) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posted++
	l.post = append(l.post, time.Since(at))
}

func (l *load) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors++
	if l.firstErr == nil {
		l.firstErr = err
	}
}

// drain waits until everything posted was seen, or nothing new comes.
func (l *load) drain(ctx context.Context, heard <-chan error) error {
	patience := time.NewTimer(drainPatience)
	defer patience.Stop()
	for l.track.missing() > 0 {
		select {
		case <-l.track.changed:
			patience.Reset(drainPatience)
		case <-patience.C:
			return nil // the result tells what is missing
		case err := <-heard:
			return fmt.Errorf("listen at the receiver: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (l *load) result() *Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	missing := l.track.missing()
	t := l.track
	t.mu.Lock()
	defer t.mu.Unlock()
	seconds := l.stopped.Sub(t.count).Seconds()
	r := &Result{
		sent: t.posted, Seconds: seconds, Posted: l.posted, Errors: l.errors, Missing: missing, Twice: t.twice,
		PostRate: float64(l.posted) / seconds, Post: timesOf(l.post),
	}
	if until := t.last.Sub(t.count).Seconds(); until > 0 {
		r.ConfirmRate = float64(len(t.latency)) / until
	}
	r.Latency, r.Slowest = timesOf(t.latency), t.slowest
	if l.firstErr != nil {
		r.FirstErr = l.firstErr.Error()
	}
	return r
}
