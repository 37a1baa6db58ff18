package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestSDK runs the npm SDK of existing clients against two members; see sdk/.
// Its packages are installed by .ci/run, or npm ci.
func TestSDK(t *testing.T) {
	if _, err := os.Stat("sdk/node_modules"); err != nil {
		t.Fatalf("the SDK is not installed; run npm ci in e2e/sdk: %v", err)
	}
	n := found(t, nil, "alice", "bob")
	cmd := exec.CommandContext(t.Context(), "node", "--test", "--test-reporter=tap", "--test-timeout=60000")
	cmd.Dir = "sdk"
	cmd.Env = append(os.Environ(),
		"ALICE=http://"+n.members[0].config.API.Listen, "BOB=http://"+n.members[1].config.API.Listen, "BOB_ORG=bob")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "\n# skipped 0\n") {
		t.Errorf("a test of the SDK was skipped:\n%s", out)
	}
}
