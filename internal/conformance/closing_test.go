package conformance_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
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

// overTCP runs a server on TCP and returns the client's end.
func overTCP(t *testing.T, f func(p *peer)) net.Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		f(&peer{Conn: conn, t: t, lines: bufio.NewReader(conn)})
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); l.Close(); <-done })
	return c
}

// recordingTrace returns a trace that records the calls of its hooks.
func recordingTrace(log *[]string) *pop3.Trace {
	return &pop3.Trace{
		WroteCommand: func(_ context.Context, cmd string) { *log = append(*log, "W "+cmd) },
		GotReply:     func(_ context.Context, cmd, reply string) { *log = append(*log, "R "+cmd+": "+reply) },
		Done: func(_ context.Context, cmd string, _ int64, err error) {
			*log = append(*log, fmt.Sprintf("D %s: %v", cmd, err))
		},
	}
}

// TestHandshakeHasItsOwnTime: the time limit of the TLS handshake does not include the time that the reply to STLS
// took.
func TestHandshakeHasItsOwnTime(t *testing.T) {
	srv := pop3test.NewTLSServer()
	t.Cleanup(srv.Close)
	synctest.Test(t, func(t *testing.T) {
		conn := serve(t, func(p *peer) {
			p.send("+OK ready\r\n")
			p.expect("CAPA")
			p.send("+OK\r\nSTLS\r\n.\r\n")
			p.expect("STLS")
			time.Sleep(90 * time.Second)
			p.send("+OK\r\n")
			time.Sleep(60 * time.Second)
			p.startTLS(srv.ServerTLS())
			p.line()
		})
		c, err := pop3.DialStartTLS(
			t.Context(),
			"127.0.0.1",
			&pop3.Options{TLSConfig: srv.ClientTLS(), DialContext: dialTo(conn)},
		)
		require.NoError(t, err)
		assert.NoError(t, c.Close())
	})
}

// TestHangUpAfterSTLS: if a server accepts STLS and then closes the connection, the error does not mention injected
// data.
func TestHangUpAfterSTLS(t *testing.T) {
	for name, later := range map[string]bool{"at once": false, "after ClientHello": true} {
		t.Run(name, func(t *testing.T) {
			conn := overTCP(t, func(p *peer) {
				p.send("+OK ready\r\n")
				p.expect("CAPA")
				p.send("+OK\r\nSTLS\r\n.\r\n")
				p.expect("STLS")
				p.send("+OK\r\n")
				if later {
					p.Read(make([]byte, 4096))
				} else { // closing with an unread ClientHello would reset the connection, so it is read
					p.Conn.(*net.TCPConn).CloseWrite()
					io.Copy(io.Discard, p)
				}
			})
			_, err := pop3.DialStartTLS(t.Context(), "127.0.0.1", &pop3.Options{DialContext: dialTo(conn)})
			require.Error(t, err)
			assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
			assert.NotErrorIs(t, err, io.EOF)
			assert.NotContains(t, err.Error(), "injected")
		})
	}
}

func TestHangUpInHandshake(t *testing.T) {
	conn := overTCP(t, func(p *peer) { p.Read(make([]byte, 4096)) })
	_, err := pop3.DialTLS(t.Context(), "127.0.0.1", &pop3.Options{DialContext: dialTo(conn)})
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.NotErrorIs(t, err, io.EOF)
}

// TestKeepAliveClosedInNoop: KeepAlive returns nil after Close, also during a NOOP.
func TestKeepAliveClosedInNoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _ := pop3test.Script(loginScript().add("C: NOOP\nHOLD").String())
		c, err := pop3.NewClient(t.Context(), conn, insecure)
		require.NoError(t, err)
		require.NoError(t, byUser(t.Context(), c))
		done := make(chan error, 1)
		go func() { done <- c.KeepAlive(t.Context(), time.Minute) }()
		time.Sleep(61 * time.Second)
		require.NoError(t, c.Close())
		assert.NoError(t, <-done)
	})
}

// A closingContext closes the client when its Done method is called. The client does that after it has checked the
// connection and before it checks the state.
type closingContext struct {
	context.Context
	c *pop3.Client
}

func (r closingContext) Done() <-chan struct{} {
	r.c.Close()
	return nil
}

// TestCloseJustBeforeACall: a call during which the client is closed fails with net.ErrClosed, not with ErrState.
func TestCloseJustBeforeACall(t *testing.T) {
	c := loggedInClient(t, script{"HOLD"}, pop3.Options{})
	err := c.Noop(closingContext{t.Context(), c})
	assert.ErrorIs(t, err, net.ErrClosed)
	assert.NotErrorIs(t, err, pop3.ErrState)
}

// TestCloseWithAMessageOpen: after Close every call returns net.ErrClosed.
func TestCloseWithAMessageOpen(t *testing.T) {
	c := loggedInClient(t, script{"C: RETR 1\nS: +OK\nS: a\nHOLD"}, pop3.Options{})
	_, err := c.Retr(t.Context(), 1)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	assert.ErrorIs(t, c.Noop(t.Context()), net.ErrClosed)
}

// A watchedContext counts the functions that it will call when it ends.
type watchedContext struct {
	context.Context
	watchers *atomic.Int32
}

// Done returns a channel of its own, so that package context calls AfterFunc.
func (watchedContext) Done() <-chan struct{} { return make(chan struct{}) }

func (w watchedContext) AfterFunc(func()) (stop func() bool) {
	w.watchers.Add(1)
	return func() bool { w.watchers.Add(-1); return true }
}

// TestClosedClientIsForgotten: a function closes its client while a message is open. The context may exist as long as
// the program. It must not keep the client and its buffer in memory.
func TestClosedClientIsForgotten(t *testing.T) {
	for name, end := range map[string]func(context.Context, *pop3.Client) error{
		"Close": func(_ context.Context, c *pop3.Client) error { return c.Close() },
		"Quit":  func(ctx context.Context, c *pop3.Client) error { return c.Quit(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := watchedContext{t.Context(), new(atomic.Int32)}
			c := loggedInClient(t, script{"C: RETR 1\nS: +OK\nS: a\nHOLD"}, pop3.Options{})
			_, err := c.Retr(ctx, 1)
			require.NoError(t, err)
			require.Equal(t, int32(1), ctx.watchers.Load(), "while the message is open")
			end(t.Context(), c)
			assert.Zero(t, ctx.watchers.Load())
		})
	}
}

// TestCloseDiscardsBuffered: after Close or the end of the context, a message or loop fails even if its data is already
// in the buffer. Otherwise the result would depend on the size of the buffer.
func TestCloseDiscardsBuffered(t *testing.T) {
	const replies = "S: +OK\nS: first\nS: second\nS: .\n"
	t.Run("message", func(t *testing.T) {
		c := loggedInClient(t, script{"C: RETR 1\n" + replies + "HOLD"}, pop3.Options{})
		m, err := c.Retr(t.Context(), 1)
		require.NoError(t, err)
		_, err = m.Read(make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		_, err = io.Copy(io.Discard, m)
		assert.ErrorIs(t, err, net.ErrClosed)
		assert.NoError(t, m.Close())
	})
	t.Run("context", func(t *testing.T) {
		c := loggedInClient(t, script{"C: RETR 1\n" + replies + "HOLD"}, pop3.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		m, err := c.Retr(ctx, 1)
		require.NoError(t, err)
		_, err = m.Read(make([]byte, 1))
		require.NoError(t, err)
		cancel()
		_, err = io.Copy(io.Discard, m)
		require.ErrorIs(t, err, context.Canceled)
		assert.ErrorIs(t, c.Noop(t.Context()), net.ErrClosed)
	})
	t.Run("loop", func(t *testing.T) {
		c := loggedInClient(t, script{"C: RETR 1\nC: RETR 2\n" + replies + replies + "HOLD"},
			pop3.Options{Pipelining: pop3.PipeliningAlways})
		var nums []int
		var last error
		for m, err := range c.Messages(t.Context(), 1, 2) {
			if last = err; err == nil {
				nums = append(nums, m.Num)
				require.NoError(t, c.Close())
			}
		}
		assert.Equal(t, []int{1}, nums)
		assert.ErrorIs(t, last, net.ErrClosed)
	})
	t.Run("batch", func(t *testing.T) {
		var c *pop3.Client
		closing := &pop3.Trace{Done: func(_ context.Context, cmd string, _ int64, _ error) {
			if cmd == "DELE 1" {
				c.Close()
			}
		}}
		c = loggedInClient(t, script{"C: DELE 1\nC: DELE 2\nS: +OK\nS: +OK\nHOLD"},
			pop3.Options{Pipelining: pop3.PipeliningAlways, Trace: closing})
		assert.ErrorIs(t, c.Dele(t.Context(), 1, 2), net.ErrClosed)
	})
}

// TestMessagesReused: the sequence that Messages returns can be used again if the first loop over it failed with
// ErrBusy.
func TestMessagesReused(t *testing.T) {
	c := loggedInClient(t, script{"C: RETR 1\nS: +OK\nS: .\nC: RETR 1\nS: +OK\nS: .\n"}, pop3.Options{})
	seq := c.Messages(t.Context(), 1)
	m, err := c.Retr(t.Context(), 1)
	require.NoError(t, err)
	for _, err := range seq {
		require.ErrorIs(t, err, pop3.ErrBusy)
	}
	require.NoError(t, m.Close())
	for _, err := range seq {
		assert.NoError(t, err)
	}
}

// TestQuitFromTwoGoroutines: there is no data race between two concurrent calls of Quit.
func TestQuitFromTwoGoroutines(t *testing.T) {
	conn, _ := pop3test.Script("S: +OK\nC: QUIT\nS: +OK")
	c, err := pop3.NewClient(t.Context(), conn, insecure)
	require.NoError(t, err)
	var both sync.WaitGroup
	both.Go(func() { c.Quit(t.Context()) })
	both.Go(func() { c.Quit(t.Context()) })
	both.Wait()
}

// TestQuitWithheldTwice: if Quit did not send QUIT, further calls of Quit return the same error.
func TestQuitWithheldTwice(t *testing.T) {
	c := loggedInClient(t, script{"HOLD"}, pop3.Options{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	first := c.Quit(ended)
	require.ErrorIs(t, first, context.Canceled)
	assert.Equal(t, first, c.Quit(t.Context()))
}

// TestOwnTimeoutIsNotTheContext: the error of Options.Timeout does not wrap context.DeadlineExceeded, so a caller can
// distinguish it from a deadline of the context.
func TestOwnTimeoutIsNotTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		go io.Copy(io.Discard, server)
		_, err := pop3.DialTLS(t.Context(), "127.0.0.1", &pop3.Options{DialContext: dialTo(client)})
		require.Error(t, err)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.NotErrorIs(t, err, context.DeadlineExceeded)
	})
}

// TestLangWithoutTag: the reply "+OK Language changed" contains no language tag, so Lang returns the tag that it sent.
func TestLangWithoutTag(t *testing.T) {
	c := loggedInClient(
		t,
		script{"C: LANG en\nS: +OK Language changed\nC: LANG en\nS: +OK en-GB ok\nC: LANG *\nS: +OK i-default x"},
		pop3.Options{},
	)
	for _, row := range [][2]string{{"en", "en"}, {"en", "en-GB"}, {"*", "i-default"}} {
		got, err := c.Lang(t.Context(), row[0])
		require.NoError(t, err)
		assert.Equal(t, row[1], got)
	}
}

// TestNoDeadlineStays: with Timeout below 0 a call sets no deadline. A deadline that an earlier call has left on the
// connection would make it fail.
func TestNoDeadlineStays(t *testing.T) {
	for _, row := range []struct {
		name, script string
		do           func(ctx context.Context, c *pop3.Client) error
	}{
		{"the context ends with the reply", "C: NOOP\nS: +OK", func(ctx context.Context, c *pop3.Client) error {
			return c.Noop(ctx)
		}},
		{"of a batch", "C: DELE 1\nC: DELE 2\nS: +OK\nS: +OK", func(ctx context.Context, c *pop3.Client) error {
			return c.Dele(context.WithoutCancel(ctx), 1, 2)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				ends := &pop3.Trace{GotReply: func(_ context.Context, cmd, _ string) {
					if cmd == "NOOP" || cmd == "DELE 2" {
						cancel()
						// Wait until the client's watch on the context has interrupted the connection.
						synctest.Wait()
					}
				}}
				c := loggedInClient(t, script{row.script + "\nC: RSET\nS: +OK\nHOLD"},
					pop3.Options{Timeout: -1, Pipelining: pop3.PipeliningAlways, Trace: ends})
				assert.NoError(t, row.do(ctx, c))
				time.Sleep(time.Hour)
				assert.NoError(t, c.Rset(t.Context()))
			})
		})
	}
}
