package order

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-node/parley/wire"
)

// The tests in this file are named after the rules of docs/protocol.md that
// belong to ordering. Each fails without its rule.

func msg(topics ...string) spec { return spec{topics: topics} }

func wantVoid(t *testing.T, out Applied, part string) {
	t.Helper()
	if out.Void == "" || !strings.Contains(out.Void, part) {
		t.Fatalf("void is %q, want a reason with %q", out.Void, part)
	}
}

func wantValid(t *testing.T, out Applied) {
	t.Helper()
	if out.Void != "" {
		t.Fatalf("pin is void: %s", out.Void)
	}
}

func TestCounterWindowMovesPinByPin(t *testing.T) {
	w := newNetwork(t, 1)
	m, root := w.members[0], wire.HashOf("x")
	n := w.node()
	for _, step := range []struct {
		n    uint64
		void string
	}{
		{17, "not expected"}, // W = 16 from 0
		{16, ""},
		{32, ""}, // the window has moved, in the same block
		{16, "not expected"},
		{17, ""},
		{17, "not expected"}, // used
		{49, "not expected"},
		{33, ""},
		{17, "not expected"},
		{18, ""},
		{8, "not expected"}, // never used, but W behind
	} {
		root = wire.HashOf("x", root[:])
		out := n.apply(w.pinAs(m, step.n, 1, nil, root, w.contexts("a")))
		if out.Void == "" != (step.void == "") || !strings.Contains(out.Void, step.void) {
			t.Fatalf("n = %d: void is %q, want %q", step.n, out.Void, step.void)
		}
	}
}

// W is the one at the position, also where tags are expected for a wider one.
func TestCounterWindowIsTheOneAtThePosition(t *testing.T) {
	w := newNetwork(t, 1)
	n := w.node()
	w.params.Window = 4
	wantVoid(t, n.apply(w.pinAs(w.members[0], 5, 1, nil, w.hash(), nil)), "not within 4 of 0")
	wantValid(t, n.apply(w.pinAs(w.members[0], 4, 1, nil, w.hash(), nil)))
	w.params.Window = 20
	wantValid(t, n.apply(w.pinAs(w.members[0], 20, 1, nil, w.hash(), nil)))
	n.track(n.a.KeysChanged(w.end()))
	wantValid(t, n.apply(w.pinAs(w.members[0], 40, 1, nil, w.hash(), nil)))
}

func TestVoidPinChangesNothing(t *testing.T) {
	w := newNetwork(t, 3)
	a, b := w.members[0], w.members[1]
	n := w.node()
	target := w.pin(a, nil, msg("a"))
	wantValid(t, n.apply(target))

	// A control that does not open: its associated data names another root.
	id := idOf(target)
	good := w.pin(b, vote(id), msg("b"))
	bad := good.Pin
	bad.Root = w.hash()
	w.pins = w.pins[:len(w.pins)-1]
	wantVoid(t, n.apply(w.put(b, bad)), "control is not valid")

	// A member that copies another's pin from the mempool does not use it up.
	stolen := w.put(a, good.Pin)
	wantVoid(t, n.apply(stolen), "signed")
	if row, _ := n.a.Entry(id.Author, id.Root); len(row.Votes) != 0 {
		t.Fatalf("the control of a void pin applied: %v", row.Votes)
	}
	if ws := n.a.Windows(); len(ws) != 1 {
		t.Fatalf("void pins used numbers: %+v", ws)
	}
	out := n.apply(w.put(b, good.Pin))
	wantValid(t, out)
	if out.Duplicate || out.Entry == nil {
		t.Fatal("a void pin made the later one a duplicate")
	}
	if row, _ := n.a.Entry(id.Author, id.Root); len(row.Votes) != 1 {
		t.Fatal("the control of the valid pin did not apply")
	}
}

func TestKeyMustBeValidAtPosition(t *testing.T) {
	w := newNetwork(t, 2)
	a := w.members[0]
	n := w.node()
	old := *a
	old.n = map[uint64]uint64{}
	wantValid(t, n.apply(w.pin(&old, nil, msg("a"))))
	w.rotate(a)
	wantVoid(t, n.apply(w.pin(&old, nil, msg("a"))), "not a valid key")
	out := n.apply(w.pin(a, nil, msg("a")))
	wantValid(t, out)
	if out.N != 1 {
		t.Fatalf("a new key counts from %d, want 1", out.N)
	}
	posing := w.pin(a, nil, msg("a"))
	posing.Org = w.members[1].org
	wantVoid(t, n.apply(posing), "not a valid key")
	a.n[1]--
	w.setActive(a, false)
	wantVoid(t, n.apply(w.pin(a, nil, msg("a"))), "not a valid key")
	w.setActive(a, true)
	wantValid(t, n.apply(w.put(a, w.pins[len(w.pins)-1].Pin)))
}

func TestKeyThatMovedToAnOutsiderIsNoMembers(t *testing.T) {
	w := newGroup(t, 3, 2, wire.ChangePolicy{})
	a, outsider := w.members[0], w.members[2]
	n := w.node()
	n.apply(w.pin(a, create(w)))
	thief := &member{org: outsider.org, key: a.key, n: map[uint64]uint64{1: 1}}
	key := wire.AddressOf(a.key)
	w.rotate(a)
	w.keys = append(w.keys, keyRange{org: outsider.org, key: key, from: w.place()})
	wantVoid(t, n.apply(w.pin(thief, nil, msg("a"))), "not a member in epoch 1")
}

func TestGroupExistsFromItsCreation(t *testing.T) {
	w := newGroup(t, 3, 2, wire.ChangePolicy{})
	a, b := w.members[0], w.members[1]
	n := w.node()
	wantVoid(t, n.apply(w.pin(a, nil, msg("a"))), "does not exist yet")
	other := w.hash()
	wantVoid(t, n.apply(w.pin(a, &wire.Control{Create: &other}, msg("a"))), "does not exist yet")
	a.n[1] = 0 // void pins used no number
	out := n.apply(w.pin(a, create(w), msg("a")))
	wantValid(t, out)
	if !out.Created || out.Entry == nil {
		t.Fatalf("created %v, entry %v: the creating pin may carry the first batch", out.Created, out.Entry)
	}
	out = n.apply(w.pin(b, create(w), msg("a")))
	if wantValid(t, out); out.Created {
		t.Fatal("the group was created twice")
	}
}

func TestUnlockRefusesKeysThatTheDefinitionDoesNotCommitTo(t *testing.T) {
	w := newNetwork(t, 1)
	n := w.node()
	keys := w.keysOf(1)
	keys.Control = w.hash()
	if _, err := n.a.Unlock(keys); err == nil || !strings.Contains(err.Error(), "control") {
		t.Fatalf("error is %v, want one that names the control key", err)
	}
}

func TestControlIsNotQueuedBehindPayloads(t *testing.T) {
	w := newNetwork(t, 3)
	a, b := w.members[0], w.members[1]
	n := w.node()
	first := w.pin(a, nil, msg("a"))
	n.apply(first)
	second := w.pin(b, vote(idOf(first)), msg("a")) // stands behind first in its context
	n.apply(second)
	if row, _ := n.a.Entry(first.Org, first.Pin.Root); len(row.Votes) != 1 {
		t.Fatal("the vote waits for a payload")
	}
}

func TestDuplicateBatchKeepsItsControl(t *testing.T) {
	w := newNetwork(t, 3)
	a, b := w.members[0], w.members[1]
	n := w.node()
	target := w.pin(b, nil, msg("t"))
	n.apply(target)
	first := w.pin(a, nil, msg("a"))
	n.apply(first)
	out := n.apply(w.pinRoot(a, vote(idOf(target)), first.Pin.Root, w.contexts("a")))
	wantValid(t, out)
	if !out.Duplicate || out.Entry != nil || out.N != 2 {
		t.Fatalf("duplicate %v, entry %v, n %d: want a duplicate that uses its number", out.Duplicate, out.Entry, out.N)
	}
	if row, _ := n.a.Entry(target.Org, target.Pin.Root); len(row.Votes) != 1 {
		t.Fatal("the control of the duplicate did not apply")
	}
	// Not even the row of the first needs to be stored before the second.
	delete(n.rows, idOf(first))
	if out = n.apply(w.pinRoot(a, nil, first.Pin.Root, nil)); !out.Duplicate {
		t.Fatal("a third pin of the batch is no duplicate")
	}
	// The same root by another author is another batch.
	if out = n.apply(w.pinRoot(b, nil, first.Pin.Root, w.contexts("a"))); out.Duplicate {
		t.Fatal("another author's batch counts as a duplicate")
	}
}

func TestBatchStaysADuplicateAfterItsVerdict(t *testing.T) {
	w := newNetwork(t, 1)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	n.head()
	n.payload(idOf(p))
	n.expectVerdicts(t, n.judge(), "2/0 confirmed")
	w.next(time.Second)
	if out := n.apply(w.pinRoot(w.members[0], nil, p.Pin.Root, w.contexts("a"))); !out.Duplicate {
		t.Fatal("a batch was entered again after its verdict")
	}
}

func TestHandlesMustAscend(t *testing.T) {
	w := newNetwork(t, 1)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a", "b"))
	w.pins = nil
	cs := w.contexts("a", "b")
	for name, contexts := range map[string][]wire.ContextID{
		"descending": {cs[1], cs[0]},
		"twice":      {cs[0], cs[0], cs[1]},
	} {
		w.next(time.Second)
		id := wire.Entry{Author: p.Org, Root: w.hash()}
		w.payloads[id] = w.payloads[idOf(p)]
		out := n.apply(w.pinRoot(w.members[0], nil, id.Root, contexts))
		wantValid(t, out)
		n.head()
		n.payload(id)
		got := n.judge()
		if len(got) != 1 || got[0].Index != Whole || got[0].Kind != Rejected || !got[0].EntryDone {
			t.Fatalf("%s: verdicts %v, want the whole batch rejected", name, got)
		}
	}
}

func TestContextsOfPayloadMustBeThoseOfThePin(t *testing.T) {
	for name, topics := range map[string][]string{"fewer": {"a"}, "more": {"a", "b", "c"}, "other": {"a", "c"}} {
		t.Run(name, func(t *testing.T) {
			w := newNetwork(t, 1)
			n := w.node()
			p := w.pin(w.members[0], nil, msg("a"), msg("b"))
			after := w.pin(w.members[0], nil, msg("a"), msg("b"))
			w.payloads[idOf(p)] = Payload{Messages: []Message{{Hash: w.hash(), Contexts: w.contexts(topics...)}}}
			n.applyAll()
			n.head()
			n.payload(idOf(after))
			n.payload(idOf(p))
			got := n.judge()
			n.expectVerdicts(t, got, "2/-1 rejected", "3/0 confirmed", "3/1 confirmed")
		})
	}
}

func TestConfirmNeedsPayloadAndCertificate(t *testing.T) {
	w := newNetwork(t, 4) // v = 3, c = 2
	p := w.pin(w.members[0], nil, msg("a"))
	r1, r2 := w.receipt(w.members[1], idOf(p), 1), w.receipt(w.members[2], idOf(p), 1)
	for name, steps := range map[string][]func(*node){
		"payload last":     {func(n *node) { n.receive(r1) }, func(n *node) { n.receive(r2) }, func(n *node) { n.payload(idOf(p)) }},
		"certificate last": {func(n *node) { n.payload(idOf(p)) }, func(n *node) { n.receive(r1); n.receive(r1) }, func(n *node) { n.receive(r2) }},
	} {
		n := w.node()
		n.apply(p)
		n.head()
		for i, step := range steps {
			if got := n.judge(); len(got) != 0 {
				t.Fatalf("%s: judged after %d steps: %v", name, i, describeAll(got))
			}
			step(n)
		}
		if got := n.judge(); len(got) != 1 || got[0].Kind != Confirmed {
			t.Fatalf("%s: verdicts %v, want one confirmation", name, describeAll(got))
		}
	}
}

func TestReceiptCountsOnlyIf(t *testing.T) {
	w := newNetwork(t, 4)
	w.admit() // a member of the network, not of the epoch
	author, b := w.members[0], w.members[1]
	before := w.block
	w.block += 50
	p := w.pin(author, nil, msg("a"))
	base := w.receipt(b, idOf(p), 1)
	w.params.ReceiptAge = 50
	for name, c := range map[string]struct {
		signer *member
		change func(*wire.Receipt)
		why    string
	}{
		"good":             {b, func(r *wire.Receipt) {}, ""},
		"K blocks old":     {b, func(r *wire.Receipt) { r.RecentNumber, r.RecentBlock = before, blockHash(before) }, ""},
		"older":            {b, func(r *wire.Receipt) { r.RecentNumber, r.RecentBlock = before-1, blockHash(before-1) }, "more than 50 blocks"},
		"unknown block":    {b, func(r *wire.Receipt) { r.RecentBlock = w.hash() }, "recent block"},
		"future block":     {b, func(r *wire.Receipt) { r.RecentNumber, r.RecentBlock = w.block+1, blockHash(w.block+1) }, "last final"},
		"posing":           {w.members[2], func(r *wire.Receipt) {}, "no valid key"},
		"the author":       {author, func(r *wire.Receipt) { r.Org = author.org }, "not one of the other members"},
		"an outsider":      {w.members[4], func(r *wire.Receipt) { r.Org = w.members[4].org }, "not one of the other members"},
		"another network":  {b, func(r *wire.Receipt) { r.Network = w.hash() }, "network"},
		"another audience": {b, func(r *wire.Receipt) { r.Audience = w.hash() }, "audience"},
		"another epoch":    {b, func(r *wire.Receipt) { r.Epoch = 2 }, "epoch"},
		"another version":  {b, func(r *wire.Receipt) { r.Version = 2 }, "version"},
	} {
		t.Run(name, func(t *testing.T) {
			n := w.node()
			n.apply(p)
			r := base
			c.change(&r)
			out := n.receive(w.sign(c.signer, r))
			if out.Counts != (c.why == "") || !strings.Contains(out.Why, c.why) {
				t.Fatalf("counts %v, why %q; want %q", out.Counts, out.Why, c.why)
			}
		})
	}
}

func TestReceiptWithLaterBlockIsKept(t *testing.T) {
	w := newNetwork(t, 2)
	p := w.pin(w.members[0], nil, msg("a"))
	at, now := w.block, w.now
	n := w.node()
	n.apply(p)
	n.a.Final(at, now)
	n.payload(idOf(p))
	w.next(time.Second)
	if out := n.receive(w.receipt(w.members[1], idOf(p), 1)); out.Counts || !out.Later {
		t.Fatalf("outcome %+v, want it kept for later", out)
	}
	n.head()
	n.expectVerdicts(t, n.judge(), "3/0 confirmed")
}

func TestReceiptAndVoteOfOneOrganisationIsAnIncident(t *testing.T) {
	w := newNetwork(t, 4)
	p := w.pin(w.members[0], nil, msg("a"))
	liar := w.members[1]
	r := w.receipt(liar, idOf(p), 1)
	w.next(time.Second)
	v := w.pin(liar, vote(idOf(p)))
	want := []Incident{{liar.org, idOf(p)}}
	first := w.node()
	first.apply(p)
	first.receive(r)
	first.apply(v)
	if !slices.Equal(first.incidents, want) {
		t.Fatalf("receipt, then vote: %v, want %v", first.incidents, want)
	}
	second := w.node()
	second.apply(p)
	second.apply(v)
	if out := second.receive(r); !out.Counts || !slices.Equal(second.incidents, want) {
		t.Fatalf("vote, then receipt: counts %v, %v, want %v", out.Counts, second.incidents, want)
	}
}

func TestQuorumsIntersect(t *testing.T) {
	for v := range uint32(5000) {
		c, s := Quorums(v)
		if c+s <= v || v > 0 && (c > v || s > v || c == 0) {
			t.Fatalf("v = %d: c = %d, s = %d", v, c, s)
		}
	}
}

func TestQuorumsAreFixedAtThePosition(t *testing.T) {
	w := newNetwork(t, 5)
	w.setActive(w.members[4], false)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	row := n.apply(p).Entry
	if row.V != 3 || row.C != 2 || row.S != 2 {
		t.Fatalf("v, c, s = %d, %d, %d, want 3, 2, 2: a suspended member does not count", row.V, row.C, row.S)
	}
	w.setActive(w.members[3], false)
	if out := n.receive(w.receipt(w.members[3], idOf(p), 1)); !out.Counts {
		t.Fatalf("a member of the position does not count later: %s", out.Why)
	}
}

func TestMessageConfirmedBeforeIsRejected(t *testing.T) {
	w := newNetwork(t, 1)
	n := w.node()
	same := spec{topics: []string{"a"}, hash: w.hash()}
	w.pin(w.members[0], nil, same)
	w.pin(w.members[0], nil, same, msg("a"))
	n.applyAll()
	n.head()
	n.payload(idOf(w.pins[1]))
	n.payload(idOf(w.pins[0]))
	n.expectVerdicts(t, n.judge(), "2/0 confirmed", "3/0 rejected", "3/1 confirmed")
}

func TestMissingPayloadBlocksItsContextsOnly(t *testing.T) {
	w := newNetwork(t, 1)
	n := w.node()
	m := w.members[0]
	w.pin(m, nil, msg("a"))           // 2: late
	w.pin(m, nil, msg("b"))           // 3
	w.pin(m, nil, msg("b", "a"))      // 4: joins b to a
	w.pin(m, nil, msg("b"))           // 5: stands behind 4
	w.pin(m, nil, msg("c"), msg("a")) // 6: the first message is free
	n.applyAll()
	n.head()
	for _, p := range w.pins[1:] {
		n.payload(idOf(p))
	}
	n.expectVerdicts(t, n.judge(), "3/0 confirmed", "6/0 confirmed")
	blockers := n.a.Blockers(w.contexts("b")[0], m.org)
	if len(blockers) != 1 || blockers[0].Number != 2 || blockers[0].Missing != MissingPayload {
		t.Fatalf("b waits for %+v, want the payload of 2", blockers)
	}
	if b := n.a.Blockers(w.contexts("c")[0], m.org); len(b) != 0 {
		t.Fatalf("c waits for %+v", b)
	}
	n.payload(idOf(w.pins[0]))
	n.expectVerdicts(t, n.judge(), "2/0 confirmed", "4/0 confirmed", "5/0 confirmed", "6/1 confirmed")
}

func TestBlockersNameWhoOwesTheCertificate(t *testing.T) {
	w := newNetwork(t, 4)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	n.receive(w.receipt(w.members[1], idOf(p), 1))
	blockers := n.a.Blockers(w.contexts("a")[0], w.members[3].org)
	if len(blockers) != 2 || blockers[0].Missing != MissingPayload || blockers[1].Missing != MissingCertificate {
		t.Fatalf("blockers %+v, want payload and certificate", blockers)
	}
	if want := []wire.OrgID{w.members[0].org, w.members[1].org}; !slices.Equal(blockers[0].Owes, want) {
		t.Fatalf("payload is owed by %v, want its holders %v", blockers[0].Owes, want)
	}
	want := []wire.OrgID{w.members[2].org, w.members[3].org}
	slices.SortFunc(want, compareOrg)
	if !slices.Equal(blockers[1].Owes, want) || blockers[1].Remedy == "" || !blockers[1].Since.Equal(p.Time) {
		t.Fatalf("certificate blocker %+v, want it owed by %v", blockers[1], want)
	}
}

func TestApplyRefusesWrongOrder(t *testing.T) {
	w := newNetwork(t, 1)
	n := w.node()
	p := w.pin(w.members[0], nil, msg("a"))
	n.apply(p)
	if _, err := n.a.Apply(p); err == nil {
		t.Fatal("a pin was applied twice")
	}
	if err := n.a.Payload(p.Org, wire.HashOf("other"), Payload{}); !errors.Is(err, ErrNotOpen) {
		t.Fatalf("payload without entry: %v, want ErrNotOpen", err)
	}
}
