package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/internal/testcert"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// startTLSServer starts a server with a certificate for the given names. It returns the server and the authority of the
// certificate.
func startTLSServer(t *testing.T, change func(*tls.Config), names ...string) (*pop3test.Server, *testcert.Authority) {
	t.Helper()
	authority := testcert.New()
	srv := pop3test.NewUnstartedServer(mailbox("ann", newMessages("one")...))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Server(names...)}}
	if change != nil {
		change(srv.TLS)
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, authority
}

// writeFileKey writes a file in the workspace. It returns a line of the configuration that sets key to the name of the
// file.
func (p *workspace) writeFileKey(key string, content []byte) string {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(p.path(key), content, 0o600))
	return fmt.Sprintf("%s = %q", key, p.path(key))
}

// In each row popfetch can connect to the server only if a key about TLS is set.
func TestTLSKeys(t *testing.T) {
	old := func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }
	for _, tt := range []struct {
		name    string
		names   string // the names in the server's certificate
		change  func(*tls.Config)
		lines   func(p *workspace, authority *testcert.Authority, leaf []byte) []string
		wantErr string // the error without the last of these lines
	}{
		{"fingerprint", "127.0.0.1", nil, func(_ *workspace, _ *testcert.Authority, leaf []byte) []string {
			sum := sha256.Sum256(leaf)
			return []string{fmt.Sprintf("fingerprint = %q", fingerprint(sum[:]))}
		}, "set ca_file to its authority, or fingerprint to its fingerprint, which popfetch --diagnose shows"},
		{"certificate_name", "mail.example.org", nil, func(p *workspace, a *testcert.Authority, _ []byte) []string {
			cert, _ := testcert.PEM(a.Certificate)
			return []string{p.writeFileKey("ca_file", cert), `certificate_name = "mail.example.org"`}
		}, "cannot validate certificate for 127.0.0.1"},
		{"tls_min", "127.0.0.1", old, func(p *workspace, a *testcert.Authority, _ []byte) []string {
			cert, _ := testcert.PEM(a.Certificate)
			return []string{p.writeFileKey("ca_file", cert), `tls_min = "1.1"`}
		}, "protocol version"},
		{"client_certificate", "127.0.0.1", func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert },
			func(p *workspace, a *testcert.Authority, _ []byte) []string {
				cert, _ := testcert.PEM(a.Certificate)
				own, key := testcert.PEM(a.Client("ann"))
				return []string{p.writeFileKey("ca_file", cert),
					p.writeFileKey("client_certificate", own) + "\n" + p.writeFileKey("client_key", key)}
			}, "certificate required"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv, authority := startTLSServer(t, tt.change, tt.names)
			p := newWorkspace(t)
			lines := append([]string{`tls = "implicit"`},
				tt.lines(p, authority, srv.ServerTLS().Certificates[0].Certificate[0])...)
			r := p.run("-c", p.configure(p.account(srv, "ann", lines[:len(lines)-1]...)))
			assert.Equal(t, exitFailed, r.status)
			assert.Contains(t, r.err, tt.wantErr)
			r = p.run("-c", p.configure(p.account(srv, "ann", lines...)))
			assert.Equal(t, exitDone, r.status, r.err)
			assert.Len(t, p.stored("ann"), 1)
		})
	}
}

// If the server's certificate has another fingerprint than the configuration, popfetch does not send the password.
func TestWrongFingerprint(t *testing.T) {
	srv, _ := startTLSServer(t, nil, "127.0.0.1")
	p := newWorkspace(t)
	line := fmt.Sprintf("fingerprint = %q", strings.Repeat("ab", 32))
	r := p.run("-c", p.configure(p.account(srv, "ann", `tls = "implicit"`, line)))
	assert.Equal(t, exitFailed, r.status)
	assert.Contains(t, r.err, "the certificate of the server has another fingerprint: ")
	assert.NotContains(t, strings.Join(srv.Commands(), "\n"), "AUTH")
}

// An account with a client certificate needs no password.
func TestExternal(t *testing.T) {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		lines := bufio.NewReader(far)
		io.WriteString(far, "+OK\r\n")
		for _, reply := range []string{"+OK\r\nSASL EXTERNAL\r\nUIDL\r\n.", "+OK"} {
			line, _ := lines.ReadString('\n')
			if strings.HasPrefix(line,
				"AUTH") && line != "AUTH EXTERNAL "+base64.StdEncoding.EncodeToString([]byte("ann"))+"\r\n" {
				return
			}
			io.WriteString(far, reply+"\r\n")
		}
	}()
	a := &account{settings: settings{User: "ann", Mechanisms: list{"EXTERNAL"}, InsecureAuth: true}}
	a.dial = func(ctx context.Context, _ string, o *pop3.Options) (*pop3.Client, error) {
		return pop3.NewClient(ctx, near, o)
	}
	c, err := a.connect(t.Context(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	c.Close()
}

// startHTTPProxy is a proxy that supports CONNECT and requires a password.
func startHTTPProxy(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				request, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil || request.Method != http.MethodConnect {
					conn.Close()
					return
				}
				if request.Header.Get("Proxy-Authorization") != "Basic "+
					""+base64.StdEncoding.EncodeToString([]byte("me:canary")) {
					io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
					conn.Close()
					return
				}
				// the greeting arrives together with the reply of the proxy
				relay(conn, request.Host, "HTTP/1.1 200 OK\r\n\r\n")
			}()
		}
	}()
	return listener.Addr().String()
}

// startSOCKSProxy is a SOCKS5 proxy without passwords (RFC 1928).
func startSOCKSProxy(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				hello, request := make([]byte, 3), make([]byte, 10) // long enough for a request with an IPv4 address
				io.ReadFull(conn, hello)
				conn.Write([]byte{5, 0})
				io.ReadFull(conn, request)
				addr := net.JoinHostPort(net.IP(request[4:8]).String(), fmt.Sprint(int(request[8])<<8|int(request[9])))
				relay(conn, addr, string([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}))
			}()
		}
	}()
	return listener.Addr().String()
}

// relay copies data between a client of a proxy and a server. The reply of the proxy and the greeting of the server
// arrive in one segment.
func relay(client net.Conn, addr, proxyReply string) {
	defer client.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	greeting, err := bufio.NewReader(io.LimitReader(server, 1000)).ReadSlice('\n')
	if err != nil {
		return
	}
	client.Write(append([]byte(proxyReply), bytes.Clone(greeting)...))
	go func() { io.Copy(server, client); server.Close() }()
	io.Copy(client, server)
}

func TestProxies(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...))
	defer srv.Close()
	for _, tt := range []struct{ name, url, err string }{
		{"CONNECT", "http://me:canary@" + startHTTPProxy(t), ""},
		{"CONNECT with a wrong password", "http://me:canary2@" + startHTTPProxy(t),
			"through the proxy 127.0.0.1:"},
		{"SOCKS5", "socks5://" + startSOCKSProxy(t), ""},
		{"proxy that is not running", "http://127.0.0.1:1",
			"through the proxy 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newWorkspace(t)
			line := fmt.Sprintf("proxy = %q", tt.url)
			r := p.run("-c", p.configure(p.account(srv, "ann", line, `tls = "starttls"`, p.trustLine(srv))))
			if tt.err != "" {
				assert.Equal(t, exitFailed, r.status)
				assert.Contains(t, r.err, tt.err)
				return
			}
			assert.Equal(t, exitDone, r.status, r.err)
			assert.Len(t, p.stored("ann"), 1)
		})
	}
}

// passwordScript returns a line of the configuration with a shell command as password_command. The command records each
// call in a file.
func (p *workspace) passwordScript(text string) string {
	return fmt.Sprintf("password_command = [\"sh\", \"-c\", %q]",
		"echo \"called $POPFETCH_REFUSED\" >> "+p.path("calls")+"; "+text)
}

// If the server refuses a token, popfetch gets a new one at once. As long as a token is valid, popfetch does not run
// the command again.
func TestTokens(t *testing.T) {
	const tokenReply = `{"access_token":"tanstaaf-canary","token_type":"Bearer","expires_in":%d}`
	for _, tt := range []struct {
		name, script string
		status       int
		calls        string
		logins       int
	}{
		{"good", "echo " + password, exitDone, "called \ncalled \n", 2},
		{"token that has expired", `if test -n "$POPFETCH_REFUSED"; then echo ` + password + `; else echo stale; fi`,
			exitDone, "called \ncalled 1\ncalled \ncalled 1\n", 4},
		{"every token has expired", "echo stale", exitFailed, "called \ncalled 1\ncalled \ncalled 1\n", 2},
		{"JSON, valid for an hour", "echo '" + fmt.Sprintf(tokenReply, 3600) + "'", exitDone, "called \n", 2},
		{"JSON, valid for 30 seconds", "echo '" + fmt.Sprintf(tokenReply, 30) + "'", exitDone, "called \ncalled \n", 2},
		{"JSON, without expires_in", `echo '{"access_token":"tanstaaf-canary"}'`, exitDone, "called \ncalled \n", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewTLSServer(mailbox("ann", newMessages("one")...))
			defer srv.Close()
			p := newWorkspace(t)
			text := p.account(srv, "ann", `mechanisms = ["XOAUTH2"]`, `tls = "implicit"`, p.trustLine(srv))
			text = strings.Replace(text, `password_env = "POPFETCH_TEST_PASSWORD"`, p.passwordScript(tt.script), 1)
			c, err := readConfig(p.configure(text))
			require.NoError(t, err)
			accounts, err := c.build()
			require.NoError(t, err)
			for range 2 { // a daemon logs in several times with the same account
				client, err := accounts[0].connect(t.Context(), slog.New(slog.DiscardHandler))
				assert.Equal(t, tt.status == exitDone, err == nil, err)
				if err == nil {
					client.Close()
				} else {
					assert.NotContains(t, err.Error(), "stale")
				}
			}
			calls, err := os.ReadFile(p.path("calls"))
			require.NoError(t, err)
			assert.Equal(t, tt.calls, string(calls))
			assert.Equal(t, tt.logins, strings.Count(strings.Join(srv.Commands(), "\n"), "AUTH XOAUTH2"))
		})
	}
}

// C-076: password_command has a time limit of its own. When the limit has passed, the command and its children are
// killed.
func TestPasswordCommandTimeout(t *testing.T) {
	srv := pop3test.NewServer(mailbox("ann", newMessages("one")...), mailbox("bob", newMessages("two")...))
	defer srv.Close()
	p := newWorkspace(t)
	hangingCommand := `password_command = ["sh", "-c", "sleep 100; true"]`
	ann := strings.Replace(p.account(srv, "ann", `password_timeout = "1s"`), `password_env = "POPFETCH_TEST_PASSWORD"`,
		hangingCommand, 1)
	start := time.Now()
	r := p.run("-c", p.configure(ann, p.account(srv, "bob")))
	assert.Less(t, time.Since(start), 20*time.Second)
	assert.Equal(t, exitFailed, r.status)
	assert.Contains(t, r.err, "no password: password_command sh: no password within 1s (password_timeout)")
	assert.Contains(t, r.out, "bob: 1 new")
}
