package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/parley-node/parley/client"
)

// TestKillTheReceiver: a member that is killed in mid-traffic comes back with
// nothing lost and nothing twice, and delays nobody else meanwhile.
func TestKillTheReceiver(t *testing.T) {
	n := found(t, nil, "alice", "bob", "carol")
	alice, bob, carol := n.members[0], n.members[1], n.members[2]
	load := newLoad(t, alice, bob, "orders")
	for range 3 {
		load.more(40)
		bob.proc.kill()
		load.more(20)
		// Carol and Alice still do business.
		if _, err := alice.api.Broadcast(t.Context(), message(t, "news", "while bob is away"), client.Confirm()); err != nil {
			t.Errorf("a broadcast while a member is down: %v", err)
		}
		bob.start()
	}
	load.more(20)
	allConfirmed(t, []*member{alice, bob}, "orders", load.ids())
	if got, err := carol.confirmed(t.Context(), "orders"); err != nil || len(got) != 0 {
		t.Errorf("carol, who is not in the group, has %d events of it (%v)", len(got), err)
	}
}

// TestKillTheSender: what a member acknowledged before it was killed is
// confirmed after it came back. A request without an answer is repeated with
// its idempotency key and counts once.
func TestKillTheSender(t *testing.T) {
	n := found(t, nil, "alice", "bob")
	alice, bob := n.members[0], n.members[1]
	load := newLoad(t, alice, bob, "orders")
	for range 5 {
		load.more(30)
		alice.proc.kill()
		alice.start()
	}
	load.more(10)
	allConfirmed(t, []*member{alice, bob}, "orders", load.ids())
}

// TestKillTheLedger: a ledger that is killed and comes back loses nothing that
// it had confirmed, and the nodes go on by themselves.
func TestKillTheLedger(t *testing.T) {
	n := found(t, nil, "alice", "bob")
	load := newLoad(t, n.members[0], n.members[1], "orders")
	for range 2 {
		load.more(30)
		n.ledger.kill()
		load.more(10) // accepted: they wait for the ledger
		n.startLedger()
	}
	load.more(10)
	allConfirmed(t, n.members, "orders", load.ids())
}

// TestLedgerUnreachableAtStart: a node without its ledger starts, answers, takes
// messages in, and says what it waits for.
func TestLedgerUnreachableAtStart(t *testing.T) {
	n := found(t, nil, "alice", "bob")
	alice, bob := n.members[0], n.members[1]
	load := newLoad(t, alice, bob, "orders")
	load.more(5)
	allConfirmed(t, n.members, "orders", load.ids())
	alice.proc.stop()
	n.ledger.kill()
	alice.start()
	eventually(t, "the node tells that it waits for the ledger", func(ctx context.Context) error {
		state, waiting, err := alice.connection(ctx)
		if err == nil && (state != "waiting" || !strings.Contains(waiting, "ledger")) {
			err = fmt.Errorf("the status says %q, %q", state, waiting)
		}
		return err
	})
	load.more(5)
	n.startLedger()
	allConfirmed(t, n.members, "orders", load.ids())
}

// TestSecondProcess: two processes on one folder would sign two histories.
func TestSecondProcess(t *testing.T) {
	n := found(t, nil, "alice", "bob")
	alice := n.members[0]
	second := start(t, nil, "node", "run", "--dir", alice.config.Dir)
	if code := second.wait(20 * time.Second); code == 0 {
		t.Error("a second process on the same folder ended with 0")
	}
	if said, pid := second.log.tail(2000), fmt.Sprint(alice.proc.cmd.Process.Pid); !strings.Contains(said, pid) {
		t.Errorf("it does not name the first process, %s:\n%s", pid, said)
	}
	if _, err := alice.api.Status(t.Context()); err != nil {
		t.Errorf("the first process has suffered: %v", err)
	}
}

// TestFullDisk: a node whose disk is full accepts nothing that it cannot keep,
// loses nothing that it accepted, and goes on when there is space again.
func TestFullDisk(t *testing.T) {
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatalf("a small file system is needed, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	n := found(t, func(name string) string {
		if name == "alice" {
			return filepath.Join(small, name)
		}
		return filepath.Join(dir, name)
	}, "alice", "bob")
	alice, bob := n.members[0], n.members[1]
	ctx := t.Context()

	filler := filepath.Join(small, "filler")
	if err := os.WriteFile(filler, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	load := newLoad(t, alice, bob, "orders")
	load.more(10)
	fill(t, filler)
	var refused *client.Error
	var accepted []string
	for i := 0; refused == nil; i++ {
		id, err := alice.sendValue(ctx, bob, "orders", fmt.Sprint("full-", i), strings.Repeat("x", 100_000))
		switch {
		case err == nil:
			accepted = append(accepted, id)
		case !errors.As(err, &refused):
			t.Fatalf("the node gave no answer on a full disk: %v", err)
		case i > 1000:
			t.Fatal("the disk does not get full")
		}
	}
	if refused.Status < 500 {
		t.Errorf("a full disk gives status %d (%s), want 5xx", refused.Status, refused.Text)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if !alice.proc.running() {
		t.Log("the node has ended; it is started again")
		alice.start()
	}
	load.more(10)
	allConfirmed(t, n.members, "orders", append(load.ids(), accepted...))
}

// fill writes to a file until the disk is full.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 64<<10); len(chunk) > 0; {
		if _, err := f.Write(chunk); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			chunk = chunk[:len(chunk)/2]
		}
	}
}

// load posts private messages from one member to another, several at a time,
// whatever happens to the nodes. A request that fails is repeated with its
// idempotency key until it is answered.
type load struct {
	t        *testing.T
	from, to *member
	topic    string
	blobs    bool // each message has an attachment
	next     atomic.Int64
	mu       sync.Mutex
	accepted []string
	open     sync.WaitGroup
}

func newLoad(t *testing.T, from, to *member, topic string) *load {
	return &load{t: t, from: from, to: to, topic: topic}
}

// more starts posting further messages and returns when half of them have been
// accepted: the rest is under way when the test goes on.
func (l *load) more(count int) {
	l.t.Helper()
	accepted := l.begin(count)
	for range count / 2 {
		<-accepted
	}
}

// begin starts posting further messages, and tells of each when it is accepted.
func (l *load) begin(count int) (accepted chan struct{}) {
	accepted = make(chan struct{}, count)
	jobs := make(chan struct{}, count)
	for range count {
		jobs <- struct{}{}
	}
	close(jobs)
	for range min(count, 8) {
		l.open.Go(func() {
			for range jobs {
				if err := l.post(); err != nil {
					l.t.Error(err)
				}
				accepted <- struct{}{}
			}
		})
	}
	return accepted
}

func (l *load) post() error {
	key := fmt.Sprintf("%s-%06d", l.topic, l.next.Add(1))
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		id, err := l.send(ctx, key)
		if client.IsDuplicate(err) { // accepted before, and the answer was lost
			id, err = l.find(ctx, key)
		}
		if err == nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.accepted = append(l.accepted, id)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("message %s was not accepted within %s: %w", key, patience, err)
		case <-tick.C:
		}
	}
}

func (l *load) send(ctx context.Context, key string) (string, error) {
	if !l.blobs {
		return l.from.send(ctx, l.to, l.topic, key)
	}
	data, err := l.from.api.UploadBlob(ctx, strings.NewReader(strings.Repeat(key, 5000)), client.BlobUpload{})
	if err != nil {
		return "", err
	}
	return l.from.sendData(ctx, l.to, l.topic, key, client.DataRef{ID: data.ID})
}

// find is the id of the message that has an idempotency key.
func (l *load) find(ctx context.Context, key string) (string, error) {
	found, err := l.from.api.Messages(ctx, query("idempotencykey", key))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d messages have the idempotency key %s", len(found), key)
	}
	return found[0].Header.ID, nil
}

// ids are the accepted messages, once all that were started are.
func (l *load) ids() []string {
	l.open.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.accepted...)
}

func message(t *testing.T, topic, text string) client.NewMessage {
	t.Helper()
	v, err := client.Value(text)
	if err != nil {
		t.Fatal(err)
	}
	return client.NewMessage{Header: client.Header{Topics: []string{topic}}, Data: []client.DataRef{v}}
}
