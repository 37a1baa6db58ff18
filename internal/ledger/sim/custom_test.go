package sim

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// carrier is a custom contract that carries all pins in its argument.
func carrier(_ wire.Address, data []byte, carry func(CarriedPin) error) error {
	var ps []CarriedPin
	if err := json.Unmarshal(data, &ps); err != nil {
		return err
	}
	for _, p := range ps {
		if err := carry(p); err != nil {
			return err
		}
	}
	return nil
}

// TestCarriedPins: a custom contract pins for whoever signed, once, for that
// contract, until the expiry, and all or nothing.
func TestCarriedPins(t *testing.T) {
	c, ps := network(t, nil)
	to, other := c.Install(carrier), c.Install(carrier)
	stranger := newParty(t, "stranger")
	sender := c.Connect(stranger.keys) // anyone may bring the pin

	authorise := func(p party, i int, via wire.Address, expiry uint64) CarriedPin {
		t.Helper()
		pin := pinCall(i).Pin
		sig, err := p.keys.Sign(t.Context(), p.key, wire.CarriedPinDigest(c.cfg.ChainID, c.cfg.Contract, via, expiry, pin), "carried pin")
		if err != nil {
			t.Fatal(err)
		}
		return CarriedPin{pin, expiry, sig}
	}
	bring := func(ps ...CarriedPin) error {
		t.Helper()
		data, err := json.Marshal(ps)
		if err != nil {
			t.Fatal(err)
		}
		return sender.Send(t.Context(), signed(t, sender, stranger, state(t, sender, stranger).Nonce, 0, ledger.ContractCall{To: &to, Data: data}))
	}
	refused := func(what string, ps ...CarriedPin) {
		t.Helper()
		before := len(c.records)
		var refusal *ledger.Refusal
		if err := bring(ps...); !errors.As(err, &refusal) {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
		if len(c.records) != before {
			t.Errorf("%s left %d records", what, len(c.records)-before)
		}
	}

	first := authorise(ps[1], 1, to, 1000)
	if err := bring(first); err != nil {
		t.Fatal(err)
	}
	r := c.records[len(c.records)-1]
	if p, ok := r.Body.(ledger.Pinned); !ok || p.Org != ps[1].org || p.Via != to || p.Pin.Root != root(1) || r.Signer != ps[1].key {
		t.Errorf("the carried pin's record is %+v", r)
	}
	refused("the same pin again", first)
	refused("a pin signed for another contract", authorise(ps[1], 2, other, 1000))
	refused("an expired pin", authorise(ps[1], 3, to, uint64(len(c.blocks))-1))
	refused("a stranger's pin", authorise(stranger, 4, to, 1000))
	changed := authorise(ps[1], 5, to, 1000)
	changed.Pin.Root[0] ^= 1
	refused("a changed pin", changed)

	second := authorise(ps[2], 6, to, 1000)
	refused("a good pin before a bad one", second, first)
	if err := bring(second); err != nil {
		t.Errorf("the good pin alone, which the refusal must not have used up: %v", err)
	}
	refused("what was carried, after a refusal", first)
}

func TestNoContractThere(t *testing.T) {
	c, ps := network(t, nil)
	l := c.Connect(ps[0].keys)
	for _, to := range []*wire.Address{nil, {9}} {
		var refusal *ledger.Refusal
		err := l.Send(t.Context(), signed(t, l, ps[0], state(t, l, ps[0]).Nonce, 0, ledger.ContractCall{To: to}))
		if !errors.As(err, &refusal) {
			t.Errorf("a call to %v: %v, want a refusal", to, err)
		}
	}
}
