package message

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

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
	s.room.look()
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) { inFlight, err = tx.InFlight(); return err })
	if err != nil {
		return false, err
	}
	defer func() { s.room.set(full(inFlight)) }()
	except := full(inFlight)
	for {
		var ready []source
		err = s.DB.Read(ctx, func(tx *store.Tx) (err error) { ready, err = s.readyMessages(tx, except); return err })
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

// room remembers which audiences have as many batches under way as they may.
// A message for one of these need not wake the batch worker: the batch that
// makes room does.
type room struct {
	mu   sync.Mutex
	full []wire.Hash
}

// look says that the batch worker is about to look: what comes now must wake it.
func (r *room) look() { r.set(nil) }

func (r *room) set(full []wire.Hash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full = full
}

func (r *room) any(audience wire.Hash) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !slices.Contains(r.full, audience)
}

// readyMessages are the oldest messages that wait for a batch, those of some
// audiences excepted.
func (s *Service) readyMessages(tx *store.Tx, except []wire.Hash) ([]source, error) {
	seqs, err := tx.ReadyMessages(except, readyPage)
	if err != nil {
		return nil, err
	}
	found := s.recent.findReady(seqs)
	missing := slices.DeleteFunc(slices.Clone(seqs), func(seq int64) bool { return found[seq].row != nil })
	rows, err := tx.MessagesBySeq(missing)
	if err != nil {
		return nil, err
	}
	for _, m := range rows {
		found[m.Seq] = source{row: m}
	}
	ready := make([]source, len(seqs))
	for i, seq := range seqs {
		ready[i] = found[seq]
	}
	return ready, nil
}

// sealReady makes batches of messages, as many as may be in flight. stuck are
// audiences in which it could not.
func (s *Service) sealReady(ctx context.Context, ready []source, inFlight map[wire.Hash]int) (sealed bool, stuck []wire.Hash, err error) {
	var lanes []lane
	waiting := map[lane][]source{}
	for _, m := range ready {
		l := lane{m.row.Audience, m.row.Header.Key, m.row.Header.TxType == TxUnpinned}
		if waiting[l] == nil {
			lanes = append(lanes, l)
		}
		waiting[l] = append(waiting[l], m)
	}
	var failed []error
	for _, l := range lanes {
		rest := waiting[l]
		for len(rest) > 0 && (l.unpinned || inFlight[l.audience] < maxInFlight) {
			n, err := s.sealBatch(ctx, l, rest)
			if err != nil {
				failed = append(failed, fmt.Errorf("seal a batch for audience %s: %w", l.audience.Short(), err))
				s.flushes.note(l, func(c *flushCount) { c.failures, c.failed, c.err = c.failures+1, s.Now(), err.Error() })
			}
			if n == 0 {
				stuck = append(stuck, l.audience)
				break
			}
			rest = rest[n:]
			sealed = true
			if !l.unpinned {
				inFlight[l.audience]++
			}
		}
		s.flushes.note(l, func(c *flushCount) { c.blocked = len(rest) > 0 })
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
func (s *Service) sealBatch(ctx context.Context, l lane, messages []source) (n int, err error) {
	start := s.Now()
	var epoch *store.Epoch
	var sources []source
	var defs map[wire.Hash][]byte
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if epoch, err = tx.CurrentEpoch(l.audience); err != nil || !s.mayWrite(epoch) {
			return err
		}
		sources = messages[:min(len(messages), maxBatchMessages)]
		if err = load(tx, sources); err != nil {
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
	b, leaves, plain, fault := s.build(epoch, sources, defs)
	if fault != nil && len(sources) > 1 { // go on with the first alone, to find the one at fault
		sources = sources[:1]
		b, leaves, plain, fault = s.build(epoch, sources, defs)
	}
	if fault != nil {
		s.recent.dropReady(sources[:1])
		return 1, s.rejectUnsent(ctx, sources[0].row, fault)
	}
	root := wire.MerkleRoot(leaves)
	sealed, err := epoch.Secret.Keys().SealPayload(s.Self.Org, root, plain)
	if err != nil {
		return 0, err
	}
	env := wire.Envelope{Author: s.Self.Org, Audience: l.audience, Epoch: epoch.Epoch, Root: root, Sealed: sealed}
	if l.unpinned {
		err = s.commitUnpinned(ctx, env, b, leaves, sources, epoch)
	} else {
		err = s.commitBatch(ctx, env, b, leaves, sources, epoch)
	}
	if err != nil {
		return 0, err
	}
	for _, src := range sources {
		s.Trace.After(src.row.Trace, "seal", src.row.Header.Created.Time(), s.Now(), slog.String("message", src.row.Header.ID.String()), slog.String("root", root.String()))
	}
	s.recent.dropReady(sources)
	s.flushes.note(l, func(c *flushCount) {
		c.started, c.cancelled = start, false
		c.batches, c.messages, c.data = c.batches+1, c.messages+int64(len(b.Messages)), c.data+int64(len(b.Data))
		c.bytes, c.took = c.bytes+int64(len(plain)), c.took+s.Now().Sub(start)
	})
	return len(sources), nil
}

// mayWrite says whether this node may seal in an epoch: its secret is here, and
// every member it lists is still active in the network. Who has left must not
// get new batches, so these wait for the epoch without it.
func (s *Service) mayWrite(e *store.Epoch) bool {
	return e != nil && e.Secret != nil && !slices.ContainsFunc(e.Definition.Members, func(m wire.OrgID) bool { return !s.Network.Active(m, endPosition) })
}

// build assembles a batch and puts it through the receiver's checks.
func (s *Service) build(epoch *store.Epoch, sources []source, defs map[wire.Hash][]byte) (b *wire.Batch, leaves []wire.Hash, plain []byte, fault error) {
	b, fault = s.assemble(epoch, sources, defs)
	if fault != nil {
		return nil, nil, nil, fault
	}
	if leaves, fault = b.CheckedLeaves(); fault != nil {
		return nil, nil, nil, fault
	}
	plain, fault = b.Encode()
	return b, leaves, plain, fault
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
	s.recent.dropReady(sources) // also if this fails half-way
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
	header *wire.MessageHeader // nil until loaded, as is the data
	data   []*store.Data
}

// size is about how many bytes it takes.
func (s source) size() int {
	n := 0
	for _, d := range s.data {
		n += len(d.Value)
	}
	return n
}

// load reads what is not in memory of some messages.
func load(tx *store.Tx, sources []source) error {
	var seqs []int64
	for _, src := range sources {
		if src.header == nil {
			seqs = append(seqs, src.row.Seq)
		}
	}
	data, err := tx.DataOfMessages(seqs)
	if err != nil {
		return err
	}
	for i := range sources {
		src := &sources[i]
		if src.header != nil {
			continue
		}
		h := new(wire.MessageHeader)
		if err := wire.Unmarshal(src.row.Wire, h); err != nil {
			return fmt.Errorf("stored header of message %s: %w", src.row.Header.ID, err)
		}
		src.header, src.data = h, data[src.row.Seq]
	}
	return nil
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
		m := wire.Message{Header: *src.header}
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

// batchRow is what is stored of a batch, ours or a peer's; leaves are those of
// its tree.
func (s *Service) batchRow(env wire.Envelope, b *wire.Batch, leaves []wire.Hash, stored []byte) (*store.BatchRow, error) {
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
		manifest.Messages = append(manifest.Messages, ref{b.Messages[i].Header.ID, &leaves[i+1]})
	}
	for i := range b.Data {
		manifest.Data = append(manifest.Data, ref{ID: b.Data[i].ID})
	}
	var err error
	row.Manifest, err = json.Marshal(manifest)
	return row, err
}

// commitBatch stores a sealed batch with all that is to follow from it (T2).
func (s *Service) commitBatch(ctx context.Context, env wire.Envelope, b *wire.Batch, leaves []wire.Hash, sources []source, epoch *store.Epoch) error {
	stored, err := wire.Marshal(env)
	if err != nil {
		return err
	}
	row, err := s.batchRow(env, b, leaves, stored)
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
	messages := make([]*store.Message, len(sources))
	for i, src := range sources {
		m := src.row
		m.State, m.Batch, m.TxID, m.Org, m.Root, m.Index = StateSent, &row.ID, row.Tx.ID, row.Org, &row.Root, i
		messages[i] = m
	}
	s.recent.putBatch(row, messages)
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
