package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

const crashPath = "STORE_TEST_CRASH_PATH"

// TestMain lets the test binary also be the process that TestCrash kills.
func TestMain(m *testing.M) {
	if path := os.Getenv(crashPath); path != "" {
		writeUntilKilled(path)
	}
	os.Exit(m.Run())
}

// writeUntilKilled writes pairs of rows from several goroutines and prints the
// name of each pair once it is acknowledged.
func writeUntilKilled(path string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx := context.Background()
	db, err := store.Open(ctx, store.Options{Path: path})
	if err != nil {
		fail(err)
	}
	var out sync.Mutex
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("%d.%d", w, n)
				err := db.Write(ctx, func(tx *store.Tx) error {
					if err := put(tx, "a"+name, strings.Repeat("x", 500)); err != nil {
						return err
					}
					return put(tx, "b"+name, "")
				})
				if err != nil {
					fail(err)
				}
				out.Lock()
				fmt.Println(name)
				out.Unlock()
			}
		})
	}
	writers.Wait()
}

// A process that dies at any moment loses nothing it was told is written, and
// leaves no half of a function behind. Its lock dies with it.
func TestCrash(t *testing.T) {
	path := storetest.Path(t)
	var acknowledged []string
	for round := range 3 {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), crashPath+"="+path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			acknowledged = append(acknowledged, lines.Text())
			if n == 100+50*round {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); err == nil || child.ProcessState.ExitCode() == 1 {
			t.Fatalf("the child ended by itself: %v", err)
		}
		db := storetest.Open(t, path)
		have := map[string]bool{}
		for _, name := range names(t, db) {
			have[name] = true
		}
		for _, name := range acknowledged {
			if !have["a"+name] || !have["b"+name] {
				t.Errorf("round %d: %s was acknowledged and is gone", round, name)
			}
		}
		for name := range have {
			if !have["a"+name[1:]] || !have["b"+name[1:]] {
				t.Errorf("round %d: half of %s is there", round, name[1:])
			}
		}
		// The next round's names must be new.
		mustWrite(t, db, func(tx *store.Tx) error {
			_, err := tx.Exec(`DELETE FROM meta WHERE name <> 'schema'`)
			return err
		})
		acknowledged = nil
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
