package lossproof

import (
	"math/rand/v2"
	"testing"
)

// The octets of TLS differ from run to run, so the places of faults are random. With LOSSPROOF=full, faults happen at
// all octets that STLS leaves in clear, and at all octets that the server sends within TLS.
const (
	drawnTLS  = 400 // runs with a fault in the octets of TLS, for each of STLS, TLS and TLS 1.2
	drawnSTLS = 300 // runs with a fault in the octets that STLS leaves in clear
	drawnSaid = 600 // runs with a fault of the server itself
	fullTLS   = 30_000
)

// drawn returns how many runs to draw: the parameter, or more with LOSSPROOF=full.
func drawn(some int) int {
	if full {
		return fullTLS
	}
	return some
}

func TestTLS(t *testing.T) {
	for _, security := range []security{startTLSLater, implicitTLS, implicitTLS12} {
		t.Run(security.String(), func(t *testing.T) {
			operate(t, func(m *machine) {
				draw := seeded()
				for range drawn(drawnTLS) {
					e := someSession(draw, security)
					down, up := m.lengths(e.program, security)
					m.strikeSomewhere(draw, e, down, up)
				}
			})
		})
	}
}

// TestSTLSInClear puts faults before the beginning of TLS, where octets can be changed. The client must forget what it
// learned there.
func TestSTLSInClear(t *testing.T) {
	const (
		said = "+OK\r\n+OK\r\nUSER\r\nUIDL\r\nPIPELINING\r\nSTLS\r\n.\r\n+OK\r\n"
		got  = "CAPA\r\nSTLS\r\n"
	)
	operate(t, func(m *machine) {
		draw := seeded()
		for range drawn(drawnSTLS) {
			m.strikeSomewhere(draw, someSession(draw, startTLSLater), len(said), len(got))
		}
	})
}

// TestServerFaultsInTLS has two faults, at an octet that the server sends. The server hangs up with a close alert, or
// it sends an extra reply. The client can't notice an extra reply that is in a record of its own.
func TestServerFaultsInTLS(t *testing.T) {
	operate(t, func(m *machine) {
		draw := seeded()
		for range drawn(drawnSaid) {
			e := someSession(draw, security(1+draw.IntN(3)))
			if draw.IntN(3) == 0 {
				said, _ := m.lengths(e.program, inClear)
				e.plain = &plainFault{at: draw.IntN(said + 1)}
			} else {
				e.server.short, e.server.unstuffed, e.octetwise = 0, false, false
				ends := m.ends(e)
				e.plain = &plainFault{at: ends[draw.IntN(len(ends))], apart: draw.IntN(2) == 0}
				e.plain.insert = []string{"+OK\r\n", "-ERR\r\n"}[draw.IntN(2)]
			}
			m.do(e)
		}
	})
}

func someSession(draw *rand.Rand, security security) experiment {
	all := sessions()
	e := all[draw.IntN(len(all))]
	e.security = security
	return e
}

// ends returns where replies end in a session without a fault.
func (m *machine) ends(e experiment) []int {
	e.security = inClear
	if m.replies == nil {
		m.replies = map[string][]int{}
	}
	key := e.String()
	if m.replies[key] == nil {
		m.replies[key] = m.do(e).session.ends
	}
	return m.replies[key]
}

// lengths returns roughly how many octets are sent in each direction in a session of a program. In shorter sessions
// some faults would happen too late.
func (m *machine) lengths(p program, security security) (down, up int) {
	e := experiment{server: servers()[0], program: p, security: security, at: -1}
	if m.known == nil {
		m.known = map[string]*wire{}
	}
	if m.known[p.name] == nil {
		m.known[p.name] = m.do(e).w
	}
	return m.known[p.name].down.passed, m.known[p.name].up.passed
}

// strikeSomewhere draws a fault and its place, in either direction. TLS detects a changed octet, so all invariants are
// checked.
func (m *machine) strikeSomewhere(draw *rand.Rand, e experiment, down, up int) {
	if draw.IntN(2) == 0 {
		e.fault, e.at = downFaults[draw.IntN(len(downFaults))], draw.IntN(down+1)
	} else {
		e.fault, e.at, e.up = upFaults[draw.IntN(len(upFaults))], draw.IntN(up+1), true
	}
	m.do(e)
}
