package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/nodetest"
	"github.com/parley-node/parley/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	v1     = "/api/v1/"
	jsonCT = "application/json"
)

// site is the API of one member, on a real connection.
type site struct {
	t      *testing.T
	member *nodetest.Member
	client *http.Client
	url    string
	admin  string
	stats  string
}

// serve puts the API of a member on three ports. change may adjust what it
// stands on.
func serve(t *testing.T, m *nodetest.Member, change func(*api.Deps)) *site {
	t.Helper()
	sockets := event.NewWebSockets(event.WebSocketConfig{Authorize: api.AuthorizeEvents}, m.Subscriptions)
	d := api.Deps{
		Namespace: m.Namespace, Description: "test", Created: store.Time(1e18), Version: "0.0.0-test",
		DB: m.DB, Messages: m.Messages, Network: m.Network, Log: m.Events, Subscriptions: m.Subscriptions,
		WebSockets: sockets, Blobs: m.Blobs, Contracts: m.Contracts, ClaimOrg: m.ClaimOrg, ClaimNode: m.ClaimNode,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&d)
	}
	a := api.New(d)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	s := &site{t: t, member: m, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, h := range []struct {
		url     *string
		handler http.Handler
	}{{&s.url, a.Public}, {&s.admin, a.Admin}, {&s.stats, a.Metrics}} {
		server := httptest.NewUnstartedServer(nil)
		server.Config = api.NewServer(h.handler, d.Logger)
		server.Start()
		t.Cleanup(server.Close)
		*h.url = server.URL
	}
	t.Cleanup(func() {
		if err := sockets.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// answer is a response with its body.
type answer struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   []byte
}

// do sends a request; header is pairs of name and value. A body has the JSON
// content type unless the header says otherwise.
func (s *site) do(method, path, body string, header ...string) *answer {
	s.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = s.url + path
	} else if !strings.HasPrefix(path, "http") {
		path = s.url + v1 + path
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if method != http.MethodGet && method != http.MethodDelete {
		req.Header.Set("Content-Type", jsonCT)
	}
	for i := 0; i+1 < len(header); i += 2 {
		switch {
		case header[i] == "Host":
			req.Host = header[i+1]
		case header[i+1] == "":
			req.Header.Del(header[i])
		default:
			req.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return &answer{s.t, method + " " + path, resp.StatusCode, resp.Header, b}
}

func (s *site) get(path string) *answer { s.t.Helper(); return s.do(http.MethodGet, path, "") }
func (s *site) post(path, body string) *answer {
	s.t.Helper()
	return s.do(http.MethodPost, path, body)
}

// is checks the status, and for an error the code.
func (a *answer) is(status int, code string) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: status %d, want %d; body %s", a.what, a.status, status, a.body)
	}
	if code == "" {
		return a
	}
	var e struct{ Error string }
	if err := json.Unmarshal(a.body, &e); err != nil || !strings.HasPrefix(e.Error, code+": ") {
		a.t.Fatalf("%s: body %s, want an error with %s", a.what, a.body, code)
	}
	if got := a.header.Get("Content-Type"); got != jsonCT {
		a.t.Errorf("%s: an error of type %q", a.what, got)
	}
	return a
}

// into decodes the body.
func into[T any](a *answer) (v T) {
	a.t.Helper()
	d := json.NewDecoder(bytes.NewReader(a.body))
	if err := d.Decode(&v); err != nil {
		a.t.Fatalf("%s: %v in %s", a.what, err, a.body)
	}
	return v
}

type object = map[string]any
