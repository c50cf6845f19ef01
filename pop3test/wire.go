package pop3test

import (
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// errDropped is returned by a session's reads and writes after a fault has ended the connection.
var errDropped = errors.New("pop3test: the connection was dropped by a fault")

// lingerTime is how long the server waits for the client to close the connection too. If the server closed it at once
// while data from the client is unread, TCP would send RST in place of FIN.
const lingerTime = time.Second

// A wire is the server's end of a connection, with the faults that count or split octets.
type wire struct {
	raw  net.Conn // the accepted connection
	conn net.Conn // raw, or a TLS connection over it

	sendLimit, receiveLimit octetLimit

	chunk  int
	pace   time.Duration
	random bool       // chunks have random lengths
	sizes  *rand.Rand // source of the random lengths, for the whole session
	seed   uint64     // the seed of sizes

	release  func() // unlocks the maildrop; called before the client can see that the connection has ended
	dropped  bool   // whether the connection was dropped or closed
	stopping chan struct{}
	stopOnce sync.Once
}

// An octetLimit is the number of octets that may still be sent or received before the connection ends.
type octetLimit struct {
	limited bool
	left    int64
	by      Ending
}

func newWire(conn net.Conn, release func()) *wire {
	w := &wire{raw: conn, conn: conn, release: release, stopping: make(chan struct{})}
	if t, ok := conn.(*tls.Conn); ok {
		w.raw = t.NetConn()
	}
	return w
}

// lower makes the connection end after n more octets, unless it already ends earlier.
func (a *octetLimit) lower(n int64, by Ending) {
	if !a.limited || n < a.left {
		*a = octetLimit{limited: true, left: max(n, 0), by: by}
	}
}

func (a *octetLimit) clip(n int) int {
	if a.limited {
		return int(min(int64(n), a.left))
	}
	return n
}

// count counts n octets and reports whether the limit is reached.
func (a *octetLimit) count(n int) bool {
	a.left -= int64(n)
	return a.limited && a.left <= 0
}

// Read reads what the client sent, up to the octet at which the connection must end.
func (w *wire) Read(p []byte) (int, error) {
	if w.receiveLimit.count(0) {
		w.drop(w.receiveLimit.by)
	}
	if w.dropped {
		return 0, errDropped
	}
	n, err := w.conn.Read(p[:w.receiveLimit.clip(len(p))])
	w.receiveLimit.count(n)
	return n, err
}

// Write sends p, in chunks if a fault says so.
func (w *wire) Write(p []byte) (sent int, err error) {
	for sent < len(p) && err == nil {
		if w.checkSendLimit() {
			return sent, errDropped
		}
		n := w.sendLimit.clip(w.chunkSize(len(p) - sent))
		if w.pace > 0 && !w.sleep(w.pace) {
			return sent, net.ErrClosed
		}
		n, err = w.conn.Write(p[sent : sent+n])
		sent += n
		w.sendLimit.count(n)
		w.checkSendLimit()
	}
	return sent, err
}

// checkSendLimit ends the connection if the limit is reached, and reports whether the connection has ended.
func (w *wire) checkSendLimit() bool {
	if w.sendLimit.count(0) {
		w.drop(w.sendLimit.by)
	}
	return w.dropped
}

// chunkSize returns how many of n octets to send at once.
func (w *wire) chunkSize(n int) int {
	switch {
	case w.chunk == 0:
		return n
	case w.random:
		return min(n, 1+w.sizes.IntN(w.chunk))
	}
	return min(n, w.chunk)
}

// setChunks sets how octets are sent from now on.
func (w *wire) setChunks(f Fault) {
	w.chunk, w.pace = max(f.Chunk, 0), f.Pace
	if w.pace > 0 && w.chunk == 0 {
		w.chunk = 1
	}
	w.random = f.Seed != 0
	if w.random && w.seed != f.Seed {
		w.seed, w.sizes = f.Seed, rand.New(rand.NewPCG(f.Seed, 0))
	}
}

// sleep waits. It returns false if the server is closed in the meantime.
func (w *wire) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.stopping:
		return false
	}
}

// stop ends the connection from another goroutine.
func (w *wire) stop() {
	w.stopOnce.Do(func() { close(w.stopping) })
	w.raw.Close()
}

// drop ends the connection, unless it has ended already. A correct server ends it with CloseNotify. Only faults use the
// other endings.
func (w *wire) drop(by Ending) {
	if w.dropped {
		return
	}
	w.dropped = true
	defer w.raw.Close()
	defer w.release()
	if by == Silence {
		w.raw.SetReadDeadline(time.Time{})
		io.Copy(io.Discard, w.raw)
		return
	}
	w.release()
	if by == CloseNotify {
		w.notify()
	}
	t, ok := w.raw.(*net.TCPConn)
	switch {
	case !ok:
	case by == Reset:
		t.SetLinger(0)
	default:
		linger(t)
	}
}

// notify sends a close_notify if the connection has TLS.
func (w *wire) notify() {
	if t, ok := w.conn.(*tls.Conn); ok {
		t.CloseWrite()
	}
}

// linger closes the server's half of a TCP connection and waits for the client to close the other half.
func linger(t *net.TCPConn) {
	t.CloseWrite()
	t.SetReadDeadline(time.Now().Add(lingerTime))
	io.Copy(io.Discard, t)
}
