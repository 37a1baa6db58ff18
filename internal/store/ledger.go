package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/parley-node/parley/wire"
)

// Record is one entry of the network contract's log, as stored.
type Record struct {
	Number    uint64
	Running   wire.Hash
	Position  wire.Position
	BlockHash wire.Hash
	BlockTime Time
	TxHash    wire.Hash
	Signer    wire.Address
	Kind      string
	Body      json.RawMessage // of kinds other than pin
	Pin       *PinBody        // of kind pin
}

// PinBody is what a pin record says beyond the common fields.
type PinBody struct {
	Org wire.OrgID
	Pin wire.Pin
	Via wire.Address
}

// Pin is a stored pin with what the confirm loop found out about it.
type Pin struct {
	Record
	Audience *wire.Hash
	Epoch    uint64
	N        uint64
	State    string
	Reason   string
}

// States of a pin. A pin whose audience this node does not know has none.
const (
	PinOpen      = "open"      // its messages are not all decided
	PinDone      = "done"      // decided
	PinVoid      = "void"      // changes nothing; Reason says why
	PinDuplicate = "duplicate" // an earlier pin of the same batch counts
	PinControl   = "control"   // carries no batch
)

// Names of single values in the meta table.
const (
	MetaFinal     = "ledger.final"    // JSON of the final block up to which the feed has read
	MetaConfirmed = "confirm.through" // number of the last record that the confirm loop has applied
	MetaCreated   = "created"         // nanoseconds: when the namespace was started for the first time
	MetaRestored  = "restored"        // JSON of what a node knows that was taken back to an earlier state
	MetaUnpinned  = "unpinned."       // + audience/author: JSON of the author's last unpinned batch
)

// InsertRecords appends records of the ledger; they must continue the stored
// ones, which the caller has checked.
func (tx *Tx) InsertRecords(namespace string, records []Record) error {
	for i := range records {
		r := &records[i]
		body := string(r.Body)
		if err := tx.Send(`INSERT INTO records (number, running, block, log, block_hash, block_time, tx_hash, signer, kind, body)
			VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10)`,
			int64(r.Number), r.Running, int64(r.Position.Block), int64(r.Position.Log), r.BlockHash, int64(r.BlockTime), r.TxHash, r.Signer, r.Kind, body); err != nil {
			return err
		}
		if r.Pin == nil {
			continue
		}
		p := &r.Pin.Pin
		control := p.Control
		if control == nil {
			control = []byte{}
		}
		if err := tx.Send(`INSERT INTO pins (number, org, root, tag, handles, control, via) VALUES ($1,$2,$3,$4,$5,$6,$7)`,
			int64(r.Number), r.Pin.Org, p.Root, p.Tag, joinHandles(p.Handles), control, r.Pin.Via); err != nil {
			return err
		}
		for j, h := range p.Handles {
			if err := tx.Send(`INSERT INTO pin_handles (sequence, namespace, masked, hash, batch_hash, idx, dispatched, signer, created)
				VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9)`,
				int64(r.Number)*256+int64(j), namespace, true, string(HandleHash(h)), p.Root.String(), j, false, r.Signer.String(), int64(r.BlockTime)); err != nil {
				return err
			}
		}
	}
	return nil
}

// HandleHash is a context handle as pins are listed: existing clients read 32
// bytes, which are the handle's 16 and zeros.
func HandleHash(h wire.Handle) Hex {
	var padded wire.Hash
	copy(padded[:], h[:])
	return Hex(padded.String())
}

func joinHandles(hs []wire.Handle) []byte {
	b := make([]byte, 0, 16*len(hs))
	for _, h := range hs {
		b = append(b, h[:]...)
	}
	return b
}

func splitHandles(b []byte) ([]wire.Handle, error) {
	if len(b)%16 != 0 {
		return nil, fmt.Errorf("handles column holds %d bytes, want a multiple of 16", len(b))
	}
	hs := make([]wire.Handle, len(b)/16)
	for i := range hs {
		copy(hs[i][:], b[16*i:])
	}
	return hs, nil
}

const recordColumns = `r.number, r.running, r.block, r.log, r.block_hash, r.block_time, r.tx_hash, r.signer, r.kind, r.body`

func (r *Record) targets() []any {
	return []any{&r.Number, &r.Running, &r.Position.Block, &r.Position.Log, &r.BlockHash, &r.BlockTime, &r.TxHash, &r.Signer, &r.Kind, (*[]byte)(&r.Body)}
}

// RecordsOfKinds lists stored records of the kinds that are not pins, in order.
func (tx *Tx) RecordsNotPins() ([]Record, error) {
	return collect(tx, func(rows *Rows, r *Record) error { return rows.Scan(r.targets()...) },
		`SELECT `+recordColumns+` FROM records r WHERE r.kind <> 'pin' ORDER BY r.number`)
}

// RecordsNotPinsAfter is RecordsNotPins above a number.
func (tx *Tx) RecordsNotPinsAfter(number uint64) ([]Record, error) {
	return collect(tx, func(rows *Rows, r *Record) error { return rows.Scan(r.targets()...) },
		`SELECT `+recordColumns+` FROM records r WHERE r.number > $1 AND r.kind <> 'pin' ORDER BY r.number`, int64(number))
}

// LastRecord is the newest stored record; nil if there is none.
func (tx *Tx) LastRecord() (*Record, error) {
	return one(tx, func(rows *Rows, r *Record) error { return rows.Scan(r.targets()...) },
		`SELECT `+recordColumns+` FROM records r ORDER BY r.number DESC LIMIT 1`)
}

// RecordByNumber is nil if there is none.
func (tx *Tx) RecordByNumber(number uint64) (*Record, error) {
	return one(tx, func(rows *Rows, r *Record) error { return rows.Scan(r.targets()...) },
		`SELECT `+recordColumns+` FROM records r WHERE r.number = $1`, int64(number))
}

// BlockHash is the hash of a block that holds a record.
func (tx *Tx) BlockHash(block uint64) (h wire.Hash, ok bool, err error) {
	err = tx.QueryRow(`SELECT block_hash FROM records WHERE block = $1 LIMIT 1`, int64(block)).Scan(&h)
	if errors.Is(err, ErrNoRows) {
		return h, false, nil
	}
	return h, err == nil, err
}

const pinRowColumns = recordColumns + `, p.org, p.root, p.tag, p.handles, p.control, p.via, p.audience, p.epoch, p.n, p.state, p.reason`

func scanPinRow(rows *Rows, p *Pin) error {
	var b PinBody
	var handles, audience []byte
	var epoch, n sql.NullInt64
	if err := rows.Scan(append(p.targets(), &b.Org, &b.Pin.Root, &b.Pin.Tag, &handles, &b.Pin.Control, &b.Via, &audience, &epoch, &n, &p.State, &p.Reason)...); err != nil {
		return err
	}
	var err error
	if b.Pin.Handles, err = splitHandles(handles); err != nil {
		return err
	}
	if audience != nil {
		p.Audience = new(wire.Hash)
		if err := p.Audience.Scan(audience); err != nil {
			return err
		}
	}
	p.Epoch, p.N, p.Record.Pin = uint64(epoch.Int64), uint64(n.Int64), &b
	return nil
}

// PinsAfter lists pins with a number above after, in order.
func (tx *Tx) PinsAfter(after uint64, limit int) ([]Pin, error) {
	return collect(tx, scanPinRow, `SELECT `+pinRowColumns+` FROM pins p JOIN records r ON r.number = p.number WHERE p.number > $1 ORDER BY p.number LIMIT $2`, int64(after), limit)
}

// PinsBefore lists pins with a number below before, newest first. A zero
// before starts at the newest.
func (tx *Tx) PinsBefore(before uint64, limit int) ([]Pin, error) {
	if before == 0 {
		before = 1 << 62
	}
	return collect(tx, scanPinRow, `SELECT `+pinRowColumns+` FROM pins p JOIN records r ON r.number = p.number WHERE p.number < $1 ORDER BY p.number DESC LIMIT $2`, int64(before), limit)
}

// PinsByTag lists pins above a number that carry one of the tags, in order: the
// look-up for an audience that this node learns about late.
func (tx *Tx) PinsByTag(after uint64, tags []wire.Tag) ([]Pin, error) {
	if len(tags) == 0 {
		return nil, nil
	}
	args := []any{int64(after)}
	in := ""
	for i, t := range tags {
		in += fmt.Sprintf(",$%d", i+2)
		args = append(args, t)
	}
	return collect(tx, scanPinRow, `SELECT `+pinRowColumns+` FROM pins p JOIN records r ON r.number = p.number WHERE p.number > $1 AND p.tag IN (`+in[1:]+`) ORDER BY p.number`, args...)
}

// PinByNumber is nil if there is none.
func (tx *Tx) PinByNumber(number uint64) (*Pin, error) {
	return one(tx, scanPinRow, `SELECT `+pinRowColumns+` FROM pins p JOIN records r ON r.number = p.number WHERE p.number = $1`, int64(number))
}

// PinsOfBatch lists the pins of (author, root), in order.
func (tx *Tx) PinsOfBatch(org wire.OrgID, root wire.Hash) ([]Pin, error) {
	return collect(tx, scanPinRow, `SELECT `+pinRowColumns+` FROM pins p JOIN records r ON r.number = p.number WHERE p.root = $1 AND p.org = $2 ORDER BY p.number`, root, org)
}

// SetPin stores what the confirm loop found out about a pin. entry is nil once
// the pin is not open any more.
func (tx *Tx) SetPin(number uint64, audience wire.Hash, epoch, n uint64, state, reason string, entry []byte) error {
	err := tx.Send(`UPDATE pins SET audience = $1, epoch = $2, n = $3, state = $4, reason = $5, entry = $6 WHERE number = $7`,
		audience, int64(epoch), int64(n), state, reason, entry, int64(number))
	return err
}

// SetEntry stores a live entry's new state. One that was decided is open again
// if votes threaten it.
func (tx *Tx) SetEntry(number uint64, entry []byte) error {
	err := tx.Send(`UPDATE pins SET state = 'open', exposed = FALSE, entry = $1 WHERE number = $2`, entry, int64(number))
	return err
}

// ClosePin marks an entry as decided and its handles as dispatched. Its last
// row stays: votes may still come against it, and exposed says that some have.
func (tx *Tx) ClosePin(number uint64, reason string, entry []byte, exposed bool) error {
	if err := tx.Send(`UPDATE pins SET state = 'done', reason = $1, entry = $2, exposed = $3 WHERE number = $4`, reason, entry, exposed, int64(number)); err != nil {
		return err
	}
	err := tx.Send(`UPDATE pin_handles SET dispatched = TRUE WHERE sequence BETWEEN $1 AND $2`, int64(number)*256, int64(number)*256+255)
	return err
}

// NameHandles ties a pin's handles to the batch it turned out to hold.
func (tx *Tx) NameHandles(number uint64, batch UUID) error {
	err := tx.Send(`UPDATE pin_handles SET batch = $1 WHERE sequence BETWEEN $2 AND $3`, batch, int64(number)*256, int64(number)*256+255)
	return err
}

// Pinned says whether a batch has a pin in an audience that is not void.
func (tx *Tx) Pinned(audience wire.Hash, org wire.OrgID, root wire.Hash) (bool, error) {
	var n int
	err := tx.QueryRow(`SELECT COUNT(*) FROM pins WHERE root = $1 AND org = $2 AND audience = $3 AND state IN ('open', 'done')`, root, org, audience).Scan(&n)
	return n > 0, err
}

// OpenEntries gives the stored state of each open entry of an audience.
func (tx *Tx) OpenEntries(audience wire.Hash) ([][]byte, error) {
	return collect(tx, func(rows *Rows, b *[]byte) error { return rows.Scan(b) },
		`SELECT entry FROM pins WHERE audience = $1 AND state = 'open' ORDER BY number`, audience)
}

// PastEntry is the stored row of a decided entry; nil if there is none.
func (tx *Tx) PastEntry(audience wire.Hash, org wire.OrgID, root wire.Hash) (entry []byte, err error) {
	err = tx.QueryRow(`SELECT entry FROM pins WHERE root = $1 AND org = $2 AND audience = $3 AND state = 'done'`, root, org, audience).Scan(&entry)
	if errors.Is(err, ErrNoRows) {
		return nil, nil
	}
	return entry, err
}

// PastEntriesOf lists the stored rows of an organisation's decided entries from
// a number on: the newest limit of them, newest first.
func (tx *Tx) PastEntriesOf(audience wire.Hash, org wire.OrgID, from uint64, limit int) ([][]byte, error) {
	return collect(tx, func(rows *Rows, b *[]byte) error { return rows.Scan(b) },
		`SELECT entry FROM pins WHERE audience = $1 AND org = $2 AND state = 'done' AND number >= $3 ORDER BY number DESC LIMIT $4`, audience, org, int64(from), limit)
}

// ExposedEntries lists the stored rows of an audience's decided entries with
// votes against them, in order.
func (tx *Tx) ExposedEntries(audience wire.Hash) ([][]byte, error) {
	return collect(tx, func(rows *Rows, b *[]byte) error { return rows.Scan(b) },
		`SELECT entry FROM pins WHERE audience = $1 AND exposed ORDER BY number`, audience)
}

// ExposedAudiences are the audiences that have such entries.
func (tx *Tx) ExposedAudiences() ([]wire.Hash, error) {
	return collect(tx, func(rows *Rows, h *wire.Hash) error { return rows.Scan(h) }, `SELECT DISTINCT audience FROM pins WHERE exposed`)
}

// LastApplied is the newest record that holds a pin of an audience; nil if
// there is none.
func (tx *Tx) LastApplied(audience wire.Hash) (*Record, error) {
	return one(tx, func(rows *Rows, r *Record) error { return rows.Scan(r.targets()...) },
		`SELECT `+recordColumns+` FROM records r WHERE r.number = (SELECT MAX(number) FROM pins WHERE audience = $1)`, audience)
}

// Meta reads a single value; empty if it is not set.
func (tx *Tx) Meta(name string) (string, error) {
	var v string
	err := tx.QueryRow(`SELECT value FROM meta WHERE name = $1`, name).Scan(&v)
	if errors.Is(err, ErrNoRows) {
		return "", nil
	}
	return v, err
}

// SetMeta stores a single value.
func (tx *Tx) SetMeta(name, value string) error {
	err := tx.Send(`INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}

// collect runs a query and scans each row.
func collect[T any](tx *Tx, scan func(*Rows, *T) error, query string, args ...any) ([]T, error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		var t T
		if err := scan(rows, &t); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// one is collect for a query with at most one row; nil if there is none.
func one[T any](tx *Tx, scan func(*Rows, *T) error, query string, args ...any) (*T, error) {
	all, err := collect(tx, scan, query, args...)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// Optional turns ErrNoRows of a look-up into nil.
func Optional[T any](v *T, err error) (*T, error) {
	if errors.Is(err, ErrNoRows) {
		return nil, nil
	}
	return v, err
}
