package check

import (
	"fmt"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

func erasedOr(erased bool) string {
	if erased {
		return "erased"
	}
	return "kept"
}

// erasures tests that whatever is erased is on record, with who and why, that
// what a blob's removal still waits for is known, and that requests and answers
// are signed by those who they say made them.
func (c *checker) erasures(r *replay) error {
	type stray struct{ what, id, erasure string }
	_, err := each(c.tx, func(rows *store.Rows, s *stray) error { return rows.Scan(&s.what, &s.id, &s.erasure) }, func(s *stray) error {
		c.differ(Erasure, s.what+" "+s.id, "erased by "+s.erasure, "an erasure of that id: nobody is on record for it", restore)
		return nil
	}, `SELECT 'message', m.id, m.erasure FROM messages m WHERE m.erasure IS NOT NULL AND NOT EXISTS (SELECT 1 FROM erasures e WHERE e.id = m.erasure)
		UNION ALL SELECT 'data', d.id, d.erasure FROM data d WHERE d.erasure IS NOT NULL AND NOT EXISTS (SELECT 1 FROM erasures e WHERE e.id = d.erasure)
		ORDER BY 1, 2`)
	if err != nil {
		return err
	}
	_, err = each(c.tx, func(rows *store.Rows, q *store.ErasureRequest) error {
		return rows.Scan(&q.ID, &q.Digest, &q.Org, &q.Own, &q.Root, &q.State, &q.Request, &q.Answer)
	}, func(q *store.ErasureRequest) error {
		where := "erasure request " + q.ID.String()
		var e wire.Erasure
		if err := wire.Unmarshal(q.Request, &e); err != nil {
			c.differ(Erasure, where, "unreadable bytes", err, restore)
			return nil
		}
		digest, err := e.Digest()
		if err != nil {
			return err
		}
		equal(c, Erasure, where, fmt.Sprint(q.Digest, q.Org, q.Root, q.Own), fmt.Sprint(digest, e.Org, e.Root, e.Org == c.Self), restore)
		if signer, err := e.Signer(); err != nil || !r.members.ever(e.Org, signer) {
			c.differ(Erasure, where, "signed by "+signer.String(), "no key that the organisation ever had", restore)
		}
		answered := q.State == store.RequestErased || q.State == store.RequestRefused
		if answered != (len(q.Answer) > 0) {
			c.differ(Erasure, where, fmt.Sprintf("%s with an answer of %d bytes", q.State, len(q.Answer)), "an answer exactly where it is decided", restore)
		}
		if len(q.Answer) > 0 {
			c.erasureAnswer(r, where, q.Answer, digest, c.Self, q.State)
		}
		return nil
	}, `SELECT id, digest, org, own, root, state, request, answer FROM erasure_requests ORDER BY seq`)
	if err != nil {
		return err
	}
	type answer struct {
		request wire.Hash
		store.ErasureAnswer
	}
	_, err = each(c.tx, func(rows *store.Rows, a *answer) error { return rows.Scan(&a.request, &a.Org, &a.State, &a.Answer) }, func(a *answer) error {
		c.erasureAnswer(r, "erasure answer of "+a.Org.Short(), a.Answer, a.request, a.Org, a.State)
		return nil
	}, `SELECT request, org, state, answer FROM erasure_answers WHERE answer IS NOT NULL`)
	return err
}

// erasureAnswer tests that a stored answer is what it is filed as.
func (c *checker) erasureAnswer(r *replay, where string, stored []byte, request wire.Hash, org wire.OrgID, state string) {
	var a wire.ErasureAnswer
	if err := wire.Unmarshal(stored, &a); err != nil {
		c.differ(Erasure, where, "unreadable bytes", err, restore)
		return
	}
	said := store.RequestRefused
	if a.Erased {
		said = store.RequestErased
	}
	equal(c, Erasure, where, fmt.Sprint(request, org, state), fmt.Sprint(a.Request, a.Org, said), restore)
	if signer, err := a.Signer(); err != nil || !r.members.ever(a.Org, signer) {
		c.differ(Erasure, where, "signed by "+signer.String(), "no key that the organisation ever had", restore)
	}
}
