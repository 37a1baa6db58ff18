package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEventsConfiguration(t *testing.T) {
	t.Setenv("BROKER_PASSWORD", "from the environment")
	c, err := parseConfig([]byte(`
events:
  webhooks:
    allow: [10.1.0.0/16, hooks.example.com]
  tls:
    partner: {serverName: partner.example.com}
  nats:
    default: {urls: ["nats://127.0.0.1:4222"], user: app, passwordFile: secret.txt}
  kafka:
    default: {brokers: ["127.0.0.1:9092"], mechanism: SCRAM-SHA-256, user: app, passwordEnv: BROKER_PASSWORD, tls: {}}
`))
	if err != nil {
		t.Fatal(err)
	}
	c.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(c.Dir, "secret.txt"), []byte("from a file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := c.outbound()
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Allow) != 2 || out.TLS["partner"].ServerName != "partner.example.com" ||
		out.NATS["default"].Password != "from a file" || out.NATS["default"].TLS != nil ||
		out.Kafka["default"].Password != "from the environment" || out.Kafka["default"].TLS == nil {
		t.Errorf("read as %+v", out)
	}
	text, err := c.Marshal()
	if err != nil || strings.Contains(string(text), "from a file") {
		t.Errorf("written as %s, %v", text, err)
	}
}

func TestBadEventsConfigurationIsNamed(t *testing.T) {
	c, err := parseConfig([]byte(`
events:
  tls: {x: {cert: a.pem}}
  nats: {default: {urls: ["http://a"]}, two: {urls: ["nats://u:p@a:1"], passwordFile: a, passwordEnv: b}, none: {}}
  kafka: {default: {brokers: [a], mechanism: X}, none: {}}
`))
	if err != nil {
		t.Fatal(err)
	}
	text := c.Check().Error()
	for _, want := range []string{"events.tls.x:", `events.nats.default.urls: "http://a"`, "events.nats.two.urls: a URL holds a user name", "events.nats.two: passwordFile and passwordEnv",
		"events.nats.none.urls: it is empty", `events.kafka.default.brokers: "a"`, `events.kafka.default.mechanism: "X"`, "events.kafka.none.brokers: it is empty"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not among:\n%s", want, text)
		}
	}
	c.Events = EventsConfig{TLS: map[string]TLSConfig{"x": {CA: "missing.pem"}}}
	if _, err := c.outbound(); err == nil || !strings.Contains(err.Error(), "events.tls.x: ca:") {
		t.Errorf("a missing file: %v", err)
	}
}
