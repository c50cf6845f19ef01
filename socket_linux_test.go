package pop3

import (
	"crypto/tls"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Both types wrap a connection. Only wrapped has a method NetConn.
type (
	wrapped struct{ net.Conn }
	opaque  struct{ net.Conn }
)

func (c wrapped) NetConn() net.Conn { return c.Conn }

// A socket uses only the methods that the connection has.
func TestSocket(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	tcp, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer tcp.Close()
	pipe, _ := net.Pipe()
	overTLS := func(nc net.Conn) net.Conn { return tls.Client(nc, &tls.Config{ServerName: "x"}) }
	for name, tt := range map[string]struct {
		conn       net.Conn
		acks, peek bool
	}{
		"TCP":                  {tcp, true, true},
		"TLS over TCP":         {overTLS(tcp), true, false},
		"wrapped TCP":          {wrapped{tcp}, true, false},
		"TLS over wrapped TCP": {overTLS(wrapped{wrapped{tcp}}), true, false},
		"wrapped TLS":          {wrapped{overTLS(tcp)}, true, false},
		"opaque TCP":           {opaque{tcp}, false, false},
		"TLS over opaque TCP":  {overTLS(opaque{tcp}), false, false},
		"a pipe":               {pipe, false, false},
		"TLS over a pipe":      {overTLS(pipe), false, false},
		"wrapped nil":          {wrapped{}, false, false},
	} {
		s := newSocket(tt.conn)
		assert.Equal(t, tt.acks, s.raw != nil, name)
		assert.Equal(t, tt.peek, s.countsWritten(), name)
		assert.False(t, s.readable(), name)
		if tt.acks {
			setOption(t, s.raw, 0)
			s.quickAck()
			assert.Equal(t, 1, option(t, s.raw), name)
		} else {
			s.quickAck()
		}
	}
}

// setOption sets TCP_QUICKACK.
func setOption(t *testing.T, raw syscall.RawConn, value int) {
	require.NoError(t, raw.Control(func(fd uintptr) {
		require.NoError(t, syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, value))
	}))
}

func option(t *testing.T, raw syscall.RawConn) (value int) {
	require.NoError(t, raw.Control(func(fd uintptr) {
		var err error
		value, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK)
		require.NoError(t, err)
	}))
	return value
}
