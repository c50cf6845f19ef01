package conformance_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// commitUnknown checks that the error says that each marked message may be deleted or not.
func commitUnknown(more ...errorCheck) errorCheck {
	return allOf(append(more, wraps(pop3.ErrCommitUnknown))...)
}

// notDeleted checks that the error does not say that a message may be deleted.
func notDeleted(more ...errorCheck) errorCheck {
	return allOf(append(more, func(t *testing.T, err error) {
		assert.NotErrorIs(t, err,
			pop3.ErrCommitUnknown)
	})...)
}

func TestHostileQuit(t *testing.T) {
	deleQuit := turns("DELE 1", "+OK", "QUIT")
	const pause = 250 * time.Millisecond
	playAll(t, []dialogue{
		{id: "R1-082 R1-086 confirmed", script: deleQuit.add("S: +OK", "EOF"), do: deleAndQuit, after: quitDone},
		{
			id:     "H-229 confirmed and left open",
			script: deleQuit.add("S: +OK"),
			do:     deleAndQuit,
			after:  quitDone,
			takes:  pause,
		},
		{id: "H-230 a word too many", script: deleQuit.sends("+OK bye\r\nextra").add("EOF"), do: deleAndQuit,
			after: quitDone},
		{id: "H-230 a word of two letters too many", script: deleQuit.sends("+OK bye\r\nno").add("EOF"),
			do:    deleAndQuit,
			after: quitDone},
		{id: "H-230 a line too many", script: deleQuit.sends("+OK bye\r\nextra\r\n"), do: deleAndQuit, after: quitDone,
			takes: pause},
		{id: "H-230 a reply too many", script: deleQuit.sends("+OK bye\r\n+OK\r\n").add("EOF"), do: deleAndQuit,
			want: failsWith(commitUnknown(fatal)), after: quitDone},
		{id: "H-230 a refusal too many", script: deleQuit.sends("+OK\r\n-ERR not removed\r\n").add("EOF"),
			do: deleAndQuit, want: failsWith(commitUnknown(fatal)), after: quitDone},
		{id: "3.11a a reply too many after 200 ms", script: deleQuit.add("S: +OK", "PAUSE 200ms", "S: +OK"),
			do: deleAndQuit, want: failsWith(commitUnknown(fatal)), after: quitDone, takes: 200 * time.Millisecond},
		{id: "3.11b after a line", script: deleQuit.sends("+OK\r\nextra\r\n+OK\r\n"), do: deleAndQuit,
			want: failsWith(commitUnknown(fatal)), after: quitDone},
		{id: "3.11c a reply too many in small letters", script: deleQuit.sends("+OK\r\n+ok\r\n"), do: deleAndQuit,
			want: failsWith(commitUnknown(fatal)), after: quitDone},
		{id: "3.11d the beginning of a reply", script: deleQuit.sends("+OK\r\n+O").add("EOF"), do: deleAndQuit,
			want: failsWith(commitUnknown(fatal)), after: quitDone},
		{id: "C-110 the beginning of a refusal", script: deleQuit.sends("+OK\r\n-ER").add("EOF"), do: deleAndQuit,
			want: failsWith(commitUnknown(fatal)), after: quitDone},
		{id: "3.11e a reply without line end", script: deleQuit.sends("+OK\r\n-ERR").add("EOF"), do: deleAndQuit,
			want: failsWith(commitUnknown(fatal)), after: quitDone},
		{id: "C-110 a single plus", script: deleQuit.sends("+OK\r\n+").add("EOF"), do: deleAndQuit,
			want: failsWith(commitUnknown(fatal)), after: quitDone},
		{id: "C-110 a word that begins like a reply, in two parts",
			script: deleQuit.sends("+OK\r\n+O").add("PAUSE 100ms").sends("mega\r\n").add("EOF"), do: deleAndQuit,
			after: quitDone, takes: 100 * time.Millisecond},
		{id: "3.11f very many words", script: deleQuit.sends("+OK\r\n" + strings.Repeat("extra\r\n", 5000)),
			do: deleAndQuit, after: quitDone},
		{id: "3.11g reset after it", script: deleQuit.add("S: +OK", "RESET"), do: deleAndQuit, after: quitDone},
		{id: "R1-083 refused", script: deleQuit.add("S: -ERR some not removed", "EOF"), do: deleAndQuit,
			want: failsWith(commitUnknown(refusedWith("", "some not removed"))), after: quitDone},
		{id: "H-228 refused with a code", script: deleQuit.add("S: -ERR [SYS/TEMP] x", "EOF"), do: deleAndQuit,
			want: failsWith(commitUnknown(refusedWith(pop3.CodeSysTemp, "x"))), after: quitDone},
		{id: "H-226 Q-61 the connection is closed", script: deleQuit.add("EOF"), do: deleAndQuit,
			want:  failsWith(commitUnknown(connLost)),
			after: quitDone},
		{id: "3.11h reset", script: deleQuit.add("RESET"), do: deleAndQuit,
			want:  failsWith(commitUnknown(wraps(errReset))),
			after: quitDone},
		{id: "H-231 no line end", script: deleQuit.sends("+OK").add("EOF"), do: deleAndQuit,
			want:  failsWith(commitUnknown(connLost)),
			after: quitDone},
		{id: "3.11i no LF", script: deleQuit.sends("+OK\r").add("EOF"), do: deleAndQuit,
			want:  failsWith(commitUnknown(connLost)),
			after: quitDone},
		{id: "3.11j LF without CR", script: deleQuit.sends("+OK\n").add("EOF"), do: deleAndQuit,
			want: failsWith(commitUnknown(fatal)), after: quitDone},
		{id: "3.11k no reply", script: deleQuit, do: deleAndQuit, want: failsWith(commitUnknown(timedOut)),
			after: quitDone,
			takes: 2 * time.Minute},
		{id: "3.11l almost two minutes", script: deleQuit.add("PAUSE 119s", "S: +OK", "EOF"), do: deleAndQuit,
			after: quitDone, takes: 119 * time.Second},
		{id: "R1-084 garbage", script: deleQuit.add("S: bye", "EOF"), do: deleAndQuit,
			want: failsWith(commitUnknown(fatal)), after: quitDone},
		{id: "3.11m OKAY", script: deleQuit.add("S: +OKAY", "EOF"), do: deleAndQuit,
			want:  failsWith(commitUnknown(fatal)),
			after: quitDone},
		{id: "3.11n challenge", script: deleQuit.add("S: +", "EOF"), do: deleAndQuit,
			want:  failsWith(commitUnknown(fatal)),
			after: quitDone},
		{id: "3.11o NUL", script: deleQuit.sends("+OK \x00\r\n").add("EOF"), do: deleAndQuit,
			want: failsWith(commitUnknown(fatal)), after: quitDone},
		{id: "R1-081 nothing marked, refused", script: turns("QUIT").add("S: -ERR", "EOF"), do: quit,
			want: failsWith(notDeleted(refusedWith("", ""))), after: quitDone},
		{id: "R1-081 nothing marked, the connection is closed", script: turns("QUIT").add("EOF"), do: quit,
			want:  failsWith(notDeleted(connLost)),
			after: quitDone},
		{id: "R1-081 nothing marked, confirmed", script: turns("QUIT").add("S: +OK"), do: quit, after: quitDone},
		{id: "3.11p nothing marked, silence", script: turns("QUIT"), do: quit, want: failsWith(notDeleted(timedOut)),
			after: quitDone,
			takes: 2 * time.Minute},
		{id: "R1-062 RSET is accepted", script: turns("DELE 1", "+OK", "RSET", "+OK", "QUIT").add("S: -ERR", "EOF"),
			do: deleResetQuit, want: failsWith(notDeleted(refusedWith("", ""))), after: quitDone},
		{id: "R1-062 RSET is refused",
			script: turns("DELE 1", "+OK", "RSET", "-ERR", "QUIT").add("S: -ERR", "EOF"), do: deleResetQuit,
			want: failsWith(commitUnknown(refusedWith("", ""))), after: quitDone},
		{id: "3.11q the mark was refused", script: turns("DELE 1", "-ERR", "QUIT").add("S: -ERR", "EOF"),
			do:   deleAndQuit,
			want: failsWith(notDeleted(refusedWith("", ""))), after: quitDone},
	})
}

// deleAndQuit is an action that marks message 1 and calls Quit.
var deleAndQuit = errorAction("", func(c *pop3.Client, ctx context.Context) error {
	c.Dele(ctx, 1)
	return c.Quit(ctx)
})

var deleResetQuit = errorAction("", func(c *pop3.Client, ctx context.Context) error {
	c.Dele(ctx, 1)
	c.Rset(ctx)
	return c.Quit(ctx)
})

// checkQuit checks that every call after Quit fails, and that a second Quit returns the same error.
func checkQuit(t *testing.T, c *pop3.Client, err error) {
	assert.Equal(t, pop3.StateClosed, c.State())
	assert.Equal(t, err, c.Quit(t.Context()))
	quitDone.check(t, c, err)
	assert.NoError(t, c.Close())
}

// Before the login QUIT deletes nothing, whatever the server replies (R1-080).
func TestHostileQuitEarly(t *testing.T) {
	quitEarly := quit
	quitEarly.stage = authorization
	quitEarly.line = ""
	playAll(t, []dialogue{
		{id: "R1-080 confirmed", script: turns("QUIT", "+OK").add("EOF"), do: quitEarly, after: quitDone},
		{
			id:     "R1-080 refused",
			script: turns("QUIT", "-ERR").add("EOF"),
			do:     quitEarly,
			want:   failsWith(notDeleted()),
			after:  quitDone,
		},
		{id: "R1-080 the connection is closed", script: turns("QUIT").add("EOF"), do: quitEarly,
			want:  failsWith(notDeleted()),
			after: quitDone},
		{id: "R1-080 garbage", script: turns("QUIT", "garbage").add("EOF"), do: quitEarly,
			want:  failsWith(notDeleted()),
			after: quitDone},
	})
}

// QUIT is sent, but the server does not read it or resets the connection. So Quit cannot know whether anything was
// deleted.
func TestHostileQuitUnwritten(t *testing.T) {
	playAll(t, []dialogue{
		{id: "H-232 a peer that does not read", script: turns("DELE 1", "+OK").add("DEAF"), do: deleAndQuit,
			want: failsWith(commitUnknown(timedOut)), after: quitDone, takes: 2 * time.Minute},
		{id: "H-232 NOOP to a peer that does not read", script: script{"DEAF"}, do: errorAction("",
			(*pop3.Client).Noop),
			want: failsWith(timedOut), after: closed, takes: 2 * time.Minute},
		{id: "H-233 reset while it is written", script: turns("DELE 1", "+OK").add("PAUSE 1ms", "RESET"),
			do: errorAction("", func(c *pop3.Client, ctx context.Context) error {
				c.Dele(ctx, 1)
				time.Sleep(time.Second)
				return c.Quit(ctx)
			}), want: failsWith(commitUnknown(wraps(errReset))), after: quitDone, takes: time.Second},
	})
}

// The connection is lost before QUIT is sent, so nothing was deleted, and the error of Quit says so (H-225, R1-085,
// R1-040).
func TestHostileQuitTooLate(t *testing.T) {
	notSent := func(id string, lines script, do func(ctx context.Context, c *pop3.Client)) dialogue {
		return dialogue{id: id, script: lines, want: failsWith(notDeleted(hasText("not sent"))), after: quitDone,
			onePiece: true,
			do: errorAction("", func(c *pop3.Client, ctx context.Context) error {
				do(ctx, c)
				return c.Quit(ctx)
			})}
	}
	deleAndNoop := func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1); c.Noop(ctx) }
	timeout := notSent("R1-085 a timeout", turns("DELE 1", "+OK", "NOOP"), deleAndNoop)
	timeout.takes = 2 * time.Minute
	cancelled := notSent("R1-085 cancelled", turns("DELE 1", "+OK", "NOOP"), func(ctx context.Context, c *pop3.Client) {
		c.Dele(ctx, 1)
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		c.Noop(ctx)
	})
	cancelled.takes = time.Second
	playAll(t, []dialogue{
		timeout, cancelled,
		notSent("H-225 the connection is closed after DELE", turns("DELE 1", "+OK", "NOOP").add("EOF"), deleAndNoop),
		notSent(
			"H-224 the connection is closed at DELE",
			turns("DELE 1").add("EOF"),
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1) },
		),
		notSent(
			"R1-087 closed",
			turns("DELE 1", "+OK"),
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1); c.Close() },
		),
		notSent("R1-088 a message is open", turns("DELE 1", "+OK", "RETR 2", "+OK\na"),
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1); c.Retr(ctx, 2) }),
		notSent("H-222 a message was cut", turns("DELE 1", "+OK", "RETR 2", "+OK\na").add("EOF"),
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1); retrOf(ctx, c, 2) }),
		notSent("3.11r an unsolicited reply", turns("DELE 1").sends("+OK\r\n+OK\r\n"),
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1) }),
		notSent("Q-62 the connection is lost", turns("DELE 1", "+OK", "DELE 2").add("EOF"),
			func(ctx context.Context, c *pop3.Client) { c.Dele(ctx, 1); c.Dele(ctx, 2) }),
	})
}

func retrOf(ctx context.Context, c *pop3.Client, num int) {
	if m, err := c.Retr(ctx, num); err == nil {
		io.Copy(io.Discard, m)
	}
}

// After the reply to QUIT the client waits a moment for a second reply. If the wait is interrupted, Quit returns
// ErrCommitUnknown, because a second reply could have followed.
func TestQuitCutShort(t *testing.T) {
	for _, row := range []struct {
		name  string
		end   func(cancel context.CancelFunc, c *pop3.Client)
		cause error
	}{
		{"cancelled", func(cancel context.CancelFunc, _ *pop3.Client) { cancel() }, context.Canceled},
		{"closed", func(_ context.CancelFunc, c *pop3.Client) { c.Close() }, net.ErrClosed},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := loggedInClient(t, turns("DELE 1", "+OK", "QUIT", "+OK").add("HOLD"), pop3.Options{})
				require.NoError(t, c.Dele(t.Context(), 1))
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(100*time.Millisecond, func() { row.end(cancel, c) })
				err := c.Quit(ctx)
				commitUnknown(wraps(row.cause))(t, err)
				checkQuit(t, c, err)
			})
		})
	}
}

// With a context that is done, QUIT is not sent.
func TestQuitWithoutContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := loggedInClient(t, turns("DELE 1", "+OK").add("HOLD"), pop3.Options{})
		require.NoError(t, c.Dele(t.Context(), 1))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		notDeleted(wraps(context.Canceled), hasText("not sent"))(t, c.Quit(ctx))
		assert.Equal(t, pop3.StateClosed, c.State())
	})
}

// Of two concurrent calls of Quit, the second one fails with ErrBusy. It does not disturb the first one, and its error
// does not say that nothing was deleted.
func TestTwoQuits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := loggedInClient(t, turns("DELE 1", "+OK", "QUIT").add("PAUSE 10s", "S: +OK", "EOF"), pop3.Options{})
		require.NoError(t, c.Dele(t.Context(), 1))
		var first, second error
		var calls sync.WaitGroup
		calls.Go(func() { first = c.Quit(t.Context()) })
		calls.Go(func() {
			time.Sleep(time.Second)
			second = c.Quit(t.Context())
		})
		calls.Wait()
		assert.NoError(t, first)
		assert.ErrorIs(t, second, pop3.ErrBusy)
		assert.NotContains(t, second.Error(), "nothing was deleted")
		assert.NoError(t, c.Quit(t.Context()), "a later Quit returns the result of the first")
	})
}

// If Quit is called during another call, it closes the connection, and its error says that QUIT was not sent.
func TestQuitDuringCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := loggedInClient(t, turns("DELE 1", "+OK", "NOOP").add("HOLD"), pop3.Options{})
		require.NoError(t, c.Dele(t.Context(), 1))
		var first, second error
		var both sync.WaitGroup
		both.Go(func() { first = c.Noop(t.Context()) })
		both.Go(func() {
			time.Sleep(time.Second)
			second = c.Quit(t.Context())
		})
		both.Wait()
		assert.ErrorIs(t, first, net.ErrClosed)
		notDeleted(wraps(pop3.ErrBusy), hasText("not sent"))(t, second)
		assert.False(t, errors.Is(second, pop3.ErrCommitUnknown))
	})
}

// A brokenConn simulates a broken transport. If noDeadline is set, SetWriteDeadline fails. If readsEOF is set, the next
// Read returns data together with io.EOF.
type brokenConn struct {
	net.Conn
	noDeadline, readsEOF bool
}

func (c *brokenConn) SetWriteDeadline(t time.Time) error {
	if c.noDeadline {
		return errors.New("no deadlines any more")
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *brokenConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.readsEOF && err == nil {
		err = io.EOF
	}
	return n, err
}

// TestQuitBrokenTransport: if the transport is known to be broken, QUIT is not written, and nothing is deleted.
func TestQuitBrokenTransport(t *testing.T) {
	for _, row := range []struct {
		name     string
		dele     func(*brokenConn)
		quit     func(*brokenConn)
		contains string
	}{
		{
			name: "R1-085 no deadline can be set",
			dele: func(*brokenConn) {},
			quit: func(c *brokenConn) { c.noDeadline = true },
		},
		{
			name:     "R1-085 the reply to DELE came with the end of the connection, as over TLS",
			dele:     func(c *brokenConn) { c.readsEOF = true },
			quit:     func(c *brokenConn) {},
			contains: "not sent",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			conn, done := pop3test.Script(loginScript().add("C: DELE 1\nS: +OK").String())
			broken := &brokenConn{Conn: conn}
			c, err := pop3.NewClient(t.Context(), broken, insecure)
			require.NoError(t, err)
			require.NoError(t, byUser(t.Context(), c))
			row.dele(broken)
			require.NoError(t, c.Dele(t.Context(), 1))
			row.quit(broken)

			err = c.Quit(t.Context())
			require.ErrorContains(t, err, row.contains)
			assert.NotErrorIs(t, err, pop3.ErrCommitUnknown)
			assert.Equal(t, pop3.StateClosed, c.State())
			require.NoError(t, done(), "QUIT was written")
		})
	}
}

// If Quit is called during another call of Quit, it cannot know whether the messages will be deleted.
func TestQuitDuringQuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary,
			Messages: [][]byte{message(500)}})
		srv.SetFaults(pop3test.Fault{At: "QUIT", Delay: time.Second})
		here, there := net.Pipe()
		go srv.ServeConn(there)
		c, err := pop3.NewClient(t.Context(), here, insecure)
		require.NoError(t, err)
		require.NoError(t, errors.Join(c.Login(t.Context(), "u", canary), c.Dele(t.Context(), 1)))
		first := make(chan error)
		go func() { first <- c.Quit(t.Context()) }()
		synctest.Wait()
		err = c.Quit(t.Context())
		assert.ErrorIs(t, err, pop3.ErrBusy)
		assert.ErrorIs(t, err, pop3.ErrCommitUnknown)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err = c.Quit(ctx)
		assert.ErrorIs(t, err, context.Canceled)
		assert.NotContains(t, err.Error(), "nothing was deleted")
		assert.NoError(t, <-first)
	})
}

// After Quit the context no longer refers to the client (C-110).
func TestQuitForgetsTheContext(t *testing.T) {
	ctx := watchedContext{t.Context(), new(atomic.Int32)}
	c := loggedInClient(t, turns("QUIT").add("S: +OK"), pop3.Options{})
	require.NoError(t, c.Quit(ctx))
	assert.Zero(t, ctx.watchers.Load())
}

// QUIT before a login does not enter the UPDATE state (RFC 1939 section 4). The hook Done gets 0 octets.
func TestTraceOfQuit(t *testing.T) {
	var c *pop3.Client
	var state pop3.State
	octets := int64(-1)
	trace := &pop3.Trace{
		GotReply: func(_ context.Context, cmd, _ string) {
			if cmd == "QUIT" {
				state = c.State()
			}
		},
		Done: func(_ context.Context, cmd string, n int64, _ error) {
			if cmd == "QUIT" {
				octets = n
			}
		},
	}
	conn, _ := pop3test.Script("S: +OK\nC: QUIT\nS: +OK")
	c, err := pop3.NewClient(t.Context(), conn, &pop3.Options{Trace: trace})
	require.NoError(t, err)
	require.NoError(t, c.Quit(t.Context()))
	assert.Equal(t, pop3.StateAuthorization, state)
	assert.Zero(t, octets)
}
