package simulation

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/sim"
	"github.com/parley-node/parley/internal/node"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
	"modernc.org/sqlite"
)

// process is one run of a member's node, from its start to its end. It may die
// before or after any commit of its database and any effect on the world: then
// no further commit and no further effect of it succeeds, whatever its code
// still tries, and the schedule starts another one on what is durable.
type process struct {
	w       *world
	m       *member
	node    *node.Node
	db      *store.DB
	ctx     context.Context
	cancel  context.CancelFunc
	silence func() // ends its exchange
	workers []node.Worker
	had     *ledger.Block // last final block that the feed gave

	dead    bool
	commits int
	seen    int // commits that were observed
	fault   *fault

	unsynced bool // its connection does not sync each commit
}

// fault is what is to happen at the in-th commit or effect from now.
type fault struct {
	in   int
	what faultKind
}

type faultKind int

const (
	crashBefore faultKind = iota // the process dies, the commit or effect does not happen
	crashAfter                   // it happens, and the process dies before it learns so
	hiccup                       // it fails, the process lives on
	slow                         // it takes seconds
)

func (k faultKind) String() string {
	return [...]string{"crashes before", "crashes after", "fails at", "is slow at"}[k]
}

var (
	errDead   = errors.New("the process is dead")
	errHiccup = errors.New("the simulated disk or line failed this time")
)

// point is a commit or effect about to happen. die says that the process dies
// with it.
func (p *process) point(what string) (die bool, err error) {
	if p.dead {
		return false, errDead
	}
	f := p.fault
	if f == nil {
		return false, nil
	}
	if f.in--; f.in > 0 {
		return false, nil
	}
	p.fault = nil
	p.w.tell(p.m.name, "%s %s", f.what, what)
	p.w.story.count(f.what.String())
	switch f.what {
	case crashBefore:
		p.dead = true
		return false, errDead
	case hiccup:
		return false, errHiccup
	case slow:
		p.w.now = p.w.now.Add(time.Duration(500+p.w.rng.IntN(8000)) * time.Millisecond)
	}
	return f.what == crashAfter, nil
}

// effect does something outside of the process.
func (p *process) effect(what string, do func() error) error {
	die, err := p.point(what)
	if err != nil {
		return err
	}
	err = do()
	if p.dead = p.dead || die; p.dead {
		return errDead
	}
	return err
}

// commit is SQLite's commit hook: a result other than 0 undoes the
// transaction.
func (p *process) commit() int32 {
	die, err := p.point("a commit")
	if err != nil {
		return 1
	}
	p.commits++
	p.dead = p.dead || die
	return 0
}

// close ends the process, in good order or what is left of it.
func (p *process) close() {
	p.cancel()
	if p.silence != nil {
		p.silence()
	}
	if p.node != nil {
		p.w.must(p.node.Subscriptions.Close(background))
	}
	if p.db == nil {
		return
	}
	// SQLite promises to keep a commit only where a connection syncs each one.
	// With less, a crash of the machine may take all since the last checkpoint:
	// the file without its write-ahead log.
	var checkpoint []byte
	if p.dead && p.unsynced {
		var err error
		checkpoint, err = os.ReadFile(p.m.path)
		p.w.must(err)
	}
	p.w.must(p.db.Close())
	if checkpoint != nil {
		p.w.must(os.WriteFile(p.m.path, checkpoint, 0o600))
	}
	disks.forget(p.m.path)
}

// disks knows the process behind each database file. SQLite's driver has one
// hook for all connections of the program.
var disks = &diskTable{}

type diskTable struct {
	once      sync.Once
	processes sync.Map // path -> *process
}

func (d *diskTable) watch(path string, p *process) {
	d.once.Do(func() { sqlite.RegisterConnectionHook(d.connected) })
	d.processes.Store(path, p)
}

func (d *diskTable) forget(path string) { d.processes.Delete(path) }

func (d *diskTable) connected(c sqlite.ExecQuerierContext, dsn string) error {
	path, options, _ := strings.Cut(strings.TrimPrefix(dsn, "file:"), "?")
	v, ok := d.processes.Load(path)
	if !ok || strings.Contains(options, "query_only") {
		return nil
	}
	p := v.(*process)
	if !strings.Contains(options, "synchronous%28FULL%29") {
		p.unsynced = true
	}
	hooks, ok := c.(sqlite.HookRegisterer)
	if !ok {
		return errors.New("simulation: SQLite's driver offers no hooks")
	}
	hooks.RegisterCommitHook(p.commit)
	return nil
}

// signer, chainLink and peerLink are the member's drivers as one process has
// them: their effects end with it.
type signer struct {
	keys.Keys
	p *process
}

func (s signer) Sign(ctx context.Context, key wire.Address, digest wire.Hash, purpose string) (sig wire.Signature, err error) {
	err = s.p.effect("signing a "+purpose, func() error { sig, err = s.Keys.Sign(ctx, key, digest, purpose); return err })
	return sig, err
}

type chainLink struct {
	*sim.Ledger
	p *process
}

func (l chainLink) Send(ctx context.Context, tx ledger.Signed) error {
	return l.p.effect("sending a transaction", func() error { return l.Ledger.Send(ctx, tx) })
}

type peerLink struct {
	*local.Exchange
	p *process
}

func (l peerLink) Send(ctx context.Context, to exchange.Peer, kind string, body []byte) (answer []byte, err error) {
	err = l.p.effect("a request to a peer", func() error { answer, err = l.Exchange.Send(ctx, to, kind, body); return err })
	return answer, err
}

func (l peerLink) Fetch(ctx context.Context, from exchange.Peer, name string, offset int64) (r io.ReadCloser, err error) {
	err = l.p.effect("fetching from a peer", func() error { r, err = l.Exchange.Fetch(ctx, from, name, offset); return err })
	if err != nil && r != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, err
}

// handler answers peers while the process lives.
type handler struct{ p *process }

func (h handler) Receive(ctx context.Context, from wire.OrgID, kind string, body []byte) (answer []byte, err error) {
	if h.p.dead {
		return nil, errDead
	}
	if answer, ok := h.p.m.lies.answer(h.p, from, kind, body); ok {
		return answer, nil
	}
	answer, err = h.p.node.Messages.Receive(ctx, from, kind, body)
	if h.p.dead {
		return nil, errDead
	}
	return answer, err
}

func (h handler) Open(ctx context.Context, from wire.OrgID, name string, offset int64) (io.ReadCloser, error) {
	if h.p.dead {
		return nil, errDead
	}
	return h.p.node.Messages.Open(ctx, from, name, offset)
}
