package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	// verifiers is how many passwords are checked at a time: a check is meant to
	// be slow, and guessing must not take the machine.
	verifiers = 2
	// rememberFor is how long a password that was right is known without a check.
	rememberFor = 5 * time.Minute
	// remembered bounds how many are known.
	remembered = 1000
)

// passwords checks passwords and remembers right ones for a while, as a hash
// under a key that only this process has.
type passwords struct {
	secret [sha256.Size]byte
	turn   chan struct{}

	mu    sync.Mutex
	right map[[sha256.Size]byte]time.Time // until when
}

func newPasswords() *passwords {
	p := &passwords{turn: make(chan struct{}, verifiers), right: map[[sha256.Size]byte]time.Time{}}
	rand.Read(p.secret[:]) // never fails: see crypto/rand
	return p
}

// nobody is compared with where there is no such user, so that the time of an
// answer does not tell the names of users.
var nobody = sync.OnceValue(func() []byte {
	hash, err := bcrypt.GenerateFromPassword([]byte("nobody"), bcrypt.DefaultCost)
	if err != nil {
		return nil // the cost is a constant that is allowed
	}
	return hash
})

// id names a pair of hash and password in memory.
func (p *passwords) id(hash []byte, password string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, p.secret[:])
	fmt.Fprintf(mac, "%d:%s%s", len(hash), hash, password)
	return [sha256.Size]byte(mac.Sum(nil))
}

// known reports whether the password was right lately.
func (p *passwords) known(hash []byte, password string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.right[p.id(hash, password)])
}

// check reports whether a password belongs to a hash; a nil hash belongs to
// nobody. An error means that ctx ended before its turn.
func (p *passwords) check(ctx context.Context, hash []byte, password string, now time.Time) (bool, error) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-p.turn }()
	if hash == nil {
		_ = bcrypt.CompareHashAndPassword(nobody(), []byte(password)) // for its time only
		return false, nil
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.right) >= remembered {
		clear(p.right)
	}
	p.right[p.id(hash, password)] = now.Add(rememberFor)
	return true, nil
}

// checkBcrypt says why a text is no bcrypt hash.
func checkBcrypt(hash []byte) error {
	cost, err := bcrypt.Cost(hash)
	if err != nil {
		return fmt.Errorf("the hash is no bcrypt hash (%w); make it with: htpasswd -nB user", err)
	}
	const most = 14 // a second or so
	if cost > most {
		return fmt.Errorf("the hash has cost %d; at most %d, or each request would take seconds", cost, most)
	}
	return nil
}
