package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// An oddConn is a net.Conn with unusual behaviour.
type oddConn struct {
	net.Conn
	write    func(net.Conn, []byte) (int, error)
	read     func(net.Conn, []byte) (int, error)
	close    func(net.Conn) error
	deadline error // returned by SetDeadline, SetReadDeadline and SetWriteDeadline
}

func (o *oddConn) Write(p []byte) (int, error) {
	if o.write != nil {
		return o.write(o.Conn, p)
	}
	return o.Conn.Write(p)
}

func (o *oddConn) Read(p []byte) (int, error) {
	if o.read != nil {
		return o.read(o.Conn, p)
	}
	return o.Conn.Read(p)
}

func (o *oddConn) Close() error {
	if o.close != nil {
		return o.close(o.Conn)
	}
	return o.Conn.Close()
}

func (o *oddConn) SetDeadline(t time.Time) error {
	if o.deadline != nil {
		return o.deadline
	}
	return o.Conn.SetDeadline(t)
}

func (o *oddConn) SetReadDeadline(t time.Time) error {
	if o.deadline != nil {
		return o.deadline
	}
	return o.Conn.SetReadDeadline(t)
}

func (o *oddConn) SetWriteDeadline(t time.Time) error {
	if o.deadline != nil {
		return o.deadline
	}
	return o.Conn.SetWriteDeadline(t)
}

// TestShortWrite: if Write of the connection writes less than it should and returns no error, the call fails with
// io.ErrShortWrite.
func TestShortWrite(t *testing.T) {
	conn, _ := pop3test.Script("S: +OK\nANY")
	c, err := pop3.NewClient(t.Context(), &oddConn{Conn: conn, write: func(c net.Conn, p []byte) (int, error) {
		return c.Write(p[:2])
	}}, insecure)
	require.NoError(t, err)
	assert.ErrorIs(t, c.User(t.Context(), "u"), io.ErrShortWrite)
}

// TestEOFOfOddConnections: the client's errors never wrap io.EOF. An SSH channel of golang.org/x/crypto returns io.EOF
// from Write, and other connections wrap the io.EOF of Read.
func TestEOFOfOddConnections(t *testing.T) {
	conn, _ := pop3test.Script("S: +OK\nANY")
	c, err := pop3.NewClient(
		t.Context(),
		&oddConn{Conn: conn, write: func(net.Conn, []byte) (int, error) { return 0, io.EOF }},
		insecure,
	)
	require.NoError(t, err)
	assert.NotErrorIs(t, c.User(t.Context(), "u"), io.EOF)

	conn, _ = pop3test.Script("S: +OK\nC: USER u\nEOF")
	c, err = pop3.NewClient(t.Context(), &oddConn{Conn: conn, read: func(c net.Conn, p []byte) (int, error) {
		n, err := c.Read(p)
		if err != nil {
			err = fmt.Errorf("odd: %w", err)
		}
		return n, err
	}}, insecure)
	require.NoError(t, err)
	err = c.User(t.Context(), "u")
	assert.NotErrorIs(t, err, io.EOF)
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

// The client's error wraps os.ErrDeadlineExceeded, even if the timeout error of the connection does not. It names the
// time limit that has passed (C-110). An error that is not a timeout does not become one.
func TestTimeoutsOfOddConnections(t *testing.T) {
	reset := &net.OpError{Op: "read", Net: "tcp", Err: errReset}
	for _, row := range []struct {
		err     error
		timeout bool
		says    string
	}{
		{os.ErrDeadlineExceeded, true, "no complete reply within 2m0s: i/o timeout"},
		{errOwnTimeout{}, true, "no complete reply within 2m0s: i/o timeout: i/o deadline reached"},
		{reset, false, reset.Error()},
	} {
		conn, _ := pop3test.Script("S: +OK\nANY")
		failing := false
		c, err := pop3.NewClient(t.Context(), &oddConn{Conn: conn, read: func(c net.Conn, p []byte) (int, error) {
			if failing {
				return 0, row.err
			}
			return c.Read(p)
		}}, insecure)
		require.NoError(t, err)
		failing = true
		err = c.User(t.Context(), "u")
		assert.Equal(t, row.timeout, errors.Is(err, os.ErrDeadlineExceeded), "%v", err)
		assert.ErrorIs(t, err, row.err)
		assert.True(t, strings.HasSuffix(err.Error(), ": "+row.says), "%v", err)
	}
}

// Client.Close returns the error of the connection's Close (C-110).
func TestCloseThatFails(t *testing.T) {
	conn, _ := pop3test.Script("S: +OK\nANY")
	c, err := pop3.NewClient(t.Context(), &oddConn{Conn: conn, close: func(c net.Conn) error {
		return errors.Join(c.Close(), errReset)
	}}, insecure)
	require.NoError(t, err)
	require.ErrorIs(t, c.Close(), errReset)
	assert.NoError(t, c.Close())
}

// TestCloseThatBlocks: while Close of the connection blocks, State still returns.
func TestCloseThatBlocks(t *testing.T) {
	conn, _ := pop3test.Script("S: +OK\nANY")
	closing, block := make(chan struct{}), make(chan struct{})
	c, err := pop3.NewClient(t.Context(), &oddConn{Conn: conn, close: func(c net.Conn) error {
		close(closing)
		<-block
		return c.Close()
	}}, insecure)
	require.NoError(t, err)
	var calls sync.WaitGroup
	calls.Go(func() { c.Close() })
	<-closing
	state := make(chan pop3.State, 1)
	calls.Go(func() { state <- c.State() })
	assert.Equal(t, pop3.StateClosed, <-state)
	close(block)
	calls.Wait()
}

func TestDialContextGivesNothing(t *testing.T) {
	assert.NotPanics(t, func() {
		_, err := pop3.DialTLS(t.Context(), "x", &pop3.Options{DialContext: dialTo(nil)})
		assert.Error(t, err)
	})
}

// TestNoDeadlines: on a connection that does not support deadlines, a message can be closed early. Timeout is below 0,
// as the doc of NewClient requires.
func TestNoDeadlines(t *testing.T) {
	body := []byte(strings.Repeat("a\r\n", 40000))
	srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary, Messages: [][]byte{body}})
	client, server := net.Pipe()
	var served sync.WaitGroup
	served.Go(func() { srv.ServeConn(server) })
	c, err := pop3.NewClient(
		context.Background(),
		&oddConn{Conn: client, deadline: errors.New("deadline not supported")},
		&pop3.Options{Timeout: -1, InsecureAuth: true},
	)
	require.NoError(t, err)
	require.NoError(t, c.Login(t.Context(), "u", canary))
	m, err := c.Retr(t.Context(), 1)
	require.NoError(t, err)
	m.Read(make([]byte, 10))
	assert.ErrorIs(t, m.Close(), net.ErrClosed)
	c.Close()
	served.Wait()
}

type panickingMechanism struct{}

func (panickingMechanism) Start() (string, []byte, error) { return "X-PANIC", nil, nil }
func (panickingMechanism) Next([]byte) ([]byte, error)    { panic("boom") }

// TestMechanismPanics: if a mechanism panics during its exchange, the client closes the connection. Otherwise the
// server would take the next command for a response.
func TestMechanismPanics(t *testing.T) {
	c := openScript(t, script{"S: +OK\nC: AUTH X-PANIC\nS: + \nANY"}, insecure)
	assert.Panics(t, func() { c.Auth(t.Context(), panickingMechanism{}) })
	assert.Equal(t, pop3.StateClosed, c.State())
}

// TestHookPanics: after a panic in a hook, calls do not fail with ErrBusy.
func TestHookPanics(t *testing.T) {
	trace := &pop3.Trace{GotReply: func(_ context.Context, cmd, _ string) {
		if cmd == "RETR 1" {
			panic("hook")
		}
	}}
	c := loggedInClient(t, script{"C: RETR 1\nS: +OK\nS: a\nS: ."}, pop3.Options{Trace: trace})
	require.Panics(t, func() { c.Retr(t.Context(), 1) })
	assert.NotErrorIs(t, c.Noop(t.Context()), pop3.ErrBusy)
}

// TestHookPanicsAtTheEnd: if the last hook of a message panics, the session can still be used, because the whole reply
// was read.
func TestHookPanicsAtTheEnd(t *testing.T) {
	trace := &pop3.Trace{Done: func(_ context.Context, cmd string, _ int64, _ error) {
		if cmd == "RETR 1" {
			panic("hook")
		}
	}}
	c := loggedInClient(t, script{"C: RETR 1\nS: +OK\nS: a\nS: .\nC: NOOP\nS: +OK"}, pop3.Options{Trace: trace})
	m, err := c.Retr(t.Context(), 1)
	require.NoError(t, err)
	require.Panics(t, func() { io.Copy(io.Discard, m) })
	assert.NoError(t, c.Noop(t.Context()))
}

// TestHookPanicsInAReply: a panic in a hook closes the connection if the client could otherwise read a reply as the
// reply to another command. Then nothing is deleted.
func TestHookPanicsInAReply(t *testing.T) {
	got := func(cmd string) *pop3.Trace {
		return &pop3.Trace{GotReply: func(_ context.Context, k, _ string) { panicAt(cmd, k) }}
	}
	done := func(cmd string) *pop3.Trace {
		return &pop3.Trace{Done: func(_ context.Context, k string, _ int64, _ error) { panicAt(cmd, k) }}
	}
	wrote := func(cmd string) *pop3.Trace {
		return &pop3.Trace{WroteCommand: func(_ context.Context, k string) { panicAt(cmd, k) }}
	}
	list := func(t *testing.T, c *pop3.Client) { c.ListAll(t.Context()) }
	quit := func(t *testing.T, c *pop3.Client) { c.Quit(t.Context()) }
	retr := func(t *testing.T, c *pop3.Client) { c.Retr(t.Context(), 1) }
	dele := func(nums ...int) func(*testing.T, *pop3.Client) {
		return func(t *testing.T, c *pop3.Client) { c.Dele(t.Context(), nums...) }
	}
	all := func(t *testing.T, c *pop3.Client) {
		for m := range c.Messages(t.Context(), 1, 2, 3) {
			io.Copy(io.Discard, m)
		}
	}
	retrs := "C: RETR 1\nC: RETR 2\nC: RETR 3\nS: +OK\nS: a\nS: .\nS: +OK\nS: b\nS: ."
	for _, tc := range []struct {
		name   string
		trace  *pop3.Trace
		script string
		do     func(*testing.T, *pop3.Client)
	}{
		{"GotReply of LIST", got("LIST"), "C: LIST\nS: +OK", list},
		{"GotReply of RETR", got("RETR 1"), "C: RETR 1\nS: +OK", retr},
		{"GotReply of DELE", got("DELE 1"), "C: DELE 1\nS: +OK", dele(1)},
		{"Done of DELE", done("DELE 1"), "C: DELE 1\nS: +OK", dele(1)},
		{"Done of the last DELE", done("DELE 2"), "C: DELE 1\nC: DELE 2\nS: +OK\nS: +OK", dele(1, 2)},
		{"Done of every DELE", done("DELE"), "C: DELE 1\nC: DELE 2\nS: -ERR\nS: -ERR", dele(1, 2)},
		{"Done of every RETR", done("RETR"), retrs, all},
		{"WroteCommand of QUIT", wrote("QUIT"), "C: NOOP\nS: +OK", func(t *testing.T, c *pop3.Client) {
			c.Noop(t.Context())
			quit(t, c)
		}},
		{"Done of QUIT", done("QUIT"), "C: QUIT\nS: +OK", quit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				c := loggedInClient(
					t,
					script{tc.script + "\nHOLD"},
					pop3.Options{Trace: tc.trace, Pipelining: pop3.PipeliningAlways},
				)
				assert.Panics(t, func() { tc.do(t, c) })
				assert.Equal(t, pop3.StateClosed, c.State())
				assert.Zero(t, time.Since(start))
				assert.NotErrorIs(t, c.Quit(t.Context()), pop3.ErrCommitUnknown)
			})
		})
	}
}

func panicAt(cmd, k string) {
	if strings.HasPrefix(k, cmd) {
		panic("hook")
	}
}

// TestAuthDone: Done is called for an AUTH command even if writing it failed.
func TestAuthDone(t *testing.T) {
	var log []string
	conn, _ := pop3test.Script("S: +OK\nANY")
	c, err := pop3.NewClient(t.Context(), &oddConn{Conn: conn, write: func(net.Conn, []byte) (int, error) {
		return 0, errors.New("no network")
	}}, &pop3.Options{InsecureAuth: true, Trace: recordingTrace(&log)})
	require.NoError(t, err)
	require.Error(t, c.Auth(t.Context(), panickingMechanism{}))
	assert.Contains(t, strings.Join(log, "\n"), "D AUTH X-PANIC")
}
