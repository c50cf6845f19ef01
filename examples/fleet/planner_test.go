package main

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

var epoch = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

func keysOf(entries []*entry) []string {
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		keys = append(keys, e.key)
	}
	return keys
}

// everything is a number of accounts that is larger than any test needs.
const everything = 10_000

// at returns the record of an account on a host that is due d after epoch.
func at(host string, after time.Duration) Record {
	return Record{Account: "a", Host: host, Next: epoch.Add(after)}
}

func testPlanner(l Limits) *planner {
	p := newPlanner(l, make(map[string]int))
	p.capacity = 1000
	return p
}

func TestPlannerTakesWhatIsDue(t *testing.T) {
	p := testPlanner(Limits{Rate: math.MaxFloat64, Sessions: 10})
	p.set("b", at("h", 2*time.Second), 1, epoch)
	p.set("a", at("h", time.Second), 2, epoch)
	p.set("aside", Record{Account: "aside", Host: "h", Aside: true}, 3, epoch)
	p.set("removed", Record{Account: "removed", Host: "h", Removed: epoch}, 3, epoch)
	p.set("damaged", Record{}, 3, epoch)
	assert.Empty(t, p.take(epoch, everything))
	assert.Equal(t, 2, p.future.Len(), "the others are not scheduled")
	assert.Empty(t, p.take(epoch.Add(time.Second), 0))
	assert.Equal(t, 1, p.host("h").queue.Len())
	assert.Equal(t, []string{"a"}, keysOf(p.take(epoch.Add(time.Second), everything)))
	assert.Equal(t, []string{"b"}, keysOf(p.take(epoch.Add(time.Minute), everything)), "a is with a worker")

	p.set("a", at("h", 0), 4, epoch) // the record was changed elsewhere
	p.set("b", at("h", time.Hour), 5, epoch)
	p.set("b", at("h", 0), 2, epoch) // older than the known record
	assert.Empty(t, p.take(epoch.Add(59*time.Minute), everything), "both are with a worker")
	p.free("a")
	p.free("b")
	assert.Equal(t, []string{"a"}, keysOf(p.take(epoch.Add(59*time.Minute), everything)))
	p.remove("a")
	assert.Equal(t, []string{"b"}, keysOf(p.take(epoch.Add(time.Hour), everything)))
	p.free("a")
	assert.Len(t, p.entries, 4)
	assert.Len(t, p.holders, 1)
	assert.Equal(t, 1, p.host("h").running)
}

// A poll that a worker hands back is handed out again at the time that the worker requests.
func TestPlannerDelays(t *testing.T) {
	p := testPlanner(Limits{Rate: math.MaxFloat64, Sessions: 10})
	p.set("a", at("h", 0), 7, epoch)
	p.delay("a", 7, epoch.Add(time.Hour)) // ignored, because no worker has the account
	assert.Len(t, p.take(epoch, everything), 1)
	p.delay("a", 6, epoch.Add(time.Hour)) // ignored, because the revision is that of another poll
	p.delay("b", 7, epoch)
	p.delay("a", 7, epoch.Add(2*time.Minute))
	assert.Empty(t, p.take(epoch.Add(2*time.Minute), everything))
	p.free("a")
	assert.Empty(t, p.take(epoch.Add(time.Minute), everything))
	assert.Len(t, p.take(epoch.Add(2*time.Minute), everything), 1)
}

// Two workers may have an account if one of them was taken for dead. The account is free when both have finished. It
// may not have a record yet.
func TestPlannerCountsHolders(t *testing.T) {
	p := testPlanner(Limits{Rate: math.MaxFloat64, Sessions: 10})
	p.hold("a")
	p.hold("a")
	p.set("a", at("h", 0), 1, epoch)
	assert.Equal(t, 1, p.host("h").running)
	p.free("a")
	assert.Empty(t, p.take(epoch, everything))
	p.set("a", at("other", 0), 2, epoch)
	assert.Equal(t, 0, p.host("h").running)
	assert.Equal(t, 1, p.host("other").running)
	p.free("a")
	assert.Len(t, p.take(epoch, everything), 1)
}

func TestPlannerLimitsSessions(t *testing.T) {
	p := testPlanner(Limits{Rate: math.MaxFloat64, Sessions: 2})
	for n := range 5 {
		p.set(fmt.Sprint("small", n), at("small", time.Duration(n)), uint64(n+1), epoch)
	}
	p.set("other", at("other", 0), 9, epoch)
	now := epoch.Add(time.Second)
	assert.ElementsMatch(t, []string{"small0", "small1", "other"}, keysOf(p.take(now, everything)))
	assert.Empty(t, p.take(now, everything))
	p.set("small1", at("small", time.Hour), 10, epoch)
	p.free("small1")
	assert.Equal(t, []string{"small2"}, keysOf(p.take(now, everything)))
	p.set("small3", Record{Host: "small", Aside: true}, 11, epoch) // the account is already in the queue of its host
	p.remove("small0")
	p.free("small0")
	assert.Equal(t, []string{"small4"}, keysOf(p.take(now, everything)))
}

// Even if many accounts of slow hosts are due, there is room for the next host.
func TestPlannerSharesRoom(t *testing.T) {
	for _, slow := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(slow, " slow hosts"), func(t *testing.T) {
			p := testPlanner(Limits{Rate: math.MaxFloat64, Sessions: 1000})
			p.capacity = 60
			for n := range 1000 {
				p.set(fmt.Sprint(n), at(fmt.Sprint("slow", n%slow), 0), uint64(n+1), epoch)
			}
			p.take(epoch, everything)
			assert.Less(t, len(p.holders), 60)
			p.set("sound", at("sound", 0), 2000, epoch)
			assert.Equal(t, []string{"sound"}, keysOf(p.take(epoch, everything)))
		})
	}
	t.Run("no worker", func(t *testing.T) {
		p := testPlanner(Limits{Rate: math.MaxFloat64, Sessions: 1000})
		p.capacity = 0
		for n := range 10 {
			p.set(fmt.Sprint(n), at("h", 0), uint64(n+1), epoch)
		}
		assert.Len(t, p.take(epoch, everything), 1, "and no queue that gets old")
	})
}

func TestPlannerPausesHosts(t *testing.T) {
	p := testPlanner(Limits{Rate: math.MaxFloat64, Sessions: 10})
	p.set("a", at("paused", 0), 1, epoch)
	p.set("b", at("other", 0), 2, epoch)
	p.host("paused").paused = true
	assert.Equal(t, []string{"b"}, keysOf(p.take(epoch, everything)))
	p.host("paused").paused = false
	assert.Equal(t, []string{"a"}, keysOf(p.take(epoch, everything)))
}

func TestPlannerLimitsRate(t *testing.T) {
	p := testPlanner(Limits{Rate: 10, Burst: 3, Sessions: 1000})
	for n := range 100 {
		p.set(fmt.Sprint(n), at("h", 0), uint64(n+1), epoch)
	}
	assert.Len(t, p.take(epoch, everything), 3)
	assert.Empty(t, p.take(epoch.Add(50*time.Millisecond), everything))
	assert.Len(t, p.take(epoch.Add(100*time.Millisecond), everything), 1)
	sent := 0
	for ms := 110; ms <= 5100; ms += 10 {
		sent += len(p.take(epoch.Add(time.Duration(ms)*time.Millisecond), everything))
	}
	assert.Equal(t, 50, sent)
}

// NATS stores a record and sets its time, so a record is due by the clock of NATS. A record with an implausible time is
// due at once.
func TestRecordDue(t *testing.T) {
	stored := epoch
	year := 365 * 24 * time.Hour
	tests := []struct {
		name string
		next time.Time
		wait time.Duration
	}{
		{"soon", stored.Add(time.Minute), time.Minute},
		{"a worker of an earlier version was a year ahead", stored.Add(year), 0},
		{"a worker of an earlier version was a year behind", stored.Add(-year), 0},
		{"2099", time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), 0},
		{"nothing", time.Time{}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.wait, Record{Next: tt.next}.due(stored).Sub(stored))
		})
	}
}

// A change of this machine's date does no harm. Records have the time of NATS. The scheduler and the leases measure
// waits with the monotonic clock.
func TestDateJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := natsClock{epoch, time.Now()} // the date differs from that of this bubble by half a century
		time.Sleep(time.Minute)
		assert.Equal(t, epoch.Add(time.Minute), c.now())
	})
	c := natsClock{epoch, time.Now()}
	assert.Contains(t, c.read.String(), "m=", "monotonic")
	assert.WithinDuration(t, epoch, c.now(), time.Minute)
	r := Policy{Min: time.Hour, Max: time.Hour}.Next(Record{}, c.now(), Outcome{}, .5)
	assert.WithinDuration(t, epoch.Add(time.Hour), r.due(epoch), time.Minute)
}
