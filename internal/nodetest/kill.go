package nodetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/sim"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
)

// Kill ends the member's node as a power cut does: what its disk holds at this
// moment is all that Start will find. What the node does from here on, until it
// has stopped, reaches neither its peers nor the ledger.
func (m *Member) Kill() {
	m.net.t.Helper()
	m.die()
	m.bury()
}

// errDead undoes the transaction inside which the disk was copied.
var errDead = errors.New("the node is dead")

// die takes the copy. It may be called from inside a call of the node to its
// drivers, which then must fail; bury, outside of it, completes the death.
func (m *Member) die() {
	for _, o := range m.net.Members {
		if o != m {
			m.net.Exchange.Cut(m.Name, o.Name)
		}
	}
	m.Ledger.Pause()
	m.dead.Store(true)
	if !storetest.Postgres() {
		image := filepath.Join(m.net.t.TempDir(), "parley.db")
		// Inside a transaction nothing else is committed, so both files are of
		// one moment; what is in them of open transactions does not count.
		err := m.DB.Write(context.Background(), func(*store.Tx) error {
			for _, suffix := range []string{"", "-wal"} {
				content, err := os.ReadFile(m.Path + suffix)
				if errors.Is(err, os.ErrNotExist) {
					continue
				}
				if err == nil {
					err = os.WriteFile(image+suffix, content, 0o600)
				}
				if err != nil {
					return err
				}
			}
			return errDead
		})
		if !errors.Is(err, errDead) {
			m.net.t.Errorf("%s: copy the database of a dying node: %v", m.Name, err)
		}
		m.image = image
	}
	m.stop()
}

// bury waits for the end of a node that died, and reconnects its machine.
func (m *Member) bury() {
	t := m.net.t
	t.Helper()
	must(t, <-m.done)
	must(t, m.DB.Close())
	m.Node = nil
	if m.image != "" {
		m.Path, m.image = m.image, ""
	}
	for _, o := range m.net.Members {
		if o != m {
			m.net.Exchange.Heal(m.Name, o.Name)
		}
	}
	m.Ledger.Resume()
}

// tap lets a test stand between a node and its ledger.
type tap struct {
	*sim.Ledger
	m *Member
}

// What a tap is told of.
const (
	beforeSend   = "before a transaction is sent"
	afterSend    = "after a transaction was sent"
	beforeRecord = "before records are stored"
	afterRecord  = "after records were stored"
)

// OnLedger has hook called at the points of the member's ledger calls; an error
// of it is the call's result. Nil removes it.
func (m *Member) OnLedger(hook func(point string) error) { m.hook.Store(&hook) }

func (l tap) at(point string) error {
	if hook := l.m.hook.Load(); hook != nil && *hook != nil {
		return (*hook)(point)
	}
	return nil
}

func (l tap) Send(ctx context.Context, tx ledger.Signed) error {
	if err := l.at(beforeSend); err != nil {
		return err
	}
	err := l.Ledger.Send(ctx, tx)
	return errors.Join(err, l.at(afterSend))
}

func (l tap) Follow(ctx context.Context, next uint64, fn func(context.Context, ledger.Advance) error) error {
	return l.Ledger.Follow(ctx, next, func(ctx context.Context, a ledger.Advance) error {
		if err := l.at(beforeRecord); err != nil {
			return err
		}
		err := fn(ctx, a)
		return errors.Join(err, l.at(afterRecord))
	})
}
