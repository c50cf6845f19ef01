package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
)

func TestPolicyNext(t *testing.T) {
	now := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	p := Policy{Min: time.Minute, Max: 10 * time.Minute, Backoff: 6 * time.Hour, Refusals: 5, Failures: 50}
	broken := "no route to host"
	failed := Outcome{Failed: true, Error: broken, Code: "network"}
	refused := Outcome{Failed: true, Refused: true, Error: broken, Code: "AUTH"}
	tests := []struct {
		name   string
		before Record
		o      Outcome
		spread float64
		wait   time.Duration
		every  time.Duration
		fails  int
		aside  bool
	}{
		{
			"mail makes it short",
			Record{Every: 10 * time.Minute},
			Outcome{Delivered: 1},
			.5,
			time.Minute,
			time.Minute,
			0,
			false,
		},
		{
			"no mail makes it longer",
			Record{Every: 4 * time.Minute},
			Outcome{},
			.5,
			6 * time.Minute,
			6 * time.Minute,
			0,
			false,
		},
		{
			"but not for ever",
			Record{Every: 9 * time.Minute},
			Outcome{},
			.5,
			10 * time.Minute,
			10 * time.Minute,
			0,
			false,
		},
		{"nor shorter than the shortest", Record{}, Outcome{}, .5, time.Minute, time.Minute, 0, false},
		{
			"spread, earliest",
			Record{Every: 10 * time.Minute},
			Outcome{},
			0,
			9 * time.Minute,
			10 * time.Minute,
			0,
			false,
		},
		{
			"spread, latest",
			Record{Every: 10 * time.Minute},
			Outcome{},
			1,
			11 * time.Minute,
			10 * time.Minute,
			0,
			false,
		},
		{
			"LOGIN-DELAY is longer",
			Record{},
			Outcome{Delivered: 1, TryAgain: now.Add(15 * time.Minute)},
			.5,
			15 * time.Minute,
			time.Minute,
			0,
			false,
		},
		{"LOGIN-DELAY is shorter", Record{}, Outcome{Delivered: 1, TryAgain: now.Add(time.Second)}, .5, time.Minute,
			time.Minute, 0, false},
		{"more is there", Record{}, Outcome{Delivered: 500, More: true}, .5, 0, time.Minute, 0, false},
		{
			"more is there, with LOGIN-DELAY",
			Record{},
			Outcome{Delivered: 500, More: true, TryAgain: now.Add(time.Minute)},
			.5,
			time.Minute,
			time.Minute,
			0,
			false,
		},
		{"first failure", Record{}, failed, 1, time.Minute, 0, 1, false},
		{"first failure, earliest", Record{}, failed, 0, 30 * time.Second, 0, 1, false},
		{"second failure", Record{Fails: 1}, failed, 1, 2 * time.Minute, 0, 2, false},
		{"fifth failure", Record{Fails: 4}, failed, 1, 16 * time.Minute, 0, 5, false},
		{"tenth failure", Record{Fails: 9}, failed, 1, 6 * time.Hour, 0, 10, false},
		{"last failure", Record{Fails: 49}, failed, 1, 6 * time.Hour, 0, 50, true},
		{"far too many", Record{Fails: 1 << 40}, failed, 1, 6 * time.Hour, 0, 1<<40 + 1, true},
		{
			"failure that says how long",
			Record{},
			Outcome{Failed: true, TryAgain: now.Add(time.Hour)},
			1,
			time.Hour,
			0,
			1,
			false,
		},
		{"fourth refusal", Record{Fails: 3}, refused, 1, 8 * time.Minute, 0, 4, false},
		{"fifth refusal", Record{Fails: 4}, refused, 1, 16 * time.Minute, 0, 5, true},
		{"it works again", Record{Fails: 7, Every: time.Minute, Error: "x"}, Outcome{Delivered: 1}, .5, time.Minute,
			time.Minute, 0, false},
		{"workers died before, not this one", Record{Crashes: 4}, Outcome{}, .5, time.Minute, time.Minute, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			after := p.Next(tt.before, now, tt.o, tt.spread)
			assert.Equal(t, tt.wait, after.Next.Sub(now))
			assert.Equal(t, tt.every, after.Every)
			assert.Equal(t, tt.fails, after.Fails)
			assert.Equal(t, tt.aside, after.Aside)
			assert.Equal(t, tt.o.Error, after.Error)
			assert.Zero(t, after.Crashes)
			assert.Equal(t, now, after.Polled)
		})
	}
}

func TestPolicyNew(t *testing.T) {
	now := time.Now()
	for _, spread := range []float64{0, .25, 1} {
		r := Policy{First: time.Hour, Max: 2 * time.Hour}.New(accounts.Account{Name: "a", Addr: "h:995"}, now, spread)
		assert.Equal(t, time.Duration(spread*float64(time.Hour)), r.Next.Sub(now))
		assert.Equal(t, 2*time.Hour, r.Every)
		assert.Equal(t, "h", r.Host)
	}
}

// If five workers in a row die in polls of an account, the account is set aside.
func TestPolicyCrashed(t *testing.T) {
	r := Record{Error: "the last error"}
	for n := range maxCrashes {
		assert.Equal(t, n, r.Crashes)
		assert.False(t, r.Aside)
		r = r.Crashed()
		assert.Equal(t, epoch, r.due(epoch), "at once")
	}
	assert.True(t, r.Aside)
	assert.Equal(t, "crashed", r.Code)
	assert.Contains(t, r.Error, `5 workers died in this poll; the error before: "the last error"`)
	r = r.Again()
	assert.False(t, r.Aside || r.Crashes > 0)
}

func TestShorten(t *testing.T) {
	assert.Empty(t, shorten(nil))
	assert.Equal(t, "a; b", shorten(errors.Join(errors.New("a"), errors.New("b"))))
	assert.Equal(t, strings.Repeat("x", 499), shorten(errors.New(strings.Repeat("x", 499)+"ä")), "no half of a letter")
}
