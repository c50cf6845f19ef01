package main

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"lateness": lateness}).Parse(pageText))

// healthy reports whether the loop goes round.
func (s *Scheduler) healthy() error {
	if last := s.view.Load(); last != nil && time.Since(last.made) > time.Minute {
		return errors.New("the loop of the scheduler stands still")
	}
	return nil
}

// ready reports whether all records are known and NATS is there. A scheduler that does not lead is ready too.
func (s *Scheduler) ready() error {
	switch last := s.view.Load(); {
	case !s.Bus.nc.IsConnected():
		return errors.New("NATS is not connected")
	case last == nil || !last.Ready:
		return errors.New("the records are being read")
	}
	return nil
}

// A tally is the state of the accounts of a host, or of all accounts.
type tally struct {
	Accounts, Failing, Aside, Removed, Paused, Due int
	Late                                           time.Duration // of the account that has waited longest
}

func (t *tally) add(e *entry, held bool, now time.Time) {
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
	late := now.Sub(e.due)
	t.Late = max(t.Late, late)
	if late > 0 && !held {
		t.Due++
	}
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
	Polls     int // under way
	Slots     int
	All       tally
	Rate, Top float64
	Line      string
	Workers   []*worker
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

// newView makes a view. If there are so many accounts that this takes long, they are counted less often.
func (s *Scheduler) newView() *view {
	begin := time.Now()
	v := &view{Now: s.clock.now(), Ready: s.loaded, Polls: len(s.planner.held), Slots: s.planner.capacity,
		Leading: s.lead.Load().valid(), made: begin, counted: begin}
	for _, w := range s.crew {
		shown := *w
		shown.Polling, shown.Polls = len(w.Polls), nil // the map belongs to the loop
		v.Workers = append(v.Workers, &shown)
	}
	slices.SortFunc(v.Workers, func(a, b *worker) int { return strings.Compare(a.Name, b.Name) })
	v.Line, v.Rate, v.Top = line(s.history)
	if s.refused != nil {
		v.Refused = s.refused.Error()
	}
	if last := s.view.Load(); last != nil && last.Ready && begin.Sub(last.counted) < 50*last.counting {
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

// servePage serves the page of the whole fleet.
func servePage(w http.ResponseWriter, v *view) {
	if v == nil {
		v = new(view)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	pageTemplate.Execute(w, v)
}

// smooth is the number of seconds over which a rate is averaged: workers tell what they did once a second.
const smooth = 4

// line returns the points of the rate of polls, its latest value and its highest.
func line(history []uint64) (points string, rate, top float64) {
	var rates []float64
	for i := smooth; i < len(history); i++ {
		rates = append(rates, float64(history[i]-history[i-smooth])/smooth)
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

func lateness(d time.Duration) string {
	if d <= time.Second {
		return "on time"
	}
	return d.Round(time.Second).String() + " late"
}
