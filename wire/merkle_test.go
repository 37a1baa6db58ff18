package wire

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func testLeaves(n int) []Hash {
	leaves := make([]Hash, n)
	for i := range leaves {
		leaves[i] = h(fmt.Sprint("leaf", i))
	}
	return leaves
}

// The root by another way: a stack of complete subtrees, as a log appends.
func appendedRoot(leaves []Hash) Hash {
	if len(leaves) == 0 {
		return sha256.Sum256(nil)
	}
	var stack []Hash
	for i, l := range leaves {
		stack = append(stack, sha256.Sum256(append([]byte{0}, l[:]...)))
		for n := i + 1; n%2 == 0; n /= 2 {
			k := len(stack)
			stack = append(stack[:k-2], sha256.Sum256(slices.Concat([]byte{1}, stack[k-2][:], stack[k-1][:])))
		}
	}
	for len(stack) > 1 {
		k := len(stack)
		stack = append(stack[:k-2], sha256.Sum256(slices.Concat([]byte{1}, stack[k-2][:], stack[k-1][:])))
	}
	return stack[0]
}

func TestMerkleRootIsRFC9162(t *testing.T) {
	for n := range 70 {
		if got, want := MerkleRoot(testLeaves(n)), appendedRoot(testLeaves(n)); got != want {
			t.Errorf("%d leaves: %s, want %s", n, got, want)
		}
	}
}

func TestMerkleProofs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		i := rapid.IntRange(0, n-1).Draw(t, "i")
		leaves := testLeaves(n)
		root, proof := MerkleRoot(leaves), MerkleProof(leaves, i)
		if !VerifyMerkle(root, leaves[i], i, n, proof) {
			t.Fatal("a true proof is refused")
		}
		if VerifyMerkle(root, h("another"), i, n, proof) {
			t.Fatal("proves another leaf")
		}
		if j := rapid.IntRange(0, n-1).Draw(t, "j"); j != i && VerifyMerkle(root, leaves[i], j, n, proof) {
			t.Fatal("proves another place")
		}
		if len(proof) > 0 {
			k := rapid.IntRange(0, len(proof)-1).Draw(t, "k")
			bad := slices.Clone(proof)
			bad[k][5] ^= 1
			if VerifyMerkle(root, leaves[i], i, n, bad) {
				t.Fatal("an altered proof is accepted")
			}
			if VerifyMerkle(root, leaves[i], i, n, proof[:len(proof)-1]) {
				t.Fatal("a shorter proof is accepted")
			}
		}
		if VerifyMerkle(root, leaves[i], i, n, append(slices.Clone(proof), Hash{})) {
			t.Fatal("a longer proof is accepted")
		}
	})
}

func TestMerkleRefusesOutside(t *testing.T) {
	leaves := testLeaves(3)
	root := MerkleRoot(leaves)
	if MerkleProof(leaves, 3) != nil || MerkleProof(leaves, -1) != nil || MerkleProof(nil, 0) != nil {
		t.Error("a proof for a leaf that is not there")
	}
	if VerifyMerkle(root, leaves[0], 3, 3, nil) || VerifyMerkle(root, leaves[0], -1, 3, nil) || VerifyMerkle(root, leaves[0], 0, 0, nil) {
		t.Error("a place outside is accepted")
	}
}

// A node of the tree cannot be passed off as a leaf, nor a hash of one domain
// as one of another.
func TestDomainsAreSeparate(t *testing.T) {
	leaves := testLeaves(4)
	node := merkleNode(merkleLeaf(leaves[0]), merkleLeaf(leaves[1]))
	if VerifyMerkle(MerkleRoot(leaves), node, 0, 2, []Hash{merkleNode(merkleLeaf(leaves[2]), merkleLeaf(leaves[3]))}) {
		t.Error("an inner node is accepted as a leaf")
	}
	if HashOf("a", []byte("b")) == HashOf("ab") || HashOf("a", []byte("b"), []byte("c")) == HashOf("a", []byte("bc")) {
		t.Error("framing does not separate parts")
	}
	if HashOf("a", make([]byte, 1000)) == HashOf("b", make([]byte, 1000)) {
		t.Error("the domain is not hashed")
	}
	if got, want := HashOf("x", make([]byte, 600)), Hash(sha256.Sum256(appendFrames(nil, "x", [][]byte{make([]byte, 600)}))); got != want {
		t.Error("long and short inputs are hashed in different ways")
	}
}
