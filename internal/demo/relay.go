package demo

import (
	"cmp"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
)

// relay stands in front of a member's exchange address and passes bytes on. It
// is how the demonstration disturbs a network from outside: the nodes know
// nothing of it, and see what a bad network looks like.
type relay struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	changed *sync.Cond
	refuse  bool // new connections are closed at once
	holding bool // bytes towards the member wait
	conns   map[*link]struct{}
	closed  bool
	running sync.WaitGroup
}

// link is one connection through the relay.
type link struct {
	in, out net.Conn
	passed  bool  // its bytes pass although the relay holds
	waiting int64 // bytes held back
}

// maxWaiting is how many bytes of one connection the relay takes in before it
// slows the sender down.
const maxWaiting = 8 << 20

// newRelay accepts on a listener and connects to target.
func newRelay(l net.Listener, target string) *relay {
	r := &relay{listener: l, target: target, conns: map[*link]struct{}{}}
	r.changed = sync.NewCond(&r.mu)
	r.running.Go(r.accept)
	return r
}

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		r.mu.Lock()
		refuse := r.refuse || r.closed
		r.mu.Unlock()
		if refuse {
			in.Close()
			continue
		}
		r.running.Go(func() { r.carry(in) })
	}
}

// carry passes bytes both ways until either side ends.
func (r *relay) carry(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", r.target)
	if err != nil {
		return // the member is down: so is the connection
	}
	defer out.Close()
	l := &link{in: in, out: out}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.conns[l] = struct{}{}
	r.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		// How a copy ends does not matter: the connection is over.
		_, _ = io.Copy(in, out)
		in.Close()
	})
	r.forward(l)
	out.Close()
	back.Wait()
	r.mu.Lock()
	delete(r.conns, l)
	r.mu.Unlock()
}

// forward passes bytes on towards the member, and keeps them while they are
// held. It goes on reading meanwhile, so that the sender sees no difference to
// a slow network.
func (r *relay) forward(l *link) {
	var queue [][]byte
	ended := false
	r.running.Go(func() {
		for {
			buf := make([]byte, 32<<10)
			n, err := l.in.Read(buf)
			r.mu.Lock()
			if n > 0 {
				queue = append(queue, buf[:n])
				l.waiting += int64(n)
			}
			ended = ended || err != nil
			r.changed.Broadcast()
			for l.waiting > maxWaiting && !r.closed {
				r.changed.Wait()
			}
			r.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	for {
		r.mu.Lock()
		for !r.closed && !(ended && len(queue) == 0) && (len(queue) == 0 || r.holding && !l.passed) {
			if ended && r.holding {
				break // the sender gave up what was held
			}
			r.changed.Wait()
		}
		if r.closed || len(queue) == 0 || r.holding && !l.passed {
			r.mu.Unlock()
			l.in.Close()
			return
		}
		next := queue[0]
		queue = queue[1:]
		l.waiting -= int64(len(next))
		r.changed.Broadcast()
		r.mu.Unlock()
		if _, err := l.out.Write(next); err != nil {
			l.in.Close()
			return
		}
	}
}

// hold keeps all bytes towards the member from now on.
func (r *relay) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holding = true
	for l := range r.conns {
		l.passed = false
	}
}

// passOthers lets all connections pass again but the one with the most bytes
// held back. It says how many these are; nothing changes if there are none.
func (r *relay) passOthers() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var links []*link
	for l := range r.conns {
		links = append(links, l)
	}
	if len(links) == 0 {
		return 0
	}
	most := slices.MaxFunc(links, func(a, b *link) int { return cmp.Compare(a.waiting, b.waiting) })
	if most.waiting == 0 {
		return 0
	}
	for _, l := range links {
		l.passed = l != most
	}
	r.changed.Broadcast()
	return most.waiting
}

// drop closes all connections.
func (r *relay) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.conns {
		l.in.Close()
		l.out.Close()
	}
}

// release lets everything pass.
func (r *relay) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holding, r.refuse = false, false
	r.changed.Broadcast()
}

// refuseNew closes new connections at once; those that are there go on.
func (r *relay) refuseNew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = true
}

func (r *relay) close() error {
	r.mu.Lock()
	r.closed = true
	for l := range r.conns {
		l.in.Close()
		l.out.Close()
	}
	r.changed.Broadcast()
	r.mu.Unlock()
	err := r.listener.Close()
	r.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}
