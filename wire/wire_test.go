package wire

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/uuid"
)

// h is a hash that tests can tell apart.
func h(seed string) Hash { return HashOf("test", []byte(seed)) }

func id(seed string) UUID {
	u := h(seed)
	return uuid.UUID(u[:16])
}

// testBatch is a valid batch of n messages with one value of size bytes each.
// It depends only on its arguments.
func testBatch(tb testing.TB, n, size int) *Batch {
	tb.Helper()
	b := &Batch{Header: BatchHeader{
		Version: Version, Network: NetworkID(2021, Address{1}), AuthorName: "org1", AuthorSalt: h("org salt"),
		Author: OrgIDOf("org1", h("org salt")), Node: id("node"), Audience: h("group"), Epoch: 1,
		ID: id("batch"), Created: 1_700_000_000_000_000_000, Salt: h("batch salt"),
	}}
	for i := range n {
		s := fmt.Sprint(i)
		value := fmt.Appendf(nil, `{"number":%d,"text":"`, i)
		if pad := size - len(value) - 2; pad > 0 {
			value = append(value, bytes.Repeat([]byte{'a' + byte(i%26)}, pad)...)
		}
		item := DataItem{ID: id("data" + s), Seed: h("seed" + s), Validator: "json", Value: append(value, `"}`...)}
		c, err := item.Commitment()
		if err != nil {
			tb.Fatal(err)
		}
		b.Data = append(b.Data, item)
		b.Messages = append(b.Messages, Message{Data: []uint32{uint32(i)}, Header: MessageHeader{
			ID: id("message" + s), Type: "private", Author: "did:firefly:org/org1", Key: Address{7}.String(),
			Created: 1_700_000_000_000_000_000, Topics: []string{"topic" + fmt.Sprint(i%7)}, Tag: "order",
			Data: []Hash{c}, Salt: h("salt" + s),
		}})
	}
	return b
}

func BenchmarkSealBatch(b *testing.B) {
	batch := testBatch(b, 500, 100)
	keys := EpochSecret{Secret: h("secret"), Topic: h("topic")}.Keys()
	b.ReportAllocs()
	for b.Loop() {
		leaves, err := batch.CheckedLeaves()
		if err != nil {
			b.Fatal(err)
		}
		encoded, err := batch.Encode()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := keys.SealPayload(batch.Header.Author, MerkleRoot(leaves), encoded); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(500*b.N)/b.Elapsed().Seconds(), "messages/s")
}

func BenchmarkOpenBatch(b *testing.B) {
	batch := testBatch(b, 500, 100)
	keys := EpochSecret{Secret: h("secret"), Topic: h("topic")}.Keys()
	root, err := batch.Root()
	if err != nil {
		b.Fatal(err)
	}
	encoded, err := batch.Encode()
	if err != nil {
		b.Fatal(err)
	}
	sealed, err := keys.SealPayload(batch.Header.Author, root, encoded)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		plain, err := keys.OpenPayload(batch.Header.Author, root, sealed)
		if err != nil {
			b.Fatal(err)
		}
		got, err := DecodeBatch(plain)
		if err != nil {
			b.Fatal(err)
		}
		leaves, err := got.CheckedLeaves()
		if err != nil {
			b.Fatal(err)
		}
		if MerkleRoot(leaves) != root {
			b.Fatal("another root")
		}
	}
	b.ReportMetric(float64(500*b.N)/b.Elapsed().Seconds(), "messages/s")
}
