package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A write replaces one revision of a record.
type write struct {
	key    string
	kind   string // what for
	record Record
	over   uint64
}

// changes returns what has to be written so that the records agree with the accounts, and how many of the writes are
// removals.
func (s *Scheduler) changes(now time.Time) (all []write, drop int) {
	accounts := s.Accounts.accounts()
	for key, a := range accounts {
		e := s.planner.entries[key]
		switch {
		case e == nil:
			all = append(all, write{key, "added", s.Policy.New(a, now, rand.Float64()), 0})
		case e.record.Account == "": // damaged
			all = append(all, write{key, "added", s.Policy.New(a, now, rand.Float64()), e.revision})
		case !e.record.Removed.IsZero() || e.record.Fingerprint != a.print:
			r := e.record
			if r.Fingerprint != "" || !r.Removed.IsZero() || r.Host != a.Host() { // else it is of an earlier version
				r = s.Policy.Again(r, now)
			}
			r.Host, r.Fingerprint, r.Removed = a.Host(), a.print, time.Time{}
			all = append(all, write{key, "changed", r, e.revision})
		}
	}
	for key, e := range s.planner.entries {
		if _, ok := accounts[key]; ok {
			continue
		}
		switch since := e.record.Removed; {
		case e.record.Account == "" || !since.IsZero() && now.Sub(since) > s.Keep:
			if s.planner.held[key] == 0 {
				all = append(all, write{key, "purged", Record{}, e.revision})
			}
		case since.IsZero():
			r := e.record
			r.Removed = now
			all = append(all, write{key, "removed", r, e.revision})
			drop++
		}
	}
	return all, drop
}

// tooMany refuses to remove more than a tenth of the accounts, and more than ten: an accounts file that was cut is more
// likely than so many accounts that are given up at once.
func tooMany(drop, all int) error {
	if drop > 10 && drop*10 > all || drop > 0 && drop == all {
		return fmt.Errorf("the accounts file lacks %d of %d accounts; if that is right, run fleet reconcile --force",
			drop, all)
	}
	return nil
}

// refresh reads the accounts file if it has changed.
func (s *Scheduler) refresh() (changed bool) {
	changed, err := s.Accounts.refresh()
	if s.unreadable = err != nil; err != nil {
		s.refuse(err)
	}
	return changed
}

// reconcile makes the records follow the accounts file, in the background.
func (s *Scheduler) reconcile(ctx context.Context) {
	if s.unreadable || !s.changing.CompareAndSwap(false, true) {
		return
	}
	all, drop := s.changes(s.clock.now())
	refusal := tooMany(drop, len(s.planner.entries))
	if s.refuse(refusal); refusal != nil {
		all = slices.DeleteFunc(all, func(w write) bool { return w.kind == "removed" })
	}
	go func() {
		defer s.changing.Store(false)
		if counts := s.Bus.writeAll(ctx, all); len(counts) > 0 {
			slog.Info("the records follow the accounts file", "changes", counts)
		}
	}()
}

// refuse logs a reason not to follow the accounts file, once.
func (s *Scheduler) refuse(err error) {
	if err != nil && (s.refused == nil || s.refused.Error() != err.Error()) {
		slog.Error("the accounts file is not followed", "error", err)
	}
	s.refused = err
}

// writeAll writes records, 64 at a time, and counts those that were written, by kind. The others are left for the next
// time: NATS is away, or somebody else has changed the record in the meantime.
func (b *Bus) writeAll(ctx context.Context, all []write) map[string]int {
	counts := make(map[string]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	todo := make(chan write)
	for range min(64, len(all)) {
		wg.Go(func() {
			for w := range todo {
				err := b.write(ctx, w)
				mu.Lock()
				if err == nil {
					counts[w.kind]++
				} else if ctx.Err() == nil && !isConflict(err) {
					slog.Warn("a record could not be changed; trying again", "key", w.key, "kind", w.kind, "error", err)
				}
				mu.Unlock()
			}
		})
	}
	for _, w := range all {
		todo <- w
	}
	close(todo)
	wg.Wait()
	return counts
}

func (b *Bus) write(ctx context.Context, w write) (err error) {
	ctx, cancel := context.WithTimeout(ctx, oneTry)
	defer cancel()
	switch {
	case w.kind == "purged":
		// The record goes last, so that a purge that was interrupted is done again.
		var seen jetstream.Stream
		seen, err = b.js.Stream(ctx, "KV_seen")
		if err == nil {
			err = seen.Purge(ctx, jetstream.WithPurgeSubject("$KV.seen."+w.key+".*"))
		}
		if err == nil {
			err = b.records.Purge(ctx, w.key, jetstream.LastRevision(w.over), jetstream.PurgeTTL(time.Hour))
		}
	case w.over == 0: // Create also replaces the marker of a deleted record
		_, err = b.records.Create(ctx, w.key, w.record.value())
	default:
		_, err = b.records.Update(ctx, w.key, w.record.value(), w.over)
	}
	if err != nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	return err
}
