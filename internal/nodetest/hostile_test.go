package nodetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// incident waits until the member's operator is told of something of a kind,
// and gives the text.
func (m *Member) incident(kind string) string {
	m.net.t.Helper()
	text := ""
	m.Until("there is an incident "+kind, func(tx *store.Tx) (bool, error) {
		all, err := tx.Incidents(100)
		for _, in := range all {
			if in.Kind == kind {
				text = in.Text
				return true, nil
			}
		}
		return false, err
	})
	return text
}

// A node whose certificate is not the registered one gets nothing, and its
// peers say so in their status. With the right one all goes through.
func TestWrongCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a, b := net.Members[0], net.Members[1]
		impostor := net.Exchange.Connect(b.Name, sha256.Sum256([]byte("another certificate")))
		id := a.Private(`"secret"`, []*Member{b}, "t").Header.ID
		a.Until("the parcel is refused for its certificate", func(tx *store.Tx) (bool, error) {
			waiting, err := tx.OutboxByPeer()
			return len(waiting) > 0 && strings.Contains(waiting[0].Error, "certificate"), err
		})
		peers, err := a.Messages.PeersStatus(t.Context())
		must(t, err)
		if !slices.ContainsFunc(peers, func(p message.PeerStatus) bool { return p.Org == b.Org && strings.Contains(p.Error, "certificate") }) {
			t.Errorf("the status of the peers does not tell of the certificate: %+v", peers)
		}
		b.without("t")
		// Nor can the impostor ask for anything.
		if _, err := impostor.Send(t.Context(), a.peer(), "secret", nil); err == nil {
			t.Error("a node with an unknown certificate was answered")
		}
		b.Stop()
		b.Start()
		b.Confirmed(id)
	})
}

// A peer answers with a receipt of another, or with a bad signature. It does
// not count, the operator is told, and a good one does later.
func TestForgedReceipt(t *testing.T) {
	for name, forge := range map[string]func(*wire.Receipt, *Net){
		"of another": func(r *wire.Receipt, net *Net) { r.Org = net.Members[2].Org },
		"signature":  func(r *wire.Receipt, _ *Net) { r.Signature[3] ^= 1 },
		"root":       func(r *wire.Receipt, _ *Net) { r.Root[0] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := Network(t, 3)
				a, b := net.Members[0], net.Members[1]
				net.Exchange.Intercept(func(m local.Message) ([]byte, error) {
					if !m.Answer || m.Kind != "payload" || m.From != b.Name {
						return m.Body, nil
					}
					var r wire.Receipt
					if err := wire.Unmarshal(m.Body, &r); err != nil {
						return nil, err
					}
					forge(&r, net)
					return wire.Marshal(r)
				})
				id := a.Private(`1`, []*Member{b}, "t").Header.ID
				if text := a.incident("forged_receipt"); !strings.Contains(text, b.Org.Short()) {
					t.Errorf("the incident does not name the peer: %s", text)
				}
				synctest.Wait()
				a.without("t")
				net.Exchange.Intercept(nil)
				a.Confirmed(id)
				b.Confirmed(id)
			})
		})
	}
}

// A batch arrives whose content does not match its root: another batch of the
// same author under its name, or altered bytes. It is refused and told, and
// the right one goes through.
func TestBatchThatIsNotItsRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a, b := net.Members[0], net.Members[1]
		first := a.Private(`1`, []*Member{b}, "t").Header.ID
		b.Confirmed(first)
		var mu sync.Mutex
		refusals := 0
		lie := true
		net.Exchange.Intercept(func(m local.Message) ([]byte, error) {
			if m.Kind != "payload" || m.From != a.Name || m.Answer {
				return m.Body, nil
			}
			mu.Lock()
			defer mu.Unlock()
			if !lie {
				return m.Body, nil
			}
			refusals++
			var env wire.Envelope
			if err := wire.Unmarshal(m.Body, &env); err != nil {
				return nil, err
			}
			if refusals%2 == 0 {
				env.Sealed[len(env.Sealed)/2] ^= 1
			} else {
				env.Root[0] ^= 1
			}
			return wire.Marshal(env)
		})
		id := a.Private(`2`, []*Member{b}, "t").Header.ID
		b.incident("bad_payload")
		a.Until("it was refused twice", func(tx *store.Tx) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			return refusals > 1, nil
		})
		mu.Lock()
		lie = false
		mu.Unlock()
		net.agree("t", []wire.UUID{first, id}, a, b)
	})
}

// An idempotency key is good once, also after a restart; nothing is stored by
// what is refused.
func TestIdempotencyKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 2)
		a, b := net.Members[0], net.Members[1]
		in := input(`1`, "t")
		in.IdempotencyKey = "once"
		first, err := a.Messages.Broadcast(t.Context(), in)
		must(t, err)
		for range 2 {
			_, err = a.Messages.Broadcast(t.Context(), in)
			var coded *errs.Error
			if !errors.As(err, &coded) || coded.Status != 409 || !strings.Contains(err.Error(), first.Header.ID.String()) {
				t.Errorf("want a conflict that names message %s, got %v", first.Header.ID, err)
			}
			a.Kill()
			a.Start()
		}
		other, err := b.Messages.Broadcast(t.Context(), in) // of another node
		must(t, err)
		net.agree("t", []wire.UUID{first.Header.ID, other.Header.ID}, a, b)
	})
}

// A value that does not conform to its datatype is refused where it is handed
// in.
func TestSchemaViolation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a := net.Members[0]
		_, def, err := a.Messages.DefineDatatype(t.Context(), message.DatatypeInput{Name: "claim", Version: "1", Value: []byte(`{"type":"object","required":["n"]}`)})
		must(t, err)
		for _, m := range net.Members {
			m.Confirmed(def.Header.ID)
		}
		typed := func(value string) message.Input {
			in := input(value, "t")
			in.Data[0].Datatype = &store.DatatypeRef{Name: "claim", Version: "1"}
			return in
		}
		var coded *errs.Error
		if _, err := a.Messages.Broadcast(t.Context(), typed(`{"m":1}`)); !errors.As(err, &coded) || coded.Code != "FF10198" || coded.Status != 400 {
			t.Errorf("want FF10198 with status 400, got %v", err)
		}
		good, err := a.Messages.Broadcast(t.Context(), typed(`{"n":1}`))
		must(t, err)
		for _, m := range net.Members {
			m.Confirmed(good.Header.ID)
		}
	})
}

// A peer that is no member of an audience gets none of its objects, whatever it
// asks for.
func TestOutsiderIsShownNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a, b, outsider := net.Members[0], net.Members[1], net.Members[2]
		id := a.Private(`"secret"`, []*Member{b}, "t").Header.ID
		msg := b.Confirmed(id)
		group, err := wire.ParseHash(string(msg.Header.Group))
		must(t, err)
		request, err := wire.Marshal(wire.SecretRequest{Audience: group, Epoch: 1})
		must(t, err)
		if _, err := outsider.Exchange.Send(t.Context(), a.peer(), "secret", request); err == nil {
			t.Error("an outsider was given the group's secret")
		}
		var keys wire.Keys
		must(t, a.DB.Read(t.Context(), func(tx *store.Tx) error {
			e, err := tx.CurrentEpoch(group)
			if err == nil {
				keys = e.Secret.Keys()
			}
			return err
		}))
		for _, part := range []string{"batch", "certificate"} {
			name := fmt.Sprintf("%s/%s", msg.Root, keys.ObjectName(*msg.Root, part)) // somebody told it the name
			if r, err := outsider.Exchange.Fetch(t.Context(), a.peer(), name, 0); err == nil {
				r.Close()
				t.Errorf("an outsider was shown the %s", part)
			}
		}
	})
}

// Genuine receipts for what nobody knows are not stored: else a member could
// fill another's disk with them. They may come again.
func TestReceiptsForUnknownRoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a, b := net.Members[0], net.Members[1]
		stored := func() (n int) {
			must(t, a.DB.Read(t.Context(), func(tx *store.Tx) error {
				return tx.QueryRow(`SELECT COUNT(*) FROM receipts WHERE author = $1`, b.Org).Scan(&n)
			}))
			return n
		}
		before := stored()
		r := wire.Receipt{Version: wire.Version, Network: net.ID(), Org: b.Org, Author: b.Org, Audience: net.ID(), Epoch: 1, Root: sha256.Sum256([]byte("nothing"))}
		digest, err := r.Digest()
		must(t, err)
		r.Signature, err = b.Keys.Sign(t.Context(), b.Self.Key, digest, "test")
		must(t, err)
		body, err := wire.Marshal(r)
		must(t, err)
		var refused *exchange.Refused
		if _, err := b.Node.Messages.Exchange.Send(t.Context(), a.peer(), "receipt", body); !errors.As(err, &refused) || refused.Code != "unknown_audience" {
			t.Errorf("the answer is %v, want a refusal that may change", err)
		}
		if after := stored(); after != before {
			t.Errorf("%d receipts are stored, %d were before", after, before)
		}
	})
}
