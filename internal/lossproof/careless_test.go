package lossproof

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestCareless shows that the tests find programs that lose mail, or that report what they can't know.
func TestCareless(t *testing.T) {
	for _, row := range []struct {
		name     string
		careless careless
		breaks   []string // the invariants that the program breaks
	}{
		{"DELE before the store", deletesFirst, []string{"I1", "I2"}},
		{"DELE of a message that is shorter than listed", deletesShort, []string{"I1", "I2"}},
		{"QUIT with EXPIRE 0 and a message that is not stored", quitsUnstored, []string{"I1"}},
		{"reported deleted, whatever Quit returns", alwaysReportsDeleted, []string{"I3"}},
		{"reported kept if Quit fails", alwaysReportsKept, []string{"I3"}},
		{"recorded before it is stored", recordsEarly, []string{"I1", "I2"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := programs[0]
			p.careless = row.careless
			m := countViolations(t, func(m *machine) { m.endAtSomeOctets(p) })
			for _, invariant := range row.breaks {
				assert.Positive(t, m.counts[invariant], invariant)
			}
		})
	}
	careful := countViolations(t, func(m *machine) { m.endAtSomeOctets(programs[0]) })
	assert.Zero(t, careful.violations())
}

// endAtSomeOctets ends the connection at every ninth octet that the server sends. It does so with every server.
func (m *machine) endAtSomeOctets(p program) {
	fin := downFaults[slices.IndexFunc(downFaults, func(f fault) bool { return f.name == "FIN" })]
	for i, s := range servers() {
		if i%4 > 0 {
			continue
		}
		e := experiment{server: s, program: p, faultAt: -1}
		down := m.run(e).w.down.passed
		for at := i % 9; at <= down; at += 9 {
			m.run(e.withFault(fin, false, at))
		}
	}
}
