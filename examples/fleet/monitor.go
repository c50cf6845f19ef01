package main

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// serve serves health checks, metrics and the page until stop is called. The page shows the names of accounts, so other
// networks must not reach the address.
func (s *service) serve(p program, nc *nats.Conn) (stop func() error, err error) {
	l, err := net.Listen("tcp", s.HTTP)
	if err != nil {
		return nil, err
	}
	prometheus.MustRegister(collectors.NewBuildInfoCollector(), prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "fleet_nats_connected", Help: "1 if NATS is connected."},
		func() float64 { return boolValue(nc.IsConnected()) }))
	s.mux.HandleFunc("GET /healthz", checkHandler(p.healthy))
	s.mux.HandleFunc("GET /readyz", checkHandler(p.ready))
	s.mux.Handle("GET /metrics", promhttp.Handler())
	srv := &http.Server{Handler: &s.mux, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute}
	go srv.Serve(l)
	slog.Info("serving", "http", "http://"+l.Addr().String())
	return srv.Close, nil
}

// checkHandler replies with status 503 and the error of check, or with status 200.
func checkHandler(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

func (s *service) healthy() error { return nil }

// ready returns an error if NATS, the streams or a leading scheduler are missing.
func (s *service) ready() error {
	if !s.started.Load() {
		return errors.New("starting: NATS is not available, or fleet init was not run")
	}
	if !s.bus.nc.IsConnected() {
		return errors.New("NATS is not connected")
	}
	if n := s.bus.requests.Waiting(); n > 0 {
		return fmt.Errorf("polls are held back: %d requests wait for NATS or for a leading scheduler", n)
	}
	return nil
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// The metrics of a worker. No label contains the name of an account or a word that a server chooses, so the number of
// time series is limited.
var (
	pollCount      = counters("polls_total", "Polls that were reported, by outcome.", "outcome")
	errorCount     = counters("errors_total", "Polls with an error, by its code.", "code")
	handedBack     = counters("handed_back_total", "Polls that were handed back, by reason.", "reason")
	handshakeCount = counters("handshakes_total", "Connections to POP3 servers, by TLS handshake.", "kind")
	messageCount   = counters("messages_total", "Messages that were delivered.").WithLabelValues()
	octetCount     = counters("octets_total", "Octets of messages that were received.").WithLabelValues()
	polling        = gauge("polling", "Running polls.")
	lastPoll       = gauge("last_poll_timestamp_seconds", "Time of the last report of a poll.")
	natsWaiting    = gauge("nats_waiting", "Requests that wait because NATS does not answer, or has no room.")
	lagSeconds     = seconds("lag_seconds", "Time from when an account was due until its poll began.")
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

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// publish adds the page and the metrics of a scheduler. They show its view, which is replaced once a second.
func (s *Scheduler) publish() {
	s.view.Store(&view{made: time.Now()})
	s.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		pageTemplate.Execute(w, s.view.Load())
	})
	prometheus.MustRegister(prometheus.CollectorFunc(func(to chan<- prometheus.Metric) {
		v := s.view.Load()
		gauge := func(name, help string, value float64) {
			desc := prometheus.NewDesc("fleet_"+name, help, nil, nil)
			to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
		}
		gauge("leader", "1 if this scheduler leads.", boolValue(v.Leading))
		gauge("accounts", "Accounts that have a record.", float64(v.All.Accounts))
		gauge("accounts_aside", "Accounts that were set aside.", float64(v.All.Aside))
		gauge("accounts_crashed", "Accounts set aside because workers died in their polls.", float64(v.All.Crashed))
		gauge("accounts_failing", "Accounts whose last poll failed.", float64(v.All.Failing))
		gauge("accounts_removed", "Accounts that the accounts file lacks.", float64(v.All.Removed))
		gauge("accounts_paused", "Accounts of paused hosts.", float64(v.All.Paused))
		gauge("oldest_due_seconds", "Time since the account was due that has waited longest.", v.All.Late.Seconds())
		gauge("queue_accounts", "Accounts that are due and wait for a worker.", float64(v.All.Due))
		gauge("workers", "Workers that are alive.", float64(len(v.Workers)))
		gauge("worker_slots", "Polls that all workers can do at the same time.", float64(v.Slots))
		gauge("accounts_file_refused", "1 if the accounts file is not followed.", boolValue(v.Refused != ""))
	}))
}

// healthy returns an error if the loop of the scheduler is blocked.
func (s *Scheduler) healthy() error {
	if v := s.view.Load(); v != nil && time.Since(v.made) > time.Minute {
		return errors.New("the loop of the scheduler is blocked")
	}
	return nil
}

// ready returns an error until all records are known. It does not matter whether the scheduler leads.
func (s *Scheduler) ready() error {
	if err := s.service.ready(); err != nil {
		return err
	}
	if !s.view.Load().Ready {
		return errors.New("the records are being read")
	}
	return nil
}

// A tally counts the accounts of a host, or all accounts, by their state.
type tally struct {
	Accounts, Failing, Aside, Crashed, Removed, Paused, Due int

	Late time.Duration // time since the account was due that has waited longest
}

func (t *tally) add(e *entry, hasWorker bool, now time.Time) {
	t.Accounts++
	switch {
	case !e.record.Removed.IsZero():
		t.Removed++
		return
	case e.record.Aside:
		t.Aside++
		t.Crashed += int(boolValue(e.record.Code == codeCrashed))
		return
	case e.host.paused:
		t.Paused++
		return
	case e.record.Fails > 0:
		t.Failing++
	}
	late := now.Sub(e.due).Truncate(time.Second)
	t.Late = max(t.Late, late)
	if late > 0 && !hasWorker {
		t.Due++
	}
}

// A hostRow is a row in the table of hosts.
type hostRow struct {
	Name   string
	Paused bool
	Polls  int // number of running polls
	tally
}

// A view is the state of the fleet as the page and the metrics show it.
type view struct {
	Now     time.Time // by the clock of NATS
	Ready   bool      // true if all records are known
	Leading bool
	Refused string  // the reason why the accounts file is not followed, or ""
	Polls   int     // number of running polls
	Slots   int     // number of polls that all workers can do at the same time
	Rate    float64 // polls per second, a mean of about ten seconds
	Workers []*workerState
	made    time.Time // by the clock of this machine
	reports int       // Scheduler.reports at that time

	All       tally
	Hosts     []hostRow     // the hosts with the most failures
	HostCount int           // number of all hosts
	Trouble   []Record      // the accounts with the most failures
	counted   time.Time     // when the accounts were counted
	counting  time.Duration // how long the counting took
}

// The page shows at most so many rows.
const (
	maxHosts   = 12
	maxTrouble = 20
)

// newView makes a view. It counts the accounts again if that takes at most a fiftieth of the time.
func (s *Scheduler) newView() *view {
	v := *s.view.Load()
	v.made, v.Now, v.Ready, v.Leading = time.Now(), s.bus.clock.now(), s.loaded, s.election.Lease().Valid()
	v.Refused, v.Polls, v.Slots = shorten(s.refusal), len(s.planner.holders), s.planner.capacity
	v.Rate += (float64(s.reports-v.reports) - v.Rate) / 10
	v.reports = s.reports
	byName := func(a, b *workerState) int { return strings.Compare(a.Name, b.Name) }
	v.Workers = slices.SortedFunc(maps.Values(s.workers), byName)
	if v.made.Sub(v.counted) >= 50*v.counting {
		v.count(s.planner)
		v.counted, v.counting = v.made, time.Since(v.made)
	}
	return &v
}

// count counts the accounts, and finds the hosts and accounts with the most failures.
func (v *view) count(p *planner) {
	hosts := make(map[*host]*hostRow)
	v.All, v.Hosts, v.Trouble = tally{}, nil, nil
	for key, e := range p.entries {
		h := hosts[e.host]
		if h == nil {
			h = &hostRow{Name: e.record.Host, Paused: e.host.paused, Polls: e.host.running}
			hosts[e.host] = h
		}
		v.All.add(e, p.holders[key] > 0, v.Now)
		h.add(e, p.holders[key] > 0, v.Now)
		if e.record.Error != "" && e.record.Removed.IsZero() {
			v.Trouble = append(v.Trouble, e.record)
		}
	}
	for _, h := range hosts {
		v.Hosts = append(v.Hosts, *h)
	}
	slices.SortFunc(v.Hosts, func(a, b hostRow) int {
		return cmp.Or(b.Aside+b.Failing-a.Aside-a.Failing, cmp.Compare(b.Late, a.Late), strings.Compare(a.Name, b.Name))
	})
	slices.SortFunc(v.Trouble, func(a, b Record) int {
		return cmp.Or(cmp.Compare(boolValue(b.Aside), boolValue(a.Aside)), b.Fails-a.Fails,
			strings.Compare(a.Account, b.Account))
	})
	v.HostCount = len(hosts)
	v.Hosts = v.Hosts[:min(len(v.Hosts), maxHosts)]
	v.Trouble = v.Trouble[:min(len(v.Trouble), maxTrouble)]
}
