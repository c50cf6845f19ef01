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

// A change is what has to happen to a record so that it agrees with the accounts file.
type change struct {
	key     string
	kind    changeKind
	account Account
}

type changeKind string

const (
	added   changeKind = "added"
	changed changeKind = "changed" // server or credentials: the account gets a new chance
	removed changeKind = "removed" // marked as removed, and no longer polled
	purged  changeKind = "purged"  // removed for so long that its data goes
)

// changes compares the records with the accounts.
func changes(records map[string]*entry, accounts map[string]Account, now time.Time, keep time.Duration) (all []change,
	drop int) {
	for key, a := range accounts {
		e := records[key]
		switch {
		case e == nil:
			all = append(all, change{key, added, a})
		case !e.record.Removed.IsZero() || e.record.Fingerprint != a.print:
			all = append(all, change{key, changed, a})
		}
	}
	for key, e := range records {
		if _, ok := accounts[key]; ok {
			continue
		}
		switch since := e.record.Removed; {
		case since.IsZero():
			all = append(all, change{key, removed, Account{}})
			drop++
		case now.Sub(since) > keep:
			all = append(all, change{key, purged, Account{}})
		}
	}
	return all, drop
}

// tooMany refuses to remove more than a tenth of the accounts, and more than ten: an accounts file that was cut is more
// likely than so many accounts that are given up at once.
func tooMany(drop, all int) error {
	if drop > 10 && drop*10 > all || drop > 0 && drop == all {
		return fmt.Errorf("the accounts file lacks %d of %d accounts; if that is right, run fleet reconcile -force",
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
	if s.unreadable {
		return
	}
	now := s.clock.now()
	all, drop := changes(s.planner.entries, s.Accounts.accounts(), now, s.Keep)
	refusal := tooMany(drop, len(s.planner.entries))
	if s.refuse(refusal); refusal != nil {
		all = slices.DeleteFunc(all, func(c change) bool { return c.kind == removed })
	}
	if len(all) == 0 || !s.reconciling.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer s.reconciling.Store(false)
		counts := eachChange(ctx, all, func(ctx context.Context, c change) error { return s.change(ctx, c, now) })
		if len(counts) > 0 {
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

// errDone means that a record is already as it should be.
var errDone = errors.New("nothing to do")

// eachChange carries out changes, 64 at a time, and counts those that were done. The others are left for the next time.
func eachChange(ctx context.Context, all []change, do func(context.Context, change) error) map[changeKind]int {
	counts := make(map[changeKind]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	todo := make(chan change)
	for range min(64, len(all)) {
		wg.Go(func() {
			for c := range todo {
				err := do(ctx, c)
				mu.Lock()
				switch {
				case err == nil:
					counts[c.kind]++
				case ctx.Err() == nil && !errors.Is(err, errDone) && !errors.Is(err, errHeld) &&
					!errors.Is(err, jetstream.ErrKeyRevisionMismatch) && !errors.Is(err, jetstream.ErrKeyExists):
					slog.Warn("a record could not be changed; trying again", "key", c.key, "kind", c.kind, "error", err)
				}
				mu.Unlock()
			}
		})
	}
	for _, c := range all {
		todo <- c
	}
	close(todo)
	wg.Wait()
	return counts
}

// change carries out one change. A record that somebody else has changed in the meantime is left for the next time.
func (s *Scheduler) change(ctx context.Context, c change, now time.Time) error {
	if c.kind == purged {
		return s.Bus.purge(ctx, c.key, s.Owner)
	}
	var r Record
	var revision uint64
	kve, err := getKey(ctx, s.Bus.records, c.key)
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return err
	}
	if err == nil {
		r, _ = recordOf(kve) // a damaged one is written again
		revision = kve.Revision()
	}
	switch {
	case c.kind == added && r.Account != "", c.kind == removed && !r.Removed.IsZero(),
		c.kind == changed && r.Fingerprint == c.account.print && r.Removed.IsZero():
		return errDone // the planner has not seen it yet
	case c.kind == removed:
		r.Removed = now
	case r.Account == "":
		r = s.Policy.First(Record{}, now, rand.Float64())
	case r.Fingerprint == "" && r.Removed.IsZero() && r.Host == c.account.Host(): // from an earlier version
	default:
		r = s.Policy.Again(r, now)
	}
	if c.kind != removed {
		r.Account, r.Host, r.Fingerprint, r.Removed = c.account.Name, c.account.Host(), c.account.print, time.Time{}
	}
	if revision == 0 { // Create also replaces the marker of a deleted record
		return insist(ctx, func(ctx context.Context) error {
			_, err := s.Bus.records.Create(ctx, c.key, r.value())
			return err
		})
	}
	_, err = updateKey(ctx, s.Bus.records, c.key, r.value(), revision)
	return err
}

// markerTTL is how long a bucket tells others that a record was deleted.
var markerTTL = jetstream.PurgeTTL(time.Hour)

// purge deletes all data of an account. It takes the lease, so that no worker is writing at the same time. The record
// goes last, so that a purge that was interrupted is done again.
func (b *Bus) purge(ctx context.Context, key, owner string) error {
	held, err := b.leases.take(ctx, ctx, key, owner, func() {})
	if err != nil {
		return err
	}
	defer held.release()
	err = insist(held.ctx, func(ctx context.Context) error {
		return b.seenStream.Purge(ctx, jetstream.WithPurgeSubject("$KV.seen."+key+".*"))
	})
	if err != nil {
		return err
	}
	return insist(held.ctx, func(ctx context.Context) error { return b.records.Purge(ctx, key, markerTTL) })
}
