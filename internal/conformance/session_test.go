package conformance_test

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestBusy(t *testing.T) {
	c := loggedInClient(t, script{`
		C: RETR 1
		S: +OK
		S: a
		S: .
		C: NOOP
		S: +OK
	`}, pop3.Options{})
	m, err := c.Retr(t.Context(), 1)
	require.NoError(t, err)
	require.ErrorIs(t, c.Noop(t.Context()), pop3.ErrBusy)
	_, err = c.Retr(t.Context(), 2)
	require.ErrorIs(t, err, pop3.ErrBusy)
	require.NoError(t, m.Close())
	require.NoError(t, m.Close(), "a second Close does nothing")
	_, err = m.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrClosed)
	require.NoError(t, c.Noop(t.Context()))
}

func TestMessageEnds(t *testing.T) {
	c := loggedInClient(t, script{`
		C: RETR 1
		S: +OK
		S: a
		S: .
		C: NOOP
		S: +OK
		C: RETR 2
		S: +OK
		S: half a mess
		EOF
	`}, pop3.Options{})
	m, err := c.Retr(t.Context(), 1)
	require.NoError(t, err)
	b, err := io.ReadAll(m)
	require.NoError(t, err)
	assert.Equal(t, "a\r\n", string(b))
	_, err = m.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err, "a later Read returns io.EOF again")
	require.NoError(t, c.Noop(t.Context()), "a message that was read to its end need not be closed")

	m, err = c.Retr(t.Context(), 2)
	require.NoError(t, err)
	b, err = io.ReadAll(m)
	assert.Equal(t, "half a mess\r\n", string(b))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NotErrorIs(t, err, io.EOF)
	err = c.Noop(t.Context())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "the error of the first cause")
	require.Equal(t, pop3.StateClosed, c.State())
}

func TestContextEndedBefore(t *testing.T) {
	c := loggedInClient(t, script{`
		C: NOOP
		S: +OK
	`}, pop3.Options{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.Noop(ended), context.Canceled)
	for m, err := range c.Messages(ended, 1, 2) {
		require.Nil(t, m)
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, c.Noop(t.Context()), "the session can continue")
}

func TestDeadlineDoesNotStick(t *testing.T) {
	c := loggedInClient(t, script{`
		C: NOOP
		S: +OK
		C: NOOP
		S: +OK
	`}, pop3.Options{})
	short, cancel := context.WithTimeout(t.Context(), time.Hour)
	require.NoError(t, c.Noop(short))
	cancel()
	require.NoError(t, c.Noop(t.Context()))
}

func TestQuitTwice(t *testing.T) {
	c := loggedInClient(t, script{`
		C: QUIT
		S: +OK
		EOF
	`}, pop3.Options{})
	require.NoError(t, c.Quit(t.Context()))
	require.NoError(t, c.Quit(t.Context()), "the second Quit sends nothing")
	require.NoError(t, c.Close())
}

func TestQuitAfterClose(t *testing.T) {
	c := loggedInClient(t, nil, pop3.Options{})
	require.NoError(t, c.Close())
	err := c.Quit(t.Context())
	require.Error(t, err)
	require.NotErrorIs(t, err, pop3.ErrCommitUnknown)
}

func TestMessagesStopsEarly(t *testing.T) {
	for _, mode := range []pop3.Pipelining{pop3.PipeliningNever, pop3.PipeliningAlways} {
		srv := pop3test.NewServer(&pop3test.Mailbox{User: "u", Password: canary, Messages: smallMail(20)})
		t.Cleanup(srv.Close)
		stop := errors.New("stop")
		for name, leave := range map[string]func(c *pop3.Client) error{
			"break": func(c *pop3.Client) error {
				for range c.Messages(t.Context(), 1, 2, 3, 4, 5) {
					break
				}
				return nil
			},
			"panic": func(c *pop3.Client) (err error) {
				defer func() { err, _ = recover().(error) }()
				for m := range c.Messages(t.Context(), 1, 2, 3, 4, 5) {
					if m.Num == 2 {
						panic(stop)
					}
				}
				return nil
			},
		} {
			c, err := pop3.DialInsecure(t.Context(), srv.Addr, &pop3.Options{Pipelining: mode})
			require.NoError(t, err)
			require.NoError(t, c.Login(t.Context(), "u", canary))
			if err := leave(c); err != nil {
				require.ErrorIs(t, err, stop, name)
			}
			require.NoError(t, c.Noop(t.Context()), "%s: the session goes on", name)
			require.NoError(t, c.Quit(t.Context()))
		}
	}
}

// smallMail returns n small messages.
func smallMail(n int) [][]byte {
	var all [][]byte
	for i := range n {
		all = append(all, []byte("Subject: "+strings.Repeat("x", i)+"\r\n\r\n.dot\r\nbody\r\n"))
	}
	return all
}

// TestDeleSendsNothing: with a context that is done, or with an invalid number, Dele marks nothing. The session can be
// used afterwards (C-019).
func TestDeleSendsNothing(t *testing.T) {
	dialogue{id: "C-019", script: turns("CAPA", "-ERR", "DELE 1", "+OK", "DELE 2", "+OK", "QUIT", "+OK").add("EOF"),
		do: loggedInTest(func(t *testing.T, ctx context.Context, c *pop3.Client) {
			done, cancel := context.WithCancel(ctx)
			cancel()
			assert.ErrorIs(t, c.Dele(done, 1), context.Canceled)
			assert.ErrorIs(t, c.Dele(ctx, 1, 0), pop3.ErrArgument)
			assert.NoError(t, errors.Join(c.Dele(ctx, 1, 2), c.Quit(ctx)))
		})}.run(t)
}

// TestLogTraceOfNothing: LogTrace(nil) logs to slog.Default (C-018).
func TestLogTraceOfNothing(t *testing.T) {
	var out strings.Builder
	defer log.SetFlags(log.Flags())
	defer log.SetOutput(log.Writer())
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	c := loggedInClient(t, turns("NOOP", "+OK"), pop3.Options{Trace: pop3.LogTrace(nil)})
	require.NoError(t, c.Noop(t.Context()))
	assert.Contains(t, out.String(), "cmd=NOOP")
}
