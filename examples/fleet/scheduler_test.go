package main

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
	"github.com/seed-2d50cddb/pop3/examples/fleet/leases"
)

const testSilenceTime = 30 * time.Second

// loneScheduler is a scheduler without NATS, with accounts a to e that are due.
func loneScheduler() *Scheduler {
	bus := &Bus{silence: testSilenceTime, clock: natsClock{epoch, time.Now()}}
	s := &Scheduler{service: service{bus: bus}, workers: make(map[string]*workerState), loaded: true,
		planner: testPlanner(Limits{Rate: math.MaxFloat64, Sessions: 10})}
	for n, key := range []string{"a", "b", "c", "d", "e"} {
		s.planner.set(key, at("h", 0), uint64(n+1), epoch)
	}
	return s
}

func says(id string, polls map[string]uint64) hello {
	return hello{ID: id, Name: id, Polls: polls, Free: 2}
}

// A poll that the worker's hello does not name is free at once: the answer with the grant was lost, or the poll has
// ended. So it does not count against its host either.
func TestGrantsThatAreLost(t *testing.T) {
	s := loneScheduler()
	all := s.grantsFor(s.update(says("w", map[string]uint64{})))
	require.Len(t, all, 2)
	assert.Equal(t, 2, s.planner.host("h").running)
	w := s.update(says("w", map[string]uint64{all[1].Key: all[1].Revision}))
	assert.Equal(t, 1, s.planner.host("h").running)
	assert.Contains(t, s.planner.holders, all[1].Key)
	assert.NotContains(t, s.planner.holders, all[0].Key)
	again := make(map[string]bool)
	for range 2 {
		for _, g := range s.grantsFor(w) {
			again[g.Key] = true
		}
	}
	assert.True(t, again[all[0].Key], "it is handed out again")
	assert.False(t, again[all[1].Key])
	// The worker does not know yet that the poll has ended.
	stopped := says("w", map[string]uint64{all[1].Key: all[1].Revision})
	stopped.Stopped = true
	s.update(stopped)
	assert.Empty(t, s.planner.holders)
	assert.Empty(t, s.workers)
}

// A worker with the same name as an earlier one does not have its polls.
func TestWorkersAreKnownByID(t *testing.T) {
	s := loneScheduler()
	s.update(says("killed", map[string]uint64{"a": 1}))
	next := says("next", map[string]uint64{})
	next.Name = "killed"
	s.update(next)
	assert.Contains(t, s.planner.holders, "a")
	s.declareDead(t.Context(), s.workers["killed"])
	assert.Empty(t, s.planner.holders)
	assert.Len(t, s.workers, 1)
}

// A scheduler that begins to lead hands out nothing until it knows what every worker does.
func TestNewLeaderIsSure(t *testing.T) {
	tests := []struct {
		name            string
		sure            bool          // no other scheduler has led since this one last led
		listens         time.Duration // how long it listens before it leads
		before, after   []string      // the workers that send a hello before and after it leads
		early, late, at bool          // isSure at once, after three seconds, and in the end
	}{
		{"it has led before", true, 0, nil, nil, true, true, true},
		{"it heard everybody for long", false, time.Minute, []string{"v", "w"}, []string{"v", "w"}, false, true, true},
		{"there are no workers", false, time.Minute, nil, nil, false, true, true},
		{"one has not said anything yet", false, time.Minute, []string{"v", "w"}, []string{"v"}, false, false, false},
		{"it has just started", false, 0, nil, []string{"v"}, false, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := loneScheduler()
				s.connected = time.Now()
				time.Sleep(tt.listens)
				for _, id := range tt.before {
					s.update(says(id, map[string]uint64{}))
				}
				time.Sleep(time.Millisecond)
				lease := leases.New(t.Context(), time.Now(), time.Hour)
				lease.Informed.Store(tt.sure)
				for _, id := range tt.after {
					s.update(says(id, map[string]uint64{}))
				}
				assert.Equal(t, tt.early, s.isInformed(lease))
				time.Sleep(3 * time.Second)
				assert.Equal(t, tt.late, s.isInformed(lease))
				time.Sleep(testSilenceTime)
				assert.Equal(t, tt.at, s.isInformed(lease))
			})
		})
	}
}

// fleet init migrates the bucket of the version before, which lacks some settings.
func TestInitMigrates(t *testing.T) {
	t.Parallel()
	r := bareRig(t, lab.Size{Boxes: 2, Servers: 1, Messages: 1})
	js := r.jetStream()
	old, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "schedules"})
	require.NoError(t, err)
	a := r.lab.Accounts[0]
	record := `{"account":"` + a.Name + `","host":"127.0.0.2","total":7}`
	_, err = old.Create(t.Context(), accounts.KeyOf(a.Name), []byte(record))
	require.NoError(t, err)
	out := r.command("init", "--silence", testSilence.String())
	for _, line := range []string{"KV_schedules: changed", "KV_seen: created", "KV_leader: created", "MAIL: created"} {
		assert.Contains(t, out, line)
	}
	out = r.command("init")
	assert.NotContains(t, out, ": changed")
	r.join()
	r.start("scheduler", "s")
	r.start("worker", "w")
	eventually(t, "all are polled", r.polledAll)
	assert.EqualValues(t, 8, r.record(a.Name).Total, "the record is that of the version before")
}
