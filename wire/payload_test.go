package wire

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var testKeys = EpochSecret{Secret: h("secret"), Topic: h("topic")}.Keys()

func sealPayload(t testing.TB, plain []byte) []byte {
	t.Helper()
	sealed, err := testKeys.SealPayload(h("author"), h("root"), plain)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestPayloadSizes(t *testing.T) {
	for _, n := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize, 3*chunkSize + 5} {
		plain := bytes.Repeat([]byte("parley"), n/6+1)[:n]
		sealed := sealPayload(t, plain)
		got, err := testKeys.OpenPayload(h("author"), h("root"), sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes do not come back: %v", n, err)
		}
		if n > 16 && bytes.Contains(sealed, plain[:16]) {
			t.Error("the plaintext shows")
		}
	}
}

func TestPayloadIsBound(t *testing.T) {
	plain := bytes.Repeat([]byte{7}, 2*chunkSize)
	sealed := sealPayload(t, plain)
	full := chunkSize + tagSize
	first, second := sealed[saltSize:saltSize+full], sealed[saltSize+full:]
	join := func(parts ...[]byte) []byte { return bytes.Join(append([][]byte{sealed[:saltSize]}, parts...), nil) }
	flip := bytes.Clone(sealed)
	flip[len(flip)/2] ^= 1
	other := NewEpochSecret(Hash{}).Keys()
	for name, open := range map[string]func() ([]byte, error){
		"another author": func() ([]byte, error) { return testKeys.OpenPayload(h("x"), h("root"), sealed) },
		"another root":   func() ([]byte, error) { return testKeys.OpenPayload(h("author"), h("x"), sealed) },
		"another epoch":  func() ([]byte, error) { return other.OpenPayload(h("author"), h("root"), sealed) },
		"a changed byte": func() ([]byte, error) { return testKeys.OpenPayload(h("author"), h("root"), flip) },
		"no last chunk":  func() ([]byte, error) { return testKeys.OpenPayload(h("author"), h("root"), join(first)) },
		"no first chunk": func() ([]byte, error) { return testKeys.OpenPayload(h("author"), h("root"), join(second)) },
		"swapped chunks": func() ([]byte, error) { return testKeys.OpenPayload(h("author"), h("root"), join(second, first)) },
		"a repeated chunk": func() ([]byte, error) {
			return testKeys.OpenPayload(h("author"), h("root"), join(first, first, second))
		},
		"an extra byte": func() ([]byte, error) {
			return testKeys.OpenPayload(h("author"), h("root"), join(first, second, []byte{0}))
		},
		"too few bytes": func() ([]byte, error) { return testKeys.OpenPayload(h("author"), h("root"), sealed[:20]) },
	} {
		if _, err := open(); err == nil {
			t.Errorf("%s: it opens", name)
		}
	}
}

// Two plaintexts for one root must not share an AES-GCM key and nonce.
func TestNoKeyIsUsedTwice(t *testing.T) {
	a, b := sealPayload(t, make([]byte, 100)), sealPayload(t, append(make([]byte, 99), 1))
	if bytes.Equal(a[:saltSize], b[:saltSize]) || bytes.Equal(a[saltSize:saltSize+90], b[saltSize:saltSize+90]) {
		t.Error("the key stream repeats")
	}
	if !bytes.Equal(a, sealPayload(t, make([]byte, 100))) {
		t.Error("sealing again gives other bytes")
	}
}

func testControl() Control {
	create, all := h("create"), h("org2")
	d, _ := testEpoch()
	r := Receipt{Version: Version, Network: h("network"), Org: h("org2"), Author: h("org1"), Audience: h("group"), Epoch: 1, Root: h("root"), RecentBlock: h("block"), RecentNumber: 9}
	return Control{
		Create: &create, Activate: &Activation{Definition: d, Receipts: []Receipt{r}}, Heartbeat: true,
		Votes:        []Vote{{Entries: []Entry{{Author: h("org1"), Root: h("root")}}}, {Entries: []Entry{}, AllOf: &all, Restored: true}},
		Certificates: []Certificate{{Author: h("org1"), Root: h("root"), Receipts: []Receipt{r}}},
		Digests:      []Digest{{Through: Position{Block: 3, Log: 4}, Count: 5, Digest: h("digest")}},
	}
}

// controls are the types inside a Control, for comparison.
var controls = cmp.AllowUnexported(Control{}, Activation{}, EpochDefinition{}, ChangePolicy{}, Receipt{}, Vote{}, Entry{}, Certificate{}, Digest{}, Position{})

func TestControl(t *testing.T) {
	key, root, handles := Address{1}, h("root"), []Handle{{1}, {2}}
	c := testControl()
	sealed, err := testKeys.SealControl(c, key, 7, root, handles)
	if err != nil {
		t.Fatal(err)
	}
	got, err := testKeys.OpenControl(sealed, key, 7, root, handles)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got, controls); diff != "" {
		t.Error(diff)
	}

	// Protocol, the pin: key, n, root and handles are associated data.
	flip := bytes.Clone(sealed)
	flip[100] ^= 1
	for name, open := range map[string]func() (Control, error){
		"another key":     func() (Control, error) { return testKeys.OpenControl(sealed, Address{2}, 7, root, handles) },
		"another number":  func() (Control, error) { return testKeys.OpenControl(sealed, key, 8, root, handles) },
		"another root":    func() (Control, error) { return testKeys.OpenControl(sealed, key, 7, h("x"), handles) },
		"fewer handles":   func() (Control, error) { return testKeys.OpenControl(sealed, key, 7, root, handles[:1]) },
		"swapped handles": func() (Control, error) { return testKeys.OpenControl(sealed, key, 7, root, []Handle{{2}, {1}}) },
		"another epoch": func() (Control, error) {
			return NewEpochSecret(Hash{}).Keys().OpenControl(sealed, key, 7, root, handles)
		},
		"a changed byte": func() (Control, error) { return testKeys.OpenControl(flip, key, 7, root, handles) },
		"another size":   func() (Control, error) { return testKeys.OpenControl(sealed[:len(sealed)-1], key, 7, root, handles) },
		"nothing":        func() (Control, error) { return testKeys.OpenControl(nil, key, 7, root, handles) },
	} {
		if _, err := open(); err == nil {
			t.Errorf("%s: it opens", name)
		}
	}
}

// Protocol, the pin: a control is padded to fixed sizes.
func TestControlSizes(t *testing.T) {
	entries := func(n int) Control {
		return Control{Votes: []Vote{{Entries: make([]Entry, n)}}}
	}
	sizes := map[int]bool{}
	for _, size := range controlSizes {
		sizes[size] = true
	}
	used := map[int]bool{}
	for n := range 970 {
		sealed, err := testKeys.SealControl(entries(n), Address{1}, 1, Hash{}, nil)
		if err != nil {
			if n < 950 || !strings.Contains(err.Error(), "several pins") {
				t.Fatalf("%d entries: %v", n, err)
			}
			break
		}
		if !sizes[len(sealed)] {
			t.Fatalf("%d entries give %d bytes", n, len(sealed))
		}
		used[len(sealed)] = true
		if n%50 == 0 {
			if got, err := testKeys.OpenControl(sealed, Address{1}, 1, Hash{}, nil); err != nil || len(got.Votes[0].Entries) != n {
				t.Fatalf("%d entries: %v", n, err)
			}
		}
	}
	if len(used) != len(controlSizes) {
		t.Errorf("sizes used: %v", used)
	}
}

func FuzzOpenPayload(f *testing.F) {
	f.Add(sealPayload(f, nil))
	f.Add(sealPayload(f, []byte("plain")))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		// What was sealed comes back; anything else does not open, unless it is
		// exactly what was sealed.
		sealed := sealPayload(t, b)
		plain, err := testKeys.OpenPayload(h("author"), h("root"), sealed)
		if err != nil || !bytes.Equal(plain, b) {
			t.Fatalf("%x does not come back: %v", b, err)
		}
		if plain, err := testKeys.OpenPayload(h("author"), h("root"), b); err == nil && !bytes.Equal(sealPayload(t, plain), b) {
			t.Fatalf("%x opens but was never sealed", b)
		}
	})
}

func FuzzOpenControl(f *testing.F) {
	sealed, err := testKeys.SealControl(testControl(), Address{1}, 7, h("root"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed, uint64(7), []byte{})
	f.Add(make([]byte, 256), uint64(1), []byte{1})
	f.Fuzz(func(t *testing.T, b []byte, n uint64, handles []byte) {
		var hs []Handle
		for ; len(handles) >= 16; handles = handles[16:] {
			hs = append(hs, Handle(handles[:16]))
		}
		c, err := testKeys.OpenControl(b, Address{1}, n, h("root"), hs)
		if err != nil {
			return
		}
		again, err := testKeys.SealControl(c, Address{1}, n, h("root"), hs)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x opens but was never sealed (%v)", b, err)
		}
	})
}
