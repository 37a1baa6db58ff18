package order

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/parley-node/parley/wire"
)

// history is a random ledger with what goes with it off the ledger.
type history struct {
	*world
	entries  []wire.Entry // pinned batches in ledger order
	receipts map[wire.Entry][]wire.Receipt
	withheld map[wire.Entry]bool // nobody ever gets the payload
	voters   map[wire.Entry][]*member
	lies     bool // members vote against what they have receipted
}

var topics = []string{"a", "b", "c", "d"}

// drawHistory makes a group of three or four in a network of five and lets
// things happen to it: batches, some withheld, some invalid, some pinned
// twice, stolen tags, votes, removals, new keys, new epochs.
func drawHistory(t *rapid.T, lies bool) *history {
	size := rapid.IntRange(3, 4).Draw(t, "group size")
	h := &history{
		world:    newGroup(t, 5, size, wire.ChangePolicy{}),
		receipts: map[wire.Entry][]wire.Receipt{}, withheld: map[wire.Entry]bool{}, voters: map[wire.Entry][]*member{},
		lies: lies,
	}
	h.pin(h.members[0], create(h.world))
	inGroup := size
	active := func() (ms []*member) {
		for _, m := range h.members[:inGroup] {
			if h.Active(m.org, h.end()) && h.defs[len(h.defs)-1].Has(m.org) {
				ms = append(ms, m)
			}
		}
		return ms
	}
	for range rapid.IntRange(4, 16).Draw(t, "events") {
		h.next(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
		who := rapid.SampledFrom(active()).Draw(t, "who")
		last := 12
		if lies {
			last = 14
		}
		switch event := rapid.IntRange(0, last).Draw(t, "event"); event {
		default:
			h.drawBatch(t, who, active())
		case 7, 8: // votes of those who have not receipted
			h.drawVotes(t, active())
		case 13: // a vote for all of an author, perhaps from some entry on
			v := wire.Vote{AllOf: &rapid.SampledFrom(active()).Draw(t, "all of").org}
			if len(h.entries) > 0 && rapid.Bool().Draw(t, "from") {
				v.Entries = []wire.Entry{rapid.SampledFrom(h.entries).Draw(t, "oldest")}
			}
			h.pin(who, &wire.Control{Votes: []wire.Vote{v}})
		case 14: // a certificate
			if len(h.entries) > 0 {
				id := rapid.SampledFrom(h.entries).Draw(t, "certified")
				h.pin(who, &wire.Control{Certificates: []wire.Certificate{{Author: id.Author, Root: id.Root, Receipts: h.receipts[id]}}})
			}
		case 9: // the same batch again
			for _, id := range h.entries {
				if id.Author == who.org {
					h.pinRoot(who, nil, id.Root, nil)
					break
				}
			}
		case 10: // a tag of someone else
			p := h.pins[len(h.pins)-1].Pin
			h.put(rapid.SampledFrom(active()).Draw(t, "thief"), p)
		case 11:
			if ms := active(); len(ms) > 2 && rapid.Bool().Draw(t, "remove") {
				h.setActive(ms[len(ms)-1], false)
			} else {
				h.rotate(who)
			}
		case 12:
			inGroup = min(inGroup+1, len(h.members))
			ms := active()
			var orgs []wire.OrgID
			for _, m := range h.members[:inGroup] {
				if h.Active(m.org, h.end()) {
					orgs = append(orgs, m.org)
				}
			}
			def, secret := h.propose(ms[0], orgs)
			h.pin(ms[0], h.activation(def, slices.Concat(ms[1:], h.members[inGroup-1:inGroup])...))
			if probe := h.world.node(); probe.epochAfterAll(def, secret) {
				h.adopt(def, secret)
			}
		}
	}
	h.next(time.Hour)
	return h
}

// drawVotes lets some of the other members vote against the oldest withheld
// batch that still has voters; liars, against the oldest or a later one.
func (h *history) drawVotes(t *rapid.T, active []*member) {
	for _, id := range h.entries {
		if h.lies && rapid.Bool().Draw(t, "later") || !h.lies && !h.withheld[id] {
			continue
		}
		left := slices.DeleteFunc(slices.Clone(active), func(m *member) bool {
			return m.org == id.Author || slices.Contains(h.voters[id], m)
		})
		if len(left) == 0 {
			continue
		}
		for _, m := range left[:rapid.IntRange(1, len(left)).Draw(t, "votes")] {
			h.voters[id] = append(h.voters[id], m)
			h.pin(m, vote(id))
		}
		return
	}
}

// epochAfterAll tells whether the proposed definition has become current.
func (n *node) epochAfterAll(def wire.EpochDefinition, secret wire.EpochSecret) bool {
	for _, p := range n.w.pins {
		if !n.tags[p.Pin.Tag] {
			continue
		}
		if out := n.apply(p); out.Stalled {
			if n.a.Epoch().Salt == def.Salt {
				return true
			}
			n.unlock()
		}
	}
	return false
}

func (h *history) drawBatch(t *rapid.T, who *member, active []*member) {
	var messages []spec
	for range rapid.IntRange(1, 3).Draw(t, "messages") {
		m := spec{topics: rapid.SliceOfNDistinct(rapid.SampledFrom(topics), 1, 3, rapid.ID).Draw(t, "topics")}
		if rapid.IntRange(0, 9).Draw(t, "bad") == 0 {
			m.reject = "invalid"
		}
		m.after = rapid.IntRange(0, 4).Draw(t, "after") == 0
		messages = append(messages, m)
	}
	id := idOf(h.pin(who, nil, messages...))
	p := h.payloads[id]
	if rapid.IntRange(0, 9).Draw(t, "reject") == 0 {
		p.Reject = "no batch"
		h.payloads[id] = p
	}
	h.entries = append(h.entries, id)
	h.withheld[id] = rapid.IntRange(0, 3).Draw(t, "withheld") == 0
	if h.withheld[id] {
		return
	}
	for _, m := range active {
		if m != who {
			h.receipts[id] = append(h.receipts[id], h.receipt(m, id, h.epoch()))
		}
	}
}

// give delivers the payload and the receipts of an entry if it is open.
func (h *history) give(n *node, id wire.Entry) {
	if row, ok := n.a.Entry(id.Author, id.Root); h.withheld[id] || !ok || row.Status != Open {
		return
	}
	for _, r := range h.receipts[id] {
		n.receive(r)
	}
	n.payload(id)
}

// complete gives a node everything and reports the head.
func (h *history) complete(n *node) {
	if n.a.Stalled() {
		n.unlock()
	}
	n.track(n.a.KeysChanged(h.end()))
	n.applyAll()
	for _, id := range h.entries {
		h.give(n, id)
	}
	n.head()
	n.judge()
}

// live runs a node through the ledger in pages, with arrivals in any order,
// twice too, restarts and stalls.
func (h *history) live(t *rapid.T, n *node) {
	at := 0
	for at < len(h.pins) {
		switch rapid.IntRange(0, 6).Draw(t, "step") {
		case 0, 1:
			page := rapid.IntRange(1, 5).Draw(t, "page")
			for ; page > 0 && at < len(h.pins) && !n.a.Stalled(); page-- {
				n.track(n.a.KeysChanged(h.pins[at].Position))
				if p := h.pins[at]; n.tags[p.Pin.Tag] {
					n.apply(p)
				}
				at++
			}
		case 2:
			if len(h.entries) > 0 {
				h.give(n, rapid.SampledFrom(h.entries).Draw(t, "arrival"))
			}
		case 3: // the head, if this node were there: the block before the next pin
			if at > 0 && h.pins[at-1].Position.Block < h.pins[at].Position.Block {
				n.final, n.finalAt = h.pins[at-1].Position.Block, h.pins[at-1].Time
				n.effects(n.a.Final(n.final, n.finalAt))
			}
		case 4:
			n.restart()
		case 5:
			n.restartFromRows()
		case 6:
			if n.a.Stalled() {
				n.unlock()
			}
		}
		n.judge()
	}
	h.complete(n)
}

func TestEveryMemberDecidesTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t, false)
		reference := h.node()
		h.complete(reference)
		h.compareWithSpecification(t, reference)

		live := h.nodeKnowing(wire.Position{})
		h.live(t, live)
		h.compare(t, "live member", reference, live)
		late := h.node() // learns of the group when all is over
		h.complete(late)
		h.compare(t, "late member", reference, late)
	})
}

// Which entries the ledger skips does not depend on which of them a member has
// judged by then, whoever lies: one that gets everything at once and one that
// reads all the ledger first find the same votes, deadlines and certificates.
func TestFastAndSlowMembersSkipTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t, true)
		slow := h.node()
		h.complete(slow)

		fast := h.nodeKnowing(wire.Position{})
		for i, p := range h.pins {
			if fast.a.Stalled() {
				fast.unlock()
			}
			fast.track(fast.a.KeysChanged(p.Position))
			if fast.tags[p.Pin.Tag] {
				fast.apply(p)
			}
			for _, id := range h.entries {
				h.give(fast, id)
			}
			if i+1 < len(h.pins) && p.Position.Block < h.pins[i+1].Position.Block {
				fast.final, fast.finalAt = p.Position.Block, p.Time
				fast.effects(fast.a.Final(fast.final, fast.finalAt))
			}
			fast.judge()
			if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
				fast.restartFromRows()
			}
		}
		h.complete(fast)
		if diff := cmp.Diff(h.fate(slow), h.fate(fast), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("the fast member finds another fate of entries than the slow one:\n%s", diff)
		}
	})
}

// fate is what the ledger decides about each entry.
type fate struct {
	Number  uint64
	Votes   []Ballot
	SkipDue int64
	Pinned  bool
	Skipped bool
}

func (h *history) fate(n *node) (all []fate) {
	for _, id := range h.entries {
		if row, ok := n.rows[id]; ok {
			all = append(all, fate{row.Number, row.Votes, row.SkipDue, row.Pinned, row.Status == Skipped})
		}
	}
	return all
}

func (h *history) compare(t *rapid.T, name string, want, got *node) {
	if diff := cmp.Diff(want.everything(), got.everything()); diff != "" {
		t.Fatalf("%s: verdicts differ from the reference:\n%s", name, diff)
	}
	for _, topic := range topics {
		c := h.contexts(topic)[0]
		if a, b := want.sequence(c), got.sequence(c); !slices.Equal(a, b) {
			t.Fatalf("%s: context %s is %v, want %v", name, topic, b, a)
		}
	}
	options := cmp.Options{cmpopts.EquateEmpty(), cmpopts.IgnoreFields(State{}, "Known"), cmp.Comparer(func(a, b wire.EpochDefinition) bool { return a.Salt == b.Salt })}
	if diff := cmp.Diff(want.a.State(), got.a.State(), options); diff != "" {
		t.Fatalf("%s: state differs from the reference:\n%s", name, diff)
	}
	if !slices.Equal(want.a.Expected(), got.a.Expected()) {
		t.Fatalf("%s: other tags are expected", name)
	}
	if len(got.tags) != len(got.a.Expected()) {
		t.Fatalf("%s: the caller's map has %d tags, the machine expects %d", name, len(got.tags), len(got.a.Expected()))
	}
	if len(got.incidents) > 0 || len(got.contested) > 0 {
		t.Fatalf("%s: incidents %v, contested %v among honest members", name, got.incidents, got.contested)
	}
}

func (h *history) compareWithSpecification(t *rapid.T, n *node) {
	var entries []known
	for _, id := range h.entries {
		row, ok := n.rows[id]
		if !ok {
			continue // void
		}
		entries = append(entries, known{
			number: row.Number, pinned: true, payload: !h.withheld[id], certificate: row.certified(),
			skipped: row.Status == Skipped, reject: h.payloads[id].Reject != "", messages: h.messages[id],
		})
	}
	if diff := cmp.Diff(specification(entries, true), n.kinds()); diff != "" {
		t.Fatalf("verdicts differ from the specification:\n%s", diff)
	}
}
