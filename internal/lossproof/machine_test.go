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
	t           *testing.T
	results     resultCache
	goodWires   map[string]*wire // wires of sessions without faults, by the name of the program
	replyEnds   map[string][]int // places where replies end in sessions without faults, by experiment
	experiments int
	failed      int // number of first sessions that ended early
	counts      map[string]int
	shownKinds  map[string]bool // kinds of violations for which an example was recorded
	examples    []string
}

// maxExamples is the number of violations that are shown.
const maxExamples = 20

func (m *machine) run(e experiment) *run {
	if m.results == nil {
		m.results = resultCache{}
	}
	var r *run
	// Each run has a bubble of its own. A run waits for minutes, and the clock of a bubble ends in the year 2262.
	synctest.Test(m.t, func(*testing.T) { r = e.run(m.results) })
	m.experiments++
	if r.err != nil {
		m.failed++
	}
	for _, v := range r.violations {
		m.countViolation(e, v)
	}
	return r
}

func (m *machine) countViolation(e experiment, v violation) {
	if m.counts == nil {
		m.counts, m.shownKinds = map[string]int{}, map[string]bool{}
	}
	m.counts[v.invariant]++
	kind := fmt.Sprint(v.invariant, e.server.name, e.fault.name, e.fromClient)
	if !m.shownKinds[kind] && len(m.examples) < maxExamples {
		m.shownKinds[kind] = true
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
		m.experiments, m.failed, m.violations(), strings.Join(parts, ", "))
}

// checkExperiments runs experiments and reports the violations.
func checkExperiments(t *testing.T, experiments func(m *machine)) {
	m := countViolations(t, experiments)
	for _, example := range m.examples {
		t.Error(example)
	}
}

// countViolations is like checkExperiments, for tests that expect violations.
func countViolations(t *testing.T, experiments func(m *machine)) *machine {
	m := &machine{t: t}
	began := time.Now()
	experiments(m)
	t.Logf("%v: %v", m, time.Since(began).Round(time.Millisecond))
	return m
}
