package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// A display shows what happens. Its methods may be called by several accounts at once.
type display interface {
	begin(a *account)
	progress(a *account, p fetch.Progress)
	message(a *account, r fetch.Result)
	end(a *account, r fetch.Report)
	wait(a *account, until time.Time)
	logWriter(stderr io.Writer) io.Writer // where the log goes meanwhile
	explains() bool                       // tells each error itself, so that there is no need to log it
	close()
}

// newDisplay chooses a display: events for machines, bars on a terminal, or else lines.
func (p *program) newDisplay(accounts []*account) display {
	f, ok := p.stdout.(*os.File)
	switch {
	case p.json:
		return newEvents(p.stdout)
	case ok && term.IsTerminal(int(f.Fd())) && !p.quiet && !p.daemon && !p.dryRun:
		return newBars(f, accounts)
	}
	return &lines{out: p.stdout, quiet: p.quiet, pending: make(map[*account]int)}
}

// nothing is a display that shows nothing.
type nothing struct{}

func (nothing) begin(*account)                       {}
func (nothing) progress(*account, fetch.Progress)    {}
func (nothing) message(*account, fetch.Result)       {}
func (nothing) wait(*account, time.Time)             {}
func (nothing) explains() bool                       { return false }
func (nothing) close()                               {}
func (nothing) logWriter(stderr io.Writer) io.Writer { return stderr }

// lines is a display of plain lines: one for each account, and one for each message of a dry run.
type lines struct {
	nothing
	mu      sync.Mutex
	out     io.Writer
	quiet   bool
	pending map[*account]int
}

// print writes a line. There is nobody to tell if it can't be written.
func (l *lines) print(a *account, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.out, "%s: %s\n", a.Name, fmt.Sprintf(format, args...))
}

func (l *lines) message(a *account, r fetch.Result) {
	if r.Outcome == fetch.Pending {
		l.print(a, "would %s message %d, %s, unique-id %q", a.pretence(), r.Num, octets(r.Size), r.UID)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.pending[a]++
	}
}

// pretence is what a dry run leaves undone. It does not tell which of the two it is for a single message.
func (a *account) pretence() string {
	if a.Delete.delete {
		return "fetch or delete"
	}
	return "fetch"
}

func (l *lines) end(a *account, r fetch.Report) {
	l.mu.Lock()
	pending := l.pending[a]
	l.mu.Unlock()
	switch {
	case l.quiet:
	case pending > 0:
		l.print(a, "would %s %d of %d messages", a.pretence(), pending, r.Listed)
	default:
		l.print(a, "%s", summary(r))
	}
}

func (l *lines) wait(a *account, until time.Time) {
	if !l.quiet {
		l.print(a, "again at %s", until.Format(time.DateTime))
	}
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
		{len(r.Problems), "with trouble"},
	} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	if r.Err != nil && len(r.Problems) == 0 {
		text += ", then failed"
	}
	return text
}

// octets gives a size for people.
func octets(n int64) string {
	switch {
	case n < 1e3:
		return fmt.Sprintf("%d octets", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
