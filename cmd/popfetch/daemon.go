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

// each calls do for all accounts at the same time, and waits until all calls have returned.
func (p *program) each(accounts []*account, do func(*account)) {
	var all sync.WaitGroup
	for _, a := range accounts {
		all.Go(func() { do(a) })
	}
	all.Wait()
}

// serve fetches from all accounts repeatedly, until it is stopped. At SIGHUP it reads the configuration again. If the
// new one has mistakes, it keeps the old one.
func (p *program) serve(accounts []*account) {
	p.show.note(fmt.Sprintf("%s: started with %s", version(), counted(len(accounts), "account")))
	for accounts != nil {
		stop, end := context.WithCancel(p.stop)
		ended := make(chan struct{})
		go func(accounts []*account) {
			p.each(accounts, func(a *account) { p.attend(stop, a) })
			close(ended)
		}(accounts)
		next := p.untilReload(accounts)
		end()
		<-ended
		accounts = nil
		if next != nil {
			accounts, p.slots = next.all, next.slots
		}
	}
}

// untilReload returns a new configuration, or nil if popfetch must stop.
func (p *program) untilReload(accounts []*account) *loaded {
	for {
		select {
		case <-p.stop.Done():
			return nil
		case <-p.now:
			for _, a := range accounts {
				select {
				case a.wake <- struct{}{}:
				default: // it was woken before
				}
			}
		case <-p.reload:
			next, err := p.load()
			if err == nil {
				takeOver(next.all, accounts)
				err = p.askPasswords(next.all)
			}
			if err == nil {
				p.show.note("configuration read again: " + counted(len(next.all), "account"))
				return next
			}
			p.show.warn("the new configuration has mistakes, so the old one stays in use: " +
				strings.Join(sentences(err), "; "))
		}
	}
}

// takeOver copies the passwords that were typed to the accounts of a new configuration.
func takeOver(accounts, old []*account) {
	for _, a := range accounts {
		for _, o := range old {
			if a.key() == o.key() && a.PasswordPrompt && o.PasswordPrompt {
				a.latest = o.latest
			}
		}
	}
}

// attend fetches from an account at its interval, and when it is woken.
func (p *program) attend(stop context.Context, a *account) {
	s := schedule{every: a.Interval.Duration, random: rand.Float64}
	for stop.Err() == nil {
		report := p.visit(stop, a) // it may take long
		if stop.Err() != nil {
			return
		}
		next := s.next(time.Now(), report)
		p.show.wait(a, next)
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-a.wake:
		case <-stop.Done():
		}
		timer.Stop()
	}
}

// slotTime is how long a running account delays the others.
const slotTime = 2 * time.Minute

// visit waits for a free slot, and fetches from an account.
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

// Reasons why a run ended early.
var (
	errStopped    = errors.New("stopped by a signal; the next run goes on")
	errRunTimeout = errors.New("the run took longer than run_timeout allows; the next one goes on")
)

// fetch fetches from an account. When stop is done, or the run has taken too long, it ends after the current message,
// or in the middle of that message if it takes too long.
func (p *program) fetch(stop context.Context, a *account) fetch.Report {
	stop, cancelStop := context.WithTimeoutCause(stop, a.RunTimeout.Duration, errRunTimeout)
	defer cancelStop()
	cut, cancelCut := context.WithTimeoutCause(p.cut, a.RunTimeout.Duration+grace, errRunTimeout)
	defer cancelCut()
	var report fetch.Report
	p.show.begin(a)
	if !p.dryRun {
		report.Aborted = a.create(stop)
	}
	if report.Err = report.Aborted; report.Err == nil {
		p.run(stop, cut, a, &report)
	}
	switch {
	case stop.Err() == nil:
	case context.Cause(stop) == errRunTimeout:
		report.Err = errRunTimeout
	default:
		report.Err = errStopped
	}
	a.failed = report.Err != nil
	p.show.end(a, report)
	return report
}

// maxTold is the number of failed messages that are shown of one run. If a disk is full, all of them fail for the same
// reason.
const maxTold = 20

// run is a run of the engine, and what is shown of it.
func (p *program) run(stop, cut context.Context, a *account, report *fetch.Report) {
	f := a.fetcher()
	f.DryRun = p.dryRun
	subjects := make(map[fetch.Item]string)
	if len(a.Filters) > 0 || p.dryRun {
		f.Select = a.Filters.selector(subjects)
	}
	f.Connect = func(ctx context.Context) (*pop3.Client, error) {
		if report.Sessions == 0 { // a later session may be the one that deletes messages
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(stop, cancel)()
		}
		return a.connect(ctx, p.log.With("account", a.Name))
	}
	f.Progress = func(progress fetch.Progress) { p.show.progress(a, progress) }
	told := 0
	for res, err := range f.Results(cut, report) {
		if err == nil && res.Err != nil {
			told++
		}
		if err == nil && (told <= maxTold || res.Err == nil || p.json) {
			p.show.message(a, res, subjects[res.Item])
		}
		if stop.Err() != nil {
			break
		}
	}
}

// fetcher returns the Fetcher of an account, without Connect.
func (a *account) fetcher() *fetch.Fetcher {
	return &fetch.Fetcher{
		Sink: a.sink, Seen: a.seen, Account: a.key(),
		Delete: a.Delete.delete, KeepFor: a.Delete.after, CommitEvery: a.CommitEvery, AcceptShort: a.AcceptShort,
		MaxSize: int64(a.MaxSize), MaxMessages: a.MaxMessages, MaxOctets: int64(a.MaxOctets),
		NewestFirst: a.NewestFirst,
	}
}

// A schedule says when an account is fetched from.
type schedule struct {
	every    time.Duration
	failures int
	random   func() float64 // from 0 up to 1
}

// The longest pauses after several failures.
const (
	maxRefused  = time.Hour     // the server has refused something for a while
	maxPassword = 4 * time.Hour // it has refused the password; servers lock accounts that try again and again
)

// next returns the time of the next run, after one that has just ended. It is not earlier than the server allows.
func (s *schedule) next(now time.Time, r fetch.Report) time.Time {
	at := now.Add(s.pause(r))
	if r.TryAgain.After(at) {
		return r.TryAgain
	}
	return at
}

// pause returns how long to wait after a run. A problem with single messages does not delay the others, and a network
// that is down may be up again soon. If the server refuses something, the pause is doubled with each failure, and a
// random part is added, so that many clients do not return at the same time. If the password may be wrong, it is tried
// only a few times a day. Dovecot and Cyrus reply [AUTH] to a wrong password and also to an account without keys for
// SCRAM; other servers send no code at all.
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

// runHooks runs after_new after a run with new messages, and on_failure after a number of failures in a row. Failures
// are counted in a file, because each run may be another process.
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
	text, _ := os.ReadFile(file) // without the file there were no failures
	failures, _ := strconv.Atoi(string(text))
	failures++
	if err := os.WriteFile(file, []byte(strconv.Itoa(failures)), 0o600); err != nil {
		p.show.warn(fmt.Sprintf("%s: on_failure: failures are not counted: %v", a.Name, err))
	}
	if failures == max(1, a.OnFailureAfter) {
		p.runHook(a, "on_failure", a.OnFailure, fmt.Sprintf("POPFETCH_FAILURES=%d", failures),
			"POPFETCH_ERROR="+strings.Join(sentences(r.Err), "; "))
	}
}

// runHook runs a command of the settings.
func (p *program) runHook(a *account, key string, argv list, env ...string) {
	if len(argv) == 0 {
		return
	}
	ctx, cancel := context.WithTimeoutCause(p.cut, a.CommandTimeout.Duration, fmt.Errorf(
		"it did not end within %v (command_timeout)", a.CommandTimeout))
	defer cancel()
	if _, err := runCommand(ctx, argv, append(slices.Clip(a.env), env...), nil, nil); err != nil {
		p.show.warn(fmt.Sprintf("%s: %s %v", a.Name, key, err))
	}
}
