package nodetest

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// What a member serves as a remnant is believed only with receipts that prove
// what it says about the data that is gone. A lie is an incident, and the entry
// waits for a member that tells the truth.
func TestRemnantThatLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := retained(t, 4, message.RequestsAccept)
		a, liar, late := net.Members[0], net.Members[1], net.Members[3]
		late.Stop()
		id := a.Broadcast(secret, "t").Header.ID
		net.agree("t", []wire.UUID{id}, net.Members[:3]...)
		a.erase(id)
		for _, m := range net.Members[:3] {
			m.erased(id)
		}
		liar.Stop()
		honest := liar.forgeRemnant(id, func(r *wire.Remnant) {
			// Another author's data would be wrong, says the liar, and signs it.
			r.Faults = []uint32{0}
			said, err := wire.FaultsHash(r.Faults)
			must(t, err)
			own := r.Receipts[0]
			own.Org, own.Faults = liar.Org, said
			digest, err := own.Digest()
			must(t, err)
			own.Signature, err = liar.keys.Sign(t.Context(), liar.Key, digest, "test")
			must(t, err)
			r.Receipts = []wire.Receipt{own}
		})
		liar.Start()
		for _, m := range []*Member{a, net.Members[2]} {
			net.Exchange.Cut(m.Name, late.Name)
		}
		late.Start()
		if text := late.incident("bad_payload"); !strings.Contains(text, "do not prove") {
			t.Errorf("the incident says %q", text)
		}
		late.without("t")
		for _, m := range []*Member{a, net.Members[2]} {
			net.Exchange.Heal(m.Name, late.Name)
		}
		net.agree("t", []wire.UUID{id}, net.Members...)
		liar.Stop()
		honest()
		liar.Start()
	})
}

// forgeRemnant alters the remnant that a stopped member has of a message's batch;
// what it returns puts the true one back.
func (m *Member) forgeRemnant(id wire.UUID, change func(*wire.Remnant)) (undo func()) {
	t := m.net.t
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: m.Path})
	must(t, err)
	var before *store.BatchRow
	must(t, db.Write(t.Context(), func(tx *store.Tx) error {
		msg, err := tx.MessageByID("default", id)
		if err != nil {
			return err
		}
		if before, err = tx.BatchByRoot(msg.Org, *msg.Root); err != nil {
			return err
		}
		epoch, err := tx.CurrentEpoch(msg.Audience)
		if err != nil {
			return err
		}
		keys := epoch.Secret.Keys()
		var env wire.Envelope
		if err := wire.Unmarshal(before.Envelope, &env); err != nil {
			return err
		}
		plain, err := keys.OpenPayload(env.Author, env.Root, env.Sealed)
		if err != nil {
			return err
		}
		r, err := wire.DecodeRemnant(plain)
		if err != nil {
			return err
		}
		change(r)
		if plain, err = r.Encode(); err != nil {
			return err
		}
		if env.Sealed, err = keys.SealPayload(env.Author, env.Root, plain); err != nil {
			return err
		}
		forged, err := wire.Marshal(env)
		if err != nil {
			return err
		}
		return tx.EraseBatch(before.Org, before.Root, forged, *before.Erased)
	}))
	must(t, db.Close())
	return func() {
		db, err := store.Open(t.Context(), store.Options{Path: m.Path})
		must(t, err)
		must(t, db.Write(t.Context(), func(tx *store.Tx) error {
			return tx.EraseBatch(before.Org, before.Root, before.Envelope, *before.Erased)
		}))
		must(t, db.Close())
	}
}
