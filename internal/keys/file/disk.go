package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create the keys folder: %w", err)
	}
	return checkMode(dir, true)
}

// checkMode refuses what others on this machine could read or replace.
func checkMode(path string, folder bool) error {
	i, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at the keys: %w", err)
	}
	if i.IsDir() != folder {
		return fmt.Errorf("%s is not what is expected there (folder: %v)", path, i.IsDir())
	}
	if runtime.GOOS == "windows" {
		return nil // access lists, which these bits do not show
	}
	want := fs.FileMode(0o600)
	if folder {
		want = 0o700
	}
	if mode := i.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so other users of this machine can get at private keys; run: chmod %o %s", path, mode, want, path)
	}
	return nil
}

// writeFile replaces a file durably: after a crash there is the old one or the
// new one, whole.
func writeFile(dir, name string, b []byte) error {
	f, err := os.CreateTemp(dir, "."+name+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // folders cannot be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
