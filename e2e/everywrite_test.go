//go:build linux && amd64

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	writes = flag.Int("writes", 15, "at how many writes of a member TestEveryWrite lets something fail; 0 is each of them, with each fault")
	first  = flag.Int("write", 0, "with -writes 1: the write")
)

// Each way in which a write can fail: the process dies or goes on; the write had
// its effect or not.
var writeFaults = []string{"kill", "kill-after", "EIO", "EIO-after", "ENOSPC"}

// TestEveryWrite: whatever write, sync or rename of a member fails or is its
// last, what it acknowledged is confirmed once, at both ends and in one order,
// after it was started again, and its database is what ledger and payloads say.
// (What a computer loses that loses its power is the simulation's business.)
func TestEveryWrite(t *testing.T) {
	inject := filepath.Join(t.TempDir(), "inject")
	if out, err := exec.Command("go", "build", "-o", inject, "./inject").CombinedOutput(); err != nil {
		t.Fatalf("build inject: %v\n%s", err, out)
	}
	n := found(t, nil, "alice", "bob")
	w := &everyWrite{t: t, n: n, alice: n.members[0], bob: n.members[1], inject: inject}
	w.alice.proc.stop()

	count := w.count()
	t.Logf("a run of the load has %d writes", count)
	if count < 50 {
		t.Fatalf("only %d writes were seen: those to the database are missing", count)
	}
	points, all := *writes, *writes == 0
	if all {
		points = count
	}
	for i := range points {
		at := 1 + i*count/points
		if *first > 0 { // to replay one
			at = *first
		}
		if !all {
			w.fail(at, writeFaults[i%len(writeFaults)])
			continue
		}
		for _, fault := range writeFaults {
			w.fail(at, fault)
		}
	}
}

type everyWrite struct {
	t          *testing.T
	n          *network
	alice, bob *member
	inject     string
	runs       int
}

// start starts alice under injection. What inject says comes line by line.
func (w *everyWrite) start(at int, fault string) <-chan string {
	lines := make(chan string, 10)
	p := startProgram(w.t, func(line []byte) { lines <- string(line) },
		w.inject, "--dir", w.alice.config.Dir, "--at", strconv.Itoa(at), "--fault", fault, "--", binary, "node", "run", "--dir", w.alice.config.Dir)
	w.alice.proc = p
	return lines
}

// load makes alice write: messages, attachments, and what bob sends.
func (w *everyWrite) load() (loads []*load) {
	w.runs++
	for i := range 3 {
		l := newLoad(w.t, w.alice, w.bob, fmt.Sprintf("run-%d-%d", w.runs, i))
		if l.blobs = i == 1; i == 2 {
			l.from, l.to = w.bob, w.alice
		}
		l.begin(3)
		loads = append(loads, l)
	}
	return loads
}

// finish waits until all is confirmed, and has the database checked.
func (w *everyWrite) finish(loads []*load) {
	w.t.Helper()
	for _, l := range loads {
		allConfirmed(w.t, w.n.members, l.topic, l.ids())
	}
	out, err := exec.Command(binary, "check", "--dir", w.alice.config.Dir).CombinedOutput()
	if err != nil {
		w.t.Errorf("check: %v\n%s", err, out)
	}
}

// count is how many writes a run without a fault has.
func (w *everyWrite) count() int {
	lines := w.start(0, "kill")
	w.finish(w.load())
	w.alice.proc.stop()
	line := <-lines
	count, err := strconv.Atoi(strings.TrimPrefix(line, "counted "))
	if err != nil {
		w.t.Fatalf("inject said %q", line)
	}
	return count
}

// fail lets one write of a run fail, ends that run, and goes on without faults.
func (w *everyWrite) fail(at int, fault string) {
	w.t.Helper()
	lines := w.start(at, fault)
	loads := w.load()
	var struck string
	for more, late := time.NewTicker(200*time.Millisecond), time.After(patience); struck == ""; {
		select {
		case struck = <-lines:
		case <-more.C: // this run writes less than the one that was counted
			loads[0].begin(1)
		case <-late:
			w.t.Fatalf("write %d does not come: %s", at, w.alice.proc.log.tail(2000))
		}
	}
	// A write that fails may end the node, or it goes on, and then rightly.
	eventually(w.t, "alice has ended, or answers", func(ctx context.Context) error {
		if !w.alice.proc.running() {
			return nil
		}
		_, err := w.alice.api.Status(ctx)
		return err
	})
	w.alice.proc.stop()
	w.alice.start()
	w.finish(loads)
	w.alice.proc.stop()
	if w.t.Failed() {
		w.t.Fatalf("after write %d, which %s; run alone: go test -run TestEveryWrite -writes 1 -write %d", at, struck, at)
	}
}
