package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
)

// Sealed payloads and controls begin with a salt that depends on the key, on
// what they are bound to and on the plaintext; the encryption key is derived
// from it. So one input always gives one output, and two different plaintexts
// for the same batch or pin (a sender that was restored from a backup, say)
// never share a key, which AES-GCM would not survive.
const (
	saltSize  = 16
	chunkSize = 64 << 10
	tagSize   = 16
)

func sealCipher(base Hash, label string, salt, bound []byte) (cipher.AEAD, error) {
	key := derive(base, salt, label+string(bound))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// chunkNonce numbers the chunks and marks the last one (the STREAM
// construction), so that chunks cannot be moved, dropped or cut off.
func chunkNonce(i uint32, last bool) []byte {
	nonce := make([]byte, 12)
	binary.BigEndian.PutUint32(nonce[7:], i)
	if last {
		nonce[11] = 1
	}
	return nonce
}

// SealPayload encrypts an encoded batch under HKDF(payload, author‖root) with
// AES-256-GCM in chunks of 64 KiB.
func (k Keys) SealPayload(author OrgID, root Hash, plain []byte) ([]byte, error) {
	bound := append(author[:], root[:]...)
	digest := HashOf("parley/payload", plain)
	salt := macOf(k.Payload, "parley/salt/payload", bound, digest[:])
	aead, err := sealCipher(k.Payload, "parley/seal/payload", salt[:saltSize], bound)
	if err != nil {
		return nil, fmt.Errorf("seal payload: %w", err)
	}
	chunks := max(1, (len(plain)+chunkSize-1)/chunkSize)
	out := make([]byte, 0, saltSize+len(plain)+chunks*tagSize)
	out = append(out, salt[:saltSize]...)
	for i := range chunks {
		chunk := plain[i*chunkSize : min(len(plain), (i+1)*chunkSize)]
		out = aead.Seal(out, chunkNonce(uint32(i), i == chunks-1), chunk, nil)
	}
	return out, nil
}

// OpenPayload is the inverse of SealPayload.
func (k Keys) OpenPayload(author OrgID, root Hash, sealed []byte) ([]byte, error) {
	if len(sealed) < saltSize+tagSize {
		return nil, fmt.Errorf("open payload: %d bytes are too few for a sealed payload", len(sealed))
	}
	bound := append(author[:], root[:]...)
	aead, err := sealCipher(k.Payload, "parley/seal/payload", sealed[:saltSize], bound)
	if err != nil {
		return nil, fmt.Errorf("open payload: %w", err)
	}
	rest := sealed[saltSize:]
	out := make([]byte, 0, len(rest))
	for i := uint32(0); ; i++ {
		chunk := rest[:min(len(rest), chunkSize+tagSize)]
		rest = rest[len(chunk):]
		last := len(rest) == 0
		if out, err = aead.Open(out, chunkNonce(i, last), chunk, nil); err != nil {
			return nil, fmt.Errorf("open payload: chunk %d was not sealed for this author, root and epoch, or was altered: %w", i, err)
		}
		if last {
			return out, nil
		}
	}
}

// controlSizes are the only lengths of a sealed control, so that the length
// does not tell what is in it.
var controlSizes = [...]int{256, 1 << 10, 4 << 10, 16 << 10, 64 << 10}

// controlOverhead: the salt, the length of the encoding and the AEAD tag.
const controlOverhead = saltSize + 4 + tagSize

// MaxControl is the most bytes that an encoded Control may have.
const MaxControl = 64<<10 - controlOverhead

func controlBinding(key Address, n uint64, root Hash, handles []Handle) []byte {
	b := make([]byte, 0, len(key)+8+len(root)+16*len(handles))
	b = append(b, key[:]...)
	b = binary.BigEndian.AppendUint64(b, n)
	b = append(b, root[:]...)
	for _, h := range handles {
		b = append(b, h[:]...)
	}
	return b
}

// SealControl encrypts a control for exactly one pin and pads it to one of five
// sizes. An encoding of more than MaxControl bytes is an error; the caller
// spreads its content over several pins.
func (k Keys) SealControl(c Control, key Address, n uint64, root Hash, handles []Handle) ([]byte, error) {
	encoded, err := Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("seal control: %w", err)
	}
	if len(encoded) > MaxControl {
		return nil, fmt.Errorf("seal control: %d bytes, at most %d fit in a pin; spread it over several pins", len(encoded), MaxControl)
	}
	size := 0
	for _, size = range controlSizes {
		if len(encoded)+controlOverhead <= size {
			break
		}
	}
	plain := make([]byte, size-saltSize-tagSize)
	binary.BigEndian.PutUint32(plain, uint32(len(encoded)))
	copy(plain[4:], encoded)

	bound := controlBinding(key, n, root, handles)
	salt := macOf(k.Control, "parley/salt/control", bound, plain)
	aead, err := sealCipher(k.Control, "parley/seal/control", salt[:saltSize], nil)
	if err != nil {
		return nil, fmt.Errorf("seal control: %w", err)
	}
	out := make([]byte, saltSize, size)
	copy(out, salt[:])
	return aead.Seal(out, chunkNonce(0, true), plain, bound), nil
}

// OpenControl is the inverse of SealControl. An error means that the pin is
// void.
func (k Keys) OpenControl(sealed []byte, key Address, n uint64, root Hash, handles []Handle) (Control, error) {
	known := false
	for _, size := range controlSizes {
		known = known || len(sealed) == size
	}
	if !known {
		return Control{}, fmt.Errorf("open control: %d bytes, want one of %v", len(sealed), controlSizes)
	}
	aead, err := sealCipher(k.Control, "parley/seal/control", sealed[:saltSize], nil)
	if err != nil {
		return Control{}, fmt.Errorf("open control: %w", err)
	}
	plain, err := aead.Open(nil, chunkNonce(0, true), sealed[saltSize:], controlBinding(key, n, root, handles))
	if err != nil {
		return Control{}, fmt.Errorf("open control: it was not sealed for this pin and epoch, or was altered: %w", err)
	}
	size := binary.BigEndian.Uint32(plain)
	if uint64(size) > uint64(len(plain)-4) {
		return Control{}, fmt.Errorf("open control: its length is %d of %d bytes", size, len(plain)-4)
	}
	encoded, padding := plain[4:4+size], plain[4+size:]
	for i, b := range padding {
		if b != 0 {
			return Control{}, fmt.Errorf("open control: padding byte %d is %#x, want 0", i, b)
		}
	}
	var c Control
	if err := Unmarshal(encoded, &c); err != nil {
		return Control{}, fmt.Errorf("open control: %w", err)
	}
	return c, nil
}
