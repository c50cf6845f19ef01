package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A Scheduler puts a message into the work queue for each maildrop that is due. Any number of them may run: the one
// that has the lease works, the others wait for it.
type Scheduler struct {
	Bus    *Bus
	Limits Limits
	Policy Policy
	Owner  string
}

// A dueMessage says which poll is due. A worker drops it if the record has another revision by now: the poll was done,
// and only its acknowledgement got lost.
type dueMessage struct {
	Revision uint64    `json:"revision"`
	Due      time.Time `json:"due"`
}

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	for {
		held, err := s.Bus.leases.take(ctx, "scheduler", s.Owner)
		switch {
		case err == nil:
			err = s.lead(ctx, held)
			held.release()
		case errors.Is(err, errHeld):
			err = nil
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			slog.Warn("scheduler", "err", err)
		}
		if !pause(ctx, s.Bus.ackWait/3) {
			return nil
		}
	}
}

// lead schedules while the lease is held.
func (s *Scheduler) lead(ctx context.Context, held *lease) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := s.Bus.schedules.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer watch.Stop()
	p := newPlanner(s.Limits)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for loaded := false; ; {
		select {
		case kve, open := <-watch.Updates():
			if !open {
				return errors.New("the watch of the schedules has ended")
			}
			loaded = loaded || kve == nil // that is all there was before
			note(p, kve)
		case <-tick.C:
			if loaded {
				s.send(ctx, p.take(time.Now()))
			}
		case <-held.lost:
			return errHeld
		case <-ctx.Done():
			return nil
		}
	}
}

// note tells the planner what has changed.
func note(p *planner, kve jetstream.KeyValueEntry) {
	switch {
	case kve == nil:
	case kve.Operation() != jetstream.KeyValuePut:
		p.remove(kve.Key())
	default:
		p.set(kve.Key(), recordOf(kve), kve.Revision())
	}
}

// send puts messages into the queue, as often as it takes while that has no leader. It need not look at what becomes of
// them: a refusal says that the maildrop is queued, and what was lost is sent again when Limits.Resend is over.
func (s *Scheduler) send(ctx context.Context, due []*entry) {
	for _, e := range due {
		body, _ := json.Marshal(dueMessage{e.revision, e.due})
		_, err := s.Bus.js.PublishAsync(dueSubject+e.key, body,
			jetstream.WithRetryWait(oneTry/10), jetstream.WithRetryAttempts(int(10*patience/oneTry)))
		if err != nil && ctx.Err() == nil {
			slog.Warn("a maildrop could not be queued now, and will be later", "key", e.key, "err", err)
		}
	}
}

// Enlist makes a record for each account that has none yet.
func (s *Scheduler) Enlist(ctx context.Context, accounts fileAccounts) error {
	keys := make(chan string)
	errs := make([]error, 64)
	var wg sync.WaitGroup
	for n := range errs {
		wg.Go(func() {
			for key := range keys {
				if errs[n] == nil {
					errs[n] = s.enlist(ctx, key, accounts[key])
				}
			}
		})
	}
	for key := range accounts {
		keys <- key
	}
	close(keys)
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Scheduler) enlist(ctx context.Context, key string, a Account) error {
	_, err := getKey(ctx, s.Bus.schedules, key)
	if !errors.Is(err, jetstream.ErrKeyNotFound) {
		return err
	}
	r := s.Policy.First(Record{Account: a.Name, Host: a.Host()}, time.Now(), rand.Float64())
	err = insist(ctx, func(ctx context.Context) error {
		_, err := s.Bus.schedules.Create(ctx, key, r.value())
		return err
	})
	if errors.Is(err, jetstream.ErrKeyExists) {
		return nil
	}
	return err
}

// Follow enlists accounts that come while the scheduler runs, until ctx ends. The record of one that goes is deleted
// by the worker that looks for it in vain.
func (s *Scheduler) Follow(ctx context.Context, f *accountsFile, every time.Duration) {
	for behind := false; pause(ctx, every); {
		changed, err := f.refresh()
		if behind = behind || changed; behind && err == nil {
			err = s.Enlist(ctx, f.accounts())
			behind = err != nil
		}
		if err != nil && ctx.Err() == nil {
			slog.Warn("scheduler: new accounts have to wait", "err", err)
		}
	}
}

// pause waits, and reports whether ctx still holds.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
