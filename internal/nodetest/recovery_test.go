package nodetest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// On a ledger that was idle for longer than receipts are valid, every receipt
// that was given before a pin is too old. Members give new ones.
func TestReceiptsThatAreTooOldAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		params := ledger.DefaultParams
		params.ReceiptAge = 1
		net := New(t, Options{Members: 3, Params: params, Tick: 10 * time.Millisecond})
		net.Ready()
		msg := net.Members[0].Broadcast(`"late"`, "idle")
		for _, m := range net.Members {
			m.Confirmed(msg.Header.ID)
		}
	})
}

// A member that was suspended and resumed takes part again, in the epoch that
// follows the one without it; what it wanted to say meanwhile waits and goes out.
func TestSuspendedMemberComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		ctx := context.Background()
		first, second, out := net.Members[0], net.Members[1], net.Members[2]
		propose := func(p ledger.Proposal, id uint64) {
			t.Helper()
			_, err := first.Messages.Call(ctx, ledger.ProposeCall{Proposal: p})
			must(t, err)
			second.Until("the proposal is open", func(*store.Tx) (bool, error) { return len(second.Network.Status().Proposals) >= int(id), nil })
			_, err = second.Messages.Call(ctx, ledger.VoteCall{ID: id, Approve: true})
			must(t, err)
		}
		epoch := func(n uint64, members ...*Member) {
			t.Helper()
			for _, m := range members {
				m.Until(fmt.Sprintf("epoch %d is current", n), func(tx *store.Tx) (bool, error) {
					e, err := tx.CurrentEpoch(m.Network.ID)
					return e != nil && e.Epoch == n && e.Secret != nil, err
				})
			}
		}
		propose(ledger.Proposal{Suspend: &out.Org}, 1)
		epoch(2, first, second)
		out.Until("it knows that it is suspended", func(*store.Tx) (bool, error) { return !out.Network.Active(out.Org, identity.End), nil })
		meanwhile := out.Broadcast(`"I am still here"`, "news")
		without := first.Broadcast(`"without it"`, "news")
		second.Confirmed(without.Header.ID)
		propose(ledger.Proposal{Resume: &out.Org}, 2)
		epoch(3, first, second, out)
		with := first.Broadcast(`"together again"`, "news")
		for _, m := range net.Members {
			m.Confirmed(with.Header.ID)
			m.Confirmed(meanwhile.Header.ID)
		}
		if slices.Contains(out.Order("news"), without.Header.ID) {
			t.Fatal("the suspended member has a message of the epoch without it")
		}
	})
}

// A key is revoked while pins that it signed wait: the ledger refuses them. Their
// messages go out under the new key, once, and the node signs with that one.
func TestRevokedKeyIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The others keep the payload of the batch that was given up, without a
		// verdict, so the network does not come to rest.
		net := New(t, Options{Members: 3, NoCheck: true})
		net.Ready()
		ctx := context.Background()
		m := net.Members[0]
		fresh, err := m.keys.NewSigningKey()
		must(t, err)
		_, err = m.Messages.Call(ctx, ledger.AddKeyCall{Key: fresh})
		must(t, err)
		m.Until("the new key is valid", func(*store.Tx) (bool, error) {
			return slices.Contains(m.Network.ValidKeys(m.Org, identity.End), fresh), nil
		})
		waits := func(purpose string) func(*store.Tx) (bool, error) {
			return func(tx *store.Tx) (bool, error) {
				signed, err := tx.Submissions(store.SubmissionSigned)
				return slices.ContainsFunc(signed, func(s store.Submission) bool { return s.Purpose == purpose }), err
			}
		}
		net.Chain.Hold()
		_, err = m.Messages.Call(ctx, ledger.RevokeKeyCall{Key: m.Key})
		must(t, err)
		m.Until("the revocation waits", waits("call"))
		before := m.Broadcast(`"signed with the old key"`, "news")
		m.Until("a pin waits behind it", waits("pin"))
		net.Chain.Release()
		after := m.Broadcast(`"signed with the new key"`, "news")
		for _, o := range net.Members {
			for _, id := range []wire.UUID{before.Header.ID, after.Header.ID} {
				if msg := o.Confirmed(id); msg.Header.Key != fresh.String() {
					t.Errorf("%s has message %s under the key %s, want %s", o.Name, id, msg.Header.Key, fresh)
				}
			}
		}
		if got := net.Members[1].Order("news"); len(got) != 2 {
			t.Errorf("%d messages in the order, 2 were sent", len(got))
		}
	})
}
