package check

import (
	"fmt"
	"slices"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// audience is the network or a group, as far as its pins have been read.
type audience struct {
	id      wire.Hash
	network bool
	begun   uint64 // the record that created the group, 0 until then
	exists  bool
	epochs  []epoch    // since this node belongs to it; the last is current
	keys    *wire.Keys // of the current epoch; nil without its secret
	again   *epoch     // with which this organisation comes back, while it is left out
	used    map[wire.Address]*numbers
	voted   map[entryID]*entry // entries that somebody voted against
}

// epoch is an activated definition.
type epoch struct {
	wire.EpochDefinition
	hash   wire.Hash
	number uint64 // the record that activated it
}

// numbers are the pin numbers of one key in the current epoch.
type numbers struct {
	high uint64
	seen map[uint64]bool
}

func (a *audience) current() *epoch { return &a.epochs[len(a.epochs)-1] }

// name is short, for reports.
func (a *audience) name() string {
	if a.network {
		return "network"
	}
	return "group " + a.id.Short()
}

// entry is a pinned batch.
type entry struct {
	a        *audience
	pin      *store.Pin
	contexts []wire.ContextID // ascending, distinct
	bad      string           // why its handles are wrong
	voters   []wire.OrgID     // members at its position without the author
	age      uint64           // K
	votes    map[wire.OrgID]bool
	due      int64 // consensus time at which it is skipped, 0 if it is not to be
}

// entryID names an entry: a liar can pin one batch in several audiences.
type entryID struct {
	audience wire.Hash
	author   wire.OrgID
	root     wire.Hash
}

func (e *entry) id() entryID {
	return entryID{e.a.id, e.pin.Record.Pin.Org, e.pin.Record.Pin.Pin.Root}
}
func (e *entry) certifies() int { return len(e.voters) - len(e.voters)/2 }
func (e *entry) skips() int     { return len(e.voters)/2 + 1 }

// expects is what a tag stands for.
type expects struct {
	a   *audience
	key wire.Address
	n   uint64
}

// widest is how far ahead tags are looked for: no network allows more.
const widest = 64

// expect computes anew which tags the keys of an audience's members can carry.
func (r *replay) expect(a *audience) {
	for tag, x := range r.tags {
		if x.a == a {
			delete(r.tags, tag)
		}
	}
	if a.keys == nil {
		return
	}
	for _, k := range r.members.keys {
		if a.current().Has(k.org) {
			r.expectKey(a, k.address)
		}
	}
}

func (r *replay) expectKey(a *audience, key wire.Address) {
	u := a.used[key]
	if u == nil {
		u = &numbers{seen: map[uint64]bool{}}
		a.used[key] = u
	}
	for n := max(1, u.high-min(u.high, widest)); n <= u.high+widest; n++ {
		r.tags[a.keys.PinTag(key, n)] = expects{a, key, n}
	}
}

// meaning is what a pin turns out to be.
type meaning struct {
	a     *audience // nil: nobody here can read it
	epoch uint64
	n     uint64
	state string
	why   string
	far   bool // void, and so far off that its tag need not be known
}

// read decides what a pin is, and applies it if it is valid.
func (r *replay) read(p *store.Pin) (m meaning, e *entry) {
	pin := &p.Record.Pin.Pin
	x, known := r.tags[pin.Tag]
	if !known {
		return meaning{}, nil
	}
	a := x.a
	m = meaning{a: a, epoch: a.current().Epoch, n: x.n, state: store.PinVoid}
	u, width := a.used[x.key], r.members.params.Window
	var control wire.Control
	switch {
	case x.key != p.Signer:
		m.why = "another key signed it"
	case r.members.owner(p.Signer, p.Number) != p.Record.Pin.Org || !r.members.active[p.Record.Pin.Org]:
		m.why = "its key is not valid"
	case !a.current().Has(p.Record.Pin.Org):
		m.why = "its author is not in the epoch"
	case x.n > u.high+width || x.n+width <= u.high:
		m.why, m.far = fmt.Sprintf("number %d is too far from %d", x.n, u.high), true
	case u.seen[x.n]:
		m.why, m.far = fmt.Sprintf("number %d is used", x.n), true
	case pin.Root.IsZero() && len(pin.Handles) > 0:
		m.why = "handles without a root"
	}
	if m.why == "" && len(pin.Control) > 0 {
		var err error
		if control, err = a.keys.OpenControl(pin.Control, p.Signer, x.n, pin.Root, pin.Handles); err != nil {
			m.why = "its control does not open"
		}
	}
	if m.why == "" && !a.exists && (control.Create == nil || *control.Create != a.id) {
		m.why = "the group does not exist yet"
	}
	if m.why != "" {
		return m, nil
	}
	if !a.exists {
		a.exists, a.begun = true, p.Number
	}
	u.seen[x.n] = true
	u.high = max(u.high, x.n)
	for n := range u.seen {
		if n+widest < u.high {
			delete(u.seen, n)
		}
	}
	r.expectKey(a, x.key)
	m.state = store.PinControl
	r.control(a, p, control)
	if !pin.Root.IsZero() {
		m.state = store.PinOpen
		if r.earlier(a, p) {
			m.state = store.PinDuplicate
		} else {
			e = r.entry(a, p, a.keys, x.n)
		}
	}
	if control.Activate != nil {
		r.activate(a, p, *control.Activate)
	}
	return m, e
}

// earlier tells whether a pin before this one named the same batch.
func (r *replay) earlier(a *audience, p *store.Pin) bool {
	n, err := count(r.tx, `SELECT COUNT(*) FROM pins WHERE root = $1 AND org = $2 AND audience = $3 AND number < $4 AND state IN ('open', 'done')`,
		p.Record.Pin.Pin.Root, p.Record.Pin.Org, a.id, int64(p.Number))
	r.note(err)
	return n > 0
}

// entry makes the entry of a pin at the record that is being read.
func (r *replay) entry(a *audience, p *store.Pin, keys *wire.Keys, n uint64) *entry {
	here := *p
	here.Epoch = a.current().Epoch // the row's is what is being checked
	e := &entry{a: a, pin: &here, age: r.members.params.ReceiptAge, votes: map[wire.OrgID]bool{}}
	pin := &p.Record.Pin.Pin
	for i, h := range pin.Handles {
		c := keys.UnmaskHandle(p.Signer, n, pin.Root, i, h)
		if i > 0 && slices.Compare(e.contexts[i-1][:], c[:]) >= 0 && e.bad == "" {
			e.bad = fmt.Sprintf("handle %d of the pin is not above the one before it", i)
		}
		e.contexts = append(e.contexts, c)
	}
	slices.SortFunc(e.contexts, func(x, y wire.ContextID) int { return slices.Compare(x[:], y[:]) })
	e.contexts = slices.Compact(e.contexts)
	for _, m := range a.current().Members {
		if m != p.Record.Pin.Org && r.members.active[m] {
			e.voters = append(e.voters, m)
		}
	}
	return e
}

// control applies the votes and certificates of a valid pin.
func (r *replay) control(a *audience, p *store.Pin, c wire.Control) {
	for _, cert := range c.Certificates {
		e := r.find(a, entryID{a.id, cert.Author, cert.Root}, p.Number)
		if e == nil || r.skipped[e.id()] || r.certified[e.id()] {
			continue
		}
		if e.due != 0 && e.due <= r.now {
			continue
		}
		if len(r.count(e, cert.Receipts, p.Position.Block)) >= e.certifies() {
			r.certified[e.id()] = true
			delete(a.voted, e.id())
		}
	}
	for _, v := range c.Votes {
		for _, e := range r.reached(a, v, p.Number) {
			r.vote(a, e, p.Record.Pin.Org, v.Restored)
		}
	}
}

// reached are the entries that a vote in record at is about.
func (r *replay) reached(a *audience, v wire.Vote, at uint64) (list []*entry) {
	var oldest uint64
	for _, id := range v.Entries {
		e := r.find(a, entryID{a.id, id.Author, id.Root}, at)
		switch {
		case e == nil:
		case v.AllOf == nil:
			list = append(list, e)
		case id.Author == *v.AllOf && (oldest == 0 || e.pin.Number < oldest):
			oldest = e.pin.Number
		}
	}
	if v.AllOf == nil || len(v.Entries) > 0 && oldest == 0 {
		return list
	}
	roots, err := all(r.tx, func(rows *store.Rows, h *wire.Hash) error { return rows.Scan(h) },
		`SELECT root FROM pins WHERE audience = $1 AND org = $2 AND state IN ('open', 'done') AND number >= $3 AND number < $4 ORDER BY number DESC LIMIT 1024`,
		a.id, *v.AllOf, int64(oldest), int64(at)) // the protocol's bound
	r.note(err)
	for _, root := range roots {
		if e := r.find(a, entryID{a.id, *v.AllOf, root}, at); e != nil {
			list = append(list, e)
		}
	}
	return list
}

// find gives an entry that stands before a record: one that is open or voted
// against, or else an old one, computed from its pin again.
func (r *replay) find(a *audience, id entryID, before uint64) *entry {
	if e := a.voted[id]; e != nil {
		return e
	}
	pins, err := r.tx.PinsOfBatch(id.author, id.root)
	r.note(err)
	for i := range pins {
		p := &pins[i]
		if p.Number >= before || p.Audience == nil || *p.Audience != a.id || p.State != store.PinOpen && p.State != store.PinDone {
			continue
		}
		return r.past(a, p)
	}
	return nil
}

// past computes an old entry for a vote: who belonged to the audience then.
func (r *replay) past(a *audience, p *store.Pin) *entry {
	then := newMembers()
	_, err := each(r.tx, scanRecord, func(rec *store.Record) error {
		body, err := bodyOf(rec)
		then.apply(rec.Number, body)
		return err
	}, selectRecords+` WHERE r.kind <> 'pin' AND r.number < $1 ORDER BY r.number`, int64(p.Number))
	r.note(err)
	e := &entry{a: a, pin: p, age: then.params.ReceiptAge, votes: map[wire.OrgID]bool{}}
	for _, ep := range a.epochs {
		if ep.Epoch != p.Epoch {
			continue
		}
		for _, m := range ep.Members {
			if m != p.Record.Pin.Org && then.active[m] {
				e.voters = append(e.voters, m)
			}
		}
	}
	return e
}

// vote counts one organisation's vote against one entry.
func (r *replay) vote(a *audience, e *entry, org wire.OrgID, restored bool) {
	if r.skipped[e.id()] || r.certified[e.id()] || !r.mayVote(a, e, org) {
		return
	}
	if was, voted := e.votes[org]; voted && (!was || restored) {
		return
	}
	e.votes[org] = restored
	a.voted[e.id()] = e
	r.voting[a] = true
	r.tally(a, e)
}

// mayVote: the other members; where none is left the author, and if it is gone
// too, anyone.
func (r *replay) mayVote(a *audience, e *entry, org wire.OrgID) bool {
	if slices.Contains(e.voters, org) {
		return true
	}
	for _, v := range e.voters {
		if !r.gone(a, v) {
			return false
		}
	}
	author := e.pin.Record.Pin.Org
	return org == author || r.gone(a, author)
}

func (r *replay) gone(a *audience, org wire.OrgID) bool {
	return !a.current().Has(org) || !r.members.active[org]
}

// tally sets the time of the skip once the votes suffice. Who is gone counts as
// a vote where there is at least one; restored nodes' votes take much longer.
func (r *replay) tally(a *audience, e *entry) {
	votes, firm := 0, 0
	for _, restored := range e.votes {
		votes++
		if !restored {
			firm++
		}
	}
	anyFirm, enough := firm > 0, e.skips()
	if votes < enough || firm < enough {
		for _, v := range e.voters {
			if !r.gone(a, v) {
				continue
			}
			if restored, voted := e.votes[v]; !voted {
				votes, firm = votes+1, firm+1
			} else if restored {
				firm++
			}
		}
	}
	grace := int64(r.members.params.SkipGrace)
	switch {
	case anyFirm && firm >= enough:
	case len(e.votes) > 0 && votes >= enough:
		grace *= 100
	default:
		return
	}
	if due := r.now + grace; e.due == 0 || due < e.due {
		e.due = due
	}
}

// tick lets the skips happen that are due at the present consensus time.
func (r *replay) tick() {
	for a := range r.voting {
		for id, e := range a.voted {
			if e.due != 0 && e.due <= r.now && a.keys != nil {
				r.skipped[id] = true
				delete(a.voted, id)
				r.overdue[id] = e.due
			}
		}
	}
}

// count gives the distinct voters whose receipt for an entry is valid, looking
// at no block above horizon.
func (r *replay) count(e *entry, receipts []wire.Receipt, horizon uint64) (orgs []wire.OrgID) {
	for i := range receipts {
		x := &receipts[i]
		if slices.Contains(e.voters, x.Org) && !slices.Contains(orgs, x.Org) &&
			x.Author == e.pin.Record.Pin.Org && x.Root == e.pin.Record.Pin.Pin.Root && x.Epoch == e.pin.Epoch && x.Audience == e.a.id &&
			r.holds(x, e.pin.Number, e.pin.Position.Block, e.age, horizon) {
			orgs = append(orgs, x.Org)
		}
	}
	return orgs
}

// holds tests what every receipt must fulfil: this network and version, signed
// by a key that is valid at a record, naming a block of the ledger that is not
// too old.
func (r *replay) holds(x *wire.Receipt, at, block, age, horizon uint64) bool {
	if x.Version != wire.Version || x.Network != r.c.Network || x.RecentNumber > horizon || x.RecentNumber < block && block-x.RecentNumber > age {
		return false
	}
	signer, err := x.Signer()
	if err != nil || r.members.owner(signer, at) != x.Org {
		return false
	}
	hash, known, err := r.tx.BlockHash(x.RecentNumber)
	r.note(err)
	return known && hash == x.RecentBlock
}

// activate makes a definition current if it is the proper next one and enough
// members hold its secret.
func (r *replay) activate(a *audience, p *store.Pin, act wire.Activation) {
	def, cur := act.Definition, a.current()
	hash, err := def.Hash()
	if err != nil || def.Check() != nil || def.Network != cur.Network || def.Audience != a.id || def.Epoch != cur.Epoch+1 ||
		def.Previous != cur.hash || def.Topic != cur.Topic || def.Proposer != p.Record.Pin.Org {
		return
	}
	for _, m := range def.Members {
		if !r.members.active[m] {
			return
		}
	}
	if a.network {
		for _, m := range cur.Members {
			if r.members.active[m] && !def.Has(m) {
				return
			}
		}
	}
	var agree []wire.OrgID // distinct, without the proposer
	for i := range act.Receipts {
		x := &act.Receipts[i]
		if x.Org != def.Proposer && !slices.Contains(agree, x.Org) && r.members.active[x.Org] &&
			x.Author == def.Proposer && x.Root == hash && x.Epoch == def.Epoch && x.Audience == a.id &&
			r.holds(x, p.Number, p.Position.Block, r.members.params.ReceiptAge, p.Position.Block) {
			agree = append(agree, x.Org)
		}
	}
	holders := 0
	for _, org := range agree {
		if def.Has(org) {
			holders++
		}
	}
	if v := len(def.Members) - 1; holders < v-v/2 {
		return
	}
	if !a.network {
		stay, yes := 0, 0
		for _, m := range cur.Members {
			if def.Has(m) {
				stay++
				if m == def.Proposer || slices.Contains(agree, m) {
					yes++
				}
			}
		}
		need := stay/2 + 1
		if n := int(cur.Policy.Approvals); n > 0 {
			need = min(n, stay)
		}
		if yes < need {
			return
		}
	}
	a.epochs = append(a.epochs, epoch{def, hash, p.Number})
	a.keys, a.used = nil, map[wire.Address]*numbers{}
	stored, err := r.tx.EpochByHash(hash)
	r.note(err)
	if stored != nil && stored.Secret != nil {
		keys := stored.Secret.Keys()
		a.keys = &keys
	}
	if a.keys == nil && !def.Has(r.c.Self) {
		if a.again = r.again(a, def); a.again != nil {
			r.returning[a.again.number] = append(r.returning[a.again.number], a)
		}
	}
	r.expect(a)
	for _, e := range a.voted {
		r.tally(a, e)
	}
}

// again is the epoch with which this organisation came back to an audience after
// one without it, if it did. What activated it cannot be read here: the other
// members said so.
func (r *replay) again(a *audience, without wire.EpochDefinition) *epoch {
	epochs, err := r.tx.Epochs(a.id)
	r.note(err)
	for _, e := range epochs {
		if e.Epoch == without.Epoch+1 && e.Activated != nil && e.Secret != nil {
			return &epoch{e.Definition, e.Hash, uint64(*e.Activated)}
		}
	}
	return nil
}

// comeBack begins the epoch with which this organisation came back.
func (r *replay) comeBack(a *audience) {
	stored, err := r.tx.EpochByHash(a.again.hash)
	r.note(err)
	if stored == nil || stored.Secret == nil {
		return
	}
	keys := stored.Secret.Keys()
	a.epochs = append(a.epochs, *a.again)
	a.keys, a.used, a.again = &keys, map[wire.Address]*numbers{}, nil
	r.expect(a)
}
