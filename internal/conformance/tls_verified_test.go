package conformance_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/proxy"

	"github.com/seed-2d50cddb/pop3"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

var errPin = errors.New("not the pinned key")

// C-104: a pin is checked in each session, whatever cache its configuration has. Without one, nothing verifies a server
// for a configuration with InsecureSkipVerify, whatever another configuration has left in the cache.
func TestPinAndSharedCache(t *testing.T) {
	srv := pop3test.NewTLSServer(&pop3test.Mailbox{User: "u", Password: canary})
	t.Cleanup(srv.Close)
	type settings struct {
		trust, skip           bool
		pin, connection       error // of VerifyPeerCertificate and VerifyConnection
		hasPin, hasConnection bool
	}
	for _, row := range []struct {
		name          string
		first, second settings
		dials, logsIn bool // the second session
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

// remoteDial dials addr, whatever was asked for.
func remoteDial(addr string) func(ctx context.Context, network, _ string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

// C-105: behind a SOCKS proxy on this machine, localhost is another machine.
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

// In clear at port 995 a silent server is waited for as long as it takes to know that it waits for TLS.
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
			_, err := row.dial(t.Context(), row.addr, &pop3.Options{DialContext: dialling(conn), Timeout: row.timeout})
			assert.ErrorContains(t, err, "use DialTLS, port 995")
			assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
			assert.Equal(t, row.takes, time.Since(start), "%+v", row)
		})
	}
}

// After the greeting Options.Timeout holds at port 995 too.
func TestTimeoutAtTLSPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, done := pop3test.Script("S: +OK\nC: CAPA\nHOLD")
		c, err := pop3.DialInsecure(t.Context(), "127.0.0.1:995", &pop3.Options{DialContext: dialling(conn)})
		require.NoError(t, err)
		start := time.Now()
		_, err = c.Capa(t.Context())
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Equal(t, 2*time.Minute, time.Since(start))
		assert.NoError(t, done())
	})
}

// C-108: the error of a dialer, and an address, can be shown on a terminal.
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

// C-042: a server that refuses the connection says why.
func TestRefusedAtGreeting(t *testing.T) {
	conn, _ := pop3test.Script("S: -ERR [SYS/TEMP] too many connections\nEOF")
	_, err := pop3.DialInsecure(t.Context(), "127.0.0.1", &pop3.Options{DialContext: dialling(conn)})
	refusal, ok := errors.AsType[*pop3.Error](err)
	require.True(t, ok)
	assert.Equal(t, "greeting", refusal.Cmd)
	assert.Equal(t, "too many connections", refusal.Text)
	assert.True(t, refusal.Temporary())
}
