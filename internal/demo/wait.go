package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// askEvery is how often something that takes its time is asked for.
const askEvery = 25 * time.Millisecond

// waitFor asks until the answer is yes. An error ends it; the end of ctx tells
// what it waited for.
func waitFor(ctx context.Context, what string, ask func(context.Context) (bool, error)) error {
	began := time.Now()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		yes, err := ask(ctx)
		switch {
		case err == nil && yes:
			return nil
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return fmt.Errorf("waited %.1f s in vain until %s", time.Since(began).Seconds(), what)
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// answers says whether something listens at a URL.
func answers(ctx context.Context, address string) (bool, error) {
	u, err := url.Parse(address)
	if err != nil {
		return false, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return false, nil // not yet
	}
	return true, c.Close()
}

// lastOf is the last line of a text.
func lastOf(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// running says whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// firstLine is the first line of a text, not too long.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	if len(line) > 160 {
		line = strings.ToValidUTF8(line[:160], "") + "…"
	}
	return line
}
