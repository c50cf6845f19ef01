package lossproof

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// breakages are mistakes in package fetch, each with a rule that the sequences must find broken.
var breakages = []struct {
	name string
	rule string
	file string // file of package fetch
	old  string
	new  string
}{
	{"C-038 a refused empty list is an error", "I0", "run.go",
		"failed == nil && maildrop.Count == 0 {", "failed == nil && maildrop.Count < 0 {"},
	{"a message that may be cut is deleted", "I1", "plan.go",
		"return e.Short && !r.AcceptShort && !r.record.hasSurplus(e)", "return false"},
	{"C-069 a message is deleted without a comparison", "I2", "commit.go",
		"if m.isStored() && s.due(", "if (m.isStored() || m.fate == knownBefore) && s.due("},
	{"an unconfirmed deletion is called deleted", "I3", "commit.go", "outcome = Unconfirmed", "outcome = Deleted"},
	{"a decision of Select is used for another message", "I5", "plan.go",
		"if !e.Skipped.IsZero() && e.Size != 0 && !(", "if false && !("},
	{"C-060 failed messages are tried first", "L1", "plan.go",
		"a.lastFailure().Compare(b.lastFailure())", "b.lastFailure().Compare(a.lastFailure())"},
	{"C-060 failed messages are never tried again", "L1", "plan.go", "e.Failures >= maxFailures &&",
		"e.Failures >= 1 &&"},
	{"C-073 no session follows a session with new messages", "L1", "run.go",
		"s.deliveredCount > 0 && s.state == stateOpen", "s.deliveredCount > 1<<20"},
	{"C-062 failed messages are tried before the deletions", "L2", "plan.go",
		"p.suspects = append(p.suspects, m)", "others = append(others, m)"},
	{"C-062 a deletion waits for a message of the same size", "L2", "commit.go",
		"if m.entry == nil && m.fate != handledBefore {", "if !m.isStored() {"},
	{"C-063 content that varies is not recognized", "L3", "plan.go", "b.varies = m.secondRetr &&",
		"b.varies = false &&"},
	{"C-064 the record is not tried before the first message", "L3", "retrieve.go",
		"if s.recordChecked {", "if !s.recordChecked {"},
	{"C-068 messages with new unique-ids are not recognized", "L3", "plan.go",
		"pop(p.unlistedByDigest, b.digest)", "pop(p.unlistedByDigest, \"\")"},
	{"a run goes on without progress", "L4", "run.go", "maxIdle     = 3", "maxIdle     = 1 << 20"},
	{"C-066 kept messages cause no error", "L5", "report.go", "if n := k.NotDeleted + k.Ambiguous; n > 0 {",
		"if n := k.NotDeleted + k.Ambiguous; n < 0 {"},
	{"messages that were not reached are not reported", "L5", "run.go",
		"case untried:\n\t\tr.yieldResult(", "case committed:\n\t\tr.yieldResult("},
	{"C-061 failed messages are tried in each run", "L6", "plan.go", "maxFailures   = 5", "maxFailures   = 1 << 20"},
	{"C-065 a deletion is tried in each run", "L6", "plan.go", "maxQuits      = 2", "maxQuits      = 1 << 20"},
}

// TestBreakages breaks package fetch in each of these ways, and checks that TestLiveness or TestLivenessOfCases finds
// it. By default it only checks that each breakage still fits the code. LOSSPROOF=full runs them, which takes a quarter
// of an hour.
func TestBreakages(t *testing.T) {
	for _, b := range breakages {
		t.Run(b.name, func(t *testing.T) {
			path, err := filepath.Abs(filepath.Join("..", "..", "fetch", b.file))
			require.NoError(t, err)
			source, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(string(source), b.old), "%q must be once in the code", b.old)
			if !runAll {
				return
			}
			dir := t.TempDir()
			broken, overlay := filepath.Join(dir, b.file), filepath.Join(dir, "overlay.json")
			require.NoError(t, os.WriteFile(broken, []byte(strings.Replace(string(source), b.old, b.new, 1)), 0o600))
			replace, err := json.Marshal(map[string]any{"Replace": map[string]string{path: broken}})
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(overlay, replace, 0o600))
			test := exec.Command("go", "test", "-count=1", "-v", "-run=^TestLiveness", "-overlay="+overlay, ".")
			test.Env = append(os.Environ(), "LIVENESS=count", "LOSSPROOF=")
			out, err := test.CombinedOutput()
			_, counts, found := strings.Cut(string(out), "sequences that break a rule: ")
			require.True(t, found, "%v: %s", err, out)
			counts, _, _ = strings.Cut(counts, "\n")
			t.Log(counts)
			inRow := strings.Contains(string(out), "** "+b.rule+":")
			assert.True(t, inRow || strings.Contains(counts, b.rule+":"), "%s is broken in no sequence", b.rule)
		})
	}
}
