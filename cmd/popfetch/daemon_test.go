package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// refusal returns the error of a login that a server refuses with reply. The server announces capability.
func refusal(t *testing.T, capability, reply string) error {
	t.Helper()
	conn, _ := pop3test.Script(`
		S: +OK
		C: CAPA
		S: +OK
		S: USER
		S: ` + capability + `
		S: RESP-CODES
		S: .
		C: USER a
		S: +OK
		C: PASS b
		S: ` + reply)
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true})
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Capa(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.User(t.Context(), "a"))
	err = c.Pass(t.Context(), "b")
	require.Error(t, err)
	return err
}

// C-077: the pause of a daemon depends on what failed.
func TestSchedule(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	down := errors.New("down")
	wrong := refusal(t, "AUTH-RESP-CODE", "-ERR [AUTH] no")
	perhapsWrong := refusal(t, "TOP", "-ERR invalid password")
	busy := refusal(t, "AUTH-RESP-CODE", "-ERR [IN-USE] locked")
	const every = 10 * time.Minute
	tests := []struct {
		name         string
		every        time.Duration // 0 means 10 minutes
		random       float64
		errs         []error
		onlyMessages bool // only single messages failed, so the run itself succeeded
		tryAgain     time.Duration
		want         time.Duration
	}{
		{name: "done", errs: []error{nil}, want: every},
		{name: "LOGIN-DELAY", errs: []error{nil}, tryAgain: time.Hour, want: time.Hour},
		{name: "LOGIN-DELAY is shorter", errs: []error{nil}, tryAgain: time.Second, want: every},
		{name: "C-077 a refused message", errs: repeated(down, 40), onlyMessages: true, want: every},
		{name: "C-077 a run that took too long", errs: repeated(errRunTimeout, 40), want: every},
		{name: "C-077 network down", errs: repeated(down, 1), want: 30 * time.Second},
		{name: "network down twice", errs: repeated(down, 2), want: time.Minute},
		{name: "network down three times, with a random part", random: 0.5, errs: repeated(down, 3),
			want: 2*time.Minute + 15*time.Second},
		{name: "network down for long", errs: repeated(down, 40), want: every},
		{name: "network down, a short interval", every: 20 * time.Second, errs: repeated(down, 3),
			want: 20 * time.Second},
		{name: "down, up and down", errs: []error{down, down, nil, down}, want: 30 * time.Second},
		{name: "C-077 wrong password", errs: repeated(wrong, 1), want: maxPassword},
		{name: "wrong password, long interval", every: 24 * time.Hour, errs: repeated(wrong, 3), want: 24 * time.Hour},
		{name: "perhaps a wrong password", errs: repeated(perhapsWrong, 1), want: maxPassword},
		{name: "perhaps a wrong password, for long", errs: repeated(perhapsWrong, 40), want: maxPassword},
		{name: "maildrop in use", errs: repeated(busy, 1), tryAgain: 30 * time.Minute, want: 30 * time.Minute},
		{name: "maildrop in use for long", errs: repeated(busy, 40), want: maxRefused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := schedule{every: cmp.Or(tt.every, every), random: func() float64 { return tt.random }}
			var got time.Time
			for _, err := range tt.errs {
				r := fetch.Report{Err: err, Aborted: err}
				if tt.onlyMessages {
					r.Aborted = nil
				}
				if tt.tryAgain > 0 {
					r.TryAgain = now.Add(tt.tryAgain)
				}
				got = s.next(now, r)
			}
			assert.Equal(t, tt.want, got.Sub(now))
		})
	}
}

func repeated(err error, n int) (errs []error) {
	for range n {
		errs = append(errs, err)
	}
	return errs
}

// A testDaemon is a daemon in a synctest bubble. It has one account, whose server is at the other end of a pipe.
type testDaemon struct {
	*program
	srv    *pop3test.Server
	out    syncBuffer
	errs   syncBuffer
	stored []string
}

// A syncBuffer keeps the text that the daemon has written.
type syncBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p...)
	return len(p), nil
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

func newTestDaemon(t *testing.T, stop context.Context) (*testDaemon, *account) {
	r := &testDaemon{srv: pop3test.NewUnstartedServer(mailbox("ann", newMessages("one")...))}
	r.program = &program{options: &options{daemon: true}, slots: make(chan struct{}, 1)}
	r.signals = fakeSignals(stop, t.Context())(true)
	r.log = slog.New(slog.NewTextHandler(&r.errs, nil))
	r.display = &lines{program: r.program}
	a := &account{settings: settings{Name: "ann", User: "ann", Password: password}}
	a.Interval, a.RunTimeout, a.PasswordTimeout = span{10 * time.Minute}, span{time.Hour}, span{time.Minute}
	a.ID, a.seen, a.wake = "ann@test", new(fetch.MemorySeen), make(chan struct{}, 1)
	a.dial = func(ctx context.Context, _ string, o *pop3.Options) (*pop3.Client, error) {
		near, far := net.Pipe()
		go r.srv.ServeConn(far)
		return pop3.NewClient(ctx, near, o)
	}
	a.InsecureAuth = true
	a.sink = fetch.SinkFunc(func(_ context.Context, _ fetch.Item, m io.Reader) error {
		text, err := io.ReadAll(m)
		r.stored = append(r.stored, string(text))
		return err
	})
	return r, a
}

// fetchOnce fetches once, not as a daemon.
func (r *testDaemon) fetchOnce(a *account) int {
	r.options = &options{}
	r.stdout, r.stderr = &r.out, &r.errs
	return r.fetchAll([]*account{a})
}

// This test runs a daemon for a day. The daemon fetches at its interval, waits as long as the server requires, waits
// longer after failures, and ends at a signal.
func TestDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, signal := context.WithCancel(t.Context())
		r, a := newTestDaemon(t, stop)
		ended := make(chan int)
		go func() {
			r.stdout, r.stderr = &r.out, &r.errs
			ended <- r.fetchAll([]*account{a})
		}()
		sessionsWithin := func(after time.Duration) int {
			before := len(r.srv.Sessions())
			time.Sleep(after)
			synctest.Wait()
			return len(r.srv.Sessions()) - before
		}
		synctest.Wait()
		assert.Len(t, r.srv.Sessions(), 2, "another session follows a session that has stored messages")
		assert.Equal(t, 6, sessionsWithin(time.Hour))
		r.srv.Deliver("ann", newMessages("two")...)
		assert.Equal(t, 2, sessionsWithin(10*time.Minute))
		assert.Len(t, r.stored, 2)

		r.srv.SetFaults(pop3test.Fault{At: pop3test.AtGreeting, Reply: "-ERR [SYS/PERM] down"})
		assert.Less(t, sessionsWithin(24*time.Hour), 60, "the pauses become longer")
		assert.GreaterOrEqual(t, sessionsWithin(24*time.Hour), 6, "the daemon still tries")
		assert.Contains(t, r.errs.String(), "account=ann")
		r.srv.SetFaults()
		sessionsWithin(maxRefused + maxRefused/4)
		assert.Equal(t, 6, sessionsWithin(time.Hour))

		r.srv.SetFaults(pop3test.Fault{At: "CAPA", Reply: "+OK\r\nUSER\r\nUIDL\r\nLOGIN-DELAY 3600\r\n."})
		sessionsWithin(10 * time.Minute)
		assert.Equal(t, 3, sessionsWithin(3*time.Hour), "LOGIN-DELAY")

		signal()
		assert.Equal(t, exitDone, <-ended)
		assert.NotContains(t, r.errs.String()+r.out.String(), "canary")
	})
}

// The first signal ends a run between two messages. Stored messages are deleted.
func TestStopBetweenMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, signal := context.WithCancel(t.Context())
		r, a := newTestDaemon(t, stop)
		r.srv.Deliver("ann", newMessages("two", "three", "four")...)
		a.Delete.delete = true
		sink := a.sink
		a.sink = fetch.SinkFunc(func(ctx context.Context, item fetch.Item, m io.Reader) error {
			if item.Num == 2 {
				signal()
			}
			return sink.Deliver(ctx, item, m)
		})
		assert.Equal(t, exitStopped, r.fetchOnce(a))
		assert.Equal(t, messageTexts("one", "two"), r.stored)
		assert.Len(t, r.srv.Left("ann"), 2)
		assert.Equal(t, "ann: 2 new, 60 bytes, 2 deleted, then stopped\n", r.out.String())
		assert.Contains(t, r.errs.String(), "popfetch: stopping after the current message\n")
		assert.Contains(t, r.errs.String(), "popfetch: ann: stopped by a signal; the next run continues\n")
	})
}

func messageTexts(texts ...string) (all []string) {
	for _, m := range newMessages(texts...) {
		all = append(all, string(m))
	}
	return all
}

// If nothing was stored yet, a signal ends the run at once.
func TestStopWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, signal := context.WithCancel(t.Context())
		r, a := newTestDaemon(t, stop)
		r.srv.SetFaults(pop3test.Fault{At: pop3test.AtGreeting, Delay: time.Minute})
		start := time.Now()
		time.AfterFunc(time.Second, signal)
		assert.Equal(t, exitStopped, r.fetchOnce(a))
		assert.Equal(t, time.Second, time.Since(start))
		assert.NotContains(t, r.errs.String(), "connecting", "no error is shown")
		time.Sleep(time.Minute) // after this time the server has noticed that the client has closed the connection
	})
}

// With parallel = 1 an account must wait for a slot, also in a daemon.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, signal := context.WithCancel(t.Context())
		r, a := newTestDaemon(t, stop)
		r.slots <- struct{}{}
		done := make(chan struct{})
		go func() { r.serve([]*account{a}); close(done) }()
		time.Sleep(time.Hour)
		assert.Empty(t, r.srv.Sessions())
		<-r.slots
		synctest.Wait()
		assert.Len(t, r.srv.Sessions(), 2)
		signal()
		<-done
		assert.Contains(t, r.errs.String(), `level=INFO msg="1 new, 30 bytes" account=ann`)
	})
}

// withRunningDaemon runs a daemon with one account in a synctest bubble while test runs. Then it stops the daemon.
func withRunningDaemon(t *testing.T, change func(r *testDaemon, a *account), test func(r *testDaemon, a *account)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		stop, signal := context.WithCancel(t.Context())
		r, a := newTestDaemon(t, stop)
		if change != nil {
			change(r, a)
		}
		ended := make(chan struct{})
		go func() { r.serve([]*account{a}); close(ended) }()
		synctest.Wait()
		test(r, a)
		signal()
		<-ended
	})
}

// C-083: SIGUSR1 fetches at once.
func TestFetchNow(t *testing.T) {
	withRunningDaemon(t, nil, func(r *testDaemon, _ *account) {
		first := len(r.srv.Sessions())
		time.Sleep(time.Minute)
		r.fetchNow <- syscall.SIGTERM // the value is not used, and Windows has no SIGUSR1
		synctest.Wait()
		assert.Len(t, r.srv.Sessions(), first+1)
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		assert.Len(t, r.srv.Sessions(), first+1, "the interval begins again")
	})
}

// C-083: SIGHUP makes popfetch read the configuration again. If the new configuration has a mistake, the old one stays
// in use.
func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	require.NoError(t, os.WriteFile(file, []byte(withLines("interval = 5")), 0o600))
	change := func(r *testDaemon, _ *account) { r.options.config = file }
	withRunningDaemon(t, change, func(r *testDaemon, _ *account) {
		first := len(r.srv.Sessions())
		r.reload <- syscall.SIGTERM
		synctest.Wait()
		assert.Contains(t, r.errs.String(), "the new configuration cannot be used, so the old one stays in use: ")
		assert.Contains(t, r.errs.String(), "line 6: account \\\"me\\\": interval is text")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		assert.Len(t, r.srv.Sessions(), first+1)

		require.NoError(t, os.WriteFile(file, []byte("[[account]]\nserver = \"127.0.0.1:1\"\nuser = \"bob\"\n"+
			"tls = \"none\"\npassword_env = \"NONE\"\nshell_command = \"true\"\n"), 0o600))
		r.reload <- syscall.SIGTERM
		synctest.Wait()
		assert.Contains(t, r.errs.String(), "configuration read again: 1 account")
		assert.Contains(t, r.errs.String(), "account=bob")
		time.Sleep(time.Hour)
		assert.Len(t, r.srv.Sessions(), first+1, "popfetch no longer fetches from the old account")
	})
}

// C-076: a slow account delays the others by at most slotTime, and its run ends.
func TestSlowAccountDoesNotBlockOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, signal := context.WithCancel(t.Context())
		r, slow := newTestDaemon(t, stop)
		r.srv.SetFaults(pop3test.Fault{At: "RETR", Chunk: 1, Pace: time.Second})
		slow.Timeout.Duration = -1
		other, good := newTestDaemon(t, stop)
		good.Name, good.ID = "bob", "bob"
		ended := make(chan struct{})
		go func() { r.serve([]*account{slow, good}); close(ended) }()
		time.Sleep(slotTime + time.Second)
		synctest.Wait()
		assert.NotEmpty(t, other.srv.Sessions(), "the slot is free after slotTime")
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		assert.Greater(t, len(other.srv.Sessions()), 10)
		signal()
		<-ended
		time.Sleep(time.Hour) // after this time the server has noticed that the client has closed the connection
	})
}

// A run that takes longer than run_timeout ends, even in the middle of a message. The next run follows.
func TestRunTimeout(t *testing.T) {
	change := func(r *testDaemon, a *account) {
		r.srv.SetFaults(pop3test.Fault{At: "RETR", Delay: 50 * time.Minute, Times: 1})
		a.RunTimeout.Duration, a.Timeout.Duration = 5*time.Minute, -1
	}
	withRunningDaemon(t, change, func(r *testDaemon, _ *account) {
		time.Sleep(5*time.Minute + grace + time.Second)
		synctest.Wait()
		assert.Contains(t, r.errs.String(), "the run took longer than run_timeout allows; the next run continues")
		time.Sleep(2 * time.Hour) // the server sleeps for 50 minutes in the first session
		synctest.Wait()
		assert.Equal(t, messageTexts("one"), r.stored)
	})
}

// after_new runs after a run with new mail. on_failure runs when an account has failed several times in a row, even if
// each run is a process of its own.
func TestHooks(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one", "two")...))
	defer srv.Close()
	p := newWorkspace(t)
	hook := func(key string) string {
		return fmt.Sprintf("%s = [\"sh\", \"-c\", %q]", key,
			`echo "$POPFETCH_ACCOUNT $POPFETCH_NEW $POPFETCH_FAILURES $POPFETCH_ERROR$POPFETCH_TEST_PASSWORD" >> `+
				``+p.path(key))
	}
	config := p.configure(p.account(srv, "ann", hook("after_new"), hook("on_failure"), "on_failure_after = 3"))
	hookOutput := func(key string) string {
		text, _ := os.ReadFile(p.path(key))
		return string(text)
	}
	require.Equal(t, exitDone, p.run("-c", config).status)
	require.Equal(t, exitDone, p.run("-c", config).status)
	assert.Equal(t, "ann 2  \n", hookOutput("after_new"))
	srv.SetFaults(pop3test.Fault{At: pop3test.AtGreeting, Reply: "-ERR down"})
	for n := range 5 {
		require.Equal(t, exitFailed, p.run("-c", config).status)
		assert.Equal(t, n >= 2, hookOutput("on_failure") != "", n)
	}
	assert.Regexp(t, `^ann  3 connecting: .*down.*\n$`, hookOutput("on_failure"))
	srv.SetFaults()
	require.Equal(t, exitDone, p.run("-c", config).status)
	srv.SetFaults(pop3test.Fault{At: pop3test.AtGreeting, Reply: "-ERR down"})
	for range 3 {
		p.run("-c", config)
	}
	assert.Equal(t, 2, strings.Count(hookOutput("on_failure"), "\n"), "after a success the count starts at 0")

	r := p.run("-c", p.configure(p.account(srv, "ann", `on_failure = ["sh", "-c", "echo no mail >&2; exit 1"]`)))
	assert.NotContains(t, r.err, "on_failure", "on_failure runs only at the first failure, and this is the fourth")
	srv.SetFaults()
	srv.Deliver("ann", newMessages("three")...)
	r = p.run("-c", p.configure(p.account(srv, "ann", `after_new = ["sh", "-c", "echo no sound >&2; exit 1"]`)))
	assert.Equal(t, "popfetch: ann: after_new sh: exit status 1: no sound\n", r.err)
}
