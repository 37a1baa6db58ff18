package api

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/contract"
	"github.com/parley-node/parley/internal/event"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/trace"
	"github.com/parley-node/parley/wire"
)

// Deps is what the API stands on. All fields without another remark are needed.
type Deps struct {
	Host        *Host  // of several namespaces; nil if this one is served alone
	Namespace   string // local name of the namespace that is served
	NetworkName string // its name on the network; Namespace if empty
	Description string
	Created     store.Time // of the namespace
	Version     string     // of the program
	Plugins     Plugins

	DB            *store.DB
	Messages      *message.Service
	Network       *identity.Network
	Log           *event.Log
	Subscriptions *event.Subscriptions
	WebSockets    *event.WebSockets
	Streams       *event.Streams  // nil for ones that end with their connections alone
	Deliveries    *event.Outbound // nil if this node makes none: then nothing can be replayed
	Blobs         blob.Store
	Contracts     *contract.Service // without a chain only definitions can be read and published

	// Verify reads a record of the network contract from the chain again and
	// checks it against the stored one. Nil if this node cannot: then asking is
	// answered with 501.
	Verify func(ctx context.Context, number uint64) (*Inclusion, error)

	// Connection tells how the node and its ledger are connected; nil if the
	// ledger needs no connection.
	Connection func() Connection

	// Disk tells what the node keeps on disk; nil if nobody measures that.
	Disk func() *Disk

	// ClaimOrg and ClaimNode announce this member's organisation and node to the
	// network, which the node does by itself when they are missing.
	ClaimOrg, ClaimNode func(ctx context.Context) (*store.Message, error)

	// Reset makes the process read its configuration again: it answers what is
	// wrong with it, or nil and then restarts what changed. Nil if there is none.
	Reset func(ctx context.Context) error

	Access        *access.Control // who may call; nil lets everybody do everything
	OpenMetrics   bool            // the metrics need no caller: they are served on loopback
	QuietRequests bool            // leave no line in the log for each request

	Trace     *trace.Recorder // told of each request; may be nil
	PublicURL string          // at which applications reach the API, for documents; what a request says if empty
	Security  Security
	Limits    Limits
	Logger    *slog.Logger // nil means none
	Now       func() time.Time
	NewID     func() wire.UUID
}

// Plugins are the names that existing clients see of what a namespace stands on;
// empty ones have a default.
type Plugins struct{ Blockchain, Database, DataExchange, SharedStorage string }

// Security says which callers are served. The zero value serves programs and
// pages on the node's own address, and refuses every other web page: a browser
// on the same machine must not become a remote control of the node.
type Security struct {
	// AllowedHosts are the DNS names under which the node is reached, besides
	// localhost. An IP address as the host is always allowed; any other name is
	// refused, since it may be an attacker's that resolves to this machine.
	AllowedHosts []string

	// AllowedOrigins are the origins (scheme://host[:port]) of foreign web pages
	// that may call the API. They get CORS headers.
	AllowedOrigins []string
}

// Limits bound what one request, and all together, may ask of the node. Zero
// fields take the default.
type Limits struct {
	Body           int64         // bytes of a JSON body; 8 MiB
	Blob           int64         // bytes of an upload; 0 means no limit
	Request        time.Duration // time of a request without Request-Timeout; 2 min
	MaxRequest     time.Duration // the most that Request-Timeout may ask for; 10 min
	Stall          time.Duration // how long a body or a download may make no progress; 1 min
	QueuedWrites   int           // writes waiting for the database before new ones get 429; 5,000
	ReadyMessages  int64         // messages waiting for a batch before new ones get 503; 200,000
	HistogramCount int64         // rows counted per bucket of a histogram; 100
}

func (l *Limits) complete() {
	l.Body = cmp.Or(l.Body, 8<<20)
	l.Request = cmp.Or(l.Request, 2*time.Minute)
	l.MaxRequest = cmp.Or(l.MaxRequest, 10*time.Minute)
	l.Stall = cmp.Or(l.Stall, time.Minute)
	l.QueuedWrites = cmp.Or(l.QueuedWrites, 5000)
	l.ReadyMessages = cmp.Or(l.ReadyMessages, 200_000)
	l.HistogramCount = cmp.Or(l.HistogramCount, 100)
}

// server is the API of one node.
type server struct {
	Deps
	gate    gate
	metrics *metrics
}

// API is the HTTP surface of a node: three handlers for three ports.
type API struct {
	// Public is the API that applications use, with /ws.
	Public http.Handler
	// Admin is for the operator: status, peers, incidents, /livez.
	Admin http.Handler
	// Metrics serves /metrics in the Prometheus format, and /livez.
	Metrics http.Handler

	server *server
}

// New makes the handlers. They share their counters.
func New(d Deps) *API {
	s := newServer(d)
	return &API{Public: s.public(), Admin: s.admin(), Metrics: s.metricsHandler(s.metrics.registry), server: s}
}

func newServer(d Deps) *server {
	d.Limits.complete()
	d.NetworkName = cmp.Or(d.NetworkName, d.Namespace)
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.NewID == nil {
		d.NewID = newID
	}
	if d.Access == nil {
		d.Access = access.Everybody()
	}
	if d.Streams == nil && d.Subscriptions != nil {
		d.Streams = event.NewStreams(d.Subscriptions, event.StreamConfig{Logger: d.Logger})
	}
	s := &server{Deps: d}
	s.gate = gate{db: d.DB, queued: d.Messages.HandedIn, limits: d.Limits, now: d.Now}
	s.metrics = newMetrics(s)
	return s
}

func (s *server) public() http.Handler {
	router := newRouter(s, s.routes())
	router.mux.HandleFunc("GET /ws", s.guarded("/ws", access.Auditor, s.lasting(s.WebSockets.ServeHTTP)))
	router.mux.HandleFunc("GET /api/v1/namespaces/{ns}/ws", s.guarded("/ws", access.Auditor, s.lasting(func(w http.ResponseWriter, r *http.Request) {
		s.WebSockets.ServeNamespace(w, r, s.localName(r.PathValue("ns")))
	})))
	router.mux.HandleFunc("GET /livez", livez)
	s.ownDocuments(router.mux, router.routes)
	return s.guard(s.admit(router))
}

func (s *server) admin() http.Handler {
	router := newRouter(s, s.adminRoutes())
	if s.Namespace == "" {
		router.add(spiBase, s.spiRoutes())
	}
	router.mux.HandleFunc("GET /livez", livez)
	return s.guard(s.admit(router))
}

// livez says that the process runs and answers.
func livez(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }

// NewServer is an http.Server for one of the handlers, with the time limits
// that keep slow clients from holding connections. Bodies have limits of their
// own, which renew while data flows; a WebSocket has none of these.
func NewServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
}

// newID makes an id that sorts by time.
func newID() wire.UUID { return uuid.Must(uuid.NewV7()) }
