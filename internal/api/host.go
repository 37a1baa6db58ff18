package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// Host serves several namespaces on the same ports. It hands each request to
// the namespace that its path names, or to the default one, and answers itself
// what belongs to none. Namespaces come and go while it serves.
type Host struct {
	// Public, Admin and Metrics are as those of API.
	Public, Admin, Metrics http.Handler

	root *server // of no namespace

	mu         sync.RWMutex
	standard   string // name of the default namespace
	namespaces map[string]*hosted
}

// hosted is a namespace of the host.
type hosted struct {
	namespace
	api *API // nil while it does not run

	ctx    context.Context // ends when it is to serve no more
	cancel context.CancelFunc
	calls  sync.WaitGroup // requests under way; added to under the host's lock
}

// Described is a namespace as clients see it, whether it runs or not.
type Described struct {
	Name        string     // local
	NetworkName string     // Name if empty
	Description string     //
	Created     store.Time //
}

// NewHost makes the handlers of a process. d has only what belongs to no
// namespace: Version, WebSockets, Reset and all from Security on.
func NewHost(d Deps) *Host {
	h := &Host{namespaces: map[string]*hosted{}}
	d.Namespace, d.Host = "", h
	h.root = newServer(d)
	h.Public = h.dispatch(h.root.public(), func(a *API) http.Handler { return a.Public })
	h.Admin = h.dispatch(h.root.admin(), func(a *API) http.Handler { return a.Admin })
	h.Metrics = h.root.metricsHandler(h)
	return h
}

// SetDefault names the namespace of paths that name none.
func (h *Host) SetDefault(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.standard = name
}

// Starting lists a namespace that does not run: yet, or because of cause.
func (h *Host) Starting(d Described, cause error) {
	n := d.namespace()
	n.Initializing = true
	if cause != nil {
		n.InitializationError = cause.Error()
	}
	h.replace(n.Name, &hosted{namespace: n})
}

// Started serves a namespace. Its API was made with Deps.Host.
func (h *Host) Started(d Described, a *API) {
	n := &hosted{namespace: d.namespace(), api: a}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	h.replace(d.Name, n)
}

// Removed forgets a namespace.
func (h *Host) Removed(name string) { h.replace(name, nil) }

// replace puts n in the place of a namespace, and when it returns, none of the
// requests to the one before is under way any more.
func (h *Host) replace(name string, n *hosted) {
	h.mu.Lock()
	before := h.namespaces[name]
	if n == nil {
		delete(h.namespaces, name)
	} else {
		h.namespaces[name] = n
	}
	h.mu.Unlock()
	if before != nil && before.api != nil {
		before.cancel()
		before.calls.Wait()
	}
}

func (d Described) namespace() namespace {
	return namespace{Name: d.Name, NetworkName: cmp.Or(d.NetworkName, d.Name), Description: d.Description, Created: d.Created}
}

// CloseStreams ends the streams of server-sent events of all namespaces, which
// would otherwise go on for as long as their clients like.
func (h *Host) CloseStreams() {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, n := range h.namespaces {
		if n.api != nil {
			n.api.server.Streams.Close()
		}
	}
}

// find gives a namespace by its name; "" is the default, and so is what one
// client writes where its user named none.
func (h *Host) find(name string) (*hosted, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if name == "" || name == unnamed {
		name = h.standard
	}
	n, known := h.namespaces[name]
	if !known {
		return nil, noNamespace(name)
	}
	return n, nil
}

// enter gives a namespace that runs, and keeps it until leave is called.
func (h *Host) enter(name string) (n *hosted, leave func()) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if name == "" || name == unnamed {
		name = h.standard
	}
	n = h.namespaces[name]
	if n == nil || n.api == nil {
		return nil, nil
	}
	n.calls.Add(1)
	return n, n.calls.Done
}

// running gives the server of a namespace that runs, until leave is called.
func (h *Host) running(name string) (s *server, leave func(), err error) {
	if n, leave := h.enter(name); n != nil {
		return n.api.server, leave, nil
	}
	n, err := h.find(name)
	if err != nil {
		return nil, nil, err
	}
	return nil, nil, notStarted(n.namespace)
}

func notStarted(n namespace) error {
	cause := n.InitializationError
	if cause == "" {
		cause = "it starts"
	}
	return errs.New("FF10441", http.StatusPreconditionFailed, "Namespace %q does not run yet: %s", n.Name, cause)
}

// list gives the namespaces by name, those that do not run only if asked for.
func (h *Host) list(all bool) []namespace {
	h.mu.RLock()
	defer h.mu.RUnlock()
	list := []namespace{}
	for _, n := range h.namespaces {
		if all || n.api != nil {
			list = append(list, n.namespace)
		}
	}
	slices.SortFunc(list, func(a, b namespace) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// all are the namespaces by name; nil for those that do not run.
func (h *Host) all() map[string]*API {
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := make(map[string]*API, len(h.namespaces))
	for name, n := range h.namespaces {
		all[name] = n.api
	}
	return all
}

// dispatch gives a request to the namespace that it is for.
func (h *Host) dispatch(root http.Handler, of func(*API) http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, one := namespaceOf(cleanPath(r.URL.Path)); one {
			if n, leave := h.enter(name); n != nil {
				defer leave()
				ctx, cancel := context.WithCancel(r.Context())
				defer cancel()
				defer context.AfterFunc(n.ctx, cancel)()
				of(n.api).ServeHTTP(w, r.WithContext(ctx))
				return
			}
		}
		root.ServeHTTP(w, r)
	})
}

// namespaceOf tells which namespace a path is for, "" for the default one; one
// is false if it belongs to none.
func namespaceOf(path string) (name string, one bool) {
	rest, ok := strings.CutPrefix(path, base)
	if !ok || rest == "namespaces" || rest == "websockets" {
		return "", false
	}
	below, scoped := strings.CutPrefix(rest, "namespaces/")
	if !scoped {
		return "", true
	}
	name, operation, _ := strings.Cut(below, "/")
	return name, name != "" && operation != ""
}

// Gather implements prometheus.Gatherer: the numbers of each namespace, with its
// name as a label.
func (h *Host) Gather() ([]*dto.MetricFamily, error) {
	h.mu.RLock()
	all := prometheus.Gatherers{h.root.metrics.registry}
	for name, n := range h.namespaces {
		if n.api != nil {
			all = append(all, labelled{n.api.server.metrics.registry, name})
		}
	}
	h.mu.RUnlock()
	return all.Gather()
}

// labelled are the numbers of one namespace.
type labelled struct {
	registry  *prometheus.Registry
	namespace string
}

// Gather implements prometheus.Gatherer.
func (l labelled) Gather() ([]*dto.MetricFamily, error) {
	families, err := l.registry.Gather()
	label := "namespace"
	for _, f := range families {
		for _, m := range f.Metric {
			m.Label = append(m.Label, &dto.LabelPair{Name: &label, Value: &l.namespace})
			slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
		}
	}
	return families, err
}
