package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// A display prints a line for each message. On a terminal it also shows the progress of the current message, in a line
// that is overwritten.
type display struct {
	out      io.Writer
	terminal bool
	all      int // number of messages to fetch
	done     int // number of messages that have a line
	percent  int // progress of the current message that is shown
}

func newDisplay(out io.Writer) *display {
	f, ok := out.(*os.File)
	return &display{out: out, terminal: ok && isTerminal(f)}
}

// progress is called whenever some octets have arrived.
func (d *display) progress(p fetch.Progress) {
	percent := int(100 * p.Received / max(p.Item.Size, p.Received, 1))
	d.all = p.AllMessages
	if d.terminal && (p.Received == 0 || percent != d.percent) {
		fmt.Fprintf(d.out, "\r%s %3d%%", d.position(p.Item), percent)
	}
	d.percent = percent
}

// place returns the position of a message, as in "2/10", and its size.
func (d *display) position(item fetch.Item) string {
	all := fmt.Sprint(d.all)
	return fmt.Sprintf("%*d/%s %s", len(all)+2, d.done+1, all, formatSize(item.Size))
}

// result prints the outcome of a message.
func (d *display) result(r fetch.Result) {
	if r.Outcome == fetch.Deleted {
		return // report prints the number of deleted messages
	}
	line := d.position(r.Item)
	d.done++
	if r.Outcome != fetch.Delivered || r.Err != nil {
		line += fmt.Sprintf("  %v: %v", r.Outcome, r.Err)
	}
	if d.terminal {
		line = "\r" + line + strings.Repeat(" ", 5)
	}
	fmt.Fprintln(d.out, line)
}

// report prints the totals.
func (d *display) report(r fetch.Report, j *job) {
	if r.Sessions == 0 {
		return
	}
	fmt.Fprintf(d.out, "%s of %d on the server stored in %s\n", countMessages(r.Delivered), r.Listed, j.dir)
	switch {
	case r.Unconfirmed > 0:
		fmt.Fprintf(d.out, "%s may be deleted or not, because the server did not confirm it.\n",
			countMessages(r.Unconfirmed))
	case r.Deleted > 0:
		fmt.Fprintf(d.out, "%s deleted from the server.\n", countMessages(r.Deleted))
	default:
		fmt.Fprintln(d.out, "Nothing was deleted from the server.")
	}
	if !r.TryAgain.IsZero() {
		fmt.Fprintf(d.out, "The server allows no other login before %s.\n", r.TryAgain.Format("15:04:05"))
	}
}

func countMessages(n int) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}

// formatSize formats a number of octets.
func formatSize(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%4d octets", n)
	case n < 1000*1000:
		return fmt.Sprintf("%6.1f kB", float64(n)/1000)
	}
	return fmt.Sprintf("%6.1f MB", float64(n)/1000/1000)
}
