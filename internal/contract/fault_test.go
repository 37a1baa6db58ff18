package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/ethereum/ethtest"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// total is how often the sample's set has taken effect.
func (w *world) total(ffi wire.UUID, at json.RawMessage) string {
	w.t.Helper()
	out, err := w.Query(w.t.Context(), call(ffi, at, "total", ""))
	must(w.t, err)
	return fmt.Sprint(out["output"])
}

// TestFaultTable: whatever question to the chain fails, be it lost or answered
// without us hearing it, and whether the process lives on or dies there, each
// invocation that was accepted takes effect once, and its operation says so.
func TestFaultTable(t *testing.T) {
	for _, method := range []string{"eth_estimateGas", "eth_sendRawTransaction", "eth_getTransactionCount", "eth_getTransactionReceipt", "eth_getBlockByNumber"} {
		for _, done := range []bool{false, true} {
			for _, crash := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/done=%t/crash=%t", method, done, crash), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, ethtest.Options{})
					at, ffi := w.sample()
					proxy := ethtest.NewProxy(t, w.chain.HTTP())
					w.urls = []string{proxy.URL()}
					w.restart()
					hit := false
					proxy.Fail(func(m string, after bool) bool {
						if m != method || after != done || hit {
							return false
						}
						hit = true
						if crash {
							if err := w.DB.Close(); err != nil { // nothing is stored any more
								t.Error(err)
							}
						}
						return true
					})
					r := call(ffi, at, "set", `{"x": 1}`)
					r.IdempotencyKey = "one"
					op, err := w.Invoke(t.Context(), r)
					for n := 0; !hit && n < 20; n++ {
						if w.step() == nil && w.chain.Waiting() {
							w.chain.Mine()
						}
					}
					if !hit {
						t.Fatalf("%s was never called", method)
					}
					if crash {
						w.start()
					}
					if err != nil { // not accepted: the client sends it again
						op, err = w.Invoke(t.Context(), r)
						must(t, err)
					}
					w.skew += time.Minute
					if done := w.finish(op.ID); done.Status != store.OpSucceeded {
						t.Errorf("the operation ended as %s: %s", done.Status, done.Error)
					}
					want(t, "it took effect", w.total(ffi, at), "1")
					d, err := w.Detail(t.Context(), op.ID)
					must(t, err)
					want(t, "signed forms", len(d.Attempts), 1)
				})
			}
		}
	}
}

// TestCrashBetweenSigningAndStoring: a signature that was not stored never left
// the process, and its nonce is given out again.
func TestCrashBetweenSigningAndStoring(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	op, err := w.Invoke(t.Context(), call(ffi, at, "set", `{"x": 1}`))
	must(t, err)
	w.Transactions.Signer = closing{w.Transactions.Signer, func() { must(t, w.DB.Close()) }}
	if err := w.step(); err == nil {
		t.Error("a step without a database succeeds")
	}
	if w.chain.Waiting() {
		t.Error("what was not stored was sent")
	}
	w.start()
	w.finish(op.ID)
	want(t, "it took effect", w.total(ffi, at), "1")
}

type ctx = context.Context

// closing is a signer after whose first signature the process dies.
type closing struct {
	signer interface {
		Accounts(ctx ctx) ([]wire.Address, error)
		SignTransaction(ctx ctx, account wire.Address, unsigned []byte, purpose string) (wire.Signature, error)
	}
	die func()
}

func (c closing) Accounts(x ctx) ([]wire.Address, error) { return c.signer.Accounts(x) }

func (c closing) SignTransaction(x ctx, account wire.Address, unsigned []byte, purpose string) (wire.Signature, error) {
	signature, err := c.signer.SignTransaction(x, account, unsigned, purpose)
	c.die()
	return signature, err
}

// foreign sends a transaction of the gateway's account that another program made.
func (w *world) foreign(nonce uint64) {
	w.t.Helper()
	id := big.NewInt(ethtest.ChainID)
	self := common.Address(w.key)
	tx := ethereum.Offer{Price: new(big.Int)}.Transaction(id, nonce, 21_000, &self, new(big.Int), nil)
	unsigned, err := ethereum.Unsigned(id, tx)
	must(w.t, err)
	signature, err := w.Signer.SignTransaction(w.t.Context(), w.key, unsigned, "test")
	must(w.t, err)
	tx, err = tx.WithSignature(types.LatestSignerForChainID(id), signature[:])
	must(w.t, err)
	raw, err := tx.MarshalBinary()
	must(w.t, err)
	errs, err := w.Chain.Send(w.t.Context(), [][]byte{raw})
	must(w.t, err)
	must(w.t, errs[0])
}

// TestSomebodyElseUsesTheKey: the nonce of a signed transaction is used by another
// program before it is sent; it gets a new one, and an incident tells.
func TestSomebodyElseUsesTheKey(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	proxy := ethtest.NewProxy(t, w.chain.HTTP())
	w.urls = []string{proxy.URL()}
	w.restart()
	var ops []wire.UUID
	for range 3 {
		op, err := w.Invoke(t.Context(), call(ffi, at, "set", `{"x": 1}`))
		must(t, err)
		ops = append(ops, op.ID)
	}
	proxy.Fail(func(m string, _ bool) bool { return m == "eth_sendRawTransaction" })
	if err := w.step(); err == nil {
		t.Error("sending did not fail")
	}
	proxy.Fail(nil)
	w.foreign(1)
	w.chain.Mine()
	w.skew += time.Minute
	must(t, w.step()) // sees that the nonce is gone
	w.skew += time.Minute
	for _, op := range ops {
		if done := w.finish(op); done.Status != store.OpSucceeded {
			t.Errorf("an operation ended as %s: %s", done.Status, done.Error)
		}
	}
	want(t, "they took effect", w.total(ffi, at), "3")
	d, err := w.Detail(t.Context(), ops[0])
	must(t, err)
	if len(d.Attempts) != 2 || d.Attempts[0].Nonce != 1 || d.Attempts[1].Nonce == 1 {
		t.Errorf("its history is %+v", d.Attempts)
	}
}

// TestEndpointServesAnotherChain: it is left for one that serves the right one,
// and never believed.
func TestEndpointServesAnotherChain(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	proxy := ethtest.NewProxy(t, w.chain.HTTP())
	w.urls = []string{proxy.URL()}
	w.restart()
	op, err := w.Invoke(t.Context(), call(ffi, at, "set", `{"x": 1}`))
	must(t, err)
	must(t, w.step())
	w.chain.Mine()
	proxy.Lie(func(m string, _ []json.RawMessage, result json.RawMessage) json.RawMessage {
		if m == "eth_chainId" {
			return json.RawMessage(`"0x1"`)
		}
		return result
	})
	if err := w.step(); err == nil || !strings.Contains(err.Error(), "serves chain 1 instead of 4711") {
		t.Errorf("the step ends with %v", err)
	}
	_, err = w.Invoke(t.Context(), call(ffi, at, "set", `{"x": 1}`))
	wantCode(t, err, "FF10158", "chain 1 instead of")
	signers, err := w.Transactions.Signers(t.Context())
	must(t, err)
	if len(signers) != 1 || signers[0].InFlight != 1 || !strings.Contains(signers[0].Trouble, "instead of") {
		t.Errorf("the signers show %+v", signers)
	}
	w.urls = append(w.urls, w.chain.HTTP())
	w.restart()
	if done := w.finish(op.ID); done.Status != store.OpSucceeded {
		t.Errorf("with the right endpoint it ended as %s", done.Status)
	}
}

// TestHundredsInFlight: many at once, in one order of nonces, each once.
func TestHundredsInFlight(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	const n = 300
	var last wire.UUID
	for i := range n {
		op, err := w.Invoke(t.Context(), call(ffi, at, "set", fmt.Sprintf(`{"x": %d}`, i+100)))
		must(t, err)
		last = op.ID
	}
	for range 4 {
		must(t, w.step())
	}
	signers, err := w.Transactions.Signers(t.Context())
	must(t, err)
	if signers[0].InFlight != n {
		t.Errorf("under way: %+v", signers)
	}
	w.finish(last)
	want(t, "they took effect", w.total(ffi, at), n)
	out, err := w.Query(t.Context(), call(ffi, at, "value", ""))
	must(t, err)
	want(t, "the last one last", out["output"], n+99)
}

// TestGapIsFilled: a nonce that nobody holds keeps nobody waiting for ever.
func TestGapIsFilled(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	r := call(ffi, at, "set", `{"x": 1}`)
	r.Options = json.RawMessage(`{"nonce": 3}`)
	op, err := w.Invoke(t.Context(), r)
	must(t, err)
	must(t, w.step())
	must(t, w.step())
	w.skew += time.Minute
	if done := w.finish(op.ID); done.Status != store.OpSucceeded {
		t.Errorf("it ended as %s: %s", done.Status, done.Error)
	}
	want(t, "it took effect", w.total(ffi, at), "1")
	d, err := w.Detail(t.Context(), op.ID)
	must(t, err)
	want(t, "its nonce", *d.Nonce, 3)
	// The next one goes on behind.
	w.invoke(call(ffi, at, "set", `{"x": 1}`))
	want(t, "they took effect", w.total(ffi, at), "2")
}

func TestSuspendedSigner(t *testing.T) {
	w := newWorld(t, ethtest.Options{})
	at, ffi := w.sample()
	must(t, w.Transactions.Suspend(t.Context(), w.key, "under investigation"))
	op, err := w.Invoke(t.Context(), call(ffi, at, "set", `{"x": 1}`))
	must(t, err)
	must(t, w.step())
	signers, err := w.Transactions.Signers(t.Context())
	must(t, err)
	if s := signers[0]; !s.Suspended || s.Reason != "under investigation" || s.Queued != 1 || s.InFlight != 0 {
		t.Errorf("the signer shows %+v", s)
	}
	must(t, w.Transactions.Resume(t.Context(), w.key))
	if done := w.finish(op.ID); done.Status != store.OpSucceeded {
		t.Errorf("it ended as %s", done.Status)
	}
	_, err = w.Transactions.ByOperation(t.Context(), op.ID)
	must(t, err)
	wantCode(t, w.Transactions.Cancel(t.Context(), op.ID), "FF90020", "succeeded already")
}

// TestCancelAndReplace: on a chain with fees a waiting transaction makes room for
// one that offers more.
func TestCancelAndReplace(t *testing.T) {
	w := newWorld(t, ethtest.Options{Priced: true})
	at, ffi := w.sample()
	low := call(ffi, at, "set", `{"x": 1}`)
	low.Options = json.RawMessage(`{"maxFeePerGas": "5", "maxPriorityFeePerGas": "1", "gas": 100000}`)
	stuck, err := w.Invoke(t.Context(), low)
	must(t, err)
	must(t, w.step())
	d, err := w.Detail(t.Context(), stuck.ID)
	must(t, err)
	if d.Status != store.ChainTxSigned || d.Reason == "" && !w.pooled(d) {
		t.Errorf("too low an offer shows %+v", d)
	}
	wantCode(t, w.Transactions.Replace(t.Context(), stuck.ID, ethereum.Offer{Price: big.NewInt(5)}), "FF90022", "too low")
	must(t, w.Transactions.Replace(t.Context(), stuck.ID, ethereum.Offer{Tip: big.NewInt(2e9), Cap: big.NewInt(5e9)}))
	if done := w.finish(stuck.ID); done.Status != store.OpSucceeded {
		t.Errorf("replaced, it ended as %s: %s", done.Status, done.Error)
	}
	want(t, "it took effect", w.total(ffi, at), "1")

	stuck, err = w.Invoke(t.Context(), low)
	must(t, err)
	must(t, w.step())
	must(t, w.Transactions.Cancel(t.Context(), stuck.ID))
	if done := w.finish(stuck.ID); done.Status != store.OpFailed || !strings.Contains(done.Error, "cancelled") {
		t.Errorf("cancelled, it ended as %s: %s", done.Status, done.Error)
	}
	want(t, "it took no effect", w.total(ffi, at), "1")
	// A cancelled one before it is signed needs no nonce at all.
	must(t, w.Transactions.Suspend(t.Context(), w.key, ""))
	op, err := w.Invoke(t.Context(), call(ffi, at, "set", `{"x": 1}`))
	must(t, err)
	must(t, w.Transactions.Cancel(t.Context(), op.ID))
	must(t, w.Transactions.Resume(t.Context(), w.key))
	if done := w.finish(op.ID); done.Status != store.OpFailed {
		t.Errorf("it ended as %s", done.Status)
	}
	want(t, "nor did this", w.total(ffi, at), "1")
}

// pooled says whether the chain has a transaction's newest form.
func (w *world) pooled(d *Detail) bool {
	known, err := w.Chain.Known(w.t.Context(), []common.Hash{common.Hash(d.Attempts[len(d.Attempts)-1].TransactionHash)})
	return err == nil && known[0]
}

// TestOfferIsRaised: what is next in line and not mined offers more, up to the
// cap, and then says why it waits.
func TestOfferIsRaised(t *testing.T) {
	w := newWorld(t, ethtest.Options{Priced: true})
	at, ffi := w.sample()
	w.fees = ethereum.FeePolicy{Fees: ethereum.FeesFixed, Price: big.NewInt(3e9), Cap: big.NewInt(4e9)}
	w.restart()
	op, err := w.Invoke(t.Context(), call(ffi, at, "set", `{"x": 1}`))
	must(t, err)
	must(t, w.step())
	must(t, w.step())
	for range 3 {
		w.skew += time.Minute
		must(t, w.step())
	}
	d, err := w.Detail(t.Context(), op.ID)
	must(t, err)
	if len(d.Attempts) != 2 || string(d.Attempts[1].Fees) != `{"gasPrice":"3750000000"}` || !strings.Contains(d.Reason, "cap is 4000000000") {
		t.Errorf("its history is %+v, and it waits because %q", d.Attempts, d.Reason)
	}
	if done := w.finish(op.ID); done.Status != store.OpSucceeded {
		t.Errorf("it ended as %s", done.Status)
	}
	want(t, "it took effect", w.total(ffi, at), "1")
}
