package wire

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// What becomes of a batch whose data is erased, and how members ask each other
// to erase. A commitment is salted by its item's seed; once seed and value are
// destroyed, it neither shows nor can be used to test what it committed to, and
// the batch's leaves and root stay what they were.

// Remnant is what is left of a batch when some of its data was erased: served,
// sealed and stored in the place of the batch (object part "remnant"), under
// the same root.
//
// Whether a message conforms to its datatypes cannot be seen from a remnant.
// Each receipt says it (Receipt.Faults), so a certificate of receipts that agree
// with Faults stands for what is gone: the remnant carries it, and who never had
// the data gives the same verdict as who had.
type Remnant struct {
	_           struct{} `cbor:",toarray"`
	Header      BatchHeader
	Messages    []Message
	Data        []Remains    // one for each item of the batch, in its order
	Definitions []Definition // that the items which are kept name
	Faults      []uint32     // messages whose data did not conform to their datatypes, ascending
	Sealed      Hash         // SealedHash of the batch as it was sealed first
	Receipts    []Receipt    // a certificate that agrees with Faults; none of a batch that nobody judges any more
}

// Remains is a data item of a remnant: as it was, or erased.
type Remains struct {
	_      struct{} `cbor:",toarray"`
	Item   *DataItem
	Erased *ErasedItem
}

// ErasedItem is what is left of a data item: its commitment, and its id, which
// applications have seen.
type ErasedItem struct {
	_          struct{} `cbor:",toarray"`
	ID         UUID
	Commitment Hash
}

// FaultsHash is what a receipt says of the messages of a batch whose data do not
// conform to their datatypes, given by their indices in ascending order; zero if
// there are none.
func FaultsHash(indices []uint32) (Hash, error) {
	if len(indices) == 0 {
		return Hash{}, nil
	}
	return hashValue("parley/faults", indices)
}

// Remnant is the batch as a remnant from which nothing is erased yet. faults are
// as in Remnant, sealed names the batch's sealed bytes.
func (b *Batch) Remnant(faults []uint32, sealed Hash) *Remnant {
	r := &Remnant{Header: b.Header, Messages: b.Messages, Definitions: b.Definitions, Faults: faults, Sealed: sealed}
	for i := range b.Data {
		r.Data = append(r.Data, Remains{Item: &b.Data[i]})
	}
	return r
}

// Erase drops the items with these commitments, and the definitions that only
// they name. It returns how many items it dropped.
func (r *Remnant) Erase(commitments []Hash) (erased int) {
	of := map[uint32]Hash{} // the commitment of each item, as the messages say it
	for i := range r.Messages {
		for k, at := range r.Messages[i].Data {
			of[at] = r.Messages[i].Header.Data[k]
		}
	}
	named := map[Hash]bool{}
	for i := range r.Data {
		d := &r.Data[i]
		if c := of[uint32(i)]; d.Item != nil && slices.Contains(commitments, c) {
			d.Item, d.Erased = nil, &ErasedItem{ID: d.Item.ID, Commitment: c}
			erased++
		}
		if d.Item != nil && d.Item.Datatype != nil {
			named[d.Item.Datatype.Hash] = true
		}
	}
	r.Definitions = slices.DeleteFunc(slices.Clone(r.Definitions), func(d Definition) bool { return !named[d.Hash()] })
	return erased
}

// Erased reports whether an item of message i is erased.
func (r *Remnant) Erased(i int) bool {
	return slices.ContainsFunc(r.Messages[i].Data, func(at uint32) bool { return r.Data[at].Erased != nil })
}

// Encode gives the bytes to seal, in the form of Batch.Encode.
func (r *Remnant) Encode() ([]byte, error) { return pack(r) }

// DecodeRemnant is the inverse of Encode. It does not judge the content: see
// CheckedLeaves.
func DecodeRemnant(p []byte) (*Remnant, error) {
	r := new(Remnant)
	if err := unpack(p, r); err != nil {
		return nil, err
	}
	for i := range r.Data {
		if d := r.Data[i].Item; d != nil {
			d.tidy()
		}
	}
	for i := range r.Messages {
		r.Messages[i].tidy()
	}
	return r, nil
}

// CheckedLeaves tests all that Batch.CheckedLeaves tests and that can still be
// tested, and returns the leaves, which are those of the batch.
func (r *Remnant) CheckedLeaves() ([]Hash, error) {
	if err := r.Header.check(); err != nil {
		return nil, fmt.Errorf("batch header: %w", err)
	}
	if n := len(r.Messages); n == 0 || n > MaxMessages {
		return nil, fmt.Errorf("remnant: it has %d messages, want 1 to %d", n, MaxMessages)
	}
	if len(r.Data) > MaxData || len(r.Definitions) > MaxData {
		return nil, fmt.Errorf("remnant: it has %d data items and %d definitions, at most %d of each are allowed", len(r.Data), len(r.Definitions), MaxData)
	}
	if r.Sealed.IsZero() {
		return nil, fmt.Errorf("remnant: the hash of the sealed batch is missing")
	}
	said, err := FaultsHash(r.Faults)
	if err != nil {
		return nil, err
	}
	if len(r.Receipts) > MaxMembers {
		return nil, fmt.Errorf("remnant: it has %d receipts, at most %d are allowed", len(r.Receipts), MaxMembers)
	}
	for i := range r.Receipts {
		if x := &r.Receipts[i]; x.Faults != said {
			return nil, fmt.Errorf("remnant: the receipt of %s says otherwise about the contents", x.Org.Short())
		}
	}
	for i, at := range r.Faults {
		if int64(at) >= int64(len(r.Messages)) || i > 0 && r.Faults[i-1] >= at {
			return nil, fmt.Errorf("remnant: faults are not ascending numbers of its %d messages at %d", len(r.Messages), i)
		}
	}
	definitions, err := checkDefinitions(r.Definitions)
	if err != nil {
		return nil, err
	}
	commitments := make([]Hash, len(r.Data))
	ids := make(map[UUID]bool, len(r.Data))
	erased := 0
	for i := range r.Data {
		d := &r.Data[i]
		switch {
		case (d.Item == nil) == (d.Erased == nil):
			return nil, fmt.Errorf("data item %d: it must be either kept or erased", i)
		case d.Item != nil:
			if commitments[i], err = d.Item.check(i, ids, definitions); err != nil {
				return nil, err
			}
		case d.Erased.ID == UUID{} || ids[d.Erased.ID]:
			return nil, fmt.Errorf("data item %d: id %s is zero or occurs twice", i, d.Erased.ID)
		default:
			commitments[i], ids[d.Erased.ID] = d.Erased.Commitment, true
			erased++
		}
	}
	if erased == 0 {
		return nil, fmt.Errorf("remnant: nothing of it is erased; it must be sent as the batch that it is")
	}
	return checkMessages(r.Header, r.Messages, commitments)
}

// MaxReason is the most bytes of the reason of an erasure or its refusal.
const MaxReason = 512

// Erasure is the signed request of a batch's author that the other members erase
// data of it (exchange kind "erase"; the answer is nothing: an ErasureAnswer
// comes by itself when it is decided).
type Erasure struct {
	_         struct{} `cbor:",toarray"`
	Version   uint
	Network   Hash
	Org       OrgID // the author
	Audience  Hash
	Root      Hash   // of a pinned batch; of an unpinned one its Digest
	Items     []Hash // commitments of the data items, ascending
	Reason    string
	At        int64 // nanoseconds since 1970 UTC
	Signature Signature
}

// Digest names the request, and is what Signature signs: all other fields.
func (e Erasure) Digest() (Hash, error) {
	return hashValue("parley/erasure", struct {
		_        struct{} `cbor:",toarray"`
		Version  uint
		Network  Hash
		Org      OrgID
		Audience Hash
		Root     Hash
		Items    []Hash
		Reason   string
		At       int64
	}{Version: e.Version, Network: e.Network, Org: e.Org, Audience: e.Audience, Root: e.Root, Items: e.Items, Reason: e.Reason, At: e.At})
}

// Signer is the address that signed the request. Whose key it is, only the
// ledger knows.
func (e Erasure) Signer() (Address, error) {
	digest, err := e.Digest()
	if err != nil {
		return Address{}, err
	}
	return RecoverAddress(digest, e.Signature)
}

// Check tests everything about a request that needs no other knowledge.
func (e Erasure) Check() error {
	switch {
	case e.Version != Version:
		return fmt.Errorf("erasure: protocol version is %d; this node speaks %d", e.Version, Version)
	case e.Network.IsZero() || e.Org.IsZero() || e.Audience.IsZero() || e.Root.IsZero():
		return fmt.Errorf("erasure: network, organisation, audience or root is missing")
	case len(e.Items) == 0 || len(e.Items) > MaxData:
		return fmt.Errorf("erasure: it names %d data items, want 1 to %d", len(e.Items), MaxData)
	}
	for i := 1; i < len(e.Items); i++ {
		if compareHash(e.Items[i-1], e.Items[i]) >= 0 {
			return fmt.Errorf("erasure: its items are not ascending and distinct at %d", i)
		}
	}
	return checkReason("erasure", e.Reason)
}

func checkReason(what, reason string) error {
	if len(reason) > MaxReason || !utf8.ValidString(reason) {
		return fmt.Errorf("%s: the reason has %d bytes, want at most %d of valid UTF-8", what, len(reason), MaxReason)
	}
	return nil
}

// ErasureAnswer is a member's signed answer to a request (exchange kind
// "erased"): the receipt that it has erased the data, or why it will not.
type ErasureAnswer struct {
	_         struct{} `cbor:",toarray"`
	Version   uint
	Network   Hash
	Org       OrgID // who answers
	Request   Hash  // Erasure.Digest
	Erased    bool
	Reason    string // of a refusal
	At        int64  // when it was erased or refused, nanoseconds since 1970 UTC
	Signature Signature
}

// Digest is what Signature signs: all other fields.
func (a ErasureAnswer) Digest() (Hash, error) {
	return hashValue("parley/erasure answer", struct {
		_       struct{} `cbor:",toarray"`
		Version uint
		Network Hash
		Org     OrgID
		Request Hash
		Erased  bool
		Reason  string
		At      int64
	}{Version: a.Version, Network: a.Network, Org: a.Org, Request: a.Request, Erased: a.Erased, Reason: a.Reason, At: a.At})
}

// Signer is the address that signed the answer.
func (a ErasureAnswer) Signer() (Address, error) {
	digest, err := a.Digest()
	if err != nil {
		return Address{}, err
	}
	return RecoverAddress(digest, a.Signature)
}

// Check tests everything about an answer that needs no other knowledge.
func (a ErasureAnswer) Check() error {
	switch {
	case a.Version != Version:
		return fmt.Errorf("erasure answer: protocol version is %d; this node speaks %d", a.Version, Version)
	case a.Network.IsZero() || a.Org.IsZero() || a.Request.IsZero():
		return fmt.Errorf("erasure answer: network, organisation or request is missing")
	case a.Erased && a.Reason != "":
		return fmt.Errorf("erasure answer: it has a reason %q, which only a refusal has", a.Reason)
	case !a.Erased && a.Reason == "":
		return fmt.Errorf("erasure answer: a refusal without a reason")
	}
	return checkReason("erasure answer", a.Reason)
}

// Batch is the remnant in the form of a batch, for who reads both alike: an item
// that is erased has its id and nothing else. It does not pass Batch.Check.
func (r *Remnant) Batch() *Batch {
	b := &Batch{Header: r.Header, Messages: r.Messages, Definitions: r.Definitions, Data: make([]DataItem, len(r.Data))}
	for i := range r.Data {
		if d := &r.Data[i]; d.Item != nil {
			b.Data[i] = *d.Item
		} else {
			b.Data[i].ID = d.Erased.ID
		}
	}
	return b
}
