package access

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/parley-node/parley/internal/errs"
)

// folder is a place with an access file and a password file.
type folder struct {
	t    *testing.T
	dir  string
	file File
}

func newFolder(t *testing.T) *folder { return &folder{t: t, dir: t.TempDir()} }

func (f *folder) config() Config {
	return Config{File: filepath.Join(f.dir, "access.json"), Passwords: filepath.Join(f.dir, "users")}
}

// add adds a caller, and writes the files.
func (f *folder) add(name string, role Role, limits *Limits) string {
	f.t.Helper()
	key, err := f.file.Add(name, true, []Grant{{Namespace: AllNamespaces, Role: role}}, limits, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	f.write()
	return key
}

func (f *folder) write() {
	f.t.Helper()
	if err := f.file.Write(f.config().File); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) passwords(users map[string]string) {
	f.t.Helper()
	text := "# users\n\n"
	for user, password := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			f.t.Fatal(err)
		}
		text += user + ":" + string(hash) + "\n"
	}
	if err := os.WriteFile(f.config().Passwords, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) open() *Control {
	f.t.Helper()
	c, err := New(f.config())
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// request is one with headers, given as pairs.
func request(header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func basic(user, password string) *http.Request {
	r := request()
	r.SetBasicAuth(user, password)
	return r
}

func TestAuthenticate(t *testing.T) {
	f := newFolder(t)
	key := f.add("erp", Operator, nil)
	if _, err := f.file.Add("alice", false, []Grant{{"default", Reader, false}}, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	f.write()
	f.passwords(map[string]string{"alice": "wonderland", "bob": "builder"})
	c := f.open()
	for name, test := range map[string]struct {
		r    *http.Request
		who  string
		code string
	}{
		"bearer":              {request("Authorization", "Bearer "+key), "erp", ""},
		"bearer, small":       {request("Authorization", "bearer "+key), "erp", ""},
		"X-API-Key":           {request("X-API-Key", key), "erp", ""},
		"key as password":     {basic("anybody", key), "erp", ""},
		"subprotocol":         {request("Upgrade", "websocket", "Sec-WebSocket-Protocol", "parley, bearer."+key), "erp", ""},
		"subprotocol, no ws":  {request("Sec-WebSocket-Protocol", "bearer."+key), "", codeUnauthorized},
		"user":                {basic("alice", "wonderland"), "alice", ""},
		"user, wrong":         {basic("alice", "looking glass"), "", codeUnauthorized},
		"user without a role": {basic("bob", "builder"), "", codeForbidden},
		"no such user":        {basic("carol", "wonderland"), "", codeUnauthorized},
		"name of a key":       {basic("erp", ""), "", codeUnauthorized},
		"the stored hash":     {request("X-API-Key", hashKey(key)), "", codeUnauthorized},
		"wrong key":           {request("Authorization", "Bearer "+key+"x"), "", codeUnauthorized},
		"wrong key, then one": {request("Authorization", "Bearer x", "X-API-Key", key), "", codeUnauthorized},
		"nothing":             {request(), "", codeUnauthorized},
		"other scheme":        {request("Authorization", "Digest "+key), "", codeUnauthorized},
	} {
		caller, err := c.Authenticate(test.r)
		who := ""
		if caller != nil {
			who = caller.Name
		}
		if who != test.who || errs.Code(err) != test.code {
			t.Errorf("%s: caller %q, error %v; want %q, %s", name, who, err, test.who, test.code)
		}
	}
}

func TestWithoutFilesEverybodyIsAdmin(t *testing.T) {
	c := Everybody()
	caller, err := c.Authenticate(request())
	if err != nil || caller.Role("any") != Admin || !caller.Payloads("any") {
		t.Errorf("caller %+v, error %v", caller, err)
	}
	for range 10_000 {
		if wait := c.Spend(caller); wait != 0 {
			t.Fatalf("the local caller has to wait %s", wait)
		}
	}
}

func TestRolesOfNamespaces(t *testing.T) {
	c := Caller{Grants: []Grant{{"one", Operator, false}, {"two", Auditor, false}, {"three", Auditor, true}, {AllNamespaces, Auditor, false}}}
	for ns, want := range map[string]struct {
		role     Role
		payloads bool
	}{"one": {Operator, true}, "two": {Auditor, false}, "three": {Auditor, true}, "four": {Auditor, false}} {
		if c.Role(ns) != want.role || c.Payloads(ns) != want.payloads {
			t.Errorf("%s: role %s, payloads %t; want %v", ns, c.Role(ns), c.Payloads(ns), want)
		}
	}
	if c.Anywhere() != Operator || new(Caller).Role("one") != None || new(Caller).Payloads("one") {
		t.Error("the highest role anywhere, or that of nobody, is wrong")
	}
}

func TestPasswordRoles(t *testing.T) {
	f := newFolder(t)
	f.passwords(map[string]string{"alice": "wonderland"})
	cfg := f.config()
	cfg.File, cfg.PasswordGrants = "", []Grant{{AllNamespaces, Admin, false}}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if caller, err := c.Authenticate(basic("alice", "wonderland")); err != nil || caller.Role("x") != Admin {
		t.Errorf("alice: %+v, %v", caller, err)
	}
	if _, err := c.Authenticate(request()); errs.Code(err) != codeUnauthorized {
		t.Errorf("without a password: %v", err)
	}
}

func TestGuessingIsSlowedDownAndKeysAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder(t)
		key := f.add("erp", Reader, nil)
		if _, err := f.file.Add("alice", false, []Grant{{AllNamespaces, Reader, false}}, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
		f.write()
		f.passwords(map[string]string{"alice": "wonderland"})
		c := f.open()
		if _, err := c.Authenticate(basic("alice", "wonderland")); err != nil {
			t.Fatal(err)
		}
		var err error
		for range failureBurst + 1 {
			_, err = c.Authenticate(basic("alice", "guess"))
		}
		if errs.Status(err) != http.StatusTooManyRequests {
			t.Errorf("after %d guesses: %v, want 429", failureBurst, err)
		}
		if _, err := c.Authenticate(request("X-API-Key", key)); err != nil {
			t.Errorf("a key from the same address: %v", err)
		}
		if _, err := c.Authenticate(basic("alice", "wonderland")); err != nil {
			t.Errorf("the right password, known already: %v", err)
		}
		other := basic("alice", "guess")
		other.RemoteAddr = "198.51.100.7:99"
		if _, err := c.Authenticate(other); errs.Status(err) != http.StatusUnauthorized {
			t.Errorf("a guess from another address: %v, want 401", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := c.Authenticate(basic("alice", "guess")); errs.Status(err) != http.StatusUnauthorized {
			t.Errorf("a guess two seconds later: %v, want 401", err)
		}
	})
}

func TestAddressesAreBounded(t *testing.T) {
	f := newFailures()
	now := time.Now()
	for i := range addresses * 2 {
		f.note(fmt.Sprint("a", i), now)
	}
	if len(f.of) > addresses {
		t.Errorf("%d addresses are kept", len(f.of))
	}
	for range failureBurst {
		f.note("late", now)
	}
	if f.allow("later", now) {
		t.Error("an address beyond the bound is not slowed down with the others")
	}
	if !f.allow("a0", now) {
		t.Error("an address with one failure is slowed down")
	}
	f.note("fresh", now.Add(time.Hour))
	if !f.allow("fresh", now.Add(time.Hour)) {
		t.Error("forgiven addresses do not make room")
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder(t)
		key := f.add("erp", Reader, &Limits{Rate: 2, Burst: 3})
		f.passwords(nil)
		c := f.open()
		caller, err := c.Authenticate(request("X-API-Key", key))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if wait := c.Spend(caller); wait != 0 {
				t.Errorf("request %d of the burst has to wait %s", i, wait)
			}
		}
		for range 5 { // refused requests do not add to the wait
			if wait := c.Spend(caller); wait != 500*time.Millisecond {
				t.Errorf("beyond the burst the wait is %s, want 500ms", wait)
			}
		}
		time.Sleep(500 * time.Millisecond)
		if wait := c.Spend(caller); wait != 0 {
			t.Errorf("after the wait there is another one of %s", wait)
		}
	})
}

func TestRevokedCallersLoseTheirSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder(t)
		gone, stays := f.add("gone", Reader, &Limits{Sockets: 2}), f.add("stays", Reader, nil)
		f.passwords(nil)
		c := f.open()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go c.Watch(ctx)
		hold := func(key string) (context.Context, func(), error) {
			caller, err := c.Authenticate(request("X-API-Key", key))
			if err != nil {
				t.Fatal(err)
			}
			return c.Hold(ctx, caller)
		}
		first, release, err := hold(gone)
		if err != nil {
			t.Fatal(err)
		}
		second, _, err := hold(gone)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := hold(gone); errs.Status(err) != http.StatusTooManyRequests {
			t.Errorf("a third socket: %v, want 429", err)
		}
		release()
		release() // twice counts once
		if first.Err() == nil || c.Sockets() != 1 {
			t.Errorf("after release: %v, %d sockets", first.Err(), c.Sockets())
		}
		if _, _, err := hold(gone); err != nil {
			t.Errorf("another socket after a release: %v", err)
		}
		other, _, err := hold(stays)
		if err != nil {
			t.Fatal(err)
		}

		time.Sleep(2 * time.Second) // so that the file's time differs
		f.file.Revoke("gone")
		f.write()
		time.Sleep(2 * watchEvery)
		if second.Err() == nil || other.Err() != nil {
			t.Errorf("the revoked caller's socket: %v, the other's: %v", second.Err(), other.Err())
		}
		if _, err := c.Authenticate(request("X-API-Key", gone)); errs.Code(err) != codeUnauthorized {
			t.Errorf("the revoked key: %v", err)
		}

		// A file that is broken changes nothing.
		if err := os.WriteFile(f.config().File, []byte(`{"version": 1, "callers": [`), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * watchEvery)
		if err := c.Reload(); err == nil {
			t.Error("a broken file is read")
		}
		if _, err := c.Authenticate(request("X-API-Key", stays)); err != nil {
			t.Errorf("under a broken file: %v", err)
		}

		// Rights that shrink count at once, and those of another role too.
		f.file.Callers[0].Grants = []Grant{{"elsewhere", Auditor, false}}
		f.write()
		time.Sleep(2 * watchEvery)
		if caller, err := c.Authenticate(request("X-API-Key", stays)); err != nil || caller.Role("default") != None || other.Err() == nil {
			t.Errorf("after the grants changed: %+v, %v, socket %v", caller, err, other.Err())
		}
	})
}

func TestFilesThatAreRefused(t *testing.T) {
	valid := `{"name":"erp","key":"` + strings.Repeat("ab", 32) + `","grants":[{"namespace":"*","role":"reader"}],"created":"2026-01-01T00:00:00Z"}`
	for text, want := range map[string]string{
		`{"version":1,"callers":[` + valid + `]}`:                                                 "",
		`{"version":2,"callers":[]}`:                                                              "version is 2",
		`{"version":1,"callers":[],"extra":1}`:                                                    "extra",
		`{"version":1,"callers":[]} x`:                                                            "follows",
		`{"version":1,"callers":[` + valid + `,` + valid + `]}`:                                   "same name or key",
		`{"version":1,"callers":[` + strings.Replace(valid, "reader", "king", 1) + `]}`:           `"king" is none of`,
		`{"version":1,"callers":[` + strings.Replace(valid, "reader", "none", 1) + `]}`:           `"none" is none of`,
		`{"version":1,"callers":[` + strings.Replace(valid, `"abab`, `"abXb`, 1) + `]}`:           "SHA-256",
		`{"version":1,"callers":[` + strings.Replace(valid, `"role":"reader"`, ``, 1) + `]}`:      "invalid character",
		`{"version":1,"callers":[` + strings.Replace(valid, `,"role":"reader"`, ``, 1) + `]}`:     "role is missing",
		`{"version":1,"callers":[` + strings.Replace(valid, `"erp"`, `"local"`, 1) + `]}`:         "local",
		`{"version":1,"callers":[{"name":"x","grants":[],"created":"2026-01-01T00:00:00Z"}]}`:     "grants is empty",
		`{"version":1,"callers":[` + strings.Replace(valid, `"*"`, `"a b"`, 1) + `]}`:             `"a b"`,
		`{"version":1,"callers":[` + valid[:len(valid)-1] + `,"limits":{"rate":-1}}]}`:            "negative",
		`{"version":1,"callers":[` + strings.Replace(valid, `"erp"`, `"e\nrp level=x"`, 1) + `]}`: "name",
	} {
		_, err := parse([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"alice":        "line 1 is not of the form",
		"\n:x":         "line 2 is not of the form",
		"alice:{SHA}x": "bcrypt",
		"alice:$2y$31$" + strings.Repeat("a", 53): "cost 31",
	} {
		if _, err := parsePasswords([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	path := filepath.Join(t.TempDir(), "access.json")
	if err := new(File).Write(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that all may write: %v", err)
	}
	if _, err := New(Config{File: filepath.Join(t.TempDir(), "none")}); err == nil || !strings.Contains(err.Error(), "parley access add") {
		t.Errorf("a file that is missing: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"callers":[{"name":"a","grants":[{"namespace":"*","role":"admin","payloads":true}],"limits":{"rate":1},"created":"2026-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := parse(text)
		if err != nil {
			return
		}
		// What was read is written and read as the same.
		again, err := json.Marshal(file)
		if err != nil {
			return // a year that RFC 3339 cannot write
		}
		second, err := parse(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if len(second.Callers) != len(file.Callers) {
			t.Errorf("%d callers became %d", len(file.Callers), len(second.Callers))
		}
	})
}

func FuzzParsePasswords(f *testing.F) {
	f.Add([]byte("alice:$2a$04$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n# x\n"))
	f.Add([]byte("a:b:c"))
	f.Fuzz(func(t *testing.T, text []byte) {
		users, err := parsePasswords(text)
		if err != nil {
			return
		}
		for user, hash := range users {
			if user == "" || checkBcrypt(hash) != nil {
				t.Errorf("user %q has hash %q", user, hash)
			}
		}
	})
}
