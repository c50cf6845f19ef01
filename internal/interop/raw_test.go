package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startServer starts a server for one test, or skips the test as the mode of the run says.
func startServer(t *testing.T, kind Kind, opts *Options) *Server {
	t.Helper()
	mode := CurrentMode()
	if mode == ModeOff {
		t.Skipf("SKIPPED: needs a real server (%s); to run it: %s=on go test ./internal/interop (as root on Debian 12)",
			kind, EnvMode)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	s, err := Start(ctx, kind, t.TempDir(), opts)
	if mode == ModeOn && errors.Is(err, ErrUnavailable) {
		t.Skipf("SKIPPED, not run: %v (with %s=require this is a failure)", err, EnvMode)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return s
}

// A rawConn talks to a server with no client in between, so that the harness is tested by itself.
type rawConn struct {
	net.Conn
	r *bufio.Reader
}

func dialRaw(t *testing.T, addr string, config *tls.Config) *rawConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	require.NoError(t, err)
	if config != nil {
		conn = tls.Client(conn, config)
	}
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	t.Cleanup(func() { _ = conn.Close() })
	return &rawConn{conn, bufio.NewReader(conn)}
}

func (c *rawConn) line(t *testing.T) string {
	t.Helper()
	line, err := c.r.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSuffix(line, "\r\n")
}

func (c *rawConn) cmd(t *testing.T, line string) string {
	t.Helper()
	_, err := fmt.Fprintf(c, "%s\r\n", line)
	require.NoError(t, err)
	return c.line(t)
}

// TestStart has every server and every variant of it greet, let a user in over each way to connect, count the maildrop,
// and end with nothing left behind.
func TestStart(t *testing.T) {
	rows := []struct {
		name string
		kind Kind
		opts *Options
		lost int // messages of alice that the store does not take
	}{
		{"dovecot", Dovecot, nil, 0},
		{"dovecot lock", Dovecot, &Options{Lock: true}, 0},
		{"dovecot mbox", Dovecot, &Options{Store: Mbox}, 0},
		{"dovecot conf and delay", Dovecot, &Options{Conf: "login_greeting = Hello.", FailureDelay: 2 * time.Second}, 0},
		{"courier", Courier, nil, 0},
		{"cyrus", Cyrus, nil, 1},
		{"mailutils", Mailutils, nil, 0},
		{"mailutils maildir", Mailutils, &Options{Store: Maildir}, 0},
		{"popa3d", Popa3d, nil, 0},
		{"solid", Solid, nil, 0},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			begin := time.Now()
			s := startServer(t, row.kind, row.opts)
			t.Logf("%s ready after %v", s.Version, time.Since(begin).Round(time.Millisecond))
			assert.NotEmpty(t, s.Version)
			for addr, config := range map[string]*tls.Config{s.Addr: nil, s.TLSAddr: s.TLSConfig()} {
				c := dialRaw(t, addr, config)
				assert.Contains(t, c.line(t), "+OK")
				assert.Contains(t, c.cmd(t, "USER "+Alice.Name), "+OK")
				require.Contains(t, c.cmd(t, "PASS "+Alice.Password), "+OK", s.Log())
				assert.Contains(t, c.cmd(t, "STAT"), fmt.Sprintf("+OK %d ", len(Corpus(Awkward))-row.lost))
				assert.Contains(t, c.cmd(t, "QUIT"), "+OK")
			}
			require.NoError(t, s.Stop())
			_, err := net.DialTimeout("tcp", s.Addr, time.Second)
			assert.Error(t, err, "nothing listens after Stop")
			mounts, err := os.ReadFile("/proc/self/mountinfo")
			require.NoError(t, err)
			assert.NotContains(t, string(mounts), s.dir, "no mount is left")
		})
	}
}
