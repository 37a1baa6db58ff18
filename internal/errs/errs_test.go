package errs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestErrorText(t *testing.T) {
	inner := New("FF00138", 400, "%q is not a UUID", "x")
	for _, c := range []struct {
		err    error
		text   string
		code   string
		status int
	}{
		{inner, `FF00138: "x" is not a UUID`, "FF00138", 400},
		{Wrap(inner, "FF10176", 500, "Invalid data"), `FF10176: Invalid data: FF00138: "x" is not a UUID`, "FF10176", 500},
		{fmt.Errorf("reading the body: %w", inner), `reading the body: FF00138: "x" is not a UUID`, "FF00138", 400},
		{Wrap(errors.New("execution reverted"), "FF10111", 0, "The chain refused"), `FF10111: The chain refused: execution reverted`, "FF10111", 500},
		{errors.New("plain"), "plain", "", 500},
		{context.DeadlineExceeded, "context deadline exceeded", "", 408},
	} {
		if got := c.err.Error(); got != c.text {
			t.Errorf("text %q, want %q", got, c.text)
		}
		if got := Code(c.err); got != c.code {
			t.Errorf("%v: code %q, want %q", c.err, got, c.code)
		}
		if got := Status(c.err); got != c.status {
			t.Errorf("%v: status %d, want %d", c.err, got, c.status)
		}
	}
	if Status(nil) != 200 || Public(nil) != "" {
		t.Error("nil is not a success")
	}
}

// What the node trips over must not reach a client; what a client did wrong must.
func TestPublicHidesInternalErrors(t *testing.T) {
	secret := errors.New("SELECT secret FROM epochs: disk I/O error")
	if got := Public(fmt.Errorf("writing: %w", secret)); strings.Contains(got, "SELECT") || !strings.HasPrefix(got, "FF00000: ") {
		t.Errorf("an internal error is shown as %q", got)
	}
	if got := Public(fmt.Errorf("writing: %w", NoSuch("message", "7"))); got != `FF10109: There is no message "7"` {
		t.Errorf("a coded error is shown as %q", got)
	}
}

func TestIsComparesCodes(t *testing.T) {
	err := fmt.Errorf("sending: %w", MessageKeyReused("k", "id"))
	if !errors.Is(err, MessageKeyUsed) {
		t.Error("a message key error is not MessageKeyUsed")
	}
	if errors.Is(err, TxKeyUsed) || errors.Is(err, NotFound) {
		t.Error("a message key error is something else too")
	}
	if cause := errors.New("why"); !errors.Is(Wrap(cause, "FF10111", 500, "text"), cause) {
		t.Error("the cause is not in the chain")
	}
}
