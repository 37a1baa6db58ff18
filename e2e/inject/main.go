//go:build linux && amd64

// Command inject runs a program and lets one of its writes to a folder fail, or
// kills it there. It stands between the program and the kernel (ptrace), so that
// what is tested is the real binary on a real file system.
//
//	inject --dir folder [--at n] [--fault kill] -- program args...
//
// Counted are the calls of all threads that change files below the folder:
// writes, syncs, truncations, renames, removals. When the n-th comes, a line
// "struck <fault> at <call> <file>" goes to standard output; at the end a line
// "counted <n>". SIGTERM is passed on; the program's exit code is inject's.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// fault is what happens to the chosen call. Each comes twice: the call had no
// effect, or it had its effect and nobody learned of it.
type fault struct {
	kill  bool
	after bool // the call takes effect first
	errno syscall.Errno
}

var faults = map[string]fault{
	"kill":         {kill: true},
	"kill-after":   {kill: true, after: true},
	"EIO":          {errno: syscall.EIO},
	"EIO-after":    {errno: syscall.EIO, after: true},
	"ENOSPC":       {errno: syscall.ENOSPC},
	"ENOSPC-after": {errno: syscall.ENOSPC, after: true},
}

// call is a system call that changes files: by the descriptor in its first
// argument, or by the path in one of them.
type call struct {
	name string
	path int // index of the argument that points to a path; -1: the first is a descriptor
}

var calls = map[uint64]call{
	unix.SYS_WRITE: {"write", -1}, unix.SYS_WRITEV: {"writev", -1}, unix.SYS_PWRITE64: {"pwrite", -1},
	unix.SYS_PWRITEV: {"pwritev", -1}, unix.SYS_PWRITEV2: {"pwritev2", -1}, unix.SYS_FALLOCATE: {"fallocate", -1},
	unix.SYS_FSYNC: {"fsync", -1}, unix.SYS_FDATASYNC: {"fdatasync", -1}, unix.SYS_FTRUNCATE: {"ftruncate", -1},
	unix.SYS_RENAME: {"rename", 0}, unix.SYS_RENAMEAT: {"renameat", 1}, unix.SYS_RENAMEAT2: {"renameat2", 1},
	unix.SYS_UNLINK: {"unlink", 0}, unix.SYS_UNLINKAT: {"unlinkat", 1}, unix.SYS_LINK: {"link", 0}, unix.SYS_LINKAT: {"linkat", 1},
	unix.SYS_MKDIR: {"mkdir", 0}, unix.SYS_MKDIRAT: {"mkdirat", 1}, unix.SYS_TRUNCATE: {"truncate", 0},
}

func main() {
	dir := flag.String("dir", "", "folder whose files count")
	at := flag.Int("at", 0, "which call fails, from 1; 0 only counts")
	name := flag.String("fault", "kill", "kill, EIO, ENOSPC, or one of these with -after")
	flag.Parse()
	f, ok := faults[*name]
	if !ok || *dir == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	t := &tracer{dir: *dir + "/", at: *at, name: *name, fault: f, threads: map[int]*thread{}}
	code, err := t.run(flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "inject:", err)
		os.Exit(125)
	}
	fmt.Println("counted", t.count)
	os.Exit(code)
}

type tracer struct {
	dir, name string
	at, count int
	fault     fault
	threads   map[int]*thread
}

// thread is where a thread of the program stands.
type thread struct {
	inside bool // between the entry of a call and its exit
	struck bool // the call that it is in gets the fault
}

// run starts the program and follows it to its end. All requests to the kernel
// about a traced program must come from one thread.
func (t *tracer) run(args []string) (code int, err error) {
	runtime.LockOSThread()
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	p, err := os.StartProcess(path, args, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stderr, os.Stderr}, // standard output is for inject's own lines
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return 0, err
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(p.Pid, &ws, 0, nil); err != nil {
		return 0, err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK |
		unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	if err := syscall.PtraceSetOptions(p.Pid, options); err != nil {
		return 0, fmt.Errorf("set options: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for s := range stop {
			_ = p.Signal(s) // it may have ended meanwhile
		}
	}()
	t.threads[p.Pid] = new(thread)
	next := []int{p.Pid, 0} // whom to let go on, with which signal
	for {
		if err := syscall.PtraceSyscall(next[0], next[1]); err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, fmt.Errorf("go on: %w", err)
		}
		for {
			tid, err := syscall.Wait4(-1, &ws, syscall.WALL, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil {
				return 0, fmt.Errorf("wait: %w", err)
			}
			if ws.Stopped() {
				sig, err := t.stopped(tid, p.Pid, ws)
				if err != nil && !errors.Is(err, syscall.ESRCH) { // killed while it was stopped
					return 0, err
				}
				next = []int{tid, int(sig)}
				break
			}
			delete(t.threads, tid)
			if tid == p.Pid {
				if ws.Signaled() {
					return 128 + int(ws.Signal()), nil
				}
				return ws.ExitStatus(), nil
			}
		}
	}
}

// stopped handles one stop of a thread and tells which signal it is to get.
func (t *tracer) stopped(tid, pid int, ws syscall.WaitStatus) (syscall.Signal, error) {
	th := t.threads[tid]
	if th == nil { // a new one stops before it runs
		t.threads[tid] = new(thread)
		if ws.StopSignal() == syscall.SIGSTOP {
			return 0, nil
		}
		th = t.threads[tid]
	}
	switch sig := ws.StopSignal(); {
	case sig == syscall.SIGTRAP|0x80:
		th.inside = !th.inside
		if th.inside {
			return 0, t.enter(tid, pid, th)
		}
		return 0, t.leave(tid, pid, th)
	case sig == syscall.SIGTRAP && ws.TrapCause() > 0:
		return 0, nil // a clone, whose child is followed too, or another program
	default:
		return sig, nil
	}
}

// enter is called before a system call.
func (t *tracer) enter(tid, pid int, th *thread) error {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	c, ok := calls[regs.Orig_rax]
	if !ok {
		return nil
	}
	file, err := t.file(tid, c, []uint64{regs.Rdi, regs.Rsi})
	if err != nil || !strings.HasPrefix(file, t.dir) {
		return err
	}
	if t.count++; t.count != t.at {
		return nil
	}
	fmt.Println("struck", t.name, "at", c.name, strings.TrimPrefix(file, t.dir))
	if t.fault.kill && !t.fault.after {
		return syscall.Kill(pid, syscall.SIGKILL)
	}
	th.struck = true
	if !t.fault.after {
		regs.Orig_rax = ^uint64(0) // no such call: nothing happens
		return syscall.PtraceSetRegs(tid, &regs)
	}
	return nil
}

// leave is called after a system call.
func (t *tracer) leave(tid, pid int, th *thread) error {
	if !th.struck {
		return nil
	}
	th.struck = false
	if t.fault.kill {
		return syscall.Kill(pid, syscall.SIGKILL)
	}
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	regs.Rax = uint64(-int64(t.fault.errno))
	return syscall.PtraceSetRegs(tid, &regs)
}

// file is the file that a call changes.
func (t *tracer) file(tid int, c call, args []uint64) (string, error) {
	if c.path < 0 {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, int32(args[0])))
		if errors.Is(err, os.ErrNotExist) {
			return "", nil // no open descriptor: the call fails by itself
		}
		return name, err
	}
	text := make([]byte, 4096)
	n, err := syscall.PtracePeekData(tid, uintptr(args[c.path]), text)
	if n == 0 && err != nil {
		return "", err
	}
	end := slices.Index(text[:n], 0)
	return string(text[:max(end, 0)]), nil
}
