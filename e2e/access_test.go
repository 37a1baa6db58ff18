package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/internal/node"
)

// parley runs one command to its end.
func parley(t *testing.T, env []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errors bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &errors
	err = cmd.Run()
	return out.String(), errors.String(), err
}

// allow lets a caller in, and gives its key.
func (m *member) allow(name, role string) string {
	m.t.Helper()
	out, text, err := parley(m.t, nil, "access", "add", "--dir", m.config.Dir, name, "--role", role)
	if err != nil {
		m.t.Fatalf("parley access add: %v: %s", err, text)
	}
	return strings.TrimSpace(out)
}

// write puts a changed configuration into the member's folder.
func (m *member) write() {
	m.t.Helper()
	text, err := m.config.Marshal()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.config.Dir, node.ConfigFile), text, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// certificate writes a certificate for this machine into a folder.
func certificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls.pem": {Type: "CERTIFICATE", Bytes: cert}, "tls-key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAccess: a node that others can reach needs TLS and keys; with them its
// commands work, over HTTPS, and a key that is revoked is refused without a
// restart.
func TestAccess(t *testing.T) {
	n := prepare(t, nil, "alice")
	m := n.members[0]
	_, port, err := net.SplitHostPort(m.config.API.Listen)
	if err != nil {
		t.Fatal(err)
	}
	m.config.API.Listen = "0.0.0.0:" + port
	m.write()
	if _, text, err := parley(t, nil, "node", "run", "--dir", m.config.Dir); err == nil || !strings.Contains(text, "without TLS") || !strings.Contains(text, "parley access add") {
		t.Fatalf("a node that everybody can reach starts: %v: %s", err, text)
	}
	certificate(t, m.config.Dir)
	m.config.API.TLS = &node.ServerTLS{Cert: "tls.pem", Key: "tls-key.pem"}
	m.write()
	admin, reader := m.allow("boss", "admin"), m.allow("viewer", "reader")

	url, ca := "https://127.0.0.1:"+port, filepath.Join(m.config.Dir, "tls.pem")
	as := func(key string, args ...string) (string, string, error) {
		return parley(t, []string{"PARLEY_API_KEY=" + key, "PARLEY_API=" + url, "PARLEY_API_CA=" + ca}, args...)
	}
	m.start()
	n.deploy()
	eventually(t, "alice is a member", func(context.Context) error {
		_, _, err := as(reader, "members")
		return err
	})
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(reader+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, text, err := as("", "members", "--key-file", keyFile); err != nil || !strings.Contains(out, "this node's") {
		t.Errorf("members with a key from a file: %v: %s%s", err, out, text)
	}
	for what, c := range map[string]struct {
		key, says string
		args      []string
	}{
		"no key":              {"", "FF00169", []string{"members"}},
		"a wrong key":         {"parley_wrong", "FF00169", []string{"members"}},
		"a key of a low role": {reader, "FF00170", []string{"members", "vote", "1", "yes"}},
	} {
		if _, text, err := as(c.key, c.args...); err == nil || !strings.Contains(text, c.says) {
			t.Errorf("with %s: %v: %s", what, err, text)
		}
	}
	if _, text, err := as(admin, "members", "vote", "99", "yes"); err == nil || strings.Contains(text, "FF00170") {
		t.Errorf("an admin votes on a proposal that is not there: %v: %s", err, text)
	}
	if resp, err := http.Get("http://127.0.0.1:" + port + "/api/v1/status"); err == nil {
		if resp.Body.Close(); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("without TLS: %s", resp.Status)
		}
	}

	if _, text, err := parley(t, nil, "access", "revoke", "--dir", m.config.Dir, "viewer"); err != nil {
		t.Fatalf("parley access revoke: %v: %s", err, text)
	}
	eventually(t, "the revoked key is refused", func(context.Context) error {
		_, _, err := as(reader, "members")
		if err == nil {
			return os.ErrExist
		}
		return nil
	})
	if _, text, err := as(admin, "members"); err != nil {
		t.Errorf("another key, after that: %v: %s", err, text)
	}
	if log := m.proc.log.tail(1 << 20); strings.Contains(log, admin) || strings.Contains(log, reader) || !strings.Contains(log, "caller=viewer") {
		t.Error("the log holds a key, or no line of a request")
	}
}

// locked makes a member's folder ask for keys, and its client have one.
func (m *member) locked(name, role string) string {
	m.t.Helper()
	key := m.allow(name, role)
	api, err := client.New("http://"+m.config.API.Listen, client.WithAPIKey(key))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(api.Close)
	m.api = api
	return key
}
