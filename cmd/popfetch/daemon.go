package main

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// once sees to each account once, to several at a time.
func (p *program) once(accounts []*account) {
	p.each(accounts, func(a *account) { p.visit(a) })
}

// serve sees to each account again and again, until stop is done.
func (p *program) serve(accounts []*account) {
	p.each(accounts, func(a *account) {
		s := schedule{every: cmp.Or(a.Interval.Duration, defaultInterval), random: rand.Float64}
		for p.stop.Err() == nil {
			report := p.visit(a) // which may take long
			next := s.next(time.Now(), report)
			if p.stop.Err() == nil {
				p.show.wait(a, next)
				sleepUntil(p.stop, next)
			}
		}
	})
}

// each calls do for all accounts at the same time, and waits.
func (p *program) each(accounts []*account, do func(*account)) {
	var all sync.WaitGroup
	for _, a := range accounts {
		all.Go(func() { do(a) })
	}
	all.Wait()
}

// visit sees to an account when its turn has come.
func (p *program) visit(a *account) fetch.Report {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-p.stop.Done():
	}
	if p.stop.Err() != nil {
		return fetch.Report{Err: errStopped}
	}
	log := p.log.With("account", a.Name)
	report := a.fetch(p.stop, p.cut, p.dryRun, p.show, log)
	if err := report.Err; err != nil && !errors.Is(err, errStopped) && !p.show.explains() {
		log.Error("trouble; what was not stored stays on the server", "err", oneLine(err))
	}
	return report
}

// oneLine puts joined errors on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// sleepUntil returns at a time, or when ctx is done.
func sleepUntil(ctx context.Context, at time.Time) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// A schedule is when an account is seen to. After each failure in a row the time doubles, up to maxBackoff, and is
// spread by chance, so that many clients do not come back at the same moment to a server that was down.
type schedule struct {
	every    time.Duration
	failures int
	random   func() float64 // from 0 up to 1
}

const maxBackoff = 4 * time.Hour

// next gives the time for the next run, after one that has just ended. It is not before the server allows it.
func (s *schedule) next(now time.Time, r fetch.Report) time.Time {
	at := now.Add(s.pause(r.Err))
	if r.TryAgain.After(at) {
		return r.TryAgain
	}
	return at
}

// pause is how long to wait after a run that ended in err.
func (s *schedule) pause(err error) time.Duration {
	if err == nil {
		s.failures = 0
		return s.every
	}
	s.failures++
	longest := max(s.every, maxBackoff)
	pause := longest
	if s.failures < 16 && !wrongPassword(err) {
		pause = min(longest, s.every<<s.failures)
	}
	return max(s.every, pause/2+time.Duration(s.random()*float64(pause/2)))
}

// wrongPassword tells a password that was refused for sure. Servers lock an account that tries one again and again.
func wrongPassword(err error) bool {
	refusal, ok := errors.AsType[*pop3.Error](err)
	if !ok {
		return false
	}
	rejects, certain := refusal.RejectsCredentials()
	return rejects && certain
}
