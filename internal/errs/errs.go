// Package errs is the one error that a client of the API can see: a code that
// programs test for, an HTTP status, a text for people, and a cause.
//
// The codes are those that existing clients know ("FF" and five digits); the
// texts are our own. An error without a code is a fault of the node: it is
// logged in full, and the client sees only that there was one (Public).
package errs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Error is an error with a code.
type Error struct {
	Code   string // FFnnnnn
	Status int    // HTTP status
	Text   string // what is wrong, with which value, and what to do
	Cause  error  // may be nil; its text is shown to the client
}

// New returns a coded error; the text is formatted as by fmt.Sprintf.
func New(code string, status int, format string, args ...any) *Error {
	return &Error{Code: code, Status: status, Text: fmt.Sprintf(format, args...)}
}

// Wrap returns a coded error with a cause. The cause's text reaches the client
// if the cause has a code, or was made for people; never wrap a database or
// network error of the node itself: return that as it is.
func Wrap(cause error, code string, status int, format string, args ...any) *Error {
	return &Error{Code: code, Status: status, Text: fmt.Sprintf(format, args...), Cause: cause}
}

// Error is "FFnnnnn: text", followed by ": " and the cause if there is one.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Code + ": " + e.Text
	}
	return e.Code + ": " + e.Text + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is reports whether target is an *Error with the same code and no more detail,
// so that errors.Is(err, errs.NotFound) works for every text of that code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Cause == nil && t.Code == e.Code
}

// Code returns the code of the outermost coded error in err's chain, "" if there
// is none.
func Code(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// Status returns the HTTP status of the outermost coded error in err's chain:
// 200 for nil, 408 for an expired context without a code, otherwise 500.
func Status(err error) int {
	if err == nil {
		return http.StatusOK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		if e.Status == 0 {
			return http.StatusInternalServerError
		}
		return e.Status
	}
	if isTimeout(err) {
		return http.StatusRequestTimeout
	}
	return http.StatusInternalServerError
}

// Public is the text of err for a client: the outermost coded error of the chain
// with its causes. An error without a code is an internal one; its text may hold
// SQL, paths or addresses and is not shown.
func Public(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Error()
	}
	if isTimeout(err) {
		return New(CodeTimeout, http.StatusRequestTimeout, "The request ended before its result was known; what it started goes on").Error()
	}
	return New(CodeInternal, http.StatusInternalServerError, "Internal error; the node's log has the details").Error()
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
