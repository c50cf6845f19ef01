package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
)

// each calls do for all accounts concurrently. It returns after all calls have returned.
func (p *program) each(accounts []*account, do func(*account)) {
	var group sync.WaitGroup
	for _, a := range accounts {
		group.Go(func() { do(a) })
	}
	group.Wait()
}

// serve fetches from all accounts again and again until popfetch must stop. When it receives SIGHUP, it reads the
// configuration again. If the new configuration has mistakes, the old one stays in use.
func (p *program) serve(accounts []*account) {
	p.display.note(fmt.Sprintf("%s: started with %s", version(), countOf(len(accounts), "account")))
	for accounts != nil {
		stop, end := context.WithCancel(p.stop)
		ended := make(chan struct{})
		go func(accounts []*account) {
			p.each(accounts, func(a *account) { p.fetchRepeatedly(stop, a) })
			close(ended)
		}(accounts)
		next := p.untilReload(accounts)
		end()
		<-ended
		accounts = nil
		if next != nil {
			accounts, p.slots = next.accounts, next.slots
		}
	}
}

// untilReload waits for SIGHUP and returns the new configuration. It returns nil if popfetch must stop.
func (p *program) untilReload(accounts []*account) *loadedConfig {
	for {
		select {
		case <-p.stop.Done():
			return nil
		case <-p.fetchNow:
			for _, a := range accounts {
				select {
				case a.wake <- struct{}{}:
				default: // an earlier SIGUSR1 is still waiting for this account
				}
			}
		case <-p.reload:
			next, err := p.load()
			if err == nil {
				copyTypedPasswords(next.accounts, accounts)
				err = p.askPasswords(next.accounts)
			}
			if err == nil {
				p.display.note("configuration read again: " + countOf(len(next.accounts), "account"))
				return next
			}
			p.display.warn("the new configuration cannot be used, so the old one stays in use: " +
				strings.Join(errorLines(err), "; "))
		}
	}
}

// copyTypedPasswords copies typed passwords to the same accounts of a new configuration, so that the user need not type
// them again.
func copyTypedPasswords(accounts, old []*account) {
	for _, a := range accounts {
		for _, o := range old {
			if a.key() == o.key() && a.PasswordPrompt && o.PasswordPrompt {
				a.latest = o.latest
			}
		}
	}
}

// fetchRepeatedly fetches from an account at its interval, and at once after SIGUSR1.
func (p *program) fetchRepeatedly(stop context.Context, a *account) {
	s := schedule{every: a.Interval.Duration, random: rand.Float64}
	for stop.Err() == nil {
		report := p.visit(stop, a)
		if stop.Err() != nil {
			return
		}
		next := s.next(time.Now(), report)
		p.display.wait(a, next)
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-a.wake:
		case <-stop.Done():
		}
		timer.Stop()
	}
}

// slotTime limits how long a run holds its slot. Afterwards the run continues, but another account may use the slot.
const slotTime = 2 * time.Minute

// visit waits for a slot, fetches from an account and runs its hooks.
func (p *program) visit(stop context.Context, a *account) fetch.Report {
	slots := p.slots
	select {
	case slots <- struct{}{}:
	case <-stop.Done():
	}
	if stop.Err() != nil {
		return fetch.Report{Err: errStopped}
	}
	release := sync.OnceFunc(func() { <-slots })
	defer release()
	defer time.AfterFunc(slotTime, release).Stop()
	report := p.fetch(stop, a)
	if !p.dryRun && !errors.Is(report.Err, errStopped) {
		p.runHooks(a, report)
	}
	return report
}

// These are the errors of a run that ended early.
var (
	errStopped    = errors.New("stopped by a signal; the next run continues")
	errRunTimeout = errors.New("the run took longer than run_timeout allows; the next run continues")
)

// fetch fetches from an account. It ends after the current message when stop is done, or when the run has lasted for
// run_timeout. It ends within the message when p.abort is done, or when grace has passed after run_timeout.
func (p *program) fetch(stop context.Context, a *account) fetch.Report {
	stop, cancelStop := context.WithTimeoutCause(stop, a.RunTimeout.Duration, errRunTimeout)
	defer cancelStop()
	abort, cancelAbort := context.WithTimeoutCause(p.abort, a.RunTimeout.Duration+grace, errRunTimeout)
	defer cancelAbort()
	var report fetch.Report
	p.display.begin(a)
	if !p.dryRun {
		report.Aborted = a.create(stop)
	}
	if report.Err = report.Aborted; report.Err == nil {
		p.run(stop, abort, a, &report)
	}
	switch {
	case stop.Err() == nil:
	case context.Cause(stop) == errRunTimeout:
		report.Err = errRunTimeout
	default:
		report.Err = errStopped
	}
	a.failed = report.Err != nil
	p.display.end(a, report)
	return report
}

// maxShown limits how many messages with an error a run shows. If a disk is full, for example, all messages have the
// same error.
const maxShown = 20

// run runs a Fetcher and shows its results.
func (p *program) run(stop, abort context.Context, a *account, report *fetch.Report) {
	f := a.fetcher()
	f.DryRun = p.dryRun
	if isNew, _ := a.isNew(); isNew && p.dryRun {
		f.Seen = new(fetch.MemorySeen) // a FileSeen would create its file
	}
	subjects := make(map[fetch.Item]string)
	if len(a.Filters) > 0 || p.dryRun {
		f.Select = a.Filters.selector(subjects)
	}
	f.Connect = func(ctx context.Context) (*pop3.Client, error) {
		// Before the first session, stop cancels the connection attempt. It must not cancel a later attempt, because
		// that session may have to delete stored messages.
		if report.Sessions == 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(stop, cancel)()
		}
		return a.connect(ctx, p.log.With("account", a.Name))
	}
	f.Progress = func(progress fetch.Progress) { p.display.progress(a, progress) }
	failed := 0
	for res, err := range f.Results(abort, report) {
		if err == nil && res.Err != nil {
			failed++
		}
		if err == nil && (failed <= maxShown || res.Err == nil || p.json) {
			p.display.message(a, res, subjects[res.Item])
		}
		if stop.Err() != nil {
			break
		}
	}
}

// fetcher returns a Fetcher without Connect.
func (a *account) fetcher() *fetch.Fetcher {
	return &fetch.Fetcher{
		Sink: a.sink, Seen: a.seen, Account: a.key(),
		Delete: a.Delete.delete, KeepFor: a.Delete.after, CommitEvery: a.CommitEvery, AcceptShort: a.AcceptShort,
		MaxSize: int64(a.MaxSize), MaxMessages: a.MaxMessages, MaxOctets: int64(a.MaxOctets),
		NewestFirst: a.NewestFirst,
	}
}

// A schedule says when to fetch from an account again.
type schedule struct {
	every    time.Duration
	failures int
	random   func() float64 // in [0, 1)
}

// These limits apply to the pause after several failures in a row.
const (
	maxRefused  = time.Hour     // if the server refuses something
	maxPassword = 4 * time.Hour // if the server refuses the password, because many attempts lock the account
)

// next returns the time of the next run after a run that has just ended. If the server allows the next login only
// later, next returns the time of that login.
func (s *schedule) next(now time.Time, r fetch.Report) time.Time {
	at := now.Add(s.pause(r))
	if r.TryAgain.After(at) {
		return r.TryAgain
	}
	return at
}

// pause returns how long to wait after a run. If the run succeeded, or if only single messages failed, the pause is the
// usual interval. After other failures the pause doubles with each failure in a row, up to a limit. After a network
// failure the first pause is 30 seconds, because the network may be up again soon. A random part is added to a pause
// after failures, so that many clients do not return at the same moment.
//
// If the server may have refused the password, there are only a few attempts a day. The password is not always wrong
// then. Dovecot and Cyrus also reply [AUTH] if an account has no keys for SCRAM, and other servers send no response
// code.
func (s *schedule) pause(r fetch.Report) time.Duration {
	if r.Err == nil || r.Aborted == nil || errors.Is(r.Err, errRunTimeout) {
		s.failures = 0
		return s.every
	}
	s.failures++
	first, longest := s.every, max(s.every, maxRefused)
	if _, refused := errors.AsType[*pop3.Error](r.Aborted); !refused {
		first, longest = min(30*time.Second, s.every), s.every
	} else if isRefusedLogin(r.Aborted) {
		longest = max(s.every, maxPassword)
		first = longest
	}
	pause := longest
	if s.failures < 16 {
		pause = min(longest, first<<(s.failures-1))
	}
	return pause + time.Duration(s.random()*float64(pause/4))
}

// runHooks runs after_new if the run has stored messages. It runs on_failure if the account has failed
// on_failure_after times in a row. The number of failures is kept in a file, because each run may be a process of its
// own.
func (p *program) runHooks(a *account, r fetch.Report) {
	if r.Delivered > 0 {
		p.runHook(a, "after_new", a.AfterNew, fmt.Sprintf("POPFETCH_NEW=%d", r.Delivered))
	}
	if len(a.OnFailure) == 0 {
		return
	}
	sum := sha256.Sum256([]byte(a.key()))
	file := filepath.Join(a.state, fmt.Sprintf("%x.failures", sum[:16]))
	if r.Err == nil {
		os.Remove(file)
		return
	}
	text, _ := os.ReadFile(file) // a missing file means 0 failures
	failures, _ := strconv.Atoi(string(text))
	failures++
	if err := os.WriteFile(file, []byte(strconv.Itoa(failures)), 0o600); err != nil {
		p.display.warn(fmt.Sprintf("%s: on_failure: cannot count failures: %v", a.Name, err))
	}
	if failures == max(1, a.OnFailureAfter) {
		p.runHook(a, "on_failure", a.OnFailure, fmt.Sprintf("POPFETCH_FAILURES=%d", failures),
			"POPFETCH_ERROR="+strings.Join(errorLines(r.Err), "; "))
	}
}

// runHook runs the command that the configuration sets for a key. If argv is empty, runHook does nothing.
func (p *program) runHook(a *account, key string, argv list, env ...string) {
	if len(argv) == 0 {
		return
	}
	ctx, cancel := context.WithTimeoutCause(p.abort, a.CommandTimeout.Duration, fmt.Errorf(
		"it took longer than %v (command_timeout)", a.CommandTimeout))
	defer cancel()
	if _, err := runCommand(ctx, argv, append(slices.Clip(a.env), env...), nil, nil); err != nil {
		p.display.warn(fmt.Sprintf("%s: %s %v", a.Name, key, err))
	}
}
