package wire

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
)

// Bounds of a batch.
const (
	// MaxBatch is the most bytes of an encoded batch before compression. It
	// leaves room for sealing and the envelope in one exchange request of 8 MiB.
	MaxBatch      = 8<<20 - 16<<10
	MaxMessages   = 4096
	MaxData       = 16384 // data items, and definitions; also of one message
	MaxContexts   = 256   // distinct topics of all messages
	MaxTopics     = 10    // of one message
	MaxTopicBytes = 64
)

// Leaf is the batch's leaf 0.
func (h BatchHeader) Leaf() (Hash, error) { return hashValue("parley/batch", h) }

// LeafHash is the message's leaf; existing clients know it as message.hash.
func (h MessageHeader) LeafHash() (Hash, error) { return hashValue("parley/message", h) }

// Leaves are the header's leaf, then one per message.
func (b *Batch) Leaves() ([]Hash, error) { return leavesOf(b.Header, b.Messages) }

func leavesOf(header BatchHeader, messages []Message) ([]Hash, error) {
	leaves := make([]Hash, 1, 1+len(messages))
	var err error
	if leaves[0], err = header.Leaf(); err != nil {
		return nil, err
	}
	for i := range messages {
		leaf, err := messages[i].Header.LeafHash()
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		leaves = append(leaves, leaf)
	}
	return leaves, nil
}

// Root is the Merkle root over Leaves; with the author it is the batch's
// identity.
func (b *Batch) Root() (Hash, error) {
	leaves, err := b.Leaves()
	if err != nil {
		return Hash{}, err
	}
	return MerkleRoot(leaves), nil
}

// Contexts are the distinct contexts of the batch's messages, ascending: what
// the handles of its pin must unmask to.
func (b *Batch) Contexts(k Keys) []ContextID {
	seen := map[string]bool{}
	var ids []ContextID
	for i := range b.Messages {
		for _, topic := range b.Messages[i].Header.Topics {
			if !seen[topic] {
				seen[topic] = true
				ids = append(ids, k.Context(topic))
			}
		}
	}
	slices.SortFunc(ids, func(a, b ContextID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// The first byte of an encoded batch.
const (
	formPlain = 0
	formZstd  = 1
)

// compressFrom is the size below which compression does not pay.
const compressFrom = 1 << 10

// The coders are stateless and safe for concurrent use.
var (
	compressor   = newCompressor()
	decompressor = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderMaxMemory(MaxBatch), zstd.WithDecoderMaxWindow(8<<20)))
)

// newCompressor uses the encoder once, so that the channels inside it exist
// before any test bubble (testing/synctest) could claim them.
func newCompressor() *zstd.Encoder {
	e := must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest)))
	e.EncodeAll(nil, nil)
	return e
}

// Encode gives the bytes to seal: one byte for the form, then the batch as
// deterministic CBOR, compressed with zstd if it has 1 KB or more. Compression
// is not part of the batch's identity.
func (b *Batch) Encode() ([]byte, error) { return pack(b) }

// pack is Encode of a batch, or of what remains of one.
func pack(v any) ([]byte, error) {
	plain, err := Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(plain) > MaxBatch {
		return nil, fmt.Errorf("batch has %d bytes, at most %d are allowed; put fewer messages in it, or large values in a blob", len(plain), MaxBatch)
	}
	if len(plain) < compressFrom {
		return append([]byte{formPlain}, plain...), nil
	}
	return compressor.EncodeAll(plain, append(make([]byte, 0, len(plain)/2), formZstd)), nil
}

// DecodeBatch is the inverse of Encode. It is strict about the form and does
// not judge the content: see Check.
func DecodeBatch(p []byte) (*Batch, error) {
	b := new(Batch)
	if err := unpack(p, b); err != nil {
		return nil, err
	}
	for i := range b.Data {
		b.Data[i].tidy()
	}
	for i := range b.Messages {
		b.Messages[i].tidy()
	}
	return b, nil
}

// tidy undoes what the encoding does to an item: on the wire, no value is an
// empty one.
func (d *DataItem) tidy() {
	if len(d.Value) == 0 {
		d.Value = nil
	}
}

// tidy undoes what the encoding does to a message without a trace.
func (m *Message) tidy() {
	if len(m.Trace) == 0 {
		m.Trace = nil
	}
}

// unpack is the inverse of pack.
func unpack(p []byte, v any) error {
	if len(p) == 0 {
		return fmt.Errorf("batch: no bytes")
	}
	plain := p[1:]
	switch p[0] {
	case formPlain:
	case formZstd:
		var err error
		if plain, err = decompressor.DecodeAll(plain, nil); err != nil {
			return fmt.Errorf("batch: decompress (at most %d bytes): %w", MaxBatch, err)
		}
	default:
		return fmt.Errorf("batch: form %d is unknown, want %d (plain) or %d (zstd)", p[0], formPlain, formZstd)
	}
	if len(plain) > MaxBatch {
		return fmt.Errorf("batch has %d bytes, at most %d are allowed", len(plain), MaxBatch)
	}
	return Unmarshal(plain, v)
}

// Check is CheckedLeaves without its result.
func (b *Batch) Check() error {
	_, err := b.CheckedLeaves()
	return err
}

// CheckedLeaves tests everything about a batch that needs no other knowledge
// and returns its leaves, so that nothing is hashed twice. A batch that passes
// is determined by its root up to its definitions and trace contexts: each data item is in the
// commitment of a message and stands in the order of first use.
func (b *Batch) CheckedLeaves() ([]Hash, error) {
	if err := b.Header.check(); err != nil {
		return nil, fmt.Errorf("batch header: %w", err)
	}
	if n := len(b.Messages); n == 0 || n > MaxMessages {
		return nil, fmt.Errorf("batch: it has %d messages, want 1 to %d", n, MaxMessages)
	}
	if len(b.Data) > MaxData || len(b.Definitions) > MaxData {
		return nil, fmt.Errorf("batch: it has %d data items and %d definitions, at most %d of each are allowed", len(b.Data), len(b.Definitions), MaxData)
	}
	commitments, err := b.checkData()
	if err != nil {
		return nil, err
	}
	return checkMessages(b.Header, b.Messages, commitments)
}

// checkMessages tests the messages of a batch whose data items have these
// commitments, and returns the batch's leaves.
func checkMessages(header BatchHeader, messages []Message, commitments []Hash) ([]Hash, error) {
	topics := map[string]bool{}
	used := uint32(0)
	for i := range messages {
		m := &messages[i]
		if err := m.check(commitments, &used); err != nil {
			return nil, fmt.Errorf("message %d (%s): %w", i, m.Header.ID, err)
		}
		for _, t := range m.Header.Topics {
			topics[t] = true
		}
	}
	if int(used) < len(commitments) {
		return nil, fmt.Errorf("data item %d: no message uses it", used)
	}
	if len(topics) > MaxContexts {
		return nil, fmt.Errorf("batch: it has %d distinct topics, at most %d are allowed; close the batch earlier", len(topics), MaxContexts)
	}
	leaves, err := leavesOf(header, messages)
	if err != nil {
		return nil, err
	}
	seen := make(map[Hash]int, len(leaves))
	for i, leaf := range leaves[1:] {
		if first, dup := seen[leaf]; dup {
			return nil, fmt.Errorf("message %d is the same as message %d (hash %s)", i, first, leaf)
		}
		seen[leaf] = i
	}
	return leaves, nil
}

func (h *BatchHeader) check() error {
	switch {
	case h.Version != Version:
		return fmt.Errorf("protocol version is %d; this node speaks %d", h.Version, Version)
	case h.Network.IsZero():
		return fmt.Errorf("network is missing")
	case h.AuthorName == "":
		return fmt.Errorf("author name is missing")
	case !utf8.ValidString(h.AuthorName):
		return fmt.Errorf("author name %q is not valid UTF-8", h.AuthorName)
	case OrgIDOf(h.AuthorName, h.AuthorSalt) != h.Author:
		return fmt.Errorf("author %s is not the organisation %q with the salt given", h.Author, h.AuthorName)
	case h.Audience.IsZero():
		return fmt.Errorf("audience is missing")
	case h.Epoch == 0:
		return fmt.Errorf("epoch is 0; the first is 1")
	case h.Node == UUID{}:
		return fmt.Errorf("node id is zero")
	case h.ID == UUID{}:
		return fmt.Errorf("batch id is zero")
	case h.Salt.IsZero():
		return fmt.Errorf("salt is missing; it must be random")
	}
	return nil
}

// checkData checks the data items and definitions and returns the commitment of
// each item.
func (b *Batch) checkData() ([]Hash, error) {
	definitions, err := checkDefinitions(b.Definitions)
	if err != nil {
		return nil, err
	}
	commitments := make([]Hash, len(b.Data))
	ids := make(map[UUID]bool, len(b.Data))
	for i := range b.Data {
		if commitments[i], err = b.Data[i].check(i, ids, definitions); err != nil {
			return nil, err
		}
	}
	return commitments, nil
}

// checkDefinitions tests the definitions of a batch and returns their hashes.
func checkDefinitions(list []Definition) (map[Hash]bool, error) {
	definitions := make(map[Hash]bool, len(list))
	for i, d := range list {
		h := d.Hash()
		if d.Kind == "" || len(d.Body) == 0 {
			return nil, fmt.Errorf("definition %d: kind or body is empty", i)
		}
		if definitions[h] {
			return nil, fmt.Errorf("definition %d (%s) occurs twice", i, h)
		}
		if !utf8.ValidString(d.Kind) {
			return nil, fmt.Errorf("definition %d: kind %q is not valid UTF-8", i, d.Kind)
		}
		definitions[h] = true
	}
	return definitions, nil
}

// check tests data item i of a batch, whose earlier items have ids, and returns
// its commitment.
func (d *DataItem) check(i int, ids map[UUID]bool, definitions map[Hash]bool) (Hash, error) {
	switch {
	case d.ID == UUID{}:
		return Hash{}, fmt.Errorf("data item %d: id is zero", i)
	case ids[d.ID]:
		return Hash{}, fmt.Errorf("data item %d: id %s occurs twice", i, d.ID)
	case d.Seed.IsZero():
		return Hash{}, fmt.Errorf("data item %d (%s): seed is missing; it must be random", i, d.ID)
	case d.Datatype != nil && !definitions[d.Datatype.Hash]:
		return Hash{}, fmt.Errorf("data item %d (%s): the batch does not carry the definition %s of datatype %s %s; add it to the batch",
			i, d.ID, d.Datatype.Hash, d.Datatype.Name, d.Datatype.Version)
	case d.Blob != nil && d.Blob.Size < 0:
		return Hash{}, fmt.Errorf("data item %d (%s): blob size is %d", i, d.ID, d.Blob.Size)
	}
	for _, text := range d.texts() {
		if !utf8.ValidString(text) {
			return Hash{}, fmt.Errorf("data item %d (%s): %q is not valid UTF-8", i, d.ID, text)
		}
	}
	ids[d.ID] = true
	c, err := d.Commitment()
	if err != nil {
		return Hash{}, fmt.Errorf("data item %d (%s): %w", i, d.ID, err)
	}
	return c, nil
}

// texts are the item's text fields. Invalid UTF-8 in one of them would be
// encoded, but no receiver could decode it.
func (d *DataItem) texts() []string {
	texts := []string{d.Validator}
	if d.Datatype != nil {
		texts = append(texts, d.Datatype.Name, d.Datatype.Version)
	}
	if d.Blob != nil {
		texts = append(texts, d.Blob.Name, d.Blob.Path)
	}
	return texts
}

// check tests a message against the commitments of the batch's items. used is
// how many items the messages before it have named.
func (m *Message) check(commitments []Hash, used *uint32) error {
	h := &m.Header
	switch {
	case h.ID == UUID{}:
		return fmt.Errorf("id is zero")
	case h.CID != nil && *h.CID == UUID{}:
		return fmt.Errorf("cid is zero; leave it out instead")
	case h.Type == "":
		return fmt.Errorf("type is missing")
	case h.Author == "":
		return fmt.Errorf("author is missing")
	case h.Salt.IsZero():
		return fmt.Errorf("salt is missing; it must be random")
	case len(h.Topics) == 0 || len(h.Topics) > MaxTopics:
		return fmt.Errorf("it has %d topics, want 1 to %d", len(h.Topics), MaxTopics)
	case len(m.Data) != len(h.Data):
		return fmt.Errorf("it names %d data items and commits to %d", len(m.Data), len(h.Data))
	case len(m.Trace) != 0 && len(m.Trace) != TraceBytes:
		return fmt.Errorf("its trace context has %d bytes, want %d or none", len(m.Trace), TraceBytes)
	case len(m.Data) > MaxData:
		return fmt.Errorf("it names %d data items, at most %d are allowed", len(m.Data), MaxData)
	}
	for _, text := range [...]string{h.Type, h.Author, h.Key, h.Tag} {
		if !utf8.ValidString(text) {
			return fmt.Errorf("%q is not valid UTF-8", text)
		}
	}
	for i, t := range h.Topics {
		if t == "" || len(t) > MaxTopicBytes || !utf8.ValidString(t) {
			return fmt.Errorf("topic %q has %d bytes, want 1 to %d of valid UTF-8", t, len(t), MaxTopicBytes)
		}
		if slices.Contains(h.Topics[:i], t) {
			return fmt.Errorf("topic %q occurs twice", t)
		}
	}
	for i, at := range m.Data {
		if int64(at) >= int64(len(commitments)) {
			return fmt.Errorf("data %d is item %d of the batch, which has %d", i, at, len(commitments))
		}
		if at > *used {
			return fmt.Errorf("data %d is item %d of the batch, but item %d is not used before it; list items in the order of first use", i, at, *used)
		}
		if at == *used {
			*used++
		}
		if commitments[at] != h.Data[i] {
			return fmt.Errorf("data %d commits to %s, but item %d of the batch has the commitment %s", i, h.Data[i], at, commitments[at])
		}
	}
	return nil
}
