package e2e

import (
	"encoding/json"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// storyTime bounds one story, with room for a busy machine.
const storyTime = 3 * time.Minute

// fact is a line of parley demo --json.
type fact struct {
	Step    string
	OK      bool
	MS      int64
	Text    string
	Error   string
	Members []struct {
		Org, API, Admin, Dir string
		PID                  int
		ValidatorPID         int `json:"validator_pid"`
	}
	Ledger struct{ RPC, Contract string }
}

// demo starts parley demo --json and gives its facts.
func demo(t *testing.T, args ...string) (p *process, facts func() []fact, ready <-chan fact) {
	t.Helper()
	var mu sync.Mutex
	var all []fact
	first := make(chan fact, 1)
	p = start(t, func(line []byte) {
		var f fact
		if err := json.Unmarshal(line, &f); err != nil {
			t.Errorf("parley demo --json printed %q: %v", line, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, f)
		if f.Step == "ready" && f.OK {
			first <- f
		}
	}, append([]string{"demo", "--json"}, args...)...)
	return p, func() []fact {
		mu.Lock()
		defer mu.Unlock()
		return append([]fact(nil), all...)
	}, first
}

// steps are the steps of the story, as the program itself names them.
func steps(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command(binary, "demo", "--break", "no-such-step").CombinedOutput()
	if err == nil {
		t.Fatal("an unknown step to break is accepted")
	}
	_, list, ok := strings.Cut(string(out), "the steps are ")
	if !ok {
		t.Fatalf("the program does not name its steps: %s", out)
	}
	return strings.Split(strings.TrimSpace(list), ", ")
}

// TestDemo plays the story of the README: every claim holds.
func TestDemo(t *testing.T) {
	p, facts, ready := demo(t, "--once")
	if code := p.wait(storyTime); code != 0 {
		t.Fatalf("parley demo --once ended with %d: %+v", code, facts())
	}
	told := map[string]bool{}
	for _, f := range facts() {
		if !f.OK || f.Error != "" {
			t.Errorf("step %s does not hold: %s", f.Step, f.Error)
		}
		told[f.Step] = true
	}
	for _, s := range steps(t) {
		if !told[s] {
			t.Errorf("step %s was not told", s)
		}
	}
	r := <-ready
	if len(r.Members) != 4 {
		t.Fatalf("the demo has %d members, want 4", len(r.Members))
	}
	for _, m := range r.Members {
		if m.Org == "" || m.API == "" || m.Admin == "" || m.Dir == "" || m.PID == 0 || m.ValidatorPID == 0 {
			t.Errorf("the fact ready lacks something of member %+v", m)
		}
	}
	if r.Ledger.RPC == "" || r.Ledger.Contract == "" {
		t.Errorf("the fact ready lacks something of the ledger: %+v", r.Ledger)
	}
}

// TestDemoNoticesFaults plants a fault for each claim. A story that cannot fail
// shows nothing.
func TestDemoNoticesFaults(t *testing.T) {
	for _, step := range steps(t) {
		t.Run(step, func(t *testing.T) {
			p, facts, _ := demo(t, "--once", "--break", step)
			if code := p.wait(storyTime); code != 1 {
				t.Fatalf("with a fault planted the demo ended with %d, want 1: %+v", code, facts())
			}
			var failed []string
			for _, f := range facts() {
				if !f.OK {
					failed = append(failed, f.Step)
					if f.Error == "" {
						t.Errorf("step %s failed without a reason", f.Step)
					}
				}
			}
			if len(failed) != 1 || failed[0] != step {
				t.Errorf("the fault for step %s made %q fail", step, failed)
			}
		})
	}
}
