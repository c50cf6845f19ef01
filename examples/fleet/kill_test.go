package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
)

// rounds is how often the tests run that depend on chance: FLEET_ROUNDS, or once.
func rounds() int {
	n, _ := strconv.Atoi(os.Getenv("FLEET_ROUNDS"))
	return max(1, n)
}

// Workers are killed with SIGKILL in the middle of polls that delete delivered messages. In the end each message is in
// a Maildir. Only messages that were being delivered when a worker died may be there twice.
func TestKilledWorkersLoseNothing(t *testing.T) {
	t.Parallel()
	const boxes, messages, kills, sessions = 40, 6, 4, 4
	for range rounds() {
		r := newRig(t, lab.Size{Boxes: boxes, Servers: 2, Messages: messages, Bytes: 300})
		for n := range r.lab.Accounts {
			r.lab.Accounts[n].Delete = true
		}
		require.NoError(t, r.lab.Save())
		hire := func(n int) *process {
			return r.start("worker", fmt.Sprint("w", n), "--sessions", strconv.Itoa(sessions))
		}
		r.start("scheduler", "s")
		crew := [2]*process{hire(0), hire(1)}
		for n := range kills {
			goal := (n*boxes*messages + rand.IntN(boxes*messages)) / (kills + 1)
			eventually(t, "some are delivered", func() bool { _, all := r.delivered(); return all > goal })
			crew[n%2].Kill()
			crew[n%2] = hire(n + 2)
		}
		eventually(t, "all are polled", r.polledAll)
		count, all := r.delivered()
		assert.Len(t, count, boxes*messages)
		t.Logf("%d messages, %d kills, %d lost, %d repeated", len(count), kills, boxes*messages-len(count),
			all-len(count))
		assert.LessOrEqual(t, all-len(count), kills*sessions)
	}
}

// Every part is restarted under load, one after the other: NATS, both schedulers, both workers. Nothing is lost or
// delivered twice. No maildrop is polled twice at once, because its server would have replied IN-USE.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	const boxes, messages = 60, 4
	for range rounds() {
		r := newRig(t, lab.Size{Boxes: boxes, Servers: 2, Messages: messages, Bytes: 300, Delay: 20 * time.Millisecond})
		processes := map[string]*process{}
		start := func(name string) {
			if name[0] == 's' {
				processes[name] = r.start("scheduler", name, often...)
				return
			}
			processes[name] = r.start("worker", name, "--max-messages", "2")
		}
		names := []string{"s1", "s2", "w1", "w2"}
		for _, name := range names {
			start(name)
		}
		var polls, inUse float64
		settle := func(p *process) {
			polls += p.metric("fleet_polls_total")
			inUse += p.metric("fleet_errors_total", "IN-USE")
		}
		eventually(t, "some are delivered", func() bool { _, all := r.delivered(); return all > boxes })
		for _, name := range names {
			settle(processes[name])
			require.NoError(t, processes[name].Stop(), "SIGTERM ends it with status 0: %s", processes[name].log)
			start(name)
			eventually(t, name+" is ready again", processes[name].ready)
		}
		require.NoError(t, r.nats.Stop())
		r.startNATS(portOf(r.url))
		eventually(t, "all is delivered", func() bool { return r.different() == boxes*messages })
		eventually(t, "polls go on", func() bool { return processes["w1"].metric("fleet_polls_total") > boxes })
		for _, name := range names {
			settle(processes[name])
		}
		assert.Zero(t, inUse, "polled twice at once")
		r.wantOnce(boxes * messages)
		t.Logf("%d messages, %.0f polls, 0 lost, 0 twice, %.0f polled twice at once", boxes*messages, polls, inUse)
	}
}

// A cluster of three NATS servers loses the leader of the records, and then a second server. While two servers are away
// nothing is polled. When one of them is back, polls continue.
func TestClusterLosesServers(t *testing.T) {
	t.Parallel()
	const boxes, messages = 60, 4
	r := &rig{T: t}
	dir := t.TempDir()
	r.mail = dir + "/mail"
	require.NoError(t, os.Mkdir(r.mail, 0o700))
	var err error
	r.lab, err = lab.Open(dir, lab.Size{Boxes: boxes, Servers: 2, Messages: messages, Bytes: 300})
	require.NoError(t, err)
	t.Cleanup(r.lab.Close)
	ports := []string{freePort(t), freePort(t), freePort(t)}
	routes := []string{freePort(t), freePort(t), freePort(t)}
	servers := map[string]*lab.Child{}
	begin := func(n int) {
		var all string
		for i := range 3 {
			all += "nats-route://127.0.0.1:" + routes[(n+i)%3] + ","
		}
		c, err := lab.Spawn("nats", "--name", fmt.Sprint("n", n), "--dir", fmt.Sprint(dir, "/nats", n),
			"--port", ports[n], "--routes", all[:len(all)-1], "--sync=false")
		require.NoError(t, err)
		t.Cleanup(c.Kill)
		servers[fmt.Sprint("n", n)] = c
	}
	for n := range 3 {
		begin(n)
		r.url += ",nats://127.0.0.1:" + ports[n]
	}
	r.url = r.url[1:]
	eventually(t, "the cluster has a leader", func() bool {
		out, err := r.try("init", "--replicas", "3", "--silence", testSilence.String())
		if err != nil {
			t.Log(lastLines(out, 3))
		}
		return err == nil
	})
	r.join()
	r.start("scheduler", "s1", often...)
	s2 := r.start("scheduler", "s2", often...)
	w1, w2 := r.start("worker", "w1"), r.start("worker", "w2")
	eventually(t, "some are delivered", func() bool { _, all := r.delivered(); return all > boxes })
	lose := func() int {
		records, err := r.bus.js.Stream(t.Context(), "KV_schedules")
		require.NoError(t, err)
		info := records.CachedInfo()
		servers[info.Cluster.Leader].Kill()
		var n int
		fmt.Sscanf(info.Cluster.Leader, "n%d", &n)
		return n
	}
	polls := func() float64 { return w1.metric("fleet_polls_total") + w2.metric("fleet_polls_total") }
	first, from := lose(), time.Now()
	before := polls()
	eventually(t, "polls go on with two servers", func() bool { return polls() > before+30 })
	t.Logf("one of three lost: 30 polls after %v", time.Since(from))
	lose()
	eventually(t, "a worker is not ready with one server", func() bool { return !w1.ready() || !w2.ready() })
	begin(first)
	from, before = time.Now(), polls()
	eventually(t, "polls go on with two servers again", func() bool { return polls() > before+30 })
	t.Logf("two of three lost, one back: 30 polls after %v", time.Since(from))
	eventually(t, "all is delivered", func() bool { return r.different() == boxes*messages })
	r.wantOnce(boxes * messages)
	assert.Zero(t, w1.metric("fleet_errors_total", "IN-USE")+w2.metric("fleet_errors_total", "IN-USE"))
	eventually(t, "a scheduler is ready", s2.ready)
	for _, s := range []stream{recordStream, seenStream, leaderStream, mailStream} {
		opened, err := r.bus.js.Stream(t.Context(), s.name)
		require.NoError(t, err)
		assert.Equal(t, 3, opened.CachedInfo().Config.Replicas, s.name)
	}
}
