package order

import (
	"fmt"
	"testing"
	"time"

	"github.com/parley-node/parley/wire"
)

// votes pins one vote of each member and applies it.
func (n *node) vote(id wire.Entry, restored bool, members ...*member) {
	n.w.t.Helper()
	for _, m := range members {
		p := n.w.pin(m, &wire.Control{Votes: []wire.Vote{{Entries: []wire.Entry{id}, Restored: restored}}})
		if out := n.apply(p); out.Void != "" {
			n.w.t.Fatalf("vote is void: %s", out.Void)
		}
	}
}

// due is how long after now the entry is skipped; -1 if the votes do not
// suffice.
func (n *node) due(id wire.Entry) time.Duration {
	row, ok := n.a.Entry(id.Author, id.Root)
	if !ok || row.SkipDue == 0 {
		return -1
	}
	return time.Duration(row.SkipDue - n.w.now.UnixNano())
}

func (n *node) wantDue(t *testing.T, id wire.Entry, want time.Duration) {
	t.Helper()
	if got := n.due(id); got != want {
		t.Fatalf("skip is due in %s, want %s", got, want)
	}
}

func TestSkipTakesEffectAfterGrace(t *testing.T) {
	w := newNetwork(t, 5) // v = 4, s = 3
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	id := idOf(p)
	n.vote(id, false, w.members[1], w.members[1], w.members[2]) // one counts once
	n.wantDue(t, id, -1)
	n.vote(id, false, w.members[0]) // the author does not count
	n.wantDue(t, id, -1)
	n.vote(id, false, w.members[3])
	n.wantDue(t, id, testGrace)

	next := w.pin(w.members[0], nil, msg("a"))
	n.apply(next)
	n.payload(idOf(next))
	n.receive(w.receipt(w.members[1], idOf(next), 1))
	n.receive(w.receipt(w.members[2], idOf(next), 1))
	w.next(testGrace - 1)
	n.head()
	n.expectVerdicts(t, n.judge())
	w.next(1)
	n.head()
	n.expectVerdicts(t, n.judge(), fmt.Sprintf("%d/-1 skipped", p.Number), fmt.Sprintf("%d/0 confirmed", next.Number))
	if err := n.a.Payload(id.Author, id.Root, Payload{}); err == nil {
		t.Fatal("a payload that arrived after the skip changed something")
	}
}

func TestRestoredVotesNeedMuchLongerGrace(t *testing.T) {
	w := newNetwork(t, 4) // v = 3, s = 2
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	n.vote(idOf(p), true, w.members[1])
	n.vote(idOf(p), false, w.members[2])
	n.wantDue(t, idOf(p), 100*testGrace)
	w.next(time.Second)
	n.vote(idOf(p), false, w.members[3])
	n.wantDue(t, idOf(p), testGrace)
}

func TestRestoredVoteOfTheSameOrganisationBecomesAFullOne(t *testing.T) {
	w := newNetwork(t, 2)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	n.vote(idOf(p), true, w.members[1])
	n.wantDue(t, idOf(p), 100*testGrace)
	n.vote(idOf(p), false, w.members[1])
	n.wantDue(t, idOf(p), testGrace)
}

// Those who left count as votes at once only beside a vote that is sure.
func TestRestoredVoteIsNotTheOneThatRemovedMembersNeed(t *testing.T) {
	w := newNetwork(t, 4) // v = 3, s = 2
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	w.setActive(w.members[1], false)
	w.setActive(w.members[2], false)
	n.vote(idOf(p), true, w.members[3])
	n.wantDue(t, idOf(p), 100*testGrace)
}

func TestPinnedCertificatePreventsSkip(t *testing.T) {
	for name, c := range map[string]struct {
		after   time.Duration
		holders int
		skipped bool
	}{
		"in time":           {testGrace - 1, 2, false},
		"too late":          {testGrace, 2, true},
		"too few receipts":  {time.Second, 1, true},
		"before completion": {0, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newNetwork(t, 4) // v = 3, c = 2, s = 2: member 1 lies
			n := w.node()
			p := w.pin(w.members[0], nil, msg("a"))
			id := idOf(p)
			n.apply(p)
			control := &wire.Control{Certificates: []wire.Certificate{w.certificate(id, w.members[1:1+c.holders]...)}}
			n.vote(id, false, w.members[1])
			if c.after > 0 {
				n.vote(id, false, w.members[3])
				w.next(c.after)
			}
			n.apply(w.pin(w.members[2], control))
			n.vote(id, false, w.members[3])
			n.restart() // what the ledger decided must not be in memory only
			w.next(testGrace)
			n.head()
			got := n.judge()
			if (len(got) == 1) != c.skipped {
				t.Fatalf("verdicts %v, want skipped %v", describeAll(got), c.skipped)
			}
			if !c.skipped {
				n.payload(id) // the pinned certificate is one for this node too
				n.expectVerdicts(t, n.judge(), fmt.Sprintf("%d/0 confirmed", p.Number))
			}
		})
	}
}

func TestPinnedCertificateCountsOnlyBlocksUpToItsPin(t *testing.T) {
	w := newNetwork(t, 2)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	r := w.receipt(w.members[1], idOf(p), 1)
	r.RecentNumber, r.RecentBlock = w.block+1, blockHash(w.block+1)
	c := wire.Certificate{Author: p.Org, Root: p.Pin.Root, Receipts: []wire.Receipt{w.sign(w.members[1], r)}}
	carried := w.pin(w.members[0], &wire.Control{Certificates: []wire.Certificate{c}})
	w.next(time.Second) // this node knows the block, one that read less does not
	if out := n.apply(carried); len(out.Ignored) != 1 || len(out.Changed) != 0 {
		t.Fatalf("ignored %v, changed %d rows: what counts must not depend on how far a node has read", out.Ignored, len(out.Changed))
	}
}

func TestVoteForAllOfAnAuthor(t *testing.T) {
	w := newNetwork(t, 2)
	n := w.node()
	author, b := w.members[0], w.members[1]
	var ids []wire.Entry
	for range 4 {
		ids = append(ids, idOf(w.pin(author, nil, msg("a"))))
	}
	n.applyAll()
	n.apply(w.pin(author, &wire.Control{Certificates: []wire.Certificate{w.certificate(ids[2], b)}}))
	n.apply(w.pin(b, &wire.Control{Votes: []wire.Vote{{AllOf: &author.org, Entries: ids[1:2]}}}))
	later := w.pin(author, nil, msg("a"))
	n.apply(later)
	for i, want := range []time.Duration{-1, testGrace, -1, testGrace} {
		if got := n.due(ids[i]); got != want {
			t.Errorf("entry %d is due in %s, want %s", i, got, want)
		}
	}
	n.wantDue(t, idOf(later), -1)
	n.apply(w.pin(b, &wire.Control{Votes: []wire.Vote{{AllOf: &author.org}}}))
	n.wantDue(t, ids[0], testGrace)
	n.wantDue(t, idOf(later), testGrace)
}

func TestRemovedMemberCountsAsVoteOnceOneIsPinned(t *testing.T) {
	w := newNetwork(t, 5) // v = 4, s = 3
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	w.setActive(w.members[1], false)
	w.setActive(w.members[2], false)
	w.next(time.Second)
	n.head()
	n.wantDue(t, idOf(p), -1)
	w.next(time.Second)
	n.vote(idOf(p), false, w.members[3])
	n.wantDue(t, idOf(p), testGrace)
}

// An entry that has its verdict here is no other for that: a member that is
// behind skips it unless its certificate is pinned, so this one is told, also
// after a restart.
func TestDepartureCompletesVotesAgainstADecidedEntry(t *testing.T) {
	for name, tell := range map[string]func(n *node, w *world){
		"by the head":     func(n *node, w *world) { n.head() },
		"by the next pin": func(n *node, w *world) { n.apply(w.pin(w.members[0], nil, msg("b"))) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newNetwork(t, 4) // v = 3, c = 2, s = 2: member 1 lies
			n := w.node()
			p := w.pin(w.members[0], nil, msg("a"))
			id := idOf(p)
			n.apply(p)
			n.payload(id)
			n.receive(w.receipt(w.members[1], id, 1))
			n.receive(w.receipt(w.members[2], id, 1))
			w.next(1)
			n.head()
			n.expectVerdicts(t, n.judge(), fmt.Sprintf("%d/0 confirmed", p.Number))
			w.next(1)
			n.vote(id, false, w.members[1])
			n.wantDue(t, id, -1)
			n.restartFromRows()
			w.next(1)
			w.setActive(w.members[3], false)
			tell(n, w)
			n.wantDue(t, id, testGrace)
			if len(n.contested) != 1 || n.contested[0] != id {
				t.Fatalf("contested %v, want the entry: its certificate must be pinned", n.contested)
			}
			n.restartFromRows()
			n.wantDue(t, id, testGrace)
			certificate := w.certificate(id, w.members[1], w.members[2])
			w.next(1)
			n.apply(w.pin(w.members[2], &wire.Control{Certificates: []wire.Certificate{certificate}}))
			w.next(testGrace)
			n.head()
			for _, v := range n.judge() {
				if v.Kind == SkippedEntry {
					t.Fatalf("verdict %s, though the certificate was pinned in time", describe(v))
				}
			}
		})
	}
}

func TestMemberThatWasSuspendedAtThePinHasNoVote(t *testing.T) {
	w := newNetwork(t, 3)
	n := w.node()
	w.setActive(w.members[2], false)
	p := w.pin(w.members[0], nil, msg("a")) // v = 1, s = 1
	n.apply(p)
	w.setActive(w.members[2], true)
	n.vote(idOf(p), false, w.members[2])
	n.wantDue(t, idOf(p), -1)
	n.vote(idOf(p), false, w.members[1])
	n.wantDue(t, idOf(p), testGrace)
}

func TestRemovalCompletesVotesAtItsOwnTime(t *testing.T) {
	w := newNetwork(t, 4) // v = 3, s = 2
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	n.vote(idOf(p), false, w.members[1])
	w.next(time.Second)
	w.setActive(w.members[2], false)
	removed := w.now
	w.next(10 * time.Second)
	n.head() // one look, long after
	row, _ := n.a.Entry(p.Org, p.Pin.Root)
	if want := removed.Add(testGrace).UnixNano(); row.SkipDue != want {
		t.Fatalf("skip is due at %d, want %d", row.SkipDue, want)
	}
	if n.rows[idOf(p)].SkipDue != row.SkipDue {
		t.Fatal("the changed row was not returned to be stored")
	}
}

func TestLoneAuthorVotesAgainstItself(t *testing.T) {
	w := newNetwork(t, 1)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	n.vote(idOf(p), false, w.members[0])
	n.wantDue(t, idOf(p), testGrace)
}

func TestAuthorVotesWhereNoOtherVoterIsLeft(t *testing.T) {
	w := newNetwork(t, 3)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	w.setActive(w.members[1], false)
	n.vote(idOf(p), false, w.members[0])
	n.wantDue(t, idOf(p), -1) // one voter is left
	w.setActive(w.members[2], false)
	n.vote(idOf(p), false, w.members[0])
	n.wantDue(t, idOf(p), testGrace)
}

func TestMayVoteSaysWhoseVoteCounts(t *testing.T) {
	w := newNetwork(t, 3) // v = 2
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	author, other := w.members[0].org, w.members[1].org
	if n.a.MayVote(idOf(p), author) || !n.a.MayVote(idOf(p), other) || n.a.MayVote(wire.Entry{Author: author}, other) {
		t.Fatal("not the other members alone may vote, and against what is pinned")
	}
	w.next(1)
	w.setActive(w.members[1], false)
	w.setActive(w.members[2], false)
	n.head()
	if !n.a.MayVote(idOf(p), author) {
		t.Fatal("the author may not vote, though nobody else is left")
	}
}

func TestAnyMemberVotesWhereTheAuthorIsGoneToo(t *testing.T) {
	w := newNetwork(t, 2)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	late := w.admit()
	d, s := w.propose(w.members[1], append(w.orgs(2), late.org))
	w.next(time.Second)
	if out := n.apply(w.pin(w.members[1], w.activation(d, w.members[0], late))); out.Activated == nil {
		t.Fatalf("not activated: %v", out.Ignored)
	}
	w.adopt(d, s)
	n.unlock()
	w.setActive(w.members[1], false)
	n.vote(idOf(p), false, late)
	n.wantDue(t, idOf(p), -1) // the author may still vote
	w.setActive(w.members[0], false)
	n.vote(idOf(p), false, late)
	n.wantDue(t, idOf(p), testGrace)
}

// What a node confirmed while it could not see the ledger stays confirmed, but
// the ledger wins for all others: that is an incident.
func TestSkipOverrulesAConfirmation(t *testing.T) {
	for name, restart := range map[string]bool{"running": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			w := newNetwork(t, 4)
			n := w.node()
			p := w.pin(w.members[0], nil, msg("a"))
			id := idOf(p)
			n.apply(p)
			n.receive(w.receipt(w.members[1], id, 1))
			n.receive(w.receipt(w.members[2], id, 1))
			n.payload(id)
			n.head()
			n.expectVerdicts(t, n.judge(), fmt.Sprintf("%d/0 confirmed", p.Number))
			w.next(time.Second)
			n.vote(id, false, w.members[3])
			if len(n.contested) != 0 {
				t.Fatal("contested before the votes suffice")
			}
			n.vote(id, false, w.members[1]) // the liar
			if len(n.contested) != 1 || n.contested[0] != id {
				t.Fatalf("contested %v, want %v: the node must pin its certificate", n.contested, id)
			}
			if len(n.incidents) != 1 || n.incidents[0].Org != w.members[1].org {
				t.Fatalf("incidents %v, want one of the liar", n.incidents)
			}
			if restart {
				n.restart()
			}
			w.next(testGrace)
			n.head()
			got := n.judge()
			if len(got) != 1 || got[0].Kind != SkippedEntry || !got[0].Overruled {
				t.Fatalf("verdicts %+v, want one that overrules", got)
			}
			if len(n.a.State().Entries) != 0 {
				t.Fatal("the entry stays in the machine")
			}
		})
	}
}

func TestSkipOverrulesARejection(t *testing.T) {
	w := newNetwork(t, 2)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	id := idOf(p)
	w.payloads[id] = Payload{Reject: "no batch"}
	n.apply(p)
	n.receive(w.receipt(w.members[1], id, 1))
	n.payload(id)
	n.head()
	n.expectVerdicts(t, n.judge(), fmt.Sprintf("%d/-1 rejected", p.Number))
	w.next(time.Second)
	n.vote(id, false, w.members[1])
	w.next(testGrace)
	n.head()
	if got := n.judge(); len(got) != 1 || !got[0].Overruled {
		t.Fatalf("verdicts %+v, want one that overrules", got)
	}
}

func TestDueSkipOutlivesARestart(t *testing.T) {
	w := newNetwork(t, 2)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	n.vote(idOf(p), false, w.members[1])
	w.next(testGrace)
	n.head()
	n.restart() // before the verdict was pulled, and at the same head
	n.expectVerdicts(t, n.judge(), fmt.Sprintf("%d/-1 skipped", p.Number))
}

func TestPinnedCertificateEndsContestOfAConfirmation(t *testing.T) {
	w := newNetwork(t, 2)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	id := idOf(p)
	n.apply(p)
	n.receive(w.receipt(w.members[1], id, 1))
	n.payload(id)
	n.head()
	n.judge()
	w.next(time.Second)
	n.vote(id, false, w.members[1])
	n.apply(w.pin(w.members[0], &wire.Control{Certificates: []wire.Certificate{w.certificate(id, w.members[1])}}))
	if len(n.a.State().Entries) != 0 || !n.rows[id].Pinned {
		t.Fatalf("the entry stays contested: %+v", n.rows[id])
	}
	w.next(testGrace)
	n.head()
	n.expectVerdicts(t, n.judge())
}

// A node that catches up has payload and certificate of an entry that the
// ledger skipped while it was away.
func TestCatchingUpCannotConfirmWhatWasSkipped(t *testing.T) {
	for name, restart := range map[string]bool{"first start": false, "restart": true} {
		t.Run(name, func(t *testing.T) {
			w := newNetwork(t, 2)
			n := w.node()
			p := w.pin(w.members[0], nil, msg("a"))
			id := idOf(p)
			n.apply(p)
			n.receive(w.receipt(w.members[1], id, 1))
			if restart {
				n.head() // it was at the head before it went away
			}
			w.next(testAfter)
			v := w.pin(w.members[1], vote(id))
			w.next(testGrace)
			if restart {
				s := n.a.State()
				a, err := Restore(s, w, n)
				if err != nil {
					t.Fatal(err)
				}
				n.a = a
				clear(n.tags)
				n.unlock()
			}
			n.payload(id)
			n.expectVerdicts(t, n.judge())
			n.apply(v)
			n.expectVerdicts(t, n.judge())
			n.head()
			n.expectVerdicts(t, n.judge(), fmt.Sprintf("%d/-1 skipped", p.Number))
		})
	}
}

// The missing receipt comes after the votes: the node must be told to pin the
// certificate, whether the receipt counts at once or after a block.
func TestLateCertificateIsContested(t *testing.T) {
	w := newNetwork(t, 2)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	n.vote(idOf(p), false, w.members[1])
	r := w.receipt(w.members[1], idOf(p), 1)
	if out := n.receive(r); !out.Contested {
		t.Fatalf("outcome %+v, want it contested", out)
	}

	n = w.node()
	n.applyAll()
	w.next(time.Second)
	if out := n.receive(w.receipt(w.members[1], idOf(p), 1)); !out.Later || out.Contested {
		t.Fatalf("outcome %+v, want it later", out)
	}
	n.head()
	if len(n.contested) != 1 {
		t.Fatal("the certificate that came with the block is not contested")
	}
}

func TestOverdue(t *testing.T) {
	w := newNetwork(t, 2)
	n := w.node()
	first := w.pin(w.members[0], nil, msg("a"))
	w.next(time.Second)
	second := w.pin(w.members[0], nil, msg("a"))
	n.applyAll()
	n.head()
	if got := n.a.Overdue(first.Time.Add(testAfter)); len(got) != 1 || got[0].Number != first.Number {
		t.Fatalf("overdue %v, want the first entry", got)
	}
	n.payload(idOf(first))
	n.receive(w.receipt(w.members[1], idOf(first), 1))
	if got := n.a.Overdue(second.Time.Add(testAfter)); len(got) != 1 || got[0].Number != second.Number {
		t.Fatalf("overdue %v, want the second entry only", got)
	}
}
