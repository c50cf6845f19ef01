package interop_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// A cuttableConn is a connection that ends at a chosen moment.
type cuttableConn struct {
	net.Conn

	mu     sync.Mutex
	onQuit bool   // when QUIT is sent, the connection ends
	quit   string // the text that is sent in place of QUIT
	armed  bool
	octets int // number of octets after which the connection ends, once it is armed
}

var errCut = errors.New("the connection was cut")

func (c *cuttableConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.onQuit || !bytes.HasPrefix(p, []byte("QUIT")) {
		return c.Conn.Write(p)
	}
	if _, err := c.Conn.Write([]byte(c.quit)); err != nil {
		return 0, err
	}
	// The FIN closes only the direction to the server, so that the server first reads everything.
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	c.armed, c.octets = true, 0
	return len(p), nil
}

func (c *cuttableConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	armed, octets := c.armed, c.octets
	c.mu.Unlock()
	if !armed {
		return c.Conn.Read(p)
	}
	if octets == 0 {
		return 0, errCut
	}
	n, err := c.Conn.Read(p[:min(len(p), octets)])
	c.mu.Lock()
	c.octets -= n
	c.mu.Unlock()
	return n, err
}

// cutAfter ends the connection after n more octets.
func (c *cuttableConn) cutAfter(octets int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed, c.octets = true, octets
}

// openCut is like open, over a connection that can be cut.
func openCut(t *testing.T, s *interop.Server, a interop.Account) (*pop3.Client, *cuttableConn) {
	t.Helper()
	cut := &cuttableConn{}
	c := dial(t, s, inClear, &pop3.Options{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			cut.Conn = conn
			return cut, err
		},
	})
	login(t, c, a)
	return c, cut
}

// TestDropped hangs up after DELE. Every server must keep every message (finding 5).
func TestDropped(t *testing.T) {
	forEachServer(t, func(t *testing.T, _ *facts, s *interop.Server) {
		a := s.Spare()
		c := loggedIn(t, s, a)
		require.NoError(t, c.Dele(t.Context(), 1, 2))
		require.NoError(t, c.Close())
		assert.ErrorIs(t, c.Quit(t.Context()), net.ErrClosed)
		assertLeft(t, s, a, 5)
	})
}

// TestDeleted marks two of five messages and quits. The two messages are deleted, and the others are unchanged.
func TestDeleted(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		a := s.Spare()
		c := loggedIn(t, s, a)
		before, err := c.UidlAll(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Dele(t.Context(), 1, 4))
		require.NoError(t, c.Quit(t.Context()))

		assertLeft(t, s, a, 3)
		c = loggedIn(t, s, a)
		after, err := c.UidlAll(t.Context())
		require.NoError(t, err)
		for i, num := range []int{2, 3, 5} {
			assert.Equal(t, before[num-1].UID, after[i].UID)
			f.assertMail(t, c, i+1, interop.Corpus(interop.Five)[num-1])
		}
		require.NoError(t, c.Quit(t.Context()))
	})
}

// TestCutInBody loses the connection in the middle of a message, after DELE of other messages. Reading the message
// must fail, and nothing is deleted.
func TestCutInBody(t *testing.T) {
	forEachServer(t, func(t *testing.T, _ *facts, s *interop.Server) {
		a := interop.Bob // nothing is deleted, so other tests can use this account as well
		reserve(t, s, a)
		c, cut := openCut(t, s, a)
		require.NoError(t, c.Dele(t.Context(), 1, 2))
		cut.cutAfter(700)
		m, err := c.Retr(t.Context(), 3)
		require.NoError(t, err)
		text, err := io.ReadAll(m)
		require.ErrorIs(t, err, errCut)
		assert.Less(t, len(text), 700)
		require.NoError(t, m.Close())
		require.ErrorIs(t, c.Quit(t.Context()), net.ErrClosed)
		require.NotErrorIs(t, c.Quit(t.Context()), pop3.ErrCommitUnknown)
		assertLeft(t, s, a, len(interop.Corpus(interop.Bulk)))
	})
}

// TestCutBeforeQuitReply loses the connection between QUIT and its reply. The client cannot know whether messages were
// deleted, and the error of Quit says so. In fact every server has deleted them.
func TestCutBeforeQuitReply(t *testing.T) {
	forEachServer(t, func(t *testing.T, _ *facts, s *interop.Server) {
		a := s.Spare()
		c, cut := openCut(t, s, a)
		require.NoError(t, c.Dele(t.Context(), 1, 2))
		cut.onQuit, cut.quit = true, "QUIT\r\n"
		require.ErrorIs(t, c.Quit(t.Context()), pop3.ErrCommitUnknown)
		assertLeft(t, s, a, 3)
	})
}

// TestCutInQuit loses the connection in the middle of QUIT. Some servers accept "QUIT" without its line end and delete
// (finding 5). So the error of Quit must not say that nothing was deleted.
func TestCutInQuit(t *testing.T) {
	forEachServer(t, func(t *testing.T, f *facts, s *interop.Server) {
		a := s.Spare()
		c, cut := openCut(t, s, a)
		require.NoError(t, c.Dele(t.Context(), 1, 2))
		cut.onQuit, cut.quit = true, "QUIT"
		require.ErrorIs(t, c.Quit(t.Context()), pop3.ErrCommitUnknown)
		require.NoError(t, c.Close())
		assertLeft(t, s, a, f.cutQuitLeft)
	})
}
