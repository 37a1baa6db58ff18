package nodetest

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
	"github.com/parley-node/parley/wire"
)

// backup copies the member's database while it runs.
func (m *Member) backup() string {
	m.net.t.Helper()
	path := filepath.Join(m.net.t.TempDir(), "backup.db")
	must(m.net.t, m.DB.BackupTo(m.net.t.Context(), path))
	return path
}

// A member goes back to a backup that is older than what it has sent, received
// and promised since. It notices, reads the rest from the ledger and the others,
// and goes on with numbers and nonces that nobody has used.
func TestRestoreToOlderState(t *testing.T) {
	if storetest.Postgres() {
		t.Log("a PostgreSQL server makes its own backups")
		return
	}
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 4)
		a, b, c := net.Members[0], net.Members[1], net.Members[2]
		group := []*Member{a, b, c}
		ids := []wire.UUID{a.Broadcast(`1`, "t").Header.ID}
		b.Confirmed(ids[0])
		private := []wire.UUID{a.Private(`1`, group, "p").Header.ID}
		b.Confirmed(private[0])
		net.Quiet()
		saved := a.backup()
		for i, from := range []*Member{a, b, a, c} {
			ids = append(ids, from.Broadcast(string(rune('2'+i)), "t").Header.ID)
			net.agree("t", ids, net.Members...)
			private = append(private, from.Private(string(rune('2'+i)), group, "p").Header.ID)
			net.agree("p", private, group...)
		}
		net.Quiet()
		a.Stop()
		a.Path = saved
		a.Start()
		net.agree("t", ids, net.Members...)
		net.agree("p", private, group...)
		a.Until("it has noticed", func(tx *store.Tx) (bool, error) {
			var n int
			err := tx.QueryRow(`SELECT COUNT(*) FROM incidents WHERE kind = 'restored'`).Scan(&n)
			return n == 1, err
		})
		for _, from := range []*Member{a, b} {
			ids = append(ids, from.Broadcast(`9`, "t").Header.ID)
			net.agree("t", ids, net.Members...)
			private = append(private, from.Private(`9`, group, "p").Header.ID)
			net.agree("p", private, group...)
		}
	})
}

// A restored node casts no vote while a receipt that it has forgotten may count,
// and then one that takes a hundred times longer.
func TestRestoredNodeAbstains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := quickSkip()
		p.ReceiptAge, p.SkipGrace = 15, 50*time.Millisecond
		net := New(t, Options{Members: 4, Params: p, Tick: time.Second})
		net.Ready()
		author, voters := net.Members[0], net.Members[1:] // v = 3, c = 2, s = 2
		restored, plain := voters[0], voters[1:]
		net.Quiet()
		for _, v := range voters {
			net.Exchange.Cut(author.Name, v.Name)
		}
		lost := author.Broadcast(`1`, "t").Header.ID
		author.Until("the batch is sealed", func(tx *store.Tx) (bool, error) {
			m, err := store.Optional(tx.MessageByID(author.Namespace, lost))
			return m != nil && m.Root != nil, err
		})
		undo := author.forgeReceipts(voters[:2], lost)
		author.Until("the pin is on the ledger", func(tx *store.Tx) (bool, error) {
			m, err := store.Optional(tx.MessageByID(author.Namespace, lost))
			if err != nil || m.Root == nil {
				return false, err
			}
			pins, err := tx.PinsOfBatch(author.Org, *m.Root)
			return len(pins) > 0, err
		})
		undo()
		author.Stop()
		plain[1].Stop() // one plain vote is not enough
		must(t, restored.DB.Write(t.Context(), message.MarkRestored))
		restored.Stop()
		restored.Start()
		voted := func(tx *store.Tx) (bool, error) {
			var n int
			err := tx.QueryRow(`SELECT COUNT(*) FROM votes WHERE author = $1`, author.Org).Scan(&n)
			return n > 0, err
		}
		plain[0].Until("it votes", voted)
		restored.Until("it votes", voted)
		var mark struct{ Head uint64 }
		var final struct{ Number uint64 }
		must(t, restored.DB.Read(t.Context(), func(tx *store.Tx) error {
			for name, to := range map[string]any{store.MetaRestored: &mark, store.MetaFinal: &final} {
				text, err := tx.Meta(name)
				if err != nil {
					return err
				}
				if err := json.Unmarshal([]byte(text), to); err != nil {
					return err
				}
			}
			return nil
		}))
		if final.Number <= mark.Head+p.ReceiptAge {
			t.Errorf("the restored node had voted at block %d, want after %d + %d", final.Number, mark.Head, p.ReceiptAge)
		}
		since := time.Now()
		restored.Until("the entry is skipped", skipped(author.Org))
		if took := time.Since(since); took < 50*p.SkipGrace {
			t.Errorf("the entry was skipped %s after a restored node's vote made enough, want about %s", took, 100*p.SkipGrace)
		}
	})
}
