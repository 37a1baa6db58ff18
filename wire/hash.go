package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// HashOf is SHA-256 over the domain and the parts, each preceded by its length
// as 8 bytes, big endian. The domain names the kind of thing that is hashed, so
// that a hash of one kind can never be passed off as another.
func HashOf(domain string, parts ...[]byte) Hash {
	// Most inputs are small: one pass over a buffer on the stack.
	var small [512]byte
	size := 8 + len(domain)
	for _, p := range parts {
		size += 8 + len(p)
	}
	if size <= len(small) {
		return sha256.Sum256(appendFrames(small[:0], domain, parts))
	}
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(small[:0], uint64(len(domain))))
	h.Write([]byte(domain))
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(small[:0], uint64(len(p))))
		h.Write(p)
	}
	var out Hash
	h.Sum(out[:0])
	return out
}

// macOf is HMAC-SHA256 under key over the same framing as HashOf.
func macOf(key Hash, domain string, parts ...[]byte) Hash {
	var small [512]byte
	m := hmac.New(sha256.New, key[:])
	m.Write(appendFrames(small[:0], domain, parts))
	var out Hash
	m.Sum(out[:0])
	return out
}

func appendFrames(b []byte, domain string, parts [][]byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(domain)))
	b = append(b, domain...)
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

// hashValue is HashOf over the deterministic encoding of v.
func hashValue(domain string, v any) (Hash, error) {
	b, err := Marshal(v)
	if err != nil {
		return Hash{}, err
	}
	return HashOf(domain, b), nil
}

func be64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// NetworkID identifies a network: a contract on a chain.
func NetworkID(chainID uint64, contract Address) Hash {
	return HashOf("parley/network", be64(chainID), contract[:])
}

// OrgIDOf identifies an organisation on the ledger. Without the salt, which its
// members tell each other, a guess of the name cannot be tested.
func OrgIDOf(name string, salt Hash) OrgID {
	return HashOf("parley/organisation", []byte(name), salt[:])
}

// DefinitionHash is what messages name a definition by. body is canonical JSON.
func DefinitionHash(kind string, body []byte) Hash {
	return HashOf("parley/definition", []byte(kind), body)
}

// Hash is DefinitionHash of d.
func (d Definition) Hash() Hash { return DefinitionHash(d.Kind, d.Body) }
