package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

const (
	codeMediaType = "FF00162" // 415
	codeBadBody   = "FF90004" // Parley's own: the body is no JSON that fits
	codeTooLarge  = "FF90005" // Parley's own: the body has more bytes than allowed
)

// call is one request on its way through a handler.
type call struct {
	*server
	w      http.ResponseWriter
	r      *http.Request
	op     *route
	caller *access.Caller
	query  url.Values
	form   bool // the body is multipart/form-data
	empty  bool // the body's type is one whose content existing servers ignore
}

// ctx ends with the request, or with its time.
func (c *call) ctx() context.Context { return c.r.Context() }

// serve is what all operations have in common.
func (s *server) serve(op *route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := s.Now()
		tracked := w.(*statusWriter) // of admit
		v := visitOf(r.Context())
		v.route = op.id
		c := &call{server: s, w: tracked, r: r, op: op, caller: v.caller, query: r.URL.Query()}
		defer func() { s.metrics.request(op, tracked.status, s.Now().Sub(start)) }()
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p) // net/http cuts the connection
			}
			s.Logger.Error("a handler panicked", "operation", op.id, "panic", p, "stack", string(debug.Stack()))
			if tracked.status == 0 {
				writeError(tracked, errors.New("handler panicked"))
			}
		}()
		c.run()
	})
}

// run handles the call and answers it.
func (c *call) run() {
	if !c.op.spec.stream || c.r.Header.Get(headerTimeout) != "" {
		ctx, cancel := context.WithTimeout(c.ctx(), c.timeout())
		defer cancel()
		c.r = c.r.WithContext(ctx)
	}
	result, err := c.handle()
	if err == nil {
		err = c.answer(result)
	}
	if err != nil {
		c.fail(err)
	}
}

func (c *call) handle() (any, error) {
	if err := c.served(); err != nil {
		return nil, err
	}
	if err := c.permit(); err != nil {
		c.metrics.refused(err)
		return nil, err
	}
	if err := c.contentType(); err != nil {
		return nil, err
	}
	if c.writes() {
		if err := c.gate.enter(c.ctx()); err != nil {
			c.metrics.refused(err)
			return nil, err
		}
	}
	return c.op.handle(c)
}

// served refuses what is for a namespace that is not this server's, or for one
// that does not run.
func (c *call) served() error {
	if c.op.spec.global {
		return nil
	}
	ns := c.r.PathValue("ns")
	if c.Namespace == "" { // the host's own server: it serves none
		n, err := c.Host.find(ns)
		if err != nil {
			return err
		}
		return notStarted(n.namespace)
	}
	if ns != "" && c.localName(ns) != c.Namespace {
		return noNamespace(ns)
	}
	return c.offered()
}

// unnamed is what one client writes where its user left the namespace out.
const unnamed = "undefined"

// permit judges whether the caller may do this here.
func (c *call) permit() error {
	namespace := c.Namespace
	if c.op.spec.global {
		namespace = c.localName(c.r.PathValue("ns")) // "" for what is about all of them
	}
	return permit(c.caller, c.op.needs(), namespace)
}

// payloads reports whether the caller may see values and blobs.
func (c *call) payloads() bool { return c.caller.Payloads(c.Namespace) }

// localName is the namespace that a path names.
func (s *server) localName(ns string) string {
	if ns == unnamed {
		return s.Namespace
	}
	return ns
}

func noNamespace(ns string) error {
	return errs.New("FF10436", http.StatusNotFound, "There is no namespace %q on this node; see GET namespaces", shorten(ns))
}

func (c *call) writes() bool {
	return !c.op.spec.light && c.r.Method != http.MethodGet && c.r.Method != http.MethodHead
}

const headerTimeout = "Request-Timeout"

// timeout is how long the request may take: what the client asks for, in
// seconds or as a duration, up to the most that is allowed.
func (c *call) timeout() time.Duration {
	text := c.r.Header.Get(headerTimeout)
	if text == "" {
		return c.Limits.Request
	}
	d, err := time.ParseDuration(text)
	if seconds, bad := strconv.ParseFloat(text, 64); bad == nil {
		d, err = time.Duration(min(seconds, c.Limits.MaxRequest.Seconds())*float64(time.Second)), nil
	}
	if err != nil || d <= 0 {
		c.Logger.Warn("a Request-Timeout is no number of seconds and no duration; the default is used", "value", shorten(text), "request", c.r.Header.Get(headerRequestID))
		return c.Limits.Request
	}
	return min(d, c.Limits.MaxRequest)
}

// contentType applies the rules about bodies that existing clients know.
func (c *call) contentType() error {
	switch c.r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		return nil
	}
	text := c.r.Header.Get("Content-Type")
	kind, _, err := mime.ParseMediaType(text)
	if err != nil {
		kind, _, _ = strings.Cut(text, ";")
	}
	kind = strings.ToLower(strings.TrimSpace(kind))
	switch {
	case strings.HasPrefix(kind, "application/json"):
		return nil
	case kind == "multipart/form-data" && c.op.spec.form:
		c.form = true
		return nil
	case kind == "application/x-www-form-urlencoded", kind == "text/plain":
		c.empty = true
		return nil
	}
	want := "application/json"
	if c.op.spec.form {
		want += " or multipart/form-data"
	}
	return errs.New(codeMediaType, http.StatusUnsupportedMediaType, "The content type is %q; send %s", shorten(text), want)
}

// body wraps a handler that takes a JSON body.
func body[In any](h func(c *call, in In) (any, error)) handler {
	return func(c *call) (any, error) {
		var in In
		if err := c.decode(&in); err != nil {
			return nil, err
		}
		return h(c, in)
	}
}

// decode reads the JSON body into v. What follows the first value, and fields
// that v does not have, are ignored.
func (c *call) decode(v any) error {
	if c.empty {
		return nil
	}
	limit := c.Limits.Body
	if own := c.caller.Limits.Body; own > 0 {
		limit = own
	}
	src := c.reader(limit)
	err := json.NewDecoder(src).Decode(v)
	if err == nil {
		if _, err = io.Copy(io.Discard, src); err == nil {
			src.done()
			return nil
		}
	}
	if e, ok := errors.AsType[*errs.Error](err); ok {
		return e
	}
	if failed := src.failure(err); failed != nil {
		return failed
	}
	text := err.Error()
	switch {
	case errors.Is(err, io.EOF):
		text = "it is empty"
	case strings.Contains(text, "invalid UUID") || uuid.IsInvalidLengthError(err) || strings.Contains(text, "invalid urn prefix"):
		return errs.New(errs.CodeBadUUID, http.StatusBadRequest, "The body holds text that is not a UUID (%s); write it as 8-4-4-4-12 hexadecimal digits", text)
	}
	return errs.New(codeBadBody, http.StatusBadRequest, "The body is no JSON of the expected form: %s", text)
}

// reader gives the body, up to a number of bytes (0 for no limit), as long as
// it keeps coming.
func (c *call) reader(limit int64) *bodyReader {
	b := &bodyReader{src: c.r.Body, limit: limit, stall: c.Limits.Stall, conn: http.NewResponseController(c.w), header: c.w.Header()}
	if limit > 0 {
		b.src = http.MaxBytesReader(c.w, c.r.Body, limit)
	}
	return b
}

// bodyReader renews the connection's read deadline with each read.
type bodyReader struct {
	src   io.Reader
	limit int64
	stall time.Duration
	conn  *http.ResponseController

	header http.Header // of the answer
}

func (b *bodyReader) Read(p []byte) (int, error) {
	// Recorders of tests have no deadlines; every real connection has.
	_ = b.conn.SetReadDeadline(time.Now().Add(b.stall))
	return b.src.Read(p)
}

// done takes the deadline away once all is read; it would otherwise end the
// request while it is being handled. Where something is left to read it stays:
// the server waits for the rest before it answers.
func (b *bodyReader) done() { _ = b.conn.SetReadDeadline(time.Time{}) }

// failure is the error for a body that could not be read, nil for one that
// could.
func (b *bodyReader) failure(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errs.New(codeTooLarge, http.StatusRequestEntityTooLarge, "The body has more than the allowed %d bytes; send large content as a blob (multipart/form-data to POST data)", b.limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		b.header.Set("Connection", "close") // the rest will not come
		return errs.New(errs.CodeTimeout, http.StatusRequestTimeout, "The body did not arrive: nothing came for %s; send it again", b.stall)
	}
	return nil
}

// path is a variable of the path.
func (c *call) path(name string) string { return c.r.PathValue(name) }

// uuid is a variable of the path that must be a UUID.
func (c *call) uuid(name string) (store.UUID, error) {
	text := c.path(name)
	id, err := uuid.Parse(text)
	if err != nil {
		return id, errs.BadUUID(shorten(text))
	}
	return id, nil
}

// param is the first value of a query parameter.
func (c *call) param(name string) string { return c.query.Get(name) }

// flag is true for a parameter that is there without a value or as "true".
func (c *call) flag(name string) bool {
	values, there := c.query[name]
	return there && (values[0] == "" || strings.EqualFold(values[0], "true"))
}

// parse reads the query in the syntax of a collection.
func (c *call) parse(col *store.Collection) (store.Query, error) {
	if !c.payloads() {
		if err := c.probes(col); err != nil {
			return store.Query{}, err
		}
	}
	return store.ParseQuery(col, c.query, store.DefaultLimits)
}

// page is a result that becomes a plain array, or with ?count an envelope.
type page[T any] struct {
	items []T
	count bool
	total int64
}

type envelope[T any] struct {
	Count int   `json:"count"` // rows of this page
	Total int64 `json:"total"` // rows that match
	Items []T   `json:"items"`
}

// MarshalJSON writes the form that the client asked for; never null.
func (p page[T]) MarshalJSON() ([]byte, error) {
	items := p.items
	if items == nil {
		items = []T{}
	}
	if !p.count {
		return json.Marshal(items)
	}
	return json.Marshal(envelope[T]{len(items), p.total, items})
}

// text is a result with bytes and a type of its own.
type text struct {
	kind string
	body []byte
}

func (t text) respond(c *call) error {
	c.w.Header().Set("Content-Type", t.kind)
	c.w.WriteHeader(c.status())
	_, _ = c.w.Write(t.body) // a client that has gone needs no answer
	return nil
}

// status is that of a success.
func (c *call) status() int {
	switch {
	case c.op.spec.confirm && c.flag("confirm"):
		return http.StatusOK
	case c.op.spec.confirm:
		return http.StatusAccepted
	case c.op.spec.status != 0:
		return c.op.spec.status
	}
	return http.StatusOK
}

// late says whether the request has ended, or its time: the clock may be ahead
// of the timer.
func (c *call) late() bool {
	deadline, limited := c.ctx().Deadline()
	return c.ctx().Err() != nil || limited && !time.Now().Before(deadline)
}

// answer writes a success.
func (c *call) answer(result any) error {
	if c.late() {
		return context.DeadlineExceeded // whatever happened
	}
	if c.status() == http.StatusNoContent {
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if result == nil {
		return errs.NoResult()
	}
	if r, ok := result.(responder); ok {
		return r.respond(c)
	}
	if !c.payloads() {
		result = withhold(result)
	}
	return writeJSON(c.w, c.status(), result)
}

// fail writes an error. What a client is not to see is logged.
func (c *call) fail(err error) {
	if c.late() && errs.Status(err) != http.StatusRequestTimeout {
		// What failed because the time was up is no other error.
		err = errs.New(errs.CodeTimeout, http.StatusRequestTimeout, "The request did not end in its time; what it started goes on")
	}
	if errs.Code(err) == "" && errs.Status(err) == http.StatusInternalServerError {
		c.Logger.Error("request failed", "operation", c.op.id, "path", c.r.URL.Path, "request", c.r.Header.Get(headerRequestID), "error", err)
	}
	writeError(c.w, err)
}

// retryAfter is what a refused client is told to wait, in seconds.
var retryAfter = map[int]string{http.StatusTooManyRequests: "1", http.StatusServiceUnavailable: "5"}

// writeError answers with the JSON of an error.
func writeError(w http.ResponseWriter, err error) {
	status := errs.Status(err)
	if s, ok := retryAfter[status]; ok && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", s)
	}
	// An error's text always becomes JSON, and a client that has gone needs none.
	_ = writeJSON(w, status, map[string]string{"error": errs.Public(err)})
}

// writeJSON answers with v and a newline. Nothing is sent if v cannot be
// encoded.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	var buf bytes.Buffer
	if err := json.NewEncoder(&buf).Encode(v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(buf.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // a client that has gone needs no answer
	return nil
}

// statusWriter remembers status and size for the metrics and the log, and renews the
// connection's write deadline as data flows: a client may be slow, but not
// stand still.
type statusWriter struct {
	http.ResponseWriter
	status   int
	bytes    int64
	hijacked bool
	stall    time.Duration
	conn     *http.ResponseController
}

// Hijack implements http.Hijacker: the connection becomes a WebSocket's.
func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.hijacked = true
	return w.conn.Hijack()
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// writePiece is how much must get through within one deadline.
const writePiece = 64 << 10

func (w *statusWriter) Write(b []byte) (n int, err error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	for len(b) > 0 && err == nil {
		_ = w.conn.SetWriteDeadline(time.Now().Add(w.stall)) // a test's recorder has none
		var m int
		m, err = w.ResponseWriter.Write(b[:min(len(b), writePiece)])
		n += m
		b = b[m:]
	}
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
