package wire

import (
	"encoding/hex"
	"math/big"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

func testKey(seed string) *secp256k1.PrivateKey {
	b := h(seed)
	return secp256k1.PrivKeyFromBytes(b[:])
}

// The well-known address of the private key 1.
func TestAddress(t *testing.T) {
	one := secp256k1.PrivKeyFromBytes([]byte{1})
	if got := AddressOf(one).String(); got != "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf" {
		t.Error(got)
	}
	if got := keccak().String(); got != "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470" {
		t.Error(got)
	}
}

func TestSignature(t *testing.T) {
	for i := range 20 {
		key, digest := testKey("key"), h(string(rune('a'+i)))
		sig := SignDigest(key, digest)
		got, err := RecoverAddress(digest, sig)
		if err != nil || got != AddressOf(key) {
			t.Errorf("got %s, %v", got, err)
		}
		if other, err := RecoverAddress(h("other"), sig); err == nil && other == got {
			t.Error("the signature fits another digest")
		}

		// The other s of the same signature, with the other v, is valid in plain
		// ECDSA. It must not be a second signature here.
		high := sig
		s := new(big.Int).SetBytes(sig[32:64])
		s.Sub(secp256k1.Params().N, s).FillBytes(high[32:64])
		high[64] ^= 1
		if _, err := RecoverAddress(digest, high); err == nil {
			t.Error("a high s is accepted")
		}
		for _, v := range []byte{2, 3, 27, 28, 255} {
			bad := sig
			bad[64] = v
			if _, err := RecoverAddress(digest, bad); err == nil {
				t.Errorf("v %d is accepted", v)
			}
		}
	}
	if _, err := RecoverAddress(h("x"), Signature{}); err == nil {
		t.Error("an empty signature is accepted")
	}
}

func TestReceiptSignature(t *testing.T) {
	r := testControl().Certificates[0].Receipts[0]
	key := testKey("node")
	digest, err := r.Digest()
	if err != nil {
		t.Fatal(err)
	}
	r.Signature = SignDigest(key, digest)
	if again, err := r.Digest(); err != nil || again != digest {
		t.Error("the digest depends on the signature")
	}
	if got, err := r.Signer(); err != nil || got != AddressOf(key) {
		t.Errorf("got %s, %v", got, err)
	}

	// Protocol, send: a receipt is over network, author, audience, epoch, root
	// and a recent block, and over who gives it.
	seen := map[Hash]string{digest: "unchanged"}
	for name, change := range map[string]func(*Receipt){
		"version": func(r *Receipt) { r.Version++ }, "network": func(r *Receipt) { r.Network[0]++ }, "org": func(r *Receipt) { r.Org[0]++ },
		"author": func(r *Receipt) { r.Author[0]++ }, "audience": func(r *Receipt) { r.Audience[0]++ }, "epoch": func(r *Receipt) { r.Epoch++ },
		"root": func(r *Receipt) { r.Root[0]++ }, "block": func(r *Receipt) { r.RecentBlock[0]++ }, "number": func(r *Receipt) { r.RecentNumber++ },
	} {
		bad := r
		change(&bad)
		d, err := bad.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if other, dup := seen[d]; dup {
			t.Errorf("%s: same digest as %s", name, other)
		}
		seen[d] = name
	}
}

// Protocol, pinBatchData: the signature covers root, tag, handles, control,
// chain, contract, calling contract and expiry.
func TestCarriedPinCoversEverything(t *testing.T) {
	type call struct {
		chain            uint64
		contract, caller Address
		expiry           uint64
		pin              Pin
	}
	full := func() *call {
		return &call{2021, Address{1}, Address{2}, 99, Pin{Root: h("root"), Tag: Tag{3}, Handles: []Handle{{4}, {5}}, Control: []byte{6}}}
	}
	seen := map[Hash]string{}
	for name, change := range map[string]func(*call){
		"nothing":   func(*call) {},
		"chain":     func(c *call) { c.chain++ },
		"contract":  func(c *call) { c.contract[19]++ },
		"caller":    func(c *call) { c.caller[19]++ },
		"expiry":    func(c *call) { c.expiry++ },
		"root":      func(c *call) { c.pin.Root[31]++ },
		"tag":       func(c *call) { c.pin.Tag[15]++ },
		"handle":    func(c *call) { c.pin.Handles[1][15]++ },
		"handles":   func(c *call) { c.pin.Handles = c.pin.Handles[:1] },
		"control":   func(c *call) { c.pin.Control[0]++ },
		"no pin":    func(c *call) { c.pin = Pin{} },
		"no handle": func(c *call) { c.pin.Handles = nil },
	} {
		c := full()
		change(c)
		d := CarriedPinDigest(c.chain, c.contract, c.caller, c.expiry, c.pin)
		if other, dup := seen[d]; dup {
			t.Errorf("%s: same digest as %s", name, other)
		}
		seen[d] = name
	}
}

func FuzzRecoverAddress(f *testing.F) {
	sig := SignDigest(testKey("key"), h("digest"))
	f.Add(sig[:])
	f.Add(make([]byte, 65))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != len(Signature{}) {
			return
		}
		digest := h("digest")
		address, err := RecoverAddress(digest, Signature(b))
		if err != nil {
			return
		}
		again, err := RecoverAddress(digest, Signature(b))
		if err != nil || again != address || address.IsZero() {
			t.Fatalf("%s: recovered %s, then %s (%v)", hex.EncodeToString(b), address, again, err)
		}
	})
}

func TestSealTo(t *testing.T) {
	private, public, err := GenerateSealKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := SealTo(public, []byte("info"), []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenSealed(private, []byte("info"), sealed); err != nil || string(got) != "plain" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := OpenSealed(private, []byte("other"), sealed); err == nil {
		t.Error("it opens with another info")
	}
	other, _, err := GenerateSealKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSealed(other, []byte("info"), sealed); err == nil {
		t.Error("it opens with another key")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := OpenSealed(private, []byte("info"), sealed); err == nil {
		t.Error("it opens after a change")
	}
	if _, err := SealTo(public[1:], nil, nil); err == nil {
		t.Error("a short public key is accepted")
	}
	if _, err := OpenSealed(private[1:], nil, sealed); err == nil {
		t.Error("a short private key is accepted")
	}
}

func BenchmarkRecoverAddress(b *testing.B) {
	digest := h("digest")
	sig := SignDigest(testKey("key"), digest)
	for b.Loop() {
		if _, err := RecoverAddress(digest, sig); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignDigest(b *testing.B) {
	key := testKey("key")
	for b.Loop() {
		SignDigest(key, h("digest"))
	}
}
