package wire

// ChunkHash is the hash of one chunk (1 MiB, the last may be shorter) of a
// binary attachment.
func ChunkHash(chunk []byte) Hash { return HashOf("parley/chunk", chunk) }

// BlobRoot is the Merkle root over the chunk hashes in order. A blob of no
// bytes has no chunk.
func BlobRoot(chunks []Hash) Hash { return MerkleRoot(chunks) }

// Commitment hides everything about the blob, its size included, behind the
// seed of the data item that it is attached to.
func (b BlobRef) Commitment(seed Hash) Hash {
	salt := macOf(seed, "parley/salt/blob")
	return HashOf("parley/blob", salt[:], be64(uint64(b.Size)), b.Root[:], b.Hash[:], []byte(b.Name), []byte(b.Path))
}
