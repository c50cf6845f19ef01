package main

import (
	"context"
	"encoding/json"
	"errors"
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
	done    uint64 // polls of all workers
	view    atomic.Pointer[view]
	loaded  bool  // all records are known
	refused error // why the accounts file is not followed, or nil

	listening  time.Time // since when this scheduler has received the messages of workers
	reconnects uint64
	reconciled time.Time
	changing   atomic.Bool // records are being written to follow the accounts file
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
	Revision         uint64 // revision of the record
	Late             time.Duration
}

// A report is the result of a poll.
type report struct {
	Key      string
	Revision uint64        // revision in the grant
	Outcome  *Outcome      // nil if the worker hands back the poll, for a reason that is not the account's
	After    time.Duration // when to try again, if the poll was handed back
}

// A worker is what a scheduler knows about a worker. Each hello makes a new one; Polls belongs to the loop.
type worker struct {
	hello
	Seen    time.Time
	Polling int
}

// Run is called by kong.
func (s *Scheduler) Run(ctx context.Context, js jetstream.JetStream, g globals) error {
	return s.run(ctx, js, g.Name, s)
}

// work schedules until ctx ends.
func (s *Scheduler) work(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var campaign sync.WaitGroup
	defer campaign.Wait()
	defer cancel()
	campaign.Go(func() { s.campaign(ctx) })
	s.planner, s.crew = newPlanner(s.Limits, make(map[string]int)), make(map[string]*worker)
	s.publish()
	s.works.Store(true)
	for {
		err := s.follow(ctx)
		if ctx.Err() != nil || errors.Is(err, errLayout) {
			return err
		}
		slog.Warn("the records cannot be followed; trying again", "error", err)
		pause(ctx, time.Second)
	}
}

// campaign takes the lease of the leader when it is free, renews it, and gives it up when ctx ends.
func (s *Scheduler) campaign(ctx context.Context) {
	const key = "leader"
	ttl := s.bus.silence / 3
	var revision, last uint64
	for ok := true; ok; ok = pause(ctx, ttl/5) {
		asked, held := time.Now(), s.lead.Load()
		err := try(ctx, ttl/3, func(ctx context.Context) (err error) {
			if held.valid() {
				revision, err = s.bus.leader.Update(ctx, key, []byte(s.name), last)
			} else {
				revision, err = s.bus.leader.Create(ctx, key, []byte(s.name))
			}
			return err
		})
		switch {
		case err == nil && held.renew(asked):
			last = revision
		case err == nil:
			again := last == 0 || held.sure.Load()
			held = newLease(context.WithoutCancel(ctx), asked, ttl)
			held.sure.Store(again && revision == last+1) // nobody else has led in the meantime
			last = revision
			s.lead.Store(held)
			slog.Info("this scheduler leads")
			context.AfterFunc(held.ctx, func() { slog.Info("this scheduler does not lead any more") })
		case isConflict(err) && held != nil:
			held.end()
		case !isConflict(err) && ctx.Err() == nil:
			slog.Warn("the lease of the scheduler cannot be had", "error", err)
		}
	}
	if held := s.lead.Load(); held.valid() {
		held.end()
		try(context.WithoutCancel(ctx), oneTry, func(ctx context.Context) error {
			return s.bus.leader.Delete(ctx, key, jetstream.LastRevision(last)) // if this fails, the lease expires
		})
	}
}

// follow reads all records and their changes into the planner, and schedules while this scheduler leads.
func (s *Scheduler) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.planner, s.loaded = newPlanner(s.Limits, s.planner.held), false // running polls continue
	messages := make(chan *nats.Msg, 4096)
	sub, err := s.bus.nc.ChanSubscribe("fleet.*", messages)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	s.listening = time.Now()
	if err := s.look(ctx); err != nil {
		return err
	}
	records, err := s.bus.records.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer records.Stop()
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

// look asks NATS for its time, finds silent workers, and makes the view for the page and the metrics.
func (s *Scheduler) look(ctx context.Context) error {
	if err := try(ctx, oneTry, s.bus.look); errors.Is(err, errLayout) {
		return err
	}
	if n := s.bus.nc.Stats().Reconnects; n != s.reconnects || !s.bus.nc.IsConnected() {
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
			s.planner.delay(key, revision, s.bus.clock.now().Add(oneTry)) // lasts until the new record is stored
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

// leads reports whether this scheduler leads, and knows all records.
func (s *Scheduler) leads() bool { return s.lead.Load().valid() && s.loaded }

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
		if s.leads() && s.isSure() {
			all = s.grants(w)
		}
		if s.lead.Load().valid() { // the answer renews the lease of the worker, even without grants
			text, _ := json.Marshal(all)
			msg.Respond(text)
		}
	case reportSubject:
		var r report
		if json.Unmarshal(msg.Data, &r) == nil && s.leads() {
			s.report(ctx, r, msg)
		}
	}
}

// greet records what a worker says about itself. If a poll is missing in the hello, it has ended or its grant was lost.
func (s *Scheduler) greet(h hello) *worker {
	if h.Stopped {
		clear(h.Polls) // all polls have ended
	}
	before, now := s.crew[h.ID], &worker{h, time.Now(), len(h.Polls)}
	if before == nil {
		before = &worker{hello: hello{Done: h.Done}}
	}
	for key := range now.Polls {
		s.planner.hold(key)
	}
	for key := range before.Polls {
		s.planner.free(key)
	}
	s.done += h.Done - before.Done
	if s.crew[h.ID] = now; h.Stopped {
		delete(s.crew, h.ID)
	}
	return now
}

// grants returns polls for a worker, as many as it can do.
func (s *Scheduler) grants(w *worker) (all []grant) {
	now := s.bus.clock.now()
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
	now, e := s.bus.clock.now(), s.planner.entries[r.Key]
	if r.Outcome == nil || e == nil || e.revision != r.Revision {
		s.planner.delay(r.Key, r.Revision, now.Add(r.After))
		msg.Respond(nil)
		return
	}
	record := s.Policy.Next(e.record, now, *r.Outcome, rand.Float64())
	s.planner.delay(r.Key, r.Revision, now.Add(oneTry)) // lasts until the new record is stored
	go func() {
		err := s.bus.write(ctx, write{r.Key, record, r.Revision})
		if err == nil || isConflict(err) {
			msg.Respond(nil)
		} // otherwise there is no answer, so the worker reports again
	}()
}
