package conformance_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// A Close between the replies to LIST and UIDL is an error, and not an empty maildrop.
func TestListingClosed(t *testing.T) {
	for _, at := range []string{"LIST", "UIDL"} {
		t.Run(at, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary,
				Messages: [][]byte{message(500)}})
			var client *pop3.Client
			trace := &pop3.Trace{Done: func(_ context.Context, cmd string, _ int64, _ error) {
				if cmd == at {
					client.Close()
				}
			}}
			here, there := net.Pipe()
			go srv.ServeConn(there)
			client, err := pop3.NewClient(t.Context(), here, &pop3.Options{InsecureAuth: true, Trace: trace})
			require.NoError(t, err)
			require.NoError(t, client.Login(t.Context(), "u", canary))
			infos, err := client.Listing(t.Context())
			assert.True(t, err != nil || len(infos) == 1, "%v %v", infos, err)
		})
	}
}

// Where no size is known, messages that are larger than the window may have been requested ahead. They were not
// left in their midst, so they do not cost the connection (C-010).
func TestBreakBeforeLargeMessages(t *testing.T) {
	large := message(9 << 20)
	box := &pop3test.Mailbox{User: "u", Password: canary, Messages: [][]byte{message(500), large, large}}
	srv := pop3test.NewUnstartedServer(box)
	onLongLine(t, srv, func(t *testing.T, c *pop3.Client) {
		for m, err := range c.Messages(t.Context(), 1, 2, 3) {
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, m)
			require.NoError(t, err)
			break
		}
		assert.NoError(t, errors.Join(c.Dele(t.Context(), 1), c.Quit(t.Context())))
	})
	assert.Len(t, srv.Left("u"), 2)
}

// The patience with a silent port 995 does not stay where there is no time limit.
func TestNoTimeLimitAtPort995(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary})
		srv.SetFaults(pop3test.Fault{At: "CAPA", Delay: time.Hour})
		here, there := net.Pipe()
		go srv.ServeConn(there)
		c, err := pop3.DialInsecure(t.Context(), "pop.example.org:995", &pop3.Options{Timeout: -1, InsecureAuth: true,
			DialContext: dialling(here)})
		require.NoError(t, err)
		assert.NoError(t, c.Login(t.Context(), "u", canary))
		assert.NoError(t, c.Close())
	})
}

// A transport may have a timeout error of its own, which TLS keeps for ever. No deadline below TLS is needed to
// look for replies that nobody asked for.
func TestTransportWithItsOwnTimeout(t *testing.T) {
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "u", Password: canary})
	defer srv.Close()
	c, err := pop3.DialTLS(t.Context(), srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS(),
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			return ownTimeout{nc}, err
		}})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Login(t.Context(), "u", canary))
	assert.NoError(t, errors.Join(c.Noop(t.Context()), c.Quit(t.Context())))
}

type ownTimeout struct{ net.Conn }

func (c ownTimeout) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		err = errOwnTimeout{}
	}
	return n, err
}

// errOwnTimeout is not temporary, as in package yamux.
type errOwnTimeout struct{}

func (errOwnTimeout) Error() string   { return "i/o deadline reached" }
func (errOwnTimeout) Timeout() bool   { return true }
func (errOwnTimeout) Temporary() bool { return false }

// A second Quit during the first one cannot know what becomes of the marks.
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
		assert.NoError(t, <-first)
	})
}

// Repeated numbers are settled also where another line makes no sense (C-039).
func TestListingRepeatsAndOddLines(t *testing.T) {
	conn, _ := pop3test.Script(strings.Join([]string{"S: +OK", "C: USER u", "S: +OK", "C: PASS " + canary, "S: +OK",
		"C: CAPA", "S: -ERR", "C: LIST", "S: +OK", "S: 1 100", "S: x", "S: 3 100", "S: .",
		"C: UIDL", "S: +OK", "S: 1 a", "S: 1 b", "S: 2 c", "S: 3 d e", "S: ."}, "\n"))
	c, err := pop3.NewClient(t.Context(), conn, insecure)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, errors.Join(c.User(t.Context(), "u"), c.Pass(t.Context(), canary)))
	infos, err := c.Listing(t.Context())
	nonsense(t, err)
	assert.Equal(t, []pop3.MessageInfo{info(1, 100, ""), info(3, 100, ""), info(2, -1, "c")}, infos)
}
