package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// refusal gives the error of a login that the server answers with reply.
func refusal(t *testing.T, reply string) error {
	t.Helper()
	conn, _ := pop3test.Script(`
		S: +OK
		C: CAPA
		S: +OK
		S: USER
		S: AUTH-RESP-CODE
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

func TestSchedule(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	down := errors.New("down")
	wrong := refusal(t, "-ERR [AUTH] no")
	busy := refusal(t, "-ERR [IN-USE] locked")
	tests := []struct {
		name     string
		every    time.Duration
		random   float64
		errs     []error
		tryAgain time.Duration
		want     time.Duration
	}{
		{name: "done", every: time.Minute, errs: []error{nil}, want: time.Minute},
		{name: "LOGIN-DELAY", every: time.Minute, errs: []error{nil}, tryAgain: time.Hour, want: time.Hour},
		{name: "LOGIN-DELAY is shorter", every: time.Minute, errs: []error{nil}, tryAgain: time.Second, want: time.Minute},
		{name: "down", every: time.Minute, errs: []error{down}, want: time.Minute},
		{name: "down, by chance later", every: time.Minute, random: 0.5, errs: []error{down}, want: 90 * time.Second},
		{name: "down twice", every: time.Minute, errs: []error{down, down}, want: 2 * time.Minute},
		{name: "down thrice", every: time.Minute, random: 0.75, errs: []error{down, down, down}, want: 7 * time.Minute},
		{name: "down and up", every: time.Minute, errs: []error{down, down, nil}, want: time.Minute},
		{name: "down, up and down", every: time.Minute, errs: []error{down, down, nil, down}, want: time.Minute},
		{name: "down for long", every: time.Minute, errs: slicesOf(down, 40), want: maxBackoff / 2},
		{name: "down for long, rarely asked", every: 24 * time.Hour, errs: slicesOf(down, 40), want: 24 * time.Hour},
		{name: "wrong password", every: time.Minute, errs: []error{wrong}, want: maxBackoff / 2},
		{name: "in use", every: time.Minute, errs: []error{busy}, tryAgain: 3 * time.Minute, want: 3 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := schedule{every: tt.every, random: func() float64 { return tt.random }}
			var got time.Time
			for _, err := range tt.errs {
				r := fetch.Report{Err: err}
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
	r.program = &program{options: &options{daemon: true}, stop: stop, cut: t.Context(), slots: make(chan struct{}, 1)}
	r.show = &lines{out: &r.out, pending: make(map[*account]int)}
	r.log = slog.New(slog.NewTextHandler(&r.errs, nil))
	secret := password
	a := &account{settings: settings{Name: "ann", User: "ann", Password: &secret, Interval: span{10 * time.Minute}}}
	a.key, a.seen = "ann@test", new(fetch.MemorySeen)
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

// A day of a daemon: it comes at its interval, waits as long as the server wants, backs off, and ends at a signal.
func TestDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, signal := context.WithCancel(t.Context())
		r, a := newRig(t, stop)
		ended := make(chan int)
		go func() {
			r.serve([]*account{a})
			ended <- r.status([]*account{a})
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
		assert.Less(t, sessions(24*time.Hour), 24*60/10/4, "it backs off")
		assert.GreaterOrEqual(t, sessions(24*time.Hour), 6, "it does not give up")
		assert.Contains(t, r.errs.String(), "account=ann")
		r.srv.SetFaults()
		sessions(maxBackoff)
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
		r.options = new(options)
		r.once([]*account{a})
		assert.Equal(t, mailTexts("one", "two"), r.got)
		assert.Len(t, r.srv.Left("ann"), 2)
		assert.Equal(t, exitStopped, r.status([]*account{a}))
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
		r.options = new(options)
		r.once([]*account{a})
		assert.Equal(t, time.Second, time.Since(start))
		assert.Equal(t, exitStopped, r.status([]*account{a}))
		assert.Empty(t, r.errs.String(), "it is no trouble")
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
		assert.Equal(t, "ann: 1 new, 30 octets\n", firstLine(r.out.String()))
	})
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return fmt.Sprintln(line)
}
