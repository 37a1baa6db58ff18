package wire

import (
	"testing"
)

func TestInvitation(t *testing.T) {
	d, s := testEpoch()
	private, public, err := GenerateSealKey()
	if err != nil {
		t.Fatal(err)
	}
	open := func(sealed, info []byte) ([]byte, error) { return OpenSealed(private, info, sealed) }
	in, err := NewInvitation(d, s, public)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := in.Open(open); err != nil || got != s {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := NewInvitation(d, NewEpochSecret(Hash{}), public); err == nil {
		t.Error("an invitation with a secret that does not fit is made")
	}

	// A secret for another definition does not open, and nobody can hand
	// different secrets to different members.
	changed := in
	changed.Definition.Name = "other"
	if _, err := changed.Open(open); err == nil {
		t.Error("the secret opens under another definition")
	}
	info, err := d.Hash()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Marshal(NewEpochSecret(Hash{}))
	if err != nil {
		t.Fatal(err)
	}
	if in.Sealed, err = SealTo(public, info[:], plain); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Open(open); err == nil {
		t.Error("a secret that the definition does not commit to is accepted")
	}
	if in.Sealed, err = SealTo(public, info[:], append(plain, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Open(open); err == nil {
		t.Error("a secret with a trailing byte is accepted")
	}
	in.Definition.Members = nil
	if _, err := in.Open(open); err == nil {
		t.Error("an invalid definition is accepted")
	}
}

func testUnpinned() Unpinned {
	return Unpinned{
		Envelope: Envelope{Author: h("org1"), Audience: h("group"), Epoch: 1, Root: h("root"), Sealed: []byte("sealed")},
		Sequence: 2, Previous: h("previous"),
	}
}

func TestUnpinnedSignature(t *testing.T) {
	u, key := testUnpinned(), testKey("node")
	digest, err := u.Digest()
	if err != nil {
		t.Fatal(err)
	}
	u.Signature = SignDigest(key, digest)
	if got, err := u.Signer(); err != nil || got != AddressOf(key) {
		t.Errorf("got %s, %v", got, err)
	}
	seen := map[Hash]string{digest: "unchanged"}
	for name, change := range map[string]func(*Unpinned){
		"author": func(u *Unpinned) { u.Envelope.Author[0]++ }, "audience": func(u *Unpinned) { u.Envelope.Audience[0]++ },
		"epoch": func(u *Unpinned) { u.Envelope.Epoch++ }, "root": func(u *Unpinned) { u.Envelope.Root[0]++ },
		"sealed": func(u *Unpinned) { u.Envelope.Sealed = nil }, "sequence": func(u *Unpinned) { u.Sequence++ },
		"previous": func(u *Unpinned) { u.Previous[0]++ },
	} {
		changed := u
		change(&changed)
		d, err := changed.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if other, dup := seen[d]; dup {
			t.Errorf("%s: same digest as %s", name, other)
		}
		seen[d] = name
	}
}

// Text and database forms of the fixed-size types give the value back.
func TestTextAndColumns(t *testing.T) {
	sig := SignDigest(testKey("key"), h("digest"))
	text, err := sig.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var fromText, fromColumn Signature
	if err := fromText.UnmarshalText(text); err != nil || fromText != sig {
		t.Errorf("%s: %v", text, err)
	}
	value, err := sig.Value()
	if err != nil {
		t.Fatal(err)
	}
	if err := fromColumn.Scan(value); err != nil || fromColumn != sig {
		t.Error(err)
	}
	handle := Handle{1, 2}
	if value, err = handle.Value(); err != nil {
		t.Fatal(err)
	}
	var back Handle
	if err := back.Scan(value); err != nil || back != handle {
		t.Error(err)
	}
	if err := back.Scan("text"); err == nil {
		t.Error("a text column is accepted")
	}
}
