package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A roster has the records of all accounts, for people to look at.
type roster struct {
	mu      sync.Mutex
	records map[string]Record
}

// follow keeps the roster up to date until ctx ends.
func (r *roster) follow(ctx context.Context, kv jetstream.KeyValue) {
	for {
		if err := r.watch(ctx, kv); err != nil {
			slog.Warn("the schedules can't be watched", "err", err)
		}
		if !pause(ctx, time.Second) {
			return
		}
	}
}

// watch does that until the watch ends, with the server that had it.
func (r *roster) watch(ctx context.Context, kv jetstream.KeyValue) error {
	watch, err := kv.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer watch.Stop()
	for {
		select {
		case kve, open := <-watch.Updates():
			if !open {
				return errors.New("the watch has ended")
			}
			if kve != nil {
				r.note(kve)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *roster) note(kve jetstream.KeyValueEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.records == nil {
		r.records = make(map[string]Record)
	}
	if kve.Operation() != jetstream.KeyValuePut {
		delete(r.records, kve.Key())
		return
	}
	r.records[kve.Key()] = recordOf(kve)
}

// A tally is how the accounts of a host, or of all, are.
type tally struct {
	Accounts, Failing, Aside int
	Late                     time.Duration // of the one that has waited longest
}

func (t *tally) add(r Record, now time.Time) {
	t.Accounts++
	switch {
	case r.Aside:
		t.Aside++
		return
	case r.Fails > 0:
		t.Failing++
	}
	t.Late = max(t.Late, now.Sub(r.Next))
}

// count sums up, and gives those records that need somebody to look at them, up to a number.
func (r *roster) count(now time.Time, most int) (all tally, hosts map[string]tally, trouble []Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	hosts = make(map[string]tally)
	for _, rec := range r.records {
		all.add(rec, now)
		h := hosts[rec.Host]
		h.add(rec, now)
		hosts[rec.Host] = h
		if rec.Error != "" && len(trouble) < most {
			trouble = append(trouble, rec)
		}
	}
	return all, hosts, trouble
}

// polledSince is how many were polled at or after a time.
func (r *roster) polledSince(t time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, rec := range r.records {
		if !rec.Polled.Before(t) {
			n++
		}
	}
	return n
}
