package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

// ourName is the name of this library among the clients.
const ourName = "pop3"

// memoryWorkloads are the workloads for which the memory of clients is compared.
var memoryWorkloads = []string{"fetch-memory", largeWorkload, "large-tls", uidlWorkload}

// memoryTable shows how much memory the work adds to a process.
func (r *report) memoryTable(b *strings.Builder) {
	fmt.Fprintf(b, "\n## Memory\n\nThe resident memory that the work adds to the process, at its peak.\n\n| client |")
	rule := "| --- |"
	var shown []*workload
	for i := range r.workloads {
		if s := &r.workloads[i]; slices.Contains(memoryWorkloads, s.id) {
			shown = append(shown, s)
			fmt.Fprintf(b, " %s |", s.title())
			rule += " --- |"
		}
	}
	fmt.Fprintf(b, "\n%s\n", rule)
	for _, c := range r.clients {
		if c.LoginOnly {
			continue
		}
		fmt.Fprintf(b, "| %s |", c.Name)
		for _, s := range shown {
			grown := func(results []clients.Result) int64 { return growthOf(results, c.Base) }
			fmt.Fprintf(b, " %s |", r.memoryIn(cell{s.id, c.Name, 0}, grown))
		}
		fmt.Fprintln(b)
	}
}

const ackPreamble = `
## %d messages one at a time, with and without TCP_QUICKACK

This library, on loopback, without the login. Most servers write a reply in pieces with Nagle's algorithm on, and then
wait for an acknowledgement that the client's kernel holds back.

| server | version | as it is | without TCP_QUICKACK | ratio |
| --- | --- | --- | --- | --- |
`

// ackTable compares the times to retrieve messages one at a time, with and without TCP_QUICKACK.
func (r *report) ackTable(b *strings.Builder) {
	if len(r.acks) == 0 {
		return
	}
	english.Fprintf(b, ackPreamble, r.sequential)
	for _, row := range r.acks {
		if row.err != nil {
			fmt.Fprintf(b, "| %s | %s | failed | failed | – |\n", row.server, row.version)
			r.note("%s, one at a time, failed: %v.", row.server, row.err)
			continue
		}
		quick, delayed := spreadOf(row.quickTimes), singleSpread(row.delayedTime)
		fmt.Fprintf(b, "| %s | %s | %v | %v | %s |\n", row.server, row.version, quick, delayed,
			threeDigits(float64(row.delayedTime)/float64(quick.median)))
	}
}

// writeRemarks writes the remarks about this run.
func (r *report) writeRemarks(b *strings.Builder) {
	notes := slices.Clone(r.notes)
	for _, c := range r.clients {
		if c.Silent {
			notes = append(notes, fmt.Sprintf("`%s` takes %v and %s.", strings.Join(c.VersionCommand, " "),
				singleSpread(c.Startup), mebibytes(c.Base)))
		}
	}
	for _, s := range r.workloads {
		for _, c := range r.clients {
			for _, trip := range r.sizes.trips {
				if err := r.failures[cell{s.id, c.Name, trip}]; err != nil {
					notes = append(notes, fmt.Sprintf("%s failed (%s, %s): %v.", c.Name, s.title(), milliseconds(trip),
						err))
				}
			}
		}
	}
	if len(notes) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Remarks\n\n")
	for _, n := range notes {
		fmt.Fprintf(b, "- %s\n", n)
	}
}

// machine returns a description of this machine.
func machine() string {
	about := fmt.Sprintf("%s, %s/%s, %d CPUs", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return about
	}
	for line := range bytes.Lines(text) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.HasPrefix(name, []byte("model name")) {
			return fmt.Sprintf("%s (%s)", about, bytes.TrimSpace(value))
		}
	}
	return about
}

// machineLoad returns the mean load of the machine in the last 1, 5 and 15 minutes. It returns "" if the system does
// not provide the load.
func machineLoad() string {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(load))[:3], ", ")
}
