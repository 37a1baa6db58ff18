package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/node"
)

type accessCmd struct {
	Add    accessAddCmd    `cmd:"" help:"Let a caller in, with a role: makes an API key and prints it, once."`
	List   accessListCmd   `cmd:"" help:"List the callers and their roles."`
	Revoke accessRevokeCmd `cmd:"" help:"Remove a caller: its key is refused from then on, its sockets are closed."`
}

// readAccess reads the folder's access file, empty if there is none yet.
func (f folder) readAccess() (*node.Config, *access.File, error) {
	c, err := node.LoadConfig(f.path())
	if err != nil {
		return nil, nil, usageError{err}
	}
	file, err := access.Read(c.AccessFile())
	if errors.Is(err, fs.ErrNotExist) {
		return c, new(access.File), nil
	}
	return c, file, err
}

type accessAddCmd struct {
	folder
	Name      string   `arg:"" help:"Name of the caller, as it stands in the log."`
	Role      string   `required:"" enum:"auditor,reader,operator,admin" help:"auditor, reader, operator or admin; each includes those before it."`
	Namespace []string `default:"*" help:"Namespace of the role; may be repeated. All of them if not given." placeholder:"NAME"`
	Payloads  bool     `help:"Let an auditor see payloads too."`
	User      bool     `help:"The name is that of a user in the password file: make no key."`
	Rate      float64  `help:"Requests a second, if not those of everybody." placeholder:"N"`
	Burst     int      `help:"Requests at once, if not those of everybody." placeholder:"N"`
	Sockets   int      `help:"WebSockets and event streams at a time, if not those of everybody." placeholder:"N"`
	Body      byteSize `help:"Size of a JSON body, if not that of everybody." placeholder:"SIZE"`
}

// Help adds to --help.
func (accessAddCmd) Help() string {
	return `The key is printed and stored nowhere: the access file holds its hash. A running node
reads the file again by itself. The first caller turns access control on, for which
the node must be started anew.`
}

func (cmd accessAddCmd) Run() error {
	c, file, err := cmd.readAccess()
	if err != nil {
		return err
	}
	var grants []access.Grant
	for _, ns := range cmd.Namespace {
		g := access.Grant{Namespace: ns, Payloads: cmd.Payloads}
		if err := g.Role.UnmarshalText([]byte(cmd.Role)); err != nil {
			return usageError{err}
		}
		grants = append(grants, g)
	}
	var limits *access.Limits
	if l := (access.Limits{Rate: cmd.Rate, Burst: cmd.Burst, Sockets: cmd.Sockets, Body: int64(cmd.Body)}); l != (access.Limits{}) {
		limits = &l
	}
	key, err := file.Add(cmd.Name, !cmd.User, grants, limits, time.Now())
	if err != nil {
		return usageError{err}
	}
	if err := file.Write(c.AccessFile()); err != nil {
		return err
	}
	first, err := c.UseAccessFile()
	if err != nil {
		return err
	}
	if first {
		fmt.Fprintln(os.Stderr, "Access control is on from the node's next start: every request needs a key then.")
	}
	if key != "" {
		fmt.Println(key)
	}
	return nil
}

type accessListCmd struct{ folder }

func (cmd accessListCmd) Run() error {
	_, file, err := cmd.readAccess()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tKIND\tROLES\tLIMITS\tCREATED")
	for _, e := range file.Callers {
		kind := "key"
		if e.Key == "" {
			kind = "user"
		}
		var roles []string
		for _, g := range e.Grants {
			role := g.Namespace + ":" + g.Role.String()
			if g.Payloads {
				role += "+payloads"
			}
			roles = append(roles, role)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.Name, kind, strings.Join(roles, " "), limitsText(e.Limits), e.Created.Format(time.RFC3339))
	}
	return w.Flush()
}

func limitsText(l *access.Limits) string {
	if l == nil {
		return "of everybody"
	}
	var parts []string
	for _, p := range []struct {
		name  string
		value float64
	}{{"rate", l.Rate}, {"burst", float64(l.Burst)}, {"sockets", float64(l.Sockets)}, {"body", float64(l.Body)}} {
		if p.value != 0 {
			parts = append(parts, p.name+"="+strconv.FormatFloat(p.value, 'f', -1, 64))
		}
	}
	return strings.Join(parts, " ")
}

type accessRevokeCmd struct {
	folder
	Name string `arg:"" help:"Name of the caller."`
}

func (cmd accessRevokeCmd) Run() error {
	c, file, err := cmd.readAccess()
	if err != nil {
		return err
	}
	if !file.Revoke(cmd.Name) {
		return usageError{fmt.Errorf("there is no caller %q; parley access list shows them", cmd.Name)}
	}
	return file.Write(c.AccessFile())
}

// login is how a command shows a node who it is. The key itself is no option:
// those can be read by everybody on the machine.
type login struct {
	KeyFile string `type:"path" env:"PARLEY_API_KEY_FILE" help:"File with the API key, if the node asks for one; or set PARLEY_API_KEY." placeholder:"FILE"`
	CA      string `name:"ca" type:"path" env:"PARLEY_API_CA" help:"File with the certificates (PEM) that sign the node's, if the system does not know them." placeholder:"FILE"`
}

// open makes a client of the node at a URL.
func (l login) open(url string) (*client.Client, error) {
	var options []client.Option
	key := os.Getenv("PARLEY_API_KEY")
	if l.KeyFile != "" {
		text, err := os.ReadFile(l.KeyFile)
		if err != nil {
			return nil, usageError{fmt.Errorf("--key-file: %w", err)}
		}
		line, _, _ := bytes.Cut(text, []byte("\n"))
		key = strings.TrimSpace(string(line))
	}
	if key != "" {
		options = append(options, client.WithAPIKey(key))
	}
	if l.CA != "" {
		text, err := os.ReadFile(l.CA)
		if err != nil {
			return nil, usageError{fmt.Errorf("--ca: %w", err)}
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, usageError{fmt.Errorf("--ca: %s holds no certificate (PEM)", l.CA)}
		}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		options = append(options, client.WithHTTPClient(&http.Client{Transport: transport}))
	}
	return client.New(url, options...)
}

// nodeURL says which running node a command asks.
type nodeURL struct {
	URL string `name:"api" default:"http://127.0.0.1:5000" env:"PARLEY_API" help:"API of this organisation's running node." placeholder:"URL"`
	login
}

func (u nodeURL) client() (*client.Client, error) {
	c, err := u.open(u.URL)
	if err != nil {
		return nil, usageError{fmt.Errorf("--api: %w", err)}
	}
	return c, nil
}
