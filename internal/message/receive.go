package message

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/trace"
	"github.com/parley-node/parley/wire"
)

// endPosition asks about now.
var endPosition = identity.End

// Receive handles a request of a peer; see the kinds in send.go.
func (s *Service) Receive(ctx context.Context, from wire.OrgID, kind string, body []byte) ([]byte, error) {
	switch kind {
	case kindPayload:
		var env wire.Envelope
		if err := wire.Unmarshal(body, &env); err != nil {
			return nil, refuse(refusedMalformed, "envelope: %v", err)
		}
		if env.Author != from {
			return nil, refuse(refusedForeign, "the envelope's author is %s, not the sender", env.Author.Short())
		}
		r, err := s.receivePayload(ctx, env, from)
		if err != nil {
			s.noteRefusal(ctx, from, kind, env.Root, err)
			return nil, err
		}
		if r == nil {
			return nil, nil
		}
		return wire.Marshal(*r)
	case kindUnpinned:
		return s.receiveUnpinned(ctx, from, body)
	case kindCertificate:
		var c wire.Certificate
		if err := wire.Unmarshal(body, &c); err != nil {
			return nil, refuse(refusedMalformed, "certificate: %v", err)
		}
		return nil, s.receiveReceipts(ctx, c.Receipts)
	case kindReceipt:
		var r wire.Receipt
		if err := wire.Unmarshal(body, &r); err != nil {
			return nil, refuse(refusedMalformed, "receipt: %v", err)
		}
		return nil, s.receiveReceipts(ctx, []wire.Receipt{r})
	case kindInvite:
		return s.receiveInvitation(ctx, from, body)
	case kindActivated:
		return nil, s.receiveActivated(ctx, from, body)
	case kindSecret:
		return s.handOutSecret(ctx, from, body)
	case kindErase:
		return nil, s.receiveErasure(ctx, from, body)
	case kindErased:
		return nil, s.receiveErasureAnswer(ctx, from, body)
	}
	return nil, refuse(refusedMalformed, "request kind %q is unknown: this node is older than the sender", kind)
}

func refuse(code, format string, args ...any) error {
	return &exchange.Refused{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// noteRefusal makes a peer's bad batch visible to the operator. An audience
// that is not known yet is no fault of the peer.
func (s *Service) noteRefusal(ctx context.Context, from wire.OrgID, kind string, root wire.Hash, err error) {
	var r *exchange.Refused
	if errors.As(err, &r) && r.Code == refusedMalformed {
		s.incident(ctx, "bad_payload", fmt.Sprintf("%s sent a %s that was refused: %s", from.Short(), kind, r.Reason), root.String())
	}
}

// receivePayload opens a batch, fetches its blobs, and stores all of it with
// our receipt in one transaction (T3a). The receipt is the promise that the
// payload is here durably and could be opened. It is the same receipt if the
// batch is stored already.
//
// Who has voted to skip the batch takes it without a receipt, for an
// organisation never gives both: the votes may not suffice, and then the
// payload is needed like anybody's. The receipt is nil then.
func (s *Service) receivePayload(ctx context.Context, env wire.Envelope, holder wire.OrgID) (*wire.Receipt, error) {
	var epoch *store.Epoch
	var known *store.BatchRow
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if known, err = tx.BatchByRoot(env.Author, env.Root); err != nil {
			return err
		}
		epoch, err = epochOf(tx, env.Audience, env.Epoch)
		return err
	})
	if err != nil {
		return nil, err
	}
	if known != nil && known.Receipt != nil {
		r := new(wire.Receipt)
		return r, wire.Unmarshal(known.Receipt, r)
	}
	if known != nil && !known.Own {
		return nil, nil // held since after our vote
	}
	if known != nil {
		return nil, refuse(refusedForeign, "batch %s is this organisation's own", env.Root.Short())
	}
	if epoch == nil {
		return nil, refuse(refusedAudience, "no secret is here for epoch %d of audience %s: send the invitation first", env.Epoch, env.Audience.Short())
	}
	b, leaves, err := s.openBatch(env, epoch)
	if err != nil {
		return nil, err
	}
	s.blobUse.RLock()
	defer s.blobUse.RUnlock()
	blobs, err := s.fetchBlobs(ctx, b, env.Root, epoch.Secret.Keys(), holder)
	if err != nil {
		return nil, err
	}
	stored, err := wire.Marshal(env)
	if err != nil {
		return nil, err
	}
	row, err := s.batchRow(env, b, leaves, stored)
	if err != nil {
		return nil, err
	}
	row.State = store.BatchHeld
	messages, data, faults, err := s.receivedRows(b, leaves, row, nil)
	if err != nil {
		return nil, err
	}
	receipt, err := s.signReceipt(ctx, env.Author, env.Audience, env.Epoch, env.Root, faults)
	if err != nil {
		return nil, err
	}
	signed, err := wire.Marshal(*receipt)
	if err != nil {
		return nil, err
	}
	given := receipt
	var fresh bool
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		given, row.Receipt = receipt, signed
		ours := env.Author == s.Self.Org // of a node that was restored: its own receipt would say nothing
		if !ours {
			if err := s.receiptsWait(tx, env.Root); err != nil {
				return err
			}
		}
		voted, err := tx.Voted(env.Audience, env.Author, env.Root)
		if err != nil {
			return err
		}
		if voted || ours {
			given, row.Receipt = nil, nil
		}
		// Decided without its payload, it was skipped: its messages would wait
		// for a verdict that has been given.
		if decided, err := tx.PastEntry(env.Audience, env.Author, env.Root); err != nil {
			return err
		} else if decided != nil && known == nil {
			return refuse(refusedVoted, "the members have skipped batch %s", env.Root.Short())
		}
		if ended, err := epochEnded(tx, env); err != nil {
			return err
		} else if ended {
			return refuse(refusedEnded, "epoch %d of audience %s ended before batch %s was pinned: put its messages into another", env.Epoch, env.Audience.Short(), env.Root.Short())
		}
		if fresh, err = tx.InsertBatch(row); err != nil {
			return err
		}
		if !fresh { // the same batch came twice at once: the first one's receipt counts
			have, err := tx.BatchByRoot(env.Author, env.Root)
			if err != nil {
				return err
			}
			if have.Receipt == nil {
				given = nil
				return nil
			}
			given = new(wire.Receipt)
			return wire.Unmarshal(have.Receipt, given)
		}
		if err := storeReceived(tx, messages, data, blobs, row); err != nil {
			return err
		}
		if given != nil {
			if _, err := putReceipt(tx, given); err != nil {
				return err
			}
		}
		return tx.Arrived(store.ArrivedPayload, env.Author, env.Root)
	})
	if err != nil {
		return nil, err
	}
	if fresh {
		s.recent.putBatch(row, messages)
	}
	s.Wake.Confirm.Set()
	for _, m := range messages {
		s.Trace.After(m.Trace, "receive", row.Since.Time(), s.Now(), slog.String("message", m.Header.ID.String()), slog.String("root", env.Root.String()))
	}
	return given, nil
}

// epochEnded says whether a batch can never be pinned any more, because its
// epoch has ended on the ledger without it.
func epochEnded(tx *store.Tx, env wire.Envelope) (bool, error) {
	current, err := tx.CurrentEpoch(env.Audience)
	if err != nil || current == nil || current.Epoch <= env.Epoch {
		return false, err
	}
	pinned, err := tx.Pinned(env.Audience, env.Author, env.Root)
	return !pinned, err
}

// epochOf is an epoch that is or was current and whose secret is here; nil if
// there is none. One that is only proposed does not count: its proposer could
// hand out payloads that only those can open who took its invitation.
func epochOf(tx *store.Tx, audience wire.Hash, number uint64) (*store.Epoch, error) {
	epochs, err := tx.Epochs(audience)
	if err != nil {
		return nil, err
	}
	for i := range epochs {
		if e := &epochs[i]; e.Epoch == number && e.Secret != nil && (e.Activated != nil || number == 1) {
			return e, nil
		}
	}
	return nil, nil
}

// openBatch decrypts a batch and checks all that needs no state.
func (s *Service) openBatch(env wire.Envelope, epoch *store.Epoch) (*wire.Batch, []wire.Hash, error) {
	if !epoch.Definition.Has(env.Author) {
		return nil, nil, refuse(refusedForeign, "%s is no member of epoch %d of audience %s", env.Author.Short(), env.Epoch, env.Audience.Short())
	}
	plain, err := epoch.Secret.Keys().OpenPayload(env.Author, env.Root, env.Sealed)
	if err != nil {
		return nil, nil, refuse(refusedMalformed, "the payload does not open: %v", err)
	}
	b, err := wire.DecodeBatch(plain)
	if err != nil {
		return nil, nil, refuse(refusedMalformed, "batch: %v", err)
	}
	leaves, err := b.CheckedLeaves()
	if err != nil {
		return nil, nil, refuse(refusedMalformed, "batch: %v", err)
	}
	if root := wire.MerkleRoot(leaves); root != env.Root {
		return nil, nil, refuse(refusedMalformed, "the batch has the root %s, not %s", root.Short(), env.Root.Short())
	}
	h := &b.Header
	if h.Network != s.Network.ID || h.Author != env.Author || h.Audience != env.Audience || h.Epoch != env.Epoch {
		return nil, nil, refuse(refusedMalformed, "the batch was sealed for another network, author, audience or epoch")
	}
	return b, leaves, nil
}

// receivedRows are the rows of a batch's messages, and the data of each. A
// message that can never be valid carries its reason from here on; it is
// rejected when its turn comes. faults is what a receipt says of the contents.
// gone is what is erased of the batch, nil if nothing is.
func (s *Service) receivedRows(b *wire.Batch, leaves []wire.Hash, row *store.BatchRow, gone *erasedPart) (messages []*store.Message, used [][]*store.Data, faults []uint32, err error) {
	data := make([]*store.Data, len(b.Data))
	messages = make([]*store.Message, len(b.Messages))
	used = make([][]*store.Data, len(b.Messages))
	defs := map[wire.Hash][]byte{}
	for _, d := range b.Definitions {
		defs[d.Hash()] = d.Body
	}
	for i := range b.Messages {
		h := &b.Messages[i].Header
		m := &store.Message{
			Header: store.MessageHeader{
				ID: h.ID, CID: h.CID, Type: h.Type, TxType: TxBatchPin, Author: h.Author, Key: h.Key, Created: store.Time(h.Created),
				Namespace: s.NetName, Group: row.Group, Topics: h.Topics, Tag: h.Tag,
			},
			LocalNamespace: s.Namespace, Hash: store.Hex(leaves[i+1].String()), Batch: &row.ID, TxID: row.Tx.ID, State: StatePending,
			Audience: row.Audience, Org: row.Org, Root: &row.Root, Index: i,
			Trace: trace.FromBytes(b.Messages[i].Trace).String(),
		}
		for j, at := range b.Messages[i].Data {
			if data[at] == nil {
				data[at] = s.dataRow(&b.Data[at], h.Data[j], row.Since)
				gone.mark(data[at], at)
			}
			used[i] = append(used[i], data[at])
			m.Data = append(m.Data, store.DataRef{ID: data[at].ID, Hash: data[at].Hash})
		}
		m.Header.DataHash, err = refsHash(m.Data)
		if err != nil {
			return nil, nil, nil, err
		}
		if m.Wire, err = wire.Marshal(*h); err != nil {
			return nil, nil, nil, err
		}
		content := ""
		switch {
		case !gone.of(i):
			content = s.contentFault(used[i], defs)
		case slices.Contains(gone.remnant.Faults, uint32(i)):
			content = faultErased
		}
		if content != "" {
			faults = append(faults, uint32(i))
		}
		if gone.of(i) {
			m.Erasure = &gone.erasure
		}
		m.RejectReason = cmp.Or(s.headerFault(b, i), content)
		messages[i] = m
	}
	return messages, used, faults, nil
}

// headerFault says why a message of a batch is invalid whatever comes and
// whatever its data is, or nothing. It depends on the batch alone, so that every
// member finds the same.
func (s *Service) headerFault(b *wire.Batch, i int) string {
	h := &b.Messages[i].Header
	if b.Header.Audience == s.Network.ID {
		if h.Type != TypeBroadcast && h.Type != TypeDefinition {
			return fmt.Sprintf("a message of type %q does not belong to the network", h.Type)
		}
	} else if h.Type != TypePrivate {
		return fmt.Sprintf("a message of type %q does not belong to a group", h.Type)
	}
	for _, t := range h.Topics {
		if t != definitionTopic && identity.CheckName("topic", t) != nil {
			return fmt.Sprintf("the topic %q is not named as a topic must be", t)
		}
	}
	// Whether a custom identity is the sender's is judged at the message's turn.
	if h.Author != identity.DID(identity.TypeOrg, b.Header.AuthorName) && (h.Type == TypeDefinition || !identity.IsCustomDID(h.Author)) {
		return fmt.Sprintf("the author %s is no identity of the organisation that sent it", h.Author)
	}
	reserved := len(h.Topics) == 1 && h.Topics[0] == definitionTopic
	if reserved != (h.Type == TypeDefinition) {
		return "the topic " + definitionTopic + " is for definitions, and only for them"
	}
	return ""
}

// faultErased is contentFault of a message whose data is erased.
const faultErased = "its data, which is erased, did not conform to its datatype"

// faultOfData is how contentFault begins otherwise.
const faultOfData = "data "

// contentFault says which data item of a message does not conform to the datatype
// that the batch carries, if any. It is what a receipt says of the message, see
// wire.Receipt.Faults.
func (s *Service) contentFault(data []*store.Data, defs map[wire.Hash][]byte) string {
	for _, d := range data {
		if d.DatatypeHash == nil || d.Validator != validatorJSON {
			continue
		}
		if err := s.schemas.validate(defs[*d.DatatypeHash], d.Value); err != nil {
			return fmt.Sprintf(faultOfData+"%s does not conform to datatype %s version %s: %v", d.ID, d.Datatype.Name, d.Datatype.Version, err)
		}
	}
	return ""
}

// storeReceived inserts the rows of a received batch.
func storeReceived(tx *store.Tx, messages []*store.Message, data [][]*store.Data, blobs []blob.Info, row *store.BatchRow) error {
	for _, b := range blobs {
		if err := tx.InsertBlob(blobRow(b, row.Since)); err != nil {
			return err
		}
	}
	if err := tx.InsertTransactions([]*store.Transaction{{ID: *row.Tx.ID, Namespace: row.Namespace, Type: row.Tx.Type, Created: row.Since}}); err != nil {
		return err
	}
	if err := tx.InsertMessages(messages); err != nil {
		return err
	}
	var all []*store.Data
	seen := map[*store.Data]bool{}
	for _, ds := range data {
		for _, d := range ds {
			if !seen[d] {
				seen[d] = true
				all = append(all, d)
			}
		}
	}
	if err := tx.InsertData(all); err != nil {
		return err
	}
	var links []store.DataLink
	for i, m := range messages {
		for j, d := range data[i] {
			links = append(links, store.DataLink{Message: m.Seq, Index: j, Data: d.Seq})
		}
	}
	return tx.LinkData(links)
}

// signReceipt signs that we hold an entry, of which some messages have faults, or
// an epoch's secret.
func (s *Service) signReceipt(ctx context.Context, author wire.OrgID, audience wire.Hash, epoch uint64, root wire.Hash, faults []uint32) (*wire.Receipt, error) {
	hash, err := wire.FaultsHash(faults)
	if err != nil {
		return nil, err
	}
	return s.renewedReceipt(ctx, wire.Receipt{Author: author, Audience: audience, Epoch: epoch, Root: root, Faults: hash})
}

// renewedReceipt signs a receipt that says the same as an earlier one, as of now.
func (s *Service) renewedReceipt(ctx context.Context, same wire.Receipt) (*wire.Receipt, error) {
	r := &same
	r.Version, r.Network, r.Org = wire.Version, s.Network.ID, s.Self.Org
	err := s.DB.Read(ctx, func(tx *store.Tx) error {
		last, err := tx.LastRecord()
		if err != nil || last == nil {
			return err
		}
		r.RecentBlock, r.RecentNumber = last.BlockHash, last.Position.Block
		return nil
	})
	if err != nil {
		return nil, err
	}
	digest, err := r.Digest()
	if err != nil {
		return nil, err
	}
	here, err := s.Keys.Addresses(ctx)
	if err != nil {
		return nil, err
	}
	r.Signature, err = s.Keys.Sign(ctx, s.keyNow(here), digest, "receipt")
	return r, err
}

// receiveReceipts stores receipts of any members that one peer passes on. One that
// does not hold does not keep the others from counting; if none holds, they are
// refused. Order decides which count.
//
// What is not known here yet is refused too, and comes again: nothing else would
// bound how much a member can make this node store.
func (s *Service) receiveReceipts(ctx context.Context, receipts []wire.Receipt) error {
	var bad error
	hold := make([]*wire.Receipt, 0, len(receipts))
	for i := range receipts {
		r := &receipts[i]
		if r.Network != s.Network.ID {
			bad = refuse(refusedMalformed, "a receipt is for another network")
		} else if err := s.checkSignature(r); err != nil {
			bad = refuse(refusedMalformed, "a receipt of %s does not hold: %v", r.Org.Short(), err)
		} else {
			hold = append(hold, r)
		}
	}
	if len(hold) == 0 {
		return bad
	}
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		stored := 0
		known := map[wire.Entry]bool{}
		for _, r := range hold {
			id := wire.Entry{Author: r.Author, Root: r.Root}
			if _, asked := known[id]; !asked {
				yes, err := tx.Receivable(r.Author, r.Root)
				if err != nil {
					return err
				}
				known[id] = yes
			}
			if !known[id] {
				bad = refuse(refusedAudience, "no batch, pin or epoch %s of %s is known here yet: send the receipts again later", r.Root.Short(), r.Author.Short())
				continue
			}
			fresh, err := putReceipt(tx, r)
			var refused *exchange.Refused
			if errors.As(err, &refused) {
				bad = err
				continue
			}
			if err != nil {
				return err
			}
			stored++
			if fresh {
				if err := tx.Arrived(store.ArrivedReceipt, r.Author, r.Root); err != nil {
					return err
				}
			}
		}
		if stored == 0 {
			return bad
		}
		return nil
	})
	s.Wake.Confirm.Set()
	return err
}

// Names under which a batch's parts are served: "root/name", where the name
// can be computed only with the epoch's payload key.
const (
	partBatch       = "batch"
	partRemnant     = "remnant" // of a batch of which something is erased
	partCertificate = "certificate"
)

func objectName(keys wire.Keys, root wire.Hash, part string) string {
	return root.String() + "/" + keys.ObjectName(root, part)
}

func blobPart(h wire.Hash) string   { return "blob/" + h.String() }
func chunksPart(h wire.Hash) string { return "chunks/" + h.String() }

// Open serves a part of a batch to a member of its audience. To everybody else,
// and for names that were not made with the audience's key, it does not exist.
// Published contents are served to every member.
func (s *Service) Open(ctx context.Context, from wire.OrgID, name string, offset int64) (io.ReadCloser, error) {
	if id, ok := strings.CutPrefix(name, partPublished); ok {
		return s.openPublished(ctx, from, id, offset)
	}
	rootText, _, ok := strings.Cut(name, "/")
	root, err := wire.ParseHash(rootText)
	if !ok || err != nil {
		return nil, exchange.ErrNotFound
	}
	var content []byte
	var blobHash *wire.Hash
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		batches, err := tx.BatchesByRoot(root)
		if err != nil {
			return err
		}
		for i := range batches {
			b := &batches[i]
			epoch, err := epochOf(tx, b.Audience, b.Epoch)
			if err != nil {
				return err
			}
			if epoch == nil || !epoch.Definition.Has(from) {
				continue
			}
			keys := epoch.Secret.Keys()
			switch name {
			case objectName(keys, root, partBatch), objectName(keys, root, partRemnant):
				if len(b.Envelope) > 0 && (b.Erased != nil) == (name == objectName(keys, root, partRemnant)) {
					content = b.Envelope
				}
				return nil
			case objectName(keys, root, partCertificate):
				c, err := certificate(tx, b.Org, root)
				if err != nil || c == nil {
					return err
				}
				content, err = wire.Marshal(*c)
				return err
			}
			hashes, err := tx.BlobsOfBatch(b.Org, root)
			if err != nil {
				return err
			}
			for _, h := range hashes {
				hash, err := wire.ParseHash(string(h))
				if err != nil {
					return err
				}
				switch name {
				case objectName(keys, root, blobPart(hash)):
					blobHash = &hash
					return nil
				case objectName(keys, root, chunksPart(hash)):
					content, err = chunkList(tx, h)
					return err
				}
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case blobHash != nil:
		r, err := s.Blobs.Open(ctx, *blobHash, offset)
		if errors.Is(err, blob.ErrNotFound) {
			return nil, exchange.ErrNotFound
		}
		return r, err
	case content == nil || offset < 0 || offset > int64(len(content)):
		return nil, exchange.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(content[offset:])), nil
}

// chunkList is the hashes of a blob's chunks, joined.
func chunkList(tx *store.Tx, hash store.Hex) ([]byte, error) {
	b, err := store.Optional(tx.BlobByHash(hash))
	if err != nil || b == nil {
		return nil, err
	}
	list := make([]byte, 0, 32*len(b.Chunks))
	for _, c := range b.Chunks {
		list = append(list, c[:]...)
	}
	return list, nil
}
