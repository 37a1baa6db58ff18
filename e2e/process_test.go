package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the parley program under test.
var binary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	binary = os.Getenv("PARLEY")
	if binary == "" {
		dir, err := os.MkdirTemp("", "parley-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "parley")
		build := exec.Command("go", "build", "-o", binary, "./cmd/parley")
		build.Dir = ".."
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build parley: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// process is a running parley. It ends with its test.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *lockedBuffer // standard error
	done chan struct{} // closed when it has ended
	err  error         // why, once it has
}

// start runs parley with some arguments. out gets its standard output; nil adds
// that to the log.
func start(t *testing.T, out func(line []byte), args ...string) *process {
	t.Helper()
	return startProgram(t, out, binary, args...)
}

// startProgram is start for another program, which runs parley in its turn.
func startProgram(t *testing.T, out func(line []byte), program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(program, args...), log: new(lockedBuffer), done: make(chan struct{})}
	p.cmd.Stderr = p.log
	p.cmd.Stdout = p.log
	if out != nil {
		p.cmd.Stdout = &lineWriter{f: out}
	}
	// Kept open until the process ends: a supervised one stops when it closes.
	if _, err := p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		if p.running() {
			p.stop()
		}
		if t.Failed() {
			t.Logf("%v said:\n%s", args, p.log.tail(4000))
		}
	})
	return p
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wait gives the exit code, and fails the test if there is none in time.
func (p *process) wait(within time.Duration) int {
	p.t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.kill()
		p.t.Fatalf("%v has not ended after %s; it said:\n%s", p.cmd.Args[1:], within, p.log.tail(4000))
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		p.t.Fatal(p.err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop asks the process to end, as an operator or a service manager does.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
	p.wait(30 * time.Second)
}

// kill ends the process with SIGKILL: it gets no chance to put anything right.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
	<-p.done
}

// lockedBuffer collects what a process says.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// tail is the end of what was said.
func (l *lockedBuffer) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.b.Bytes()
	return string(b[max(0, len(b)-n):])
}

// lineWriter hands over whole lines.
type lineWriter struct {
	f    func([]byte)
	rest []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		w.f(line)
		w.rest = rest
	}
}
