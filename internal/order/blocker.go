package order

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/parley-node/parley/wire"
)

// Missing is what an entry waits for.
type Missing string

const (
	MissingPayload     Missing = "payload"
	MissingCertificate Missing = "certificate"
	MissingSecret      Missing = "secret" // of the current epoch, see Stalled
	MissingFinality    Missing = "finality"
	MissingDefinitions Missing = "definitions" // that were pinned before it, see Message
)

// Blocker is an entry that keeps a context from going on, and one thing that
// it lacks.
type Blocker struct {
	Number  uint64
	Author  wire.OrgID
	Root    wire.Hash
	Missing Missing
	Owes    []wire.OrgID // who can give what is missing
	Since   time.Time    // consensus time of the pin
	Remedy  string
	Votes   int       // to skip it, so far
	Needed  int       // votes that skip it
	SkipDue time.Time // when the skip takes effect; zero while the votes do not suffice
}

// Blockers tells what a context waits for: the entry at its head, or, where
// that one waits for its other contexts, what these wait for. It is empty for
// a context in which nothing waits. self is the node's own organisation.
func (a *Audience) Blockers(c wire.ContextID, self wire.OrgID) (blockers []Blocker) {
	walked := map[*queue]bool{}
	named := map[*entry]bool{}
	var walk func(q *queue)
	walk = func(q *queue) {
		if q == nil || walked[q] {
			return
		}
		walked[q] = true
		it := q.items[q.head]
		if !named[it.e] {
			named[it.e] = true
			blockers = append(blockers, a.lacks(it.e, self)...)
		}
		if it.e.Payload == nil {
			return
		}
		others := it.e.Contexts
		if it.e.reject == "" {
			others = it.e.Payload.Messages[it.units[it.done]].Contexts
		}
		for _, c := range others {
			walk(a.contexts[c])
		}
	}
	walk(a.contexts[c])
	slices.SortStableFunc(blockers, func(x, y Blocker) int { return cmp.Compare(x.Number, y.Number) })
	return blockers
}

// lacks are the blockers of one entry by itself.
func (a *Audience) lacks(e *entry, self wire.OrgID) (out []Blocker) {
	add := func(m Missing, owes []wire.OrgID, remedy string) {
		b := Blocker{
			Number: e.Number, Author: e.Author, Root: e.Root, Missing: m, Owes: owes,
			Since: time.Unix(0, e.Time).UTC(), Remedy: remedy, Votes: len(e.Votes), Needed: int(e.S),
		}
		if e.SkipDue != 0 {
			b.SkipDue = time.Unix(0, e.SkipDue).UTC()
			b.Remedy = fmt.Sprintf("wait until it is skipped at %s, or pin its certificate before", b.SkipDue.Format(time.RFC3339))
		}
		out = append(out, b)
	}
	if e.Payload == nil {
		owes := []wire.OrgID{e.Author}
		for _, org := range e.Receipts {
			if org != self {
				owes = append(owes, org)
			}
		}
		remedy := "connect to one of those who hold it; it is pulled by itself"
		if self == e.Author {
			owes = owes[1:]
			remedy = "this organisation sealed it: restore its database, or pull it from a member that holds it"
		}
		add(MissingPayload, owes, remedy)
	}
	if !e.certified() {
		var owes []wire.OrgID
		for _, m := range a.epoch(e.Epoch).Members {
			if _, has := e.receipted(m); !has && a.voter(&e.Entry, m) {
				owes = append(owes, m)
			}
		}
		remedy := fmt.Sprintf("%d more of these members must receive it; ask the author to send it to them", int(e.C)-len(e.Receipts))
		if self == e.Author {
			remedy = fmt.Sprintf("%d more of these members must receive it; check that their nodes run and can be reached", int(e.C)-len(e.Receipts))
		}
		add(MissingCertificate, owes, remedy)
	}
	if len(out) > 0 {
		return out
	}
	switch {
	case e.Position.Block > a.head:
		add(MissingFinality, nil, "wait until this node has read the ledger up to its head")
	case a.Stalled() && a.headAt-e.Time >= e.SkipAfter:
		add(MissingSecret, a.current().Members, "pull the secret of the current epoch from one of its members")
	case slices.ContainsFunc(a.undefined, func(r ready) bool { return r.e == e }):
		add(MissingDefinitions, nil, "its author is an identity that a definition announced: see what the network's topic ff_definition waits for")
	}
	return out
}

// Overdue are the open entries that are older than T at a consensus time and
// lack the payload or the certificate here, oldest first: the node pulls what
// it can, and votes against those whose payload nobody gives it.
func (a *Audience) Overdue(now time.Time) (rows []Entry) {
	for e := a.list.first; e != nil; e = e.next {
		if (e.Payload == nil || !e.certified()) && now.UnixNano()-e.Time >= e.SkipAfter {
			rows = append(rows, e.row())
		}
	}
	return rows
}

// live are the rows of all live entries, ascending.
func (a *Audience) live() []Entry {
	rows := make([]Entry, 0, len(a.entries))
	for _, e := range a.entries {
		rows = append(rows, e.row())
	}
	slices.SortFunc(rows, func(x, y Entry) int { return cmp.Compare(x.Number, y.Number) })
	return rows
}
