package main

import (
	"context"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/seed-2d50cddb/pop3"
)

// Metrics are those of a worker. No label has the name of an account or anything else that a server can choose, so the
// number of time series is fixed.
type Metrics struct {
	registry                                       *prometheus.Registry
	polls, errors, handedBack, replies, handshakes *prometheus.CounterVec
	messages, octets                               prometheus.Counter
	polling, lastPoll                              prometheus.Gauge
	lag, duration                                  prometheus.Histogram
	hooks                                          *pop3.Trace
}

func newMetrics() *Metrics {
	m := &Metrics{registry: newRegistry()}
	with := promauto.With(m.registry)
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
	m.hooks = &pop3.Trace{Done: func(_ context.Context, cmd string, _ int64, err error) {
		verb, _, _ := strings.Cut(cmd, " ")
		m.replies.WithLabelValues(verb, map[bool]string{true: "ok", false: "error"}[err == nil]).Inc()
	}}
	return m
}

// newRegistry returns a registry with the metrics that every process has.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewBuildInfoCollector(), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
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

// schedulerMetrics returns the metrics of a scheduler. They are computed from its view, which is made once a second.
func schedulerMetrics(s *Scheduler, nc *nats.Conn) *prometheus.Registry {
	r := newRegistry()
	gauge := func(name, help string, value func(v *view) float64) {
		gaugeFunc(r, name, help, func() float64 {
			if v := s.view.Load(); v != nil {
				return value(v)
			}
			return 0
		})
	}
	gauge("leader", "1 if this scheduler leads.", func(v *view) float64 { return number(v.Leading) })
	gauge("accounts", "Accounts that have a record.", func(v *view) float64 { return float64(v.All.Accounts) })
	gauge("accounts_aside", "Accounts that were set aside.", func(v *view) float64 { return float64(v.All.Aside) })
	gauge("accounts_failing", "Accounts whose last poll failed.",
		func(v *view) float64 { return float64(v.All.Failing) })
	gauge("accounts_removed", "Accounts that the accounts file lacks.",
		func(v *view) float64 { return float64(v.All.Removed) })
	gauge("accounts_paused", "Accounts of paused hosts.", func(v *view) float64 { return float64(v.All.Paused) })
	gauge("oldest_due_seconds", "How late the account is that has waited longest.",
		func(v *view) float64 { return max(0, v.All.Late.Seconds()) })
	gauge("queue_accounts", "Accounts that are due and wait for a worker.",
		func(v *view) float64 { return float64(v.All.Due) })
	gauge("workers", "Workers that live.", func(v *view) float64 { return float64(len(v.Workers)) })
	gauge("worker_slots", "Polls that all workers can do at once.", func(v *view) float64 { return float64(v.Slots) })
	gauge("accounts_file_refused", "1 if the accounts file is not followed.",
		func(v *view) float64 { return number(v.Refused != "") })
	registerNATS(r, nc, s.Bus)
	return r
}

// registerNATS adds the state of NATS, as this process sees it.
func registerNATS(r *prometheus.Registry, nc *nats.Conn, b *Bus) {
	gaugeFunc(r, "nats_connected", "1 if NATS is connected.", func() float64 { return number(nc.IsConnected()) })
	gaugeFunc(r, "nats_waiting", "Operations that wait because NATS does not answer, or has no room.",
		func() float64 { return float64(b.waiting.Load()) })
}

func gaugeFunc(r *prometheus.Registry, name, help string, value func() float64) {
	promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{Name: "fleet_" + name, Help: help}, value)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
