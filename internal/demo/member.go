package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/exchange/mtls"
	"github.com/parley-node/parley/internal/keys/file"
	"github.com/parley-node/parley/internal/node"
	"github.com/parley-node/parley/wire"
)

// Member is one organisation of the demonstration: a folder and a process.
type Member struct {
	Name   string
	Config *node.Config
	API    *client.Client
	Admin  *client.Client // status, at the admin port

	proc  *process // nil before the first start
	relay *relay   // where the others reach its exchange; nil without
}

func newMember(c *node.Config) (m *Member, err error) {
	m = &Member{Name: c.Org.Name, Config: c}
	if m.API, err = client.New("http://" + c.API.Listen); err != nil {
		return nil, err
	}
	m.Admin, err = client.New("http://" + c.Admin.Listen)
	return m, err
}

// Org is the organisation's id on the ledger.
func (m *Member) Org() wire.OrgID { return m.Config.OrgID() }

// Start starts the member's node, which starts its validator.
func (m *Member) Start() (err error) {
	m.proc, err = startProcess(m.logFile(), nil, "node", "run", "--with-parent", "--dir", m.Config.Dir)
	return err
}

// up says whether its process runs.
func (m *Member) up() bool { return m.proc != nil && m.proc.running() }

func (m *Member) logFile() string  { return filepath.Join(m.Config.Dir, "node.log") }
func (m *Member) database() string { return filepath.Join(m.Config.Dir, m.Config.Database) }

// PIDs are the process ids of the node and of its validator, 0 without one.
func (m *Member) PIDs(ctx context.Context) (node, validator int, err error) {
	st, err := m.Admin.LedgerStatus(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", m.Name, err)
	}
	if st.Connection != nil && st.Connection.Validator != nil {
		validator = st.Connection.Validator.PID
	}
	return m.proc.pid(), validator, nil
}

// confirmed waits until a message is confirmed at the member.
func (m *Member) confirmed(ctx context.Context, id string) (msg *client.Message, err error) {
	what := fmt.Sprintf("message %s is confirmed at %s", id, m.Name)
	err = waitFor(ctx, what, func(ctx context.Context) (bool, error) {
		if !m.up() {
			return false, fmt.Errorf("the node of %s is down", m.Name)
		}
		got, err := m.API.Message(ctx, id)
		var answer *client.Error
		switch {
		case client.IsNotFound(err), client.IsStarting(err), err != nil && !errors.As(err, &answer):
			return false, nil // not here yet, or the node is only just starting
		case err != nil:
			return false, fmt.Errorf("%s: %w", m.Name, err)
		case got.State == client.StateRejected:
			return false, fmt.Errorf("it was rejected: %s", got.RejectReason)
		}
		msg = got
		return got.State == client.StateConfirmed, nil
	})
	return msg, err
}

// eventPage is how many events are read at once.
const eventPage = 500

// order lists the ids of the messages that the member's applications saw
// confirmed or rejected on a topic, in the order in which they saw them.
func (m *Member) order(ctx context.Context, topic string) ([]string, error) {
	var ids []string
	for after := int64(0); ; {
		events, err := m.API.Events(ctx, url.Values{
			"topic": {topic}, "sequence": {">" + strconv.FormatInt(after, 10)}, "sort": {"sequence"}, "limit": {strconv.Itoa(eventPage)},
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		for _, e := range events {
			after = e.Sequence
			if e.Type == "message_confirmed" || e.Type == "message_rejected" {
				ids = append(ids, e.Reference)
			}
		}
		if len(events) < eventPage {
			return ids, nil
		}
	}
}

func (m *Member) certificate() (tls.Certificate, wire.Hash, error) {
	return file.TLSCertificate(filepath.Join(m.Config.Dir, m.Config.Keys.Dir), m.Config.Node.Name, "")
}

// peer is how other nodes reach the member's.
func (m *Member) peer() (exchange.Peer, error) {
	_, hash, err := m.certificate()
	return exchange.Peer{Org: m.Org(), CertHash: hash, Endpoints: []string{m.Config.Exchange.Listen}}, err
}

// connect speaks to other nodes with the member's certificate.
func (m *Member) connect() (*mtls.Exchange, error) {
	cert, _, err := m.certificate()
	if err != nil {
		return nil, err
	}
	return mtls.New(mtls.Config{Listen: "127.0.0.1:0", Certificate: cert})
}
