package e2e

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy stands between a node and the server that a URL names. It gives the URL
// of the same through it; cut ends all connections and refuses new ones until
// heal.
func proxy(t *testing.T, to string) (address string, cut, heal func()) {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	target := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	broken := false
	enter := func(c net.Conn) bool {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			c.Close()
			return false
		}
		open[c] = true
		return true
	}
	leave := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		delete(open, c)
		c.Close()
	}
	var running sync.WaitGroup
	serve := func(c net.Conn) {
		defer leave(c)
		s, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer leave(s)
		if !enter(s) {
			return
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(s, c) // an end of either side ends both
			s.Close()
		}()
		_, _ = io.Copy(c, s)
		c.Close()
		<-done
	}
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if enter(c) {
				running.Go(func() { serve(c) })
			}
		}
	})
	cut = func() {
		mu.Lock()
		defer mu.Unlock()
		broken = true
		for c := range open {
			c.Close()
		}
	}
	heal = func() {
		mu.Lock()
		defer mu.Unlock()
		broken = false
	}
	t.Cleanup(func() {
		l.Close()
		cut()
		running.Wait()
	})
	u.Host = l.Addr().String()
	return u.String(), cut, heal
}
