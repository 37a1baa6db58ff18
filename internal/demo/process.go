package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// process is a child process of this binary. It ends when its standard input
// closes, so it cannot outlive this process, however that ends.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{} // closed when it has ended
	err   error         // why, once it has
	ended bool          // on purpose
}

// stopWithin is how long a child may take to stop by itself.
const stopWithin = 20 * time.Second

// startProcess runs this binary with some arguments. Its log is appended to a
// file; stdout may be nil.
func startProcess(log string, stdout io.Writer, args ...string) (*process, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the own executable to start processes with: %w", err)
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = stdout, out
	// Of its own group: a Ctrl-C in the terminal is for this process alone, which
	// then stops its children in order.
	cmd.SysProcAttr = ownGroup()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s %s: %w", path, strings.Join(args, " "), err)
	}
	p := &process{cmd: cmd, stdin: stdin, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop lets the process end, and ends it if it does not in time.
func (p *process) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	p.ended = true
	err := p.stdin.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	select {
	case <-p.done:
		return err
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("process %d did not stop within %s and was killed", p.pid(), stopWithin)
	}
}

// kill ends the process with SIGKILL and waits until it is gone.
func (p *process) kill() {
	p.ended = true
	// The only error is that it has ended already.
	_ = p.cmd.Process.Kill()
	<-p.done
}
