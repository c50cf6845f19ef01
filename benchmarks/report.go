package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

// A report contains all results.
type report struct {
	sizes
	scenes   []scene
	results  map[cell][]clients.Result
	failures map[cell]error
	clients  []clients.About
	servers  []string
	acks     []ackRow
	notes    []string
	began    time.Time
}

// newReport also measures how busy the machine is before the run.
func newReport(z sizes) *report {
	r := &report{sizes: z, began: time.Now()}
	if load := machineLoad(); load != "" {
		r.note("The load of the machine before the run was %s (1, 5 and 15 minutes).", load)
	}
	return r
}

// note adds a remark on this run.
func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *report) describe(server, version string) {
	r.servers = append(r.servers, strings.TrimSpace(server+" "+version))
}

// english writes numbers with commas.
var english = message.NewPrinter(language.English)

// title says what a scene is about.
func (s *scene) title() string {
	from := s.server
	if s.overTLS {
		from += " over TLS"
	}
	switch s.work {
	case clients.Fetch:
		return english.Sprintf("Fetching %d messages of %d kB from %s", s.drop.count, s.drop.size/1000, from)
	case clients.Large:
		return english.Sprintf("One message of %d MB from %s", s.drop.size/1_000_000, from)
	case clients.Uidl:
		return english.Sprintf("The unique-ids of %d messages from %s", s.drop.count, from)
	case clients.Dele:
		return english.Sprintf("Deleting %d messages on %s", s.drop.count, from)
	}
	return "A poll of an empty maildrop on " + from
}

// write prints the report as Markdown.
func (r *report) write(w io.Writer) error {
	var b strings.Builder
	r.preamble(&b)
	for i := range r.scenes {
		s := &r.scenes[i]
		fmt.Fprintf(&b, "\n## %s\n\n", s.title())
		if s.trips == nil {
			r.directTable(&b, s)
		} else {
			r.linkTable(&b, s)
		}
	}
	r.memoryTable(&b)
	r.ackTable(&b)
	r.remarks(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// save writes the report and the charts into a folder.
func (r *report) save(dir string) error {
	file, err := os.Create(filepath.Join(dir, "RESULTS.md"))
	if err != nil {
		return err
	}
	defer file.Close()
	if err := r.write(file); err != nil {
		return err
	}
	return r.saveCharts(dir)
}

const preamble = `# Results

Written by ` + "`make bench`" + `; [README.md](README.md) says how it is measured and what it does not show.

%[1]s, %[2]s. Servers: %[3]s.

Times are medians, with the least and the greatest of the runs in brackets. "× pop3" is the median over that of this
library in the same table. Round trips are (least time at %[4]s − least time at 0) / %[4]s.

| client | version |
| --- | --- |
`

func (r *report) preamble(b *strings.Builder) {
	date, servers := r.began.Format("2 January 2006"), strings.Join(r.servers, ", ")
	fmt.Fprintf(b, preamble, date, machine(), servers, milliseconds(r.judgedTrip()))
	for _, c := range r.clients {
		fmt.Fprintf(b, "| %s | %s |\n", c.Name, c.Version)
	}
}

// clientsOf returns the clients that a scene has.
func (r *report) clientsOf(s *scene) []clients.About {
	return slices.DeleteFunc(slices.Clone(r.clients), func(c clients.About) bool { return !s.has(c.Client) })
}

// linkTable has a column for each length of the link.
func (r *report) linkTable(b *strings.Builder, s *scene) {
	at := s.trips[len(s.trips)-1]
	if r.judgedTrip() < at {
		at = r.judgedTrip()
	}
	head, rule := "| client |", "| --- |"
	for _, trip := range s.trips {
		head += fmt.Sprintf(" %s |", milliseconds(trip))
		rule += " --- |"
	}
	fmt.Fprintf(b, "%s × pop3 at %s | round trips | of them after login, before QUIT |\n", head, milliseconds(at))
	fmt.Fprintf(b, "%s --- | --- | --- |\n", rule)
	for _, c := range r.clientsOf(s) {
		fmt.Fprintf(b, "| %s |", c.Name)
		for _, trip := range s.trips {
			fmt.Fprintf(b, " %s |", r.timeIn(cell{s.id, c.Name, trip}))
		}
		all, work := r.trips(s, c.Name, at, total), r.trips(s, c.Name, at, afterLogin)
		fmt.Fprintf(b, " %s | %s | %s |\n", r.ratio(s, c.Name, at), all, work)
	}
}

// timeIn returns the text of a cell.
func (r *report) timeIn(at cell) string {
	switch ts := times(r.results[at], total); {
	case len(ts) > 0:
		return spreadOf(ts).String()
	case r.failures[at] != nil:
		return "failed"
	}
	return nothing
}

// spreadIn returns the times of a cell; ok is false if it is empty.
func (r *report) spreadIn(at cell, of func(clients.Result) time.Duration) (s spread, ok bool) {
	ts := times(r.results[at], of)
	if len(ts) == 0 {
		return spread{}, false
	}
	return spreadOf(ts), true
}

// ratio compares a client with this library.
func (r *report) ratio(s *scene, client string, trip time.Duration) string {
	own, ok := r.spreadIn(cell{s.id, ourName, trip}, total)
	theirs, found := r.spreadIn(cell{s.id, client, trip}, total)
	if !ok || !found {
		return nothing
	}
	return threeDigits(float64(theirs.median) / float64(own.median))
}

// trips computes the round trips from the time that a link adds. It takes the shortest times, because other
// effects can only make them longer.
func (r *report) trips(s *scene, client string, trip time.Duration, of func(clients.Result) time.Duration) string {
	far, ok := r.spreadIn(cell{s.id, client, trip}, of)
	near, found := r.spreadIn(cell{s.id, client, 0}, of)
	if !ok || !found {
		return nothing
	}
	return fmt.Sprintf("%.1f", max(0, float64(far.min-near.min)/float64(trip)))
}

// directTable writes the table of a scene without a simulated link. It shows the rate and the memory as well.
func (r *report) directTable(b *strings.Builder, s *scene) {
	fmt.Fprintf(b, "| client | time | × pop3 |")
	octets := int64(s.drop.count) * int64(s.drop.size)
	if s.work == clients.Uidl {
		octets = 0
		fmt.Fprintf(b, " peak memory |\n| --- | --- | --- | --- |\n")
	} else {
		fmt.Fprintf(b, " MB/s | peak memory |\n| --- | --- | --- | --- | --- |\n")
	}
	for _, c := range r.clientsOf(s) {
		at := cell{s.id, c.Name, 0}
		fmt.Fprintf(b, "| %s | %s | %s |", c.Name, r.timeIn(at), r.ratio(s, c.Name, 0))
		if took, ok := r.spreadIn(at, total); octets > 0 && ok {
			fmt.Fprintf(b, " %.0f |", float64(octets)/1e6/took.median.Seconds())
		} else if octets > 0 {
			fmt.Fprintf(b, " %s |", nothing)
		}
		fmt.Fprintf(b, " %s |\n", r.memoryIn(at, peakOf))
	}
}

// memoryIn returns the memory of a cell. The parameter of computes it from the results.
func (r *report) memoryIn(at cell, of func([]clients.Result) int64) string {
	results := r.results[at]
	if len(results) == 0 {
		return nothing
	}
	return mebibytes(of(results))
}
