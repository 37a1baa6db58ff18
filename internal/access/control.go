package access

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/parley-node/parley/internal/errs"
)

// Codes that existing clients know.
const (
	codeUnauthorized = "FF00169" // 401
	codeForbidden    = "FF00170" // 403
	codeTooMany      = "FF90003" // 429; Parley's own
)

// Config is where callers are known from. With neither file everybody who can
// reach the node may do everything: for loopback only.
type Config struct {
	File      string // the access file; "" for none
	Passwords string // file of user:bcrypt lines; "" for none
	// PasswordGrants are what a user of the password file may do whom the access
	// file does not name; empty for nothing.
	PasswordGrants []Grant

	Limits Limits // of each caller whose entry says nothing else; zero fields take the default
	Logger *slog.Logger
	Now    func() time.Time // time.Now if nil
}

// Defaults of Limits. Without access control nobody is limited unless the
// configuration says so: the caller is then all programs on the machine.
var defaultLimits = Limits{Rate: 2000, Burst: 4000, Sockets: 256}

// Control knows the callers. Safe for concurrent use.
type Control struct {
	cfg       Config
	now       func() time.Time
	log       *slog.Logger
	passwords *passwords
	failures  *failures
	local     *Caller // everybody, without access control

	mu      sync.RWMutex
	keys    map[string]*Caller // by hash of the key
	users   map[string]*Caller // by name
	hashes  map[string][]byte  // of users' passwords
	read    [2]stamp           // of the files as they were read
	usage   map[string]*usage  // by caller's name
	streams map[*stream]struct{}
}

// usage is what a caller uses now.
type usage struct {
	limiter *rate.Limiter
	sockets int
}

// stream is a connection that lasts, and ends when its caller loses a right.
type stream struct {
	caller *Caller
	cancel context.CancelCauseFunc
}

// stamp tells whether a file has changed.
type stamp struct {
	size     int64
	modified time.Time
}

// New reads the callers.
func New(cfg Config) (*Control, error) {
	c := &Control{
		cfg: cfg, now: cfg.Now, log: cfg.Logger,
		passwords: newPasswords(),
		usage:     map[string]*usage{},
		streams:   map[*stream]struct{}{},
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.failures = newFailures()
	if c.Open() {
		if c.cfg.Limits.Rate == 0 {
			c.cfg.Limits.Rate = float64(rate.Inf)
		}
		c.cfg.Limits.Sockets = cmp.Or(c.cfg.Limits.Sockets, 1<<20)
	}
	c.cfg.Limits = complete(c.cfg.Limits, defaultLimits)
	c.local = &Caller{Name: Local, Grants: []Grant{{Namespace: AllNamespaces, Role: Admin}}, Limits: c.cfg.Limits}
	if c.Open() {
		return c, nil
	}
	return c, c.load()
}

// Everybody lets everybody do everything, without limits.
func Everybody() *Control {
	c, _ := New(Config{}) // only reading files can fail
	return c
}

// complete fills zero fields in.
func complete(l, from Limits) Limits {
	return Limits{cmp.Or(l.Rate, from.Rate), cmp.Or(l.Burst, from.Burst), cmp.Or(l.Sockets, from.Sockets), cmp.Or(l.Body, from.Body)}
}

// Open reports whether everybody may do everything.
func (c *Control) Open() bool { return c.cfg.File == "" && c.cfg.Passwords == "" }

// load reads the files and puts what they say in place.
func (c *Control) load() error {
	stamps := c.stamps() // before reading: a change meanwhile is seen next time
	keys, users, hashes := map[string]*Caller{}, map[string]*Caller{}, map[string][]byte{}
	if c.cfg.File != "" {
		f, err := Read(c.cfg.File)
		if missing(err) {
			return fmt.Errorf("%w; make it with: parley access add NAME --role ROLE", err)
		}
		if err != nil {
			return err
		}
		for _, e := range f.Callers {
			caller := &Caller{Name: e.Name, Grants: e.Grants, Limits: c.cfg.Limits}
			if e.Limits != nil {
				caller.Limits = complete(*e.Limits, c.cfg.Limits)
			}
			if e.Key != "" {
				keys[e.Key] = caller
			} else {
				users[e.Name] = caller
			}
		}
	}
	if c.cfg.Passwords != "" {
		var err error
		if hashes, err = readPasswords(c.cfg.Passwords); err != nil {
			return err
		}
	}
	for name := range hashes {
		if users[name] == nil && len(c.cfg.PasswordGrants) > 0 {
			users[name] = &Caller{Name: name, Grants: c.cfg.PasswordGrants, Limits: c.cfg.Limits}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys, c.users, c.hashes, c.read = keys, users, hashes, stamps
	current := map[string]*Caller{}
	for _, m := range []map[string]*Caller{keys, users} {
		for _, caller := range m {
			current[caller.Name] = caller
		}
	}
	for name, u := range c.usage {
		if now := current[name]; now != nil {
			u.limiter.SetLimit(rate.Limit(now.Limits.Rate))
			u.limiter.SetBurst(now.Limits.Burst)
		} else if u.sockets == 0 && name != Local {
			delete(c.usage, name)
		}
	}
	for s := range c.streams {
		if now := current[s.caller.Name]; s.caller.Name != Local && (now == nil || !reflect.DeepEqual(now.Grants, s.caller.Grants)) {
			s.cancel(errors.New("the caller's rights have changed"))
		}
	}
	return nil
}

func (c *Control) stamps() (s [2]stamp) {
	for i, path := range []string{c.cfg.File, c.cfg.Passwords} {
		// A file that has gone differs from any that was there; load tells why.
		if info, err := os.Stat(path); path != "" && err == nil {
			s[i] = stamp{info.Size(), info.ModTime()}
		}
	}
	return s
}

// Reload reads the files again if they have changed. On an error what was read
// before stays in force.
func (c *Control) Reload() error {
	c.mu.RLock()
	same := c.read == c.stamps()
	c.mu.RUnlock()
	if same {
		return nil
	}
	return c.load()
}

// watchEvery is how soon a changed file counts.
const watchEvery = time.Second

// Watch reloads changed files until ctx ends. Callers that were revoked are
// refused from then on, and their sockets closed.
func (c *Control) Watch(ctx context.Context) {
	if c.Open() {
		return
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := c.Reload()
		if err == nil {
			told = ""
		} else if text := err.Error(); text != told {
			told = text
			c.log.Error("the access files cannot be read again; what was read before stays in force", "error", err)
		}
	}
}

// Authenticate says who makes a request: by "Authorization: Bearer KEY",
// "X-API-Key: KEY", basic authentication with a user's password or with a key
// in its place, or, for WebSockets of browsers, the subprotocol "bearer.KEY".
func (c *Control) Authenticate(r *http.Request) (*Caller, error) {
	if c.Open() {
		return c.local, nil
	}
	key, user, password := credentials(r)
	var caller *Caller
	switch {
	case key != "":
		sum := sha256.Sum256([]byte(key))
		c.mu.RLock()
		caller = c.keys[hex.EncodeToString(sum[:])]
		c.mu.RUnlock()
	case user != "":
		c.mu.RLock()
		known, hash := c.users[user], c.hashes[user]
		c.mu.RUnlock()
		right, err := c.password(r, hash, password)
		if err != nil {
			return nil, err
		}
		if right && known == nil {
			return nil, errs.New(codeForbidden, http.StatusForbidden, "User %q may do nothing yet; grant a role with: parley access add %s --user --role ROLE", user, user)
		}
		if right {
			caller = known
		}
	default:
		// A browser's first request has none; that is no attempt to guess one.
		return nil, errs.New(codeUnauthorized, http.StatusUnauthorized, "The request has no key; send it as \"Authorization: Bearer KEY\" or \"X-API-Key: KEY\", or a user and password by basic authentication")
	}
	if caller == nil {
		return nil, errs.New(codeUnauthorized, http.StatusUnauthorized, "The key, or user and password, of the request is not valid; parley access list shows who is known")
	}
	return caller, nil
}

// password reports whether a user's password is right. Who guesses is slowed
// down by address; a key has too many bits to guess, and needs no such limit,
// by which one caller of a shared address could keep out the others.
func (c *Control) password(r *http.Request, hash []byte, password string) (bool, error) {
	now := c.now()
	if hash != nil && c.passwords.known(hash, password, now) {
		return true, nil
	}
	from := host(r.RemoteAddr)
	if !c.failures.allow(from, now) {
		return false, errs.New(codeTooMany, http.StatusTooManyRequests, "Too many requests from %s had a wrong user or password; try again in a moment", from)
	}
	right, err := c.passwords.check(r.Context(), hash, password, now)
	if err == nil && !right {
		c.failures.note(from, now)
	}
	return right, err
}

// credentials are what a request shows: a key, or a user and password.
func credentials(r *http.Request) (key, user, password string) {
	scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(rest), "", ""
	}
	if user, password, ok := r.BasicAuth(); ok {
		if strings.HasPrefix(password, keyPrefix) {
			return password, "", ""
		}
		return "", user, password
	}
	if key := r.Header.Get("X-API-Key"); key != "" {
		return key, "", ""
	}
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
			for p := range strings.SplitSeq(line, ",") {
				if key, ok := strings.CutPrefix(strings.TrimSpace(p), "bearer."); ok {
					return key, "", ""
				}
			}
		}
	}
	return "", "", ""
}

// host is the address of who connects, without the port.
func host(remote string) string {
	if h, _, err := net.SplitHostPort(remote); err == nil {
		return h
	}
	return remote
}

// use is the record of what a caller uses. c.mu is held.
func (c *Control) use(caller *Caller) *usage {
	u := c.usage[caller.Name]
	if u == nil {
		u = &usage{limiter: rate.NewLimiter(rate.Limit(caller.Limits.Rate), caller.Limits.Burst)}
		c.usage[caller.Name] = u
	}
	return u
}

// Spend takes one request off what the caller may make. If none is left, wait
// is how long until there is.
func (c *Control) Spend(caller *Caller) (wait time.Duration) {
	c.mu.Lock()
	u := c.use(caller)
	c.mu.Unlock()
	now := c.now()
	turn := u.limiter.ReserveN(now, 1)
	if wait = turn.DelayFrom(now); wait > 0 {
		turn.CancelAt(now)
	}
	return wait
}

// Hold counts a connection that lasts. The context ends with ctx, with release,
// and when the caller's rights change.
func (c *Control) Hold(ctx context.Context, caller *Caller) (_ context.Context, release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.use(caller)
	if u.sockets >= caller.Limits.Sockets {
		return nil, nil, errs.New(codeTooMany, http.StatusTooManyRequests, "%s has %d WebSockets and event streams open, which is the most; close one, or have the limit raised", caller.Name, u.sockets)
	}
	u.sockets++
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stream{caller, cancel}
	c.streams[s] = struct{}{}
	return ctx, sync.OnceFunc(func() {
		cancel(nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.streams, s)
		u.sockets--
	}), nil
}

// Sockets is how many lasting connections are open.
func (c *Control) Sockets() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.streams)
}
