package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// bars is a display for a terminal, with a progress bar for each account. If there are more accounts than rows, an
// account has a bar only during its run. After the run, a line about the account stays above the bars.
type bars struct {
	container *mpb.Progress
	out       io.Writer
	width     int  // width of the longest account name
	crowded   bool // there are more accounts than rows

	mu    sync.Mutex
	all   map[*account]*bar
	atEnd []string // lines to be written below the bars at the end
}

// A bar is the line of one account.
type bar struct {
	*mpb.Bar
	mu     sync.Mutex
	state  string // "waiting", then "connecting", then "" while messages arrive, and then the summary
	mark   string // a sign before the summary for done, stopped or failed
	latest fetch.Progress
	start  time.Time
}

const refreshRate = 100 * time.Millisecond

func newBars(out *os.File, accounts []*account) *bars {
	b := &bars{out: out, all: make(map[*account]*bar)}
	b.container = mpb.New(mpb.WithOutput(out), mpb.WithWidth(24), mpb.WithRefreshRate(refreshRate))
	for _, a := range accounts {
		b.width = max(b.width, utf8.RuneCountInString(a.Name))
	}
	_, height, err := term.GetSize(int(out.Fd()))
	b.crowded = err == nil && len(accounts) > height-2
	for _, a := range accounts {
		if !b.crowded {
			b.all[a] = b.add(a)
		}
	}
	return b
}

// add adds a bar below the others.
func (b *bars) add(a *account) *bar {
	line := &bar{state: "waiting"}
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("╸").Padding("─").
		FillerMeta(cyan).TipMeta(cyan).PaddingMeta(gray)
	options := []mpb.BarOption{
		mpb.BarFillerMiddleware(line.filler),
		mpb.PrependDecorators(decor.Name(b.name(a))),
		mpb.AppendDecorators(decor.Any(line.numbers)),
	}
	if b.crowded {
		options = append(options, mpb.BarRemoveOnComplete())
	}
	line.Bar = b.container.New(0, style, options...)
	return line
}

func (b *bars) name(a *account) string { return fmt.Sprintf("%-*s  ", b.width, a.Name) }

func cyan(s string) string { return "\x1b[36m" + s + "\x1b[0m" }
func gray(s string) string { return "\x1b[90m" + s + "\x1b[0m" }

// filler returns a filler that draws the bar while messages arrive. Before and after that it draws the state.
func (l *bar) filler(drawn mpb.BarFiller) mpb.BarFiller {
	return mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		l.mu.Lock()
		state, mark := l.state, l.mark
		l.mu.Unlock()
		if state == "" {
			return drawn.Fill(w, s)
		}
		_, err := io.WriteString(w, mark+clip(state, s.AvailableWidth-2))
		return err
	})
}

// clip shortens a text to a width.
func clip(text string, width int) string {
	if r := []rune(text); len(r) > width && width > 0 {
		return string(r[:width-1]) + "…"
	}
	return text
}

// numbers returns the counts and the speed to the right of the bar.
func (l *bar) numbers(decor.Statistics) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != "" {
		return ""
	}
	text := fmt.Sprintf("  %d/%d  %s of %s", l.latest.Messages, l.latest.AllMessages, formatSize(l.latest.Octets),
		formatSize(max(l.latest.AllOctets, l.latest.Octets)))
	if elapsed := time.Since(l.start); elapsed > time.Second {
		text += fmt.Sprintf("  %s/s", formatSize(int64(float64(l.latest.Octets)/elapsed.Seconds())))
	}
	return text
}

// set changes the mark and the state.
func (l *bar) set(mark, state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark, l.state = mark, state
}

func (b *bars) begin(a *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all[a] == nil {
		b.all[a] = b.add(a)
	}
	b.all[a].set("", "connecting")
}

func (b *bars) bar(a *account) *bar {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all[a]
}

func (b *bars) progress(a *account, p fetch.Progress) {
	l := b.bar(a)
	l.mu.Lock()
	if l.state != "" {
		l.state, l.start = "", time.Now()
	}
	l.latest = p
	l.mu.Unlock()
	// The total is one more than the octets, so that the bar is only complete at the end of the run.
	l.SetTotal(max(p.AllOctets, p.Octets)+1, false)
	l.SetCurrent(p.Octets)
}

func (b *bars) message(a *account, r fetch.Result, about string) {
	if r.Err != nil && !errors.Is(r.Err, fetch.ErrLimit) {
		b.writeAtEnd(a.Name + ": " + messageFailure(r, about))
	}
}

func (b *bars) end(a *account, r fetch.Report) {
	mark, text := "\x1b[32m✓\x1b[0m ", summary(r)
	switch {
	case r.Err == errStopped:
		mark = "\x1b[33m■\x1b[0m "
	case r.Err != nil:
		mark = "\x1b[31m✗\x1b[0m "
	}
	why := reasons(r)
	if r.Err != nil && r.Sessions == 0 && len(why) > 0 {
		text = why[0]
	}
	for _, reason := range why {
		b.writeAtEnd(a.Name + ": " + reason)
	}
	if b.crowded {
		fmt.Fprintln(b.container, b.name(a)+mark+text)
	}
	l := b.bar(a)
	l.set(mark, text)
	l.SetTotal(-1, true)
}

func (b *bars) wait(*account, time.Time) {}

func (b *bars) note(text string) { fmt.Fprintln(b.container, text) }
func (b *bars) warn(text string) { b.writeAtEnd(text) }

// writeAtEnd adds a line to be written below the bars at the end.
func (b *bars) writeAtEnd(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.atEnd = append(b.atEnd, text)
}

// close leaves the last state of the bars on the screen, and writes the errors below them.
func (b *bars) close() error {
	for _, l := range b.all {
		if !l.AbortedOrCompleted() {
			l.set("", "not done")
			l.Abort(false)
		}
	}
	b.container.Wait()
	for _, text := range b.atEnd {
		fmt.Fprintln(b.out, text)
	}
	return nil // a failed write to a terminal is not reported, because its user can see it
}
