package main

import (
	"context"
	"runtime/debug"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/seed-2d50cddb/pop3"
)

// Metrics are those of a worker. No label has the name of an account or anything else that a server can choose, so the
// number of time series is fixed.
type Metrics struct {
	registry   *prometheus.Registry
	polls      *prometheus.CounterVec // by outcome
	errors     *prometheus.CounterVec // by code
	handedBack *prometheus.CounterVec // by reason
	replies    *prometheus.CounterVec // by command and status
	handshakes *prometheus.CounterVec // by kind
	messages   prometheus.Counter
	octets     prometheus.Counter
	polling    prometheus.Gauge
	lastPoll   prometheus.Gauge
	lag        prometheus.Histogram
	duration   prometheus.Histogram
	hooks      *pop3.Trace
}

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

func newMetrics() *Metrics {
	m := &Metrics{
		registry:   newRegistry(),
		polls:      counters("polls_total", "Polls that were reported, by outcome.", "outcome"),
		errors:     counters("errors_total", "Polls with an error, by its code.", "code"),
		handedBack: counters("handed_back_total", "Polls that were left for later, by reason.", "reason"),
		replies:    counters("replies_total", "Replies of POP3 servers.", "command", "status"),
		handshakes: counters("handshakes_total", "Connections to POP3 servers, by TLS handshake.", "kind"),
		messages: prometheus.NewCounter(prometheus.CounterOpts{Name: "fleet_messages_total",
			Help: "Messages that were delivered."}),
		octets: prometheus.NewCounter(prometheus.CounterOpts{Name: "fleet_octets_total",
			Help: "Octets of messages that were received."}),
		polling:  gauge("polling", "Polls under way."),
		lastPoll: gauge("last_poll_timestamp_seconds", "Time of the last report of a poll."),
		lag:      seconds("lag_seconds", "Time between when a poll was due and its beginning."),
		duration: seconds("poll_seconds", "Duration of polls."),
	}
	m.registry.MustRegister(m.polls, m.errors, m.handedBack, m.replies, m.handshakes, m.messages, m.octets, m.polling,
		m.lastPoll, m.lag, m.duration)
	m.hooks = &pop3.Trace{Done: m.reply}
	return m
}

// newRegistry returns a registry with the metrics that every process has.
func newRegistry() *prometheus.Registry {
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "fleet_build_info", Help: "Always 1.",
		ConstLabels: prometheus.Labels{"version": version()}})
	build.Set(1)
	r := prometheus.NewRegistry()
	r.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// version returns the version of this program, or its commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return info.Main.Version
}

func (m *Metrics) reply(_ context.Context, cmd string, _ int64, err error) {
	verb, _, _ := strings.Cut(cmd, " ")
	status := "ok"
	if err != nil {
		status = "error"
	}
	m.replies.WithLabelValues(verb, status).Inc()
}

// connected counts a new session.
func (m *Metrics) connected(c *pop3.Client) {
	kind := "none"
	if state, ok := c.TLSConnectionState(); ok {
		kind = "full"
		if state.DidResume {
			kind = "resumed"
		}
	}
	m.handshakes.WithLabelValues(kind).Inc()
}

// polled counts a poll that was reported.
func (m *Metrics) polled(o Outcome, took time.Duration) {
	outcome := "ok"
	if o.Failed {
		outcome = "failed"
	}
	m.polls.WithLabelValues(outcome).Inc()
	if o.Code != "" {
		m.errors.WithLabelValues(o.Code).Inc()
	}
	m.lastPoll.SetToCurrentTime()
	m.duration.Observe(took.Seconds())
}

// schedulerMetrics returns the metrics of a scheduler. They are computed from its view, which is made once a second.
func schedulerMetrics(s *Scheduler, nc *nats.Conn) *prometheus.Registry {
	r := newRegistry()
	for _, g := range []struct {
		name, help string
		value      func(v *view) float64
	}{
		{"leader", "1 if this scheduler leads.", func(v *view) float64 { return number(v.Leading) }},
		{"accounts", "Accounts that have a record.", func(v *view) float64 { return float64(v.All.Accounts) }},
		{"accounts_aside", "Accounts that were set aside.", func(v *view) float64 { return float64(v.All.Aside) }},
		{"accounts_failing", "Accounts whose last poll failed.",
			func(v *view) float64 { return float64(v.All.Failing) }},
		{"accounts_removed", "Accounts that the accounts file lacks.",
			func(v *view) float64 { return float64(v.All.Removed) }},
		{"accounts_paused", "Accounts of paused hosts.", func(v *view) float64 { return float64(v.All.Paused) }},
		{"oldest_due_seconds", "How late the account is that has waited longest.",
			func(v *view) float64 { return max(0, v.All.Late.Seconds()) }},
		{"queue_messages", "Polls in the work queue and with workers.",
			func(v *view) float64 { return float64(v.Queued) }},
		{"workers", "Workers that were heard of lately.", func(v *view) float64 { return float64(len(v.Workers)) }},
		{"worker_slots", "Polls that all workers can do at once.", func(v *view) float64 { return float64(v.Slots) }},
		{"accounts_file_refused", "1 if the accounts file is not followed.",
			func(v *view) float64 { return number(v.Refused != "") }},
	} {
		opts := prometheus.GaugeOpts{Name: "fleet_" + g.name, Help: g.help}
		r.MustRegister(prometheus.NewGaugeFunc(opts, func() float64 {
			if v := s.view.Load(); v != nil {
				return g.value(v)
			}
			return 0
		}))
	}
	registerNATS(r, nc)
	return r
}

// registerNATS adds the state of the connection to NATS.
func registerNATS(r *prometheus.Registry, nc *nats.Conn) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fleet_nats_connected",
		Help: "1 if NATS is connected."}, func() float64 { return number(nc.IsConnected()) }))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
