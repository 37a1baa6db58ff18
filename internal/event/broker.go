package event

import (
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// NATSConfig is a connection to NATS, which subscriptions use by its name.
type NATSConfig struct {
	URLs        []string    // nats:// or tls://
	Credentials string      // .creds file; "" for none
	User        string      // with Password
	Password    string      //
	TLS         *tls.Config // nil for the default
}

// KafkaConfig is a connection to a Kafka cluster, which subscriptions use by its
// name.
type KafkaConfig struct {
	Brokers   []string // host:port of some of them
	TLS       *tls.Config
	Mechanism string // of SASL: "", PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	User      string
	Password  string
}

// brokerOptions is where a subscription's events go.
type brokerOptions struct {
	Connection string // its name in the node's configuration; "default" if empty
	Address    string // subject of NATS, topic of Kafka
	Envelope   string
}

// addressOption is the name of the option that says where in a broker events go.
func addressOption(transport string) string {
	if transport == TransportNATS {
		return "subject"
	}
	return "topic"
}

// broker reads the options of a subscription to a message broker.
func (o *Options) broker(transport string) (*brokerOptions, error) {
	b := &brokerOptions{Connection: "default"}
	for _, f := range []struct {
		name string
		to   *string
		want string
	}{
		{"connection", &b.Connection, "the name of a connection in the node's configuration"},
		{addressOption(transport), &b.Address, "a text"},
		{optEnvelope, &b.Envelope, `"cloudevents"`},
	} {
		if err := o.read(f.name, f.to, f.want); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// brokers are the connections to message brokers, opened when a subscription
// needs them and shared by all that do.
type brokers struct {
	cfg    OutboundConfig
	logger *slog.Logger

	mu    sync.Mutex
	nats  map[string]*natsConnection
	kafka map[string]*kafkaConnection
}

// check says what is wrong with the options of a subscription.
func (b *brokers) check(transport string, o *brokerOptions) error {
	var names []string
	if transport == TransportNATS {
		names = slices.Sorted(maps.Keys(b.cfg.NATS))
	} else {
		names = slices.Sorted(maps.Keys(b.cfg.Kafka))
	}
	if !slices.Contains(names, o.Connection) {
		return errs.BadRequest(errs.CodeBadValue, "options.connection is %q, which the node's configuration does not have in events.%s; use one of %v", o.Connection, transport, names)
	}
	var err error
	if transport == TransportNATS {
		err = checkSubject(o.Address)
	} else {
		err = checkTopic(o.Address)
	}
	if err != nil {
		return err
	}
	return checkEnvelope(o.Envelope)
}

// open makes the target of a subscription.
func (b *brokers) open(sub *store.Subscription, o *brokerOptions, source string) (target, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := envelope{kind: o.Envelope, source: source}
	if sub.Transport == TransportNATS {
		return b.openNATS(sub, o, e)
	}
	return b.openKafka(o, e)
}

// close ends the connections. Nothing may be under way.
func (b *brokers) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.nats {
		c.close()
	}
	for _, c := range b.kafka {
		c.client.Close()
	}
	b.nats, b.kafka = nil, nil
}

// envelope makes the messages of events: a broker gets each one as a message of
// its own.
type envelope struct {
	kind   string // "" or cloudevents
	source string
}

func (e envelope) message(f *Frame, i int) (text []byte, contentType string, err error) {
	data, err := bare(f, i)
	if err != nil || e.kind == "" {
		return data, mediaJSON, err
	}
	text, err = json.Marshal(cloudEventOf(&f.Events[i], e.source, data))
	return text, mediaCloudEvent, err
}

// headers of a message, besides its content type.
const (
	headerEventID   = "parley-event-id"
	headerEventType = "parley-event-type"
	headerSequence  = "parley-sequence"
)
