package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/contract/contracttest"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/ethereum/ethtest"
	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/keys/file"
	"github.com/parley-node/parley/internal/nonce"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
	"github.com/parley-node/parley/wire"
)

// world is a gateway on a chain whose blocks the test makes, or that makes one
// for each transaction (Options.Auto).
type world struct {
	t       *testing.T
	chain   *ethtest.Chain
	keys    *file.Keys
	key     wire.Address
	path    string // of the database
	urls    []string
	fees    ethereum.FeePolicy
	skew    time.Duration // that the gateway's clock is ahead
	confirm uint64

	*Service
	events chan struct{} // something was committed
}

func newWorld(t *testing.T, o ethtest.Options) *world {
	t.Helper()
	ks, err := file.Create(t.TempDir()+"/keys", file.Options{})
	must(t, err)
	all, err := ks.Addresses(t.Context())
	must(t, err)
	w := &world{t: t, keys: ks, key: all[0], path: storetest.Path(t), chain: ethtest.New(t, o, all[0]), events: make(chan struct{}, 1)}
	w.urls = []string{w.chain.HTTP()}
	w.fees = ethereum.FeePolicy{Fees: ethereum.FeesZero}
	if o.Priced {
		w.fees.Fees = ethereum.FeesAuto
	}
	w.start()
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start opens the database and makes a gateway on it, as a process does.
func (w *world) start() {
	w.t.Helper()
	db, err := store.Open(w.t.Context(), store.Options{Path: w.path, Log: slog.New(slog.DiscardHandler)})
	must(w.t, err)
	client, err := ethereum.New(ethereum.Config{URLs: w.urls, ChainID: ethtest.ChainID, Confirmations: w.confirm})
	must(w.t, err)
	w.Service = New(Config{
		Namespace: "default", DB: db, Chain: client, Signer: keys.Local{Keys: w.keys}, Fees: w.fees,
		Nonces: nonce.New(nonce.Config{DB: db, Chain: client.ChainID, Count: func(ctx context.Context, a wire.Address) (uint64, error) {
			_, pending, err := client.Count(ctx, [20]byte(a))
			return pending, err
		}}),
		DefaultKey: func(context.Context) (wire.Address, error) { return w.key, nil },
		Committed: func() {
			select {
			case w.events <- struct{}{}:
			default:
			}
		},
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return time.Now().Add(w.skew) }, NewID: func() wire.UUID { return uuid.Must(uuid.NewV7()) },
	})
	w.t.Cleanup(func() { w.DB.Close(); client.Close() })
}

// restart throws the gateway away, as a crash does, and starts another one.
func (w *world) restart() {
	w.t.Helper()
	must(w.t, w.DB.Close())
	w.start()
}

// step runs the transaction worker once.
func (w *world) step() error {
	_, err := w.Transactions.Step(w.t.Context())
	return err
}

// operation reads an operation.
func (w *world) operation(id wire.UUID) *store.Operation {
	w.t.Helper()
	var op *store.Operation
	must(w.t, w.DB.Read(w.t.Context(), func(tx *store.Tx) (err error) { op, err = tx.OperationByID("default", id); return err }))
	return op
}

// finish makes blocks and steps until an operation has its final state.
func (w *world) finish(id wire.UUID) *store.Operation {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if err := w.step(); err != nil {
			w.t.Log(err)
		}
		if w.chain.Waiting() {
			w.chain.Settle()
		}
		if op := w.operation(id); op.Status == store.OpSucceeded || op.Status == store.OpFailed {
			return op
		}
	}
	d, err := w.Detail(w.t.Context(), id)
	w.t.Fatalf("operation %s did not end: %+v %v", id, d, err)
	return nil
}

// sample deploys the test's contract and stores its interface.
func (w *world) sample() (at json.RawMessage, ffi wire.UUID) {
	w.t.Helper()
	ctx := w.t.Context()
	op, err := w.Deploy(ctx, DeployRequest{Contract: quoted(contracttest.Code()), Definition: contracttest.ABI(), Input: json.RawMessage(`[7]`)})
	must(w.t, err)
	done := w.finish(op.ID)
	if done.Status != store.OpSucceeded {
		w.t.Fatalf("the deployment failed: %s", done.Error)
	}
	var out receipt
	must(w.t, json.Unmarshal(done.Output, &out))
	made, err := w.Generate(GenerateRequest{Name: "sample", Version: "1.0", Input: struct {
		ABI json.RawMessage `json:"abi"`
	}{contracttest.ABI()}})
	must(w.t, err)
	stored, err := w.CreateInterface(ctx, made, false)
	must(w.t, err)
	return out.ContractLocation, *stored.ID
}

func quoted(s string) json.RawMessage {
	b, _ := json.Marshal(s) // a string always has JSON
	return b
}

func wantCode(t *testing.T, err error, code, text string) {
	t.Helper()
	if errs.Code(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %s with %q", err, code, text)
	}
}

// call is a request to the sample.
func call(ffi wire.UUID, at json.RawMessage, path, input string) CallRequest {
	return CallRequest{Interface: &ffi, MethodPath: path, Location: at, Input: json.RawMessage(input)}
}

func TestDeployInvokeQuery(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	ctx := t.Context()
	at, ffi := w.sample()

	out, err := w.Query(ctx, call(ffi, at, "value", ""))
	must(t, err)
	if out["output"] != "7" {
		t.Errorf("value is %v after the deployment with 7", out)
	}
	op, err := w.Invoke(ctx, call(ffi, at, "set", `{"x": "0x2a"}`))
	must(t, err)
	if op.Status != store.OpPending || op.Type != OpInvoke {
		t.Errorf("an invocation gives %+v", op)
	}
	if done := w.finish(op.ID); done.Status != store.OpSucceeded || !strings.Contains(string(done.Output), `"TransactionSuccess"`) {
		t.Errorf("it ended as %s %s %s", done.Status, done.Error, done.Output)
	}
	if out, err = w.Query(ctx, call(ffi, at, "value", "{}")); err != nil || out["output"] != "42" {
		t.Errorf("value is %v, %v", out, err)
	}
	// The overload is another path; two outputs, one of them named.
	op, err = w.Invoke(ctx, call(ffi, at, "set_1", `{"x": 43, "why": "because"}`))
	must(t, err)
	w.finish(op.ID)
	if out, err = w.Query(ctx, call(ffi, at, "both", "")); err != nil || out["output"] != "43" || out["named"] != true {
		t.Errorf("both gives %v, %v", out, err)
	}
	// By an inline method, in the past.
	method := &abi.Method{Name: "value", Returns: []abi.Param{{Schema: json.RawMessage(`{"type":"integer","details":{"type":"uint256"}}`)}}}
	out, err = w.Query(ctx, CallRequest{Method: method, Location: at, Options: json.RawMessage(`{"blockNumber": "1"}`)})
	if err != nil || out["output"] != "7" {
		t.Errorf("in block 1 value was %v, %v", out, err)
	}

	// What the business transaction shows.
	var txn *store.Transaction
	must(t, w.DB.Read(ctx, func(tx *store.Tx) (err error) { txn, err = tx.TransactionByID("default", *op.Tx); return err }))
	if txn.Type != TxInvoke || len(txn.BlockchainIDs) != 1 {
		t.Errorf("the transaction is %+v", txn)
	}
	d, err := w.Detail(ctx, op.ID)
	if err != nil || d.Status != store.ChainTxSucceeded || len(d.Attempts) != 1 || d.Attempts[0].TransactionHash.String() != txn.BlockchainIDs[0] {
		t.Errorf("its story is %+v, %v", d, err)
	}
}

func TestStructsBothWays(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	order := `{"id":"18446744073709551615","buyer":"0x` + strings.Repeat("ab", 20) + `","lines":[{"item":"nut","amount":"3"},{"item":"","amount":"0"}],"grid":[["-128","127"],["0","-1"]]}`
	out, err := w.Query(t.Context(), call(ffi, at, "echo", `{"order":`+order+`}`))
	must(t, err)
	got, err := json.Marshal(out["output"])
	must(t, err)
	var a, b any
	must(t, json.Unmarshal(got, &a))
	must(t, json.Unmarshal([]byte(order), &b))
	if x, y := mustJSON(t, a), mustJSON(t, b); x != y {
		t.Errorf("echo gives\n%s, want\n%s", x, y)
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return string(b)
}

// TestRefusedCalls: what a contract or the chain does not take is answered at
// once, with the reason, and nothing is sent.
func TestRefusedCalls(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	ctx := t.Context()
	at, ffi := w.sample()
	var carrier CallRequest // as a client writes it
	must(t, json.Unmarshal(fmt.Appendf(nil, `{"interface": %q, "methodPath": "set", "location": %s, "input": {"x": 1}, "message": {"data": [{"value": "x"}]}}`, ffi, at), &carrier))
	for name, c := range map[string]struct {
		request    CallRequest
		code, text string
	}{
		"require":            {call(ffi, at, "set", `{"x": 13}`), "FF10111", "thirteen brings bad luck"},
		"custom error":       {call(ffi, at, "set", `{"x": 1001}`), "FF10111", "TooHigh(value=1001, most=1000)"},
		"unknown method":     {call(ffi, at, "sat", `{}`), "FF10315", "sat"},
		"missing argument":   {call(ffi, at, "set", `{}`), "FF10304", "input.x"},
		"extra argument":     {call(ffi, at, "set", `{"x": 1, "y": 2}`), "FF10305", "input.y"},
		"below range":        {call(ffi, at, "set", `{"x": -5}`), "FF10305", "input.x: -5 is below 0, the least uint256"},
		"nested":             {call(ffi, at, "echo", `{"order":{"id":1,"buyer":"0x`+strings.Repeat("0", 40)+`","lines":[{"item":"a","amount":1},{"item":"b","amount":-5}],"grid":[]}}`), "FF10305", "input.order.lines[1].amount: -5 is below 0"},
		"no contract there":  {call(ffi, json.RawMessage(`{"address":"0x00000000000000000000000000000000000000ff"}`), "value", ``), "FF10111", "is there a contract"},
		"no location":        {call(ffi, nil, "set", `{"x": 1}`), "FF10310", "location"},
		"bad location":       {call(ffi, json.RawMessage(`{"address":"0x12"}`), "set", `{"x": 1}`), "FF10141", "location.address"},
		"unknown option":     {CallRequest{Interface: &ffi, MethodPath: "set", Location: at, Input: json.RawMessage(`{"x":1}`), Options: json.RawMessage(`{"gaz": 1}`)}, "FF10320", "options.gaz"},
		"value not payable":  {CallRequest{Interface: &ffi, MethodPath: "set", Location: at, Input: json.RawMessage(`{"x":1}`), Options: json.RawMessage(`{"value": 1}`)}, "FF10320", "takes no value"},
		"too little gas":     {CallRequest{Interface: &ffi, MethodPath: "set", Location: at, Input: json.RawMessage(`{"x":1}`), Options: json.RawMessage(`{"gas": 21500}`)}, "FF10111", "gas"},
		"no funds":           {CallRequest{Interface: &ffi, MethodPath: "pay", Location: at, Options: json.RawMessage(`{"value": "1000000000000000000"}`)}, "FF10111", "funds"},
		"message":            {carrier, "FF10414", `field "message"`},
		"message in a query": {CallRequest{Interface: &ffi, MethodPath: "value", Location: at, Message: json.RawMessage(`{}`)}, "FF10414", "not in this version"},
		"key that is absent": {CallRequest{Interface: &ffi, MethodPath: "set", Location: at, Input: json.RawMessage(`{"x":1}`), Key: "0x" + strings.Repeat("01", 20)}, "FF10354", "private key is not at this node"},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			if name == "no contract there" || name == "nested" || name == "message in a query" {
				_, err = w.Query(ctx, c.request)
			} else {
				_, err = w.Invoke(ctx, c.request)
			}
			wantCode(t, err, c.code, c.text)
		})
	}
	if w.chain.Waiting() {
		t.Error("something was sent")
	}
	// A refusal by the contract leaves an operation that says so.
	failed, _, err := store.List(ctx, w.DB, store.Operations, "default", store.Query{Limit: 100})
	must(t, err)
	n := 0
	for _, op := range failed {
		if op.Status == store.OpFailed {
			n++
		}
	}
	if n != 4 {
		t.Errorf("%d operations failed, want 4: require, custom error, too little gas, no funds", n)
	}
}

func TestIdempotencyKey(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	r := call(ffi, at, "set", `{"x": 1}`)
	r.IdempotencyKey = "once"
	op, err := w.Invoke(t.Context(), r)
	must(t, err)
	_, err = w.Invoke(t.Context(), r)
	wantCode(t, err, "FF10431", op.Tx.String())
	w.finish(op.ID)
	_, err = w.Invoke(t.Context(), r)
	wantCode(t, err, "FF10431", op.Tx.String())
}

// TestFailsWhenMined: the call was fine when it was estimated, and fails in its
// block.
func TestFailsWhenMined(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	head := w.chain.Head().Number.Uint64()
	r := call(ffi, at, "late", `{"block_": `+mustJSON(t, head+1)+`}`)
	op, err := w.Invoke(t.Context(), r)
	must(t, err)
	w.chain.Mine()
	w.chain.Mine()
	done := w.finish(op.ID)
	if done.Status != store.OpFailed || !strings.Contains(done.Error, "used up its gas limit") || !strings.Contains(string(done.Output), "TransactionFailed") {
		t.Errorf("out of gas ends as %s %q %s", done.Status, done.Error, done.Output)
	}
	again, err := w.Retry(t.Context(), op.ID)
	must(t, err)
	if w.operation(op.ID).Retry == nil || again.ID == op.ID {
		t.Errorf("the retry is %+v", again)
	}
	if done := w.finish(again.ID); done.Status != store.OpFailed {
		t.Errorf("the second try ended as %s", done.Status)
	}
}
