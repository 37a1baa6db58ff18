package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/internal/node"
)

// lease is that of the tests' processes.
const lease = 3 * time.Second

// failover is how long a member may be without an active process when that one
// is killed.
const failover = 5 * time.Second

// server is the URL of a PostgreSQL server; "" if there is none, and then nothing
// to test: e2e/postgres/with starts one.
func server(t *testing.T) string {
	t.Helper()
	name := os.Getenv("PARLEY_TEST_POSTGRES")
	if name == "" {
		t.Log("PARLEY_TEST_POSTGRES names no server")
	}
	return name
}

// database creates a database on the server.
func database(t *testing.T, server, name string) string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), "CREATE DATABASE "+name+" ENCODING 'UTF8' TEMPLATE template0"); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// pair makes a network of alice, of whose node two processes run on one
// database, and bob.
func pair(t *testing.T, server string) (n *network, first, second, bob *member) {
	t.Helper()
	n = prepare(t, nil, "alice", "bob")
	first, bob = n.members[0], n.members[1]
	ports := freePorts(t, 4)
	one := first.config
	one.Database = database(t, server, "standby")
	one.Standby = &node.StandbyConfig{Name: "first", Lease: lease}
	one.Exchange.Advertise = []string{one.Exchange.Listen, ports[3]}
	two := *one
	two.Standby = &node.StandbyConfig{Name: "second", Lease: lease}
	two.API.Listen, two.Admin.Listen, two.Metrics.Listen, two.Exchange.Listen = ports[0], ports[1], ports[2], ports[3]
	api, err := client.New("http://" + two.API.Listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	second = &member{t: t, config: &two, api: api, file: filepath.Join(one.Dir, "second.yaml")}
	for path, c := range map[string]*node.Config{filepath.Join(one.Dir, node.ConfigFile): one, second.file: &two} {
		text, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first.start()
	first.role("active")
	second.start()
	second.role("standby")
	bob.start()
	n.deploy()
	for _, m := range []*member{first, second, bob} {
		m.ready(2)
	}
	return n, first, second, bob
}

// role waits until a process is the active one, or stands by.
func (m *member) role(want string) {
	m.t.Helper()
	eventually(m.t, fmt.Sprintf("the process at %s is %s", m.config.API.Listen, want), func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.config.Admin.Listen+"/api/v1/status/standby", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var s struct {
			Role string
			Term int64
		}
		if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
			return err
		}
		if s.Role != want {
			return fmt.Errorf("its role is %q in term %d", s.Role, s.Term)
		}
		return nil
	})
}

func (m *member) signal(s os.Signal) {
	m.t.Helper()
	if err := m.proc.cmd.Process.Signal(s); err != nil {
		m.t.Fatal(err)
	}
}

// received collects what an application gets from a durable subscription.
type received struct {
	mu  sync.Mutex
	ids []string // in the order of delivery
}

func (r *received) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ids)
}

// listen follows a topic's confirmed messages through a member's API until the
// test ends or stop is called.
func listen(t *testing.T, m *member, name string) (r *received, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	r = &received{}
	done.Go(func() {
		err := m.api.Listen(ctx, client.ListenOptions{Name: name}, func(_ context.Context, events []client.Event) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, e := range events {
				r.ids = append(r.ids, e.Reference)
			}
			return nil
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("listening at %s: %v", m.config.API.Listen, err)
		}
	})
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return r, stop
}

// TestStandby: of two processes of one node the active one is killed, sleeps for
// longer than its lease, and ends in order, each under load. The other goes on
// within seconds, nothing is lost or doubled, and who listens goes on listening.
func TestStandby(t *testing.T) {
	server := server(t)
	if server == "" {
		return
	}
	_, first, second, bob := pair(t, server)
	ctx := t.Context()
	if _, err := second.api.PutSubscription(ctx, client.Subscription{
		Name: "orders", Filter: client.Filter{Events: "message_confirmed", Topic: "orders"},
		Options: client.SubscriptionOptions{FirstEvent: "oldest"},
	}); err != nil {
		t.Fatal(err)
	}
	got, hangUp := listen(t, second, "orders")
	load := newLoad(t, second, bob, "orders") // accepted by the one that stands by
	back := newLoad(t, bob, first, "answers")
	load.more(40)
	back.more(20)

	// The active process dies.
	load.begin(40)
	back.begin(20)
	first.proc.kill()
	died := time.Now()
	if _, err := second.api.Private(ctx, toGroup(t, "probe", "alice", "bob"), client.Confirm()); err != nil {
		t.Errorf("a message after the active process was killed: %v", err)
	}
	if took := time.Since(died); took > failover {
		t.Errorf("the next message was confirmed %s after the active process was killed, want %s at most", took, failover)
	} else {
		t.Logf("the next message was confirmed %s after the active process was killed", took.Round(time.Millisecond))
	}
	second.role("active")
	first.start()
	first.role("standby")

	// The active process sleeps for longer than its lease, and wakes up.
	sleeper := newLoad(t, first, bob, "orders")
	sleeper.next.Store(1_000_000)
	load.more(20)
	second.signal(syscall.SIGSTOP)
	first.role("active")
	sleeper.more(40)
	second.signal(syscall.SIGCONT)
	second.role("standby")
	load.more(20)

	// The active process ends in order; the subscription is served elsewhere.
	hangUp()
	rest, _ := listen(t, first, "orders")
	sleeper.more(10)
	second.role("standby")
	first.proc.stop()
	ended := time.Now()
	if _, err := second.api.Private(ctx, toGroup(t, "probe", "alice", "bob"), client.Confirm()); err != nil {
		t.Errorf("a message after the active process has ended: %v", err)
	}
	t.Logf("the next message was confirmed %s after the active process had ended in order", time.Since(ended).Round(time.Millisecond))
	first.start()
	first.role("standby")

	orders := append(load.ids(), sleeper.ids()...)
	allConfirmed(t, []*member{first, second, bob}, "orders", orders)
	allConfirmed(t, []*member{second, bob}, "answers", back.ids())
	want, err := second.confirmed(ctx, "orders")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the subscription has brought everything", func(context.Context) error {
		all := append(got.all(), rest.all()...)
		if at := inOrder(all, want); at < len(want) {
			return fmt.Errorf("%d of %d events came in order", at, len(want))
		}
		return nil
	})
	check := start(t, nil, "check", "--dir", first.config.Dir, "--ledger")
	if code := check.wait(patience); code != 0 {
		t.Errorf("parley check ended with %d:\n%s", code, check.log.tail(4000))
	}
}

// inOrder tells how many of want came in their order; what came again, as it may
// when a process dies before an acknowledgement is stored, does not count.
func inOrder(got, want []string) int {
	next := 0
	for _, id := range got {
		if next < len(want) && id == want[next] {
			next++
		}
	}
	return next
}

// toGroup is a message to some members on the topic of probes.
func toGroup(t *testing.T, text string, names ...string) client.NewMessage {
	m := message(t, "probes", text)
	m.Group = &client.Group{}
	for _, n := range names {
		m.Group.Members = append(m.Group.Members, client.Member{Identity: n})
	}
	return m
}
