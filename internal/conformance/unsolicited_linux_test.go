package conformance_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// Over TLS too, the client finds unsolicited data before it sends the next command. TLS may have read that data
// already, in a record after the last reply. Or the data may still be in the socket.
func TestUnsolicitedOverTLS(t *testing.T) {
	for _, tt := range []struct {
		id, early   string
		together    bool // the data arrives together with the last reply
		closeNotify bool // the server closes TLS after the data
	}{
		{"C-001 a refusal", "-ERR Failed to RETR that message\r\n", false, false},
		{"C-001 a refusal, together with the last reply", "-ERR Failed to RETR that message\r\n", true, false},
		{"C-001 +OK, together with the last reply", "+OK\r\n", true, false},
		{"C-002 idle", "-ERR Disconnected for inactivity.\r\n", false, true},
		{"C-002 idle, together with the last reply", "-ERR Disconnected for inactivity.\r\n", true, true},
		{"C-002 gone without a word", "", false, true},
	} {
		for name, wrap := range map[string]func(net.Conn) net.Conn{
			"TLS":     func(nc net.Conn) net.Conn { return nc },
			"wrapped": func(nc net.Conn) net.Conn { return wrappedConn{nc} },
		} {
			t.Run(tt.id+" "+name, func(t *testing.T) {
				goOn := make(chan struct{})
				raw, c := loggedInOverTLS(t, wrap, func(p *peer, out *holdingConn) {
					p.expect("DELE 1")
					out.hold = tt.together
					p.send("+OK\r\n")
					out.hold = false
					if !tt.together {
						<-goOn
					}
					p.send(tt.early)
					if tt.closeNotify {
						p.Close()
						return
					}
					p.expectNothing()
				})
				require.NoError(t, c.Dele(t.Context(), 1))
				close(goOn)
				if !tt.together {
					awaitOctets(t, raw)
				}
				err := c.Quit(t.Context())
				require.Error(t, err)
				assert.NotErrorIs(t, err, pop3.ErrCommitUnknown, "QUIT was not sent, so nothing was deleted")
				if tt.early != "" {
					fatal(t, err)
					assert.ErrorContains(t, err, strings.TrimSpace(tt.early))
				}
				checkError(t, err)
			})
		}
	}
}

// A message of the TLS protocol is not a reply (C-001). A key update or a session ticket can arrive before a command or
// within a mail. No command fails because of it, and the mail is complete.
func TestMessagesOfTLSAreNoReplies(t *testing.T) {
	for id, send := range map[string]func(*rawTLS){
		"C-001 a key update":  (*rawTLS).updateKey,
		"C-001 a late ticket": (*rawTLS).sendTicket,
		"C-001 more than one": func(r *rawTLS) { r.sendTicket(); r.sendTicket(); r.updateKey(); r.sendTicket() },
	} {
		t.Run(id, func(t *testing.T) {
			goOn := make(chan struct{})
			raw, c := loggedInOverTLS(t, func(nc net.Conn) net.Conn { return nc }, func(p *peer, out *holdingConn) {
				server := newRawTLS(p, out)
				<-goOn
				send(server)
				p.expect("NOOP")
				server.send("+OK\r\n")
				p.expect("RETR 1")
				server.send("+OK\r\none\r\n")
				send(server)
				server.send("two\r\n.\r\n")
				p.expect("DELE 1")
				server.send("+OK\r\n")
				p.expectNothing()
			})
			close(goOn)
			awaitOctets(t, raw)
			assert.NoError(t, c.Noop(t.Context()))
			m, err := c.Retr(t.Context(), 1)
			require.NoError(t, err)
			mail, err := io.ReadAll(m)
			assert.NoError(t, err)
			assert.Equal(t, "one\r\ntwo\r\n", string(mail))
			assert.NoError(t, c.Dele(t.Context(), 1))
			assert.NoError(t, c.Close())
		})
	}
}

// A wrappedConn wraps a connection, as programs do to count octets. Its method NetConn returns the wrapped connection.
type wrappedConn struct{ net.Conn }

func (c wrappedConn) NetConn() net.Conn { return c.Conn }

// loggedInOverTLS returns a client that is logged in over TLS on a socket. f plays the server after the login.
func loggedInOverTLS(
	t *testing.T,
	wrap func(net.Conn) net.Conn,
	f func(*peer, *holdingConn),
) (raw net.Conn, c *pop3.Client) {
	raw = overTCP(t, func(p *peer) {
		out := &holdingConn{Conn: p.Conn}
		p.Conn, p.lines = out, bufio.NewReader(out)
		if p.startTLS(rawServerTLS(p)) {
			p.login()
			f(p, out)
		}
	})
	config := clientTLS()
	config.ServerName = "pop.example.com"
	// Without a cache the client would ignore session tickets.
	config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	c, err := pop3.NewClient(t.Context(), wrap(tls.Client(wrap(raw), config)), insecure)
	require.NoError(t, err)
	require.NoError(t, c.User(t.Context(), "u"))
	require.NoError(t, c.Pass(t.Context(), canary))
	return raw, c
}

// On Linux the client looks for data in the socket before it sends a command. Such data is unsolicited, so the command
// fails. This also works long after the deadline of the last reply has passed.
func TestEarlyReplyOverTCP(t *testing.T) {
	for id, early := range map[string]string{
		"H-045 goodbye": "-ERR Disconnected for inactivity.\r\n", "H-080 garbage": "garbage\r\n",
		"R1-020 reply": "+OK\r\n", "H-081 dot": ".\r\n",
	} {
		t.Run(id, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer listener.Close()
			greeted := make(chan bool)
			go serveEarly(listener, greeted, early)
			var raw net.Conn
			c, err := pop3.DialInsecure(t.Context(), listener.Addr().String(), &pop3.Options{
				DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					raw, err = new(net.Dialer).DialContext(ctx, network, addr)
					return raw, err
				},
			})
			require.NoError(t, err)
			close(greeted)
			awaitOctets(t, raw)
			raw.SetReadDeadline(time.Unix(1, 0)) // two minutes seem to have passed since the last reply
			err = c.User(t.Context(), "u")
			fatal(t, err)
			assert.ErrorContains(t, err, strings.TrimSpace(early))
			checkError(t, err)
			closed.check(t, c, err)
		})
	}
}

// serveEarly greets one client and later sends a text that the client has not asked for.
func serveEarly(listener net.Listener, greeted <-chan bool, early string) {
	conn, err := listener.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "+OK ready\r\n")
	<-greeted
	io.WriteString(conn, early)
	io.Copy(io.Discard, conn)
}

// awaitOctets waits until data can be read. It does not read the data.
func awaitOctets(t *testing.T, conn net.Conn) {
	require.NoError(t, conn.SetReadDeadline(time.Time{}))
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err != syscall.EAGAIN
	}))
}

// TestLastWordsOfAnIdleSession: when a server closes an idle session, the next error contains the text that the server
// sent. This is true even if the deadline of the last reply has passed (H-235, H-045).
func TestLastWordsOfAnIdleSession(t *testing.T) {
	loggedIn := make(chan struct{})
	conn := overTCP(t, func(p *peer) {
		p.login()
		<-loggedIn
		p.send("-ERR Disconnected for inactivity.\r\n")
	})
	c, err := pop3.NewClient(t.Context(), conn, insecure)
	require.NoError(t, err)
	require.NoError(t, c.User(t.Context(), "u"))
	require.NoError(t, c.Pass(t.Context(), canary))
	close(loggedIn)
	awaitOctets(t, conn)
	require.NoError(t, conn.SetReadDeadline(time.Unix(1, 0)), "a deadline that has passed")
	err = c.Noop(t.Context())
	assert.ErrorContains(t, err, "Disconnected for inactivity")
}
