package event

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/trace"
)

// kafkaConnection is a producer that subscriptions share.
type kafkaConnection struct{ client *kgo.Client }

// topicName is what Kafka takes as the name of a topic.
var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func checkTopic(topic string) error {
	if !topicName.MatchString(topic) || topic == "." || topic == ".." {
		return errs.BadRequest(errs.CodeBadValue, "options.topic is %q; it must be the name of a Kafka topic: 1 to 249 letters, digits, '.', '_' and '-'", topic)
	}
	return nil
}

// openKafka makes the target of a subscription; b.mu is held.
func (b *brokers) openKafka(o *brokerOptions, e envelope) (target, error) {
	c := b.kafka[o.Connection]
	if c == nil {
		cfg, known := b.cfg.Kafka[o.Connection]
		if !known {
			return nil, fmt.Errorf("options.connection: the configuration has no events.kafka.%s any more", o.Connection)
		}
		// Idempotent production is the client's default: what it sends again after
		// a lost answer is stored once, and in order.
		options := []kgo.Opt{
			kgo.SeedBrokers(cfg.Brokers...), kgo.ClientID("parley"), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0),
			kgo.WithLogger(kafkaLog{b.logger.With("connection", o.Connection)}),
		}
		if cfg.TLS != nil {
			options = append(options, kgo.DialTLSConfig(cfg.TLS))
		}
		switch cfg.Mechanism {
		case "":
		case "PLAIN":
			options = append(options, kgo.SASL(plain.Auth{User: cfg.User, Pass: cfg.Password}.AsMechanism()))
		case "SCRAM-SHA-256":
			options = append(options, kgo.SASL(scram.Auth{User: cfg.User, Pass: cfg.Password}.AsSha256Mechanism()))
		case "SCRAM-SHA-512":
			options = append(options, kgo.SASL(scram.Auth{User: cfg.User, Pass: cfg.Password}.AsSha512Mechanism()))
		default:
			return nil, fmt.Errorf("events.kafka.%s.sasl.mechanism is %q; it must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", o.Connection, cfg.Mechanism)
		}
		client, err := kgo.NewClient(options...)
		if err != nil {
			return nil, fmt.Errorf("connect to Kafka (events.kafka.%s): %w", o.Connection, err)
		}
		c = &kafkaConnection{client: client}
		if b.kafka == nil {
			b.kafka = map[string]*kafkaConnection{}
		}
		b.kafka[o.Connection] = c
	}
	return &kafkaTarget{kafkaConnection: c, topic: o.Address, envelope: e}, nil
}

// kafkaTarget produces events to a topic. All replicas in sync having them is the
// acknowledgement. An event's own topic is the key, so that events of one topic
// keep their order in one partition.
type kafkaTarget struct {
	*kafkaConnection
	topic    string
	envelope envelope
}

// close leaves the producer to the others.
func (t *kafkaTarget) close() {}

// send produces the events of a frame and waits until the cluster has them all.
// While it cannot be reached, the client goes on trying: to give up and start
// anew would produce twice what it cannot take back.
func (t *kafkaTarget) send(ctx context.Context, f *Frame) attempt {
	records := make([]*kgo.Record, len(f.Events))
	for i := range f.Events {
		text, kind, err := t.envelope.message(f, i)
		if err != nil {
			return attempt{err: err, permanent: true}
		}
		e := &f.Events[i]
		records[i] = &kgo.Record{Topic: t.topic, Key: []byte(e.Topic), Value: text, Headers: []kgo.RecordHeader{
			{Key: "content-type", Value: []byte(kind)},
			{Key: headerEventID, Value: []byte(e.ID.String())},
			{Key: headerEventType, Value: []byte(e.Type)},
			{Key: headerSequence, Value: strconv.AppendInt(nil, e.Sequence, 10)},
		}}
		if parent := e.trace(); parent != "" {
			records[i].Headers = append(records[i].Headers, kgo.RecordHeader{Key: trace.Header, Value: []byte(parent)})
		}
	}
	results := make(chan error, len(records))
	for _, r := range records {
		t.client.Produce(ctx, r, func(_ *kgo.Record, err error) { results <- err })
	}
	var failed error
	for range records {
		select {
		case err := <-results:
			if err != nil && failed == nil {
				failed = fmt.Errorf("produce to %q: %w", t.topic, err)
			}
		case <-ctx.Done():
			return attempt{err: ctx.Err()}
		}
	}
	return attempt{err: failed, permanent: errors.Is(failed, kerr.MessageTooLarge) || errors.Is(failed, kerr.InvalidTopicException)}
}

// kafkaLog passes on what the client warns of.
type kafkaLog struct{ to *slog.Logger }

func (kafkaLog) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l kafkaLog) Log(level kgo.LogLevel, text string, pairs ...any) {
	if level == kgo.LogLevelError {
		l.to.Error("Kafka: "+text, pairs...)
		return
	}
	l.to.Warn("Kafka: "+text, pairs...)
}
