// Package order decides what belongs to a context and in which order: it turns
// the ledger's pins and the arrival of payloads and receipts into verdicts.
//
// It is pure. There is no I/O, no clock and no goroutine in it; what it needs
// to know of the ledger and of the past it asks through Network and History,
// and what the caller must store it returns. So every member computes the same
// verdicts from the same ledger, and a machine can be thrown away and rebuilt
// from stored rows at any time.
//
// There is one machine, an Audience, for the network and one for each group.
// The life of a pin in it:
//
//	window.go   is the tag expected, which key and number does it stand for
//	apply.go    is the pin valid, what does its control change, which contexts
//	            does its batch touch
//	receipt.go  who holds the payload: certificates
//	vote.go     nobody holds it: skip votes and their grace
//	epoch.go    who belongs to the audience: activation of a new epoch
//	judge.go    what is at the head of all its contexts: verdicts
//	blocker.go  what everything else waits for
package order

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/parley-node/parley/wire"
)

// Network answers what the ledger said at a position. The same question has
// the same answer for ever, at every member.
type Network interface {
	// OrgOf is the organisation whose valid key this is, if it is an active
	// member there.
	OrgOf(key wire.Address, at wire.Position) (wire.OrgID, bool)
	// Active tells whether the organisation is a member and not suspended.
	Active(org wire.OrgID, at wire.Position) bool
	// Keys are all keys that the organisation had at any position up to at,
	// revoked ones too: a group that is learned late must find their old pins.
	Keys(org wire.OrgID, at wire.Position) []wire.Address
	// Departures are the records in (after, through] that suspended or removed
	// a member, in ledger order.
	Departures(after, through wire.Position) []Departure
	// BlockHash knows the blocks that hold a record of the contract.
	BlockHash(number uint64) (wire.Hash, bool)
	// Params are the constants that hold at a position.
	Params(at wire.Position) Params
}

// Departure is a record that ended or suspended a membership.
type Departure struct {
	Position wire.Position
	Time     time.Time // consensus time
}

// Params are the ledger's constants that matter here, see ledger.Params.
type Params struct {
	Window     uint64 // W, at most MaxWindow
	ReceiptAge uint64 // K, blocks
	SkipAfter  time.Duration
	SkipGrace  time.Duration
}

// History looks back beyond the open entries, in this audience. It sees what
// the caller has stored, also earlier in the same transaction.
type History interface {
	// Pinned tells whether an earlier pin that was not void named this batch.
	Pinned(author wire.OrgID, root wire.Hash) bool
	// Confirmed tells whether a message with this hash was confirmed in a batch
	// of this epoch.
	Confirmed(message wire.Hash, epoch uint64) bool
	// Past is the stored row of an entry that is no longer open.
	Past(author wire.OrgID, root wire.Hash) (Entry, bool)
	// PastFrom are the stored rows of an author's entries that are no longer
	// open and whose number is at least from: the newest limit of them.
	PastFrom(author wire.OrgID, from uint64, limit int) []Entry
	// Exposed are the stored rows of entries that are no longer open, but
	// Exposed.
	Exposed() []Entry
	// Defined tells whether every definition that was pinned before a position
	// has its verdict. Definitions belong to the network's audience; once the
	// answer is yes it stays yes.
	Defined(before wire.Position) bool
}

// Pin is a pin as the ledger holds it.
type Pin struct {
	Number   uint64 // of the record
	Position wire.Position
	Time     time.Time    // consensus time of its block
	Key      wire.Address // the account that signed it
	Org      wire.OrgID   // that the contract names as its owner
	Pin      wire.Pin
}

// Status of an entry.
type Status uint8

const (
	Open    Status = iota // no verdict yet, or not for all its messages
	Closed                // every message confirmed or rejected
	Skipped               // skipped by votes
)

func (s Status) String() string {
	switch s {
	case Open:
		return "open"
	case Closed:
		return "closed"
	case Skipped:
		return "skipped"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Entry is a pinned batch: the row that the caller stores with its pin. All
// but Receipts, Payload and Judged is a function of the ledger alone.
type Entry struct {
	Number   uint64
	Position wire.Position
	Time     int64 // consensus time, nanoseconds since 1970 UTC
	Author   wire.OrgID
	Root     wire.Hash
	Epoch    uint64
	Contexts []wire.ContextID // distinct, ascending
	Bad      string           // why the handles are wrong: the batch will be rejected as a whole

	// Fixed at the position. C receipts of the V other members certify the
	// entry, S votes of them skip it.
	V, C, S    uint32
	ReceiptAge uint64 // blocks
	SkipAfter  int64  // nanoseconds

	Receipts []wire.OrgID // organisations whose receipts count, as far as known here, ascending
	Votes    []Ballot
	SkipDue  int64 // consensus time at which the skip takes effect, 0 while the votes do not suffice
	Pinned   bool  // its certificate is on the ledger: it cannot be skipped

	Status  Status
	Payload *Payload // what has arrived; a stored row may leave it out, then Payload gives it again
	Judged  []uint32 // indices of messages that have a verdict already, ascending
}

// Ballot is one organisation's counted vote against an entry.
type Ballot struct {
	Org      wire.OrgID
	Restored bool // cast by a restored node: counts only after a much longer grace
}

// Live tells whether the machine still has to keep the entry: it is open, or
// it has got its verdict, but enough votes are pinned against it. Restore wants
// all live entries.
func (e *Entry) Live() bool {
	return e.Status == Open || e.Exposed() && e.SkipDue != 0
}

// Exposed tells whether the entry has got its verdict here, but votes are
// pinned against it and no certificate. At a member that is behind it may be
// open, so what happens to it must not depend on that: when members leave, the
// votes may suffice.
func (e *Entry) Exposed() bool {
	return e.Status == Closed && len(e.Votes) > 0 && !e.Pinned
}

// Payload is what ordering needs to know of a batch that has arrived and
// could be opened.
type Payload struct {
	Messages []Message
	Reject   string // why the whole batch is invalid, empty if it is not
}

// Message is one message of a batch. Contexts are those of its topics,
// distinct. Reject is why it is invalid, empty if it is not; both rejections
// must be functions of the batch and of the ledger up to the pin.
//
// What a message may say can depend on definitions: its author is an identity
// that one of them announced. Such a message is judged after all definitions
// before its pin. Those wait for none but earlier ones, so nothing waits in a
// circle.
type Message struct {
	Hash             wire.Hash
	Contexts         []wire.ContextID
	Reject           string
	AfterDefinitions bool
}

// Incident is the proof of a lie: the organisation signed both a receipt for
// the entry and a vote that says it cannot get it.
type Incident struct {
	Org   wire.OrgID
	Entry wire.Entry
}

// State is all that a machine must remember, in plain structures. It holds no
// keys: give the current epoch's to Unlock after Restore.
type State struct {
	Audience wire.Hash
	Group    bool
	Created  bool                   // the group exists on the ledger; true for the network
	Epochs   []wire.EpochDefinition // all activated ones, ascending; the last is current
	Windows  []Window               // of the current epoch
	Entries  []Entry                // the live ones, ascending
	Through  wire.Position          // up to here every pin of the audience has been applied
	Now      int64                  // consensus time of Through, nanoseconds since 1970 UTC
	Known    wire.Position          // up to here the keys of members are known
}

// Audience is the state machine of one audience. It is not safe for
// concurrent use. If the caller's transaction fails after it called a method,
// it must drop the machine and Restore another.
type Audience struct {
	id   wire.Hash
	net  Network
	hist History

	group   bool
	created bool
	epochs  []epoch
	keys    *wire.Keys // of the current epoch, nil while unknown
	windows map[wire.Address]*window
	tags    map[wire.Tag]slot
	known   wire.Position
	width   uint64 // widest W that tags are expected for

	through wire.Position
	now     int64  // consensus time of through
	head    uint64 // final block that was told last; 0 after New, Restore and a stall
	headAt  int64

	entries   map[wire.Entry]*entry // live ones
	list      entryList             // the open ones in ledger order
	contexts  map[wire.ContextID]*queue
	ready     readyHeap // messages that can be judged once Final covers them
	held      []ready   // ready, but too old to be judged without the epoch's keys
	undefined readyHeap // ready, but definitions before them are not judged yet
	due       dueHeap   // entries with enough votes, by SkipDue
	voted     map[*entry]struct{}
	early     map[receiptKey]wire.Receipt // name a block that we have not seen

	effects effects // of the step that runs
}

// epoch is an activated definition with its hash.
type epoch struct {
	wire.EpochDefinition
	hash wire.Hash
}

// New makes the machine of an audience that nothing is known of yet. first is
// the definition of its first epoch here: epoch 1, or the epoch with which a
// member without the older history joins. known is the position up to which
// the caller has read the ledger's membership records; pins are applied from
// the beginning whatever it is. Unlock comes next.
func New(id wire.Hash, net Network, hist History, first wire.EpochDefinition, group bool, known wire.Position) (*Audience, error) {
	return Restore(State{
		Audience: id,
		Group:    group,
		Created:  !group || first.Epoch > 1,
		Epochs:   []wire.EpochDefinition{first},
		Known:    known,
	}, net, hist)
}

// Restore makes a machine that continues from a state. Nothing is judged
// before Final is called: a node that was away must first apply what it
// missed, or it would confirm what the others have skipped.
func Restore(s State, net Network, hist History) (*Audience, error) {
	if len(s.Epochs) == 0 {
		return nil, fmt.Errorf("audience %s has no epoch definition: restore needs at least the first", s.Audience.Short())
	}
	a := &Audience{
		id: s.Audience, net: net, hist: hist,
		group: s.Group, created: s.Created, through: s.Through, now: s.Now, known: s.Known,
		windows:  map[wire.Address]*window{},
		tags:     map[wire.Tag]slot{},
		entries:  map[wire.Entry]*entry{},
		contexts: map[wire.ContextID]*queue{},
		voted:    map[*entry]struct{}{},
		early:    map[receiptKey]wire.Receipt{},
		effects:  effects{changed: map[wire.Entry]*entry{}},
	}
	for _, d := range s.Epochs {
		h, err := d.Hash()
		if err != nil {
			return nil, fmt.Errorf("definition of epoch %d of audience %s: %w", d.Epoch, s.Audience.Short(), err)
		}
		a.epochs = append(a.epochs, epoch{d, h})
	}
	for _, w := range s.Windows {
		a.windows[w.Key] = &window{Window: w}
	}
	for i := range s.Entries {
		if err := a.restoreEntry(s.Entries[i]); err != nil {
			return nil, err
		}
	}
	a.takeEffect(a.now)
	return a, nil
}

func (a *Audience) restoreEntry(row Entry) error {
	if a.epoch(row.Epoch) == nil {
		return fmt.Errorf("entry %d of audience %s is of epoch %d, whose definition is missing", row.Number, a.id.Short(), row.Epoch)
	}
	if last := a.list.last; last != nil && last.Number >= row.Number {
		return fmt.Errorf("entry %d of audience %s follows entry %d: restore needs them ascending", row.Number, a.id.Short(), last.Number)
	}
	payload := row.Payload
	row.Payload = nil
	e := a.insert(row)
	if payload != nil && e.Status == Open {
		a.install(e, *payload)
	}
	return nil
}

// State is what Restore needs to continue from here. It shares no memory that
// the machine changes later.
func (a *Audience) State() State {
	s := State{Audience: a.id, Group: a.group, Created: a.created, Through: a.through, Now: a.now, Known: a.known}
	for _, d := range a.epochs {
		s.Epochs = append(s.Epochs, d.EpochDefinition)
	}
	s.Windows = a.Windows()
	s.Entries = a.live()
	return s
}

// ID is the audience's identity: the network's id or the group's.
func (a *Audience) ID() wire.Hash { return a.id }

// Created tells whether the audience exists on the ledger.
func (a *Audience) Created() bool { return a.created }

// Epoch is the definition of the current epoch.
func (a *Audience) Epoch() wire.EpochDefinition { return a.current().EpochDefinition }

// Stalled tells that the current epoch's keys are unknown: the next pins
// cannot be read, so Apply must wait for Unlock.
func (a *Audience) Stalled() bool { return a.keys == nil }

// Through is the position up to which the audience's pins have been applied.
func (a *Audience) Through() wire.Position { return a.through }

// Open are the entries without a verdict, in ledger order.
func (a *Audience) Open() []Entry {
	var rows []Entry
	for e := a.list.first; e != nil; e = e.next {
		rows = append(rows, e.row())
	}
	return rows
}

// Entry is the current row of a live entry.
func (a *Audience) Entry(author wire.OrgID, root wire.Hash) (Entry, bool) {
	e := a.entries[wire.Entry{Author: author, Root: root}]
	if e == nil {
		return Entry{}, false
	}
	return e.row(), true
}

// Final tells the chain's final head as the node knows it now. Every pin of
// the audience up to that block has been applied, unless the machine is
// stalled. While a node catches up page by page it must not report the pages'
// ends: only what the real head covers is judged, because a later page may
// hold votes that skip it.
func (a *Audience) Final(block uint64, at time.Time) Effects {
	a.head, a.headAt = max(a.head, block), max(a.headAt, at.UnixNano())
	// Votes after a stall cannot be read, so for a stalled machine time stands
	// still.
	end := wire.Position{Block: block, Log: math.MaxUint32}
	if !a.Stalled() && a.through.Compare(end) < 0 {
		a.advance(end, at.UnixNano())
	}
	a.retryEarly()
	return a.drain()
}

// Effects are what a step changed in other entries than its own.
type Effects struct {
	// Changed are the rows whose votes, skip time or pinned certificate
	// changed, ascending. The caller stores them in the same transaction.
	Changed []Entry
	// Contested entries are certified here, but enough votes against them are
	// pinned: the caller pins their certificates before SkipDue.
	Contested []wire.Entry
	// Votes were counted in this step: an organisation must know its own.
	Votes     []Vote
	Incidents []Incident
}

// Vote is an organisation's vote to skip an entry.
type Vote struct {
	Org   wire.OrgID
	Entry wire.Entry
}

// effects collects Effects while a step runs.
type effects struct {
	changed   map[wire.Entry]*entry
	contested []wire.Entry
	votes     []Vote
	incidents []Incident
}

func (a *Audience) drain() (out Effects) {
	for _, e := range a.effects.changed {
		out.Changed = append(out.Changed, e.row())
	}
	slices.SortFunc(out.Changed, func(x, y Entry) int { return cmp.Compare(x.Number, y.Number) })
	out.Contested, out.Votes, out.Incidents = a.effects.contested, a.effects.votes, a.effects.incidents
	a.effects = effects{changed: map[wire.Entry]*entry{}}
	return out
}

// advance moves to a later position and lets what time alone brings take
// effect: members that left count as votes, and due skips happen.
func (a *Audience) advance(to wire.Position, at int64) {
	for _, d := range a.net.Departures(a.through, to) {
		a.recount(d.Position, d.Time.UnixNano())
	}
	a.through, a.now = to, max(a.now, at)
	a.takeEffect(a.now)
}

func (a *Audience) current() *epoch { return &a.epochs[len(a.epochs)-1] }

// epoch finds an activated definition. Epochs are contiguous.
func (a *Audience) epoch(n uint64) *epoch {
	first := a.epochs[0].Epoch
	if n < first || n-first >= uint64(len(a.epochs)) {
		return nil
	}
	return &a.epochs[n-first]
}
