// The protocol's hashing, sealing and signing, written from its description and
// apart from the Go code. Binary values are Uint8Array.

import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync } from 'node:crypto'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { keccak_256 } from '@noble/hashes/sha3.js'
import { decode, encode } from './cbor.mjs'
import { fieldsOf } from './fields.mjs'

const ZERO = Buffer.alloc(32)
const sha256 = (...parts) => createHash('sha256').update(Buffer.concat(parts)).digest()
const keccak = (...parts) => Buffer.from(keccak_256(Buffer.concat(parts)))

export function be64(n) {
  const b = Buffer.alloc(8)
  b.writeBigUInt64BE(BigInt(n))
  return b
}

const frames = (domain, parts) =>
  Buffer.concat([Buffer.from(domain), ...parts].flatMap((p) => [be64(p.length), p]))

export const hashOf = (domain, ...parts) => sha256(frames(domain, parts))
export const macOf = (key, domain, ...parts) => createHmac('sha256', key).update(frames(domain, parts)).digest()

export const networkID = (chainID, contract) => hashOf('parley/network', be64(chainID), contract)
export const orgIDOf = (name, salt) => hashOf('parley/organisation', Buffer.from(name), salt)
export const definitionHash = (kind, body) => hashOf('parley/definition', Buffer.from(kind), Buffer.from(body))

// Merkle trees, RFC 9162.

const merkleLeaf = (h) => sha256(Buffer.of(0), h)
const merkleNode = (l, r) => sha256(Buffer.of(1), l, r)
const split = (n) => 2 ** Math.ceil(Math.log2(n) - 1)

export function merkleRoot(leaves) {
  if (leaves.length === 0) return sha256()
  if (leaves.length === 1) return merkleLeaf(leaves[0])
  const k = split(leaves.length)
  return merkleNode(merkleRoot(leaves.slice(0, k)), merkleRoot(leaves.slice(k)))
}

/** The root that a proof leads to (the algorithm of RFC 9162 §2.1.3.2). */
export function merkleFold(leaf, index, count, proof) {
  let fn = index
  let sn = count - 1
  let r = merkleLeaf(leaf)
  for (const p of proof) {
    if (sn === 0) throw new RangeError('proof is too long')
    if (fn % 2 === 1 || fn === sn) {
      r = merkleNode(p, r)
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [fn >> 1, sn >> 1]
    } else {
      r = merkleNode(r, p)
    }
    ;[fn, sn] = [fn >> 1, sn >> 1]
  }
  if (sn !== 0) throw new RangeError('proof is too short')
  return r
}

// Data items.

export const chunkHash = (chunk) => hashOf('parley/chunk', chunk)

/** @param {unknown[]} ref a decoded BlobRef */
export function blobCommitment([size, root, hash, name, path], seed) {
  const salt = macOf(seed, 'parley/salt/blob')
  return hashOf('parley/blob', salt, be64(size), root, hash, Buffer.from(name), Buffer.from(path))
}

export const fieldSalt = (seed, path) => macOf(seed, 'parley/salt/field', path)
const fieldHash = (salt, { path, text, whole }) => hashOf(whole ? 'parley/whole' : 'parley/field', salt, path, text)
const itemCommitment = (parts) => hashOf('parley/data', ...parts)

/** @param {unknown[]} item a decoded DataItem */
export function commitment([id, seed, validator, datatype, value, blob]) {
  const head = hashOf('parley/item', macOf(seed, 'parley/salt/item'), encode([id, validator, datatype]))
  let fields = []
  let root = ZERO
  let exact = ZERO
  if (value.length > 0) {
    fields = fieldsOf(value)
    root = merkleRoot(fields.map((f) => fieldHash(fieldSalt(seed, f.path), f)))
    exact = hashOf('parley/exact', macOf(seed, 'parley/salt/exact'), value)
  }
  return { fields, commitment: itemCommitment([head, root, exact, blob ? blobCommitment(blob, seed) : ZERO]) }
}

/** The commitment that a decoded FieldProof leads to. */
export function proofCommitment([path, whole, value, salt, index, count, proof, head, exact, blob]) {
  const leaf = fieldHash(salt, { path: encode(path), text: value, whole })
  return itemCommitment([head, merkleFold(leaf, Number(index), Number(count), proof), exact, blob])
}

// Batches.

/** @param {unknown[]} batch a decoded Batch */
export const batchLeaves = ([header, messages]) => [
  hashOf('parley/batch', encode(header)),
  ...messages.map(([messageHeader]) => hashOf('parley/message', encode(messageHeader))),
]

// Audience keys.

const derive = (secret, salt, info) => Buffer.from(hkdfSync('sha256', secret, salt, info, 32))

export function epochKeys({ secret, topic }) {
  const of = (from, label) => derive(from, Buffer.alloc(0), Buffer.from('parley/key/' + label))
  return {
    tag: of(secret, 'tag'), mask: of(secret, 'mask'), payload: of(secret, 'payload'),
    control: of(secret, 'control'), topic: of(topic, 'topic'),
  }
}

export const keyCommitment = (key) => hashOf('parley/key', key)
export const epochHash = (definition) => hashOf('parley/epoch', definition)
export const pinTag = (keys, key, n) => macOf(keys.tag, 'parley/tag', key, be64(n)).subarray(0, 16)
export const context = (keys, topic) => macOf(keys.topic, 'parley/context', Buffer.from(topic)).subarray(0, 16)
export const objectName = (keys, root, part) => macOf(keys.payload, 'parley/object', root, Buffer.from(part)).toString('hex')

export function maskHandle(keys, key, n, root, i, contextID) {
  const mask = macOf(keys.mask, 'parley/handle', key, be64(n), root, be64(i))
  return Buffer.from(contextID.map((b, j) => b ^ mask[j]))
}

// Sealing.

const SALT = 16
const CHUNK = 64 * 1024
const GCM_TAG = 16

const nonce = (i, last) => {
  const b = Buffer.alloc(12)
  b.writeUInt32BE(i, 7)
  b[11] = last ? 1 : 0
  return b
}

function gcmSeal(key, iv, plain, bound) {
  const c = createCipheriv('aes-256-gcm', key, iv).setAAD(bound)
  return Buffer.concat([c.update(plain), c.final(), c.getAuthTag()])
}

function gcmOpen(key, iv, sealed, bound) {
  const c = createDecipheriv('aes-256-gcm', key, iv).setAAD(bound)
  c.setAuthTag(sealed.subarray(-GCM_TAG))
  return Buffer.concat([c.update(sealed.subarray(0, -GCM_TAG)), c.final()])
}

export function sealPayload(keys, author, root, plain) {
  const bound = Buffer.concat([author, root])
  const salt = macOf(keys.payload, 'parley/salt/payload', bound, hashOf('parley/payload', plain)).subarray(0, SALT)
  const key = derive(keys.payload, salt, Buffer.concat([Buffer.from('parley/seal/payload'), bound]))
  const count = Math.max(1, Math.ceil(plain.length / CHUNK))
  const out = [salt]
  for (let i = 0; i < count; i++) {
    out.push(gcmSeal(key, nonce(i, i === count - 1), plain.subarray(i * CHUNK, (i + 1) * CHUNK), Buffer.alloc(0)))
  }
  return Buffer.concat(out)
}

export function openControl(keys, sealed, key, n, root, handles) {
  const bound = Buffer.concat([key, be64(n), root, ...handles])
  const seal = derive(keys.control, sealed.subarray(0, SALT), Buffer.from('parley/seal/control'))
  const plain = gcmOpen(seal, nonce(0, true), sealed.subarray(SALT), bound)
  const size = plain.readUInt32BE(0)
  if (plain.subarray(4 + size).some((b) => b !== 0)) throw new RangeError('padding is not zero')
  return plain.subarray(4, 4 + size)
}

export function sealControl(keys, encoded, key, n, root, handles) {
  const bound = Buffer.concat([key, be64(n), root, ...handles])
  const size = [256, 1024, 4096, 16384, 65536].find((s) => encoded.length + SALT + 4 + GCM_TAG <= s)
  const plain = Buffer.alloc(size - SALT - GCM_TAG)
  plain.writeUInt32BE(encoded.length)
  encoded.copy(plain, 4)
  const salt = macOf(keys.control, 'parley/salt/control', bound, plain).subarray(0, SALT)
  const seal = derive(keys.control, salt, Buffer.from('parley/seal/control'))
  return Buffer.concat([salt, gcmSeal(seal, nonce(0, true), plain, bound)])
}

// Signatures.

const addressOfPoint = (uncompressed) => keccak(uncompressed.subarray(1)).subarray(12)

export const addressOf = (priv) => addressOfPoint(Buffer.from(secp256k1.getPublicKey(priv, false)))

/** r ‖ s ‖ v, deterministic (RFC 6979), low s. */
export function signDigest(priv, digest) {
  const sig = secp256k1.sign(digest, priv, { prehash: false, lowS: true, format: 'recovered' })
  return Buffer.from([...sig.subarray(1), sig[0]])
}

export function recoverAddress(digest, sig) {
  const recovered = Buffer.from([sig[64], ...sig.subarray(0, 64)])
  const signature = secp256k1.Signature.fromBytes(recovered, 'recovered')
  if (sig[64] > 1 || signature.hasHighS()) throw new RangeError('v or s out of range')
  return addressOfPoint(Buffer.from(signature.recoverPublicKey(digest).toBytes(false)))
}

/** @param {Uint8Array} cbor a Receipt */
export function receiptDigest(cbor) {
  const fields = decode(cbor)
  return { digest: hashOf('parley/receipt', encode(fields.slice(0, -1))), signature: fields.at(-1) }
}

/** @param {Uint8Array} cbor an Unpinned */
export function unpinnedDigest(cbor) {
  const [[, , , , sealed], , , signature] = decode(cbor)
  return { digest: unpinnedDigestOf(cbor, sealedHash(sealed)), signature }
}

export const sealedHash = (sealed) => hashOf('parley/sealed', sealed)

/** The same where only the hash of the sealed bytes is left. */
export function unpinnedDigestOf(cbor, hash) {
  const [[author, audience, epoch, root], sequence, previous] = decode(cbor)
  return hashOf('parley/unpinned', encode([author, audience, epoch, root, sequence, previous]), hash)
}

// Erasure.

export const faultsHash = (indices) => (indices.length === 0 ? ZERO : hashOf('parley/faults', encode(indices)))

/** @param {Uint8Array} cbor an Erasure */
export const erasureDigest = (cbor) => signedDigest('parley/erasure', cbor)

/** @param {Uint8Array} cbor an ErasureAnswer */
export const answerDigest = (cbor) => signedDigest('parley/erasure answer', cbor)

function signedDigest(domain, cbor) {
  const fields = decode(cbor)
  return { digest: hashOf(domain, encode(fields.slice(0, -1))), signature: fields.at(-1) }
}

/** The leaves of a decoded Remnant. An item that is kept must be what the messages commit to. */
export function remnantLeaves([header, messages, data]) {
  const commitments = data.map(([item, erased]) => (item ? commitment(item).commitment : erased[1]))
  for (const [messageHeader, items] of messages) {
    items.forEach((at, i) => {
      if (!commitments[Number(at)].equals(messageHeader[8][i])) throw new RangeError('an item is not what its message commits to')
    })
  }
  return batchLeaves([header, messages])
}

const word = (b) => Buffer.concat([Buffer.alloc(32 - b.length), b])
const typeHash = (s) => keccak(Buffer.from(s))

/** EIP-712. @param {unknown[]} pin a decoded Pin */
export function carriedPinDigest(chainID, contract, caller, expiry, [root, tag, handles, control]) {
  const domain = keccak(
    typeHash('EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)'),
    typeHash('Parley'), typeHash('1'), word(be64(chainID)), word(contract),
  )
  const pin = keccak(
    typeHash('CarriedPin(bytes32 root,bytes16 tag,bytes32 handles,bytes32 control,address caller,uint64 expiry)'),
    root, Buffer.concat([tag, Buffer.alloc(16)]), keccak(...handles), keccak(control), word(caller), word(be64(expiry)),
  )
  return keccak(Buffer.of(0x19, 0x01), domain, pin)
}
