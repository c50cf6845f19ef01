package main

import (
	"container/heap"
	"time"

	"golang.org/x/time/rate"
)

// A planner knows when each account is due, and lets no more of them through than their host is to bear. It does no
// I/O and asks no clock.
type planner struct {
	limits  Limits
	entries map[string]*entry
	times   timeHeap
	hosts   map[string]*host
}

// Limits are those of each host, over all workers.
type Limits struct {
	Rate     rate.Limit // polls a second
	Burst    int        // of them at once
	Sessions int        // at the same time
	Resend   time.Duration
}

// DefaultLimits are for one large provider; a small one may want less.
var DefaultLimits = Limits{Rate: 50, Burst: 10, Sessions: 100, Resend: time.Minute}

type entryState int

const (
	resting entryState = iota // until next
	waiting                   // due, for its host
	sent                      // to the workers; at next it is looked after
)

type entry struct {
	key      string
	host     *host
	revision uint64
	due      time.Time
	next     time.Time
	state    entryState
	index    int // in times, -1 if it is not in it
}

type host struct {
	limiter *rate.Limiter
	queue   []*entry
	sent    int
}

func newPlanner(l Limits) *planner {
	return &planner{limits: l, entries: make(map[string]*entry), hosts: make(map[string]*host)}
}

// set takes note of a record. Whatever was under way for the account has ended with it.
func (p *planner) set(key string, r Record, revision uint64) {
	e := p.entries[key]
	if e != nil && e.revision >= revision {
		return
	}
	p.remove(key)
	if r.Aside {
		return
	}
	e = &entry{key: key, host: p.hostOf(r.Host), revision: revision, due: r.Next, next: r.Next, index: -1}
	p.entries[key] = e
	heap.Push(&p.times, e)
}

// remove forgets an account.
func (p *planner) remove(key string) {
	e := p.entries[key]
	if e == nil {
		return
	}
	if e.state == sent {
		e.host.sent--
	}
	if e.index >= 0 {
		heap.Remove(&p.times, e.index)
	}
	e.state = resting // so that the queue of its host skips it
	delete(p.entries, key)
}

func (p *planner) hostOf(name string) *host {
	h := p.hosts[name]
	if h == nil {
		h = &host{limiter: rate.NewLimiter(p.limits.Rate, p.limits.Burst)}
		p.hosts[name] = h
	}
	return h
}

// take gives what is to be sent to the workers now: what is due and may go, and what went so long ago without a
// report that its message may be lost. If it is not, JetStream refuses the second one.
func (p *planner) take(now time.Time) []*entry {
	var out []*entry
	for len(p.times) > 0 && !p.times[0].next.After(now) && len(out) < mostAtOnce {
		e := p.times[0]
		if e.state == sent {
			out = append(out, e)
			p.later(e, now)
			continue
		}
		heap.Pop(&p.times)
		e.state = waiting
		e.host.queue = append(e.host.queue, e)
	}
	for _, h := range p.hosts {
		out = p.drain(h, now, out)
	}
	return out
}

// mostAtOnce is how much of it there may be, so that JetStream is not asked for more than it can answer until the next
// time.
const mostAtOnce = 1000

// drain adds what of the queue of a host may go now.
func (p *planner) drain(h *host, now time.Time, out []*entry) []*entry {
	for len(h.queue) > 0 && len(out) < mostAtOnce {
		e := h.queue[0]
		if e.state != waiting {
			h.queue = h.queue[1:]
			continue
		}
		if h.sent >= p.limits.Sessions || !h.limiter.AllowN(now, 1) {
			break
		}
		h.queue = h.queue[1:]
		h.sent++
		e.state = sent
		p.later(e, now)
		out = append(out, e)
	}
	return out
}

// later puts an entry that was sent where it is looked after.
func (p *planner) later(e *entry, now time.Time) {
	e.next = now.Add(p.limits.Resend)
	if e.index >= 0 {
		heap.Fix(&p.times, e.index)
		return
	}
	heap.Push(&p.times, e)
}

// A timeHeap has the entry that is next in front.
type timeHeap []*entry

func (h timeHeap) Len() int           { return len(h) }
func (h timeHeap) Less(i, j int) bool { return h[i].next.Before(h[j].next) }

func (h timeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timeHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *timeHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	e.index = -1
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
