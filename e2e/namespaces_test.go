package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Two members of one network and a gateway are namespaces of one process, which
// runs from a file in FireFly's format, reads it again, and survives a kill.
func TestNamespacesOfOneProcess(t *testing.T) {
	n := prepare(t, nil, "acme", "bolt")
	n.deploy()
	dir := t.TempDir()
	path := filepath.Join(dir, "firefly.core.yml")
	ports := freePorts(t, 3)
	var port [3]string
	for i, address := range ports {
		_, port[i], _ = strings.Cut(address, ":")
	}
	write := func(desk string) {
		t.Helper()
		text := fmt.Sprintf(`
http: {port: %s}
spi: {enabled: true, port: %s}
metrics: {port: %s}
namespaces:
  default: acme
  predefined:
    - {name: acme, multiparty: {enabled: true, org: {name: acme}}}
    - {name: second, multiparty: {enabled: true, org: {name: bolt}}}
    - {name: %s}
plugins:
  blockchain: [{name: chain0, type: ethereum}]
  database: [{name: db0, type: sqlite3}]
parley:
  namespaces:
    - {name: acme, folder: %s}
    - {name: second, folder: %s}
`, port[0], port[1], port[2], desk, n.members[0].config.Dir, n.members[1].config.Dir)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("desk")
	base := "http://" + ports[0]
	p := start(t, nil, "node", "run", "--config", path)
	members := []string{"acme", "second"}
	ready := func() {
		t.Helper()
		for _, ns := range members {
			eventually(t, ns+" knows both organisations and nodes", func(ctx context.Context) error {
				var orgs, nodes []json.RawMessage
				if err := getJSON(ctx, base+"/api/v1/namespaces/"+ns+"/network/organizations", &orgs); err != nil {
					return err
				}
				if err := getJSON(ctx, base+"/api/v1/namespaces/"+ns+"/network/nodes", &nodes); err != nil {
					return err
				}
				if len(orgs) != 2 || len(nodes) != 2 {
					return fmt.Errorf("%d organisations, %d nodes", len(orgs), len(nodes))
				}
				return nil
			})
		}
	}
	ready()
	var st struct {
		Plugins struct{ Blockchain []struct{ Name string } }
	}
	if err := getJSON(t.Context(), base+"/api/v1/status", &st); err != nil || len(st.Plugins.Blockchain) != 1 {
		t.Errorf("the default namespace has the plugins %+v, %v", st.Plugins, err)
	}

	say := func(text string) string {
		t.Helper()
		body := fmt.Sprintf(`{"group": {"members": [{"identity": "bolt"}]}, "data": [{"value": %q}]}`, text)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/api/v1/messages/private?confirm", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var m struct {
			Header struct{ ID string }
			Error  string
		}
		if err := json.NewDecoder(resp.Body).Decode(&m); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d: %s %v", resp.StatusCode, m.Error, err)
		}
		return m.Header.ID
	}
	arrives := func(id string) {
		t.Helper()
		eventually(t, "the other namespace has the message", func(ctx context.Context) error {
			var m struct {
				State          string
				LocalNamespace string
				Header         struct{ Namespace string }
			}
			if err := getJSON(ctx, base+"/api/v1/namespaces/second/messages/"+id, &m); err != nil {
				return err
			}
			if m.State != "confirmed" || m.LocalNamespace != "second" || m.Header.Namespace != "default" {
				return fmt.Errorf("it is %+v", m)
			}
			return nil
		})
	}
	arrives(say("between two namespaces of one process"))

	// The gateway gets another name; the members go on.
	write("office")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+ports[1]+"/spi/v1/reset", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("reset: %s", resp.Status)
	}
	lists := func(want ...string) {
		t.Helper()
		eventually(t, fmt.Sprint("the namespaces are ", want), func(ctx context.Context) error {
			var list []struct{ Name string }
			if err := getJSON(ctx, base+"/api/v1/namespaces", &list); err != nil {
				return err
			}
			var got []string
			for _, n := range list {
				got = append(got, n.Name)
			}
			if strings.Join(got, " ") != strings.Join(want, " ") {
				return fmt.Errorf("they are %v", got)
			}
			return nil
		})
	}
	lists("acme", "office", "second")
	arrives(say("after the reset"))

	// SIGHUP does the same.
	write("desk")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	lists("acme", "desk", "second")

	p.kill()
	start(t, nil, "node", "run", "--config", path)
	ready()
	arrives(say("after the kill"))
}

// getJSON asks for something and decodes the answer.
func getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
