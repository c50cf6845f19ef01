package conformance_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// runKeepAlive runs f in a synctest bubble. f gets a client for which KeepAlive runs with an interval of a minute. It
// returns the error of KeepAlive, and the commands that the server received after the login.
func runKeepAlive(
	t *testing.T,
	f func(ctx context.Context, cancel func(), c *pop3.Client),
) (commands []string, result error) {
	synctest.Test(t, func(t *testing.T) {
		srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary, Messages: smallMail(3)})
		near, far, wait := delayedPipe(roundTrip)
		served := make(chan struct{})
		go func() { defer close(served); srv.ServeConn(far) }()
		c, err := pop3.NewClient(t.Context(), near, insecure)
		require.NoError(t, err)
		require.NoError(t, byUser(t.Context(), c))

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- c.KeepAlive(ctx, time.Minute) }()
		f(ctx, cancel, c)
		result = <-done
		c.Close()
		<-served
		wait()
		commands = srv.Commands()[2:]
	})
	return commands, result
}

func TestKeepAlive(t *testing.T) {
	commands, result := runKeepAlive(t, func(ctx context.Context, _ func(), c *pop3.Client) {
		time.Sleep(time.Hour) // without KeepAlive the server would have closed the connection after ten minutes
		require.NoError(t, c.Quit(ctx))
	})
	require.NoError(t, result)
	assert.Equal(t, append(slices.Repeat([]string{"NOOP"}, 59), "QUIT"), commands)
}

func TestKeepAliveEndsWithItsContext(t *testing.T) {
	_, result := runKeepAlive(t, func(ctx context.Context, cancel func(), c *pop3.Client) {
		time.Sleep(time.Minute + roundTrip/4) // a NOOP has been sent, and its reply has not arrived yet
		cancel()
		time.Sleep(roundTrip)
		require.NoError(t, c.Noop(context.WithoutCancel(ctx)), "the session can continue")
	})
	require.ErrorIs(t, result, context.Canceled)
}

func TestKeepAliveEndsWithClose(t *testing.T) {
	_, result := runKeepAlive(t, func(_ context.Context, _ func(), c *pop3.Client) {
		time.Sleep(90 * time.Second)
		require.NoError(t, c.Close())
	})
	require.NoError(t, result)
}

// TestKeepAliveAndCalls: a command that is called during a NOOP waits for the reply to the NOOP. While a message is
// open, no NOOP is sent.
func TestKeepAliveAndCalls(t *testing.T) {
	commands, result := runKeepAlive(t, func(ctx context.Context, _ func(), c *pop3.Client) {
		time.Sleep(time.Minute + roundTrip/4)
		drop, err := c.Stat(ctx)
		require.NoError(t, err)
		assert.Equal(t, 3, drop.Count)

		time.Sleep(30 * time.Second)
		m, err := c.Retr(ctx, 1)
		require.NoError(t, err)
		time.Sleep(9 * time.Minute)
		_, err = io.Copy(io.Discard, m)
		require.NoError(t, err)
		require.NoError(t, c.Quit(ctx))
	})
	require.NoError(t, result)
	assert.Equal(t, []string{"NOOP", "STAT", "RETR 1", "QUIT"}, commands)
}

// A -ERR reply to NOOP does not end KeepAlive; a lost connection does. With an interval of 0, KeepAlive fails with
// ErrArgument and sends nothing (C-018).
func TestKeepAliveLostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script(loginScript().add("C: NOOP\nS: -ERR never heard of it\nC: NOOP\nEOF").String())
		c, err := pop3.NewClient(t.Context(), conn, insecure)
		require.NoError(t, err)
		require.ErrorIs(t, c.KeepAlive(t.Context(), 0), pop3.ErrArgument)
		require.NoError(t, byUser(t.Context(), c))
		err = c.KeepAlive(t.Context(), time.Minute)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.True(t, errors.Is(c.Noop(t.Context()), io.ErrUnexpectedEOF))
		require.NoError(t, done())
	})
}

func TestKeepAliveBeforeLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script("S: +OK")
		c, err := pop3.NewClient(t.Context(), conn, nil)
		require.NoError(t, err)
		start := time.Now()
		require.ErrorIs(t, c.KeepAlive(t.Context(), time.Minute), pop3.ErrState)
		require.ErrorIs(t, c.KeepAlive(t.Context(), 1), pop3.ErrState, "C-110: the shortest interval is valid")
		require.Zero(t, time.Since(start), "it fails at once")
		require.NoError(t, c.Close())
		require.NoError(t, done())
	})
}

// TestCloseBesideKeepAlive: closing a message resets the time of the last activity. The race detector checks that
// KeepAlive does not read that time at the same moment.
func TestCloseBesideKeepAlive(t *testing.T) {
	_, result := runKeepAlive(t, func(ctx context.Context, _ func(), c *pop3.Client) {
		m, err := c.Retr(ctx, 1)
		require.NoError(t, err)
		require.NoError(t, m.Close())
		time.Sleep(90 * time.Second)
		require.NoError(t, c.Close())
	})
	require.NoError(t, result)
}

// TestDoneBesideKeepAlive: the hooks of a call and those of a NOOP of KeepAlive never run at the same time. The race
// detector checks that.
func TestDoneBesideKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script(loginScript().add(`
			C: RETR 1
			S: -ERR
			C: RETR 2
			S: +OK
			S: .
			C: NOOP
			S: +OK`).String())
		hooks := 0
		trace := &pop3.Trace{Done: func(context.Context, string, int64, error) { hooks++ }}
		c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{InsecureAuth: true, Trace: trace})
		require.NoError(t, err)
		require.NoError(t, byUser(t.Context(), c))
		go c.KeepAlive(t.Context(), time.Minute)
		_, err = c.Retr(t.Context(), 1)
		require.Error(t, err)
		m, err := c.Retr(t.Context(), 2)
		require.NoError(t, err)
		_, err = io.ReadAll(m)
		require.NoError(t, err)
		time.Sleep(90 * time.Second)
		require.NoError(t, c.Close())
		synctest.Wait()
		assert.Equal(t, 5, hooks)
		require.NoError(t, done())
	})
}
