package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/seed-2d50cddb/pop3"
)

// A monitor is the HTTP server of a process.
type monitor struct {
	healthy, ready probe
	metrics        *prometheus.Registry
	mux            http.ServeMux
}

// serve serves until stop is called. The page contains names of accounts, so the address should only be reachable from
// inside.
func (m *monitor) serve(addr string, nc *nats.Conn) (stop func() error, err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	m.metrics = prometheus.NewRegistry()
	m.metrics.MustRegister(collectors.NewBuildInfoCollector(), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.gauge("nats_connected", "1 if NATS is connected.", func() float64 { return number(nc.IsConnected()) })
	m.healthy.Store(new(func() error { return nil }))
	m.ready.Store(new(func() error {
		return errors.New("starting: NATS is not there, or fleet init has not been run")
	}))
	m.mux.Handle("GET /healthz", &m.healthy)
	m.mux.Handle("GET /readyz", &m.ready)
	m.mux.Handle("GET /metrics", promhttp.HandlerFor(m.metrics, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: &m.mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute}
	go srv.Serve(l)
	slog.Info("serving", "http", "http://"+l.Addr().String())
	return srv.Close, nil
}

// A probe is a probe of Kubernetes. Its function returns why a process is not healthy, or not ready.
type probe struct{ atomic.Pointer[func() error] }

func (p *probe) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if err := (*p.Load())(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (m *monitor) gauge(name, help string, value func() float64) {
	promauto.With(m.metrics).NewGaugeFunc(prometheus.GaugeOpts{Name: "fleet_" + name, Help: help}, value)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Metrics are the metrics of a worker. No label contains the name of an account or a word that a server can choose, so
// the number of time series is fixed.
type Metrics struct {
	polls, errors, handedBack, replies, handshakes *prometheus.CounterVec
	messages, octets                               prometheus.Counter
	polling, lastPoll                              prometheus.Gauge
	lag, duration                                  prometheus.Histogram
	hooks                                          *pop3.Trace
}

func newMetrics(to *monitor) *Metrics {
	m := new(Metrics)
	with := promauto.With(to.metrics)
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Name: "fleet_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return with.NewGauge(prometheus.GaugeOpts{Name: "fleet_" + name, Help: help})
	}
	seconds := func(name, help string) prometheus.Histogram {
		return with.NewHistogram(prometheus.HistogramOpts{Name: "fleet_" + name, Help: help,
			Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}})
	}
	m.polls = counters("polls_total", "Polls that were reported, by outcome.", "outcome")
	m.errors = counters("errors_total", "Polls with an error, by its code.", "code")
	m.handedBack = counters("handed_back_total", "Polls that were left for later, by reason.", "reason")
	m.replies = counters("replies_total", "Replies of POP3 servers.", "command", "status")
	m.handshakes = counters("handshakes_total", "Connections to POP3 servers, by TLS handshake.", "kind")
	m.messages = counters("messages_total", "Messages that were delivered.").WithLabelValues()
	m.octets = counters("octets_total", "Octets of messages that were received.").WithLabelValues()
	m.polling = gauge("polling", "Polls under way.")
	m.lastPoll = gauge("last_poll_timestamp_seconds", "Time of the last report of a poll.")
	m.lag = seconds("lag_seconds", "Time between when a poll was due and its beginning.")
	m.duration = seconds("poll_seconds", "Duration of polls.")
	for _, reason := range []string{"unknown", "stopping", "lease", "nats"} {
		m.handedBack.WithLabelValues(reason) // each series starts at 0, so that a rate can be computed
	}
	m.hooks = &pop3.Trace{Done: func(_ context.Context, cmd string, _ int64, err error) {
		verb, _, _ := strings.Cut(cmd, " ")
		m.replies.WithLabelValues(verb, map[bool]string{true: "ok", false: "error"}[err == nil]).Inc()
	}}
	return m
}

// connected counts a new session.
func (m *Metrics) connected(c *pop3.Client) {
	kind := "none"
	if state, ok := c.TLSConnectionState(); ok {
		kind = map[bool]string{true: "resumed", false: "full"}[state.DidResume]
	}
	m.handshakes.WithLabelValues(kind).Inc()
}

// polled counts a poll that was reported.
func (m *Metrics) polled(o Outcome, took time.Duration) {
	m.polls.WithLabelValues(map[bool]string{true: "failed", false: "ok"}[o.Failed]).Inc()
	if o.Code != "" {
		m.errors.WithLabelValues(o.Code).Inc()
	}
	m.lastPoll.SetToCurrentTime()
	m.duration.Observe(took.Seconds())
}
