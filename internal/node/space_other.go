//go:build !linux && !darwin

package node

// freeBytes is not known on this system.
func freeBytes(string) (bytes int64, known bool, err error) { return 0, false, nil }
