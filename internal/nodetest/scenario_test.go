package nodetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/parley-node/parley/wire"
)

// Both a broadcast and a private message reach whom they are for, confirmed,
// in one order; an outsider to the group has neither the message nor the data.
func TestBroadcastAndPrivate(t *testing.T) {
	net := Network(t, 4)
	hospital, a, b := net.Members[0], net.Members[1], net.Members[2]
	news := hospital.Broadcast(`{"price":10}`, "prices")
	for _, m := range net.Members {
		m.Confirmed(news.Header.ID)
	}
	secret := a.Private(`{"patient":"P-1"}`, []*Member{hospital}, "claims")
	for _, m := range []*Member{a, hospital} {
		m.Confirmed(secret.Header.ID)
	}
	after := b.Broadcast(`{"done":true}`, "prices")
	b.Confirmed(after.Header.ID)
	if got := b.Order("claims"); len(got) != 0 {
		t.Fatalf("insurer-b has events of a private topic: %v", got)
	}
}

// Two members write to one topic at once; all see one order, with every message
// once.
func TestOneOrderForAll(t *testing.T) {
	net := Network(t, 4)
	const each = 20
	var sent []wire.UUID
	for i := range each {
		for _, m := range net.Members[:2] {
			sent = append(sent, m.Broadcast(fmt.Sprintf(`{"i":%d}`, i), "busy").Header.ID)
		}
	}
	for _, m := range net.Members {
		for _, id := range sent {
			m.Confirmed(id)
		}
	}
	want := net.Members[0].Order("busy")
	if len(want) != len(sent) {
		t.Fatalf("%d messages in the order, %d were sent", len(want), len(sent))
	}
	for _, m := range net.Members[1:] {
		if got := m.Order("busy"); !slices.Equal(got, want) {
			t.Errorf("%s has another order:\n%v\n%v", m.Name, got, want)
		}
	}
}
