package interop_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/interop"
)

// start starts a server for one test. To get a server that tests share, use pool.get.
func start(t *testing.T, kind interop.Kind, opts *interop.Options) (s *interop.Server, dir string) {
	t.Helper()
	servers.get(t, kind, "") // skips the test if no server is available
	dir = t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := interop.Start(ctx, kind, dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return s, dir
}

// A rawConn sends commands to a server without package pop3, so that these tests do not depend on package pop3.
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
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
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

// TestStart starts every server in every variant. Each server sends a greeting, accepts a login over each transport,
// and lists the maildrop. After Stop nothing is left of the server.
func TestStart(t *testing.T) {
	awkward := len(interop.Corpus(interop.Awkward))
	rows := []struct {
		name  string
		kind  interop.Kind
		opts  *interop.Options
		count int // number of messages of the account alice
	}{
		{"dovecot", interop.Dovecot, nil, awkward},
		{"dovecot lock", interop.Dovecot, &interop.Options{Lock: true}, awkward},
		{"dovecot mbox", interop.Dovecot, &interop.Options{Store: interop.Mbox}, awkward},
		{"dovecot conf", interop.Dovecot, &interop.Options{Conf: "login_greeting = Hello."}, awkward},
		{"dovecot delay", interop.Dovecot, &interop.Options{FailureDelay: 2 * time.Second}, awkward},
		{"courier", interop.Courier, nil, awkward},
		{"cyrus takes no NUL", interop.Cyrus, nil, awkward - 1},
		{"mailutils", interop.Mailutils, nil, awkward},
		{"mailutils maildir", interop.Mailutils, &interop.Options{Store: interop.Maildir}, awkward},
		{"popa3d", interop.Popa3d, nil, awkward},
		{"solid", interop.Solid, nil, awkward},
		{"nginx", interop.Nginx, nil, awkward},
		{"wildduck", interop.WildDuck, nil, awkward},
		{"inbucket", interop.Inbucket, nil, awkward},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, dir := start(t, row.kind, row.opts)
			assert.NotEmpty(t, s.Version)
			for addr, config := range map[string]*tls.Config{s.Addr: nil, s.TLSAddr: s.TLSConfig()} {
				c := dialRaw(t, addr, config)
				assert.Contains(t, c.line(t), "+OK")
				assert.Contains(t, c.cmd(t, "USER "+interop.Alice.Name), "+OK")
				require.Contains(t, c.cmd(t, "PASS "+interop.Alice.Password), "+OK", s.Log())
				assert.Contains(t, c.cmd(t, "STAT"), fmt.Sprintf("+OK %d ", row.count))
				assert.Contains(t, c.cmd(t, "QUIT"), "+OK")
			}
			require.NoError(t, s.Stop())
			assertGone(t, s.Addr, dir)
		})
	}
}

// assertGone checks that nothing is left of a server that listened on addr and had its state in dir.
func assertGone(t *testing.T, addr, dir string) {
	t.Helper()
	_, err := net.DialTimeout("tcp", addr, time.Second)
	assert.Error(t, err, "nothing listens")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	assert.NotContains(t, string(mounts), dir, "no mount is left")
}

// envHelper is an environment variable with a folder. If it is set, the test binary runs helper in that folder.
const envHelper = "POP3_INTEROP_TEST_HELPER"

// helper starts a server, prints its address, and waits to be killed.
func helper(dir string) int {
	s, err := interop.Start(context.Background(), interop.Dovecot, dir, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(s.Addr)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// TestKilled kills a program that has started a server, as a time limit or a user would. The server must end too.
func TestKilled(t *testing.T) {
	t.Parallel()
	servers.get(t, interop.Dovecot, "")
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envHelper+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // the helper ends when its standard input is closed, so the test keeps it open
	require.NoError(t, err)
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	addr := lines.Text()
	assert.Contains(t, dialRaw(t, addr, nil).line(t), "+OK Dovecot ready.")

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	assert.Eventually(t, func() bool {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, 10*time.Second, 20*time.Millisecond, "the server ends with the program that started it")
	assertGone(t, addr, dir)
}
