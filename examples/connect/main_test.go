package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func writeFile(t *testing.T, content []byte) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "file.pem")
	require.NoError(t, os.WriteFile(file, content, 0o600))
	return file
}

// startCompanyServer starts a server with the maildrop of alice. The server asks for a client certificate.
// startCompanyServer also writes the files for the flags -ca, -cert and -key, and returns their names.
func startCompanyServer(t *testing.T) (srv *pop3test.Server, ca, cert, key string) {
	t.Helper()
	authority := testcert.New()
	caPEM, _ := testcert.PEM(authority.Certificate)
	certPEM, keyPEM := testcert.PEM(authority.Client("alice"))
	ca, cert, key = writeFile(t, caPEM), writeFile(t, certPEM), writeFile(t, keyPEM)
	pair := authority.Issue(&x509.Certificate{Subject: pkix.Name{CommonName: "server"},
		DNSNames: []string{"pop.corp.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	roots, err := readRoots(ca)
	require.NoError(t, err)

	srv = pop3test.NewUnstartedServer(&pop3test.Mailbox{User: "alice", Password: "not used",
		Messages: [][]byte{[]byte("Subject: 1\r\n\r\none\r\n")}})
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, ca, cert, key
}

func TestConnect(t *testing.T) {
	srv, ca, cert, key := startCompanyServer(t)
	socks, requested := startSOCKS(t, srv.Addr)
	tests := []struct {
		name, addr string
		args       []string
		out, err   string
	}{
		{name: "CA of the company", addr: srv.Addr, args: []string{"-ca", ca}, out: "TLS 1.3, with \"CN=server\"\n"},
		{name: "CA that the system does not trust", addr: srv.Addr, err: "certificate"},
		{name: "certificate of the user", addr: srv.Addr, args: []string{"-ca", ca, "-cert", cert, "-key", key},
			out: "TLS 1.3, with \"CN=server\"\nmessages: 1, octets: 19\n"},
		{name: "proxy that looks up the host name", addr: "pop.corp.example",
			args: []string{"-ca", ca, "-socks", socks},
			out:  "TLS 1.3, with \"CN=server\"\n"},
		{name: "proxy that is not running", addr: srv.Addr, args: []string{"-socks", "127.0.0.1:1"},
			err: "socks connect"},
		{name: "CA file without a certificate", addr: srv.Addr, args: []string{"-ca", key},
			err: "contains no certificate"},
		{name: "CA file that does not exist", addr: srv.Addr, args: []string{"-ca", ca + "x"}, err: "no such file"},
		{name: "certificate without a key", addr: srv.Addr, args: []string{"-cert", cert}, err: "must both be set"},
		{name: "key without a certificate", addr: srv.Addr, args: []string{"-key", key}, err: "must both be set"},
		{name: "key file without a key", addr: srv.Addr, args: []string{"-cert", cert, "-key", ca},
			err: "certificate of the user"},
		{name: "no server", err: "-addr is required"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), append([]string{"-addr", tt.addr}, tt.args...), &out, new(bytes.Buffer))
			assert.Equal(t, tt.out, out.String())
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
		})
	}
	require.Len(t, requested, 1)
	assert.Equal(t, "pop.corp.example", <-requested, "the proxy must look up the name")
	assert.Contains(t, srv.Commands(), "AUTH EXTERNAL =")
	assert.NotContains(t, strings.Join(srv.Commands(), "\n"), "PASS")
	assert.True(t, errors.Is(run(t.Context(), []string{"-h"}, nil, new(bytes.Buffer)), flag.ErrHelp))
}

// startSOCKS starts a SOCKS5 proxy (RFC 1928) for one connection. The proxy always connects to target. It sends the
// host name that the client has requested to the channel.
func startSOCKS(t *testing.T, target string) (addr string, requested <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	names := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		hello := make([]byte, 3) // version 5 and one method, which is no authentication
		io.ReadFull(conn, hello)
		conn.Write([]byte{5, 0})
		request := make([]byte, 5) // version 5, command, reserved, type of the address, length of the name
		io.ReadFull(conn, request)
		name := make([]byte, int(request[4])+2) // the name and the port
		io.ReadFull(conn, name)
		names <- string(name[:len(name)-2])
		server, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer server.Close()
		conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		go io.Copy(server, conn)
		io.Copy(conn, server)
	}()
	return l.Addr().String(), names
}
