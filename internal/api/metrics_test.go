package api_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/nodetest"
)

// What docs/operations.md lists is what a node has, and the other way around.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	s := serve(t, net.Members[0], func(d *api.Deps) { d.OpenMetrics = true })
	s.post("subscriptions", `{"name":"app"}`).is(201, "")
	s.get("nothing").is(404, "")
	s.do("GET", "status", "", "Host", "evil.example").is(403, "")
	s.post("messages/broadcast?confirm=true", `{"data":[{"value":1}]}`).is(200, "")
	s.post("messages/broadcast", `{"data":[]}`)

	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(parley_[a-z_]+)(?:\\{[a-z, ]*\\})?` \\|").FindAllSubmatch(text, -1) {
		documented = append(documented, string(m[1]))
	}
	var there []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (parley_[a-z_]+) `).FindAllSubmatch(s.get(s.stats+"/metrics").is(200, "").body, -1) {
		there = append(there, string(m[1]))
	}
	for _, name := range there {
		if !slices.Contains(documented, name) {
			t.Errorf("docs/operations.md lacks %s", name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(there, name) {
			t.Errorf("docs/operations.md lists %s, which a node has not", name)
		}
	}
	if len(there) < 20 {
		t.Errorf("only %d metrics were found", len(there))
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 1)
	state := "connected"
	s := serve(t, net.Members[0], func(d *api.Deps) {
		d.Connection = func() api.Connection { return api.Connection{State: state, Waiting: "secret endpoint"} }
	})
	for _, port := range []string{s.admin, s.stats} {
		state = "connected"
		s.get(port+"/readyz").is(200, "")
		state = "stopped"
		a := s.get(port+"/readyz").is(503, "")
		if !strings.Contains(string(a.body), "connection is stopped") || strings.Contains(string(a.body), "secret") {
			t.Errorf("not ready because of %s", a.body)
		}
	}
	late := nodetest.New(t, nodetest.Options{Members: 1, Admit: 1, NoCheck: true})
	late.Ready()
	joiner := late.Members[1]
	joiner.Start()
	j := serve(t, joiner, nil)
	if a := j.get(j.admin+"/readyz").is(503, ""); !strings.Contains(string(a.body), "the organisation is not registered") {
		t.Errorf("not ready because of %s", a.body)
	}
}
