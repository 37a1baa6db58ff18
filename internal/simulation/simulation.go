// Package simulation runs whole members of one network, with their databases,
// keys and blobs, on one simulated ledger and network, and lets a seed decide
// everything: which worker steps next, what applications send, what crashes,
// gets lost, comes late or twice, who lies and how, who joins and leaves. Time
// is a value that the schedule moves. The same seed gives the same history,
// byte for byte.
//
//	simulation.go  a run: its options, its world, its phases
//	schedule.go    what may happen next, and how often
//	submit.go      applications: messages of every kind
//	member.go      a member and the process that runs its node
//	process.go     crashes, failing and slow disks, at every commit and effect
//	traffic.go     requests between members that are lost, late, doubled
//	lies.go        a member that lies
//	admin.go       members and keys that come and go
//	observe.go     what must hold at any time
//	settle.go      what must hold when the faults have stopped
//	story.go       what happened, in words
//
// docs/simulation.md tells how to read and replay a failure.
package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/sim"
	"github.com/parley-node/parley/internal/node"
	"github.com/parley-node/parley/wire"
)

// Options of one run.
type Options struct {
	Seed  uint64
	Steps int // of the schedule; 0 for the usual number
	// Calm leaves out crashes and disk faults, so that the history does not
	// depend on how a database groups its commits.
	Calm bool
	// Postgres keeps the members' databases on the PostgreSQL server of the
	// tests; see storetest. It has no crashes: only a calm run can have it.
	Postgres bool
	// Tell is called with each line of the story as it happens; nil keeps the
	// story for a failure.
	Tell func(line string)
}

// Result is what came of a run.
type Result struct {
	// Log is the logical history: for each context the messages in their one
	// order, with their verdicts.
	Log []string
	// Counts says how often each kind of thing happened.
	Counts map[string]int
}

const (
	usualSteps = 500
	chainID    = 2021
)

var contract = wire.Address{0xc0, 0xde}

// names of the members, founders first.
var names = []string{"hospital", "insurer-a", "insurer-b", "regulator", "bank", "shipper", "customs"}

// params are short, so that skips and their grace happen in a run.
var params = ledger.Params{ProtocolVersion: wire.Version, Window: 16, ReceiptAge: 100_000, SkipAfter: 90 * time.Second, SkipGrace: 40 * time.Second}

// world is everything of one run. Only one thing happens at a time.
type world struct {
	t     *testing.T
	opt   Options
	rng   *rand.Rand
	now   time.Time
	dir   string
	chain *sim.Chain
	net   *local.Network
	story story

	members  []*member
	profile  profile
	weights  map[string]int
	faults   bool // requests may go astray
	isolated *member
	late     []letter
	sealed   []letter // payloads and receipts that were seen on the wire, to be replayed
	network  wire.Hash
	sent     []*sent
	byID     map[wire.UUID]*sent
	contexts map[contextKey]*history
	pins     pinned
	types    []datatype
	progress int  // counts what carries messages on
	stopped  bool // by the first violation
}

// Run plays one seed and fails the test at the first thing that must not be,
// with the story that led to it.
func Run(t *testing.T, o Options) Result {
	t.Helper()
	if o.Steps == 0 {
		o.Steps = usualSteps
	}
	cryptotest.SetGlobalRandom(t, o.Seed) // ids, salts, secrets, keys
	w := &world{
		t: t, opt: o, rng: rand.New(rand.NewPCG(o.Seed, 0x5eed)), dir: folder(t),
		now:     time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC),
		network: wire.NetworkID(chainID, contract), byID: map[wire.UUID]*sent{}, contexts: map[contextKey]*history{},
	}
	w.story = story{w: w, counts: map[string]int{}}
	w.net = local.NewNetwork(w.story.logger("network"))
	w.net.Intercept(w.intercept)
	defer w.end()
	w.found()
	w.ready()
	w.run()
	w.settle()
	w.compare()
	return Result{Log: w.log(), Counts: w.story.counts}
}

// folder is where a run keeps its databases: in memory where the system offers
// that, because a sync to disk is only waiting here. Crashes do not depend on
// it, see process.
func folder(t *testing.T) string {
	const memory = "/dev/shm"
	if s, err := os.Stat(memory); err != nil || !s.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "parley-simulation-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the run's folder: %v", err)
		}
	})
	return dir
}

// found makes the members, the network's contract and its first epoch.
func (w *world) found() {
	w.profile = w.draw()
	n := w.profile.founders
	var founders []ledger.MemberAdmitted
	var orgs []wire.OrgID
	for i := range n + w.profile.candidates {
		m := w.newMember(names[i], i)
		w.members = append(w.members, m)
		if i < n {
			founders = append(founders, ledger.MemberAdmitted{Org: m.org, Key: m.self.Key})
			orgs = append(orgs, m.org)
			m.belongs, m.founder = true, true
		}
	}
	if w.profile.liar {
		w.members[1+w.rng.IntN(n-1)].liar = true
	}
	founding, err := node.Found(w.network, w.members[0].org, orgs, w.now)
	w.must(err)
	w.members[0].founding = founding
	hash, err := founding.Definition.Hash()
	w.must(err)
	p := params
	p.Confirmations = w.profile.confirmations
	w.chain, err = sim.NewChain(sim.Config{
		ChainID: chainID, Contract: contract, Founders: founders, Params: p, Epoch1: hash,
		BlockInterval: 24 * 365 * time.Hour, // blocks are made by the schedule
		Now:           func() time.Time { return w.now },
		Rand:          rand.New(rand.NewPCG(w.opt.Seed, 0xb10c)),
	})
	w.must(err)
	for _, m := range w.members {
		m.link = w.chain.Connect(m.keys)
	}
	w.tell("", "%s", w.profile)
	for _, m := range w.members[:n] {
		m.start()
	}
}

// run plays the schedule.
func (w *world) run() {
	w.faults = true
	w.weights = w.draws()
	for range w.opt.Steps {
		w.now = w.now.Add(time.Duration(1+w.rng.IntN(20)) * time.Millisecond)
		w.act()
		w.watch()
	}
}

// end closes what still runs. After a violation the test is over, and the
// story is told.
func (w *world) end() {
	if w.t.Failed() && !w.stopped {
		w.story.print()
	}
	for _, m := range w.members {
		if m.proc != nil {
			m.proc.close()
		}
	}
	if w.chain != nil {
		w.chain.Close()
	}
}

// fail ends the run: something is as it must never be.
func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	if w.stopped {
		return
	}
	w.stopped = true
	w.tell("", "VIOLATION: "+format, args...)
	w.story.print()
	w.t.Fatalf("seed %d: "+format, append([]any{w.opt.Seed}, args...)...)
}

// must ends the run for an error of the simulation itself.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.fail("%v", err)
	}
}

func (w *world) tell(who, format string, args ...any) {
	w.story.line(who, fmt.Sprintf(format, args...))
}

// chance is true p times in 1000.
func (w *world) chance(p int) bool { return w.rng.IntN(1000) < p }

// pick draws one of a list.
func pick[T any](w *world, list []T) T { return list[w.rng.IntN(len(list))] }

// some lists what fulfils a condition.
func some[T any](list []T, is func(T) bool) (out []T) {
	for _, x := range list {
		if is(x) {
			out = append(out, x)
		}
	}
	return out
}

func (w *world) running() []*member {
	return some(w.members, func(m *member) bool { return m.proc != nil })
}

func (w *world) find(org wire.OrgID) *member {
	for _, m := range w.members {
		if m.org == org {
			return m
		}
	}
	return nil
}

func (w *world) named(name string) *member {
	for _, m := range w.members {
		if m.name == name {
			return m
		}
	}
	return nil
}

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

var background = context.Background()
