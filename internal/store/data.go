package store

import (
	"fmt"

	"github.com/parley-node/parley/wire"
)

const dataColumns = `id, validator, namespace, hash, created, datatype_name, datatype_version, value, public,
	blob_hash, blob_size, blob_name, blob_path, blob_public, seed, datatype_hash, blob_root, commitment, erasure`

const selectData = `SELECT seq, ` + dataColumns + ` FROM data`

var insertData = newInsert("data", "ON CONFLICT (id, commitment) WHERE erasure IS NULL DO NOTHING", "seq, id, commitment",
	`id validator namespace hash created datatype_name datatype_version value public
	blob_hash blob_size blob_name blob_path blob_public seed datatype_hash blob_root commitment erasure`)

type dataKey struct {
	id         UUID
	commitment wire.Hash
}

// InsertData stores data items and sets their Seq. An item that is there
// already, with the same id and commitment and not erased, is not stored again:
// its Seq is that of the row that is there. The value's text is kept byte for byte.
func (tx *Tx) InsertData(items []*Data) error {
	seqs := make(map[dataKey]int64, len(items))
	row := func(args []any, i int) []any {
		d := items[i]
		dt, blob := DatatypeRef{}, BlobRef{}
		var size, name any
		if d.Datatype != nil {
			dt = *d.Datatype
		}
		if d.Blob != nil {
			blob = *d.Blob
			size, name = blob.Size, blob.Name
		}
		return append(args, d.ID, d.Validator, d.Namespace, string(d.Hash), d.Created, textOrNull(dt.Name),
			textOrNull(dt.Version), jsonOrNull(d.Value), d.Public, textOrNull(blob.Hash), size, name,
			textOrNull(blob.Path), textOrNull(blob.Public), d.Seed, d.DatatypeHash, d.BlobRoot, d.Commitment, d.Erasure)
	}
	type stored struct {
		seq int64
		key dataKey
	}
	scan := func(r *Rows, s *stored) error { return r.Scan(&s.seq, &s.key.id, &s.key.commitment) }
	err := insertData.run(len(items), row, func(first, rows int, args []any) error {
		if !tx.conn.remote {
			stored, last, err := tx.insert(insertData.texts[rows], args)
			if stored == int64(rows) { // all of them, so their numbers follow each other
				for i, d := range items[first : first+rows] {
					seqs[dataKey{d.ID, d.Commitment}] = last - int64(rows-1-i)
				}
			}
			return err
		}
		fresh, err := queryAll(tx, scan, insertData.asking[rows], args...)
		for _, s := range fresh {
			seqs[s.key] = s.seq
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range items {
		key := dataKey{d.ID, d.Commitment}
		if _, known := seqs[key]; !known {
			var seq int64
			err := tx.QueryRow(`SELECT seq FROM data WHERE id = $1 AND commitment = $2 AND erasure IS NULL`, d.ID, d.Commitment).Scan(&seq)
			if err != nil {
				return fmt.Errorf("looking up data %s: %w", d.ID, err)
			}
			seqs[key] = seq
		}
		d.Seq = seqs[key]
	}
	return nil
}

func scanData(r *Rows, d *Data) error { return scanDataAfter(r, d) }

// scanDataAfter scans a data row that follows other columns.
func scanDataAfter(r *Rows, d *Data, before ...any) error {
	var (
		dt   DatatypeRef
		blob BlobRef
		size *int64
	)
	err := r.Scan(append(before, &d.Seq, &d.ID, &d.Validator, &d.Namespace, &d.Hash, &d.Created, nullable(&dt.Name),
		nullable(&dt.Version), (*[]byte)(&d.Value), &d.Public, nullable(&blob.Hash), &size, nullable(&blob.Name),
		nullable(&blob.Path), nullable(&blob.Public), &d.Seed, &d.DatatypeHash, &d.BlobRoot, &d.Commitment, &d.Erasure)...)
	if err != nil {
		return fmt.Errorf("reading a data row: %w", err)
	}
	if dt != (DatatypeRef{}) {
		d.Datatype = &dt
	}
	if size != nil {
		blob.Size = *size
		d.Blob = &blob
	}
	return nil
}

func scanDataPtr(r *Rows, d **Data) error {
	*d = new(Data)
	return scanData(r, *d)
}

var insertLinks = newInsert("message_data", "", "", "message idx data")

// DataLink says that a message has a data item, both by sequence number, at an
// index.
type DataLink struct {
	Message int64
	Index   int
	Data    int64
}

// LinkData records which data items messages have.
func (tx *Tx) LinkData(links []DataLink) error {
	return insertLinks.rows(tx, len(links), func(args []any, i int) []any {
		return append(args, links[i].Message, links[i].Index, links[i].Data)
	})
}

// DataOfMessages returns the data items of messages, in order, by message.
func (tx *Tx) DataOfMessages(seqs []int64) (map[int64][]*Data, error) {
	type link struct {
		message int64
		data    Data
	}
	of := make(map[int64][]*Data, len(seqs))
	err := inChunks(seqs, func(_ []int64, marks string, args []any) error {
		links, err := queryAll(tx, func(r *Rows, l *link) error { return scanDataAfter(r, &l.data, &l.message) },
			`SELECT message, seq, `+dataColumns+` FROM message_data JOIN data ON data.seq = message_data.data
			WHERE message IN `+marks+` ORDER BY message, idx`, args...)
		for _, l := range links {
			of[l.message] = append(of[l.message], &l.data)
		}
		return err
	})
	return of, err
}

// MessagesOfData returns the messages of a namespace that carry any data item
// with an id, oldest first.
func (tx *Tx) MessagesOfData(namespace string, id UUID) ([]*Message, error) {
	return queryAll(tx, scanMessagePtr, selectMessages+` WHERE namespace = $1 AND seq IN (
		SELECT l.message FROM message_data l JOIN data d ON d.seq = l.data WHERE d.id = $2) ORDER BY seq`, namespace, id)
}

// DataByID returns the newest data item with an id in a namespace, or
// ErrNoRows.
func (tx *Tx) DataByID(namespace string, id UUID) (*Data, error) {
	return queryOne(tx, scanDataPtr, selectData+` WHERE id = $1 AND namespace = $2 ORDER BY seq DESC LIMIT 1`, id, namespace)
}

// DeleteUnsent removes the data items with an id that no message carries.
func (tx *Tx) DeleteUnsent(namespace string, id UUID) (int64, error) {
	n, err := tx.Exec(`DELETE FROM data WHERE id = $1 AND namespace = $2 AND NOT EXISTS (SELECT 1 FROM message_data l WHERE l.data = data.seq)`, id, namespace)
	if err != nil {
		return 0, fmt.Errorf("deleting data %s: %w", id, err)
	}
	return n, nil
}

// BlobUsers is the number of data items, and of published contents, that need a
// blob.
func (tx *Tx) BlobUsers(hash Hex) (n int64, err error) {
	return n, tx.QueryRow(`SELECT (SELECT COUNT(*) FROM data WHERE blob_hash = $1) + (SELECT COUNT(*) FROM published WHERE hash = $1)`, string(hash)).Scan(&n)
}

// Blob is an attachment that this node holds completely.
type Blob struct {
	Hash    Hex
	Size    int64
	Chunks  []wire.Hash // hash of each 1 MiB chunk
	Created Time
}

// InsertBlob records a blob; one that is there already stays as it is, and is not
// removed any more.
func (tx *Tx) InsertBlob(b *Blob) error {
	chunks := make([]byte, 0, 32*len(b.Chunks))
	for _, c := range b.Chunks {
		chunks = append(chunks, c[:]...)
	}
	err := tx.Send(`INSERT INTO blobs (hash, size, chunks, created) VALUES ($1, $2, $3, $4) ON CONFLICT (hash) DO NOTHING`,
		string(b.Hash), b.Size, chunks, b.Created)
	if err != nil {
		return fmt.Errorf("recording blob %s: %w", b.Hash, err)
	}
	return tx.Send(`DELETE FROM blob_removals WHERE hash = $1`, string(b.Hash))
}

// BlobByHash returns a blob, or ErrNoRows.
func (tx *Tx) BlobByHash(hash Hex) (*Blob, error) {
	b := Blob{Hash: hash}
	var chunks []byte
	err := tx.QueryRow(`SELECT size, chunks, created FROM blobs WHERE hash = $1`, string(hash)).Scan(&b.Size, &chunks, &b.Created)
	if err != nil {
		return nil, err
	}
	if len(chunks)%32 != 0 {
		return nil, fmt.Errorf("blob %s: its chunk list has %d bytes, not a multiple of 32", hash, len(chunks))
	}
	for ; len(chunks) > 0; chunks = chunks[32:] {
		b.Chunks = append(b.Chunks, wire.Hash(chunks[:32]))
	}
	return &b, nil
}

// ReleaseBlob forgets a blob that no data item refers to any more, and notes
// that its file is to be removed; it does nothing while one refers to it.
func (tx *Tx) ReleaseBlob(hash Hex, at Time) error {
	users, err := tx.BlobUsers(hash)
	if err != nil || users > 0 {
		return err
	}
	if err := tx.Send(`DELETE FROM blobs WHERE hash = $1`, string(hash)); err != nil {
		return err
	}
	return tx.Send(`INSERT INTO blob_removals (hash, since) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING`, string(hash), at)
}

// BlobRemovals lists blobs whose files are to be removed, oldest first.
func (tx *Tx) BlobRemovals(limit int) ([]Hex, error) {
	return collect(tx, func(r *Rows, h *Hex) error { return r.Scan((*string)(h)) }, `SELECT hash FROM blob_removals ORDER BY since, hash LIMIT $1`, limit)
}

// BlobRemoved notes that a blob's file is gone.
func (tx *Tx) BlobRemoved(hash Hex) error {
	return tx.Send(`DELETE FROM blob_removals WHERE hash = $1`, string(hash))
}
