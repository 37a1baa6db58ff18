package bundled

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const (
	restartFirst = 200 * time.Millisecond // pause before the first restart; doubles
	restartMost  = 30 * time.Second
	steadyAfter  = time.Minute // a child that ran this long starts with a short pause again
	endWithin    = 15 * time.Second
	logLimit     = 8 << 20 // bytes of the child's log file; one older file is kept
)

// ChildConfig says how to start a validator as a child process.
type ChildConfig struct {
	Path   string   // executable; empty is the running one
	Args   []string // what makes it call Serve, such as "ledger", "run", "--dir", dir
	Env    []string // added to the environment
	Log    string   // file for its log, kept under 16 MiB together with one predecessor
	Logger *slog.Logger
}

// Phase is where a child process is in its life.
type Phase string

const (
	Starting Phase = "starting" // the process runs, JSON-RPC does not answer yet
	Running  Phase = "running"
	Pausing  Phase = "pausing" // it ended by itself and will be started again
	Ended    Phase = "ended"
)

// ChildState is what Supervise tells about its child.
type ChildState struct {
	Phase    Phase
	PID      int       // 0 while there is no process
	Info     Info      // set while Running
	Restarts int       // since Supervise began
	Since    time.Time // of this phase
	Err      error     // why the last process ended, if it did by itself
}

// Supervise keeps a validator running as a child process until ctx ends: it
// starts one, starts it again with growing pauses when it ends, and ends it at
// last, kindly first. changed hears of every change of state, from one
// goroutine, and must return soon.
//
// The child cannot outlive its parent: it ends when the pipe on its standard
// input closes, and on Linux the kernel kills it with its parent as well.
// Supervise returns nil once ctx has ended and the child is gone, or an error if
// no child can be started at all.
func Supervise(ctx context.Context, cfg ChildConfig, changed func(ChildState)) error {
	if cfg.Path == "" {
		path, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own executable to start the ledger with: %w", err)
		}
		cfg.Path = path
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	out, err := openLogFile(cfg.Log, logLimit)
	if err != nil {
		return err
	}
	defer out.Close()

	state := ChildState{}
	tell := func(phase Phase, pid int) {
		state.Phase, state.PID, state.Since = phase, pid, time.Now()
		if phase != Running {
			state.Info = Info{}
		}
		if changed != nil {
			changed(state)
		}
	}
	pause := restartFirst
	for {
		began := time.Now()
		state.Err = runChild(ctx, cfg, out, func(pid int) { tell(Starting, pid) }, func(pid int, info Info) {
			state.Info = info
			log.Info("ledger process runs", "pid", pid, "rpc", info.HTTP, "block", info.Block)
			tell(Running, pid)
		})
		if ctx.Err() != nil {
			tell(Ended, 0)
			return nil
		}
		if time.Since(began) > steadyAfter {
			pause = restartFirst
		}
		log.Error("ledger process ended, starting it again", "err", state.Err, "in", pause, "log", cfg.Log)
		tell(Pausing, 0)
		select {
		case <-ctx.Done():
			tell(Ended, 0)
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, restartMost)
		state.Restarts++
	}
}

// runChild starts the process and returns after it ended, with the reason.
func runChild(ctx context.Context, cfg ChildConfig, out *logFile, started func(pid int), ready func(pid int, info Info)) error {
	// The kernel sends the parent-death signal when the thread that started the
	// child ends, so this goroutine keeps its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.CommandContext(ctx, cfg.Path, cfg.Args...)
	// Two engines' caches make much garbage: a smaller heap costs a few percent
	// of processor time and saves a third of the memory. cfg.Env may overrule it.
	cmd.Env = append(append(os.Environ(), "GOGC=40"), cfg.Env...)
	cmd.Stderr = out
	cmd.SysProcAttr = dieWithParent()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("pipe to the ledger process: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("pipe from the ledger process: %w", err)
	}
	cmd.Cancel, cmd.WaitDelay = stdin.Close, endWithin
	out.forget()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the ledger process: %w", err)
	}
	started(cmd.Process.Pid)
	var info Info
	if err := json.NewDecoder(stdout).Decode(&info); err == nil {
		ready(cmd.Process.Pid, info)
	}
	// Reads until the child ends; nothing more is expected.
	_, drainErr := io.Copy(io.Discard, stdout)
	if err := errors.Join(cmd.Wait(), drainErr); err != nil {
		return fmt.Errorf("%w; its last words: %s", err, out.last())
	}
	return errors.New("the ledger process ended without being asked to")
}

// Serve is Run for the child process of Supervise: it runs until ctx ends or
// stdin closes, and reports on stdout that it is ready. The log belongs on
// standard error.
func Serve(ctx context.Context, cfg Config, stdin io.Reader, stdout io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		if _, err := io.Copy(io.Discard, stdin); err != nil {
			cancel(fmt.Errorf("pipe from the parent process: %w", err))
			return
		}
		cancel(nil)
	}()
	return Run(ctx, cfg, func(info Info) {
		if err := json.NewEncoder(stdout).Encode(info); err != nil {
			cancel(fmt.Errorf("report to the parent process: %w", err))
		}
	})
}

// logFile is a file that is replaced before it exceeds its limit; one older file
// stays beside it with the suffix ".1". It is for one writer.
type logFile struct {
	path  string
	limit int64
	file  *os.File
	size  int64
	tail  []byte // the newest bytes since forget, for error messages
}

func openLogFile(path string, limit int64) (*logFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("folder of the ledger's log: %w", err)
	}
	l := &logFile{path: path, limit: limit}
	return l, l.open()
}

func (l *logFile) open() error {
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the ledger's log: %w", err)
	}
	at, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return errors.Join(fmt.Errorf("open the ledger's log: %w", err), file.Close())
	}
	l.file, l.size = file, at
	return nil
}

func (l *logFile) Write(p []byte) (int, error) {
	const keep = 2048
	l.tail = append(l.tail, p...)
	if len(l.tail) > 2*keep {
		l.tail = append(l.tail[:0], l.tail[len(l.tail)-keep:]...)
	}
	if l.size > 0 && l.size+int64(len(p)) > l.limit {
		if err := l.file.Close(); err != nil {
			return 0, err
		}
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return 0, err
		}
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return n, err
}

func (l *logFile) Close() error { return l.file.Close() }
func (l *logFile) forget()      { l.tail = l.tail[:0] }

// last is the end of what the process wrote, at most a few lines.
func (l *logFile) last() string {
	lines := strings.Split(strings.TrimSpace(string(l.tail)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], " | ")
}
