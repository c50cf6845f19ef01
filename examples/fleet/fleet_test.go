package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
)

func TestAllAccountsArePolledOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 30, Servers: 2, Messages: 2, Bytes: 300})
	r.start("scheduler", "s1")
	r.start("scheduler", "s2")
	w1, w2 := r.start("worker", "w1"), r.start("worker", "w2")
	eventually(t, "all are polled", r.polledAll)
	eventually(t, "all have ended", func() bool { return w1.metric("fleet_polling")+w2.metric("fleet_polling") == 0 })
	r.wantOnce(60)
	assert.EqualValues(t, 30, w1.metric("fleet_polls_total")+w2.metric("fleet_polls_total"))
	assert.EqualValues(t, 2, r.record(r.lab.Accounts[0].Name).Total)
}

// The deployed program contains no NATS server, no lab and nothing else that is only for tests.
func TestNoServerInBinary(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for name := range strings.Lines(string(out)) {
		for _, part := range []string{"nats-server", "fleet/lab", "pop3test", "testify"} {
			assert.NotContains(t, name, part)
		}
	}
}

// The token of each account comes from a command. One token is correct, one is refused, and one is missing.
func TestTokenByCommand(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 3, Servers: 1, Messages: 1, Bytes: 300, TLS: true})
	token := r.lab.Accounts[0].Password
	fails := []string{"sh", "-c", "echo " + token + " >&2; exit 7"}
	for n, command := range [][]string{{"echo", token}, {"echo", "stale"}, fails} {
		r.lab.Accounts[n].Password, r.lab.Accounts[n].TokenCommand = "", command
	}
	require.NoError(t, r.lab.Save())
	r.start("scheduler", "s")
	w := r.start("worker", "w", "--ca", r.lab.CA())
	eventually(t, "all are polled", r.polledAll)
	tests := []struct {
		name  string
		total int64
		err   string
	}{
		{"the right token", 1, ""},
		{"a token that is refused", 0, "-ERR"},
		{"a command that fails", 0, "token command sh failed: exit status 7"},
	}
	for n, tt := range tests {
		rec := r.record(r.lab.Accounts[n].Name)
		assert.Equal(t, tt.total, rec.Total, tt.name)
		assert.Contains(t, rec.Error, tt.err, tt.name)
		assert.Equal(t, tt.err != "", rec.Fails == 1, tt.name)
	}
	assert.NotContains(t, w.log.String(), token)
}

// A Maildir that is missing although the history has messages of it is not made again (C-074): its file system may not
// be mounted.
func TestMaildirDisappears(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 1, Servers: 1, Messages: 1, Bytes: 300, Deliver: 5})
	r.start("scheduler", "s", often...)
	w := r.start("worker", "w")
	eventually(t, "mail is delivered", func() bool { return r.different() > 2 })
	require.NoError(t, os.Rename(r.mail, r.mail+".away"))
	require.NoError(t, os.Mkdir(r.mail, 0o700))
	handshakes := func() float64 { return w.metric("fleet_handshakes_total") }
	eventually(t, "polls fail", func() bool { return w.metric("fleet_polls_total", "failed") > 1 })
	before := handshakes()
	assert.Contains(t, r.record(r.lab.Accounts[0].Name).Error, "no such file or directory")
	eventually(t, "another poll fails", func() bool { return w.metric("fleet_polls_total", "failed") > 2 })
	assert.InDelta(t, before, handshakes(), 0, "nothing was fetched")
	require.NoError(t, os.Remove(r.mail))
	require.NoError(t, os.Rename(r.mail+".away", r.mail))
	was := r.different()
	eventually(t, "it goes on", func() bool { return r.different() > was })
	count, all := r.delivered()
	assert.Len(t, count, all, "nothing is delivered twice")
}

// Mistakes in flags are reported at once, even if NATS cannot be reached.
func TestMistakesInFlags(t *testing.T) {
	t.Parallel()
	r := &rig{T: t, lab: &lab.Lab{Dir: t.TempDir()}}
	short := r.file("short.key", "short")
	tests := []struct {
		name string
		args []string
		err  string
	}{
		{"no such sink", []string{"--sink", "nowhere"}, "--sink must be stream, or maildir: and a folder"},
		{"no certificate", []string{"--ca", short}, short + " contains no certificate"},
		{"no file", []string{"--ca", short + ".pem"}, "no such file or directory"},
		{"a short secret", []string{"--fingerprint-key", short}, short + ": a secret needs at least 16 bytes"},
		{"no accounts", []string{"--accounts", short + ".json"}, "no such file or directory"},
		{"an address that is none", []string{"--http", "nowhere"}, "missing port in address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &rig{T: t}
			p := r.exec("worker", nil, append([]string{"worker", "--http", "127.0.0.1:0"}, tt.args...)...)
			_, err := p.Output()
			require.ErrorContains(t, err, "exit status")
			assert.Contains(t, p.log.String(), tt.err)
		})
	}
}
