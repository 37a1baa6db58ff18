package check

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// replay is one walk along the stored records, as far as the node has applied
// them.
type replay struct {
	c         *checker
	tx        *store.Tx
	members   *members
	audiences map[wire.Hash]*audience
	later     map[uint64][]*audience // joined with an epoch that this record activates
	returning map[uint64][]*audience // joined again with one
	voting    map[*audience]bool     // with entries that somebody voted against
	tags      map[wire.Tag]expects

	now       int64 // consensus time
	skipped   map[entryID]bool
	overdue   map[entryID]int64 // since when it is skipped
	certified map[entryID]bool  // by a certificate on the ledger

	through uint64 // the last record that the node has applied
	last    uint64 // the last record stored
	final   final
	settled bool // the node has nothing left to look at

	judge *judge // nil in the first walk, which reads the ledger alone
	err   error  // of a look-up
}

// final is the final block that the node knows.
type final struct {
	Number uint64     `json:"number"`
	Time   store.Time `json:"time"`
}

func newReplay(c *checker) *replay {
	return &replay{
		c: c, tx: c.tx, members: newMembers(), audiences: map[wire.Hash]*audience{}, tags: map[wire.Tag]expects{},
		later: map[uint64][]*audience{}, returning: map[uint64][]*audience{}, voting: map[*audience]bool{},
		skipped: map[entryID]bool{}, overdue: map[entryID]int64{}, certified: map[entryID]bool{},
	}
}

func newMembers() *members {
	return &members{active: map[wire.OrgID]bool{}, params: ledger.DefaultParams}
}

// note keeps the first error.
func (r *replay) note(err error) {
	if r.err == nil {
		r.err = err
	}
}

const recordColumns = `r.number, r.running, r.block, r.log, r.block_hash, r.block_time, r.tx_hash, r.signer, r.kind, r.body`

const selectRecords = `SELECT ` + recordColumns + ` FROM records r`

func recordTargets(r *store.Record) []any {
	return []any{&r.Number, &r.Running, &r.Position.Block, &r.Position.Log, &r.BlockHash, &r.BlockTime, &r.TxHash, &r.Signer, &r.Kind, (*[]byte)(&r.Body)}
}

func scanRecord(rows *store.Rows, r *store.Record) error { return rows.Scan(recordTargets(r)...) }

// bodyOf decodes a record that is no pin.
func bodyOf(r *store.Record) (ledger.Body, error) {
	body, err := ledger.DecodeBody(r.Kind, r.Body)
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", r.Number, err)
	}
	return body, nil
}

// recordRows checks that the records are contiguous and ascend, and that each
// pin record has its body.
func (c *checker) recordRows() error {
	var before store.Record
	n, err := each(c.tx, scanRecord, func(r *store.Record) error {
		where := fmt.Sprintf("record %d", r.Number)
		if r.Number != before.Number+1 {
			c.differ(Record, where, fmt.Sprintf("follows record %d", before.Number), fmt.Sprintf("record %d follows", before.Number+1), refetch)
		}
		if before.Number > 0 && (r.Position.Compare(before.Position) <= 0 || r.BlockTime < before.BlockTime) {
			c.differ(Record, where, "at "+r.Position.String(), "after "+before.Position.String(), compare)
		}
		before = *r
		return nil
	}, selectRecords+` ORDER BY r.number`)
	if err != nil {
		return err
	}
	c.sum.Records = n
	lone, err := all(c.tx, scanInt, `SELECT number FROM records WHERE kind = 'pin' AND number NOT IN (SELECT number FROM pins)
		UNION ALL SELECT number FROM pins WHERE number NOT IN (SELECT number FROM records WHERE kind = 'pin')`)
	for _, number := range lone {
		c.differ(Record, fmt.Sprintf("record %d", number), "a pin in only one of its two tables", "in both", refetch)
	}
	return err
}

// run walks along the records.
func (r *replay) run() error {
	if err := r.start(); err != nil {
		return err
	}
	_, err := each(r.tx, scanRecord, func(rec *store.Record) error {
		if err := r.record(rec); err != nil {
			return err
		}
		return r.err
	}, selectRecords+` WHERE r.number <= $1 ORDER BY r.number`, int64(r.through))
	if err != nil {
		return err
	}
	if r.through == r.last {
		r.now = max(r.now, int64(r.final.Time))
		r.tick()
	}
	for number, list := range r.later {
		for _, p := range list {
			r.c.differ(Epoch, p.name(), fmt.Sprintf("epoch %d activated by record %d", p.current().Epoch, number), fmt.Sprintf("only %d records are applied", r.through), compare)
		}
	}
	return r.err
}

// start reads how far the node is and which audiences it belongs to.
func (r *replay) start() error {
	var err error
	var last, waiting int64
	if last, err = count(r.tx, `SELECT COALESCE(MAX(number), 0) FROM records`); err != nil {
		return err
	}
	if waiting, err = count(r.tx, `SELECT COUNT(*) FROM arrivals`); err != nil {
		return err
	}
	through, err := r.tx.Meta(store.MetaConfirmed)
	if err != nil {
		return err
	}
	if through != "" {
		if r.through, err = strconv.ParseUint(through, 10, 64); err != nil {
			return fmt.Errorf("%s: %w", store.MetaConfirmed, err)
		}
	}
	if text, err := r.tx.Meta(store.MetaFinal); err != nil {
		return err
	} else if text != "" {
		if err := json.Unmarshal([]byte(text), &r.final); err != nil {
			return fmt.Errorf("%s: %w", store.MetaFinal, err)
		}
	}
	r.last = uint64(last)
	r.settled = waiting == 0 && r.through == r.last
	list, err := r.tx.Audiences()
	if err != nil {
		return err
	}
	for i := range list {
		if err := r.join(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

// join begins an audience with the first epoch that is or was current here.
func (r *replay) join(row *store.Audience) error {
	epochs, err := r.tx.Epochs(row.ID)
	if err != nil {
		return err
	}
	for i := range epochs {
		e := &epochs[i]
		if e.Activated == nil && e.Epoch > 1 {
			continue
		}
		a := &audience{id: row.ID, network: row.ID == r.c.Network, used: map[wire.Address]*numbers{}, voted: map[entryID]*entry{}}
		a.exists = a.network || e.Epoch > 1
		first := epoch{EpochDefinition: e.Definition, hash: e.Hash}
		if e.Secret != nil {
			keys := e.Secret.Keys()
			a.keys = &keys
		}
		if e.Epoch > 1 {
			first.number = uint64(*e.Activated)
		}
		a.epochs = []epoch{first}
		if first.number > 0 {
			r.later[first.number] = append(r.later[first.number], a)
		} else {
			r.audiences[a.id] = a
		}
		return nil
	}
	return nil // proposed to us, not current yet
}

// record takes in the next record.
func (r *replay) record(rec *store.Record) error {
	r.now = max(r.now, int64(rec.BlockTime))
	r.tick()
	if rec.Kind != (ledger.Pinned{}).Kind() {
		body, err := bodyOf(rec)
		if err != nil {
			return err
		}
		departed := r.members.apply(rec.Number, body)
		for _, a := range r.audiences {
			r.expect(a)
			for _, e := range a.voted {
				if departed {
					r.tally(a, e)
				}
			}
		}
		return nil
	}
	p, err := r.tx.PinByNumber(rec.Number)
	if err != nil || p == nil {
		return err // reported by recordRows
	}
	m, e := r.read(p)
	if r.judge == nil {
		r.compare(p, m)
	} else if e != nil {
		if err := r.judge.enter(r, e); err != nil {
			return err
		}
	}
	for _, a := range r.returning[rec.Number] {
		if a.again != nil && a.again.number == rec.Number {
			r.comeBack(a)
		}
	}
	for _, a := range r.later[rec.Number] {
		r.audiences[a.id] = a
		r.expect(a)
	}
	delete(r.returning, rec.Number)
	delete(r.later, rec.Number)
	return nil
}

// compare tests a pin's row. Whether an entry is decided is seen later.
func (r *replay) compare(p *store.Pin, m meaning) {
	r.c.sum.Pins++
	where := fmt.Sprintf("pin %d", p.Number)
	self := p.Record.Pin.Org == r.c.Self
	stored, want := p.State, m.state
	switch {
	case stored == store.PinDone && want == store.PinOpen:
		want = store.PinDone
	case stored == store.PinVoid && want == "" && self:
		return // our own, void at once
	case stored == "" && want == store.PinVoid && m.far:
		return // its tag was not even looked for
	case stored == store.PinVoid && want == store.PinVoid && self:
		return
	}
	if stored != want {
		r.c.differ(Pin, where, show(stored), show(want+" "+m.why), rebuild)
		return
	}
	if m.a == nil {
		return
	}
	got := fmt.Sprintf("epoch %d, number %d of an unknown audience", p.Epoch, p.N)
	if p.Audience != nil {
		got = fmt.Sprintf("epoch %d, number %d of audience %s", p.Epoch, p.N, p.Audience.Short())
	}
	equal(r.c, Pin, where, got, fmt.Sprintf("epoch %d, number %d of audience %s", m.epoch, m.n, m.a.id.Short()), rebuild)
}
