package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/time/rate"
)

var epoch = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

func keysOf(entries []*entry) []string {
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		keys = append(keys, e.key)
	}
	return keys
}

// at is a record that was written at epoch and is due at a time after it.
func at(host string, after time.Duration) Record {
	return Record{Host: host, Written: epoch, Next: epoch.Add(after)}
}

func testPlanner(l Limits) *planner {
	p := newPlanner(l)
	p.capacity = 1000
	return p
}

func TestPlannerTakesWhatIsDue(t *testing.T) {
	p := testPlanner(Limits{Rate: rate.Inf, Sessions: 10, Resend: time.Minute})
	p.set("b", at("h", 2*time.Second), 1, epoch)
	p.set("a", at("h", time.Second), 2, epoch)
	p.set("aside", Record{Host: "h", Aside: true}, 3, epoch)
	p.set("removed", Record{Host: "h", Removed: epoch}, 3, epoch)
	assert.Empty(t, p.take(epoch))
	assert.Equal(t, []string{"a"}, keysOf(p.take(epoch.Add(time.Second))))
	assert.Equal(t, []string{"b"}, keysOf(p.take(epoch.Add(time.Minute))), "a is with a worker")

	assert.Equal(t, []string{"a"}, keysOf(p.take(epoch.Add(61*time.Second))), "no report: its message may be lost")
	p.set("a", at("h", time.Hour), 4, epoch)
	p.set("a", at("h", 0), 2, epoch) // older than what is known
	p.remove("b")
	assert.Empty(t, p.take(epoch.Add(59*time.Minute)))
	assert.Equal(t, []string{"a"}, keysOf(p.take(epoch.Add(time.Hour))))
	assert.Len(t, p.entries, 3)
	assert.Equal(t, 1, p.sent)
}

// A poll that a worker hands back goes again at the time that the worker says.
func TestPlannerTakesBack(t *testing.T) {
	p := testPlanner(Limits{Rate: rate.Inf, Sessions: 10, Resend: time.Hour})
	p.set("a", at("h", 0), 7, epoch)
	assert.Len(t, p.take(epoch), 1)
	p.back("a", 6, epoch) // not this poll
	p.back("b", 7, epoch)
	assert.Empty(t, p.take(epoch.Add(time.Minute)))
	p.back("a", 7, epoch.Add(2*time.Minute))
	p.back("a", 7, epoch) // it has been handed back already
	assert.Zero(t, p.sent)
	assert.Empty(t, p.take(epoch.Add(time.Minute)))
	assert.Len(t, p.take(epoch.Add(2*time.Minute)), 1)
}

// The next message of an account that is due again at once waits until the last one is acknowledged.
func TestPlannerWaitsForAcknowledgement(t *testing.T) {
	p := testPlanner(Limits{Rate: rate.Inf, Sessions: 10, Resend: time.Hour})
	p.set("a", at("h", 0), 1, epoch)
	assert.Len(t, p.take(epoch), 1)
	p.set("a", at("h", 0), 2, epoch)
	assert.Empty(t, p.take(epoch))
	assert.Len(t, p.take(epoch.Add(ackTime)), 1)
}

func TestPlannerLimitsSessions(t *testing.T) {
	p := testPlanner(Limits{Rate: rate.Inf, Sessions: 2, Resend: time.Hour})
	for n := range 5 {
		p.set(fmt.Sprint("small", n), at("small", time.Duration(n)), uint64(n+1), epoch)
	}
	p.set("other", at("other", 0), 9, epoch)
	now := epoch.Add(time.Second)
	assert.ElementsMatch(t, []string{"small0", "small1", "other"}, keysOf(p.take(now)))
	assert.Empty(t, p.take(now))
	p.set("small1", at("small", time.Hour), 10, epoch)
	assert.Equal(t, []string{"small2"}, keysOf(p.take(now)))
	p.set("small3", Record{Host: "small", Aside: true}, 11, epoch) // in the queue of its host
	p.remove("small0")
	assert.Equal(t, []string{"small4"}, keysOf(p.take(now)))
}

// However many accounts of slow hosts are due, there is room for the next host.
func TestPlannerSharesRoom(t *testing.T) {
	for _, slow := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(slow, " slow hosts"), func(t *testing.T) {
			p := testPlanner(Limits{Rate: rate.Inf, Sessions: 1000, Resend: time.Hour})
			p.capacity = 60
			for n := range 1000 {
				p.set(fmt.Sprint(n), at(fmt.Sprint("slow", n%slow), 0), uint64(n+1), epoch)
			}
			p.take(epoch)
			assert.Less(t, p.sent, 60)
			p.set("sound", at("sound", 0), 2000, epoch)
			assert.Equal(t, []string{"sound"}, keysOf(p.take(epoch)))
		})
	}
	t.Run("no worker", func(t *testing.T) {
		p := testPlanner(Limits{Rate: rate.Inf, Sessions: 1000, Resend: time.Hour})
		p.capacity = 0
		for n := range 10 {
			p.set(fmt.Sprint(n), at("h", 0), uint64(n+1), epoch)
		}
		assert.Len(t, p.take(epoch), 1, "and no queue that gets old")
	})
}

func TestPlannerPausesHosts(t *testing.T) {
	p := testPlanner(Limits{Rate: rate.Inf, Sessions: 10, Resend: time.Hour})
	p.set("a", at("paused", 0), 1, epoch)
	p.set("b", at("other", 0), 2, epoch)
	p.host("paused").paused = true
	assert.Equal(t, []string{"b"}, keysOf(p.take(epoch)))
	p.host("paused").paused = false
	assert.Equal(t, []string{"a"}, keysOf(p.take(epoch)))
}

func TestPlannerLimitsRate(t *testing.T) {
	p := testPlanner(Limits{Rate: 10, Burst: 3, Sessions: 1000, Resend: time.Hour})
	for n := range 100 {
		p.set(fmt.Sprint(n), at("h", 0), uint64(n+1), epoch)
	}
	assert.Len(t, p.take(epoch), 3)
	assert.Empty(t, p.take(epoch.Add(50*time.Millisecond)))
	assert.Len(t, p.take(epoch.Add(100*time.Millisecond)), 1)
	sent := 0
	for ms := 110; ms <= 5100; ms += 10 {
		sent += len(p.take(epoch.Add(time.Duration(ms) * time.Millisecond)))
	}
	assert.Equal(t, 50, sent)
}

// A record is due by the clock of NATS, whatever the clock of the worker that wrote it says.
func TestRecordDue(t *testing.T) {
	stored := epoch
	year := 365 * 24 * time.Hour
	tests := []struct {
		name          string
		written, next time.Time
		wait          time.Duration
	}{
		{"clocks agree", stored, stored.Add(time.Minute), time.Minute},
		{"worker is a year ahead", stored.Add(year), stored.Add(year + time.Minute), time.Minute},
		{"worker is a year behind", stored.Add(-year), stored.Add(time.Minute - year), time.Minute},
		{"earlier version", time.Time{}, stored.Add(time.Minute), time.Minute},
		{"earlier version, 2099", time.Time{}, time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), 0},
		{"2099", stored, time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), 0},
		{"in the past", stored, stored.Add(-time.Hour), 0},
		{"nothing", time.Time{}, time.Time{}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.wait, Record{Written: tt.written, Next: tt.next}.due(stored).Sub(stored))
		})
	}
}
