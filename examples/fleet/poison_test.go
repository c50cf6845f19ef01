package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestPoisonAccountGoesAside(t *testing.T) {
	f := newFleet(t, 2, 1)
	bad := f.accounts[keyOf(labUser(0))]
	bad.Password = "wrong"
	f.add(bad)
	f.enlist(t)
	p := quick
	p.Min, p.Backoff = time.Millisecond, time.Millisecond
	start(t, f.worker(f.bus, "w", p).Run)
	start(t, f.scheduler(f.bus, p).Run)
	eventually(t, "it goes aside", func() bool { return f.record(t, labUser(0)).Aside })
	r := f.record(t, labUser(0))
	assert.Equal(t, p.Refusals, r.Fails)
	assert.Equal(t, "AUTH", r.Code)
	assert.Contains(t, r.Error, "invalid user name or password")
	assert.NotContains(t, r.Error, "wrong")

	eventually(t, "others are polled on and on", func() bool { return len(f.pop3.Sessions()) > 10 })
	assert.Equal(t, p.Refusals, f.record(t, labUser(0)).Fails, "and it is not")
	require.NoError(t, releaseAccount(t.Context(), f.bus.schedules, keyOf(labUser(0))))
	eventually(t, "it gets another chance", func() bool { return f.record(t, labUser(0)).Aside })
}

// An account over which workers die, for whatever reason, must not bring down all of them.
func TestAccountThatKillsWorkersGoesAside(t *testing.T) {
	f := newFleet(t, 1, 1)
	f.enlist(t)
	require.NoError(t, f.queue(t, labUser(0)))
	for range maxDeaths {
		require.NoError(t, f.pull(t).Nak())
	}
	start(t, f.worker(f.bus, "w", quick).Run)
	eventually(t, "it goes aside", func() bool { return f.record(t, labUser(0)).Aside })
	assert.Contains(t, f.record(t, labUser(0)).Error, "5 workers did not come to the end of it")
	assert.Empty(t, f.pop3.Sessions())
}

func TestAccountThatIsGoneIsForgotten(t *testing.T) {
	f := newFleet(t, 1, 1)
	f.enlist(t)
	require.NoError(t, f.queue(t, labUser(0)))
	w := f.worker(f.bus, "w", quick)
	w.Accounts = fileAccounts{}
	start(t, w.Run)
	eventually(t, "its record goes", func() bool {
		_, err := f.bus.schedules.Get(t.Context(), keyOf(labUser(0)))
		return err != nil
	})
	assert.Empty(t, f.pop3.Sessions())
}

// What servers say, and what it means for the record.
func TestOutcomes(t *testing.T) {
	tests := []struct {
		name  string
		fault pop3test.Fault
		code  string
		fails int
		wait  time.Duration // at least
	}{
		{"in use", pop3test.Fault{At: "AUTH", Reply: "-ERR [IN-USE] locked"}, "IN-USE", 1, 50 * time.Second},
		{"too soon", pop3test.Fault{At: "AUTH", Reply: "-ERR [LOGIN-DELAY] wait"}, "LOGIN-DELAY", 1, 4 * time.Minute},
		{"disk full", pop3test.Fault{At: "AUTH", Reply: "-ERR [SYS/TEMP] full"}, "SYS/TEMP", 1, 4 * time.Minute},
		{"refused for no reason", pop3test.Fault{At: pop3test.AtGreeting, Reply: "-ERR go away"}, "refused", 1, 0},
		{"hung up", pop3test.Fault{At: pop3test.AtGreeting, Drop: pop3test.BeforeReply}, "cut", 1, 0},
		{"nonsense", pop3test.Fault{At: pop3test.AtGreeting, Reply: "HELLO"}, "protocol", 1, 0},
		{"one message can't be had", pop3test.Fault{At: "RETR 1", Reply: "-ERR no"}, "refused", 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, 1, 1)
			f.pop3.SetFaults(tt.fault)
			f.enlist(t)
			require.NoError(t, f.queue(t, labUser(0)))
			p := quick
			p.Min, p.Max = time.Second, time.Second
			start(t, f.worker(f.bus, "w", p).Run)
			eventually(t, "it is polled", f.polled)
			r := f.record(t, labUser(0))
			assert.Equal(t, tt.code, r.Code, r.Error)
			assert.Equal(t, tt.fails, r.Fails)
			assert.False(t, r.Aside)
			assert.GreaterOrEqual(t, time.Until(r.Next), tt.wait)
		})
	}
}
