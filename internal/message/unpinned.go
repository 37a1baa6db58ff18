package message

import (
	"context"
	"encoding/json"

	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Unpinned batches go to the group's members without a ledger record. Each
// author numbers its own, and each names the one before, so that a receiver
// takes them in order and notices a missing one. They never block a context.
//
// Where a pinned batch is known by its root, an unpinned one is known by the
// digest that its author signed: in the database, in its receipts, and as what
// the next one names. So neither can pass for the other, not even if an author
// sends one batch both ways.

// chain is where an author's unpinned batches of an audience have got to.
type chain struct {
	Sequence uint64    `json:"sequence"`
	Root     wire.Hash `json:"root"` // digest of the last one
}

func chainName(audience wire.Hash, author wire.OrgID) string {
	return store.MetaUnpinned + audience.String() + "/" + author.String()
}

func readChain(tx *store.Tx, audience wire.Hash, author wire.OrgID) (c chain, err error) {
	text, err := tx.Meta(chainName(audience, author))
	if err != nil || text == "" {
		return c, err
	}
	return c, json.Unmarshal([]byte(text), &c)
}

func writeChain(tx *store.Tx, audience wire.Hash, author wire.OrgID, c chain) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return tx.SetMeta(chainName(audience, author), string(text))
}

// commitUnpinned signs and stores an unpinned batch of ours. Its messages are
// confirmed here with it: there is nothing further to wait for.
func (s *Service) commitUnpinned(ctx context.Context, env wire.Envelope, b *wire.Batch, leaves []wire.Hash, sources []source, epoch *store.Epoch) error {
	var last chain
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) { last, err = readChain(tx, env.Audience, s.Self.Org); return err })
	if err != nil {
		return err
	}
	u := wire.Unpinned{Envelope: env, Sequence: last.Sequence + 1, Previous: last.Root}
	digest, err := u.Digest()
	if err != nil {
		return err
	}
	key, err := wire.ParseAddress(b.Messages[0].Header.Key)
	if err != nil {
		return err
	}
	if u.Signature, err = s.Keys.Sign(ctx, key, digest, "unpinned"); err != nil {
		return err
	}
	stored, err := wire.Marshal(u)
	if err != nil {
		return err
	}
	row, err := s.batchRow(env, b, leaves, stored)
	if err != nil {
		return err
	}
	row.Own, row.State, row.Tx.Type, row.Root = true, store.BatchDone, TxUnpinned, digest
	peers := s.others(epoch.Definition.Members)
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.InsertBatch(row); err != nil {
			return err
		}
		if err := s.markSent(tx, sources, row, StateSent); err != nil {
			return err
		}
		if err := tx.InsertTransactions([]*store.Transaction{{ID: *row.Tx.ID, Namespace: s.Namespace, Type: TxUnpinned, Created: row.Since}}); err != nil {
			return err
		}
		var ops []*store.Operation
		for _, p := range peers {
			op := s.operation(row, opSendBatch, "exchange", map[string]string{"peer": p.String(), "batch": row.ID.String()})
			ops = append(ops, op)
			if err := tx.AddParcels(store.Parcel{Peer: p, Kind: kindUnpinned, Root: digest, Org: env.Author, Op: &op.ID, Since: row.Since}); err != nil {
				return err
			}
		}
		if err := tx.InsertOperations(ops); err != nil {
			return err
		}
		rows := make([]*store.Message, len(sources))
		for i := range sources {
			rows[i] = sources[i].row
			rows[i].TxID = row.Tx.ID
		}
		if err := s.confirmUnpinned(tx, rows, row); err != nil {
			return err
		}
		return writeChain(tx, env.Audience, s.Self.Org, chain{u.Sequence, digest})
	})
	if err != nil {
		return err
	}
	s.EventsCommitted()
	s.wakePeers(peers)
	return nil
}

// receiveUnpinned stores and confirms an unpinned batch of a peer, if it is the
// next of its author.
func (s *Service) receiveUnpinned(ctx context.Context, from wire.OrgID, body []byte) ([]byte, error) {
	var u wire.Unpinned
	if err := wire.Unmarshal(body, &u); err != nil {
		return nil, refuse(refusedMalformed, "unpinned batch: %v", err)
	}
	env := u.Envelope
	digest, err := u.Digest()
	if err != nil {
		return nil, err
	}
	signer, err := wire.RecoverAddress(digest, u.Signature)
	if err != nil {
		return nil, refuse(refusedMalformed, "signature: %v", err)
	}
	if org, ok := s.Network.OrgOf(signer, endPosition); !ok || org != env.Author || env.Author != from {
		return nil, refuse(refusedForeign, "the batch is not signed by a valid key of its sender")
	}
	var epoch, current *store.Epoch
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if epoch, err = epochOf(tx, env.Audience, env.Epoch); err != nil {
			return err
		}
		current, err = tx.CurrentEpoch(env.Audience)
		return err
	})
	if err != nil {
		return nil, err
	}
	if epoch == nil {
		return nil, refuse(refusedAudience, "no secret is here for epoch %d of audience %s: send the invitation first", env.Epoch, env.Audience.Short())
	}
	if current != nil && !current.Definition.Has(from) {
		return nil, refuse(refusedForeign, "%s is no member of audience %s any more", from.Short(), env.Audience.Short())
	}
	b, leaves, err := s.openBatch(env, epoch)
	if err != nil {
		s.noteRefusal(ctx, from, kindUnpinned, env.Root, err)
		return nil, err
	}
	for i := range b.Messages {
		if b.Messages[i].Header.Key != signer.String() {
			return nil, refuse(refusedMalformed, "message %s names the key %s, but %s signed the batch", b.Messages[i].Header.ID, b.Messages[i].Header.Key, signer)
		}
	}
	s.blobUse.RLock()
	defer s.blobUse.RUnlock()
	blobs, err := s.fetchBlobs(ctx, b, digest, epoch.Secret.Keys(), from)
	if err != nil {
		return nil, err
	}
	row, err := s.batchRow(env, b, leaves, body)
	if err != nil {
		return nil, err
	}
	row.State, row.Tx.Type, row.Root = store.BatchDone, TxUnpinned, digest
	messages, data, faults, err := s.receivedRows(b, leaves, row, nil)
	if err != nil {
		return nil, err
	}
	receipt, err := s.signReceipt(ctx, env.Author, env.Audience, env.Epoch, digest, faults)
	if err != nil {
		return nil, err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		last, err := readChain(tx, env.Audience, env.Author)
		if err != nil {
			return err
		}
		if u.Sequence <= last.Sequence {
			had, err := tx.BatchByRoot(env.Author, digest)
			if err == nil && had == nil { // a receipt must not be given for what is not here
				err = refuse(refusedSequence, "another batch %d of this author is here: was its database restored?", u.Sequence)
			}
			return err
		}
		if u.Sequence != last.Sequence+1 || u.Previous != last.Root {
			return refuse(refusedSequence, "batch %d follows batch %d of this author here", u.Sequence, last.Sequence)
		}
		if _, err := tx.InsertBatch(row); err != nil {
			return err
		}
		for _, m := range messages {
			m.Header.TxType = TxUnpinned
			had, err := store.Optional(tx.MessageByHash(env.Audience, m.Header.ID, m.Hash))
			if err != nil {
				return err
			}
			if had != nil && m.RejectReason == "" {
				m.RejectReason = "the same message was received before"
			}
			if m.RejectReason == "" && identity.IsCustomDID(m.Header.Author) {
				if m.RejectReason, err = s.refuteUnpinned(tx, m); err != nil {
					return err
				}
			}
		}
		if err := storeReceived(tx, messages, data, blobs, row); err != nil {
			return err
		}
		if err := s.confirmUnpinned(tx, messages, row); err != nil {
			return err
		}
		return writeChain(tx, env.Audience, env.Author, chain{u.Sequence, digest})
	})
	if err != nil {
		return nil, err
	}
	s.EventsCommitted()
	return wire.Marshal(*receipt)
}

// refuteUnpinned says why a message without a place on the ledger cannot be from
// the custom identity that it names. It is put off until that identity's claim is
// here.
func (s *Service) refuteUnpinned(tx *store.Tx, m *store.Message) (string, error) {
	if id, err := store.Optional(tx.IdentityByDID(s.Namespace, m.Header.Author)); err != nil {
		return "", err
	} else if id == nil {
		return "", refuse(refusedIdentity, "the claim of %s is not confirmed here yet", m.Header.Author)
	}
	return s.Network.Refute(tx, s.Namespace, m.Header.Author, m.Org, m.Header.Key, identity.End)
}

// confirmUnpinned confirms or rejects the messages of an unpinned batch.
func (s *Service) confirmUnpinned(tx *store.Tx, messages []*store.Message, row *store.BatchRow) error {
	if err := s.settle(tx, messages, row.Tx.ID); err != nil {
		return err
	}
	return tx.FinishBatch(row.Org, row.Root, s.now())
}

// settle confirms messages that no order decides about, or rejects those that
// have a reason, and tells applications.
func (s *Service) settle(tx *store.Tx, messages []*store.Message, transaction *wire.UUID) error {
	var events []*store.Event
	var confirmed []int64
	now := s.now()
	for _, m := range messages {
		typ := "message_confirmed"
		if m.RejectReason == "" {
			confirmed = append(confirmed, m.Seq)
		} else {
			typ = "message_rejected"
			u := store.MessageUpdate{State: StateRejected, Confirmed: now, RejectReason: m.RejectReason}
			if _, err := tx.SetMessagesState([]int64{m.Seq}, u); err != nil {
				return err
			}
		}
		for _, topic := range m.Header.Topics {
			id := m.Header.ID
			events = append(events, &store.Event{ID: s.NewID(), Type: typ, Namespace: s.Namespace, Reference: &id, Correlator: m.Header.CID, Tx: transaction, Topic: topic, Created: now})
		}
	}
	if err := tx.ConfirmMessages(confirmed, now); err != nil {
		return err
	}
	return tx.InsertEvents(events)
}
