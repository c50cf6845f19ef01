package lossproof

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/seed-2d50cddb/pop3/internal/race"
)

// runAll reports whether all combinations are run: every fault at every octet, with every server, program and chunking.
// Otherwise every fault also happens at every octet, but with one server and one program, drawn with a fixed seed.
// With the race detector it happens at every fifth octet.
var runAll = os.Getenv("LOSSPROOF") == "full"

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1939, 5)) }

// allExperiments returns all combinations of a server, a program and chunking, without a fault.
func allExperiments() (all []experiment) {
	for _, s := range servers() {
		all = append(all, experimentsWith(s)...)
	}
	return all
}

// experimentsWith returns the combinations with one server.
func experimentsWith(s server) (all []experiment) {
	for _, p := range programs {
		for _, octetwise := range []bool{false, true} {
			// A server that does not stuff dots lets the sender of a mail forge a reply. If that reply arrives octet by
			// octet, it cannot be noticed in time.
			if !octetwise || !s.unstuffed {
				all = append(all, experiment{server: s, program: p, splitReplies: octetwise, faultAt: -1})
			}
		}
	}
	return all
}

// withFault sets the fault. If the fault changes octets, withFault removes other faults of the server. A message that
// is cut can only be noticed by its size in the list, and the fault may change that size. An extra reply can only be
// noticed if replies are not split.
func (e experiment) withFault(f fault, fromClient bool, faultAt int) experiment {
	e.fault, e.fromClient, e.faultAt = f, fromClient, faultAt
	if f.corrupts {
		e.splitReplies, e.server.cutMessage, e.server.unstuffed = false, 0, false
	}
	return e
}

func TestGoodRun(t *testing.T) {
	for _, security := range []security{inClear, startTLSLater, implicitTLS, implicitTLS12} {
		t.Run(security.String(), func(t *testing.T) {
			checkExperiments(t, func(m *machine) {
				draw := newRand()
				for _, e := range allExperiments() {
					if e.security = security; runAll || draw.IntN(4) == 0 {
						m.run(e)
					}
				}
			})
		})
	}
}

func TestEveryOctet(t *testing.T) {
	if !runAll {
		checkExperiments(t, everyOctetOfLongest)
		return
	}
	for _, s := range servers() {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			checkExperiments(t, func(m *machine) { everyOctetWith(m, s) })
		})
	}
}

// everyOctetWith puts each fault at each octet of the sessions with one server. It leaves out experiments that
// withFault makes equal to those with another server or other chunking.
func everyOctetWith(m *machine, s server) {
	for _, e := range experimentsWith(s) {
		good := m.run(e)
		equal := func(f fault) bool { return f.corrupts && (e.splitReplies || s.cutMessage > 0 || s.unstuffed) }
		for _, f := range slices.DeleteFunc(slices.Clone(downFaults), equal) {
			for at := range good.w.down.passed + 1 {
				m.run(e.withFault(f, false, at))
			}
		}
		for _, f := range slices.DeleteFunc(slices.Clone(upFaults), equal) {
			for at := range good.w.up.passed + 1 {
				m.run(e.withFault(f, true, at))
			}
		}
	}
}

// everyOctetOfLongest puts faults at each octet of the longest session. In a shorter session the octet is counted
// modulo its length.
func everyOctetOfLongest(m *machine) {
	draw := newRand()
	all := allExperiments()
	var goodRuns []*run
	down, up := 0, 0
	for _, e := range all {
		good := m.run(e)
		goodRuns = append(goodRuns, good)
		if e.program.keepsAlive { // its NOOPs make the session twice as long
			continue
		}
		down, up = max(down, good.w.down.passed), max(up, good.w.up.passed)
	}
	for at := 0; at <= down; at += race.Stride {
		for _, f := range downFaults {
			i := draw.IntN(len(all))
			m.run(all[i].withFault(f, false, at%(goodRuns[i].w.down.passed+1)))
		}
	}
	for at := 0; at <= up; at += race.Stride {
		for _, f := range upFaults {
			i := draw.IntN(len(all))
			m.run(all[i].withFault(f, true, at%(goodRuns[i].w.up.passed+1)))
		}
	}
}

// TestExtraReply inserts an extra reply after each reply, in the same segment or in a segment of its own.
func TestExtraReply(t *testing.T) {
	checkExperiments(t, func(m *machine) {
		draw := newRand()
		for _, e := range allExperiments() {
			if e.splitReplies || e.server.cutMessage > 0 || e.server.unstuffed {
				continue
			}
			good := m.run(e)
			for _, at := range good.session.replyEnds {
				for _, f := range extraReplies {
					if runAll || draw.IntN(8) == 0 {
						m.run(e.withFault(f, false, at))
					}
				}
			}
		}
	})
}

// TestStoreFull makes the program's disk full, once at each message.
func TestStoreFull(t *testing.T) {
	checkExperiments(t, func(m *machine) {
		draw := newRand()
		for _, e := range allExperiments() {
			for num := range len(mails) {
				if e.storeFull = num + 1; runAll || draw.IntN(4) == 0 {
					m.run(e)
				}
			}
		}
	})
}
