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
	if n := s.bus.requests.Waiting(); n > 0 {
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

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// publish serves the page and the metrics of a scheduler. They show its view, which is made once a second.
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
			described := prometheus.NewDesc("fleet_"+name, help, nil, nil)
			to <- prometheus.MustNewConstMetric(described, prometheus.GaugeValue, value)
		}
		gauge("leader", "1 if this scheduler leads.", number(v.Leading))
		gauge("accounts", "Accounts that have a record.", float64(v.All.Accounts))
		gauge("accounts_aside", "Accounts that were set aside.", float64(v.All.Aside))
		gauge("accounts_crashed", "Accounts set aside because workers died in their polls.", float64(v.All.Crashed))
		gauge("accounts_failing", "Accounts whose last poll failed.", float64(v.All.Failing))
		gauge("accounts_removed", "Accounts that the accounts file lacks.", float64(v.All.Removed))
		gauge("accounts_paused", "Accounts of paused hosts.", float64(v.All.Paused))
		gauge("oldest_due_seconds", "How late the account is that has waited longest.", v.All.Late.Seconds())
		gauge("queue_accounts", "Accounts that are due and wait for a worker.", float64(v.All.Due))
		gauge("workers", "Workers that live.", float64(len(v.Workers)))
		gauge("worker_slots", "Polls that all workers can do at once.", float64(v.Slots))
		gauge("accounts_file_refused", "1 if the accounts file is not followed.", number(v.Refused != ""))
	}))
}

// healthy returns an error if the loop has stopped.
func (s *Scheduler) healthy() error {
	if v := s.view.Load(); v != nil && time.Since(v.made) > time.Minute {
		return errors.New("the loop of the scheduler stands still")
	}
	return nil
}

// ready returns an error until all records are known. A scheduler that does not lead is ready too.
func (s *Scheduler) ready() error {
	if err := s.service.ready(); err != nil {
		return err
	}
	if !s.view.Load().Ready {
		return errors.New("the records are being read")
	}
	return nil
}

// A tally is the state of the accounts of a host, or of all accounts.
type tally struct {
	Accounts, Failing, Aside, Crashed, Removed, Paused, Due int
	Late                                                    time.Duration // of the account that has waited longest
}

func (t *tally) add(e *entry, hasWorker bool, now time.Time) {
	t.Accounts++
	switch {
	case !e.record.Removed.IsZero():
		t.Removed++
		return
	case e.record.Aside:
		t.Aside++
		t.Crashed += int(number(e.record.Code == codeCrashed))
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

type hostRow struct {
	Name   string
	Paused bool
	Polls  int // running polls
	tally
}

// A view is what the page and the metrics show.
type view struct {
	Now     time.Time
	Ready   bool // all records are known
	Leading bool
	Refused string
	Polls   int // running polls
	Slots   int
	Rate    float64 // polls per second, a mean of the last seconds
	Workers []*worker
	made    time.Time
	done    uint64 // polls of all workers

	All       tally
	Hosts     []hostRow // those with the most failures
	HostCount int
	Trouble   []Record
	counted   time.Time     // when the accounts were counted
	counting  time.Duration // how long that took
}

const (
	maxHosts   = 12
	maxTrouble = 20
)

// newView makes a view. If there are so many accounts that counting takes long, they are counted less often.
func (s *Scheduler) newView() *view {
	v := *s.view.Load()
	v.made, v.Now, v.Ready, v.Leading = time.Now(), s.bus.clock.now(), s.loaded, s.election.Lease().Valid()
	v.Refused, v.Polls, v.Slots = shorten(s.refusal), len(s.planner.holders), s.planner.capacity
	v.Rate += (float64(s.done-v.done) - v.Rate) / 10
	v.done = s.done
	byName := func(a, b *worker) int { return strings.Compare(a.Name, b.Name) }
	v.Workers = slices.SortedFunc(maps.Values(s.workers), byName)
	if v.made.Sub(v.counted) >= 50*v.counting {
		v.count(s.planner)
		v.counted, v.counting = v.made, time.Since(v.made)
	}
	return &v
}

// count counts the accounts.
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
		return cmp.Or(cmp.Compare(number(b.Aside), number(a.Aside)), b.Fails-a.Fails,
			strings.Compare(a.Account, b.Account))
	})
	v.HostCount = len(hosts)
	v.Hosts = v.Hosts[:min(len(v.Hosts), maxHosts)]
	v.Trouble = v.Trouble[:min(len(v.Trouble), maxTrouble)]
}
