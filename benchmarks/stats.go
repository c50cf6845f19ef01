package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

// A spread contains the times of several runs.
type spread struct{ min, median, max time.Duration }

// spreadOf returns the spread of at least one time.
func spreadOf(times []time.Duration) spread {
	times = slices.Sorted(slices.Values(times))
	n := len(times)
	return spread{times[0], (times[(n-1)/2] + times[n/2]) / 2, times[n-1]}
}

// once returns the spread of a single time.
func once(d time.Duration) spread { return spread{d, d, d} }

// milliseconds formats a round-trip time.
func milliseconds(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// String returns the median and the range in one unit, with three significant digits.
func (s spread) String() string {
	unit, name := time.Millisecond, "ms"
	if s.median >= time.Second {
		unit, name = time.Second, "s"
	}
	in := func(d time.Duration) string { return threeDigits(float64(d) / float64(unit)) }
	if s.min == s.max {
		return in(s.median) + " " + name
	}
	return fmt.Sprintf("%s %s (%s–%s)", in(s.median), name, in(s.min), in(s.max))
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

// mebibytes formats octets for people.
func mebibytes(octets int64) string { return threeDigits(float64(octets)/(1<<20)) + " MiB" }

// nothing marks an empty cell in a table.
const nothing = "–"

// total returns the time of a session, afterLogin the time of its work.
func total(r clients.Result) time.Duration      { return r.Total }
func afterLogin(r clients.Result) time.Duration { return r.Done - r.LoggedIn }

// times returns the times of all runs in a cell. There are none if a client does not report its time.
func times(results []clients.Result, of func(clients.Result) time.Duration) []time.Duration {
	var ts []time.Duration
	for _, r := range results {
		if t := of(r); t > 0 {
			ts = append(ts, t)
		}
	}
	return ts
}

// peakOf returns the peak of a client's memory. growthOf returns how much of that the session added. If a program does
// not report its memory before the session, base is used.
func peakOf(results []clients.Result) (peak int64) {
	for _, r := range results {
		peak = max(peak, r.Peak)
	}
	return peak
}

func growthOf(results []clients.Result, base int64) (grown int64) {
	for _, r := range results {
		had := r.Base
		if had == 0 {
			had = base
		}
		grown = max(grown, r.Peak-had)
	}
	return grown
}
