package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// command runs parley to its end and gives what it said.
func command(t *testing.T, args ...string) string {
	t.Helper()
	p := start(t, nil, args...)
	if code := p.wait(patience); code != 0 {
		t.Fatalf("parley %v ended with %d:\n%s", args, code, p.log.tail(4000))
	}
	return p.log.tail(4000)
}

// TestBackupAndRestore: a backup is made under load. Its member loses everything
// after that, goes back to it, and comes back right by itself: with what it had
// sent and received since, and able to go on.
func TestBackupAndRestore(t *testing.T) {
	n := found(t, nil, "alice", "bob", "carol")
	alice, bob := n.members[0], n.members[1]
	out, in := newLoad(t, alice, bob, "orders"), newLoad(t, bob, alice, "answers")
	out.blobs = true
	out.more(20)
	in.more(20)
	backup := filepath.Join(t.TempDir(), "backup")
	out.begin(20)
	if said := command(t, "backup", "--dir", alice.config.Dir, backup); !strings.Contains(said, "record") {
		t.Errorf("parley backup said %q", said)
	}
	out.more(20)
	in.more(20)
	allConfirmed(t, []*member{alice, bob}, "orders", out.ids())
	allConfirmed(t, []*member{alice, bob}, "answers", in.ids())
	alice.proc.kill()
	if err := os.Rename(alice.config.Dir, alice.config.Dir+".lost"); err != nil {
		t.Fatal(err)
	}
	command(t, "restore", "--dir", alice.config.Dir, backup)
	second := start(t, nil, "restore", "--dir", alice.config.Dir, backup)
	if code := second.wait(patience); code == 0 || !strings.Contains(second.log.tail(1000), "overwrites nothing") {
		t.Errorf("a restore over a folder ended with %d: %s", code, second.log.tail(1000))
	}
	alice.start()
	allConfirmed(t, []*member{alice, bob}, "orders", out.ids())
	allConfirmed(t, []*member{alice, bob}, "answers", in.ids())
	out.more(10)
	in.more(10)
	allConfirmed(t, []*member{alice, bob}, "orders", out.ids())
	allConfirmed(t, []*member{alice, bob}, "answers", in.ids())
	command(t, "check", "--dir", alice.config.Dir, "--ledger")
}

// TestDatabaseGoneAndBack: the database server is out of reach for a while, under
// load. The node answers with errors meanwhile, and goes on by itself.
func TestDatabaseGoneAndBack(t *testing.T) {
	server := server(t)
	if server == "" {
		return
	}
	n := prepare(t, nil, "alice", "bob")
	alice, bob := n.members[0], n.members[1]
	address, cut, heal := proxy(t, database(t, server, "gone"))
	alice.config.Database = address
	text, err := alice.config.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(alice.config.Dir, "parley.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	alice.start()
	bob.start()
	n.deploy()
	alice.ready(2)
	bob.ready(2)
	out, in := newLoad(t, alice, bob, "orders"), newLoad(t, bob, alice, "answers")
	for range 2 {
		out.more(20)
		in.more(20)
		cut()
		out.begin(10)
		in.begin(10)
		eventually(t, "a request is answered with an error", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			if _, err := alice.api.Messages(ctx, query("limit", "1")); err == nil {
				return fmt.Errorf("it is answered without a database")
			}
			return nil
		})
		heal()
	}
	out.more(10)
	in.more(10)
	allConfirmed(t, n.members, "orders", out.ids())
	allConfirmed(t, n.members, "answers", in.ids())
	if !alice.proc.running() {
		t.Error("the node has ended")
	}
	command(t, "check", "--dir", alice.config.Dir, "--ledger")
}
