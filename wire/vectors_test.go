package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/vectors.json")

const vectorsFile = "testdata/vectors.json"

// hexBytes is binary in the vectors: lower-case hex.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, b), nil }
func (b *hexBytes) UnmarshalText(t []byte) (err error) {
	*b, err = hex.AppendDecode(nil, t)
	return err
}

// vectors are inputs and outputs of every function that nodes must agree on.
// e2e/wire recomputes them in another language.
type vectors struct {
	HashOf     []hashVector
	Network    networkVector
	Org        orgVector
	Definition definitionVector
	Merkle     []merkleVector
	Blob       blobVector
	Items      []itemVector
	Batch      batchVector
	Epoch      epochVector
	Pin        pinVector
	Payloads   []payloadVector
	Controls   []controlVector
	Objects    map[string]string // part -> name, under Epoch.Keys.Payload and Batch.Root
	Signature  signatureVector
	Receipt    signedVector
	Unpinned   signedVector
	Remnant    remnantVector
	Erasure    signedVector
	Answer     signedVector // to Erasure
	CarriedPin carriedPinVector
	HPKE       hpkeVector
}

type hashVector struct {
	Domain string
	Parts  []hexBytes
	Hash   Hash
}

type networkVector struct {
	ChainID  uint64
	Contract Address
	ID       Hash
}

type orgVector struct {
	Name     string
	Salt, ID Hash
}

type definitionVector struct {
	Kind string
	Body string
	Hash Hash
}

type merkleVector struct {
	Leaves []Hash
	Root   Hash
	Proofs [][]Hash
}

type blobVector struct {
	Chunks     []hexBytes
	Hashes     []Hash
	CBOR       hexBytes // of the BlobRef
	Seed       Hash
	Commitment Hash
}

type itemVector struct {
	CBOR       hexBytes
	Commitment Hash
	Whole      bool
	Fields     []fieldVector
	Proof      hexBytes // the FieldProof of the last field
}

type fieldVector struct {
	Path []any
	Text hexBytes
	Salt Hash
}

type batchVector struct {
	CBOR    hexBytes
	Encoded hexBytes // uncompressed form
	Leaves  []Hash
	Root    Hash
}

type epochVector struct {
	Secret     EpochSecret
	Keys       Keys
	Definition hexBytes
	Hash       Hash
}

type pinVector struct {
	Key      Address
	N        uint64
	Root     Hash
	Tag      Tag
	Topics   []string // each with its context and, in this order, its handle
	Contexts []ContextID
	Handles  []Handle
}

type payloadVector struct {
	Length int // of the plaintext, whose byte i is i mod 251
	Author OrgID
	Root   Hash
	Sealed hexBytes // its first 1 KiB
	Size   int      // bytes of all of it
	Hash   Hash     // HashOf("parley/test", all of it)
}

type controlVector struct {
	CBOR    hexBytes
	Key     Address
	N       uint64
	Root    Hash
	Handles []Handle
	Sealed  hexBytes
}

type signatureVector struct {
	Private   Hash
	Address   Address
	Digest    Hash
	Signature Signature
}

type signedVector struct {
	CBOR   hexBytes
	Digest Hash
	Signer Address
}

type remnantVector struct {
	CBOR       hexBytes // of what remains of Batch without its second data item
	Leaves     []Hash   // the same as of Batch
	Faults     []uint32
	FaultsHash Hash
	Sealed     hexBytes // that Remnant.Sealed names
	Unpinned   Hash     // digest of Unpinned, from that name alone
}

type carriedPinVector struct {
	ChainID          uint64
	Contract, Caller Address
	Expiry           uint64
	CBOR             hexBytes // of the Pin
	Digest           Hash
}

type hpkeVector struct {
	Private, Info, Plain, Sealed hexBytes
}

// computeVectors is everything but HPKE, which is random.
func computeVectors(t *testing.T) *vectors {
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	encode := func(v any) hexBytes {
		t.Helper()
		b, err := Marshal(v)
		check(err)
		return b
	}
	v := &vectors{Objects: map[string]string{}}

	for _, parts := range [][]hexBytes{{}, {{}}, {{1, 2}, {3}}, {bytes.Repeat([]byte{9}, 700)}} {
		raw := make([][]byte, len(parts))
		for i, p := range parts {
			raw[i] = p
		}
		v.HashOf = append(v.HashOf, hashVector{"parley/test", parts, HashOf("parley/test", raw...)})
	}
	contract := Address{0xaa, 19: 0xbb}
	v.Network = networkVector{2021, contract, NetworkID(2021, contract)}
	v.Org = orgVector{"org1", h("org salt"), OrgIDOf("org1", h("org salt"))}
	v.Definition = definitionVector{"datatype", `{"name":"n"}`, DefinitionHash("datatype", []byte(`{"name":"n"}`))}

	for n := range 9 {
		m := merkleVector{Leaves: testLeaves(n), Root: MerkleRoot(testLeaves(n)), Proofs: [][]Hash{}}
		for i := range n {
			m.Proofs = append(m.Proofs, append([]Hash{}, MerkleProof(m.Leaves, i)...))
		}
		v.Merkle = append(v.Merkle, m)
	}

	chunks := []hexBytes{[]byte("first chunk"), []byte("second")}
	hashes := []Hash{ChunkHash(chunks[0]), ChunkHash(chunks[1])}
	blob := BlobRef{Size: 17, Root: BlobRoot(hashes), Hash: h("bytes"), Name: "é.txt", Path: "/a"}
	v.Blob = blobVector{chunks, hashes, encode(blob), h("seed"), blob.Commitment(h("seed"))}

	for i, value := range []string{
		`{"a":[1]}`, `{"a":{"0":1}}`, `{}`, `[]`, `null`, ` "a\u00e9\n\"\ud83d\ude00\u2028" `, `-0.0`, `1e21`, `123456789012345.5e-3`,
		`{"b":1.50,"a":[true,false,null,{"é":"x"},[]],"":{"z":-1e-7}}`, `{"dup":1,"dup":2}`, "\"\xff\"", `"\ud800"`, `[9007199254740993]`, `1e400`,
		`{"long key of more than twenty-four bytes":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25]}`, ``,
	} {
		d := item(value)
		switch i {
		case 0:
			d.Datatype = &DatatypeRef{Name: "n", Version: "1.0", Hash: v.Definition.Hash}
		case 16:
			d.Blob = &blob
		}
		_, fields, err := d.hashes()
		check(err)
		iv := itemVector{CBOR: encode(d), Commitment: commitment(t, d), Fields: []fieldVector{}}
		for _, f := range fields {
			path := []any{}
			check(Unmarshal(f.path, &path))
			iv.Whole = f.whole
			iv.Fields = append(iv.Fields, fieldVector{path, f.text, fieldSalt(d.Seed, f.path)})
			proof, err := d.ProveField(path)
			check(err)
			iv.Proof = encode(proof)
		}
		v.Items = append(v.Items, iv)
	}

	b := testBatch(t, 3, 60)
	cid := id("request")
	b.Messages[1].Header.CID = &cid
	b.Messages[1].Header.Topics = []string{"topic0", "second"}
	leaves, err := b.CheckedLeaves()
	check(err)
	small := testBatch(t, 1, 40)
	encoded, err := small.Encode()
	check(err)
	v.Batch = batchVector{encode(b), encoded, leaves, MerkleRoot(leaves)}

	d, s := testEpoch()
	hash, err := d.Hash()
	check(err)
	keys := s.Keys()
	v.Epoch = epochVector{s, keys, encode(d), hash}

	v.Pin = pinVector{Key: AddressOf(testKey("key")), N: 258, Root: v.Batch.Root, Topics: []string{"orders", "", "ünïcode"}}
	v.Pin.Tag = keys.PinTag(v.Pin.Key, v.Pin.N)
	for i, topic := range v.Pin.Topics {
		c := keys.Context(topic)
		v.Pin.Contexts = append(v.Pin.Contexts, c)
		v.Pin.Handles = append(v.Pin.Handles, keys.MaskHandle(v.Pin.Key, v.Pin.N, v.Pin.Root, i, c))
	}

	for _, n := range []int{0, 100, chunkSize, chunkSize + 1, 200_000} {
		plain := make([]byte, n)
		for i := range plain {
			plain[i] = byte(i % 251)
		}
		sealed, err := keys.SealPayload(v.Org.ID, v.Batch.Root, plain)
		check(err)
		v.Payloads = append(v.Payloads, payloadVector{n, v.Org.ID, v.Batch.Root, sealed[:min(len(sealed), 1024)], len(sealed), HashOf("parley/test", sealed)})
	}

	for _, c := range []Control{{}, {Heartbeat: true}, testControl()} {
		cv := controlVector{CBOR: encode(c), Key: v.Pin.Key, N: 7, Root: v.Batch.Root, Handles: v.Pin.Handles}
		cv.Sealed, err = keys.SealControl(c, cv.Key, cv.N, cv.Root, cv.Handles)
		check(err)
		v.Controls = append(v.Controls, cv)
	}
	for _, part := range []string{"batch", "certificate", "blob/" + h("bytes").String()} {
		v.Objects[part] = keys.ObjectName(v.Batch.Root, part)
	}

	key := testKey("key")
	v.Signature = signatureVector{h("key"), AddressOf(key), h("digest"), SignDigest(key, h("digest"))}
	r := testControl().Certificates[0].Receipts[0]
	digest, err := r.Digest()
	check(err)
	r.Signature = SignDigest(key, digest)
	v.Receipt = signedVector{encode(r), digest, AddressOf(key)}
	u := testUnpinned()
	digest, err = u.Digest()
	check(err)
	u.Signature = SignDigest(key, digest)
	v.Unpinned = signedVector{encode(u), digest, AddressOf(key)}

	r0 := b.Remnant([]uint32{0, 2}, SealedHash(u.Envelope.Sealed))
	r0.Erase(b.Messages[1].Header.Data)
	said := r
	said.Faults, err = FaultsHash(r0.Faults)
	check(err)
	r0.Receipts = []Receipt{said}
	v.Remnant = remnantVector{CBOR: encode(r0), Faults: r0.Faults, Sealed: u.Envelope.Sealed}
	v.Remnant.Leaves, err = r0.CheckedLeaves()
	check(err)
	v.Remnant.FaultsHash, err = FaultsHash(r0.Faults)
	check(err)
	v.Remnant.Unpinned, err = u.DigestOf(r0.Sealed)
	check(err)
	e := testErasure()
	digest, err = e.Digest()
	check(err)
	e.Signature = SignDigest(key, digest)
	v.Erasure = signedVector{encode(e), digest, AddressOf(key)}
	answer := ErasureAnswer{Version: Version, Network: h("network"), Org: h("org2"), Request: digest, Reason: "a legal hold", At: 2}
	digest, err = answer.Digest()
	check(err)
	answer.Signature = SignDigest(key, digest)
	v.Answer = signedVector{encode(answer), digest, AddressOf(key)}

	p := Pin{Root: v.Batch.Root, Tag: v.Pin.Tag, Handles: v.Pin.Handles, Control: v.Controls[0].Sealed}
	v.CarriedPin = carriedPinVector{2021, contract, Address{0xcc, 19: 1}, 123456, encode(p), CarriedPinDigest(2021, contract, Address{0xcc, 19: 1}, 123456, p)}
	return v
}

func sealVector(t *testing.T) hpkeVector {
	private, public, err := GenerateSealKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := SealTo(public, []byte("info"), []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	return hpkeVector{private, []byte("info"), []byte("plain"), sealed}
}

// TestVectors: what is computed now is what was committed. A difference means
// that nodes of two builds would not understand each other.
func TestVectors(t *testing.T) {
	v := computeVectors(t)
	if *update {
		v.HPKE = sealVector(t)
		if err := os.WriteFile(vectorsFile, vectorsJSON(t, v), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var committed vectors
	if err := json.Unmarshal(file, &committed); err != nil {
		t.Fatal(err)
	}
	v.HPKE = committed.HPKE
	if got := vectorsJSON(t, v); !bytes.Equal(got, file) {
		at := 0
		for at < len(got) && at < len(file) && got[at] == file[at] {
			at++
		}
		t.Errorf("%s differs at byte %d: committed …%s, computed …%s", vectorsFile, at,
			file[max(0, at-80):min(len(file), at+80)], got[max(0, at-80):min(len(got), at+80)])
	}
	plain, err := OpenSealed(committed.HPKE.Private, committed.HPKE.Info, committed.HPKE.Sealed)
	if err != nil || !bytes.Equal(plain, committed.HPKE.Plain) {
		t.Errorf("the sealed vector opens to %q: %v", plain, err)
	}
}

func vectorsJSON(t *testing.T, v *vectors) []byte {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}
