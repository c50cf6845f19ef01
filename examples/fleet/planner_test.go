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

func TestPlannerTakesWhatIsDue(t *testing.T) {
	p := newPlanner(Limits{Rate: rate.Inf, Sessions: 10, Resend: time.Minute})
	p.set("b", Record{Host: "h", Next: epoch.Add(2 * time.Second)}, 1)
	p.set("a", Record{Host: "h", Next: epoch.Add(time.Second)}, 2)
	p.set("aside", Record{Host: "h", Aside: true}, 3)
	assert.Empty(t, p.take(epoch))
	assert.Equal(t, []string{"a"}, keysOf(p.take(epoch.Add(time.Second))))
	assert.Equal(t, []string{"b"}, keysOf(p.take(epoch.Add(time.Minute))), "a is with a worker")

	assert.Equal(t, []string{"a"}, keysOf(p.take(epoch.Add(61*time.Second))), "no report: its message may be lost")
	p.set("a", Record{Host: "h", Next: epoch.Add(time.Hour)}, 4)
	p.set("a", Record{Host: "h", Next: epoch}, 2) // older than what is known
	p.remove("b")
	assert.Empty(t, p.take(epoch.Add(59*time.Minute)))
	assert.Equal(t, []string{"a"}, keysOf(p.take(epoch.Add(time.Hour))))
	assert.Len(t, p.entries, 1)
}

func TestPlannerLimitsSessions(t *testing.T) {
	p := newPlanner(Limits{Rate: rate.Inf, Sessions: 2, Resend: time.Hour})
	for n := range 5 {
		p.set(fmt.Sprint("small", n), Record{Host: "small", Next: epoch.Add(time.Duration(n))}, uint64(n+1))
	}
	p.set("other", Record{Host: "other", Next: epoch}, 9)
	now := epoch.Add(time.Second)
	assert.ElementsMatch(t, []string{"small0", "small1", "other"}, keysOf(p.take(now)))
	assert.Empty(t, p.take(now))
	p.set("small1", Record{Host: "small", Next: epoch.Add(time.Hour)}, 10)
	assert.Equal(t, []string{"small2"}, keysOf(p.take(now)))
	p.set("small3", Record{Host: "small", Aside: true}, 11) // in the queue of its host
	p.remove("small0")
	assert.Equal(t, []string{"small4"}, keysOf(p.take(now)))
}

func TestPlannerLimitsRate(t *testing.T) {
	p := newPlanner(Limits{Rate: 10, Burst: 3, Sessions: 1000, Resend: time.Hour})
	for n := range 100 {
		p.set(fmt.Sprint(n), Record{Host: "h", Next: epoch}, uint64(n+1))
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
