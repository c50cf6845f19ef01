package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Scheduler hands out the due accounts to the workers that ask, stores their reports, and makes the records follow
// the accounts file. Any number of schedulers may run. All of them know all records and receive the messages of all
// workers; the one that leads answers.
type Scheduler struct {
	service
	Policy
	Limits
	KeepRemoved time.Duration `default:"168h" help:"How long the data of removed accounts is kept."`

	lead    atomic.Pointer[lease] // valid while this scheduler leads; see campaign
	planner *planner
	crew    map[string]*worker
	polls   []uint64 // of all workers, in each of the last seconds
	clock   natsClock
	view    atomic.Pointer[view]
	loaded  bool  // all records are known
	refused error // why the accounts file is not followed, or nil

	listening  time.Time // since when this scheduler has received the messages of workers
	reconnects uint64
	reconciled time.Time
	changing   atomic.Bool // records are being written to follow the accounts file
	stored     chan func()
}

// Subjects of messages to the schedulers. All of them receive all messages; the one that leads answers.
const (
	helloSubject  = "fleet.hello"  // a hello, answered by grants
	reportSubject = "fleet.report" // a report, answered when it is stored
)

// A hello is what a worker says about itself, once a second and when a poll has ended. The answer renews its lease.
type hello struct {
	ID, Name string            // the ID is random: a process with the same name is another worker
	Sessions int               // polls that it can do at the same time
	Free     int               // polls that it can begin now
	Polls    map[string]uint64 // running polls: the revisions of the grants, by key
	Waiting  int64             // operations that wait for NATS
	Stopped  bool              // this is the last hello

	Done, Failed, Messages uint64 // polls and messages so far
}

// A grant is a poll that a worker must do.
type grant struct {
	Key, Fingerprint string
	Revision         uint64 // of the record
	Late             time.Duration
}

// A report is the result of a poll.
type report struct {
	Key      string
	Revision uint64        // of the grant
	Outcome  *Outcome      // nil if the worker hands back the poll, for a reason that is not the account's
	After    time.Duration // in that case, when to try again
}

// A worker is what a scheduler knows about a worker.
type worker struct {
	hello
	Seen    time.Time
	Polling int
}

// A natsClock computes the time of NATS. It adds the time that has passed on our monotonic clock to the time that a
// server has sent. A wrong date on this machine does no harm.
type natsClock struct{ server, read time.Time }

func (c natsClock) now() time.Time { return c.server.Add(time.Since(c.read)) }

// Run is called by kong.
func (s *Scheduler) Run(ctx context.Context, g *globals) error { return s.run(ctx, g, s.schedule) }

// schedule schedules until ctx ends.
func (s *Scheduler) schedule(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var campaign sync.WaitGroup
	defer campaign.Wait()
	defer cancel()
	campaign.Go(func() { s.campaign(ctx) })
	s.crew, s.polls, s.stored = make(map[string]*worker), make([]uint64, 1), make(chan func())
	s.publish()
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

// campaign takes the lease of the leader when it is free, renews it, and gives it up when ctx ends.
func (s *Scheduler) campaign(ctx context.Context) {
	const key = "leader"
	ttl := s.bus.silence / 3
	var revision, last uint64
	for ok := true; ok; ok = pause(ctx, ttl/5) {
		asked, held := time.Now(), s.lead.Load()
		try, cancel := context.WithTimeout(ctx, ttl/3)
		var err error
		if held.valid() {
			if revision, err = s.bus.leader.Update(try, key, []byte(s.name), last); err == nil && held.renew(asked) {
				last = revision
			} else if isConflict(err) {
				held.end()
			}
		} else if revision, err = s.bus.leader.Create(try, key, []byte(s.name)); err == nil {
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
		s.bus.leader.Delete(ctx, key, jetstream.LastRevision(last)) // if this fails, the lease expires
	}
}

// follow reads all records and their changes into the planner, and schedules while this scheduler leads.
func (s *Scheduler) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	records, err := s.bus.records.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer records.Stop()
	messages := make(chan *nats.Msg, 4096)
	sub, err := s.bus.nc.ChanSubscribe("fleet.*", messages)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	s.forget()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case kve, open := <-records.Updates():
			if !open {
				return errors.New("the watch of the records has ended")
			}
			s.note(kve)
		case msg := <-messages:
			s.hear(ctx, msg)
		case note := <-s.stored:
			note()
		case <-second.C:
			if err := s.look(ctx); err != nil {
				return err
			}
			s.reconcile(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// forget makes the scheduler read all records again. Running polls continue.
func (s *Scheduler) forget() {
	s.planner, s.loaded = newPlanner(s.Limits), false
	for _, w := range s.crew {
		for key := range w.Polls {
			s.planner.hold(key)
		}
	}
}

// look asks NATS for its time, finds silent workers, and makes the view for the page and the metrics.
func (s *Scheduler) look(ctx context.Context) error {
	try, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	asked := time.Now()
	stream, err := s.bus.js.Stream(try, "KV_schedules")
	switch {
	case err == nil:
		s.clock = natsClock{stream.CachedInfo().TimeStamp, asked}
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return err
	}
	if n := s.bus.nc.Stats().Reconnects; n != s.reconnects || s.listening.IsZero() || !s.bus.nc.IsConnected() {
		s.reconnects, s.listening = n, time.Now()
	}
	s.planner.capacity = 0
	for _, w := range s.crew {
		if time.Since(w.Seen) > s.bus.silence {
			s.bury(ctx, w)
			continue
		}
		s.planner.capacity += w.Sessions
	}
	s.polls = append(s.polls, s.polls[len(s.polls)-1])[max(0, len(s.polls)-10):]
	s.view.Store(s.newView())
	return nil
}

// bury records that a worker has died, and counts that for the accounts that it was polling.
func (s *Scheduler) bury(ctx context.Context, w *worker) {
	slog.Warn("a worker is silent, so its polls go to others", "worker", w.Name, "polls", len(w.Polls))
	var writes []write
	for key, revision := range w.Polls {
		e := s.planner.entries[key]
		if e != nil && e.revision == revision && s.lead.Load().valid() {
			writes = append(writes, write{key, e.record.Crashed(), revision})
			s.planner.delay(key, revision, s.clock.now().Add(oneTry)) // the delay lasts until the new record is stored
		}
		s.planner.free(key)
	}
	delete(s.crew, w.ID)
	go s.bus.writeAll(ctx, writes)
}

// note passes a record, or the rule for a host, to the planner.
func (s *Scheduler) note(kve jetstream.KeyValueEntry) {
	switch {
	case kve == nil:
		s.loaded = true // all existing records were read
	case strings.HasPrefix(kve.Key(), hostPrefix):
		var rule hostRule
		if json.Unmarshal(kve.Value(), &rule) == nil && rule.Host != "" {
			s.planner.host(rule.Host).paused = rule.Paused
			slog.Info("a rule for a host", "host", rule.Host, "paused", rule.Paused)
		}
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

// A hostRule is a rule of an operator for a host. It is in the bucket of the records.
type hostRule struct {
	Host   string `json:"host"`
	Paused bool   `json:"paused"`
}

const hostPrefix = "host."

// works reports whether this scheduler leads, and knows all records and the time.
func (s *Scheduler) works() bool { return s.lead.Load().valid() && s.loaded && !s.clock.read.IsZero() }

// hear handles the messages of workers, and answers them if this scheduler leads.
func (s *Scheduler) hear(ctx context.Context, msg *nats.Msg) {
	switch msg.Subject {
	case helloSubject:
		var h hello
		if json.Unmarshal(msg.Data, &h) != nil || h.ID == "" || h.Polls == nil {
			return
		}
		w := s.greet(h)
		var all []grant
		if s.works() && s.isSure() {
			all = s.grants(w)
		}
		if s.lead.Load().valid() { // the answer renews the lease of the worker, even without grants
			text, _ := json.Marshal(all)
			msg.Respond(text)
		}
	case reportSubject:
		var r report
		if json.Unmarshal(msg.Data, &r) == nil && s.works() {
			s.report(ctx, r, msg)
		}
	}
}

// greet records what a worker says about itself. If a poll is missing in the hello, it has ended or its grant was lost.
func (s *Scheduler) greet(h hello) *worker {
	w := s.crew[h.ID]
	if w == nil {
		w = &worker{hello: hello{Done: h.Done}}
		s.crew[h.ID] = w
	}
	if h.Stopped {
		clear(h.Polls) // all polls have ended
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
	s.polls[len(s.polls)-1] += h.Done - min(w.Done, h.Done)
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

// isSure reports whether this scheduler knows everything that earlier leaders have handed out: each worker that may be
// alive has said what it does.
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
	held.sure.Store(time.Since(s.listening) > s.bus.silence && time.Since(held.since) > 2*beat)
	return held.sure.Load()
}

// report stores the result of a poll. A report about an older revision is late: somebody has changed the record, or the
// report was stored already.
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
		revision, err := s.bus.records.Update(ctx, r.Key, record.value(), r.Revision)
		switch {
		case err == nil:
			select {
			case s.stored <- func() { s.planner.set(r.Key, record, revision, s.clock.now()); msg.Respond(nil) }:
			case <-ctx.Done():
			}
		case isConflict(err):
			msg.Respond(nil)
		} // there is no answer, so the worker reports again
	}()
}
