package conformance_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
)

// TestLastWordsOfAnIdleSession: what a server says before it hangs up on an idle session is not lost to the deadline of
// the reply before (H-235, H-045). Only
// Linux can look into the socket.
func TestLastWordsOfAnIdleSession(t *testing.T) {
	loggedIn := make(chan struct{})
	conn := overTCP(t, func(p *peer) {
		p.login()
		<-loggedIn
		p.says("-ERR Disconnected for inactivity.\r\n")
	})
	c, err := pop3.NewClient(t.Context(), conn, insecure)
	require.NoError(t, err)
	require.NoError(t, c.User(t.Context(), "u"))
	require.NoError(t, c.Pass(t.Context(), canary))
	close(loggedIn)
	waitReadable(t, conn)
	require.NoError(t, conn.SetReadDeadline(time.Unix(1, 0)), "the deadline of the last reply, long ago")
	err = c.Noop(t.Context())
	assert.ErrorContains(t, err, "Disconnected for inactivity")
}

// waitReadable waits until something can be read from conn, and leaves it there.
func waitReadable(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Time{}))
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err != syscall.EAGAIN
	}))
}
