package event

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/trace"
)

// publishTime bounds one attempt to publish a group of events.
const publishTime = 30 * time.Second

// natsConnection is a connection that subscriptions share.
type natsConnection struct {
	conn   *nats.Conn
	stream jetstream.JetStream
}

func (c *natsConnection) close() { c.conn.Close() }

// subjectPart is a token of a subject without wildcards and white space.
var subjectPart = regexp.MustCompile(`^[^\s.*>\x00-\x1f]+$`)

func checkSubject(subject string) error {
	for part := range strings.SplitSeq(subject, ".") {
		if !subjectPart.MatchString(part) || strings.HasPrefix(subject, "$") {
			return errs.BadRequest(errs.CodeBadValue, "options.subject is %q; it must be a subject of a JetStream stream, such as orders.events, without wildcards", subject)
		}
	}
	return nil
}

// openNATS makes the target of a subscription; b.mu is held. The connection is
// made in the background, and made again when it is lost.
func (b *brokers) openNATS(sub *store.Subscription, o *brokerOptions, e envelope) (target, error) {
	c := b.nats[o.Connection]
	if c == nil {
		cfg, known := b.cfg.NATS[o.Connection]
		if !known {
			return nil, fmt.Errorf("options.connection: the configuration has no events.nats.%s any more", o.Connection)
		}
		options := []nats.Option{
			nats.Name("parley"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
			// What cannot be sent now fails now, and is retried in order; a buffer
			// would send it at some time after the retry.
			nats.ReconnectBufSize(-1),
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
				if err != nil {
					b.logger.Warn("the connection to NATS is lost; it is made again", "connection", o.Connection, "error", err)
				}
			}),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				b.logger.Warn("NATS reports an error", "connection", o.Connection, "error", err)
			}),
		}
		if cfg.Credentials != "" {
			options = append(options, nats.UserCredentials(cfg.Credentials))
		}
		if cfg.User != "" {
			options = append(options, nats.UserInfo(cfg.User, cfg.Password))
		}
		if cfg.TLS != nil {
			options = append(options, nats.Secure(cfg.TLS))
		}
		conn, err := nats.Connect(strings.Join(cfg.URLs, ","), options...)
		if err != nil {
			return nil, fmt.Errorf("connect to NATS (events.nats.%s): %w", o.Connection, err)
		}
		stream, err := jetstream.New(conn)
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("use JetStream (events.nats.%s): %w", o.Connection, err)
		}
		c = &natsConnection{conn: conn, stream: stream}
		if b.nats == nil {
			b.nats = map[string]*natsConnection{}
		}
		b.nats[o.Connection] = c
	}
	return &natsTarget{natsConnection: c, subject: o.Address, prefix: sub.ID.String() + ":", envelope: e}, nil
}

// natsTarget publishes events to a JetStream stream. The stream's confirmation is
// the acknowledgement. An event that is published again, because a confirmation
// was lost, has the same message id, so that the stream drops it.
type natsTarget struct {
	*natsConnection
	subject  string
	prefix   string // of message ids: a stream may hold an event once for each subscription
	envelope envelope
}

// close leaves the connection to the others.
func (t *natsTarget) close() {}

// send publishes the events of a frame, in order, and waits until the stream has
// stored them all.
func (t *natsTarget) send(ctx context.Context, f *Frame) attempt {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	waiting := make([]jetstream.PubAckFuture, 0, len(f.Events))
	var failed error
	for i := range f.Events {
		msg, err := t.message(f, i)
		if err != nil {
			return attempt{err: err, permanent: true}
		}
		future, err := t.stream.PublishMsgAsync(msg, jetstream.WithMsgID(t.prefix+f.Events[i].ID.String()))
		if err != nil {
			failed = err
			break // what follows must not overtake it
		}
		waiting = append(waiting, future)
	}
	for _, future := range waiting {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			failed = errors.Join(err, failed)
		case <-ctx.Done():
			failed = errors.Join(fmt.Errorf("no confirmation came from the stream of %q: %w", t.subject, ctx.Err()), failed)
		}
	}
	if failed != nil {
		failed = fmt.Errorf("publish to %q: %w", t.subject, failed)
	}
	return attempt{err: failed, permanent: errors.Is(failed, nats.ErrMaxPayload)}
}

func (t *natsTarget) message(f *Frame, i int) (*nats.Msg, error) {
	text, kind, err := t.envelope.message(f, i)
	if err != nil {
		return nil, err
	}
	e := &f.Events[i]
	msg := nats.NewMsg(t.subject)
	msg.Data = text
	msg.Header.Set("Content-Type", kind)
	if parent := e.trace(); parent != "" {
		msg.Header.Set(trace.Header, parent)
	}
	msg.Header.Set(headerEventID, e.ID.String())
	msg.Header.Set(headerEventType, e.Type)
	msg.Header.Set(headerSequence, strconv.FormatInt(e.Sequence, 10))
	return msg, nil
}
