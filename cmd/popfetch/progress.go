package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// A display shows what happens. Its methods may be called by several accounts at once.
type display interface {
	begin(a *account)
	progress(a *account, p fetch.Progress)
	message(a *account, r fetch.Result, about string)
	end(a *account, r fetch.Report)
	wait(a *account, until time.Time)
	note(text string) // about popfetch itself
	warn(text string)
	close() error // the first error of writing to the standard output
}

// newDisplay chooses a display: events for machines, a log in a daemon, bars on a terminal, or else lines. It sets up
// the log as well, which shares the standard error with them.
func (p *program) newDisplay(accounts []*account) display {
	out, isFile := p.stdout.(*os.File)
	p.log = newLogger(p.stderr, p.options)
	switch {
	case p.json:
		return &events{out: output{w: p.stdout}}
	case p.daemon:
		return logged{log: p.log}
	case isFile && term.IsTerminal(int(out.Fd())) && !p.quiet && !p.dryRun:
		b := newBars(out, accounts)
		p.log = newLogger(b.logWriter(p.stderr), p.options)
		return b
	}
	return &lines{out: output{w: p.stdout}, err: p.stderr, options: p.options}
}

// newLogger logs what goes wrong; with --daemon also what is done, with --verbose everything. The journal of systemd
// adds the time itself.
func newLogger(w io.Writer, o *options) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.LevelWarn}
	switch {
	case o.verbose:
		opts.Level = slog.LevelDebug
	case o.daemon && !o.quiet:
		opts.Level = slog.LevelInfo
	}
	if os.Getenv("JOURNAL_STREAM") != "" {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		}
	}
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// An output keeps the first error of writing.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	if o.err == nil {
		_, o.err = o.w.Write(p)
	}
	return len(p), o.err
}

// lines is a display of plain lines: one for each account, and one for each message that was not fetched.
type lines struct {
	mu      sync.Mutex
	out     output
	err     io.Writer
	options *options
}

// print writes a line about an account, to the standard error if it is about trouble.
func (l *lines) print(trouble bool, a *account, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text := a.Name + ": " + fmt.Sprintf(format, args...) + "\n"; trouble {
		fmt.Fprint(l.err, "popfetch: ", text)
	} else if !l.options.quiet {
		fmt.Fprint(&l.out, text)
	}
}

func (l *lines) begin(*account)                    {}
func (l *lines) progress(*account, fetch.Progress) {}
func (l *lines) wait(*account, time.Time)          {}

func (l *lines) note(text string) { l.warn(text) }

func (l *lines) warn(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(l.err, "popfetch:", text)
}

func (l *lines) close() error { return l.out.err }

func (l *lines) message(a *account, r fetch.Result, about string) {
	switch {
	case r.Outcome == fetch.Pending:
		l.print(false, a, "would fetch %s", messageTitle(r, about))
	case r.Outcome == fetch.PendingDeletion:
		l.print(false, a, "would delete %s, which is stored", messageTitle(r, about))
	case r.Err != nil && !errors.Is(r.Err, fetch.ErrLimit):
		l.print(r.Outcome != fetch.Skipped, a, "%s", messageTrouble(r, about))
	}
}

func (l *lines) end(a *account, r fetch.Report) {
	if l.options.dryRun && r.Err == nil {
		fetched := slices.DeleteFunc(slices.Clone(r.Pending),
			func(r fetch.Result) bool { return r.Outcome != fetch.Pending })
		l.print(false, a, "would fetch %d and delete %d of %s, and leave %d out", len(fetched),
			len(r.Pending)-len(fetched), counted(r.Listed, "message"), len(r.Skipped))
	} else {
		l.print(false, a, "%s", summary(r))
	}
	for _, reason := range reasons(r) {
		l.print(true, a, "%s", reason)
	}
}

// logged is the display of a daemon: a line of the log for each run, and for each message that was not fetched.
type logged struct{ log *slog.Logger }

func (logged) begin(*account)                    {}
func (logged) progress(*account, fetch.Progress) {}
func (logged) close() error                      { return nil }

func (l logged) message(a *account, r fetch.Result, about string) {
	switch {
	case r.Err == nil || errors.Is(r.Err, fetch.ErrLimit):
	case r.Outcome == fetch.Skipped:
		l.log.Info(messageTrouble(r, about), "account", a.Name)
	default:
		l.log.Warn(messageTrouble(r, about), "account", a.Name)
	}
}

func (l logged) end(a *account, r fetch.Report) {
	l.log.Info(summary(r), "account", a.Name)
	if r.Err == errStopped {
		return // a note says so
	}
	for _, reason := range reasons(r) {
		l.log.Error(reason, "account", a.Name)
	}
}

func (l logged) wait(a *account, until time.Time) {
	l.log.Debug("waiting", "account", a.Name, "until", until.Format(time.DateTime))
}

func (l logged) note(text string) { l.log.Info(text) }
func (l logged) warn(text string) { l.log.Warn(text) }

// messageTitle names a message; about is its sender and subject, as far as they are known.
func messageTitle(r fetch.Result, about string) string {
	return fmt.Sprintf("message %d (%s)%s", r.Num, octets(r.Size), about)
}

// messageTrouble tells a person why a message was not fetched, or not deleted.
func messageTrouble(r fetch.Result, about string) string {
	return fmt.Sprintf("%s %s: %s", messageTitle(r, about), r.Outcome, strings.Join(sentences(r.Err), "; "))
}

// reasons are why a run did not do all that it should, but for the single messages, each of which was named.
func reasons(r fetch.Report) []string {
	switch {
	case r.Err == errStopped || r.Err == errRunTimeout:
		return []string{r.Err.Error()}
	case r.Aborted != nil || len(r.Problems) == 0:
		return sentences(r.Err)
	}
	return nil
}

// summary tells a person what a run did.
func summary(r fetch.Report) string {
	if r.Sessions == 0 && r.Err != nil {
		return "failed"
	}
	text := "nothing new"
	if r.Delivered > 0 {
		text = fmt.Sprintf("%d new, %s", r.Delivered, octets(r.Octets))
	}
	for _, part := range []struct {
		n    int
		what string
	}{
		{r.Deleted, "deleted"}, {r.Unconfirmed, "perhaps deleted"}, {len(r.Skipped), "skipped"},
		{r.Kept.Short + r.Kept.NotDeleted + r.Kept.Ambiguous, "not deleted"}, {len(r.Problems), "with trouble"},
	} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	switch {
	case r.Err == errStopped || r.Err == errRunTimeout:
		text += ", then stopped"
	case r.Aborted != nil:
		text += ", then failed"
	}
	return text
}

// octets returns a size for people.
func octets(n int64) string {
	switch {
	case n < 0:
		return "unknown size"
	case n < 1e3:
		return fmt.Sprintf("%d bytes", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
