//go:build linux || darwin

package node

import (
	"fmt"
	"syscall"
)

// freeBytes is what a user without privileges may still write to the volume of a
// folder.
func freeBytes(folder string) (bytes int64, known bool, err error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(folder, &fs); err != nil {
		return 0, false, fmt.Errorf("free space of %s: %w", folder, err)
	}
	return int64(fs.Bavail) * int64(fs.Bsize), true, nil
}
