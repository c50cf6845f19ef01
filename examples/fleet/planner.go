package main

import (
	"container/heap"
	"time"

	"golang.org/x/time/rate"
)

// A planner knows when each account is due, and lets through no more polls than hosts and workers can take. It does no
// I/O and reads no clock: now is always the time of NATS.
type planner struct {
	limits   Limits
	capacity int // polls that all workers together can do at once
	sent     int // polls that are with the workers
	entries  map[string]*entry
	times    timeHeap
	hosts    map[string]*host
}

// Limits are those of each host, over all workers.
type Limits struct {
	Rate     rate.Limit    // polls a second
	Burst    int           // polls that may start at once
	Sessions int           // polls at the same time
	Resend   time.Duration // when a poll is queued again that nobody has reported; a second message is refused
}

// DefaultLimits are for one large provider; a small one may want less.
var DefaultLimits = Limits{Rate: 50, Burst: 10, Sessions: 100, Resend: time.Minute}

type entryState int

const (
	resting entryState = iota // until next
	waiting                   // due, in the queue of its host
	sent                      // with the workers; sent again at next
)

type entry struct {
	key      string
	record   Record
	revision uint64
	host     *host
	due      time.Time
	next     time.Time
	state    entryState
	index    int // in times, -1 if it is not there
}

// idle reports whether the account is not to be polled.
func (e *entry) idle() bool { return e.record.Aside || !e.record.Removed.IsZero() }

type host struct {
	limiter *rate.Limiter
	queue   []*entry
	sent    int
	paused  bool
}

func newPlanner(l Limits) *planner {
	return &planner{limits: l, entries: make(map[string]*entry), hosts: make(map[string]*host)}
}

// ackTime is what a worker needs to acknowledge the message of a poll after it has stored the record. Until then the
// queue would refuse the next message.
const ackTime = 250 * time.Millisecond

// set takes note of a record, which was stored at a time by the clock of NATS. It ends the poll that was under way.
func (p *planner) set(key string, r Record, revision uint64, stored time.Time) {
	old := p.entries[key]
	if old != nil && old.revision >= revision {
		return
	}
	due := r.due(stored)
	e := &entry{key: key, record: r, revision: revision, host: p.host(r.Host), due: due, next: due, index: -1}
	if soon := stored.Add(ackTime); old != nil && old.state == sent && due.Before(soon) {
		e.next = soon
	}
	p.remove(key)
	p.entries[key] = e
	if !e.idle() {
		heap.Push(&p.times, e)
	}
}

// remove forgets an account.
func (p *planner) remove(key string) {
	e := p.entries[key]
	if e == nil {
		return
	}
	p.settle(e)
	if e.index >= 0 {
		heap.Remove(&p.times, e.index)
	}
	e.state = resting // so that the queue of its host skips it
	delete(p.entries, key)
}

// settle takes note that no worker has the account any more.
func (p *planner) settle(e *entry) {
	if e.state == sent {
		e.host.sent--
		p.sent--
	}
}

// back takes note that a worker has handed back a poll, which is to be sent again at a time.
func (p *planner) back(key string, revision uint64, again time.Time) {
	e := p.entries[key]
	if e == nil || e.state != sent || e.revision != revision {
		return
	}
	p.settle(e)
	e.state, e.next = resting, again
	heap.Fix(&p.times, e.index)
}

func (p *planner) host(name string) *host {
	h := p.hosts[name]
	if h == nil {
		h = &host{limiter: rate.NewLimiter(p.limits.Rate, p.limits.Burst)}
		p.hosts[name] = h
	}
	return h
}

// share returns how many polls a host may have at the same time: twice as many as there is room left for others. So a
// host that is alone gets two thirds of the room, and slow hosts, however many polls they have, leave some for the
// next.
func (p *planner) share() int {
	return min(p.limits.Sessions, max(1, 2*(p.capacity-p.capacity/20-p.sent)))
}

// mostAtOnce limits what take returns, so that JetStream can answer before the next time.
const mostAtOnce = 1000

// take returns what is to be sent to the workers now: accounts that are due, and those that were sent so long ago
// without a report that their message may be lost. If it is not lost, JetStream refuses the second one.
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

// drain adds what may go now of the queue of a host.
func (p *planner) drain(h *host, now time.Time, out []*entry) []*entry {
	for len(h.queue) > 0 && len(out) < mostAtOnce {
		e := h.queue[0]
		if e.state != waiting {
			h.queue = h.queue[1:]
			continue
		}
		if h.paused || h.sent >= p.share() || !h.limiter.AllowN(now, 1) {
			break
		}
		h.queue = h.queue[1:]
		h.sent++
		p.sent++
		e.state = sent
		p.later(e, now)
		out = append(out, e)
	}
	return out
}

// later schedules when an entry that was sent is sent again.
func (p *planner) later(e *entry, now time.Time) {
	e.next = now.Add(p.limits.Resend)
	if e.index >= 0 {
		heap.Fix(&p.times, e.index)
		return
	}
	heap.Push(&p.times, e)
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
