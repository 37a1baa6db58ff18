package order

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"

	"github.com/parley-node/parley/wire"
)

// restoredGrace is how many times longer the grace is when the votes suffice
// only with those of restored nodes, which may have forgotten a receipt.
const restoredGrace = 100

// reachOfAllOf is how many entries of an author an AllOf vote reaches.
const reachOfAllOf = 1024

// vote counts the votes of a valid pin against every entry that they reach.
func (a *Audience) vote(p Pin, v wire.Vote) {
	var oldest uint64 // number of the oldest entry that is listed
	listed := false
	for _, id := range v.Entries {
		e := a.find(id)
		if e == nil {
			continue
		}
		if v.AllOf == nil {
			a.ballot(p, e, v.Restored)
		} else if e.Author == *v.AllOf && (!listed || e.Number < oldest) {
			oldest, listed = e.Number, true
		}
	}
	if v.AllOf == nil || len(v.Entries) > 0 && !listed {
		return
	}
	for _, e := range a.allOf(*v.AllOf, oldest) {
		a.ballot(p, e, v.Restored)
	}
}

// allOf gives the entries of an author that an AllOf vote reaches: from the
// oldest one listed, if any, up to the pin, the newest of them; a bound keeps
// one vote from costing a walk through all history. Which have their verdict
// here makes no difference, because they may be open elsewhere.
func (a *Audience) allOf(author wire.OrgID, oldest uint64) (list []*entry) {
	for _, e := range a.entries {
		if e.Author == author && e.Number >= oldest {
			list = append(list, e)
		}
	}
	for _, row := range a.hist.PastFrom(author, oldest, reachOfAllOf) {
		if e := a.past(row); a.entries[e.id()] == nil {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, byNumber)
	return list[max(0, len(list)-reachOfAllOf):]
}

// find gives an entry that is live here or was before; its row is then not
// part of the machine until someone contests it.
func (a *Audience) find(id wire.Entry) *entry {
	if e := a.entries[id]; e != nil {
		return e
	}
	row, ok := a.hist.Past(id.Author, id.Root)
	if !ok {
		return nil
	}
	return a.past(row)
}

func (a *Audience) past(row Entry) *entry {
	id := wire.Entry{Author: row.Author, Root: row.Root}
	if e := a.entries[id]; e != nil {
		return e
	}
	if e := a.effects.changed[id]; e != nil { // by this step, and not stored yet
		return e
	}
	row.Receipts, row.Votes = slices.Clone(row.Receipts), slices.Clone(row.Votes)
	return &entry{Entry: row}
}

// ballot counts one organisation's vote against one entry, once.
func (a *Audience) ballot(p Pin, e *entry, restored bool) {
	if e.Status == Skipped || e.skipping || e.Pinned || !a.mayVote(e, p.Org) {
		return
	}
	if i := e.voted(p.Org); i < 0 {
		e.Votes = append(e.Votes, Ballot{p.Org, restored})
		a.effects.votes = append(a.effects.votes, Vote{p.Org, e.id()})
		// One that holds the payload and says that it cannot be had is lying.
		if _, has := e.receipted(p.Org); has {
			a.effects.incidents = append(a.effects.incidents, Incident{p.Org, e.id()})
		}
	} else if e.Votes[i].Restored && !restored {
		e.Votes[i].Restored = false
	} else {
		return
	}
	a.touch(e)
	a.tally(e, p.Position, p.Time.UnixNano())
	if e.Live() {
		a.voted[e] = struct{}{}
	}
}

// MayVote tells whether an organisation's vote against a live entry counts.
func (a *Audience) MayVote(id wire.Entry, org wire.OrgID) bool {
	e := a.entries[id]
	return e != nil && a.mayVote(e, org)
}

// mayVote: the other members vote. Where none of them is left, or there never
// was one, the author may; if it is gone too, any current member.
func (a *Audience) mayVote(e *entry, org wire.OrgID) bool {
	if a.voter(&e.Entry, org) {
		return true
	}
	for _, m := range a.epoch(e.Epoch).Members {
		if a.voter(&e.Entry, m) && !a.gone(m, a.through) {
			return false
		}
	}
	return org == e.Author || a.gone(e.Author, a.through)
}

// gone: the organisation cannot pin a vote any more, because the network
// suspended or removed it or the current epoch does not list it.
func (a *Audience) gone(org wire.OrgID, at wire.Position) bool {
	return !a.current().Has(org) || !a.net.Active(org, at)
}

// recount looks again at all entries with votes, because members left.
func (a *Audience) recount(at wire.Position, now int64) {
	again := map[*entry]struct{}{}
	for e := range a.voted {
		if !e.Live() || e.Pinned {
			delete(a.voted, e)
			continue
		}
		again[e] = struct{}{}
	}
	for _, e := range a.effects.changed {
		if e.Exposed() {
			again[e] = struct{}{}
		}
	}
	for _, row := range a.hist.Exposed() {
		if e := a.past(row); e.Exposed() {
			again[e] = struct{}{}
		}
	}
	for _, e := range slices.SortedFunc(maps.Keys(again), byNumber) {
		a.tally(e, at, now)
	}
}

func byNumber(x, y *entry) int { return cmp.Compare(x.Number, y.Number) }

// tally decides when the votes take effect: G after s votes are complete, much
// later if they are only with votes of restored nodes. Members that are gone
// count as votes where at least one vote is pinned. An entry that had left the
// machine comes back when its votes suffice.
func (a *Audience) tally(e *entry, at wire.Position, now int64) {
	votes, sure := len(e.Votes), 0
	for _, b := range e.Votes {
		if !b.Restored {
			sure++
		}
	}
	all, firm := votes, sure
	if votes < int(e.S) || sure < int(e.S) {
		for _, m := range a.epoch(e.Epoch).Members {
			if !a.voter(&e.Entry, m) || !a.gone(m, at) {
				continue
			}
			i := e.voted(m)
			if i < 0 {
				all++
			}
			if i < 0 || e.Votes[i].Restored {
				firm++
			}
		}
	}
	grace := int64(a.net.Params(at).SkipGrace)
	switch {
	case sure > 0 && firm >= int(e.S):
	case votes > 0 && all >= int(e.S):
		grace *= restoredGrace
	default:
		return
	}
	if due := now + grace; e.SkipDue == 0 || due < e.SkipDue {
		e.SkipDue = due
		a.entries[e.id()] = e
		a.voted[e] = struct{}{}
		a.touch(e)
		heap.Push(&a.due, dueItem{due, e})
		if e.certified() {
			a.effects.contested = append(a.effects.contested, e.id())
		}
	}
}

// takeEffect lets the skips happen that are due at a consensus time. An entry
// whose certificate was pinned before cannot be skipped.
func (a *Audience) takeEffect(now int64) {
	for len(a.due) > 0 && a.due[0].due <= now {
		d := heap.Pop(&a.due).(dueItem)
		if d.e.SkipDue == d.due && d.e.Live() && !d.e.Pinned && !d.e.skipping {
			d.e.skipping = true
			a.ready.push(ready{d.e, skip})
		}
	}
}

// touch marks a row that the caller must store.
func (a *Audience) touch(e *entry) { a.effects.changed[e.id()] = e }

// voted gives the place of org among the votes, -1 if it has none.
func (e *Entry) voted(org wire.OrgID) int {
	return slices.IndexFunc(e.Votes, func(b Ballot) bool { return b.Org == org })
}

// dueHeap holds entries by the time at which their skip takes effect.
type dueHeap []dueItem

type dueItem struct {
	due int64
	e   *entry
}

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(dueItem)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
