// Recomputes wire/testdata/vectors.json, which the Go package commits.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { decode, encode } from './cbor.mjs'
import { fieldsOf } from './fields.mjs'
import * as wire from './wire.mjs'

const v = JSON.parse(readFileSync(new URL('../../wire/testdata/vectors.json', import.meta.url), 'utf8'))
const bin = (s) => Buffer.from(s.replace(/^0x/, ''), 'hex')
const hex = (b) => Buffer.from(b).toString('hex')
const address = (b) => '0x' + hex(b)
const keys = wire.epochKeys({ secret: bin(v.Epoch.Secret.Secret), topic: bin(v.Epoch.Secret.Topic) })

test('hashes', () => {
  for (const { Domain, Parts, Hash } of v.HashOf) assert.equal(hex(wire.hashOf(Domain, ...Parts.map(bin))), Hash)
  assert.equal(hex(wire.networkID(v.Network.ChainID, bin(v.Network.Contract))), v.Network.ID)
  assert.equal(hex(wire.orgIDOf(v.Org.Name, bin(v.Org.Salt))), v.Org.ID)
  assert.equal(hex(wire.definitionHash(v.Definition.Kind, v.Definition.Body)), v.Definition.Hash)
})

test('Merkle roots and proofs', () => {
  for (const { Leaves, Root, Proofs } of v.Merkle) {
    assert.equal(hex(wire.merkleRoot(Leaves.map(bin))), Root)
    assert.equal(Proofs.length, Leaves.length)
    Proofs.forEach((proof, i) => {
      assert.equal(hex(wire.merkleFold(bin(Leaves[i]), i, Leaves.length, proof.map(bin))), Root)
    })
  }
})

test('blobs', () => {
  assert.deepEqual(v.Blob.Chunks.map((c) => hex(wire.chunkHash(bin(c)))), v.Blob.Hashes)
  const ref = decode(bin(v.Blob.CBOR))
  assert.equal(hex(wire.merkleRoot(v.Blob.Hashes.map(bin))), hex(ref[1]))
  assert.equal(hex(wire.blobCommitment(ref, bin(v.Blob.Seed))), v.Blob.Commitment)
})

test('data items and field proofs', () => {
  for (const { CBOR, Commitment, Whole, Fields, Proof } of v.Items) {
    const item = decode(bin(CBOR))
    const got = wire.commitment(item)
    assert.equal(hex(got.commitment), Commitment)
    assert.deepEqual(
      got.fields.map((f) => ({ Path: hex(f.path), Text: hex(f.text), Salt: hex(wire.fieldSalt(item[1], f.path)) })),
      Fields.map((f) => ({ ...f, Path: hex(encode(f.Path)) })),
    )
    if (Fields.length > 0) {
      assert.equal(got.fields[0].whole, Whole)
      assert.equal(hex(wire.proofCommitment(decode(bin(Proof)))), Commitment)
    }
  }
})

test('values that are one leaf, or none', () => {
  const list = (n) => '[' + Array(n).fill('1').join(',') + ']'
  const nested = (n) => '['.repeat(n) + ']'.repeat(n)
  for (const value of [list(4097), nested(65), `{"${'k'.repeat(600)}":1}`, '1e400', '1e-400', '9007199254740993', '{"a":1,"\\u0061":1}']) {
    assert.equal(fieldsOf(Buffer.from(value))[0].whole, true, value.slice(0, 40))
  }
  assert.equal(fieldsOf(Buffer.from(list(4096))).length, 4096)
  for (const value of [nested(64), '1.7976931348623157e308', '5e-324', '9007199254740992', '0e999999999999']) {
    assert.equal(fieldsOf(Buffer.from(value))[0].whole, false, value.slice(0, 40))
  }
  for (const value of ['', '{', '01', '1 2', '[1,]', '\ufeff1', "'a'"]) assert.throws(() => fieldsOf(Buffer.from(value)), value)
})

test('batches', () => {
  const leaves = wire.batchLeaves(decode(bin(v.Batch.CBOR)))
  assert.deepEqual(leaves.map(hex), v.Batch.Leaves)
  assert.equal(hex(wire.merkleRoot(leaves)), v.Batch.Root)
  const encoded = bin(v.Batch.Encoded)
  assert.equal(encoded[0], 0)
  const [header, messages, data] = decode(encoded.subarray(1))
  assert.equal(hex(wire.orgIDOf(header[3], header[4])), hex(header[2]))
  assert.equal(hex(wire.commitment(data[0]).commitment), hex(messages[0][0][8][0]))
})

test('remnants', () => {
  const remnant = decode(bin(v.Remnant.CBOR))
  assert.deepEqual(wire.remnantLeaves(remnant).map(hex), v.Batch.Leaves)
  assert.equal(remnant[2].filter(([item]) => !item).length, 1)
  assert.equal(hex(wire.faultsHash(v.Remnant.Faults)), v.Remnant.FaultsHash)
  assert.equal(hex(wire.sealedHash(bin(v.Remnant.Sealed))), hex(remnant[5]))
  assert.equal(hex(wire.unpinnedDigestOf(bin(v.Unpinned.CBOR), remnant[5])), v.Remnant.Unpinned)
  assert.equal(v.Remnant.Unpinned, v.Unpinned.Digest)
})

test('epochs', () => {
  for (const [name, key] of Object.entries(keys)) {
    assert.equal(hex(key), v.Epoch.Keys[name[0].toUpperCase() + name.slice(1)], name)
  }
  const definition = decode(bin(v.Epoch.Definition))
  assert.equal(hex(wire.epochHash(bin(v.Epoch.Definition))), v.Epoch.Hash)
  assert.deepEqual(
    definition.slice(9, 14).map(hex),
    [keys.tag, keys.mask, keys.payload, keys.control, keys.topic].map((k) => hex(wire.keyCommitment(k))),
  )
})

test('pins', () => {
  const [key, root] = [bin(v.Pin.Key), bin(v.Pin.Root)]
  assert.equal(hex(wire.pinTag(keys, key, v.Pin.N)), v.Pin.Tag)
  v.Pin.Topics.forEach((topic, i) => {
    const context = wire.context(keys, topic)
    assert.equal(hex(context), v.Pin.Contexts[i])
    assert.equal(hex(wire.maskHandle(keys, key, v.Pin.N, root, i, context)), v.Pin.Handles[i])
  })
  for (const [part, name] of Object.entries(v.Objects)) assert.equal(wire.objectName(keys, bin(v.Batch.Root), part), name)
})

test('sealed payloads', () => {
  for (const { Length, Author, Root, Sealed, Size, Hash } of v.Payloads) {
    const plain = Buffer.from(Uint8Array.from({ length: Length }, (_, i) => i % 251))
    const sealed = wire.sealPayload(keys, bin(Author), bin(Root), plain)
    assert.equal(sealed.length, Size)
    assert.equal(hex(sealed.subarray(0, 1024)), Sealed)
    assert.equal(hex(wire.hashOf('parley/test', sealed)), Hash)
  }
})

test('sealed controls', () => {
  for (const { CBOR, Key, N, Root, Handles, Sealed } of v.Controls) {
    const pin = [bin(Key), N, bin(Root), Handles.map(bin)]
    assert.equal(hex(wire.openControl(keys, bin(Sealed), ...pin)), CBOR)
    assert.equal(hex(wire.sealControl(keys, bin(CBOR), ...pin)), Sealed)
    decode(bin(CBOR))
  }
})

test('signatures', () => {
  const { Private, Address, Digest, Signature } = v.Signature
  assert.equal(address(wire.addressOf(bin(Private))), Address)
  assert.equal(address(wire.signDigest(bin(Private), bin(Digest))), Signature)
  assert.equal(address(wire.recoverAddress(bin(Digest), bin(Signature))), Address)

  for (const [vector, digestOf] of [
    [v.Receipt, wire.receiptDigest], [v.Unpinned, wire.unpinnedDigest], [v.Erasure, wire.erasureDigest], [v.Answer, wire.answerDigest],
  ]) {
    const { digest, signature } = digestOf(bin(vector.CBOR))
    assert.equal(hex(digest), vector.Digest)
    assert.equal(address(wire.recoverAddress(digest, signature)), vector.Signer)
  }
})

test('pins carried by a custom contract', () => {
  const { ChainID, Contract, Caller, Expiry, CBOR, Digest } = v.CarriedPin
  assert.equal(hex(wire.carriedPinDigest(ChainID, bin(Contract), bin(Caller), Expiry, decode(bin(CBOR)))), Digest)
})
