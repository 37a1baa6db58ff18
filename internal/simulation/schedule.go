package simulation

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// profile is what one seed is about. Not every seed has every fault: some bugs
// show only where little else goes wrong.
type profile struct {
	founders, candidates int
	confirmations        uint64
	pinPage              int // pins of one confirm step; 0 for the usual number
	liar                 bool
	lost, answerLost     int // of 1000 requests
	lateness             int // of 1000 requests: arrives later, the sender learns nothing
	doubled              int // of 1000 requests: arrives, and once more later
	on                   map[string]bool
}

func (p profile) String() string {
	var on []string
	for k, v := range p.on {
		if v {
			on = append(on, k)
		}
	}
	slices.Sort(on)
	return fmt.Sprintf("%d founders, %d candidates, %d confirmations, confirm steps of %d pins, liar %v, of 1000 requests %d lost, %d answers lost, %d late, %d doubled; %s",
		p.founders, p.candidates, p.confirmations, p.pinPage, p.liar, p.lost, p.answerLost, p.lateness, p.doubled, strings.Join(on, ", "))
}

// draw draws the profile of the seed.
func (w *world) draw() profile {
	p := profile{founders: 3 + w.rng.IntN(2), on: map[string]bool{}}
	for _, a := range actions {
		if a.rare {
			p.on[a.name] = w.chance(500) && !(w.opt.Calm && a.violent)
		}
	}
	if p.on["admit"] {
		p.candidates = 1
	}
	if w.chance(300) {
		p.confirmations = 2
	}
	if w.chance(500) {
		p.pinPage = 3 + w.rng.IntN(5)
	}
	p.liar = w.chance(400)
	for _, rate := range []*int{&p.lost, &p.answerLost, &p.lateness, &p.doubled} {
		if w.chance(500) {
			*rate = 1 + w.rng.IntN(150)
		}
	}
	return p
}

// action is one kind of thing that happens. do returns false where it cannot
// happen now.
type action struct {
	name    string
	weight  int
	rare    bool // only in the seeds that drew it
	violent bool // not in a calm run
	do      func(w *world) bool
}

var actions []action

func init() { // the actions mention each other through the world
	actions = []action{
		{name: "work", weight: 300, do: (*world).work},
		{name: "deliver", weight: 250, do: (*world).deliver},
		{name: "read the ledger", weight: 130, do: (*world).read},
		{name: "make a block", weight: 70, do: (*world).mine},
		{name: "submit", weight: 90, do: (*world).submit},
		{name: "wait", weight: 40, do: (*world).wait},
		{name: "late letter", weight: 25, do: (*world).lateLetter},

		{name: "long wait", weight: 2, rare: true, do: (*world).longWait},
		{name: "cut", weight: 6, rare: true, do: (*world).cut},
		{name: "isolate", weight: 4, rare: true, do: (*world).isolate},
		{name: "ledger away", weight: 6, rare: true, do: (*world).ledgerAway},
		{name: "ledger holds", weight: 5, rare: true, do: (*world).hold},
		{name: "mempool lost", weight: 3, rare: true, do: (*world).mempoolLost},
		{name: "send fails", weight: 8, rare: true, do: (*world).sendFails},
		{name: "reorganisation", weight: 8, rare: true, do: (*world).fork},
		{name: "small pages", weight: 4, rare: true, do: (*world).pages},
		{name: "clock jump", weight: 4, rare: true, do: (*world).clockJump},
		{name: "stop", weight: 4, rare: true, do: (*world).stopOne},
		{name: "crash", weight: 20, rare: true, violent: true, do: (*world).crash},
		{name: "disk fails", weight: 12, rare: true, violent: true, do: (*world).diskFails},
		{name: "disk slow", weight: 6, rare: true, violent: true, do: (*world).diskSlow},
		{name: "replay", weight: 10, rare: true, do: (*world).replay},
		{name: "lie", weight: 30, do: (*world).lie},

		{name: "admit", weight: 10, rare: true, do: (*world).admit},
		{name: "suspend", weight: 3, rare: true, do: (*world).suspend},
		{name: "resume", weight: 8, do: (*world).resume},
		{name: "remove", weight: 2, rare: true, do: (*world).remove},
		{name: "vote", weight: 15, do: (*world).vote},
		{name: "rotate a key", weight: 6, rare: true, do: (*world).rotate},
	}
}

// draws are the weights that this seed gives to what may happen.
func (w *world) draws() map[string]int {
	weights := map[string]int{}
	for _, a := range actions {
		if !a.rare || w.profile.on[a.name] {
			weights[a.name] = a.weight
		}
	}
	return weights
}

// act lets one thing happen.
func (w *world) act() {
	total := 0
	for _, a := range actions {
		total += w.weights[a.name]
	}
	for range 20 {
		n := w.rng.IntN(total)
		for _, a := range actions {
			if n -= w.weights[a.name]; n < 0 {
				if a.do(w) {
					w.story.count(a.name)
					return
				}
				break
			}
		}
	}
}

// work is a step of some worker of some member.
func (w *world) work() bool {
	up := w.running()
	if len(up) == 0 {
		return w.restart()
	}
	m := pick(w, up)
	m.step(pick(w, m.proc.workers))
	return true
}

// deliver sends one parcel of some member, not always the oldest.
func (w *world) deliver() bool {
	var to []func()
	for _, m := range w.running() {
		for _, p := range m.proc.node.Messages.Peers() {
			if due := m.due(p); len(due) > 0 {
				parcel := due[0]
				if w.chance(300) {
					parcel = pick(w, due)
				}
				to = append(to, func() { m.deliver(p, parcel) })
			}
		}
	}
	if len(to) == 0 {
		return false
	}
	pick(w, to)()
	return true
}

func (w *world) read() bool {
	up := w.running()
	return len(up) > 0 && pick(w, up).feed()
}

func (w *world) mine() bool {
	w.chain.Mine()
	return true
}

func (w *world) wait() bool {
	w.now = w.now.Add(time.Duration(50+w.rng.IntN(2500)) * time.Millisecond)
	return true
}

// longWait is long enough for votes and their grace.
func (w *world) longWait() bool {
	d := time.Duration(20+w.rng.IntN(100)) * time.Second
	w.tell("", "%s pass", d)
	w.now = w.now.Add(d)
	return true
}

// cut separates two members, or heals a link.
func (w *world) cut() bool {
	a, b := pick(w, w.members), pick(w, w.members)
	if a == b {
		return false
	}
	if w.chance(500) {
		w.tell("", "the link between %s and %s is cut", a.name, b.name)
		w.net.Cut(a.name, b.name)
	} else {
		w.tell("", "the link between %s and %s is whole", a.name, b.name)
		w.net.Heal(a.name, b.name)
	}
	return true
}

// isolate cuts a member off from all others, but not from the ledger. When that
// ends it has asked them in vain for long, and may have voted against what all
// of them have.
func (w *world) isolate() bool {
	if m := w.isolated; m != nil {
		if m.proc != nil {
			for range 4 {
				w.chain.Mine()
				for m.feed() {
				}
				for _, worker := range m.proc.workers {
					m.step(worker)
				}
				w.watch()
				if m.proc == nil {
					break
				}
				w.now = w.now.Add(params.SkipAfter / 3)
			}
		}
		w.tell(m.name, "reaches the others again")
		for _, o := range w.members {
			w.net.Heal(m.name, o.name)
		}
		w.isolated = nil
		return true
	}
	m := pick(w, w.members)
	w.tell(m.name, "reaches no other member")
	for _, o := range w.members {
		if o != m {
			w.net.Cut(m.name, o.name)
		}
	}
	w.isolated = m
	return true
}

// ledgerAway cuts a member off from the ledger, or connects it again.
func (w *world) ledgerAway() bool {
	m := pick(w, w.members)
	if w.chance(400) {
		w.tell(m.name, "cannot reach the ledger")
		m.link.Pause()
	} else {
		w.tell(m.name, "reaches the ledger")
		m.link.Resume()
	}
	return true
}

func (w *world) hold() bool {
	if w.chance(400) {
		w.tell("", "the ledger takes no transactions into blocks")
		w.chain.Hold()
	} else {
		w.tell("", "the ledger takes transactions")
		w.chain.Release()
	}
	return true
}

func (w *world) mempoolLost() bool {
	n := w.chain.DropWaiting()
	if n > 0 {
		w.tell("", "the ledger forgets %d waiting transactions", n)
	}
	return n > 0
}

func (w *world) sendFails() bool {
	m := pick(w, w.members)
	lost := w.chance(500)
	w.tell(m.name, "will get no answer to its next transaction (lost: %v)", lost)
	m.link.FailNextSend(lost)
	return true
}

// fork replaces blocks that are not final.
func (w *world) fork() bool {
	if w.profile.confirmations == 0 {
		return false
	}
	depth := 1 + w.rng.IntN(int(w.profile.confirmations))
	if err := w.chain.Fork(depth); err != nil {
		return false // the chain is still too short
	}
	w.tell("", "the newest %d blocks of the ledger are replaced", depth)
	return true
}

func (w *world) pages() bool {
	m, n := pick(w, w.members), w.rng.IntN(4)
	w.tell(m.name, "reads the ledger in pages of %d records (0: any)", n)
	m.link.SetPage(n)
	return true
}

func (w *world) clockJump() bool {
	m := pick(w, w.members)
	m.skew = time.Duration(w.rng.IntN(240)-120) * time.Second
	w.tell(m.name, "has its clock jump to %s off", m.skew)
	return true
}

// stopOne stops a member in good order, or starts one that is down.
func (w *world) stopOne() bool {
	if w.chance(500) {
		return w.restart()
	}
	up := w.running()
	if len(up) < 2 {
		return false
	}
	pick(w, up).stop()
	return true
}

// restart starts one that is down.
func (w *world) restart() bool {
	down := some(w.members, func(m *member) bool { return m.proc == nil && (m.belongs || m.founder) })
	if len(down) == 0 {
		return false
	}
	m := pick(w, down)
	m.start()
	if m.proc != nil && m.proc.dead {
		m.bury()
	}
	return true
}

// arm prepares a fault at one of the next commits or effects of a member. Often
// it hits a step of a worker that has just got something to do.
func (w *world) arm(kinds ...faultKind) bool {
	up := w.running()
	if len(up) == 0 {
		return w.restart()
	}
	m := pick(w, up)
	f := &fault{in: 1 + w.rng.IntN(12), what: pick(w, kinds)}
	if w.chance(700) {
		m.feed()
		f.in = 1 + w.rng.IntN(3)
		m.proc.fault = f
		if !m.proc.dead {
			m.step(pick(w, m.proc.workers))
		}
		return true
	}
	m.proc.fault = f
	return true
}

func (w *world) crash() bool {
	if w.chance(500) && w.restart() {
		return true
	}
	return w.arm(crashBefore, crashAfter)
}

func (w *world) diskFails() bool { return w.arm(hiccup) }
func (w *world) diskSlow() bool  { return w.arm(slow) }
