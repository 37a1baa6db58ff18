package api_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// cases drive the operations, by method and path.
var cases = map[string]func(*caller){
	// The node and its namespace.
	"GET namespaces": func(c *caller) {
		for _, query := range []string{"", "?limit=0&count&skip=5&sort=x", "?includeinitializing=true"} {
			list, _ := c.ok("namespaces"+query, "").([]any)
			if len(list) != 1 || text(list[0], "name") != "default" {
				c.Errorf("the namespaces are %v", list)
			}
		}
	},
	"GET namespaces/{ns}": func(c *caller) {
		if ns := c.object("namespaces/default", ""); text(ns, "networkName") != "default" || text(ns, "description") != "test" {
			c.Errorf("the namespace is %v", ns)
		}
		c.fails("namespaces/nosuch", "", 404, "FF10436")
	},
	"GET websockets": func(c *caller) {
		for _, filter := range []string{"", "&filter.events=x&filter.message.tag=t"} {
			ws, _, err := websocket.Dial(c.Context(), c.site.url+"/ws?namespace=default&ephemeral&autoack"+filter, nil)
			if err != nil {
				c.Fatal(err)
			}
			defer ws.CloseNow()
		}
		durable, _, err := websocket.Dial(c.Context(), c.site.url+"/ws?namespace=default&name=all", nil)
		if err != nil {
			c.Fatal(err)
		}
		defer durable.CloseNow()
		for started := 0; started < 3; {
			started = 0
			list, _ := at(c.object("websockets", ""), "connections").([]any)
			for _, e := range list {
				subs, _ := at(e, "subscriptions").([]any)
				started += len(subs)
			}
		}
	},
	"GET status": func(c *caller) {
		st := c.object("status", "")
		if text(st, "org", "id") != text(c.w.org, "id") || text(st, "node", "id") != text(c.w.node, "id") || at(st, "multiparty", "enabled") != true {
			c.Errorf("the status is %v", st)
		}
		c.site = c.w.fresh
		if st := c.object("status", ""); at(st, "org", "registered") != false || at(st, "node", "registered") != false {
			c.Errorf("before it is registered the status is %v", st)
		}
		c.ok("status", "", "Request-Timeout", "5")
		c.call("status", "", "Request-Timeout", "1ns").is(408, "FF00166")
	},
	"GET status/multiparty": func(c *caller) {
		if st := c.object("status/multiparty", ""); text(st, "org", "status") != "registered" || text(st, "contracts", "active", "status") != "synced" {
			c.Errorf("the status is %v", st)
		}
		c.site = c.w.fresh
		if st := c.object("status/multiparty", ""); text(st, "org", "status") != "registering" || text(st, "node", "status") != "unregistered" || text(st, "org", "pendingRegistrationMessageId") == "" {
			c.Errorf("before it is registered the status is %v", st)
		}
	},
	"GET status/batchmanager": func(c *caller) {
		batch := c.w.stuck()
		list, _ := at(c.object("status/batchmanager", ""), "processors").([]any)
		if !slices.ContainsFunc(list, func(p any) bool { return text(p, "status", "flushing") == batch }) {
			c.Errorf("batch %s is not under way in %v", batch, list)
		}
		c.w.alice.post("batches/"+batch+"/cancel", "{}").is(204, "")
		c.w.pass()
		names := map[string]bool{}
		for _, p := range list {
			names[text(p, "dispatcher")] = true
		}
		if !names["pinned_broadcast"] || !names["pinned_private"] || !names["unpinned_private"] {
			c.Errorf("the lanes are %v", list)
		}
	},

	// Messages.
	"POST messages/broadcast": func(c *caller) {
		m := c.object("messages/broadcast", `{"header":{"topics":["a"],"type":"private","txtype":"batch_pin"},"group":{"members":[]},"data":[{"value":{"b":1,"a":1.0}}]}`)
		if text(m, "state") != "ready" || text(m, "header", "type") != "broadcast" || text(m, "header", "group") != "" {
			c.Errorf("accepted as %v", m)
		}
		m = c.object("messages/broadcast?confirm=true", `{"data":[{"value":null}]}`)
		if text(m, "state") != "confirmed" || text(m, "batch") == "" || text(m, "txid") == "" {
			c.Errorf("confirmed as %v", m)
		}
		c.equal("the topics", at(m, "header", "topics"), `["default"]`)
		key := fmt.Sprint("broadcast ", c.round)
		c.object("messages/broadcast?confirm", `{"idempotencyKey":"`+key+`","header":{"author":"hospital"},"data":[{"value":1}]}`)
		c.fails("messages/broadcast", `{"idempotencyKey":"`+key+`","data":[{"value":1}]}`, 409, "FF10430")
		c.fails("messages/broadcast", `{"header":{"topics":["a","a"]},"data":[{"value":1}]}`, 400, "FF10228")
		c.fails("messages/broadcast", `{"header":{"tag":"no tag"},"data":[{"value":1}]}`, 400, "FF00140")
		c.fails("messages/broadcast", `{"data":[{}]}`, 400, "FF10205")
		c.fails("messages/broadcast", `{"data":[{"id":"`+absent+`"}]}`, 400, "FF10204")
		c.fails("messages/broadcast", `{"data":[{"value":1,"datatype":{"name":"nosuch","version":"1"}}]}`, 400, "FF10195")
		c.fails("messages/broadcast", `{"data":[{"value":{},"datatype":{"name":"claim","version":"1.0"}}]}`, 400, "FF10198")
		c.fails("messages/broadcast", `{"data":[{"value":"`+strings.Repeat("x", 801<<10)+`"}]}`, 400, "FF10328")
		c.call("messages/broadcast", `{"data":[{"value":1}]}`, "Content-Type", "").is(415, "FF00162")
	},
	"POST messages/private": func(c *caller) {
		m := c.object("messages/private", `{"header":{"group":"`+c.w.group+`"},"data":[{"value":1}]}`)
		if text(m, "header", "type") != "private" || text(m, "header", "group") != c.w.group {
			c.Errorf("accepted as %v", m)
		}
		for _, member := range []string{"insurer-a", text(c.w.bobsOrg, "did"), text(c.w.bobsOrg, "id")} {
			m = c.object("messages/private?confirm", `{"header":{"tag":"t"},"group":{"name":"pair","members":[{"identity":"`+member+`"}]},"data":[{"value":1}]}`)
			if text(m, "header", "group") != c.w.group || text(m, "state") != "confirmed" {
				c.Errorf("with %s the message is %v", member, m)
			}
		}
		m = c.object("messages/private?confirm", `{"header":{"group":"`+c.w.group+`","txtype":"none"},"data":[{"value":1}]}`)
		if text(m, "header", "txtype") != "unpinned" || text(m, "state") != "confirmed" {
			c.Errorf("unpinned it is %v", m)
		}
		c.fails("messages/private", `{"header":{"group":"`+strings.Repeat("ab", 32)+`"},"data":[{"value":1}]}`, 404, "FF10226")
		c.fails("messages/private", `{"group":{"members":[]},"data":[{"value":1}]}`, 400, "FF00115")
		c.fails("messages/private", `{"data":[{"value":1}]}`, 400, "FF00115")
	},
	"POST messages/requestreply": func(c *caller) {
		asked := make(chan *answer, 1)
		tag := fmt.Sprint("ask-", c.round)
		go func() {
			asked <- c.call("messages/requestreply?confirm=nonsense", `{"header":{"tag":"`+tag+`"},"group":{"members":[{"identity":"insurer-a"}]},"data":[{"value":"how much?"}]}`)
		}()
		var request object
		c.w.bob.member.Until("the request is there", func(*store.Tx) (bool, error) {
			list := into[[]object](c.w.bob.get("messages?state=confirmed&tag=" + tag))
			if len(list) == 1 {
				request = list[0]
			}
			return len(list) == 1, nil
		})
		c.w.bob.post("messages/private", fmt.Sprintf(`{"header":{"cid":%q,"group":%q},"data":[{"value":"this much"}]}`, text(request, "header", "id"), text(request, "header", "group"))).is(202, "")
		a := (<-asked).is(200, "")
		c.succeeded = true
		reply := decode(c.T, a)
		c.shapes.check(c.T, a.what, c.op.Responses["200"], reply)
		c.equal("the answer", at(at(reply, "data").([]any)[0], "value"), `"this much"`)
		c.fails("messages/requestreply", `{"header":{"tag":"x"}}`, 400, "FF10271")
		c.fails("messages/requestreply", `{"header":{"group":"`+c.w.group+`"}}`, 400, "FF10261")
		c.fails("messages/requestreply", `{"header":{"group":"`+c.w.group+`","tag":"x","cid":"`+absent+`"}}`, 400, "FF10262")
		c.call("messages/requestreply", `{"header":{"tag":"x","group":"`+c.w.group+`"},"data":[{"value":1}]}`, "Request-Timeout", "100ms").is(408, "")
	},
	"GET messages": func(c *caller) {
		c.some("messages")
		for _, flag := range []string{"fetchdata", "fetchdata=true"} {
			list, _ := decode(c.T, c.call("messages?tag=news&"+flag, "").is(200, "")).([]any)
			if len(list) != 1 || at(at(list[0], "data").([]any)[0], "value", "amount") != json.Number("7") {
				c.Errorf("with %s: %v", flag, list)
			}
		}
	},
	"GET messages/{msgid}": func(c *caller) {
		path := "messages/" + text(c.w.broadcast, "header", "id")
		c.ok(path, "")
		c.ok("messages/"+text(c.w.private, "header", "id")+"?fetchdata", "")
		full := c.object(path+"?fetchdata=true", "")
		c.equal("the value", at(at(full, "data").([]any)[0], "value"), `{"amount":7}`)
		if text(c.object("messages/"+text(c.w.rejected, "header", "id"), ""), "rejectReason") == "" {
			c.Error("a rejection without a reason")
		}
		bare := into[object](c.w.alice.post("messages/broadcast?confirm", `{"header":{"tag":"empty"}}`).is(200, ""))
		c.ok("messages/"+text(bare, "header", "id")+"?fetchdata", "")
		c.ok("messages/"+c.w.waiting()+"?fetchdata", "")
		c.w.pass()
		c.fails("messages/"+absent, "", 404, "FF10109")
		c.fails("messages/x", "", 400, "FF00138")
	},
	"GET messages/{msgid}/data": func(c *caller) {
		list, _ := c.ok("messages/"+text(c.w.broadcast, "header", "id")+"/data?count&limit=1", "").([]any)
		if len(list) != 2 || text(list[1], "blob", "name") != "in/2026/scan.pdf" {
			c.Errorf("the data are %v", list)
		}
		c.fails("messages/"+absent+"/data", "", 404, "FF10109")
	},
	"GET messages/{msgid}/events": func(c *caller) {
		list := c.some("messages/" + text(c.w.broadcast, "header", "id") + "/events")
		if len(list) != 2 || text(list[0], "type") != "message_confirmed" || text(list[0], "correlator") != text(c.w.broadcast, "header", "cid") {
			c.Errorf("the events are %v", list)
		}
		c.fails("messages/"+absent+"/events", "", 404, "FF10109")
	},
	"GET messages/{msgid}/transaction": func(c *caller) {
		if tx := c.object("messages/"+text(c.w.broadcast, "header", "id")+"/transaction", ""); text(tx, "type") != "batch_pin" || text(tx, "id") != text(c.w.broadcast, "txid") {
			c.Errorf("the transaction is %v", tx)
		}
		c.fails("messages/"+absent+"/transaction", "", 404, "FF10109")
	},

	// Data, blobs, datatypes.
	"POST data": func(c *caller) {
		d := c.object("data", `{"value":{ "z": 1.00, "a": "<&>" },"unknown":1}`)
		canonical := `{"z":1.00,"a":"\u003c\u0026\u003e"}`
		sum := sha256.Sum256([]byte(canonical))
		if text(d, "hash") != hex.EncodeToString(sum[:]) || text(d, "validator") != "json" {
			c.Errorf("stored as %v", d)
		}
		raw := c.w.alice.get("data/"+text(d, "id")+"/value").is(200, "")
		if string(raw.body) != canonical {
			c.Errorf("the value comes back as %s", raw.body)
		}
		for _, f := range []struct {
			filename   string
			fields     []string
			name, path string
		}{
			{"a.txt", []string{"autometa", "true"}, `"a.txt"`, `"/"`},
			{"a.txt", []string{"autometa", "no"}, `""`, `null`},
			{"a.txt", []string{"metadata", `{"name":"x/y/z"}`}, `"x/y/z"`, `"/x/y"`},
			{"a.txt", []string{"metadata", `{"path":"p","filename":"f"}`}, `"p/f"`, `"/p"`},
			{"a.txt", []string{"metadata", `just text`}, `""`, `null`},
		} {
			body, kind := multipartForm(c.T, f.filename, []byte("content"), f.fields...)
			d := c.object("data", body, "Content-Type", kind)
			c.equal("the name", at(d, "blob", "name"), f.name)
			c.equal("the path", at(d, "blob", "path"), f.path)
		}
		body, kind := multipartForm(c.T, "b", []byte("content"), "metadata", `{"amount":1}`, "datatype.name", "claim", "datatype.version", "1.0", "validator", "json")
		if d := c.object("data", body, "Content-Type", kind); text(d, "datatype", "name") != "claim" {
			c.Errorf("stored as %v", d)
		}
		c.fails("data", `{"value":{},"datatype":{"name":"claim","version":"1.0"}}`, 400, "FF10198")
		c.fails("data", `{"value":{},"datatype":{"name":"claim","version":"9"}}`, 400, "FF10195")
		c.fails("data", `{}`, 400, "FF10205")
		c.call("data", "", "Content-Type", "multipart/form-data").is(400, "")
		body, kind = multipartForm(c.T, "b", []byte("content"))
		late := strings.Replace(body, "\r\n--", "\r\n--"+strings.TrimPrefix(kind, "multipart/form-data; boundary=")+"\r\nContent-Disposition: form-data; name=\"late\"\r\n\r\nx\r\n--", 1)
		c.call("data", late, "Content-Type", kind).is(400, "FF00163")
	},
	"GET data": func(c *caller) {
		c.some("data")
		list, _ := c.ok("data?blob.hash=!?", "").([]any)
		for _, d := range list {
			if text(d, "blob", "hash") == "" {
				c.Errorf("%v has no blob", d)
			}
		}
		if len(list) < 2 {
			c.Errorf("data with a blob are %v", list)
		}
	},
	"GET data/{dataid}": func(c *caller) {
		d := c.object("data/"+text(c.w.typed, "id"), "")
		hash := sha256.Sum256([]byte(`{"amount":7}`))
		if text(d, "public") != wire.ContentID(hash) {
			c.Errorf("the published value is %v", d)
		}
		if text(c.object("data/"+text(c.w.blob, "id"), ""), "blob", "public") == "" {
			c.Error("the published blob has no reference")
		}
		c.ok("data/"+text(c.w.bare, "id"), "")
		c.fails("data/"+absent, "", 404, "FF10109")
	},
	"GET data/{dataid}/value": func(c *caller) {
		a, _ := c.ok("data/"+text(c.w.typed, "id")+"/value", "").(*answer)
		if string(a.body) != `{"amount":7}` || a.header.Get("Content-Type") != jsonCT {
			c.Errorf("the value is %s of type %s", a.body, a.header.Get("Content-Type"))
		}
		c.fails("data/"+absent+"/value", "", 404, "FF10109")
	},
	"GET data/{dataid}/blob": func(c *caller) {
		a, _ := c.ok("data/"+text(c.w.blob, "id")+"/blob", "").(*answer)
		hash := sha256.Sum256(a.body)
		if string(a.body) != "all bytes" || a.header.Get("Content-Type") != "application/octet-stream" ||
			a.header.Get("x-ff-blob-hash-sha256") != hex.EncodeToString(hash[:]) || a.header.Get("x-ff-blob-size") != "9" {
			c.Errorf("the blob is %q with %v", a.body, a.header)
		}
		c.fails("data/"+text(c.w.typed, "id")+"/blob", "", 404, "FF00164")
		c.fails("data/"+absent+"/blob", "", 404, "FF00164")
	},
	"GET data/{dataid}/messages": func(c *caller) {
		if list := c.some("data/" + text(c.w.typed, "id") + "/messages"); len(list) != 1 || text(list[0], "header", "id") != text(c.w.broadcast, "header", "id") {
			c.Errorf("the messages are %v", list)
		}
		c.fails("data/"+absent+"/messages", "", 404, "FF10109")
	},
	"DELETE data/{dataid}": func(c *caller) {
		d := c.w.upload(c.w.alice, "gone", []byte("to be deleted"))
		c.w.alice.post("data/"+text(d, "id")+"/blob/publish", "{}").is(200, "")
		public := text(into[object](c.w.alice.get("data/"+text(d, "id"))), "blob", "public")
		c.w.alice.get("published/"+public).is(200, "")
		c.ok("data/"+text(d, "id"), "")
		c.w.alice.get("data/"+text(d, "id")).is(404, "FF10109")
		c.w.alice.get("published/"+public).is(404, "FF10109")
		c.fails("data/"+text(d, "id"), "", 404, "FF10143")
	},
	"GET datasubpaths/{parent}": func(c *caller) {
		for parent, want := range map[string]string{"in": `["/in/2026"]`, "/in": `["/in/2026"]`, "nosuch/place": `[]`} {
			if strings.HasPrefix(parent, "/") {
				parent = url.PathEscape(parent)
			}
			c.equal("the folders below "+parent, c.ok("datasubpaths/"+parent, ""), want)
		}
	},
	"POST data/{dataid}/value/publish": func(c *caller) {
		d := into[object](c.w.alice.post("data", fmt.Sprintf(`{"value":"published in round %d"}`, c.round)).is(201, ""))
		path := "data/" + text(d, "id") + "/value/publish"
		key := fmt.Sprintf(`{"idempotencyKey":"value %d"}`, c.round)
		public := text(c.object(path, key), "public")
		if public != wire.ContentID(hashOf(c, text(d, "hash"))) {
			c.Errorf("published as %q", public)
		}
		c.fails(path, key, 409, "FF10431")
		c.ok(path, `{}`)
		for _, s := range []*site{c.w.alice, c.w.bob} {
			if a := s.get("published/"+public).is(200, ""); string(a.body) != fmt.Sprintf(`"published in round %d"`, c.round) {
				c.Errorf("published is %s", a.body)
			}
		}
		tx := one(c.w.alice.get("transactions?idempotencykey=value+" + fmt.Sprint(c.round)))
		op := one(c.w.alice.get("operations?tx=" + text(tx, "id")))
		if text(tx, "type") != "data_publish" || text(op, "type") != "sharedstorage_upload_value" || text(op, "status") != "Succeeded" || text(op, "output", "payloadRef") != public {
			c.Errorf("the transaction is %v, its operation %v", tx, op)
		}
		c.fails("data/"+text(c.w.bare, "id")+"/value/publish", `{}`, 400, "FF10199")
		c.fails("data/"+absent+"/value/publish", `{}`, 404, "FF10109")
		c.fails(path, `{"idempotencyKey":"`+strings.Repeat("x", 257)+`"}`, 400, "FF00127")
	},
	"POST data/{dataid}/blob/publish": func(c *caller) {
		content := fmt.Sprintf("a blob of round %d", c.round)
		d := c.w.upload(c.w.alice, "f", []byte(content))
		path := "data/" + text(d, "id") + "/blob/publish"
		key := fmt.Sprintf(`{"idempotencyKey":"blob %d"}`, c.round)
		public := text(c.object(path, key), "blob", "public")
		if public != wire.ContentID(hashOf(c, text(d, "blob", "hash"))) {
			c.Errorf("published as %q", public)
		}
		c.fails(path, key, 409, "FF10431")
		if a := c.w.bob.get("published/"+public).is(200, ""); string(a.body) != content {
			c.Errorf("published is %s", a.body)
		}
		c.fails("data/"+text(c.w.typed, "id")+"/blob/publish", `{}`, 404, "FF10241")
	},
	"POST datatypes": func(c *caller) {
		name := fmt.Sprint("made-", c.round)
		if d := c.object("datatypes", `{"name":"`+name+`","version":"1","value":{}}`); text(d, "name") != name || text(d, "message") == "" {
			c.Errorf("accepted as %v", d)
		}
		if d := c.object("datatypes?confirm=true", `{"name":"`+name+`","version":"2","validator":"json","value":{}}`); text(d, "version") != "2" {
			c.Errorf("confirmed as %v", d)
		}
		c.fails("datatypes", `{"name":"`+name+`","version":"2","value":{}}`, 409, "")
		c.fails("datatypes", `{"name":"`+name+`","version":"3","value":{"type":"nosuch"}}`, 400, "FF10196")
		c.fails("datatypes", `{"name":"-","version":"3","value":{}}`, 400, "FF00140")
	},
	"GET datatypes": func(c *caller) { c.some("datatypes") },
	"GET datatypes/{name}/{version}": func(c *caller) {
		if d := c.object("datatypes/claim/1.0", ""); text(d, "id") != text(c.w.datatype, "id") {
			c.Errorf("the datatype is %v", d)
		}
		c.fails("datatypes/claim/9", "", 404, "FF00164")
	},

	// What was sent and what came of it.
	"GET groups": func(c *caller) { c.some("groups") },
	"GET groups/{hash}": func(c *caller) {
		g := c.object("groups/"+c.w.group, "")
		if members, _ := at(g, "members").([]any); text(g, "name") != "pair" || len(members) != 2 {
			c.Errorf("the group is %v", g)
		}
		c.fails("groups/"+strings.Repeat("0f", 32), "", 404, "FF10109")
	},
	"GET batches": func(c *caller) { c.some("batches") },
	"GET batches/{batchid}": func(c *caller) {
		if b := c.object("batches/"+text(c.w.private, "batch"), ""); text(b, "group") != c.w.group || text(b, "confirmed") == "" || at(b, "manifest", "messages") == nil {
			c.Errorf("the batch is %v", b)
		}
		c.ok("batches/"+text(c.w.broadcast, "batch"), "")
		c.fails("batches/"+absent, "", 404, "FF10109")
	},
	"POST batches/{batchid}/cancel": func(c *caller) {
		path := "batches/" + c.w.stuck() + "/cancel"
		defer c.w.pass()
		c.ok(path, "{}")
		c.fails(path, "{}", 400, "FF10468")
		c.fails("batches/"+text(c.w.broadcast, "batch")+"/cancel", "{}", 400, "FF10466")
		c.call("batches/"+absent+"/cancel", "", "Content-Type", "").is(415, "FF00162")
	},
	"GET pins": func(c *caller) { c.some("pins") },
	"POST pins/rewind": func(c *caller) {
		batch := text(c.w.broadcast, "batch")
		r := c.object("pins/rewind", `{"batch":"`+batch+`"}`)
		sequence, _ := at(r, "sequence").(json.Number)
		if again := c.object("pins/rewind", `{"sequence":`+sequence.String()+`}`); text(again, "batch") != batch || at(again, "sequence") != sequence {
			c.Errorf("rewound to %v and %v", r, again)
		}
		c.fails("pins/rewind", `{"sequence":987654321}`, 404, "FF10109")
		c.fails("pins/rewind", `{"batch":"`+absent+`"}`, 404, "FF10109")
		c.fails("pins/rewind", `{}`, 400, "FF10292")
	},
	"GET nextpins": func(c *caller) {
		c.equal("the next pins", c.ok("nextpins?nonce=1&context="+strings.Repeat("0f", 32)+"&identity=x", ""), `[]`)
		if items, count, total := c.counted("nextpins?count"); items == nil || count != 0 || total != 0 {
			c.Errorf("counted: %d of %d", count, total)
		}
		c.fails("nextpins?nonce=x", "", 400, "FF00143")
	},
	"GET transactions": func(c *caller) { c.some("transactions") },
	"GET transactions/{txnid}": func(c *caller) {
		tx := c.object("transactions/"+text(c.w.broadcast, "txid"), "")
		if ids, _ := at(tx, "blockchainIds").([]any); len(ids) != 1 {
			c.Errorf("the transaction is %v", tx)
		}
		c.fails("transactions/"+absent, "", 404, "FF10109")
	},
	"GET transactions/{txnid}/status": func(c *caller) {
		if st := c.object("transactions/"+text(c.w.broadcast, "txid")+"/status", ""); text(st, "status") != "Succeeded" {
			c.Errorf("the status is %v", st)
		}
		cancelled := one(c.w.alice.get("messages?state=cancelled&limit=1"))
		if st := c.object("transactions/"+text(cancelled, "txid")+"/status", ""); text(st, "status") != "Failed" {
			c.Errorf("the status is %v", st)
		}
		c.fails("transactions/"+absent+"/status", "", 404, "FF10109")
	},
	"GET transactions/{txnid}/operations": func(c *caller) {
		list, _ := c.ok("transactions/"+text(c.w.private, "txid")+"/operations?count&limit=1", "").([]any)
		if len(list) < 2 { // the pin, the sending, and what was retried
			c.Errorf("the operations are %v", list)
		}
		c.fails("transactions/"+absent+"/operations", "", 404, "FF10109")
	},
	"GET transactions/{txnid}/blockchainevents": func(c *caller) {
		list, _ := c.ok("transactions/"+text(c.w.broadcast, "txid")+"/blockchainevents?count", "").([]any)
		if len(list) != 1 || text(list[0], "name") != "BatchPin" {
			c.Errorf("the events are %v", list)
		}
		c.fails("transactions/"+absent+"/blockchainevents", "", 404, "FF10109")
	},
	"GET operations": func(c *caller) {
		c.some("operations")
		for _, filter := range []string{"error=!", "type=^blockchain&type=^dataexchange&type=!x", "status=Failed"} {
			list, _ := c.ok("operations?"+filter, "").([]any)
			if len(list) == 0 || filter[0] != 't' && text(list[0], "error") == "" {
				c.Errorf("operations with %s are %v", filter, list)
			}
		}
	},
	"GET operations/{opid}": func(c *caller) {
		for typ, field := range map[string]string{"blockchain_pin_batch": "submission", "dataexchange_send_batch": "waiting"} {
			op := one(c.w.alice.get("operations?type=" + typ + "&tx=" + text(c.w.broadcast, "txid")))
			path := "operations/" + text(op, "id")
			if c.object(path, "")["detail"] != nil {
				c.Error("a detail that was not asked for")
			}
			if detail := at(c.object(path+"?fetchstatus", ""), "detail"); at(detail, field) == nil || text(detail, "batch") != "done" {
				c.Errorf("the detail of %s is %v", typ, detail)
			}
		}
		for _, filter := range []string{"type=sharedstorage_upload_value", "error=!", "retry=!?"} {
			some := into[[]object](c.w.alice.get("operations?" + filter))
			c.ok("operations/"+text(some[0], "id")+"?fetchstatus=true", "")
		}
		c.fails("operations/"+absent, "", 404, "FF10109")
	},
	"POST operations/{opid}/retry": func(c *caller) {
		send := one(c.w.alice.get("operations?retry=?&type=dataexchange_send_batch&tx=" + text(c.w.broadcast, "txid")))
		fresh := c.object("operations/"+text(send, "id")+"/retry", `{}`)
		old := into[object](c.w.alice.get("operations/" + text(send, "id")))
		if text(fresh, "type") != text(send, "type") || text(fresh, "id") == text(send, "id") || text(old, "retry") != text(fresh, "id") {
			c.Errorf("%v was retried as %v", old, fresh)
		}
		c.w.alice.member.Until("it has succeeded", func(*store.Tx) (bool, error) {
			return text(into[object](c.w.alice.get("operations/"+text(fresh, "id"))), "status") == "Succeeded", nil
		})
		pin := one(c.w.alice.get("operations?type=blockchain_pin_batch&tx=" + text(c.w.broadcast, "txid")))
		c.fails("operations/"+text(pin, "id")+"/retry", `{}`, 409, "FF90008")
		published := into[[]object](c.w.alice.get("operations?type=sharedstorage_upload_value"))
		c.fails("operations/"+text(published[0], "id")+"/retry", `{}`, 400, "FF90008")
		c.fails("operations/"+absent+"/retry", `{}`, 404, "FF10109")
	},
	"GET blockchainevents": func(c *caller) { c.some("blockchainevents") },
	"GET blockchainevents/{id}": func(c *caller) {
		ev := one(c.w.alice.get("blockchainevents?tx.id=" + text(c.w.broadcast, "txid")))
		if got := c.object("blockchainevents/"+text(ev, "id"), ""); text(got, "info", "transactionHash") != text(got, "tx", "blockchainId") {
			c.Errorf("the event is %v", got)
		}
		c.fails("blockchainevents/"+absent, "", 404, "FF10109")
	},
	"GET charts/histogram/{collection}": func(c *caller) {
		now := time.Now().Unix()
		for _, collection := range []string{"events", "messages", "operations", "transactions", "blockchainevents", "tokentransfers"} {
			list, _ := c.ok(fmt.Sprintf("charts/histogram/%s?startTime=%d&endTime=%d&buckets=7", collection, now-3600, now+3600), "").([]any)
			if collection == "tokentransfers" {
				continue
			}
			total := 0
			for _, b := range list {
				n, err := json.Number(text(b, "count")).Int64()
				if err != nil {
					c.Error(err)
				}
				total += int(n)
			}
			if len(list) < 7 || len(list) > 8 || total == 0 {
				c.Errorf("%s: %d buckets with %d rows", collection, len(list), total)
			}
		}
		c.fails("charts/histogram/nosuch?startTime=1&endTime=2&buckets=1", "", 400, "FF10301")
		c.fails("charts/histogram/events?startTime=1&endTime=2&buckets=101", "", 400, "FF10298")
		c.fails("charts/histogram/events?startTime=2&endTime=1&buckets=1", "", 400, "FF10300")
	},

	// Events and subscriptions.
	"GET events": func(c *caller) {
		c.some("events")
		for _, flag := range []string{"fetchreferences", "fetchreference=true"} {
			for typ, field := range map[string]string{
				"message_confirmed": "message", "message_rejected": "message", "transaction_submitted": "transaction", "datatype_confirmed": "datatype",
				"identity_confirmed": "identity", "identity_updated": "identity", "blockchain_event_received": "blockchainEvent",
			} {
				list, _ := c.ok("events?limit=5&type="+typ+"&"+flag, "").([]any)
				if len(list) == 0 || at(list[0], field) == nil {
					c.Errorf("%s events with references are %v", typ, list)
				}
			}
		}
	},
	"GET events/{eid}": func(c *caller) {
		ev := into[[]object](c.w.alice.get("events?limit=1&type=message_confirmed"))[0]
		path := "events/" + text(ev, "id")
		if c.object(path, "")["message"] != nil {
			c.Error("a reference that was not asked for")
		}
		if text(c.object(path+"?fetchreference", ""), "message", "header", "id") != text(ev, "reference") {
			c.Error("the event's message is not there")
		}
		c.fails("events/"+absent+"?fetchreference", "", 404, "FF10109")
	},
	"POST subscriptions": func(c *caller) {
		name := fmt.Sprint("made-", c.round)
		sub := c.object("subscriptions", `{"name":"`+name+`","namespace":"ignored","transport":"websockets","options":{"firstEvent":"newest","mine":{"kept":true}}}`)
		c.equal("the filter", at(sub, "filter"), `{"blockchainevent":{},"message":{},"transaction":{}}`)
		c.equal("the unknown option", at(sub, "options", "mine"), `{"kept":true}`)
		c.equal("the time of change", at(sub, "updated"), `null`)
		if first := text(sub, "options", "firstEvent"); first == "" || first == "newest" || text(sub, "namespace") != "default" {
			c.Errorf("created as %v", sub)
		}
		c.fails("subscriptions", `{"name":"`+name+`"}`, 409, "FF10193")
		c.fails("subscriptions", `{"name":"`+absent+`"}`, 400, "FF00141")
		c.fails("subscriptions", `{"name":"x","transport":"nosuch"}`, 500, "FF10172")
		c.fails("subscriptions", `{"name":"x","transport":"system"}`, 500, "FF10266")
		c.fails("subscriptions", `{"name":"x","options":{"batch":true,"withData":true},"transport":"webhooks"}`, 400, "")
		c.fails("subscriptions", `{"name":"x","options":{"firstEvent":"-2"}}`, 400, "FF10191")
		c.fails("subscriptions", `{"name":"x","options":{"readAhead":65536}}`, 400, "")
		c.fails("subscriptions", `{"name":"x","transport":"webhooks"}`, 400, "FF10242")
		c.fails("subscriptions", `{"name":"x","transport":"webhooks","options":{"url":"http://127.0.0.1","tlsConfigName":"nosuch"}}`, 400, "FF10455")
		c.w.alice.do("DELETE", "subscriptions/"+text(sub, "id"), "").is(204, "")
	},
	"PUT subscriptions": func(c *caller) {
		name := fmt.Sprint("put-", c.round)
		made := c.object("subscriptions", `{"name":"`+name+`","options":{"firstEvent":"oldest"}}`)
		if same := c.object("subscriptions", `{"name":"`+name+`","options":{"firstEvent":"oldest"}}`); text(same, "id") != text(made, "id") || same["updated"] != nil {
			c.Errorf("the same definition makes %v", same)
		}
		changed := c.object("subscriptions", `{"name":"`+name+`","options":{"firstEvent":"newest"},"filter":{"events":"x"}}`)
		if text(changed, "id") != text(made, "id") || text(changed, "updated") == "" || text(changed, "options", "firstEvent") != "-1" {
			c.Errorf("changed to %v", changed)
		}
		c.w.alice.do("DELETE", "subscriptions/"+text(made, "id"), "").is(204, "")
	},
	"GET subscriptions": func(c *caller) { c.some("subscriptions") },
	"GET subscriptions/{subid}": func(c *caller) {
		path := "subscriptions/" + text(c.w.subscription, "id")
		if c.object(path, "")["status"] != nil {
			c.Error("a status that was not asked for")
		}
		if at(c.object(path+"?fetchstatus", ""), "status", "currentOffset") == nil {
			c.Error("no offset")
		}
		c.fails("subscriptions/"+absent, "", 404, "FF10109")
	},
	"DELETE subscriptions/{subid}": func(c *caller) {
		sub := into[object](c.w.alice.post("subscriptions", `{"name":"gone"}`).is(201, ""))
		c.ok("subscriptions/"+text(sub, "id"), "")
		c.fails("subscriptions/"+text(sub, "id"), "", 404, "FF10109")
	},
	"GET subscriptions/{subid}/events": func(c *caller) {
		path := "subscriptions/" + text(c.w.subscription, "id") + "/events"
		page := c.object(path, "")
		items, _ := page["items"].([]any)
		if len(items) != 2 || text(items[0], "message", "header", "id") != text(c.w.broadcast, "header", "id") {
			c.Errorf("the past is %v", page)
		}
		first, last := at(items[0], "sequence"), at(items[1], "sequence")
		if page := c.object(fmt.Sprintf("%s?startsequence=%v&endsequence=%v", path, first, last), ""); at(page, "count") != json.Number("1") {
			c.Errorf("from %v to before %v there is %v", first, last, page)
		}
		if page := c.object(path+"?limit=1", ""); !same(at(page, "items").([]any), items[1:]) {
			c.Errorf("the last one is %v", page)
		}
		c.fails(path+"?startsequence=1&endsequence=2000", "", 400, "FF10463")
		c.fails("subscriptions/"+absent+"/events", "", 404, "FF10109")
	},

	// Who is who.
	"GET identities":         func(c *caller) { identityList(c, "identities") },
	"GET network/identities": func(c *caller) { identityList(c, "network/identities") },
	"GET identities/{iid}": func(c *caller) {
		if id := c.object("identities/"+text(c.w.ward, "id"), ""); text(id, "description") != "the west ward" || text(id, "messages", "update") == "" {
			c.Errorf("the identity is %v", id)
		}
		if id := c.object("identities/"+text(c.w.bed, "id")+"?fetchverifiers", ""); len(at(id, "verifiers").([]any)) != 1 || text(id, "parent") != text(c.w.ward, "id") {
			c.Errorf("the identity is %v", id)
		}
		c.fails("identities/"+absent, "", 404, "FF10109")
		c.fails("identities/x", "", 400, "FF00138")
	},
	"GET identities/{did}":         func(c *caller) { identityByDID(c, "identities/") },
	"GET network/identities/{did}": func(c *caller) { identityByDID(c, "network/identities/") },
	"GET identities/{iid}/did": func(c *caller) {
		checkDocument(c, c.object("identities/"+text(c.w.org, "id")+"/did", ""), c.w.org)
		checkDocument(c, c.object("identities/"+text(c.w.node, "id")+"/did", ""), c.w.node)
		c.fails("identities/"+absent+"/did", "", 404, "FF10109")
	},
	"GET network/diddocs/{did}": func(c *caller) {
		for _, id := range []object{c.w.org, c.w.node, c.w.ward} {
			checkDocument(c, c.object("network/diddocs/"+text(id, "did"), ""), id)
		}
		c.fails("network/diddocs/did:firefly:nobody", "", 500, "FF10277")
	},
	"GET identities/{iid}/verifiers": func(c *caller) {
		list := c.some("identities/" + text(c.w.org, "id") + "/verifiers")
		if text(list[0], "value") != c.w.alice.member.Key.String() {
			c.Errorf("the verifiers are %v", list)
		}
		if list, _ := c.ok("identities/"+text(c.w.node, "id")+"/verifiers?type=!=dx_peer_id", "").([]any); len(list) != 0 {
			c.Errorf("without its certificate the node has %v", list)
		}
		c.fails("identities/"+absent+"/verifiers", "", 404, "FF10109")
	},
	"POST identities": func(c *caller) {
		key := c.w.alice.member.Key.String()
		name := fmt.Sprint("desk-", c.round)
		if id := c.object("identities", `{"name":"`+name+`","key":"`+key+`","type":"custom"}`); text(id, "did") != "did:firefly:"+name || text(id, "id") == "" {
			c.Errorf("accepted as %v", id)
		}
		id := c.object("identities?confirm=true", `{"name":"`+name+`-2","key":"`+key+`","parent":"`+text(c.w.org, "did")+`","profile":{"a":1}}`)
		if text(id, "parent") != text(c.w.org, "id") || text(id, "messages", "claim") == "" {
			c.Errorf("confirmed as %v", id)
		}
		c.fails("identities", `{"name":"x"}`, 400, "FF10352")
		c.fails("identities?confirm", `{"name":"`+name+`-2","key":"`+key+`"}`, 500, "FF10269")
	},
	"PATCH identities/{iid}": func(c *caller) {
		path := "identities/" + text(c.w.bed, "id")
		if id := c.object(path, `{"profile":{"round":`+fmt.Sprint(c.round)+`}}`); text(id, "description") != "" {
			c.Errorf("accepted as %v", id)
		}
		id := c.object(path+"?confirm=true", `{"description":"a bed","profile":{"n":1}}`)
		c.equal("the profile", at(id, "profile"), `{"n":1}`)
		c.fails(path, `{"description":"x"}`, 400, "FF10480")
		c.fails("identities/"+absent, `{"profile":{}}`, 404, "FF10109")
	},
	"GET verifiers": func(c *caller) { c.some("verifiers") },
	"GET verifiers/{hash}": func(c *caller) {
		v := one(c.w.alice.get("verifiers?identity=" + text(c.w.org, "id")))
		if got := c.object("verifiers/"+text(v, "hash"), ""); text(got, "value") != text(v, "value") {
			c.Errorf("the verifier is %v", got)
		}
		c.fails("verifiers/"+strings.Repeat("0f", 32), "", 404, "FF10109")
	},
	"POST verifiers/resolve": func(c *caller) {
		c.equal("the verifier", c.ok("verifiers/resolve", `{"value":"`+strings.Repeat("AB", 20)+`"}`), `{"type":"ethereum_address","value":"0x`+strings.Repeat("ab", 20)+`"}`)
		c.ok("verifiers/resolve", `{"type":"ETHEREUM_ADDRESS","value":"0x`+strings.Repeat("ab", 20)+`"}`)
		c.fails("verifiers/resolve", `{"type":"fabric_msp_id","value":"x"}`, 400, "FF10428")
	},
	"GET network/organizations": func(c *caller) {
		for _, o := range c.some("network/organizations") {
			if text(o, "type") != "org" {
				c.Errorf("%v is no organisation", o)
			}
		}
	},
	"GET network/organizations/{nameOrId}": func(c *caller) {
		for _, name := range []string{"hospital", text(c.w.org, "id"), url.PathEscape(text(c.w.org, "did"))} {
			if o := c.object("network/organizations/"+name, ""); text(o, "id") != text(c.w.org, "id") {
				c.Errorf("%s is %v", name, o)
			}
		}
		c.fails("network/organizations/nobody", "", 404, "FF10109")
		c.fails("network/organizations/"+text(c.w.node, "id"), "", 404, "FF10109")
		c.fails("network/organizations/-", "", 400, "FF00140")
	},
	"POST network/organizations": func(c *caller) {
		for _, query := range []string{"", "?confirm=true"} {
			if o := c.ok("network/organizations"+query, `{"name":"hospital","description":"it is me"}`); text(o, "id") != text(c.w.org, "id") {
				c.Errorf("registered as %v", o)
			}
		}
		c.fails("network/organizations", `{"name":"another"}`, 400, "FF10358")
	},
	"POST network/organizations/self": func(c *caller) {
		for _, query := range []string{"", "?confirm=true"} {
			if o := c.object("network/organizations/self"+query, `{}`); text(o, "id") != text(c.w.org, "id") {
				c.Errorf("registered as %v", o)
			}
		}
	},
	"GET network/nodes": func(c *caller) { c.some("network/nodes") },
	"GET network/nodes/{nameOrId}": func(c *caller) {
		for _, name := range []string{"hospital-node", text(c.w.node, "id")} {
			if n := c.object("network/nodes/"+name, ""); text(n, "profile", "id") == "" || text(n, "profile", "endpoint") == "" {
				c.Errorf("%s is %v", name, n)
			}
		}
		c.fails("network/nodes/"+text(c.w.org, "id"), "", 404, "FF10109")
	},
	"POST network/nodes/self": func(c *caller) {
		for _, query := range []string{"", "?confirm"} {
			if n := c.object("network/nodes/self"+query, `{}`); text(n, "id") != text(c.w.node, "id") {
				c.Errorf("registered as %v", n)
			}
		}
	},
	// The first form proposes the end, the second one, at the other member, votes
	// for it.
	"POST network/action": func(c *caller) {
		c.fails("network/action", `{"type":"nosuch"}`, 400, "FF10397")
		c.site = []*site{c.w.alice, c.w.bob}[c.round]
		c.equal("the echo", c.ok("network/action", `{"type":"Terminate"}`), `{"type":"terminate"}`)
		for _, s := range []*site{c.w.alice, c.w.bob} {
			s.member.Until("the vote has its effect", func(*store.Tx) (bool, error) {
				st := s.member.Network.Status()
				return len(st.Proposals) == 1 && st.Terminated == (c.round == 1), nil
			})
		}
		c.fails("network/action", `{"type":"terminate"}`, 409, "FF10397")
	},
}

func hashOf(c *caller, text string) wire.Hash {
	c.Helper()
	hash, err := wire.ParseHash(text)
	if err != nil {
		c.Fatal(err)
	}
	return hash
}

func identityList(c *caller, path string) {
	c.Helper()
	c.some(path)
	full, _ := c.ok(path+"?fetchverifiers", "").([]any)
	for _, id := range full {
		if list, _ := at(id, "verifiers").([]any); len(list) == 0 {
			c.Errorf("%s has no verifier", text(id, "did"))
		}
	}
}

func identityByDID(c *caller, path string) {
	c.Helper()
	for _, id := range []object{c.w.org, c.w.node, c.w.ward} {
		got := c.object(path+text(id, "did")+"?fetchverifiers=true", "")
		if list, _ := at(got, "verifiers").([]any); text(got, "id") != text(id, "id") || len(list) != 1 {
			c.Errorf("%s is %v", text(id, "did"), got)
		}
	}
	c.fails(path+"did:firefly:org/nobody", "", 500, "FF10277")
	c.fails(path+"did:firefly:org/HOSPITAL", "", 500, "FF10277")
}

func checkDocument(c *caller, doc, id object) {
	c.Helper()
	methods, _ := at(doc, "verificationMethod").([]any)
	authentication, _ := at(doc, "authentication").([]any)
	if text(doc, "id") != text(id, "did") || len(methods) != 1 || len(authentication) != 1 {
		c.Fatalf("the document of %s is %v", text(id, "did"), doc)
	}
	if authentication[0] != "#"+text(methods[0], "id") || text(methods[0], "controller") != text(id, "did") {
		c.Errorf("the document of %s is %v", text(id, "did"), doc)
	}
}
