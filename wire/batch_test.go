package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBatchSealAndOpen(t *testing.T) {
	for _, n := range []int{1, 2, 50, 500} {
		b := testBatch(t, n, 100)
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
		root, err := b.Root()
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		keys := EpochSecret{Secret: h("secret"), Topic: h("topic")}.Keys()
		sealed, err := keys.SealPayload(b.Header.Author, root, encoded)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := keys.OpenPayload(b.Header.Author, root, sealed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeBatch(opened)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := got.Root(); err != nil || again != root {
			t.Fatalf("root %s, want %s (%v)", again, root, err)
		}
		if err := got.Check(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b.Messages[0].Header, got.Messages[0].Header); diff != "" {
			t.Fatal(diff)
		}
	}
}
