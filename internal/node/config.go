package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
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

	Default    string            `yaml:"default,omitempty"`    // namespace of requests that name none; the first
	Namespaces []NamespaceConfig `yaml:"namespaces,omitempty"` // several namespaces; each then has the keys below that are about one

	Mode             string      `yaml:"mode,omitempty"`             // multiparty, or gateway: without a network; multiparty
	NetworkNamespace string      `yaml:"networkNamespace,omitempty"` // the namespace's name in messages, the same at all members; namespace
	Description      string      `yaml:"description,omitempty"`      // of the namespace, for people
	Plugins          PluginNames `yaml:"plugins,omitempty"`

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
	Events    EventsConfig    `yaml:"events,omitempty"` // what webhooks and message brokers may use
	Retention RetentionConfig `yaml:"retention,omitempty"`
	Database  string          `yaml:"database"`           // SQLite file, or postgres://user@host/database; parley.db
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

// Off as the address of the admin or metrics port leaves it closed.
const Off = "off"

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
// with what the environment says, completes it with the defaults and checks it.
func ReadConfig(path string) (*Config, error) {
	c, _, err := Source{Path: path, Environ: os.Environ()}.Read()
	return c, err
}

// LoadConfig reads what stands in the file alone, without the check: for a
// folder that has no network yet, and for what writes the file again.
func LoadConfig(path string) (*Config, error) {
	c, _, err := Source{Path: path}.Load()
	return c, err
}

// parseConfig reads a configuration and completes it with the defaults.
func parseConfig(text []byte) (*Config, error) {
	c, err := decodeConfig(text)
	if err == nil {
		err = c.misplaced()
	}
	if err != nil {
		return nil, err
	}
	c.complete()
	return c, nil
}

// decodeConfig reads a configuration as it stands.
func decodeConfig(text []byte) (*Config, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	if root.Kind == 0 {
		return new(Config), nil // an empty file
	}
	if err := errors.Join(unknownKeys(&root, reflect.TypeFor[Config](), "")...); err != nil {
		return nil, err
	}
	c := new(Config)
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return c, nil
}

// complete fills in the defaults.
func (c *Config) complete() {
	defaults{
		{&c.API.Listen, "127.0.0.1:5000"},
		{&c.Admin.Listen, "127.0.0.1:5001"},
		{&c.Metrics.Listen, "127.0.0.1:6000"},
		{&c.Log.Level, "info"},
		{&c.Log.Format, "text"},
		{&c.Log.Requests, "on"},
	}.fill()
	for i := range c.Namespaces {
		if n := &c.Namespaces[i]; n.Folder == "" {
			n.Namespace = n.Name
			n.completeNamespace()
		}
	}
	if len(c.Namespaces) == 0 {
		c.completeNamespace()
	}
}

// completeNamespace fills in the defaults of what is about one namespace.
func (c *Config) completeNamespace() {
	defaults{
		{&c.Namespace, "default"},
		{&c.Mode, ModeMultiparty},
		{&c.Keys.Dir, "keys"},
		{&c.Blobs.Dir, "blobs"},
		{&c.Database, "parley.db"},
	}.fill()
	defaults{{&c.NetworkNamespace, c.Namespace}}.fill()
	if !c.Networked() {
		return
	}
	defaults{
		{&c.Node.Name, c.Org.Name + "-node"},
		{&c.Exchange.Listen, "0.0.0.0:5002"},
	}.fill()
	if b := c.Ledger.Bundled; b != nil {
		defaults{{&b.Dir, "ledger"}, {&b.RPC, "127.0.0.1:8545"}, {&b.P2P, "0.0.0.0:26656"}}.fill()
	}
	if c.Ledger.Fees == "" {
		c.Ledger.Fees = "auto"
		if c.Ledger.Bundled != nil {
			c.Ledger.Fees = "zero"
		}
	}
}

// defaults are the values of fields that are empty.
type defaults []struct {
	field *string
	value string
}

func (d defaults) fill() {
	for _, f := range d {
		if *f.field == "" {
			*f.field = f.value
		}
	}
}

// Check says what is wrong with the configuration: all of it, one error a line.
func (c *Config) Check() error { return c.check(true) }

// check leaves out what only a network tells, unless the member has one.
func (c *Config) check(hasNetwork bool) error {
	var wrong mistakes
	for field, address := range map[string]string{"api.listen": c.API.Listen, "admin.listen": c.Admin.Listen, "metrics.listen": c.Metrics.Listen} {
		if address == Off && field != "api.listen" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			wrong.bad(field, "%q is not of the form host:port", address)
		}
	}
	for i, origin := range c.API.AllowedOrigins {
		if u, err := url.Parse(origin); err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" {
			wrong.bad(fmt.Sprintf("api.allowedOrigins[%d]", i), "%q is not of the form https://host[:port]", origin)
		}
	}
	if t := c.Tracing; t.OTLP != "" {
		if u, err := url.Parse(t.OTLP); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			wrong.bad("tracing.otlp", "%q is not of the form http://host:4318/v1/traces", t.OTLP)
		}
	}
	if s := c.Tracing.Sample; s < 0 || s > 1 {
		wrong.bad("tracing.sample", "%g is not a number from 0 to 1", s)
	}
	if text := c.API.PublicURL; text != "" {
		if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" {
			wrong.bad("api.publicURL", "%q is not of the form https://host[:port][/path]", text)
		}
	}
	c.checkAccess(wrong.bad)
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		wrong.bad("log.level", "%q is not one of debug, info, warn, error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		wrong.bad("log.format", "%q is neither text nor json", c.Log.Format)
	}
	if c.Log.Requests != "on" && c.Log.Requests != "off" {
		wrong.bad("log.requests", "%q is neither on nor off", c.Log.Requests)
	}
	if len(c.Namespaces) > 0 {
		c.checkNamespaces(&wrong)
	} else if err := c.checkNamespace(hasNetwork); err != nil {
		wrong = append(wrong, err)
	}
	return wrong.join()
}

// checkNamespace says what is wrong with what is about one namespace.
func (c *Config) checkNamespace(hasNetwork bool) error {
	var wrong mistakes
	names := map[string]string{"namespace": c.Namespace, "networkNamespace": c.NetworkNamespace}
	switch c.Mode {
	case ModeMultiparty:
		names["org.name"], names["node.name"] = c.Org.Name, c.Node.Name
		c.checkMember(wrong.bad)
		if hasNetwork {
			c.checkNetwork(wrong.bad)
		}
		c.checkLedger(wrong.bad)
	case ModeGateway:
		if !reflect.ValueOf(c.Org).IsZero() || len(c.Exchange.Advertise) > 0 || !c.Ledger.Contract.IsZero() {
			wrong.bad("mode", "it is gateway, and org, exchange or ledger.contract is set; leave them out, or set mode to multiparty")
		}
	default:
		wrong.bad("mode", "%q is neither multiparty nor gateway", c.Mode)
	}
	for field, name := range names {
		if err := identity.CheckName(field, name); err != nil {
			wrong = append(wrong, err)
		}
	}
	c.Events.check(wrong.bad)
	c.Contracts.check(wrong.bad)
	c.Retention.check(wrong.bad)
	if c.Keys.PassphraseFile != "" && c.Keys.PassphraseEnv != "" {
		wrong.bad("keys", "passphraseFile and passphraseEnv are both set; keep one")
	}
	return wrong.join()
}

// mistakes are what is wrong with a configuration.
type mistakes []error

func (m *mistakes) bad(field, format string, args ...any) {
	*m = append(*m, fmt.Errorf(field+": "+format, args...))
}

// join makes them one error, one a line, in the order of the fields.
func (m mistakes) join() error {
	slices.SortFunc(m, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(m...)
}

// checkMember is about who takes part in the network.
func (c *Config) checkMember(bad func(field, format string, args ...any)) {
	if c.Org.Salt.IsZero() {
		bad("org.salt", "it is missing; it must be the 32 random bytes (64 hex digits) that parley init made")
	}
	if c.Node.ID == uuid.Nil {
		bad("node.id", "it is missing; it must be the UUID that parley init made")
	}
	if _, _, err := net.SplitHostPort(c.Exchange.Listen); err != nil {
		bad("exchange.listen", "%q is not of the form host:port", c.Exchange.Listen)
	}
	if len(c.Exchange.Advertise) == 0 {
		bad("exchange.advertise", "it is empty; give the host:port at which other members reach this node")
	}
	for i, address := range c.Exchange.Advertise {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "0" {
			bad(fmt.Sprintf("exchange.advertise[%d]", i), "%q is not a host:port that other members can reach", address)
		}
	}
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
	n, err := c.document()
	if err != nil {
		return nil, err
	}
	return encode(n)
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
