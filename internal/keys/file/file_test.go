package file

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/wire"
)

func create(t testing.TB, o Options) (*Keys, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	k, err := Create(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return k, dir
}

func addresses(t testing.TB, k *Keys) []wire.Address {
	t.Helper()
	as, err := k.Addresses(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return as
}

// usable checks that every key signs and the seal key opens.
func usable(t *testing.T, k *Keys) {
	t.Helper()
	digest := wire.HashOf("test", []byte("digest"))
	for _, a := range addresses(t, k) {
		sig, err := k.Sign(t.Context(), a, digest, "test")
		if err != nil {
			t.Fatalf("Sign with %s: %v", a, err)
		}
		if got, err := wire.RecoverAddress(digest, sig); err != nil || got != a {
			t.Errorf("the signature of %s is by %s (%v)", a, got, err)
		}
	}
	sealed, err := wire.SealTo(k.SealKey(), []byte("info"), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := k.OpenSealed(sealed, []byte("info")); err != nil || string(plain) != "secret" {
		t.Errorf("OpenSealed gives %q, %v", plain, err)
	}
	if _, err := k.OpenSealed(sealed, []byte("other")); err == nil {
		t.Error("OpenSealed opens with other info")
	}
}

func TestCreateAndOpen(t *testing.T) {
	for name, passphrase := range map[string]string{"plain": "", "encrypted": "correct horse"} {
		t.Run(name, func(t *testing.T) {
			o := Options{Passphrase: passphrase}
			k, dir := create(t, o)
			usable(t, k)
			second, err := k.NewSigningKey()
			if err != nil {
				t.Fatal(err)
			}
			if err := k.SetDefault(second); err != nil {
				t.Fatal(err)
			}
			again, err := Open(dir, o)
			if err != nil {
				t.Fatal(err)
			}
			usable(t, again)
			want := addresses(t, k)
			if got := addresses(t, again); !slices.Equal(got, want) || len(got) != 2 || got[0] != second {
				t.Errorf("opened again the keys are %v, want %v with %s first", got, want, second)
			}
			if !bytes.Equal(again.SealKey(), k.SealKey()) {
				t.Error("opened again the seal key is another one")
			}
			if _, err := Create(dir, o); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Create over existing keys: %v, want fs.ErrExist", err)
			}
		})
	}
}

func TestFileShowsHowItIsProtected(t *testing.T) {
	k, dir := create(t, Options{})
	path := filepath.Join(dir, name)
	private := k.signing[k.order[0]].Serialize()
	hexKey := []byte(wire.Hash(private).String())
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, hexKey) || !bytes.Contains(b, []byte("PLAIN TEXT")) {
		t.Error("the plain file does not hold the key, or does not say that it is plain")
	}
	if err := k.ChangePassphrase("secret"); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, hexKey) || bytes.Contains(b, []byte("PLAIN")) {
		t.Error("the encrypted file holds the key, or says that it is plain")
	}
	i, err := os.Stat(path)
	if err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v (%v), want 0600", i.Mode(), err)
	}
	if d, err := os.Stat(dir); err != nil || d.Mode().Perm() != 0o700 {
		t.Errorf("the folder's mode is %v (%v), want 0700", d.Mode(), err)
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 1 {
		t.Errorf("the folder holds %v (%v), want the keys file only", es, err)
	}
	if _, err := Open(dir, Options{Passphrase: "secret"}); err != nil {
		t.Errorf("Open with the new passphrase: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	_, plain := create(t, Options{})
	_, encrypted := create(t, Options{Passphrase: "right"})
	edit := func(dir string, old, new string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(t.TempDir(), "keys")
		if err := errors.Join(os.Mkdir(to, 0o700), os.WriteFile(filepath.Join(to, name), []byte(strings.Replace(string(b), old, new, 1)), 0o600)); err != nil {
			t.Fatal(err)
		}
		return to
	}
	loose := edit(plain, "", "")
	if err := os.Chmod(filepath.Join(loose, name), 0o640); err != nil {
		t.Fatal(err)
	}
	open := edit(plain, "", "")
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ dir, passphrase, want string }{
		"a wrong passphrase":       {encrypted, "wrong", "passphrase is not the one"},
		"no passphrase":            {encrypted, "", "no passphrase is configured"},
		"a passphrase for nothing": {plain, "x", "plain text although"},
		"a loose file":             {loose, "", "chmod 600"},
		"a loose folder":           {open, "", "chmod 700"},
		"another version":          {edit(plain, `"version": 1`, `"version": 2`), "", "version: 2"},
		"an unknown field":         {edit(plain, `"notice"`, `"remark"`), "", "remark"},
		"an address not its key's": {edit(plain, `"address": "0x`, `"address": "0x0000`), "", "has 22 bytes"},
		"too costly a scrypt":      {edit(encrypted, "32768", "1073741824"), "right", "scryptN"},
		"a folder without keys":    {t.TempDir(), "", ""},
	} {
		if what == "a folder without keys" {
			if err := os.Chmod(c.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(c.dir, Options{}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Open of %s: %v, want fs.ErrNotExist", what, err)
			}
			continue
		}
		if _, err := Open(c.dir, Options{Passphrase: c.passphrase}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open of %s: %v, want %q", what, err, c.want)
		}
	}
}

func TestOpenOrCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	a, err := OpenOrCreate(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenOrCreate(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(addresses(t, a), addresses(t, b)) {
		t.Error("the second use made other keys")
	}
	if _, err := OpenOrCreate(dir, Options{Passphrase: "x"}); err == nil {
		t.Error("keys that do not open were created anew")
	}
}

func TestImport(t *testing.T) {
	k, dir := create(t, Options{})
	private := sha256.Sum256([]byte("a key from elsewhere"))
	a, err := k.Import(private[:])
	if err != nil {
		t.Fatal(err)
	}
	if b, err := k.Import(private[:]); err != nil || b != a {
		t.Errorf("importing it again gives %s, %v", b, err)
	}
	again, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := addresses(t, again); len(got) != 2 || got[1] != a {
		t.Errorf("the keys are %v, want the imported %s behind the first", got, a)
	}
	usable(t, again)
	order := bytes.Repeat([]byte{0xff}, 32)
	for _, bad := range [][]byte{nil, private[1:], make([]byte, 32), order} {
		if _, err := k.Import(bad); err == nil {
			t.Errorf("Import of %x succeeds", bad)
		}
	}
}

func TestUnknownKey(t *testing.T) {
	k, _ := create(t, Options{})
	stranger := wire.Address{1}
	var unknown keys.ErrUnknownKey
	if _, err := k.Sign(t.Context(), stranger, wire.Hash{}, "test"); !errors.As(err, &unknown) || unknown.Key != stranger {
		t.Errorf("Sign with a key that is not here: %v", err)
	}
	if err := k.SetDefault(stranger); !errors.As(err, &unknown) {
		t.Errorf("SetDefault to a key that is not here: %v", err)
	}
}

func TestSigningLog(t *testing.T) {
	type entry struct {
		key     wire.Address
		digest  wire.Hash
		purpose string
	}
	var mu sync.Mutex
	var log []entry
	k, _ := create(t, Options{Log: func(a wire.Address, d wire.Hash, p string) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, entry{a, d, p})
	}})
	a := addresses(t, k)[0]
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := k.Sign(t.Context(), a, wire.Hash{7}, "receipt"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(log) != 8 || log[0] != (entry{a, wire.Hash{7}, "receipt"}) {
		t.Errorf("8 signatures left the log %v", log)
	}
}

func TestTLSCertificate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	cert, hash, err := TLSCertificate(dir, "acme node", "")
	if err != nil {
		t.Fatal(err)
	}
	if hash != sha256.Sum256(cert.Certificate[0]) || cert.Leaf.Subject.CommonName != "acme node" {
		t.Errorf("the certificate is for %q with hash %s", cert.Leaf.Subject.CommonName, hash)
	}
	if years := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore).Hours() / 24 / 365; years < 10 || years > 10.1 {
		t.Errorf("the certificate is valid for %.1f years, want 10", years)
	}
	_, again, err := TLSCertificate(dir, "another name", "")
	if err != nil || again != hash {
		t.Errorf("loaded again the hash is %s (%v), want %s", again, err, hash)
	}
	key := filepath.Join(dir, keyName)
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := TLSCertificate(dir, "acme node", ""); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a readable private key: %v", err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if _, _, err := TLSCertificate(dir, "acme node", ""); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a certificate without its key: %v, want a refusal and no new one", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, passphrase := range []string{"", "x"} {
		s := secrets{Signing: []signingKey{{Private: make([]byte, 32)}}}
		b, err := encode(s, passphrase)
		if err != nil {
			f.Fatal(err)
		}
		// A low cost keeps the fuzzer fast.
		f.Add(bytes.Replace(b, []byte("32768"), []byte("2"), 1), passphrase)
	}
	f.Add([]byte(`{"version":1,"notice":"","plain":{"signing":[],"seal":{}}} {}`), "")
	f.Fuzz(func(t *testing.T, b []byte, passphrase string) {
		if bytes.Contains(b, []byte("scryptN")) && !bytes.Contains(b, []byte(`"scryptN": 2,`)) {
			return // too slow
		}
		s, err := decode(b, passphrase)
		if err != nil {
			return
		}
		again, err := encode(s, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(again, ""); err != nil {
			t.Errorf("what was decoded does not decode again: %v", err)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	k, _ := create(b, Options{})
	a := addresses(b, k)[0]
	for b.Loop() {
		if _, err := k.Sign(b.Context(), a, wire.Hash{1}, "bench"); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTLSKeyIsEncryptedWithThePassphrase(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, hash, err := TLSCertificate(dir, "acme node", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, keyName))
	if err != nil || bytes.Contains(text, []byte("BEGIN "+plainKey)) || !bytes.Contains(text, []byte(sealedKey)) {
		t.Errorf("the key's file is not sealed: %v\n%s", err, text)
	}
	cert, again, err := TLSCertificate(dir, "acme node", "correct horse")
	if err != nil || again != hash || cert.PrivateKey == nil {
		t.Errorf("opened again: %s, want %s: %v", again, hash, err)
	}
	for _, wrong := range []string{"", "battery staple"} {
		if _, _, err := TLSCertificate(dir, "acme node", wrong); err == nil {
			t.Errorf("the key opens with the passphrase %q", wrong)
		}
	}
	plain := t.TempDir()
	if err := os.Chmod(plain, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := TLSCertificate(plain, "acme node", ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := TLSCertificate(plain, "acme node", "correct horse"); err == nil || !strings.Contains(err.Error(), "in plain text") {
		t.Errorf("a plain key under a passphrase: %v", err)
	}
}
