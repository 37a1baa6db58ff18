package api

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/trace"
)

// visit is what is known of a request besides its content: who makes it, what
// it turned out to ask for, and which trace it belongs to.
type visit struct {
	caller *access.Caller // nil until known
	route  string         // operation id, or the path of what is no operation
	trace  trace.Context
	cause  trace.SpanID // the step of the caller's that made the request
}

type visitKey struct{}

func visitOf(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	if v == nil {
		return &visit{} // nobody: admit was not asked
	}
	return v
}

// free are the paths that need no key: whether the process lives is no secret,
// and who asks cannot give one.
func free(path string) bool { return path == "/livez" || path == "/readyz" }

// admit lets those in who are known and have not asked for too much, and leaves
// a line in the log for each request.
func (s *server) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if free(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		start := s.Now()
		v := &visit{route: "none"}
		v.trace, v.cause = s.Trace.Request(r.Header.Get(trace.Header))
		tracked := &statusWriter{ResponseWriter: w, stall: s.Limits.Stall, conn: http.NewResponseController(w)}
		defer func() { s.log(r, v, tracked, s.Now().Sub(start)) }()
		w.Header().Set("Traceresponse", v.trace.String()) // W3C Trace Context, level 2
		if err := s.known(tracked, r, v); err != nil {
			writeError(tracked, err)
			return
		}
		ctx := trace.With(context.WithValue(r.Context(), visitKey{}, v), v.trace)
		next.ServeHTTP(tracked, r.WithContext(ctx))
	})
}

// known finds out who calls, and takes the request off what they may make.
func (s *server) known(w http.ResponseWriter, r *http.Request, v *visit) error {
	caller, err := s.Access.Authenticate(r)
	if err != nil {
		s.metrics.refused(err)
		if errs.Status(err) == http.StatusUnauthorized {
			w.Header().Add("WWW-Authenticate", `Bearer realm="parley"`)
			w.Header().Add("WWW-Authenticate", `Basic realm="parley", charset="UTF-8"`)
		}
		return err
	}
	v.caller = caller
	wait := s.Access.Spend(caller)
	if wait <= 0 {
		return nil
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(min(wait, time.Hour).Seconds()))))
	err = errs.New(codeOverload, http.StatusTooManyRequests, "%s makes more than %g requests a second, %d at once; slow down, or have the limit raised", caller.Name, caller.Limits.Rate, caller.Limits.Burst)
	s.metrics.refused(err)
	return err
}

// log leaves the line of a request.
func (s *server) log(r *http.Request, v *visit, w *statusWriter, took time.Duration) {
	s.Trace.Step(trace.Step{
		Name: v.route, Context: v.trace, Parent: v.cause, Start: s.Now().Add(-took), End: s.Now(), Server: true,
		Attributes: []slog.Attr{slog.String("method", r.Method), slog.Int("status", w.status)},
	})
	if s.QuietRequests || !s.Logger.Enabled(r.Context(), slog.LevelInfo) {
		return
	}
	name := "-"
	if v.caller != nil {
		name = v.caller.Name
	}
	status := w.status
	if w.hijacked {
		status = http.StatusSwitchingProtocols
	}
	s.Logger.LogAttrs(r.Context(), slog.LevelInfo, "request", slog.String("caller", name), slog.String("method", r.Method), slog.String("route", v.route),
		slog.Int("status", status), slog.Int64("bytes", w.bytes), slog.Duration("took", took), slog.String("remote", r.RemoteAddr),
		slog.String("request", r.Header.Get(headerRequestID)), slog.String("trace", v.trace.Trace.String()))
}

// permit judges whether a caller may do what needs n in a namespace; "" for
// what belongs to none.
func permit(caller *access.Caller, n need, namespace string) error {
	if caller == nil {
		return errs.New("FF00169", http.StatusUnauthorized, "The request has no caller")
	}
	role, where := caller.Anywhere(), "any namespace"
	if namespace != "" {
		role, where = caller.Role(namespace), "namespace "+strconv.Quote(namespace)
	}
	if role < n.role {
		return errs.New(codeForbidden, http.StatusForbidden, "%s has the role %s in %s; this needs %s", caller.Name, role, where, n.role)
	}
	if n.payloads && !caller.Payloads(namespace) {
		return errs.New(codeForbidden, http.StatusForbidden, "%s has the role %s in %s, which shows no payloads; this needs reader, or payloads granted", caller.Name, role, where)
	}
	return nil
}

// guarded is a handler that is no operation of the table, and what it needs.
func (s *server) guarded(route string, role access.Role, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := visitOf(r.Context())
		v.route = route
		ns := ""
		if named := r.PathValue("ns"); named != "" {
			ns = s.localName(named)
		}
		if err := permit(v.caller, need{role: role}, ns); err != nil {
			s.metrics.refused(err)
			writeError(w, err)
			return
		}
		h(w, r)
	}
}

// lasting is a handler whose request goes on for as long as its caller likes,
// up to a number of them at a time, and keeps its rights.
func (s *server) lasting(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, release, err := s.Access.Hold(r.Context(), visitOf(r.Context()).caller)
		if err != nil {
			s.metrics.refused(err)
			writeError(w, err)
			return
		}
		defer release()
		h(w, r.WithContext(ctx))
	}
}

// AuthorizeEvents says whether the caller of an upgrade request may read a
// namespace's events, and whether with payloads: for event.WebSocketConfig. It
// knows requests that came through API.Public only.
func AuthorizeEvents(r *http.Request, namespace string, durable bool) (payloads bool, err error) {
	caller := visitOf(r.Context()).caller
	role := access.Auditor
	if durable { // taking its events moves it
		role = access.Reader
	}
	if err := permit(caller, need{role: role}, namespace); err != nil {
		return false, err
	}
	return caller.Payloads(namespace), nil
}
