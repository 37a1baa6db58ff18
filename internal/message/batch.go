package message

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/uuid"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/trace"
	"github.com/parley-node/parley/wire"
)

// Limits of a batch. Batches adapt to the load by themselves: a message goes at
// once while fewer than maxInFlight batches of its audience are under way, and
// waits for company otherwise.
const (
	maxBatchMessages = 500
	maxBatchBytes    = 1 << 20 // of values, approximately
	maxBatchContexts = 256     // handles of a pin
	maxInFlight      = 4       // batches per audience; well under the window of pin numbers
	readyPage        = 2000
	largeBlob        = 1 << 20 // a batch with a larger one travels alone
)

// BatchStep seals what is ready (T2): messages of one author key and audience,
// in the order they were handed in, become a batch; its parcels for the peers
// are put into the outbox in the same transaction. An audience in which nothing
// can be sealed now does not keep the others from going on, however much waits
// in it.
func (s *Service) BatchStep(ctx context.Context) (more bool, err error) {
	var inFlight map[wire.Hash]int
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) { inFlight, err = tx.InFlight(); return err })
	if err != nil {
		return false, err
	}
	except := full(inFlight)
	for {
		var ready []*store.Message
		err = s.DB.Read(ctx, func(tx *store.Tx) (err error) { ready, err = tx.ReadyMessages(except, readyPage); return err })
		if err != nil {
			return false, err
		}
		sealed, stuck, err := s.sealReady(ctx, ready, inFlight)
		if err != nil || len(ready) < readyPage {
			return false, err
		}
		if len(stuck) == 0 {
			return sealed, nil
		}
		except = append(except, stuck...)
	}
}

// sealReady makes batches of messages, as many as may be in flight. stuck are
// audiences in which it could not.
func (s *Service) sealReady(ctx context.Context, ready []*store.Message, inFlight map[wire.Hash]int) (sealed bool, stuck []wire.Hash, err error) {
	type lane struct {
		audience wire.Hash
		key      string
		unpinned bool
	}
	var lanes []lane
	waiting := map[lane][]*store.Message{}
	for _, m := range ready {
		l := lane{m.Audience, m.Header.Key, m.Header.TxType == TxUnpinned}
		if waiting[l] == nil {
			lanes = append(lanes, l)
		}
		waiting[l] = append(waiting[l], m)
	}
	var failed []error
	for _, l := range lanes {
		for rest := waiting[l]; len(rest) > 0 && (l.unpinned || inFlight[l.audience] < maxInFlight); inFlight[l.audience]++ {
			n, err := s.sealBatch(ctx, l.audience, l.unpinned, rest)
			if err != nil {
				failed = append(failed, fmt.Errorf("seal a batch for audience %s: %w", l.audience.Short(), err))
			}
			if n == 0 {
				stuck = append(stuck, l.audience)
				break
			}
			rest = rest[n:]
			sealed = true
		}
	}
	return sealed, stuck, errors.Join(failed...)
}

// full are the audiences that have as many batches under way as they may.
func full(inFlight map[wire.Hash]int) (audiences []wire.Hash) {
	for a, n := range inFlight {
		if n >= maxInFlight {
			audiences = append(audiences, a)
		}
	}
	return audiences
}

// sealBatch makes one batch of the first messages that fit and returns how many
// they are; none if the audience's secret is not known yet, or if its members
// have changed: then it waits for the next epoch. A message that cannot be in any
// batch is rejected here, or it would hold up all that follow.
func (s *Service) sealBatch(ctx context.Context, audience wire.Hash, unpinned bool, messages []*store.Message) (n int, err error) {
	var epoch *store.Epoch
	var sources []source
	var defs map[wire.Hash][]byte
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if epoch, err = tx.CurrentEpoch(audience); err != nil || !s.mayWrite(epoch) {
			return err
		}
		if sources, err = loadSources(tx, messages[:min(len(messages), maxBatchMessages)]); err != nil {
			return err
		}
		sources = fitting(sources, epoch.Secret.Keys())
		defs, err = s.definitionsOf(tx, sources)
		return err
	})
	if err != nil || !s.mayWrite(epoch) {
		return 0, err
	}
	if err := s.renewKey(ctx, sources); err != nil {
		return 0, err
	}
	b, root, plain, fault := s.build(epoch, sources, defs)
	if fault != nil && len(sources) > 1 { // go on with the first alone, to find the one at fault
		sources = sources[:1]
		b, root, plain, fault = s.build(epoch, sources, defs)
	}
	if fault != nil {
		return 1, s.rejectUnsent(ctx, sources[0].row, fault)
	}
	sealed, err := epoch.Secret.Keys().SealPayload(s.Self.Org, root, plain)
	if err != nil {
		return 0, err
	}
	env := wire.Envelope{Author: s.Self.Org, Audience: audience, Epoch: epoch.Epoch, Root: root, Sealed: sealed}
	if unpinned {
		err = s.commitUnpinned(ctx, env, b, sources, epoch)
	} else {
		err = s.commitBatch(ctx, env, b, sources, epoch)
	}
	if err != nil {
		return 0, err
	}
	for _, src := range sources {
		s.Trace.After(src.row.Trace, "seal", src.row.Header.Created.Time(), s.Now(), slog.String("message", src.row.Header.ID.String()), slog.String("root", root.String()))
	}
	return len(sources), nil
}

// mayWrite says whether this node may seal in an epoch: its secret is here, and
// every member it lists is still active in the network. Who has left must not
// get new batches, so these wait for the epoch without it.
func (s *Service) mayWrite(e *store.Epoch) bool {
	return e != nil && e.Secret != nil && !slices.ContainsFunc(e.Definition.Members, func(m wire.OrgID) bool { return !s.Network.Active(m, endPosition) })
}

// build assembles a batch and puts it through the receiver's checks.
func (s *Service) build(epoch *store.Epoch, sources []source, defs map[wire.Hash][]byte) (b *wire.Batch, root wire.Hash, plain []byte, fault error) {
	b, fault = s.assemble(epoch, sources, defs)
	if fault != nil {
		return nil, root, nil, fault
	}
	leaves, fault := b.CheckedLeaves()
	if fault != nil {
		return nil, root, nil, fault
	}
	plain, fault = b.Encode()
	return b, wire.MerkleRoot(leaves), plain, fault
}

// rejectUnsent ends a message that no receiver would take.
func (s *Service) rejectUnsent(ctx context.Context, m *store.Message, fault error) error {
	s.Log.Error("a message cannot be sent and is rejected", "id", m.Header.ID, "err", fault)
	m.RejectReason = fmt.Sprintf("it was not sent, because no member would take it: %v", fault)
	err := s.DB.Write(ctx, func(tx *store.Tx) error { return s.settle(tx, []*store.Message{m}, nil) })
	if err == nil {
		s.EventsCommitted()
	}
	return err
}

// renewKey puts our present key into messages whose key was revoked while they
// waited; they were not sent under the old one, or their pin can never be.
func (s *Service) renewKey(ctx context.Context, sources []source) error {
	old, err := wire.ParseAddress(sources[0].row.Header.Key)
	if err != nil {
		return err
	}
	if _, valid := s.Network.OrgOf(old, endPosition); valid {
		return nil
	}
	here, err := s.Keys.Addresses(ctx)
	if err != nil {
		return err
	}
	key := s.keyNow(here).String()
	for i := range sources {
		src := &sources[i]
		src.header.Key = key
		hash, err := src.header.LeafHash()
		if err != nil {
			return err
		}
		src.row.Header.Key, src.row.Hash = key, store.Hex(hash.String())
		if src.row.Wire, err = wire.Marshal(src.header); err != nil {
			return err
		}
	}
	s.Log.Warn("messages wait under a key that is not valid any more; they get the present one", "messages", len(sources), "old", old, "key", key)
	return s.DB.Write(ctx, func(tx *store.Tx) error {
		for i := range sources {
			if err := tx.RekeyMessage(sources[i].row); err != nil {
				return err
			}
		}
		return nil
	})
}

// source is a message with what a batch needs of it.
type source struct {
	row    *store.Message
	header wire.MessageHeader
	data   []*store.Data
}

func loadSources(tx *store.Tx, messages []*store.Message) ([]source, error) {
	seqs := make([]int64, len(messages))
	for i, m := range messages {
		seqs[i] = m.Seq
	}
	data, err := tx.DataOfMessages(seqs)
	if err != nil {
		return nil, err
	}
	sources := make([]source, len(messages))
	for i, m := range messages {
		sources[i] = source{row: m, data: data[m.Seq]}
		if err := wire.Unmarshal(m.Wire, &sources[i].header); err != nil {
			return nil, fmt.Errorf("stored header of message %s: %w", m.Header.ID, err)
		}
	}
	return sources, nil
}

// fitting is the longest run of messages from the first on that one batch can
// hold. A large blob travels alone.
func fitting(all []source, keys wire.Keys) []source {
	contexts := map[wire.ContextID]bool{}
	size := 0
	for i, s := range all {
		for _, t := range s.header.Topics {
			contexts[keys.Context(t)] = true
		}
		large := false
		for _, d := range s.data {
			size += len(d.Value) + 300
			large = large || d.Blob != nil && d.Blob.Size > largeBlob
		}
		size += 300
		if i > 0 && (size > maxBatchBytes || len(contexts) > maxBatchContexts || large) {
			return all[:i]
		}
		if large {
			return all[:1]
		}
	}
	return all
}

// definitionsOf collects the datatypes that the data items name, by hash.
func (s *Service) definitionsOf(tx *store.Tx, sources []source) (map[wire.Hash][]byte, error) {
	defs := map[wire.Hash][]byte{}
	for _, src := range sources {
		for _, d := range src.data {
			if d.DatatypeHash == nil || defs[*d.DatatypeHash] != nil {
				continue
			}
			dt, err := store.Optional(tx.DatatypeByName(s.Namespace, d.Datatype.Name, d.Datatype.Version))
			if err != nil {
				return nil, err
			}
			if dt == nil || wire.DefinitionHash(definitionDatatype, dt.Value) != *d.DatatypeHash {
				continue // a peer's, which is not defined here; the batch's checks say so
			}
			defs[*d.DatatypeHash] = dt.Value
		}
	}
	return defs, nil
}

// assemble builds the batch.
func (s *Service) assemble(epoch *store.Epoch, sources []source, defs map[wire.Hash][]byte) (*wire.Batch, error) {
	b := &wire.Batch{Header: wire.BatchHeader{
		Version: wire.Version, Network: s.Network.ID, Author: s.Self.Org, AuthorName: s.Self.Name, AuthorSalt: s.Self.Salt,
		Node: s.Self.Node, Audience: epoch.Audience, Epoch: epoch.Epoch, ID: s.NewID(), Created: int64(s.now()), Salt: newSalt(),
	}}
	place := map[wire.Hash]uint32{}
	for _, src := range sources {
		m := wire.Message{Header: src.header}
		if c, ok := trace.Parse(src.row.Trace); ok {
			m.Trace = c.Bytes()
		}
		for _, d := range src.data {
			i, ok := place[d.Commitment]
			if !ok {
				w, err := dataItem(d)
				if err != nil {
					return nil, err
				}
				i = uint32(len(b.Data))
				place[d.Commitment] = i
				b.Data = append(b.Data, w)
				if w.Datatype != nil {
					if body := defs[w.Datatype.Hash]; body != nil {
						b.Definitions = append(b.Definitions, wire.Definition{Kind: definitionDatatype, Body: body})
						delete(defs, w.Datatype.Hash)
					}
				}
			}
			m.Data = append(m.Data, i)
		}
		b.Messages = append(b.Messages, m)
	}
	return b, nil
}

// txOf is the id of the business transaction of a batch, the same at every
// member.
func txOf(batch wire.UUID) wire.UUID { return uuid.NewSHA1(batch, []byte("batch_pin")) }

// batchRow is what is stored of a batch, ours or a peer's.
func (s *Service) batchRow(env wire.Envelope, b *wire.Batch, stored []byte) (*store.BatchRow, error) {
	tx := txOf(b.Header.ID)
	row := &store.BatchRow{
		Batch: store.Batch{
			ID: b.Header.ID, Type: TypeBroadcast, Namespace: s.Namespace, Node: &b.Header.Node, Created: store.Time(b.Header.Created),
			Author: b.Messages[0].Header.Author, Key: b.Messages[0].Header.Key, Hash: store.Hex(env.Root.String()), Tx: store.TransactionRef{Type: TxBatchPin, ID: &tx},
		},
		AuthorName: b.Header.AuthorName, Org: env.Author, Root: env.Root, Audience: env.Audience, Epoch: env.Epoch, Envelope: stored, Since: s.now(),
	}
	if env.Audience != s.Network.ID {
		row.Type, row.Group = TypePrivate, store.Hex(env.Audience.String())
	}
	type ref struct {
		ID   wire.UUID  `json:"id"`
		Hash *wire.Hash `json:"hash,omitempty"`
	}
	manifest := struct {
		Version  uint                 `json:"version"`
		ID       wire.UUID            `json:"id"`
		Tx       store.TransactionRef `json:"tx"`
		Messages []ref                `json:"messages"`
		Data     []ref                `json:"data"`
	}{Version: b.Header.Version, ID: b.Header.ID, Tx: row.Tx, Messages: []ref{}, Data: []ref{}}
	for i := range b.Messages {
		h, err := b.Messages[i].Header.LeafHash()
		if err != nil {
			return nil, err
		}
		manifest.Messages = append(manifest.Messages, ref{b.Messages[i].Header.ID, &h})
	}
	for i := range b.Data {
		manifest.Data = append(manifest.Data, ref{ID: b.Data[i].ID})
	}
	var err error
	row.Manifest, err = json.Marshal(manifest)
	return row, err
}

// commitBatch stores a sealed batch with all that is to follow from it (T2).
func (s *Service) commitBatch(ctx context.Context, env wire.Envelope, b *wire.Batch, sources []source, epoch *store.Epoch) error {
	stored, err := wire.Marshal(env)
	if err != nil {
		return err
	}
	row, err := s.batchRow(env, b, stored)
	if err != nil {
		return err
	}
	row.Own, row.State = true, store.BatchCollecting
	peers := s.others(epoch.Definition.Members)
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.InsertBatch(row); err != nil {
			return err
		}
		if err := s.markSent(tx, sources, row, StateSent); err != nil {
			return err
		}
		if err := tx.InsertTransactions([]*store.Transaction{{ID: *row.Tx.ID, Namespace: s.Namespace, Type: TxBatchPin, Created: row.Since}}); err != nil {
			return err
		}
		ops := []*store.Operation{s.operation(row, opPinBatch, "ledger", nil)}
		parcels := make([]store.Parcel, 0, len(peers))
		for _, p := range peers {
			op := s.operation(row, opSendBatch, "exchange", map[string]string{"peer": p.String(), "batch": row.ID.String()})
			ops = append(ops, op)
			parcels = append(parcels, store.Parcel{Peer: p, Kind: kindPayload, Root: env.Root, Org: env.Author, Op: &op.ID, Since: row.Since})
		}
		if err := tx.InsertOperations(ops); err != nil {
			return err
		}
		if err := tx.AddParcels(parcels...); err != nil {
			return err
		}
		if err := tx.InsertEvents([]*store.Event{{
			ID: s.NewID(), Type: "transaction_submitted", Namespace: s.Namespace, Reference: row.Tx.ID, Tx: row.Tx.ID, Topic: TxBatchPin, Created: row.Since,
		}}); err != nil {
			return err
		}
		return tx.Arrived(store.ArrivedPayload, env.Author, env.Root)
	})
	if err != nil {
		return err
	}
	s.EventsCommitted()
	s.wakePeers(peers)
	s.Wake.Submit.Set() // a lone member pins at once
	return nil
}

// markSent ties messages to the batch they went into.
func (s *Service) markSent(tx *store.Tx, sources []source, b *store.BatchRow, state string) error {
	seqs := make([]int64, len(sources))
	for i, src := range sources {
		seqs[i] = src.row.Seq
	}
	return tx.EnterBatch(seqs, b, state)
}

// Types of operation, as existing clients know them.
const (
	opPinBatch  = "blockchain_pin_batch"
	opSendBatch = "dataexchange_send_batch"

	opPending   = "Pending"
	opSucceeded = "Succeeded"
	opFailed    = "Failed"
)

func (s *Service) operation(b *store.BatchRow, typ, plugin string, input map[string]string) *store.Operation {
	op := &store.Operation{ID: s.NewID(), Namespace: s.Namespace, Tx: b.Tx.ID, Type: typ, Status: opPending, Plugin: plugin, Created: b.Since, Updated: b.Since}
	if input == nil {
		input = map[string]string{"batch": b.ID.String(), "root": b.Root.String()}
	}
	if text, err := json.Marshal(input); err == nil { // of strings only: cannot fail
		op.Input = text
	}
	return op
}
