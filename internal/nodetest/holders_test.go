package nodetest

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// quickSkip are parameters under which a test can wait for a skip.
func quickSkip() ledger.Params {
	p := ledger.DefaultParams
	p.SkipAfter, p.SkipGrace = 20*time.Second, 5*time.Second
	return p
}

// rejected waits until a message is rejected at the member, and gives the
// reason.
func (m *Member) rejected(id wire.UUID) string {
	m.net.t.Helper()
	var reason string
	m.Until(fmt.Sprintf("message %s is rejected", id), func(tx *store.Tx) (bool, error) {
		msg, err := store.Optional(tx.MessageByID(m.Namespace, id))
		if msg == nil {
			return false, err
		}
		reason = msg.RejectReason
		return msg.State == message.StateRejected, err
	})
	return reason
}

// An author gives its payload to the members it needs for a certificate and
// withholds it from another. That one pulls it from a holder.
func TestWithheldPayloadIsPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 4)
		author, victim := net.Members[0], net.Members[3]
		net.Exchange.Cut(author.Name, victim.Name)
		id := author.Broadcast(`1`, "t").Header.ID
		next := net.Members[1].Broadcast(`2`, "t").Header.ID
		net.agree("t", []wire.UUID{id, next}, net.Members[1:]...)
		net.Exchange.Heal(author.Name, victim.Name)
		net.agree("t", []wire.UUID{id, next}, net.Members...)
	})
}

// An author pins without a certificate, and nobody can give the payload: the
// only member that has it is cut off. The others vote, and after the grace all
// agree that it is skipped: the author, the holder, and one who slept through
// it and is then sent the payload.
func TestPayloadThatNobodyHoldsIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := New(t, Options{Members: 6, Params: quickSkip()})
		net.Ready()
		author, holder, sleeper := net.Members[0], net.Members[1], net.Members[2]
		voters := net.Members[3:]
		net.Quiet()
		sleeper.Stop()
		for _, v := range voters {
			net.Exchange.Cut(author.Name, v.Name)
		}
		lost := author.Broadcast(`1`, "t").Header.ID
		holder.Until("it holds the payload", func(tx *store.Tx) (bool, error) {
			m, err := store.Optional(tx.MessageByID(holder.Namespace, lost))
			return m != nil, err
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
		for _, v := range voters {
			net.Exchange.Cut(holder.Name, v.Name)
		}
		behind := holder.Broadcast(`2`, "t").Header.ID // waits for receipts, and then for the skip
		for _, m := range append(voters, holder) {
			m.Until("the entry is skipped", skipped(author.Org))
		}
		sleeper.Start()
		sleeper.Until("the entry is skipped", skipped(author.Org))
		author.Ledger.Pause() // it does not know yet, and sends what it owes
		author.Start()
		author.Until("the sleeper has refused the payload", func(tx *store.Tx) (bool, error) {
			waiting, err := tx.OutboxByPeer()
			for _, w := range waiting {
				if w.Peer == sleeper.Org && strings.Contains(w.Error, "skipped") {
					return true, nil
				}
			}
			return false, err
		})
		author.Ledger.Resume()
		for _, v := range voters {
			net.Exchange.Heal(author.Name, v.Name)
			net.Exchange.Heal(holder.Name, v.Name)
		}
		for _, m := range net.Members {
			m.Confirmed(behind)
		}
		for _, m := range []*Member{author, holder} {
			if reason := m.rejected(lost); !strings.Contains(reason, "votes") {
				t.Errorf("%s: the skipped message is rejected because %q", m.Name, reason)
			}
		}
	})
}

// skipped asks whether an entry of an author was skipped.
func skipped(author wire.OrgID) func(*store.Tx) (bool, error) {
	return func(tx *store.Tx) (bool, error) {
		var n int
		err := tx.QueryRow(`SELECT COUNT(*) FROM pins WHERE org = $1 AND state = 'done' AND reason LIKE '%votes%'`, author).Scan(&n)
		return n > 0, err
	}
}

// A blob travels with its message, both ways, in one chunk and in several.
func TestBlobsBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a, b := net.Members[0], net.Members[1]
		for i, size := range []int{300 << 10, 5 << 20, 0} {
			from, to := a, b
			if i == 1 {
				from, to = b, a
			}
			content := bytes.Repeat([]byte{byte(i + 1), 2, 3, 5, 7}, size/5)
			id := from.Attach(content, []*Member{to}, "scans").Header.ID
			to.Confirmed(id)
			got := to.Blob(id)
			if !bytes.Equal(got, content) {
				t.Errorf("%s got %d bytes, %d were sent", to.Name, len(got), len(content))
			}
		}
	})
}

// A transfer that breaks off again and again ends with the whole blob.
func TestBlobOverABadLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 2)
		a, b := net.Members[0], net.Members[1]
		for range 3 {
			net.Exchange.FailNext(b.Name, a.Name, local.AnswerLost)
			net.Exchange.FailNext(b.Name, a.Name, local.Lost)
		}
		content := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
		id := a.Attach(content, []*Member{b}, "scans").Header.ID
		b.Confirmed(id)
		if got := b.Blob(id); !bytes.Equal(got, content) {
			t.Errorf("%d bytes arrived, %d were sent", len(got), len(content))
		}
	})
}

// Attach sends a message with an attachment.
func (m *Member) Attach(content []byte, to []*Member, topic string) *store.Message {
	t := m.net.t
	t.Helper()
	data, err := m.Messages.AddBlob(t.Context(), message.DataInput{}, bytes.NewReader(content), "scan.pdf", "application/pdf", true)
	must(t, err)
	var g message.GroupInput
	for _, o := range to {
		g.Members = append(g.Members, message.MemberInput{Identity: o.Name})
	}
	msg, err := m.Messages.Private(t.Context(), message.Input{Header: message.Header{Topics: []string{topic}}, Group: &g, Data: []message.DataInput{{ID: &data.ID}}})
	must(t, err)
	return msg
}

// Blob reads the attachment of a message.
func (m *Member) Blob(id wire.UUID) []byte {
	t := m.net.t
	t.Helper()
	var content []byte
	must(t, m.DB.Read(t.Context(), func(tx *store.Tx) error {
		msg, err := tx.MessageByID(m.Namespace, id)
		if err != nil {
			return err
		}
		data, err := tx.DataByID(m.Namespace, msg.Data[0].ID)
		if err != nil {
			return err
		}
		hash, err := wire.ParseHash(string(data.Blob.Hash))
		if err != nil {
			return err
		}
		r, err := m.Blobs.Open(t.Context(), hash, 0)
		if err != nil {
			return err
		}
		defer r.Close()
		content, err = io.ReadAll(r)
		return err
	}))
	return content
}

// forgeReceipts makes the member's node count receipts that were never given, as
// an author would that pins without a certificate. undo takes them away again.
func (m *Member) forgeReceipts(of []*Member, id wire.UUID) (undo func()) {
	t := m.net.t
	t.Helper()
	var root wire.Hash
	must(t, m.DB.Write(t.Context(), func(tx *store.Tx) error {
		msg, err := tx.MessageByID(m.Namespace, id)
		if err != nil {
			return err
		}
		root = *msg.Root
		for _, o := range of {
			if _, err := tx.PutReceipt(&wire.Receipt{Version: wire.Version, Network: m.Network.ID, Org: o.Org, Author: m.Org, Audience: msg.Audience, Epoch: 1, Root: root}, true); err != nil {
				return err
			}
		}
		return nil
	}))
	m.Messages.Wake.Submit.Set()
	return func() {
		must(t, m.DB.Write(t.Context(), func(tx *store.Tx) error {
			for _, o := range of {
				if _, err := tx.Exec(`DELETE FROM receipts WHERE root = $1 AND org = $2`, root, o.Org); err != nil {
					return err
				}
			}
			return nil
		}))
	}
}
