package access

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// fileVersion is that of the access file's form.
const fileVersion = 1

// keyPrefix marks API keys, so that one that leaks is recognised.
const keyPrefix = "parley_"

// File is the access file: the callers and what they may do. It holds no
// secret. The zero value has no callers.
type File struct {
	Version int     `json:"version"`
	Callers []Entry `json:"callers"`
}

// Entry is one caller in the access file.
type Entry struct {
	Name    string    `json:"name"`
	Key     string    `json:"key,omitempty"` // SHA-256 of the API key in hexadecimal; empty for a user of the password file
	Grants  []Grant   `json:"grants"`
	Limits  *Limits   `json:"limits,omitempty"` // where they differ from the node's
	Created time.Time `json:"created"`
}

var nameRule = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z._-]{0,62}[0-9A-Za-z])?$`)

// Read reads an access file; one that does not exist is an error that wraps
// fs.ErrNotExist.
func Read(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the access file: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("the access file %s can be written by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the access file: %w", err)
	}
	f, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// parse reads the text of an access file. It is strict: a mistake in it must
// not open more than was meant.
func parse(text []byte) (*File, error) {
	f := new(File)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("something follows the JSON object")
	}
	if f.Version != fileVersion {
		return nil, fmt.Errorf("version is %d; this release reads %d", f.Version, fileVersion)
	}
	names, keys := map[string]bool{}, map[string]bool{}
	for i, e := range f.Callers {
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("callers[%d] (%s): %w", i, e.Name, err)
		}
		if names[e.Name] || e.Key != "" && keys[e.Key] {
			return nil, fmt.Errorf("callers[%d] (%s): an earlier caller has the same name or key", i, e.Name)
		}
		names[e.Name], keys[e.Key] = true, true
	}
	return f, nil
}

func (e *Entry) check() error {
	if !nameRule.MatchString(e.Name) || e.Name == Local {
		return fmt.Errorf("name %q is not 1 to 64 letters, digits, dots, dashes and underscores that begin and end with a letter or digit, and not %q", e.Name, Local)
	}
	if hash, err := hex.DecodeString(e.Key); err != nil || len(hash) != 0 && len(hash) != sha256.Size {
		return fmt.Errorf("key is no SHA-256 in hexadecimal")
	}
	if len(e.Grants) == 0 {
		return errors.New("grants is empty; grant a role in a namespace, or remove the caller")
	}
	for _, g := range e.Grants {
		if g.Namespace != AllNamespaces && !nameRule.MatchString(g.Namespace) {
			return fmt.Errorf("grants: namespace %q is no name and not %q", g.Namespace, AllNamespaces)
		}
		if g.Role == None {
			return errors.New("grants: role is missing")
		}
	}
	if l := e.Limits; l != nil && (l.Rate < 0 || l.Burst < 0 || l.Sockets < 0 || l.Body < 0) {
		return errors.New("limits: a limit is negative")
	}
	return nil
}

// Add adds a caller. With key it makes an API key, which is returned and stored
// nowhere; without, the name is that of a user in the password file.
func (f *File) Add(name string, key bool, grants []Grant, limits *Limits, now time.Time) (secret string, err error) {
	e := Entry{Name: name, Grants: grants, Limits: limits, Created: now.UTC().Truncate(time.Second)}
	if slices.ContainsFunc(f.Callers, func(o Entry) bool { return o.Name == name }) {
		return "", fmt.Errorf("there is a caller %q already; revoke it first, or choose another name", name)
	}
	if key {
		random := make([]byte, 32)
		rand.Read(random) // never fails: see crypto/rand
		secret = keyPrefix + base64.RawURLEncoding.EncodeToString(random)
		e.Key = hashKey(secret)
	}
	if err := e.check(); err != nil {
		return "", err
	}
	f.Callers = append(f.Callers, e)
	return secret, nil
}

// Revoke removes a caller, and reports whether there was one.
func (f *File) Revoke(name string) bool {
	before := len(f.Callers)
	f.Callers = slices.DeleteFunc(f.Callers, func(e Entry) bool { return e.Name == name })
	return len(f.Callers) < before
}

// hashKey is how a key is stored. Its 256 random bits need no slow hash.
func hashKey(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Write puts the file in place as a whole, readable by its owner only.
func (f *File) Write(path string) error {
	f.Version = fileVersion
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".access-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the access file: %w", err)
	}
	_, err = tmp.Write(append(text, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the access file: %w", err), os.Remove(tmp.Name()))
	}
	return nil
}

// readPasswords reads lines of user:bcrypt. Empty lines and lines that begin
// with # are passed over.
func readPasswords(path string) (map[string][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the password file: %w", err)
	}
	users, err := parsePasswords(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return users, nil
}

func parsePasswords(text []byte) (map[string][]byte, error) {
	users := map[string][]byte{}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		user, hash, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(user) == 0 {
			return nil, fmt.Errorf("line %d is not of the form user:hash", n)
		}
		if err := checkBcrypt(hash); err != nil {
			return nil, fmt.Errorf("line %d, user %s: %w", n, user, err)
		}
		if _, twice := users[string(user)]; twice {
			return nil, fmt.Errorf("line %d: user %s stands there twice", n, user)
		}
		users[string(user)] = bytes.Clone(hash)
	}
	return users, nil
}

// missing reports whether an error says that a file does not exist.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
