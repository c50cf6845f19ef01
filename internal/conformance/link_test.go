package conformance_test

import (
	"io"
	"net"
	"sync"
	"time"
)

// A link is one direction of a long line: what is written comes out after delay, and nothing ever blocks the
// writer. In a synctest bubble the delay costs nothing and is exact.
type link struct {
	delay time.Duration

	mu     sync.Mutex
	more   *sync.Cond
	queue  []flight
	closed bool
}

type flight struct {
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
	l.queue = append(l.queue, flight{append([]byte(nil), p...), time.Now().Add(l.delay)})
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

// next waits for what is due, nil at the end.
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

// pump carries a direction from one end to the other.
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

// longLine connects a client and a server with a line of the given round trip time. wait ends when both ends are
// closed.
func longLine(roundTrip time.Duration) (client, server net.Conn, wait func()) {
	client, near := net.Pipe()
	far, server := net.Pipe()
	var pumps sync.WaitGroup
	pumps.Go(func() { newLink(roundTrip/2).pump(near, far) })
	pumps.Go(func() { newLink(roundTrip/2).pump(far, near) })
	return client, server, pumps.Wait
}
