package pop3_test

import (
	"bufio"
	"crypto/tls"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A peer is a server by hand, for what a script can't say: it computes answers, or speaks TLS.
type peer struct {
	net.Conn
	t     *testing.T
	lines *bufio.Reader
}

// serve runs a server on a goroutine and gives the client's end. The test waits for the end of the server, which
// comes at the latest when the client hangs up.
func serve(t *testing.T, server func(p *peer)) net.Conn {
	client, conn := net.Pipe()
	over := make(chan struct{})
	go func() {
		defer close(over)
		p := &peer{Conn: conn, t: t, lines: bufio.NewReader(conn)}
		defer func() { p.Conn.Close() }()
		server(p)
	}()
	t.Cleanup(func() {
		client.Close()
		<-over
	})
	return client
}

// says sends octets. A client that is gone does not hear them.
func (p *peer) says(octets string) { p.Write([]byte(octets)) }

// line gives what the client says next, without CRLF, and "" at the end.
func (p *peer) line() string {
	line, err := p.lines.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(line, "\r\n")
}

// hears wants the client to say line.
func (p *peer) hears(line string) bool {
	return assert.Equal(p.t, line, p.line(), "what the client says")
}

// silence wants the client to say nothing more.
func (p *peer) silence() { assert.Empty(p.t, p.line(), "what the client says") }

// login lets the client in.
func (p *peer) login() {
	p.says("+OK ready\r\n")
	p.hears("USER u")
	p.says("+OK\r\n")
	p.hears("PASS " + canary)
	p.says("+OK\r\n")
}

// startTLS goes on over TLS. It reports whether the handshake succeeded.
func (p *peer) startTLS(config *tls.Config) bool {
	tc := tls.Server(p.Conn, config)
	if tc.Handshake() != nil {
		return false
	}
	p.Conn, p.lines = tc, bufio.NewReader(tc)
	return true
}

// heap gives the octets in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
