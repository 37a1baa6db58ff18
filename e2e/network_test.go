package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/internal/ledger/bundled"
	"github.com/parley-node/parley/internal/node"
)

const chainID = 2021

// patience is how long something may take that is to happen. A healthy network
// takes a fraction of a second; the machine may be busy.
const patience = time.Minute

// network is a network of members on a ledger with one validator, which is a
// process of its own: no member's death takes the ledger down.
type network struct {
	t       *testing.T
	members []*member
	ledger  *process
	args    []string // of the ledger's process
}

// member is one organisation: its folder, its process and a client of its API.
type member struct {
	t      *testing.T
	config *node.Config
	file   string // its configuration, if that is not the folder's
	api    *client.Client
	proc   *process
}

// found makes a network and starts it. place may move a member's folder.
func found(t *testing.T, place func(name string) string, names ...string) *network {
	t.Helper()
	n := prepare(t, place, names...)
	for _, m := range n.members {
		m.start()
	}
	n.deploy()
	for _, m := range n.members {
		m.ready(len(names))
	}
	return n
}

// prepare makes the folders of a network and starts its ledger.
func prepare(t *testing.T, place func(name string) string, names ...string) *network {
	t.Helper()
	dir := t.TempDir()
	if place == nil {
		place = func(name string) string { return filepath.Join(dir, name) }
	}
	ports := freePorts(t, 4*len(names)+2)
	take := func() string {
		address := ports[0]
		ports = ports[1:]
		return address
	}
	rpc, p2p := take(), take()
	chain := filepath.Join(dir, "ledger")
	if _, err := bundled.InitNetwork([]string{chain}, bundled.GenesisConfig{ChainID: chainID, Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	n := &network{t: t, args: node.LedgerArgs(chain, node.BundledConfig{RPC: rpc, P2P: p2p})}
	n.startLedger()
	var public []node.Member
	for _, name := range names {
		c := &node.Config{
			Dir: place(name), Org: node.OrgConfig{Name: name},
			API: node.APIConfig{Listen: take()}, Admin: node.ListenConfig{Listen: take()}, Metrics: node.ListenConfig{Listen: take()},
			Exchange: node.ExchangeConfig{Listen: take()},
			Ledger:   node.LedgerConfig{URLs: []string{"http://" + rpc}, WebSocket: "ws://" + rpc, Fees: "zero"},
		}
		p, err := node.Init(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		api, err := client.New("http://" + c.API.Listen)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(api.Close)
		public = append(public, *p)
		n.members = append(n.members, &member{t: t, config: c, api: api})
	}
	var described *node.NetworkFile
	eventually(t, "the ledger answers", func(ctx context.Context) (err error) {
		described, err = node.FoundNetwork(ctx, n.members[0].config, node.FoundOptions{ChainID: chainID, Members: public})
		return err
	})
	for _, m := range n.members[1:] {
		if err := described.Join(m.config); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n *network) startLedger() { n.ledger = start(n.t, nil, n.args...) }

// deploy puts the network contract on the ledger.
func (n *network) deploy() {
	n.t.Helper()
	eventually(n.t, "the contract is deployed", func(ctx context.Context) error {
		_, err := node.Deploy(ctx, n.members[0].config)
		return err
	})
}

func (m *member) start() {
	m.t.Helper()
	args := []string{"node", "run", "--dir", m.config.Dir}
	if m.file != "" {
		args = append(args, "--config", m.file)
	}
	m.proc = start(m.t, nil, args...)
}

// ready waits until the member knows that many organisations and their nodes.
func (m *member) ready(members int) {
	m.t.Helper()
	eventually(m.t, m.config.Org.Name+" knows the other members", func(ctx context.Context) error {
		if !m.proc.running() {
			m.t.Fatalf("the node of %s has ended: %v", m.config.Org.Name, m.proc.err)
		}
		orgs, err := m.api.Organisations(ctx, nil)
		if err != nil {
			return err
		}
		nodes, err := m.api.Nodes(ctx, nil)
		if err == nil && (len(orgs) != members || len(nodes) != members) {
			err = fmt.Errorf("%d organisations and %d nodes", len(orgs), len(nodes))
		}
		return err
	})
}

// connection is what the admin port says of the node's connection to the ledger.
func (m *member) connection(ctx context.Context) (state, waiting string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.config.Admin.Listen+"/api/v1/status/ledger", nil)
	if err != nil {
		return "", "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	var s struct {
		Connection struct{ State, Waiting string }
	}
	err = json.NewDecoder(resp.Body).Decode(&s)
	return s.Connection.State, s.Connection.Waiting, err
}

// eventually asks again and again until f has no error. The processes of a test
// give no signal across their borders, so this is the one place that polls.
func eventually(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, patience, last)
		case <-tick.C:
		}
	}
}

// freePorts finds loopback addresses that nobody listens on.
func freePorts(t *testing.T, count int) (addresses []string) {
	t.Helper()
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at the end, so that none is found twice
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// send posts a private message from m to another member and gives its id.
func (m *member) send(ctx context.Context, to *member, topic, key string) (string, error) {
	return m.sendValue(ctx, to, topic, key, key)
}

func (m *member) sendValue(ctx context.Context, to *member, topic, key string, value any) (string, error) {
	v, err := client.Value(value)
	if err != nil {
		return "", err
	}
	return m.sendData(ctx, to, topic, key, v)
}

func (m *member) sendData(ctx context.Context, to *member, topic, key string, d client.DataRef) (string, error) {
	sent, err := m.api.Private(ctx, client.NewMessage{
		Header: client.Header{Topics: []string{topic}}, IdempotencyKey: key, Data: []client.DataRef{d},
		Group: &client.Group{Members: []client.Member{{Identity: to.config.Org.Name}}},
	})
	if err != nil {
		return "", err
	}
	return sent.Header.ID, nil
}

// confirmed lists the ids of a topic's confirmed messages in the order in which
// the member's applications see them.
func (m *member) confirmed(ctx context.Context, topic string) ([]string, error) {
	var ids []string
	for skip := 0; ; {
		events, err := m.api.Events(ctx, query("topic", topic, "type", "message_confirmed", "sort", "sequence", "limit", "500", "skip", fmt.Sprint(skip)))
		if err != nil {
			return nil, err
		}
		if len(events) == 0 {
			return ids, nil
		}
		skip += len(events)
		for _, e := range events {
			ids = append(ids, e.Reference)
		}
	}
}

// allConfirmed waits until every member has confirmed exactly the given
// messages of a topic, and checks that all did so in one order.
func allConfirmed(t *testing.T, members []*member, topic string, ids []string) {
	t.Helper()
	want := slices.Sorted(slices.Values(ids))
	var first []string
	for i, m := range members {
		var got []string
		eventually(t, fmt.Sprintf("%s has confirmed %d messages of topic %s", m.config.Org.Name, len(ids), topic), func(ctx context.Context) (err error) {
			if got, err = m.confirmed(ctx, topic); err == nil && len(got) < len(ids) {
				err = fmt.Errorf("%d are", len(got))
			}
			return err
		})
		if sorted := slices.Sorted(slices.Values(got)); !slices.Equal(sorted, want) {
			t.Errorf("%s confirmed %d messages, want exactly the %d that were accepted:\n%v\n%v", m.config.Org.Name, len(got), len(ids), sorted, want)
		}
		if i == 0 {
			first = got
		} else if !slices.Equal(got, first) {
			t.Errorf("%s and %s confirmed the messages in another order", m.config.Org.Name, members[0].config.Org.Name)
		}
	}
}

// query makes a query of names and values in turn.
func query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return q
}
