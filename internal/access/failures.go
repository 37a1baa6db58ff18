package access

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	failureRate  = 1 // failed attempts a second from one address, on average
	failureBurst = 20
	addresses    = 4096 // that are told apart; more share one limit
)

// failures slows down who guesses keys and passwords.
type failures struct {
	mu     sync.Mutex
	of     map[string]*rate.Limiter
	others *rate.Limiter // of addresses beyond the bound
}

func newFailures() *failures { return &failures{of: map[string]*rate.Limiter{}} }

// allow reports whether an address may try.
func (f *failures) allow(address string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.of[address]
	if l == nil && len(f.of) >= addresses {
		l = f.others
	}
	return l == nil || l.TokensAt(now) >= 1
}

// note counts a failed attempt.
func (f *failures) note(address string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.of[address]
	if l == nil {
		for a, old := range f.of {
			if len(f.of) < addresses {
				break
			}
			if old.TokensAt(now) >= failureBurst { // forgiven
				delete(f.of, a)
			}
		}
		switch {
		case len(f.of) < addresses:
			l = rate.NewLimiter(failureRate, failureBurst)
			f.of[address] = l
		case f.others == nil:
			f.others = rate.NewLimiter(failureRate, failureBurst)
			fallthrough
		default:
			l = f.others
		}
	}
	l.AllowN(now, 1)
}
