package nodetest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
	"github.com/parley-node/parley/wire"
)

// secret is a value that is looked for, byte by byte, after it was erased. No
// hash or number can look like it.
const secret = `{"patient":"Xaver Unverwechselbar-Zauberlehrling"}`

const needle = "Unverwechselbar-Zauberlehrling"

// erasure waits until something is erased at the member, and gives the message.
func (m *Member) erased(id wire.UUID) *store.Message {
	m.net.t.Helper()
	var msg *store.Message
	m.Until(fmt.Sprintf("message %s is erased", id), func(tx *store.Tx) (bool, error) {
		var err error
		msg, err = store.Optional(tx.MessageByID(m.Namespace, id))
		return msg != nil && msg.Erasure != nil && msg.State != message.StatePending, err
	})
	return msg
}

// traces lists the files of a member's folder and database that hold some text.
func (m *Member) traces(text string) (files []string) {
	t := m.net.t
	t.Helper()
	paths := []string{m.Path, m.Path + "-wal"}
	must(t, filepath.Walk(m.dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			paths = append(paths, path)
		}
		return err
	}))
	for _, p := range paths {
		content, err := os.ReadFile(p)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		must(t, err)
		if bytes.Contains(content, []byte(text)) {
			files = append(files, p)
		}
	}
	return files
}

// gone fails the test unless the data of a message is destroyed at the member:
// in its row, in its batch, in every file.
func (m *Member) gone(id wire.UUID) {
	t := m.net.t
	t.Helper()
	msg := m.erased(id)
	must(t, m.DB.Read(t.Context(), func(tx *store.Tx) error {
		data, err := tx.DataOfMessages([]int64{msg.Seq})
		for _, d := range data[msg.Seq] {
			if d.Value != nil || d.Hash != "" || d.Blob != nil || !d.Seed.IsZero() || d.Erasure == nil {
				t.Errorf("%s: something of the data is left: %+v", m.Name, d)
			}
		}
		if len(data[msg.Seq]) == 0 || msg.Data[0].Hash != "" {
			t.Errorf("%s: the message lost its reference to the data, or kept its hash: %+v", m.Name, msg.Data)
		}
		return err
	}))
	if storetest.Postgres() {
		return // its files are the server's
	}
	m.Until("the database's log is emptied", func(*store.Tx) (bool, error) {
		err := m.DB.Scrub(t.Context())
		if errors.Is(err, store.ErrBusy) {
			return false, nil
		}
		return err == nil, err
	})
	if files := m.traces(needle); len(files) > 0 {
		t.Errorf("%s: the value is still in %v", m.Name, files)
	}
}

// retained is a network whose members erase at the author's request.
func retained(t *testing.T, members int, requests string) *Net {
	net := New(t, Options{Members: members, Retention: message.Retention{Requests: requests}})
	net.Ready()
	return net
}

// erase erases a message at the member that sent it, and asks the others.
func (m *Member) erase(id wire.UUID) *store.Erasure {
	m.net.t.Helper()
	done, err := m.Messages.EraseMessage(m.net.t.Context(), id, message.EraseInput{Reason: "the patient asked for it", Author: "dpo@hospital", Recipients: true})
	must(m.net.t, err)
	return done
}

// answers waits until each member that was asked has answered, and gives their
// states by organisation.
func (m *Member) answers(id wire.UUID) map[wire.OrgID]string {
	m.net.t.Helper()
	var states map[wire.OrgID]string
	m.Until("every member has answered", func(tx *store.Tx) (bool, error) {
		requests, err := tx.RequestsOfErasure(id)
		states = map[wire.OrgID]string{}
		for _, q := range requests {
			answers, err := tx.ErasureAnswers(q.Digest)
			if err != nil {
				return false, err
			}
			for _, a := range answers {
				states[a.Org] = a.State
				if a.State == store.AnswerWaiting {
					return false, nil
				}
			}
		}
		return len(states) > 0, err
	})
	return states
}

// An erased value is nowhere at any member that erased it; the message, its place
// in the order, and the other messages of its batch stay; who asked has each
// member's signed receipt.
func TestErasure(t *testing.T) {
	net := retained(t, 3, message.RequestsAccept)
	a, b := net.Members[0], net.Members[1]
	var ids []wire.UUID
	for i := range 6 {
		value := secret
		if i != 2 {
			value = fmt.Sprintf(`{"i":%d}`, i)
		}
		ids = append(ids, a.Private(value, []*Member{b}, "t").Header.ID)
	}
	net.agree("t", ids, a, b)
	if !storetest.Postgres() && len(b.traces(needle)) == 0 {
		t.Fatal("the value is not found where it is: the test would prove nothing")
	}
	done := a.erase(ids[2])
	if done.Author != "dpo@hospital" || done.Messages != 1 || done.Data != 1 {
		t.Errorf("recorded as %+v", done)
	}
	for _, m := range []*Member{a, b} {
		m.gone(ids[2])
	}
	if got := a.answers(done.ID); got[b.Org] != store.RequestErased || len(got) != 1 {
		t.Errorf("answers: %v", got)
	}
	net.agree("t", ids, a, b)
	status, err := a.Messages.Erasure(t.Context(), done.ID)
	must(t, err)
	var e wire.Erasure
	must(t, wire.Unmarshal(status.Requests[0].Request, &e))
	var r wire.ErasureAnswer
	must(t, wire.Unmarshal(status.Requests[0].Answers[0].Signed, &r))
	digest, err := e.Digest()
	must(t, err)
	if signer, err := r.Signer(); err != nil || signer != b.Key || r.Request != digest || !r.Erased {
		t.Errorf("the receipt is %+v, signed by %s (%v)", r, signer, err)
	}
	// Once more changes nothing.
	again, err := a.Messages.EraseMessage(t.Context(), ids[2], message.EraseInput{Reason: "again"})
	if err != nil || again.ID != done.ID {
		t.Errorf("erased again: %+v, %v", again, err)
	}
	events := 0
	all, err := b.Events.After(t.Context(), 0, 500)
	must(t, err)
	for _, ev := range all {
		if ev.Type == "message_erased" && *ev.Reference == ids[2] {
			events++
		}
	}
	if events != 1 {
		t.Errorf("%d events tell of the erasure at the recipient", events)
	}
}

// A member that never got a payload before it was erased gives the same verdict
// in the same order as who had it.
func TestErasedBeforeItArrived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := retained(t, 4, message.RequestsAccept)
		a, late := net.Members[0], net.Members[3]
		late.Stop()
		var ids []wire.UUID
		for i := range 5 {
			value := secret
			if i%2 == 0 {
				value = fmt.Sprint(i)
			}
			ids = append(ids, a.Broadcast(value, "t").Header.ID)
			a.Confirmed(ids[i])
		}
		net.agree("t", ids, net.Members[:3]...)
		a.erase(ids[1])
		a.erase(ids[3])
		for _, m := range net.Members[:3] {
			m.erased(ids[3])
			m.gone(ids[1])
		}
		for _, m := range net.Members[:3] { // none of them remembers more after a crash
			m.Kill()
			m.Start()
		}
		late.Start()
		net.agree("t", ids, net.Members...)
		for _, id := range []wire.UUID{ids[1], ids[3]} {
			late.gone(id)
		}
		var before *store.Erasure
		must(t, late.DB.Read(t.Context(), func(tx *store.Tx) error {
			msg := late.erased(ids[1])
			e, err := store.GetTx(tx, store.Erasures, "default", msg.Erasure.String())
			before = &e
			return err
		}))
		if before.Source != store.ErasedBefore {
			t.Errorf("recorded as %+v", before)
		}
	})
}

// A legal hold keeps what it covers from every way of erasing it, and the author
// learns that there is one.
func TestLegalHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := retained(t, 3, message.RequestsAccept)
		a, b := net.Members[0], net.Members[1]
		id := a.Private(secret, []*Member{b}, "claims").Header.ID
		a.Confirmed(id)
		msg := b.Confirmed(id)
		for kind, value := range map[string]string{
			store.HoldMessage: id.String(), store.HoldTopic: "claims", store.HoldGroup: string(msg.Header.Group), store.HoldAuthor: a.Name,
		} {
			hold, err := b.Messages.SetHold(t.Context(), message.HoldInput{Kind: kind, Value: value, Reason: "case 17", Author: "legal"})
			must(t, err)
			_, err = b.Messages.EraseMessage(t.Context(), id, message.EraseInput{Reason: "tidy"})
			if errs.Code(err) != "FF90020" || errs.Status(err) != 409 || !strings.Contains(err.Error(), hold.ID.String()) || !strings.Contains(err.Error(), "case 17") {
				t.Errorf("hold on %s: %v", kind, err)
			}
			must(t, b.Messages.LiftHold(t.Context(), hold.ID, ""))
			if err := b.Messages.LiftHold(t.Context(), hold.ID, ""); errs.Status(err) != 404 {
				t.Errorf("lifted twice: %v", err)
			}
		}
		hold, err := b.Messages.SetHold(t.Context(), message.HoldInput{Kind: store.HoldTopic, Value: "claims", Reason: "case 18"})
		must(t, err)
		done := a.erase(id)
		if got := a.answers(done.ID); got[b.Org] != store.RequestRefused {
			t.Fatalf("answers: %v", got)
		}
		status, err := a.Messages.Erasure(t.Context(), done.ID)
		must(t, err)
		if why := status.Requests[0].Answers[0].Reason; !strings.Contains(why, hold.ID.String()) || strings.Contains(why, "case 18") {
			t.Errorf("the refusal says %q: it must name the hold and not what it is about", why)
		}
		if len(b.traces(needle)) == 0 && !storetest.Postgres() {
			t.Error("the held value is gone")
		}
		// The hold is lifted, and an operator decides anew.
		must(t, b.Messages.LiftHold(t.Context(), hold.ID, "legal"))
		requests, _, err := store.List(t.Context(), b.DB, store.ErasureRequests, "default", store.Query{})
		must(t, err)
		yes := true
		_, err = b.Messages.DecideErasure(t.Context(), requests[0].ID, message.Decision{Accept: &yes})
		must(t, err)
		b.gone(id)
		a.Until("the receipt replaces the refusal", func(tx *store.Tx) (bool, error) {
			answers, err := tx.ErasureAnswers(requests[0].Digest)
			return len(answers) == 1 && answers[0].State == store.RequestErased, err
		})
	})
}

// By default nothing is erased at the request of others before an operator has
// agreed; one that refuses says why.
func TestOperatorDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := retained(t, 3, "")
		a, b := net.Members[0], net.Members[1]
		id := a.Private(secret, []*Member{b}, "t").Header.ID
		a.Confirmed(id)
		b.Confirmed(id)
		done := a.erase(id)
		a.gone(id)
		var q store.ErasureRequest
		b.Until("the request is there", func(tx *store.Tx) (bool, error) {
			list, _, err := store.ListTx(tx, store.ErasureRequests, "default", store.Query{})
			if len(list) == 1 {
				q = list[0]
			}
			return len(list) == 1, err
		})
		if q.State != store.RequestAsked || b.Confirmed(id).Erasure != nil {
			t.Errorf("the request is %s", q.State)
		}
		no := false
		if _, err := b.Messages.DecideErasure(t.Context(), q.ID, message.Decision{Accept: &no}); errs.Status(err) != 400 {
			t.Errorf("refused without a reason: %v", err)
		}
		_, err := b.Messages.DecideErasure(t.Context(), q.ID, message.Decision{Accept: &no, Reason: "we must keep invoices for ten years"})
		must(t, err)
		if got := a.answers(done.ID); got[b.Org] != store.RequestRefused {
			t.Errorf("answers: %v", got)
		}
		if b.Confirmed(id).Erasure != nil {
			t.Error("it was erased although the operator refused")
		}
	})
}

// Only the author of a batch can ask others to erase data of it, with its own
// signature, and only data that no other author sent as well.
func TestRequestsOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := retained(t, 3, message.RequestsAccept)
		a, b, c := net.Members[0], net.Members[1], net.Members[2]
		first := a.Broadcast(secret, "t")
		for _, m := range net.Members {
			m.Confirmed(first.Header.ID)
		}
		msg := b.Confirmed(first.Header.ID)
		var header wire.MessageHeader
		must(t, wire.Unmarshal(msg.Wire, &header))
		request := func(by *Member, signer *Member, change func(*wire.Erasure)) []byte {
			e := wire.Erasure{Version: wire.Version, Network: net.ID(), Org: by.Org, Audience: net.ID(), Root: *msg.Root, Items: header.Data, At: 1}
			change(&e)
			digest, err := e.Digest()
			must(t, err)
			e.Signature, err = signer.keys.Sign(t.Context(), signer.Key, digest, "test")
			must(t, err)
			body, err := wire.Marshal(e)
			must(t, err)
			return body
		}
		same := func(*wire.Erasure) {}
		for name, body := range map[string][]byte{
			"in the author's name":    request(a, c, same),
			"signed by another":       request(c, a, same),
			"of another network":      request(c, c, func(e *wire.Erasure) { e.Network[0]++ }),
			"of an unknown audience":  request(c, c, func(e *wire.Erasure) { e.Audience[0]++ }),
			"without items":           request(c, c, func(e *wire.Erasure) { e.Items = nil }),
			"that is no request":      []byte("nonsense"),
			"of another organisation": request(b, b, same),
		} {
			if _, err := c.Exchange.Send(t.Context(), b.peer(), "erase", body); err == nil {
				t.Errorf("a request %s was taken", name)
			}
		}
		// As its author, of a batch that it did not write: it is taken, finds no such
		// batch of its own, and waits for one in vain.
		if _, err := c.Exchange.Send(t.Context(), b.peer(), "erase", request(c, c, same)); err != nil {
			t.Error(err)
		}
		// c sends a's data on, and asks to erase "its" message.
		forwarded, err := c.Messages.Broadcast(t.Context(), message.Input{Header: message.Header{Topics: []string{"t"}}, Data: []message.DataInput{{ID: &msg.Data[0].ID}}})
		must(t, err)
		for _, m := range net.Members {
			m.Confirmed(forwarded.Header.ID)
		}
		done := c.erase(forwarded.Header.ID)
		for org, state := range c.answers(done.ID) {
			if state != store.RequestRefused {
				t.Errorf("%s erased data of another author: %s", org.Short(), state)
			}
		}
		for _, m := range []*Member{a, b} {
			if m.Confirmed(first.Header.ID).Erasure != nil {
				t.Errorf("%s: the author's message is erased", m.Name)
			}
		}
		// A made-up answer to a request that was never made, and one in another's name.
		answer := wire.ErasureAnswer{Version: wire.Version, Network: net.ID(), Org: c.Org, Request: wire.Hash{1}, Erased: true, At: 1}
		digest, err := answer.Digest()
		must(t, err)
		answer.Signature, err = c.keys.Sign(t.Context(), c.Key, digest, "test")
		must(t, err)
		body, err := wire.Marshal(answer)
		must(t, err)
		if _, err := c.Exchange.Send(t.Context(), b.peer(), "erased", body); err == nil {
			t.Error("an answer to no request was taken")
		}
	})
}

// Requests and answers survive what is lost on the way and crashes at each step,
// whether the step failed or was done and looks failed.
func TestErasureUnderFaults(t *testing.T) {
	kills := map[string][]string{"erase": {"", "author"}, "erased": {"", "recipient"}}
	for _, kind := range []string{"erase", "erased"} {
		for _, answer := range []bool{false, true} {
			for _, kill := range kills[kind] {
				t.Run(fmt.Sprintf("%s/answer=%v/kill=%s", kind, answer, kill), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						net := retained(t, 3, message.RequestsAccept)
						a, b := net.Members[0], net.Members[1]
						id := a.Private(secret, []*Member{b}, "t").Header.ID
						a.Confirmed(id)
						b.Confirmed(id)
						lost := make(chan struct{})
						var once sync.Once
						net.Exchange.Intercept(func(m local.Message) ([]byte, error) {
							var err error
							if m.Kind == kind && m.Answer == answer { // an answer that is lost: it was done, and looks failed
								once.Do(func() { err = errors.New("lost"); close(lost) })
							}
							return m.Body, err
						})
						done := a.erase(id)
						<-lost
						switch kill {
						case "author":
							a.Kill()
							a.Start()
						case "recipient":
							b.Kill()
							b.Start()
						}
						a.gone(id)
						b.gone(id)
						if got := a.answers(done.ID); got[b.Org] != store.RequestErased {
							t.Errorf("answers: %v", got)
						}
					})
				})
			}
		}
	}
}

// A policy erases what is old enough and fits, keeps what is held and says so, and
// goes on where it was after a restart.
func TestRetentionPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := New(t, Options{Members: 2, Retention: message.Retention{Policies: []message.PolicyInput{{Topic: "short", Age: "10m"}}}})
		net.Ready()
		a, b := net.Members[0], net.Members[1]
		var old, kept, other []wire.UUID
		for i := range 5 {
			old = append(old, a.Broadcast(secret, "short").Header.ID)
			kept = append(kept, a.Broadcast(fmt.Sprint(i), "short", "held").Header.ID)
			other = append(other, a.Broadcast(fmt.Sprint(i), "long").Header.ID)
		}
		for _, id := range append(append(append([]wire.UUID{}, old...), kept...), other...) {
			a.Confirmed(id)
			b.Confirmed(id)
		}
		hold, err := a.Messages.SetHold(t.Context(), message.HoldInput{Kind: store.HoldTopic, Value: "held", Reason: "audit"})
		must(t, err)
		sum, err := a.Messages.PreviewPolicy(t.Context(), message.PolicyInput{Topic: "short", Age: "1m"})
		must(t, err)
		if sum.Messages != 0 { // none of it is a minute old
			t.Errorf("the preview counts %+v", sum)
		}
		time.Sleep(9 * time.Minute)
		if a.Confirmed(old[0]).Erasure != nil {
			t.Fatal("it was erased too early")
		}
		if sum, err = a.Messages.PreviewPolicy(t.Context(), message.PolicyInput{Topic: "short", Age: "5m"}); err != nil || sum.Messages != 5 || sum.Held != 5 || sum.Data != 5 {
			t.Errorf("the preview counts %+v (%v)", sum, err)
		}
		a.Kill()
		a.Start()
		time.Sleep(2 * time.Minute)
		for _, id := range old {
			a.gone(id)
			b.gone(id)
		}
		for _, id := range append(append([]wire.UUID{}, kept...), other...) {
			if a.Confirmed(id).Erasure != nil {
				t.Errorf("message %s was erased", id)
			}
		}
		list, err := a.Messages.Policies(t.Context())
		must(t, err)
		if len(list) != 1 || list[0].Erased != 5 || list[0].Kept != 5 || !strings.Contains(list[0].Why, hold.ID.String()) || list[0].Age != "10m0s" {
			t.Errorf("the policies say %+v", list)
		}
		must(t, a.Messages.LiftHold(t.Context(), hold.ID, ""))
		for _, id := range kept {
			a.erased(id)
		}
		if a.Confirmed(other[0]).Erasure != nil {
			t.Error("a message on another topic was erased")
		}
	})
}

// A message that was rejected for its content is rejected, too, by who gets it
// when the content is erased: the receipts say what it was. That its author lied
// to make it so changes nothing.
func TestErasedContentThatWasRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := retained(t, 4, message.RequestsAccept)
		late := net.Members[3]
		late.Stop()
		l := lie{topics: []string{"t", "u"}, author: net.Members[0], holders: net.Members[1:3], change: func(b *wire.Batch) {
			d := wire.Definition{Kind: "datatype", Body: []byte(`{"type":"array"}`)}
			b.Definitions = append(b.Definitions, d)
			b.Data[0].Datatype = &wire.DatatypeRef{Name: "list", Version: "1", Hash: d.Hash()}
			b.Data[0].Value = []byte(secret)
		}}
		l.author.Stop()
		root := l.tell(t)
		l.author.Start()
		var ids []wire.UUID
		for _, m := range net.Members[:3] {
			m.Until("the batch is decided", func(tx *store.Tx) (bool, error) {
				messages, err := tx.MessagesOfBatch(root, l.author.Org)
				ids = nil
				for _, msg := range messages {
					ids = append(ids, msg.Header.ID)
				}
				return len(messages) == 2 && messages[0].State == message.StateRejected && messages[1].State == message.StateConfirmed, err
			})
			_, err := m.Messages.EraseMessage(t.Context(), ids[0], message.EraseInput{Reason: "tidy"})
			must(t, err)
			m.gone(ids[0])
		}
		late.Start()
		late.Until("the batch is decided there as well", func(tx *store.Tx) (bool, error) {
			messages, err := tx.MessagesOfBatch(root, l.author.Org)
			if len(messages) != 2 || messages[0].State == message.StatePending {
				return false, err
			}
			if messages[0].State != message.StateRejected || messages[1].State != message.StateConfirmed {
				t.Fatalf("the messages are %s and %s", messages[0].State, messages[1].State)
			}
			return true, err
		})
	})
}

// A blob goes with the data item that it belongs to, unless another one has the
// same; unpinned messages are erased as well, once every member has them.
func TestEraseBlobsAndUnpinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := retained(t, 3, message.RequestsAccept)
		a, b := net.Members[0], net.Members[1]
		content := bytes.Repeat([]byte(needle+"."), 1<<16) // several chunks
		first := a.Attach(content, []*Member{b}, "scans").Header.ID
		second := a.Attach(content, []*Member{b}, "scans").Header.ID
		net.agree("scans", []wire.UUID{first, second}, a, b)
		a.erase(first)
		for _, m := range []*Member{a, b} {
			m.erased(first)
			if got := m.Blob(second); !bytes.Equal(got, content) {
				t.Errorf("%s: the other message's blob has %d bytes", m.Name, len(got))
			}
		}
		a.erase(second)
		for _, m := range []*Member{a, b} {
			m.erased(second)
			m.Until("the files are gone", func(tx *store.Tx) (bool, error) {
				left, err := tx.BlobRemovals(10)
				return len(left) == 0, err
			})
			m.gone(second)
		}

		net.Exchange.Cut(a.Name, b.Name)
		chat := a.Unpinned(secret, []*Member{b}, "chat").Header.ID
		a.Confirmed(chat)
		_, err := a.Messages.EraseMessage(t.Context(), chat, message.EraseInput{Reason: "typo"})
		if errs.Code(err) != "FF90024" || !strings.Contains(err.Error(), b.Name) {
			t.Errorf("erased before the other member had it: %v", err)
		}
		net.Exchange.Heal(a.Name, b.Name)
		b.Confirmed(chat)
		a.Until("it is delivered", func(tx *store.Tx) (bool, error) {
			n, err := tx.OutboxSize()
			return n == 0, err
		})
		done := a.erase(chat)
		a.answers(done.ID)
		for _, m := range []*Member{a, b} {
			m.gone(chat)
		}
		next := a.Unpinned(`"goes on"`, []*Member{b}, "chat").Header.ID
		b.Confirmed(next)
	})
}

// What cannot be erased is refused, each with its reason.
func TestEraseRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := retained(t, 3, message.RequestsRefuse)
		a, b := net.Members[0], net.Members[1]
		_, def, err := a.Messages.DefineDatatype(t.Context(), message.DatatypeInput{Name: "claim", Version: "1", Value: []byte(`{"type":"object"}`)})
		must(t, err)
		sent := a.Broadcast(secret, "t").Header.ID
		for _, m := range net.Members {
			m.Confirmed(def.Header.ID)
			m.Confirmed(sent)
		}
		a.Ledger.Pause()
		pending := a.Broadcast(`1`, "t").Header.ID
		for name, c := range map[string]struct {
			of     *Member
			id     wire.UUID
			in     message.EraseInput
			status int
			code   string
		}{
			"a definition":       {a, def.Header.ID, message.EraseInput{Reason: "r"}, 409, "FF90022"},
			"without a verdict":  {a, pending, message.EraseInput{Reason: "r"}, 409, "FF90021"},
			"without a reason":   {a, sent, message.EraseInput{}, 400, "FF00143"},
			"too long a reason":  {a, sent, message.EraseInput{Reason: strings.Repeat("r", 600)}, 400, "FF00143"},
			"unknown":            {a, wire.UUID{9}, message.EraseInput{Reason: "r"}, 404, "FF10109"},
			"others, for theirs": {b, sent, message.EraseInput{Reason: "r", Recipients: true}, 400, "FF90026"},
		} {
			_, err := c.of.Messages.EraseMessage(t.Context(), c.id, c.in)
			if errs.Code(err) != c.code || errs.Status(err) != c.status {
				t.Errorf("%s: %v, want %s with status %d", name, err, c.code, c.status)
			}
		}
		a.Ledger.Resume()
		a.Confirmed(pending)
		if sum, err := a.Messages.EraseMessage(t.Context(), sent, message.EraseInput{Reason: "r", DryRun: true}); err != nil || sum.Data != 1 || a.Confirmed(sent).Erasure != nil {
			t.Errorf("a dry run gives %+v, %v", sum, err)
		}
		for _, state := range a.answers(a.erase(sent).ID) {
			if state != store.RequestRefused {
				t.Errorf("a member that refuses all requests answers %s", state)
			}
		}
		// Data that was never sent is simply deleted; what was sent is erased.
		may := func() error { return nil }
		d, err := a.Messages.AddData(t.Context(), message.DataInput{Value: []byte(`1`)})
		must(t, err)
		must(t, a.Messages.DeleteData(t.Context(), d.ID, "", may))
		if err := a.Messages.DeleteData(t.Context(), d.ID, "", may); errs.Status(err) != 404 {
			t.Errorf("deleted twice: %v", err)
		}
		must(t, b.Messages.DeleteData(t.Context(), b.Confirmed(sent).Data[0].ID, "", may))
		b.gone(sent)
		if _, err := b.Messages.Broadcast(t.Context(), message.Input{Data: []message.DataInput{{ID: &b.Confirmed(sent).Data[0].ID}}}); errs.Status(err) != 400 {
			t.Errorf("erased data was sent again: %v", err)
		}
	})
}
