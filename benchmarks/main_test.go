package main

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

// TestMain lets the test binary also run as the child process that carries out a session.
func TestMain(m *testing.M) {
	clients.Child()
	os.Setenv("GORACE", "atexit_sleep_ms=0") // otherwise each child waits a second at its end
	os.Exit(m.Run())
}

// smoke is the smallest plan. It only shows that everything runs.
var smoke = sizes{
	few: 10, many: 20, small: 600, large: 100_000, listed: 100,
	trips: []time.Duration{0, 4 * ms}, runs: 1, shortRuns: 1,
}

// TestRun carries out the whole plan with the server in memory and with every client on this machine.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	var progress, printed bytes.Buffer
	require.NoError(t, run(t.Context(), smoke, false, dir, io.MultiWriter(&progress, t.Output()), &printed))
	saved, err := os.ReadFile(dir + "/RESULTS.md")
	require.NoError(t, err)
	assert.Equal(t, printed.String(), string(saved))
	assert.Contains(t, printed.String(), "## Fetching 20 messages of 0 kB from pop3test")
	assert.NotContains(t, printed.String(), "failed", progress.String())
	assert.Contains(t, printed.String(), "| pop3, PLAIN | ")
	for _, chart := range []string{"fetch", "poll", "large", "memory"} {
		assert.FileExists(t, dir+"/"+chart+".svg")
	}
}

// A client that does not do all of the work counts as failed.
func TestCheck(t *testing.T) {
	tests := []struct {
		name      string
		work      clients.Work
		r         clients.Result
		remaining int
		wantErr   string
	}{
		{"all messages", clients.Fetch, clients.Result{Messages: 10, Octets: 60_000}, 10, ""},
		{"lines counted without CR", clients.Fetch, clients.Result{Messages: 10, Octets: 59_300}, 10, ""},
		{"client that reports no counts",
			clients.Fetch, clients.Result{Messages: -1, Octets: -1}, 10, ""},
		{"one message less", clients.Fetch, clients.Result{Messages: 9, Octets: 60_000}, 10,
			"9 messages instead of 10"},
		{"too few octets", clients.Fetch, clients.Result{Messages: 10, Octets: 54_000}, 10,
			"54000 octets instead of about 60000"},
		{"too many octets", clients.Fetch, clients.Result{Messages: 10, Octets: 80_000}, 10,
			"80000 octets instead of about 60000"},
		{"deleted", clients.Dele, clients.Result{Messages: 10}, 0, ""},
		{"not all deleted", clients.Dele, clients.Result{Messages: 10}, 1, "1 messages are left"},
		{"listed", clients.Uidl, clients.Result{Messages: 10}, 10, ""},
		{"nothing listed", clients.Uidl, clients.Result{}, 10, "0 messages instead of 10"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &workload{work: test.work, drop: maildrop{10, 6000}}
			err := s.check(test.r, &account{remaining: func() (int, error) { return test.remaining, nil }})
			if test.wantErr == "" {
				assert.NoError(t, err)
			} else {
				assert.EqualError(t, err, test.wantErr)
			}
		})
	}
}
