package errs

import "net/http"

// Codes that are used in more than one place. A code that one function alone
// returns stands in that function.
const (
	CodeInternal     = "FF00000" // a fault of the node; no client knows a code for it
	CodeTimeout      = "FF00166" // 408, the request ended first
	CodeNotFound     = "FF10109" // 404, no such object
	CodeNilResult    = "FF00164" // 404, a name-or-id path leads to nothing
	CodeBadTime      = "FF00136" // 400
	CodeBadUUID      = "FF00138" // 400
	CodeBadName      = "FF00140" // 400
	CodeBadValue     = "FF00143" // 400, a filter's value does not fit its field
	CodeNullOperator = "FF00144" // 400, NULL with an operator that cannot mean anything
	CodeTextOperator = "FF00145" // 400, a text operator on a number, time or boolean
	CodeBadHex       = "FF00106" // 400
	CodeBadHash      = "FF00107" // 400, hexadecimal but not 32 bytes
	CodeMessageKey   = "FF10430" // 409, an idempotency key of a message again
	CodeTxKey        = "FF10431" // 409, an idempotency key of a transaction again
)

// For errors.Is only: any error of the same code matches.
var (
	NotFound       = &Error{Code: CodeNotFound, Status: http.StatusNotFound, Text: "Not found"}
	MessageKeyUsed = &Error{Code: CodeMessageKey, Status: http.StatusConflict, Text: "Idempotency key already used"}
	TxKeyUsed      = &Error{Code: CodeTxKey, Status: http.StatusConflict, Text: "Idempotency key already used"}
)

// NoSuch is the 404 for an object of a kind ("message", "data") by id or name.
func NoSuch(kind, id string) *Error {
	return New(CodeNotFound, http.StatusNotFound, "There is no %s %q", kind, id)
}

// NoResult is the 404 where a name-or-id path leads to nothing.
func NoResult() *Error {
	return New(CodeNilResult, http.StatusNotFound, "Not found")
}

// BadUUID is the 400 for text that is not a UUID.
func BadUUID(text string) *Error {
	return New(CodeBadUUID, http.StatusBadRequest, "%q is not a UUID; write it as 8-4-4-4-12 hexadecimal digits", text)
}

// BadTime is the 400 for text that is not a time.
func BadTime(text string) *Error {
	return New(CodeBadTime, http.StatusBadRequest,
		"%q is not a time; write RFC 3339 (2006-01-02T15:04:05Z) or a whole number of seconds, milliseconds or nanoseconds since 1970", text)
}

// BadHash is the 400 for text that is not 32 bytes of hexadecimal: FF00106 if it
// is not hexadecimal at all, FF00107 if it has another length.
func BadHash(text string, hex bool) *Error {
	if !hex {
		return New(CodeBadHex, http.StatusBadRequest, "%q is not hexadecimal", text)
	}
	return New(CodeBadHash, http.StatusBadRequest, "%q does not have 32 bytes; write 64 hexadecimal digits", text)
}

// MessageKeyReused is the 409 for an idempotency key that a message had before.
func MessageKeyReused(key, id string) *Error {
	return New(CodeMessageKey, http.StatusConflict, "Idempotency key %q was already used by message %s", key, id)
}

// TxKeyReused is the 409 for an idempotency key that a transaction had before.
func TxKeyReused(key, id string) *Error {
	return New(CodeTxKey, http.StatusConflict, "Idempotency key %q was already used by transaction %s", key, id)
}

// BadRequest is a 400 with the given code.
func BadRequest(code, format string, args ...any) *Error {
	return New(code, http.StatusBadRequest, format, args...)
}

// Conflict is a 409 with the given code.
func Conflict(code, format string, args ...any) *Error {
	return New(code, http.StatusConflict, format, args...)
}
