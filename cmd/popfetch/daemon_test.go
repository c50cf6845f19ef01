package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// refusal returns the error of a login that a server with a capability answers with reply.
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

// C-077: how long a daemon waits depends on what went wrong.
func TestSchedule(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	down := errors.New("down")
	wrong := refusal(t, "AUTH-RESP-CODE", "-ERR [AUTH] no")
	perhapsWrong := refusal(t, "TOP", "-ERR invalid password")
	busy := refusal(t, "AUTH-RESP-CODE", "-ERR [IN-USE] locked")
	const every = 10 * time.Minute
	tests := []struct {
		name     string
		every    time.Duration // 10 minutes if it is 0
		random   float64
		errs     []error
		single   bool // the trouble is with single messages
		tryAgain time.Duration
		want     time.Duration
	}{
		{name: "done", errs: []error{nil}, want: every},
		{name: "LOGIN-DELAY", errs: []error{nil}, tryAgain: time.Hour, want: time.Hour},
		{name: "LOGIN-DELAY is shorter", errs: []error{nil}, tryAgain: time.Second, want: every},
		{name: "C-077 a refused message", errs: slicesOf(down, 40), single: true, want: every},
		{name: "C-077 a run that took too long", errs: slicesOf(errRunTimeout, 40), want: every},
		{name: "C-077 network down", errs: slicesOf(down, 1), want: 30 * time.Second},
		{name: "network down twice", errs: slicesOf(down, 2), want: time.Minute},
		{name: "network down thrice, by chance later", random: 0.5, errs: slicesOf(down, 3),
			want: 2*time.Minute + 15*time.Second},
		{name: "network down for long", errs: slicesOf(down, 40), want: every},
		{name: "network down, a short interval", every: 20 * time.Second, errs: slicesOf(down, 3),
			want: 20 * time.Second},
		{name: "down, up and down", errs: []error{down, down, nil, down}, want: 30 * time.Second},
		{name: "C-077 wrong password", errs: slicesOf(wrong, 1), want: maxPassword},
		{name: "wrong password, rarely asked", every: 24 * time.Hour, errs: slicesOf(wrong, 3), want: 24 * time.Hour},
		{name: "perhaps a wrong password", errs: slicesOf(perhapsWrong, 1), want: every},
		{name: "perhaps a wrong password, thrice", errs: slicesOf(perhapsWrong, 3), want: 4 * every},
		{name: "perhaps a wrong password, for long", errs: slicesOf(perhapsWrong, 40), want: maxPassword},
		{name: "in use", errs: slicesOf(busy, 1), tryAgain: 30 * time.Minute, want: 30 * time.Minute},
		{name: "in use for long", errs: slicesOf(busy, 40), want: maxRefused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := schedule{every: cmp.Or(tt.every, every), random: func() float64 { return tt.random }}
			var got time.Time
			for _, err := range tt.errs {
				r := fetch.Report{Err: err, Aborted: err}
				if tt.single {
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

func slicesOf(err error, n int) (errs []error) {
	for range n {
		errs = append(errs, err)
	}
	return errs
}

// A rig is a daemon in a bubble, for one account whose server is at the end of a pipe.
type rig struct {
	*program
	srv  *pop3test.Server
	out  bytes.Buffer
	errs bytes.Buffer
	got  []string
}

func newRig(t *testing.T, stop context.Context) (*rig, *account) {
	r := &rig{srv: pop3test.NewUnstartedServer(box("ann", mails("one")...))}
	r.program = &program{options: &options{daemon: true, logFormat: "text"}, slots: make(chan struct{}, 1)}
	r.signals = listenTo(stop, t.Context())(true)
	r.log = slog.New(slog.NewTextHandler(&r.errs, nil))
	r.show = logged{r.log}
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
		r.got = append(r.got, string(text))
		return err
	})
	return r, a
}

// fetchOnce is a run that is no daemon.
func (r *rig) fetchOnce(a *account) int {
	r.options = &options{logFormat: "text"}
	r.stdout, r.stderr = &r.out, &r.errs
	return r.fetchAll([]*account{a})
}

// A day of a daemon: it comes at its interval, waits as long as the server wants, backs off, and ends at a signal.
func TestDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, signal := context.WithCancel(t.Context())
		r, a := newRig(t, stop)
		ended := make(chan int)
		go func() {
			r.stdout, r.stderr = &r.out, &r.errs
			ended <- r.fetchAll([]*account{a})
		}()
		sessions := func(after time.Duration) int {
			before := len(r.srv.Sessions())
			time.Sleep(after)
			synctest.Wait()
			return len(r.srv.Sessions()) - before
		}
		synctest.Wait()
		assert.Len(t, r.srv.Sessions(), 1)
		assert.Equal(t, 6, sessions(time.Hour))
		r.srv.Deliver("ann", mails("two")...)
		assert.Equal(t, 1, sessions(10*time.Minute))
		assert.Len(t, r.got, 2)

		r.srv.SetFaults(pop3test.Fault{At: pop3test.AtGreeting, Reply: "-ERR [SYS/PERM] down"})
		assert.Less(t, sessions(24*time.Hour), 60, "it backs off")
		assert.GreaterOrEqual(t, sessions(24*time.Hour), 6, "it does not give up")
		assert.Contains(t, r.errs.String(), "account=ann")
		r.srv.SetFaults()
		sessions(maxRefused + maxRefused/4)
		assert.Equal(t, 6, sessions(time.Hour))

		r.srv.SetFaults(pop3test.Fault{At: "CAPA", Reply: "+OK\r\nUSER\r\nUIDL\r\nLOGIN-DELAY 3600\r\n."})
		sessions(10 * time.Minute)
		assert.Equal(t, 3, sessions(3*time.Hour), "LOGIN-DELAY")

		signal()
		assert.Equal(t, exitDone, <-ended)
		assert.NotContains(t, r.errs.String()+r.out.String(), "canary")
	})
}

// The first signal ends a run between two messages, with what is stored deleted.
func TestStopBetweenMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, signal := context.WithCancel(t.Context())
		r, a := newRig(t, stop)
		r.srv.Deliver("ann", mails("two", "three", "four")...)
		a.Delete.delete = true
		sink := a.sink
		a.sink = fetch.SinkFunc(func(ctx context.Context, item fetch.Item, m io.Reader) error {
			if item.Num == 2 {
				signal()
			}
			return sink.Deliver(ctx, item, m)
		})
		assert.Equal(t, exitStopped, r.fetchOnce(a))
		assert.Equal(t, mailTexts("one", "two"), r.got)
		assert.Len(t, r.srv.Left("ann"), 2)
		assert.Equal(t, "ann: 2 new, 60 bytes, 2 deleted, then stopped\n", r.out.String())
		assert.Contains(t, r.errs.String(), "popfetch: stopping after the message under way\n")
		assert.Contains(t, r.errs.String(), "popfetch: ann: stopped by a signal; the next run goes on\n")
	})
}

func mailTexts(texts ...string) (all []string) {
	for _, m := range mails(texts...) {
		all = append(all, string(m))
	}
	return all
}

// While nothing is stored yet there is nothing to wait for.
func TestStopWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, signal := context.WithCancel(t.Context())
		r, a := newRig(t, stop)
		r.srv.SetFaults(pop3test.Fault{At: pop3test.AtGreeting, Delay: time.Minute})
		start := time.Now()
		time.AfterFunc(time.Second, signal)
		assert.Equal(t, exitStopped, r.fetchOnce(a))
		assert.Equal(t, time.Second, time.Since(start))
		assert.NotContains(t, r.errs.String(), "connecting", "it is no trouble")
		time.Sleep(time.Minute) // for the server
	})
}

// With parallel = 1 an account waits for its turn, also in a daemon.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, signal := context.WithCancel(t.Context())
		r, a := newRig(t, stop)
		r.slots <- struct{}{}
		done := make(chan struct{})
		go func() { r.serve([]*account{a}); close(done) }()
		time.Sleep(time.Hour)
		assert.Empty(t, r.srv.Sessions())
		<-r.slots
		synctest.Wait()
		assert.Len(t, r.srv.Sessions(), 1)
		signal()
		<-done
		assert.Contains(t, r.errs.String(), `level=INFO msg="1 new, 30 bytes" account=ann`)
	})
}
