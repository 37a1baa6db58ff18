package api_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/nodetest"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

type identityJSON struct {
	ID, DID, Type, Parent, Name, Description string
	Profile                                  map[string]any
	Messages                                 map[string]*string
	Verifiers                                []struct{ Type, Value string }
}

func TestIdentities(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	a := serve(t, net.Members[0], nil)
	key := net.Members[0].Key.String()

	t.Run("the network map", func(t *testing.T) {
		orgs := into[[]identityJSON](a.get("network/organizations?sort=name").is(200, ""))
		if len(orgs) != 2 || orgs[0].Name != "hospital" || orgs[0].Type != "org" || orgs[0].Messages["claim"] == nil || orgs[0].Messages["update"] != nil {
			t.Fatalf("organisations are %+v", orgs)
		}
		org := orgs[0]
		for _, name := range []string{"hospital", org.ID, org.DID} {
			if got := into[identityJSON](a.get("network/organizations/"+strings.ReplaceAll(name, "/", "%2F")).is(200, "")); got.ID != org.ID {
				t.Errorf("%s leads to %+v", name, got)
			}
		}
		nodes := into[[]identityJSON](a.get("network/nodes?name=hospital-node").is(200, ""))
		if len(nodes) != 1 || nodes[0].Parent != org.ID || nodes[0].Profile["id"] == nil || nodes[0].Profile["endpoint"] == nil {
			t.Fatalf("nodes are %+v", nodes)
		}
		a.get("network/organizations/"+nodes[0].ID).is(404, "FF10109") // of another type
		a.get("network/nodes/hospital-node").is(200, "")
		for _, path := range []string{"network/identities/" + org.DID + "?fetchverifiers", "identities/" + org.DID + "?fetchverifiers=true", "identities/" + org.ID + "?fetchverifiers"} {
			if got := into[identityJSON](a.get(path).is(200, "")); got.ID != org.ID || len(got.Verifiers) != 1 || got.Verifiers[0].Value != key {
				t.Errorf("%s is %+v", path, got)
			}
		}
		if list := into[[]identityJSON](a.get("identities?fetchverifiers&type=org")); len(list) != 2 || list[0].Verifiers == nil {
			t.Errorf("identities are %+v", list)
		}
		verifiers := into[[]store.Verifier](a.get("identities/"+org.ID+"/verifiers?type=!=dx_peer_id").is(200, ""))
		if len(verifiers) != 1 || verifiers[0].Type != "ethereum_address" {
			t.Fatalf("verifiers are %+v", verifiers)
		}
		a.get("verifiers/"+string(verifiers[0].Hash)).is(200, "")
		for _, path := range []string{"identities/" + org.ID + "/did", "network/diddocs/" + org.DID} {
			doc := into[struct {
				Context            []string `json:"@context"`
				ID                 string
				Authentication     []string
				VerificationMethod []map[string]string
			}](a.get(path).is(200, ""))
			if doc.ID != org.DID || len(doc.Authentication) != 1 || len(doc.VerificationMethod) != 1 || doc.VerificationMethod[0]["blockchainAcountId"] != key {
				t.Errorf("%s is %+v", path, doc)
			}
		}
	})

	t.Run("custom", func(t *testing.T) {
		id := into[identityJSON](a.post("identities?confirm=true", `{"name":"ward","key":"`+strings.ToUpper(key[2:])+`","description":"d","profile":{"id":"x","n":1}}`).is(200, ""))
		if id.DID != "did:firefly:ward" || id.Type != "custom" || id.Messages["claim"] == nil {
			t.Errorf("claimed as %+v", id)
		}
		child := into[identityJSON](a.post("identities", `{"name":"bed","parent":"ward","key":"`+key+`"}`).is(202, ""))
		if child.Parent != id.ID || child.ID == "" {
			t.Errorf("accepted as %+v", child)
		}
		// The first claim wins; the second is accepted and rejected later.
		a.post("identities?confirm", `{"name":"ward","key":"`+key+`"}`).is(500, "FF10269")
		for body, code := range map[string]string{
			`{"name":"x"}`:                                          "FF10352",
			`{"name":"x","key":"zz"}`:                               "FF10354",
			`{"name":"-","key":"` + key + `"}`:                      "FF00140",
			`{"name":"x","key":"` + key + `","parent":"nobody"}`:    "FF10277",
			`{"name":"x","key":"` + key + `","parent":"insurer-a"}`: "FF10366",
			`{"name":"x","key":"` + key + `","type":"org"}`:         "FF10358",
		} {
			a.post("identities", body).is(400, code)
		}
		updated := into[identityJSON](a.do("PATCH", "identities/"+id.ID+"?confirm", `{"description":"e","profile":{"n":2}}`).is(200, ""))
		if updated.Description != "e" || updated.Profile["n"] != 2.0 || updated.Profile["id"] != "x" || updated.Messages["update"] == nil {
			t.Errorf("updated to %+v", updated)
		}
		a.do("PATCH", "identities/"+id.ID, `{"description":"e"}`).is(400, "FF10480")
		a.do("PATCH", "identities/"+absent, `{"profile":{}}`).is(404, "FF10109")
		other := into[[]identityJSON](a.get("network/organizations?name=insurer-a"))[0]
		a.do("PATCH", "identities/"+other.ID, `{"profile":{}}`).is(400, "FF10366")
		sent := into[struct{ Header struct{ Author, Key string } }](a.post("messages/broadcast?confirm", `{"header":{"author":"ward"},"data":[{"value":1}]}`).is(200, ""))
		if sent.Header.Author != id.DID || sent.Header.Key != key {
			t.Errorf("sent by %+v", sent)
		}
		a.post("messages/broadcast", `{"header":{"author":"bedside"},"data":[{"value":1}]}`).is(400, "FF10206")
	})

	t.Run("self", func(t *testing.T) {
		if got := into[identityJSON](a.post("network/organizations/self?confirm=true", `{}`).is(200, "")); got.Name != "hospital" {
			t.Errorf("the organisation is %+v", got)
		}
		if got := into[identityJSON](a.post("network/nodes/self", `{}`).is(202, "")); got.Name != "hospital-node" {
			t.Errorf("the node is %+v", got)
		}
	})

	t.Run("status", func(t *testing.T) {
		st := into[struct {
			Namespace struct{ Name, NetworkName string }
			Node, Org struct {
				Name, ID, DID string
				Registered    bool
			}
			Plugins    map[string][]object
			Multiparty struct {
				Enabled  bool
				Contract struct {
					Active struct{ Location struct{ Address string } }
				}
			}
		}](a.get("status").is(200, ""))
		if st.Namespace.Name != "default" || !st.Org.Registered || !st.Node.Registered || st.Org.DID != "did:firefly:org/hospital" || st.Node.ID == "" ||
			!st.Multiparty.Enabled || !strings.HasPrefix(st.Multiparty.Contract.Active.Location.Address, "0x") {
			t.Errorf("status is %+v", st)
		}
		for _, kind := range []string{"blockchain", "database", "dataExchange", "events", "identity", "sharedStorage", "tokens"} {
			if st.Plugins[kind] == nil {
				t.Errorf("plugins.%s is no array", kind)
			}
		}
		m := into[struct {
			Enabled   bool
			Org, Node struct{ Status string }
			Contracts struct{ Active struct{ Status string } }
		}](a.get("status/multiparty").is(200, ""))
		if m.Org.Status != "registered" || m.Node.Status != "registered" || m.Contracts.Active.Status == "" {
			t.Errorf("registration is %+v", m)
		}
	})
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	net := nodetest.New(t, nodetest.Options{Members: 2, Admit: 1, NoCheck: true})
	net.Ready()
	var a, b *site
	verify := func(d *api.Deps) {
		d.Verify = func(_ context.Context, number uint64) (*api.Inclusion, error) {
			if number > 5 {
				return nil, nil
			}
			return &api.Inclusion{Included: true, Number: number}, nil
		}
	}
	a, b = serve(t, net.Members[0], verify), serve(t, net.Members[1], nil)

	t.Run("transfers", func(t *testing.T) {
		m := into[messageJSON](a.post("messages/private?confirm", `{"header":{"topics":["x","y"]},"group":{"members":[]},"data":[{"value":1}]}`))
		if m.Header.ID != "" {
			t.Fatalf("a group of nobody: %+v", m)
		}
		a.post("messages/broadcast?confirm", `{"header":{"topics":["x","y"]},"data":[{"value":1}]}`).is(200, "")
		all := into[[]struct {
			Number                            uint64
			Author                            struct{ ID, Name, DID string }
			Handles                           int
			Member                            bool
			TransactionHash, BlockHash, State string
		}](a.get("network/transfers?limit=1").is(200, ""))
		if len(all) != 1 || all[0].Author.Name != "hospital" || all[0].Handles != 2 || !all[0].Member || len(all[0].TransactionHash) != 64 {
			t.Fatalf("transfers are %+v", all)
		}
		number, _ := json.Marshal(all[0].Number)
		a.get("network/transfers/"+string(number)).is(200, "")
		older := into[[]struct{ Number uint64 }](a.get("network/transfers?before=" + string(number)))
		for _, o := range older {
			if o.Number >= all[0].Number {
				t.Errorf("transfer %d is not before %s", o.Number, number)
			}
		}
		a.get("network/transfers?limit=x").is(400, "FF00143")
		if got := into[api.Inclusion](a.get("network/transfers/1/verify").is(200, "")); !got.Included {
			t.Errorf("verified as %+v", got)
		}
		a.get("network/transfers/6/verify").is(404, "FF10109")
	})

	t.Run("votes", func(t *testing.T) {
		a.post("network/proposals", `{}`).is(400, "FF10292")
		a.post("network/proposals", `{"terminate":true,"policy":{"approvals":1}}`).is(400, "FF10292")
		a.post("network/proposals", `{"admit":{"org":"`+strings.Repeat("ab", 32)+`"}}`).is(400, "FF10292")
		a.post("network/proposals", `{"params":{"skipAfter":"soon"}}`).is(400, "FF00143")
		a.post("network/proposals/1/vote", `{"approve":true}`).is(404, "FF10109")
		a.post("network/proposals/x/vote", `{"approve":true}`).is(400, "FF00143")
		a.post("network/proposals/1/vote", `{}`).is(400, "FF10292")

		fresh := net.Members[2]
		a.post("network/proposals", `{"admit":{"org":"`+fresh.Org.String()+`","key":"`+fresh.Key.String()+`"}}`).is(202, "")
		b.member.Until("the proposal is there", func(*store.Tx) (bool, error) { return len(b.member.Network.Status().Proposals) == 1, nil })
		b.post("network/proposals/1/vote", `{"approve":true}`).is(202, "")
		a.member.Until("the new member is admitted", func(*store.Tx) (bool, error) { return a.member.Network.Active(fresh.Org, identity.End), nil })
		st := into[struct {
			Proposals []struct {
				ID     uint64
				Change struct{ Admit struct{ Org, Key string } }
				Votes  []struct {
					Name    string
					Approve bool
				}
				Executed bool
			}
		}](a.get("network/proposals").is(200, ""))
		if len(st.Proposals) != 1 || !st.Proposals[0].Executed || st.Proposals[0].Change.Admit.Org != fresh.Org.String() || len(st.Proposals[0].Votes) == 0 {
			t.Errorf("proposals are %+v", st)
		}
		members := into[[]struct {
			ID, Name string
			Active   bool
			Self     bool
			Node     *struct{ Certificate string }
		}](a.get("network/members").is(200, ""))
		if len(members) != 3 {
			t.Errorf("members are %+v", members)
		}
		for _, m := range members {
			if !m.Active || m.Self != (m.Name == "hospital") || (m.Node == nil) != (m.ID == fresh.Org.String()) {
				t.Errorf("member %+v", m)
			}
		}
	})

	t.Run("keys", func(t *testing.T) {
		a.post("network/keys", `{"key":"xx"}`).is(400, "FF10354")
		key := wire.Address{1, 2, 3}
		a.post("network/keys", `{"key":"`+key.String()+`"}`).is(202, "")
		valid := func() bool { _, ok := a.member.Network.OrgOf(key, identity.End); return ok }
		a.member.Until("the key is valid", func(*store.Tx) (bool, error) { return valid(), nil })
		a.do("DELETE", "network/keys/"+key.String(), "").is(202, "")
		a.member.Until("the key is revoked", func(*store.Tx) (bool, error) { return !valid(), nil })
		a.do("DELETE", "network/keys/"+key.String(), "").is(404, "FF10109")
		a.do("DELETE", "network/keys/"+a.member.Key.String(), "").is(409, "FF10355")
		a.do("DELETE", "network/keys/xx", "").is(400, "FF10354")
	})
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	net := nodetest.Network(t, 2)
	a := serve(t, net.Members[0], nil)

	sub := into[object](a.post("subscriptions", `{"name":"s","namespace":"ignored","filter":{"events":"message_.*"},"options":{"firstEvent":"oldest","mine":"kept"}}`).is(201, ""))
	filter, _ := sub["filter"].(object)
	options, _ := sub["options"].(object)
	if sub["namespace"] != "default" || sub["transport"] != "websockets" || filter["message"] == nil || filter["blockchainevent"] == nil || options["firstEvent"] != "-1" || options["mine"] != "kept" {
		t.Errorf("created as %+v", sub)
	}
	if updated, there := sub["updated"]; !there || updated != nil {
		t.Errorf("updated is %v", updated)
	}
	id, _ := sub["id"].(string)
	a.post("subscriptions", `{"name":"s"}`).is(409, "FF10193")
	a.post("subscriptions", `{"name":"-"}`).is(400, "FF00140")
	a.post("subscriptions", `{"name":"t","filter":{"events":"("}}`).is(500, "FF10171")
	a.post("subscriptions", `{"name":"t","options":{"withData":true}}`).is(400, "FF10244")
	a.post("subscriptions", `{"name":"t","transport":"system"}`).is(500, "FF10266")
	a.post("subscriptions", `{"name":"t","options":{"firstEvent":"x"}}`).is(400, "FF10191")
	replaced := into[object](a.do("PUT", "subscriptions", `{"name":"s","filter":{"events":"^message_confirmed$"}}`).is(200, ""))
	if replaced["id"] != id || replaced["updated"] == nil {
		t.Errorf("replaced by %+v", replaced)
	}
	if got := into[struct {
		Status *struct{ CurrentOffset *int64 }
	}](a.get("subscriptions/"+id+"?fetchstatus").is(200, "")); got.Status == nil {
		t.Error("no status")
	}
	a.post("messages/broadcast?confirm", `{"header":{"topics":["p","q"]},"data":[{"value":1}]}`).is(200, "")
	past := into[struct {
		Count, Total int
		Items        []struct {
			Type    string
			Message *messageJSON
		}
	}](a.get("subscriptions/"+id+"/events").is(200, ""))
	if past.Count == 0 || past.Items[0].Type != "message_confirmed" || past.Items[0].Message == nil {
		t.Errorf("the past is %+v", past)
	}
	a.get("subscriptions/"+id+"/events?startsequence=1&endsequence=2000").is(400, "FF10463")
	if moved := into[struct{ Status struct{ CurrentOffset int64 } }](a.post("subscriptions/"+id+"/rewind", `{"sequence":3}`).is(200, "")); moved.Status.CurrentOffset != 3 {
		t.Errorf("moved to %+v", moved)
	}
	a.post("subscriptions/"+id+"/rewind", `{}`).is(400, "FF10292")
	a.post("subscriptions/"+id+"/rewind", `{"sequence":1000000}`).is(400, "FF00143")
	a.post("subscriptions/"+absent+"/rewind", `{"sequence":1}`).is(404, "FF10109")

	t.Run("sockets", func(t *testing.T) {
		for _, path := range []string{"/ws?namespace=default&ephemeral&autoack", "/api/v1/namespaces/default/ws?ephemeral=true"} {
			ws, _, err := websocket.Dial(t.Context(), a.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			// A client that is connected shows up with its subscription.
			for {
				st := into[struct {
					Enabled     bool
					Connections []struct {
						RemoteAddress string
						Subscriptions []struct{ Namespace string }
					}
				}](a.get("websockets").is(200, ""))
				if len(st.Connections) == 1 && len(st.Connections[0].Subscriptions) == 1 {
					break
				}
			}
			m := into[messageJSON](a.post("messages/broadcast", `{"header":{"tag":"x"},"data":[{"value":1}]}`).is(202, ""))
			for {
				_, text, err := ws.Read(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var ev struct{ Type, ID, Reference string }
				if err := json.Unmarshal(text, &ev); err != nil {
					t.Fatal(err)
				}
				if ev.Type == "message_confirmed" && ev.Reference == m.Header.ID {
					break
				}
				if !strings.Contains(path, "autoack") {
					if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"ack","id":"`+ev.ID+`"}`)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Fatal(err)
			}
			for len(into[struct{ Connections []object }](a.get("websockets")).Connections) > 0 {
			}
		}
		if _, resp, err := websocket.Dial(t.Context(), a.url+"/api/v1/namespaces/other/ws", nil); err == nil || resp.StatusCode != 404 {
			t.Errorf("a socket of an unknown namespace: %v", err)
		}
	})

	ev := into[[]object](a.get("events?limit=1&fetchreferences&type=message_confirmed").is(200, ""))[0]
	if ev["message"] == nil {
		t.Errorf("the event is %+v", ev)
	}
	eid, _ := ev["id"].(string)
	if one := into[object](a.get("events/"+eid+"?fetchreference=true").is(200, "")); one["message"] == nil {
		t.Errorf("the event is %+v", one)
	}
	if one := into[object](a.get("events/" + eid)); one["message"] != nil {
		t.Errorf("the event has what was not asked for: %+v", one)
	}
	a.do("DELETE", "subscriptions/"+id, "").is(204, "")
	a.get("subscriptions/"+id).is(404, "FF10109")
}
