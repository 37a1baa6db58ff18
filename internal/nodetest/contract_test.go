package nodetest

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/parley-node/parley/internal/abi"
	gateway "github.com/parley-node/parley/internal/contract"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

func sample(name string) *abi.Interface {
	return &abi.Interface{Name: name, Version: "1", Methods: []abi.Method{{Name: "get", Returns: []abi.Param{{Schema: json.RawMessage(`{"details":{"type":"uint256"}}`)}}}}}
}

// verdict waits until a message is judged at the member.
func (m *Member) verdict(id wire.UUID) (state string) {
	m.net.t.Helper()
	m.Until("message "+id.String()+" is judged", func(tx *store.Tx) (bool, error) {
		msg, err := store.Optional(tx.MessageByID(m.Namespace, id))
		if msg != nil {
			state = msg.State
		}
		return state == message.StateConfirmed || state == message.StateRejected, err
	})
	return state
}

// TestPublishedContracts: an interface and an API become known to all; of two of
// one name the first counts, at every member; a name that is taken only locally
// gets a number. The check at the end of the test replays all of it.
func TestPublishedContracts(t *testing.T) {
	net := Network(t, 3)
	a, b, c := net.Members[0], net.Members[1], net.Members[2]
	ctx := context.Background()
	_, err := c.Contracts.CreateInterface(ctx, sample("store"), false) // its own, of the same name
	must(t, err)

	first, err := a.Contracts.CreateInterface(ctx, sample("store"), true)
	must(t, err)
	second, err := b.Contracts.CreateInterface(ctx, sample("store"), true) // crosses the first
	must(t, err)
	winner, loser := first, second
	if a.verdict(*first.Message) == message.StateRejected {
		winner, loser = second, first
	}
	for _, m := range net.Members {
		if got := m.verdict(*winner.Message) + m.verdict(*loser.Message); got != message.StateConfirmed+message.StateRejected {
			t.Errorf("%s judges %s", m.Name, got)
		}
		row, err := m.Contracts.Interface(ctx, store.InterfaceRef{ID: winner.ID})
		must(t, err)
		name := "store"
		if m == c || m == a && winner == second || m == b && winner == first {
			name = "store-1"
		}
		if !row.Published || row.NetworkName != "store" || row.Name != name {
			t.Errorf("%s has the interface as %+v, want the name %s", m.Name, row, name)
		}
	}

	api, err := b.Contracts.CreateAPI(ctx, gateway.APIInput{Name: "it", NetworkName: "shared", Interface: store.InterfaceRef{ID: winner.ID}, Location: json.RawMessage(`{"address":"0x00000000000000000000000000000000000000AA"}`)}, true)
	must(t, err)
	for _, m := range net.Members {
		if got := m.verdict(*api.Message); got != message.StateConfirmed {
			t.Errorf("%s judges the API as %s", m.Name, got)
		}
		name := "shared"
		if m == b {
			name = "it"
		}
		got, err := m.Contracts.API(ctx, name)
		must(t, err)
		if !got.Published || got.NetworkName != "shared" || string(got.Location) != `{"address":"0x00000000000000000000000000000000000000aa"}` {
			t.Errorf("%s has the API as %+v", m.Name, got)
		}
	}
	if err := b.Contracts.DeleteAPI(ctx, "it"); err == nil {
		t.Error("a published API can be deleted")
	}
	// An API of an interface that nobody published is refused where it is made.
	own, err := c.Contracts.Interface(ctx, store.InterfaceRef{Name: "store", Version: "1"})
	must(t, err)
	if own.Published {
		return
	}
	if _, err := c.Contracts.CreateAPI(ctx, gateway.APIInput{Name: "mine", Interface: store.InterfaceRef{ID: &own.ID}}, true); err == nil {
		t.Error("an API of an unpublished interface can be published")
	}
}
