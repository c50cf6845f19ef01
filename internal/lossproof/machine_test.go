package lossproof

import (
	"fmt"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A machine carries out experiments and counts the results.
type machine struct {
	t        *testing.T
	memory   memory
	known    map[string]*wire // wire of a session without a fault, for each program
	replies  map[string][]int // places where replies end in a session without a fault
	runs     int
	failed   int // sessions that ended early; most sessions must
	counts   map[string]int
	seen     map[string]bool // kinds of violations for which an example was recorded
	examples []string
}

// maxExamples is how many violations are shown.
const maxExamples = 20

func (m *machine) do(e experiment) *run {
	if m.memory == nil {
		m.memory = memory{}
	}
	var r *run
	// Each run has a bubble of its own. A run waits for minutes, and the clock of a bubble ends in the year 2262.
	synctest.Test(m.t, func(*testing.T) { r = e.do(m.memory) })
	m.runs++
	if r.err != nil {
		m.failed++
	}
	for _, v := range r.violations {
		m.note(e, v)
	}
	return r
}

func (m *machine) note(e experiment, v violation) {
	if m.counts == nil {
		m.counts, m.seen = map[string]int{}, map[string]bool{}
	}
	m.counts[v.invariant]++
	kind := fmt.Sprint(v.invariant, e.server.name, e.fault.name, e.up)
	if !m.seen[kind] && len(m.examples) < maxExamples {
		m.seen[kind] = true
		m.examples = append(m.examples, fmt.Sprintf("%s: %s\n\t%v", v.invariant, v.what, e))
	}
}

func (m *machine) violations() (n int) {
	for _, count := range m.counts {
		n += count
	}
	return n
}

func (m *machine) String() string {
	var parts []string
	for invariant, n := range m.counts {
		parts = append(parts, fmt.Sprintf("%s %d", invariant, n))
	}
	sort.Strings(parts)
	return fmt.Sprintf("%d runs, %d sessions cut short, %d violations %s",
		m.runs, m.failed, m.violations(), strings.Join(parts, ", "))
}

// operate runs experiments and reports the violations.
func operate(t *testing.T, experiments func(m *machine)) {
	m := observe(t, experiments)
	for _, example := range m.examples {
		t.Error(example)
	}
}

// observe is like operate, for tests that expect violations.
func observe(t *testing.T, experiments func(m *machine)) *machine {
	m := &machine{t: t}
	began := time.Now()
	experiments(m)
	t.Logf("%v: %v", m, time.Since(began).Round(time.Millisecond))
	return m
}
