package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/nodetest"
	"github.com/parley-node/parley/internal/store"
)

// A webhook answers requests of the other member, is refused for a while, and
// what died meanwhile is replayed.
func TestWebhookReplaysAndReplies(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	asker := serve(t, net.Members[0], nil)
	b := serve(t, net.Members[1], func(d *api.Deps) { d.Deliveries = net.Members[1].Deliveries })

	var down atomic.Bool
	bodies := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		bodies <- string(text)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"price":7}`)
	}))
	t.Cleanup(hook.Close)

	b.post("subscriptions", `{"name":"answers","transport":"webhooks","filter":{"events":"message_confirmed","message":{"tag":"ask"}},
		"options":{"url":"`+hook.URL+`","reply":true,"replytag":"told"}}`).is(201, "")
	reply := into[struct {
		Header struct{ Tag, CID string }
		Data   []struct {
			Value struct {
				Status int
				Body   struct{ Price int }
			}
		}
	}](asker.post("messages/requestreply", `{"header":{"tag":"ask"},"group":{"members":[{"identity":"`+net.Members[1].Name+`"}]},"data":[{"value":{"item":"bolt"}}]}`).is(200, ""))
	if got := <-bodies; got != `{"item":"bolt"}` {
		t.Errorf("the webhook got %s", got)
	}
	if reply.Header.Tag != "told" || reply.Header.CID == "" || len(reply.Data) != 1 || reply.Data[0].Value.Status != 200 || reply.Data[0].Value.Body.Price != 7 {
		t.Errorf("the reply is %+v", reply)
	}

	down.Store(true)
	sub := into[object](b.post("subscriptions", `{"name":"assured","transport":"webhooks","filter":{"events":"message_confirmed","message":{"tag":"order"}},
		"options":{"url":"`+hook.URL+`","retry":{"count":1,"initialDelay":"1ms"}}}`).is(201, ""))
	path := "subscriptions/" + sub["id"].(string) + "/deliveries"
	asker.post("messages/broadcast?confirm", `{"header":{"tag":"order"},"data":[{"value":"two"}]}`).is(200, "")
	var dead []store.Delivery
	for len(dead) == 0 {
		dead = into[[]store.Delivery](b.get(path+"?state=dead").is(200, ""))
	}
	if d := dead[0]; d.Attempts != 2 || d.Status != 503 || d.Events != 1 {
		t.Errorf("dead %+v", d)
	}
	down.Store(false)
	again := into[store.Delivery](b.post(path+"/"+dead[0].ID.String()+"/replay", "{}").is(200, ""))
	if got := <-bodies; got != `"two"` || again.State != store.DeliveryDelivered || again.Attempts != 3 {
		t.Errorf("replayed %s as %+v", got, again)
	}
	b.post(path+"/"+sub["id"].(string)+"/replay", "{}").is(404, "FF10109")
	b.get("subscriptions/"+dead[0].ID.String()+"/deliveries").is(404, "FF10109")
	b.post("subscriptions", `{"name":"inside","transport":"webhooks","options":{"url":"http://169.254.169.254/latest"}}`).is(400, "FF00143")
}

func TestEventStreams(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	a := serve(t, net.Members[0], nil)
	sub := into[object](a.post("subscriptions", `{"name":"app","transport":"sse","filter":{"events":"message_confirmed"}}`).is(201, ""))
	resp, err := http.Get(a.url + v1 + "subscriptions/app/sse")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	a.post("messages/broadcast", `{"header":{"tag":"x"},"data":[{"value":1}]}`).is(202, "")
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e struct {
			Type     string
			Sequence int64
			Message  *messageJSON
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil || e.Type != "message_confirmed" || e.Message == nil {
			t.Fatalf("%s: %v", text, err)
		}
		a.post("subscriptions/"+sub["id"].(string)+"/ack", fmt.Sprintf(`{"sequence":%d}`, e.Sequence)).is(204, "")
		break
	}
	a.post("subscriptions/"+sub["id"].(string)+"/ack", `{"sequence":99999}`).is(400, "FF00143")
	a.get("subscriptions/none/sse").is(404, "FF10109")
	a.get("events/sse?filter.events=(").is(500, "FF10171")
	other, err := http.Get(a.url + "/api/v1/namespaces/default/events/sse")
	if err != nil || other.StatusCode != 200 || other.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%v, %v", other, err)
	}
	other.Body.Close()
}
