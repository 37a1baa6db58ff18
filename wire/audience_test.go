package wire

import (
	"slices"
	"strings"
	"testing"
)

// testEpoch is a valid epoch 1 of a group with its secret.
func testEpoch() (EpochDefinition, EpochSecret) {
	s := EpochSecret{Secret: h("secret"), Topic: h("topic")}
	members := []OrgID{h("org1"), h("org2"), h("org3")}
	slices.SortFunc(members, compareHash)
	d := EpochDefinition{
		Network: h("network"), Epoch: 1, Proposer: h("org1"), Name: "group", Members: members,
		History: "all", Created: 1_700_000_000_000_000_000, Salt: h("salt"),
	}
	d.Commit(s.Keys())
	return d, s
}

// Protocol, audience secrets: the topic key is constant for the audience, so
// that contexts outlive epochs; all else changes.
func TestContextsOutliveEpochs(t *testing.T) {
	first := NewEpochSecret(Hash{})
	second := NewEpochSecret(first.Topic)
	a, b := first.Keys(), second.Keys()
	if a.Topic != b.Topic || a.Context("orders") != b.Context("orders") {
		t.Error("the context of a topic changes with the epoch")
	}
	if a.Tag == b.Tag || a.Mask == b.Mask || a.Payload == b.Payload || a.Control == b.Control {
		t.Error("a key survives the epoch")
	}
	if other := NewEpochSecret(Hash{}); other.Topic == first.Topic || other.Secret == first.Secret || other.Topic.IsZero() || other.Secret.IsZero() {
		t.Error("secrets are not random")
	}
	seen := map[Hash]bool{}
	for _, k := range []Hash{a.Tag, a.Mask, a.Payload, a.Control, a.Topic, first.Secret, first.Topic} {
		if seen[k] {
			t.Error("two keys are equal")
		}
		seen[k] = true
	}
}

// Protocol, audience secrets: the definition commits to each derived key
// separately.
func TestEpochCommitsToEachKey(t *testing.T) {
	d, s := testEpoch()
	if err := d.CheckKeys(s.Keys()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Keys){
		"tag": func(k *Keys) { k.Tag[0] ^= 1 }, "mask": func(k *Keys) { k.Mask[0] ^= 1 }, "payload": func(k *Keys) { k.Payload[0] ^= 1 },
		"control": func(k *Keys) { k.Control[0] ^= 1 }, "topic": func(k *Keys) { k.Topic[0] ^= 1 },
	} {
		k := s.Keys()
		change(&k)
		if err := d.CheckKeys(k); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("another %s key: %v", name, err)
		}
	}
}

func TestAudienceID(t *testing.T) {
	d, _ := testEpoch()
	hash, err := d.Hash()
	if err != nil {
		t.Fatal(err)
	}
	if id, err := d.AudienceID(); err != nil || id != hash {
		t.Errorf("a group is %s, want the hash of its first definition (%v)", id, err)
	}
	d.Audience = h("audience")
	if id, err := d.AudienceID(); err != nil || id != h("audience") {
		t.Errorf("got %s, %v", id, err)
	}
	d.Audience, d.Epoch = Hash{}, 2
	if _, err := d.AudienceID(); err == nil {
		t.Error("a later epoch without an audience is accepted")
	}
}

func TestEpochCheck(t *testing.T) {
	for _, c := range []struct {
		want   string // of the error, empty for none
		change func(*EpochDefinition)
	}{
		{"", func(*EpochDefinition) {}},
		{"", func(d *EpochDefinition) { d.Audience = d.Network }},
		{"", func(d *EpochDefinition) { d.Epoch, d.Audience, d.Previous = 2, h("group"), h("previous") }},
		{"", func(d *EpochDefinition) { d.Members = []OrgID{d.Proposer} }},
		{"network", func(d *EpochDefinition) { d.Network = Hash{} }},
		{"epoch is 0", func(d *EpochDefinition) { d.Epoch = 0 }},
		{"previous", func(d *EpochDefinition) { d.Previous = h("x") }},
		{"previous is missing", func(d *EpochDefinition) { d.Epoch, d.Audience = 2, h("group") }},
		{"audience is missing", func(d *EpochDefinition) { d.Epoch, d.Previous = 2, h("x") }},
		{"audience", func(d *EpochDefinition) { d.Audience = h("x") }},
		{"257 bytes", func(d *EpochDefinition) { d.Name = strings.Repeat("a", 257) }},
		{"UTF-8", func(d *EpochDefinition) { d.Name = "\xff" }},
		{"0 members", func(d *EpochDefinition) { d.Members = nil }},
		{"4097 members", func(d *EpochDefinition) { d.Members = make([]OrgID, 4097) }},
		{"approvals", func(d *EpochDefinition) { d.Policy.Approvals = 4 }},
		{"history", func(d *EpochDefinition) { d.History = "some" }},
		{"salt", func(d *EpochDefinition) { d.Salt = Hash{} }},
		{"is zero", func(d *EpochDefinition) { d.Members[0] = Hash{} }},
		{"ascending", func(d *EpochDefinition) { slices.Reverse(d.Members) }},
		{"ascending", func(d *EpochDefinition) { d.Members[1] = d.Members[0] }},
		{"proposer", func(d *EpochDefinition) { d.Proposer = h("org9") }},
		{"tag key", func(d *EpochDefinition) { d.Tag = Hash{} }},
		{"topic key", func(d *EpochDefinition) { d.Topic = Hash{} }},
	} {
		d, _ := testEpoch()
		c.change(&d)
		err := d.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("want an error about %q, got %v", c.want, err)
		}
	}
	d, _ := testEpoch()
	if !d.Has(h("org2")) || d.Has(h("org9")) {
		t.Error("Has is wrong")
	}
}

// Protocol, the pin: every pin of every key has another tag and other handles,
// also for the same topic; members can take the mask off.
func TestPinsCannotBeLinked(t *testing.T) {
	_, s := testEpoch()
	k := s.Keys()
	topic := k.Context("orders")
	tags, handles := map[Tag]bool{}, map[Handle]bool{}
	for _, key := range []Address{{1}, {2}} {
		for n := range uint64(3) {
			tag := k.PinTag(key, n)
			if tags[tag] {
				t.Error("a tag repeats")
			}
			tags[tag] = true
			for _, root := range []Hash{h("root1"), h("root2")} {
				for i := range 3 {
					handle := k.MaskHandle(key, n, root, i, topic)
					if handles[handle] {
						t.Error("a handle repeats")
					}
					handles[handle] = true
					if k.UnmaskHandle(key, n, root, i, handle) != topic {
						t.Error("the mask does not come off")
					}
				}
			}
		}
	}
}

func TestObjectNames(t *testing.T) {
	_, s := testEpoch()
	k, other := s.Keys(), NewEpochSecret(Hash{}).Keys()
	name := k.ObjectName(h("root"), "batch")
	if len(name) != 64 || name == k.ObjectName(h("root"), "certificate") || name == k.ObjectName(h("x"), "batch") || name == other.ObjectName(h("root"), "batch") {
		t.Errorf("name %s depends on too little", name)
	}
}
