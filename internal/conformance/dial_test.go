package conformance_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/proxy"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

var errNoNetwork = errors.New("no network in this test")

func TestDialAddress(t *testing.T) {
	for _, row := range []struct {
		name, addr    string
		tls, starttls string // the addresses to dial, with DialTLS and DialStartTLS
	}{
		{"name", "pop.example.org", "pop.example.org:995", "pop.example.org:110"},
		{"name and port", "pop.example.org:1995", "pop.example.org:1995", "pop.example.org:1995"},
		{"IPv4", "192.0.2.1", "192.0.2.1:995", "192.0.2.1:110"},
		{"IPv6", "::1", "[::1]:995", "[::1]:110"},
		{"IPv6 in brackets", "[2001:db8::1]", "[2001:db8::1]:995", "[2001:db8::1]:110"},
		{"IPv6 and port", "[2001:db8::1]:2000", "[2001:db8::1]:2000", "[2001:db8::1]:2000"},
		{"IPv6 with a zone", "fe80::1%eth0", "[fe80::1%eth0]:995", "[fe80::1%eth0]:110"},
		{"internationalised", "pop.bücher.example", "pop.xn--bcher-kva.example:995", "pop.xn--bcher-kva.example:110"},
		{"internationalised and port", "BÜCHER.example:1", "xn--bcher-kva.example:1", "xn--bcher-kva.example:1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var dialled []string
			opts := &pop3.Options{DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
				assert.Equal(t, "tcp", network)
				dialled = append(dialled, addr)
				return nil, errNoNetwork
			}}
			_, err := pop3.DialTLS(t.Context(), row.addr, opts)
			require.ErrorIs(t, err, errNoNetwork)
			_, err = pop3.DialStartTLS(t.Context(), row.addr, opts)
			require.ErrorIs(t, err, errNoNetwork)
			_, err = pop3.DialInsecure(t.Context(), row.addr, opts)
			require.ErrorIs(t, err, errNoNetwork)
			assert.Equal(t, []string{row.tls, row.starttls, row.starttls}, dialled)
		})
	}
	for addr, reason := range map[string]string{
		"": "needs a host", ":995": "needs a host", "[]:995": "needs a host", "pop.example.org:": "needs a port",
		"pop3://pop.example.org": "not a URL", "pop3s://pop.example.org:995": "not a URL", "[::1]/x": "not a URL",
		"a\r\nb": "control characters", "pop.exa\x00mple.org": "control characters", "xn--\u00fc.example": "idna",
	} {
		_, err := pop3.DialTLS(t.Context(), addr, nil)
		require.ErrorIs(t, err, pop3.ErrArgument, "%q", addr)
		require.ErrorContains(t, err, reason, "%q", addr)
	}
}

// TestServerName: the certificate must be valid for the name that was dialed (R1-164).
func TestServerName(t *testing.T) {
	for addr, want := range map[string]string{
		"pop.example.org":      "pop.example.org",
		"pop.example.org.":     "pop.example.org",
		"pop.bücher.example:1": "pop.xn--bcher-kva.example",
	} {
		client, server := net.Pipe()
		var serverName string
		go func() {
			defer server.Close()
			tls.Server(server, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				serverName = hello.ServerName
				return nil, errNoNetwork
			}}).Handshake()
		}()
		_, err := pop3.DialTLS(t.Context(), addr, &pop3.Options{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return client, nil },
		})
		require.Error(t, err)
		assert.Equal(t, want, serverName, addr)
	}
}

func TestDialTLS(t *testing.T) {
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "u", Password: canary})
	t.Cleanup(srv.Close)
	config := srv.ClientTLS()
	c, err := pop3.DialTLS(t.Context(), srv.Addr, &pop3.Options{TLSConfig: config})
	require.NoError(t, err)
	state, ok := c.TLSConnectionState()
	assert.True(t, ok)
	assert.NotEmpty(t, state.VerifiedChains)
	assert.NotEmpty(t, c.Greeting())
	require.NoError(t, c.Login(t.Context(), "u", canary))
	require.NoError(t, c.Quit(t.Context()))
	assert.Empty(t, config.ServerName, "the caller's config is not written to")
}

func TestDialStartTLS(t *testing.T) {
	srv := pop3test.NewServer(&pop3test.Mailbox{User: "u", Password: canary})
	t.Cleanup(srv.Close)
	c, err := pop3.DialStartTLS(t.Context(), srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
	require.NoError(t, err)
	_, ok := c.TLSConnectionState()
	assert.True(t, ok)
	assert.Empty(t, c.Greeting(), "R1-093: what came in clear is forgotten")
	require.ErrorIs(t, c.Apop(t.Context(), "u", "p"), errors.ErrUnsupported, "R1-125")
	caps, err := c.Capa(t.Context())
	require.NoError(t, err)
	assert.False(t, caps.Has("STLS"), "capabilities are those of the encrypted session")
	require.NoError(t, c.Login(t.Context(), "u", canary))
	require.NoError(t, c.Quit(t.Context()))
}

// TestCertificates: the zero Options accept only a valid certificate. With any other certificate no secret is sent
// (H-153).
func TestCertificates(t *testing.T) {
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "u", Password: canary})
	t.Cleanup(srv.Close)
	_, err := pop3.DialTLS(t.Context(), srv.Addr, nil)
	var verification *tls.CertificateVerificationError
	require.ErrorAs(t, err, &verification, "unknown root")

	wrongName := srv.ClientTLS()
	wrongName.ServerName = "other.example.net"
	_, err = pop3.DialTLS(t.Context(), srv.Addr, &pop3.Options{TLSConfig: wrongName})
	require.ErrorAs(t, err, &verification, "other name")
	assert.Empty(t, srv.Commands())
}

// TestUnverifiedTLS: with InsecureSkipVerify alone, TLS does not count as secure. If the caller also sets
// VerifyConnection, it does (R1-169).
func TestUnverifiedTLS(t *testing.T) {
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "u", Password: canary})
	t.Cleanup(srv.Close)
	remote := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, srv.Addr)
	}
	unverified := &tls.Config{InsecureSkipVerify: true}
	checked := &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(tls.ConnectionState) error { return nil }}

	c, err := pop3.DialTLS(t.Context(), "pop.example.org", &pop3.Options{TLSConfig: unverified, DialContext: remote})
	require.NoError(t, err)
	require.ErrorIs(t, c.User(t.Context(), "u"), pop3.ErrInsecureAuth)
	require.NoError(t, c.Close())

	c, err = pop3.DialTLS(t.Context(), "pop.example.org", &pop3.Options{TLSConfig: checked, DialContext: remote})
	require.NoError(t, err)
	require.NoError(t, c.User(t.Context(), "u"))
	require.NoError(t, c.Close())
}

// TestResumption: with nil Options the next connection to a server resumes the TLS session.
func TestResumption(t *testing.T) {
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "u", Password: canary})
	t.Cleanup(srv.Close)
	config := srv.ClientTLS()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	var resumed []bool
	for range 2 {
		c, err := pop3.DialTLS(t.Context(), srv.Addr, &pop3.Options{TLSConfig: config})
		require.NoError(t, err)
		require.NoError(t, c.Login(t.Context(), "u", canary), "a resumed session is a verified one (H-163)")
		state, _ := c.TLSConnectionState()
		resumed = append(resumed, state.DidResume)
		require.NoError(t, c.Quit(t.Context()))
	}
	assert.Equal(t, []bool{false, true}, resumed)
}

func TestHints(t *testing.T) {
	for _, row := range []struct{ id, greeting, hint string }{
		{"H-010 SMTP", "220 mail.example.org ESMTP\r\n", "SMTP"},
		{"H-010 IMAP", "* OK IMAP4rev1 ready\r\n", "IMAP"},
		{"H-010 HTTP", "HTTP/1.1 400 Bad Request\r\n", "HTTP"},
		{"H-010 SSH", "SSH-2.0-OpenSSH_9.2\r\n", "SSH"},
		{"TLS alert", "\x15\x03\x01\x00\x02\x02\x0a", "DialTLS"},
	} {
		t.Run(row.id, func(t *testing.T) {
			conn, done := pop3test.Script("s: " + fmt.Sprintf("%q", row.greeting) + "\nEOF")
			_, err := pop3.NewClient(t.Context(), conn, nil)
			require.ErrorContains(t, err, row.hint)
			require.NoError(t, done())
		})
	}
}

func TestHintClearOnTLSPort(t *testing.T) {
	srv := pop3test.NewServer(&pop3test.Mailbox{User: "u", Password: canary})
	t.Cleanup(srv.Close)
	_, err := pop3.DialTLS(t.Context(), srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
	require.ErrorContains(t, err, "DialStartTLS", "H-013")
	var header tls.RecordHeaderError
	require.ErrorAs(t, err, &header)
}

// TestHintSilentServer: a server that expects TLS sends nothing in clear. The error advises DialTLS, both after
// Options.Timeout and after the deadline of the context.
func TestHintSilentServer(t *testing.T) {
	for name, patience := range map[string]struct{ context, timeout time.Duration }{
		"Timeout": {time.Hour, time.Second}, "the context": {time.Second, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), patience.context)
				defer cancel()
				conn, _ := pop3test.Script("HOLD")
				_, err := pop3.DialInsecure(ctx, "127.0.0.1", &pop3.Options{
					DialContext: dialTo(conn), Timeout: patience.timeout,
				})
				require.ErrorContains(t, err, "use DialTLS, port 995")
			})
		})
	}
}

// TestHintAtTrust: the error about a certificate of an unknown authority advises RootCAs.
func TestHintAtTrust(t *testing.T) {
	srv := pop3test.NewTLSServer()
	t.Cleanup(srv.Close)
	_, err := pop3.DialTLS(t.Context(), srv.Addr, nil)
	require.ErrorContains(t, err, "RootCAs")
	var unknown x509.UnknownAuthorityError
	require.ErrorAs(t, err, &unknown)
}

// TestErrorsNameTheCommand: an error names the command, even if the command was not sent.
func TestErrorsNameTheCommand(t *testing.T) {
	srv := pop3test.NewTLSServer()
	t.Cleanup(srv.Close)
	c, err := pop3.DialTLS(t.Context(), srv.Addr, &pop3.Options{TLSConfig: srv.ClientTLS()})
	require.NoError(t, err)
	_, err = c.Stat(t.Context())
	require.EqualError(t, err,
		"pop3: STAT: the command is not allowed in this state of the session, which is AUTHORIZATION")
	ended, end := context.WithCancel(t.Context())
	end()
	require.EqualError(t, c.Noop(ended), "pop3: NOOP: context canceled")
	require.NoError(t, c.Close())
	require.EqualError(t, c.Dele(t.Context(), 7), "pop3: DELE 7: use of closed network connection")
}

func TestRefusedGreeting(t *testing.T) {
	conn, done := pop3test.Script("S: -ERR [SYS/TEMP] try later")
	_, err := pop3.NewClient(t.Context(), conn, nil)
	var refusal *pop3.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, pop3.CodeSysTemp, refusal.Code)
	assert.True(t, refusal.Temporary())
	require.NoError(t, done())
	_, err = conn.Write([]byte("x"))
	require.Error(t, err, "the connection is closed")
}

// TestProxy: the variables ALL_PROXY and NO_PROXY are used. golang.org/x/net/proxy reads the environment only once, so
// each case runs in a process of its own.
func TestProxy(t *testing.T) {
	if server := os.Getenv("POP3_TEST_PROXIED"); server != "" {
		c, err := pop3.DialInsecure(t.Context(), server, nil)
		require.NoError(t, err)
		fmt.Println("greeting:", c.Greeting())
		fmt.Println("user:", c.User(t.Context(), "u"))
		require.NoError(t, c.Close())
		return
	}
	srv := pop3test.NewServer(&pop3test.Mailbox{User: "u", Password: canary})
	t.Cleanup(srv.Close)
	socks := startSOCKS(t, srv.Addr)
	_, port, _ := net.SplitHostPort(srv.Addr)

	through := runProxied(t, "pop.example.org:110", "ALL_PROXY=socks5://"+socks, "NO_PROXY=")
	assert.Contains(t, through, "greeting: ")
	assert.Contains(t, through, pop3.ErrInsecureAuth.Error())

	local := runProxied(t, "localhost:"+port, "ALL_PROXY=socks5://"+socks, "NO_PROXY=")
	assert.Contains(t, local, pop3.ErrInsecureAuth.Error(), "localhost through a proxy is not this machine")

	direct := runProxied(t, "127.0.0.1:"+port, "ALL_PROXY=socks5://127.0.0.1:1", "NO_PROXY=127.0.0.1")
	assert.Contains(t, direct, "user: <nil>")
}

func runProxied(t *testing.T, server string, env ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestProxy$", "-test.v")
	cmd.Env = append(os.Environ(), append(env, "POP3_TEST_PROXIED="+server)...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

// startSOCKS starts a SOCKS5 proxy without authentication (RFC 1928) that connects everything to target.
func startSOCKS(t *testing.T, target string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-served })
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serveSOCKS(conn, target)
		}
	}()
	return l.Addr().String()
}

func serveSOCKS(conn net.Conn, target string) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	methods := make([]byte, 2)
	io.ReadFull(r, methods)
	io.CopyN(io.Discard, r, int64(methods[1]))
	conn.Write([]byte{5, 0})
	request := make([]byte, 5)
	io.ReadFull(r, request)
	io.CopyN(io.Discard, r, int64(request[4])+2)
	conn.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 110})
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.Copy(server, r)
		server.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(conn, server)
	conn.Close()
	<-sent
}

// TestUnixSocket: a server at a Unix socket counts as a server on this machine, as the doc of NewClient says.
func TestUnixSocket(t *testing.T) {
	path := t.TempDir() + "/pop3.sock"
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer l.Close()
	srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary})
	defer srv.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		conn, err := l.Accept()
		if err == nil {
			srv.ServeConn(conn)
		}
	}()
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	c, err := pop3.NewClient(t.Context(), conn, nil)
	require.NoError(t, err)
	require.NoError(t, c.Login(t.Context(), "u", canary))
	require.NoError(t, c.Quit(t.Context()))
	<-served
}

// TestNoSecretWithoutTLS: if STLS is missing, refused or broken, no secret is sent (H-140, H-141).
func TestNoSecretWithoutTLS(t *testing.T) {
	for _, row := range []struct{ id, script string }{
		{"H-140 CAPA without STLS", "S: +OK\nC: CAPA\nS: +OK\nS: USER\nS: ."},
		{"H-141 STLS refused", "S: +OK\nC: CAPA\nS: +OK\nS: STLS\nS: .\nC: STLS\nS: -ERR no"},
		{"Q-26 CAPA refused, STLS refused", "S: +OK\nC: CAPA\nS: -ERR\nC: STLS\nS: -ERR"},
	} {
		t.Run(row.id, func(t *testing.T) {
			for _, chunks := range []string{"CHUNK 0", "CHUNK 1", "CHUNK ~7 1", "CHUNK ~3 2"} {
				conn, done := pop3test.Script(chunks + "\n" + row.script)
				_, err := pop3.DialStartTLS(t.Context(), "pop.example.org", &pop3.Options{
					DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
				})
				require.ErrorIs(t, err, pop3.ErrTLSRequired)
				require.NoError(t, done())
				assert.False(t, strings.Contains(err.Error(), "\n"))
			}
		})
	}
}

var errPin = errors.New("not the pinned key")

// C-104: VerifyPeerCertificate is called in each session, even if the cache has a TLS session of a configuration
// without it. With InsecureSkipVerify and no verification function the server counts as unverified, even if another
// configuration has verified the server and left a session in the cache.
func TestPinAndSharedCache(t *testing.T) {
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "u", Password: canary})
	t.Cleanup(srv.Close)
	type settings struct {
		trust, skip           bool
		pin, connection       error // what VerifyPeerCertificate and VerifyConnection return
		hasPin, hasConnection bool
	}
	for _, row := range []struct {
		name          string
		first, second settings
		dials, logsIn bool // whether the second session connects, and whether it may log in
		resumes       bool
	}{
		{name: "chains, and chains again", first: settings{trust: true}, second: settings{trust: true},
			dials: true, logsIn: true, resumes: true},
		{name: "a pin beside chains, after a session without it", first: settings{trust: true},
			second: settings{trust: true, hasPin: true, pin: errPin}},
		{name: "a pin in place of chains, after a session without it", first: settings{skip: true},
			second: settings{skip: true, hasPin: true, pin: errPin}},
		{name: "a pin that fits, twice", first: settings{skip: true, hasPin: true},
			second: settings{skip: true, hasPin: true},
			dials:  true, logsIn: true},
		{name: "a pin that was removed", first: settings{skip: true, hasPin: true}, second: settings{skip: true},
			dials: true},
		{name: "nothing is verified, after chains were", first: settings{trust: true}, second: settings{skip: true},
			dials: true, resumes: true},
		{name: "VerifyConnection is called in each session", first: settings{skip: true, hasConnection: true},
			second: settings{skip: true, hasConnection: true}, dials: true, logsIn: true, resumes: true},
		{name: "VerifyConnection after a session without it", first: settings{skip: true},
			second: settings{skip: true, hasConnection: true, connection: errPin}},
		{name: "VerifyConnection beside a pin", first: settings{skip: true, hasConnection: true, hasPin: true},
			second: settings{skip: true, hasConnection: true, hasPin: true}, dials: true, logsIn: true},
		{name: "a pin beside VerifyConnection, after a session without it",
			first:  settings{skip: true, hasConnection: true},
			second: settings{skip: true, hasConnection: true, hasPin: true, pin: errPin}},
	} {
		t.Run(row.name, func(t *testing.T) {
			cache := tls.NewLRUClientSessionCache(4)
			dial := func(s settings) (*pop3.Client, error) {
				config := &tls.Config{ServerName: "localhost", InsecureSkipVerify: s.skip, ClientSessionCache: cache}
				if s.trust {
					config.RootCAs = srv.ClientTLS().RootCAs
				}
				if s.hasPin {
					config.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return s.pin }
				}
				if s.hasConnection {
					config.VerifyConnection = func(tls.ConnectionState) error { return s.connection }
				}
				return pop3.DialTLS(t.Context(), "pop.example.org", &pop3.Options{
					TLSConfig: config, DialContext: remoteDial(srv.Addr),
				})
			}
			c, err := dial(row.first)
			require.NoError(t, err)
			require.NoError(t, c.Quit(t.Context()))

			c, err = dial(row.second)
			if !row.dials {
				require.ErrorIs(t, err, errPin)
				return
			}
			require.NoError(t, err)
			state, _ := c.TLSConnectionState()
			assert.Equal(t, row.resumes, state.DidResume)
			err = c.User(t.Context(), "u")
			if row.logsIn {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, pop3.ErrInsecureAuth)
			}
			assert.NoError(t, c.Close())
		})
	}
}

// remoteDial connects to addr, whatever address is requested.
func remoteDial(addr string) func(ctx context.Context, network, _ string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

// C-105: a connection to localhost through a SOCKS proxy does not count as a connection to this machine, even if the
// proxy is on this machine.
func TestLocalhostBehindProxy(t *testing.T) {
	srv := pop3test.NewServer(&pop3test.Mailbox{User: "u", Password: canary})
	t.Cleanup(srv.Close)
	dialer, err := proxy.SOCKS5("tcp", startSOCKS(t, srv.Addr), nil, nil)
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(srv.Addr)
	require.NoError(t, err)
	for _, addr := range []string{"localhost:110", "localhost", "localhost:" + port} {
		c, err := pop3.DialInsecure(t.Context(), addr, &pop3.Options{
			DialContext: dialer.(proxy.ContextDialer).DialContext,
		})
		require.NoError(t, err)
		assert.ErrorIs(t, c.User(t.Context(), "u"), pop3.ErrInsecureAuth, addr)
		assert.NoError(t, c.Close())
	}
}

// On port 995 without TLS the client waits only ten seconds for the greeting. That is enough to know that the server
// expects TLS.
func TestSilenceAtTLSPort(t *testing.T) {
	for _, row := range []struct {
		addr    string
		timeout time.Duration
		dial    func(context.Context, string, *pop3.Options) (*pop3.Client, error)
		takes   time.Duration
	}{
		{"127.0.0.1:995", 0, pop3.DialInsecure, 10 * time.Second},
		{"127.0.0.1:995", 0, pop3.DialStartTLS, 10 * time.Second},
		{"127.0.0.1:995", -1, pop3.DialInsecure, 10 * time.Second},
		{"127.0.0.1:995", time.Second, pop3.DialInsecure, time.Second},
		{"127.0.0.1:110", 0, pop3.DialInsecure, 2 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn, _ := pop3test.Script("HOLD")
			start := time.Now()
			_, err := row.dial(t.Context(), row.addr, &pop3.Options{DialContext: dialTo(conn), Timeout: row.timeout})
			assert.ErrorContains(t, err, "use DialTLS, port 995")
			assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
			assert.Equal(t, row.takes, time.Since(start), "%+v", row)
		})
	}
}

// After the greeting Options.Timeout applies on port 995 too.
func TestTimeoutAtTLSPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script("S: +OK\nC: CAPA\nHOLD")
		c, err := pop3.DialInsecure(t.Context(), "127.0.0.1:995", &pop3.Options{DialContext: dialTo(conn)})
		require.NoError(t, err)
		start := time.Now()
		_, err = c.Capa(t.Context())
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, 2*time.Minute, time.Since(start))
		assert.NoError(t, done())
	})
}

// C-108: errors of a dialer are shown without control characters, and an address with control characters is refused.
func TestDialErrorsShown(t *testing.T) {
	failed := errors.New("no route to \x1b[2J\u202ehost\n")
	_, err := pop3.DialTLS(t.Context(), "pop.example.org", &pop3.Options{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, failed },
	})
	assert.ErrorIs(t, err, failed)
	assert.EqualError(t, err, "pop3: dial pop.example.org:995: no route to [2Jhost")
	for _, addr := range []string{"pop.example.org:9\n95", "pop.example.org:\u202e995", "pop.example.org\x1b[2J"} {
		_, err := pop3.DialTLS(t.Context(), addr, nil)
		assert.ErrorIs(t, err, pop3.ErrArgument, "%q", addr)
		checkError(t, err)
	}
}

// C-042: if the server refuses the connection in its greeting, the error contains its text.
func TestRefusedAtGreeting(t *testing.T) {
	conn, _ := pop3test.Script("S: -ERR [SYS/TEMP] too many connections\nEOF")
	_, err := pop3.DialInsecure(t.Context(), "127.0.0.1", &pop3.Options{DialContext: dialTo(conn)})
	refusal, ok := errors.AsType[*pop3.Error](err)
	require.True(t, ok)
	assert.Equal(t, "greeting", refusal.Cmd)
	assert.Equal(t, "too many connections", refusal.Text)
	assert.True(t, refusal.Temporary())
}

// With Timeout below 0, the short time limit for the greeting on port 995 does not apply to later replies.
func TestNoTimeLimitAtPort995(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "u", Password: canary})
		srv.SetFaults(pop3test.Fault{At: "CAPA", Delay: time.Hour})
		here, there := net.Pipe()
		go srv.ServeConn(there)
		c, err := pop3.DialInsecure(t.Context(), "pop.example.org:995", &pop3.Options{Timeout: -1, InsecureAuth: true,
			DialContext: dialTo(here)})
		require.NoError(t, err)
		assert.NoError(t, c.Login(t.Context(), "u", canary))
		assert.NoError(t, c.Close())
	})
}

// A transport may return a timeout error of its own. crypto/tls then returns that error from every later read. So when
// the client looks for unexpected data, it must not set a deadline on the transport below TLS.
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

// errOwnTimeout reports that it is not temporary, as the timeout error of package yamux does.
type errOwnTimeout struct{}

func (errOwnTimeout) Error() string   { return "i/o deadline reached" }
func (errOwnTimeout) Timeout() bool   { return true }
func (errOwnTimeout) Temporary() bool { return false }
