// Package trace carries one trace id from the request that starts something to
// the last node where it has an effect, in the form of W3C Trace Context.
package trace

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// Header is the HTTP header, and the field of events, that carries a Context.
const Header = "traceparent"

// ID names one trace, across all nodes.
type ID [16]byte

// SpanID names one step of a trace.
type SpanID [8]byte

func (id ID) String() string     { return hex.EncodeToString(id[:]) }
func (id SpanID) String() string { return hex.EncodeToString(id[:]) }

// Context is the trace that something belongs to, the step that caused it, and
// whether its steps are to be recorded. The zero value belongs to none.
type Context struct {
	Trace   ID
	Span    SpanID
	Sampled bool
}

// New begins a trace.
func New() (c Context) {
	rand.Read(c.Trace[:]) // never fails: see crypto/rand
	rand.Read(c.Span[:])
	return c
}

// Child is the context of a step that c causes: the same trace, a span of its
// own.
func (c Context) Child() Context {
	rand.Read(c.Span[:])
	return c
}

// IsZero reports whether c belongs to no trace.
func (c Context) IsZero() bool { return c.Trace == ID{} }

// String is the value of the header (W3C Trace Context, section 3.2), "" for
// the zero value.
func (c Context) String() string {
	if c.IsZero() {
		return ""
	}
	flags := "00"
	if c.Sampled {
		flags = "01"
	}
	return "00-" + c.Trace.String() + "-" + c.Span.String() + "-" + flags
}

// Parse reads a header. As section 3.2.2.3 and 4.3 want it, a value that is not
// well formed counts as none, and a later version is read by the rules of this
// one, with what follows ignored.
func Parse(header string) (c Context, ok bool) {
	const length = 55
	if len(header) < length || len(header) > 512 || header[2] != '-' || header[35] != '-' || header[52] != '-' {
		return Context{}, false
	}
	if header != strings.ToLower(header) {
		return Context{}, false
	}
	var version, flags [1]byte
	for _, part := range []struct {
		to   []byte
		text string
	}{{version[:], header[:2]}, {c.Trace[:], header[3:35]}, {c.Span[:], header[36:52]}, {flags[:], header[53:55]}} {
		if _, err := hex.Decode(part.to, []byte(part.text)); err != nil {
			return Context{}, false
		}
	}
	switch {
	case version[0] == 0xff, version[0] == 0 && len(header) != length, len(header) > length && header[length] != '-':
		return Context{}, false
	case c.Trace == ID{}, c.Span == SpanID{}:
		return Context{}, false
	}
	c.Sampled = flags[0]&1 == 1
	return c, true
}

type key struct{}

// With puts c into a context.
func With(ctx context.Context, c Context) context.Context { return context.WithValue(ctx, key{}, c) }

// From is what With put there, or the zero value.
func From(ctx context.Context) Context {
	c, _ := ctx.Value(key{}).(Context)
	return c
}

// Size is how many bytes a Context has on the wire.
const Size = 16 + 8 + 1

// Bytes is the form on the wire: trace, span, flags. Nil for the zero value.
func (c Context) Bytes() []byte {
	if c.IsZero() {
		return nil
	}
	b := append(append(make([]byte, 0, Size), c.Trace[:]...), c.Span[:]...)
	if c.Sampled {
		return append(b, 1)
	}
	return append(b, 0)
}

// FromBytes is the inverse of Bytes; what is not well formed counts as none.
func FromBytes(b []byte) (c Context) {
	if len(b) != Size {
		return Context{}
	}
	copy(c.Trace[:], b)
	copy(c.Span[:], b[16:])
	if (c.Trace == ID{} || c.Span == SpanID{}) {
		return Context{}
	}
	c.Sampled = b[24]&1 == 1
	return c
}
