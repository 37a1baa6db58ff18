package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/parley-node/parley/internal/access"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

// metrics are the node's numbers for Prometheus. Those about the database are
// read when they are asked for.
type metrics struct {
	s        *server
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	refusals *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	messages  *prometheus.Desc
	outbox    *prometheus.Desc
	records   *prometheus.Desc
	unapplied *prometheus.Desc
	lastEvent *prometheus.Desc
	writes    *prometheus.Desc
	handedIn  *prometheus.Desc
	commits   *prometheus.Desc
	incidents *prometheus.Desc
	erased    *prometheus.Desc
}

// scrapeTimeout bounds how long one look at the database may take.
const scrapeTimeout = 5 * time.Second

// countedMessages bounds how many open messages a scrape counts.
const countedMessages = 1_000_000

func newMetrics(s *server) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("parley_"+name, help, labels, nil)
	}
	m := &metrics{
		s:        s,
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_http_requests_total", Help: "API requests answered."}, []string{"operation", "status"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_http_refusals_total", Help: "Requests refused for who made them, or for too much work."}, []string{"reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "parley_http_request_seconds", Help: "Time to answer an API request.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"method"}),
		messages:  desc("messages_open", "Messages without a verdict.", "state"),
		outbox:    desc("outbox_waiting", "Parcels that wait for peers."),
		records:   desc("ledger_records", "Number of the last ledger record read."),
		unapplied: desc("ledger_records_waiting", "Ledger records read and not applied yet."),
		lastEvent: desc("events_last_sequence", "Sequence of the newest event."),
		writes:    desc("database_writes_waiting", "Writes running or waiting for the database."),
		handedIn:  desc("messages_handed_in", "Messages on their way into the database."),
		commits:   desc("database_commits_total", "Transactions committed since start."),
		incidents: desc("incidents", "Incidents recorded."),
		erased:    desc("erased_data_total", "Data items erased, by what erased them.", "source"),
	}
	m.registry.MustRegister(m.requests, m.refusals, m.seconds)
	if s.Namespace != "" {
		m.registry.MustRegister(m)
	}
	if s.Namespace == "" || s.Host == nil { // once in a process
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_websocket_connections", Help: "Connected WebSocket clients."},
			func() float64 { return float64(len(s.WebSockets.Connections())) }))
		m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	return m
}

// request counts an answered request.
func (m *metrics) request(op *route, status int, took time.Duration) {
	name := op.id
	if name == "" {
		name = "unavailable"
	}
	m.requests.WithLabelValues(name, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(op.method).Observe(took.Seconds())
}

// refused counts a request that was refused for who made it, or for too much
// work.
func (m *metrics) refused(err error) {
	reason := "overload"
	switch errs.Status(err) {
	case http.StatusUnauthorized:
		reason = "unauthenticated"
	case http.StatusForbidden:
		reason = "forbidden"
	case http.StatusTooManyRequests:
		reason = "limit"
	case http.StatusInternalServerError, http.StatusRequestTimeout:
		reason = "fault"
	}
	m.refusals.WithLabelValues(reason).Inc()
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.messages, m.outbox, m.records, m.unapplied, m.lastEvent, m.writes, m.handedIn, m.commits, m.incidents, m.erased} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.writes, float64(m.s.DB.WritesWaiting()))
	gauge(m.handedIn, float64(m.s.Messages.HandedIn()))
	to <- prometheus.MustNewConstMetric(m.commits, prometheus.CounterValue, float64(m.s.DB.Commits()))

	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	err := m.s.DB.Read(ctx, func(tx *store.Tx) error {
		open, err := tx.CountOpen(countedMessages)
		if err != nil {
			return err
		}
		outbox, err := tx.OutboxSize()
		if err != nil {
			return err
		}
		ledger, err := m.s.ledgerStatus(tx)
		if err != nil {
			return err
		}
		last, err := tx.LastEvent()
		if err != nil {
			return err
		}
		incidents, err := store.CountTx(tx, &store.Incidents.Collection, "", store.Query{})
		if err != nil {
			return err
		}
		erased, err := tx.ErasedCount()
		if err != nil {
			return err
		}
		for _, source := range []string{store.ErasedByOperator, store.ErasedByPolicy, store.ErasedByMember, store.ErasedBefore} {
			to <- prometheus.MustNewConstMetric(m.erased, prometheus.CounterValue, float64(erased[source].Data), source)
		}
		for _, state := range []string{"ready", "sent", "pending"} {
			gauge(m.messages, float64(open[state]), state)
		}
		gauge(m.outbox, float64(outbox))
		gauge(m.records, float64(ledger.Records))
		gauge(m.unapplied, float64(ledger.Waiting))
		gauge(m.lastEvent, float64(last))
		gauge(m.incidents, float64(incidents))
		return nil
	})
	if err != nil {
		m.s.Logger.Error("the database cannot be read for the metrics", "error", err)
		to <- prometheus.NewInvalidMetric(m.messages, err)
	}
}

func (s *server) metricsHandler(from prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	numbers := promhttp.HandlerFor(from, promhttp.HandlerOpts{})
	mux.HandleFunc("GET /livez", livez)
	if s.OpenMetrics {
		mux.Handle("GET /metrics", numbers)
		return s.guard(mux)
	}
	mux.HandleFunc("GET /metrics", s.guarded("/metrics", access.Auditor, numbers.ServeHTTP))
	return s.guard(s.admit(mux))
}
