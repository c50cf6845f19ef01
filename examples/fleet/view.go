package main

import (
	"cmp"
	_ "embed"
	"errors"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"lateness": lateness}).Parse(pageText))

// publish serves the page and the metrics of a scheduler. They show its view, which is made once a second.
func (s *Scheduler) publish() {
	s.view.Store(&view{made: time.Now()})
	s.monitor.healthy.Store(new(s.healthy))
	s.monitor.ready.Store(new(s.ready))
	s.monitor.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		pageTemplate.Execute(w, s.view.Load())
	})
	for _, g := range []struct {
		name, help string
		value      func(v *view) float64
	}{
		{"leader", "1 if this scheduler leads.", func(v *view) float64 { return number(v.Leading) }},
		{"accounts", "Accounts that have a record.", func(v *view) float64 { return float64(v.All.Accounts) }},
		{"accounts_aside", "Accounts that were set aside.", func(v *view) float64 { return float64(v.All.Aside) }},
		{"accounts_crashed", "Accounts that were set aside because workers died in their polls.",
			func(v *view) float64 { return float64(v.All.Crashed) }},
		{"accounts_failing", "Accounts whose last poll failed.",
			func(v *view) float64 { return float64(v.All.Failing) }},
		{"accounts_removed", "Accounts that the accounts file lacks.",
			func(v *view) float64 { return float64(v.All.Removed) }},
		{"accounts_paused", "Accounts of paused hosts.", func(v *view) float64 { return float64(v.All.Paused) }},
		{"oldest_due_seconds", "How late the account is that has waited longest.",
			func(v *view) float64 { return max(0, v.All.Late.Seconds()) }},
		{"queue_accounts", "Accounts that are due and wait for a worker.",
			func(v *view) float64 { return float64(v.All.Due) }},
		{"workers", "Workers that live.", func(v *view) float64 { return float64(len(v.Workers)) }},
		{"worker_slots", "Polls that all workers can do at once.", func(v *view) float64 { return float64(v.Slots) }},
		{"accounts_file_refused", "1 if the accounts file is not followed.",
			func(v *view) float64 { return number(v.Refused != "") }},
	} {
		s.monitor.gauge(g.name, g.help, func() float64 { return g.value(s.view.Load()) })
	}
}

// healthy returns an error if the loop has stopped.
func (s *Scheduler) healthy() error {
	if time.Since(s.view.Load().made) > time.Minute {
		return errors.New("the loop of the scheduler stands still")
	}
	return nil
}

// ready returns an error until all records are known. A scheduler that does not lead is ready too.
func (s *Scheduler) ready() error {
	if !s.bus.nc.IsConnected() {
		return errors.New("NATS is not connected")
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

func (t *tally) add(e *entry, held bool, now time.Time) {
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
	late := now.Sub(e.due)
	t.Late = max(t.Late, late)
	if late > 0 && !held {
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
	Now       time.Time
	Ready     bool // all records are known
	Leading   bool
	Refused   string
	Polls     int // running polls
	Slots     int
	All       tally
	Rate      float64 // polls per second
	Workers   []*worker
	Hosts     []hostRow // those with the most failures
	HostCount int
	Trouble   []Record
	made      time.Time
	counted   time.Time     // when the accounts were counted
	counting  time.Duration // how long that took
}

const (
	mostHosts   = 12
	mostTrouble = 20
)

// newView makes a view. If there are so many accounts that counting takes long, they are counted less often.
func (s *Scheduler) newView() *view {
	begin := time.Now()
	v := &view{Now: s.clock.now(), Ready: s.loaded, Polls: len(s.planner.held), Slots: s.planner.capacity,
		Leading: s.lead.Load().valid(), Refused: shorten(s.refused), made: begin, counted: begin}
	for _, w := range s.crew {
		shown := *w
		shown.Polling, shown.Polls = len(w.Polls), nil // a copy: only the scheduler's own goroutine may use the map
		v.Workers = append(v.Workers, &shown)
	}
	slices.SortFunc(v.Workers, func(a, b *worker) int { return strings.Compare(a.Name, b.Name) })
	v.Rate = float64(s.polls[len(s.polls)-1]-s.polls[0]) / float64(max(1, len(s.polls)-1))
	if last := s.view.Load(); last.Ready && begin.Sub(last.counted) < 50*last.counting {
		v.All, v.Hosts, v.HostCount, v.Trouble = last.All, last.Hosts, last.HostCount, last.Trouble
		v.counted, v.counting = last.counted, last.counting
		return v
	}
	v.count(s.planner)
	v.counting = time.Since(begin)
	return v
}

// count counts the accounts.
func (v *view) count(p *planner) {
	hosts := make(map[*host]*hostRow)
	for key, e := range p.entries {
		h := hosts[e.host]
		if h == nil {
			h = &hostRow{Name: e.record.Host, Paused: e.host.paused, Polls: e.host.held}
			hosts[e.host] = h
		}
		v.All.add(e, p.held[key] > 0, v.Now)
		h.add(e, p.held[key] > 0, v.Now)
		if e.record.Error != "" && e.record.Removed.IsZero() {
			v.Trouble = append(v.Trouble, e.record)
		}
	}
	v.HostCount = len(hosts)
	for _, h := range hosts {
		v.Hosts = append(v.Hosts, *h)
	}
	slices.SortFunc(v.Hosts, func(a, b hostRow) int {
		return cmp.Or(cmp.Compare(b.Aside+b.Failing, a.Aside+a.Failing), cmp.Compare(b.Late, a.Late),
			strings.Compare(a.Name, b.Name))
	})
	slices.SortFunc(v.Trouble, func(a, b Record) int {
		return cmp.Or(cmp.Compare(number(b.Aside), number(a.Aside)), cmp.Compare(b.Fails, a.Fails),
			strings.Compare(a.Account, b.Account))
	})
	v.Hosts = v.Hosts[:min(len(v.Hosts), mostHosts)]
	v.Trouble = v.Trouble[:min(len(v.Trouble), mostTrouble)]
}

func lateness(d time.Duration) string {
	if d <= time.Second {
		return "on time"
	}
	return d.Round(time.Second).String() + " late"
}
