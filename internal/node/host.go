package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/store"
)

// Host is the process: one or more namespaces behind the same ports. Each has a
// database, keys and connections of its own; one that cannot run is tried again
// and does not keep the others from serving.
type Host struct {
	load    func() (*Config, error)
	log     *slog.Logger
	config  *Config // as it was first: of the process's own part nothing changes
	shared  api.Deps
	surface *api.Host
	sockets *event.WebSockets
	servers []*server
	access  *access.Control
	reload  chan *Config

	mu         sync.Mutex
	namespaces map[string]*slot
}

// server is one HTTP port.
type server struct {
	name     string
	listener net.Listener
	http     *http.Server
}

// slot is a namespace of the host.
type slot struct {
	config *Config
	fresh  *Namespace // opened, not run yet
	failed error      // why it was not opened at first
	stop   context.CancelFunc
	done   chan struct{} // closed when it has ended
}

// Pauses between attempts to start a namespace.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Open reads the configuration, binds the ports and opens the namespaces; nothing
// runs yet. load is called again when the configuration is to be read again. A
// namespace that does not open is an error only if it is the only one.
func Open(ctx context.Context, load func() (*Config, error), log *slog.Logger, version string) (h *Host, err error) {
	c, err := load()
	if err != nil {
		return nil, err
	}
	each, err := c.Each()
	if err != nil {
		return nil, err
	}
	h = &Host{load: load, log: log, config: c, namespaces: map[string]*slot{}, reload: make(chan *Config, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
			h = nil
		}
	}()
	if h.access, err = c.control(log); err != nil {
		return h, err
	}
	h.sockets = event.NewWebSockets(event.WebSocketConfig{AllowedOrigins: c.API.AllowedOrigins, Authorize: api.AuthorizeEvents, Logger: log})
	h.shared = api.Deps{
		Version: version, WebSockets: h.sockets, Reset: h.Reset, PublicURL: c.API.PublicURL,
		Security: api.Security{AllowedHosts: c.API.AllowedHosts, AllowedOrigins: c.API.AllowedOrigins},
		Access:   h.access, OpenMetrics: loopback(c.Metrics.Listen), QuietRequests: c.Log.Requests == "off",
		Limits: api.Limits{Body: c.API.Limits.Body, Blob: c.API.Limits.Blob},
		Logger: log,
	}
	h.surface = api.NewHost(h.shared)
	h.shared.Host = h.surface
	h.surface.SetDefault(c.DefaultNamespace())
	for _, n := range each {
		s := &slot{config: n}
		h.namespaces[n.Namespace] = s
		if s.fresh, s.failed = openNamespace(ctx, n, h.logger(n), version); s.failed != nil {
			s.fresh = nil
			if len(c.Namespaces) == 0 {
				return h, s.failed
			}
		}
		h.surface.Starting(described(n), s.failed)
	}
	return h, h.listen()
}

// logger adds to each line of a namespace whose it is.
func (h *Host) logger(n *Config) *slog.Logger {
	log := h.log
	if n.Org.Name != "" {
		log = log.With("org", n.Org.Name)
	}
	if len(h.config.Namespaces) > 0 {
		log = log.With("namespace", n.Namespace)
	}
	return log
}

func described(c *Config) api.Described {
	return api.Described{Name: c.Namespace, NetworkName: c.NetworkNamespace, Description: c.Description}
}

// listen binds the HTTP ports, so that a taken one is told at once.
func (h *Host) listen() error {
	c := h.config
	for _, s := range []struct {
		name string
		ListenConfig
		handler http.Handler
	}{
		{"api", c.API.port(), h.surface.Public},
		{"admin", c.Admin, h.surface.Admin},
		{"metrics", c.Metrics, h.surface.Metrics},
	} {
		if s.Listen == Off {
			continue
		}
		conf, err := c.serverTLS(s.name, s.TLS)
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", s.Listen)
		if err != nil {
			return fmt.Errorf("%s.listen: %w; stop the process that has this port, or choose another one in %s", s.name, err, ConfigFile)
		}
		if conf != nil {
			l = tls.NewListener(l, conf)
		}
		h.servers = append(h.servers, &server{s.name, l, api.NewServer(s.handler, h.log)})
	}
	return nil
}

// URL is the base URL of one of the HTTP ports api, admin and metrics.
func (h *Host) URL(name string) string {
	scheme := "http"
	for _, port := range []struct {
		name string
		tls  *ServerTLS
	}{{"api", h.config.API.TLS}, {"admin", h.config.Admin.TLS}, {"metrics", h.config.Metrics.TLS}} {
		if port.name == name && port.tls != nil {
			scheme = "https"
		}
	}
	return scheme + "://" + h.Addresses()[name]
}

// Addresses are the addresses listened on: api, admin and metrics, and for each
// namespace exchange, with a slash and its name if there are several.
func (h *Host) Addresses() map[string]string {
	a := map[string]string{}
	h.mu.Lock()
	for name, s := range h.namespaces {
		if s.fresh == nil || s.fresh.exchange == nil {
			continue
		}
		if len(h.config.Namespaces) == 0 {
			a["exchange"] = s.fresh.exchange.Addr()
		} else {
			a["exchange/"+name] = s.fresh.exchange.Addr()
		}
	}
	h.mu.Unlock()
	for _, s := range h.servers {
		a[s.name] = s.listener.Addr().String()
	}
	return a
}

// stopWithin bounds how long HTTP requests may take to end when the node stops.
const stopWithin = 5 * time.Second

// ErrRestart is what Run returns when the configuration of the process itself has
// changed: open it anew.
var ErrRestart = errors.New("the configuration of the process has changed; it starts again")

// Run serves until ctx ends, until a port or the only namespace fails, or until
// ErrRestart. It stops in the order in which nothing is cut off: HTTP first, then
// the namespaces.
func (h *Host) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	for _, s := range h.servers {
		go func() {
			if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
				fail(fmt.Errorf("%s: %w", s.name, err))
			}
		}()
	}
	watch, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWatching()
	go h.access.Watch(watch)
	h.mu.Lock()
	for _, s := range h.namespaces {
		h.start(ctx, s, fail)
	}
	h.mu.Unlock()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case c := <-h.reload:
			h.apply(ctx, c, fail)
		}
	}
	err := h.stopHTTP()
	h.mu.Lock()
	all := slices.Collect(maps.Values(h.namespaces))
	h.mu.Unlock()
	for _, s := range all {
		s.stop()
	}
	for _, s := range all {
		<-s.done
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// start runs a namespace until it is stopped. It outlives ctx: Run stops it when
// HTTP has ended.
func (h *Host) start(ctx context.Context, s *slot, fail context.CancelCauseFunc) {
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		if err := h.keep(ctx, s); err != nil {
			fail(err)
		}
	}()
}

// keep runs a namespace, and starts it again when it has failed. It returns the
// error if that is the only namespace: then who supervises the process decides.
func (h *Host) keep(ctx context.Context, s *slot) error {
	log := h.logger(s.config)
	overtaken := false
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		ns, err := s.fresh, s.failed
		h.mu.Lock()
		s.fresh, s.failed = nil, nil
		h.mu.Unlock()
		if ns == nil && err == nil {
			ns, err = openNamespace(ctx, s.config, log, h.shared.Version)
		}
		if err == nil {
			err = h.serve(ctx, s, ns)
		}
		// One that was overtaken by another process of its node starts over and
		// stands by: nothing that it remembers may be relied on.
		if errors.Is(err, store.ErrOvertaken) {
			overtaken, pause = true, firstRetry
		}
		over := overtaken && (errors.Is(err, store.ErrOvertaken) || errors.Is(err, store.ErrUnreachable))
		if ctx.Err() != nil || len(h.config.Namespaces) == 0 && !over {
			return err
		}
		if err == nil {
			pause = firstRetry
			err = errors.New("it has stopped")
		}
		h.surface.Starting(described(s.config), err)
		log.Error("a namespace does not run; it is started again", "in", pause, "err", err)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// serve runs a namespace with its API.
func (h *Host) serve(ctx context.Context, s *slot, ns *Namespace) error {
	d := described(s.config)
	d.Created = ns.created
	ns.retire = func() {
		// What goes on for long ends first, then the other calls.
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		ns.streams.Close()
		h.sockets.Remove(stop, d.Name)
		h.surface.Starting(d, nil)
	}
	h.sockets.Add(ns.Subscriptions)
	h.surface.Started(d, ns.surface(h.shared))
	return ns.run(ctx)
}

// Reset reads the configuration again. It returns what is wrong with it, and
// otherwise lets Run restart what changed.
func (h *Host) Reset(context.Context) error {
	c, err := h.load()
	if err == nil {
		_, err = c.Each()
	}
	if err == nil {
		err = h.free(c)
	}
	if err != nil {
		return errs.New("FF10481", http.StatusBadRequest, "The configuration is not right, and the process goes on with the one before: %v", err)
	}
	select {
	case <-h.reload: // one that was not applied yet is out of date
	default:
	}
	h.reload <- c
	return nil
}

// free makes sure that new ports can be had before the old ones are given up.
func (h *Host) free(c *Config) error {
	for _, a := range []struct{ name, before, after string }{
		{"api", h.config.API.Listen, c.API.Listen}, {"admin", h.config.Admin.Listen, c.Admin.Listen}, {"metrics", h.config.Metrics.Listen, c.Metrics.Listen},
	} {
		if a.after == a.before || a.after == Off {
			continue
		}
		l, err := net.Listen("tcp", a.after)
		if err != nil {
			return fmt.Errorf("%s.listen: %w", a.name, err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// apply restarts what differs in a new configuration.
func (h *Host) apply(ctx context.Context, c *Config, fail context.CancelCauseFunc) {
	if c.processDiffers(h.config) {
		h.log.Info("the configuration of the process has changed; all of it starts again")
		fail(ErrRestart)
		return
	}
	each, err := c.Each()
	if err != nil { // Reset has read it without one, a moment ago
		h.log.Error("the configuration cannot be read; nothing is changed", "err", err)
		return
	}
	wanted := map[string]*Config{}
	for _, n := range each {
		wanted[n.Namespace] = n
	}
	h.mu.Lock()
	have := maps.Clone(h.namespaces)
	h.mu.Unlock()
	for name, s := range have {
		n := wanted[name]
		if n != nil && reflect.DeepEqual(n, s.config) {
			delete(wanted, name)
			continue
		}
		h.log.Info("a namespace stops for its new configuration", "namespace", name)
		s.stop()
		<-s.done
		h.mu.Lock()
		delete(h.namespaces, name)
		h.mu.Unlock()
		if n == nil {
			h.surface.Removed(name)
			h.sockets.Forget(name)
		}
	}
	for name, n := range wanted {
		h.log.Info("a namespace starts with its new configuration", "namespace", name)
		s := &slot{config: n}
		h.surface.Starting(described(n), nil)
		h.mu.Lock()
		h.namespaces[name] = s
		h.start(ctx, s, fail)
		h.mu.Unlock()
	}
	h.surface.SetDefault(c.DefaultNamespace())
}

// processDiffers compares what is about the process. Which namespaces there are,
// and the default one, can change while it runs; from one to a list it cannot.
func (c *Config) processDiffers(other *Config) bool {
	if (len(c.Namespaces) == 0) != (len(other.Namespaces) == 0) {
		return true
	}
	before := map[string]any{}
	other.eachKey(func(name string, value reflect.Value) { before[name] = value.Interface() })
	differs := false
	c.eachKey(func(name string, value reflect.Value) {
		shared := processKey(name) && name != "namespaces" && name != "default"
		differs = differs || shared && !reflect.DeepEqual(value.Interface(), before[name])
	})
	return differs
}

// stopHTTP lets requests end, and closes what does not end in time.
func (h *Host) stopHTTP() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	h.surface.CloseStreams()
	err := h.sockets.Close(ctx)
	for _, s := range h.servers {
		if e := s.http.Shutdown(ctx); e != nil {
			err = errors.Join(err, s.http.Close())
		}
	}
	return err
}

// close releases what Open opened, if it is not to run.
func (h *Host) close() error {
	var err error
	for _, s := range h.servers {
		err = errors.Join(err, s.listener.Close())
	}
	for _, s := range h.namespaces {
		if s.fresh != nil {
			err = errors.Join(err, s.fresh.close())
		}
	}
	return err
}
