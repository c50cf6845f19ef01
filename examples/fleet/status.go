package main

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"octets": octets, "lateness": lateness,
}).Parse(pageText))

// helloSubject is where each worker tells every second that it lives.
const helloSubject = "fleet.hello"

// A hello is what a worker tells of itself.
type hello struct {
	Name, Version           string
	Sessions, Polling       int
	Polls, Failed, Messages float64
	Octets, CPU, Memory     float64
	Held                    bool // polls are held back, because NATS cannot take notes
}

// read takes the numbers from the metrics of the process.
func (h *hello) read(families []*dto.MetricFamily) {
	sum := func(name, label string) (sum float64) {
		for _, f := range families {
			for _, m := range f.Metric {
				if f.GetName() == name && (label == "" || m.Label[0].GetValue() == label) {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
		return sum
	}
	h.Polls, h.Failed = sum("fleet_polls_total", ""), sum("fleet_polls_total", "failed")
	h.Messages, h.Octets = sum("fleet_messages_total", ""), sum("fleet_octets_total", "")
	h.Polling = int(sum("fleet_polling", ""))
	h.CPU, h.Memory = sum("process_cpu_seconds_total", ""), sum("process_resident_memory_bytes", "")
}

// A crew is the workers that were heard of lately.
type crew struct {
	workers map[string]workerRow
	polls   float64   // of all workers so far, those that have gone included
	history []float64 // of polls, by the second
}

type workerRow struct {
	hello
	Seen time.Time
}

const (
	alive     = 10 * time.Second // a worker that was silent for longer gets no polls
	forgotten = time.Minute      // and is not shown after this time
)

func (c *crew) hear(text []byte, now time.Time) {
	var h hello
	if json.Unmarshal(text, &h) != nil || h.Name == "" {
		return
	}
	if c.workers == nil {
		c.workers = make(map[string]workerRow)
	}
	if last, ok := c.workers[h.Name]; ok {
		c.polls += max(0, h.Polls-last.Polls)
	}
	c.workers[h.Name] = workerRow{h, now}
}

// slots returns how many polls the workers can do at once.
func (c *crew) slots(now time.Time) (slots int) {
	for _, w := range c.workers {
		if now.Sub(w.Seen) < alive {
			slots += w.Sessions
		}
	}
	return slots
}

// rows returns the workers, and forgets those that are gone.
func (c *crew) rows(now time.Time) (rows []workerRow) {
	for name, w := range c.workers {
		if now.Sub(w.Seen) > forgotten {
			delete(c.workers, name)
			continue
		}
		rows = append(rows, w)
	}
	slices.SortFunc(rows, func(a, b workerRow) int { return strings.Compare(a.Name, b.Name) })
	return rows
}

// A tally is the state of the accounts of a host, or of all accounts.
type tally struct {
	Accounts, Failing, Aside, Removed, Paused int
	Late                                      time.Duration // of the account that has waited longest
}

func (t *tally) add(e *entry, now time.Time) {
	t.Accounts++
	switch {
	case !e.record.Removed.IsZero():
		t.Removed++
		return
	case e.record.Aside:
		t.Aside++
		return
	case e.host.paused:
		t.Paused++
		return
	case e.record.Fails > 0:
		t.Failing++
	}
	t.Late = max(t.Late, now.Sub(e.due))
}

type hostRow struct {
	Name   string
	Paused bool
	Polls  int // under way
	tally
}

// A view is what the page and the metrics show.
type view struct {
	Now       time.Time
	Ready     bool // all records are known
	Leading   bool
	Refused   string
	Queued    uint64
	Slots     int
	All       tally
	Rate, Top float64
	Line      string
	Workers   []workerRow
	Hosts     []hostRow // those with most trouble
	HostCount int
	Trouble   []Record
	made      time.Time
	counted   time.Time     // when the accounts were counted
	counting  time.Duration // how long that took
}

const (
	mostHosts   = 30
	mostTrouble = 20
)

// newView makes a view. If there are so many accounts that this takes long, it is made less often.
func (s *Scheduler) newView(held *lease) *view {
	begin := time.Now()
	s.crew.history = append(s.crew.history, s.crew.polls)
	s.crew.history = s.crew.history[max(0, len(s.crew.history)-120-smooth):]
	v := &view{Now: s.clock.now(), Ready: s.loaded, Queued: s.queued, Slots: s.planner.capacity,
		Leading: held != nil && held.valid(), Workers: s.crew.rows(begin)}
	v.Line, v.Rate, v.Top = s.crew.line()
	if s.refused != nil {
		v.Refused = s.refused.Error()
	}
	v.made = begin
	if last := s.view.Load(); last != nil && last.Ready && begin.Sub(last.counted) < 50*last.counting {
		v.All, v.Hosts, v.HostCount, v.Trouble = last.All, last.Hosts, last.HostCount, last.Trouble
		v.counted, v.counting = last.counted, last.counting
		return v
	}
	v.count(s.planner)
	v.counted, v.counting = begin, time.Since(begin)
	return v
}

// count counts the accounts.
func (v *view) count(p *planner) {
	hosts := make(map[*host]*hostRow)
	for _, e := range p.entries {
		h := hosts[e.host]
		if h == nil {
			h = &hostRow{Name: e.record.Host, Paused: e.host.paused, Polls: e.host.sent}
			hosts[e.host] = h
		}
		v.All.add(e, v.Now)
		h.add(e, v.Now)
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

// servePage serves the page of the whole fleet.
func servePage(latest *atomic.Pointer[view]) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		v := latest.Load()
		if v == nil {
			v = new(view)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		pageTemplate.Execute(w, v)
	}
}

// smooth is the number of seconds over which a rate is averaged: workers tell what they did once a second.
const smooth = 4

// line returns the points of the rate of polls, its latest value and its highest.
func (c *crew) line() (points string, rate, top float64) {
	var rates []float64
	for i := smooth; i < len(c.history); i++ {
		rates = append(rates, (c.history[i]-c.history[i-smooth])/smooth)
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
	if d <= time.Second {
		return "on time"
	}
	return d.Round(time.Second).String() + " late"
}
