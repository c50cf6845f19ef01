package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
	"github.com/seed-2d50cddb/pop3/examples/fleet/natsmail"
)

// often makes accounts due again and again.
var often = []string{"--min", "1s", "--max", "1s"}

func portOf(url string) string { return url[strings.LastIndex(url, ":")+1:] }

// A NATS server that runs alone is restarted. All processes continue.
func TestLoneNATSRestarts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		stop func(c *lab.Child) error
	}{
		{"stopped", (*lab.Child).Stop},
		{"killed", func(c *lab.Child) error { c.Kill(); return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, lab.Size{Boxes: 10, Servers: 1, Messages: 1, Bytes: 300})
			s, w := r.start("scheduler", "s", often...), r.start("worker", "w")
			eventually(t, "all are polled", r.polledAll)
			tt.stop(r.nats)
			eventually(t, "the worker is not ready", func() bool { return !w.ready() })
			status, _ := w.get("/healthz")
			assert.Equal(t, http.StatusOK, status, "a restart of the worker would not help")
			from, polls := time.Now(), w.metric("fleet_polls_total")
			r.startNATS(portOf(r.url))
			eventually(t, "polls go on", func() bool { return w.metric("fleet_polls_total") > polls+30 })
			assert.Less(t, time.Since(from), 30*time.Second)
			eventually(t, "both are ready", func() bool { return w.ready() && s.ready() })
			assert.Zero(t, w.metric("fleet_errors_total"))
			r.wantOnce(10)
		})
	}
}

// The streams are deleted. The processes report that and end, so that a supervisor restarts them. Then they wait for
// fleet init.
func TestStreamsAreLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 1, Servers: 1})
	s, w := r.start("scheduler", "s"), r.start("worker", "w")
	eventually(t, "all are polled", r.polledAll)
	for _, name := range []string{"KV_schedules", "KV_seen", "KV_leader"} {
		require.NoError(t, r.bus.js.DeleteStream(t.Context(), name))
	}
	for _, p := range []*process{s, w} {
		_, err := p.Output()
		require.ErrorContains(t, err, "exit status 1", p.name)
		assert.Contains(t, p.log.String(), "run fleet init", p.name)
	}
	again := r.start("worker", "again")
	eventually(t, "it waits", func() bool { return strings.Contains(again.log.String(), "is missing: run fleet init") })
	assert.False(t, again.ready())
	r.command("init", "--silence", testSilence.String())
	eventually(t, "it is ready", again.ready)
}

// fill makes the store full. It returns a function that makes room again.
func (r *rig) fill() (free func()) {
	r.Helper()
	_, err := r.bus.js.CreateStream(r.Context(), jetstream.StreamConfig{Name: "FILLER", Subjects: []string{"filler"}})
	require.NoError(r, err)
	for size := 256 << 10; size > 32; size /= 2 {
		for err == nil {
			_, err = r.bus.js.Publish(r.Context(), "filler", make([]byte, size))
		}
		require.ErrorContains(r, err, "insufficient resources")
		err = nil
	}
	return func() { require.NoError(r, r.bus.js.DeleteStream(r.Context(), "FILLER")) }
}

// The store is full for longer than AckWait. No worker counts as dead, no account counts a failure, and polls are held
// back. When there is room again, polls continue, and nothing is fetched twice.
func TestStoreIsFull(t *testing.T) {
	t.Parallel()
	r := bareRig(t, lab.Size{Boxes: 20, Servers: 1, Messages: 1, Bytes: 300, Deliver: 20}, "--max-store", "4000000")
	r.command("init", "--silence", testSilence.String(), "--mail-bytes", "1000000")
	r.join()
	r.start("scheduler", "s", often...)
	w := r.start("worker", "w")
	eventually(t, "all are polled", r.polledAll)
	// There are two ways to stop: a worker holds polls back, or a scheduler cannot renew its lease and sends none. The
	// first one that finds the store full stops.
	free := r.fill()
	sleepThrough(testSilence / 4)
	before := w.metric("fleet_handshakes_total")
	sleepThrough(2 * testSilence)
	held := w.metric("fleet_handshakes_total") - before
	assert.LessOrEqual(t, held, 8.0, "polls are held back")
	free()
	freed := time.Now()
	polls := w.metric("fleet_polls_total")
	eventually(t, "polls go on", func() bool { return w.metric("fleet_polls_total") > polls+40 })
	t.Logf("connections while the store was full: %v; 40 polls %v after there was room", held, time.Since(freed))
	eventually(t, "the worker is ready", w.ready)
	for _, a := range r.lab.Accounts {
		rec := r.record(a.Name)
		assert.False(t, rec.Aside, rec.Error)
		assert.Zero(t, rec.Fails, rec.Error)
	}
	count, all := r.delivered()
	assert.Equal(t, len(count), all, "nothing is fetched twice")
}

// sleepThrough waits while other processes run and nothing should happen.
func sleepThrough(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// The stream of the mail is full. It has a limit of its own, so the records can still be written. Polls are held back
// until there is room.
func TestMailStreamIsFull(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 20, Servers: 1, Messages: 2, Bytes: 4000})
	r.command("init", "--mail-bytes", "60000")
	r.start("scheduler", "s", often...)
	w := r.start("worker", "w", "--sink", "stream")
	eventually(t, "polls are held back", func() bool {
		_, why := w.get("/readyz")
		return strings.Contains(why, "held back")
	})
	assert.Zero(t, w.metric("fleet_polls_total", "failed"))
	for _, a := range r.lab.Accounts {
		assert.False(t, r.record(a.Name).Aside)
	}
	r.command("init", "--mail-bytes", "10000000")
	eventually(t, "all is delivered", func() bool { return r.polledAll() && w.ready() })
	stream, err := r.bus.js.Stream(t.Context(), "MAIL")
	require.NoError(t, err)
	assert.EqualValues(t, 40, stream.CachedInfo().State.Msgs)
	assert.Equal(t, jetstream.DiscardNew, stream.CachedInfo().Config.Discard)
}

// An account in which workers die is set aside. Four workers have died before. A worker that was stopped is not
// counted.
func TestAccountThatKillsWorkersGoesAside(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Servers: 1})
	require.NoError(t, r.lab.Start(9, 0, 1, false, "--count", "1", "--messages", "9", "--delay", "1s"))
	require.NoError(t, r.lab.Save())
	a := r.lab.Accounts[0]
	r.put(accounts.KeyOf(a.Name), map[string]any{"account": a.Name, "host": "127.0.0.11", "next": time.Now(),
		"crashes": maxCrashes - 1})
	s := r.start("scheduler", "s")
	polls := func(w *process) func() bool { return func() bool { return w.metric("fleet_handshakes_total") > 0 } }
	w := r.start("worker", "stopped")
	eventually(t, "it polls", polls(w))
	require.NoError(t, w.Stop())
	w = r.start("worker", "killed")
	eventually(t, "it polls", polls(w))
	assert.False(t, r.record(a.Name).Aside)
	w.Kill()
	eventually(t, "it goes aside", func() bool { return r.record(a.Name).Aside })
	eventually(t, "the metric of the alert says so", func() bool { return s.metric("fleet_accounts_crashed") == 1 })
	out := r.command("list", "--state", "aside")
	assert.Contains(t, out, "5 workers died in this poll")
	assert.Contains(t, out, "crashed")
}

// Only fleet init changes a stream, whatever an operator has set.
func TestOnlyInitChangesStreams(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 1, Servers: 1})
	config := func(name string) jetstream.StreamConfig {
		stream, err := r.bus.js.Stream(t.Context(), name)
		require.NoError(t, err)
		return stream.CachedInfo().Config
	}
	names := []string{"KV_schedules", "KV_seen", "KV_leader", "MAIL"}
	before := make(map[string]jetstream.StreamConfig)
	for _, name := range names {
		c := config(name)
		c.Description, c.MaxMsgSize = "an operator's", 1<<20
		_, err := r.bus.js.UpdateStream(t.Context(), c)
		require.NoError(t, err)
		before[name] = config(name)
	}
	r.start("scheduler", "s")
	r.start("worker", "w")
	eventually(t, "all are polled", r.polledAll)
	r.command("list")
	r.command("poll", "--all")
	out := r.command("init")
	for _, name := range names {
		assert.Contains(t, out, name+": unchanged")
		assert.Equal(t, before[name], config(name), name)
	}
	c := config("KV_seen")
	c.AllowDirect = false
	_, err := r.bus.js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	late := r.start("worker", "late")
	eventually(t, "it says what to do", func() bool {
		return strings.Contains(late.log.String(),
			"stream KV_seen (messages that were delivered) has other settings than this version needs: run fleet init")
	})
	_, err = late.Output()
	require.ErrorContains(t, err, "exit status 1")
	assert.Contains(t, r.command("init"), "KV_seen: changed")
	assert.Equal(t, before["KV_seen"], config("KV_seen"))
	r.command("list")
}

// withKey returns the flag for a key, so that fingerprints include passwords.
func (r *rig) withKey() []string {
	name := filepath.Join(r.lab.Dir, "fingerprint.key")
	require.NoError(r, os.WriteFile(name, []byte("a secret of many bytes"), 0o600))
	return []string{"--fingerprint-key", name}
}

// A worker has an old accounts file. It hands back the polls of the accounts that differ, and counts no failure for
// them.
func TestWorkerWithOldAccountsFile(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 3, Servers: 1, Messages: 1})
	old := filepath.Join(r.lab.Dir, "old.json")
	stale := r.lab.Accounts[1]
	stale.Password = "of last year"
	require.NoError(t, lab.Save(old, []accounts.Account{r.lab.Accounts[0], stale}))
	key := r.withKey()
	r.start("scheduler", "s", key...)
	w := r.start("worker", "w", append(key, "--accounts", old)...)
	eventually(t, "the poll of the new account was handed back, more than once", func() bool {
		return w.metric("fleet_handed_back_total", "unknown") >= 3
	})
	eventually(t, "the old account is polled", func() bool { return !r.record(r.lab.Accounts[0].Name).Polled.IsZero() })
	for _, a := range r.lab.Accounts[1:] {
		assert.Equal(t, a.Name, r.record(a.Name).Account, "the record stays")
		assert.Zero(t, r.record(a.Name).Fails, "and nothing was tried")
	}
	require.NoError(t, lab.Save(old, r.lab.Accounts))
	eventually(t, "all are polled", r.polledAll)
	r.wantOnce(3)
}

// An account that was set aside is polled again as soon as its password or its server has changed.
func TestAccountsAreReconciled(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 30, Servers: 2, Messages: 1})
	good := r.lab.Accounts[0].Password
	r.edit(0, func(a *accounts.Account) { a.Password = "wrong" })
	key := r.withKey()
	s := r.start("scheduler", "s", append(key, "--keep-removed", "1s", "--refusals", "2", "--min", "10ms",
		"--max", "300ms", "--backoff", "10ms")...)
	r.start("worker", "w", key...)
	name, removed := r.lab.Accounts[0].Name, r.lab.Accounts[29]
	eventually(t, "it is set aside", func() bool { return r.record(name).Aside })
	assert.Equal(t, 2, r.record(name).Fails)
	assert.Equal(t, "AUTH", r.record(name).Code)
	r.edit(0, func(a *accounts.Account) { a.Password = good })
	eventually(t, "it is polled again", func() bool { return !r.record(name).Aside && r.record(name).Total == 1 })

	r.edit(1, func(a *accounts.Account) { a.Addr = "localhost:" + portOf(a.Addr) })
	eventually(t, "its host is the new one", func() bool {
		return r.record(r.lab.Accounts[1].Name).Host == "localhost"
	})

	eventually(t, "all are polled", r.polledAll)
	all := r.lab.Accounts
	require.NoError(t, lab.Save(r.lab.File(), nil))
	eventually(t, "an empty file is refused", func() bool { return s.metric("fleet_accounts_file_refused") == 1 })
	require.NoError(t, lab.Save(r.lab.File(), all[:15]))
	sleepThrough(6 * time.Second)
	assert.EqualValues(t, 1, s.metric("fleet_accounts_file_refused"), "so is the loss of half of them")
	assert.Zero(t, s.metric("fleet_accounts_removed"))
	assert.Contains(t, s.log.String(),
		"lacks 15 of 30 accounts; if that is right, run fleet remove --missing-in FILE")
	assert.Equal(t, 15, strings.Count(r.command("list", "--missing-in", r.lab.File()), "user0"))
	assert.Zero(t, s.metric("fleet_accounts_removed"))

	require.NoError(t, lab.Save(r.lab.File(), all[:29]))
	eventually(t, "the account that was removed is forgotten, with its notes", func() bool {
		_, record := r.bus.records.Get(t.Context(), accounts.KeyOf(removed.Name))
		_, seen := r.bus.seen.Get(t.Context(), natsmail.PageKey(accounts.KeyOf(removed.Name), 0))
		return record != nil && seen != nil
	})
	eventually(t, "it is not counted", func() bool { return s.metric("fleet_accounts") == 29 })
	require.NoError(t, lab.Save(r.lab.File(), all))
	eventually(t, "it comes back", func() bool { return r.record(removed.Name).Total == 1 })

	require.NoError(t, s.Stop())
	s = r.start("scheduler", "patient", key...)
	require.NoError(t, lab.Save(r.lab.File(), nil))
	eventually(t, "it is refused again", func() bool { return s.metric("fleet_accounts_file_refused") == 1 })
	eventually(t, "all are removed, those that are being polled in a second go", func() bool {
		r.try("remove", "--missing-in", r.lab.File())
		return s.metric("fleet_accounts_removed") == 30
	})
	assert.Equal(t, 30, strings.Count(r.command("list", "--state", "removed"), "user0"))
}

// These are the commands of operators for accounts and hosts.
func TestCommandsOfOperators(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 6, Servers: 2, Messages: 1})
	host := "127.0.0.3" // the host of accounts 3 to 5
	for _, n := range []int{0, 1, 3} {
		r.edit(n, func(a *accounts.Account) { a.Password = "wrong" })
	}
	s := r.start("scheduler", "s", "--refusals", "1")
	r.start("worker", "w")
	eventually(t, "three are set aside", func() bool { return s.metric("fleet_accounts_aside") == 3 })
	lines := func(args ...string) int {
		return strings.Count(r.command("list", args...), "user0")
	}
	assert.Equal(t, 6, lines())
	assert.Equal(t, 3, lines("--host", host))
	assert.Equal(t, 3, lines("--code", "AUTH"))
	assert.Equal(t, 1, lines("--code", "AUTH", "--host", host))
	assert.Equal(t, 1, lines(r.lab.Accounts[0].Name))
	tests := []struct {
		name string
		args []string
		out  string
		ok   bool
	}{
		{"none selected", []string{"release"}, "no accounts selected", false},
		{"by name", []string{"release", r.lab.Accounts[0].Name}, "1 changed", true},
		{"by name, no such account", []string{"release", "nobody"}, "1 of the names have no record", true},
		{"by host and code", []string{"release", "--host", host, "--code", "AUTH"}, "1 changed", true},
		{"all", []string{"release", "--all"}, " changed", true},
		{"poll now", []string{"poll", r.lab.Accounts[5].Name}, "1 changed", true},
		{"no host", []string{"pause"}, "expected \"<hosts> ...\"", false},
		{"pause", []string{"pause", host}, "", true},
	}
	for _, tt := range tests {
		out, err := r.try(tt.args[0], tt.args[1:]...)
		assert.Contains(t, out, tt.out, tt.name)
		assert.Equal(t, tt.ok, err == nil, "%s: %s", tt.name, out)
	}
	eventually(t, "the host is paused", func() bool { return s.metric("fleet_accounts_paused") >= 2 })
	polled := r.record(r.lab.Accounts[5].Name).Polled
	r.command("poll", "--host", host)
	sleepThrough(time.Second)
	assert.Equal(t, polled, r.record(r.lab.Accounts[5].Name).Polled)
	r.command("resume", host)
	eventually(t, "it is polled", func() bool { return r.record(r.lab.Accounts[5].Name).Polled.After(polled) })
}

// The messages of a host arrive slowly, but fast enough not to time out. The host does not take all slots, and each of
// its polls ends.
func TestHostThatDrips(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 75, Servers: 1, Messages: 1, Bytes: 300})
	require.NoError(t, r.lab.Start(50, 1000, 40, false, "--first", "1000", "--count", "40", "--size", "100000",
		"--pace", "100ms")) // 640 bytes a second
	require.NoError(t, r.lab.Save())
	dripping := append([]accounts.Account(nil), r.lab.Accounts[75:]...)
	require.NoError(t, lab.Save(r.lab.File(), dripping))
	r.start("scheduler", "s")
	w := r.start("worker", "w")
	eventually(t, "the slow ones are being polled", func() bool { return w.metric("fleet_polling") >= 4 })
	require.NoError(t, r.lab.Save())
	eventually(t, "all sound accounts are polled", func() bool { return w.metric("fleet_polls_total", "ok") >= 75 })
	assert.GreaterOrEqual(t, w.metric("fleet_polling"), 4.0, "while the first slow ones are under way")
	require.NoError(t, w.Stop())
	w = r.start("worker", "impatient", "--longest", "3s")
	eventually(t, "slow polls end", func() bool { return w.metric("fleet_errors_total", "slow") >= 4 })
}

// These records were written by the last version and by the next one, or are damaged.
func TestRecordsOfOtherVersions(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 5, Servers: 1, Messages: 1})
	keys := make([]string, 5)
	for n, a := range r.lab.Accounts {
		keys[n] = accounts.KeyOf(a.Name)
	}
	record := func(n int, more map[string]any) {
		fields := map[string]any{"account": r.lab.Accounts[n].Name, "host": "127.0.0.2", "next": time.Now(),
			"every": 1e9, "total": 40}
		for name, value := range more {
			fields[name] = value
		}
		r.put(keys[n], fields)
	}
	record(0, nil) // a record of the last version
	record(1, map[string]any{"v": 2, "quota": map[string]int{"used": 7}, "written": time.Now()})
	record(2, map[string]any{"next": "2099-01-01T00:00:00Z"})
	record(3, map[string]any{"account": "", "host": ""})
	_, err := r.bus.records.Put(t.Context(), keys[4], []byte("{nonsense"))
	require.NoError(t, err)
	r.start("scheduler", "s")
	r.start("worker", "w")
	eventually(t, "all are polled", r.polledAll)
	assert.GreaterOrEqual(t, r.record(r.lab.Accounts[0].Name).Total, int64(40))
	assert.Equal(t, recordVersion, r.record(r.lab.Accounts[0].Name).Version)
	kve, err := r.bus.records.Get(t.Context(), keys[1])
	require.NoError(t, err)
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(kve.Value(), &fields))
	assert.JSONEq(t, `{"used":7}`, string(fields["quota"]), "a field of the next version stays")
	assert.Equal(t, "2", string(fields["v"]))
	assert.Contains(t, []string{"40", "41"}, string(fields["total"]), "40 if the scheduler wrote during the poll")
	r.wantOnce(5)
}

// A worker is stopped with SIGSTOP while it polls. Another worker takes over, and the first does nothing more when it
// continues.
func TestFrozenWorker(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Servers: 1})
	require.NoError(t, r.lab.Start(9, 0, 4, false,
		"--count", "4", "--messages", "5", "--size", "300", "--delay", "200ms"))
	for n := range r.lab.Accounts {
		r.lab.Accounts[n].Delete = true
	}
	require.NoError(t, r.lab.Save())
	r.start("scheduler", "s")
	first := r.start("worker", "first")
	eventually(t, "it polls", func() bool { _, n := r.delivered(); return n >= 4 })
	first.Cmd.Process.Signal(syscall.SIGSTOP)
	second := r.start("worker", "second")
	sleepThrough(testSilence)
	eventually(t, "the second one finds the sessions of the first", func() bool {
		return second.metric("fleet_errors_total", "IN-USE") > 0
	})
	first.Cmd.Process.Signal(syscall.SIGCONT)
	eventually(t, "the first one ends its polls", func() bool { return first.metric("fleet_polling") == 0 })
	r.command("poll", "--all")
	eventually(t, "all is delivered", func() bool { count, _ := r.delivered(); return len(count) == 20 })
	eventually(t, "the polls end", func() bool { return second.metric("fleet_polling") == 0 })
	_, all := r.delivered()
	assert.LessOrEqual(t, all, 24, "one for each session that was stopped between delivery and note")
}
