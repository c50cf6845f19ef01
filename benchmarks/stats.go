package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

// A spread is what several runs gave.
type spread struct{ min, median, max time.Duration }

// spreadOf is that of at least one time.
func spreadOf(times []time.Duration) spread {
	times = slices.Sorted(slices.Values(times))
	n := len(times)
	return spread{times[0], (times[(n-1)/2] + times[n/2]) / 2, times[n-1]}
}

// once is the spread of a single time.
func once(d time.Duration) spread { return spread{d, d, d} }

// milliseconds is a round trip time as it is written.
func milliseconds(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// String gives the median and the range in one unit, with three digits that count.
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

// mebibytes are octets as a person reads them.
func mebibytes(octets int64) string { return threeDigits(float64(octets)/(1<<20)) + " MiB" }

// nothing stands in a table where something was not measured.
const nothing = "–"

// total is the time of a session, afterLogin that of its work.
func total(r clients.Result) time.Duration      { return r.Total }
func afterLogin(r clients.Result) time.Duration { return r.Done - r.LoggedIn }

// times are those of all runs in a cell; there are none if a client does not tell.
func times(results []clients.Result, of func(clients.Result) time.Duration) []time.Duration {
	var ts []time.Duration
	for _, r := range results {
		if t := of(r); t > 0 {
			ts = append(ts, t)
		}
	}
	return ts
}

// peakOf is the most memory that a client took, and growthOf what that was beyond what it had before the session. base
// is what a program has that does not tell it.
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
