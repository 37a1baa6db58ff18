package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"

	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/ledger/evm"
	"github.com/parley-node/parley/wire"
)

// ConfigFile is the name of the configuration in a member's folder.
const ConfigFile = "parley.yaml"

// Config is what a member's parley.yaml says. Paths are relative to the folder
// of that file. A key that is not below is an error.
type Config struct {
	// Dir is the member's folder: that of the configuration file.
	Dir string `yaml:"-"`

	Org       OrgConfig       `yaml:"org"`
	Node      NodeConfig      `yaml:"node"`
	Namespace string          `yaml:"namespace"` // local name of the network; default
	API       APIConfig       `yaml:"api"`
	Access    AccessConfig    `yaml:"access,omitempty"` // who may call; without it everybody on this machine
	Admin     ListenConfig    `yaml:"admin"`            // status for operators; 127.0.0.1:5001
	Metrics   ListenConfig    `yaml:"metrics"`          // Prometheus; 127.0.0.1:6000
	Exchange  ExchangeConfig  `yaml:"exchange"`
	Ledger    LedgerConfig    `yaml:"ledger"`
	Contracts ContractsConfig `yaml:"contracts,omitempty"`
	Keys      KeysConfig      `yaml:"keys"`
	Blobs     BlobsConfig     `yaml:"blobs"`
	Events    EventsConfig    `yaml:"events,omitempty"`   // what webhooks and message brokers may use
	Database  string          `yaml:"database"`           // SQLite file, or postgres://user@host/database; parley.db
	Standby   *StandbyConfig  `yaml:"standby,omitempty"`  // several processes of this node on one PostgreSQL database
	Founding  string          `yaml:"founding,omitempty"` // file with the network's first epoch and its secret, at the member that founded it
	Log       LogConfig       `yaml:"log"`
	Tracing   TracingConfig   `yaml:"tracing,omitempty"` // to an OpenTelemetry collector; none
}

// OrgConfig names the organisation. Name and salt give its id on the ledger, so
// neither can change once it is a member.
type OrgConfig struct {
	Name string    `yaml:"name"`
	Salt wire.Hash `yaml:"salt"` // 32 random bytes: they keep the name from being guessed on the ledger
}

// NodeConfig names the node.
type NodeConfig struct {
	Name string    `yaml:"name"` // unique in the network; the organisation's name and -node if empty
	ID   wire.UUID `yaml:"id"`
}

// ListenConfig is an address to serve HTTP on.
type ListenConfig struct {
	Listen string     `yaml:"listen"`        // host:port; port 0 takes a free one. Beyond loopback only with tls and access
	TLS    *ServerTLS `yaml:"tls,omitempty"` // serve HTTPS
}

// APIConfig is the API for applications.
type APIConfig struct {
	Listen         string       `yaml:"listen"`                   // host:port; 127.0.0.1:5000. Beyond loopback only with tls and access
	TLS            *ServerTLS   `yaml:"tls,omitempty"`            // serve HTTPS
	PublicURL      string       `yaml:"publicURL,omitempty"`      // https://host[:port][/path] at which applications reach it, for the API's description; what each request says if empty
	AllowedHosts   []string     `yaml:"allowedHosts,omitempty"`   // DNS names under which the node is reached, besides localhost
	AllowedOrigins []string     `yaml:"allowedOrigins,omitempty"` // https://host of web pages elsewhere that may call the API; none
	Limits         LimitsConfig `yaml:"limits,omitempty"`
}

// ExchangeConfig is the port for other members' nodes (mutual TLS 1.3).
type ExchangeConfig struct {
	Listen    string   `yaml:"listen"`    // host:port; 0.0.0.0:5002
	Advertise []string `yaml:"advertise"` // host:port where peers reach it, most preferred first; registered on the ledger
}

// LedgerConfig says which contract on which chain orders the network. Give
// either the bundled ledger, whose validator the node then runs as a child
// process, or the URLs of a chain that others run.
type LedgerConfig struct {
	ChainID   uint64         `yaml:"chainId"`
	Contract  wire.Address   `yaml:"contract"`            // of the network
	FromBlock uint64         `yaml:"fromBlock,omitempty"` // the contract's block or an earlier one
	URLs      []string       `yaml:"urls,omitempty"`      // http(s) JSON-RPC endpoints; the next is used when one fails
	WebSocket string         `yaml:"websocket,omitempty"` // ws(s) endpoint that announces blocks; without it the chain is polled
	Fees      string         `yaml:"fees"`                // auto, zero, legacy or dynamic; zero with the bundled ledger, else auto
	Bundled   *BundledConfig `yaml:"bundled,omitempty"`
}

// BundledConfig is this member's validator of the bundled ledger.
type BundledConfig struct {
	Dir       string   `yaml:"dir"`                 // its folder; ledger
	RPC       string   `yaml:"rpc"`                 // loopback host:port of its JSON-RPC; 127.0.0.1:8545
	P2P       string   `yaml:"p2p"`                 // host:port for other validators; 0.0.0.0:26656
	Advertise string   `yaml:"advertise,omitempty"` // host:port where others reach p2p, if that differs
	Peers     []string `yaml:"peers,omitempty"`     // nodeId@host:port of the other validators
	Allow     []string `yaml:"allow,omitempty"`     // node ids that may connect besides peers; empty allows all
}

// KeysConfig is where the signing keys and the TLS certificate are.
type KeysConfig struct {
	Dir            string `yaml:"dir"`                      // keys
	PassphraseFile string `yaml:"passphraseFile,omitempty"` // file whose first line opens the keys
	PassphraseEnv  string `yaml:"passphraseEnv,omitempty"`  // environment variable that holds it instead
}

// BlobsConfig is where attachments are kept.
type BlobsConfig struct {
	Dir string `yaml:"dir"` // blobs
}

// LogConfig is how the node logs to standard error.
type LogConfig struct {
	Level    string `yaml:"level"`              // debug, info, warn or error; info
	Format   string `yaml:"format"`             // text or json; text
	Requests string `yaml:"requests,omitempty"` // on or off: a line for each request; on
}

// TracingConfig is where the steps of each message are sent.
type TracingConfig struct {
	OTLP   string  `yaml:"otlp,omitempty"`   // URL of a collector, such as http://127.0.0.1:4318/v1/traces; none if empty
	Sample float64 `yaml:"sample,omitempty"` // which part of the traces that begin here is recorded, up to 1; 1
}

// ReadConfig reads the configuration of a member's folder, or the file itself,
// completes it with the defaults and checks it.
func ReadConfig(path string) (*Config, error) {
	c, err := LoadConfig(path)
	if err != nil {
		return nil, err
	}
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("the configuration in %s is not complete or not right:\n%w", c.Dir, err)
	}
	return c, nil
}

// LoadConfig is ReadConfig without the check: for a folder that has no network
// yet.
func LoadConfig(path string) (*Config, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, ConfigFile)
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no configuration %s; make a member's folder with: parley init", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	c, err := parseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if c.Dir, err = filepath.Abs(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return c, nil
}

// parseConfig reads a configuration and completes it with the defaults.
func parseConfig(text []byte) (*Config, error) {
	c := new(Config)
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	c.complete()
	return c, nil
}

// complete fills in the defaults.
func (c *Config) complete() {
	for _, f := range []struct {
		field *string
		value string
	}{
		{&c.Namespace, "default"},
		{&c.Node.Name, c.Org.Name + "-node"},
		{&c.API.Listen, "127.0.0.1:5000"},
		{&c.Admin.Listen, "127.0.0.1:5001"},
		{&c.Metrics.Listen, "127.0.0.1:6000"},
		{&c.Exchange.Listen, "0.0.0.0:5002"},
		{&c.Keys.Dir, "keys"},
		{&c.Blobs.Dir, "blobs"},
		{&c.Database, "parley.db"},
		{&c.Log.Level, "info"},
		{&c.Log.Format, "text"},
		{&c.Log.Requests, "on"},
	} {
		if *f.field == "" {
			*f.field = f.value
		}
	}
	if b := c.Ledger.Bundled; b != nil {
		for _, f := range []struct {
			field *string
			value string
		}{{&b.Dir, "ledger"}, {&b.RPC, "127.0.0.1:8545"}, {&b.P2P, "0.0.0.0:26656"}} {
			if *f.field == "" {
				*f.field = f.value
			}
		}
	}
	if c.Ledger.Fees == "" {
		c.Ledger.Fees = "auto"
		if c.Ledger.Bundled != nil {
			c.Ledger.Fees = "zero"
		}
	}
}

// Check says what is wrong with the configuration: all of it, one error a line.
func (c *Config) Check() error { return c.check(true) }

// check leaves out what only a network tells, unless the member has one.
func (c *Config) check(hasNetwork bool) error {
	var wrong []error
	bad := func(field, format string, args ...any) {
		wrong = append(wrong, fmt.Errorf(field+": "+format, args...))
	}
	for field, name := range map[string]string{"org.name": c.Org.Name, "node.name": c.Node.Name, "namespace": c.Namespace} {
		if err := identity.CheckName(field, name); err != nil {
			wrong = append(wrong, err)
		}
	}
	if c.Org.Salt.IsZero() {
		bad("org.salt", "it is missing; it must be the 32 random bytes (64 hex digits) that parley init made")
	}
	if c.Node.ID == uuid.Nil {
		bad("node.id", "it is missing; it must be the UUID that parley init made")
	}
	for field, address := range map[string]string{"api.listen": c.API.Listen, "admin.listen": c.Admin.Listen, "metrics.listen": c.Metrics.Listen, "exchange.listen": c.Exchange.Listen} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			bad(field, "%q is not of the form host:port", address)
		}
	}
	if len(c.Exchange.Advertise) == 0 {
		bad("exchange.advertise", "it is empty; give the host:port at which other members reach this node")
	}
	for i, address := range c.Exchange.Advertise {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "0" {
			bad(fmt.Sprintf("exchange.advertise[%d]", i), "%q is not a host:port that other members can reach", address)
		}
	}
	for i, origin := range c.API.AllowedOrigins {
		if u, err := url.Parse(origin); err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" {
			bad(fmt.Sprintf("api.allowedOrigins[%d]", i), "%q is not of the form https://host[:port]", origin)
		}
	}
	if t := c.Tracing; t.OTLP != "" {
		if u, err := url.Parse(t.OTLP); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			bad("tracing.otlp", "%q is not of the form http://host:4318/v1/traces", t.OTLP)
		}
	}
	if s := c.Tracing.Sample; s < 0 || s > 1 {
		bad("tracing.sample", "%g is not a number from 0 to 1", s)
	}
	if text := c.API.PublicURL; text != "" {
		if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" {
			bad("api.publicURL", "%q is not of the form https://host[:port][/path]", text)
		}
	}
	if hasNetwork {
		c.checkNetwork(bad)
	}
	c.checkLedger(bad)
	c.checkStandby(bad)
	c.Events.check(bad)
	c.Contracts.check(bad)
	c.checkAccess(bad)
	if c.Keys.PassphraseFile != "" && c.Keys.PassphraseEnv != "" {
		bad("keys", "passphraseFile and passphraseEnv are both set; keep one")
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		bad("log.level", "%q is not one of debug, info, warn, error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		bad("log.format", "%q is neither text nor json", c.Log.Format)
	}
	if c.Log.Requests != "on" && c.Log.Requests != "off" {
		bad("log.requests", "%q is neither on nor off", c.Log.Requests)
	}
	slices.SortFunc(wrong, func(a, b error) int { return bytes.Compare([]byte(a.Error()), []byte(b.Error())) })
	return errors.Join(wrong...)
}

func (c *Config) checkNetwork(bad func(field, format string, args ...any)) {
	l := &c.Ledger
	if l.ChainID == 0 {
		bad("ledger.chainId", "it is missing; take it from the network's description (parley join --network FILE does)")
	}
	if l.Contract.IsZero() {
		bad("ledger.contract", "it is missing; take it from the network's description (parley join --network FILE does)")
	}
}

func (c *Config) checkLedger(bad func(field, format string, args ...any)) {
	l := &c.Ledger
	if _, err := evm.ParseFees(l.Fees); err != nil {
		bad("ledger.fees", "%v", err)
	}
	switch {
	case l.Bundled == nil && len(l.URLs) == 0:
		bad("ledger", "neither bundled nor urls is set; run a validator of the bundled ledger, or name the JSON-RPC endpoints of a chain")
	case l.Bundled != nil && len(l.URLs) != 0:
		bad("ledger", "bundled and urls are both set; keep one")
	}
	if b := l.Bundled; b != nil {
		for field, address := range map[string]string{"ledger.bundled.rpc": b.RPC, "ledger.bundled.p2p": b.P2P} {
			if _, port, err := net.SplitHostPort(address); err != nil || port == "0" || port == "" {
				bad(field, "%q is not of the form host:port with a fixed port", address)
			}
		}
	}
}

// Marshal is the configuration as YAML.
func (c *Config) Marshal() ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(c), e.Close()); err != nil {
		return nil, fmt.Errorf("write the configuration as YAML: %w", err)
	}
	return b.Bytes(), nil
}

// path is a configured path, relative to the member's folder.
func (c *Config) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.Dir, p)
}

// database is where the node's database is, as package store wants it.
func (c *Config) database() string {
	if strings.Contains(c.Database, "://") {
		return c.Database
	}
	return c.path(c.Database)
}

// OrgID is the organisation's id on the ledger.
func (c *Config) OrgID() wire.OrgID { return wire.OrgIDOf(c.Org.Name, c.Org.Salt) }

// Logger logs as configured to standard error.
func (c *Config) Logger() *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		level = slog.LevelInfo // Check has refused it
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
