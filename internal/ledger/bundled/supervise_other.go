//go:build !linux

package bundled

import "syscall"

// dieWithParent has no counterpart here; the child notices the closed pipe.
func dieWithParent() *syscall.SysProcAttr { return nil }
