package nodetest

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// lie is a batch that an honest node would not make, and what its author does
// with it.
type lie struct {
	topics  []string            // of its messages; one message per element
	change  func(b *wire.Batch) // before it is sealed
	pinned  []string            // topics that the pin names; those of the messages if nil
	author  *Member
	holders []*Member // whom it is given to
}

// tell sends and pins the lie in the author's name, whose node is down. It
// returns the root.
func (l *lie) tell(t *testing.T) wire.Hash {
	t.Helper()
	m, net := l.author, l.author.net
	var keys wire.Keys
	var n uint64
	db, err := store.Open(context.Background(), store.Options{Path: m.Path})
	must(t, err)
	must(t, db.Write(t.Context(), func(tx *store.Tx) error {
		e, err := tx.CurrentEpoch(net.ID())
		if err != nil {
			return err
		}
		keys = e.Secret.Keys()
		if n, err = tx.NextNumber(net.ID(), e.Epoch, m.Key); err != nil {
			return err
		}
		return tx.TakeNumber(net.ID(), e.Epoch, m.Key, n)
	}))
	must(t, db.Close())
	salt := wire.Hash{1}
	b := &wire.Batch{Header: wire.BatchHeader{
		Version: wire.Version, Network: net.ID(), Author: m.Org, AuthorName: m.Name, AuthorSalt: m.self.Salt, Node: m.self.Node,
		Audience: net.ID(), Epoch: 1, ID: uuid.Must(uuid.NewV7()), Created: 1, Salt: salt,
	}}
	for i, topic := range l.topics {
		item := wire.DataItem{ID: uuid.Must(uuid.NewV7()), Seed: salt, Validator: "json", Value: []byte(`{"n":1}`)}
		b.Data = append(b.Data, item)
		b.Messages = append(b.Messages, wire.Message{
			Header: wire.MessageHeader{ID: uuid.Must(uuid.NewV7()), Type: "broadcast", Author: m.self.DID(), Key: m.Key.String(), Created: 1, Topics: []string{topic}, Salt: salt},
			Data:   []uint32{uint32(i)},
		})
	}
	if l.change != nil {
		l.change(b)
	}
	for i := range b.Messages {
		b.Messages[i].Header.Data = nil
		for _, at := range b.Messages[i].Data {
			commitment, err := b.Data[at].Commitment()
			must(t, err)
			b.Messages[i].Header.Data = append(b.Messages[i].Header.Data, commitment)
		}
	}
	root, err := b.Root()
	must(t, err)
	plain, err := b.Encode()
	must(t, err)
	sealed, err := keys.SealPayload(m.Org, root, plain)
	must(t, err)
	env, err := wire.Marshal(wire.Envelope{Author: m.Org, Audience: net.ID(), Epoch: 1, Root: root, Sealed: sealed})
	must(t, err)
	mouth := net.Exchange.Connect(m.Name, m.cert)
	for _, h := range l.holders {
		_, err := mouth.Send(t.Context(), h.peer(), "payload", env)
		must(t, err)
	}
	pin := wire.Pin{Root: root, Tag: keys.PinTag(m.Key, n)}
	contexts := b.Contexts(keys)
	if l.pinned != nil {
		contexts = nil
		for _, topic := range l.pinned {
			contexts = append(contexts, keys.Context(topic))
		}
	}
	for i, c := range contexts {
		pin.Handles = append(pin.Handles, keys.MaskHandle(m.Key, n, root, i, c))
	}
	state, err := m.Ledger.State(t.Context(), &m.Key)
	must(t, err)
	tx, err := m.Ledger.Sign(t.Context(), m.Key, state.Nonce, 0, ledger.PinCall{Pin: pin})
	must(t, err)
	must(t, m.Ledger.Send(t.Context(), tx))
	return root
}

// Batches that an honest node would not make are rejected by every member, for
// the same reason, and what comes after them goes on. Their author's own node,
// which does not know of them, agrees when it is back.
func TestLyingAuthors(t *testing.T) {
	for name, c := range map[string]struct {
		lie    lie
		reason string
	}{
		"a value that violates its schema": {lie{topics: []string{"t"}, change: func(b *wire.Batch) {
			d := wire.Definition{Kind: "datatype", Body: []byte(`{"type":"array"}`)}
			b.Definitions = append(b.Definitions, d)
			b.Data[0].Datatype = &wire.DatatypeRef{Name: "list", Version: "1", Hash: d.Hash()}
		}}, "does not conform to datatype list version 1"},
		"contexts that the pin does not name": {lie{topics: []string{"t"}, pinned: []string{"other"}}, "which the pin does not name"},
		"another's key":                       {lie{topics: []string{"t"}, change: func(b *wire.Batch) { b.Messages[0].Header.Key = wire.Address{9}.String() }}, "names the key"},
		"another's name":                      {lie{topics: []string{"t"}, change: func(b *wire.Batch) { b.Messages[0].Header.Author = "did:firefly:org/insurer-a" }}, "is no identity of the organisation"},
		"an identity that nobody claimed":     {lie{topics: []string{"t"}, change: func(b *wire.Batch) { b.Messages[0].Header.Author = "did:firefly:nobody" }}, "was not claimed before"},
		"another's custom identity":           {lie{topics: []string{"t"}, change: func(b *wire.Batch) { b.Messages[0].Header.Author = "did:firefly:ward" }}, "is an identity of another organisation"},
		"a private message to the network":    {lie{topics: []string{"t"}, change: func(b *wire.Batch) { b.Messages[0].Header.Type = "private" }}, "does not belong to the network"},
		"a definition outside its topic":      {lie{topics: []string{"t"}, change: func(b *wire.Batch) { b.Messages[0].Header.Type = "definition" }}, "is for definitions"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := Network(t, 3)
				net.Members[1].claim("ward", net.Members[1].Key)
				net.Members[2].knows("ward")
				net.Quiet()
				c.lie.author, c.lie.holders = net.Members[0], net.Members[1:]
				c.lie.author.Stop()
				root := c.lie.tell(t)
				after := net.Members[1].Broadcast(`1`, "t").Header.ID
				c.lie.author.Start()
				for _, m := range net.Members {
					m.Confirmed(after)
				}
				net.Quiet()
				for _, m := range net.Members {
					must(t, m.DB.Read(t.Context(), func(tx *store.Tx) error {
						messages, err := tx.MessagesOfBatch(root, c.lie.author.Org)
						for _, msg := range messages {
							if msg.State != "rejected" || !strings.Contains(msg.RejectReason, c.reason) {
								t.Errorf("%s: the message is %s because %q, want rejected because it %s", m.Name, msg.State, msg.RejectReason, c.reason)
							}
						}
						if len(messages) != 1 {
							t.Errorf("%s has %d messages of the batch", m.Name, len(messages))
						}
						return err
					}))
				}
			})
		})
	}
}
