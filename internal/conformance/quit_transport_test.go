package conformance_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// A brokenConn breaks when it is told to: deadlines for writing can't be set any more, or what is read next comes
// together with the end of the connection.
type brokenConn struct {
	net.Conn
	noDeadline, ends bool
}

func (c *brokenConn) SetWriteDeadline(t time.Time) error {
	if c.noDeadline {
		return errors.New("no deadlines any more")
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *brokenConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.ends && err == nil {
		err = io.EOF
	}
	return n, err
}

// TestQuitOnABrokenTransport: QUIT is not written where the transport is known to be broken, and then nothing was
// deleted.
func TestQuitOnABrokenTransport(t *testing.T) {
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
			dele:     func(c *brokenConn) { c.ends = true },
			quit:     func(c *brokenConn) {},
			contains: "not sent",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			conn, done := pop3test.Script(in().then("C: DELE 1\nS: +OK").String())
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
