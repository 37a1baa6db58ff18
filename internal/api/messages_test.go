package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/parley-node/parley/internal/nodetest"
	"github.com/parley-node/parley/internal/store"
)

type messageJSON struct {
	Header struct {
		ID, CID, Type, TxType, Author, Key, Namespace, Group, Tag, DataHash string
		Topics                                                              []string
	}
	Hash, State, Batch, TxID, Confirmed, RejectReason string
	Data                                              []struct {
		ID, Hash, Validator string
		Value               json.RawMessage
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 3)
	a, b := serve(t, net.Members[0], nil), serve(t, net.Members[1], nil)

	t.Run("broadcast", func(t *testing.T) {
		body := `{"header":{"tag":"t1","topics":["prices","other"]},"data":[{"value":{"b": 1.50, "a":"<>"}}],"idempotencyKey":"k1"}`
		m := into[messageJSON](a.post("messages/broadcast", body).is(202, ""))
		if m.State != "ready" || m.Header.Type != "broadcast" || m.Header.TxType != "batch_pin" || m.Header.Author != "did:firefly:org/hospital" ||
			len(m.Header.Topics) != 2 || len(m.Data) != 1 || m.Data[0].Value != nil || m.Data[0].Hash == "" {
			t.Errorf("accepted as %+v", m)
		}
		if e := a.post("messages/broadcast", body).is(409, "FF10430"); !strings.Contains(string(e.body), m.Header.ID) {
			t.Errorf("a duplicate does not name the first message: %s", e.body)
		}
		net.Members[1].Confirmed(parseID(t, m.Header.ID))
		got := into[messageJSON](b.get("messages/"+m.Header.ID+"?fetchdata").is(200, ""))
		if got.State != "confirmed" || got.Batch == "" || got.TxID == "" || len(got.Data) != 1 || string(got.Data[0].Value) != `{"b":1.50,"a":"\u003c\u003e"}` {
			t.Errorf("received as %+v", got)
		}
		data := into[[]store.Data](b.get("messages/"+m.Header.ID+"/data?limit=0&subscriptionId=x").is(200, ""))
		if len(data) != 1 || data[0].ID.String() != m.Data[0].ID || data[0].Validator != "json" {
			t.Errorf("its data is %+v", data)
		}
		events := into[[]object](b.get("messages/"+m.Header.ID+"/events").is(200, ""))
		if len(events) != 2 || events[0]["type"] != "message_confirmed" { // one for each topic
			t.Errorf("its events are %+v", events)
		}
		if tx := into[object](b.get("messages/"+m.Header.ID+"/transaction").is(200, "")); tx["id"] != got.TxID || tx["type"] != "batch_pin" {
			t.Errorf("its transaction is %+v", tx)
		}
		list := into[[]messageJSON](b.get("messages?tag=t1&fetchdata=true").is(200, ""))
		if len(list) != 1 || len(list[0].Data) != 1 || list[0].Data[0].Value == nil {
			t.Errorf("listed as %+v", list)
		}
		if carriers := into[[]messageJSON](b.get("data/"+m.Data[0].ID+"/messages").is(200, "")); len(carriers) != 1 {
			t.Errorf("its data is carried by %+v", carriers)
		}
		if value := b.get("data/"+m.Data[0].ID+"/value").is(200, ""); string(value.body) != `{"b":1.50,"a":"\u003c\u003e"}` || value.header.Get("Content-Type") != "application/json" {
			t.Errorf("its value is %s", value.body)
		}
		st := into[struct {
			Status  string
			Details []struct{ Type, Status string }
		}](b.get("transactions/"+got.TxID+"/status").is(200, ""))
		if st.Status != "Succeeded" || len(st.Details) < 2 {
			t.Errorf("the transaction's status is %+v", st)
		}
		if chain := into[[]object](b.get("transactions/"+got.TxID+"/blockchainevents?limit=0&count").is(200, "")); len(chain) != 1 {
			t.Errorf("the transaction's ledger events are %+v", chain)
		}
		b.get("transactions/"+got.TxID+"/operations").is(200, "")
		b.get("batches/"+got.Batch).is(200, "")
	})

	t.Run("confirm", func(t *testing.T) {
		for _, flag := range []string{"confirm=true", "confirm", "confirm=TRUE"} {
			m := into[messageJSON](a.post("messages/broadcast?"+flag, `{"data":[{"value":1}]}`).is(200, ""))
			if m.State != "confirmed" || m.Confirmed == "" || m.Batch == "" || m.TxID == "" || m.Header.Topics[0] != "default" {
				t.Errorf("confirmed as %+v", m)
			}
		}
		a.post("messages/broadcast?confirm=false", `{"data":[{"value":1}]}`).is(202, "")
		a.do("POST", "messages/broadcast?confirm", `{"data":[{"value":1}]}`, "Request-Timeout", "1ms").is(408, "")
	})

	t.Run("private", func(t *testing.T) {
		m := into[messageJSON](a.post("messages/private?confirm", `{"group":{"name":"g","members":[{"identity":"insurer-a"}]},"data":[{"value":"s"}]}`).is(200, ""))
		if m.Header.Group == "" || m.Header.Type != "private" {
			t.Fatalf("sent as %+v", m)
		}
		net.Members[1].Confirmed(parseID(t, m.Header.ID))
		g := into[struct {
			Name, Hash string
			Members    []struct{ Identity, Node string }
		}](b.get("groups/"+m.Header.Group).is(200, ""))
		if g.Name != "g" || len(g.Members) != 2 || !strings.HasPrefix(g.Members[0].Identity, "did:firefly:org/") || g.Members[0].Node == "" {
			t.Errorf("the group is %+v", g)
		}
		again := into[messageJSON](b.post("messages/private?confirm", `{"header":{"group":"`+m.Header.Group+`"},"data":[{"value":"t"}]}`).is(200, ""))
		if again.Header.Group != m.Header.Group {
			t.Errorf("the answer is in group %s", again.Header.Group)
		}
		a.get("contexts/"+m.Header.Group+"/default/blockers").is(200, "")
		a.post("messages/private", `{"data":[{"value":1}]}`).is(400, "FF00115")
		a.post("messages/private", `{"header":{"group":"`+strings.Repeat("ab", 32)+`"},"data":[{"value":1}]}`).is(404, "FF10226")
		a.post("messages/private", `{"group":{"members":[{"identity":"nobody"}]},"data":[{"value":1}]}`).is(400, "FF10223")
		serve(t, net.Members[2], nil).get("messages/"+m.Header.ID).is(404, "FF10109")
	})

	t.Run("request and reply", func(t *testing.T) {
		group := `"group":{"name":"r","members":[{"identity":"insurer-a"}]}`
		a.post("messages/requestreply", `{"header":{"tag":"q"},"data":[{"value":1}]}`).is(400, "FF10271")
		a.post("messages/requestreply", `{`+group+`,"data":[{"value":1}]}`).is(400, "FF10261")
		a.post("messages/requestreply", `{"header":{"tag":"q","cid":"`+absent+`"},`+group+`,"data":[{"value":1}]}`).is(400, "FF10262")
		from, err := net.Members[1].Events.Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		replied := make(chan struct{})
		go func() {
			defer close(replied)
			ev, err := net.Members[1].Events.Await(t.Context(), from, func(e *store.Event) bool { return e.Type == "message_confirmed" })
			if err != nil {
				t.Error(err)
				return
			}
			q, err := b.client.Get(b.url + v1 + "messages/" + ev.Reference.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer q.Body.Close()
			var m messageJSON
			if err := json.NewDecoder(q.Body).Decode(&m); err != nil {
				t.Error(err)
				return
			}
			answer := fmt.Sprintf(`{"header":{"cid":%q,"group":%q},"data":[{"value":{"answer":42}}]}`, m.Header.ID, m.Header.Group)
			resp, err := b.client.Post(b.url+v1+"messages/private", jsonCT, strings.NewReader(answer))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		}()
		m := into[messageJSON](a.post("messages/requestreply", `{"header":{"tag":"q"},`+group+`,"data":[{"value":1}]}`).is(200, ""))
		<-replied
		if len(m.Data) != 1 || string(m.Data[0].Value) != `{"answer":42}` || m.Header.CID == "" {
			t.Errorf("the reply is %+v", m)
		}
	})

	t.Run("refusals", func(t *testing.T) {
		for body, code := range map[string]string{
			`{"data":[{}]}`:                                                              "FF10205",
			`{"data":[{"id":"` + absent + `"}]}`:                                         "FF10204",
			`{"header":{"author":"nobody"},"data":[{"value":1}]}`:                        "FF10206",
			`{"header":{"topics":["-"]},"data":[{"value":1}]}`:                           "FF00140",
			`{"header":{"topics":["a","a"]},"data":[{"value":1}]}`:                       "FF10228",
			`{"header":{"tag":"a b"},"data":[{"value":1}]}`:                              "FF00140",
			`{"header":{"key":"0x12"},"data":[{"value":1}]}`:                             "FF10354",
			`{"data":[{"value":1,"datatype":{"name":"none","version":"1"}}]}`:            "FF10195",
			`{"data":[{"value":1}],"idempotencyKey":"` + strings.Repeat("k", 257) + `"}`: "FF00127",
			`{"data":[{"value":"` + strings.Repeat("x", 900<<10) + `"}]}`:                "FF10328",
		} {
			a.post("messages/broadcast", body).is(400, code)
		}
	})
}

func TestData(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	a, b := serve(t, net.Members[0], nil), serve(t, net.Members[1], nil)

	t.Run("values", func(t *testing.T) {
		d := into[store.Data](a.post("data", `{"value":{"k" : 1e2}}`).is(201, ""))
		if sum := sha256.Sum256([]byte(`{"k":1e2}`)); string(d.Value) != `{"k":1e2}` || string(d.Hash) != hex.EncodeToString(sum[:]) {
			t.Errorf("stored as %s with hash %s", d.Value, d.Hash)
		}
		a.post("data", `{}`).is(400, "FF10205")
		a.get("data/"+d.ID.String()).is(200, "")
		a.get("data/"+d.ID.String()+"/blob").is(404, "FF00164")
		if list := into[[]store.Data](a.get("data?blob.hash=!?")); len(list) != 0 {
			t.Errorf("%d items have a blob", len(list))
		}
		a.do("DELETE", "data/"+d.ID.String(), "").is(204, "")
		a.get("data/"+d.ID.String()).is(404, "FF10109")
	})

	t.Run("datatypes", func(t *testing.T) {
		schema := `{"type":"object","required":["amount"]}`
		a.post("datatypes", `{"name":"claim","version":"1","value":{"type":7}}`).is(400, "FF10196")
		d := into[store.Datatype](a.post("datatypes?confirm=true", `{"name":"claim","version":"1","value":`+schema+`}`).is(200, ""))
		if d.Message == nil || string(d.Value) != schema {
			t.Errorf("defined as %+v", d)
		}
		a.get("datatypes/claim/1").is(200, "")
		a.post("datatypes", `{"name":"claim","version":"1","value":`+schema+`}`).is(409, "")
		a.post("data", `{"datatype":{"name":"claim","version":"1"},"value":{"amount":1}}`).is(201, "")
		a.post("data", `{"datatype":{"name":"claim","version":"1"},"value":{}}`).is(400, "FF10198")
		a.post("data", `{"datatype":{"name":"claim","version":"2"},"value":{}}`).is(400, "FF10195")
		a.post("datatypes", `{"name":"claim","version":"2","value":`+schema+`}`).is(202, "")
	})

	t.Run("blobs", func(t *testing.T) {
		content := bytes.Repeat([]byte("0123456789abcdef"), 100_000) // more than one chunk
		sum := sha256.Sum256(content)
		body, kind := form(t, content, "report.pdf", "autometa", "true", "metadata", `{"path":"in/box"}`)
		d := into[store.Data](a.do("POST", "data", body, "Content-Type", kind).is(201, ""))
		if d.Blob == nil || d.Blob.Size != int64(len(content)) || string(d.Blob.Hash) != hex.EncodeToString(sum[:]) || d.Blob.Name != "in/box/report.pdf" || d.Blob.Path != "/in/box" {
			t.Fatalf("stored as %+v", d.Blob)
		}
		var meta map[string]string
		if err := json.Unmarshal(d.Value, &meta); err != nil || meta["filename"] != "report.pdf" || meta["mimetype"] != "application/octet-stream" {
			t.Errorf("its value is %s", d.Value)
		}
		if got := string(a.get("datasubpaths/in").is(200, "").body); got != `["/in/box"]`+"\n" {
			t.Errorf("below in: %s", got)
		}
		m := into[messageJSON](a.post("messages/private?confirm", `{"group":{"members":[{"identity":"insurer-a"}]},"data":[{"id":"`+d.ID.String()+`"}]}`).is(200, ""))
		net.Members[1].Confirmed(parseID(t, m.Header.ID))
		got := b.get("data/"+d.ID.String()+"/blob").is(200, "")
		if !bytes.Equal(got.body, content) || got.header.Get("x-ff-blob-hash-sha256") != string(d.Blob.Hash) || got.header.Get("x-ff-blob-size") != fmt.Sprint(len(content)) ||
			got.header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("downloaded %d bytes, %v", len(got.body), got.header)
		}
		unsent := into[store.Data](b.do("POST", "data", body, "Content-Type", kind).is(201, ""))
		b.do("DELETE", "data/"+unsent.ID.String(), "").is(204, "")
		b.get("data/"+unsent.ID.String()+"/blob").is(404, "FF00164")
		b.get("data/"+d.ID.String()+"/blob").is(200, "") // it has the same bytes
	})

	t.Run("forms", func(t *testing.T) {
		body, kind := form(t, []byte("x"), "x", "metadata", "plain words")
		if d := into[store.Data](a.do("POST", "data", body, "Content-Type", kind).is(201, "")); string(d.Value) != `"plain words"` {
			t.Errorf("metadata that is no JSON became %s", d.Value)
		}
		// A shared blob stays as long as one item needs it.
		other := into[store.Data](a.do("POST", "data", body, "Content-Type", kind).is(201, ""))
		first := into[store.Data](a.do("POST", "data", body, "Content-Type", kind).is(201, ""))
		a.do("DELETE", "data/"+first.ID.String(), "").is(204, "")
		a.get("data/"+other.ID.String()+"/blob").is(200, "")

		boundary := "multipart/form-data; boundary=B"
		file := "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\nabc\r\n"
		field := "--B\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n1\r\n"
		for _, c := range []struct {
			body, kind string
			status     int
			code       string
		}{
			{file + "--B--\r\n", boundary, 201, ""},
			{field + "--B--\r\n", boundary, 400, "FF00163"},                      // no file
			{file + field + "--B--\r\n", boundary, 400, "FF00163"},               // a field after the file
			{file, boundary, 400, "FF90004"},                                     // cut off
			{"nothing", boundary, 400, ""},                                       //
			{file, "multipart/form-data", 400, "FF90004"},                        // no boundary
			{strings.Repeat(field, 101) + file + "--B--\r\n", boundary, 201, ""}, // the same field again
		} {
			a.do("POST", "data", c.body, "Content-Type", c.kind).is(c.status, c.code)
		}
	})
}

// form makes a multipart body: fields in pairs, then the file.
func form(t *testing.T, content []byte, filename string, fields ...string) (body, kind string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		if err := w.WriteField(fields[i], fields[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile("file", filename)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

func parseID(t *testing.T, text string) (id store.UUID) {
	t.Helper()
	if err := id.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return id
}
