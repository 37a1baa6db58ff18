package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/message"
)

// EventsConfig is what subscriptions that the node delivers itself may use. They
// name the connections; addresses and credentials stay here.
type EventsConfig struct {
	Webhooks WebhooksConfig         `yaml:"webhooks,omitempty"`
	TLS      map[string]TLSConfig   `yaml:"tls,omitempty"`   // for webhooks with tlsConfigName
	NATS     map[string]NATSConfig  `yaml:"nats,omitempty"`  // by name; subscriptions use "default" unless they say another
	Kafka    map[string]KafkaConfig `yaml:"kafka,omitempty"` // the same
}

// WebhooksConfig says what webhooks may call.
type WebhooksConfig struct {
	Allow []string `yaml:"allow,omitempty"` // host names, IP addresses and CIDR ranges that are not public; none
}

// TLSConfig is how to make TLS connections.
type TLSConfig struct {
	CA         string `yaml:"ca,omitempty"`         // file with the certificates to trust (PEM); those of the system if empty
	Cert       string `yaml:"cert,omitempty"`       // file with the certificate to show (PEM); none if empty
	Key        string `yaml:"key,omitempty"`        // file with its key (PEM)
	ServerName string `yaml:"serverName,omitempty"` // name in the server's certificate, if it is not that of the address
}

// NATSConfig is a connection to NATS.
type NATSConfig struct {
	URLs        []string `yaml:"urls"`                  // nats://host:4222, tls://host:4222
	Credentials string   `yaml:"credentials,omitempty"` // .creds file
	User        string   `yaml:"user,omitempty"`
	Secret      `yaml:",inline"`
	TLS         *TLSConfig `yaml:"tls,omitempty"`
}

// KafkaConfig is a connection to a Kafka cluster.
type KafkaConfig struct {
	Brokers   []string   `yaml:"brokers"`             // host:port of some of them
	TLS       *TLSConfig `yaml:"tls,omitempty"`       // {} for TLS with the system's certificates
	Mechanism string     `yaml:"mechanism,omitempty"` // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; no SASL if empty
	User      string     `yaml:"user,omitempty"`
	Secret    `yaml:",inline"`
}

// Secret is a password that stands elsewhere.
type Secret struct {
	PasswordFile string `yaml:"passwordFile,omitempty"` // its first line
	PasswordEnv  string `yaml:"passwordEnv,omitempty"`  // environment variable
}

// check adds what is wrong to the configuration's errors.
func (e *EventsConfig) check(bad func(field, format string, args ...any)) {
	for name, t := range e.TLS {
		t.check("events.tls."+name, bad)
	}
	for name, n := range e.NATS {
		field := "events.nats." + name
		if len(n.URLs) == 0 {
			bad(field+".urls", "it is empty; give the URLs of NATS servers, such as nats://broker:4222")
		}
		for _, text := range n.URLs {
			u, err := url.Parse(text)
			if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
				bad(field+".urls", "%q is not of the form nats://host:port", text)
			} else if u.User != nil {
				bad(field+".urls", "a URL holds a user name; give user and passwordFile or passwordEnv instead")
			}
		}
		n.Secret.check(field, bad)
		n.TLS.check(field+".tls", bad)
	}
	for name, k := range e.Kafka {
		field := "events.kafka." + name
		if len(k.Brokers) == 0 {
			bad(field+".brokers", "it is empty; give host:port of some brokers")
		}
		for _, b := range k.Brokers {
			if _, _, err := net.SplitHostPort(b); err != nil {
				bad(field+".brokers", "%q is not of the form host:port", b)
			}
		}
		if !slices.Contains([]string{"", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}, k.Mechanism) {
			bad(field+".mechanism", "%q is none of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512", k.Mechanism)
		}
		k.Secret.check(field, bad)
		k.TLS.check(field+".tls", bad)
	}
}

func (t *TLSConfig) check(field string, bad func(field, format string, args ...any)) {
	if t != nil && (t.Cert == "") != (t.Key == "") {
		bad(field, "cert and key belong together; give both or neither")
	}
}

func (s Secret) check(field string, bad func(field, format string, args ...any)) {
	if s.PasswordFile != "" && s.PasswordEnv != "" {
		bad(field, "passwordFile and passwordEnv are both set; keep one")
	}
}

// outbound is what the node's own deliveries may use, with files and secrets
// read.
func (c *Config) outbound() (event.OutboundConfig, error) {
	out := event.OutboundConfig{
		Allow: c.Events.Webhooks.Allow,
		TLS:   map[string]*tls.Config{},
		NATS:  map[string]event.NATSConfig{},
		Kafka: map[string]event.KafkaConfig{},
	}
	var wrong []error
	for name, t := range c.Events.TLS {
		conf, err := c.tls(&t)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("events.tls.%s: %w", name, err))
		}
		out.TLS[name] = conf
	}
	for name, n := range c.Events.NATS {
		password, err := c.password(n.Secret)
		conf, err2 := c.tls(n.TLS)
		if err = errors.Join(err, err2); err != nil {
			wrong = append(wrong, fmt.Errorf("events.nats.%s: %w", name, err))
		}
		credentials := n.Credentials
		if credentials != "" {
			credentials = c.path(credentials)
		}
		out.NATS[name] = event.NATSConfig{URLs: n.URLs, Credentials: credentials, User: n.User, Password: password, TLS: conf}
	}
	for name, k := range c.Events.Kafka {
		password, err := c.password(k.Secret)
		conf, err2 := c.tls(k.TLS)
		if err = errors.Join(err, err2); err != nil {
			wrong = append(wrong, fmt.Errorf("events.kafka.%s: %w", name, err))
		}
		out.Kafka[name] = event.KafkaConfig{Brokers: k.Brokers, TLS: conf, Mechanism: k.Mechanism, User: k.User, Password: password}
	}
	return out, errors.Join(wrong...)
}

// tls reads a TLS configuration; nil stays nil.
func (c *Config) tls(t *TLSConfig) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		text, err := os.ReadFile(c.path(t.CA))
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ca: %s holds no certificate (PEM)", t.CA)
		}
	}
	if t.Cert != "" {
		cert, err := tls.LoadX509KeyPair(c.path(t.Cert), c.path(t.Key))
		if err != nil {
			return nil, fmt.Errorf("cert and key: %w", err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}

// password reads a secret; "" if there is none.
func (c *Config) password(s Secret) (string, error) {
	if s.PasswordEnv != "" {
		value, ok := os.LookupEnv(s.PasswordEnv)
		if !ok {
			return "", fmt.Errorf("passwordEnv: the environment variable %s is not set", s.PasswordEnv)
		}
		return value, nil
	}
	if s.PasswordFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(c.path(s.PasswordFile))
	if err != nil {
		return "", fmt.Errorf("passwordFile: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimRight(line, "\r"), nil
}

// source is this namespace as the source of CloudEvents.
func (n *Node) source() string {
	if n.Ledger == nil {
		return "urn:parley:namespaces/" + n.Namespace
	}
	return "did:firefly:org/" + n.Self.Name + "/namespaces/" + n.Namespace
}

// reply sends the answer of a webhook to who asked: a message of the request's
// type, to its group and topics.
func (n *Node) reply(ctx context.Context, r event.Reply) error {
	request := &r.Request.Header
	in := message.Input{
		Header:         message.Header{CID: &request.ID, TxType: r.TxType, Tag: r.Tag, Topics: request.Topics, Group: request.Group},
		Data:           []message.DataInput{{Value: r.Value}},
		IdempotencyKey: r.Key,
	}
	var err error
	if request.Type == message.TypePrivate {
		_, err = n.Messages.Private(ctx, in)
	} else {
		in.Header.TxType = "" // a broadcast is always pinned
		_, err = n.Messages.Broadcast(ctx, in)
	}
	return err
}
