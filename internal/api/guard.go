package api

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/errs"
)

// codeForbidden is what existing clients know for 403.
const codeForbidden = "FF00170"

// headerRequestID names a request in the logs of both sides.
const headerRequestID = "X-FireFly-Request-ID"

// guard refuses what a browser sends on behalf of a foreign page, and gives
// each request an id.
//
// A node often listens on loopback without a password. Without this check any
// page that somebody on the machine opens could send messages in the
// organisation's name: by a cross-origin request, or by a host name of the
// attacker's that is re-bound to 127.0.0.1.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The deadline that an earlier request of the connection wrote under.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // a test's recorder has none
		id := r.Header.Get(headerRequestID)
		if id == "" || len(id) > 128 {
			id = uuid.NewString()
			r.Header.Set(headerRequestID, id)
		}
		w.Header().Set(headerRequestID, id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if free(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		if !s.allowedHost(r.Host) {
			s.turnAway(w, r, errs.New(codeForbidden, http.StatusForbidden,
				"The request is for host %q, which is no name of this node; use its IP address, or add the name to the allowed hosts", r.Host))
			return
		}
		foreign, allowed := s.origin(r)
		if !allowed {
			s.turnAway(w, r, errs.New(codeForbidden, http.StatusForbidden,
				"The request comes from a web page of origin %q; add it to the allowed origins if its page may use this node", r.Header.Get("Origin")))
			return
		}
		if foreign && cors(w, r) {
			return
		}
		next.ServeHTTP(w, r)
	})
}

// turnAway answers a request that gets no further, and leaves its line in the
// log.
func (s *server) turnAway(w http.ResponseWriter, r *http.Request, err error) {
	s.metrics.refused(err)
	if !s.QuietRequests {
		s.Logger.Info("request", "caller", "-", "method", r.Method, "route", "none", "status", errs.Status(err), "remote", r.RemoteAddr,
			"request", r.Header.Get(headerRequestID), "host", shorten(r.Host), "origin", shorten(r.Header.Get("Origin")))
	}
	writeError(w, err)
}

// allowedHost says whether a Host header may be this node's.
func (s *server) allowedHost(host string) bool {
	name := hostname(host)
	if name == "" || name == "localhost" || strings.HasSuffix(name, ".localhost") || net.ParseIP(name) != nil {
		return true // a name server has no say in these
	}
	return slices.ContainsFunc(s.Security.AllowedHosts, func(h string) bool { return strings.EqualFold(h, name) || strings.EqualFold(h, host) })
}

// hostname is the lower-case host without port and brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

// origin says whether the request comes from a web page of another origin, and
// whether that one is allowed.
func (s *server) origin(r *http.Request) (foreign, allowed bool) {
	origin := r.Header.Get("Origin")
	if origin == "" {
		// No browser sends a changing request of a foreign page without saying so
		// in one header or the other.
		site := r.Header.Get("Sec-Fetch-Site")
		safe := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
		return false, safe || site == "" || site == "same-origin" || site == "none"
	}
	if slices.Contains(s.Security.AllowedOrigins, origin) {
		return true, true
	}
	u, err := url.Parse(origin)
	return false, err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// cors answers the browser's question whether an allowed page may go on, and
// reports whether that was all there was to do.
func cors(w http.ResponseWriter, r *http.Request) (done bool) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Set("Access-Control-Expose-Headers", headerRequestID+", "+headerBlobHash+", "+headerBlobSize)
	h.Add("Vary", "Origin")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}
