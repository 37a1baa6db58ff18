package order

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/parley-node/parley/wire"
)

// known is complete or partial information about one entry, for the
// specification.
type known struct {
	pinned, payload, certificate, skipped bool
	number                                uint64
	reject                                bool // the batch as a whole
	messages                              []spec
}

// specification computes from scratch which verdicts are due for what is
// known: an entry without payload blocks all its contexts, a message that
// cannot be judged blocks its own, and nothing else blocks anything.
func specification(entries []known, final bool) map[string]string {
	verdicts := map[string]string{}
	blocked := map[string]bool{}
	confirmed := map[wire.Hash]bool{}
	blocks := func(topics []string) bool {
		return slices.ContainsFunc(topics, func(t string) bool { return blocked[t] })
	}
	block := func(topics []string) {
		for _, t := range topics {
			blocked[t] = true
		}
	}
	for _, e := range entries {
		var all []string
		for _, m := range e.messages {
			all = append(all, m.topics...)
		}
		switch {
		case !final || !e.pinned:
			return verdicts
		case e.skipped:
			verdicts[fmt.Sprintf("%d/-1", e.number)] = "skipped"
		case !e.payload:
			block(all)
		case e.reject:
			if e.certificate && !blocks(all) {
				verdicts[fmt.Sprintf("%d/-1", e.number)] = "rejected"
			} else {
				block(all)
			}
		default:
			undefined := blocked[definitions]
			for i, m := range e.messages {
				name := fmt.Sprintf("%d/%d", e.number, i)
				switch {
				case !e.certificate || blocks(m.topics) || m.after && undefined:
					block(m.topics)
				case m.reject != "" || confirmed[m.hash]:
					verdicts[name] = "rejected"
				default:
					verdicts[name] = "confirmed"
					confirmed[m.hash] = !m.hash.IsZero()
				}
			}
		}
	}
	return verdicts
}

func (n *node) kinds() map[string]string {
	all := map[string]string{}
	for _, v := range n.verdicts {
		all[fmt.Sprintf("%d/%d", v.Number, v.Index)] = v.Kind.String()
	}
	return all
}

// layouts are batches of messages: per entry, per message, the topics.
func layouts() [][][]spec {
	m := func(topics ...string) spec { return spec{topics: topics} }
	bad := func(topics ...string) spec { return spec{topics: topics, reject: "invalid"} }
	after := func(topics ...string) spec { return spec{topics: topics, after: true} }
	same := spec{topics: []string{"a"}, hash: wire.HashOf("test/same")}
	return [][][]spec{
		{{m("a")}, {m("a")}, {m("a")}},
		{{m("a")}, {m("b")}, {m("a", "b")}},
		{{m("a", "b")}, {m("b", "c")}, {m("c")}},
		{{m("a"), m("b")}, {m("b"), m("a")}, {m("a", "b")}},
		{{m("a"), m("a", "b"), m("b")}, {m("b"), m("c")}, {m("c"), m("a")}},
		{{m("a", "b", "c")}, {m("a")}, {m("c"), m("b")}},
		{{bad("a"), m("b")}, {m("b"), bad("a", "c")}, {m("c"), m("a")}},
		{{same}, {m("b"), same}, {same, m("b")}},
		{{m("b", "a"), m("c")}, {m("c", "b")}, {m("a"), m("b")}},
		{{m(definitions)}, {after("a")}, {m("a"), after("b")}},
		{{m("a")}, {m("a"), m(definitions)}, {after("b"), m("c")}},
		{{after("a"), m(definitions)}, {m("b")}, {after("b"), bad("a")}},
	}
}

// interleavings calls fn with every order of the events in which each comes
// after those that it needs.
func interleavings(needs [][]int, fn func(order []int)) {
	done := make([]bool, len(needs))
	var order []int
	var extend func()
	extend = func() {
		if len(order) == len(needs) {
			fn(order)
			return
		}
		for i := range needs {
			if done[i] || slices.ContainsFunc(needs[i], func(j int) bool { return !done[j] }) {
				continue
			}
			done[i] = true
			order = append(order, i)
			extend()
			order = order[:len(order)-1]
			done[i] = false
		}
	}
	extend()
}

// check compares a node with the specification after every event.
func check(t *testing.T, n *node, entries []known, final bool, new []Verdict, order []int) {
	t.Helper()
	if got, want := n.kinds(), specification(entries, final); !maps.Equal(got, want) {
		t.Fatalf("events %v: verdicts %v, want %v", order, got, want)
	}
	if !slices.IsSortedFunc(new, func(x, y Verdict) int {
		return 1_000*(int(x.Number)-int(y.Number)) + x.Index - y.Index
	}) {
		t.Fatalf("events %v: %v are not in (position, index) order", order, describeAll(new))
	}
}

// TestModelArrivals: three entries whose payloads arrive in every order, with
// the final head reported at every moment. A lone member needs no receipts.
func TestModelArrivals(t *testing.T) {
	const pin1, pin2, pin3, payload1, payload2, payload3, final = 0, 1, 2, 3, 4, 5, 6
	needs := [][]int{{}, {pin1}, {pin2}, {pin1}, {pin2}, {pin3}, {}}
	for l, layout := range layouts() {
		t.Run(fmt.Sprint(l), func(t *testing.T) {
			t.Parallel()
			w := newNetwork(t, 1)
			entries := make([]known, 3)
			for i, messages := range layout {
				w.next(1)
				p := w.pin(w.members[0], nil, messages...)
				entries[i] = known{number: p.Number, certificate: true, messages: messages}
			}
			interleavings(needs, func(order []int) {
				n := w.node()
				es := slices.Clone(entries)
				toldFinal := false
				for _, event := range order {
					switch {
					case event <= pin3:
						n.apply(w.pins[event])
						es[event].pinned = true
					case event == final:
						// The head covers all blocks. It is reported early only to
						// show that nothing depends on when the pins are applied.
						n.a.head, n.a.headAt = w.block, w.now.UnixNano()
						toldFinal = true
					default:
						n.payload(idOf(w.pins[event-payload1]))
						es[event-payload1].payload = true
					}
					check(t, n, es, toldFinal, n.judge(), order)
				}
			})
		})
	}
}

// TestModelCertificates: two entries of two members; payload and certificate
// of each arrive in every order, with a restart at every moment.
func TestModelCertificates(t *testing.T) {
	const pin1, pin2, payload1, payload2, certificate1, certificate2, restart = 0, 1, 2, 3, 4, 5, 6
	needs := [][]int{{}, {pin1}, {pin1}, {pin2}, {pin1}, {pin2}, {}}
	for l, layout := range layouts() {
		t.Run(fmt.Sprint(l), func(t *testing.T) {
			t.Parallel()
			w := newNetwork(t, 2)
			var entries []known
			var receipts []wire.Receipt
			for i, messages := range layout[:2] {
				w.next(1)
				p := w.pin(w.members[i], nil, messages...)
				entries = append(entries, known{number: p.Number, messages: messages})
				receipts = append(receipts, w.receipt(w.members[1-i], idOf(p), 1))
			}
			turn := 0
			interleavings(needs, func(order []int) {
				if turn++; turn%8 != l%8 { // each layout takes its eighth: signatures are slow
					return
				}
				n := w.node()
				es := slices.Clone(entries)
				for _, event := range order {
					switch event {
					case pin1, pin2:
						n.apply(w.pins[event])
						es[event].pinned = true
					case payload1, payload2:
						n.payload(idOf(w.pins[event-payload1]))
						es[event-payload1].payload = true
					case certificate1, certificate2:
						if out := n.receive(receipts[event-certificate1]); !out.Certified {
							t.Fatalf("receipt does not count: %s", out.Why)
						}
						es[event-certificate1].certificate = true
					case restart:
						n.restart()
					}
					n.a.head, n.a.headAt = w.block, w.now.UnixNano()
					check(t, n, es, true, n.judge(), order)
				}
			})
		})
	}
}

// TestModelSkip: the first entry is voted against and skipped, whenever its
// payload comes; the other two go on as the specification says.
func TestModelSkip(t *testing.T) {
	const pin1, pin2, pin3, votePin, due, payload1, payload2, payload3, receipts = 0, 1, 2, 3, 4, 5, 6, 7, 8
	needs := [][]int{{}, {pin1}, {pin2}, {pin3}, {votePin}, {pin1}, {pin2}, {pin3}, {pin3}}
	for l, layout := range layouts() {
		t.Run(fmt.Sprint(l), func(t *testing.T) {
			t.Parallel()
			w := newNetwork(t, 2)
			var entries []known
			for i, messages := range layout {
				w.next(1)
				p := w.pin(w.members[0], nil, messages...)
				entries = append(entries, known{number: p.Number, messages: messages, certificate: i > 0})
			}
			w.next(testAfter)
			w.pin(w.members[1], vote(idOf(w.pins[0])))
			r2, r3 := w.receipt(w.members[1], idOf(w.pins[1]), 1), w.receipt(w.members[1], idOf(w.pins[2]), 1)
			beforeGrace, votedAt := w.block, w.now
			w.next(testGrace)
			turn := 0
			interleavings(needs, func(order []int) {
				if turn++; turn%16 != l%16 {
					return
				}
				n := w.node()
				es := slices.Clone(entries)
				es[1].certificate, es[2].certificate = false, false
				for _, event := range order {
					switch event {
					case pin1, pin2, pin3, votePin:
						n.apply(w.pins[event])
						if event < votePin {
							es[event].pinned = true
						}
					case due:
						n.effects(n.a.Final(w.block, w.now))
						es[0].skipped = true
					case payload1, payload2, payload3:
						if id := idOf(w.pins[event-payload1]); event != payload1 || !es[0].skipped {
							n.payload(id)
							es[event-payload1].payload = true
						}
					case receipts:
						n.receive(r2)
						n.receive(r3)
						es[1].certificate, es[2].certificate = true, true
					}
					if event != due && !es[0].skipped {
						n.a.head, n.a.headAt = beforeGrace, votedAt.UnixNano()
					}
					check(t, n, es, true, n.judge(), order)
				}
			})
		})
	}
}
