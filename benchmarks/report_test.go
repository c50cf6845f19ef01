package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

func TestSpread(t *testing.T) {
	const us = time.Microsecond
	tests := []struct {
		name  string
		times []time.Duration
		want  string
	}{
		{"one", []time.Duration{1234 * us}, "1.23 ms"},
		{"odd", []time.Duration{30 * ms, 10 * ms, 20 * ms}, "20.0 ms (10.0–30.0)"},
		{"even", []time.Duration{40 * ms, 10 * ms, 20 * ms, 30 * ms}, "25.0 ms (10.0–40.0)"},
		{"seconds by the median", []time.Duration{900 * ms, 1100 * ms, 2 * time.Second}, "1.10 s (0.90–2.00)"},
		{"rounds up to three digits", []time.Duration{9996 * us}, "10.0 ms"},
		{"many", []time.Duration{51_600 * ms}, "51.6 s"},
		{"hundreds", []time.Duration{154_400 * ms}, "154 s"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { assert.Equal(t, test.want, spreadOf(test.times).String()) })
	}
}

// sample is an example of a report.
func sampleReport() *report {
	r := newReport(quick)
	r.workloads = quick.workloads("Dovecot", "pop3test")
	r.results, r.failures = make(map[cell][]clients.Result), make(map[cell]error)
	seconds := map[string]float64{"pop3": 0.5, "bare loop": 0.4, "curl": 51.5}
	for _, c := range clients.All() {
		about := clients.Description{Client: c}
		if c.Silent {
			about.Startup, about.Base = 5*ms, 8<<20
		}
		r.clients = append(r.clients, about)
		total, ok := seconds[c.Name]
		if !ok {
			continue
		}
		for _, s := range r.workloads {
			near := clients.Result{Total: 100 * ms, LoggedIn: 20 * ms, Done: 90 * ms, Base: 8 << 20, Peak: 10 << 20}
			far := near
			far.Total = time.Duration(total * float64(time.Second))
			far.LoggedIn, far.Done = 220*ms, far.Total-50*ms
			if c.Silent {
				near.LoggedIn, near.Done, near.Base, far.LoggedIn, far.Done = 0, 0, 0, 0, 0
			}
			r.results[cell{s.id, c.Name, 0}] = []clients.Result{near}
			r.results[cell{s.id, c.Name, preferredTrip}] = []clients.Result{far}
		}
	}
	r.failures[cell{fetchWorkload, "mpop", preferredTrip}] = errors.New("it fell over")
	r.acks = []ackRow{
		{server: "Courier", version: "1.0", quickTimes: []time.Duration{150 * ms}, delayedTime: 33 * time.Second},
		{server: "Cyrus", version: "3.6", err: errors.New("no")},
	}
	r.note("a remark")
	return r
}

func TestReport(t *testing.T) {
	var b strings.Builder
	require.NoError(t, sampleReport().write(&b))
	for _, want := range []string{
		"## Fetching 100 messages of 6 kB from Dovecot\n",
		"| client | 0 ms | 50 ms | × pop3 at 50 ms | round trips | of them after login, before QUIT |\n",
		"| pop3 | 100 ms | 500 ms | 1.00 | 8.0 | 3.2 |\n",
		"| bare loop | 100 ms | 400 ms | 0.80 | 6.0 | 1.2 |\n",
		"| curl | 100 ms | 51.5 s | 103 | 1028.0 | – |\n",
		"| mpop | – | failed | – | – | – |\n",
		"## One message of 20 MB from pop3test over TLS\n",
		"| pop3 | 100 ms | 1.00 | 200 | 10.0 MiB |\n",
		"| knadh/go-pop3 | – | – | – | – |\n",
		"| pop3 | 2.00 MiB | 2.00 MiB |",
		"| curl | 2.00 MiB | 2.00 MiB |",
		"| Courier | 1.0 | 150 ms | 33.0 s | 220 |\n| Cyrus | 3.6 | failed | failed | – |\n",
		"- a remark\n",
		"- `curl --version` takes 5.00 ms and 8.00 MiB.\n",
		"- mpop failed (Fetching 100 messages of 6 kB from Dovecot, 50 ms): it fell over.\n",
	} {
		assert.Contains(t, b.String(), want)
	}
}

func TestCharts(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, sampleReport().save(dir))
	for file, names := range map[string][]string{
		"fetch.svg":    {"round trip 50 ms", "pop3", "bare loop", "curl", "51.5 s"},
		"fastest.svg":  {"the fastest", "pop3", "bare loop", "prefers-color-scheme: dark"},
		"poll.svg":     {"pop3", "curl"},
		"large.svg":    {"pop3", "curl"},
		"memory.svg":   {"pop3", "2.00 MiB"},
		"quickack.svg": {"Courier", "150 ms", "33.0 s"},
	} {
		svg, err := os.ReadFile(dir + "/" + file)
		require.NoError(t, err)
		for _, name := range names {
			assert.Contains(t, string(svg), name, file)
		}
		assert.NotContains(t, string(svg), "Cyrus")
		for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
			_, err := d.Token()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
		}
	}
}
