package nodetest

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// claim announces a custom identity of the member, and does not wait for it.
func (m *Member) claim(name string, key wire.Address) {
	m.net.t.Helper()
	var c *identity.Claim
	must(m.net.t, m.DB.Read(m.net.t.Context(), func(tx *store.Tx) (err error) {
		c, err = identity.NewClaim(tx, m.Namespace, m.Org, m.NewID(), identity.Input{Name: name, Key: key.String()})
		return err
	}))
	_, err := m.Messages.Define(m.net.t.Context(), identity.TagClaim, c)
	must(m.net.t, err)
}

// knows waits until an identity is confirmed at the member.
func (m *Member) knows(name string) {
	m.net.t.Helper()
	m.Until("identity "+name+" is confirmed", func(tx *store.Tx) (bool, error) {
		id, err := identity.Resolve(tx, m.Namespace, name)
		return id != nil, err
	})
}

// addKey gives the member another signing key.
func (m *Member) addKey() wire.Address {
	m.net.t.Helper()
	key, err := m.keys.NewSigningKey()
	must(m.net.t, err)
	_, err = m.Messages.Call(m.net.t.Context(), ledger.AddKeyCall{Key: key})
	must(m.net.t, err)
	m.Until("the new key is valid", func(*store.Tx) (bool, error) {
		owner, ok := m.Network.OrgOf(key, identity.End)
		return ok && owner == m.Org, nil
	})
	return key
}

// A custom identity is the author of messages of all kinds, and its own key
// signs them, until that one is revoked.
func TestCustomAuthor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a, b := net.Members[0], net.Members[1]
		key := a.addKey()
		a.claim("desk", key)
		for _, m := range net.Members {
			m.knows("desk")
		}
		as := message.Header{Author: "desk", Topics: []string{"t"}}
		unpinned := as
		unpinned.TxType = message.TxUnpinned
		broadcast := func() *store.Message {
			msg, err := a.Messages.Broadcast(t.Context(), message.Input{Header: as, Data: []message.DataInput{{Value: []byte(`1`)}}})
			must(t, err)
			return msg
		}
		for _, sent := range []struct {
			msg *store.Message
			to  []*Member
		}{
			{broadcast(), net.Members},
			{a.private(`2`, []*Member{b}, as), []*Member{a, b}},
			{a.private(`3`, []*Member{b}, unpinned), []*Member{a, b}},
		} {
			for _, m := range sent.to {
				if got := m.Confirmed(sent.msg.Header.ID).Header; got.Author != "did:firefly:desk" || got.Key != key.String() {
					t.Errorf("%s has the message by %s with key %s", m.Name, got.Author, got.Key)
				}
			}
		}
		for author, want := range map[string]string{"nobody": "which is no identity known here", "insurer-a": "of another organisation"} {
			if _, err := a.Messages.Broadcast(t.Context(), message.Input{Header: message.Header{Author: author}}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("author %s: %v, want %q", author, err, want)
			}
		}
		other := as
		other.Key = a.Key.String()
		if _, err := a.Messages.Broadcast(t.Context(), message.Input{Header: other}); err == nil || !strings.Contains(err.Error(), "signs for did:firefly:desk") {
			t.Errorf("with another key: %v", err)
		}
		_, err := a.Messages.Call(t.Context(), ledger.RevokeKeyCall{Key: key})
		must(t, err)
		a.Until("the key is revoked", func(*store.Tx) (bool, error) { _, ok := a.Network.OrgOf(key, identity.End); return !ok, nil })
		after := broadcast().Header.ID
		for _, m := range net.Members {
			if got := m.Confirmed(after).Header; got.Author != "did:firefly:desk" || got.Key != a.Key.String() {
				t.Errorf("%s has the message by %s with key %s", m.Name, got.Author, got.Key)
			}
		}
	})
}

// A member to which the claim of an author comes late judges nothing of that
// author before, and everything else; what it waits for is shown.
func TestAuthorWaitsForItsClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 4)
		a, b := net.Members[0], net.Members[1]
		first := a.Private(`0`, []*Member{b}, "u").Header.ID // b has the group's secret
		b.Confirmed(first)
		net.Quiet()
		withheld := true
		net.Exchange.Intercept(func(m local.Message) ([]byte, error) {
			if !withheld || m.To != b.Name || m.Answer && m.Kind != local.KindFetch {
				return m.Body, nil
			}
			var env wire.Envelope
			if m.Kind == local.KindFetch || m.Kind == "payload" && wire.Unmarshal(m.Body, &env) == nil && env.Audience == net.ID() {
				return nil, fmt.Errorf("lost")
			}
			return m.Body, nil
		})
		a.claim("desk", a.Key)
		a.knows("desk")
		as := message.Header{Author: "desk", Topics: []string{"t"}}
		pinned := a.private(`1`, []*Member{b}, as).Header.ID
		a.Confirmed(pinned)
		free := a.Private(`2`, []*Member{b}, "u").Header.ID
		b.Confirmed(free)
		as.TxType, as.Topics = message.TxUnpinned, []string{"v"}
		unpinned := a.private(`3`, []*Member{b}, as).Header.ID
		synctest.Wait()
		b.without("t")
		b.without("v")
		var group wire.Hash
		must(t, b.DB.Read(t.Context(), func(tx *store.Tx) error {
			msg, err := tx.MessageByID(b.Namespace, pinned)
			group = msg.Audience
			return err
		}))
		blockers, err := b.Messages.Blockers(t.Context(), group, "t")
		if err != nil || len(blockers) != 1 || blockers[0].Missing != "definitions" {
			t.Errorf("t waits for %+v, %v; want definitions", blockers, err)
		}
		withheld = false
		b.Confirmed(pinned)
		b.Confirmed(unpinned)
	})
}
