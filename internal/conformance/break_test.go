package conformance_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// A loop over Messages may be left anywhere, whatever the size of the mail: what was read is deleted then, and nothing
// else.
func TestBreak(t *testing.T) {
	const count = 60
	for _, size := range []int{500, 20_000, 1_000_000} {
		box := &pop3test.Mailbox{User: "u", Password: canary, Messages: slices.Repeat([][]byte{message(size)}, count)}
		for _, after := range []int{1, 3, 20} {
			for _, known := range []bool{false, true} {
				t.Run(
					fmt.Sprintf("C-010 %d octets, after %d, sizes known %v", size, after, known),
					func(t *testing.T) {
						srv := pop3test.NewUnstartedServer(box)
						onLongLine(t, srv, func(t *testing.T, c *pop3.Client) { leaveAfter(t, c, after, known) })
						assert.Len(t, srv.Left("u"), count-after, "over a long line")

						srv = pop3test.NewTLSServer(box)
						defer srv.Close()
						c, err := pop3.DialTLS(t.Context(), srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
						require.NoError(t, err)
						defer c.Close()
						require.NoError(t, c.Login(t.Context(), "u", canary))
						leaveAfter(t, c, after, known)
						assert.Len(t, srv.Left("u"), count-after, "over TLS")
					},
				)
			}
		}
	}
}

// leaveAfter leaves a loop over all messages in the midst of one, deletes those before it, and ends the session.
func leaveAfter(t *testing.T, c *pop3.Client, after int, known bool) {
	drop, err := c.Stat(t.Context())
	require.NoError(t, err)
	if known {
		_, err := c.Listing(t.Context())
		require.NoError(t, err)
	}
	var read []int
	for m, err := range c.Messages(t.Context(), numbers(drop.Count)...) {
		require.NoError(t, err)
		read = append(read, m.Num)
		if len(read) == after {
			_, err = io.ReadFull(m, make([]byte, 100))
			require.NoError(t, err)
			break
		}
		_, err = io.Copy(io.Discard, m)
		require.NoError(t, err)
	}
	assert.NoError(t, errors.Join(c.Dele(t.Context(), read...), c.Quit(t.Context())))
}

// onLongLine is overLongLine for a server of the caller's.
func onLongLine(t *testing.T, srv *pop3test.Server, f func(t *testing.T, c *pop3.Client)) {
	synctest.Test(t, func(t *testing.T) {
		near, far, wait := longLine(roundTrip)
		served := make(chan struct{})
		go func() { defer close(served); srv.ServeConn(far) }()
		c, err := pop3.NewClient(t.Context(), near, insecure)
		require.NoError(t, err)
		require.NoError(t, c.Login(t.Context(), "u", canary))
		f(t, c)
		require.NoError(t, c.Close())
		<-served
		wait()
	})
}

// Only a message that was left in its midst with more than a window to come costs the connection, and later errors say
// which one it was.
func TestBreakInTheMidstOfALargeMessage(t *testing.T) {
	box := &pop3test.Mailbox{User: "u", Password: canary, Messages: [][]byte{message(500), message(9 << 20)}}
	srv := pop3test.NewUnstartedServer(box)
	onLongLine(t, srv, func(t *testing.T, c *pop3.Client) {
		_, err := c.Listing(t.Context())
		require.NoError(t, err)
		for m, err := range c.Messages(t.Context(), 1, 2) {
			require.NoError(t, err)
			if m.Num == 2 {
				break
			}
		}
		err = c.Dele(t.Context(), 1)
		assert.ErrorIs(t, err, net.ErrClosed)
		assert.ErrorContains(t, err, "RETR 2: more than 8192 KiB of it were left unread")
	})
	assert.Len(t, srv.Left("u"), 2)
}

// The end of a message that lacks its LF, and the next reply after it: neither message counts as whole (C-005).
func TestReplyInBody(t *testing.T) {
	for name, body := range map[string]string{
		"C-005 +OK":            "S: one\ns: \".\\r+OK\\r\\n\"\nS: two\nS: .",
		"C-005 -ERR":           "S: one\ns: \".\\r-ERR no\\r\\n\"\nHOLD",
		"C-005 octet by octet": "CHUNK 1\nS: one\ns: \".\\r+OK\\r\\n\"\nS: two\nS: .",
	} {
		t.Run(name, func(t *testing.T) {
			conn, _ := pop3test.Script(
				"S: +OK\nC: USER u\nS: +OK\nC: PASS " + canary + "\nS: +OK\nC: RETR 1\nC: RETR 2\nS: +OK\n" + body,
			)
			c, err := pop3.NewClient(
				t.Context(),
				conn,
				&pop3.Options{InsecureAuth: true, Pipelining: pop3.PipeliningAlways},
			)
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, errors.Join(c.User(t.Context(), "u"), c.Pass(t.Context(), canary)))
			for m, err := range c.Messages(t.Context(), 1, 2) {
				require.NoError(t, err)
				content, err := io.ReadAll(m)
				broken(t, err)
				assert.ErrorContains(t, err, "PipeliningNever")
				assert.Equal(t, "one\r\n", string(content))
				break
			}
			assert.ErrorIs(t, c.Noop(t.Context()), net.ErrClosed)
		})
	}
}
