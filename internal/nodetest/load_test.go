package nodetest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/wire"
)

// Two members send each other a thousand messages each, as fast as several
// posters can, while a third broadcasts. Every message is confirmed once at both
// ends, in one order.
func TestTwoThousandBothWays(t *testing.T) {
	net := Network(t, 3)
	a, b, c := net.Members[0], net.Members[1], net.Members[2]
	const each, posters = 1000, 10
	var mu sync.Mutex
	var sent, news []wire.UUID
	var done sync.WaitGroup
	send := func(m *Member, to *Member, n int) {
		done.Go(func() {
			for i := range n {
				in := input(fmt.Sprintf(`{"n":%d}`, i), "busy")
				in.Group = &message.GroupInput{Members: []message.MemberInput{{Identity: to.Name}}}
				msg, err := m.Messages.Private(context.Background(), in)
				if err != nil {
					t.Errorf("%s: %v", m.Name, err)
					return
				}
				mu.Lock()
				sent = append(sent, msg.Header.ID)
				mu.Unlock()
			}
		})
	}
	first := a.Private(`"the group is made"`, []*Member{b}, "busy")
	b.Confirmed(first.Header.ID)
	sent = append(sent, first.Header.ID)
	for range posters {
		send(a, b, each/posters)
		send(b, a, each/posters)
	}
	for i := range 50 {
		news = append(news, c.Broadcast(fmt.Sprint(i), "news").Header.ID)
	}
	done.Wait()
	net.Quiet()
	net.agree("busy", sent, a, b)
	net.agree("news", news, net.Members...)
	c.without("busy")
}
