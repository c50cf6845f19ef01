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
	workloads []workload
	results   map[cell][]clients.Result
	failures  map[cell]error
	clients   []clients.Description
	servers   []string
	acks      []ackRow
	notes     []string
	began     time.Time
}

// newReport returns an empty report with a note about the load of the machine.
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

// title returns the title of a workload.
func (s *workload) title() string {
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
	for i := range r.workloads {
		s := &r.workloads[i]
		fmt.Fprintf(&b, "\n## %s\n\n", s.title())
		if s.trips == nil {
			r.directTable(&b, s)
		} else {
			r.linkTable(&b, s)
		}
	}
	r.memoryTable(&b)
	r.ackTable(&b)
	r.writeRemarks(&b)
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
	fmt.Fprintf(b, preamble, date, machine(), servers, milliseconds(r.comparedTrip()))
	for _, c := range r.clients {
		fmt.Fprintf(b, "| %s | %s |\n", c.Name, c.Version)
	}
}

// clientsOf returns the clients that carry out a workload.
func (r *report) clientsOf(s *workload) []clients.Description {
	return slices.DeleteFunc(slices.Clone(r.clients), func(c clients.Description) bool { return !s.includes(c.Client) })
}

// linkTable writes the table of a workload with simulated links. It has a column for each round-trip time.
func (r *report) linkTable(b *strings.Builder, s *workload) {
	compared := s.trips[len(s.trips)-1]
	if r.comparedTrip() < compared {
		compared = r.comparedTrip()
	}
	head, rule := "| client |", "| --- |"
	for _, trip := range s.trips {
		head += fmt.Sprintf(" %s |", milliseconds(trip))
		rule += " --- |"
	}
	fmt.Fprintf(b, "%s × pop3 at %s | round trips | of them after login, before QUIT |\n", head, milliseconds(compared))
	fmt.Fprintf(b, "%s --- | --- | --- |\n", rule)
	for _, c := range r.clientsOf(s) {
		fmt.Fprintf(b, "| %s |", c.Name)
		for _, trip := range s.trips {
			fmt.Fprintf(b, " %s |", r.timeIn(cell{s.id, c.Name, trip}))
		}
		all, work := r.trips(s, c.Name, compared, total), r.trips(s, c.Name, compared, afterLogin)
		fmt.Fprintf(b, " %s | %s | %s |\n", r.ratio(s, c.Name, compared), all, work)
	}
}

// timeIn returns the text of a cell with the time of a client.
func (r *report) timeIn(at cell) string {
	switch ts := times(r.results[at], total); {
	case len(ts) > 0:
		return spreadOf(ts).String()
	case r.failures[at] != nil:
		return "failed"
	}
	return emptyCell
}

// spreadIn returns the spread of the times in a cell. The result ok is false if the cell is empty.
func (r *report) spreadIn(at cell, measure func(clients.Result) time.Duration) (s spread, ok bool) {
	ts := times(r.results[at], measure)
	if len(ts) == 0 {
		return spread{}, false
	}
	return spreadOf(ts), true
}

// ratio returns the time of a client divided by the time of this library.
func (r *report) ratio(s *workload, client string, trip time.Duration) string {
	ours, ok := r.spreadIn(cell{s.id, ourName, trip}, total)
	theirs, found := r.spreadIn(cell{s.id, client, trip}, total)
	if !ok || !found {
		return emptyCell
	}
	return threeDigits(float64(theirs.median) / float64(ours.median))
}

// trips computes the number of round trips from the time that a link adds. It uses the shortest times, because other
// effects can only make a time longer.
func (r *report) trips(s *workload, client string, trip time.Duration,
	measure func(clients.Result) time.Duration) string {
	far, ok := r.spreadIn(cell{s.id, client, trip}, measure)
	near, found := r.spreadIn(cell{s.id, client, 0}, measure)
	if !ok || !found {
		return emptyCell
	}
	return fmt.Sprintf("%.1f", max(0, float64(far.min-near.min)/float64(trip)))
}

// directTable writes the table of a workload without a simulated link. It also shows the rate and the memory.
func (r *report) directTable(b *strings.Builder, s *workload) {
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
			fmt.Fprintf(b, " %s |", emptyCell)
		}
		fmt.Fprintf(b, " %s |\n", r.memoryIn(at, peakOf))
	}
}

// memoryIn returns the text of a cell with memory. The function measure computes the memory from the results.
func (r *report) memoryIn(at cell, measure func([]clients.Result) int64) string {
	results := r.results[at]
	if len(results) == 0 {
		return emptyCell
	}
	return mebibytes(measure(results))
}
