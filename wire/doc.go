// Package wire is what two nodes must agree on byte for byte: messages,
// batches, pins, groups and receipts; how they are encoded, hashed, sealed and
// signed. It imports nothing else of this module, so that a stranger's verifier
// needs only this package.
//
// # Encoding
//
// A structure is a CBOR array of its fields in order, in the deterministic form
// of RFC 8949 §4.2.1; fixed-size types are byte strings; a list that is absent
// is an empty one. A decoder accepts exactly what the encoder makes.
//
// # Hashing
//
// H(domain, parts…) is SHA-256 over the domain and the parts, each preceded by
// its length in 8 bytes; M(key, domain, parts…) is HMAC-SHA256 over the same.
// Numbers are 8 bytes, big endian. ‖ is concatenation, cbor(x) the encoding.
//
//	network id       H("parley/network", chain id, contract)
//	organisation id  H("parley/organisation", name, salt)
//	definition hash  H("parley/definition", kind, body)
//	batch leaf 0     H("parley/batch", cbor(header))
//	message hash     H("parley/message", cbor(header))
//	epoch hash       H("parley/epoch", cbor(definition))
//	key commitment   H("parley/key", key)
//	receipt digest   H("parley/receipt", cbor(all fields but the signature))
//	sealed hash      H("parley/sealed", sealed)
//	unpinned digest  H("parley/unpinned", cbor([author, audience, epoch, root, sequence, previous]), sealed hash)
//	faults hash      H("parley/faults", cbor(indices)), zero of none
//	erasure digest   H("parley/erasure", cbor(all fields but the signature))
//	answer digest    H("parley/erasure answer", cbor(all fields but the signature))
//	chunk hash       H("parley/chunk", bytes)
//
// Trees are those of RFC 9162, over these 32-byte hashes as entries.
//
// # Data items
//
// The commitment is H("parley/data", head, fields, exact, blob), where a part
// that the item does not have is zero:
//
//	head    H("parley/item", M(seed, "parley/salt/item"), cbor([id, validator, datatype]))
//	fields  tree over the leaves of the value, by ascending encoded path
//	leaf    H("parley/field", M(seed, "parley/salt/field", path), path, RFC 8785 text)
//	exact   H("parley/exact", M(seed, "parley/salt/exact"), bytes of the value)
//	blob    H("parley/blob", M(seed, "parley/salt/blob"), size, root, hash, name, path)
//
// path is a CBOR array of texts and indices. Empty objects and arrays are
// leaves. The value is one leaf H("parley/whole", salt, path [], bytes) if it has
// duplicate keys, invalid UTF-8 (lone surrogates too), a number whose decimal
// value is not that of its RFC 8785 text, more than 4,096 leaves, a nesting of
// more than 64 levels or an encoded path of more than 512 bytes.
//
// # Keys and pins
//
// Keys are HKDF-SHA256 without salt: of the epoch's secret with the labels
// "parley/key/tag", "…/mask", "…/payload" and "…/control", of the audience's
// topic secret with "parley/key/topic".
//
//	tag          M(tag, "parley/tag", key, n), first 16 bytes
//	context      M(topic, "parley/context", name), first 16 bytes
//	handle i     context XOR first 16 bytes of M(mask, "parley/handle", key, n, root, i)
//	object name  M(payload, "parley/object", root, part) in hex
//
// # Sealing
//
// A sealed payload is salt ‖ chunks: AES-256-GCM over 64 KiB each, with the nonce
// 7 zero bytes ‖ 4 bytes chunk number ‖ 1 for the last chunk, else 0, under
// HKDF(payload, salt, "parley/seal/payload" ‖ author ‖ root). A sealed control is
// salt ‖ one such chunk (number 0, last) under HKDF(control, salt,
// "parley/seal/control"), with the associated data key ‖ n ‖ root ‖ handles; its
// plaintext is 4 bytes length ‖ cbor(control) ‖ zeros, so that the whole has 256,
// 1,024, 4,096, 16,384 or 65,536 bytes. A salt is the first 16 bytes of
//
//	payload  M(payload, "parley/salt/payload", author ‖ root, H("parley/payload", plaintext))
//	control  M(control, "parley/salt/control", associated data, plaintext)
//
// testdata/vectors.json has an example of everything; e2e/wire is a second
// implementation of this text.
package wire
