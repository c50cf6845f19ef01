package main

import (
	"container/heap"
	"time"

	"golang.org/x/time/rate"
)

// A planner knows when each account is due and which accounts the workers have. It allows no more polls than hosts and
// workers can handle. It does no I/O and reads no clock: now is always the time of NATS.
type planner struct {
	limits   Limits
	capacity int            // number of polls that all workers together can do at the same time
	held     map[string]int // number of workers that have an account; two if one of them was taken for dead
	entries  map[string]*entry
	times    timeHeap
	hosts    map[string]*host
	queues   map[*host]bool // hosts with accounts in their queue
}

// Limits are the limits for each host, over all workers.
type Limits struct {
	Rate     float64 `default:"50" help:"Polls a second for each host."`
	Burst    int     `default:"10" help:"Polls for each host that may start at once."`
	Sessions int     `name:"host-sessions" default:"100" help:"Polls at the same time for each host."`
}

// An entry is an account.
type entry struct {
	key      string
	record   Record
	revision uint64
	host     *host
	due      time.Time
	next     time.Time // due, or later if a worker has handed back the poll
}

// A turn is a future poll. It is in the heap until its time, and then in the queue of its host.
type turn struct {
	*entry
	at time.Time
}

type host struct {
	limiter *rate.Limiter
	queue   []turn
	held    int
	paused  bool
}

func newPlanner(l Limits) *planner {
	return &planner{limits: l, held: make(map[string]int), entries: make(map[string]*entry),
		hosts: make(map[string]*host), queues: make(map[*host]bool)}
}

// set adds or replaces the record of an account. stored is when NATS stored the record, by the clock of NATS.
func (p *planner) set(key string, r Record, revision uint64, stored time.Time) {
	if e := p.entries[key]; e != nil && e.revision >= revision {
		return
	}
	p.remove(key)
	e := &entry{key: key, record: r, revision: revision, host: p.host(r.Host), due: r.due(stored)}
	e.next = e.due
	p.entries[key] = e
	if p.held[key] > 0 {
		e.host.held++
	}
	p.schedule(e)
}

// remove removes an account.
func (p *planner) remove(key string) {
	if e := p.entries[key]; e != nil && p.held[key] > 0 {
		e.host.held--
	}
	delete(p.entries, key)
}

// schedule gives an account its next turn, if it is to be polled and no worker has it. A damaged record has no name.
func (p *planner) schedule(e *entry) {
	if p.held[e.key] == 0 && !e.record.Aside && e.record.Removed.IsZero() && e.record.Account != "" {
		heap.Push(&p.times, turn{e, e.next})
	}
}

// isVoid reports whether a turn is out of date. The account then has another turn, or gets one when its worker is done.
func (p *planner) isVoid(t turn) bool {
	return p.entries[t.key] != t.entry || p.held[t.key] > 0 || !t.at.Equal(t.next)
}

// hold records that a worker has an account. The account is not handed out until free was called as often as hold.
func (p *planner) hold(key string) {
	p.held[key]++
	if e := p.entries[key]; e != nil && p.held[key] == 1 {
		e.host.held++
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

// delay records that a worker hands back a poll. The poll must be done later.
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

// share returns how many polls a host may have at the same time: twice the number of polls that are left for others. So
// a single host gets two thirds of all polls, and slow hosts, however many polls they have, leave some for the next
// host.
func (p *planner) share() int {
	return min(p.limits.Sessions, max(1, 2*(p.capacity-p.capacity/20-len(p.held))))
}

// take returns at most n accounts that are due, and holds them.
func (p *planner) take(now time.Time, n int) (out []*entry) {
	for len(p.times) > 0 && !p.times[0].at.After(now) {
		t := heap.Pop(&p.times).(turn)
		t.host.queue = append(t.host.queue, t)
		p.queues[t.host] = true
	}
	for h := range p.queues {
		for len(h.queue) > 0 && len(out) < n {
			t := h.queue[0]
			void := p.isVoid(t)
			if !void && (h.paused || h.held >= p.share() || !h.limiter.AllowN(now, 1)) {
				break
			}
			h.queue = h.queue[1:]
			if !void {
				p.hold(t.key)
				out = append(out, t.entry)
			}
		}
		if len(h.queue) == 0 {
			delete(p.queues, h)
		}
	}
	return out
}

// A timeHeap is a heap of turns by time.
type timeHeap []turn

func (h timeHeap) Len() int           { return len(h) }
func (h timeHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timeHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timeHeap) Push(x any)        { *h = append(*h, x.(turn)) }

func (h *timeHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = turn{}
	*h = (*h)[:last]
	return t
}
