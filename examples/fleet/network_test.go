package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
)

// A subnet consists of three network namespaces, and an address outside of them that all of them can reach.
type subnet struct {
	*testing.T
	id int
}

func newSubnet(t *testing.T) subnet {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil || os.Getuid() != 0 {
		t.Skip("NOT RUN: namespaces need root and the command ip (apt-get install iproute2)")
	}
	s := subnet{t, os.Getpid()}
	bridge := fmt.Sprint("fleet", s.id)
	s.ip("link", "add", bridge, "type", "bridge")
	t.Cleanup(func() { s.ip("link", "del", bridge) })
	s.ip("addr", "add", s.address(outside)+"/24", "dev", bridge)
	s.ip("link", "set", bridge, "up")
	for n := range 3 {
		link := fmt.Sprint(bridge, "v", n)
		s.ip("netns", "add", s.namespace(n))
		t.Cleanup(func() { s.ip("netns", "del", s.namespace(n)) })
		s.ip("link", "add", link, "master", bridge, "type", "veth", "peer", "name", "eth0", "netns", s.namespace(n))
		t.Cleanup(func() { s.ip("link", "del", link) })
		s.ip("link", "set", link, "up")
		s.ip("-n", s.namespace(n), "addr", "add", s.address(n)+"/24", "dev", "eth0")
		s.ip("-n", s.namespace(n), "link", "set", "eth0", "up")
		s.ip("-n", s.namespace(n), "link", "set", "lo", "up")
	}
	return s
}

const outside = 99

func (s subnet) address(n int) string {
	return fmt.Sprintf("10.%d.%d.%d", 64+s.id/256%64, s.id%256, n+1)
}
func (s subnet) namespace(n int) string { return fmt.Sprint("fleet", s.id, "n", n) }

func (s subnet) ip(args ...string) {
	s.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(s, err, "ip %v: %s", args, out)
}

// route adds or deletes the routes that cut off the first namespace from the others.
func (s subnet) route(what string) {
	s.Helper()
	for n := 1; n < 3; n++ {
		s.ip("-n", s.namespace(0), "route", what, "blackhole", s.address(n)+"/32")
	}
}

// startCluster starts a NATS server in each namespace.
func (r *rig) startCluster(net subnet) {
	r.Helper()
	for n := range 3 {
		routes := ""
		for i := range 3 {
			routes += ",nats-route://" + net.address((n+i)%3) + ":6222"
		}
		c, err := lab.Start(exec.Command("ip", "netns", "exec", net.namespace(n), lab.Program, "nats",
			"--host", net.address(n), "--port", "4222", "--name", fmt.Sprint("n", n),
			"--dir", fmt.Sprint(r.lab.Dir, "/nats", n), "--routes", routes[1:], "--sync=false"), os.Stderr)
		require.NoError(r, err)
		r.Cleanup(c.Kill)
		r.url += ",nats://" + net.address(n) + ":4222"
	}
	r.url = r.url[1:]
	eventually(r.T, "the cluster has a leader", func() bool {
		_, err := r.try("init", "--replicas", "3", "--silence", testSilence.String())
		return err == nil
	})
	r.join()
}

// A network is cut into two parts. One part has a NATS server, a scheduler that leads, and a worker in the middle of
// its polls. The other part has two NATS servers, a scheduler and a worker. Both workers can reach the POP3 server all
// the time. No maildrop is polled twice at once, and nothing is lost.
func TestNetworkIsCutInTwo(t *testing.T) {
	t.Parallel()
	const boxes, messages = 60, 4
	net := newSubnet(t)
	r := &rig{T: t, lab: &lab.Lab{Dir: t.TempDir()}}
	r.mail = r.lab.Dir + "/mail"
	require.NoError(t, os.Mkdir(r.mail, 0o700))
	t.Cleanup(r.lab.Close)
	require.NoError(t, r.lab.Start(0, 0, boxes, false, "--addr", net.address(outside)+":0",
		"--count", fmt.Sprint(boxes), "--messages", fmt.Sprint(messages), "--size", "300", "--delay", "30ms"))
	require.NoError(t, r.lab.Save())
	r.startCluster(net)
	side := func(n int) (s, w *process) {
		r.namespace = net.namespace(n)
		s = r.start("scheduler", fmt.Sprint("s", n), append(often, "--http", net.address(n)+":8080")...)
		eventually(t, "the scheduler is ready", s.ready)
		return s, r.start("worker", fmt.Sprint("w", n), "--http", net.address(n)+":8081", "--max-messages", "1",
			"--mechanisms", "SCRAM-SHA-256") // without TLS, Login would not use PLAIN
	}
	_, w0 := side(0)
	s1, w1 := side(1)
	eventually(t, "some are delivered", func() bool { return r.different() > boxes })
	net.route("add")
	from, before := time.Now(), w1.metric("fleet_polls_total")
	eventually(t, "the other scheduler leads", func() bool { return s1.metric("fleet_leader") == 1 })
	eventually(t, "the worker that is cut off is not ready", func() bool { return !w0.ready() })
	sessions := w0.metric("fleet_handshakes_total")
	eventually(t, "the others go on", func() bool { return w1.metric("fleet_polls_total") > before+60 })
	assert.InDelta(t, sessions, w0.metric("fleet_handshakes_total"), 0, "it polls nothing")
	cut := time.Since(from)
	net.route("del")
	eventually(t, "it polls again", func() bool { return w0.ready() && w0.metric("fleet_handshakes_total") > sessions })
	eventually(t, "all is delivered", func() bool { return r.different() == boxes*messages })
	count, all := r.delivered()
	inUse := w0.metric("fleet_errors_total", "IN-USE") + w1.metric("fleet_errors_total", "IN-USE")
	assert.Zero(t, inUse, "polled twice at once")
	assert.LessOrEqual(t, all-len(count), 8, "one for each session that was cut between delivery and note")
	t.Logf("cut in two for %v: %d messages, 0 lost, %d twice, %v polled twice at once", cut.Round(time.Second),
		len(count), all-len(count), inUse)
}
