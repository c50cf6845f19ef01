package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

// A spread summarizes the times of several runs.
type spread struct{ min, median, max time.Duration }

// spreadOf returns the spread of times. There must be at least one time.
func spreadOf(times []time.Duration) spread {
	times = slices.Sorted(slices.Values(times))
	n := len(times)
	return spread{times[0], (times[(n-1)/2] + times[n/2]) / 2, times[n-1]}
}

// singleSpread returns the spread of a single time.
func singleSpread(d time.Duration) spread { return spread{d, d, d} }

// milliseconds formats a round-trip time.
func milliseconds(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// String returns the median and the range in one unit, with three significant digits.
func (s spread) String() string {
	unit, name := time.Millisecond, "ms"
	if s.median >= time.Second {
		unit, name = time.Second, "s"
	}
	format := func(d time.Duration) string { return threeDigits(float64(d) / float64(unit)) }
	if s.min == s.max {
		return format(s.median) + " " + name
	}
	return fmt.Sprintf("%s %s (%s–%s)", format(s.median), name, format(s.min), format(s.max))
}

func threeDigits(x float64) string {
	switch {
	case x >= 99.95:
		return fmt.Sprintf("%.0f", x)
	case x >= 9.995:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// mebibytes formats a number of octets.
func mebibytes(octets int64) string { return threeDigits(float64(octets)/(1<<20)) + " MiB" }

// emptyCell marks an empty cell in a table.
const emptyCell = "–"

// total returns the time of a session.
func total(r clients.Result) time.Duration { return r.Total }

// afterLogin returns the time between the login and QUIT.
func afterLogin(r clients.Result) time.Duration { return r.Done - r.LoggedIn }

// times returns the times of all runs in a cell. It leaves out times that the client does not report.
func times(results []clients.Result, measure func(clients.Result) time.Duration) []time.Duration {
	var ts []time.Duration
	for _, r := range results {
		if t := measure(r); t > 0 {
			ts = append(ts, t)
		}
	}
	return ts
}

// peakOf returns the largest peak of a client's memory.
func peakOf(results []clients.Result) (peak int64) {
	for _, r := range results {
		peak = max(peak, r.Peak)
	}
	return peak
}

// growthOf returns how much memory the session added. If a client does not report its memory before the session,
// growthOf uses base instead.
func growthOf(results []clients.Result, base int64) (grown int64) {
	for _, r := range results {
		before := r.Base
		if before == 0 {
			before = base
		}
		grown = max(grown, r.Peak-before)
	}
	return grown
}
