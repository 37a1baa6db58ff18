package demo

import (
	"io"
	"net"
	"testing"
	"time"
)

// echoServer answers each byte with the same one.
func echoServer(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

func testRelay(t *testing.T) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := newRelay(l, echoServer(t))
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func dial(t *testing.T, r *relay) net.Conn {
	c, err := net.Dial("tcp", r.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// say sends a text and reads it back.
func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	hear(t, c, text)
}

func hear(t *testing.T, c net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

// One connection is held back while another passes; nothing is lost.
func TestRelayHolds(t *testing.T) {
	r := testRelay(t)
	a, b := dial(t, r), dial(t, r)
	say(t, a, "a1")
	say(t, b, "b1")
	r.hold()
	if _, err := io.WriteString(a, "held back"); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	for held := int64(0); held < int64(len("held back")); { // until the relay has read it
		r.changed.Wait()
		held = 0
		for l := range r.conns {
			held += l.waiting
		}
	}
	r.mu.Unlock()
	if held := r.passOthers(); held != int64(len("held back")) {
		t.Fatalf("%d bytes are held back", held)
	}
	say(t, b, "b2")
	if err := a.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatal("what was to be held back passed")
	}
	if err := a.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	r.release()
	hear(t, a, "held back")
	say(t, a, "a2")
}

func TestRelayRefusesAndDrops(t *testing.T) {
	r := testRelay(t)
	old := dial(t, r)
	say(t, old, "x")
	r.refuseNew()
	fresh := dial(t, r)
	if _, err := fresh.Read(make([]byte, 1)); err == nil {
		t.Fatal("a new connection was accepted")
	}
	say(t, old, "y")
	r.drop()
	if _, err := old.Read(make([]byte, 1)); err == nil {
		t.Fatal("the old connection lives on")
	}
	r.release()
	say(t, dial(t, r), "z")
}
