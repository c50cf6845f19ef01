package main

import (
	"cmp"
	"strings"
	"time"

	"github.com/tidwall/btree"
	"golang.org/x/time/rate"
)

// A planner knows when each account is due and which accounts the workers have. It chooses accounts to poll, within the
// limits of hosts and workers. It does no I/O and reads no clock. All times are times of NATS.
type planner struct {
	limits   Limits
	capacity int            // number of polls that all workers together can do at the same time
	holders  map[string]int // number of workers that have an account, by key; rarely 2
	entries  map[string]*entry
	future   *schedule // the accounts that are not due yet
	hosts    map[string]*host
	queues   map[*host]bool // hosts whose queue is not empty
}

// A schedule contains accounts in the order in which they are due.
type schedule = btree.BTreeG[*entry]

func newSchedule() *schedule {
	return btree.NewBTreeGOptions(func(a, b *entry) bool {
		return cmp.Or(a.next.Compare(b.next), strings.Compare(a.key, b.key)) < 0
	}, btree.Options{NoLocks: true})
}

// Limits are the limits for each host, over all workers.
type Limits struct {
	Rate     float64 `default:"50" help:"Limit for the polls of a host that begin in a second."`
	Burst    int     `default:"10" help:"Limit for the polls of a host that begin at once."`
	Sessions int     `name:"host-sessions" default:"100" help:"Limit for the polls of a host at the same time."`
}

// An entry is an account in a planner.
type entry struct {
	key      string
	record   Record
	revision uint64
	host     *host
	due      time.Time
	next     time.Time // earliest time to hand out the account: due, or later after a call of delay
}

type host struct {
	limiter *rate.Limiter
	queue   *schedule // the accounts that are due
	running int       // number of polls
	paused  bool
}

func newPlanner(l Limits, holders map[string]int) *planner {
	return &planner{limits: l, holders: holders, entries: make(map[string]*entry), future: newSchedule(),
		hosts: make(map[string]*host), queues: make(map[*host]bool)}
}

// set adds or replaces the record of an account. stored is the time at which NATS stored the record. An older revision
// than the known one is ignored.
func (p *planner) set(key string, r Record, revision uint64, stored time.Time) {
	if e := p.entries[key]; e != nil && e.revision >= revision {
		return
	}
	p.remove(key)
	e := &entry{key: key, record: r, revision: revision, host: p.host(r.Host), due: r.due(stored)}
	e.next = e.due
	p.entries[key] = e
	if p.holders[key] > 0 {
		e.host.running++
	}
	p.schedule(e)
}

// remove removes an account.
func (p *planner) remove(key string) {
	e := p.entries[key]
	if e == nil {
		return
	}
	p.unschedule(e)
	if delete(p.entries, key); p.holders[key] > 0 {
		e.host.running--
	}
}

// schedule schedules an account, unless a worker has it or it must not be polled. A damaged record has no name.
func (p *planner) schedule(e *entry) {
	if p.holders[e.key] == 0 && !e.record.Aside && e.record.Removed.IsZero() && e.record.Account != "" {
		p.future.Set(e)
	}
}

func (p *planner) unschedule(e *entry) {
	p.future.Delete(e)
	e.host.queue.Delete(e)
}

// hold records that one more worker has an account. The account is not handed out until free was called as often as
// hold.
func (p *planner) hold(key string) {
	p.holders[key]++
	if e := p.entries[key]; e != nil && p.holders[key] == 1 {
		e.host.running++
		p.unschedule(e)
	}
}

// free records that one worker less has an account.
func (p *planner) free(key string) {
	if p.holders[key]--; p.holders[key] > 0 {
		return
	}
	delete(p.holders, key)
	if e := p.entries[key]; e != nil {
		e.host.running--
		p.schedule(e)
	}
}

// delay sets the earliest time to hand out an account again. It does nothing if no worker has the account, or if its
// record has another revision.
func (p *planner) delay(key string, revision uint64, next time.Time) {
	if e := p.entries[key]; e != nil && e.revision == revision && p.holders[key] > 0 {
		e.next = next
	}
}

func (p *planner) host(name string) *host {
	h := p.hosts[name]
	if h == nil {
		h = &host{limiter: rate.NewLimiter(rate.Limit(p.limits.Rate), p.limits.Burst), queue: newSchedule()}
		p.hosts[name] = h
	}
	return h
}

// share returns the largest number of polls that a host may have at the same time: twice the number of unused polls of
// all workers, of which a twentieth of the capacity is kept back. So one slow host gets about two thirds of all polls,
// and many slow hosts leave some for the next host.
func (p *planner) share() int {
	return min(p.limits.Sessions, max(1, 2*(p.capacity-p.capacity/20-len(p.holders))))
}

// take calls hold for at most n accounts that are due, and returns them.
func (p *planner) take(now time.Time, n int) (taken []*entry) {
	for e, ok := p.future.Min(); ok && !e.next.After(now); e, ok = p.future.Min() {
		p.future.Delete(e)
		e.host.queue.Set(e)
		p.queues[e.host] = true
	}
	for h := range p.queues {
		for h.queue.Len() > 0 && len(taken) < n && !h.paused && h.running < p.share() && h.limiter.AllowN(now, 1) {
			e, _ := h.queue.Min()
			p.hold(e.key)
			taken = append(taken, e)
		}
		if h.queue.Len() == 0 {
			delete(p.queues, h)
		}
	}
	return taken
}
