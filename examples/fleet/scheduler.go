package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Scheduler puts a message into the work queue for each account that is due, and makes the records follow the
// accounts file. Any number of schedulers may run: all of them know all records, and the one that has the lease does
// the work.
type Scheduler struct {
	Bus      *Bus
	Accounts *accountsFile
	Limits   Limits
	Policy   Policy
	Keep     time.Duration // how long the data of removed accounts is kept
	Owner    string

	planner *planner
	crew    crew
	clock   natsClock
	view    atomic.Pointer[view]
	loaded  bool
	queued  uint64
	refused error // why the accounts file is not followed

	unreadable  bool // the accounts file is
	reconciling atomic.Bool
}

// A dueMessage says which poll is due. A worker drops it if the record has another revision by now.
type dueMessage struct {
	Revision uint64    `json:"revision"`
	Due      time.Time `json:"due"`
}

// backSubject is where workers tell that they have handed back a poll.
const backSubject = "fleet.back"

type handedBack struct {
	Key      string        `json:"key"`
	Revision uint64        `json:"revision"`
	After    time.Duration `json:"after"`
}

// A natsClock is the time of NATS: what a server said, and what our monotonic clock has counted since. A wrong or
// changing date on this machine does no harm.
type natsClock struct{ server, read time.Time }

func (c natsClock) now() time.Time { return c.server.Add(time.Since(c.read)) }

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	leading := make(chan *lease)
	ended := make(chan struct{})
	defer func() { <-ended }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(ended)
		s.campaign(ctx, leading)
	}()
	for ctx.Err() == nil {
		if err := s.follow(ctx, leading); err != nil && ctx.Err() == nil {
			if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) {
				return fmt.Errorf("%w: %w", errLayout, err)
			}
			slog.Warn("the records cannot be followed; trying again", "error", err)
			pause(ctx, time.Second)
		}
	}
	return nil
}

// healthy reports whether the loop goes round.
func (s *Scheduler) healthy() error {
	if last := s.view.Load(); last != nil && time.Since(last.made) > time.Minute {
		return errors.New("the loop of the scheduler stands still")
	}
	return nil
}

// ready reports whether all records are known and NATS is there. A scheduler that does not lead is ready too.
func (s *Scheduler) ready() error {
	switch last := s.view.Load(); {
	case !s.Bus.nc.IsConnected():
		return errors.New("NATS is not connected")
	case last == nil || !last.Ready:
		return errors.New("the records are being read")
	}
	return nil
}

// campaign takes the lease whenever it is free, and hands it to follow for as long as it is held.
func (s *Scheduler) campaign(ctx context.Context, leading chan<- *lease) {
	for ctx.Err() == nil {
		held, err := s.Bus.leases.take(ctx, ctx, "scheduler", s.Owner, func() {})
		if err == nil {
			slog.Info("this scheduler leads")
			select {
			case leading <- held:
				<-held.ctx.Done()
			case <-ctx.Done():
			}
			held.release()
			slog.Info("this scheduler does not lead any more")
		} else if !errors.Is(err, errHeld) && ctx.Err() == nil {
			slog.Warn("the lease of the scheduler cannot be had", "error", err)
		}
		pause(ctx, s.Bus.leases.ttl/4)
	}
}

// follow reads all records and their changes into the planner, and schedules while the lease is held.
func (s *Scheduler) follow(ctx context.Context, leading <-chan *lease) error {
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
	return s.loop(ctx, leading, records, hosts, messages)
}

func (s *Scheduler) loop(ctx context.Context, leading <-chan *lease, records, hosts jetstream.KeyWatcher,
	messages <-chan *nats.Msg) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var held *lease
	defer func() {
		if held != nil {
			held.lose() // the next round of follow takes it again
		}
	}()
	var looked, reconciled time.Time
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
			s.hear(msg)
		case held = <-leading:
			reconciled = time.Time{}
		case now := <-tick.C:
			if now.Sub(looked) > time.Second {
				looked = now
				if err := s.look(ctx, held); err != nil {
					return err
				}
			}
			if !s.loaded || held == nil || !held.valid() {
				continue
			}
			if changed := looked == now && s.refresh(); changed || now.Sub(reconciled) > 5*time.Second {
				reconciled = now
				s.reconcile(held.ctx)
			}
			s.send(s.planner.take(s.clock.now()))
		case <-ctx.Done():
			return nil
		}
	}
}

// look asks NATS for its time and for the length of the queue, and makes the view that the page and the metrics show.
func (s *Scheduler) look(ctx context.Context, held *lease) error {
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	asked := time.Now()
	info, err := s.Bus.due.Info(ctx)
	switch {
	case err == nil:
		s.clock, s.queued = natsClock{info.TimeStamp, asked}, info.State.Msgs
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return err
	case s.clock.read.IsZero():
		return nil // there is no time to schedule by yet
	}
	s.planner.capacity = s.crew.slots(time.Now())
	s.view.Store(s.newView(held))
	return nil
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
			s.planner.remove(kve.Key())
			return
		}
		r.unknown = nil // it is read again before it is written
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

// hear takes what workers tell.
func (s *Scheduler) hear(msg *nats.Msg) {
	switch msg.Subject {
	case helloSubject:
		s.crew.hear(msg.Data, time.Now())
	case backSubject:
		var back handedBack
		if json.Unmarshal(msg.Data, &back) == nil {
			s.planner.back(back.Key, back.Revision, s.clock.now().Add(back.After))
		}
	}
}

// send puts messages into the queue, without waiting for the answers: a refusal means that the account is in the queue
// already, and a message that was lost is sent again after Limits.Resend.
func (s *Scheduler) send(due []*entry) {
	for _, e := range due {
		body, _ := json.Marshal(dueMessage{e.revision, e.due})
		_, err := s.Bus.js.PublishAsync(dueSubject+e.key, body,
			jetstream.WithRetryWait(oneTry/10), jetstream.WithRetryAttempts(int(10*patience/oneTry)))
		if err != nil {
			slog.Warn("a poll could not be queued and will be later", "account", e.record.Account, "error", err)
		}
	}
}
