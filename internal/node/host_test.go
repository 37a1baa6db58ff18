package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// site is a running host with its configuration file.
type site struct {
	t    *testing.T
	path string
	host *Host
	api  string
	spi  string
	done chan error
	stop context.CancelFunc
}

const hostConfig = `
api: {listen: "127.0.0.1:0"}
admin: {listen: "127.0.0.1:0"}
metrics: {listen: "127.0.0.1:0"}
default: desk
namespaces:
  - {name: desk, mode: gateway, description: the first}
  - {name: lab, mode: gateway, networkNamespace: laboratory}
  - name: broken
    org: {name: hospital, salt: 0101010101010101010101010101010101010101010101010101010101010101}
    node: {id: 01a210b9-af68-71fb-84ce-a1b7bd853aa4}
    exchange: {listen: "127.0.0.1:0", advertise: [node.example.org:5002]}
    ledger: {chainId: 2021, contract: 0x00000000000000000000000000000000000000aa, urls: ["http://127.0.0.1:1"]}
`

func open(t *testing.T, text string) *site {
	t.Helper()
	s := &site{t: t, path: filepath.Join(t.TempDir(), ConfigFile), done: make(chan error, 1)}
	s.write(text)
	var ctx context.Context
	ctx, s.stop = context.WithCancel(t.Context())
	load := func() (*Config, error) { return ReadConfig(s.path) }
	var err error
	if s.host, err = Open(ctx, load, slog.New(slog.NewTextHandler(t.Output(), nil)), "test"); err != nil {
		t.Fatal(err)
	}
	s.api, s.spi = s.host.URL("api"), s.host.URL("admin")
	go func() { s.done <- s.host.Run(ctx) }()
	t.Cleanup(func() {
		s.stop()
		if s.done != nil {
			if err := <-s.done; err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

func (s *site) write(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// call sends a request and decodes the answer, if it has the status.
func (s *site) call(method, url, body string, status int, into any) error {
	req, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != status {
		return fmt.Errorf("%s %s: status %d, want %d: %s", method, url, resp.StatusCode, status, text)
	}
	switch into := into.(type) {
	case nil:
		return nil
	case *string:
		*into = string(text)
		return nil
	}
	return json.Unmarshal(text, into)
}

func (s *site) do(method, url, body string, status int, into any) {
	s.t.Helper()
	if err := s.call(method, url, body, status, into); err != nil {
		s.t.Fatal(err)
	}
}

// until asks until the answer has the status and is as wanted: the host works on
// its own, and tells nobody when it is done.
func (s *site) until(url string, status int, wanted string) {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		var text string
		err := s.call("GET", url, "", status, &text)
		if err == nil && strings.Contains(text, wanted) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("GET %s has not become %d with %q: %v %s", url, status, wanted, err, text)
		}
		timer := time.NewTimer(20 * time.Millisecond)
		<-timer.C
	}
}

type shownNamespace struct {
	Name, NetworkName, Description, InitializationError string
	Initializing                                        bool
	Created                                             *time.Time
}

func names(list []shownNamespace) []string {
	var all []string
	for _, n := range list {
		all = append(all, n.Name)
	}
	return all
}

// Several namespaces, each with data of its own, and one that cannot start.
func TestHostServesNamespaces(t *testing.T) {
	s := open(t, hostConfig)
	v1 := s.api + "/api/v1/"
	var list []shownNamespace
	s.until(v1+"namespaces", 200, "lab")
	s.until(v1+"namespaces", 200, "desk")
	s.do("GET", v1+"namespaces", "", 200, &list)
	if got := names(list); !slices.Equal(got, []string{"desk", "lab"}) || list[1].NetworkName != "laboratory" || list[0].Description != "the first" || list[0].Created == nil {
		t.Errorf("namespaces are %+v", list)
	}
	s.do("GET", v1+"namespaces?includeinitializing=true", "", 200, &list)
	if got := names(list); !slices.Equal(got, []string{"broken", "desk", "lab"}) || !list[0].Initializing || !strings.Contains(list[0].InitializationError, "there are no keys in") {
		t.Errorf("with those that do not run: %+v", list)
	}

	// Each path leads to its namespace, and one without to the default.
	for path, want := range map[string]string{"status": "desk", "namespaces/lab/status": "lab", "namespaces/undefined/status": "desk"} {
		var st struct {
			Namespace  shownNamespace
			Org        *struct{}
			Multiparty struct{ Enabled bool }
		}
		s.do("GET", v1+path, "", 200, &st)
		if st.Namespace.Name != want || st.Multiparty.Enabled || st.Org != nil {
			t.Errorf("%s: %+v", path, st)
		}
	}
	for path, want := range map[string]int{"namespaces/broken/status": 412, "namespaces/nobody/status": 404, "namespaces/broken": 200, "namespaces/nobody": 404} {
		s.do("GET", v1+path, "", want, nil)
	}
	s.do("GET", s.spi+"/spi/v1/namespaces/lab", "", 200, nil)

	// Data of one is not seen in the other.
	s.do("POST", v1+"namespaces/lab/data", `{"value": "sample"}`, 201, nil)
	var rows []json.RawMessage
	s.do("GET", v1+"namespaces/lab/data", "", 200, &rows)
	if len(rows) != 1 {
		t.Errorf("lab has %d data items", len(rows))
	}
	s.do("GET", v1+"data", "", 200, &rows)
	if len(rows) != 0 {
		t.Errorf("desk has %d data items", len(rows))
	}

	var text string
	s.do("GET", s.host.URL("metrics")+"/metrics", "", 200, &text)
	for _, line := range []string{`parley_ledger_records{namespace="desk"} 0`, `parley_ledger_records{namespace="lab"} 0`, "\ngo_goroutines "} {
		if !strings.Contains(text, line) {
			t.Errorf("the metrics have no %q", line)
		}
	}
}

// Without a network, identities are an address book, and definitions hold at once.
func TestGatewayNamespace(t *testing.T) {
	s := open(t, hostConfig)
	lab := s.api + "/api/v1/namespaces/lab/"
	s.until(lab+"status", 200, "lab")

	// A listener of the whole process hears of what happens in one namespace.
	ws, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(s.api, "http")+"/ws?namespace=lab&ephemeral&autoack", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	s.until(s.api+"/api/v1/websockets", 200, `"namespace":"lab"`)

	var org, person struct {
		ID, DID, Name string
		Parent        string
		Messages      struct{ Claim *string }
	}
	key := "0x00000000000000000000000000000000000000Ab"
	s.do("POST", lab+"identities", `{"name": "acme", "type": "org", "key": "`+key+`"}`, 202, &org)
	if org.DID != "did:firefly:org/acme" || org.Messages.Claim != nil {
		t.Errorf("entered as %+v", org)
	}
	_, frame, err := ws.Read(t.Context())
	if err != nil || !strings.Contains(string(frame), "identity_confirmed") || !strings.Contains(string(frame), org.ID) {
		t.Errorf("the listener got %s, %v", frame, err)
	}
	s.do("POST", lab+"identities?confirm", `{"name": "ada", "parent": "acme", "profile": {"role": "clerk"}}`, 200, &person)
	if person.Parent != org.ID {
		t.Errorf("the parent is %s, want %s", person.Parent, org.ID)
	}
	s.do("PATCH", lab+"identities/"+person.ID, `{"profile": {"role": "chief"}}`, 202, nil)
	var verifiers []struct{ Value string }
	s.do("GET", lab+"identities/"+org.ID+"/verifiers", "", 200, &verifiers)
	if len(verifiers) != 1 || verifiers[0].Value != strings.ToLower(key) {
		t.Errorf("verifiers are %v", verifiers)
	}
	for _, refused := range []struct {
		body   string
		status int
	}{
		{`{"name": "acme", "type": "org"}`, 409},                        // the name is taken
		{`{"name": "other", "type": "org", "key": "` + key + `"}`, 409}, // the key is another's
		{`{"name": "-", "type": "org"}`, 400},
		{`{"name": "x", "type": "robot"}`, 400},
		{`{"name": "x", "parent": "nobody"}`, 400},
		{`{"name": "x", "key": "nokey"}`, 400},
	} {
		s.do("POST", lab+"identities", refused.body, refused.status, nil)
	}

	s.do("POST", lab+"datatypes", `{"name": "visit", "version": "1", "value": {"type": "object"}}`, 202, nil)
	s.do("GET", lab+"datatypes/visit/1", "", 200, nil)
	s.do("POST", lab+"data", `{"datatype": {"name": "visit", "version": "1"}, "value": 5}`, 400, nil)
	for _, op := range []string{"messages/broadcast", "messages/private", "network/organizations/self"} {
		var answer struct{ Error string }
		s.do("POST", lab+op, `{}`, 400, &answer)
		if !strings.HasPrefix(answer.Error, "FF10414: ") {
			t.Errorf("%s: %s", op, answer.Error)
		}
	}
	s.do("GET", lab+"groups", "", 400, nil)
	var multiparty string
	s.do("GET", lab+"status/multiparty", "", 200, &multiparty)
	if strings.TrimSpace(multiparty) != `{"enabled":false,"org":{"status":""},"node":{"status":""}}` {
		t.Errorf("status/multiparty is %s", multiparty)
	}
	s.do("GET", s.spi+"/spi/v1/namespaces/lab/operations", "", 200, nil)
	s.do("GET", s.spi+"/spi/v1/operations/lab", "", 400, nil)
	s.do("GET", s.spi+"/spi/v1/operations/lab:01a210b9-af68-71fb-84ce-a1b7bd853aa4", "", 404, nil)
}

// A reset restarts what changed, leaves the rest alone, and refuses a mistake.
func TestReset(t *testing.T) {
	s := open(t, hostConfig)
	v1 := s.api + "/api/v1/"
	s.until(v1+"status", 200, "desk")
	s.until(v1+"namespaces/lab/status", 200, "lab")
	reset := func(status int) {
		t.Helper()
		s.do("POST", s.spi+"/spi/v1/reset", "{}", status, nil)
	}
	dial := func(ns string) *websocket.Conn {
		t.Helper()
		ws, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(s.api, "http")+"/api/v1/namespaces/"+ns+"/ws?ephemeral&autoack", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.CloseNow() })
		return ws
	}
	stays, goes := dial("desk"), dial("lab")
	gone := make(chan error, 1)
	go func() {
		_, frame, err := goes.Read(t.Context())
		if err == nil {
			err = fmt.Errorf("it got %s", frame)
		}
		gone <- err
	}()
	s.do("POST", v1+"namespaces/lab/data", `{"value": "kept"}`, 201, nil)

	s.write(strings.Replace(hostConfig, "mode: gateway, description", "mode: gatway, description", 1))
	var answer struct{ Error string }
	s.do("POST", s.spi+"/spi/v1/reset", "{}", 400, &answer)
	if !strings.Contains(answer.Error, `namespaces[0].mode: "gatway"`) {
		t.Errorf("the mistake is told as %s", answer.Error)
	}

	changed := strings.Replace(hostConfig, "networkNamespace: laboratory", "networkNamespace: laboratory, description: changed", 1)
	changed = changed[:strings.Index(changed, "  - name: broken")] + "  - {name: fresh, mode: gateway}\n"
	changed = strings.Replace(changed, "default: desk", "default: fresh", 1)
	s.write(changed)
	reset(204)
	s.until(v1+"namespaces/lab", 200, "changed")
	s.until(v1+"status", 200, `"name":"fresh"`)
	s.until(v1+"namespaces/lab/data", 200, "kept")
	s.do("GET", v1+"namespaces/broken/status", "", 404, nil)
	if err := <-gone; websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the listener of the namespace that was restarted got %v", err)
	}
	s.do("POST", v1+"namespaces/desk/datatypes", `{"name": "a", "version": "1", "value": {}}`, 202, nil)
	if _, frame, err := stays.Read(t.Context()); err != nil || !strings.Contains(string(frame), "datatype_confirmed") {
		t.Errorf("the listener of the other got %s, %v", frame, err)
	}

	stays.CloseNow()
	s.write(strings.Replace(changed, "api: {", "api: {allowedHosts: [node.example.org], ", 1))
	reset(204)
	if err := <-s.done; err == nil || !strings.Contains(err.Error(), ErrRestart.Error()) {
		t.Errorf("the host ended with %v", err)
	}
	s.done = nil
}

// A namespace that is alone and cannot start ends the process: who supervises it
// decides.
func TestLoneNamespaceFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), ConfigFile)
	if err := os.WriteFile(path, []byte(minimal+"\napi: {listen: \"127.0.0.1:0\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), func() (*Config, error) { return ReadConfig(path) }, slog.New(slog.DiscardHandler), "test")
	if err == nil || !strings.Contains(err.Error(), "there are no keys in") {
		t.Errorf("got %v", err)
	}
}
