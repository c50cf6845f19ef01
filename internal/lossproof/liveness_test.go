package lossproof

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/race"
)

// These are the numbers of sequences of TestLiveness.
const (
	someSequences = 2_000 / race.Stride
	allSequences  = 11_000
)

// runSequence carries out the sequence of a recipe in a bubble of its own.
func runSequence(t *testing.T, r recipe) (q *sequence) {
	synctest.Test(t, func(*testing.T) { q = r.run() })
	return q
}

// breaksRule reports whether the sequence breaks a rule.
func breaksRule(t *testing.T, r recipe, rule string) bool {
	return slices.ContainsFunc(runSequence(t, r).violations, func(v violation) bool { return v.invariant == rule })
}

// TestLiveness carries out sequences of runs with combinations of lasting faults, drawn with a seed. LIVENESS=12 prints
// the log of seed 12. LIVENESS=count only counts the sequences that break a rule.
func TestLiveness(t *testing.T) {
	if seed, err := strconv.ParseUint(os.Getenv("LIVENESS"), 10, 64); err == nil {
		t.Log(runSequence(t, drawRecipe(seed)).fullLog())
		return
	}
	l := liveness{t: t, brokenRules: map[string]int{}}
	began := time.Now()
	n := someSequences
	if runAll {
		n = allSequences
	}
	for seed := range n {
		l.check(drawRecipe(uint64(seed)))
	}
	t.Logf("%d sequences, %d runs, %d sessions in %v; sequences that break a rule: %v",
		n, l.runs, l.sessions, time.Since(began).Round(time.Second), l.brokenRules)
}

// A liveness counts the rules that sequences have broken.
type liveness struct {
	t              *testing.T
	runs, sessions int
	brokenRules    map[string]int // by rule
	shown          int
}

func (l *liveness) check(r recipe) {
	q := runSequence(l.t, r)
	l.runs += q.run
	l.sessions += q.box.sessions
	rules := map[string]bool{}
	for _, v := range q.violations {
		rules[v.invariant] = true
	}
	for _, rule := range slices.Sorted(maps.Keys(rules)) {
		l.brokenRules[rule]++
		if l.shown++; l.shown <= maxExamples && os.Getenv("LIVENESS") != "count" {
			small := r.shrink(func(r recipe) bool { return breaksRule(l.t, r, rule) })
			l.t.Errorf("%s is broken: %v\nshrunk: %v", rule, r, runSequence(l.t, small).fullLog())
		}
	}
}

// fullLog returns the recipe and the log of a sequence.
func (q *sequence) fullLog() string {
	return fmt.Sprint(q.recipe, "\n", q.log.String(), "\n", q.violations)
}

// TestLivenessOfCases has the situations that users have reported, by the ids of cases.
func TestLivenessOfCases(t *testing.T) {
	for _, row := range []struct {
		name     string
		messages int // number of messages at the beginning
		interval time.Duration
		faults   []chosenFault
	}{
		{"C-001 a cut message and an extra reply", 8, time.Hour, faultsOf("Delete", "cut, and an extra reply@2")},
		{"C-003 the maildrop can't be opened", 3, time.Hour, faultsOf("the maildrop can't be opened in two runs")},
		{"C-015 UIDL not announced", 6, time.Hour, faultsOf("UIDL not announced")},
		{"C-038 empty lists refused", 3, time.Hour, faultsOf("Delete", "empty lists refused")},
		{"C-039 malformed line in LIST", 5, time.Hour, faultsOf("Delete", "malformed line in LIST@2")},
		{"C-039 malformed line in UIDL", 5, time.Hour, faultsOf("Delete", "malformed line in UIDL@2")},
		{"C-040 LIST with a number refused", 5, time.Hour, faultsOf("Delete", "LIST with a number refused")},
		{"C-041 EXPIRENEVER", 5, time.Hour,
			faultsOf("Delete", "EXPIRENEVER", "sink refuses the message@1", "LOGIN-DELAY")},
		{"C-060 the sink refuses ten", 14, time.Hour, faultsOf("Delete", "sink refuses the message@1-10")},
		{"C-060 RETR refuses ten", 14, time.Hour, faultsOf("Delete", "RETR refused@1-10")},
		{"C-060 three hang up", 8, time.Hour, faultsOf("Delete", "RETR hangs up@1-3")},
		{"C-060 three stall", 8, time.Hour, faultsOf("Delete", "RETR stalls@1-3")},
		{"C-060 MaxMessages", 8, time.Hour, faultsOf("Delete", "MaxMessages 3", "sink refuses the message@1-3")},
		{"C-060 MaxOctets", 8, time.Hour, faultsOf("Delete", "MaxOctets", "sink refuses the message@1-5")},
		{"C-060 ten larger than listed", 14, time.Hour, faultsOf("Delete", "larger than listed and too large@1-10")},
		{"C-061 the sink refuses one", 5, 10 * time.Minute, faultsOf("Delete", "sink refuses the message@2")},
		{"C-062 lock", 5, time.Hour, faultsOf("Delete", "sink refuses the message@2",
			"lock after a session without QUIT")},
		{"C-062 lock without code", 5, time.Hour,
			faultsOf("Delete", "RETR hangs up@2", "lock without code after a session without QUIT")},
		{"C-062 LOGIN-DELAY", 5, time.Hour, faultsOf("Delete", "sink refuses the message@2", "LOGIN-DELAY")},
		{"C-062 delay without code", 5, time.Hour,
			faultsOf("Delete", "sink refuses the message@2", "a delay between logins, refused without code")},
		{"C-062 no UIDL", 5, time.Hour, faultsOf("Delete", "sink refuses the message@2", "no UIDL")},
		{"C-063 content that differs", 5, time.Hour,
			faultsOf("Delete", "content differs each time@2", "QUIT falsely confirms")},
		{"C-064 record never written", 3, time.Hour, faultsOf("Delete", "record never written")},
		{"C-064 record full", 3, time.Hour, faultsOf("record full from the second run on")},
		{"C-065 QUIT never answered", 4, time.Hour, faultsOf("Delete", "QUIT removes nothing and is not answered")},
		{"C-066 LIST counts two more", 5, time.Hour, faultsOf("Delete", "LIST counts two more")},
		{"C-066 LIST counts three for each line", 5, time.Hour, faultsOf("Delete", "LIST counts a line end as three")},
		{"C-067 QUIT falsely confirms", 4, time.Hour, faultsOf("Delete", "QUIT falsely confirms")},
		{"C-068 unique-ids change once", 6, time.Hour, faultsOf("unique-ids change once")},
		{"C-068 unique-ids change in each session", 6, time.Hour,
			faultsOf("Delete after two hours", "CommitEvery 1", "unique-ids change in each session")},
		{"C-069 positions", 6, time.Hour, faultsOf("Delete after two hours", "unique-ids are positions",
			"all sizes equal", "another program deletes")},
		{"C-070 folded notes", 2, time.Hour, faultsOf("Delete after two hours", "no UIDL",
			"the fourth message differs from the first in folded lines of a note", "another program deletes")},
		{"C-072 slow sink", 10, time.Hour, faultsOf("slow sink, and a server that hangs up when idle")},
		{"C-072 slow sink, no PIPELINING", 10, time.Hour,
			faultsOf("no PIPELINING", "slow sink, and a server that hangs up when idle")},
		{"C-073 a part per session", 12, time.Hour, faultsOf("a session lists three messages")},
		{"C-073 a part per session, LOGIN-DELAY", 12, time.Hour,
			faultsOf("a session lists three messages", "LOGIN-DELAY")},
		{"C-078 LOGIN-DELAY of 292 years", 3, time.Hour, faultsOf("LOGIN-DELAY of 292 years")},
		{"C-079 the reply to CAPA never ends", 3, time.Hour, faultsOf("the reply to CAPA never ends")},
		{"C-080 clock slow", 3, time.Hour, faultsOf("Delete after two hours", "the clock was thirty years slow")},
		{"C-080 clock fast", 3, time.Hour, faultsOf("Delete after two hours", "the clock was thirty years fast")},
	} {
		t.Run(row.name, func(t *testing.T) {
			q := runSequence(t, recipe{messages: row.messages, runs: 9, interval: row.interval, faults: row.faults})
			assert.Empty(t, q.violations, q.fullLog())
		})
	}
}

// faultsOf finds faults by name. "@2" stands for the second message, and "@1-3" for the first three.
func faultsOf(names ...string) (faults []chosenFault) {
	all := slices.Concat(messageFaults, otherFaults, caseFaults)
	for _, name := range names {
		name, where, _ := strings.Cut(name, "@")
		i := slices.IndexFunc(all, func(f *lastingFault) bool { return f.name == name })
		if i < 0 {
			panic("no fault is named " + name)
		}
		from, to := 1, 1
		if n, _ := fmt.Sscanf(where, "%d-%d", &from, &to); n == 1 {
			to = from
		}
		for num := from; num <= to; num++ {
			faults = append(faults, chosenFault{all[i], num - 1})
		}
	}
	return faults
}

// TestShrink shows that a failure is reduced to the faults that cause it.
func TestShrink(t *testing.T) {
	r := drawRecipe(3)
	r.faults = append(r.faults, faultsOf("QUIT falsely confirms", "RETR refused@3")...)
	small := r.shrink(func(r recipe) bool { return r.has("QUIT falsely confirms") })
	require.Len(t, small.faults, 1)
	assert.Equal(t, "QUIT falsely confirms", small.faults[0].name)
	assert.Equal(t, 1, small.messages)
}
