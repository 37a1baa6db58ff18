package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestSwaggerUI opens the API's page in Chromium, at a node with access control;
// see swagger/. Its package is installed by .ci/run, or npm ci.
func TestSwaggerUI(t *testing.T) {
	if _, err := os.Stat("swagger/node_modules"); err != nil {
		t.Fatalf("the browser's driver is not installed; run npm ci in e2e/swagger: %v", err)
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("there is no browser; install the package chromium: %v", err)
	}
	n := prepare(t, nil, "alice")
	key := n.members[0].locked("page", "operator")
	n.members[0].start()
	n.deploy()
	n.members[0].ready(1)
	cmd := exec.CommandContext(t.Context(), "node", "--test", "--test-reporter=tap", "--test-timeout=60000")
	cmd.Dir = "swagger"
	cmd.Env = append(os.Environ(), "API=http://"+n.members[0].config.API.Listen, "KEY="+key, "CHROMIUM="+chromium)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "\n# skipped 0\n") {
		t.Errorf("a test of the page was skipped:\n%s", out)
	}
}
