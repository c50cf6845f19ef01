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

// A Scheduler answers the hellos of workers with the accounts that are due, stores the reports of workers, and makes
// the records follow the accounts file. Any number of schedulers may run. All of them know all records and receive the
// messages of all workers. Only the scheduler that leads answers.
type Scheduler struct {
	service
	Policy
	Limits
	KeepRemoved time.Duration `default:"168h" help:"How long the data of removed accounts is kept."`

	election leases.Election
	view     atomic.Pointer[view]

	// Only the goroutine of the method work uses these fields.
	planner    *planner
	workers    map[string]*workerState // by ID
	reports    int                     // number of reports with an outcome
	loaded     bool                    // true if all records are known
	connected  time.Time               // this scheduler has received all messages of workers since this time
	reconnects uint64                  // number of times that the connection to NATS was made again
	reconciled time.Time               // time of the last comparison of records and accounts file
	refusal    error                   // the reason why the accounts file is not followed, or nil

	writing atomic.Bool // true while reconcile writes records in the background
}

// Subjects of the messages that workers send to the schedulers.
const (
	helloSubject  = "fleet.hello"  // the message is a hello; the answer is a list of grants
	reportSubject = "fleet.report" // the message is a report; the answer is empty, and means that the report is stored
)

// A hello is the state of a worker. The worker sends one every second, and when a poll has ended. The answer renews the
// lease of the worker.
type hello struct {
	ID, Name string            // the ID is random, because a restarted worker has the same name
	Sessions int               // number of polls that the worker can do at the same time
	Free     int               // number of polls that the worker can begin now
	Polls    map[string]uint64 // running polls: the revision of each grant, by the key of its account
	Waiting  int64             // number of requests that wait for NATS
	Stopped  bool              // true in the last hello
}

// A grant is a poll that a worker must do.
type grant struct {
	Key, Fingerprint string
	Revision         uint64        // revision of the record
	Late             time.Duration // time since the account was due
}

// A report is the result of a poll.
type report struct {
	Key      string
	Revision uint64        // revision in the grant
	Outcome  *Outcome      // nil if the worker hands back the poll
	After    time.Duration // wait before a poll that was handed back is handed out again
}

// A workerState is what a scheduler knows about a worker. The page may read all fields except the map Polls.
type workerState struct {
	hello             // the last one; the scheduler adds its grants to Polls
	Seen    time.Time // when the hello was received
	Polling int       // number of running polls
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
	s.planner, s.workers = newPlanner(s.Limits, make(map[string]int)), make(map[string]*workerState)
	s.publish()
	s.started.Store(true)
	for {
		err := s.follow(ctx)
		if ctx.Err() != nil || errors.Is(err, errLayout) {
			return err
		}
		slog.Warn("cannot read the records; trying again", "error", err)
		natsretry.Pause(ctx, time.Second)
	}
}

// follow keeps the planner up to date with the records, and handles messages. It returns when ctx ends or NATS fails.
func (s *Scheduler) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.planner, s.loaded = newPlanner(s.Limits, s.planner.holders), false // polls may be running
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

// tick is called once a second. It checks the streams, finds silent workers, and makes the view for the page and the
// metrics. It returns only errors that wrap errLayout.
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

// declareDead frees the accounts of a silent worker. It counts a crash for each account that the worker was polling.
func (s *Scheduler) declareDead(ctx context.Context, w *workerState) {
	slog.Warn("a silent worker counts as dead; its polls go to others", "worker", w.Name, "polls", len(w.Polls))
	var writes []write
	for key, revision := range w.Polls {
		e := s.planner.entries[key]
		if e != nil && e.revision == revision && s.election.Lease().Valid() {
			writes = append(writes, write{key, e.record.Crashed(), revision})
			// The delay is the time that the writes may take.
			s.planner.delay(key, revision, s.bus.clock.now().Add(natsretry.Timeout))
		}
		s.planner.free(key)
	}
	delete(s.workers, w.ID)
	go s.bus.writeAll(ctx, writes)
}

// apply passes a change of a record, or of the rule for a host, to the planner. kve is nil after the existing records.
func (s *Scheduler) apply(kve jetstream.KeyValueEntry) {
	switch {
	case kve == nil:
		s.loaded = true
	case strings.HasPrefix(kve.Key(), hostPrefix):
		var rule hostRule
		if json.Unmarshal(kve.Value(), &rule) == nil && rule.Host != "" {
			s.planner.host(rule.Host).paused = rule.Paused
			slog.Info("the rule for a host has changed", "host", rule.Host, "paused", rule.Paused)
		}
	case kve.Operation() != jetstream.KeyValuePut:
		s.planner.remove(kve.Key())
	default:
		r, err := recordOf(kve)
		if err != nil { // then r is empty, and reconcile makes a new record
			slog.Warn("a record is ignored", "error", err)
		}
		s.planner.set(kve.Key(), r, kve.Revision(), kve.Created())
	}
}

// A hostRule is a decision of an operator about a host. It is in the bucket of the records, with hostPrefix before its
// key.
type hostRule struct {
	Host   string `json:"host"`
	Paused bool   `json:"paused"`
}

const hostPrefix = "host."

// leads reports whether this scheduler leads and knows all records.
func (s *Scheduler) leads() bool { return s.election.Lease().Valid() && s.loaded }

// handle handles a message of a worker, and answers it if this scheduler leads.
func (s *Scheduler) handle(ctx context.Context, msg *nats.Msg) {
	switch msg.Subject {
	case helloSubject:
		var h hello
		if json.Unmarshal(msg.Data, &h) != nil || h.ID == "" || h.Polls == nil {
			return
		}
		w := s.update(h)
		lease := s.election.Lease()
		var grants []grant
		if s.leads() && s.isInformed(lease) {
			grants = s.grantsFor(w)
		}
		if lease.Valid() { // an answer without grants also renews the lease of the worker
			text, _ := json.Marshal(grants)
			msg.Respond(text)
		}
	case reportSubject:
		var r report
		if json.Unmarshal(msg.Data, &r) != nil {
			return
		}
		if r.Outcome != nil {
			s.reports++
		}
		if s.leads() {
			s.store(ctx, r, msg)
		}
	}
}

// update replaces the state of a worker. If a poll is missing in the hello, the poll has ended or its grant was lost.
func (s *Scheduler) update(h hello) *workerState {
	if h.Stopped {
		clear(h.Polls) // all polls have ended
	}
	for key := range h.Polls {
		s.planner.hold(key)
	}
	if before := s.workers[h.ID]; before != nil {
		for key := range before.Polls {
			s.planner.free(key)
		}
	}
	w := &workerState{h, time.Now(), len(h.Polls)}
	if s.workers[h.ID] = w; h.Stopped {
		delete(s.workers, h.ID)
	}
	return w
}

// grantsFor takes as many accounts that are due as a worker can begin to poll.
func (s *Scheduler) grantsFor(w *workerState) (grants []grant) {
	now := s.bus.clock.now()
	for _, e := range s.planner.take(now, w.Free) {
		w.Polls[e.key] = e.revision
		grants = append(grants, grant{e.key, e.record.Fingerprint, e.revision, now.Sub(e.due)})
	}
	return grants
}

// isInformed reports whether this scheduler knows all polls that earlier leaders have handed out. That is so when each
// worker that may be alive has sent a hello since this scheduler got the lease.
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

// store stores the result of a poll and answers its report. It ignores a report about an older revision: somebody has
// changed the record since, or the report was stored before.
func (s *Scheduler) store(ctx context.Context, r report, msg *nats.Msg) {
	now, e := s.bus.clock.now(), s.planner.entries[r.Key]
	if r.Outcome == nil || e == nil || e.revision != r.Revision {
		s.planner.delay(r.Key, r.Revision, now.Add(r.After))
		msg.Respond(nil)
		return
	}
	record := s.Policy.Next(e.record, now, *r.Outcome, rand.Float64())
	s.planner.delay(r.Key, r.Revision, now.Add(natsretry.Timeout)) // the time that the write may take
	go func() {
		err := s.bus.write(ctx, write{r.Key, record, r.Revision})
		if err == nil || natsretry.IsConflict(err) { // without an answer the worker sends the report again
			msg.Respond(nil)
		}
	}()
}
