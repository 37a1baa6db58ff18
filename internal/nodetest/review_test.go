package nodetest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/wire"
)

// On a ledger that was idle for longer than receipts are valid, every receipt
// that was given before a pin is too old. Members give new ones.
func TestReceiptsThatAreTooOldAreRenewed(t *testing.T) {
	params := ledger.DefaultParams
	params.ReceiptAge = 1
	net := New(t, Options{Members: 3, Params: params, Tick: 10 * time.Millisecond})
	net.Ready()
	msg := net.Members[0].Broadcast(`"late"`, "idle")
	for _, m := range net.Members {
		m.Confirmed(msg.Header.ID)
	}
}

// Unpinned messages arrive in the order in which they were sent, between pinned
// ones of the same group.
func TestUnpinnedInOrder(t *testing.T) {
	net := Network(t, 3)
	from, to := net.Members[0], net.Members[1]
	var want []wire.UUID
	for i := range 6 {
		in := message.Input{
			Header: message.Header{Topics: []string{"quick"}, TxType: message.TxUnpinned},
			Data:   []message.DataInput{{Value: fmt.Appendf(nil, `{"i":%d}`, i)}},
			Group:  &message.GroupInput{Members: []message.MemberInput{{Identity: to.Name}}},
		}
		if i == 3 {
			in.Header.Topics, in.Header.TxType = []string{"slow"}, ""
		}
		msg, err := from.Messages.Private(context.Background(), in)
		must(t, err)
		to.Confirmed(msg.Header.ID)
		if i != 3 {
			want = append(want, msg.Header.ID)
		}
	}
	if got := to.Order("quick"); !slices.Equal(got, want) {
		t.Fatalf("received in another order:\n%v\n%v", got, want)
	}
}
