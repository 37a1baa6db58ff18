package wire

import (
	"crypto/sha256"
	"math/bits"
)

// The trees of this package have the shape and the hashing of RFC 9162 §2.1:
// leaf = SHA-256(0x00 ‖ entry), node = SHA-256(0x01 ‖ left ‖ right), and the left
// half of n > 1 entries holds the largest power of two below n. An entry is a
// 32-byte hash that already carries its domain.

func merkleLeaf(entry Hash) Hash {
	var b [1 + 32]byte
	copy(b[1:], entry[:])
	return sha256.Sum256(b[:])
}

func merkleNode(left, right Hash) Hash {
	var b [1 + 64]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}

// splitPoint is the largest power of two below n, for n > 1.
func splitPoint(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

// MerkleRoot is the root over the leaves. Of no leaf it is SHA-256 of nothing.
func MerkleRoot(leaves []Hash) Hash {
	switch n := len(leaves); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return merkleLeaf(leaves[0])
	default:
		k := splitPoint(n)
		return merkleNode(MerkleRoot(leaves[:k]), MerkleRoot(leaves[k:]))
	}
}

// MerkleProof is the inclusion path of leaf i, from the bottom up
// (RFC 9162 §2.1.3). It is nil if there is no leaf i or it is the only one.
func MerkleProof(leaves []Hash, i int) []Hash {
	n := len(leaves)
	if i < 0 || i >= n || n == 1 {
		return nil
	}
	k := splitPoint(n)
	if i < k {
		return append(MerkleProof(leaves[:k], i), MerkleRoot(leaves[k:]))
	}
	return append(MerkleProof(leaves[k:], i-k), MerkleRoot(leaves[:k]))
}

// VerifyMerkle reports whether leaf is number i of the n leaves under root.
// Every element of the proof must be used.
func VerifyMerkle(root, leaf Hash, i, n int, proof []Hash) bool {
	if i < 0 || i >= n || len(proof) > 64 {
		return false
	}
	got, ok := climb(merkleLeaf(leaf), i, n, proof)
	return ok && got == root
}

// climb folds the proof from its top end downwards: the last element is the
// sibling directly under the root.
func climb(leaf Hash, i, n int, proof []Hash) (Hash, bool) {
	if n == 1 {
		return leaf, len(proof) == 0
	}
	if len(proof) == 0 {
		return Hash{}, false
	}
	top, rest := proof[len(proof)-1], proof[:len(proof)-1]
	k := splitPoint(n)
	if i < k {
		left, ok := climb(leaf, i, k, rest)
		return merkleNode(left, top), ok
	}
	right, ok := climb(leaf, i-k, n-k, rest)
	return merkleNode(top, right), ok
}
