package link_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/benchmarks/link"
)

// carry returns the near end of a link. The function server is called with the far end. The link consists of pipes in a
// bubble of synctest, so that times are exact.
func carry(t *testing.T, roundTrip time.Duration, server func(net.Conn)) net.Conn {
	t.Helper()
	near, end := net.Pipe()
	var running sync.WaitGroup
	running.Go(func() {
		assert.NoError(t, link.Carry(context.Background(), end, roundTrip, func(context.Context) (net.Conn, error) {
			far, end := net.Pipe()
			go server(end)
			return far, nil
		}))
	})
	t.Cleanup(func() {
		near.Close()
		running.Wait()
	})
	return near
}

func read(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	_, err := io.ReadFull(r, b)
	require.NoError(t, err)
	require.Equal(t, want, string(b))
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	_, err := io.WriteString(w, s)
	require.NoError(t, err)
}

// echo sends hello and then sends back what it receives.
func echo(conn net.Conn) {
	defer conn.Close()
	io.WriteString(conn, "hello")
	io.Copy(conn, conn)
}

func TestCarry(t *testing.T) {
	for _, roundTrip := range []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond} {
		t.Run(roundTrip.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				conn := carry(t, roundTrip, echo)
				read(t, conn, "hello")
				assert.Equal(t, 2*roundTrip, time.Since(began), "the handshake and the greeting take two round trips")
				for range 3 {
					began = time.Now()
					write(t, conn, "ping")
					read(t, conn, "ping")
					assert.Equal(t, roundTrip, time.Since(began))
				}
			})
		})
	}
}

// If the client sends first, as with TLS, its data arrives only after the handshake.
func TestClientFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const roundTrip = 50 * time.Millisecond
		began := time.Now()
		conn := carry(t, roundTrip, func(conn net.Conn) {
			defer conn.Close()
			io.Copy(conn, conn)
		})
		write(t, conn, "ping")
		read(t, conn, "ping")
		assert.Equal(t, 2*roundTrip, time.Since(began), "the handshake and the reply take two round trips")
	})
}

// Data that is sent at the same time arrives at the same time, in order, half a round trip later. The rate of the link
// has no limit.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const roundTrip, octets = 100 * time.Millisecond, 8 << 20
		began := time.Now()
		conn := carry(t, roundTrip, func(conn net.Conn) {
			defer conn.Close()
			io.WriteString(conn, strings.Repeat("0123456789abcdef", octets/16))
			time.Sleep(30 * time.Millisecond)
			io.WriteString(conn, "end")
		})
		read(t, conn, strings.Repeat("0123456789abcdef", octets/16))
		assert.Equal(t, 2*roundTrip, time.Since(began))
		read(t, conn, "end")
		assert.Equal(t, 2*roundTrip+30*time.Millisecond, time.Since(began))
		_, err := conn.Read(make([]byte, 1))
		assert.ErrorIs(t, err, io.EOF)
	})
}

// A client that does not read does not make the server wait.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took time.Duration
		conn := carry(t, 20*time.Millisecond, func(conn net.Conn) {
			defer conn.Close()
			began := time.Now()
			io.WriteString(conn, strings.Repeat("x", 1<<20))
			took = time.Since(began)
		})
		time.Sleep(time.Second)
		read(t, conn, strings.Repeat("x", 1<<20))
		assert.Zero(t, took)
	})
}

func TestNoServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, end := net.Pipe()
		refused := errors.New("refused")
		done := make(chan error)
		go func() {
			done <- link.Carry(t.Context(), end, time.Millisecond, func(context.Context) (net.Conn, error) {
				return nil, refused
			})
		}()
		_, err := near.Read(make([]byte, 1))
		assert.ErrorIs(t, err, io.EOF)
		assert.ErrorIs(t, <-done, refused)
	})
}

// When the context is done, the link closes the connection. Data in transit may still arrive.
func TestContextEnds(t *testing.T) {
	for name, after := range map[string]time.Duration{"handshake": 20 * time.Millisecond, "later": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), after)
				defer cancel()
				near, end := net.Pipe()
				go io.Copy(io.Discard, near)
				began := time.Now()
				require.NoError(t, link.Carry(ctx, end, 50*time.Millisecond, func(context.Context) (net.Conn, error) {
					far, end := net.Pipe()
					go echo(end)
					return far, nil
				}))
				assert.GreaterOrEqual(t, time.Since(began), after)
				assert.LessOrEqual(t, time.Since(began), after+25*time.Millisecond)
			})
		})
	}
}

// Over sockets, one end may close its direction while the other end still sends.
func TestHalfClose(t *testing.T) {
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer server.Close()
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		received, _ := io.ReadAll(conn)
		conn.Write(append([]byte("heard "), received...))
	}()
	l, err := link.Listen(time.Millisecond, server.Addr().String())
	require.NoError(t, err)
	conn, err := net.Dial("tcp4", l.Addr)
	require.NoError(t, err)
	defer conn.Close()
	write(t, conn, "all of it")
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, "heard all of it", string(got))
	require.NoError(t, l.Close())
	_, err = net.Dial("tcp4", l.Addr)
	assert.Error(t, err, "the link does not listen after Close")
}
