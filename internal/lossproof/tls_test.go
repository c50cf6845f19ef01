package lossproof

import (
	"math/rand/v2"
	"testing"
)

// The octets of TLS differ from run to run, so the places of faults are random. LOSSPROOF=full draws more places.
const (
	samplesTLS    = 400 // runs with a fault in the octets of TLS, for each of STLS, TLS and TLS 1.2
	samplesSTLS   = 300 // runs with a fault in the octets that STLS leaves in clear
	samplesServer = 600 // runs with a fault of the server itself
	allTLS        = 30_000
)

// runCount returns how many runs to draw: the parameter, or more with LOSSPROOF=full.
func runCount(sample int) int {
	if runAll {
		return allTLS
	}
	return sample
}

func TestTLS(t *testing.T) {
	for _, security := range []security{startTLSLater, implicitTLS, implicitTLS12} {
		t.Run(security.String(), func(t *testing.T) {
			checkExperiments(t, func(m *machine) {
				draw := newRand()
				for range runCount(samplesTLS) {
					e := drawExperiment(draw, security)
					down, up := m.lengths(e.program, security)
					m.runWithRandomFault(draw, e, down, up)
				}
			})
		})
	}
}

// TestSTLSInClear puts faults before the beginning of TLS, where octets can be changed. The client must forget what it
// learned there.
func TestSTLSInClear(t *testing.T) {
	const (
		sent     = "+OK\r\n+OK\r\nUSER\r\nUIDL\r\nPIPELINING\r\nSTLS\r\n.\r\n+OK\r\n"
		received = "CAPA\r\nSTLS\r\n"
	)
	checkExperiments(t, func(m *machine) {
		draw := newRand()
		for range runCount(samplesSTLS) {
			m.runWithRandomFault(draw, drawExperiment(draw, startTLSLater), len(sent), len(received))
		}
	})
}

// TestServerFaultsInTLS draws one of two faults, at an octet that the server sends. The server hangs up with a close
// alert, or it sends an extra reply. The client can't notice an extra reply that is in a record of its own.
func TestServerFaultsInTLS(t *testing.T) {
	checkExperiments(t, func(m *machine) {
		draw := newRand()
		for range runCount(samplesServer) {
			e := drawExperiment(draw, security(1+draw.IntN(3)))
			if draw.IntN(3) == 0 {
				down, _ := m.lengths(e.program, inClear)
				e.plain = &plainFault{at: draw.IntN(down + 1)}
			} else {
				e.server.cutMessage, e.server.unstuffed, e.splitReplies = 0, false, false
				ends := m.replyEndsOf(e)
				e.plain = &plainFault{at: ends[draw.IntN(len(ends))], ownRecord: draw.IntN(2) == 0}
				e.plain.insert = []string{"+OK\r\n", "-ERR\r\n"}[draw.IntN(2)]
			}
			m.run(e)
		}
	})
}

func drawExperiment(draw *rand.Rand, security security) experiment {
	all := allExperiments()
	e := all[draw.IntN(len(all))]
	e.security = security
	return e
}

// replyEndsOf returns where replies end in a session without a fault.
func (m *machine) replyEndsOf(e experiment) []int {
	e.security = inClear
	if m.replyEnds == nil {
		m.replyEnds = map[string][]int{}
	}
	key := e.String()
	if m.replyEnds[key] == nil {
		m.replyEnds[key] = m.run(e).session.replyEnds
	}
	return m.replyEnds[key]
}

// lengths returns roughly how many octets are sent in each direction in a session of a program. In shorter sessions
// some faults would happen too late.
func (m *machine) lengths(p program, security security) (down, up int) {
	e := experiment{server: servers()[0], program: p, security: security, faultAt: -1}
	if m.goodWires == nil {
		m.goodWires = map[string]*wire{}
	}
	if m.goodWires[p.name] == nil {
		m.goodWires[p.name] = m.run(e).w
	}
	return m.goodWires[p.name].down.passed, m.goodWires[p.name].up.passed
}

// runWithRandomFault draws a fault and its place, in either direction. TLS detects a changed octet, so all invariants
// are checked.
func (m *machine) runWithRandomFault(draw *rand.Rand, e experiment, down, up int) {
	if draw.IntN(2) == 0 {
		e.fault, e.faultAt = downFaults[draw.IntN(len(downFaults))], draw.IntN(down+1)
	} else {
		e.fault, e.faultAt, e.fromClient = upFaults[draw.IntN(len(upFaults))], draw.IntN(up+1), true
	}
	m.run(e)
}
