package bundled

import "syscall"

// dieWithParent has the kernel kill the child when the parent ends, however it
// ends. The chain survives that by design.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
