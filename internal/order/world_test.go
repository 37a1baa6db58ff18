package order

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/parley-node/parley/wire"
)

// tester is what testing.T, testing.B and rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// world is a ledger in memory with members, their keys and one audience. It
// answers as Network, and makes pins, receipts and definitions as nodes do.
type world struct {
	t       tester
	params  Params
	network wire.Hash
	members []*member
	block   uint64 // the newest
	log     uint32
	now     time.Time
	number  uint64
	changes []membership
	gone    []Departure
	keys    []keyRange
	pins    []Pin
	rand    uint64

	audience wire.Hash
	group    bool
	defs     []wire.EpochDefinition
	secrets  []wire.EpochSecret // parallel to defs
	payloads map[wire.Entry]Payload
	messages map[wire.Entry][]spec
}

type member struct {
	org wire.OrgID
	key *secp256k1.PrivateKey
	n   map[uint64]uint64 // next pin number by epoch
}

type membership struct {
	org    wire.OrgID
	at     wire.Position
	active bool
}

type keyRange struct {
	org      wire.OrgID
	key      wire.Address
	from, to wire.Position // to is zero while the key is valid
}

// spec is a message of a test: its topics, and why it is invalid.
type spec struct {
	topics []string
	reject string
	hash   wire.Hash // random if zero
	after  bool      // judged after the definitions before it
}

// definitions is the topic of definitions in the tests.
const definitions = "d"

const (
	testGrace = time.Minute
	testAfter = 5 * time.Minute
)

func newWorld(t tester, members int) *world {
	w := &world{
		t: t, network: wire.HashOf("test/network"),
		params:   Params{Window: 16, ReceiptAge: 100, SkipAfter: testAfter, SkipGrace: testGrace},
		now:      time.Unix(1_800_000_000, 0).UTC(),
		payloads: map[wire.Entry]Payload{}, messages: map[wire.Entry][]spec{},
	}
	w.next(time.Second)
	for range members {
		w.admit()
	}
	w.next(time.Second)
	return w
}

// newNetwork is a world whose audience is the network itself.
func newNetwork(t tester, members int) *world {
	w := newWorld(t, members)
	w.audience = w.network
	w.define(w.orgs(members), wire.ChangePolicy{})
	return w
}

// newGroup is a world with a group that a first pin has yet to create.
func newGroup(t tester, members, inGroup int, policy wire.ChangePolicy) *world {
	w := newWorld(t, members)
	w.group = true
	w.define(w.orgs(inGroup), policy)
	w.audience = w.must(w.defs[0].AudienceID())
	return w
}

func (w *world) must(h wire.Hash, err error) wire.Hash {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	return h
}

func (w *world) hash() wire.Hash {
	w.rand++
	return wire.HashOf("test/random", binary.BigEndian.AppendUint64(nil, w.rand))
}

func (w *world) newKey() *secp256k1.PrivateKey {
	h := w.hash()
	return secp256k1.PrivKeyFromBytes(h[:])
}

// next starts a block.
func (w *world) next(after time.Duration) {
	w.block++
	w.log = 0
	w.now = w.now.Add(after)
}

// place is the position of the next record.
func (w *world) place() wire.Position {
	w.log++
	w.number++
	return wire.Position{Block: w.block, Log: w.log}
}

func (w *world) admit() *member {
	m := &member{org: w.hash(), key: w.newKey(), n: map[uint64]uint64{}}
	at := w.place()
	w.changes = append(w.changes, membership{m.org, at, true})
	w.keys = append(w.keys, keyRange{org: m.org, key: wire.AddressOf(m.key), from: at})
	w.members = append(w.members, m)
	return m
}

func (w *world) setActive(m *member, active bool) {
	at := w.place()
	w.changes = append(w.changes, membership{m.org, at, active})
	if !active {
		w.gone = append(w.gone, Departure{at, w.now})
	}
}

// rotate gives a member a new key and revokes the old one.
func (w *world) rotate(m *member) {
	at := w.place()
	old := wire.AddressOf(m.key)
	for i := range w.keys {
		if w.keys[i].key == old {
			w.keys[i].to = at
		}
	}
	m.key, m.n = w.newKey(), map[uint64]uint64{}
	w.keys = append(w.keys, keyRange{org: m.org, key: wire.AddressOf(m.key), from: at})
}

func (w *world) OrgOf(key wire.Address, at wire.Position) (wire.OrgID, bool) {
	for _, k := range w.keys {
		if k.key == key && k.from.Compare(at) <= 0 && (k.to == wire.Position{} || at.Compare(k.to) < 0) {
			return k.org, w.Active(k.org, at)
		}
	}
	return wire.OrgID{}, false
}

func (w *world) Active(org wire.OrgID, at wire.Position) (active bool) {
	for _, c := range w.changes {
		if c.org == org && c.at.Compare(at) <= 0 {
			active = c.active
		}
	}
	return active
}

func (w *world) Keys(org wire.OrgID, at wire.Position) (keys []wire.Address) {
	for _, k := range w.keys {
		if k.org == org && k.from.Compare(at) <= 0 {
			keys = append(keys, k.key)
		}
	}
	return keys
}

func (w *world) Departures(after, through wire.Position) (out []Departure) {
	for _, d := range w.gone {
		if after.Compare(d.Position) < 0 && d.Position.Compare(through) <= 0 {
			out = append(out, d)
		}
	}
	return out
}

func (w *world) BlockHash(number uint64) (wire.Hash, bool) {
	return blockHash(number), number > 0 && number <= w.block
}

func blockHash(number uint64) wire.Hash {
	return wire.HashOf("test/block", binary.BigEndian.AppendUint64(nil, number))
}

func (w *world) Params(wire.Position) Params { return w.params }

func (w *world) orgs(n int) (ids []wire.OrgID) {
	for _, m := range w.members[:n] {
		ids = append(ids, m.org)
	}
	slices.SortFunc(ids, compareOrg)
	return ids
}

func (w *world) epoch() uint64 { return w.defs[len(w.defs)-1].Epoch }

func (w *world) keysOf(epoch uint64) wire.Keys { return w.secrets[epoch-1].Keys() }

// define makes the first definition of the audience.
func (w *world) define(members []wire.OrgID, policy wire.ChangePolicy) {
	d := wire.EpochDefinition{
		Network: w.network, Audience: w.audience, Epoch: 1, Proposer: members[0], Name: "test",
		Members: members, Policy: policy, History: "all", Salt: w.hash(),
	}
	s := wire.EpochSecret{Secret: w.hash(), Topic: w.hash()}
	d.Commit(s.Keys())
	w.defs, w.secrets = append(w.defs, d), append(w.secrets, s)
}

// propose makes a definition that may follow the current one.
func (w *world) propose(proposer *member, members []wire.OrgID) (wire.EpochDefinition, wire.EpochSecret) {
	cur := w.defs[len(w.defs)-1]
	slices.SortFunc(members, compareOrg)
	d := cur
	d.Audience, d.Epoch, d.Previous, d.Salt = w.audience, cur.Epoch+1, w.must(cur.Hash()), w.hash()
	d.Proposer, d.Members = proposer.org, members
	s := wire.EpochSecret{Secret: w.hash(), Topic: w.secrets[0].Topic}
	d.Commit(s.Keys())
	return d, s
}

func (w *world) adopt(d wire.EpochDefinition, s wire.EpochSecret) {
	w.defs, w.secrets = append(w.defs, d), append(w.secrets, s)
}

// activation makes the control that starts a proposed epoch.
func (w *world) activation(d wire.EpochDefinition, holders ...*member) *wire.Control {
	act := wire.Activation{Definition: d}
	id := wire.Entry{Author: d.Proposer, Root: w.must(d.Hash())}
	for _, m := range holders {
		act.Receipts = append(act.Receipts, w.receipt(m, id, d.Epoch))
	}
	return &wire.Control{Activate: &act}
}

// receipt is a member's statement that it holds a payload or definition.
func (w *world) receipt(m *member, id wire.Entry, epoch uint64) wire.Receipt {
	return w.sign(m, wire.Receipt{
		Version: wire.Version, Network: w.network, Org: m.org, Author: id.Author, Audience: w.audience,
		Epoch: epoch, Root: id.Root, RecentBlock: blockHash(w.block), RecentNumber: w.block,
	})
}

func (w *world) sign(m *member, r wire.Receipt) wire.Receipt {
	r.Signature = wire.SignDigest(m.key, w.must(r.Digest()))
	return r
}

func (w *world) certificate(id wire.Entry, holders ...*member) wire.Certificate {
	c := wire.Certificate{Author: id.Author, Root: id.Root}
	for _, m := range holders {
		c.Receipts = append(c.Receipts, w.receipt(m, id, w.epoch()))
	}
	return c
}

func (w *world) contexts(topics ...string) (cs []wire.ContextID) {
	for _, t := range topics {
		cs = append(cs, w.keysOf(1).Context(t))
	}
	slices.SortFunc(cs, compareContext)
	return slices.Compact(cs)
}

// pin puts a batch of these messages on the ledger.
func (w *world) pin(m *member, control *wire.Control, messages ...spec) Pin {
	w.t.Helper()
	root := wire.Hash{}
	var p Payload
	var topics []string
	if len(messages) > 0 {
		root = w.hash()
		for _, s := range messages {
			h := s.hash
			if h.IsZero() {
				h = w.hash()
			}
			p.Messages = append(p.Messages, Message{Hash: h, Contexts: w.contexts(s.topics...), Reject: s.reject, AfterDefinitions: s.after})
			topics = append(topics, s.topics...)
		}
		w.payloads[wire.Entry{Author: m.org, Root: root}] = p
		w.messages[wire.Entry{Author: m.org, Root: root}] = messages
	}
	return w.pinRoot(m, control, root, w.contexts(topics...))
}

// pinRoot puts a pin with the member's next number on the ledger.
func (w *world) pinRoot(m *member, control *wire.Control, root wire.Hash, contexts []wire.ContextID) Pin {
	w.t.Helper()
	m.n[w.epoch()]++
	return w.pinAs(m, m.n[w.epoch()], w.epoch(), control, root, contexts)
}

func (w *world) pinAs(m *member, n, epoch uint64, control *wire.Control, root wire.Hash, contexts []wire.ContextID) Pin {
	w.t.Helper()
	keys, key := w.keysOf(epoch), wire.AddressOf(m.key)
	p := wire.Pin{Root: root, Tag: keys.PinTag(key, n)}
	for i, c := range contexts {
		p.Handles = append(p.Handles, keys.MaskHandle(key, n, root, i, c))
	}
	if control != nil {
		sealed, err := keys.SealControl(*control, key, n, root, p.Handles)
		if err != nil {
			w.t.Fatalf("seal control: %v", err)
		}
		p.Control = sealed
	}
	return w.put(m, p)
}

// put writes any pin as signed by a member.
func (w *world) put(m *member, p wire.Pin) Pin {
	at := w.place()
	pin := Pin{Number: w.number, Position: at, Time: w.now, Key: wire.AddressOf(m.key), Org: m.org, Pin: p}
	w.pins = append(w.pins, pin)
	return pin
}

func idOf(p Pin) wire.Entry { return wire.Entry{Author: p.Org, Root: p.Pin.Root} }

func create(w *world) *wire.Control {
	id := w.audience
	return &wire.Control{Create: &id}
}

func vote(ids ...wire.Entry) *wire.Control { return &wire.Control{Votes: []wire.Vote{{Entries: ids}}} }

// node plays the caller of a machine: it stores rows and verdicts, keeps the
// map of tags, and answers as History.
type node struct {
	w         *world
	a         *Audience
	rows      map[wire.Entry]Entry
	confirmed map[inEpoch]bool
	tags      map[wire.Tag]bool
	verdicts  []Verdict
	incidents []Incident
	contested []wire.Entry
	final     uint64
	finalAt   time.Time
	paid      []wire.Entry   // payloads that arrived
	received  []wire.Receipt // receipts that arrived
}

type inEpoch struct {
	message wire.Hash
	epoch   uint64
}

// node is a member that has read the network's records to their end.
func (w *world) node() *node { return w.nodeKnowing(w.end()) }

func (w *world) end() wire.Position { return wire.Position{Block: w.block, Log: 1 << 30} }

func (w *world) nodeKnowing(known wire.Position) *node {
	w.t.Helper()
	n := &node{w: w, rows: map[wire.Entry]Entry{}, confirmed: map[inEpoch]bool{}, tags: map[wire.Tag]bool{}}
	a, err := New(w.audience, w, n, w.defs[0], w.group, known)
	if err != nil {
		w.t.Fatalf("new: %v", err)
	}
	n.a = a
	n.unlock()
	return n
}

func (n *node) unlock() {
	n.w.t.Helper()
	tags, err := n.a.Unlock(n.w.keysOf(n.a.Epoch().Epoch))
	if err != nil {
		n.w.t.Fatalf("unlock: %v", err)
	}
	n.track(tags)
}

func (n *node) track(tags Tags) {
	n.w.t.Helper()
	for _, t := range tags.Removed {
		if !n.tags[t] {
			n.w.t.Fatalf("tag %s is removed, but was not expected", t)
		}
		delete(n.tags, t)
	}
	for _, t := range tags.Added {
		if n.tags[t] {
			n.w.t.Fatalf("tag %s is added twice", t)
		}
		n.tags[t] = true
	}
}

// apply applies a pin, also one that is not expected, and stores what it did.
func (n *node) apply(p Pin) Applied {
	n.w.t.Helper()
	n.track(n.a.KeysChanged(p.Position))
	out, err := n.a.Apply(p)
	if err != nil {
		n.w.t.Fatalf("apply pin %d: %v", p.Number, err)
	}
	n.track(out.Tags)
	n.effects(out.Effects)
	if out.Entry != nil {
		n.rows[idOf(p)] = *out.Entry
	}
	if out.Stalled {
		n.expectNoTags()
	}
	return out
}

func (n *node) expectNoTags() {
	n.w.t.Helper()
	if len(n.tags) > 0 {
		n.w.t.Fatalf("%d tags are expected while stalled", len(n.tags))
	}
}

func (n *node) effects(e Effects) {
	for _, row := range e.Changed {
		n.rows[wire.Entry{Author: row.Author, Root: row.Root}] = row
	}
	n.incidents = append(n.incidents, e.Incidents...)
	n.contested = append(n.contested, e.Contested...)
}

// applyAll applies every expected pin after Through, as look-ups by tag find
// them, and unlocks new epochs on the way.
func (n *node) applyAll() {
	n.w.t.Helper()
	for _, p := range n.w.pins {
		if p.Position.Compare(n.a.Through()) > 0 && n.tags[p.Pin.Tag] {
			if n.apply(p).Stalled {
				n.unlock()
			}
		}
	}
}

// head reports the world's newest block as final.
func (n *node) head() {
	n.final, n.finalAt = n.w.block, n.w.now
	n.effects(n.a.Final(n.final, n.finalAt))
}

func (n *node) payload(id wire.Entry) {
	n.w.t.Helper()
	if !slices.Contains(n.paid, id) {
		n.paid = append(n.paid, id)
	}
	if err := n.a.Payload(id.Author, id.Root, n.w.payloads[id]); err != nil {
		n.w.t.Fatalf("payload: %v", err)
	}
}

func (n *node) receive(r wire.Receipt) Outcome {
	if !slices.Contains(n.received, r) {
		n.received = append(n.received, r)
	}
	out := n.a.Receipt(r)
	n.incidents = append(n.incidents, out.Incidents...)
	return out
}

// judge pulls all verdicts and returns the new ones.
func (n *node) judge() []Verdict {
	n.w.t.Helper()
	from := len(n.verdicts)
	for {
		v, ok := n.a.Next()
		if !ok {
			return n.verdicts[from:]
		}
		n.rows[wire.Entry{Author: v.Author, Root: v.Root}] = v.Row
		if v.Kind == Confirmed {
			m := inEpoch{v.Message, v.Row.Epoch}
			if n.confirmed[m] {
				n.w.t.Fatalf("message %s is confirmed twice", v.Message.Short())
			}
			n.confirmed[m] = true
		}
		n.verdicts = append(n.verdicts, v)
	}
}

// restart drops the machine and restores it from its encoded state.
func (n *node) restart() {
	n.w.t.Helper()
	b, err := wire.Marshal(n.a.State())
	if err != nil {
		n.w.t.Fatalf("encode state: %v", err)
	}
	var s State
	if err := wire.Unmarshal(b, &s); err != nil {
		n.w.t.Fatalf("decode state: %v", err)
	}
	n.restore(s)
}

// restartFromRows restores with the entries as the caller has stored them from
// what Apply, Final and Next returned, and gives what had arrived again.
func (n *node) restartFromRows() {
	n.w.t.Helper()
	s := n.a.State()
	s.Entries = nil
	for _, row := range n.rows {
		if row.Live() {
			row.Payload, row.Receipts = nil, nil
			s.Entries = append(s.Entries, row)
		}
	}
	slices.SortFunc(s.Entries, func(x, y Entry) int { return int(x.Number) - int(y.Number) })
	n.restore(s)
	for _, id := range n.paid {
		if err := n.a.Payload(id.Author, id.Root, n.w.payloads[id]); err != nil && !errors.Is(err, ErrNotOpen) {
			n.w.t.Fatalf("payload: %v", err)
		}
	}
	for _, r := range n.received {
		n.a.Receipt(r)
	}
}

func (n *node) restore(s State) {
	n.w.t.Helper()
	stalled := n.a.Stalled()
	a, err := Restore(s, n.w, n)
	if err != nil {
		n.w.t.Fatalf("restore: %v", err)
	}
	n.a = a
	clear(n.tags)
	if !stalled {
		n.unlock()
	}
	if n.final > 0 {
		n.effects(n.a.Final(n.final, n.finalAt))
	}
}

func (n *node) Pinned(author wire.OrgID, root wire.Hash) bool {
	_, ok := n.rows[wire.Entry{Author: author, Root: root}]
	return ok
}

func (n *node) Confirmed(message wire.Hash, epoch uint64) bool {
	return n.confirmed[inEpoch{message, epoch}]
}

func (n *node) Past(author wire.OrgID, root wire.Hash) (Entry, bool) {
	row, ok := n.rows[wire.Entry{Author: author, Root: root}]
	return row, ok && row.Status != Open
}

func (n *node) PastFrom(author wire.OrgID, from uint64, limit int) (rows []Entry) {
	for _, row := range n.rows {
		if row.Author == author && row.Number >= from && row.Status != Open {
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(x, y Entry) int { return int(x.Number) - int(y.Number) })
	return rows[max(0, len(rows)-limit):]
}

func (n *node) Exposed() (rows []Entry) {
	for _, row := range n.rows {
		if row.Exposed() && !row.Live() {
			rows = append(rows, row)
		}
	}
	return rows
}

// Defined is about the node's own audience, as if it were the network's.
func (n *node) Defined(before wire.Position) bool {
	return n.a.Settled(n.w.contexts(definitions)[0], before)
}

// sequence is what the node decided in one context, as text. Skips are left
// out: they change no context.
func (n *node) sequence(c wire.ContextID) (seq []string) {
	for _, v := range n.verdicts {
		if v.Kind != SkippedEntry && slices.Contains(v.Contexts, c) {
			seq = append(seq, describe(v))
		}
	}
	return seq
}

func describe(v Verdict) string { return fmt.Sprintf("%d/%d %s", v.Number, v.Index, v.Kind) }

func describeAll(vs []Verdict) (out []string) {
	for _, v := range vs {
		out = append(out, describe(v))
	}
	return out
}

func (n *node) expectVerdicts(t *testing.T, got []Verdict, want ...string) {
	t.Helper()
	if !slices.Equal(describeAll(got), want) {
		t.Fatalf("verdicts %v, want %v", describeAll(got), want)
	}
}

// everything is each verdict by entry and message, whatever the order.
func (n *node) everything() map[string]string {
	all := map[string]string{}
	for _, v := range n.verdicts {
		all[fmt.Sprintf("%d/%d", v.Number, v.Index)] = v.Kind.String() + v.Reason
	}
	return all
}
