// How a JSON value is taken apart into the leaves that a data item commits to.

import { encode } from './cbor.mjs'

export const MAX_FIELDS = 4096
const MAX_DEPTH = 64
const MAX_PATH = 512

/** The value is JSON, but must be one leaf. */
class Whole extends Error {}

/**
 * @param {Uint8Array} value JSON text
 * @returns {{path: Buffer, text: Buffer, whole: boolean}[]} by ascending path
 */
export function fieldsOf(value) {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(value)
    return new Scanner(text).scan().sort((a, b) => Buffer.compare(a.path, b.path))
  } catch (e) {
    // Anything that is JSON in a lenient reading is one leaf.
    JSON.parse(new TextDecoder('utf-8', { ignoreBOM: true }).decode(value))
    return [{ path: encode([]), text: Buffer.from(value), whole: true }]
  }
}

/** A strict JSON reader that keeps the spelling of numbers. */
class Scanner {
  constructor(text) {
    this.text = text
    this.at = 0
    this.fields = []
  }

  scan() {
    this.value([])
    this.space()
    if (this.at !== this.text.length) throw new SyntaxError(`text after the value at ${this.at}`)
    return this.fields
  }

  space() {
    this.match(/[ \t\n\r]*/y)
  }

  match(pattern) {
    pattern.lastIndex = this.at
    const m = pattern.exec(this.text)
    if (!m) throw new SyntaxError(`unexpected text at ${this.at}`)
    this.at += m[0].length
    return m[0]
  }

  string() {
    const s = JSON.parse(this.match(/"(?:[^"\\\u0000-\u001f]|\\.)*"/y))
    if (!isWellFormed(s)) throw new Whole('lone surrogate')
    return s
  }

  leaf(path, text) {
    const encoded = encode(path)
    if (encoded.length > MAX_PATH || this.fields.length === MAX_FIELDS) throw new Whole('too long a path or too many fields')
    this.fields.push({ path: encoded, text: Buffer.from(text), whole: false })
  }

  value(path) {
    this.space()
    const c = this.text[this.at]
    if (c === '{' || c === '[') {
      if (path.length + 1 > MAX_DEPTH) throw new Whole('too deep')
      this.at++
      const end = c === '{' ? '}' : ']'
      const count = c === '{' ? this.members(path) : this.elements(path)
      this.at++
      if (count === 0) this.leaf(path, c + end)
    } else if (c === '"') {
      this.leaf(path, JSON.stringify(this.string()))
    } else if (c === '-' || (c >= '0' && c <= '9')) {
      const raw = this.match(/-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y)
      const n = Number(raw)
      const text = JSON.stringify(n)
      if (!Number.isFinite(n) || decimal(raw) !== decimal(text)) throw new Whole('number is not exact')
      this.leaf(path, text)
    } else {
      this.leaf(path, this.match(/true|false|null/y))
    }
  }

  /** Reads up to the closing character; item reads one element. */
  list(end, item) {
    this.space()
    if (this.text[this.at] === end) return 0
    for (let n = 0; ; ) {
      item(n++)
      this.space()
      if (this.text[this.at] === end) return n
      this.match(/,/y)
    }
  }

  members(path) {
    const names = new Set()
    return this.list('}', () => {
      this.space()
      const name = this.string()
      if (names.has(name)) throw new Whole('duplicate key')
      names.add(name)
      this.space()
      this.match(/:/y)
      this.value([...path, name])
    })
  }

  elements(path) {
    return this.list(']', (i) => this.value([...path, i]))
  }
}

/** A number's digits and exponent in one spelling, to compare decimals. */
function decimal(text) {
  const [, sign, whole, fraction = '', exponent = '0'] = /^(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$/.exec(text)
  const digits = (whole + fraction).replace(/^0+/, '')
  if (digits === '') return '0'
  const kept = digits.replace(/0+$/, '')
  return `${sign}${kept}e${BigInt(exponent) - BigInt(fraction.length) + BigInt(digits.length - kept.length)}`
}

const isWellFormed = (s) => !/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(s)
