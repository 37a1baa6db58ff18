package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// ListenOptions say which events to follow.
type ListenOptions struct {
	// Name is a durable subscription: the node remembers how far it has got, so
	// that each event is handled at least once, whatever is restarted. Without a
	// name the subscription lives as long as the call of Listen.
	Name string

	// Filter and Options are those of a subscription without a name. It starts
	// at the newest event unless Options.FirstEvent says otherwise.
	Filter  Filter
	Options SubscriptionOptions

	// Connected is called after each time the connection was made and the
	// subscription asked for. It may be nil.
	Connected func()
	// Disconnected is called with the reason after each time the connection was
	// lost, before it is made again. It may be nil.
	Disconnected func(error)
}

// ProtocolError is the node's refusal of what was asked for over a WebSocket.
type ProtocolError struct{ Text string }

func (e *ProtocolError) Error() string { return "the node refuses the subscription: " + e.Text }

// maxFrame bounds one delivery, which in batch mode holds many events.
const maxFrame = 64 << 20

// Pauses before a lost connection is made again.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// pingEvery is how often the node must show that it is there.
const pingEvery = 20 * time.Second

// Listen calls handle for each event, in order, and acknowledges it when handle
// returns nil. In batch mode handle gets several events at once, otherwise one.
// It reconnects when the connection is lost; an event that was not acknowledged
// is then delivered again. It returns when ctx ends, when handle fails (its
// error), or when the node refuses the subscription (a *ProtocolError).
func (c *Client) Listen(ctx context.Context, l ListenOptions, handle func(context.Context, []Event) error) error {
	s := session{client: c, listen: l, handle: handle}
	pause := firstPause
	for {
		seen := s.events
		err := s.run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if final, ok := errors.AsType[*finalError](err); ok {
			return final.cause
		}
		if l.Disconnected != nil {
			l.Disconnected(err)
		}
		if s.events > seen {
			pause = firstPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		pause = min(2*pause, lastPause)
	}
}

// finalError ends Listen.
type finalError struct{ cause error }

func (e *finalError) Error() string { return e.cause.Error() }

// session is one call of Listen over all its connections.
type session struct {
	client *Client
	listen ListenOptions
	handle func(context.Context, []Event) error
	events int64 // handled
	last   int64 // sequence of the last one
}

type startFrame struct {
	Type      string               `json:"type"`
	AutoAck   bool                 `json:"autoack"`
	Namespace string               `json:"namespace"`
	Name      string               `json:"name,omitempty"`
	Ephemeral bool                 `json:"ephemeral,omitempty"`
	Filter    *Filter              `json:"filter,omitempty"`
	Options   *SubscriptionOptions `json:"options,omitempty"`
}

type ackFrame struct {
	Type         string          `json:"type"`
	ID           string          `json:"id"`
	Subscription json.RawMessage `json:"subscription,omitempty"`
}

// delivery is any frame of the node.
type delivery struct {
	Event
	Events       []Event         `json:"events"` // of a batch
	Subscription json.RawMessage `json:"subscription"`
	Error        string          `json:"error"`
}

// run makes one connection and serves it until it is lost.
func (s *session) run(ctx context.Context) error {
	address := "ws" + strings.TrimPrefix(s.client.base, "http") + "/ws"
	ws, resp, err := websocket.Dial(ctx, address, &websocket.DialOptions{HTTPClient: s.client.http, HTTPHeader: s.client.header})
	if err != nil {
		if resp != nil && (resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden) {
			return &finalError{&Error{Status: resp.StatusCode, Text: resp.Status}}
		}
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(maxFrame)
	if err := s.start(ctx, ws); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go keepAlive(ctx, ws)
	for {
		_, text, err := ws.Read(ctx)
		if err != nil {
			return fmt.Errorf("read from %s: %w", address, err)
		}
		if err := s.frame(ctx, ws, text); err != nil {
			return err
		}
	}
}

func (s *session) start(ctx context.Context, ws *websocket.Conn) error {
	f := startFrame{Type: "start", Namespace: s.client.namespace, Name: s.listen.Name}
	if f.Name == "" {
		options := s.listen.Options
		if s.last > 0 {
			// What came while the connection was lost is not missed either.
			options.FirstEvent = strconv.FormatInt(s.last, 10)
		}
		f.Ephemeral, f.Filter, f.Options = true, &s.listen.Filter, &options
	}
	if err := write(ctx, ws, f); err != nil {
		return err
	}
	if s.listen.Connected != nil {
		s.listen.Connected()
	}
	return nil
}

func (s *session) frame(ctx context.Context, ws *websocket.Conn, text []byte) error {
	var d delivery
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("the node sent what is no JSON: %w", err)
	}
	events := d.Events
	switch d.Type {
	case "protocol_error":
		return &finalError{&ProtocolError{d.Error}}
	case "event_batch":
	default:
		events = []Event{d.Event}
	}
	if err := s.handle(ctx, events); err != nil {
		return &finalError{err}
	}
	if n := len(events); n > 0 {
		s.events += int64(n)
		s.last = events[n-1].Sequence
	}
	return write(ctx, ws, ackFrame{"ack", d.ID, d.Subscription})
}

func write(ctx context.Context, ws *websocket.Conn, frame any) error {
	b, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	if err := ws.Write(ctx, websocket.MessageText, b); err != nil {
		return fmt.Errorf("write to the node: %w", err)
	}
	return nil
}

// keepAlive closes a connection whose other end has gone without a word.
func keepAlive(ctx context.Context, ws *websocket.Conn) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		wait, cancel := context.WithTimeout(ctx, pingEvery)
		err := ws.Ping(wait)
		cancel()
		if err != nil && ctx.Err() == nil {
			ws.CloseNow() // the reader returns with an error
			return
		}
	}
}
