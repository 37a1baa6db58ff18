package node

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/parley-node/parley/internal/access"
)

// AccessConfig says who may call the API, the admin port, and the metrics
// beyond loopback. With neither file everybody who reaches them may do
// everything: then they listen on loopback only.
type AccessConfig struct {
	File          string            `yaml:"file,omitempty"`          // callers, hashes of their keys, and roles; parley access edits it
	PasswordFile  string            `yaml:"passwordFile,omitempty"`  // lines of user:bcrypt, for basic authentication
	PasswordRoles map[string]string `yaml:"passwordRoles,omitempty"` // role by namespace, or by * for every one, of users in it whom the access file does not name
}

// ServerTLS is how a port serves HTTPS (TLS 1.2 or later).
type ServerTLS struct {
	Cert     string `yaml:"cert"`               // file with the certificate chain (PEM)
	Key      string `yaml:"key"`                // file with its key (PEM)
	ClientCA string `yaml:"clientCA,omitempty"` // file with certificates (PEM): only clients with one that these have signed are served
}

// port is where the API listens.
func (a APIConfig) port() ListenConfig { return ListenConfig{a.Listen, a.TLS} }

// LimitsConfig bounds what each caller may ask for; an entry of the access file
// may say otherwise for its caller. Zero means the default.
type LimitsConfig struct {
	Rate    float64 `yaml:"rate,omitempty"`    // requests a second on average; 2,000, and without access control no limit
	Burst   int     `yaml:"burst,omitempty"`   // requests at once; 4,000
	Sockets int     `yaml:"sockets,omitempty"` // WebSockets and event streams open at a time; 256, and without access control no limit
	Body    int64   `yaml:"body,omitempty"`    // bytes of a JSON body; 8 MiB
	Blob    int64   `yaml:"blob,omitempty"`    // bytes of an upload; no limit
}

// checkAccess adds what is wrong to the configuration's errors. A port that
// others can reach without proving who they are is never opened.
func (c *Config) checkAccess(bad func(field, format string, args ...any)) {
	controlled := c.Access.File != "" || c.Access.PasswordFile != ""
	for _, port := range []struct {
		name string
		ListenConfig
	}{{"api", c.API.port()}, {"admin", c.Admin}, {"metrics", c.Metrics}} {
		if t := port.TLS; t != nil && (t.Cert == "" || t.Key == "") {
			bad(port.name+".tls", "cert and key are both needed")
		}
		if loopback(port.Listen) {
			continue
		}
		if port.TLS == nil {
			bad(port.name+".listen", "%q can be reached from other machines, without TLS; set %s.tls.cert and %s.tls.key, or listen on 127.0.0.1", port.Listen, port.name, port.name)
		}
		if !controlled {
			bad(port.name+".listen", "%q can be reached from other machines, by anybody; make keys with parley access add, or listen on 127.0.0.1", port.Listen)
		}
	}
	if _, err := c.passwordGrants(); err != nil {
		bad("access.passwordRoles", "%v", err)
	}
	if len(c.Access.PasswordRoles) > 0 && c.Access.PasswordFile == "" {
		bad("access.passwordRoles", "it is set without access.passwordFile; set that, or leave this out")
	}
	if l := c.API.Limits; l.Rate < 0 || l.Burst < 0 || l.Sockets < 0 || l.Body < 0 || l.Blob < 0 {
		bad("api.limits", "a limit is negative; leave it out for the default")
	}
}

// loopback reports whether only this machine can reach an address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return true // told as an error of its own
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// passwordGrants are the grants of access.passwordRoles.
func (c *Config) passwordGrants() ([]access.Grant, error) {
	var grants []access.Grant
	for namespace, name := range c.Access.PasswordRoles {
		g := access.Grant{Namespace: namespace}
		if err := g.Role.UnmarshalText([]byte(name)); err != nil {
			return nil, fmt.Errorf("namespace %s: %w", namespace, err)
		}
		grants = append(grants, g)
	}
	return grants, nil
}

// control reads who may call.
func (c *Config) control(log *slog.Logger) (*access.Control, error) {
	grants, err := c.passwordGrants()
	if err != nil {
		return nil, err
	}
	l := c.API.Limits
	cfg := access.Config{PasswordGrants: grants, Logger: log, Limits: access.Limits{Rate: l.Rate, Burst: l.Burst, Sockets: l.Sockets, Body: l.Body}}
	if c.Access.File != "" {
		cfg.File = c.AccessFile()
	}
	if c.Access.PasswordFile != "" {
		cfg.Passwords = c.path(c.Access.PasswordFile)
	}
	control, err := access.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("access: %w", err)
	}
	return control, nil
}

// defaultAccessFile is the access file in a member's folder.
const defaultAccessFile = "access.json"

// AccessFile is where the access file is, or would be.
func (c *Config) AccessFile() string {
	if c.Access.File == "" {
		return c.path(defaultAccessFile)
	}
	return c.path(c.Access.File)
}

// UseAccessFile makes the configuration name the access file, if it does not
// yet; changed says that it did not.
func (c *Config) UseAccessFile() (changed bool, err error) {
	if c.Access.File != "" {
		return false, nil
	}
	c.Access.File = defaultAccessFile
	return true, c.write()
}

// serverTLS reads a port's certificate; nil for plain HTTP.
func (c *Config) serverTLS(field string, t *ServerTLS) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.path(t.Cert), c.path(t.Key))
	if err != nil {
		return nil, fmt.Errorf("%s.tls: cert and key: %w", field, err)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	if t.ClientCA == "" {
		return conf, nil
	}
	text, err := os.ReadFile(c.path(t.ClientCA))
	if err != nil {
		return nil, fmt.Errorf("%s.tls.clientCA: %w", field, err)
	}
	conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !conf.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s.tls.clientCA: %s holds no certificate (PEM)", field, t.ClientCA)
	}
	return conf, nil
}
