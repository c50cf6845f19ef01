package conformance_test

import (
	"context"
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

// What lies in the socket before a command was not asked for, also where nobody has read it yet, and also long after
// the time of the last reply has passed. The client sees that on Linux.
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
			raw.SetReadDeadline(time.Unix(1, 0)) // as if two minutes had passed since the last reply
			err = c.User(t.Context(), "u")
			broken(t, err)
			assert.ErrorContains(t, err, strings.TrimSpace(early))
			checkError(t, err)
			poisoned.check(t, c, err)
		})
	}
}

// serveEarly greets one client, and later says something that nobody asked for.
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

// awaitOctets waits until something can be read, and leaves it there.
func awaitOctets(t *testing.T, conn net.Conn) {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err == nil
	}))
}
