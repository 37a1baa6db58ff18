package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// A value that is JSON is committed to field by field, so that one field can be
// shown later by its own salt. A value that cannot be taken apart without doubt
// is committed to as a whole (one leaf). These are its reasons, besides
// duplicate keys, invalid UTF-8 and numbers that are not exact in IEEE 754:
const (
	MaxFields     = 4096 // more leaves
	maxFieldDepth = 64   // deeper nesting
	maxFieldPath  = 512  // a longer encoded path; bounds the work per byte of input
)

// itemHead is the part of a data item that is neither value nor blob.
type itemHead struct {
	_         struct{} `cbor:",toarray"`
	ID        UUID
	Validator string
	Datatype  *DatatypeRef
}

// itemHashes are the four parts of a commitment. Each is salted by the seed, or
// zero if the item has no such part.
type itemHashes struct {
	_      struct{} `cbor:",toarray"`
	Head   Hash
	Fields Hash // Merkle root over the leaves of the value, by ascending path
	Exact  Hash // the value's exact bytes
	Blob   Hash
}

func (h itemHashes) commitment() Hash {
	return HashOf("parley/data", h.Head[:], h.Fields[:], h.Exact[:], h.Blob[:])
}

// Commitment is the hash that a message header holds for the item. It covers
// every field of it: each leaf of the value, the exact bytes, id, validator,
// datatype and blob. An error means that Value is not JSON.
func (d *DataItem) Commitment() (Hash, error) {
	h, _, err := d.hashes()
	if err != nil {
		return Hash{}, err
	}
	return h.commitment(), nil
}

func (d *DataItem) hashes() (h itemHashes, leaves []field, err error) {
	head, err := Marshal(itemHead{ID: d.ID, Validator: d.Validator, Datatype: d.Datatype})
	if err != nil {
		return h, nil, err
	}
	salt := macOf(d.Seed, "parley/salt/item")
	h.Head = HashOf("parley/item", salt[:], head)
	if d.Blob != nil {
		h.Blob = d.Blob.Commitment(d.Seed)
	}
	if len(d.Value) == 0 {
		return h, nil, nil
	}
	salt = macOf(d.Seed, "parley/salt/exact")
	h.Exact = HashOf("parley/exact", salt[:], d.Value)
	if leaves, err = fieldsOf(d.Value); err != nil {
		return h, nil, err
	}
	h.Fields = MerkleRoot(fieldHashes(d.Seed, leaves))
	return h, leaves, nil
}

// field is one leaf of a value. whole marks a value that is one leaf because it
// could not be taken apart; then text is its exact bytes.
type field struct {
	path  []byte // deterministic CBOR array of texts and indices
	text  []byte // RFC 8785
	whole bool
}

func fieldHashes(seed Hash, fields []field) []Hash {
	hashes := make([]Hash, len(fields))
	for i, f := range fields {
		hashes[i] = f.hash(fieldSalt(seed, f.path))
	}
	return hashes
}

func fieldSalt(seed Hash, path []byte) Hash { return macOf(seed, "parley/salt/field", path) }

func (f field) hash(salt Hash) Hash {
	if f.whole {
		return HashOf("parley/whole", salt[:], f.path, f.text)
	}
	return HashOf("parley/field", salt[:], f.path, f.text)
}

// errWhole: the value is JSON, but must be one leaf.
var errWhole = errors.New("not separable")

// fieldsOf takes a JSON value apart into leaves by ascending path. Empty objects
// and arrays are leaves.
func fieldsOf(value []byte) ([]field, error) {
	s := fieldScanner{dec: jsontext.NewDecoder(bytes.NewBuffer(value))}
	err := s.value()
	if err == nil && !s.atEnd() {
		err = errWhole
	}
	if err == nil {
		slices.SortFunc(s.fields, func(a, b field) int { return bytes.Compare(a.path, b.path) })
		return s.fields, nil
	}
	lenient := []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}
	if !jsontext.Value(value).IsValid(lenient...) {
		return nil, fmt.Errorf("value of %d bytes is not JSON: %w", len(value), err)
	}
	return []field{{path: appendHead(nil, majorArray, 0), text: value, whole: true}}, nil
}

// fieldScanner walks a JSON text. elements holds the encoded elements of the
// current path.
type fieldScanner struct {
	dec      *jsontext.Decoder
	elements []byte
	depth    int
	fields   []field
}

func (s *fieldScanner) atEnd() bool {
	_, err := s.dec.ReadToken()
	return errors.Is(err, io.EOF)
}

func (s *fieldScanner) value() error {
	kind := s.dec.PeekKind()
	if kind != '{' && kind != '[' {
		raw, err := s.dec.ReadValue()
		if err != nil {
			return err
		}
		text, err := canonicalScalar(kind, raw)
		if err != nil {
			return err
		}
		return s.leaf(text)
	}
	if _, err := s.dec.ReadToken(); err != nil {
		return err
	}
	if s.depth++; s.depth > maxFieldDepth {
		return errWhole
	}
	outer, count := len(s.elements), uint64(0)
	for ; s.dec.PeekKind() != kind+2; count++ { // } is { + 2, ] is [ + 2
		if kind == '{' {
			name, err := s.dec.ReadToken()
			if err != nil {
				return err
			}
			text := name.String()
			s.elements = append(appendHead(s.elements, majorText, uint64(len(text))), text...)
		} else {
			s.elements = appendHead(s.elements, majorUint, count)
		}
		if err := s.value(); err != nil {
			return err
		}
		s.elements = s.elements[:outer]
	}
	if _, err := s.dec.ReadToken(); err != nil {
		return err
	}
	s.depth--
	if count == 0 {
		return s.leaf([]byte{byte(kind), byte(kind + 2)})
	}
	return nil
}

func (s *fieldScanner) leaf(text []byte) error {
	path := make([]byte, 0, 2+len(s.elements))
	path = append(appendHead(path, majorArray, uint64(s.depth)), s.elements...)
	if len(path) > maxFieldPath || len(s.fields) == MaxFields {
		return errWhole
	}
	s.fields = append(s.fields, field{path: path, text: text})
	return nil
}

// canonicalScalar is the RFC 8785 text of a string, number or literal, in
// memory of its own. A number must be exactly what RFC 8785 makes of it.
func canonicalScalar(kind jsontext.Kind, raw jsontext.Value) ([]byte, error) {
	text := raw.Clone()
	switch kind {
	case '"':
		if !bytes.ContainsRune(text, '\\') {
			return text, nil // nothing to unescape: this is the canonical form
		}
	case '0':
		if len(text) <= 15 && text[0] != '-' && bytes.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' }) < 0 {
			return text, nil // an integer below 10^15
		}
	default:
		return text, nil
	}
	if err := text.Canonicalize(); err != nil {
		return nil, err
	}
	if kind == '0' && !sameNumber(raw, text) {
		return nil, errWhole
	}
	return text, nil
}

// sameNumber reports whether two JSON numbers denote the same decimal.
func sameNumber(a, b []byte) bool {
	an, ad, ae := decimal(a)
	bn, bd, be := decimal(b)
	return an == bn && ae == be && bytes.Equal(ad, bd)
}

// decimal takes a JSON number apart: digits without leading and trailing zeros,
// and the power of ten of the last digit. Zero has no digits and no sign.
func decimal(text []byte) (negative bool, digits []byte, exponent int64) {
	if negative = text[0] == '-'; negative {
		text = text[1:]
	}
	if e := bytes.IndexAny(text, "eE"); e >= 0 {
		exponent = exponentOf(text[e+1:])
		text = text[:e]
	}
	if dot := bytes.IndexByte(text, '.'); dot >= 0 {
		exponent -= int64(len(text) - dot - 1)
		text = slices.Concat(text[:dot], text[dot+1:])
	}
	digits = bytes.TrimLeft(text, "0")
	if len(digits) == 0 {
		return false, nil, 0
	}
	kept := bytes.TrimRight(digits, "0")
	return negative, kept, exponent + int64(len(digits)-len(kept))
}

// exponentOf reads the part after e; beyond ±10^9 it only needs to differ from
// every exponent of a finite number.
func exponentOf(text []byte) (n int64) {
	negative := text[0] == '-'
	for _, c := range bytes.TrimLeft(text, "+-") {
		if n = n*10 + int64(c-'0'); n > 1e9 {
			n = 1e9
			break
		}
	}
	if negative {
		return -n
	}
	return n
}

// FieldProof shows one field of a data item and proves it against the item's
// commitment. It reveals the field, its rank among the fields and their number,
// and nothing else.
type FieldProof struct {
	_      struct{} `cbor:",toarray"`
	Path   []any    // texts and indices from the outside in; none for a value of one leaf
	Whole  bool     // the value could not be taken apart; Value is its exact bytes
	Value  []byte   // RFC 8785 text
	Salt   Hash
	Index  uint32
	Fields uint32
	Proof  []Hash // inclusion of field Index among Fields
	Head   Hash   // the other parts of the commitment
	Exact  Hash
	Blob   Hash
}

// ProveField makes the proof for the field at a path of texts (object keys) and
// integers (array indices). Of a value that is one leaf, only the empty path
// exists.
func (d *DataItem) ProveField(path []any) (FieldProof, error) {
	want, err := encodePath(path)
	if err != nil {
		return FieldProof{}, err
	}
	h, fields, err := d.hashes()
	if err != nil {
		return FieldProof{}, err
	}
	i, ok := slices.BinarySearchFunc(fields, want, func(f field, p []byte) int { return bytes.Compare(f.path, p) })
	if !ok {
		return FieldProof{}, fmt.Errorf("data item %s has no field at path %v (only strings, numbers, literals, empty objects and empty arrays are fields; a value with duplicate keys, inexact numbers or more than %d fields is one field at the empty path)", d.ID, path, MaxFields)
	}
	f := fields[i]
	proof := FieldProof{
		Whole: f.whole, Value: f.text, Salt: fieldSalt(d.Seed, f.path),
		Index: uint32(i), Fields: uint32(len(fields)), Proof: MerkleProof(fieldHashes(d.Seed, fields), i),
		Head: h.Head, Exact: h.Exact, Blob: h.Blob,
	}
	// The decoded form, so that a proof equals itself after a round trip.
	return proof, Unmarshal(f.path, &proof.Path)
}

// Verify checks the proof against an item's commitment.
func (p FieldProof) Verify(commitment Hash) error {
	path, err := encodePath(p.Path)
	if err != nil {
		return err
	}
	if p.Whole && len(p.Path) > 0 {
		return fmt.Errorf("field proof: path is %v, but a whole value has none", p.Path)
	}
	if p.Fields == 0 || p.Fields > MaxFields || p.Index >= p.Fields {
		return fmt.Errorf("field proof: field %d of %d, at most %d are possible", p.Index, p.Fields, MaxFields)
	}
	leaf := field{path: path, text: p.Value, whole: p.Whole}.hash(p.Salt)
	root, ok := climb(merkleLeaf(leaf), int(p.Index), int(p.Fields), p.Proof)
	if !ok {
		return fmt.Errorf("field proof: %d hashes are the wrong number for field %d of %d", len(p.Proof), p.Index, p.Fields)
	}
	got := itemHashes{Head: p.Head, Fields: root, Exact: p.Exact, Blob: p.Blob}.commitment()
	if got != commitment {
		return fmt.Errorf("field proof: it leads to the commitment %s, not to %s", got, commitment)
	}
	return nil
}

// encodePath encodes a path of texts and non-negative integers. A float64 that
// is an integer is accepted too: that is how encoding/json decodes an index.
func encodePath(path []any) ([]byte, error) {
	if len(path) > maxFieldDepth {
		return nil, fmt.Errorf("path has %d elements, at most %d are possible", len(path), maxFieldDepth)
	}
	b := appendHead(nil, majorArray, uint64(len(path)))
	for i, e := range path {
		switch e := e.(type) {
		case string:
			b = append(appendHead(b, majorText, uint64(len(e))), e...)
			continue
		case uint64:
			b = appendHead(b, majorUint, e)
			continue
		case int:
			if e >= 0 {
				b = appendHead(b, majorUint, uint64(e))
				continue
			}
		case float64:
			if e >= 0 && e < 1<<53 && e == math.Trunc(e) {
				b = appendHead(b, majorUint, uint64(e))
				continue
			}
		}
		return nil, fmt.Errorf("path element %d is %v (%T), want a text or a non-negative index", i, e, e)
	}
	return b, nil
}
