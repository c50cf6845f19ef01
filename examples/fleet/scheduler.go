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

	"github.com/seed-2d50cddb/pop3/examples/fleet/leases"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
)

// A Scheduler hands out the due accounts to the workers that ask, stores their reports, and makes the records follow
// the accounts file. Any number of schedulers may run. All of them know all records and receive the messages of all
// workers; the one that leads answers.
type Scheduler struct {
	service
	Policy
	Limits
	KeepRemoved time.Duration `default:"168h" help:"How long the data of removed accounts is kept."`

	election leases.Election
	view     atomic.Pointer[view]

	// Only the method follow uses these fields.
	planner    *planner
	workers    map[string]*worker // by ID
	done       uint64             // polls of all workers
	loaded     bool               // all records are known
	connected  time.Time          // since when this scheduler has received all messages of workers
	reconnects uint64
	reconciled time.Time
	refusal    error       // why the accounts file is not followed, or nil
	writing    atomic.Bool // records are being written to follow the accounts file
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
	Done     uint64            // polls that were reported so far
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
	var election sync.WaitGroup
	defer election.Wait()
	defer cancel()
	s.election.Bucket, s.election.TTL, s.election.Name = s.bus.leader, s.bus.silence/3, s.name
	election.Go(func() { s.election.Run(ctx) })
	s.planner, s.workers = newPlanner(s.Limits, make(map[string]int)), make(map[string]*worker)
	s.publish()
	s.works.Store(true)
	for {
		err := s.follow(ctx)
		if ctx.Err() != nil || errors.Is(err, errLayout) {
			return err
		}
		slog.Warn("the records cannot be followed; trying again", "error", err)
		natsretry.Pause(ctx, time.Second)
	}
}

// follow reads all records and their changes into the planner, and schedules while this scheduler leads.
func (s *Scheduler) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.planner, s.loaded = newPlanner(s.Limits, s.planner.holders), false // running polls continue
	messages := make(chan *nats.Msg, 4096)
	sub, err := s.bus.nc.ChanSubscribe("fleet.*", messages)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	s.connected = time.Now()
	if err := s.tick(ctx); err != nil {
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
			s.apply(kve)
		case msg := <-messages:
			s.handle(ctx, msg)
		case <-second.C:
			if err := s.tick(ctx); err != nil {
				return err
			}
			s.reconcile(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// tick runs once a second. It asks NATS for its time, finds silent workers, and makes the view for the page and the
// metrics.
func (s *Scheduler) tick(ctx context.Context) error {
	if err := natsretry.Try(ctx, natsretry.Timeout, s.bus.checkStreams); errors.Is(err, errLayout) {
		return err
	}
	if n := s.bus.nc.Stats().Reconnects; n != s.reconnects || !s.bus.nc.IsConnected() {
		s.reconnects, s.connected = n, time.Now()
	}
	s.planner.capacity = 0
	for _, w := range s.workers {
		if time.Since(w.Seen) > s.bus.silence {
			s.declareDead(ctx, w)
			continue
		}
		s.planner.capacity += w.Sessions
	}
	s.view.Store(s.newView())
	return nil
}

// declareDead frees the accounts of a silent worker. For each account that it was polling, the death is counted.
func (s *Scheduler) declareDead(ctx context.Context, w *worker) {
	slog.Warn("a worker is silent, so its polls go to others", "worker", w.Name, "polls", len(w.Polls))
	var writes []write
	for key, revision := range w.Polls {
		e := s.planner.entries[key]
		if e != nil && e.revision == revision && s.election.Lease().Valid() {
			writes = append(writes, write{key, e.record.Crashed(), revision})
			// The delay lasts until the new record is stored.
			s.planner.delay(key, revision, s.bus.clock.now().Add(natsretry.Timeout))
		}
		s.planner.free(key)
	}
	delete(s.workers, w.ID)
	go s.bus.writeAll(ctx, writes)
}

// apply passes a changed record, or the rule for a host, to the planner.
func (s *Scheduler) apply(kve jetstream.KeyValueEntry) {
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
func (s *Scheduler) leads() bool { return s.election.Lease().Valid() && s.loaded }

// handle handles the messages of workers, and answers them if this scheduler leads.
func (s *Scheduler) handle(ctx context.Context, msg *nats.Msg) {
	switch msg.Subject {
	case helloSubject:
		var h hello
		if json.Unmarshal(msg.Data, &h) != nil || h.ID == "" || h.Polls == nil {
			return
		}
		w := s.update(h)
		lease := s.election.Lease()
		var all []grant
		if s.leads() && s.isInformed(lease) {
			all = s.grants(w)
		}
		if lease.Valid() { // the answer renews the lease of the worker, even without grants
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

// update replaces what is known about a worker. If a poll is missing in the hello, the poll has ended or its grant was
// lost.
func (s *Scheduler) update(h hello) *worker {
	if h.Stopped {
		clear(h.Polls) // all polls have ended
	}
	before, now := s.workers[h.ID], &worker{h, time.Now(), len(h.Polls)}
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
	if s.workers[h.ID] = now; h.Stopped {
		delete(s.workers, h.ID)
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

// isInformed reports whether this scheduler, which has the lease, knows all polls that earlier leaders have handed out.
// It does when each worker that may be alive has sent a hello.
func (s *Scheduler) isInformed(lease *leases.Lease) bool {
	if lease.Informed.Load() {
		return true
	}
	for _, w := range s.workers {
		if w.Seen.Before(lease.Begin) {
			return false
		}
	}
	lease.Informed.Store(time.Since(s.connected) > s.bus.silence && time.Since(lease.Begin) > 2*helloInterval)
	return lease.Informed.Load()
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
	s.planner.delay(r.Key, r.Revision, now.Add(natsretry.Timeout)) // lasts until the new record is stored
	go func() {
		err := s.bus.write(ctx, write{r.Key, record, r.Revision})
		if err == nil || natsretry.IsConflict(err) {
			msg.Respond(nil)
		} // otherwise there is no answer, so the worker reports again
	}()
}
