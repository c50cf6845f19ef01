package main

import (
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

// A scene is one piece of work that all clients do, over links of one or several lengths. It becomes a table of
// the report.
type scene struct {
	id     string
	server string
	work   clients.Work
	drop   maildrop

	overTLS bool
	trips   []time.Duration // round-trip times; nil means no link, straight to the server
	runs    int
	skip    bool // leave out the clients that wait for each reply, because they would take too long
}

// Names of scenes that the report and the charts use.
const (
	fetchScene = "fetch"
	largeScene = "large"
	uidlScene  = "uidl"
	pollScene  = "poll"

	onReal = "-real" // ends the names of scenes that use both servers
)

// sizes are the numbers by which the plan is scaled.
type sizes struct {
	few, many  int // number of messages
	small      int // octets in each of them
	large      int // octets of the large message
	listed     int // messages in the long list
	trips      []time.Duration
	runs, more int    // number of runs; more is the number for short scenes
	sequential int    // messages to retrieve one at a time from the servers of the last table
	only       string // the id of the only scene to run, or ""
}

const ms = time.Millisecond

var (
	full = sizes{
		few: 1000, many: 10_000, small: 6000, large: 100_000_000, listed: 100_000,
		trips: []time.Duration{0, 10 * ms, 50 * ms, 150 * ms}, runs: 3, more: 5, sequential: 1000,
	}
	// quick has fewer messages and runs, so that it takes less time. Its results cannot be compared.
	quick = sizes{
		few: 100, many: 1000, small: 6000, large: 20_000_000, listed: 10_000,
		trips: []time.Duration{0, 50 * ms}, runs: 1, more: 1, sequential: 100,
	}
)

// judged is the round-trip time at which clients are compared, if the plan contains it.
const judged = 50 * ms

// scenes returns the plan. real and inMemory are the names of the servers.
func (z sizes) scenes(real, inMemory string) []scene {
	few, many := maildrop{z.few, z.small}, maildrop{z.many, z.small}
	large, listed := maildrop{1, z.large}, maildrop{z.listed, 200}
	ends := []time.Duration{z.trips[0], z.judgedTrip()}
	all := []scene{
		{id: fetchScene, server: real, work: clients.Fetch, drop: few, trips: z.trips, runs: z.runs},
		{id: "fetch-many", server: real, work: clients.Fetch, drop: many, trips: ends, runs: z.runs, skip: true},
		{id: "dele", server: real, work: clients.Dele, drop: maildrop{z.few, 200}, trips: z.trips, runs: z.runs},
		{id: pollScene, server: real, work: clients.Poll, trips: ends, runs: z.more},
		{id: "poll-tls", server: real, work: clients.Poll, trips: ends, runs: z.more, overTLS: true},
		{id: largeScene, server: inMemory, work: clients.Large, drop: large, runs: z.more},
		{id: "large-tls", server: inMemory, work: clients.Large, drop: large, runs: z.more, overTLS: true},
		{id: largeScene + onReal, server: real, work: clients.Large, drop: large, runs: z.runs},
		{id: "large-tls" + onReal, server: real, work: clients.Large, drop: large, runs: z.runs, overTLS: true},
		{id: uidlScene, server: inMemory, work: clients.Uidl, drop: listed, runs: z.more},
		{id: uidlScene + onReal, server: real, work: clients.Uidl, drop: listed, runs: z.runs},
		{id: "fetch-memory", server: inMemory, work: clients.Fetch, drop: few, runs: z.more},
	}
	if real == inMemory {
		all = slices.DeleteFunc(all, func(s scene) bool { return strings.HasSuffix(s.id, onReal) })
	}
	if z.only != "" {
		all = slices.DeleteFunc(all, func(s scene) bool { return s.id != z.only })
	}
	return all
}

// judgedTrip returns judged, or the longest round-trip time of the scene.
func (z sizes) judgedTrip() time.Duration {
	longest := z.trips[len(z.trips)-1]
	for _, trip := range z.trips {
		if trip == judged {
			return trip
		}
	}
	return longest
}

// A trial is one cell of a scene: one client over one link.
type trial struct {
	scene  *scene
	client clients.Client
	trip   time.Duration
	runs   int
}

// commands returns how many commands the work of a scene takes.
func (s *scene) commands() int {
	if s.work == clients.Fetch || s.work == clients.Dele {
		return s.drop.count
	}
	return 1
}

// patient reports whether a client mostly waits. Many such clients can be measured at the same time without affecting
// each other.
func (t trial) patient() bool { return t.trip > 0 && !t.client.Ahead && t.scene.commands() > 1 }

// has reports whether a client is part of a scene. Clients that differ only in the login are left out if there is no
// link, because there their times are the same.
func (s *scene) has(c clients.Client) bool { return s.trips != nil || !c.LoginOnly }

// trials returns the cells of a scene.
func (s *scene) trials(all []clients.Client) []trial {
	trips := s.trips
	if trips == nil {
		trips = []time.Duration{0}
	}
	var ts []trial
	for _, trip := range trips {
		for _, c := range all {
			t := trial{s, c, trip, s.runs}
			if s.has(c) && !(s.skip && t.patient()) {
				ts = append(ts, t)
			}
		}
	}
	return ts
}
