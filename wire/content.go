package wire

import (
	"encoding/base32"
	"fmt"
	"strings"
)

// Published contents are known by a content identifier as IPFS and others use
// it: CIDv1 with the codec "raw" and the hash SHA2-256 of all bytes, written in
// the multibase "base32". It says which hash it is, and anybody who has the hash
// of a value or blob can write it down.

// cidPrefix are version, codec, hash function and length of the hash.
var cidPrefix = []byte{0x01, 0x55, 0x12, 0x20}

// base32Lower is RFC 4648 section 6 in lower case, without padding.
var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ContentID is the identifier of the content with a SHA-256.
func ContentID(sha256 Hash) string {
	return "b" + base32Lower.EncodeToString(append(cidPrefix[:len(cidPrefix):len(cidPrefix)], sha256[:]...))
}

// ParseContentID gives the SHA-256 that an identifier of the form of ContentID
// names. Each content has exactly one such identifier.
func ParseContentID(id string) (sha256 Hash, err error) {
	text, ok := strings.CutPrefix(id, "b")
	if !ok {
		return sha256, fmt.Errorf("content identifier %q is not in base32: it begins with b", id)
	}
	b, err := base32Lower.DecodeString(text)
	if err != nil {
		return sha256, fmt.Errorf("content identifier %q is not in base32: %w", id, err)
	}
	if len(b) != len(cidPrefix)+len(sha256) || string(b[:len(cidPrefix)]) != string(cidPrefix) {
		return sha256, fmt.Errorf("content identifier %q is not a CIDv1 of raw bytes with SHA2-256", id)
	}
	copy(sha256[:], b[len(cidPrefix):])
	if ContentID(sha256) != id { // other bits in the last, incomplete digit
		return sha256, fmt.Errorf("content identifier %q has a last digit that nothing encodes to", id)
	}
	return sha256, nil
}
