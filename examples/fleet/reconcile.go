package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
)

// reconcile makes the records follow the accounts file, in the background, when the file has changed and every five
// seconds.
func (s *Scheduler) reconcile(ctx context.Context) {
	inFile, changed, err := s.accounts.All()
	if err != nil || !s.leads() {
		s.setRefusal(err)
		return
	}
	if !changed && time.Since(s.reconciled) < 5*time.Second || !s.writing.CompareAndSwap(false, true) {
		return
	}
	s.reconciled = time.Now()
	all, drop := s.changes(inFile, s.bus.clock.now())
	err = tooMany(drop, len(s.planner.entries))
	if s.setRefusal(err); err != nil {
		all = slices.DeleteFunc(all, func(w write) bool { return !w.record.Removed.IsZero() })
	}
	go func() {
		defer s.writing.Store(false)
		if n := s.bus.writeAll(ctx, all); n > 0 {
			slog.Info("the records follow the accounts file", "changed", n)
		}
	}()
}

// setRefusal logs why the accounts file is not followed. It logs each reason once.
func (s *Scheduler) setRefusal(err error) {
	if err != nil && (s.refusal == nil || s.refusal.Error() != err.Error()) {
		slog.Error("the accounts file is not followed", "error", err)
	}
	s.refusal = err
}

// tooMany refuses to remove more than a tenth of the accounts, if that is more than ten. An accounts file that was cut
// is more likely than the removal of so many accounts.
func tooMany(drop, all int) error {
	if drop > 10 && drop*10 > all || drop > 0 && drop == all {
		return fmt.Errorf("the accounts file lacks %d of %d accounts; "+
			"if that is right, run fleet remove --missing-in FILE", drop, all)
	}
	return nil
}

// changes returns the writes that make the records agree with the accounts, and the number of removals among them.
func (s *Scheduler) changes(inFile map[string]accounts.Account, now time.Time) (all []write, drop int) {
	for key, a := range inFile {
		e := cmp.Or(s.planner.entries[key], new(entry))
		switch r := e.record; {
		case r.Account == "": // there is none, or it is damaged
			all = append(all, write{key, s.Policy.New(a, now, rand.Float64()), e.revision})
		case !r.Removed.IsZero() || r.Fingerprint != a.Fingerprint:
			// Otherwise an earlier version wrote the record.
			if r.Fingerprint != "" || !r.Removed.IsZero() || r.Host != a.Host() {
				r = r.Again()
			}
			r.Host, r.Fingerprint, r.Removed = a.Host(), a.Fingerprint, time.Time{}
			all = append(all, write{key, r, e.revision})
		}
	}
	for key, e := range s.planner.entries {
		_, known := inFile[key]
		switch r := e.record; {
		case known:
		case r.Account == "" || !r.Removed.IsZero() && now.Sub(r.Removed) > s.KeepRemoved:
			if s.planner.holders[key] == 0 {
				all = append(all, write{key, Record{}, e.revision})
			}
		case r.Removed.IsZero():
			r.Removed = now
			all = append(all, write{key, r, e.revision})
			drop++
		}
	}
	return all, drop
}

// A write replaces one revision of a record. If record is empty, all data of the account is deleted.
type write struct {
	key      string
	record   Record
	revision uint64 // the revision to replace, or 0
}

// writeAll writes records, 64 at a time, and returns how many were written. Records that could not be written are left
// for the next time: NATS is away, or another process has changed them.
func (b *Bus) writeAll(ctx context.Context, all []write) int {
	var written atomic.Int64
	var group errgroup.Group
	group.SetLimit(64)
	for _, w := range all {
		group.Go(func() error {
			if err := b.write(ctx, w); err == nil {
				written.Add(1)
			} else if ctx.Err() == nil && !natsretry.IsConflict(err) {
				slog.Warn("a record could not be changed; trying again", "key", w.key, "error", err)
			}
			return nil
		})
	}
	group.Wait()
	return int(written.Load())
}

func (b *Bus) write(ctx context.Context, w write) (err error) {
	ctx, cancel := context.WithTimeout(ctx, natsretry.Timeout)
	defer cancel()
	switch {
	case w.record.Account == "":
		// The record is deleted last, so that an interrupted deletion is repeated.
		var seen jetstream.Stream
		if seen, err = b.js.Stream(ctx, "KV_seen"); err == nil {
			err = seen.Purge(ctx, jetstream.WithPurgeSubject("$KV.seen."+w.key+".*"))
		}
		if err == nil {
			err = b.records.Purge(ctx, w.key, jetstream.LastRevision(w.revision), jetstream.PurgeTTL(time.Hour))
		}
	case w.revision == 0: // Create also replaces the marker of a deleted record
		_, err = b.records.Create(ctx, w.key, w.record.value())
	default:
		_, err = b.records.Update(ctx, w.key, w.record.value(), w.revision)
	}
	return err
}
