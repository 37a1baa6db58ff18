package order

import (
	"container/heap"
	"errors"
	"fmt"
	"slices"

	"github.com/parley-node/parley/wire"
)

// Kind of a verdict.
type Kind uint8

const (
	Confirmed Kind = iota + 1
	Rejected
	SkippedEntry
)

func (k Kind) String() string {
	switch k {
	case Confirmed:
		return "confirmed"
	case Rejected:
		return "rejected"
	case SkippedEntry:
		return "skipped"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Whole as a verdict's Index means that it is about all messages of the entry
// that have no verdict yet.
const Whole = -1

// Verdict is one decision. The caller writes it, with its event rows, before
// it asks for the next.
type Verdict struct {
	Number    uint64 // of the entry
	Author    wire.OrgID
	Root      wire.Hash
	Index     int       // of the message in the batch, or Whole
	Message   wire.Hash // zero for Whole
	Kind      Kind
	Reason    string // why it is rejected or skipped
	Contexts  []wire.ContextID
	EntryDone bool  // the entry has left the machine
	Row       Entry // the entry's row now

	// Overruled: messages of the entry were confirmed here before the ledger
	// skipped it, which needs an organisation that both receipted and voted.
	// It is an incident; what was confirmed is not taken back.
	Overruled bool
}

// ErrNotOpen: the payload is for no open entry. Keep it: its pin may come.
var ErrNotOpen = errors.New(notOpen)

// Payload takes the payload of an open entry. A second one changes nothing.
func (a *Audience) Payload(author wire.OrgID, root wire.Hash, p Payload) error {
	e := a.entries[wire.Entry{Author: author, Root: root}]
	if e == nil || e.Status != Open {
		return fmt.Errorf("payload %s of %s: %w", root.Short(), author.Short(), ErrNotOpen)
	}
	if e.Payload == nil {
		a.install(e, p)
	}
	return nil
}

// entry is a live entry with its place in the order.
type entry struct {
	Entry
	items    []*item // parallel to Contexts
	waits    []int32 // per unit: in how many of its contexts it is not at the head
	left     int     // units without a verdict
	reject   string  // why the batch is rejected as a whole: then it is one unit
	skipping bool    // the skip is effective, its verdict not yet pulled

	prev, next *entry
}

// A unit is what gets one verdict: a message, or the whole of a batch that is
// rejected as a whole. Units are numbered as the messages; the whole is 0.

// item is an entry in the queue of one of its contexts.
type item struct {
	e     *entry
	q     *queue
	units []uint32 // that touch the context, ascending; unknown before the payload
	done  int      // how many of them have a verdict
	left  bool     // the entry has left this context
}

// queue is a context: the entries that occupy it, in ledger order.
type queue struct {
	id    wire.ContextID
	items []*item
	head  int
}

func (e *entry) id() wire.Entry { return wire.Entry{Author: e.Author, Root: e.Root} }

// row is a copy that shares no memory which the machine changes.
func (e *entry) row() Entry {
	row := e.Entry
	row.Receipts, row.Votes, row.Judged = slices.Clone(row.Receipts), slices.Clone(row.Votes), slices.Clone(row.Judged)
	return row
}

// insert puts a new or restored entry at the end of its contexts. Before its
// payload is known it occupies all of them.
func (a *Audience) insert(row Entry) *entry {
	e := &entry{Entry: row}
	e.Entry = e.row()
	a.entries[e.id()] = e
	if len(e.Votes) > 0 && !e.Pinned {
		a.voted[e] = struct{}{}
	}
	if e.SkipDue != 0 {
		heap.Push(&a.due, dueItem{e.SkipDue, e})
	}
	if e.Status != Open {
		return e // only contested: it has no place in the order any more
	}
	a.list.append(e)
	e.items = make([]*item, len(e.Contexts))
	for i, c := range e.Contexts {
		q := a.contexts[c]
		if q == nil {
			q = &queue{id: c}
			a.contexts[c] = q
		}
		e.items[i] = &item{e: e, q: q}
		q.items = append(q.items, e.items[i])
	}
	return e
}

// install gives an entry its payload: from now on it occupies a context only
// until the last of its messages there has a verdict.
func (a *Audience) install(e *entry, p Payload) {
	e.Payload = &p
	if e.reject = wholeReject(&e.Entry, p); e.reject != "" {
		e.left = 1
		e.waits = []int32{int32(len(e.items))}
		for _, it := range e.items {
			it.units = []uint32{0}
		}
	} else {
		e.left = len(p.Messages)
		e.waits = make([]int32, len(p.Messages))
		for i, m := range p.Messages {
			if _, judged := slices.BinarySearch(e.Judged, uint32(i)); judged { // by the machine that this one continues
				e.left--
				continue
			}
			e.waits[i] = int32(len(m.Contexts))
			for _, c := range m.Contexts {
				it := e.item(c)
				it.units = append(it.units, uint32(i))
			}
		}
	}
	for _, it := range e.items {
		if len(it.units) == 0 {
			a.leave(it)
		} else if it.q.items[it.q.head] == it {
			a.atHead(it)
		}
	}
	if len(e.items) == 0 {
		a.unitReady(e, 0)
	}
}

// wholeReject is why a batch is rejected as a whole. Its contexts must be
// exactly those that the pin names.
func wholeReject(e *Entry, p Payload) string {
	switch {
	case e.Bad != "":
		return e.Bad
	case p.Reject != "":
		return p.Reject
	case len(p.Messages) == 0:
		return "the batch has no messages"
	}
	touched := make([]bool, len(e.Contexts))
	for i, m := range p.Messages {
		if len(m.Contexts) == 0 {
			return fmt.Sprintf("message %d has no context", i)
		}
		for k, c := range m.Contexts {
			at, ok := slices.BinarySearchFunc(e.Contexts, c, compareContext)
			if !ok {
				return fmt.Sprintf("message %d is in context %s, which the pin does not name", i, c)
			}
			if slices.Contains(m.Contexts[:k], c) {
				return fmt.Sprintf("message %d names context %s twice", i, c)
			}
			touched[at] = true
		}
	}
	if at := slices.Index(touched, false); at >= 0 {
		return fmt.Sprintf("the pin names context %s, in which the batch has no message", e.Contexts[at])
	}
	return ""
}

// item finds the entry's place in one of its contexts.
func (e *entry) item(c wire.ContextID) *item {
	at, _ := slices.BinarySearchFunc(e.Contexts, c, compareContext)
	return e.items[at]
}

// atHead: the item is the first of its context, so its next unit is at the
// head there.
func (a *Audience) atHead(it *item) {
	if it.e.Payload == nil {
		return
	}
	unit := it.units[it.done]
	if it.e.waits[unit]--; it.e.waits[unit] == 0 {
		a.unitReady(it.e, unit)
	}
}

// leave takes an item out of its context. The next one that still occupies it
// comes to the head if the item was there.
func (a *Audience) leave(it *item) {
	it.left = true
	q := it.q
	if q.items[q.head] != it {
		return
	}
	for q.head < len(q.items) && q.items[q.head].left {
		q.items[q.head] = nil
		q.head++
	}
	if q.head == len(q.items) {
		delete(a.contexts, q.id)
		return
	}
	if q.head > 32 && q.head*2 > len(q.items) {
		q.items = append(q.items[:0:0], q.items[q.head:]...)
		q.head = 0
	}
	a.atHead(q.items[q.head])
}

// Settled tells whether everything of a context that was pinned before a
// position has its verdict. All pins of the audience before there are applied.
func (a *Audience) Settled(c wire.ContextID, before wire.Position) bool {
	q := a.contexts[c]
	return q == nil || q.items[q.head].e.Position.Compare(before) >= 0
}

// unitReady: the unit is at the head of all its contexts.
func (a *Audience) unitReady(e *entry, unit uint32) {
	if e.certified() {
		a.ready.push(ready{e, int64(unit)})
	}
}

// certify: the entry has just got its certificate.
func (a *Audience) certify(e *entry) {
	if e.Payload == nil || e.Status != Open {
		return
	}
	for unit, waits := range e.waits {
		if _, judged := slices.BinarySearch(e.Judged, uint32(unit)); waits == 0 && !judged {
			a.ready.push(ready{e, int64(unit)})
		}
	}
}

// Next gives the next verdict: of all messages that can be judged the one with
// the lowest (position, index). A message can be judged when it is at the head
// of each of its contexts, its entry has payload and certificate, and the
// definitions that it depends on are judged.
func (a *Audience) Next() (Verdict, bool) {
	for {
		r, ok := a.take()
		switch {
		case !ok:
			return Verdict{}, false
		case r.unit == skip:
			return a.judgeSkip(r.e), true
		case r.e.Status != Open:
		// A stalled machine cannot read the votes that may have been pinned
		// against an entry once it was older than T.
		case a.Stalled() && a.headAt-r.e.Time >= r.e.SkipAfter:
			a.held = append(a.held, r)
		case r.e.waitsForDefinitions(uint32(r.unit)) && !a.hist.Defined(r.e.Position):
			a.undefined.push(r)
		default:
			return a.judge(r.e, uint32(r.unit)), true
		}
	}
}

// take gives the lowest of what is ready, up to the final head.
func (a *Audience) take() (ready, bool) {
	from := &a.ready
	// If the lowest waits for definitions, so do the others.
	if u := a.undefined; len(u) > 0 && (len(a.ready) == 0 || u[0].before(a.ready[0])) && a.hist.Defined(u[0].e.Position) {
		from = &a.undefined
	}
	if len(*from) == 0 || (*from)[0].e.Position.Block > a.head {
		return ready{}, false // and so are all behind it
	}
	return heap.Pop(from).(ready), true
}

// AwaitsDefinitions tells whether messages could be judged but for definitions
// before them: call Next again after verdicts about some.
func (a *Audience) AwaitsDefinitions() bool { return len(a.undefined) > 0 }

func (e *entry) waitsForDefinitions(unit uint32) bool {
	return e.reject == "" && e.Payload.Messages[unit].AfterDefinitions
}

func (a *Audience) judge(e *entry, unit uint32) Verdict {
	v := Verdict{Number: e.Number, Author: e.Author, Root: e.Root, Index: int(unit), Kind: Confirmed}
	if e.reject != "" {
		v.Index, v.Kind, v.Reason, v.Contexts = Whole, Rejected, e.reject, e.Contexts
	} else {
		m := e.Payload.Messages[unit]
		v.Message, v.Contexts = m.Hash, m.Contexts
		switch {
		case m.Reject != "":
			v.Kind, v.Reason = Rejected, m.Reject
		case a.hist.Confirmed(m.Hash, e.Epoch):
			v.Kind, v.Reason = Rejected, "the same message was confirmed before"
		}
		at, _ := slices.BinarySearch(e.Judged, unit)
		e.Judged = slices.Insert(e.Judged, at, unit)
	}
	for _, c := range v.Contexts {
		it := e.item(c)
		if it.done++; it.done == len(it.units) {
			a.leave(it)
		} else {
			a.atHead(it)
		}
	}
	if e.left--; e.left == 0 {
		a.drop(e, Closed)
		v.EntryDone = true
	}
	v.Row = e.row()
	return v
}

func (a *Audience) judgeSkip(e *entry) Verdict {
	v := Verdict{
		Number: e.Number, Author: e.Author, Root: e.Root, Index: Whole, Kind: SkippedEntry,
		Reason:    fmt.Sprintf("%d of %d votes say that its payload cannot be had", e.S, e.V),
		Contexts:  e.Contexts,
		EntryDone: true,
		Overruled: e.Status == Closed || len(e.Judged) > 0,
	}
	open := e.Status == Open
	a.drop(e, Skipped)
	if open {
		for _, it := range e.items {
			if !it.left {
				a.leave(it)
			}
		}
	}
	v.Row = e.row()
	return v
}

// drop takes an entry out of the machine. One that is closed, but contested,
// stays known until its certificate is pinned or the skip overrules it.
func (a *Audience) drop(e *entry, s Status) {
	if e.Status == Open {
		a.list.remove(e)
	}
	e.Status = s
	if !e.Live() {
		delete(a.entries, e.id())
		delete(a.voted, e)
	}
}

// ready is a unit that can be judged, or a skip that is effective.
type ready struct {
	e    *entry
	unit int64
}

func (r ready) before(o ready) bool {
	if r.e.Number != o.e.Number {
		return r.e.Number < o.e.Number
	}
	return r.unit < o.unit
}

const skip = -1 // before the messages of its entry

// readyHeap is ordered by (position, index).
type readyHeap []ready

func (h *readyHeap) push(r ready) { heap.Push(h, r) }

func (h readyHeap) Len() int           { return len(h) }
func (h readyHeap) Less(i, j int) bool { return h[i].before(h[j]) }
func (h readyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *readyHeap) Push(x any)        { *h = append(*h, x.(ready)) }
func (h *readyHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = ready{}
	*h = old[:len(old)-1]
	return last
}

// entryList holds the open entries in ledger order.
type entryList struct{ first, last *entry }

func (l *entryList) append(e *entry) {
	e.prev = l.last
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
}

func (l *entryList) remove(e *entry) {
	if e.prev == nil {
		l.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
}
