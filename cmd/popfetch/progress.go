package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// A display shows what popfetch does. Its methods may be called concurrently.
type display interface {
	begin(a *account)
	progress(a *account, p fetch.Progress)
	message(a *account, r fetch.Result, about string)
	end(a *account, r fetch.Report)
	wait(a *account, until time.Time)
	note(text string) // shows information about popfetch itself
	warn(text string) // shows a problem of popfetch itself
	close() error     // returns the first error of a write to the standard output
}

// newDisplay returns events with --json. On a terminal it returns bars, except with --daemon, --quiet, --dry-run or
// --verbose. Otherwise it returns lines.
func (p *program) newDisplay(accounts []*account) display {
	out, isFile := p.stdout.(*os.File)
	switch {
	case p.json:
		return &events{out: output{w: p.stdout}}
	case isFile && term.IsTerminal(int(out.Fd())) && !p.daemon && !p.quiet && !p.dryRun && !p.verbose:
		return newBars(out, accounts)
	}
	return &lines{program: p, out: output{w: p.stdout}}
}

// newLogger returns a log of warnings. With --daemon it also logs information. With --verbose it logs everything. In
// systemd's journal the log has no times, because the journal adds them.
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
	return slog.New(slog.NewTextHandler(w, opts))
}

// An output keeps the first error of its writes.
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

// lines is a display that writes a line of text for each account, and for each message that was not fetched.
type lines struct {
	*program
	mu  sync.Mutex
	out output
}

// writeLine writes a line about an account. If a is nil, the line is about popfetch itself. A daemon writes the line to
// the log. A single run writes problems, and lines about popfetch itself, to the standard error. It writes other lines
// to the standard output.
func (l *lines) writeLine(level slog.Level, a *account, text string) {
	if l.daemon {
		log := l.log
		if a != nil {
			log = log.With("account", a.Name)
		}
		log.Log(context.Background(), level, text)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case a == nil:
		fmt.Fprintln(l.stderr, "popfetch:", text)
	case level > slog.LevelInfo:
		fmt.Fprintf(l.stderr, "popfetch: %s: %s\n", a.Name, text)
	case level == slog.LevelInfo && !l.quiet:
		fmt.Fprintf(&l.out, "%s: %s\n", a.Name, text)
	}
}

func (l *lines) begin(*account)                    {}
func (l *lines) progress(*account, fetch.Progress) {}
func (l *lines) note(text string)                  { l.writeLine(slog.LevelInfo, nil, text) }
func (l *lines) warn(text string)                  { l.writeLine(slog.LevelWarn, nil, text) }
func (l *lines) close() error                      { return l.out.err }

func (l *lines) wait(a *account, until time.Time) {
	l.writeLine(slog.LevelDebug, a, "waiting until "+until.Format(time.DateTime))
}

func (l *lines) message(a *account, r fetch.Result, about string) {
	switch {
	case r.Outcome == fetch.Pending:
		l.writeLine(slog.LevelInfo, a, "would fetch "+messageTitle(r, about))
	case r.Outcome == fetch.PendingDeletion:
		l.writeLine(slog.LevelInfo, a, "would delete "+messageTitle(r, about)+", which is stored")
	case r.Err == nil || errors.Is(r.Err, fetch.ErrLimit):
	case r.Outcome == fetch.Skipped:
		l.writeLine(slog.LevelInfo, a, messageFailure(r, about))
	default:
		l.writeLine(slog.LevelWarn, a, messageFailure(r, about))
	}
}

func (l *lines) end(a *account, r fetch.Report) {
	text := summary(r)
	if l.dryRun && r.Err == nil {
		toFetch := 0
		for _, pending := range r.Pending {
			if pending.Outcome == fetch.Pending {
				toFetch++
			}
		}
		text = fmt.Sprintf("would fetch %d and delete %d of %s, and leave %d out", toFetch, len(r.Pending)-toFetch,
			countOf(r.Listed, "message"), len(r.Skipped))
	}
	l.writeLine(slog.LevelInfo, a, text)
	if l.daemon && r.Err == errStopped {
		return // fetchAll has shown a note about the signal
	}
	for _, reason := range reasons(r) {
		l.writeLine(slog.LevelError, a, reason)
	}
}

// messageTitle returns a short description of a message. The parameter about is "", or the sender and the subject.
func messageTitle(r fetch.Result, about string) string {
	return fmt.Sprintf("message %d (%s)%s", r.Num, formatSize(r.Size), about)
}

// messageFailure returns why a message was not fetched or not deleted.
func messageFailure(r fetch.Result, about string) string {
	return fmt.Sprintf("%s %s: %s", messageTitle(r, about), r.Outcome, strings.Join(errorLines(r.Err), "; "))
}

// reasons returns why a run failed. It leaves out failures of single messages, because they were already shown.
func reasons(r fetch.Report) []string {
	switch {
	case r.Err == errStopped || r.Err == errRunTimeout:
		return []string{r.Err.Error()}
	case r.Aborted != nil || len(r.Problems) == 0:
		return errorLines(r.Err)
	}
	return nil
}

// summary returns a short text about what a run has done.
func summary(r fetch.Report) string {
	if r.Sessions == 0 && r.Err != nil {
		return "failed"
	}
	text := "nothing new"
	if r.Delivered > 0 {
		text = fmt.Sprintf("%d new, %s", r.Delivered, formatSize(r.Octets))
	}
	for _, part := range []struct {
		n     int
		label string
	}{
		{r.Deleted, "deleted"}, {r.Unconfirmed, "perhaps deleted"}, {len(r.Skipped), "skipped"},
		{r.Kept.Short + r.Kept.NotDeleted + r.Kept.Ambiguous, "not deleted"}, {len(r.Problems), "with trouble"},
	} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.label)
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

// formatSize formats a size.
func formatSize(n int64) string {
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

func countOf(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
