package event

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// WebSocketConfig is how /ws behaves. The zero value is the default.
type WebSocketConfig struct {
	// AllowedOrigins are the origins, besides the node's own, whose web pages may
	// connect: hosts such as app.example.com or *.example.com, optionally with a
	// scheme. A program that is no browser sends no Origin and is not concerned.
	// Accepting any origin, as other implementations do, would let every web page
	// that a user opens read the node's events with the user's credentials.
	AllowedOrigins []string

	// Authorize says whether the caller of an upgrade request may read a
	// namespace's events, from a durable subscription or as they come, and whether
	// with payloads. It is asked for each subscription. Nil allows all.
	Authorize func(r *http.Request, namespace string, durable bool) (payloads bool, err error)

	Logger *slog.Logger // nil means none

	PingInterval time.Duration // how often a client must show that it is there; 0 means 30 s
	SilenceLimit time.Duration // a client that shows nothing for so long has gone; 0 means 2 min
	DrainTime    time.Duration // how long Close waits for acknowledgements; 0 means 1 s
}

// Subprotocol is what a client may ask for. Browsers must, if they give a key as
// a second subprotocol: they accept a connection only with one that they named.
const Subprotocol = "parley"

// maxClientFrame bounds what a client may send at once; the longest frames hold
// filter expressions.
const maxClientFrame = 256 << 10

// WebSockets serves event subscriptions to WebSocket clients. It handles /ws;
// ServeNamespace handles the path of one namespace.
type WebSockets struct {
	cfg WebSocketConfig

	mu         sync.Mutex
	namespaces map[string]*Subscriptions
	conns      map[*connection]struct{}
	closed     bool
	running    sync.WaitGroup
}

// NewWebSockets returns the WebSocket handler for the subscriptions of one or
// more namespaces.
func NewWebSockets(cfg WebSocketConfig, namespaces ...*Subscriptions) *WebSockets {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.PingInterval = cmp.Or(cfg.PingInterval, 30*time.Second)
	cfg.SilenceLimit = cmp.Or(cfg.SilenceLimit, 2*time.Minute)
	cfg.DrainTime = cmp.Or(cfg.DrainTime, time.Second)
	s := &WebSockets{
		cfg:        cfg,
		namespaces: make(map[string]*Subscriptions, len(namespaces)),
		conns:      make(map[*connection]struct{}),
	}
	for _, n := range namespaces {
		s.namespaces[n.log.namespace] = n
	}
	return s
}

// Add serves the subscriptions of one more namespace from now on.
func (s *WebSockets) Add(n *Subscriptions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.namespaces[n.log.namespace] = n
}

// Remove ends serving a namespace until Add: the connections that have a
// subscription of it are closed in order, and their clients are told to connect
// again until it is back. ctx bounds how long that takes.
func (s *WebSockets) Remove(ctx context.Context, namespace string) {
	s.mu.Lock()
	s.namespaces[namespace] = nil
	var conns []*connection
	for c := range s.conns {
		if c.serves(namespace) {
			conns = append(conns, c)
		}
	}
	s.mu.Unlock()
	var ended sync.WaitGroup
	for _, c := range conns {
		ended.Go(func() {
			c.shutdown(ctx)
			c.deliveries.Wait()
		})
	}
	ended.Wait()
}

// Forget ends Remove for a namespace that will not be back: it is unknown then.
func (s *WebSockets) Forget(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.namespaces[namespace] == nil {
		delete(s.namespaces, namespace)
	}
}

// errAway closes a connection whose namespace is being started.
var errAway = errors.New("the namespace is being started: connect again")

// subscriptions are those of a namespace, if it is known; nil while it is being
// started.
func (s *WebSockets) subscriptions(namespace string) (*Subscriptions, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, known := s.namespaces[namespace]
	return n, known
}

// ServeHTTP upgrades a request for /ws, whose client names the namespace of each
// subscription. It returns when the connection has ended, which it does at the
// latest with the request's context.
func (s *WebSockets) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.serve(w, r, "") }

// ServeNamespace upgrades a request for the path of one namespace; an unknown
// one is answered with FF10109 (404) before the upgrade.
func (s *WebSockets) ServeNamespace(w http.ResponseWriter, r *http.Request, namespace string) {
	if _, known := s.subscriptions(namespace); !known {
		refuse(w, errs.NoSuch("namespace", namespace))
		return
	}
	s.serve(w, r, namespace)
}

func refuse(w http.ResponseWriter, err *errs.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(err.Status)
	// A client that has gone needs no answer.
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}

func (s *WebSockets) serve(w http.ResponseWriter, r *http.Request, scope string) {
	newest, err := s.newest(r, scope)
	if err != nil {
		s.cfg.Logger.Error("refuse WebSocket", "remote", r.RemoteAddr, "error", err)
		refuse(w, errs.New(errs.CodeInternal, http.StatusInternalServerError, "Internal error; the node's log has the details"))
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: s.cfg.AllowedOrigins, Subprotocols: []string{Subprotocol}})
	if err != nil { // answered by Accept
		s.cfg.Logger.Info("refuse WebSocket", "remote", r.RemoteAddr, "origin", r.Header.Get("Origin"), "error", err)
		return
	}
	ws.SetReadLimit(maxClientFrame)
	c, err := s.connect(ws, r, scope, newest)
	if err != nil {
		// The client learns why from the close frame; it may be gone already.
		_ = ws.Close(websocket.StatusGoingAway, err.Error())
		return
	}
	defer s.disconnect(c)
	c.run()
}

// newest is the newest event at the time of the upgrade, if the query starts an
// ephemeral subscription. It is read before the client learns that it is
// connected, so that the client misses nothing that it causes afterwards.
func (s *WebSockets) newest(r *http.Request, scope string) (int64, error) {
	q := r.URL.Query()
	subs, known := s.namespaces[cmp.Or(q.Get("namespace"), scope)]
	if !known || !flag(q, "ephemeral") {
		return 0, nil
	}
	return subs.log.Last(r.Context())
}

func (s *WebSockets) connect(ws *websocket.Conn, r *http.Request, scope string, newest int64) (*connection, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context())
	c := &connection{
		server:  s,
		ws:      ws,
		request: r,
		id:      id,
		scope:   scope,
		newest:  newest,
		started: time.Now(),
		ctx:     ctx,
		cancel:  cancel,
	}
	c.heard.Store(c.started.UnixNano())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		cancel()
		return nil, fmt.Errorf("the node is stopping")
	}
	s.conns[c] = struct{}{}
	s.running.Add(1)
	return c, nil
}

func (s *WebSockets) disconnect(c *connection) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.running.Done()
}

// Close stops sending, gives clients a moment to acknowledge what is in flight,
// closes every connection with a close frame and stores the positions. New
// connections are refused. When ctx ends, connections are cut.
func (s *WebSockets) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	conns := make([]*connection, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		go c.shutdown(ctx)
	}
	s.running.Wait()
	return ctx.Err()
}

// ConnectionStatus is one connected client.
type ConnectionStatus struct {
	ID            store.UUID            `json:"id"`
	RemoteAddress string                `json:"remoteAddress"`
	UserAgent     string                `json:"userAgent"`
	Subscriptions []ConnectedSubscriber `json:"subscriptions"`
}

// ConnectedSubscriber is a subscription that a connection has started.
type ConnectedSubscriber struct {
	StartTime store.Time `json:"startTime"`
	Ephemeral bool       `json:"ephemeral"`
	Namespace string     `json:"namespace"`
	Name      string     `json:"name,omitempty"`
	Filter    Filter     `json:"filter"`
}

// Connections lists the connected clients, the longest connected first.
func (s *WebSockets) Connections() []ConnectionStatus {
	s.mu.Lock()
	conns := make([]*connection, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	slices.SortFunc(conns, func(a, b *connection) int { return a.started.Compare(b.started) })
	out := make([]ConnectionStatus, 0, len(conns))
	for _, c := range conns {
		out = append(out, c.status())
	}
	return out
}
