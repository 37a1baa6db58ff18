// Deterministic CBOR (RFC 8949 §4.2.1), as far as the protocol needs it:
// unsigned and negative integers, byte and text strings, arrays, true, false
// and null. Integers are BigInt, byte strings Uint8Array.

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The initial bytes of an item in their shortest form. */
function head(major, n) {
  n = BigInt(n)
  const size = n < 24n ? 0 : n < 0x100n ? 1 : n < 0x10000n ? 2 : n < 0x100000000n ? 4 : 8
  const info = { 0: Number(n), 1: 24, 2: 25, 4: 26, 8: 27 }[size]
  const out = Buffer.alloc(1 + size)
  out[0] = (major << 5) | info
  for (let i = size; i > 0; i--, n >>= 8n) out[i] = Number(n & 0xffn)
  return out
}

/** @param {unknown} v @returns {Buffer} */
export function encode(v) {
  if (v === null) return Buffer.of(0xf6)
  if (v === true) return Buffer.of(0xf5)
  if (v === false) return Buffer.of(0xf4)
  if (typeof v === 'number' && Number.isSafeInteger(v)) v = BigInt(v)
  if (typeof v === 'bigint') return v >= 0n ? head(0, v) : head(1, -1n - v)
  if (typeof v === 'string') return Buffer.concat([head(3, Buffer.byteLength(v)), Buffer.from(v)])
  if (v instanceof Uint8Array) return Buffer.concat([head(2, v.length), v])
  if (Array.isArray(v)) return Buffer.concat([head(4, v.length), ...v.map(encode)])
  throw new TypeError(`cannot encode ${typeof v}`)
}

/**
 * Decodes one value and refuses whatever encode would not give back.
 * @param {Uint8Array} bytes
 */
export function decode(bytes) {
  const b = Buffer.from(bytes)
  let at = 0
  const take = (n) => {
    if (at + n > b.length) throw new RangeError(`cut off at byte ${at}`)
    return b.subarray(at, (at += n))
  }
  const item = () => {
    const first = take(1)[0]
    const major = first >> 5
    const info = first & 31
    if (major === 7) {
      if (info === 20 || info === 21) return info === 21
      if (info === 22) return null
      throw new RangeError(`simple value or float ${info} before byte ${at}`)
    }
    if (info > 27) throw new RangeError(`length ${info} before byte ${at}`)
    let n = BigInt(info)
    if (info >= 24) n = BigInt('0x' + take(1 << (info - 24)).toString('hex'))
    switch (major) {
      case 0: return n
      case 1: return -1n - n
      case 2: return take(Number(n))
      case 3: return utf8.decode(take(Number(n)))
      case 4: {
        const list = []
        for (; n > 0n; n--) list.push(item())
        return list
      }
    }
    throw new RangeError(`major type ${major} before byte ${at}`)
  }
  const value = item()
  if (!encode(value).equals(b)) throw new RangeError('not in the deterministic form')
  return value
}
