package pop3test_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// upgrade starts TLS at the client's end.
func (k *client) upgrade(conf *tls.Config) {
	k.t.Helper()
	t := tls.Client(k.conn, conf)
	require.NoError(k.t, t.Handshake())
	k.conn, k.in = t, bufio.NewReader(t)
}

func withName(conf *tls.Config, name string) *tls.Config {
	conf.ServerName = name
	return conf
}

func TestSTLS(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.TLS = new(tls.Config)
	overPipe(t, srv, func(k *client) {
		k.play("S: +OK *\nC: STLS\nS: +OK begin TLS")
		k.upgrade(withName(srv.ClientTLS(), "localhost"))
		k.play("C: STLS\nS: -ERR STLS is not available\n" +
			"C: APOP mrose 00\nS: -ERR no timestamp, no APOP\n" +
			"C: USER mrose\nS: +OK *\nC: PASS tanstaaf\nS: +OK *\nC: DELE 1\nS: +OK *\nC: QUIT\nS: +OK *")
		rest, err := k.readAll()
		assert.Empty(t, rest)
		assert.Equal(t, io.EOF, err)
	})
	assert.Equal(t, []int{200}, leftSizes(srv))
}

func TestSTLSRefused(t *testing.T) {
	for _, tt := range []struct {
		name, transcript string
		tls              *tls.Config
	}{
		{"without a certificate", "S: +OK *\nC: STLS\nS: -ERR STLS is not available\nC: USER u\nS: +OK *", nil},
		{"R1-153 after UTF8", "S: +OK *\nC: UTF8\nS: +OK *\nC: STLS\nS: -ERR STLS is not available", new(tls.Config)},
		{"with commands after it", "S: +OK *\nC: STLS\nC: USER u\nS: -ERR nothing may follow *", new(tls.Config)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(newBox())
			srv.TLS = tt.tls
			overPipe(t, srv, func(k *client) { k.play(tt.transcript) })
		})
	}
}

// In a bubble of synctest, tls.Server makes a connection for a session with TLS from the first octet.
func TestServeConnTLS(t *testing.T) {
	srv := pop3test.NewTLSServer(newBox())
	defer srv.Close()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			srv.ServeConn(tls.Server(server, srv.ServerTLS()))
		}()
		k := newClient(t, client)
		k.upgrade(withName(srv.ClientTLS(), "pop.example.com"))
		k.play("S: +OK *\nC: STLS\nS: -ERR STLS is not available\nC: QUIT\nS: +OK *")
		k.conn.Close()
		<-done
	})
}

func TestCertificateNames(t *testing.T) {
	srv := pop3test.NewTLSServer(newBox())
	defer srv.Close()
	for _, name := range []string{"", "127.0.0.1", "::1", "localhost", "example.com", "pop.example.com"} {
		conn, err := tls.Dial("tcp", srv.Addr, withName(srv.ClientTLS(), name))
		require.NoError(t, err, name)
		conn.Close()
	}
	_, err := tls.Dial("tcp", srv.Addr, withName(srv.ClientTLS(), "example.org"))
	assert.ErrorAs(t, err, new(x509.HostnameError))
	_, err = tls.Dial("tcp", srv.Addr, nil)
	assert.ErrorAs(t, err, new(x509.UnknownAuthorityError))
}

func TestAuthExternal(t *testing.T) {
	for _, tt := range []struct{ name, subject, auth, reply string }{
		{"without a name", "mrose", "AUTH EXTERNAL =", "+OK maildrop *"},
		{"with the same name", "mrose", "AUTH EXTERNAL " + b64("mrose"), "+OK maildrop *"},
		{"with another name", "mrose", "AUTH EXTERNAL " + b64("other"), "-ERR [AUTH] *"},
		{"an unknown user in the certificate", "nobody", "AUTH EXTERNAL =", "-ERR [AUTH] *"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := pop3test.NewUnstartedServer(newBox())
			srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
			srv.StartTLS()
			defer srv.Close()
			conf := srv.ClientTLS()
			conf.Certificates = []tls.Certificate{testcert.New().Client(tt.subject)}
			conn, err := tls.Dial("tcp", srv.Addr, conf)
			require.NoError(t, err)
			defer conn.Close()
			newClient(t, conn).play("S: +OK *\nC: CAPA\nS: +OK\nS: TOP\nS: UIDL\nS: USER\nS: RESP-CODES\n" +
				"S: AUTH-RESP-CODE\nS: PIPELINING\nS: SASL * EXTERNAL OAUTHBEARER XOAUTH2\nS: EXPIRE NEVER\n" +
				"S: UTF8 USER\nS: LANG\nS: IMPLEMENTATION pop3test\nS: .\nC: " + tt.auth + "\nS: " + tt.reply)
		})
	}
}

// ClientTLS trusts a certificate that the test has given to the server.
func TestOwnCertificate(t *testing.T) {
	srv := pop3test.NewUnstartedServer(newBox())
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{testcert.New("own.example.net").Certificate}}
	srv.StartTLS()
	defer srv.Close()
	conn, err := tls.Dial("tcp", srv.Addr, withName(srv.ClientTLS(), "own.example.net"))
	require.NoError(t, err)
	conn.Close()
}

// All sessions use the same configuration, so that TLS sessions can be resumed.
func TestResumption(t *testing.T) {
	srv := pop3test.NewTLSServer(newBox())
	defer srv.Close()
	conf := srv.ClientTLS()
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, want := range []bool{false, true} {
		conn, err := tls.Dial("tcp", srv.Addr, conf)
		require.NoError(t, err)
		newClient(t, conn).play(login + "C: QUIT\nS: +OK *")
		assert.Equal(t, want, conn.ConnectionState().DidResume)
		conn.Close()
	}
}
