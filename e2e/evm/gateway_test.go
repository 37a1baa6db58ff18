package evm

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/contract"
	"github.com/parley-node/parley/internal/contract/contracttest"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/nonce"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
	"github.com/parley-node/parley/wire"
)

// TestGateway calls a contract on a chain with fees whose blocks become final
// later: values both ways, refusals with their reasons, value, and events.
func TestGateway(t *testing.T) {
	a := startAnvil(t)
	p := a.party(1)
	ctx := t.Context()
	db := storetest.New(t)
	client, err := ethereum.New(ethereum.Config{URLs: []string{"http://" + a.rpc}, ChainID: chainID, Poll: 5 * time.Millisecond})
	must(t, err)
	t.Cleanup(client.Close)
	g := contract.New(contract.Config{
		Namespace: "default", DB: db, Chain: client, Signer: keys.Local{Keys: p.keys},
		Nonces: nonce.New(nonce.Config{DB: db, Chain: client.ChainID, Count: func(ctx context.Context, a wire.Address) (uint64, error) {
			_, pending, err := client.Count(ctx, [20]byte(a))
			return pending, err
		}}),
		DefaultKey: func(context.Context) (wire.Address, error) { return p.key, nil },
		Committed:  func() {}, Log: slog.New(slog.DiscardHandler), Now: time.Now, NewID: func() wire.UUID { return uuid.Must(uuid.NewV7()) },
	})
	// finish makes blocks until an operation has ended.
	finish := func(op *store.Operation, err error) *store.Operation {
		t.Helper()
		must(t, err)
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
			if _, err := g.Transactions.Step(ctx); err != nil {
				t.Log(err)
			}
			a.settle()
			done, err := store.Get(ctx, db, store.Operations, "default", op.ID.String())
			must(t, err)
			if done.Status == store.OpSucceeded || done.Status == store.OpFailed {
				return &done
			}
		}
		t.Fatalf("operation %s does not end", op.ID)
		return nil
	}
	code, err := json.Marshal(contracttest.Code())
	must(t, err)
	deployed := finish(g.Deploy(ctx, contract.DeployRequest{Contract: code, Definition: contracttest.ABI(), Input: json.RawMessage(`[7]`)}))
	var out struct {
		ContractLocation json.RawMessage `json:"contractLocation"`
	}
	must(t, json.Unmarshal(deployed.Output, &out))
	var request contract.GenerateRequest
	request.Name, request.Version, request.Input.ABI = "sample", "1", contracttest.ABI()
	ffi, err := g.Generate(request)
	must(t, err)
	ffi, err = g.CreateInterface(ctx, ffi, false)
	must(t, err)
	call := func(path, input, options string) contract.CallRequest {
		return contract.CallRequest{Interface: ffi.ID, MethodPath: path, Location: out.ContractLocation, Input: json.RawMessage(input), Options: json.RawMessage(options)}
	}
	_, err = g.CreateListener(ctx, contract.ListenerInput{Topic: "t", Options: &store.ListenerOptions{FirstEvent: "oldest"}, FilterInput: contract.FilterInput{Interface: &store.InterfaceRef{ID: ffi.ID}, EventPath: "Changed"}})
	must(t, err)

	if done := finish(g.Invoke(ctx, call("set", `{"x": 42}`, ""))); done.Status != store.OpSucceeded {
		t.Errorf("set ended as %s: %s", done.Status, done.Error)
	}
	if done := finish(g.Invoke(ctx, call("pay", ``, `{"value": "0x5"}`))); done.Status != store.OpSucceeded {
		t.Errorf("pay ended as %s: %s", done.Status, done.Error)
	}
	if v, err := g.Query(ctx, call("value", ``, "")); err != nil || v["output"] != "47" {
		t.Errorf("value is %v: %v", v, err)
	}
	order := `{"id":"9","buyer":"0x` + strings.Repeat("cd", 20) + `","lines":[{"item":"nut","amount":"3"}],"grid":[["-128","127"]]}`
	echo, err := g.Query(ctx, call("echo", `{"order":`+order+`}`, ""))
	must(t, err)
	if text, err := json.Marshal(echo["output"]); err != nil || !strings.Contains(string(text), `"grid":[["-128","127"]]`) || !strings.Contains(string(text), `"item":"nut"`) {
		t.Errorf("echo gives %s: %v", text, err)
	}
	for input, reason := range map[string]string{`{"x": 13}`: "thirteen brings bad luck", `{"x": 1001}`: "TooHigh(value=1001, most=1000)"} {
		if _, err := g.Invoke(ctx, call("set", input, "")); err == nil || !strings.Contains(err.Error(), "FF10111") || !strings.Contains(err.Error(), reason) {
			t.Errorf("set %s gives %v, want %q", input, err, reason)
		}
	}
	// Refused only when it is mined: an explicit limit of gas is not enough by then.
	var head string
	must(t, a.call(ctx, &head, "eth_blockNumber"))
	var number uint64
	if _, err := fmt.Sscanf(head, "0x%x", &number); err != nil {
		t.Fatal(err)
	}
	op, err := g.Invoke(ctx, call("late", fmt.Sprintf(`{"block_": %d}`, number+1), ""))
	must(t, err)
	a.settle()
	if done := finish(op, nil); done.Status != store.OpFailed || !strings.Contains(done.Error, "gas") {
		t.Errorf("late ended as %s: %s", done.Status, done.Error)
	}
	a.settle()
	for next := time.Duration(0); next < time.Millisecond; {
		next, err = g.ListenStep(ctx)
		must(t, err)
	}
	events, _, err := store.List(ctx, db, store.BlockchainEvents, "default", store.Query{})
	must(t, err)
	if len(events) != 1 || !strings.Contains(string(events[0].Output), `"value":"42"`) {
		t.Errorf("the listener received %+v", events)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
