package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// keysOf are the keys of an epoch; nil if its secret is not here.
func (c *checker) keysOf(audience wire.Hash, number uint64) (*wire.Keys, error) {
	epochs, err := c.tx.Epochs(audience)
	if err != nil {
		return nil, err
	}
	for i := range epochs {
		if e := &epochs[i]; e.Epoch == number && e.Secret != nil {
			keys := e.Secret.Keys()
			return &keys, nil
		}
	}
	return nil, nil
}

// content is a stored batch as it was opened.
type content struct {
	*wire.Batch                // an erased item of it has an id and nothing else
	remnant     *wire.Remnant  // what it was made from, if something of it is erased
	unpinned    *wire.Unpinned // what it came in, if it is not pinned
}

// erased tells whether data of a message is erased.
func (b *content) erased(i int) bool { return b.remnant != nil && b.remnant.Erased(i) }

// gone tells whether an item is erased.
func (b *content) gone(at uint32) bool { return b.remnant != nil && b.remnant.Data[at].Erased != nil }

// decode opens a stored batch and tests that it is what its row says.
func (c *checker) decode(row *store.BatchRow, keys *wire.Keys) (*content, error) {
	var env wire.Envelope
	b := &content{}
	if row.Tx.Type == "unpinned" {
		b.unpinned = new(wire.Unpinned)
		if err := wire.Unmarshal(row.Envelope, b.unpinned); err != nil {
			return nil, err
		}
		env = b.unpinned.Envelope
	} else if err := wire.Unmarshal(row.Envelope, &env); err != nil {
		return nil, err
	}
	plain, err := keys.OpenPayload(env.Author, env.Root, env.Sealed)
	if err != nil {
		return nil, err
	}
	sealed := wire.SealedHash(env.Sealed)
	var leaves []wire.Hash
	if row.Erased == nil {
		if b.Batch, err = wire.DecodeBatch(plain); err == nil {
			leaves, err = b.CheckedLeaves()
		}
	} else if b.remnant, err = wire.DecodeRemnant(plain); err == nil {
		if leaves, err = b.remnant.CheckedLeaves(); err == nil {
			b.Batch, sealed = b.remnant.Batch(), b.remnant.Sealed
		}
	}
	if err != nil {
		return nil, err
	}
	known := env.Root // what the batch is filed under: a pinned one its root, another the digest that was signed
	if b.unpinned != nil {
		if known, err = b.unpinned.DigestOf(sealed); err != nil {
			return nil, err
		}
	}
	if env.Author != row.Org || env.Audience != row.Audience || env.Epoch != row.Epoch || known != row.Root {
		return nil, fmt.Errorf("the envelope is of epoch %d of audience %s and known as %s", env.Epoch, env.Audience.Short(), known.Short())
	}
	if root := wire.MerkleRoot(leaves); root != env.Root {
		return nil, fmt.Errorf("the content has the root %s", root.Short())
	}
	h := &b.Header
	if h.Network != c.Network || h.Author != row.Org || h.Audience != row.Audience || h.Epoch != row.Epoch {
		return nil, fmt.Errorf("the content was sealed for another network, author, audience or epoch")
	}
	return b, nil
}

// batches compares each stored batch with its payload, and its messages and
// data with both.
func (c *checker) batches(r *replay) error {
	var after int64
	for {
		type name struct {
			seq  int64
			root wire.Hash
			org  wire.OrgID
		}
		names, err := all(c.tx, func(rows *store.Rows, n *name) error { return rows.Scan(&n.seq, &n.root, &n.org) },
			`SELECT seq, root, org FROM batches WHERE seq > $1 ORDER BY seq LIMIT $2`, after, page)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, n := range names {
			after = n.seq
			row, err := c.tx.BatchByRoot(n.org, n.root)
			if err != nil {
				return err
			}
			if err := c.batch(r, row); err != nil {
				return err
			}
		}
	}
}

func (c *checker) batch(r *replay, row *store.BatchRow) error {
	c.sum.Batches++
	where := "batch " + row.ID.String()
	if err := c.batchState(r, row, where); err != nil {
		return err
	}
	if row.State == store.BatchDropped {
		return nil // its messages went into another batch, and its payload is not kept
	}
	keys, err := c.keysOf(row.Audience, row.Epoch)
	if err != nil {
		return err
	}
	if keys == nil {
		c.differ(Batch, where, fmt.Sprintf("of epoch %d of audience %s", row.Epoch, row.Audience.Short()), "no such epoch here", restore)
		return nil
	}
	b, err := c.decode(row, keys)
	if err != nil {
		c.differ(Batch, where, "payload with root "+row.Root.Short(), err, refetch)
		return nil
	}
	equal(c, Batch, where, fmt.Sprintf("id %s by %s, created %d", row.ID, row.AuthorName, row.Created), fmt.Sprintf("id %s by %s, created %d", b.Header.ID, b.Header.AuthorName, b.Header.Created), rebuild)
	messages, err := c.tx.MessagesOfBatch(row.Root, row.Org)
	if err != nil {
		return err
	}
	if len(messages) != len(b.Messages) {
		c.differ(Message, "messages of "+where, fmt.Sprintf("%d rows", len(messages)), fmt.Sprintf("%d in the payload", len(b.Messages)), refetch)
		return nil
	}
	for i, m := range messages {
		if cancelled := row.State == store.BatchCancelled; cancelled != (m.State == "cancelled") {
			c.differ(Message, "message "+m.Header.ID.String(), m.State, "cancelled exactly if its batch is, which is "+row.State, rebuild)
		}
		if err := c.message(row, b, i, m); err != nil {
			return err
		}
	}
	return nil
}

// batchState tests a batch's state against its pins.
func (c *checker) batchState(r *replay, row *store.BatchRow, where string) error {
	if row.Tx.Type == "unpinned" {
		equal(c, Batch, where, row.State, store.BatchDone, rebuild)
		return nil
	}
	pins, err := c.tx.PinsOfBatch(row.Org, row.Root)
	if err != nil {
		return err
	}
	decided, open := false, false
	for _, p := range pins {
		decided = decided || p.State == store.PinDone
		open = open || p.State == store.PinOpen
	}
	bad := func(want string) { c.differ(Batch, where, row.State, want, rebuild) }
	switch row.State {
	case store.BatchDone:
		if !decided {
			bad("undecided: no pin of it is done")
		}
	case store.BatchDropped, store.BatchCancelled:
		if decided || open {
			bad("pinned")
		}
	case store.BatchHeld:
		if decided || row.Own {
			bad("done")
		}
	case store.BatchCollecting:
		if decided || open || !row.Own {
			bad("pinned")
		}
	case store.BatchPinning:
		calls, err := count(c.tx, `SELECT COUNT(*) FROM submissions WHERE root = $1 AND purpose = 'pin' AND state IN ('queued', 'signed', 'final')`, row.Root)
		if err != nil {
			return err
		}
		if decided || !open && calls == 0 || !row.Own {
			bad("not on its way: no ledger call carries it")
		}
	default:
		bad("one of collecting, pinning, held, done, dropped, cancelled")
	}
	return nil
}

// message compares a message's row with the payload.
func (c *checker) message(row *store.BatchRow, b *content, i int, m *store.Message) error {
	h := &b.Messages[i].Header
	where := "message " + h.ID.String()
	encoded, err := wire.Marshal(*h)
	if err != nil {
		return err
	}
	hash, err := h.LeafHash()
	if err != nil {
		return err
	}
	group := ""
	if row.Audience != c.Network {
		group = row.Audience.String()
	}
	var cid, tx, batch string
	if h.CID != nil {
		cid = h.CID.String()
	}
	stored := []string{
		m.Header.ID.String(), text(m.Header.CID), m.Header.Type, m.Header.Author, m.Header.Key, fmt.Sprint(int64(m.Header.Created)), strings.Join(m.Header.Topics, ","),
		m.Header.Tag, string(m.Hash), string(m.Header.Group), m.Audience.String(), m.Org.String(), text(m.Batch), text(m.TxID), m.Header.TxType, hex.EncodeToString(m.Wire),
	}
	batch, tx = b.Header.ID.String(), text(row.Tx.ID)
	want := []string{
		h.ID.String(), cid, h.Type, h.Author, h.Key, fmt.Sprint(h.Created), strings.Join(h.Topics, ","),
		h.Tag, hash.String(), group, row.Audience.String(), row.Org.String(), batch, tx, row.Tx.Type, hex.EncodeToString(encoded),
	}
	names := []string{"id", "cid", "type", "author", "key", "created", "topics", "tag", "hash", "group", "audience", "organisation", "batch", "transaction", "transaction type", "header"}
	for k := range want {
		equal(c, Message, where+" "+names[k], stored[k], want[k], refetch)
	}
	return c.dataOf(b, i, m, where)
}

func text(id *wire.UUID) string {
	if id == nil {
		return ""
	}
	return id.String()
}

// dataOf compares a message's references and linked rows with the payload.
func (c *checker) dataOf(b *content, i int, m *store.Message, where string) error {
	linked, err := c.tx.DataOfMessages([]int64{m.Seq})
	if err != nil {
		return err
	}
	items := linked[m.Seq]
	if len(items) != len(b.Messages[i].Data) {
		c.differ(Data, "data of "+where, fmt.Sprintf("%d rows", len(items)), fmt.Sprintf("%d in the payload", len(b.Messages[i].Data)), refetch)
		return nil
	}
	var refs []store.DataRef
	for k, at := range b.Messages[i].Data {
		want, row := &b.Data[at], items[k]
		ref := store.DataRef{ID: want.ID}
		if !b.gone(at) {
			ref.Hash = hashOf(want.Value, want.Blob)
		}
		refs = append(refs, ref)
		equal(c, Erasure, fmt.Sprintf("data %d of %s", k, where), erasedOr(row.Erasure != nil), erasedOr(b.gone(at)), refetch)
		equal(c, Data, fmt.Sprintf("data %d of %s", k, where), row.Commitment.String(), b.Messages[i].Header.Data[k].String(), refetch)
	}
	equal(c, Erasure, where, erasedOr(m.Erasure != nil), erasedOr(b.erased(i)), rebuild)
	wantRefs, err := json.Marshal(append([]store.DataRef{}, refs...))
	if err != nil {
		return err
	}
	storedRefs, err := json.Marshal(append([]store.DataRef{}, m.Data...))
	if err != nil {
		return err
	}
	if !bytes.Equal(wantRefs, storedRefs) {
		c.differ(Message, where+" data", string(storedRefs), string(wantRefs), refetch)
	}
	equal(c, Message, where+" data hash", m.Header.DataHash, hexSum(wantRefs), refetch)
	return nil
}

func hexSum(b []byte) store.Hex {
	sum := sha256.Sum256(b)
	return store.Hex(hex.EncodeToString(sum[:]))
}

// hashOf is the hash of a data item that existing clients compute.
func hashOf(value []byte, blob *wire.BlobRef) store.Hex {
	switch {
	case blob == nil:
		return hexSum(value)
	case value == nil:
		return store.Hex(blob.Hash.String())
	}
	return hexSum([]byte(string(hexSum(value)) + blob.Hash.String()))
}

// dataRows computes the hash and the commitment of every stored data item from
// its own row.
func (c *checker) dataRows(*replay) error {
	type row struct {
		seq                    int64
		item                   wire.DataItem
		hash                   string
		name, version          *string
		value                  *string
		blob, blobName, folder *string
		size                   *int64
		definition, root       *wire.Hash
		commitment             wire.Hash
		erasure                *wire.UUID
	}
	n, err := each(c.tx, func(rows *store.Rows, d *row) error {
		return rows.Scan(&d.seq, &d.item.ID, &d.item.Seed, &d.item.Validator, &d.hash, &d.name, &d.version, &d.value, &d.blob, &d.size, &d.blobName, &d.folder, &d.definition, &d.root, &d.commitment, &d.erasure)
	}, func(d *row) error {
		where := "data " + d.item.ID.String()
		if d.erasure != nil {
			c.sum.Erased++
			if d.value != nil || d.hash != "" || d.blob != nil || d.blobName != nil || d.size != nil || d.root != nil || !d.item.Seed.IsZero() {
				c.differ(Erasure, where, "something of its content", "nothing: it is erased", "erase it again")
			}
			return nil
		}
		if d.value != nil {
			d.item.Value = []byte(*d.value)
		}
		if d.definition != nil && d.name != nil && d.version != nil {
			d.item.Datatype = &wire.DatatypeRef{Name: *d.name, Version: *d.version, Hash: *d.definition}
		}
		if d.blob != nil {
			hash, err := wire.ParseHash(*d.blob)
			if err != nil || d.root == nil || d.size == nil {
				c.differ(Data, where, "a blob without size, root or hash", "all three", refetch)
				return nil
			}
			d.item.Blob = &wire.BlobRef{Size: *d.size, Root: *d.root, Hash: hash, Name: optional(d.blobName), Path: optional(d.folder)}
		}
		equal(c, Data, where+" hash", d.hash, string(hashOf(d.item.Value, d.item.Blob)), refetch)
		commitment, err := d.item.Commitment()
		if err != nil {
			c.differ(Data, where, err, "JSON", refetch)
			return nil
		}
		equal(c, Data, where+" commitment", d.commitment, commitment, refetch)
		return nil
	}, `SELECT seq, id, seed, validator, hash, datatype_name, datatype_version, value, blob_hash, blob_size, blob_name, blob_path, datatype_hash, blob_root, commitment, erasure FROM data ORDER BY seq`)
	c.sum.Data = n
	return err
}

func optional(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// handles tests how the handles of a pin are listed.
func (c *checker) handles(p *store.Pin) error {
	type row struct {
		hash, root string
		index      int
		dispatched bool
	}
	rows, err := all(c.tx, func(rows *store.Rows, h *row) error { return rows.Scan(&h.hash, &h.root, &h.index, &h.dispatched) },
		`SELECT hash, batch_hash, idx, dispatched FROM pin_handles WHERE sequence BETWEEN $1 AND $2 ORDER BY sequence`, int64(p.Number)*256, int64(p.Number)*256+255)
	if err != nil {
		return err
	}
	where := fmt.Sprintf("handles of pin %d", p.Number)
	pin := &p.Record.Pin.Pin
	if len(rows) != len(pin.Handles) {
		c.differ(Handle, where, fmt.Sprintf("%d rows", len(rows)), len(pin.Handles), rebuild)
		return nil
	}
	for i, h := range rows {
		equal(c, Handle, where, h, row{string(store.HandleHash(pin.Handles[i])), pin.Root.String(), i, p.State == store.PinDone}, rebuild)
	}
	return nil
}
