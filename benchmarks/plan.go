package main

import (
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

// A workload is work that all clients do, with one or several round-trip times. The report has a table for each
// workload.
type workload struct {
	id     string
	server string
	work   clients.Work
	drop   maildrop

	overTLS     bool
	trips       []time.Duration // round-trip times; nil means that clients connect without a simulated link
	runs        int
	skipWaiting bool // leave out the clients that wait for each reply, because they would take too long
}

// These are names of workloads that the report and the charts use.
const (
	fetchWorkload = "fetch"
	largeWorkload = "large"
	uidlWorkload  = "uidl"
	pollWorkload  = "poll"

	realSuffix = "-real" // end of the names of workloads on the real server that also run on the server in memory
)

// sizes are the numbers of messages, octets and runs in the plan.
type sizes struct {
	few, many       int // number of messages
	small           int // octets in each of them
	large           int // octets of the large message
	listed          int // number of messages in the long list
	trips           []time.Duration
	runs, shortRuns int    // number of runs; shortRuns is for workloads that take little time
	sequential      int    // number of messages to retrieve one at a time for the table about TCP_QUICKACK
	only            string // id of the only workload to run; "" means all
}

const ms = time.Millisecond

var (
	full = sizes{
		few: 1000, many: 10_000, small: 6000, large: 100_000_000, listed: 100_000,
		trips: []time.Duration{0, 10 * ms, 50 * ms, 150 * ms}, runs: 3, shortRuns: 5, sequential: 1000,
	}
	// quick has fewer messages and runs, so that it takes less time. Its results cannot be compared.
	quick = sizes{
		few: 100, many: 1000, small: 6000, large: 20_000_000, listed: 10_000,
		trips: []time.Duration{0, 50 * ms}, runs: 1, shortRuns: 1, sequential: 100,
	}
)

// preferredTrip is the round-trip time at which clients are compared if the plan contains it.
const preferredTrip = 50 * ms

// workloads returns the plan. The parameters are the names of the servers.
func (z sizes) workloads(real, inMemory string) []workload {
	few, many := maildrop{z.few, z.small}, maildrop{z.many, z.small}
	large, listed := maildrop{1, z.large}, maildrop{z.listed, 200}
	twoTrips := []time.Duration{z.trips[0], z.comparedTrip()}
	all := []workload{
		{id: fetchWorkload, server: real, work: clients.Fetch, drop: few, trips: z.trips, runs: z.runs},
		{id: "fetch-many", server: real, work: clients.Fetch, drop: many, trips: twoTrips, runs: z.runs,
			skipWaiting: true},
		{id: "dele", server: real, work: clients.Dele, drop: maildrop{z.few, 200}, trips: z.trips, runs: z.runs},
		{id: pollWorkload, server: real, work: clients.Poll, trips: twoTrips, runs: z.shortRuns},
		{id: "poll-tls", server: real, work: clients.Poll, trips: twoTrips, runs: z.shortRuns, overTLS: true},
		{id: largeWorkload, server: inMemory, work: clients.Large, drop: large, runs: z.shortRuns},
		{id: "large-tls", server: inMemory, work: clients.Large, drop: large, runs: z.shortRuns, overTLS: true},
		{id: largeWorkload + realSuffix, server: real, work: clients.Large, drop: large, runs: z.runs},
		{id: "large-tls" + realSuffix, server: real, work: clients.Large, drop: large, runs: z.runs, overTLS: true},
		{id: uidlWorkload, server: inMemory, work: clients.Uidl, drop: listed, runs: z.shortRuns},
		{id: uidlWorkload + realSuffix, server: real, work: clients.Uidl, drop: listed, runs: z.runs},
		{id: "fetch-memory", server: inMemory, work: clients.Fetch, drop: few, runs: z.shortRuns},
	}
	if real == inMemory {
		all = slices.DeleteFunc(all, func(s workload) bool { return strings.HasSuffix(s.id, realSuffix) })
	}
	if z.only != "" {
		all = slices.DeleteFunc(all, func(s workload) bool { return s.id != z.only })
	}
	return all
}

// comparedTrip returns preferredTrip, or the longest round-trip time of the plan if the plan does not contain it.
func (z sizes) comparedTrip() time.Duration {
	longest := z.trips[len(z.trips)-1]
	for _, trip := range z.trips {
		if trip == preferredTrip {
			return trip
		}
	}
	return longest
}

// A trial is a workload with one client and one round-trip time.
type trial struct {
	workload *workload
	client   clients.Client
	trip     time.Duration
	runs     int
}

// commands returns how many commands a workload needs.
func (s *workload) commands() int {
	if s.work == clients.Fetch || s.work == clients.Dele {
		return s.drop.count
	}
	return 1
}

// mostlyWaits reports whether the client waits for a reply after each of many commands. Many such clients can be
// measured at the same time without affecting each other.
func (t trial) mostlyWaits() bool {
	return t.trip > 0 && !t.client.Pipelines && t.workload.commands() > 1
}

// includes reports whether a client carries out a workload. Clients that differ only in the login are left out if there
// is no link, because their times are the same then.
func (s *workload) includes(c clients.Client) bool { return s.trips != nil || !c.LoginOnly }

// trials returns the trials of a workload.
func (s *workload) trials(all []clients.Client) []trial {
	trips := s.trips
	if trips == nil {
		trips = []time.Duration{0}
	}
	var ts []trial
	for _, trip := range trips {
		for _, c := range all {
			t := trial{s, c, trip, s.runs}
			if s.includes(c) && !(s.skipWaiting && t.mostlyWaits()) {
				ts = append(ts, t)
			}
		}
	}
	return ts
}
