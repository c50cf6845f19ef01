package main

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/seed-2d50cddb/pop3"
)

// Metrics are those of one process.
type Metrics struct {
	registry   *prometheus.Registry
	polls      *prometheus.CounterVec // by outcome
	errors     *prometheus.CounterVec // by code
	replies    *prometheus.CounterVec // by command and status
	handshakes *prometheus.CounterVec // by kind
	messages   prometheus.Counter
	octets     prometheus.Counter
	polling    prometheus.Gauge
	lag        prometheus.Histogram
	duration   prometheus.Histogram
	hooks      *pop3.Trace
}

func newMetrics() *Metrics {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleet_" + name, Help: help}, labels)
	}
	one := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "fleet_" + name, Help: help})
	}
	seconds := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fleet_" + name, Help: help,
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}})
	}
	m := &Metrics{
		registry:   prometheus.NewRegistry(),
		polls:      vec("polls_total", "Polls that came to an end.", "outcome"),
		errors:     vec("errors_total", "Polls with an error, by its code.", "code"),
		replies:    vec("replies_total", "Replies of servers.", "command", "status"),
		handshakes: vec("handshakes_total", "TLS handshakes.", "kind"),
		messages:   one("messages_total", "Messages delivered."),
		octets:     one("octets_total", "Octets of messages received."),
		polling:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "fleet_polling", Help: "Polls under way."}),
		lag:        seconds("lag_seconds", "How late polls begin."),
		duration:   seconds("poll_seconds", "How long polls take."),
	}
	m.registry.MustRegister(m.polls, m.errors, m.replies, m.handshakes, m.messages, m.octets, m.polling, m.lag,
		m.duration, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.hooks = &pop3.Trace{Done: m.reply}
	return m
}

// trace gives the hooks that count replies.
func (m *Metrics) trace() *pop3.Trace { return m.hooks }

func (m *Metrics) reply(_ context.Context, cmd string, _ int64, err error) {
	verb, _, _ := strings.Cut(cmd, " ")
	status := "ok"
	if err != nil {
		status = "error"
	}
	m.replies.WithLabelValues(verb, status).Inc()
}

// connected counts the handshake of a new session.
func (m *Metrics) connected(c *pop3.Client) {
	state, ok := c.TLSConnectionState()
	switch {
	case !ok:
		m.handshakes.WithLabelValues("none").Inc()
	case state.DidResume:
		m.handshakes.WithLabelValues("resumed").Inc()
	default:
		m.handshakes.WithLabelValues("full").Inc()
	}
}

// polled counts a poll.
func (m *Metrics) polled(o Outcome, took time.Duration) {
	outcome := "ok"
	if o.Failed {
		outcome = "failed"
	}
	m.polls.WithLabelValues(outcome).Inc()
	if o.Code != "" {
		m.errors.WithLabelValues(o.Code).Inc()
	}
	m.duration.Observe(took.Seconds())
}
