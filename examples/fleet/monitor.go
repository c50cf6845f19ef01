package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/seed-2d50cddb/pop3"
)

// serve serves the probes of Kubernetes, the metrics and the page until stop is called. The page contains names of
// accounts, so the address should only be reachable from inside.
func (s *service) serve(p program, nc *nats.Conn) (stop func() error, err error) {
	l, err := net.Listen("tcp", s.HTTP)
	if err != nil {
		return nil, err
	}
	prometheus.MustRegister(collectors.NewBuildInfoCollector(), prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "fleet_nats_connected", Help: "1 if NATS is connected."},
		func() float64 { return number(nc.IsConnected()) }))
	s.mux.HandleFunc("GET /healthz", probe(p.healthy))
	s.mux.HandleFunc("GET /readyz", probe(p.ready))
	s.mux.Handle("GET /metrics", promhttp.Handler())
	srv := &http.Server{Handler: &s.mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute}
	go srv.Serve(l)
	slog.Info("serving", "http", "http://"+l.Addr().String())
	return srv.Close, nil
}

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

func (s *service) healthy() error { return nil }

func (s *service) ready() error {
	if !s.works.Load() {
		return errors.New("starting: NATS is not there, or fleet init has not been run")
	}
	if !s.bus.nc.IsConnected() {
		return errors.New("NATS is not connected")
	}
	if n := s.bus.waiting.Load(); n > 0 {
		return fmt.Errorf("%d polls are held back: NATS does not answer or has no room, or no scheduler leads", n)
	}
	return nil
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// The metrics of a worker. No label contains the name of an account or a word that a server can choose, so the number
// of time series is fixed.
var (
	pollCount      = counters("polls_total", "Polls that were reported, by outcome.", "outcome")
	errorCount     = counters("errors_total", "Polls with an error, by its code.", "code")
	handedBack     = counters("handed_back_total", "Polls that were left for later, by reason.", "reason")
	replyCount     = counters("replies_total", "Replies of POP3 servers.", "command", "status")
	handshakeCount = counters("handshakes_total", "Connections to POP3 servers, by TLS handshake.", "kind")
	messageCount   = counters("messages_total", "Messages that were delivered.").WithLabelValues()
	octetCount     = counters("octets_total", "Octets of messages that were received.").WithLabelValues()
	polling        = gauge("polling", "Polls under way.")
	lastPoll       = gauge("last_poll_timestamp_seconds", "Time of the last report of a poll.")
	natsWaiting    = gauge("nats_waiting", "Operations that wait because NATS does not answer, or has no room.")
	lagSeconds     = seconds("lag_seconds", "Time between when a poll was due and its beginning.")
	pollSeconds    = seconds("poll_seconds", "Duration of polls.")
)

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleet_" + name, Help: help}, labels)
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: "fleet_" + name, Help: help})
}

func seconds(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fleet_" + name, Help: help,
		Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}})
}

// countReplies counts the replies of POP3 servers.
var countReplies = &pop3.Trace{Done: func(_ context.Context, cmd string, _ int64, err error) {
	verb, _, _ := strings.Cut(cmd, " ")
	replyCount.WithLabelValues(verb, map[bool]string{true: "ok", false: "error"}[err == nil]).Inc()
}}
