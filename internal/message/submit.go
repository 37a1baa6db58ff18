package message

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/trace"
	"github.com/parley-node/parley/wire"
)

// Input is a message as an application hands it in.
type Input struct {
	Header         Header      `json:"header"`
	Data           []DataInput `json:"data"`
	Group          *GroupInput `json:"group,omitempty"` // private only
	IdempotencyKey string      `json:"idempotencyKey,omitempty"`
}

// Header is the part of a message's header that an application chooses.
type Header struct {
	CID    *wire.UUID `json:"cid,omitempty"`
	Type   string     `json:"type,omitempty"`
	TxType string     `json:"txtype,omitempty"`
	Author string     `json:"author,omitempty"` // name or DID of the organisation, which is the default, or of an identity below it
	Key    string     `json:"key,omitempty"`    // address of one of the organisation's keys
	Group  store.Hex  `json:"group,omitempty"`  // of an existing group
	Topics []string   `json:"topics,omitempty"`
	Tag    string     `json:"tag,omitempty"`
}

// Types of message and of the transaction that carries it.
const (
	TypeBroadcast  = "broadcast"
	TypePrivate    = "private"
	TypeDefinition = "definition"

	TxBatchPin = "batch_pin"
	TxUnpinned = "unpinned"
)

// States of a message that this package sets.
const (
	StateReady     = "ready"     // stored, waits for a batch
	StateSent      = "sent"      // in one of our batches
	StatePending   = "pending"   // received, waits for its turn
	StateConfirmed = "confirmed" // in order and final
	StateRejected  = "rejected"  // in order, and invalid: RejectReason
)

const (
	maxTopics         = 10
	maxMessageBytes   = 800 << 10 // values of one message, so that any message fits a batch
	maxIdempotencyKey = 256
	definitionTopic   = "ff_definition" // reserved context of the network
)

// Broadcast stores a message for the whole network; it is on its way when this
// returns. Errors carry the code and status that existing clients expect.
func (s *Service) Broadcast(ctx context.Context, in Input) (*store.Message, error) {
	in.Header.Type, in.Header.Group, in.Group = TypeBroadcast, "", nil
	if in.Header.TxType == TxUnpinned || in.Header.TxType == "none" {
		return nil, errs.New("FF10292", 400, "field %q holds %q: a broadcast is always pinned; leave the field out", "header.txtype", in.Header.TxType)
	}
	return s.submit(ctx, in)
}

// Private stores a message for the members of a group, which is made if need
// be.
func (s *Service) Private(ctx context.Context, in Input) (*store.Message, error) {
	in.Header.Type = TypePrivate
	return s.submit(ctx, in)
}

// Define broadcasts a definition in the network's reserved context. body is its
// JSON; tag says of what kind it is and who applies it. In a namespace without a
// network it is applied at once, and the message has no id: see MessageID.
func (s *Service) Define(ctx context.Context, tag string, body any) (*store.Message, error) {
	value, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	if !s.Networked() {
		return s.defineHere(ctx, tag, value)
	}
	return s.submit(ctx, Input{
		Header: Header{Type: TypeDefinition, Tag: tag, Topics: []string{definitionTopic}},
		Data:   []DataInput{{Validator: validatorDefinition, Value: value}},
	})
}

// submit checks a message, computes everything that can be computed without
// the writer, and stores it (T1).
func (s *Service) submit(ctx context.Context, in Input) (*store.Message, error) {
	if !s.Networked() {
		return nil, errs.New("FF10414", 400, "namespace %q has no network to send a message to", s.Namespace)
	}
	m, err := s.draft(in)
	if err != nil {
		return nil, err
	}
	here, err := s.Keys.Addresses(ctx)
	if err != nil {
		return nil, err
	}
	to, items, err := s.resolve(ctx, in, m, here)
	if err != nil {
		return nil, err
	}
	m.Trace = trace.From(ctx).String()
	sealed, err := s.seal(m, items)
	if err != nil {
		return nil, err
	}
	if to.group == nil {
		to.enter(m)
		err = s.intake.put(ctx, sealed)
	} else {
		err = s.putWithGroup(ctx, to, sealed)
	}
	var dup *store.DuplicateKey
	if errors.As(err, &dup) {
		return nil, errs.New("FF10430", 409, "idempotency key %q was already used for message %s", in.IdempotencyKey, dup.ID)
	}
	if err != nil {
		return nil, err
	}
	if m.Header.TxType == TxUnpinned || s.room.any(m.Audience) {
		s.Wake.Batch.Set()
	}
	return m, nil
}

// resolve finds the author, the audience and the data of a message. Most name no
// stored thing but their group, and need no look into the database.
func (s *Service) resolve(ctx context.Context, in Input, m *store.Message, here []wire.Address) (to *target, items []*store.Data, err error) {
	find := func(tx *store.Tx) (err error) {
		if m.Header.Author, m.Header.Key, err = s.author(tx, in.Header, here); err != nil {
			return err
		}
		if to == nil {
			if to, err = s.target(tx, in); err != nil {
				return err
			}
		}
		items, err = s.resolveData(tx, in.Data)
		return err
	}
	if to = s.knownTarget(in); to != nil && s.isSelf(in.Header.Author) && !slices.ContainsFunc(in.Data, DataInput.namesStored) {
		err = find(nil)
	} else {
		err = s.DB.Read(ctx, find)
	}
	return to, items, err
}

// isSelf says whether an author is the organisation itself.
func (s *Service) isSelf(author string) bool {
	return author == "" || author == s.Self.Name || author == s.Self.DID()
}

// putWithGroup stores a message together with its group, unless an equal group
// came up meanwhile.
func (s *Service) putWithGroup(ctx context.Context, to *target, m source) error {
	var invite []wire.OrgID
	err := s.DB.Write(ctx, func(tx *store.Tx) (err error) {
		if invite, err = s.enterGroup(tx, to, m.row); err != nil {
			return err
		}
		return insertMessages(tx, []source{m})
	})
	if err == nil {
		s.wakePeers(invite)
	}
	return err
}

// HandedIn is the number of messages that are on their way into the database.
func (s *Service) HandedIn() int { return int(s.intake.pending.Load()) }

// draft checks what can be checked without the database.
func (s *Service) draft(in Input) (*store.Message, error) {
	h := in.Header
	if h.Type != TypeDefinition {
		if len(h.Topics) == 0 {
			h.Topics = []string{"default"}
		}
		if len(h.Topics) > maxTopics {
			return nil, errs.New("FF10227", 400, "field %q has %d entries: a message has at most %d topics", "header.topics", len(h.Topics), maxTopics)
		}
		for i, t := range h.Topics {
			if err := identity.CheckName("header.topics", t); err != nil {
				return nil, err
			}
			if slices.Contains(h.Topics[:i], t) {
				return nil, errs.New("FF10228", 400, "field %q names %q twice: give each topic once", "header.topics", t)
			}
			if t == definitionTopic {
				return nil, errs.New("FF10227", 400, "field %q holds %q, which is reserved for definitions: choose another topic", "header.topics", t)
			}
		}
		if h.Tag != "" {
			if err := identity.CheckName("header.tag", h.Tag); err != nil {
				return nil, err
			}
		}
	}
	if len(in.IdempotencyKey) > maxIdempotencyKey {
		return nil, errs.New("FF00127", 400, "field %q has %d characters: at most %d are allowed", "idempotencyKey", len(in.IdempotencyKey), maxIdempotencyKey)
	}
	m := &store.Message{
		Header: store.MessageHeader{
			ID: s.NewID(), CID: h.CID, Type: h.Type, TxType: TxBatchPin, Created: s.now(), Namespace: s.NetName,
			Topics: h.Topics, Tag: h.Tag,
		},
		LocalNamespace: s.Namespace, State: StateReady, IdempotencyKey: in.IdempotencyKey, Org: s.Self.Org,
	}
	if h.Type == TypePrivate && (h.TxType == TxUnpinned || h.TxType == "none") {
		m.Header.TxType = TxUnpinned
	}
	return m, nil
}

// author resolves who the message is from and which key signs for them: for a
// custom identity the key of its claim, while that one is valid. tx may be nil
// if the author is the organisation itself.
func (s *Service) author(tx *store.Tx, h Header, here []wire.Address) (did, key string, err error) {
	did = s.Self.DID()
	address := s.keyNow(here)
	if !s.isSelf(h.Author) {
		id, err := identity.Author(tx, s.Namespace, s.Self.Org, h.Author)
		if err != nil {
			return "", "", err
		}
		if did = id.DID; h.Type == TypeDefinition && id.Type == identity.TypeCustom {
			return "", "", errs.New("FF10206", 400, "field %q holds %q: definitions are the organisation's", "header.author", h.Author)
		}
		if signer, own := s.Network.SignerOf(id, identity.End); own {
			if h.Key == "" {
				h.Key = signer.String()
			} else if key, err := wire.ParseAddress(h.Key); err == nil && key != signer {
				return "", "", errs.New("FF10355", 400, "field %q holds %s, but %s signs for %s: leave the field out", "header.key", key, signer, did)
			}
		}
	}
	if h.Key != "" {
		if address, err = wire.ParseAddress(h.Key); err != nil {
			return "", "", errs.New("FF10354", 400, "field %q: %v", "header.key", err)
		}
		if owner, ok := s.Network.OrgOf(address, identity.End); !ok || owner != s.Self.Org {
			return "", "", errs.New("FF10355", 400, "field %q holds %s, which is no valid key of this organisation on the ledger: add it first, or leave the field out", "header.key", address)
		}
		if !slices.Contains(here, address) {
			return "", "", errs.New("FF10354", 400, "field %q holds %s, whose private key is not at this node: import it into the keys folder, or leave the field out", "header.key", address)
		}
	}
	return did, address.String(), nil
}

// SigningKey is the organisation's key that signs where a request names none.
func (s *Service) SigningKey(ctx context.Context) (wire.Address, error) {
	here, err := s.Keys.Addresses(ctx)
	return s.keyNow(here), err
}

// keyNow is the key that signs for the organisation: the configured one, or, if
// the ledger does not accept it any more, the oldest valid one whose private key
// is among those here.
func (s *Service) keyNow(here []wire.Address) wire.Address {
	valid := s.Network.ValidKeys(s.Self.Org, endPosition)
	if slices.Contains(valid, s.Self.Key) {
		return s.Self.Key
	}
	for _, k := range valid {
		if slices.Contains(here, k) {
			return k
		}
	}
	return s.Self.Key // not a member yet, or no key is here: what is signed says so
}

// seal computes the message's references, hashes and header.
func (s *Service) seal(m *store.Message, items []*store.Data) (sealed source, err error) {
	size := 0
	m.Data = make([]store.DataRef, len(items))
	commitments := make([]wire.Hash, len(items))
	for i, d := range items {
		m.Data[i] = store.DataRef{ID: d.ID, Hash: d.Hash}
		commitments[i] = d.Commitment
		size += len(d.Value)
	}
	if size > maxMessageBytes {
		return sealed, errs.New("FF10328", 400, "field %q holds %d bytes of values: at most %d are allowed; send large content as a blob", "data", size, maxMessageBytes)
	}
	if m.Header.DataHash, err = refsHash(m.Data); err != nil {
		return sealed, err
	}
	h := wire.MessageHeader{
		ID: m.Header.ID, CID: m.Header.CID, Type: m.Header.Type, Author: m.Header.Author, Key: m.Header.Key,
		Created: int64(m.Header.Created), Topics: m.Header.Topics, Tag: m.Header.Tag, Data: commitments, Salt: newSalt(),
	}
	hash, err := h.LeafHash()
	if err != nil {
		return sealed, err
	}
	m.Hash = store.Hex(hash.String())
	m.Wire, err = wire.Marshal(h)
	return source{row: m, header: &h, data: items}, err
}

// refsHash is the hash over a message's references, as existing clients see it;
// no references are an empty list at every member.
func refsHash(refs []store.DataRef) (store.Hex, error) {
	text, err := json.Marshal(append([]store.DataRef{}, refs...))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return store.Hex(hex.EncodeToString(sum[:])), nil
}
