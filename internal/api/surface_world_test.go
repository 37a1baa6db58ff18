package api_test

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/textproto"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/nodetest"
	"github.com/parley-node/parley/internal/store"
)

// world is a network of two members in which everything has happened that the
// operations of the surface can show, at least once with each optional field
// and once without.
type world struct {
	t          *testing.T
	net        *nodetest.Net
	alice, bob *site
	fresh      *site // of a member whose registration is not confirmed

	org, node, bobsOrg       object // identities
	ward, bed                object // custom identities of alice's, the one with all fields and the one with few
	datatype                 object
	value, typed, blob, bare object // data: in messages; of the datatype; a blob with a name, one without
	broadcast, private       object // messages, confirmed
	rejected                 object
	group                    string
	subscription             object
}

func newWorld(t *testing.T) *world {
	t.Helper()
	net := nodetest.Network(t, 2)
	w := &world{t: t, net: net, alice: serve(t, net.Members[0], nil), bob: serve(t, net.Members[1], nil)}
	w.fresh = serve(t, registering(t), nil)
	a := w.alice
	w.org = one(a.get("network/organizations?name=hospital"))
	w.bobsOrg = one(a.get("network/organizations?name=insurer-a"))
	w.node = one(a.get("network/nodes?name=hospital-node"))
	key := net.Members[0].Key.String()

	w.ward = into[object](a.post("identities?confirm", `{"name":"ward","key":"`+key+`","description":"the ward","profile":{"beds":12}}`).is(200, ""))
	w.bed = into[object](a.post("identities?confirm", `{"name":"bed","key":"`+key+`","parent":"ward"}`).is(200, ""))
	w.ward = into[object](a.do("PATCH", "identities/"+text(w.ward, "id")+"?confirm", `{"description":"the west ward","profile":{"beds":14}}`).is(200, ""))
	a.post("identities?confirm", `{"name":"ward","key":"`+key+`"}`).is(500, "FF10269")
	w.rejected = one(a.get("messages?state=rejected"))

	w.datatype = into[object](a.post("datatypes?confirm", `{"name":"claim","version":"1.0","value":{"type":"object","required":["amount"]}}`).is(200, ""))
	a.post("datatypes?confirm", `{"name":"claim","version":"2.0","value":{"type":"object"}}`).is(200, "")
	w.typed = into[object](a.post("data", `{"datatype":{"name":"claim","version":"1.0"},"value":{"amount":7}}`).is(201, ""))
	w.value = into[object](a.post("data", `{"validator":"none","value":"free"}`).is(201, ""))
	w.blob = w.upload(a, "scan.pdf", []byte("all bytes"), "autometa", "true", "metadata", `{"path":"in/2026","pages":3}`)
	w.bare = w.upload(a, "x", []byte("other bytes"))

	first := into[object](a.post("messages/broadcast?confirm", `{"data":[{"value":1}]}`).is(200, ""))
	w.broadcast = into[object](a.post("messages/broadcast?confirm", fmt.Sprintf(
		`{"idempotencyKey":"once","header":{"tag":"news","topics":["prices","rates"],"cid":%q},"data":[{"id":%q},{"id":%q}]}`,
		text(first, "header", "id"), text(w.typed, "id"), text(w.blob, "id"))).is(200, ""))
	w.private = into[object](a.post("messages/private?confirm", fmt.Sprintf(
		`{"header":{"topics":["claims"]},"group":{"name":"pair","members":[{"identity":"insurer-a"}]},"data":[{"id":%q}]}`, text(w.value, "id"))).is(200, ""))
	w.group = text(w.private, "header", "group")
	a.post("messages/private?confirm", `{"header":{"txtype":"unpinned"},"group":{"members":[{"identity":"insurer-a"}]},"data":[{"value":{"n":2}}]}`).is(200, "")

	a.post("data/"+text(w.typed, "id")+"/value/publish", `{"idempotencyKey":"published once"}`).is(200, "")
	a.post("data/"+text(w.blob, "id")+"/blob/publish", `{}`).is(200, "")
	w.cancelled()
	retried := into[[]object](a.get("operations?type=dataexchange_send_batch&status=Succeeded"))
	a.post("operations/"+text(retried[0], "id")+"/retry", "{}").is(202, "")
	// What alice has no part in: she sees the pin alone.
	w.bob.post("messages/private?confirm", `{"group":{"members":[{"identity":"insurer-a"}]},"data":[{"value":"to myself"}]}`).is(200, "")

	a.post("subscriptions", `{"name":"all","options":{"firstEvent":"oldest","readAhead":5}}`).is(201, "")
	w.subscription = into[object](a.do("PUT", "subscriptions", `{"name":"all","filter":{"events":"message_.*","message":{"tag":"news"}},"options":{"readAhead":6}}`).is(200, ""))
	a.post("subscriptions", `{"name":"picky","filter":{"events":"message_.*","topic":".*","message":{"tag":"n","group":"g","author":"did"},
		"transaction":{"type":"x"},"blockchainevent":{"name":"x","listener":"y"}},"options":{"firstEvent":"newest"}}`).is(201, "")
	a.post("subscriptions", `{"name":"old","filter":{"tag":"t","topics":".","group":"g","author":"a"}}`).is(201, "")
	a.post("subscriptions", `{"name":"hook","transport":"webhooks","options":{"url":"http://127.0.0.1:9/nobody"},"filter":{"events":"^none$"}}`).is(201, "")
	net.Quiet()
	return w
}

// registering is a member of a network of its own that has claimed its name, and
// whose ledger makes no blocks any more.
func registering(t *testing.T) *nodetest.Member {
	t.Helper()
	net := nodetest.New(t, nodetest.Options{Members: 1, NoCheck: true, Block: time.Hour})
	m := net.Members[0]
	m.Until("its node is on the ledger", func(tx *store.Tx) (bool, error) {
		calls, err := tx.Submissions(store.SubmissionSigned)
		if len(calls) > 0 && m.Network.Node(m.Org) == nil {
			net.Chain.Mine()
		}
		return m.Network.Node(m.Org) != nil, err
	})
	m.Until("its name is claimed", func(tx *store.Tx) (bool, error) {
		sent, _, _, err := tx.OwnDefinitions(m.Org, identity.TagClaim)
		return sent > 0, err
	})
	return m
}

// one is the only object of a list.
func one(a *answer) object {
	a.t.Helper()
	list := into[[]object](a.is(200, ""))
	if len(list) != 1 {
		a.t.Fatalf("%s: %d entries, want one", a.what, len(list))
	}
	return list[0]
}

// multipartForm makes the body of an upload; fields are pairs of name and value.
func multipartForm(t *testing.T, filename string, content []byte, fields ...string) (body, contentType string) {
	t.Helper()
	var buf bytes.Buffer
	m := multipart.NewWriter(&buf)
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i+1 < len(fields); i += 2 {
		check(m.WriteField(fields[i], fields[i+1]))
	}
	h := textproto.MIMEHeader{}
	h.Set("Content-Disposition", `form-data; name="file"; filename="`+filename+`"`)
	h.Set("Content-Type", "application/pdf")
	part, err := m.CreatePart(h)
	check(err)
	_, err = part.Write(content)
	check(err)
	check(m.Close())
	return buf.String(), m.FormDataContentType()
}

func (w *world) upload(s *site, filename string, content []byte, fields ...string) object {
	w.t.Helper()
	body, kind := multipartForm(w.t, filename, content, fields...)
	return into[object](s.do("POST", "data", body, "Content-Type", kind).is(201, ""))
}

// stuck sends a private message whose batch does not reach bob, and returns its
// batch's id; the caller ends that with pass.
func (w *world) stuck() string {
	w.t.Helper()
	w.net.Exchange.Drop("payload")
	id := w.toGroup("stuck")
	batch := func() string { return text(into[object](w.alice.get("messages/"+id)), "batch") }
	w.alice.member.Until("the message is in a batch", func(*store.Tx) (bool, error) { return batch() != "", nil })
	return batch()
}

func (w *world) toGroup(value string) (id string) {
	w.t.Helper()
	return text(into[object](w.alice.post("messages/private", `{"header":{"group":"`+w.group+`"},"data":[{"value":"`+value+`"}]}`).is(202, "")), "header", "id")
}

// waiting sends messages until one has to wait for a batch, since too many are
// under way, and returns its id; the caller ends that with pass.
func (w *world) waiting() string {
	w.t.Helper()
	w.net.Quiet()
	for range 4 {
		w.stuck()
	}
	return w.toGroup("waiting")
}

// pass lets batches get to bob again, at once.
func (w *world) pass() {
	w.t.Helper()
	w.net.Exchange.Pass("payload")
	for _, op := range into[[]object](w.alice.get("operations?type=dataexchange_send_batch&status=Pending")) {
		w.alice.post("operations/"+text(op, "id")+"/retry", "{}").is(202, "")
	}
}

// cancelled leaves a cancelled batch behind.
func (w *world) cancelled() {
	w.t.Helper()
	w.alice.post("batches/"+w.stuck()+"/cancel", "{}").is(204, "")
	w.pass()
}
