package event

import (
	"testing"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

func (b *bench) rewind(t testing.TB, sub *store.Subscription, sequence int64) {
	t.Helper()
	st, err := b.subs.Rewind(t.Context(), sub.ID, sequence)
	if err != nil {
		t.Fatal(err)
	}
	if st.Status.CurrentOffset != sequence {
		t.Errorf("after it was moved to %d the subscription is at %d", sequence, st.Status.CurrentOffset)
	}
}

// A subscription is moved back while its consumer is connected, with deliveries
// in flight and acknowledgements that are not stored yet: neither makes it jump
// forward again.
func TestRewindOfAConnectedConsumer(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	sub := n.create(t, `{"name":"app","options":{"readAhead":1}}`)
	n.fill(t, 5)
	c := n.dial(t, "/ws?namespace=default&name=app")
	f := c.expect("t0", "t1")
	c.ack(f[0])
	c.ack(f[1])
	f = c.expect("t2", "t3")
	n.rewind(t, sub, 1)
	g := c.expect("t1", "t2")
	if position := n.position(t, sub.ID); position != 1 {
		t.Errorf("the stored position is %d", position)
	}
	c.ack(f[1]) // t3 is not in flight now; it was before, so that this does no harm
	for _, d := range g {
		c.ack(d)
	}
	f = c.expect("t3", "t4")
	for _, d := range f {
		c.ack(d)
	}
	n.until(t, "position 5", func() bool { return n.position(t, sub.ID) == 5 })
	n.rewind(t, sub, -1)
	c.expect("t0", "t1")
	n.rewind(t, sub, 4) // forward
	c.expect("t4")
}

// Without a consumer the stored position moves, and whoever comes begins there.
func TestRewindWithoutAConsumer(t *testing.T) {
	n := newNode(t, WebSocketConfig{})
	sub := n.create(t, `{"name":"app"}`)
	n.fill(t, 4)
	c := n.dial(t, "/ws?namespace=default&name=app&autoack")
	c.expect("t0", "t1", "t2", "t3")
	c.hangUp(n)
	n.rewind(t, sub, 2)
	n.dial(t, "/ws?namespace=default&name=app&autoack").expect("t2", "t3")
	for _, bad := range []int64{-2, 5} {
		if _, err := n.subs.Rewind(t.Context(), sub.ID, bad); errs.Status(err) != 400 {
			t.Errorf("moved to %d: %v", bad, err)
		}
	}
	if _, err := n.subs.Rewind(t.Context(), store.UUID{1}, 0); errs.Status(err) != 404 {
		t.Errorf("a subscription that is not there was moved: %v", err)
	}
}

// A stream whose client says how far it is goes back as well.
func TestRewindOfAStream(t *testing.T) {
	s := newStreaming(t, StreamConfig{})
	sub := s.create(t, `{"name":"app","transport":"sse"}`)
	s.fill(t, 4)
	r := s.open(t, "/subs/app", "")
	r.expect("t0", "t1", "t2", "t3")
	if err := s.subs.Acknowledge(t.Context(), sub.ID, 3); err != nil {
		t.Fatal(err)
	}
	s.rewind(t, sub, 1)
	r.expect("t1", "t2", "t3")
}

// What the node carries itself is carried again from there.
func TestRewindOfAWebhook(t *testing.T) {
	o := newOutward(t, OutboundConfig{Allow: loopback})
	r := newReceiver(t, nil)
	sub := o.hook(r.URL, "")
	o.fill(t, 3)
	for range 3 {
		r.next(t)
	}
	o.until("the position moves", func() bool { return o.position(sub) == 3 })
	// Without a look at the position: the node may have delivered again by then.
	if _, err := o.subs.Rewind(t.Context(), sub.ID, 1); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"t1", "t2"} {
		if got := r.next(t).topic(t); got != want {
			t.Errorf("the topic is %q, want %q", got, want)
		}
	}
}
