package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// bars is a display with a progress bar for each account, on a terminal.
type bars struct {
	nothing
	out       io.Writer
	container *mpb.Progress
	all       map[*account]*bar

	mu       sync.Mutex
	failures []string // to be told below the bars
	alone    bool     // the log goes to the terminal too
}

// A bar is the line of one account.
type bar struct {
	*mpb.Bar
	mu    sync.Mutex
	state string // "waiting", then "connecting", then "" while messages come, then the summary
	mark  string // in front of the summary
	now   fetch.Progress
	began time.Time
}

const refreshRate = 100 * time.Millisecond

func newBars(out *os.File, accounts []*account) *bars {
	b := &bars{out: out, all: make(map[*account]*bar)}
	b.container = mpb.New(mpb.WithOutput(out), mpb.WithWidth(24), mpb.WithRefreshRate(refreshRate))
	width := 0
	for _, a := range accounts {
		width = max(width, utf8.RuneCountInString(a.Name))
	}
	for _, a := range accounts {
		b.all[a] = b.add(a, width)
	}
	return b
}

// add puts a bar below the others.
func (b *bars) add(a *account, width int) *bar {
	line := &bar{state: "waiting"}
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("╸").Padding("─").
		FillerMeta(cyan).TipMeta(cyan).PaddingMeta(gray)
	line.Bar = b.container.New(0, style,
		mpb.BarFillerMiddleware(line.filler),
		mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-*s  ", width, a.Name))),
		mpb.AppendDecorators(decor.Any(line.numbers)),
	)
	return line
}

func cyan(s string) string { return "\x1b[36m" + s + "\x1b[0m" }
func gray(s string) string { return "\x1b[90m" + s + "\x1b[0m" }

// filler draws the bar while messages come, and words before and after that.
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

// numbers are what stands behind the bar.
func (l *bar) numbers(decor.Statistics) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != "" {
		return ""
	}
	text := fmt.Sprintf("  %d/%d  %s of %s", l.now.Messages, l.now.AllMessages, octets(l.now.Octets),
		octets(max(l.now.AllOctets, l.now.Octets)))
	if past := time.Since(l.began); past > time.Second {
		text += fmt.Sprintf("  %s/s", octets(int64(float64(l.now.Octets)/past.Seconds())))
	}
	return text
}

// set changes what is shown.
func (l *bar) set(mark, state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark, l.state = mark, state
}

func (b *bars) begin(a *account) { b.all[a].set("", "connecting") }

func (b *bars) progress(a *account, p fetch.Progress) {
	l := b.all[a]
	l.mu.Lock()
	if l.state != "" {
		l.state, l.began = "", time.Now()
	}
	l.now = p
	l.mu.Unlock()
	l.SetTotal(max(p.AllOctets, p.Octets)+1, false) // it is complete at the end of the run
	l.SetCurrent(p.Octets)
}

func (b *bars) end(a *account, r fetch.Report) {
	l := b.all[a]
	mark := "\x1b[32m✓\x1b[0m "
	if r.Err != nil {
		mark = "\x1b[31m✗\x1b[0m "
		b.mu.Lock()
		b.failures = append(b.failures, a.Name+": "+oneLine(r.Err))
		b.mu.Unlock()
	}
	text := summary(r)
	if r.Err != nil && r.Sessions == 0 {
		text = strings.TrimPrefix(r.Err.Error(), "fetch: ")
	}
	l.set(mark, text)
	l.SetTotal(-1, true)
}

// logWriter lets the log go above the bars, if it goes to a terminal too.
func (b *bars) logWriter(stderr io.Writer) io.Writer {
	if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.alone = true
		return &above{b.container, stderr}
	}
	return stderr
}

// explains spares the person at the terminal the form of a log.
func (b *bars) explains() bool { return b.alone }

// above writes above the bars, as long as there are any.
type above struct {
	bars *mpb.Progress
	then io.Writer
}

func (a *above) Write(p []byte) (int, error) {
	if n, err := a.bars.Write(p); err == nil {
		return n, nil
	}
	return a.then.Write(p)
}

// close leaves the last state on the screen, and below it what went wrong.
func (b *bars) close() {
	for _, l := range b.all {
		if !l.AbortedOrCompleted() {
			l.set("", "not done")
			l.Abort(false)
		}
	}
	b.container.Wait()
	if b.alone {
		for _, failure := range b.failures {
			fmt.Fprintln(b.out, failure)
		}
	}
}
