package check

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// unpinned tests each author's chain of batches without a pin: numbered without
// a gap, each naming the one before, signed by a key of the author, and the
// last of them noted. Their messages are decided when they come.
func (c *checker) unpinned(r *replay) error {
	type link struct {
		Sequence uint64    `json:"sequence"`
		Root     wire.Hash `json:"root"`
	}
	chains := map[string]link{}
	type name struct {
		root wire.Hash
		org  wire.OrgID
	}
	_, err := each(c.tx, func(rows *store.Rows, n *name) error { return rows.Scan(&n.root, &n.org) }, func(n *name) error {
		row, err := c.tx.BatchByRoot(n.org, n.root)
		if err != nil {
			return err
		}
		keys, err := c.keysOf(row.Audience, row.Epoch)
		if err != nil || keys == nil {
			return err // reported with the batches
		}
		b, err := c.decode(row, keys)
		if err != nil {
			return nil // likewise
		}
		u := b.unpinned
		where := "batch " + row.ID.String()
		k := row.Audience.String() + "/" + row.Org.String()
		last := chains[k]
		equal(c, Unpinned, where, fmt.Sprintf("number %d after %s", u.Sequence, u.Previous.Short()), fmt.Sprintf("number %d after %s", last.Sequence+1, last.Root.Short()), compare)
		chains[k] = link{u.Sequence, row.Root}
		signer, err := wire.RecoverAddress(row.Root, u.Signature) // decode has compared the digest
		if err != nil || !r.members.ever(row.Org, signer) {
			c.differ(Unpinned, where, "signed by "+signer.String(), "no key that the author ever had", compare)
		}
		return c.unpinnedMessages(r, row, b)
	}, `SELECT root, org FROM batches WHERE tx_type = 'unpinned' ORDER BY seq`)
	if err != nil {
		return err
	}
	type meta struct{ name, value string }
	_, err = each(c.tx, func(rows *store.Rows, m *meta) error { return rows.Scan(&m.name, &m.value) }, func(m *meta) error {
		k := strings.TrimPrefix(m.name, store.MetaUnpinned)
		var stored link
		if err := json.Unmarshal([]byte(m.value), &stored); err != nil {
			c.differ(Unpinned, "chain "+k, m.value, err, rebuild)
			return nil
		}
		equal(c, Unpinned, "chain "+k, fmt.Sprintf("%d, %s", stored.Sequence, stored.Root), fmt.Sprintf("%d, %s", chains[k].Sequence, chains[k].Root), rebuild)
		delete(chains, k)
		return nil
	}, `SELECT name, value FROM meta WHERE name LIKE $1`, store.MetaUnpinned+"%")
	for k, l := range chains {
		c.differ(Unpinned, "chain "+k, "nothing", fmt.Sprintf("%d, %s", l.Sequence, l.Root), rebuild)
	}
	return err
}

// unpinnedMessages tests that the messages of an unpinned batch are confirmed or
// rejected, with their events.
func (c *checker) unpinnedMessages(r *replay, row *store.BatchRow, b *content) error {
	j := r.judge
	p := &pending{entry: &entry{a: &audience{id: row.Audience}, pin: &store.Pin{Record: store.Record{Pin: &store.PinBody{Org: row.Org, Pin: wire.Pin{Root: row.Root}}}}}}
	for i := range b.Messages {
		h := &b.Messages[i].Header
		p.messages = append(p.messages, judged{header: h})
		reason := j.fault(b, i, "")
		m, err := j.row(p, i)
		if err != nil || m == nil {
			return err
		}
		if reason == "" {
			reason = j.author(r, h, row.Org, r.last+1)
			if wrongKey := "the key"; reason == "" && strings.HasPrefix(m.reason, wrongKey) {
				reason = wrongKey // it signed when the claim's key was still valid; no record says when
			}
		}
		state := confirmed
		if reason != "" {
			state = rejected
		}
		where := "message " + h.ID.String()
		equal(c, Verdict, where, m.state, state, rebuild)
		if !strings.HasPrefix(m.reason, reason) || reason == "" && m.reason != "" {
			c.differ(Verdict, where, show(m.reason), show(reason), rebuild)
		}
		if err := j.events(p, &p.messages[i], state, false); err != nil {
			return err
		}
	}
	return nil
}
