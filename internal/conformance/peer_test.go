package conformance_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3/internal/testcert"
)

// A peer is a server that a test implements with code, because a script cannot compute responses or use TLS.
type peer struct {
	net.Conn
	t       *testing.T
	lines   *bufio.Reader
	secrets *secrets // TLS secrets of the connection; see rawServerTLS
}

func newPeer(t *testing.T, conn net.Conn) *peer {
	return &peer{Conn: conn, t: t, lines: bufio.NewReader(conn)}
}

// serve runs a server on a goroutine and returns the client's end of the connection. The test waits until the function
// server returns. That function must return when the client closes the connection, or earlier.
func serve(t *testing.T, server func(p *peer)) net.Conn {
	client, conn := net.Pipe()
	out := &bufferedConn{Conn: conn}
	out.changed.L = &out.mu
	var running sync.WaitGroup
	running.Go(out.deliver)
	running.Go(func() {
		p := &peer{Conn: out, t: t, lines: bufio.NewReader(out)}
		defer func() { p.Conn.Close() }()
		server(p)
	})
	t.Cleanup(func() {
		client.Close()
		running.Wait()
	})
	return client
}

// A chunkedConn reads at most max octets at once.
type chunkedConn struct {
	net.Conn
	max int
}

func (s chunkedConn) Read(p []byte) (int, error) { return s.Conn.Read(p[:min(s.max, len(p))]) }

// readSizes are the values of max to test: one octet at a time, a few octets, or everything that has arrived.
var readSizes = []int{1, 7, 1 << 16}

// A bufferedConn makes a pipe more like a socket. It buffers the data that the other end does not read at once.
type bufferedConn struct {
	net.Conn
	mu       sync.Mutex
	changed  sync.Cond
	buffered []byte
	closed   bool
	err      error // the error of the last write
}

const connBuffer = 64 << 10

func (o *bufferedConn) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && !o.closed && len(o.buffered) >= connBuffer {
		o.changed.Wait()
	}
	if o.closed {
		return 0, net.ErrClosed
	}
	if o.err != nil {
		return 0, o.err
	}
	o.buffered = append(o.buffered, p...)
	o.changed.Broadcast()
	return len(p), nil
}

// Close closes the connection after the buffered data was written.
func (o *bufferedConn) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.changed.Broadcast()
	return nil
}

// SetWriteDeadline does nothing. tls.Conn.Close sets a write deadline, which would cut off the buffered data.
func (o *bufferedConn) SetWriteDeadline(time.Time) error { return nil }

// deliver writes the buffered data, until the connection is closed.
func (o *bufferedConn) deliver() {
	defer o.Conn.Close()
	for {
		waiting := o.next()
		if waiting == nil {
			return
		}
		if _, err := o.Conn.Write(waiting); err != nil {
			o.mu.Lock()
			o.err = err
			o.changed.Broadcast()
			o.mu.Unlock()
			return
		}
	}
}

// next waits for data to write. It returns nil when the connection is closed and the buffer is empty.
func (o *bufferedConn) next() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buffered) == 0 && !o.closed {
		o.changed.Wait()
	}
	waiting := o.buffered
	o.buffered = nil
	o.changed.Broadcast()
	return waiting
}

// send sends octets. It ignores an error, because the client may have closed the connection.
func (p *peer) send(octets string) { p.Write([]byte(octets)) }

// line returns the client's next line without CRLF. It returns "" when the client has closed the connection.
func (p *peer) line() string {
	line, err := p.lines.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(line, "\r\n")
}

// expect checks that the client's next line is line.
func (p *peer) expect(line string) bool {
	return assert.Equal(p.t, line, p.line(), "the line of the client")
}

// expectNothing checks that the client sends nothing more.
func (p *peer) expectNothing() { assert.Empty(p.t, p.line(), "the line of the client") }

// login accepts the login of the client.
func (p *peer) login() {
	p.send("+OK ready\r\n")
	p.expect("USER u")
	p.send("+OK\r\n")
	p.expect("PASS " + canary)
	p.send("+OK\r\n")
}

// startTLS starts TLS on the connection. It reports whether the handshake succeeded.
func (p *peer) startTLS(config *tls.Config) bool {
	tc := tls.Server(p.Conn, config)
	if tc.Handshake() != nil {
		return false
	}
	p.Conn, p.lines = tc, bufio.NewReader(tc)
	return true
}

// heapInUse returns the size of the heap that is in use.
func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A link is one direction of a connection with a delay. Data can be read when the delay has passed, and a write never
// blocks. In a synctest bubble the delay is exact and takes no real time.
type link struct {
	delay time.Duration

	mu     sync.Mutex
	more   *sync.Cond
	queue  []segment
	closed bool
}

type segment struct {
	octets []byte
	due    time.Time
}

func newLink(delay time.Duration) *link {
	l := &link{delay: delay}
	l.more = sync.NewCond(&l.mu)
	return l
}

func (l *link) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, io.ErrClosedPipe
	}
	l.queue = append(l.queue, segment{append([]byte(nil), p...), time.Now().Add(l.delay)})
	l.more.Signal()
	return len(p), nil
}

func (l *link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.more.Signal()
	return nil
}

// next waits for data and returns it. It returns nil at the end of the stream.
func (l *link) next() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 && !l.closed {
		l.more.Wait()
	}
	if len(l.queue) == 0 {
		return nil
	}
	f := l.queue[0]
	l.queue = l.queue[1:]
	l.mu.Unlock()
	time.Sleep(time.Until(f.due))
	l.mu.Lock()
	return f.octets
}

// pump copies one direction from one end to the other.
func (l *link) pump(from io.Reader, to net.Conn) {
	var ends sync.WaitGroup
	ends.Go(func() {
		io.Copy(l, from)
		l.Close()
	})
	for p := l.next(); p != nil; p = l.next() {
		if _, err := to.Write(p); err != nil {
			break
		}
	}
	to.Close()
	ends.Wait()
}

// delayedPipe connects a client and a server with the given round-trip time. wait returns when both ends are closed.
func delayedPipe(roundTrip time.Duration) (client, server net.Conn, wait func()) {
	client, near := net.Pipe()
	far, server := net.Pipe()
	var pumps sync.WaitGroup
	pumps.Go(func() { newLink(roundTrip/2).pump(near, far) })
	pumps.Go(func() { newLink(roundTrip/2).pump(far, near) })
	return client, server, pumps.Wait
}

var trustedAuthority = sync.OnceValue(func() *testcert.Authority { return testcert.New() })

// serverTLS returns the configuration of a server with a valid certificate for pop.example.com. clientTLS trusts it.
var serverTLS = sync.OnceValue(func() *tls.Config { return configWith(trustedAuthority().Server("pop.example.com")) })

func clientTLS() *tls.Config { return &tls.Config{RootCAs: trustedAuthority().Pool()} }

// configWith returns the configuration of a server with the certificate cert.
func configWith(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}
