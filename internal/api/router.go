package api

import (
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// route is one operation of the API.
type route struct {
	method  string
	path    string // below /api/v1, or below the namespace; in the syntax of http.ServeMux
	id      string // operationId of the OpenAPI document
	summary string
	handle  handler
	spec    spec
}

// spec is what the OpenAPI document and the common code need to know.
type spec struct {
	global  bool              // exists only without a namespace
	status  int               // of success; 200 if zero
	confirm bool              // takes ?confirm; success is 202, or 200 with it
	filter  *store.Collection // takes the query syntax of this collection
	flags   []string          // boolean query parameters
	params  []string          // other query parameters
	in      any               // a zero value of the body's type
	out     any               // a zero value of the result's type
	stream  bool              // reads or writes as much as comes
	form    bool              // takes multipart/form-data too
	light   bool              // does not write, although its method may
}

// handler answers one call: with a value that becomes JSON, with a responder,
// or with an error. A nil value of a success other than 204 is FF00164.
type handler func(c *call) (any, error)

// responder is a result that writes itself.
type responder interface {
	respond(c *call) error
}

// router is a mux with the rules of existing clients for what is not found.
type router struct {
	s      *server
	mux    *http.ServeMux
	routes []route
}

const base = "/api/v1/"

// newRouter registers each operation under its paths.
func newRouter(s *server, routes []route) *router {
	rt := &router{s: s, mux: http.NewServeMux(), routes: routes}
	rt.add(base, routes)
	return rt
}

// add registers operations below a path.
func (rt *router) add(base string, routes []route) {
	for i := range routes {
		op := &routes[i]
		h := rt.s.serve(op)
		rt.mux.Handle(op.method+" "+base+op.path, h)
		if !op.spec.global {
			rt.mux.Handle(op.method+" "+base+"namespaces/{ns}/"+op.path, h)
		}
	}
}

func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if clean := cleanPath(r.URL.EscapedPath()); clean != r.URL.EscapedPath() {
		// Clients emit doubled slashes and follow the redirect.
		if r.URL.RawQuery != "" {
			clean += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", clean)
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	if strings.Contains(r.URL.Path, "+") {
		r = spaces(r)
	}
	h, pattern := rt.mux.Handler(r)
	if pattern != "" {
		rt.mux.ServeHTTP(w, r)
		return
	}
	// The mux's own answer tells an unknown path from a wrong method.
	var answer discard
	h.ServeHTTP(&answer, r)
	if answer.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", answer.Header().Get("Allow"))
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	writeError(w, errs.New(errs.CodeNotFound, http.StatusNotFound, "There is nothing at %s %s", r.Method, shorten(r.URL.Path)))
}

// cleanPath removes doubled slashes and dot segments from an escaped path.
func cleanPath(p string) string {
	if p == "" {
		return "/"
	}
	clean := path.Clean("/" + p)
	if p[len(p)-1] == '/' && clean != "/" {
		clean += "/"
	}
	return clean
}

// spaces reads a plus sign in a path as a space, as in a query. One that came
// escaped stays a plus.
func spaces(r *http.Request) *http.Request {
	raw := strings.ReplaceAll(r.URL.EscapedPath(), "+", "%20")
	decoded, err := url.PathUnescape(raw)
	if err != nil {
		return r // cannot be: EscapedPath is well-formed
	}
	u := *r.URL
	u.Path, u.RawPath = decoded, raw
	clone := *r
	clone.URL = &u
	return &clone
}

// shorten keeps what a client sent readable in an error.
func shorten(text string) string {
	const most = 200
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}

// discard is a ResponseWriter that keeps only the status and the header.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header {
	if d.header == nil {
		d.header = http.Header{}
	}
	return d.header
}
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
