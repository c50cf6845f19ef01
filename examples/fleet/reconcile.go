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
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsmail"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsretry"
)

// reconcile makes the records agree with the accounts file if the file has changed, and every five seconds. It writes
// them in the background.
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
	writes, removals := s.changes(inFile, s.bus.clock.now())
	err = checkRemovals(removals, len(s.planner.entries))
	if s.setRefusal(err); err != nil {
		writes = slices.DeleteFunc(writes, func(w write) bool { return !w.record.Removed.IsZero() })
	}
	go func() {
		defer s.writing.Store(false)
		if n := s.bus.writeAll(ctx, writes); n > 0 {
			slog.Info("records were changed to agree with the accounts file", "changed", n)
		}
	}()
}

// setRefusal sets the reason why the accounts file is not followed, or nil. It logs a new reason.
func (s *Scheduler) setRefusal(err error) {
	if err != nil && (s.refusal == nil || s.refusal.Error() != err.Error()) {
		slog.Error("the accounts file is not followed", "error", err)
	}
	s.refusal = err
}

// checkRemovals refuses to remove all accounts, or more than ten accounts and more than a tenth. The accounts file was
// probably truncated by mistake.
func checkRemovals(removals, accounts int) error {
	if removals > 10 && removals*10 > accounts || removals > 0 && removals == accounts {
		return fmt.Errorf("the accounts file lacks %d of %d accounts; "+
			"if that is right, run fleet remove --missing-in FILE", removals, accounts)
	}
	return nil
}

// changes returns the writes that make the records agree with the accounts file, and the number of removals among them.
func (s *Scheduler) changes(inFile map[string]accounts.Account, now time.Time) (writes []write, removals int) {
	for key, a := range inFile {
		e := cmp.Or(s.planner.entries[key], new(entry))
		switch r := e.record; {
		case r.Account == "": // there is no record, or it is damaged
			writes = append(writes, write{key, s.Policy.New(a, now, rand.Float64()), e.revision})
		case !r.Removed.IsZero() || r.Fingerprint != a.Fingerprint:
			if r.Fingerprint != "" || !r.Removed.IsZero() { // records of an earlier version have no fingerprint
				r = r.Again()
			}
			r.Host, r.Fingerprint, r.Removed = a.Host(), a.Fingerprint, time.Time{}
			writes = append(writes, write{key, r, e.revision})
		}
	}
	for key, e := range s.planner.entries {
		_, isInFile := inFile[key]
		switch r := e.record; {
		case isInFile:
		case r.Account == "" || !r.Removed.IsZero() && now.Sub(r.Removed) > s.KeepRemoved:
			if s.planner.holders[key] == 0 {
				writes = append(writes, write{key, Record{}, e.revision})
			}
		case r.Removed.IsZero():
			r.Removed = now
			writes = append(writes, write{key, r, e.revision})
			removals++
		}
	}
	return writes, removals
}

// A write replaces one revision of a record. If record is empty, the record and the history of the account are deleted.
type write struct {
	key      string
	record   Record
	revision uint64 // the revision to replace; 0 if there is no record
}

// writeAll writes records, 64 at a time, and returns how many were written. A record is not written if NATS is not
// available, or if another process has changed the record. The next reconcile tries again.
func (b *Bus) writeAll(ctx context.Context, writes []write) int {
	var written atomic.Int64
	var group errgroup.Group
	group.SetLimit(64)
	for _, w := range writes {
		group.Go(func() error {
			if err := b.write(ctx, w); err == nil {
				written.Add(1)
			} else if ctx.Err() == nil && !natsretry.IsConflict(err) {
				slog.Warn("cannot change a record; trying again", "key", w.key, "error", err)
			}
			return nil
		})
	}
	group.Wait()
	return int(written.Load())
}

// write writes one record. It fails with a conflict if the record has another revision.
func (b *Bus) write(ctx context.Context, w write) (err error) {
	ctx, cancel := context.WithTimeout(ctx, natsretry.Timeout)
	defer cancel()
	switch {
	case w.record.Account == "":
		// The record is deleted after the history, so that an interrupted deletion is repeated.
		if err = natsmail.Purge(ctx, b.js, b.seen, w.key); err == nil {
			err = b.records.Purge(ctx, w.key, jetstream.LastRevision(w.revision), jetstream.PurgeTTL(time.Hour))
		}
	case w.revision == 0: // Create also replaces the delete marker of an earlier record
		_, err = b.records.Create(ctx, w.key, w.record.value())
	default:
		_, err = b.records.Update(ctx, w.key, w.record.value(), w.revision)
	}
	return err
}
