package main

import (
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
	eventually(t, "all are acknowledged", r.idle)
	r.wantOnce(60)
	assert.EqualValues(t, 30, w1.metric("fleet_polls_total")+w2.metric("fleet_polls_total"))
	assert.EqualValues(t, 2, r.record(r.lab.Accounts[0].Name).Total)
}

// The program that is deployed has no NATS server, no laboratory and nothing else for tests in it.
func TestNoServerInBinary(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for name := range strings.Lines(string(out)) {
		for _, part := range []string{"nats-server", "fleet/lab", "pop3test", "testify"} {
			assert.NotContains(t, name, part)
		}
	}
}
