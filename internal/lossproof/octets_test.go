package lossproof

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/seed-2d50cddb/pop3/internal/race"
)

// full reports whether all combinations are run: every fault at every octet, with every server, program and chunking.
// Otherwise every fault also happens at every octet, but with one server and one program, drawn with a fixed seed.
// With the race detector it happens at every fifth octet.
var full = os.Getenv("LOSSPROOF") == "full"

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1939, 5)) }

// sessions returns all combinations of a server, a program and chunking, without a fault.
func sessions() (all []experiment) {
	for _, s := range servers() {
		all = append(all, sessionsWith(s)...)
	}
	return all
}

// sessionsWith returns the combinations with one server.
func sessionsWith(s server) (all []experiment) {
	for _, p := range programs {
		for _, octetwise := range []bool{false, true} {
			// An extra reply that arrives octet by octet cannot be noticed in time. So that is not run with a server
			// that does not stuff dots.
			if !octetwise || !s.unstuffed {
				all = append(all, experiment{server: s, program: p, octetwise: octetwise, at: -1})
			}
		}
	}
	return all
}

// strike sets the fault. If the fault changes octets, strike removes other faults of the server. A message that is cut
// can only be noticed by its size in the list, and the fault may change that size. An extra reply can only be noticed
// if replies are not split.
func (e experiment) strike(f fault, up bool, at int) experiment {
	e.fault, e.up, e.at = f, up, at
	if f.corrupts {
		e.octetwise, e.server.short, e.server.unstuffed = false, 0, false
	}
	return e
}

func TestGoodRun(t *testing.T) {
	for _, security := range []security{inClear, startTLSLater, implicitTLS, implicitTLS12} {
		t.Run(security.String(), func(t *testing.T) {
			operate(t, func(m *machine) {
				draw := seeded()
				for _, e := range sessions() {
					if e.security = security; full || draw.IntN(4) == 0 {
						m.do(e)
					}
				}
			})
		})
	}
}

func TestEveryOctet(t *testing.T) {
	if !full {
		operate(t, everyOctetOfSome)
		return
	}
	for _, s := range servers() {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			operate(t, func(m *machine) { everyOctetWith(m, s) })
		})
	}
}

// everyOctetWith leaves out experiments that strike makes equal to those with another server or other chunking.
func everyOctetWith(m *machine, s server) {
	for _, e := range sessionsWith(s) {
		good := m.do(e)
		equal := func(f fault) bool { return f.corrupts && (e.octetwise || s.short > 0 || s.unstuffed) }
		for _, f := range slices.DeleteFunc(slices.Clone(downFaults), equal) {
			for at := range good.w.down.passed + 1 {
				m.do(e.strike(f, false, at))
			}
		}
		for _, f := range slices.DeleteFunc(slices.Clone(upFaults), equal) {
			for at := range good.w.up.passed + 1 {
				m.do(e.strike(f, true, at))
			}
		}
	}
}

// everyOctetOfSome puts faults at each octet of the longest session. In a shorter session the octet is counted modulo
// its length.
func everyOctetOfSome(m *machine) {
	draw := seeded()
	all := sessions()
	var goods []*run
	down, up := 0, 0
	for _, e := range all {
		good := m.do(e)
		goods = append(goods, good)
		if e.program.alive { // its NOOPs make the session twice as long
			continue
		}
		down, up = max(down, good.w.down.passed), max(up, good.w.up.passed)
	}
	for at := 0; at <= down; at += race.Stride {
		for _, f := range downFaults {
			i := draw.IntN(len(all))
			m.do(all[i].strike(f, false, at%(goods[i].w.down.passed+1)))
		}
	}
	for at := 0; at <= up; at += race.Stride {
		for _, f := range upFaults {
			i := draw.IntN(len(all))
			m.do(all[i].strike(f, true, at%(goods[i].w.up.passed+1)))
		}
	}
}

// TestReplyTooMany inserts an extra reply after each reply, in the same segment or in a segment of its own.
func TestReplyTooMany(t *testing.T) {
	operate(t, func(m *machine) {
		draw := seeded()
		for _, e := range sessions() {
			if e.octetwise || e.server.short > 0 || e.server.unstuffed {
				continue
			}
			good := m.do(e)
			for _, at := range good.session.ends {
				for _, f := range extraReplies {
					if full || draw.IntN(8) == 0 {
						m.do(e.strike(f, false, at))
					}
				}
			}
		}
	})
}

// TestStoreFull makes the program's disk full, once at each message.
func TestStoreFull(t *testing.T) {
	operate(t, func(m *machine) {
		draw := seeded()
		for _, e := range sessions() {
			for num := range len(mails) {
				if e.storeFull = num + 1; full || draw.IntN(4) == 0 {
					m.do(e)
				}
			}
		}
	})
}
