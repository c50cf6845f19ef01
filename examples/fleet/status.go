package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"octets": octets, "lateness": lateness,
}).Parse(pageText))

// A status is the page of the whole fleet, at /, with /metrics beside it for Prometheus.
type status struct {
	roster   roster
	gatherer gatherer

	mu    sync.Mutex
	polls []float64 // all of them until then, by the second
}

// serve has the page at an address until ctx ends.
func (s *status) serve(ctx context.Context, b *Bus, l net.Listener) error {
	sub, err := s.gatherer.listen(b.nc)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(&s.gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /{$}", s.page)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	var wg sync.WaitGroup
	wg.Go(func() { s.roster.follow(ctx, b.schedules) })
	wg.Go(func() { s.sample(ctx) })
	wg.Go(func() { <-ctx.Done(); srv.Close() })
	err = srv.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	wg.Wait()
	return err
}

// sample takes note of the polls each second.
func (s *status) sample(ctx context.Context) {
	for pause(ctx, time.Second) {
		var polls float64
		for _, w := range s.gatherer.snapshot() {
			polls += w.value("fleet_polls_total")
		}
		s.mu.Lock()
		s.polls = append(s.polls, polls)
		s.polls = s.polls[max(0, len(s.polls)-120-smooth):]
		s.mu.Unlock()
	}
}

// A workerRow is a line of the page.
type workerRow struct {
	Name                                                                  string
	Gone                                                                  bool
	Polls, Failed, Polling, Messages, Octets, Resumed, CPU, Memory, Files float64
}

type named struct {
	Name string
	tally
	Polls float64
}

// A view is what the page shows.
type view struct {
	Now                         time.Time
	All                         tally
	Rate, Top, Messages, Octets float64
	Lag                         time.Duration
	Line                        string
	Workers                     []workerRow
	Hosts, Errors               []named
	Trouble                     []Record
}

func (s *status) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	if err := pageTemplate.Execute(w, s.view(time.Now())); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *status) view(now time.Time) view {
	v := view{Now: now}
	var hosts map[string]tally
	v.All, hosts, v.Trouble = s.roster.count(now, 20)
	for name, t := range hosts {
		v.Hosts = append(v.Hosts, named{Name: name, tally: t})
	}
	v.Line, v.Rate, v.Top = s.line()
	codes := make(map[string]float64)
	var begun, late float64
	for name, t := range s.gatherer.snapshot() {
		row := rowOf(name, t, now)
		v.Workers = append(v.Workers, row)
		v.Messages += row.Messages
		v.Octets += row.Octets
		late += t.value("fleet_lag_seconds")
		begun += row.Polls
		for code, n := range t.byLabel("fleet_errors_total", "code") {
			codes[code] += n
		}
	}
	if begun > 0 {
		v.Lag = time.Duration(late / begun * float64(time.Second)).Round(time.Millisecond)
	}
	for code, n := range codes {
		v.Errors = append(v.Errors, named{Name: code, Polls: n})
	}
	v.sort()
	return v
}

func (v *view) sort() {
	slices.SortFunc(v.Workers, func(a, b workerRow) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(v.Hosts, func(a, b named) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(v.Errors, func(a, b named) int { return cmp.Compare(b.Polls, a.Polls) })
	slices.SortFunc(v.Trouble, func(a, b Record) int {
		return cmp.Or(cmp.Compare(b.Fails, a.Fails), strings.Compare(a.Account, b.Account))
	})
}

func rowOf(name string, t told, now time.Time) workerRow {
	r := workerRow{
		Name: name, Gone: now.Sub(t.at) > 5*time.Second,
		Polls: t.value("fleet_polls_total"), Failed: t.value("fleet_polls_total", "outcome", "failed"),
		Polling: t.value("fleet_polling"), Messages: t.value("fleet_messages_total"),
		Octets: t.value("fleet_octets_total"), CPU: t.value("process_cpu_seconds_total"),
		Memory: t.value("process_resident_memory_bytes"), Files: t.value("process_open_fds"),
	}
	if r.Gone {
		r.Polling = 0
	}
	if all := t.value("fleet_handshakes_total"); all > 0 {
		r.Resumed = 100 * t.value("fleet_handshakes_total", "kind", "resumed") / all
	}
	return r
}

// smooth is the number of seconds that a rate is the mean of: workers tell what they did each second or so.
const smooth = 4

// line draws the rate of polls, and gives the latest and the highest.
func (s *status) line() (points string, rate, top float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rates []float64
	for i := smooth; i < len(s.polls); i++ {
		rates = append(rates, (s.polls[i]-s.polls[i-smooth])/smooth)
	}
	if len(rates) == 0 {
		return "", 0, 0
	}
	top = slices.Max(rates)
	var b strings.Builder
	for i, rate := range rates {
		fmt.Fprintf(&b, "%d,%.1f ", 120-len(rates)+i+1, 38-36*rate/max(top, 1))
	}
	return b.String(), rates[len(rates)-1], top
}

func octets(n float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if n < 1000 {
			return fmt.Sprintf("%.3g %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.3g TB", n)
}

func lateness(d time.Duration) string {
	if d <= 0 {
		return "in time"
	}
	return d.Round(10*time.Millisecond).String() + " late"
}
