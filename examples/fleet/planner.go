package main

import (
	"container/heap"
	"time"

	"golang.org/x/time/rate"
)

// A planner knows when each account is due and which ones the workers have, and lets through no more polls than hosts
// and workers can take. It does no I/O and reads no clock: now is always the time of NATS.
type planner struct {
	limits   Limits
	capacity int            // polls that all workers together can do at once
	held     map[string]int // accounts with the workers: with one, or with two when one of them was taken for dead
	entries  map[string]*entry
	times    timeHeap
	hosts    map[string]*host
	queues   map[*host]bool // hosts with accounts in their queue
}

// Limits are those of each host, over all workers.
type Limits struct {
	Rate     float64 `default:"50" help:"Polls a second for each host."`
	Burst    int     `default:"10" help:"Polls for each host that may start at once."`
	Sessions int     `name:"host-sessions" default:"100" help:"Polls at the same time for each host."`
}

// An entry is an account. It is in times until next, then in the queue of its host, and then with a worker.
type entry struct {
	key      string
	record   Record
	revision uint64
	host     *host
	due      time.Time
	next     time.Time // due, or later if a worker has handed back the poll
	queued   bool      // in the queue of its host
	index    int       // in times, -1 if it is not there
}

// idle reports whether the account is not to be polled. A damaged record has no name.
func (e *entry) idle() bool {
	return e.record.Aside || !e.record.Removed.IsZero() || e.record.Account == ""
}

type host struct {
	limiter *rate.Limiter
	queue   []*entry
	held    int
	paused  bool
}

func newPlanner(l Limits) *planner {
	return &planner{limits: l, held: make(map[string]int), entries: make(map[string]*entry),
		hosts: make(map[string]*host), queues: make(map[*host]bool)}
}

// set takes note of a record, which was stored at a time by the clock of NATS.
func (p *planner) set(key string, r Record, revision uint64, stored time.Time) {
	e := p.entries[key]
	if e != nil && e.revision >= revision {
		return
	}
	p.remove(key)
	e = &entry{key: key, record: r, revision: revision, host: p.host(r.Host), due: r.due(stored), index: -1}
	e.next = e.due
	p.entries[key] = e
	if p.held[key] > 0 {
		e.host.held++
	}
	p.schedule(e)
}

// remove forgets an account.
func (p *planner) remove(key string) {
	e := p.entries[key]
	if e == nil {
		return
	}
	if p.held[key] > 0 {
		e.host.held--
	}
	p.unschedule(e)
	delete(p.entries, key)
}

// schedule waits until the account is due, if it is to be polled and no worker has it.
func (p *planner) schedule(e *entry) {
	if p.held[e.key] == 0 && !e.idle() {
		heap.Push(&p.times, e)
	}
}

func (p *planner) unschedule(e *entry) {
	e.queued = false // the queue skips it
	if e.index >= 0 {
		heap.Remove(&p.times, e.index)
	}
}

// hold takes note that a worker has an account, which is not handed out until free was called as often.
func (p *planner) hold(key string) {
	p.held[key]++
	if e := p.entries[key]; e != nil && p.held[key] == 1 {
		e.host.held++
		p.unschedule(e)
	}
}

func (p *planner) free(key string) {
	if p.held[key]--; p.held[key] > 0 {
		return
	}
	delete(p.held, key)
	if e := p.entries[key]; e != nil {
		e.host.held--
		p.schedule(e)
	}
}

// delay takes note that a worker hands back a poll, which is to be done at a later time.
func (p *planner) delay(key string, revision uint64, next time.Time) {
	if e := p.entries[key]; e != nil && e.revision == revision && p.held[key] > 0 {
		e.next = next
	}
}

func (p *planner) host(name string) *host {
	h := p.hosts[name]
	if h == nil {
		h = &host{limiter: rate.NewLimiter(rate.Limit(p.limits.Rate), p.limits.Burst)}
		p.hosts[name] = h
	}
	return h
}

// share returns how many polls a host may have at the same time: twice as many as there is room left for others. So a
// host that is alone gets two thirds of the room, and slow hosts, however many polls they have, leave some for the
// next.
func (p *planner) share() int {
	return min(p.limits.Sessions, max(1, 2*(p.capacity-p.capacity/20-len(p.held))))
}

// take returns at most n accounts that are due, and holds them.
func (p *planner) take(now time.Time, n int) (out []*entry) {
	for len(p.times) > 0 && !p.times[0].next.After(now) {
		e := heap.Pop(&p.times).(*entry)
		e.queued = true
		e.host.queue = append(e.host.queue, e)
		p.queues[e.host] = true
	}
	for h := range p.queues {
		for len(h.queue) > 0 && len(out) < n {
			e := h.queue[0]
			if e.queued && (h.paused || h.held >= p.share() || !h.limiter.AllowN(now, 1)) {
				break
			}
			h.queue = h.queue[1:]
			if e.queued {
				p.hold(e.key)
				out = append(out, e)
			}
		}
		if len(h.queue) == 0 {
			delete(p.queues, h)
		}
	}
	return out
}

// A timeHeap has the entry that is next at its front.
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
