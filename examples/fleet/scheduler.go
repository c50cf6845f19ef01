package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Scheduler hands out the accounts that are due to the workers that ask, stores what they report, and makes the
// records follow the accounts file. Any number of schedulers may run: all of them know all records and hear all
// workers, and the one that leads answers.
type Scheduler struct {
	Bus      *Bus
	Accounts *accountsFile
	Limits   Limits
	Policy   Policy
	Keep     time.Duration // how long the data of removed accounts is kept
	Owner    string

	lead    atomic.Pointer[lease] // whether this scheduler leads; see campaign
	planner *planner
	crew    map[string]*worker
	history []uint64 // polls of all workers so far, by the second
	polls   uint64
	clock   natsClock
	view    atomic.Pointer[view]
	loaded  bool
	refused error // why the accounts file is not followed

	listening  time.Time // since when all workers are heard
	reconnects uint64
	unreadable bool // the accounts file is
	changing   atomic.Bool
	stored     chan storedReport
}

// Subjects of messages to the schedulers. All of them hear all; the one that leads answers.
const (
	helloSubject   = "fleet.hello"   // a hello, answered by grants
	reportSubject  = "fleet.report"  // a report, answered when it is stored
	commandSubject = "fleet.command" // of an operator
)

// A hello is what a worker tells of itself, once a second and when a poll has ended. The answer renews its lease.
type hello struct {
	ID, Name string            // the first is random: a process that takes its place is another worker
	Sessions int               // how many polls it can do
	Free     int               // how many more of them now
	Polls    map[string]uint64 // polls under way, by key: the revisions of the grants
	Waiting  int64             // operations that wait for NATS
	Stopped  bool              // it was the last one

	Done, Failed, Messages uint64 // polls and messages so far
}

// A grant is a poll that a worker is to do.
type grant struct {
	Key, Fingerprint string
	Revision         uint64 // of the record
	Late             time.Duration
}

// A report is what became of a poll.
type report struct {
	Key      string
	Revision uint64        // of the grant
	Outcome  *Outcome      // nil if the worker hands back the poll, for a reason that is not the account's
	After    time.Duration // then this is when to try again
}

// A worker is what a scheduler knows of one.
type worker struct {
	hello
	Seen    time.Time
	Polling int
}

type storedReport struct {
	key      string
	record   Record
	revision uint64
	msg      *nats.Msg
}

// A natsClock is the time of NATS: what a server said, and what our monotonic clock has counted since. A wrong or
// changing date on this machine does no harm.
type natsClock struct{ server, read time.Time }

func (c natsClock) now() time.Time { return c.server.Add(time.Since(c.read)) }

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() {
		defer close(ended)
		s.campaign(ctx)
	}()
	s.crew, s.stored = make(map[string]*worker), make(chan storedReport)
	for ctx.Err() == nil {
		if err := s.follow(ctx); err != nil && ctx.Err() == nil {
			if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) {
				return fmt.Errorf("%w: %w", errLayout, err)
			}
			slog.Warn("the records cannot be followed; trying again", "error", err)
			pause(ctx, time.Second)
		}
	}
	return nil
}

// campaign takes the lease of the leader whenever it is free, renews it, and gives it up when ctx ends.
func (s *Scheduler) campaign(ctx context.Context) {
	const key = "leader"
	ttl := s.Bus.silence / 3
	var revision, last uint64
	for ok := true; ok; ok = pause(ctx, ttl/5) {
		asked, held := time.Now(), s.lead.Load()
		try, cancel := context.WithTimeout(ctx, ttl/3)
		var err error
		if held.valid() {
			if revision, err = s.Bus.leader.Update(try, key, []byte(s.Owner), last); err == nil && held.renew(asked) {
				last = revision
			} else if isConflict(err) {
				held.end()
			}
		} else if revision, err = s.Bus.leader.Create(try, key, []byte(s.Owner)); err == nil {
			again := last == 0 || held.sure.Load()
			held = newLease(context.WithoutCancel(ctx), asked, ttl)
			held.sure.Store(again && revision == last+1) // nobody else has led in the meantime
			last = revision
			s.lead.Store(held)
			slog.Info("this scheduler leads")
			context.AfterFunc(held.ctx, func() { slog.Info("this scheduler does not lead any more") })
		}
		cancel()
		if err != nil && !isConflict(err) && ctx.Err() == nil {
			slog.Warn("the lease of the scheduler cannot be had", "error", err)
		}
	}
	if held := s.lead.Load(); held.valid() {
		held.end()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), oneTry)
		defer cancel()
		s.Bus.leader.Delete(ctx, key, jetstream.LastRevision(last)) // if that fails, it expires
	}
}

// follow reads all records and their changes into the planner, and schedules while this scheduler leads.
func (s *Scheduler) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	records, err := s.Bus.records.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer records.Stop()
	hosts, err := s.Bus.hosts.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer hosts.Stop()
	messages := make(chan *nats.Msg, 4096)
	sub, err := s.Bus.nc.ChanSubscribe("fleet.*", messages)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	s.planner, s.loaded = newPlanner(s.Limits), false
	for _, w := range s.crew {
		for key := range w.Polls {
			s.planner.hold(key)
		}
	}
	return s.loop(ctx, records, hosts, messages)
}

func (s *Scheduler) loop(ctx context.Context, records, hosts jetstream.KeyWatcher, messages <-chan *nats.Msg) error {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	var reconciled time.Time
	for {
		select {
		case kve, open := <-records.Updates():
			if !open {
				return errors.New("the watch of the records has ended")
			}
			s.note(kve)
		case kve, open := <-hosts.Updates():
			if !open {
				return errors.New("the watch of the hosts has ended")
			}
			s.noteHost(kve)
		case msg := <-messages:
			s.hear(ctx, msg)
		case done := <-s.stored:
			s.planner.set(done.key, done.record, done.revision, s.clock.now())
			done.msg.Respond(nil)
		case now := <-second.C:
			if err := s.look(ctx); err != nil {
				return err
			}
			if changed := s.refresh(); s.loaded && s.lead.Load().valid() &&
				(changed || now.Sub(reconciled) > 5*time.Second) {
				reconciled = now
				s.reconcile(ctx)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// look asks NATS for its time, misses workers, and makes the view that the page and the metrics show.
func (s *Scheduler) look(ctx context.Context) error {
	try, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	asked := time.Now()
	stream, err := s.Bus.js.Stream(try, "KV_schedules")
	switch {
	case err == nil:
		s.clock = natsClock{stream.CachedInfo().TimeStamp, asked}
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return err
	case s.clock.read.IsZero():
		return nil // there is no time to schedule by yet
	}
	if n := s.Bus.nc.Stats().Reconnects; n != s.reconnects || s.listening.IsZero() || !s.Bus.nc.IsConnected() {
		s.reconnects, s.listening = n, time.Now()
	}
	s.planner.capacity = 0
	for _, w := range s.crew {
		if time.Since(w.Seen) > s.Bus.silence {
			s.bury(ctx, w)
			continue
		}
		s.planner.capacity += w.Sessions
	}
	s.history = append(s.history, s.polls)
	s.history = s.history[max(0, len(s.history)-120-smooth):]
	s.view.Store(s.newView())
	return nil
}

// bury takes note that a worker has died, and counts that for the accounts which it was polling.
func (s *Scheduler) bury(ctx context.Context, w *worker) {
	slog.Warn("a worker is silent, so its polls go to others", "worker", w.Name, "polls", len(w.Polls))
	now := s.clock.now()
	var writes []write
	for key, revision := range w.Polls {
		e := s.planner.entries[key]
		if e != nil && e.revision == revision && s.lead.Load().valid() {
			writes = append(writes, write{key, "crashed", s.Policy.Crashed(e.record, now), revision})
			s.planner.delay(key, revision, now.Add(oneTry)) // until that is stored
		}
		s.planner.free(key)
	}
	delete(s.crew, w.ID)
	go s.Bus.writeAll(ctx, writes)
}

// note tells the planner about a record.
func (s *Scheduler) note(kve jetstream.KeyValueEntry) {
	switch {
	case kve == nil:
		s.loaded = true // those were all that existed before
	case kve.Operation() != jetstream.KeyValuePut:
		s.planner.remove(kve.Key())
	default:
		r, err := recordOf(kve)
		if err != nil { // reconcile writes it again from the accounts file
			slog.Warn("a record is ignored", "error", err)
		}
		s.planner.set(kve.Key(), r, kve.Revision(), kve.Created())
	}
}

// A hostRule is what an operator has said about a host.
type hostRule struct {
	Host   string `json:"host"`
	Paused bool   `json:"paused"`
}

func (s *Scheduler) noteHost(kve jetstream.KeyValueEntry) {
	var rule hostRule
	if kve != nil && json.Unmarshal(kve.Value(), &rule) == nil && rule.Host != "" {
		s.planner.host(rule.Host).paused = rule.Paused
		slog.Info("a rule for a host", "host", rule.Host, "paused", rule.Paused)
	}
}

// hear takes what workers and operators say, and answers if this scheduler leads.
func (s *Scheduler) hear(ctx context.Context, msg *nats.Msg) {
	leads := s.lead.Load().valid()
	works := leads && s.loaded && !s.clock.read.IsZero()
	switch msg.Subject {
	case helloSubject:
		var h hello
		if json.Unmarshal(msg.Data, &h) != nil || h.ID == "" || h.Polls == nil {
			return
		}
		w := s.greet(h)
		var all []grant
		if works && s.isSure() {
			all = s.grants(w)
		}
		if leads { // even without grants the answer renews the lease of the worker
			text, _ := json.Marshal(all)
			msg.Respond(text)
		}
	case reportSubject:
		var r report
		if json.Unmarshal(msg.Data, &r) == nil && works {
			s.report(ctx, r, msg)
		}
	case commandSubject:
		var c command
		if json.Unmarshal(msg.Data, &c) == nil && works {
			s.command(ctx, c, msg)
		}
	}
}

// greet takes note of what a worker says about itself. A poll that it does not name has ended, or its grant was lost.
func (s *Scheduler) greet(h hello) *worker {
	w := s.crew[h.ID]
	if w == nil {
		w = &worker{hello: hello{Done: h.Done}}
		s.crew[h.ID] = w
	}
	for key := range h.Polls {
		if _, known := w.Polls[key]; !known {
			s.planner.hold(key)
		}
	}
	for key := range w.Polls {
		if _, still := h.Polls[key]; !still {
			s.planner.free(key)
		}
	}
	s.polls += h.Done - min(w.Done, h.Done)
	w.hello, w.Seen = h, time.Now()
	if h.Stopped {
		delete(s.crew, h.ID)
	}
	return w
}

// grants returns polls for a worker, as many as it can do.
func (s *Scheduler) grants(w *worker) (all []grant) {
	now := s.clock.now()
	for _, e := range s.planner.take(now, w.Free) {
		w.Polls[e.key] = e.revision
		all = append(all, grant{e.key, e.record.Fingerprint, e.revision, now.Sub(e.due)})
	}
	return all
}

// isSure reports whether this scheduler knows everything that another one has handed out before it led: each worker
// that may be alive has said what it does.
func (s *Scheduler) isSure() bool {
	held := s.lead.Load()
	if held.sure.Load() {
		return true
	}
	for _, w := range s.crew {
		if w.Seen.Before(held.since) {
			return false
		}
	}
	held.sure.Store(time.Since(s.listening) > s.Bus.silence && time.Since(held.since) > 2*beat)
	return held.sure.Load()
}

// report stores the outcome of a poll. A report about another revision than the present one is late: somebody has
// changed the record, or this is the answer to one that was stored already.
func (s *Scheduler) report(ctx context.Context, r report, msg *nats.Msg) {
	now, e := s.clock.now(), s.planner.entries[r.Key]
	if r.Outcome == nil || e == nil || e.revision != r.Revision {
		s.planner.delay(r.Key, r.Revision, now.Add(r.After))
		msg.Respond(nil)
		return
	}
	record := s.Policy.Next(e.record, now, *r.Outcome, rand.Float64())
	go func() {
		ctx, cancel := context.WithTimeout(ctx, oneTry)
		defer cancel()
		revision, err := s.Bus.records.Update(ctx, r.Key, record.value(), r.Revision)
		switch {
		case err == nil:
			select {
			case s.stored <- storedReport{r.Key, record, revision, msg}:
			case <-ctx.Done():
			}
		case isConflict(err):
			msg.Respond(nil)
		} // else there is no answer, and the worker reports again
	}()
}
