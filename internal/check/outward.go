package check

import (
	"fmt"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// epochs compares the stored epochs and audiences with those that the replay
// has seen activated.
func (c *checker) epochs(r *replay) error {
	list, err := c.tx.Audiences()
	if err != nil {
		return err
	}
	for _, row := range list {
		epochs, err := c.tx.Epochs(row.ID)
		if err != nil {
			return err
		}
		a := r.audiences[row.ID]
		if a != nil && !a.network && a.epochs[0].Epoch == 1 {
			stored := uint64(0)
			if row.Begun != nil {
				stored = uint64(*row.Begun)
			}
			equal(c, Audience, "beginning of "+a.name(), fmt.Sprintf("record %d", stored), fmt.Sprintf("record %d", a.begun), rebuild)
		}
		for i := range epochs {
			if err := c.epoch(a, &epochs[i], r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) epoch(a *audience, e *store.Epoch, r *replay) error {
	where := fmt.Sprintf("epoch %d (%s) of audience %s", e.Epoch, e.Hash.Short(), e.Audience.Short())
	hash, err := e.Definition.Hash()
	if err != nil {
		return err
	}
	id, err := e.Definition.AudienceID()
	if err != nil {
		return err
	}
	equal(c, Epoch, where+" definition", hash, e.Hash, refetch)
	equal(c, Epoch, where+" audience", id, e.Audience, refetch)
	if e.Audience == c.Network && e.Epoch == 1 {
		equal(c, Epoch, where+" founding", e.Hash, r.members.epoch1, compare)
	}
	if e.Secret != nil {
		if err := e.Definition.CheckKeys(e.Secret.Keys()); err != nil {
			c.differ(Epoch, where+" secret", "a secret", err, refetch)
		}
	}
	if a == nil || e.Epoch < a.epochs[0].Epoch {
		return nil
	}
	want := "not activated"
	for i := range a.epochs {
		if a.epochs[i].hash == e.Hash && (a.network || i > 0 || e.Epoch > 1) {
			want = fmt.Sprintf("activated by record %d", a.epochs[i].number)
		}
	}
	stored := "not activated"
	if e.Activated != nil {
		stored = fmt.Sprintf("activated by record %d", *e.Activated)
	}
	equal(c, Epoch, where, stored, want, compare)
	return nil
}

// windows compares the stored pin numbers of the current epochs, and tests that
// our own next number is above those used.
func (c *checker) windows(r *replay) error {
	for _, a := range r.audiences {
		if a.keys == nil {
			continue
		}
		stored, err := c.tx.Windows(a.id)
		if err != nil {
			return err
		}
		seen := map[wire.Address]bool{}
		for _, w := range stored {
			if w.Epoch != a.current().Epoch {
				continue
			}
			seen[w.Key] = true
			u := a.used[w.Key]
			if u == nil {
				u = &numbers{}
			}
			var bits uint64
			for n := range u.seen {
				if n <= u.high && u.high-n < widest {
					bits |= 1 << (u.high - n)
				}
			}
			where := fmt.Sprintf("numbers of key %s in epoch %d of %s", w.Key, w.Epoch, a.name())
			equal(c, Window, where, fmt.Sprintf("highest %d, used %b", w.High, w.Used), fmt.Sprintf("highest %d, used %b", u.high, bits), rebuild)
		}
		for key, u := range a.used {
			if u.high > 0 && !seen[key] {
				c.differ(Window, fmt.Sprintf("numbers of key %s in epoch %d of %s", key, a.current().Epoch, a.name()), "none used", fmt.Sprintf("highest %d", u.high), rebuild)
			}
		}
	}
	return nil
}

// receipts tests that each stored receipt is filed under its own names and
// signed by a key that its organisation has had.
func (c *checker) receipts(r *replay) error {
	type row struct {
		root        wire.Hash
		author, org wire.OrgID
		receipt     []byte
	}
	_, err := each(c.tx, func(rows *store.Rows, x *row) error { return rows.Scan(&x.root, &x.author, &x.org, &x.receipt) }, func(x *row) error {
		where := fmt.Sprintf("receipt of %s for %s", x.org.Short(), x.root.Short())
		var w wire.Receipt
		if err := wire.Unmarshal(x.receipt, &w); err != nil {
			c.differ(Receipt, where, "unreadable bytes", err, refetch)
			return nil
		}
		equal(c, Receipt, where, fmt.Sprint(x.root, x.author, x.org), fmt.Sprint(w.Root, w.Author, w.Org), refetch)
		if signer, err := w.Signer(); err != nil || !r.members.ever(w.Org, signer) {
			c.differ(Receipt, where, "signed by "+signer.String(), "no key that the organisation ever had", refetch)
		}
		return nil
	}, `SELECT root, author, org, receipt FROM receipts ORDER BY root, author, org`)
	if err != nil {
		return err
	}
	// A receipt for the audience that the batch belongs to, and a vote in another
	// one in which its author pinned it too, are no lie.
	lies, err := all(c.tx, func(rows *store.Rows, h *wire.Hash) error { return rows.Scan(h) },
		`SELECT v.root FROM votes v JOIN receipts t ON t.root = v.root AND t.author = v.author
		JOIN batches b ON b.root = v.root AND b.org = v.author AND b.audience = v.audience WHERE t.org = $1`, c.Self)
	for _, root := range lies {
		c.differ(Receipt, "batch "+root.Short(), "a vote and a receipt of ours", "one of the two: together they prove a lie", compare)
	}
	return err
}

// operations tests that what our batches set going has ended with them.
func (c *checker) operations(*replay) error {
	type row struct{ id, typ, status, batch string }
	scan := func(rows *store.Rows, o *row) error { return rows.Scan(&o.id, &o.typ, &o.status, &o.batch) }
	_, err := each(c.tx, scan, func(o *row) error {
		c.differ(Operation, "operation "+o.id, o.typ+" "+o.status, "ended: batch "+o.batch+" is "+"decided", rebuild)
		return nil
	}, `SELECT o.id, o.type, o.status, b.id FROM operations o JOIN batches b ON b.tx_id = o.tx
		WHERE b.own AND b.state IN ('done', 'dropped', 'cancelled') AND o.type = 'blockchain_pin_batch' AND o.status NOT IN ('Succeeded', 'Failed')`)
	if err != nil {
		return err
	}
	_, err = each(c.tx, scan, func(o *row) error {
		c.differ(Operation, "operation "+o.id, o.typ+" "+o.status, "ended: nothing of batch "+o.batch+" waits to be sent", rebuild)
		return nil
	}, `SELECT o.id, o.type, o.status, b.id FROM operations o JOIN batches b ON b.tx_id = o.tx
		WHERE b.own AND o.type = 'dataexchange_send_batch' AND o.status NOT IN ('Succeeded', 'Failed')
		AND NOT EXISTS (SELECT 1 FROM outbox p WHERE p.op = o.id)`)
	if err != nil {
		return err
	}
	_, err = each(c.tx, scan, func(o *row) error {
		c.differ(Operation, "operation "+o.id, o.typ+" "+o.status, "under way: batch "+o.batch+" still waits to be sent", rebuild)
		return nil
	}, `SELECT o.id, o.type, o.status, b.id FROM operations o JOIN batches b ON b.tx_id = o.tx JOIN outbox p ON p.op = o.id WHERE b.own AND o.status = 'Succeeded'`)
	if err != nil {
		return err
	}
	missing, err := all(c.tx, scanText, `SELECT id FROM batches b WHERE tx_id IS NULL OR NOT EXISTS (SELECT 1 FROM transactions t WHERE t.id = b.tx_id)`)
	for _, id := range missing {
		c.differ(Operation, "batch "+id, "no transaction", "one", rebuild)
	}
	return err
}

// outbox tests that each parcel is for a member and about something that is
// here.
func (c *checker) outbox(r *replay) error {
	type row struct {
		id        int64
		peer, org wire.OrgID
		kind      string
		root      wire.Hash
		op        *string
	}
	_, err := each(c.tx, func(rows *store.Rows, p *row) error {
		return rows.Scan(&p.id, &p.peer, &p.kind, &p.root, &p.org, &p.op)
	}, func(p *row) error {
		where := fmt.Sprintf("parcel %d (%s for %s)", p.id, p.kind, p.peer.Short())
		if _, known := r.members.active[p.peer]; !known || p.peer == c.Self {
			c.differ(Outbox, where, "peer "+p.peer.Short(), "no other member of the network", rebuild)
		}
		query, args := "", []any{p.root}
		switch p.kind {
		case "payload", "unpinned", "certificate", "receipt":
			query, args = `SELECT COUNT(*) FROM batches WHERE root = $1 AND org = $2`, append(args, p.org)
		case "erase", "erased":
			query = `SELECT COUNT(*) FROM erasure_requests WHERE digest = $1 AND (own OR answer IS NOT NULL)`
		case "invite", "activated":
			query = `SELECT COUNT(*) FROM epochs WHERE hash = $1 AND secret IS NOT NULL`
		default:
			c.differ(Outbox, where, "kind "+p.kind, "one that nodes understand", rebuild)
			return nil
		}
		n, err := count(c.tx, query, args...)
		if err == nil && n == 0 {
			c.differ(Outbox, where, "about "+p.root.Short(), "nothing of that name is here", rebuild)
		}
		if err == nil && p.op != nil {
			if n, err = count(c.tx, `SELECT COUNT(*) FROM operations WHERE id = $1`, *p.op); n == 0 && err == nil {
				c.differ(Outbox, where, "operation "+*p.op, "no such operation", rebuild)
			}
		}
		return err
	}, `SELECT id, peer, kind, root, org, op FROM outbox ORDER BY id`)
	return err
}

// submissions compares our ledger calls with the records that they became, and
// tests that nobody reuses our numbers.
func (c *checker) submissions(*replay) error {
	type row struct {
		id    int64
		state string
	}
	_, err := each(c.tx, func(rows *store.Rows, s *row) error { return rows.Scan(&s.id, &s.state) }, func(s *row) error {
		c.differ(Submission, fmt.Sprintf("submission %d", s.id), s.state, "final: its record is on the ledger", rebuild)
		return nil
	}, `SELECT DISTINCT s.id, s.state FROM submissions s JOIN records r ON r.tx_hash = s.tx_hash WHERE s.state <> 'final'`)
	if err != nil {
		return err
	}
	_, err = each(c.tx, func(rows *store.Rows, s *row) error { return rows.Scan(&s.id, &s.state) }, func(s *row) error {
		c.differ(Submission, fmt.Sprintf("submission %d", s.id), s.state, "not final: no record has its transaction", compare)
		return nil
	}, `SELECT s.id, s.state FROM submissions s WHERE s.state = 'final' AND NOT EXISTS (SELECT 1 FROM records r WHERE r.tx_hash = s.tx_hash)`)
	if err != nil {
		return err
	}
	type counter struct {
		key        wire.Address
		next, high int64
	}
	_, err = each(c.tx, func(rows *store.Rows, n *counter) error { return rows.Scan(&n.key, &n.next, &n.high) }, func(n *counter) error {
		c.differ(Submission, "next number of key "+n.key.String(), n.next, fmt.Sprintf("above %d, which is used", n.high), restore)
		return nil
	}, `SELECT c.signer, c.next, w.high FROM counters c JOIN windows w ON w.audience = c.audience AND w.epoch = c.epoch AND w.signer = c.signer WHERE c.next <= w.high`)
	return err
}
